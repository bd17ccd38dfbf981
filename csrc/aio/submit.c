/*
 * submit.c - see submit.h; what the head lane does not finish goes to enqueue.c.
 *
 * Each iocb is checked in the kernel's order, copied, and offered to the
 * lanes.  What the head lane finishes is an event before the next iocb is
 * looked at; what has to queue is collected and handed to the crew once, at
 * the end of the batch, with one wake-up for all.
 *
 * KERNEL: submit-returns-first: a buffered request that would block is done
 * when the kernel's io_submit returns; here it is on its way (test:
 * nonblocking.uncached_read_does_not_hold_submit).
 * KERNEL: order-of-events: and its event comes after those of later requests
 * that did not block (test: order.events_of_buffered_reads_in_one_call).
 * KERNEL: system-calls-of-its-own: all this is done by other system calls than
 * the kernel's io_submit (test: hostile.sandbox_that_forbids_reads_and_writes).
 *
 * Never lost, never twice: a request is either posted here or handed on
 * complete with its holds.  Where a hold, memory or a thread cannot be had,
 * a bounded request is run here, blocking, as kernel AIO would; one that may
 * wait for ever is refused with EAGAIN instead.
 */
#include "aio/submit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "aio/complete.h"
#include "aio/enqueue.h"
#include "aio/request.h"
#include "base/config.h"
#include "base/umem.h"
#include "lanes/crew.h"
#include "lanes/reaper.h"
#include "lanes/route.h"
#include "lanes/table.h"
#include "libaio_shim.h"

#define HELPED 4 /* waits in a row in which the caller ran what it had submitted */

static void flush_raises(struct las_submission *s)
{
	for (unsigned i = 0; i < s->eventfds.count; i++) {
		struct las_file *file = &s->eventfds.files[i];

		/* Unless another thread has put another file on its number, as was found out when it was to be held. */
		if (s->raises[i] && las_likely(file->is_eventfd))
			las_complete_raise(file->hold ? file->hold->fd : file->fd, s->raises[i],
			                   !(file->flags & O_NONBLOCK));
		s->raises[i] = 0;
	}
}

int las_submission_eventfd(struct las_submission *s, uint32_t fd, struct las_file **file)
{
	/* A full table drops an entry: what it owes is paid before. */
	if (las_unlikely(s->eventfds.count == LAS_BATCH_FILES))
		flush_raises(s);
	return las_batch_eventfd(&s->eventfds, (int)fd, file);
}

void las_submission_post(struct las_submission *s, const struct las_candidate *c, long result)
{
	struct las_event event = { .data = c->iocb.data, .obj = c->obj, .res = result };

	if (s->answers && result >= 0) {
		struct las_iocb *user = (struct las_iocb *)(uintptr_t)c->obj;

		s->answered = true;
		s->answer = result;
		user->key = LAS_KEY_RETURNED; /* it can be written to: it has been checked */
		las_complete_without_event(s->ctx);
		return;
	}
	/* Another thread may see the event and close the eventfd before it is raised. */
	if (c->eventfd && las_load_relaxed(&s->ctx->shared) && !c->eventfd->hold)
		(void)las_hold_get(c->eventfd->fd, LAS_HOLD_PLAIN, &c->eventfd->hold);
	las_complete_post(s->ctx, &event, 1, true);
	if (c->eventfd)
		s->raises[c->eventfd - s->eventfds.files]++;
}

/* Most often there is nothing. */
static void flush_native(struct las_submission *s)
{
	if (s->native_count)
		las_enqueue_flush(s);
}

/* It does not go to the kernel after all; err is what else is wrong with it, which the kernel finds later. */
static int look_at_eventfd(struct las_submission *s, struct las_candidate *c, int err)
{
	int eventfd_err = las_submission_eventfd(s, c->iocb.resfd, &c->eventfd);

	c->announced = false;
	if (eventfd_err && !err)
		las_op_fini(&c->op);
	return eventfd_err ? eventfd_err : err;
}

