/* wait.h - io_getevents: take what is in the ring, sleep until there is enough. */
#ifndef LAS_AIO_WAIT_H
#define LAS_AIO_WAIT_H

#include <signal.h>

#include "aio/context.h"

/*
 * Whoever sleeps on ctx->seq does so for a bit of its futex: the first for one event, the second for two; the last for
 * so many or more, who come for them in parts.
 */
#define LAS_WAIT_MOST 32u

static inline uint32_t las_wait_bit(uint32_t need)
{
	return 1u << ((need < LAS_WAIT_MOST ? need : LAS_WAIT_MOST) - 1);
}

/* The bits of all for whom n > 0 events are enough. */
static inline uint32_t las_wait_enough(uint32_t n)
{
	return 2 * las_wait_bit(n) - 1;
}

void las_wait_init(void);

/*
 * 0 <= min_nr <= nr.  deadline_ns: CLOCK_MONOTONIC, or LAS_FOREVER_NS.  mask:
 * the signal mask while asleep, or NULL.  The number of events, or -EINVAL
 * (destroyed meanwhile), -EINTR, -EFAULT, each only if nothing was taken.
 */
long las_wait(struct las_ctx *ctx, long min_nr, long nr, struct las_event *events, int64_t deadline_ns,
              const sigset_t *mask);

/* For completers: wakes those who sleep on a descriptor.  The caller holds ctx->lock. */
void las_wait_raise_sleepers_locked(struct las_ctx *ctx);

#endif
