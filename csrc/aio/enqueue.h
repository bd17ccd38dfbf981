/*
 * enqueue.h - what the head lane did not finish: to the kernel, to the crew or
 * the poll set, or run here after all.  For submit.c only.
 */
#ifndef LAS_AIO_ENQUEUE_H
#define LAS_AIO_ENQUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "aio/context.h"
#include "base/abi.h"
#include "base/list.h"
#include "lanes/file.h"
#include "lanes/native.h"
#include "lanes/op.h"
#include "lanes/req.h"

/* One io_submit call. */
struct las_submission {
	struct las_ctx *ctx;
	struct las_batch files, eventfds;
	uint32_t raises[LAS_BATCH_FILES];         /* events posted for eventfds.files[i] that it was not told of */
	struct las_link crew;                     /* requests to push at the end */
	struct las_req *native[LAS_NATIVE_BATCH]; /* requests for the kernel */
	unsigned native_count;
	unsigned announced; /* of these, whose eventfd the kernel raises */
	bool quiet;
	bool answers, answered; /* the result is to be returned; it is `answer` */
	long answer;
	bool unseen;        /* the last of them only the kernel has looked at, or will: polls, or one eventfd */
	unsigned withdrawn; /* how many of those that were accepted last are not, after all; they never ran */
	bool look;          /* what follows is looked at here first */
	bool reaper;        /* there is one */
	bool asked_descriptors, shares_descriptors;
	bool asked_priority;
	int16_t priority;
};

/* One iocb on its way. */
struct las_candidate {
	struct las_iocb iocb; /* the copy */
	uint64_t obj;         /* the program's address of it */
	struct las_file *file, *eventfd;
	struct las_op op;
	struct las_file stand_in; /* for the file, if it is the kernel that looks at it */
	enum las_stage stage;     /* where a thread of the crew would begin */
	bool announced;           /* the kernel raises its eventfd, and if that is NULL, looks at it too */
};

/* True if the native lane takes it. */
bool las_enqueue_native(struct las_submission *s, struct las_candidate *c);
/* What that does not take: 0 and the op is taken over, or the error that io_submit reports of it. */
int las_enqueue(struct las_submission *s, struct las_candidate *c);
/* Hands what is collected for the kernel to it, and finds a place for what it refuses. */
void las_enqueue_flush(struct las_submission *s);
/* Whether the kernel may raise the eventfd of a request that goes to it. */
bool las_enqueue_announces(struct las_submission *s, const struct las_candidate *c);

/* In submit.c: the event of a request that is done, and the eventfd of that number. */
void las_submission_post(struct las_submission *s, const struct las_candidate *c, long result);
int las_submission_eventfd(struct las_submission *s, uint32_t fd, struct las_file **file);

#endif
