/*
 * op.h - one operation on one descriptor, and how to carry it out.
 *
 * An op is plain data: decoded, validated, independent of contexts and of
 * the program's iocb.  Its iovec array is a copy.  las_op_run() blocks as
 * long as the work takes; las_op_step() with RWF_NOWAIT does what can be done
 * without waiting.
 */
#ifndef LAS_LANES_OP_H
#define LAS_LANES_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define LAS_OP_INLINE_IOV 4

enum las_op_kind { LAS_OP_READ, LAS_OP_WRITE, LAS_OP_FSYNC, LAS_OP_FDSYNC, LAS_OP_POLL };

struct las_op {
	uint8_t kind; /* enum las_op_kind */
	bool has_ioprio;
	uint16_t ioprio;
	uint16_t poll_events;
	uint16_t iovcnt;
	int rw_flags;      /* RWF_*, as the program gave them */
	int64_t offset;    /* bytes; -1 on a stream, which has no position */
	uint64_t bytes;    /* all segments together */
	uint64_t done;     /* bytes that are moved already */
	struct iovec *iov; /* inline_iov, or a block of las_iov_get(); of reads and writes only, as what follows */
	struct iovec inline_iov[LAS_OP_INLINE_IOV];
};

static inline bool las_op_is_rw(const struct las_op *op)
{
	return op->kind <= LAS_OP_WRITE;
}

/* Whether the process must not end before it is done, as the kernel sees to it. */
static inline bool las_op_must_finish(const struct las_op *op)
{
	return op->kind >= LAS_OP_WRITE && op->kind <= LAS_OP_FDSYNC;
}

/* dst becomes a copy of src; src's iovec block, if it has one, changes hands. */
void las_op_move(struct las_op *dst, const struct las_op *src);
/* Gives back the iovec block. */
void las_op_fini(struct las_op *op);

/* Runs the rest of the op on fd, blocking: total bytes (or 0, or the poll mask), or -errno if nothing was moved. */
long las_op_run(struct las_op *op, int fd);
/*
 * One step with extra RWF_* flags (RWF_NOWAIT or 0), adding to op->done.
 * The system call's own result: bytes of this step, or -errno.
 */
long las_op_step(struct las_op *op, int fd, int extra_flags);
/* So many bytes more are moved: cuts them off the front of the op's copy of the vector. */
void las_op_advance(struct las_op *op, uint64_t bytes);
/* Whether an op of which only a part was moved, `bytes` more than op->done, has a rest that should be tried. */
bool las_op_goes_on(const struct las_op *op, uint64_t bytes);
/* What to report when the op ends with this result of the last step. */
long las_op_result(const struct las_op *op, long last);
/* For threads of ours, which have all signals blocked: sends what a failed write raised to the process. */
void las_op_forward_signal(const struct las_op *op, long result);
/* poll for less than a second: the mask, 0 when nothing is ready. */
long las_op_poll(const struct las_op *op, int fd, long timeout_ns);

/* Blocks of UIO_MAXIOV segments, for vectors longer than LAS_OP_INLINE_IOV.  NULL when no memory can be had. */
struct iovec *las_iov_get(void);
void las_op_init(void);

#endif
