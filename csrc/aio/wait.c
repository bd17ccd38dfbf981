/*
 * wait.c - see wait.h.
 *
 * A waiter registers under the context's lock: it looks once more, notes the
 * completed count that would satisfy it (the lowest of all waiters' is kept
 * in wake_at), and reads seq.  A completer that reaches wake_at changes seq
 * under the same lock and wakes; so either the waiter saw the event, or its
 * futex word has changed and it does not sleep.  Completions short of wake_at
 * wake nobody; beyond it no more threads than there are events.
 *
 * KERNEL: a call takes what is there when it comes, then sleeps until there is
 * all that it still needs, and leaves what is not enough to others
 * (test: waiters.events_go_to_whom_they_are_enough_for).
 *
 * io_pgetevents has to change the signal mask and sleep in one step.  A leader
 * does that in the kernel's own call; a follower can only by ppoll: it waits
 * for an eventfd of its own.
 */
#include "aio/wait.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "aio/complete.h"
#include "base/config.h"
#include "base/futex.h"
#include "base/pool.h"
#include "base/stats.h"
#include "base/umem.h"
#include "lanes/announce.h"
#include "lanes/crew.h"
#include "lanes/native.h"
#include "lanes/reaper.h"
#include "lanes/table.h"

#define LOOK_AGAIN_NS ((int64_t)500 * 1000 * 1000)
#define LOOK_NS ((int64_t)1000 * 1000) /* the same without a reaper, which would look that often */
#define MOST 0x40000000u   /* events that a wait counts with; no ring has so many, and differences stay signed */
#define SETTLED UINT32_MAX /* no number: until nothing settles, or one more event has come */

/* Notes that somebody sleeps until `missing` more have completed; ctx->lock is held. */
static void register_locked(struct las_ctx *ctx, uint32_t missing)
{
	uint32_t target = las_done_count(ctx->slots.done) + missing;

	if (!ctx->waiters || (int32_t)(target - ctx->wake_at) < 0)
		ctx->wake_at = target;
	las_store_relaxed(&ctx->waiters, ctx->waiters + 1);
}

/* In pooled memory, not on the stack: a program may leave by longjmp out of a handler. */
struct sleeper {
	struct las_link link; /* in its context's sleepers */
	struct las_hold *eventfd;
};

static struct las_pool sleepers;

void las_wait_init(void)
{
	las_pool_init(&sleepers, sizeof(struct sleeper));
}

void las_wait_raise_sleepers_locked(struct las_ctx *ctx)
{
	const uint64_t one = 1;
	struct las_link *l, *tmp;

	las_list_each(&ctx->sleepers, l, tmp) {
		const struct las_hold *eventfd = las_container_of(l, struct sleeper, link)->eventfd;

		if (las_hold_has_number(eventfd)) /* else who sleeps there finds out by itself */
			las_sys.write(eventfd->fd, &one, sizeof(one));
	}
}

/* Up to nr events if `enough` are there: how many, or -EFAULT and nothing is lost. */
static long take(struct las_ctx *ctx, uint32_t enough, long nr, struct las_event *events)
{
	struct las_native *native = las_load_acquire(&ctx->native);
	uint32_t available, n;

	if (native && las_native_in_flight(native) && !las_table_is_stranger()) {
		las_announce_called(native);
		las_native_drain(native, las_ring_available(&ctx->slots) == 0);
	}
	available = las_ring_available(&ctx->slots);
	if (available < enough)
		return 0;
	if (available > nr)
		available = (uint32_t)nr;
	if (available == 0)
		return 0;
	if (!las_umem_writable(events, available * sizeof(*events)))
		return -EFAULT;
	las_lock(&ctx->consume);
	n = las_ring_reap_locked(&ctx->slots, events, available);
	las_unlock(&ctx->consume);
	return n;
}

/*
 * KERNEL: here the leader sleeps in the kernel, where the native lane's
 * completions arrive.  It registers as a waiter like all others, so that a
 * completion from another lane finds it (and kicks it, lanes/native.h), and
 * only if no request is elsewhere.  0, -ETIMEDOUT, -EINTR, or -EBUSY when it
 * has to sleep as a follower.
 */
