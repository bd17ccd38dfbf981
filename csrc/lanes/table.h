/*
 * table.h - whose descriptors a thread's numbers mean.
 *
 * Threads of ours have the descriptors of the process.  What a thread with a
 * table of its own, or another process that only shares our memory, submits
 * is none of their business: the numbers are other files to them.
 */
#ifndef LAS_LANES_TABLE_H
#define LAS_LANES_TABLE_H

#include <stdbool.h>

#include "base/atomic.h"
#include "base/lock.h"

void las_table_init(void);

/* The process whose table it is; its main thread's number too. */
long las_table_process(void);
/* Whether the caller belongs to it; one of vfork or clone(CLONE_VM) only shares its memory. */
bool las_table_same_process(void);
/* Whether the calling thread's descriptors are those of the crew's threads. */
bool las_table_shared(void);

enum las_table { LAS_TABLE_UNKNOWN, LAS_TABLE_SHARED, LAS_TABLE_OWN };
extern _Thread_local enum las_table las_table_mine LAS_TLS_MODEL;
/* Asks the kernel whether the calling thread, one of the process, has a table of its own, and notes the answer. */
void las_table_ask(void);
/* A thread of the process with a table of its own: to it the numbers of others' holds mean nothing. */
static inline bool las_table_is_stranger(void)
{
	if (las_unlikely(las_table_mine == LAS_TABLE_UNKNOWN))
		las_table_ask();
	return las_unlikely(las_table_mine == LAS_TABLE_OWN);
}

#endif
