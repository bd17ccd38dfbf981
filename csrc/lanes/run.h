/*
 * run.h - running one request to its end, blocking, as its file was when it
 * was submitted.
 *
 * What is left to the caller: to let go on what waited for it, and to tell
 * its owner.
 */
#ifndef LAS_LANES_RUN_H
#define LAS_LANES_RUN_H

#include <stdbool.h>

#include "lanes/req.h"

/* True if the kernel has it now, and completes it by itself: then it is not to be run. */
bool las_run_begins(struct las_req *req);
/* In a thread of the program's, which keeps its priority.  The request's result. */
long las_run_here(struct las_req *req);
/*
 * In a thread of ours, whose priority becomes the one that the request was
 * given, or else its submitter's; no signal may reach it.
 */
long las_run_there(struct las_req *req, int *priority);

#endif
