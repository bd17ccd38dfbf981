/*
 * crew.h - the crew: threads that carry on what would have blocked.
 *
 * The crew grows when a request waits and nobody is idle, shrinks when idle,
 * and has two classes, so that a pipe that never answers cannot keep a disk
 * from being served: bounded (regular files, block devices) and unbounded.
 * Among bounded requests no device may take more than LAS_CREW_DEVICE_SHARE
 * threads, so that a hung one leaves room for the healthy.
 *
 * Callers' obligations: a request that is pushed is filled in completely,
 * holds its file, and is not touched again; its owner's complete() may be
 * called by a crew thread before the push returns.
 */
#ifndef LAS_LANES_CREW_H
#define LAS_LANES_CREW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/lock.h"
#include "lanes/req.h"

#define LAS_CREW_BOUNDED_MAX 256
#define LAS_CREW_UNBOUNDED_MAX 4096
#define LAS_CREW_DEVICE_SHARE 192

void las_crew_init(void);

/*
 * Takes over all requests on the list, in order, and sees that somebody will
 * run them; lazily, if the caller itself is expected to take them back in a
 * moment.  Those for which no thread can be had are run by the caller, here.
 */
void las_crew_push(struct las_link *batch, bool lazily);
/* For the reaper: calls a thread to what was pushed lazily and still waits.  How many requests wait. */
unsigned las_crew_look(void);

/* Has a thread close what lingers, which may take for ever. */
void las_crew_sweep(void);

/* Takes back a waiting request of this owner, of this obj unless it is 0: the caller owns it.  NULL if there is none. */
struct las_req *las_crew_take(const struct las_owner *owner, uint64_t obj);
/*
 * Takes back a waiting bounded request of this owner that ends in finite time, looking at a few only: cheap enough to
 * try before sleeping.
 */
struct las_req *las_crew_take_near(const struct las_owner *owner);

/* Runs a request in the calling thread, blocking, and completes it; or has the kernel do both (las_run_begins). */
void las_crew_run(struct las_req *req);
/* Lets those go on that waited for it: to be called when a request ends in any way, before its owner is told. */
void las_crew_leave_order(struct las_req *req);

/* A request that must finish before the process ends: counted from its acceptance to its event and eventfd, or its withdrawal. */
void las_crew_owe(struct las_req *req);
/* This thread is about to finish n of them: should it come to the end of the process meanwhile, in a handler... */
void las_crew_finishing(unsigned n);
/* ...it does not wait for these.  Now they are finished; n may be 0. */
void las_crew_paid(unsigned n);
/*
 * Waits until everything that must finish (writes and syncs to files) has
 * finished; unless patient, only as long as it gets fewer.  What is accepted
 * meanwhile is not waited for.
 */
void las_crew_drain(bool patient);

#endif
