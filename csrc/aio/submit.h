/* submit.h - io_submit: from the program's array of iocbs to events or waiting requests. */
#ifndef LAS_AIO_SUBMIT_H
#define LAS_AIO_SUBMIT_H

#include "aio/context.h"

/* How the caller learns of requests that end here. */
enum las_telling {
	LAS_TELL_ALL,    /* by event and eventfd */
	LAS_TELL_EVENT,  /* by the event, it looks at the ring anyway: eventfds are not raised */
	LAS_TELL_RESULT, /* of the only one by what is returned, unless it failed */
};

/*
 * How many were accepted (LAS_TELL_RESULT: the result, or LAS_SUBMITTED), or
 * the first one's error.  nr >= 0; the caller keeps the context busy.
 */
long las_submit(struct las_ctx *ctx, long nr, struct las_iocb *const *iocbs, enum las_telling telling);

#endif
