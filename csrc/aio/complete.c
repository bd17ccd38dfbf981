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
#include "lanes/announce.h"
#include "lanes/crew.h"
#include "lanes/native.h"

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
 * KERNEL: eventfd-overflow: it counts a full counter (2^64 - 2, beyond which a
 * write blocks) up to its last value once, and the event is in the ring all
 * the same (test: eventfd.full_eventfd_never_blocks).  Only the kernel can, so
 * it is asked to.  A descriptor without O_NONBLOCK would block in the write,
 * so there is a look before each.
 */
void las_complete_raise(int fd, uint64_t n, bool may_block)
{
	const struct timespec at_once = { 0, 0 };
	const uint64_t one = 1;

	if (!may_block && las_sys.write(fd, &n, sizeof(n)) != -EAGAIN)
		return;
	for (; n; n--) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		if (las_sys.ppoll(&p, 1, &at_once, NULL) == 1 && p.revents & POLLOUT)
			las_sys.write(fd, &one, sizeof(one));
		else
			las_native_raise(fd);
	}
}

/* What has to be done about waiters once the lock is released. */
struct wake {
	int threads;   /* asleep on seq: at most so many... */
	uint32_t bits; /* ...of those whose need is among these, wait.h */
	bool leader;   /* asleep in the kernel: if there were fewer */
};

/* Somebody may have enough; sleepers in ppoll are raised here. */
static struct wake wake_locked(struct las_ctx *ctx)
{
	uint32_t on_seq = ctx->waiters - ctx->leading;

	ctx->seq++;
	/* Whoever is woken and has not enough registers again. */
	ctx->wake_at = las_done_count(ctx->slots.done) + INT32_MAX;
	las_wait_raise_sleepers_locked(ctx);
	return (struct wake){ .threads = on_seq ? LAS_WAKE_ALL : 0, .bits = LAS_WAKE_ANY, .leader = ctx->leading };
}

/*
 * As many as there are events, of those that have enough with them: each takes some, or finds that others did.  seq has
 * changed, so one that is about to sleep does not, and cannot have the wake-up of another.
 */
static struct wake wake_enough_locked(struct las_ctx *ctx, uint32_t available)
{
	if (available == 0)
		return (struct wake){ 0 };
	ctx->seq++;
	return (struct wake){ .threads = (int)available, .bits = las_wait_enough(available), .leader = ctx->leading };
}

/* There are new events.  If few are enough, a thread for each; who settles may wait for something else than events. */
static struct wake wake_posted_locked(struct las_ctx *ctx)
{
	uint32_t available = las_ring_available(&ctx->slots);

	if (available >= ctx->waiters || available >= LAS_WAIT_MOST || las_load_relaxed(&ctx->settlers))
		return wake_locked(ctx);
	ctx->wake_at = las_done_count(ctx->slots.done) + 1; /* for those that sleep on */
	las_wait_raise_sleepers_locked(ctx);
	return wake_enough_locked(ctx, available);
}

static void wake(struct las_ctx *ctx, struct wake w)
{
	long woken = w.threads ? las_futex_wake_for(&ctx->seq, w.threads, w.bits) : 0;

	if (w.leader && (w.threads == 0 || woken < w.threads))
		las_native_kick(las_load_acquire(&ctx->native));
}

void las_complete_post(struct las_ctx *ctx, const struct las_event *events, unsigned n, bool by_head)
{
	struct wake w = { 0 };

	las_lock(&ctx->lock);
	for (unsigned i = 0; i < n; i++)
		las_ring_post_locked(&ctx->slots, &events[i]);
	las_store_relaxed(&ctx->count_all, ctx->count_all + n);
	if (by_head)
		las_store_relaxed(&ctx->count_head, ctx->count_head + n);
	if (las_unlikely(ctx->waiters && (int32_t)(las_done_count(ctx->slots.done) - ctx->wake_at) >= 0))
		w = wake_posted_locked(ctx);
	/* A leader that waits for several in the kernel has counted on this one to come there, and counts anew. */
	else if (las_unlikely(ctx->leading && las_native_min(las_load_acquire(&ctx->native)) > 1))
		w.leader = true;
	las_unlock(&ctx->lock);
	wake(ctx, w);
}

void las_complete_without_event(struct las_ctx *ctx)
{
	las_lock(&ctx->lock);
	las_store_relaxed(&ctx->count_all, ctx->count_all + 1);
	las_store_relaxed(&ctx->count_head, ctx->count_head + 1);
	las_unlock(&ctx->lock);
	las_slot_put(&ctx->slots);
}

void las_complete_wake_all(struct las_ctx *ctx)
{
	struct wake w;

	las_lock(&ctx->lock);
	w = wake_locked(ctx);
	las_unlock(&ctx->lock);
	wake(ctx, w);
}

void las_complete_pass_on(struct las_ctx *ctx)
{
	struct wake w;

	las_lock(&ctx->lock);
	w = wake_enough_locked(ctx, las_ring_available(&ctx->slots));
	las_unlock(&ctx->lock);
	wake(ctx, w);
}

void las_complete_wake_one(struct las_ctx *ctx)
{
	las_lock(&ctx->lock);
	ctx->seq++;
	las_wait_raise_sleepers_locked(ctx);
	las_unlock(&ctx->lock);
	las_futex_wake(&ctx->seq, 1);
}

