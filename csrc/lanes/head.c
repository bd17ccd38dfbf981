/* head.c - see head.h. */
#include "lanes/head.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include "base/atomic.h"
#include "lanes/order.h"
#include "lanes/predictor.h"

/*
 * The file has no position: it is read or written as a stream from now on.
 * False if it is not to be tried now: others wait in line before it, or
 * *result says why.
 *
 * KERNEL: a socket refuses an offset, a pipe or a terminal ignores it (test:
 * filetypes.socket_with_an_offset_is_espipe).
 */
static bool becomes_stream(struct las_op *op, struct las_file *file, long *result)
{
	int64_t offset = op->offset;

	*result = 0;
	file->stream = true;
	op->offset = -1;
	if (las_file_look(file) < 0)
		return true;
	if (S_ISSOCK(file->mode) && offset != 0)
		*result = -ESPIPE;
	return !*result && (las_file_anonymous(file) || !las_order_busy(file, op->kind));
}

static enum las_verdict refused(struct las_op *op, struct las_file *file, long err, long *result)
{
	int check = las_file_check_op(file, op);

	if (check) {
		*result = check;
		return LAS_REFUSE;
	}
	/* NOWAIT was the program's own wish, or the error is not about NOWAIT: that is the event. */
	if (err != -EOPNOTSUPP || op->rw_flags & RWF_NOWAIT) {
		*result = las_op_result(op, err);
		return LAS_DONE;
	}
	/* O_NONBLOCK on a stream promises not to block just as well. */
	if (file->stream && file->flags & O_NONBLOCK) {
		*result = las_op_run(op, file->fd);
		return LAS_DONE;
	}
	file->refuses_nowait = true;
	file->remembered = false;
	return LAS_PASS;
}

static enum las_verdict try_rw(struct las_op *op, struct las_file *file, long *result)
{
	if (file->stream && op->offset >= 0 && !becomes_stream(op, file, result))
		return *result ? LAS_DONE : LAS_PASS;
	for (;;) {
		long n = las_op_step(op, file->fd, RWF_NOWAIT);

		if (las_likely(n >= 0)) {
			/* Short: the end of the file, or the first page that is not there; the next step tells. */
			if (n > 0 && op->done < op->bytes && las_op_goes_on(op, 0))
				continue;
			if (op->kind == LAS_OP_READ && op->offset >= 0)
				las_file_remember(file);
			*result = las_op_result(op, n);
			return LAS_DONE;
		}
		if (las_head_doubts(file, n) && op->done == 0) {
			/* A file that would block was asked rightly, once is enough. */
			if (n != -EAGAIN)
				return LAS_PASS;
			*result = las_file_refresh(file);
			if (*result)
				return LAS_REFUSE;
		}
		switch (n) {
		case -EAGAIN:
			if (op->rw_flags & RWF_NOWAIT || (op->offset < 0 && file->flags & O_NONBLOCK)) {
				*result = las_op_result(op, n);
				return LAS_DONE;
			}
			return LAS_PASS;
		case -ESPIPE:
			if (op->offset < 0) {
				*result = n;
				return LAS_DONE;
			}
			if (!becomes_stream(op, file, result))
				return *result ? LAS_DONE : LAS_PASS;
			continue;
		case -EINTR:
			return LAS_PASS;
		case -EOPNOTSUPP:
		case -EINVAL:
		case -EISDIR:
			if (op->done)
				return LAS_PASS;
			return refused(op, file, n, result);
		default:
			*result = las_op_result(op, n);
			return LAS_DONE;
		}
	}
}

enum las_verdict las_head_try(struct las_op *op, struct las_file *file, long *result)
{
	long mask;

	if (op->kind != LAS_OP_POLL)
		return try_rw(op, file, result);
	mask = las_op_poll(op, file->fd, 0);
	if (mask <= 0) /* interrupted, or forbidden: then there is epoll */
		return LAS_PASS;
	*result = mask;
	return LAS_DONE;
}

enum las_verdict las_head_guess(struct las_op *op, struct las_file *file, long *result)
{
	struct las_guess guess;

	las_predict_begin(&guess, file, op);
	*result = las_op_run(op, file->fd);
	las_predict_end(&guess, file);
	if (las_head_doubts(file, *result))
		return LAS_PASS;
	if (las_unlikely(*result == -EINVAL)) {
		int check = las_file_check_op(file, op); /* a file without such an operation, hugetlbfs for one */

		if (check) {
			*result = check;
			return LAS_REFUSE;
		}
	}
	las_file_remember(file);
	return LAS_DONE;
}
