/*
 * route.c - see route.h.
 *
 * The order of questions is what it costs to ask them: what the flags tell,
 * then a try that does work if it succeeds, and only then system calls that
 * do nothing but tell.
 *
 * An assumed file (lanes/file.h) may be another one by now, of another kind.
 * It goes the straight way of a plain transfer, where the kernel itself finds
 * out most of what would be wrong; if it has not succeeded there, it is
 * confirmed, and all questions are asked again.  One for the device is passed
 * on if the kernel's own AIO is going to find out the rest (`checked`).
 */
#include "lanes/route.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include "base/atomic.h"
#include "base/config.h"
#include "base/lock.h"
#include "lanes/native.h"
#include "lanes/order.h"
#include "lanes/pollset.h"
#include "lanes/predictor.h"

#define READAHEAD_BYTES (128 * 1024) /* what a NOWAIT read starts to read at most, as disks are set up by default */
#define MISSES 16                    /* in a row, that make the next one likely */
#define PREFETCHES 64 /* of so many reads of overlays, all but MEASURED have their pages asked for first */
#define MEASURED 4

/* NOWAIT reads in a row, of this thread, that found no page. */
static _Thread_local unsigned misses LAS_TLS_MODEL;

bool las_route_is_append(const struct las_file *file, const struct las_op *op)
{
	return op->kind == LAS_OP_WRITE && (file->flags & O_APPEND || op->rw_flags & RWF_APPEND);
}

/* A write that has to be on disk before it is reported waits for the device, NOWAIT or not. */
static bool is_durable(const struct las_file *file, const struct las_op *op)
{
	return op->kind == LAS_OP_WRITE && (file->flags & (O_DSYNC | O_SYNC) || op->rw_flags & (RWF_DSYNC | RWF_SYNC));
}

static enum las_verdict route_sync(struct las_op *op, struct las_file *file, long *result)
{
	int err = las_file_look(file);

	if (!err && !las_file_fsync_inline(file))
		return LAS_PASS;
	*result = err ? err : las_op_run(op, file->fd);
	return *result == -EINVAL ? LAS_REFUSE : LAS_DONE;
}

/* Where NOWAIT is of no use: in memory, or predicted not to block. */
static bool may_guess(struct las_op *op, struct las_file *file)
{
	if (!(las_config.lanes & LAS_LANE_HEAD) || las_config.inline_mode == LAS_INLINE_NEVER || file->stream ||
	    op->rw_flags & RWF_NOWAIT || is_durable(file, op))
		return false;
	/*
	 * KERNEL: number-of-another-file: it refuses a file without asynchronous operations; where one has taken an assumed
	 * file's number microseconds ago, the plain call may serve it.  To ask for the inode first would cost a third of a
	 * cached read (test: lifetime.number_of_a_file_in_memory_is_a_proc_file_at_the_next_call).
	 */
	if (file->assumed && file->medium == LAS_MEDIUM_UNKNOWN)
		return false;
	return las_file_medium(file) == 0 && las_predict(file, op);
}

static bool waits_for_device(const struct las_file *file)
{
	return las_file_direct(file) && !(file->bare && file->medium == LAS_MEDIUM_MEMORY);
}

/* A write is rarely promised not to block, by any file system; it is guessed, or tried if guessing is not wanted. */
static enum las_verdict route_write(struct las_op *op, struct las_file *file, bool append, long *result)
{
	if (!(las_config.lanes & LAS_LANE_HEAD) || waits_for_device(file) || is_durable(file, op))
		return LAS_PASS;
	if (may_guess(op, file))
		return las_head_guess(op, file, result);
	return append ? LAS_PASS : las_head_try(op, file, result);
}

/* Whether a prefetch by exactly these bytes is as good as what the read itself would begin; of none it is of all. */
static bool may_prefetch(const struct las_op *op)
{
	return op->bytes > 0 && op->bytes <= READAHEAD_BYTES && !op->rw_flags;
}

