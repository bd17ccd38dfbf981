/* op.c - see op.h. */
#include "lanes/op.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/pool.h"
#include "base/sys.h"

static struct las_pool iov_blocks;

void las_op_init(void)
{
	las_pool_init(&iov_blocks, sizeof(struct iovec) * IOV_MAX);
}

struct iovec *las_iov_get(void)
{
	return las_pool_get(&iov_blocks);
}

void las_op_move(struct las_op *dst, const struct las_op *src)
{
	if (!las_op_is_rw(src)) { /* its vector was never set */
		memcpy(dst, src, offsetof(struct las_op, iov));
		return;
	}
	*dst = *src;
	if (src->iov == src->inline_iov)
		dst->iov = dst->inline_iov;
}

void las_op_fini(struct las_op *op)
{
	if (las_op_is_rw(op) && op->iov != op->inline_iov)
		las_pool_put(&iov_blocks, op->iov);
}

void las_op_advance(struct las_op *op, uint64_t bytes)
{
	op->done += bytes;
	while (op->iovcnt && bytes >= op->iov->iov_len) {
		bytes -= op->iov->iov_len;
		op->iovcnt--;
		memmove(op->iov, op->iov + 1, op->iovcnt * sizeof(*op->iov));
	}
	if (op->iovcnt) {
		op->iov->iov_base = (char *)op->iov->iov_base + bytes;
		op->iov->iov_len -= bytes;
	}
}

long las_op_step(struct las_op *op, int fd, int extra_flags)
{
	int64_t at = op->offset < 0 ? -1 : op->offset + (int64_t)op->done;
	int flags = op->rw_flags | extra_flags;
	long n;

	if (op->kind == LAS_OP_READ)
		n = las_sys.preadv2(fd, op->iov, op->iovcnt, at, flags);
	else
		n = las_sys.pwritev2(fd, op->iov, op->iovcnt, at, flags);
	if (las_unlikely(n > 0 && op->done + (uint64_t)n < op->bytes))
		las_op_advance(op, (uint64_t)n);
	else if (n > 0)
		op->done += (uint64_t)n;
	return n;
}

/* A stream's read has no rest; a write that met RLIMIT_FSIZE must not raise SIGXFSZ. */
bool las_op_goes_on(const struct las_op *op, uint64_t bytes)
{
	struct rlimit limit;

	if (op->kind == LAS_OP_READ)
		return op->offset >= 0;
	return op->offset < 0 || las_sys.prlimit(RLIMIT_FSIZE, &limit) < 0 ||
	       (uint64_t)op->offset + op->done + bytes < limit.rlim_cur;
}

long las_op_result(const struct las_op *op, long last)
{
	return op->done ? (long)op->done : last;
}

long las_op_poll(const struct las_op *op, int fd, long timeout_ns)
{
	const struct timespec timeout = { .tv_nsec = timeout_ns };
	struct pollfd p = { .fd = fd, .events = (short)op->poll_events };
	long n = las_sys.ppoll(&p, 1, &timeout, NULL);

	return n < 0 ? n : (unsigned short)p.revents;
}

static long run_poll(const struct las_op *op, int fd)
{
	struct pollfd p = { .fd = fd, .events = (short)op->poll_events };
	long n;

	do
		n = las_sys.ppoll(&p, 1, NULL, NULL);
	while (n == -EINTR);
	return n < 0 ? n : (unsigned short)p.revents;
}

/*
 * KERNEL: signal-to-the-process: the signal goes to the thread that called
 * io_submit, since the kernel writes there.  A crew thread has all signals
 * blocked; it takes the one that its write raised and sends it to the process
 * (tests: guest.sigxfsz_reaches_the_submitter, guest.sigpipe_reaches_the_submitting_thread).
 */
void las_op_forward_signal(const struct las_op *op, long result)
{
	const struct timespec at_once = { 0, 0 };
	int sig = result == -EFBIG ? SIGXFSZ : result == -EPIPE ? SIGPIPE : 0;
	uint64_t set;

	if (op->kind != LAS_OP_WRITE || !sig)
		return;
	set = (uint64_t)1 << (sig - 1);
	if (las_sys.sigtimedwait(&set, &at_once) == sig)
		las_sys.kill((int)las_sys.getpid(), sig);
}

/*
 * KERNEL: buffer-unmapped-in-flight: it has pinned the memory of an O_DIRECT
 * request; here a buffer that is gone is EFAULT (test:
 * lifetime.buffer_unmapped_in_flight_is_no_crash).
 */
static long run_rw(struct las_op *op, int fd)
{
	long n;

	do {
		n = las_op_step(op, fd, 0);
		/* A signal of libc's own, or a FUSE server's whim; nothing was moved in this step. */
	} while (n == -EINTR);
	if (op->kind == LAS_OP_WRITE) {
		/* A stream takes part of a write when it is full; the kernel's io_submit would have gone on. */
		while (n > 0 && op->done < op->bytes && op->offset < 0)
			n = las_op_step(op, fd, 0);
	}
	return las_op_result(op, n);
}

static long run_sync(long (*call)(int), int fd)
{
	long n;

	do
		n = call(fd);
	while (n == -EINTR); /* as above; the kernel's is done where no signal comes */
	return n;
}

long las_op_run(struct las_op *op, int fd)
{
	switch (op->kind) {
	case LAS_OP_FSYNC:
		return run_sync(las_sys.fsync, fd);
	case LAS_OP_FDSYNC:
		return run_sync(las_sys.fdatasync, fd);
	case LAS_OP_POLL:
		return run_poll(op, fd);
	default:
		return run_rw(op, fd);
	}
}
