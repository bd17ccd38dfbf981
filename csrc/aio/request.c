/* request.c - see request.h. */
#include "aio/request.h"

#include <errno.h>
#include <limits.h>
#include <linux/ioprio.h>
#include <string.h>

#include "base/atomic.h"
#include "base/rwf.h"
#include "base/sys.h"
#include "base/umem.h"

#define MAX_RW_BYTES 0x7ffff000u /* what one read or write moves at most, MAX_RW_COUNT */
/* No buffer ends above it, TASK_SIZE_MAX; but where addresses may be longer, a program can ask for one there. */
#if defined(__aarch64__)
#define USER_END ((uint64_t)1 << 48)
#else
#define USER_END (((uint64_t)1 << 47) - 4096)
#endif
#define LONGEST_END ((uint64_t)1 << 56)

int las_request_check(const struct las_iocb *iocb)
{
	if (las_unlikely(iocb->reserved2 || (int64_t)iocb->nbytes < 0))
		return -EINVAL;
	return 0;
}

static bool ends_above(uint64_t end, uint64_t addr, uint64_t bytes)
{
	return addr > end || bytes > end - addr;
}

static bool in_kernel_range(uint64_t addr, uint64_t bytes)
{
	if (las_likely(!ends_above(USER_END, addr, bytes)))
		return false;
	return ends_above(LONGEST_END, addr, bytes) ||
	       !las_umem_readable((const void *)(uintptr_t)(addr + bytes - !!bytes), 1);
}

static int check_ioprio(struct las_op *op, int16_t reqprio)
{
	int class = (uint16_t)reqprio >> IOPRIO_CLASS_SHIFT, level = reqprio & 7, err = 0;

	op->has_ioprio = true;
	op->ioprio = (uint16_t)reqprio;
	switch (class) {
	case IOPRIO_CLASS_RT: {
		/* Only the kernel knows who may: try it on this thread and put back what was. */
		long before = las_sys.ioprio_get(IOPRIO_WHO_PROCESS, 0);

		err = (int)las_sys.ioprio_set(IOPRIO_WHO_PROCESS, 0, op->ioprio);
		if (!err)
			las_sys.ioprio_set(IOPRIO_WHO_PROCESS, 0, before < 0 ? 0 : (int)before);
		return err;
	}
	case IOPRIO_CLASS_BE:
	case IOPRIO_CLASS_IDLE:
		return 0;
	case IOPRIO_CLASS_NONE:
		return level ? -EINVAL : 0;
	default:
		return -EINVAL;
	}
}

static int decode_vector(const struct las_iocb *iocb, struct las_op *op)
{
	const struct iovec *user = (const struct iovec *)(uintptr_t)iocb->buf;
	uint64_t n = iocb->nbytes, total = 0;

	if (n > IOV_MAX)
		return -EINVAL;
	if (n > 0 && (in_kernel_range(iocb->buf, n * sizeof(*user)) || !las_umem_readable(user, n * sizeof(*user))))
		return -EFAULT;
	if (n > LAS_OP_INLINE_IOV) {
		struct iovec *block = las_iov_get();

		if (!block)
			return -EAGAIN;
		op->iov = block;
	}
	op->iovcnt = (uint16_t)n;
	if (n > 0)
		memcpy(op->iov, user, n * sizeof(*user));
	for (uint64_t i = 0; i < n; i++) {
		uint64_t bytes = op->iov[i].iov_len;

		if ((int64_t)bytes < 0)
			return -EINVAL;
		/* The kernel looks at the full length, but for a single segment, which it cuts first. */
		if (n > 1 && in_kernel_range((uintptr_t)op->iov[i].iov_base, bytes))
			return -EFAULT;
		if (bytes > MAX_RW_BYTES - total)
			op->iov[i].iov_len = bytes = MAX_RW_BYTES - total;
		if (in_kernel_range((uintptr_t)op->iov[i].iov_base, bytes))
			return -EFAULT;
		total += bytes;
	}
	op->bytes = total;
	return 0;
}

static int decode_rw(const struct las_iocb *iocb, const struct las_file *file, struct las_op *op, bool vector)
{
	int err;

	op->iov = op->inline_iov;
	op->rw_flags = iocb->rw_flags;
	op->offset = iocb->offset;
	if (las_unlikely(iocb->flags & LAS_FLAG_IOPRIO)) {
		err = check_ioprio(op, iocb->reqprio);
		if (err)
			return err;
	}
	if (las_unlikely(op->rw_flags)) {
		if (op->rw_flags & ~las_file_known_flags())
			return -EOPNOTSUPP;
		if ((op->rw_flags & RWF_APPEND) && (op->rw_flags & RWF_NOAPPEND))
			return -EINVAL;
	}
	if (!las_file_allows(file, op->kind))
		return -EBADF;
	if (vector) {
		err = decode_vector(iocb, op);
	} else {
		op->iovcnt = 1;
		op->bytes = iocb->nbytes < MAX_RW_BYTES ? iocb->nbytes : MAX_RW_BYTES;
		err = in_kernel_range(iocb->buf, op->bytes) ? -EFAULT : 0;
		op->iov->iov_base = (void *)(uintptr_t)iocb->buf;
		op->iov->iov_len = op->bytes;
	}
	if (!err && (iocb->offset < 0 || op->bytes > (uint64_t)(INT64_MAX - iocb->offset)))
		err = -EINVAL;
	if (err)
		las_op_fini(op);
	return err;
}

static int decode_sync(const struct las_iocb *iocb)
{
	return iocb->buf || iocb->nbytes || iocb->offset || iocb->rw_flags ? -EINVAL : 0;
}

static int decode_poll(const struct las_iocb *iocb, struct las_op *op)
{
	if (iocb->buf != (uint16_t)iocb->buf || iocb->nbytes || iocb->offset || iocb->rw_flags)
		return -EINVAL;
	op->poll_events = (uint16_t)iocb->buf;
	return 0;
}

int las_request_decode(const struct las_iocb *iocb, const struct las_file *file, struct las_op *op)
{
	op->has_ioprio = false;
	op->rw_flags = 0;
	op->done = 0;
	switch (iocb->opcode) {
	case LAS_CMD_PREAD:
	case LAS_CMD_PREADV:
		op->kind = LAS_OP_READ;
		return decode_rw(iocb, file, op, iocb->opcode == LAS_CMD_PREADV);
	case LAS_CMD_PWRITE:
	case LAS_CMD_PWRITEV:
		op->kind = LAS_OP_WRITE;
		return decode_rw(iocb, file, op, iocb->opcode == LAS_CMD_PWRITEV);
	case LAS_CMD_FSYNC:
		op->kind = LAS_OP_FSYNC;
		return decode_sync(iocb);
	case LAS_CMD_FDSYNC:
		op->kind = LAS_OP_FDSYNC;
		return decode_sync(iocb);
	case LAS_CMD_POLL:
		op->kind = LAS_OP_POLL;
		return decode_poll(iocb, op);
	default:
		return -EINVAL;
	}
}
