/*
 * lock.h - a futex lock for sections of tens of nanoseconds.
 *
 * Callers' obligations: hold it for memory work only (no system call that can
 * block), never take the same lock twice, and follow the lock order that
 * csrc/README.md gives.
 *
 * A signal handler may call into the library while its own thread stands in
 * such a section.  las_critical counts the locks that this thread holds; the
 * calls (aio/calls.c) look at it on entry and answer "try again" rather than
 * deadlock.  It is thread-local and touched only by its thread, so plain
 * accesses ordered against signal handlers are enough.
 */
#ifndef LAS_BASE_LOCK_H
#define LAS_BASE_LOCK_H

#include <features.h> /* __GLIBC__ */
#include <stdint.h>

#include "base/atomic.h"

/* Zeroed memory is a lock that is free. */
struct las_lock {
	uint32_t word; /* 0 free, 1 held, 2 held and somebody may sleep */
};

#if defined(__GLIBC__)
/* glibc keeps room for this in every thread, also for libraries loaded later: no call to reach it. */
#define LAS_TLS_MODEL __attribute__((tls_model("initial-exec")))
#else
#define LAS_TLS_MODEL
#endif

extern _Thread_local unsigned las_critical LAS_TLS_MODEL;

/* Tells this thread from every other that lives. */
static inline const void *las_thread_self(void)
{
	return &las_critical;
}

/* How many calls of io_submit and io_destroy this thread is in; more than one if a handler interrupted one. */
extern _Thread_local unsigned las_inside LAS_TLS_MODEL;

void las_lock_slow(struct las_lock *lock);
void las_unlock_slow(struct las_lock *lock);

static inline void las_lock(struct las_lock *lock)
{
	uint32_t free = 0;

	las_critical++;
	las_fence_signal();
	/* Acquire: pairs with the release in las_unlock. */
	if (las_unlikely(!las_cas_acquire(&lock->word, &free, 1)))
		las_lock_slow(lock);
}

static inline void las_unlock(struct las_lock *lock)
{
	/* Release: pairs with the acquire in las_lock. */
	if (las_unlikely(las_exchange_release(&lock->word, 0) == 2))
		las_unlock_slow(lock);
	las_fence_signal();
	las_critical--;
}

#endif
