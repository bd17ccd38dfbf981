/*
 * native.c - see native.h.
 *
 * A request may be finished, or refused, while io_submit is still running,
 * and another thread may find that out first.  Its `phase` says who acts:
 * (1) the submitter marks it DOWN and calls the kernel; (2) whoever takes its
 * event off the hidden ring notes the result and swaps FOUND in: if it was
 * DOWN, the submitter is not back yet, and the request is left to it; (3) the
 * submitter, back, swaps KERNEL in: if it was FOUND, it finishes the request,
 * and may still use the program's descriptor; else it never touches it again.
 * Between (1) and (3) the request is the submitter's alone.
 * A refusal found later than (3) concerns a request that the kernel had begun:
 * those that can be refused halfway hold their file and go to the crew from
 * wherever that was found.
 */
#include "lanes/native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/abi.h"
#include "base/config.h"
#include "base/futex.h"
#include "base/lock.h"
#include "base/pool.h"
#include "base/stats.h"
#include "base/ticks.h"
#include "lanes/crew.h"
#include "lanes/reaper.h"

#define KICK 0                               /* the data of an iocb that is nobody's request */
#define RETRY_TICKS 30000000                 /* about 10 ms between attempts to get a hidden context that failed */
#define SLICE_NS ((int64_t)50 * 1000 * 1000) /* a leader looks around this often, should a kick have failed */
#define LATE_NS ((int64_t)500 * 1000 * 1000) /* a leader away for longer may have left by longjmp, or have ended */
#define SINGLE_BLOCK 4096                    /* a transfer within one block cannot be refused halfway */

_Static_assert(LAS_NATIVE_BATCH <= 64, "suspects() has a bit for each");

enum { PHASE_DOWN = 1, PHASE_FOUND, PHASE_KERNEL };

struct las_native {
	struct las_link link; /* in all; guarded by pool.lock */
	struct las_ring *ring;
	unsigned depth;
	bool lent; /* to a context; guarded by pool.lock */

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
};

static struct {
	struct las_lock lock; /* guards all below */
	struct las_link all;
	unsigned count; /* on it */
	struct las_pool memory;
	uint64_t failed_at; /* ticks of the last refusal to set one up; 0: none */
} pool;

void las_native_init(void)
{
	memset(&pool, 0, sizeof(pool));
	las_list_init(&pool.all);
	las_pool_init(&pool.memory, (sizeof(struct las_native) + LAS_CACHE_LINE - 1) / LAS_CACHE_LINE * LAS_CACHE_LINE);
	las_reaper_init();
}

bool las_native_wants(const struct las_op *op, const struct las_file *file)
{
	switch (op->kind) {
	case LAS_OP_READ:
	case LAS_OP_WRITE:
		return las_file_direct(file) && !file->stream;
	case LAS_OP_FSYNC:
	case LAS_OP_FDSYNC:
	case LAS_OP_POLL:
		return true;
	default:
		return false;
	}
}

static struct las_native *free_one_locked(unsigned depth)
{
	struct las_link *l, *tmp;

	las_list_each(&pool.all, l, tmp) {
		struct las_native *native = las_container_of(l, struct las_native, link);

		if (!native->lent && native->depth >= depth)
			return native;
	}
	return NULL;
}

static struct las_native *set_up(unsigned depth)
{
	struct las_native *native;
	uintptr_t hidden = 0;

	if (las_sys.io_setup(depth, &hidden) < 0)
		return NULL;
	las_lock(&pool.lock);
	native = las_pool_get(&pool.memory);
	if (native) {
		memset(native, 0, sizeof(*native));
		native->ring = (struct las_ring *)hidden;
		native->depth = depth;
		native->lent = true;
		las_list_init(&native->polls);
		las_list_push(&pool.all, &native->link);
		pool.count++;
	}
	las_unlock(&pool.lock);
	if (!native)
		las_sys.io_destroy(hidden);
	return native;
}

