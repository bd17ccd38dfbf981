/*
 * pool.h - objects of one size, from memory that is mapped ahead of need.
 *
 * Objects are type-stable: their memory is never unmapped and never becomes
 * anything else, so a late look at a freed one reads stale data, not a hole.
 * Last in, first out: a warm object is handed out next.
 *
 * Callers' obligation: las_pool_reserve() at set-up time for as many objects
 * as will be wanted, so that getting one on the submit path is a pointer swap.
 */
#ifndef LAS_BASE_POOL_H
#define LAS_BASE_POOL_H

#include <stddef.h>

#include "base/lock.h"

struct las_pool {
	struct las_lock lock;    /* guards all below */
	size_t object_bytes;     /* a multiple of 8, at least two pointers */
	void *free;              /* chain through each object's first word */
	char *fresh, *fresh_end; /* the chunk that is being cut */
	void *rest;              /* what was left of earlier ones */
	size_t mapped, promised; /* objects */
};

void las_pool_init(struct las_pool *pool, size_t object_bytes);
/* Promises n more objects: 0 or -ENOMEM.  las_pool_release() takes the promise back. */
int las_pool_reserve(struct las_pool *pool, size_t n);
void las_pool_release(struct las_pool *pool, size_t n);
/* NULL when no memory can be had. */
void *las_pool_get(struct las_pool *pool);
void las_pool_put(struct las_pool *pool, void *object);

#endif
