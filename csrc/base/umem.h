/*
 * umem.h - may the program's memory at this address be touched?
 *
 * The kernel answers a bad pointer with EFAULT; a library that just follows
 * it dies.  A page that the library has not yet come to know is tried by a
 * system call that reads or rewrites a word there and reports EFAULT.  A page
 * that passed LAS_UMEM_TRUST tries is trusted from then on, so that a busy
 * program pays nothing.
 *
 * KERNEL: umem-trust: a pointer into a page that was used by many calls and
 * was then unmapped, or protected, by the program raises SIGSEGV in the calling
 * thread where the kernel reports EFAULT (test: submit.iocb_in_a_page_used_often_and_then_unmapped).
 */
#ifndef LAS_BASE_UMEM_H
#define LAS_BASE_UMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"

#define LAS_UMEM_TRUST 32
#define LAS_UMEM_PAGE_SHIFT 12
#define LAS_UMEM_ENTRIES 512

enum las_umem_access { LAS_UMEM_READ, LAS_UMEM_WRITE };

/* Page number << 8 | tries passed.  Relaxed: a lost update costs one more try, a stale entry was true when written. */
extern uint64_t las_umem_known[2][LAS_UMEM_ENTRIES];

/* Tries each page that is not trusted yet, by a system call: true if all of it is there. */
bool las_umem_try(enum las_umem_access access, uintptr_t addr, size_t bytes);

/* A page may stand in either of two neighbouring entries, so that two busy pages do not drive each other out. */
static inline size_t las_umem_slot(uintptr_t page)
{
	return (size_t)(page * 0x9e3779b97f4a7c15u >> 55);
}

static inline bool las_umem_ok(enum las_umem_access access, const void *ptr, size_t bytes)
{
	uintptr_t addr = (uintptr_t)ptr, page = addr >> LAS_UMEM_PAGE_SHIFT;
	uint64_t trusted = (uint64_t)page << 8 | LAS_UMEM_TRUST;
	size_t slot = las_umem_slot(page);

	if (las_likely((addr + bytes - 1) >> LAS_UMEM_PAGE_SHIFT == page) &&
	    las_likely(las_load_relaxed(&las_umem_known[access][slot]) == trusted ||
	               las_load_relaxed(&las_umem_known[access][slot ^ 1]) == trusted))
		return true;
	return las_umem_try(access, addr, bytes);
}

/* bytes > 0.  True when all of it can be read; nothing is changed. */
static inline bool las_umem_readable(const void *ptr, size_t bytes)
{
	return las_umem_ok(LAS_UMEM_READ, ptr, bytes);
}

/* bytes > 0.  True when all of it can be read and written; nothing is changed. */
static inline bool las_umem_writable(void *ptr, size_t bytes)
{
	return las_umem_ok(LAS_UMEM_WRITE, ptr, bytes);
}

#endif