static long wait_as_leader(struct las_ctx *ctx, uint32_t need, int64_t deadline_ns, const sigset_t *mask)
{
	struct las_native *native = las_load_acquire(&ctx->native);
	struct las_lead lead;
	uint32_t available;
	long n = 0;
	bool go = false;

	if (!native || las_load_relaxed(&ctx->elsewhere) || !las_native_in_flight(native) || las_table_is_stranger())
		return -EBUSY;
	if (!las_native_try_lead(native, &lead))
		return -EBUSY;
	las_lock(&ctx->lock);
	available = las_ring_available(&ctx->slots);
	if (available < need && !las_ctx_dead(ctx)) {
		register_locked(ctx, need - available);
		las_store_release(&ctx->leading, true); /* the hidden context to whoever is to kick its leader */
		/* Events are moved on one by one where somebody else may want to know of them. */
		if (!las_load_relaxed(&ctx->shared) && !las_load_relaxed(&ctx->notifying))
			las_native_set_min(native, need - available);
		go = true;
	}
	las_unlock(&ctx->lock);
	las_fence_seq_cst(); /* registers before it looks, see las_complete_elsewhere and las_complete_share */
	if (las_load_relaxed(&ctx->shared))
		las_native_set_min(native, 1);
	if (go && las_load_relaxed(&ctx->elsewhere) == 0 && las_native_in_flight(native))
		n = las_native_wait(native, deadline_ns, mask);
	las_lock(&ctx->lock);
	if (go) {
		las_store_relaxed(&ctx->waiters, ctx->waiters - 1);
		las_store_relaxed(&ctx->leading, lead.before != 0);
	}
	las_unlock(&ctx->lock);
	las_native_leave_lead(native, &lead, n);
	/* A sandbox that forbids the kernel's wait leaves the other one. */
	return n >= 0 ? 0 : n == -EINTR || n == -ETIMEDOUT ? n : -EBUSY;
}

static struct timespec left_until(int64_t deadline_ns)
{
	int64_t ns = deadline_ns == LAS_FOREVER_NS ? (int64_t)3600 * 1000000000 : deadline_ns - las_now_ns();

