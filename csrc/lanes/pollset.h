/*
 * pollset.h - requests that wait for readiness: polls, and reads and writes
 * on pipes and sockets that the head lane found not ready.
 *
 * One thread and one epoll instance serve all of them, however many; both
 * exist only while something waits.  The native lane takes polls before they
 * come here, where the kernel has AIO.
 */
#ifndef LAS_LANES_POLLSET_H
#define LAS_LANES_POLLSET_H

#include <stdbool.h>

#include "lanes/req.h"

void las_pollset_init(void);
/* Takes over the request: 0; or -errno (a file that epoll does not know, no memory), and it stays the caller's. */
int las_pollset_add(struct las_req *req);
/* Whether there is a thread to wait in, or one can be had: else a request that is added is run by whoever adds it. */
bool las_pollset_has_thread(void);
/* Whether a descriptor can become ready at all; asks the kernel. */
bool las_pollset_pollable(int fd);
/* Takes a waiting request of this owner (and this obj, unless it is 0) back; NULL if there is none. */
struct las_req *las_pollset_take(const struct las_owner *owner, uint64_t obj);

#endif