/* Whatever counted the request lets go of it; the context last. */
static void let_go(struct las_ctx *ctx, bool settles, enum las_lane lane)
{
	if (settles) {
		las_sub_acq_rel(&ctx->settling, 1);
		las_fence_seq_cst(); /* settles before it looks for who waits for that, see settle() in wait.c */
		if (las_unlikely(las_load_relaxed(&ctx->settlers)))
			las_complete_wake_all(ctx);
	}
	if (lane == LAS_LANE_CREW)
		las_sub_acq_rel(&ctx->elsewhere, 1);
	las_ctx_leave(ctx, 1);
}

void las_complete_elsewhere(struct las_ctx *ctx)
{
	las_add_acq_rel(&ctx->elsewhere, 1);
	las_fence_seq_cst(); /* adds before it looks for a leader; a leader registers before it looks at elsewhere */
	/* Acquire: pairs with the release in wait_as_leader(), so that its hidden context is seen. */
	if (las_load_acquire(&ctx->leading))
		las_native_kick(las_load_acquire(&ctx->native));
}

/*
 * A leader that was the only one may wait for several events at once; from now
 * on somebody else may want to see each of them.
 */
void las_complete_share(struct las_ctx *ctx)
{
	las_store_relaxed(&ctx->shared, true);
	las_fence_seq_cst(); /* says so before it looks for a leader; a leader sets its number before it looks at shared */
	if (las_load_acquire(&ctx->leading) && las_native_min(las_load_acquire(&ctx->native)) > 1)
		las_native_kick(las_load_acquire(&ctx->native));
}

/* With the kernel, and the eventfd has to be raised here. */
static bool is_notifying(const struct las_req *req)
{
	return req->lane == LAS_LANE_NATIVE && req->eventfd && !req->announced;
}

static void moved(struct las_req *req)
{
	struct las_ctx *ctx = las_ctx_of(req->owner);

	if (req->announced && req->eventfd)
		las_announce_take_back(req->eventfd->fd); /* there is no event yet */
	else if (req->eventfd)
		las_sub_acq_rel(&ctx->notifying, 1);
	req->announced = false;
	las_complete_elsewhere(ctx);
}

static void complete(struct las_req *req, long result)
{
	struct las_ctx *ctx = las_ctx_of(req->owner);
	struct las_event event = { .data = req->data, .obj = req->obj, .res = result };
	struct las_hold *eventfd = req->eventfd;
	bool may_block = req->eventfd_may_block, settles = req->settles;
	bool announced = req->announced, notifying = is_notifying(req), owed = req->owed;
	enum las_lane lane = req->lane;

	req->eventfd = NULL;
	las_crew_finishing(owed);
	las_req_put(req);
	las_complete_post(ctx, &event, 1, false);
	if (eventfd) {
		if (!announced && las_hold_has_number(eventfd))
			las_complete_raise(eventfd->fd, 1, may_block);
		las_hold_put(eventfd);
	}
	las_crew_paid(owed);
	if (notifying)
		las_sub_acq_rel(&ctx->notifying, 1);
	let_go(ctx, settles, lane);
}

/* Raises the eventfds of a batch, each once with all that it is owed; notes[i] is NULL where there is nothing to do. */
struct note {
	struct las_hold *eventfd;
	bool may_block;
};

static void raise_all(struct note *notes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct las_hold *eventfd = notes[i].eventfd;
		uint64_t owed = 1;

		if (!eventfd)
			continue;
		for (unsigned j = i + 1; j < n; j++) {
			if (notes[j].eventfd != eventfd)
				continue;
			owed++;
			notes[j].eventfd = NULL;
			las_hold_put(eventfd);
		}
		if (las_hold_has_number(eventfd))
			las_complete_raise(eventfd->fd, owed, notes[i].may_block);
		las_hold_put(eventfd);
	}
}

/* From the native lane, whose requests do not settle and are nowhere else. */
static void complete_all(struct las_req **reqs, unsigned n)
{
	struct las_ctx *ctx = las_ctx_of(reqs[0]->owner);
	struct las_event events[LAS_OWNER_BATCH];
	struct note notes[LAS_OWNER_BATCH];
	unsigned notifying = 0, owed = 0, i = 0;

	do {
		struct las_req *req = reqs[i];

		events[i] = (struct las_event){ .data = req->data, .obj = req->obj, .res = req->result };
		notes[i] = (struct note){ NULL, false };
		if (is_notifying(req)) {
			notes[i] = (struct note){ req->eventfd, req->eventfd_may_block };
			notifying++;
			req->eventfd = NULL;
		}
		owed += req->owed;
		las_req_put(req);
	} while (++i < n);
	las_crew_finishing(owed);
	las_complete_post(ctx, events, n, false);
	if (notifying) {
		raise_all(notes, n);
		las_sub_acq_rel(&ctx->notifying, notifying);
	}
	las_crew_paid(owed);
	las_ctx_leave(ctx, n);
}

static void discard(struct las_req *req)
{
	struct las_ctx *ctx = las_ctx_of(req->owner);
	bool settles = req->settles, notifying = is_notifying(req);
	enum las_lane lane = req->lane;

	las_crew_finishing(req->owed);
	las_crew_paid(req->owed);
	las_req_put(req);
	las_slot_put(&ctx->slots);
	if (notifying)
		las_sub_acq_rel(&ctx->notifying, 1);
	let_go(ctx, settles, lane);
}

void las_complete_own(struct las_owner *owner)
{
	owner->complete = complete;
	owner->complete_all = complete_all;
	owner->discard = discard;
	owner->moved = moved;
	las_store_relaxed(&owner->ending, false);
}
