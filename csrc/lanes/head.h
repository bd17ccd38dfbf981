/*
 * head.h - the head lane: run the op in the caller, if that cannot block.
 *
 * The name is the syslet's: the head is the thread that submits.  A failed
 * attempt is not wasted: since Linux 5.10 a NOWAIT read that finds no page
 * has started to read it before it says EAGAIN.
 */
#ifndef LAS_LANES_HEAD_H
#define LAS_LANES_HEAD_H

#include <errno.h>

#include "base/atomic.h"
#include "lanes/file.h"
#include "lanes/op.h"

enum las_verdict {
	LAS_DONE,   /* *result is the event's */
	LAS_PASS,   /* the next lane's turn, or the assumed file has to be confirmed; op->done may have grown */
	LAS_REFUSE, /* *result is io_submit's error */
};

/*
 * An error of an assumed file says little and is LAS_PASS, with nothing moved.  Not so EFBIG: SIGXFSZ has been raised,
 * and once is enough.
 */
static inline bool las_head_doubts(const struct las_file *file, long result)
{
	return las_unlikely(file->assumed && result < 0 && result != -EFBIG);
}

/* Runs the op plainly, because it is predicted not to block, and notes how long it took: LAS_DONE or LAS_REFUSE. */
enum las_verdict las_head_guess(struct las_op *op, struct las_file *file, long *result);

/* Reads, writes and polls on a stream, or on a descriptor that is not O_DIRECT.  Never blocks. */
enum las_verdict las_head_try(struct las_op *op, struct las_file *file, long *result);

#endif
