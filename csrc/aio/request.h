/*
 * request.h - from an iocb to an op: pure decoding and validation.
 *
 * The kernel checks in stages, and programs see which error comes first:
 * the iocb's own fields; then room in the ring, the descriptor, the eventfd
 * and the write to aio_key (submit.c); then the operation.  The two functions
 * here are the first and the last of these stages.
 */
#ifndef LAS_AIO_REQUEST_H
#define LAS_AIO_REQUEST_H

#include "base/abi.h"
#include "lanes/file.h"
#include "lanes/op.h"

/* Fields that no kernel accepts: 0 or -EINVAL. */
int las_request_check(const struct las_iocb *iocb);
/*
 * Fills op for a file that is open: 0, or io_submit's error (EINVAL, EBADF,
 * EFAULT, EOPNOTSUPP, EPERM, EAGAIN when there is no memory).  After 0 the op
 * is to be ended with las_op_fini().
 */
int las_request_decode(const struct las_iocb *iocb, const struct las_file *file, struct las_op *op);

#endif
