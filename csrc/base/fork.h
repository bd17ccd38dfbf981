/*
 * fork.h - is this still the process that the library's state describes?
 *
 * One page of memory is marked MADV_WIPEONFORK: the kernel hands a forked
 * child a zeroed copy, however it was forked, while a clone(CLONE_VM) child,
 * which shares all memory, rightly sees the same state.  Process ids are not
 * compared, they cannot tell the two apart.
 *
 * Callers' obligation: every entry point asks las_process_ready() and, if it
 * says no, calls las_process_start() with the function that puts every module
 * into its first state.
 */
#ifndef LAS_BASE_FORK_H
#define LAS_BASE_FORK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/atomic.h"

enum { LAS_PROCESS_NEW, LAS_PROCESS_STARTING, LAS_PROCESS_READY };

extern uint32_t *las_process_state; /* in the wiped page; NULL before the first use */

static inline bool las_process_ready(void)
{
	/* Acquire: pairs with the release that publishes READY, so that all modules' first state is seen. */
	uint32_t *state = las_load_acquire(&las_process_state);

	return las_likely(state && las_load_acquire(state) == LAS_PROCESS_READY);
}

/* Called in a forked child by libc's fork(), which needs no help on kernels that wipe the page (4.14). */
void las_process_forked(void);

/* Runs init exactly once per process; a second caller waits for it.  0 or -ENOMEM. */
int las_process_start(void (*init)(void));

#endif
