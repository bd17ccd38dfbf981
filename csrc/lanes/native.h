/*
 * native.h - the native lane: requests that the kernel's own AIO carries out
 * without a thread - O_DIRECT reads and writes, fsync, polls.
 *
 * A context that needs it borrows a hidden kernel context from a pool of the
 * process.  Reads and writes go down with RWF_NOWAIT, so that the kernel's
 * io_submit does not block; what it refuses goes to the crew.
 *
 * Completions land in the hidden ring first.  Exactly one thread at a time
 * moves them on: whoever holds the lock (a drain, memory work only), or the
 * leader, a thread that waits for them in the kernel.  docs/waiting.md has
 * the protocol as states and transitions.
 */
#ifndef LAS_LANES_NATIVE_H
#define LAS_LANES_NATIVE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/abi.h"
#include "lanes/file.h"
#include "lanes/req.h"

#define LAS_NATIVE_BATCH LAS_OWNER_BATCH

struct las_native;

void las_native_init(void);

/* Whether this lane is made for the op; no promise that the kernel takes it. */
bool las_native_wants(const struct las_op *op, const struct las_file *file);

/* Whether the kernel may refuse it after it has begun: then it has to hold its file (req->file). */
bool las_native_needs_hold(const struct las_op *op);

/* A hidden context for about `depth` requests: from the pool, or new; NULL if the kernel has none to give. */
struct las_native *las_native_get(unsigned depth);
/* Whether polls can be taken back: a sandbox may know io_submit and no io_cancel. */
bool las_native_cancels(struct las_native *native);
/* Back to the pool; nothing may be in flight. */
void las_native_put(struct las_native *native);

/* Requests that the kernel has and that are not moved on yet. */
unsigned las_native_in_flight(const struct las_native *native);

/*
 * Hands n <= LAS_NATIVE_BATCH requests to the kernel in one call.  Those that
 * it refuses are put on `refused`; they are the caller's again, and their
 * descriptors are still open.  reaped: somebody else than a caller of
 * io_getevents has to move the events on, at once.
 */
void las_native_submit(struct las_native *native, struct las_req **reqs, unsigned n, bool reaped,
                       struct las_link *refused);

/*
 * For a thread of the crew: begins a request there (req->native, which is used up) without NOWAIT, by the descriptor that
 * it holds.  It stays counted with the crew, and the reaper moves its event on.  False if it has to be run after all.
 */
bool las_native_begin(struct las_req *req);

/*
 * Moves on what is in the hidden ring, without waiting.  While a leader is at it, only if `beside`: by a system call,
 * for a thread that would have to sleep otherwise.
 */
void las_native_drain(struct las_native *native, bool beside);

/*
 * Leading (lead.c), in this order: try_lead (false: another thread leads), set
 * how many events to wait for (1 unless told; as many as are in flight, and
 * LAS_NATIVE_BATCH, at most), wait (how many came; 0: look around and wait
 * again; -ETIMEDOUT or -EINTR), leave_lead, which moves on what came.
 */
struct las_lead {
	uint32_t ticket;
	uint32_t before; /* a lead of the same thread that this one has interrupted, from a handler; 0: none */
	unsigned before_min;
	uintptr_t before_frame;
};

bool las_native_try_lead(struct las_native *native, struct las_lead *lead);
void las_native_set_min(struct las_native *native, unsigned min);
unsigned las_native_min(const struct las_native *native);
long las_native_wait(struct las_native *native, int64_t deadline_ns, const sigset_t *mask);
void las_native_leave_lead(struct las_native *native, const struct las_lead *lead, long came);
/* Makes a leader return soon, if there is one. */
void las_native_kick(struct las_native *native);

/* Has the kernel raise an eventfd, which can count it up to where a write would block; nothing where it has no AIO. */
void las_native_raise(int eventfd);

/* Asks the kernel to give up a poll (of this obj, unless it is 0): true if its event is on the way. */
bool las_native_cancel(struct las_native *native, const struct las_owner *owner, uint64_t obj);

/* For the reaper: drains all hidden contexts that nobody leads, but those of announce.h.  How many are in flight. */
unsigned las_native_reap_all(void);

#endif
