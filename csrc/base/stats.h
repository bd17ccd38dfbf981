/*
 * stats.h - what the lanes count, process-wide.
 *
 * Relaxed atomics: each number stands for itself.  Only events that cost a
 * system call anyway are counted here; what happens per cached request is
 * counted in its context, on a line that is hot already (aio/context.h).
 */
#ifndef LAS_BASE_STATS_H
#define LAS_BASE_STATS_H

#include "libaio_shim.h"

#include "base/atomic.h"

extern struct las_stats las_stats;

#define las_count(field, n) ((void)las_add_relaxed(&las_stats.field, (n)))

#endif
