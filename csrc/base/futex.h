/*
 * futex.h - sleeping and waking on a word of private memory.
 *
 * Every wait carries an absolute deadline, even "for ever": a futex wait
 * without one is restarted by the kernel after a handler with SA_RESTART,
 * and io_getevents must report EINTR there.
 */
#ifndef LAS_BASE_FUTEX_H
#define LAS_BASE_FUTEX_H

#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <time.h>

#include "base/sys.h"

#define LAS_FOREVER_NS INT64_MAX

#define LAS_WAKE_ALL INT_MAX
#define LAS_WAKE_ANY FUTEX_BITSET_MATCH_ANY

/*
 * Sleeps while *word == expected, until CLOCK_MONOTONIC passes deadline_ns.
 * bits, not 0: which wake-ups are meant for this thread.  0 when woken (or for
 * no reason), -EAGAIN when the word had changed already, -ETIMEDOUT, or -EINTR
 * after a signal handler ran.
 */
static inline long las_futex_wait_for(uint32_t *word, uint32_t expected, int64_t deadline_ns, uint32_t bits)
{
	struct timespec ts = { .tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000 };

	return las_sys.futex(word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, &ts, NULL, bits);
}

static inline long las_futex_wait(uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
	return las_futex_wait_for(word, expected, deadline_ns, LAS_WAKE_ANY);
}

/* Wakes up to so many threads that sleep for any of the bits, who sleeps longest first: how many. */
static inline long las_futex_wake_for(uint32_t *word, int threads, uint32_t bits)
{
	return las_sys.futex(word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, (uint32_t)threads, NULL, NULL, bits);
}

static inline void las_futex_wake(uint32_t *word, int threads)
{
	las_sys.futex(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, (uint32_t)threads, NULL, NULL, 0);
}

#endif