/*
 * Where NOWAIT has found nothing for a while, it is likely to find nothing
 * again: then the crew asks for the pages, which takes most of the time that
 * such a read takes.  Every eighth is tried all the same, and one page that is
 * there ends it.  Not if there are more in the same call: to try them one after
 * the other is cheaper than to hand them from thread to thread.  Only on what is
 * known to be a disk: elsewhere a prefetch may be of no use, or wait for a
 * server.
 */
static bool is_hopeless(const struct las_op *op, struct las_file *file)
{
	if (las_likely(misses < MISSES || misses % 8 == 0 || !file->alone) || file->stream || !may_prefetch(op))
		return false;
	if (!file->assumed)
		las_file_join(file); /* it would later: while others are under way, the medium is known */
	return file->medium == LAS_MEDIUM_DISK;
}

static void count_miss(const struct las_file *file, bool missed)
{
	if (!missed)
		misses = 0;
	else if (!file->assumed) /* else it is going to be asked again */
		misses++;
}

/*
 * Overlay cannot be tried.  But an overlay has no pages of its own: those of
 * its layers can be asked for, and some are not, for the predictor's sake.
 */
static enum las_stage stage_on_overlay(const struct las_op *op, struct las_file *file)
{
	static _Thread_local unsigned asked LAS_TLS_MODEL;

	if (file->stream || !may_prefetch(op) || las_file_medium(file) < 0 || file->medium != LAS_MEDIUM_STACKED)
		return LAS_STAGE_RUN;
	return asked++ % PREFETCHES < MEASURED ? LAS_STAGE_RUN : LAS_STAGE_PREFETCH;
}

static enum las_verdict route_read(struct las_op *op, struct las_file *file, enum las_stage *stage, long *result)
{
	enum las_verdict verdict = LAS_PASS;

	if (!(las_config.lanes & LAS_LANE_HEAD) || waits_for_device(file))
		return LAS_PASS;
	if (las_file_direct(file))
		return may_guess(op, file) ? las_head_guess(op, file, result) : LAS_PASS;
	if (!file->refuses_nowait) {
		if (is_hopeless(op, file)) {
			count_miss(file, true);
			*stage = LAS_STAGE_PREFETCH;
			return LAS_PASS;
		}
		verdict = las_head_try(op, file, result);
		count_miss(file, verdict == LAS_PASS);
		if (!file->refuses_nowait && op->bytes <= READAHEAD_BYTES)
			*stage = LAS_STAGE_WARM;
	}
	if (verdict != LAS_PASS || !file->refuses_nowait)
		return verdict;
	if (may_guess(op, file))
		return las_head_guess(op, file, result);
	*stage = stage_on_overlay(op, file);
	return LAS_PASS;
}

/*
 * O_DIRECT stands for a file or a block device, and is not asked what it can do.  It might be a pipe in packet mode:
 * that matters when others wait in line there, or if a part could be moved; what the kernel refuses is looked at in
 * aio/enqueue.c.
 */
static int check(const struct las_op *op, struct las_file *file)
{
	if (!las_file_direct(file) || op->rw_flags & RWF_NOWAIT)
		return las_file_check_op(file, op);
	return las_order_idle() && !las_native_needs_hold(op) ? 0 : las_file_look(file);
}

/* Because the program has asked for that: by NOWAIT, or by O_NONBLOCK on a stream. */
static bool runs_without_waiting(const struct las_op *op, const struct las_file *file)
{
	if (file->stream && file->flags & O_NONBLOCK)
		return true;
	return op->rw_flags & RWF_NOWAIT && (file->stream || !waits_for_device(file));
}

static enum las_verdict route_rw(struct las_op *op, struct las_file *file, enum las_stage *stage, long *result)
{
	bool append = las_route_is_append(file, op);
	enum las_verdict verdict;

