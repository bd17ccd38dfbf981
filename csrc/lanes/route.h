/*
 * route.h - what can be done about an op here and now, in the caller.
 *
 * Runs it in the head lane if that cannot block (or is predicted not to), and
 * finds what io_submit has to refuse.  What is passed on has to leave the
 * caller: to the native lane or the crew (aio/enqueue.c).
 */
#ifndef LAS_LANES_ROUTE_H
#define LAS_LANES_ROUTE_H

#include "lanes/head.h"
#include "lanes/req.h"

/* If it is passed on, *stage says how far it has got: whether its pages are on their way, or have to be asked for. */
enum las_verdict las_route(struct las_op *op, struct las_file *file, enum las_stage *stage, long *result);

/* Whether las_route would pass it on unseen: an assumed file that the kernel looks at itself. */
bool las_route_passes(const struct las_op *op, const struct las_file *file);

/* A write whose place in the file is its end, so that order matters. */
bool las_route_is_append(const struct las_file *file, const struct las_op *op);

#endif
