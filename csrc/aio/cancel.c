/*
 * cancel.c - see cancel.h.
 *
 * A request can be taken back while it is on a list: crew queue, line or
 * poll set.  Taking it off, under that list's lock, makes the taker the one
 * that ends it; whoever comes later does not find it.
 */
#include "aio/cancel.h"

#include <errno.h>

#include "aio/complete.h"
#include "base/futex.h"
#include "base/stats.h"
#include "lanes/crew.h"
#include "lanes/native.h"
#include "lanes/order.h"
#include "lanes/pollset.h"
#include "lanes/table.h"

#define PATIENCE_NS ((int64_t)10 * 1000 * 1000) /* between two looks for requests that have come back to a queue */

/* From the lists on which a request has not begun to run. */
static struct las_req *take_queued(const struct las_owner *owner, uint64_t obj)
{
	struct las_req *req = las_order_take(owner, obj);

	return req ? req : las_crew_take(owner, obj);
}

static void take_back(struct las_req *req)
{
	las_count(cancelled, 1);
	las_crew_leave_order(req);
	req->owner->discard(req);
}

/* With an event that nobody will see, for the eventfd, which somebody may wait for. */
static void give_up(struct las_req *req)
{
	las_count(cancelled, 1);
	las_crew_leave_order(req);
	req->owner->complete(req, req->op.kind == LAS_OP_POLL ? 0 : -ECANCELED);
}

/* KERNEL: cancel-of-queued: it can cancel polls only (test: cancel.queued_write_is_cancelled_for_good). */
long las_cancel(struct las_ctx *ctx, uint64_t obj, struct las_event *result)
{
	struct las_native *native = las_load_acquire(&ctx->native); /* pairs with native_of() in enqueue.c */
	struct las_req *req = take_queued(&ctx->owner, obj);

	if (!req) {
		req = las_pollset_take(&ctx->owner, obj);
		if (req && req->op.kind == LAS_OP_POLL) {
			req->owner->complete(req, 0);
			return -EINPROGRESS;
		}
	}
	if (!req && native && las_native_cancel(native, &ctx->owner, obj)) {
		las_native_drain(native, false);
		return -EINPROGRESS;
	}
	if (!req)
		return -EINVAL;
	if (req->op.done) {
		/* A part of it has been moved: it did run, and says so. */
		las_crew_leave_order(req);
		req->owner->complete(req, (long)req->op.done);
		return -EINPROGRESS;
	}
	*result = (struct las_event){ .data = req->data, .obj = req->obj, .res = -ECANCELED };
	take_back(req);
	return 0;
}

/* Moves on what the kernel finishes, for at most 10 ms; false if there is nothing to wait for there. */
static bool wait_native(struct las_ctx *ctx)
{
	struct las_native *native = las_load_acquire(&ctx->native);
	struct las_lead lead;
	long n;

	if (!native || !las_native_in_flight(native))
		return false;
	while (las_native_cancel(native, &ctx->owner, 0))
		;
	if (las_table_is_stranger())
		return false; /* nor their eventfds: the reaper does */
	if (!las_native_try_lead(native, &lead)) {
		las_native_drain(native, false); /* the leader may have gone for good */
		return false;
	}
	n = las_native_wait(native, las_now_ns() + PATIENCE_NS, NULL);
	las_native_leave_lead(native, &lead, n);
	return true;
}

void las_destroy(struct las_ctx *ctx)
{
	struct las_req *req;
	uint32_t busy;

	las_complete_wake_all(ctx);
	las_store_relaxed(&ctx->owner.ending, true); /* seen by the next look of whoever runs a poll */
	/*
	 * KERNEL: an accepted write is on its way to the file and a destroyed context does not recall it; the kernel
	 * had written it inside io_submit (test: destroy.queued_writes_are_finished).  Reads and polls have nobody
	 * left to read for.  Appends wait for their turn, which comes as those before them end.
	 */
	for (;;) {
		/* In a table of its own this thread would not find their files: then it is left to the crew. */
		while (!las_table_is_stranger() && (req = take_queued(&ctx->owner, 0))) {
			if (las_op_must_finish(&req->op) && req->bounded)
				las_crew_run(req);
			else
				give_up(req);
		}
		while ((req = las_pollset_take(&ctx->owner, 0)))
			give_up(req);
		/* Acquire: pairs with the release in las_ctx_leave, all that the requests did is seen. */
		busy = las_load_acquire(&ctx->busy);
		if (busy == LAS_CTX_DEAD)
			break;
		if (!wait_native(ctx))
			las_futex_wait(&ctx->busy, busy, las_now_ns() + PATIENCE_NS);
	}
	if (ctx->native)
		las_native_put(ctx->native);
	las_ctx_retire(ctx);
}