	/* Without a try by the head lane, nobody else finds out what the file is. */
	if (append || is_durable(file, op) || !(las_config.lanes & LAS_LANE_HEAD)) {
		*result = las_file_look(file);
		if (*result)
			return LAS_REFUSE;
	}
	if (las_unlikely(op->bytes == 0 || op->rw_flags)) {
		/* Nothing to move hides what the file cannot do; flags may ask for more than it can. */
		*result = las_file_look(file);
		if (!*result && op->rw_flags)
			*result = las_file_check_flags(file, op);
		if (!*result && op->bytes == 0)
			*result = las_file_check_op(file, op);
		if (*result)
			return LAS_REFUSE;
	}
	if (append && las_order_busy(file, op->kind))
		return LAS_PASS;
	/* A stream's readiness is found by trying, whatever lanes are on; NOWAIT waits for a device all the same. */
	if (file->stream || (op->rw_flags & RWF_NOWAIT && !waits_for_device(file)))
		verdict = las_head_try(op, file, result);
	else if (op->kind == LAS_OP_WRITE)
		verdict = route_write(op, file, append, result);
	else
		verdict = route_read(op, file, stage, result);
	if (verdict != LAS_PASS || file->assumed)
		return verdict;
	*result = check(op, file);
	if (*result)
		return LAS_REFUSE;
	if (file->stream) /* the check may have found that out */
		op->offset = -1;
	if (!runs_without_waiting(op, file))
		return LAS_PASS;
	*result = las_op_run(op, file->fd);
	return LAS_DONE;
}

static enum las_verdict route_poll(struct las_op *op, struct las_file *file, long *result)
{
	enum las_verdict verdict = las_head_try(op, file, result);

	/*
	 * KERNEL: a file that never calls back cannot be waited for (test: poll.what_can_never_come_is_einval).
	 * KERNEL: poll-two-queues: nor can one with a queue for each direction, which is no obstacle here (test:
	 * poll.fifo_open_for_both_directions).
	 */
	if (verdict == LAS_PASS && las_file_look(file) == 0 &&
	    (las_file_bounded(file) || (S_ISCHR(file->mode) && !las_pollset_pollable(file->fd)))) {
		*result = -EINVAL;
		return LAS_REFUSE;
	}
	return verdict;
}

/* Whether an assumption is good enough to begin with; a write may have others before it that wait. */
static bool may_assume(const struct las_op *op, const struct las_file *file)
{
	if (!las_op_is_rw(op) || op->bytes == 0 || op->rw_flags || !(las_config.lanes & LAS_LANE_HEAD))
		return false;
	if (waits_for_device(file) && (!file->checked || las_native_needs_hold(op)))
		return false;
	if (op->kind == LAS_OP_READ && !file->checked)
		return true;
	return (file->looked || file->checked) && !las_route_is_append(file, op) && !is_durable(file, op) &&
	       las_order_idle();
}

bool las_route_passes(const struct las_op *op, const struct las_file *file)
{
	return file->assumed && waits_for_device(file) && may_assume(op, file);
}

static int confirm(const struct las_op *op, struct las_file *file)
{
	int err = las_file_confirm(file);

	return !err && !las_file_allows(file, op->kind) ? -EBADF : err;
}

static enum las_verdict route(struct las_op *op, struct las_file *file, enum las_stage *stage, long *result)
{
	switch (op->kind) {
	case LAS_OP_FSYNC:
	case LAS_OP_FDSYNC:
		return route_sync(op, file, result);
	case LAS_OP_POLL:
		return route_poll(op, file, result);
	default:
		return route_rw(op, file, stage, result);
	}
}

static bool stands(const struct las_file *file, enum las_verdict verdict, long result)
{
	if (!file->assumed)
		return true;
	if (verdict == LAS_PASS)
		return file->checked;
	return verdict == LAS_DONE && !las_head_doubts(file, result);
}

enum las_verdict las_route(struct las_op *op, struct las_file *file, enum las_stage *stage, long *result)
{
	enum las_verdict verdict;

	if (las_likely(!file->assumed))
		return route(op, file, stage, result);
	if (may_assume(op, file)) {
		verdict = route(op, file, stage, result);
		if (las_likely(stands(file, verdict, *result)))
			return verdict;
		*stage = LAS_STAGE_RUN;
	}
	*result = confirm(op, file);
	return *result ? LAS_REFUSE : route(op, file, stage, result);
}
