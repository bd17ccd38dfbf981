/* enqueue.c - see enqueue.h. */
#include "aio/enqueue.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <sys/stat.h>

#include "aio/complete.h"
#include "base/config.h"
#include "base/stats.h"
#include "base/sys.h"
#include "lanes/announce.h"
#include "lanes/crew.h"
#include "lanes/order.h"
#include "lanes/pollset.h"
#include "lanes/predictor.h"
#include "lanes/reaper.h"
#include "lanes/route.h"
#include "lanes/table.h"

/* Submissions in a row without a wait, more than its depth, that make a program one that only peeks. */
#define UNWAITED 4

static int hold_eventfd(struct las_submission *s, struct las_candidate *c, struct las_req *req)
{
	if (s->quiet && c->iocb.flags & LAS_FLAG_RESFD) {
		int err = las_submission_eventfd(s, c->iocb.resfd, &c->eventfd);

		if (err)
			return err;
	}
	if (!c->eventfd)
		return 0;
	req->eventfd_may_block = !(c->eventfd->flags & O_NONBLOCK);
	return las_file_hold(c->eventfd, &req->eventfd);
}

/* A crew thread uses our descriptors; in a clone(CLONE_VM) child that has its own, it cannot. */
static bool crew_can_help(struct las_submission *s)
{
	if (!s->asked_descriptors) {
		s->shares_descriptors = las_table_shared();
		s->asked_descriptors = true;
	}
	return s->shares_descriptors;
}

/* Makes a request of the candidate: NULL if something it needs cannot be had; the candidate is intact then. */
static struct las_req *make_request(struct las_submission *s, struct las_candidate *c, enum las_lane lane, bool hold)
{
	struct las_req *req = las_req_get();
	bool announced = c->announced && lane == LAS_LANE_NATIVE;

	if (!req)
		return NULL;
	req->op.kind = LAS_OP_POLL; /* nothing to give back yet, should a hold fail */
	if ((hold && las_file_hold(c->file, &req->file) < 0) || ((hold || !announced) && hold_eventfd(s, c, req) < 0)) {
		las_req_put(req);
		return NULL;
	}
	las_op_move(&req->op, &c->op);
	req->owner = &s->ctx->owner;
	req->data = c->iocb.data;
	req->obj = c->obj;
	req->fd = c->file->fd;
	req->flags = c->file->flags;
	req->lane = (uint8_t)lane;
	req->announced = announced;
	req->resfd = (int)c->iocb.resfd;
	req->bounded = c->op.kind != LAS_OP_POLL && (lane == LAS_LANE_NATIVE || las_file_bounded(c->file));
	req->device = (uint32_t)(c->file->device ^ c->file->device >> 8);
	return req;
}

/* Counts the request wherever it has to be counted until it ends. */
static void accept(struct las_submission *s, struct las_req *req)
{
	las_ctx_hold(s->ctx, 1);
	las_crew_owe(req);
	if (req->lane == LAS_LANE_NATIVE) {
		s->announced += req->announced;
		if (req->eventfd && !req->announced)
			las_add_relaxed(&s->ctx->notifying, 1); /* the system call orders it before the event */
		return;
	}
	req->settles = req->bounded && las_op_is_rw(&req->op);
	if (req->settles)
		las_add_relaxed(&s->ctx->settling, 1);
	las_complete_elsewhere(s->ctx);
}

/* This thread's I/O priority, which the kernel would give to what it reads and writes inside io_submit. */
static int16_t priority_of_thread(struct las_submission *s)
{
	if (!s->asked_priority) {
		s->priority = (int16_t)las_sys.ioprio_get(IOPRIO_WHO_PROCESS, 0);
		s->asked_priority = true;
	}
	return s->priority;
}

