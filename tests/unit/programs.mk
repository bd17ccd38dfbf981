# The C programs of tests/unit, tests/stress and tests/fuzz.  They are linked with the engine's objects, not with the
# library, so that they reach what it hides: its modules and the table of system calls.
#
#   make -f tests/unit/programs.mk programs                      with the engine of `make build`
#   make -f tests/unit/programs.mk programs BUILD=build/asan CFLAGS_EXTRA=-fsanitize=address,undefined

include Makefile

GROUPS := unit stress fuzz
# In tests/unit/support is what they share; tests/support/las_test.c is the harness of all C tests.
SHARED_SRC := tests/support/las_test.c $(wildcard tests/unit/support/*.c)
PROGRAM_SRC := $(foreach group,$(GROUPS),$(wildcard tests/$(group)/*.c))
SHARED_OBJ := $(SHARED_SRC:%.c=$(OBJ)/%.o)
# libaio's names, which the harness calls.
NAMES_OBJ := $(OBJ)/compat/facade_static.o
PROGRAM_OBJ := $(PROGRAM_SRC:%.c=$(OBJ)/%.o)
PROGRAMS := $(PROGRAM_SRC:%.c=$(BUILD)/%)
ARCHIVE := $(BUILD)/lib/engine.a

.PHONY: programs
programs: $(PROGRAMS)

# The harness has the GNU dialect and parameters that only some cases use.
$(SHARED_OBJ) $(PROGRAM_OBJ): private ALL_CFLAGS += -std=gnu11 -O1 -Wno-unused-parameter -Wno-conversion \
    -Wno-missing-prototypes -Itests/support -Itests/unit/support
$(ARCHIVE): $(ENGINE_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/tests/%: $(OBJ)/tests/%.o $(SHARED_OBJ) $(NAMES_OBJ) $(ARCHIVE)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -rdynamic -o $@ $< $(SHARED_OBJ) $(NAMES_OBJ) -Wl,--whole-archive $(ARCHIVE) -Wl,--no-whole-archive -ldl

-include $(SHARED_OBJ:.o=.d) $(PROGRAM_OBJ:.o=.d)
