/* complete.c - see complete.h. */
#include "aio/complete.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "aio/wait.h"
#include "base/futex.h"
#include "base/pool.h"
#include "base/stats.h"
#include "base/sys.h"
#include "lanes/crew.h"

static struct las_pool requests;

void las_complete_init(void)
{
	las_pool_init(&requests, sizeof(struct las_req));
}

int las_complete_reserve(unsigned n)
{
	int err = las_pool_reserve(&requests, n);

	if (err)
		return err;
	err = las_hold_reserve(n);
	if (err)
		las_pool_release(&requests, n);
	return err;
}

void las_complete_release(unsigned n)
{
	las_hold_release(n);
	las_pool_release(&requests, n);
}

struct las_ctx *las_ctx_of(const struct las_owner *owner)
{
	return las_container_of(owner, struct las_ctx, owner);
}

struct las_req *las_req_get(void)
{
	struct las_req *req = las_pool_get(&requests);

	if (req)
		memset(req, 0, sizeof(*req));
	return req;
}

void las_req_put(struct las_req *req)
{
	if (req->file)
		las_hold_put(req->file);
	if (req->eventfd)
		las_hold_put(req->eventfd);
	las_op_fini(&req->op);
	las_pool_put(&requests, req);
}

/*
 * KERNEL: a counter that is full stays full and the event is in the ring all
 * the same (test: eventfd.full_eventfd_never_blocks).  A descriptor without
 * O_NONBLOCK would block there, so it is asked first, for each count.
 */
void las_complete_raise(int fd, uint64_t n, bool may_block)
{
	const struct timespec at_once = { 0, 0 };
	const uint64_t one = 1;

	if (!may_block) {
		las_sys.write(fd, &n, sizeof(n));
		return;
	}
	for (; n; n--) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		if (las_sys.ppoll(&p, 1, &at_once, NULL) != 1 || !(p.revents & POLLOUT))
			return;
		las_sys.write(fd, &one, sizeof(one));
	}
}

/* Decides under the lock who is to be woken: how many threads; sleepers in ppoll are raised here. */
static int wake_locked(struct las_ctx *ctx)
{
	int threads = ctx->waiters == 1 ? 1 : LAS_WAKE_ALL;

	ctx->seq++;
	/* Whoever is woken and has not enough registers again. */
	ctx->wake_at = las_done_count(ctx->slots.done) + INT32_MAX;
	las_wait_raise_sleepers_locked(ctx);
	return threads;
}

void las_complete_post(struct las_ctx *ctx, const struct las_event *event, bool by_head)
{
	int wake = 0;

	las_lock(&ctx->lock);
	las_ring_post_locked(&ctx->slots, event);
	las_store_relaxed(&ctx->count_all, ctx->count_all + 1);
	if (by_head)
		las_store_relaxed(&ctx->count_head, ctx->count_head + 1);
	if (las_unlikely(ctx->waiters && (int32_t)(las_done_count(ctx->slots.done) - ctx->wake_at) >= 0))
		wake = wake_locked(ctx);
	las_unlock(&ctx->lock);
	if (las_unlikely(wake))
		las_futex_wake(&ctx->seq, wake);
}

void las_complete_wake_all(struct las_ctx *ctx)
{
	las_lock(&ctx->lock);
	wake_locked(ctx);
	las_unlock(&ctx->lock);
	las_futex_wake(&ctx->seq, LAS_WAKE_ALL);
}

/* Whatever counted the request lets go of it; the context last. */
static void let_go(struct las_ctx *ctx, bool settles)
{
	if (settles)
		las_sub_acq_rel(&ctx->settling, 1);
	las_ctx_leave(ctx);
}

static void complete(struct las_req *req, long result)
{
	struct las_ctx *ctx = las_ctx_of(req->owner);
	struct las_event event = { .data = req->data, .obj = req->obj, .res = result };
	struct las_hold *eventfd = req->eventfd;
	bool may_block = req->eventfd_may_block, settles = req->settles;

	req->eventfd = NULL;
	las_crew_paid(req);
	las_req_put(req);
	las_complete_post(ctx, &event, false);
	if (eventfd) {
		las_complete_raise(eventfd->fd, 1, may_block);
		las_hold_put(eventfd);
	}
	let_go(ctx, settles);
}

static void discard(struct las_req *req)
{
	struct las_ctx *ctx = las_ctx_of(req->owner);
	bool settles = req->settles;

	las_crew_paid(req);
	las_req_put(req);
	las_slot_put(&ctx->slots);
	las_count(cancelled, 1);
	let_go(ctx, settles);
}

void las_complete_own(struct las_owner *owner)
{
	owner->complete = complete;
	owner->discard = discard;
}