struct las_native *las_native_get(unsigned depth)
{
	struct las_native *native;
	bool wait;

	las_lock(&pool.lock);
	native = free_one_locked(depth);
	if (native)
		native->lent = true;
	wait = pool.failed_at && las_ticks() - pool.failed_at < RETRY_TICKS;
	las_unlock(&pool.lock);
	if (native || wait)
		return native;
	native = set_up(depth);
	las_lock(&pool.lock);
	pool.failed_at = native ? 0 : las_ticks() | 1;
	las_unlock(&pool.lock);
	return native;
}

void las_native_put(struct las_native *native)
{
	las_lock(&pool.lock);
	native->lent = false;
	las_unlock(&pool.lock);
}

unsigned las_native_in_flight(const struct las_native *native)
{
	return las_load_acquire(&native->in_flight);
}

/* Several blocks may lie in several extents. */
bool las_native_needs_hold(const struct las_op *op)
{
	return las_op_is_rw(op) &&
	       (op->iovcnt != 1 || op->bytes > SINGLE_BLOCK ||
	        (uint64_t)op->offset / SINGLE_BLOCK != ((uint64_t)op->offset + op->bytes - !!op->bytes) / SINGLE_BLOCK);
}

static void encode(struct las_req *req, int reaper_fd)
{
	static const uint8_t vector[] = { [LAS_OP_READ] = LAS_CMD_PREADV, [LAS_OP_WRITE] = LAS_CMD_PWRITEV };
	static const uint8_t simple[] = { [LAS_OP_READ] = LAS_CMD_PREAD,
		                          [LAS_OP_WRITE] = LAS_CMD_PWRITE,
		                          [LAS_OP_FSYNC] = LAS_CMD_FSYNC,
		                          [LAS_OP_FDSYNC] = LAS_CMD_FDSYNC,
		                          [LAS_OP_POLL] = LAS_CMD_POLL };
	const struct las_op *op = &req->op;
	struct las_iocb *k = &req->kernel;

	memset(k, 0, sizeof(*k));
	k->data = (uint64_t)(uintptr_t)req;
	k->opcode = simple[op->kind];
	k->fildes = (uint32_t)req->fd;
	if (las_op_is_rw(op)) {
		k->rw_flags = op->rw_flags | (req->bare ? 0 : RWF_NOWAIT);
		k->offset = op->offset;
		if (op->iovcnt == 1) {
			k->buf = (uint64_t)(uintptr_t)op->iov->iov_base;
			k->nbytes = op->iov->iov_len;
		} else {
			k->opcode = vector[op->kind];
			k->buf = (uint64_t)(uintptr_t)op->iov;
			k->nbytes = op->iovcnt;
		}
		if (op->has_ioprio) {
			k->flags |= LAS_FLAG_IOPRIO;
			k->reqprio = (int16_t)op->ioprio;
		}
	} else if (op->kind == LAS_OP_POLL) {
		k->buf = op->poll_events;
	}
	if (reaper_fd >= 0) {
		k->flags |= LAS_FLAG_RESFD;
		k->resfd = (uint32_t)reaper_fd;
	}
}

static void forget_poll(struct las_native *native, struct las_req *req)
{
	if (req->op.kind != LAS_OP_POLL)
		return;
	las_lock(&native->lock);
	las_list_remove(&req->link);
	las_unlock(&native->lock);
}

/* To the crew, with the file that it holds. */
static void carry_on(struct las_req *req)
{
	struct las_link list;

	las_count(crew, 1);
	las_list_init(&list);
	las_list_push(&list, &req->link);
	las_crew_push(&list, false);
}

static bool is_refusal(const struct las_req *req, int64_t res)
{
	return (res == -EAGAIN || res == -EOPNOTSUPP) && !(req->op.rw_flags & RWF_NOWAIT) && !req->bare;
}

