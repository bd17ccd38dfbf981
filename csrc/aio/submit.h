/* submit.h - io_submit: from the program's array of iocbs to events or waiting requests. */
#ifndef LAS_AIO_SUBMIT_H
#define LAS_AIO_SUBMIT_H

#include "aio/context.h"

/*
 * How many were accepted, or the first one's error.  nr >= 0; the caller
 * keeps the context busy.  quiet: eventfds are not raised for requests that
 * end here, the caller looks at the ring anyway.
 */
long las_submit(struct las_ctx *ctx, long nr, struct las_iocb *const *iocbs, bool quiet);

#endif
