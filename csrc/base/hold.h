/*
 * hold.h - keeping a file while a request for it waits.
 *
 * The kernel takes a reference on the file at io_submit; the program may
 * close or reuse the descriptor at once.  A hold is a duplicate descriptor,
 * close-on-exec and numbered far above what an application expects.
 *
 * Two traps that shape this file:
 * - close() of any descriptor of a file drops all POSIX record locks that the
 *   process has on that file.  A hold whose file carries such a lock is
 *   therefore not closed but parked, used again for the same open file, and
 *   closed when the lock is gone.
 * - a forked child inherits holds; the fork handler closes them there.
 */
#ifndef LAS_BASE_HOLD_H
#define LAS_BASE_HOLD_H

#include <stdbool.h>

#include "base/list.h"

struct las_hold {
	struct las_link link; /* all holds, or the parked ones; guarded by the module's lock */
	int refs;             /* atomic */
	int fd;
	bool may_lock; /* a regular file: POSIX locks are possible */
};

/* Puts the module into its first state; closes what a forked child inherited. */
void las_hold_init(void);
/* Makes room for n holds and grows the descriptor table ahead of need; may take milliseconds, once. */
int las_hold_reserve(unsigned n);
void las_hold_release(unsigned n);

/* Duplicates fd: 0 and *hold with one reference, or -EBADF, -EMFILE, -ENOMEM. */
int las_hold_get(int fd, bool may_lock, struct las_hold **hold);
/* Takes over a descriptor of our own (an epoll instance), moving it to a high number; closes it on failure. */
int las_hold_adopt(int fd, struct las_hold **hold);
void las_hold_ref(struct las_hold *hold);
void las_hold_put(struct las_hold *hold);

#endif
