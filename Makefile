# Needs a C compiler and make; `demo`, `test`, `bench` and `lint` also python3 (3.10 or newer) with its venv module.
#
#   make build     $(BUILD)/lib and $(BUILD)/bin           make demo    the shim beside kernel AIO, one table
#   make test      all this machine can run                make bench   the benchmark (BENCH_ARGS="...")
#   make lint      formatters, linters, types              make format  apply the formatters
#   make clean     remove $(BUILD)
#
# Other builds live beside the default one:
#   make build BUILD=build/asan CFLAGS_EXTRA="-fsanitize=address,undefined"
#   make build BUILD=build/clang CC=clang

BUILD ?= build
# One name for each object, or what is noted of its headers under the absolute one would not count under the other.
override BUILD := $(patsubst $(CURDIR)/%,%,$(BUILD))
ifneq (1,$(words $(BUILD)))
$(error BUILD='$(BUILD)': one directory, without a space in its name)
endif
PYTHON ?= python3
CFLAGS ?= -O2 -g
CFLAGS_EXTRA ?=
LDFLAGS ?=
CLANG_FORMAT ?= clang-format
# Most tests wait for something; a few at a time keep two processors busy.
PYTEST_ARGS ?= -n 4
BENCH_ARGS ?=
DEMO_ARGS ?=

# The one place of the version is pyproject.toml.
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
ALL_CPPFLAGS := -Iinclude -Icsrc -D_GNU_SOURCE '-DLAS_VERSION="$(VERSION)"' $(CPPFLAGS)
# Some distributions ask for LTO; it would lose what the assembler defines, uses and names versions of.
ALL_CFLAGS := -std=c11 $(WARNINGS) -fPIC -pthread $(CFLAGS) $(CFLAGS_EXTRA) -fno-lto
# nodelete: crew threads run in the library, dlclose must not take it from under them.
ALL_LDFLAGS := -shared -Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now $(LDFLAGS)
# Every symbol must resolve, except that clang leaves the sanitizers' own to the program.
ifeq (,$(findstring -fsanitize,$(CFLAGS) $(CFLAGS_EXTRA)))
ALL_LDFLAGS += -Wl,-z,defs
endif

# The compiler knows which of its tools is for its target.
tool = $(shell $(CC) -print-prog-name=$(1))

LIB := $(BUILD)/lib
OBJ := $(BUILD)/obj
ENGINE := $(LIB)/libaio_shim.so.0
FACADES := $(LIB)/libaio.so.1 $(LIB)/libaio.so.1t64
# Its assembler knows two machines; elsewhere the launcher does without.
SYSCALLS := $(if $(filter x86_64% aarch64%,$(shell $(CC) -dumpmachine)),$(LIB)/libaio_syscall.so)
# And this one knows one.
TRAP := $(if $(filter x86_64%,$(shell $(CC) -dumpmachine)),$(LIB)/libaio_trap.so)
# What `cc -laio` and `cc -laio_shim` look for, dynamic and static, the headers beside it, and pkg-config's files.
DEV := $(LIB)/libaio.so $(LIB)/libaio_shim.so $(LIB)/libaio.a $(LIB)/libaio_shim.a \
    $(BUILD)/include/libaio.h $(BUILD)/include/libaio_shim.h \
    $(LIB)/pkgconfig/libaio.pc $(LIB)/pkgconfig/libaio-shim.pc
LAUNCHER := $(BUILD)/bin/libaio-shim