/* A part was moved and more may follow: the end of the file, or a NOWAIT that stopped where it would have blocked. */
static bool is_partial(const struct las_req *req, int64_t res)
{
	return req->file && las_op_is_rw(&req->op) && res > 0 && (uint64_t)res < req->op.bytes &&
	       las_op_goes_on(&req->op, (uint64_t)res);
}

/*
 * A late refusal is carried on by the crew, which needs the file.  Without a
 * hold, as no descriptor was to be had, the program's is taken as it is now.
 */
static bool late_hold(struct las_req *req)
{
	return req->file || las_hold_get(req->fd, LAS_HOLD_LOCKS, &req->file) == 0;
}

/* The event's result, in the hands of the only thread that may act on it. */
static void finish(struct las_native *native, struct las_req *req, int64_t res, struct las_link *refused)
{
	bool again = is_refusal(req, res);

	forget_poll(native, req);
	if (again && refused) {
		las_list_push(refused, &req->link);
	} else if ((again && late_hold(req)) || is_partial(req, res)) {
		if (!again)
			las_op_advance(&req->op, (uint64_t)res);
		req->lane = LAS_LANE_CREW;
		req->owner->moved(req);
		carry_on(req);
	} else {
		req->owner->complete(req, res);
	}
	/* Last: a waiter that finds nothing in flight here finds the event in the public ring. */
	las_sub_acq_rel(&native->in_flight, 1);
}

/* The same for what was taken off the ring together, n <= LAS_NATIVE_BATCH: most of it is just done. */
static void finish_all(struct las_native *native, struct las_req **reqs, unsigned n)
{
	unsigned done = 0;

	for (unsigned i = 0; i < n; i++) {
		struct las_req *req = reqs[i];

		if (is_refusal(req, req->result) || is_partial(req, req->result)) {
			finish(native, req, req->result, NULL);
			continue;
		}
		forget_poll(native, req);
		reqs[done++] = req;
	}
	if (done == 0)
		return;
	reqs[0]->owner->complete_all(reqs, done);  /* a hidden context serves one owner at a time */
	las_sub_acq_rel(&native->in_flight, done); /* last, as above */
}

/* The request of an event that was taken off the hidden ring, if it is ours to finish; NULL if it is its submitter's. */
static struct las_req *claim(const struct las_event *event)
{
	struct las_req *req = (struct las_req *)(uintptr_t)event->data;

	if (event->data == KICK)
		return NULL;
	/* Acquire: pairs with prepare(), as the language has it; the kernel's own barriers had ordered it before. */
	(void)las_load_acquire(&req->phase);
	req->result = event->res;
	/* Acquire and release: the result to the submitter, or the submitter's last writes to us. */
	return __atomic_exchange_n(&req->phase, PHASE_FOUND, __ATOMIC_ACQ_REL) == PHASE_DOWN ? NULL : req;
}

static void count_moved_locked(struct las_native *native, long n)
{
	las_store_release(&native->moved, native->moved + (uint64_t)n);
}

/* Claims the requests of the first n events in the leader's hands. */
static unsigned claim_taken_locked(struct las_native *native, struct las_req **out, long n)
{
	unsigned claimed = 0;

	for (long i = 0; i < n; i++) {
		struct las_req *req = claim(&native->taken[i]);

		native->taken[i].data = KICK;
		if (req)
			out[claimed++] = req;
	}
	count_moved_locked(native, n);
	return claimed;
}

/*
 * Beside a leader, which may take events off the ring right now: by the kernel, which serves one at a time.  *kicks: how
 * many of them were meant to make the leader return.
 */
static unsigned take_beside_locked(struct las_native *native, struct las_req **out, unsigned *kicks)
{
	struct las_event events[LAS_NATIVE_BATCH];
	struct timespec at_once = { 0, 0 };
	unsigned claimed = 0;
	long n = las_sys.io_getevents((uintptr_t)native->ring, 0, LAS_NATIVE_BATCH, events, &at_once, NULL);

	for (long i = 0; i < n; i++) {
		struct las_req *req = claim(&events[i]);

		*kicks += events[i].data == KICK;
		if (req)
			out[claimed++] = req;
	}
	if (n > 0)
		count_moved_locked(native, n);
	return claimed;
}