/* Passes a request that holds its file on to where it waits. */
static void dispatch(struct las_submission *s, struct las_file *file, struct las_req *req)
{
	/* All eventfds, timerfds and their like share one inode, and have no order among them to keep. */
	bool in_line = las_op_is_rw(&req->op) &&
	               ((file->stream && !las_file_anonymous(file)) || las_route_is_append(file, &req->op));

	req->priority = priority_of_thread(s);
	req->pollable = !req->bounded && !file->refuses_nowait;
	/* 0: it waits for others, and whoever ends the last of them passes it on. */
	if ((in_line || (req->bounded && req->op.kind != LAS_OP_READ)) && las_order_enter(req, file, in_line) == 0)
		return;
	if (req->pollable && las_pollset_add(req) == 0) {
		las_count(polled, 1);
		return;
	}
	las_count(crew, 1);
	las_list_push(&s->crew, &req->link);
}

static bool must_be_reaped(const struct las_ctx *ctx)
{
	/* Relaxed hints: a wrong guess costs up to a millisecond (the reaper's look), or a wake-up too many. */
	return las_load_relaxed(&ctx->notifying) || las_load_relaxed(&ctx->elsewhere) ||
	       (las_load_relaxed(&ctx->unwaited) > ctx->reserved + UNWAITED && !las_load_relaxed(&ctx->leading));
}

/*
 * KERNEL: overlay passes O_DIRECT on to the file below, asynchronously, but
 * knows no NOWAIT.  Such a request goes down without it, and may block where
 * kernel AIO would have blocked: a thread each would cost far more.  In
 * memory nothing blocks.  True if that was that.
 */
static bool goes_bare(struct las_submission *s, struct las_req *req)
{
	struct las_link refused;
	struct las_file *file;

	if (req->result != -EOPNOTSUPP || !las_op_is_rw(&req->op) || las_batch_file(&s->files, req->fd, &file) < 0 ||
	    las_file_refresh(file) < 0 || las_file_medium(file) < 0 || !las_file_direct(file) ||
	    (file->medium != LAS_MEDIUM_STACKED && file->medium != LAS_MEDIUM_MEMORY))
		return false;
	file->bare = true;
	file->remembered = false;
	las_file_remember(file);
	if (file->medium == LAS_MEDIUM_MEMORY) {
		req->owner->complete(req, las_op_run(&req->op, req->fd));
		return true;
	}
	req->bare = true;
	las_list_init(&refused);
	las_native_submit(las_load_acquire(&s->ctx->native), &req, 1, must_be_reaped(s->ctx), &refused);
	return las_list_empty(&refused);
}

/*
 * KERNEL: a write into a hole, or into space that was only set aside, may wait for the file's map in its io_submit, and
 * is asynchronous after that.  It goes the same way while that is predicted not to wait, else the crew does it for the
 * program.  True if that was that.
 */
static bool goes_predicted(struct las_submission *s, struct las_req *req)
{
	struct las_native *native = las_load_acquire(&s->ctx->native);
	struct las_link refused;
	struct las_guess guess;
	struct las_file *file;

	if (req->result != -EAGAIN || req->turned_away || req->op.kind != LAS_OP_WRITE || req->op.done ||
	    las_batch_file(&s->files, req->fd, &file) < 0 || las_file_refresh(file) < 0 || las_file_medium(file) < 0 ||
	    !las_file_writes_begin(file))
		return false;
	las_file_remember(file);
	if (!las_predict(file, &req->op)) {
		req->native = native;
		return false;
	}
	req->bare = true;
	las_list_init(&refused);
	las_predict_begin(&guess, file, &req->op);
	las_native_submit(native, &req, 1, must_be_reaped(s->ctx), &refused);
	las_predict_end(&guess, file);
	return las_list_empty(&refused);
}

/*
 * Whether a request went to the kernel on a wrong assumption about its
 * descriptor (lanes/file.h).  It never ran, and is the only one of its call.
 */
static bool was_misled(struct las_submission *s, const struct las_req *req)
{
	struct las_file *file;
	int flags;

	if (!s->files.alone || las_batch_file(&s->files, req->fd, &file) < 0 || !file->assumed)
		return false;
	flags = file->flags;
	return las_file_refresh(file) < 0 || req->turned_away || ((file->flags ^ flags) & O_DIRECT);
}

/*
 * O_DIRECT stands for a file or a block device until it is looked at: it may be a pipe in packet mode.  False if
 * O_NONBLOCK says there that nothing is waited for.
 */