	if (ns < 0)
		ns = 0;
	return (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

static struct sleeper *make_sleeper(void)
{
	struct sleeper *sleeper = las_pool_get(&sleepers);
	long fd;

	if (!sleeper)
		return NULL;
	fd = las_sys.eventfd2(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd >= 0 && las_hold_adopt((int)fd, &sleeper->eventfd) == 0)
		return sleeper;
	las_pool_put(&sleepers, sleeper);
	return NULL;
}

static long sleep_masked(struct sleeper *sleeper, int64_t deadline_ns, const sigset_t *mask)
{
	struct pollfd p = { .fd = sleeper->eventfd->fd, .events = POLLIN };
	struct timespec left = left_until(deadline_ns);
	long n;

	n = las_sys.ppoll(&p, 1, &left, mask);
	return n < 0 ? n : n == 0 && deadline_ns != LAS_FOREVER_NS ? -ETIMEDOUT : 0;
}

/* With a mask only where no descriptor is to be had: then a signal may be handled just before the sleep begins. */
static long sleep_on_seq(struct las_ctx *ctx, uint32_t seq, uint32_t need, int64_t deadline_ns, const sigset_t *mask)
{
	uint64_t old;
	long err;

	if (mask)
		las_sys.sigprocmask(SIG_SETMASK, mask, &old);
	err = las_futex_wait_for(&ctx->seq, seq, deadline_ns, las_wait_bit(need));
	if (mask)
		las_sys.sigprocmask(SIG_SETMASK, &old, NULL);
	return err;
}

/* Of many it takes a part, so that the ring need not hold them all. */
static uint32_t enough_of(const struct las_ctx *ctx, uint32_t need)
{
	uint32_t most = ctx->slots.nr - 1 < LAS_WAIT_MOST ? ctx->slots.nr - 1 : LAS_WAIT_MOST;

	return need < most ? need : most;
}

/* Sleeps until `need` events may be there: 0, -ETIMEDOUT, -EINTR, or -EAGAIN when there was no reason to sleep. */
static long sleep_for(struct las_ctx *ctx, uint32_t need, int64_t deadline_ns, const sigset_t *mask)
{
	struct sleeper *sleeper = mask ? make_sleeper() : NULL;
	uint32_t seq, available, enough;
	long err = -EAGAIN;

	las_lock(&ctx->lock);
	available = las_ring_available(&ctx->slots);
	if (need == SETTLED)
		need = enough = available + !!las_load_acquire(&ctx->settling);
	else
		enough = enough_of(ctx, need);
	if (available < enough && !las_ctx_dead(ctx)) {
		register_locked(ctx, need - available);
		seq = ctx->seq;
		if (sleeper)
			las_list_push(&ctx->sleepers, &sleeper->link);
		las_unlock(&ctx->lock);
		err = sleeper ? sleep_masked(sleeper, deadline_ns, mask) : -ENOSYS;
		/* No sleeper, or a sandbox without ppoll. */
		if (err < 0 && err != -EINTR && err != -ETIMEDOUT)
			err = sleep_on_seq(ctx, seq, need, deadline_ns, mask);
		las_lock(&ctx->lock);
		las_store_relaxed(&ctx->waiters, ctx->waiters - 1);
		if (sleeper)
			las_list_remove(&sleeper->link);
	}
	las_unlock(&ctx->lock);
	if (sleeper) {
		las_hold_put(sleeper->eventfd);
		las_pool_put(&sleepers, sleeper);
	}
	return err;
}

/*
 * Sleeps on the context, not in the kernel: whatever the native lane finishes
 * meanwhile is the leader's or the reaper's to move on.  Should the leader
 * have left for good, its place is free after a while, so one looks again; or
 * another that was woken for an event.
 */
static long follow(struct las_ctx *ctx, uint32_t need, int64_t deadline_ns, const sigset_t *mask)
{
	struct las_native *native = las_load_acquire(&ctx->native);
	int64_t soon;
	long err;

	if (!las_load_relaxed(&ctx->shared) && (!native || !las_native_in_flight(native)))
		return sleep_for(ctx, need, deadline_ns, mask);
	soon = las_now_ns() +
	       (!native || !las_native_in_flight(native) || las_reaper_watch() ? LOOK_AGAIN_NS : LOOK_NS);
	if (deadline_ns < soon)
		return sleep_for(ctx, need, deadline_ns, mask);
	err = sleep_for(ctx, need, soon, mask);
	return err == -ETIMEDOUT ? 0 : err;
}

/*
 * Who must wait for everything may as well work: without a time-out, and if
 * no less than all that is in flight will do, a request of the same context
 * that still queues is run here, without a hand-off.
 */
static bool help(struct las_ctx *ctx, uint32_t need)
{
	const uint64_t all = ~(uint64_t)0;
	struct las_req *req;
	uint64_t old;

	if (las_ring_available(&ctx->slots) + las_ring_in_flight(&ctx->slots) > need)
		return false;
	req = las_table_is_stranger() ? NULL : las_crew_take_near(&ctx->owner);
	if (!req) {
		if (las_load_relaxed(&ctx->elsewhere))
			las_store_relaxed(&ctx->helped, 0);
		return false;
	}
	las_store_relaxed(&ctx->helped, las_load_relaxed(&ctx->helped) + 1); /* a hint: lost updates are harmless */
	las_count(helped, 1);
	/* A handler may not come back (longjmp, exit): it has to wait until the request is done, as in io_submit. */
	las_sys.sigprocmask(SIG_SETMASK, &all, &old);
	las_crew_run(req);
	las_sys.sigprocmask(SIG_SETMASK, &old, NULL);
	return true;
}

/*
 * KERNEL: what it would have finished inside io_submit is waited for here, up
 * to the deadline, if a look allows itself time.  The kernel ignores the time,
 * and a program does not notice, since its buffered request is complete; it
 * takes a look that finds nothing for a time-out
 * (test: nonblocking.look_with_a_time_out_finds_what_was_held).
 * LIBAIO_SHIM_SETTLE waits in every call that may come back without events,
 * for as long as io_submit would have taken.
 */
static void settle(struct las_ctx *ctx, long nr, int64_t deadline_ns, const sigset_t *mask)
{
	long err = 0;

	las_add_acq_rel(&ctx->settlers, 1);
	las_fence_seq_cst(); /* is there before it looks, see let_go() in complete.c */
	while (err != -EINTR && err != -ETIMEDOUT && las_load_acquire(&ctx->settling) && !las_ctx_dead(ctx) &&
	       las_ring_available(&ctx->slots) < nr) {
		if (deadline_ns != LAS_FOREVER_NS || !help(ctx, UINT32_MAX))
			err = follow(ctx, SETTLED, deadline_ns, mask);
	}
	las_sub_acq_rel(&ctx->settlers, 1);
}

/* Whoever has slept may have been woken to lead, and somebody has to while something is with the kernel. */
static void hand_on(struct las_ctx *ctx)
{
	struct las_native *native = las_load_acquire(&ctx->native);

	if (las_load_relaxed(&ctx->waiters) && !las_load_relaxed(&ctx->leading) && native &&
	    las_native_in_flight(native) && !las_load_relaxed(&ctx->elsewhere))
		las_complete_wake_one(ctx);
}

/* It was woken for what is not enough, since another has taken a part: those for whom it is enough sleep on. */
static void pass_on(struct las_ctx *ctx)
{
	if (las_load_relaxed(&ctx->waiters) && las_ring_available(&ctx->slots))
		las_complete_pass_on(ctx);
}

static bool ends(long err)
{
	return err == -ETIMEDOUT || err == -EINTR || err == -EINVAL;
}

static long wait_for(struct las_ctx *ctx, long min_nr, long nr, struct las_event *events, int64_t deadline_ns,
                     const sigset_t *mask, bool *slept)
{
	uint32_t need, enough = 0; /* at first, and in the end, whatever there is */
	long taken = 0, err = 0;

	for (;;) {
		long n = take(ctx, enough, nr - taken, events + taken);

		if (n < 0) {
			las_complete_wake_all(ctx); /* it may have been woken for what it leaves */
			return taken ? taken : n;
		}
		taken += n;
		if (taken >= min_nr)
			return taken;
		if (las_ctx_dead(ctx))
			err = -EINVAL;
		if (ends(err) && enough == 0)
			return taken || err == -ETIMEDOUT ? taken : err;
		if (ends(err))
			enough = 0;
		if (n || ends(err))
			continue;
		if (*slept && err == 0)
			pass_on(ctx);
		need = min_nr - taken < MOST ? (uint32_t)(min_nr - taken) : MOST;
		if (deadline_ns == LAS_FOREVER_NS && !mask && help(ctx, need))
			continue;
		if (deadline_ns == 0) {
			err = -ETIMEDOUT;
			continue;
		}
		enough = enough_of(ctx, need);
		*slept = true;
		err = wait_as_leader(ctx, need, deadline_ns, mask);
		if (err == -EBUSY)
			err = follow(ctx, need, deadline_ns, mask);
	}
}

long las_wait(struct las_ctx *ctx, long min_nr, long nr, struct las_event *events, int64_t deadline_ns,
              const sigset_t *mask)
{
	bool slept = false;
	long n;

	las_ctx_used(ctx);
	las_store_relaxed(&ctx->unwaited, 0); /* a hint, see enqueue.c */
	if (las_unlikely(las_config.settle && (min_nr == 0 || deadline_ns != LAS_FOREVER_NS)))
		settle(ctx, nr, LAS_FOREVER_NS, NULL);
	else if (min_nr == 0 && deadline_ns != 0 && deadline_ns != LAS_FOREVER_NS)
		settle(ctx, nr, deadline_ns, mask);
	n = wait_for(ctx, min_nr, nr, events, deadline_ns, mask, &slept);
	if (slept)
		hand_on(ctx);
	return n;
}
