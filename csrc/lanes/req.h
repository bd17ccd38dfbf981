/*
 * req.h - a request: an op that waits or runs outside io_submit, and whom to tell.
 *
 * A request is on at most one list at a time: a crew queue, order.c's, or
 * the poll set's; whoever takes it off that list, under that list's lock, owns it
 * and is the one to finish it.  Hence every request is finished exactly once.
 */
#ifndef LAS_LANES_REQ_H
#define LAS_LANES_REQ_H

#include "base/abi.h"
#include "base/config.h"
#include "base/hold.h"
#include "base/list.h"
#include "lanes/op.h"

struct las_req;
struct las_native;
struct las_order;

#define LAS_OWNER_BATCH 64

/* What a context gives the lanes: whose request it is, and where its result goes. */
struct las_owner {
	/* Takes over the request, whose op has ended with this result. */
	void (*complete)(struct las_req *req, long result);
	/* The same for several requests of this owner at once, each with its req->result; 1 <= n <= LAS_OWNER_BATCH. */
	void (*complete_all)(struct las_req **reqs, unsigned n);
	/* Takes over the request, which never ran and never will. */
	void (*discard)(struct las_req *req);
	/* Told that the request goes on in another lane (req->lane), from where it can be completed at any time. */
	void (*moved)(struct las_req *req);
	/* It waits for its requests to end, and has no use for what they wait for: atomic. */
	bool ending;
};

/* Of reads: those that only wait for pages cost less, see queue.h. */
enum las_stage {
	LAS_STAGE_RUN,      /* run it, however long that takes */
	LAS_STAGE_PREFETCH, /* ask for its pages; then it is warm */
	LAS_STAGE_WARM,     /* run it: its pages are on their way */
	LAS_STAGES
};

struct las_req {
	struct las_link link;
	struct las_owner *owner;
	struct las_op op;
	struct las_hold *file;     /* native: only if the kernel may give it back late */
	struct las_hold *eventfd;  /* or NULL; announced: only if the kernel may give it back late */
	struct las_order *order;   /* its place among others on the same inode, or NULL */
	uint64_t data, obj;        /* echoed in the event */
	uint32_t device;           /* hashed st_dev, for fairness among devices */
	uint16_t poll_tag;         /* tells this wait from an earlier one of the same memory */
	bool bounded;              /* ends in finite time: regular files and block devices */
	bool eventfd_may_block;    /* it lacks O_NONBLOCK: ask before raising */
	bool in_line, generation;  /* order.c's */
	uint8_t stage;             /* enum las_stage: what a thread of the crew does with it next */
	bool pollable;             /* knows NOWAIT: the poll set can wait for it */
	bool owed;                 /* exit waits for it */
	bool settles;              /* counted in its context's `settling` */
	bool bare;                 /* native: goes down without NOWAIT */
	bool unseen;               /* native: io_submit has to refuse it before those after it are begun */
	bool turned_away;          /* native: io_submit said no, there was no event */
	bool announced;            /* native: the kernel raises the eventfd, see announce.h */
	bool cancelled;            /* native: a poll that the kernel is giving up */
	uint8_t lane;              /* LAS_LANE_NATIVE or LAS_LANE_CREW: where it is counted */
	int flags;                 /* the file's, as of submit */
	uint16_t predictor;        /* where the crew notes how long it took, or 0 */
	int16_t priority;          /* the submitter's I/O priority */
	int fd;                    /* native: the program's descriptor, good until io_submit returns */
	int resfd;                 /* announced: the eventfd's number, as good as fd */
	uint32_t phase;            /* native: who acts on its result; atomic */
	int64_t result;            /* native */
	struct las_native *native; /* crew: where it may be begun instead of being run, or NULL */
	struct las_iocb kernel;    /* native: what the kernel was given */
};

#endif
