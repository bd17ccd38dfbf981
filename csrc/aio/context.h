/*
 * context.h - a context: its ring, its locks, and how long it lives.
 *
 * Handles are looked up, never followed: a table maps the ring's address to
 * the context.  Contexts and rings are type-stable (recycled, never unmapped),
 * so a late caller or a peeking reader finds stale data, not a hole.
 *
 * A context ends in two steps.  `busy` counts io_submit calls under way and
 * requests not finished, with a bit for "destroyed": io_destroy waits until
 * only the bit is left.  `visitors` counts all other calls; the last of them
 * recycles the context, nobody waits for it (a program may have left
 * io_getevents by longjmp).
 *
 * Lock order: consume, then lock; neither is held across a lane's functions.
 */
#ifndef LAS_AIO_CONTEXT_H
#define LAS_AIO_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "aio/ring.h"
#include "base/list.h"
#include "base/lock.h"
#include "lanes/native.h"
#include "lanes/req.h"

#define LAS_CTX_DEAD 0x80000000u

struct las_ctx {
	struct las_owner owner;
	struct las_link link; /* free list of its size; guarded by the table's lock */
	struct las_slots slots;
	uint32_t id;
	uint32_t reserved; /* requests promised by the pools */
	bool moved;        /* the program has moved its ring; guarded by the table's lock */

	uint32_t busy LAS_LINE_ALIGNED; /* atomic, a futex for io_destroy */
	uint32_t visitors;              /* atomic */
	uint32_t settling;              /* atomic: accepted requests that the kernel would have finished in io_submit */
	uint32_t settlers;              /* atomic: threads that wait for these */
	uint32_t elsewhere;             /* atomic: accepted requests that are with the crew or the poll set */

	struct las_native *native LAS_LINE_ALIGNED; /* borrowed at the first need; written once, release */
	const void *thread;                         /* the first that used the context */
	bool shared;                                /* others did too; relaxed, set once */
	uint32_t helped;    /* waits in a row in which its only thread ran a request itself; a hint */
	uint32_t unwaited;  /* io_submit calls since somebody waited; a hint */
	uint32_t notifying; /* atomic: requests with the kernel that carry an eventfd */

	struct las_lock lock LAS_LINE_ALIGNED; /* guards the ring's tail and all below */
	uint32_t waiters;                      /* threads asleep in io_getevents, or about to be; atomic to read */
	uint32_t wake_at;                      /* completed count that the first of them waits for */
	uint32_t seq;                          /* they sleep on it */
	bool leading;             /* one of them sleeps in the kernel instead, for the native lane; atomic to read */
	struct las_link sleepers; /* waits that can only be woken by a descriptor (io_pgetevents) */
	uint64_t count_head, count_all; /* events of requests that the head lane finished; of all */

	struct las_lock consume LAS_LINE_ALIGNED; /* one reaper at a time */
};

/* Puts the module into its first state: no contexts. */
void las_ctx_init(void);

/* io_setup for n requests: 0, or -EINVAL, -EAGAIN (more than the system allows), -ENOMEM. */
int las_ctx_create(unsigned n, struct las_ctx **ctx);
/* Gives the memory back for reuse; nobody may be busy, visitors may linger. */
void las_ctx_retire(struct las_ctx *ctx);

/* The live context behind a handle of any bit pattern, or NULL.  For io_submit: keeps it busy. */
struct las_ctx *las_ctx_enter(const void *handle);
/* Undoes so many entries. */
void las_ctx_leave(struct las_ctx *ctx, uint32_t n);
/* The same for calls that io_destroy does not wait for. */
struct las_ctx *las_ctx_visit(const void *handle);
void las_ctx_unvisit(struct las_ctx *ctx);

static inline bool las_ctx_dead(const struct las_ctx *ctx)
{
	return las_load_acquire(&ctx->busy) & LAS_CTX_DEAD;
}

/* A second thread uses the context (aio/complete.c). */
void las_complete_share(struct las_ctx *ctx);

/* Notes which thread uses the context. */
static inline void las_ctx_used(struct las_ctx *ctx)
{
	const void *first = las_load_relaxed(&ctx->thread), *me = las_thread_self();

	if (las_likely(first == me))
		return;
	/* Relaxed: the pointer is only compared. */
	if (!first && las_cas_relaxed(&ctx->thread, &first, me))
		return;
	if (las_unlikely(!las_load_relaxed(&ctx->shared)))
		las_complete_share(ctx);
}

/* Keeps the context busy for n more requests; the caller keeps it busy already. */
static inline void las_ctx_hold(struct las_ctx *ctx, uint32_t n)
{
	las_add_relaxed(&ctx->busy, n);
}

/* Events in all contexts of this process, those that are gone too: the head lane's, and all. */
void las_ctx_totals(uint64_t *head, uint64_t *all);

#endif
