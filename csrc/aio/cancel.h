/* cancel.h - io_cancel, and what io_destroy does with requests that have not run. */
#ifndef LAS_AIO_CANCEL_H
#define LAS_AIO_CANCEL_H

#include "aio/context.h"

/*
 * 0 and *result: the request will not run and has no event.  -EINPROGRESS: a
 * poll, whose event follows.  -EINVAL: it runs, or is not known.
 */
long las_cancel(struct las_ctx *ctx, uint64_t obj, struct las_event *result);

/* Ends the context: finishes what must finish, takes back the rest, waits, wakes the waiters with EINVAL. */
void las_destroy(struct las_ctx *ctx);

#endif
