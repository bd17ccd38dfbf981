/*
 * parked.h - holds without a reference whose closing has to wait: for a POSIX
 * lock to go, or for a while at a server (hold.h says why).  For hold.c only,
 * whose lock is held in all that ends in _locked.
 */
#ifndef LAS_BASE_PARKED_H
#define LAS_BASE_PARKED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hold.h"

void las_parked_init(void);
/* In a forked child: closes all. */
void las_parked_close_all(void);

/* Takes over a hold that is on no list, from now on. */
void las_parked_push_locked(struct las_hold *hold);
/* Takes off the one that is of the same open file as fd, to serve again: one descriptor per file, not one per request. */
struct las_hold *las_parked_take_locked(int fd);
/* Takes off one parked at until_ns or before, if its kind may be closed; *lingers is set if some may not. */
struct las_hold *las_parked_pop_locked(int64_t until_ns, enum las_expire which, bool *lingers);

/* Whether closing it would drop a POSIX lock. */
bool las_hold_carries_lock(const struct las_hold *hold);

/* In hold.c. */
void las_hold_close_all(struct las_link *head);

#endif