/* What the native lane does not take.  From here on the op may own memory. */
static int finish_or_enqueue(struct las_submission *s, struct las_candidate *c, enum las_verdict verdict, long result)
{
	int err;

	switch (verdict) {
	case LAS_DONE:
		las_submission_post(s, c, result);
		las_op_fini(&c->op);
		return 0;
	case LAS_REFUSE:
		err = (int)result;
		break;
	default:
		err = las_enqueue(s, c);
		break;
	}
	if (err)
		las_op_fini(&c->op);
	return err;
}

static int run_or_enqueue(struct las_submission *s, struct las_candidate *c)
{
	enum las_verdict verdict;
	long result = 0;

	verdict = c->announced ? LAS_PASS : las_route(&c->op, c->file, &c->stage, &result);
	if (verdict == LAS_PASS && las_enqueue_native(s, c))
		return 0;
	/* Passed on for the kernel to find out what is only assumed, but it does not get the request. */
	if (las_unlikely(verdict == LAS_PASS && c->file->assumed)) {
		int err = c->announced && !c->eventfd ? look_at_eventfd(s, c, 0) : 0;

		if (err)
			return err;
		c->announced = c->file->checked = false;
		verdict = las_route(&c->op, c->file, &c->stage, &result);
	}
	return finish_or_enqueue(s, c, verdict, result);
}

/*
 * The only request of its call, for a file that the native lane had a moment ago: the kernel looks at its eventfd if it
 * is to raise it, and what it refuses is begun afresh.
 */
static bool leave_eventfd_to_kernel(struct las_submission *s, const struct las_candidate *c)
{
	return s->files.alone && c->file->checked && las_enqueue_announces(s, c);
}

/* The kernel's order of checks between the iocb's fields and the operation. */
static int check_files(struct las_submission *s, struct las_candidate *c, struct las_iocb *user)
{
	int err = las_batch_file(&s->files, (int)c->iocb.fildes, &c->file);

	if (err)
		return err;
	c->eventfd = NULL;
	c->announced = leave_eventfd_to_kernel(s, c);
	if (c->iocb.flags & LAS_FLAG_RESFD && !s->quiet && !c->announced) {
		err = las_submission_eventfd(s, c->iocb.resfd, &c->eventfd);
		if (err)
			return err;
	}
	if (!las_umem_writable(&user->key, sizeof(user->key)))
		return -EFAULT;
	if (user->key)
		user->key = 0;
	err = las_request_decode(&c->iocb, c->file, &c->op);
	/* An assumption may allow, it may not refuse. */
	if (las_unlikely(err == -EBADF && c->file->assumed)) {
		err = las_file_refresh(c->file);
		if (!err)
			err = las_request_decode(&c->iocb, c->file, &c->op);
	}
	/* What the file cannot do at all is noticed before where the bytes would be. */
	if (las_unlikely(err == -EFAULT) && las_file_check_op(c->file, &c->op) == -EINVAL)
		err = -EINVAL;
	if (las_unlikely(c->announced && (err || !las_route_passes(&c->op, c->file))))
		return look_at_eventfd(s, c, err);
	return err;
}

/*
 * A poll is for the kernel to judge: whether there is such a file, whether it can be waited for, whether it is ready.
 * It does so one after the other, and leaves the rest alone when it refuses one: that one is then looked at here.  So
 * all that was left to it goes down before anything else is done.  False if the poll cannot be left to it, intact.
 */
static bool leave_to_kernel(struct las_submission *s, struct las_candidate *c, struct las_iocb *user)
{
	if (c->iocb.opcode != LAS_CMD_POLL || s->look || !(las_config.lanes & LAS_LANE_NATIVE))
		return false;
	c->stand_in = (struct las_file){ .fd = (int)c->iocb.fildes, .assumed = true };
	c->file = &c->stand_in;
	c->eventfd = NULL;
	c->announced = false;
	if (c->iocb.flags & LAS_FLAG_RESFD && !s->quiet && las_submission_eventfd(s, c->iocb.resfd, &c->eventfd))
		return false;
	if (!las_umem_writable(&user->key, sizeof(user->key)) || las_request_decode(&c->iocb, c->file, &c->op))
		return false;
	if (user->key)
		user->key = 0;
	return las_enqueue_native(s, c);
}

