/*
 * trap_range.c - the code whose system calls are not caught, see trap.h.
 *
 * The kernel takes one range of addresses.  It starts as libc's code, where
 * nearly all of a program's system calls are made, and grows over neighbours
 * as long as these are the loader, the kernel's vdso or the shim's own
 * libraries.  Code of anybody else ends it: a call from there must be seen.
 * What of the trusted libraries stays outside works as well, only slower.
 */
#include "trap.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uintptr_t las_trap_allowed_start, las_trap_allowed_bytes;

struct region {
	uintptr_t start, end;
	bool code, trusted;
};

/* A function that cannot fail is all there is to see of a wrapper: a number, the instruction, a return. */
static uintptr_t find_gadget(void)
{
	static const char *const names[] = { "getppid", "getpid", "getuid", "getpgrp" };
	static const unsigned char wanted[] = { 0x0f, 0x05, 0xc3 };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const unsigned char *function = dlsym(RTLD_NEXT, names[i]);

		for (size_t at = 0; function && at < 24; at++)
			if (memcmp(function + at, wanted, sizeof(wanted)) == 0)
				return (uintptr_t)(function + at);
	}
	return 0;
}

struct search {
	uintptr_t address, start, end;
};

static int look_at_object(struct dl_phdr_info *object, size_t bytes, void *arg)
{
	struct search *search = arg;

	(void)bytes;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &object->dlpi_phdr[i];
		uintptr_t start = object->dlpi_addr + p->p_vaddr;

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X) || search->address - start >= p->p_memsz)
			continue;
		search->start = start;
		search->end = start + p->p_memsz;
		return 1;
	}
	return 0;
}

bool las_trap_code_of(const void *address, uintptr_t *start, uintptr_t *end)
{
	struct search search = { (uintptr_t)address, 0, 0 };

	if (!dl_iterate_phdr(look_at_object, &search))
		return false;
	*start = search.start;
	*end = search.end;
	return true;
}

static bool is_trusted(const char *path)
{
	static const char *const beginnings[] = { "ld-linux",      "ld-musl",         "libc.so.6",
		                                  "libc-2.",       "libpthread",      "librt",
		                                  "libaio.so.1",   "libaio_shim.so.", "libaio_syscall.so",
		                                  "libaio_trap.so" };
	const char *name = strrchr(path, '/');
	Dl_info mine;

	if (strcmp(path, "[vdso]") == 0)
		return true;
	name = name ? name + 1 : path;
	for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++)
		if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0) {
			/* A libaio is trusted only if it is the one beside this library: the system's is to be caught. */
			if (strncmp(name, "libaio", 6) != 0)
				return true;
			if (!dladdr(&las_trap_gadget, &mine) || !strrchr(mine.dli_fname, '/'))
				return false;
			return strncmp(path, mine.dli_fname,
			               (size_t)(strrchr(mine.dli_fname, '/') - mine.dli_fname) + 1) == 0;
		}
	return false;
}

/* One line of /proc/self/maps: start-end perms offset device inode path. */
static bool parse(char *line, struct region *region)
{
	char *at = line, *path;

	region->start = strtoul(at, &at, 16);
	if (*at != '-')
		return false;
	region->end = strtoul(at + 1, &at, 16);
	if (strlen(at) < 4)
		return false;
	region->code = at[3] == 'x';
	path = strpbrk(at, "/[");
	region->trusted = path && is_trusted(path);
	return true;
}

/* Grows the range, line by line in the order of addresses. */
static void grow(FILE *maps)
{
	uintptr_t start = 0, end = 0, last = 0; /* of the present run of neighbours: its code, and where it goes on */
	char line[4352];

	while (fgets(line, sizeof(line), maps)) {
		struct region region;

		line[strcspn(line, "\n")] = '\0';
		if (!parse(line, &region))
			return;
		if (region.start != last || (region.code && !region.trusted)) {
			if (start <= las_trap_gadget && las_trap_gadget < end)
				break;
			start = end = 0;
		}
		last = region.end;
		if (region.code && region.trusted) {
			start = start ? start : region.start;
			end = region.end;
		}
	}
	if (start <= las_trap_gadget && las_trap_gadget < end) {
		las_trap_allowed_start = start;
		las_trap_allowed_bytes = end - start;
	}
}

bool las_trap_find_range(void)
{
	uintptr_t gadget = find_gadget(), start, end;
	FILE *maps;

	if (!gadget || !las_trap_code_of((const void *)gadget, &start, &end))
		return false;
	las_trap_gadget = gadget;
	las_trap_allowed_start = start;
	las_trap_allowed_bytes = end - start;
	maps = fopen("/proc/self/maps", "re");
	if (maps) {
		grow(maps);
		fclose(maps);
	}
	return true;
}