/*
 * With a leader that is late.  What it had taken before it became late is
 * complete and claimed here, in case that it has gone: the kernel has moved
 * head past it.
 */
static unsigned take_from_late_locked(struct las_native *native, struct las_req **out, unsigned *kicks)
{
	const struct las_ring *ring = native->ring;
	long n;

	if (native->late)
		return take_beside_locked(native, out, kicks);
	n = ((int64_t)las_load_acquire(&ring->head) - native->led_head + ring->nr) % ring->nr;
	las_store_relaxed(&native->late, true);
	return claim_taken_locked(native, out, n < LAS_NATIVE_BATCH ? n : LAS_NATIVE_BATCH);
}

/*
 * Takes up to max events off the hidden ring in memory (the kernel only moves
 * tail, we only head) and claims their requests.  Claims are all made under
 * the lock: when a submitter has held it after its system call and nobody
 * leads, no refusal of its requests is in anybody's hands unclaimed.
 */
static unsigned take_locked(struct las_native *native, struct las_req **out, unsigned max)
{
	struct las_ring *ring = native->ring;
	uint32_t nr = ring->nr, head = las_load_relaxed(&ring->head); /* only this side writes it, under the lock */
	uint32_t tail = las_load_acquire(&ring->tail); /* pairs with the kernel's barrier after the event */
	unsigned n = 0, moved = 0;

	if (head == tail)
		return 0;
	while (head != tail && n < max) {
		struct las_req *req = claim(&ring->events[head]);

		if (req)
			out[n++] = req;
		moved++;
		if (++head == nr)
			head = 0;
	}
	count_moved_locked(native, moved);
	las_store_release(&ring->head, head);
	return n;
}

/*
 * If this very thread leads, it is in a signal handler that interrupted its
 * wait, or has left that by longjmp: in both cases it is not in the kernel.
 * Of another one nobody can tell.
 */
static bool led_by_another_locked(const struct las_native *native)
{
	return native->led && native->leader != las_thread_self();
}

/* Relaxed: without the lock it is a hint. */
static bool is_late(const struct las_native *native)
{
	return las_now_ns() - las_load_relaxed(&native->led_ns) >= LATE_NS;
}

static bool is_empty(const struct las_native *native)
{
	return las_load_relaxed(&native->ring->head) == las_load_relaxed(&native->ring->tail);
}

/* A hint: what arrives right now is found by the next look.  A leader may have gone with events in its hands. */
static bool has_work(const struct las_native *native)
{
	return !is_empty(native) ||
	       (las_load_relaxed(&native->led) && !las_load_relaxed(&native->late) && is_late(native));
}

/* False if another thread leads, which may have events in its hands.  beside: what is in the ring is taken all the same. */
static bool drain(struct las_native *native, bool beside)
{
	struct las_req *reqs[LAS_NATIVE_BATCH];
	unsigned n, kicks = 0;
	bool led_by_another;

	do {
		n = 0;
		las_lock(&native->lock);
		led_by_another = led_by_another_locked(native);
		if (!led_by_another) {
			if (las_unlikely(native->led))
				n = claim_taken_locked(native, reqs, LAS_NATIVE_BATCH);
			n += take_locked(native, reqs + n, LAS_NATIVE_BATCH - n);
		} else if (is_late(native)) {
			n = take_from_late_locked(native, reqs, &kicks);
		} else if (beside && !is_empty(native)) {
			n = take_beside_locked(native, reqs, &kicks);
		}
		las_unlock(&native->lock);
		finish_all(native, reqs, n);
	} while (n == LAS_NATIVE_BATCH);
	if (las_unlikely(kicks))
		las_native_kick(native);
	return !led_by_another;
}

