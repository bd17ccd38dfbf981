/*
 * hidden.h - a hidden kernel context, for the files of the native lane
 * (native.h): their pool is hidden.c, who takes events off a hidden ring is
 * lead.c, the requests are native.c.
 */
#ifndef LAS_LANES_HIDDEN_H
#define LAS_LANES_HIDDEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/abi.h"
#include "base/list.h"
#include "base/lock.h"
#include "lanes/announce.h"
#include "lanes/native.h"
#include "lanes/req.h"

/* req->phase: who acts on a result; native.c says how. */
enum { LAS_PHASE_DOWN = 1, LAS_PHASE_FOUND, LAS_PHASE_KERNEL };

struct las_native {
	struct las_link link; /* in all; guarded by pool.lock */
	struct las_ring *ring;
	unsigned depth;
	bool lent;    /* to a context; guarded by pool.lock */
	bool cancels; /* it is known that it can; atomic */

	struct las_lock lock LAS_LINE_ALIGNED; /* guards the hidden ring's head, the leader's place and the polls */
	uint32_t led;                          /* the leader's ticket, 0 if there is none; atomic to read */
	uint32_t tickets;
	const void *leader;    /* its thread */
	uintptr_t frame;       /* where on its stack it leads */
	int64_t led_ns;        /* since when; atomic to read */
	uint32_t led_head;     /* the hidden ring's head then */
	bool late;             /* it has been found late; it may be in the kernel all the same; atomic to read */
	unsigned min;          /* events that make the leader return */
	uint64_t moved;        /* events claimed so far, at least; atomic to read */
	struct las_link polls; /* pending polls, to be cancelled */
	/* What the kernel gave the leader, and nobody has claimed: all else is zero.  Not on its stack, it may jump away. */
	struct las_event taken[LAS_NATIVE_BATCH];

	unsigned in_flight LAS_LINE_ALIGNED; /* atomic */
	struct las_announce announce;
};

/* For the reaper, a hint: a drain may find something to do. */
bool las_native_has_work(const struct las_native *native);
/* False if another thread leads, which may have events in its hands.  beside: what is in the ring is taken all the same. */
bool las_native_drain_now(struct las_native *native, bool beside);
/*
 * What was taken off the ring together, n <= LAS_NATIVE_BATCH, in the hands of the only thread that may act on it.  True if
 * the kernel had announced some that are events now.
 */
bool las_native_finish_all(struct las_native *native, struct las_req **reqs, unsigned n);

#endif
