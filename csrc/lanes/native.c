/*
 * native.c - requests on their way to the kernel and back, see native.h.
 *
 * A request may be finished, or refused, while io_submit is still running,
 * and another thread may find that out first.  Its `phase` says who acts:
 * (1) the submitter marks it DOWN and calls the kernel; (2) whoever takes its
 * event off the hidden ring (lead.c) notes the result and swaps FOUND in: if
 * it was DOWN, the submitter is not back yet, and the request is left to it;
 * (3) the submitter, back, swaps KERNEL in: if it was FOUND, it finishes the
 * request, and may still use the program's descriptor; else it never touches
 * it again.
 * Between (1) and (3) the request is the submitter's alone.
 * A refusal found later than (3) concerns a request that the kernel had begun:
 * those that can be refused halfway hold their file and go to the crew from
 * wherever that was found.
 */
#include "lanes/native.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "base/atomic.h"
#include "base/stats.h"
#include "base/sys.h"
#include "lanes/crew.h"
#include "lanes/hidden.h"
#include "lanes/reaper.h"

#define SINGLE_BLOCK 4096 /* a transfer within one block cannot be refused halfway */

_Static_assert(LAS_NATIVE_BATCH <= 64, "suspects() has a bit for each");

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

/* Several blocks may lie in several extents. */
bool las_native_needs_hold(const struct las_op *op)
{
	return las_op_is_rw(op) &&
	       (op->iovcnt != 1 || op->bytes > SINGLE_BLOCK ||
	        (uint64_t)op->offset / SINGLE_BLOCK != ((uint64_t)op->offset + op->bytes - !!op->bytes) / SINGLE_BLOCK);
}

/* resfd: the reaper's eventfd, or -1. */
static void encode(struct las_req *req, int resfd)
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
	if (req->announced)
		resfd = req->resfd;
	if (resfd >= 0) {
		k->flags |= LAS_FLAG_RESFD;
		k->resfd = (uint32_t)resfd;
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

/* Begun by las_native_begin(): what the kernel says is the result, and the owner counts it as the crew's. */
static bool is_crews(const struct las_req *req)
{
	return req->lane == LAS_LANE_CREW;
}

/* A part was moved, and more may follow: it is the end of the file, or a NOWAIT of ours has stopped it. */
static bool is_partial(const struct las_req *req, int64_t res)
{
	return req->file && !is_crews(req) && las_op_is_rw(&req->op) && res > 0 && (uint64_t)res < req->op.bytes &&
	       !(req->op.rw_flags & RWF_NOWAIT) && las_op_goes_on(&req->op, (uint64_t)res);
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
		las_crew_leave_order(req);
		req->owner->complete(req, res);
	}
	/* Last: a waiter that finds nothing in flight here finds the event in the public ring. */
	las_sub_acq_rel(&native->in_flight, 1);
}

/* The same for what was taken off the ring together, n <= LAS_NATIVE_BATCH: most of it is just done. */
bool las_native_finish_all(struct las_native *native, struct las_req **reqs, unsigned n)
{
	bool announced = false;
	unsigned done = 0;

	for (unsigned i = 0; i < n; i++) {
		struct las_req *req = reqs[i];

		if (is_refusal(req, req->result) || is_partial(req, req->result) || las_unlikely(is_crews(req))) {
			finish(native, req, req->result, NULL);
			continue;
		}
		forget_poll(native, req);
		announced = announced || req->announced;
		reqs[done++] = req;
	}
	if (done == 0)
		return false;
	reqs[0]->owner->complete_all(reqs, done);  /* a hidden context serves one owner at a time */
	las_sub_acq_rel(&native->in_flight, done); /* last, as above */
	return announced;
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
	las_store_release(&req->phase, LAS_PHASE_DOWN);
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

	for (unsigned i = 0; suspected && i < n; i++) {
		if (!(suspected >> i & 1) || !las_op_is_rw(&reqs[i]->op))
			continue;
		if (!reqs[i]->file)
			(void)las_hold_get(reqs[i]->fd, LAS_HOLD_LOCKS, &reqs[i]->file);
		if (reqs[i]->announced && !reqs[i]->eventfd)
			(void)las_hold_get(reqs[i]->resfd, LAS_HOLD_PLAIN, &reqs[i]->eventfd);
	}
}

static void turn_away(struct las_req *req, int64_t result)
{
	req->result = result;
	req->bare = false; /* so that this is a refusal */
	req->turned_away = true;
	req->phase = LAS_PHASE_FOUND;
}

void las_native_submit(struct las_native *native, struct las_req **reqs, unsigned n, bool reaped,
                       struct las_link *refused)
{
	struct las_iocb *iocbs[LAS_NATIVE_BATCH];
	struct las_hold *reaper = reaped ? las_reaper_get() : NULL;
	struct place before = place_of(native);
	unsigned done = 0;
	struct las_announce_turn turn;

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
	turn = las_announce_take(native);
	if (!las_native_drain_now(native, false))
		hold_refused(native, reqs, n, before);
	for (unsigned i = 0; i < n; i++)
		if (__atomic_exchange_n(&reqs[i]->phase, LAS_PHASE_KERNEL, __ATOMIC_ACQ_REL) == LAS_PHASE_FOUND)
			finish(native, reqs[i], reqs[i]->result, refused);
	las_announce_taken(native, &turn, false);
	if (reaper)
		las_hold_put(reaper);
}

bool las_native_begin(struct las_req *req)
{
	struct las_native *native = req->native;
	struct las_link refused;

	req->native = NULL;
	if (!las_reaper_watch())
		return false;
	req->fd = req->file->fd;
	req->bare = true;
	if (!req->op.has_ioprio) {
		req->op.has_ioprio = true; /* its submitter's; this thread has another one's */
		req->op.ioprio = (uint16_t)req->priority;
	}
	las_list_init(&refused);
	las_native_submit(native, &req, 1, true, &refused);
	return las_list_empty(&refused);
}

bool las_native_cancels(struct las_native *native)
{
	long err;

	if (las_likely(las_load_relaxed(&native->cancels)))
		return true;
	/* No iocb is at NULL, which is looked at first. */
	err = las_sys.io_cancel((uintptr_t)native->ring, NULL, NULL);
	if (err == -EPERM || err == -ENOSYS)
		return false;
	las_store_relaxed(&native->cancels, true);
	return true;
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
		/* Else its event is on the way already; the same iocb may be in flight once more. */
		if (req->cancelled)
			break;
	}
	las_unlock(&native->lock);
	return err == -EINPROGRESS;
}