void las_native_drain(struct las_native *native, bool beside)
{
	if (has_work(native))
		drain(native, beside);
}

static void set_leader_locked(struct las_native *native, uint32_t ticket, uintptr_t frame, unsigned min)
{
	native->leader = las_thread_self();
	native->frame = frame;
	las_store_relaxed(&native->min, min);
	las_store_relaxed(&native->led_ns, las_now_ns());
	native->led_head = las_load_relaxed(&native->ring->head);
	las_store_relaxed(&native->late, false);
	las_store_release(&native->led, ticket);
}

/*
 * Whether this thread has left its earlier lead by longjmp: a handler that has interrupted it stands deeper on the
 * stack, or on a stack of its own, where depths say nothing.
 */
static bool has_jumped_locked(const struct las_native *native, uintptr_t frame)
{
	stack_t stack;

	return frame >= native->frame && las_sys.sigaltstack(NULL, &stack) == 0 && !(stack.ss_flags & SS_ONSTACK);
}

__attribute__((noinline)) bool las_native_try_lead(struct las_native *native, struct las_lead *lead)
{
	uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
	struct las_req *reqs[LAS_NATIVE_BATCH];
	unsigned n = 0;
	bool leads;

	*lead = (struct las_lead){ .before = 0 };
	las_lock(&native->lock);
	leads = !led_by_another_locked(native);
	if (leads) {
		if (las_unlikely(native->led)) {
			n = claim_taken_locked(native, reqs, LAS_NATIVE_BATCH);
			if (!has_jumped_locked(native, frame))
				*lead = (struct las_lead){ 0, native->led, native->min, native->frame };
		}
		if (++native->tickets == 0)
			native->tickets = 1;
		lead->ticket = native->tickets;
		set_leader_locked(native, native->tickets, frame, 1);
	}
	las_unlock(&native->lock);
	finish_all(native, reqs, n);
	return leads;
}

void las_native_leave_lead(struct las_native *native, const struct las_lead *lead, long n)
{
	struct las_req *reqs[LAS_NATIVE_BATCH];
	unsigned claimed;

	las_lock(&native->lock);
	/*
	 * Still this thread's: others never take a lead over, and handlers give it back.  One that jumped away from its
	 * own may have left events behind; what one has claimed is not there any more.
	 */
	claimed = claim_taken_locked(native, reqs, native->led == lead->ticket ? n : LAS_NATIVE_BATCH);
	set_leader_locked(native, lead->before, lead->before_frame, lead->before_min);
	las_unlock(&native->lock);
	finish_all(native, reqs, claimed);
}

void las_native_set_min(struct las_native *native, unsigned min)
{
	unsigned most = las_native_in_flight(native);

	/* More than there are would keep the last of them from everybody for a slice. */
	if (most == 0 || most > LAS_NATIVE_BATCH)
		most = LAS_NATIVE_BATCH;
	las_store_relaxed(&native->min, min < most ? min : most);
}

unsigned las_native_min(const struct las_native *native)
{
	return las_load_relaxed(&native->min);
}

long las_native_wait(struct las_native *native, int64_t deadline_ns, const sigset_t *mask)
{
	int64_t left_ns = SLICE_NS, now;
	struct timespec left;
	long n;

	if (deadline_ns != LAS_FOREVER_NS) {
		now = las_now_ns();
		left_ns = deadline_ns - now < SLICE_NS ? deadline_ns - now : SLICE_NS;
		if (left_ns <= 0)
			left_ns = 1;
	}
	left = (struct timespec){ .tv_sec = left_ns / 1000000000, .tv_nsec = left_ns % 1000000000 };
	n = las_sys.io_getevents((uintptr_t)native->ring, las_load_relaxed(&native->min), LAS_NATIVE_BATCH,
	                         native->taken, &left, mask);
	if (n == 0 && (deadline_ns == LAS_FOREVER_NS || las_now_ns() < deadline_ns))
		return 0;
	return n == 0 ? -ETIMEDOUT : n;
}

