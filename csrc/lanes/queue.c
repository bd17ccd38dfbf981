/* queue.c - see queue.h. */
#include "lanes/queue.h"

#include <limits.h>

#include "base/atomic.h"
#include "base/config.h"
#include "base/ticks.h"

#define QUICK_MAX 16        /* threads that ask, or that wait, for pages of one device */
#define DEPTH 32            /* of such a queue that is one thread's */
#define STUCK_TICKS 3000000 /* a millisecond or so without one of them being taken calls one more */
#define NEAR 8              /* how far a look that must be cheap goes */

void las_queue_init(struct las_queue *q, unsigned share)
{
	las_list_init(&q->waiting);
	q->queued = 0;
	q->share = share;
	for (int stage = 0; stage < LAS_STAGES; stage++) {
		for (int i = 0; i < LAS_QUEUE_DEVICES; i++) {
			struct las_bucket *b = &q->buckets[stage][i];

			las_list_init(&b->link);
			las_list_init(&b->queue);
			b->depth = b->running = 0;
			b->taken = 0;
		}
	}
}

static struct las_bucket *bucket_of(struct las_queue *q, const struct las_req *req)
{
	return &q->buckets[req->stage][req->device % LAS_QUEUE_DEVICES];
}

void las_queue_push(struct las_queue *q, struct las_req *req)
{
	struct las_bucket *b = bucket_of(q, req);

	if (las_list_empty(&b->queue))
		las_list_push(&q->waiting, &b->link);
	las_list_push(&b->queue, &req->link);
	b->depth++;
	las_store_relaxed(&q->queued, q->queued + 1);
}

static void withdraw(struct las_queue *q, struct las_req *req)
{
	struct las_bucket *b = bucket_of(q, req);

	las_list_remove(&req->link);
	b->depth--;
	if (las_list_empty(&b->queue))
		las_list_remove(&b->link);
	las_store_relaxed(&q->queued, q->queued - 1);
}

/* Whether one more thread may be used for a bucket. */
static bool has_room(const struct las_queue *q, const struct las_bucket *b)
{
	bool is_quick = b >= q->buckets[LAS_STAGE_RUN + 1];

	if (!is_quick || b->running == 0)
		return b->running < q->share;
	if (b->running < 1 + b->depth / DEPTH && b->running < las_config.possible_cpus / 2)
		return true;
	return b->running < QUICK_MAX && las_ticks() - b->taken > STUCK_TICKS;
}

/* The bucket whose turn it is among those for which a thread may be used, or NULL. */
static struct las_bucket *next(struct las_queue *q)
{
	for (struct las_link *l = q->waiting.next; l != &q->waiting; l = l->next) {
		struct las_bucket *b = las_container_of(l, struct las_bucket, link);

		if (has_room(q, b))
			return b;
	}
	return NULL;
}

bool las_queue_ready(struct las_queue *q)
{
	return next(q) != NULL;
}

struct las_req *las_queue_pop(struct las_queue *q, struct las_bucket **from)
{
	struct las_bucket *b = next(q);
	struct las_req *req;

	if (!b)
		return NULL;
	req = las_container_of(b->queue.next, struct las_req, link);
	withdraw(q, req);
	b->running++;
	if (req->stage != LAS_STAGE_RUN)
		b->taken = las_ticks();
	if (!las_list_empty(&b->queue)) {
		las_list_remove(&b->link);
		las_list_push(&q->waiting, &b->link);
	}
	*from = b;
	return req;
}

void las_queue_take_all(struct las_queue *q, struct las_link *out)
{
	while (!las_list_empty(&q->waiting)) {
		struct las_bucket *b = las_container_of(q->waiting.next, struct las_bucket, link);

		las_list_append(out, &b->queue);
		b->depth = 0;
		las_list_remove(&b->link);
	}
	las_store_relaxed(&q->queued, 0);
}

/* Of a server: it may never answer, and who waits there for ever must stay open to signals. */
static bool may_hang(const struct las_req *req)
{
	return req->file->kind == LAS_HOLD_LINGERS;
}

struct las_req *las_queue_take(struct las_queue *q, const struct las_owner *owner, uint64_t obj, bool near)
{
	unsigned limit = near ? NEAR : UINT_MAX;
	struct las_req *found = NULL;

	for (struct las_link *w = q->waiting.next; w != &q->waiting && !found && limit; w = w->next) {
		struct las_bucket *b = las_container_of(w, struct las_bucket, link);

		for (struct las_link *l = b->queue.next; l != &b->queue && limit; l = l->next, limit--) {
			struct las_req *req = las_container_of(l, struct las_req, link);

			if (req->owner != owner || (obj && req->obj != obj) || (near && may_hang(req)))
				continue;
			found = req;
			break;
		}
	}
	if (found)
		withdraw(q, found);
	return found;
}