ENGINE_SRC := $(sort $(wildcard csrc/base/*.c csrc/lanes/*.c csrc/aio/*.c))
ENGINE_OBJ := $(ENGINE_SRC:%.c=$(OBJ)/%.o)
FACADE_OBJ := $(OBJ)/compat/facade.o
SYSCALLS_OBJ := $(OBJ)/compat/syscall.o $(OBJ)/compat/ending.o $(OBJ)/compat/eventfd.o $(OBJ)/compat/raw.o
TRAP_OBJ := $(OBJ)/compat/trap.o $(OBJ)/compat/trap_range.o $(OBJ)/compat/trap_guard.o \
    $(OBJ)/compat/trap_sys.o $(OBJ)/compat/raw.o $(OBJ)/csrc/base/fallback.o

.PHONY: build test demo bench lint format clean
.DELETE_ON_ERROR:

build: $(ENGINE) $(FACADES) $(SYSCALLS) $(TRAP) $(DEV) $(LAUNCHER)

# Only the symbol map exports from the engine; hidden makes the compiler know it too.  The facade is all export.
$(OBJ)/csrc/%.o $(SYSCALLS_OBJ) $(TRAP_OBJ): VISIBILITY := -fvisibility=hidden
$(OBJ)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(VISIBILITY) -MMD -MP -c -o $@ $<

$(ENGINE): $(ENGINE_OBJ) csrc/libaio_shim.map $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -Wl,-soname,$(@F) -Wl,--version-script=csrc/libaio_shim.map -o $@ $(ENGINE_OBJ)

$(FACADES): $(FACADE_OBJ) compat/libaio.map $(ENGINE)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -Wl,-soname,$(@F) -Wl,--version-script=compat/libaio.map \
	    -Wl,--enable-new-dtags '-Wl,-rpath,$$ORIGIN' -o $@ $(FACADE_OBJ) $(ENGINE)

$(LIB)/libaio_syscall.so: $(SYSCALLS_OBJ) compat/syscall.map
$(LIB)/libaio_trap.so: $(TRAP_OBJ) compat/trap.map
$(LIB)/libaio_%.so: $(ENGINE)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -Wl,-soname,$(@F) -Wl,--version-script=compat/$*.map \
	    -Wl,--enable-new-dtags '-Wl,-rpath,$$ORIGIN' -o $@ $(filter %.o,$^) $(ENGINE) -ldl

$(LIB)/libaio.so: $(LIB)/libaio.so.1
	ln -sf $(<F) $@

$(LIB)/libaio_shim.so: $(ENGINE)
	ln -sf $(<F) $@

# One object, so that a program that needs any of it gets all, the handlers for its end too; inside, only the public
# names stay visible.
$(LIB)/libaio_shim.a: $(ENGINE_OBJ) $(OBJ)/compat/facade_static.o
	$(CC) -r -nostdlib -o $(OBJ)/libaio_shim.o $^
	$(call tool,objcopy) --localize-hidden $(OBJ)/libaio_shim.o
	rm -f $@
	$(call tool,ar) rcs $@ $(OBJ)/libaio_shim.o

$(LIB)/libaio.a: $(LIB)/libaio_shim.a
	ln -sf $(<F) $@

$(OBJ)/compat/facade_static.o: compat/facade.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) -DLAS_STATIC_LIBRARY $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/include/%.h: include/%.h
	@mkdir -p $(@D)
	cp $< $@

$(LIB)/pkgconfig/%.pc: compat/%.pc.in pyproject.toml
	@mkdir -p $(@D)
	sed 's/@VERSION@/$(VERSION)/' $< >$@

$(LAUNCHER): compat/libaio-shim pyproject.toml
	@mkdir -p $(@D)
	sed 's/@VERSION@/$(VERSION)/' $< >$@
	chmod 755 $@

# Changes only when the compiler, a flag or the list of sources does; everything is built anew then.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(foreach word,$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(ENGINE_SRC),'$(subst ','\'',$(word))') >$@.new
	@if cmp -s $@.new $@; then rm -f $@.new; else mv -f $@.new $@; fi
.PHONY: FORCE
FORCE:

-include $(OBJ)/compat/facade_static.d $(ENGINE_OBJ:.o=.d) $(FACADE_OBJ:.o=.d) $(SYSCALLS_OBJ:.o=.d) $(TRAP_OBJ:.o=.d)

# The virtual environment is the same for every BUILD.  The package is installed editable: the tests see the sources
# and take the libraries of `make build`.
VENV := build/venv
VENV_PYTHON := $(VENV)/bin/python
PIP := $(VENV_PYTHON) -m pip --quiet --disable-pip-version-check
# What runs in it finds the libraries here.
export LIBAIO_SHIM_BUILD := $(abspath $(BUILD))

$(VENV_PYTHON):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or newer is needed; $(PYTHON) is not there or is older (make PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment in $(VENV) (Debian: apt-get install python3-venv)" >&2; exit 1; }

$(VENV)/ready-run: $(VENV_PYTHON) pyproject.toml setup.py
	$(PIP) install --editable .
	@touch $@

$(VENV)/ready-%: $(VENV_PYTHON) pyproject.toml setup.py
	$(PIP) install --editable '.[$*]'
	@touch $@ $(VENV)/ready-run

test: build $(VENV)/ready-test
	$(VENV_PYTHON) -m pytest $(PYTEST_ARGS)

demo: build $(VENV)/ready-run
	$(VENV_PYTHON) bench/demo.py $(DEMO_ARGS)

bench: build $(VENV)/ready-run
	$(VENV_PYTHON) bench $(BENCH_ARGS)

C_FILES = $(shell find include csrc compat examples tests bench libaio_shim -name '*.[ch]')
SH_FILES := compat/libaio-shim .ci/run

lint: $(VENV)/ready-dev
	$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	shellcheck $(SH_FILES)

format: $(VENV)/ready-dev
	$(CLANG_FORMAT) -i $(C_FILES)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(BUILD)
