/*
 * strand.h - order where the kernel gives it.
 *
 * The kernel runs reads and writes inside io_submit, one after the other; on
 * a pipe, a socket, a terminal or an O_APPEND file programs rely on that.  A
 * strand is the line of requests for one inode and direction: only its first
 * is with a lane, the others wait in the strand.
 *
 * A strand exists while it has requests.  The module's lock guards the table
 * and every strand; callers hold no other lock of the lanes.
 */
#ifndef LAS_LANES_STRAND_H
#define LAS_LANES_STRAND_H

#include <stdbool.h>

#include "lanes/file.h"
#include "lanes/req.h"

void las_strand_init(void);

/* Whether a request on this file (looked at already) would have to wait. */
bool las_strand_busy(const struct las_file *file, enum las_op_kind kind);
/*
 * Puts req at the end of its line: 1 if it is the first and may go on to a
 * lane, 0 if it waits now, -ENOMEM if there is no memory for a line.
 */
int las_strand_enter(struct las_req *req, const struct las_file *file);
/* The first has ended: the next one, which the caller passes on to a lane, or NULL. */
struct las_req *las_strand_leave(struct las_req *req);

/* Takes a waiting request of this owner (of this obj, or any read if it is 0) out of its line; NULL if there is none. */
struct las_req *las_strand_take(const struct las_owner *owner, uint64_t obj);

#endif
