/*
 * order.h - order where the kernel gives it.
 *
 * The kernel runs buffered reads and writes inside io_submit, one after the
 * other, and programs rely on what follows from it:
 * - on a pipe, a socket, a terminal or an O_APPEND file, requests run in the
 *   order of submission: they form a line per inode and direction, only the
 *   first of which is with a lane;
 * - an fsync covers every write that was submitted before it: it waits for
 *   those that are with the crew.
 *
 * The module's lock guards its table and everything in it; callers hold no
 * other lock of the lanes.
 */
#ifndef LAS_LANES_ORDER_H
#define LAS_LANES_ORDER_H

#include <stdbool.h>

#include "lanes/file.h"
#include "lanes/req.h"

void las_order_init(void);

/* Whether an op of this kind on this file (looked at already) would have to wait. */
bool las_order_busy(const struct las_file *file, enum las_op_kind kind);
/* A hint without a look at any file: nothing has an order to keep. */
bool las_order_idle(void);
/*
 * Gives the request its place; in_line: it belongs to a line.  1 if it may go
 * on to a lane, 0 if it waits here now, -ENOMEM if there is no memory to keep
 * order with.
 */
int las_order_enter(struct las_req *req, const struct las_file *file, bool in_line);
/* The request has ended: those that may go on now are appended to `next`, for the caller to pass on. */
void las_order_leave(struct las_req *req, struct las_link *next);

/* Takes a request of this owner (of this obj, or any read if it is 0) that waits here; NULL if there is none. */
struct las_req *las_order_take(const struct las_owner *owner, uint64_t obj);

#endif
