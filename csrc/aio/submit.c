/*
 * submit.c - see submit.h.
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
#include <sys/stat.h>

#include "aio/complete.h"
#include "aio/request.h"
#include "base/config.h"
#include "base/stats.h"
#include "base/sys.h"
#include "base/umem.h"
#include "lanes/crew.h"
#include "lanes/native.h"
#include "lanes/order.h"
#include "lanes/pollset.h"
#include "lanes/predictor.h"
#include "lanes/reaper.h"
#include "lanes/route.h"
#include "lanes/table.h"

#define UNWAITED \
	4 /* submissions in a row without a wait, more than its depth, that make a program one that only peeks */

#define READAHEAD_BYTES (128 * 1024) /* what a NOWAIT read starts to read at most, as disks are set up by default */
#define HELPED 4                     /* waits in a row in which the caller ran what it had submitted */

struct submission {
	struct las_ctx *ctx;
	struct las_batch files, eventfds;
	uint32_t raises[LAS_BATCH_FILES];         /* events posted for eventfds.files[i] that it was not told of */
	struct las_link crew;                     /* requests to push at the end */
	struct las_req *native[LAS_NATIVE_BATCH]; /* requests for the kernel */
	unsigned native_count;
	bool quiet;
	bool unseen;        /* the last of them are polls that only the kernel has looked at, or will */
	unsigned withdrawn; /* how many of those that were accepted last are not, after all; they never ran */
	bool look;          /* what follows is looked at here first */
	bool reaper;        /* there is one */
	bool asked_descriptors, shares_descriptors;
	bool asked_priority;
	int16_t priority;
};

/* One iocb on its way. */
struct candidate {
	struct las_iocb iocb; /* the copy */
	uint64_t obj;         /* the program's address of it */
	struct las_file *file, *eventfd;
	struct las_op op;
	struct las_file unseen; /* the file, if it is the kernel that looks at it */
	bool tried;             /* NOWAIT found no pages, and has started to read them */
};

static void flush_raises(struct submission *s)
{
	for (unsigned i = 0; i < s->eventfds.count; i++) {
		struct las_file *file = &s->eventfds.files[i];

		if (s->raises[i])
			las_complete_raise(file->hold ? file->hold->fd : file->fd, s->raises[i],
			                   !(file->flags & O_NONBLOCK));
		s->raises[i] = 0;
	}
}

static int find_eventfd(struct submission *s, uint32_t fd, struct las_file **file)
{
	/* A full table drops an entry: what it owes is paid before. */
	if (las_unlikely(s->eventfds.count == LAS_BATCH_FILES))
		flush_raises(s);
	return las_batch_eventfd(&s->eventfds, (int)fd, file);
}

static void post(struct submission *s, const struct candidate *c, long result)
{
	struct las_event event = { .data = c->iocb.data, .obj = c->obj, .res = result };

	/* Another thread may see the event and close the eventfd before it is raised. */
	if (c->eventfd && las_load_relaxed(&s->ctx->shared) && !c->eventfd->hold)
		(void)las_hold_get(c->eventfd->fd, LAS_HOLD_PLAIN, &c->eventfd->hold);
	las_complete_post(s->ctx, &event, 1, true);
	if (c->eventfd)
		s->raises[c->eventfd - s->eventfds.files]++;
}

static int hold_eventfd(struct submission *s, struct candidate *c, struct las_req *req)
{
	if (s->quiet && c->iocb.flags & LAS_FLAG_RESFD) {
		int err = find_eventfd(s, c->iocb.resfd, &c->eventfd);

		if (err)
			return err;
	}
	if (!c->eventfd)
		return 0;
	req->eventfd_may_block = !(c->eventfd->flags & O_NONBLOCK);
	return las_file_hold(c->eventfd, &req->eventfd);
}