static int submit_one(struct las_submission *s, struct las_iocb *user)
{
	struct las_candidate c;
	int err;

	if (!las_umem_readable(user, sizeof(*user)))
		return -EFAULT;
	memcpy(&c.iocb, user, sizeof(c.iocb));
	c.obj = (uint64_t)(uintptr_t)user;
	c.stage = LAS_STAGE_RUN;
	err = las_request_check(&c.iocb);
	if (err)
		return err;
	if (!las_slot_get(&s->ctx->slots))
		return -EAGAIN;
	if (leave_to_kernel(s, &c, user))
		return 0;
	if (s->unseen)
		flush_native(s);
	err = s->withdrawn ? -ECANCELED : check_files(s, &c, user);
	if (!err)
		err = run_or_enqueue(s, &c);
	if (err)
		las_slot_put(&s->ctx->slots);
	return err;
}

/*
 * Whether the caller is about to run these itself: it is the context's only
 * thread, and has waited for everything, and helped, the last few times.
 * A wrong guess costs a millisecond: then the reaper calls the crew.
 */
static bool will_help(const struct las_submission *s)
{
	const struct las_ctx *ctx = s->ctx;

	return las_load_relaxed(&ctx->helped) >= HELPED && !las_load_relaxed(&ctx->shared) &&
	       s->crew.next == s->crew.prev;
}

static void push_crew(struct las_submission *s)
{
	if (las_list_empty(&s->crew))
		return;
	las_crew_push(&s->crew, will_help(s));
}

/* How many were accepted, or the error of the first. */
static long submit_all(struct las_submission *s, long nr, struct las_iocb *const *iocbs)
{
	long i = 0;
	int err = 0;

	for (;;) {
		while (i < nr && !err && !s->withdrawn) {
			err = las_umem_readable(&iocbs[i], sizeof(*iocbs)) ? submit_one(s, iocbs[i]) : -EFAULT;
			i += !err;
		}
		flush_raises(s);
		flush_native(s);
		if (las_likely(!s->withdrawn))
			return i ? i : err;
		/* Once more from the first of them, and without an assumption. */
		i -= s->withdrawn;
		err = 0;
		s->withdrawn = 0;
		s->look = true;
		las_batch_fini(&s->files);
		las_batch_init(&s->files, false);
	}
}

long las_submit(struct las_ctx *ctx, long nr, struct las_iocb *const *iocbs, enum las_telling telling)
{
	struct las_submission s;
	long accepted;

	s.ctx = ctx;
	s.quiet = telling != LAS_TELL_ALL;
	s.answers = telling == LAS_TELL_RESULT;
	s.answered = false;
	s.unseen = s.look = s.reaper = s.asked_descriptors = s.asked_priority = false;
	s.shares_descriptors = true;
	s.native_count = s.announced = s.withdrawn = 0;
	las_ctx_used(ctx);
	las_store_relaxed(&ctx->unwaited, las_load_relaxed(&ctx->unwaited) + 1); /* a hint: lost updates are harmless */
	las_batch_init(&s.files, nr == 1);
	las_batch_init(&s.eventfds, false);
	memset(s.raises, 0, sizeof(s.raises));
	las_list_init(&s.crew);
	accepted = submit_all(&s, nr, iocbs);
	push_crew(&s);
	las_batch_fini(&s.files);
	las_batch_fini(&s.eventfds);
	if (las_unlikely(las_hold_parked()) && !las_table_is_stranger() && !las_reaper_watch())
		las_hold_expire(LAS_EXPIRE_NOW); /* there is nobody to close them in time */
	if (s.answered)
		return s.answer;
	return s.answers && accepted == 1 ? LAS_SUBMITTED : accepted;
}
