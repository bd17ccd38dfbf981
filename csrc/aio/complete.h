/*
 * complete.h - how a result becomes an event, and what a request leaves behind.
 *
 * Owns the requests' memory.  The order of a completion is the contract's:
 * what the request held is given up, the event becomes visible, sleepers are
 * woken, the eventfd is raised, and last the context is let go.
 */
#ifndef LAS_AIO_COMPLETE_H
#define LAS_AIO_COMPLETE_H

#include "aio/context.h"

void las_complete_init(void);
/* Promises memory for n requests: 0 or -ENOMEM. */
int las_complete_reserve(unsigned n);
void las_complete_release(unsigned n);
/* Fills in what the lanes call when a request of this context ends. */
void las_complete_own(struct las_owner *owner);

struct las_ctx *las_ctx_of(const struct las_owner *owner);

/* A zeroed request, or NULL. */
struct las_req *las_req_get(void);
/* Gives up what the request holds, and its memory. */
void las_req_put(struct las_req *req);

/* Makes n events visible and wakes whom they satisfy.  by_head: they were finished inside io_submit. */
void las_complete_post(struct las_ctx *ctx, const struct las_event *events, unsigned n, bool by_head);
/* A request was finished inside io_submit, and its result is returned. */
void las_complete_without_event(struct las_ctx *ctx);
/* Wakes every waiter: each has to look again. */
void las_complete_wake_all(struct las_ctx *ctx);
/* Wakes those for whom what is in the ring is enough: a waiter that was woken for it has no use for it. */
void las_complete_pass_on(struct las_ctx *ctx);
/* Wakes one, whatever it waits for: it may have to lead. */
void las_complete_wake_one(struct las_ctx *ctx);
/* A request is about to go to the crew or the poll set: a leader in the kernel would not hear of its end. */
void las_complete_elsewhere(struct las_ctx *ctx);
/* Adds n to an eventfd, without ever blocking.  may_block: it lacks O_NONBLOCK, so it is asked first. */
void las_complete_raise(int fd, uint64_t n, bool may_block);

#endif
