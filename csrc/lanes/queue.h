/*
 * queue.h - what waits for a thread of the crew, and whose turn it is.
 *
 * Requests wait in buckets, by device and stage, and buckets take turns.  A
 * read that the head lane tried has its pages on their way (it is "warm"): its
 * thread only waits, and by then the pages of those behind it have come as
 * well.  One thread serves a deep queue of them, so warm requests have buckets
 * of their own.  Another comes when none was taken for a while, so that a page
 * that is late does not keep those that are there; and, where there are
 * processors for it, for each 32 that queue.  The same holds for asking for the
 * pages, which is quick unless the device's own queue is full.
 *
 * The caller's lock guards a queue and its buckets.
 */
#ifndef LAS_LANES_QUEUE_H
#define LAS_LANES_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "lanes/req.h"

#define LAS_QUEUE_DEVICES 64 /* buckets: devices that share one share its threads */

struct las_bucket {
	struct las_link link; /* in its queue's waiting, while anything queues here */
	struct las_link queue;
	unsigned depth;   /* requests in its queue */
	unsigned running; /* threads that run requests of it */
	uint64_t taken;   /* ticks when the last one was, unless they are run */
};

struct las_queue {
	struct las_link waiting; /* buckets whose queue is not empty, the next one's turn first */
	unsigned queued;         /* requests in all of them; also read without the lock, as a hint */
	unsigned share;          /* threads that one device may take */
	struct las_bucket buckets[LAS_STAGES][LAS_QUEUE_DEVICES];
};

void las_queue_init(struct las_queue *q, unsigned share);
void las_queue_push(struct las_queue *q, struct las_req *req);

static inline bool las_queue_empty(const struct las_queue *q)
{
	return las_list_empty(&q->waiting);
}

/* Whether a request waits for which one more thread may be used. */
bool las_queue_ready(struct las_queue *q);
/* Takes that request off, or NULL.  The thread counts as running in the bucket *from, until las_queue_ran(). */
struct las_req *las_queue_pop(struct las_queue *q, struct las_bucket **from);

static inline void las_queue_ran(struct las_bucket *from)
{
	from->running--;
}

/* Takes every request off, in whatever order. */
void las_queue_take_all(struct las_queue *q, struct las_link *out);
/*
 * Takes off the first request of this owner, of this obj unless it is 0, or NULL; near: only what ends in finite time,
 * after a look at a few.
 */
struct las_req *las_queue_take(struct las_queue *q, const struct las_owner *owner, uint64_t obj, bool near);

#endif
