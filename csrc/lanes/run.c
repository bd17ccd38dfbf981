/* run.c - see run.h. */
#include "lanes/run.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/ioprio.h>
#include <stdio.h>

#include "base/atomic.h"
#include "base/sys.h"
#include "base/ticks.h"
#include "lanes/native.h"
#include "lanes/predictor.h"

/* A poll that a thread waits for is given up so soon after the end of its context. */
#define LOOK_NS (50l * 1000 * 1000)

/*
 * KERNEL: a request is direct or buffered as its file was at io_submit
 * (test: lifetime.buffered_as_of_submit).  If the program has switched
 * O_DIRECT since, the request gets an open file of its own.
 */
static long run_as_of_submit(struct las_req *req)
{
	char path[32];
	long fd, result;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", req->file->fd);
	fd = las_sys.openat(AT_FDCWD, path, (req->flags & ~(O_CREAT | O_EXCL | O_TRUNC)) | O_CLOEXEC, 0);
	if (fd < 0)
		return las_op_run(&req->op, req->file->fd);
	result = las_op_run(&req->op, (int)fd);
	las_sys.close((int)fd);
	return result;
}

static bool direct_changed(const struct las_req *req)
{
	return las_op_is_rw(&req->op) && req->bounded &&
	       ((las_sys.fcntl(req->file->fd, F_GETFL, 0) ^ req->flags) & O_DIRECT);
}

/*
 * Switched while it ran, nobody knows as what it ran: then it runs once more, as it was meant to.  Not what is appended,
 * which would be there twice.
 */
static bool can_repeat(const struct las_op *op)
{
	return op->iov == op->inline_iov && !(op->rw_flags & RWF_APPEND);
}

static long run_direct(struct las_req *req)
{
	bool repeats = can_repeat(&req->op);
	struct las_op op;
	long result;

	if (direct_changed(req))
		return run_as_of_submit(req);
	if (repeats)
		las_op_move(&op, &req->op);
	result = las_op_run(&req->op, req->file->fd);
	if (!repeats || !direct_changed(req))
		return result;
	las_op_move(&req->op, &op);
	return run_as_of_submit(req);
}

/* Where there is neither epoll nor kernel AIO for it. */
static long run_poll(const struct las_req *req)
{
	long mask;

	do
		mask = las_op_poll(&req->op, req->file->fd, LOOK_NS);
	while ((mask == 0 || mask == -EINTR) && !las_load_relaxed(&req->owner->ending));
	return mask == -EINTR ? 0 : mask;
}

/* Runs it, and notes for the predictor how long that took. */
static long run(struct las_req *req)
{
	uint64_t start;
	long result;

	if (las_unlikely(!(req->op.kind == LAS_OP_READ ? las_hold_intact_for_reading : las_hold_intact)(req->file)))
		return -EBADF;
	if (las_unlikely(req->flags & O_DIRECT) && las_op_is_rw(&req->op))
		return run_direct(req);
	if (las_unlikely(req->op.kind == LAS_OP_POLL))
		return run_poll(req);
	start = las_ticks();
	result = las_op_run(&req->op, req->file->fd);
	las_predict_crew_took(req->predictor, &req->op, las_ticks() - start);
	/* What is not aligned fails when the file has become direct; only then is it worth a look. */
	if (las_unlikely(result == -EINVAL) && direct_changed(req))
		result = run_as_of_submit(req);
	return result;
}

bool las_run_begins(struct las_req *req)
{
	if (las_likely(!req->native) || !las_hold_intact(req->file) || direct_changed(req))
		return false;
	/* What meets RLIMIT_FSIZE raises its signal in this thread, which sees only of what it runs itself that it did. */
	if (!las_op_goes_on(&req->op, req->op.bytes))
		return false;
	las_predict_crew_had(req->predictor);
	return las_native_begin(req);
}

long las_run_here(struct las_req *req)
{
	long before = 0, result;

	if (req->op.has_ioprio) {
		before = las_sys.ioprio_get(IOPRIO_WHO_PROCESS, 0);
		las_sys.ioprio_set(IOPRIO_WHO_PROCESS, 0, req->op.ioprio);
	}
	result = run(req);
	if (req->op.has_ioprio)
		las_sys.ioprio_set(IOPRIO_WHO_PROCESS, 0, before < 0 ? 0 : (int)before);
	return result;
}

/*
 * KERNEL: identity-of-one-thread: it has the credentials of the submitting
 * thread; ours are those of the process (test: guest.identity_of_one_thread).
 */
long las_run_there(struct las_req *req, int *priority)
{
	int wanted = req->op.has_ioprio ? req->op.ioprio : req->priority;
	long result;

	if (las_unlikely(wanted != *priority)) {
		las_sys.ioprio_set(IOPRIO_WHO_PROCESS, 0, wanted);
		*priority = wanted;
	}
	result = run(req);
	las_op_forward_signal(&req->op, result);
	return result;
}
