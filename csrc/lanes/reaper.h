/*
 * reaper.h - the thread that leads when nobody is in io_getevents.
 *
 * Requests that carry an eventfd, belong to a program that only peeks, or
 * are mixed with crew requests are submitted with the reaper's own eventfd:
 * the kernel wakes it for each.  All others it looks for about once a
 * millisecond, in memory, as long as any is in flight; likewise for crew
 * requests that were left to their submitter, or queue behind a read whose
 * page is late, and for parked holds (base/hold.h).  It ends when idle.
 */
#ifndef LAS_LANES_REAPER_H
#define LAS_LANES_REAPER_H

#include <stdbool.h>

#include "base/hold.h"

void las_reaper_init(void);
/* The reaper's eventfd, with a reference, and the thread behind it; NULL if there can be none. */
struct las_hold *las_reaper_get(void);
/*
 * Something is in flight that nobody waits for, or parked: sees to it that the
 * reaper looks.  Cheap when it does already.  False if no thread can be had.
 */
bool las_reaper_watch(void);

#endif