/* A crew thread uses our descriptors; in a clone(CLONE_VM) child that has its own, it cannot. */
static bool crew_can_help(struct submission *s)
{
	if (!s->asked_descriptors) {
		s->shares_descriptors = las_table_shared();
		s->asked_descriptors = true;
	}
	return s->shares_descriptors;
}

/* Makes a request of the candidate: NULL if something it needs cannot be had; the candidate is intact then. */
static struct las_req *make_request(struct submission *s, struct candidate *c, enum las_lane lane, bool hold)
{
	struct las_req *req = las_req_get();

	if (!req)
		return NULL;
	req->op.kind = LAS_OP_POLL; /* nothing to give back yet, should a hold fail */
	if ((hold && las_file_hold(c->file, &req->file) < 0) || hold_eventfd(s, c, req) < 0) {
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
	req->bounded = c->op.kind != LAS_OP_POLL && (lane == LAS_LANE_NATIVE || las_file_bounded(c->file));
	req->device = (uint32_t)(c->file->device ^ c->file->device >> 8);
	return req;
}

/* Counts the request wherever it has to be counted until it ends. */
static void accept(struct submission *s, struct las_req *req)
{
	las_ctx_hold(s->ctx, 1);
	las_crew_owe(req);
	if (req->lane == LAS_LANE_NATIVE) {
		if (req->eventfd)
			las_add_relaxed(&s->ctx->notifying, 1); /* the system call orders it before the event */
		return;
	}
	req->settles = req->bounded && las_op_is_rw(&req->op);
	if (req->settles)
		las_add_relaxed(&s->ctx->settling, 1);
	las_complete_elsewhere(s->ctx);
}

/* This thread's I/O priority, which the kernel would give to what it reads and writes inside io_submit. */
static int16_t priority_of_thread(struct submission *s)
{
	if (!s->asked_priority) {
		s->priority = (int16_t)las_sys.ioprio_get(1 /* IOPRIO_WHO_PROCESS */, 0);
		s->asked_priority = true;
	}
	return s->priority;
}

/* Passes a request that holds its file on to where it waits. */
static void dispatch(struct submission *s, struct las_file *file, struct las_req *req)
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
static bool goes_bare(struct submission *s, struct las_req *req)
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
 * Whether a request went to the kernel on a wrong assumption about its
 * descriptor (lanes/file.h).  It never ran, and is the only one of its call.
 */
static bool was_misled(struct submission *s, const struct las_req *req)
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

/* The kernel would not have it after all; its descriptor is still open.  It is accepted: it runs, here if need be. */
static void carry_on(struct submission *s, struct las_req *req)
{
	struct las_file *file;

	if (req->unseen || was_misled(s, req)) {
		s->withdrawn++;
		req->owner->discard(req);
		return;
	}
	if (goes_bare(s, req))
		return;
	req->lane = LAS_LANE_CREW;
	req->owner->moved(req);
	if (crew_can_help(s) && las_batch_file(&s->files, req->fd, &file) == 0 && las_file_refresh(file) == 0 &&
	    las_file_look(file) == 0 && (req->file || las_file_hold(file, &req->file) == 0)) {
		req->device = (uint32_t)(file->device ^ file->device >> 8);
		req->bounded = req->bounded && las_file_bounded(file);
		if (may_wait(file, &req->op)) {
			dispatch(s, file, req);
			return;
		}
	}
	req->owner->complete(req, las_op_run(&req->op, req->fd));
}

static void flush_native(struct submission *s)
{
	struct las_ctx *ctx = s->ctx;
	struct las_link refused, *l;

	if (s->native_count == 0)
		return;
	las_list_init(&refused);
	las_native_submit(las_load_acquire(&ctx->native), s->native, s->native_count, must_be_reaped(ctx), &refused);
	las_count(native, s->native_count);
	s->native_count = 0;
	s->unseen = false;
	while ((l = las_list_pop(&refused)))
		carry_on(s, las_container_of(l, struct las_req, link));
	las_reaper_watch();
	/* Those who slept elsewhere because there was nothing with the kernel: one of them can lead now. */
	if (las_load_relaxed(&ctx->waiters) && !las_load_relaxed(&ctx->leading) && !las_load_relaxed(&ctx->elsewhere))
		las_complete_wake_all(ctx);
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
static bool waits_for_writes(const struct candidate *c)
{
	return las_op_must_finish(&c->op) && c->op.kind != LAS_OP_WRITE && las_order_busy(c->file, c->op.kind);
}

/*
 * Without a reaper, events of the native lane would only come when the program calls io_getevents.  Polls take that
 * chance: in the crew they would need a thread too.
 */
static bool somebody_reaps(struct submission *s, const struct candidate *c)
{
	if (c->op.kind == LAS_OP_POLL)
		return true;
	if (!s->reaper)
		s->reaper = las_reaper_watch();
	return s->reaper;
}

/* True if the native lane takes it. */
static bool enqueue_native(struct submission *s, struct candidate *c)
{
	struct las_req *req;
	bool hold;

	if (!(las_config.lanes & LAS_LANE_NATIVE) || !las_native_wants(&c->op, c->file) ||
	    las_route_is_append(c->file, &c->op) || waits_for_writes(c) || !native_of(s->ctx) || !somebody_reaps(s, c))
		return false;
	hold = las_native_needs_hold(&c->op); /* a late refusal goes to the crew */
	if ((hold || c->eventfd) && !crew_can_help(s))
		return false; /* nor could the reaper raise the eventfd */
	req = make_request(s, c, LAS_LANE_NATIVE, hold);
	if (!req)
		return false;
	accept(s, req);
	req->bare = c->file->bare;
	req->unseen = c->file == &c->unseen;
	s->unseen = s->unseen || req->unseen;
	las_file_remember(c->file);
	s->native[s->native_count++] = req;
	if (s->native_count == LAS_NATIVE_BATCH)
		flush_native(s);
	return true;
}

/* Whether it is for a file in memory: O_DIRECT or not, it waits for no device, and needs no thread. */
static bool is_in_memory(const struct candidate *c)
{
	return las_op_is_rw(&c->op) && las_file_direct(c->file) && las_config.lanes & LAS_LANE_HEAD &&
	       las_config.inline_mode != LAS_INLINE_NEVER && S_ISREG(c->file->mode) && las_order_idle() &&
	       las_file_medium(c->file) == 0 && c->file->medium == LAS_MEDIUM_MEMORY;
}

static int enqueue(struct submission *s, struct candidate *c)
{
	struct las_req *req;
	int err;

	if (enqueue_native(s, c))
		return 0;
	if (las_unlikely(c->file->assumed))
		return -EAGAIN; /* no memory for a request, and no good idea of the file */
	err = las_file_look(c->file);
	if (err)
		return err;
	if (!may_wait(c->file, &c->op) || is_in_memory(c)) {
		post(s, c, las_op_run(&c->op, c->file->fd));
		las_op_fini(&c->op);
		return 0;
	}
	las_file_pin(c->file, &c->op);
	req = crew_can_help(s) ? make_request(s, c, LAS_LANE_CREW, true) : NULL;
	if (req) {
		req->predictor = las_predict_entry(c->file, &c->op);
		req->warm = c->tried && req->bounded && c->op.kind == LAS_OP_READ && c->op.bytes <= READAHEAD_BYTES;
		accept(s, req);
		if (req->warm)
			las_file_remember(c->file);
		dispatch(s, c->file, req);
		return 0;
	}
	/* One that may wait for ever is refused rather than run here, unless nobody else ever could. */
	if ((c->op.kind == LAS_OP_POLL || !las_file_bounded(c->file)) && s->shares_descriptors)
		return -EAGAIN;
	post(s, c, las_op_run(&c->op, c->file->fd));
	las_op_fini(&c->op);
	return 0;
}

/* Whether the native lane takes a transfer within one block without a look at its file. */
static bool goes_unseen(struct submission *s)
{
	return las_config.lanes & LAS_LANE_NATIVE && native_of(s->ctx);
}

/* From here on the op may own memory. */
static int run_or_enqueue(struct submission *s, struct candidate *c)
{
	enum las_verdict verdict;
	long result = 0;
	int err;

	verdict = las_route(&c->op, c->file, &c->tried, &result);
	/* Assumed yet: for the kernel to find out, if it gets the request. */
	if (las_unlikely(verdict == LAS_PASS && c->file->assumed && !goes_unseen(s))) {
		c->file->checked = false;
		verdict = las_route(&c->op, c->file, &c->tried, &result);
	}
	switch (verdict) {
	case LAS_DONE:
		post(s, c, result);
		las_op_fini(&c->op);
		return 0;
	case LAS_REFUSE:
		err = (int)result;
		break;
	default:
		err = enqueue(s, c);
		break;
	}
	if (err)
		las_op_fini(&c->op);
	return err;
}

/* The kernel's order of checks between the iocb's fields and the operation. */
static int check_files(struct submission *s, struct candidate *c, struct las_iocb *user)
{
	int err = las_batch_file(&s->files, (int)c->iocb.fildes, &c->file);

	if (err)
		return err;
	c->eventfd = NULL;
	if (c->iocb.flags & LAS_FLAG_RESFD && !s->quiet) {
		err = find_eventfd(s, c->iocb.resfd, &c->eventfd);
		if (err)
			return err;
	}
	if (!las_umem_writable(user, sizeof(*user)))
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
	return err;
}

/*
 * A poll is for the kernel to judge: whether there is such a file, whether it can be waited for, whether it is ready.
 * It does so one after the other, and leaves the rest alone when it refuses one: that one is then looked at here.  So
 * all that was left to it goes down before anything else is done.  False if the poll cannot be left to it, intact.
 */
static bool leave_to_kernel(struct submission *s, struct candidate *c, struct las_iocb *user)
{
	if (c->iocb.opcode != LAS_CMD_POLL || s->look || !(las_config.lanes & LAS_LANE_NATIVE))
		return false;
	c->unseen = (struct las_file){ .fd = (int)c->iocb.fildes, .assumed = true };
	c->file = &c->unseen;
	c->eventfd = NULL;
	if (c->iocb.flags & LAS_FLAG_RESFD && !s->quiet && find_eventfd(s, c->iocb.resfd, &c->eventfd))
		return false;
	if (!las_umem_writable(user, sizeof(*user)) || las_request_decode(&c->iocb, c->file, &c->op))
		return false;
	if (user->key)
		user->key = 0;
	return enqueue_native(s, c);
}

static int submit_one(struct submission *s, struct las_iocb *user)
{
	struct candidate c;
	int err;

	if (!las_umem_readable(user, sizeof(*user)))
		return -EFAULT;
	memcpy(&c.iocb, user, sizeof(c.iocb));
	c.obj = (uint64_t)(uintptr_t)user;
	c.tried = false;
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
static bool will_help(const struct submission *s)
{
	const struct las_ctx *ctx = s->ctx;

	return ctx->helped >= HELPED && !las_load_relaxed(&ctx->shared) && s->crew.next == s->crew.prev;
}

static void push_crew(struct submission *s)
{
	if (las_list_empty(&s->crew))
		return;
	las_crew_push(&s->crew, will_help(s));
}

/* How many were accepted, or the error of the first. */
static long submit_all(struct submission *s, long nr, struct las_iocb *const *iocbs)
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

long las_submit(struct las_ctx *ctx, long nr, struct las_iocb *const *iocbs, bool quiet)
{
	struct submission s;
	long accepted;

	s.ctx = ctx;
	s.quiet = quiet;
	s.unseen = s.look = s.reaper = s.asked_descriptors = s.asked_priority = false;
	s.shares_descriptors = true;
	s.native_count = s.withdrawn = 0;
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
	return accepted;
}