static bool may_wait(const struct las_file *file, struct las_op *op)
{
	if (!file->stream || !las_op_is_rw(op))
		return true;
	op->offset = -1;
	return !(file->flags & O_NONBLOCK);
}

/*
 * The kernel has raised the eventfd of a request for which there is no event yet: that is taken back, and done here when
 * there is.  Without a descriptor for that it is raised already, since the request is going to be run here and now.
 */
static void announce_later(struct las_submission *s, struct las_req *req)
{
	struct las_file *eventfd;

	las_announce_stop(las_load_acquire(&s->ctx->native));
	if (!req->unseen && !req->eventfd &&
	    (las_submission_eventfd(s, (uint32_t)req->resfd, &eventfd) < 0 ||
	     las_file_hold(eventfd, &req->eventfd) < 0)) {
		if (req->turned_away)
			las_complete_raise(req->resfd, 1, true);
		return;
	}
	if (!req->turned_away)
		las_announce_take_back(req->resfd);
	req->announced = false;
	if (!req->unseen)
		las_add_relaxed(&s->ctx->notifying, 1); /* it has an eventfd, and is with the kernel yet */
}

/* The kernel would not have it after all; its descriptor is still open.  It is accepted: it runs, here if need be. */
static void carry_on(struct las_submission *s, struct las_req *req)
{
	struct las_file *file;

	if (req->announced)
		announce_later(s, req);
	if (req->unseen || was_misled(s, req)) {
		s->withdrawn++;
		req->owner->discard(req);
		return;
	}
	if (goes_bare(s, req) || goes_predicted(s, req))
		return;
	req->lane = LAS_LANE_CREW;
	req->owner->moved(req);
	if (crew_can_help(s) && las_batch_file(&s->files, req->fd, &file) == 0 && las_file_refresh(file) == 0 &&
	    las_file_look(file) == 0 && (req->file || las_file_hold(file, &req->file) == 0)) {
		req->device = (uint32_t)(file->device ^ file->device >> 8);
		req->bounded = req->bounded && las_file_bounded(file);
		req->predictor = las_predict_entry(file, &req->op);
		if (may_wait(file, &req->op)) {
			dispatch(s, file, req);
			return;
		}
	}
	req->owner->complete(req, las_op_run(&req->op, req->fd));
}

void las_enqueue_flush(struct las_submission *s)
{
	struct las_ctx *ctx = s->ctx;
	struct las_link refused, *l;

	las_list_init(&refused);
	las_native_submit(las_load_acquire(&ctx->native), s->native, s->native_count,
	                  s->native_count > s->announced && must_be_reaped(ctx), &refused);
	las_count(native, s->native_count);
	s->native_count = s->announced = 0;
	s->unseen = false;
	while ((l = las_list_pop(&refused)))
		carry_on(s, las_container_of(l, struct las_req, link));
	las_reaper_watch();
	/* Those who slept elsewhere because there was nothing with the kernel: one of them can lead now. */
	if (las_load_relaxed(&ctx->waiters) && !las_load_relaxed(&ctx->leading) && !las_load_relaxed(&ctx->elsewhere))
		las_complete_wake_one(ctx);
}

/* The context's hidden kernel context: borrowed at the first need, NULL while the kernel has none to give. */
static struct las_native *native_of(struct las_ctx *ctx)
{
	struct las_native *native = las_load_acquire(&ctx->native), *none = NULL;

	if (native)
		return native;
	native = las_native_get(ctx->reserved);
	if (!native)
		return NULL;
	if (las_cas_acq_rel(&ctx->native, &none, native))
		return native;
	las_native_put(native); /* another thread was first */
	return none;
}

/* An fsync that has to wait for the crew's writes cannot be given to the kernel yet. */
static bool waits_for_writes(const struct las_candidate *c)
{
	return las_op_must_finish(&c->op) && c->op.kind != LAS_OP_WRITE && las_order_busy(c->file, c->op.kind);
}

/*
 * Without a reaper, events of the native lane would only come when the program calls io_getevents.  Polls take that
 * chance: in the crew they would need a thread too.
 */
static bool somebody_reaps(struct las_submission *s, const struct las_candidate *c)
{
	if (c->op.kind == LAS_OP_POLL)
		return true;
	if (!s->reaper)
		s->reaper = las_reaper_watch();
	return s->reaper;
}