/* Has n events of nobody's come to the ring, at once, each of which raises resfd if that is a descriptor. */
static void come_to(const struct las_ring *ring, unsigned n, int resfd)
{
	struct las_iocb iocb[LAS_NATIVE_BATCH], *list[LAS_NATIVE_BATCH];
	long fd = las_sys.eventfd2(1, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return;
	memset(iocb, 0, n * sizeof(iocb[0]));
	for (unsigned i = 0; i < n; i++) {
		iocb[i].opcode = LAS_CMD_POLL;
		iocb[i].fildes = (uint32_t)fd;
		iocb[i].buf = 1; /* POLLIN, which is there */
		iocb[i].data = KICK;
		if (resfd >= 0) {
			iocb[i].flags = LAS_FLAG_RESFD;
			iocb[i].resfd = (uint32_t)resfd;
		}
		list[i] = &iocb[i];
	}
	las_sys.io_submit((uintptr_t)ring, n, list);
	las_sys.close((int)fd);
}

void las_native_kick(struct las_native *native)
{
	if (!las_load_acquire(&native->led))
		return;
	/* As many as the leader waits for; a newer leader's number wakes that one, which is as well. */
	come_to(native->ring, las_load_relaxed(&native->min), -1);
}

void las_native_raise(int eventfd)
{
	struct las_native *native = las_config.lanes & LAS_LANE_NATIVE ? las_native_get(1) : NULL;

	if (!native)
		return;
	come_to(native->ring, 1, eventfd);
	drain(native, false);
	las_native_put(native);
}

/* Before a request goes down: its iocb, its place among the polls. */
static void prepare(struct las_native *native, struct las_req *req, int reaper_fd)
{
	encode(req, reaper_fd);
	if (req->op.kind == LAS_OP_POLL) {
		las_lock(&native->lock);
		las_list_push(&native->polls, &req->link);
		las_unlock(&native->lock);
	}
	/* Release: all of the request to whoever claims it, though only the system call lets anybody find it. */
	las_store_release(&req->phase, PHASE_DOWN);
}

/* The place in the hidden ring where the next event would come; first how many had been moved on by then. */
struct place {
	uint64_t moved;
	uint32_t tail;
};

static struct place place_of(const struct las_native *native)
{
	struct place place = { .moved = las_load_acquire(&native->moved) };

	place.tail = las_load_relaxed(&native->ring->tail);
	return place;
}

/*
 * Which of n requests the kernel may have refused since then.  Its events stay
 * readable after they were taken, until others come round to their slots: so
 * many that it must not be, or all are suspected.
 */
static uint64_t suspects(struct las_native *native, struct las_req **reqs, unsigned n, struct place since)
{
	struct las_ring *ring = native->ring;
	uint32_t nr = ring->nr, waiting, tail;
	uint64_t found = 0;

	las_lock(&native->lock);
	tail = las_load_acquire(&ring->tail);
	for (uint32_t at = since.tail; at != tail; at = at + 1 == nr ? 0 : at + 1) {
		if (ring->events[at].res != -EAGAIN && ring->events[at].res != -EOPNOTSUPP)
			continue;
		for (unsigned i = 0; i < n; i++)
			if (ring->events[at].data == (uint64_t)(uintptr_t)reqs[i])
				found |= (uint64_t)1 << i;
	}
	waiting = (las_load_acquire(&ring->tail) + nr - las_load_acquire(&ring->head)) % nr;
	/* Those in the leader's hands are not counted yet. */
	if (native->moved - since.moved + waiting + LAS_NATIVE_BATCH >= nr)
		found = ~(uint64_t)0;
	las_unlock(&native->lock);
	return found;
}

/*
 * A leader may have the refusal of one of these in its hands, and will find it
 * when their descriptors are the program's again.  They are still DOWN, and so
 * ours.
 */
static void hold_refused(struct las_native *native, struct las_req **reqs, unsigned n, struct place since)
{
	uint64_t suspected = suspects(native, reqs, n, since);

	for (unsigned i = 0; suspected && i < n; i++)
		if (suspected >> i & 1 && !reqs[i]->file && las_op_is_rw(&reqs[i]->op))
			(void)las_hold_get(reqs[i]->fd, LAS_HOLD_LOCKS, &reqs[i]->file);
}

static void turn_away(struct las_req *req, int64_t result)
{
	req->result = result;
	req->bare = false; /* so that this is a refusal */
	req->turned_away = true;
	req->phase = PHASE_FOUND;
}

void las_native_submit(struct las_native *native, struct las_req **reqs, unsigned n, bool reaped,
                       struct las_link *refused)
{
	struct las_iocb *iocbs[LAS_NATIVE_BATCH];
	struct las_hold *reaper = reaped ? las_reaper_get() : NULL;
	struct place before = place_of(native);
	unsigned done = 0;

	for (unsigned i = 0; i < n; i++) {
		prepare(native, reqs[i], reaper ? reaper->fd : -1);
		iocbs[i] = &reqs[i]->kernel;
	}
	las_add_relaxed(&native->in_flight, n); /* before any event of theirs: the system call orders it */
	while (done < n) {
		long ret = las_sys.io_submit((uintptr_t)native->ring, n - done, iocbs + done);

		if (ret > 0) {
			done += (unsigned)ret;
			continue;
		}
		/* The ring is full, or the file knows no NOWAIT: the crew's. */
		turn_away(reqs[done], ret == -EOPNOTSUPP ? ret : -EAGAIN);
		if (reqs[done++]->unseen)
			while (done < n)
				turn_away(reqs[done++], -EAGAIN);
	}
	if (!drain(native, false))
		hold_refused(native, reqs, n, before);
	for (unsigned i = 0; i < n; i++)
		if (__atomic_exchange_n(&reqs[i]->phase, PHASE_KERNEL, __ATOMIC_ACQ_REL) == PHASE_FOUND)
			finish(native, reqs[i], reqs[i]->result, refused);
	if (reaper)
		las_hold_put(reaper);
}

bool las_native_cancel(struct las_native *native, const struct las_owner *owner, uint64_t obj)
{
	struct las_event unused;
	struct las_link *l, *tmp;
	long err = -EINVAL;

	/* Under the lock, so that the request, and with it the iocb that the kernel looks at, stays what it is. */
	las_lock(&native->lock);
	las_list_each(&native->polls, l, tmp) {
		struct las_req *req = las_container_of(l, struct las_req, link);

		if (req->owner != owner || (obj && req->obj != obj) || req->cancelled)
			continue;
		err = las_sys.io_cancel((uintptr_t)native->ring, &req->kernel, &unused);
		req->cancelled = err == -EINPROGRESS;
		break;
	}
	las_unlock(&native->lock);
	return err == -EINPROGRESS;
}

unsigned las_native_reap_all(void)
{
	struct las_native *batch[LAS_NATIVE_BATCH];
	unsigned total = 0, n = 0, seen = 0;
	struct las_link *l, *tmp;

	las_lock(&pool.lock);
	las_list_each(&pool.all, l, tmp) {
		struct las_native *native = las_container_of(l, struct las_native, link);
		unsigned in_flight = las_native_in_flight(native);

		total += in_flight;
		if (in_flight && has_work(native) && n < LAS_NATIVE_BATCH) {
			/* To the end, so that others have their turn when more than a batch are busy. */
			las_list_remove(l);
			las_list_push(&pool.all, l);
			batch[n++] = native;
		}
		if (++seen == pool.count)
			break;
	}
	las_unlock(&pool.lock);
	/* Hidden contexts are never freed, so the pointers stay good. */
	for (unsigned i = 0; i < n; i++)
		las_native_drain(batch[i], false);
	return total;
}