bool las_enqueue_announces(struct las_submission *s, const struct las_candidate *c)
{
	struct las_native *native = las_load_acquire(&s->ctx->native);

	return native && c->iocb.flags & LAS_FLAG_RESFD && !s->quiet && !s->look &&
	       !las_load_relaxed(&s->ctx->shared) && las_announce_by_kernel(native, (int)c->iocb.resfd);
}

bool las_enqueue_native(struct las_submission *s, struct las_candidate *c)
{
	struct las_req *req;
	bool hold;

	if (!(las_config.lanes & LAS_LANE_NATIVE) || !las_native_wants(&c->op, c->file) ||
	    las_route_is_append(c->file, &c->op) || waits_for_writes(c) || !native_of(s->ctx) || !somebody_reaps(s, c))
		return false;
	if (c->op.kind == LAS_OP_POLL && !las_native_cancels(las_load_acquire(&s->ctx->native)))
		return false;
	hold = las_native_needs_hold(&c->op); /* a late refusal goes to the crew */
	c->announced = c->announced || (c->eventfd && las_op_is_rw(&c->op) && las_enqueue_announces(s, c));
	if ((hold || (c->eventfd && !c->announced)) && !crew_can_help(s))
		return false; /* nor could the reaper raise the eventfd */
	req = make_request(s, c, LAS_LANE_NATIVE, hold);
	if (!req)
		return false;
	accept(s, req);
	req->bare = c->file->bare;
	req->unseen = c->file == &c->stand_in || (c->announced && !c->eventfd);
	s->unseen = s->unseen || req->unseen;
	las_file_remember(c->file);
	s->native[s->native_count++] = req;
	if (s->native_count == LAS_NATIVE_BATCH)
		las_enqueue_flush(s);
	return true;
}

/* Whether it is for a file in memory: O_DIRECT or not, it waits for no device, and needs no thread. */
static bool is_in_memory(const struct las_candidate *c)
{
	return las_op_is_rw(&c->op) && las_file_direct(c->file) && las_config.lanes & LAS_LANE_HEAD &&
	       las_config.inline_mode != LAS_INLINE_NEVER && S_ISREG(c->file->mode) && las_order_idle() &&
	       las_file_medium(c->file) == 0 && c->file->medium == LAS_MEDIUM_MEMORY;
}

int las_enqueue(struct las_submission *s, struct las_candidate *c)
{
	struct las_req *req;
	int err;

	err = las_file_look(c->file);
	if (err)
		return err;
	if (!may_wait(c->file, &c->op) || is_in_memory(c)) {
		las_submission_post(s, c, las_op_run(&c->op, c->file->fd));
		las_op_fini(&c->op);
		return 0;
	}
	/*
	 * KERNEL: threads-of-the-process: it needs none for a poll, and never waits for one in io_submit (test:
	 * hostile.poll_is_no_wait_where_no_thread_can_be_made).
	 */
	if (c->op.kind == LAS_OP_POLL && crew_can_help(s) && !las_pollset_has_thread())
		return -EAGAIN;
	las_file_pin(c->file, &c->op);
	req = crew_can_help(s) ? make_request(s, c, LAS_LANE_CREW, true) : NULL;
	if (req) {
		req->stage = (uint8_t)(req->bounded ? c->stage : LAS_STAGE_RUN);
		/* How long it takes tells nothing then: the prefetch has taken the time. */
		if (req->stage != LAS_STAGE_PREFETCH)
			req->predictor = las_predict_entry(c->file, &c->op);
		accept(s, req);
		if (req->stage != LAS_STAGE_RUN)
			las_file_remember(c->file);
		dispatch(s, c->file, req);
		return 0;
	}
	/* One that may wait for ever is refused rather than run here, unless nobody else ever could. */
	if ((c->op.kind == LAS_OP_POLL || !las_file_bounded(c->file)) && s->shares_descriptors)
		return -EAGAIN;
	las_submission_post(s, c, las_op_run(&c->op, c->file->fd));
	las_op_fini(&c->op);
	return 0;
}
