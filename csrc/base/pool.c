/* pool.c - see pool.h.  Chunks are mapped without reserving memory: untouched objects cost address space only. */
#include "base/pool.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "base/sys.h"

#define CHUNK_BYTES ((size_t)64 * 1024)

void las_pool_init(struct las_pool *pool, size_t object_bytes)
{
	*pool = (struct las_pool){ .object_bytes = object_bytes };
}

/* Untouched objects, described in the first of them. */
struct range {
	struct range *next;
	char *end;
};

static bool fresh_locked(struct las_pool *pool)
{
	struct range *rest = pool->rest;

	if ((size_t)(pool->fresh_end - pool->fresh) >= pool->object_bytes)
		return true;
	if (!rest)
		return false;
	pool->rest = rest->next;
	pool->fresh_end = rest->end;
	pool->fresh = (char *)rest;
	return true;
}

static int grow_locked(struct las_pool *pool, size_t objects)
{
	size_t bytes = (objects * pool->object_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES * CHUNK_BYTES;
	char *chunk = las_sys.mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);

	if (!chunk)
		return -ENOMEM;
	/* What is left of the last chunk is kept, and touched only at its beginning. */
	if ((size_t)(pool->fresh_end - pool->fresh) >= pool->object_bytes) {
		struct range *rest = (struct range *)(void *)pool->fresh;

		rest->next = pool->rest;
		rest->end = pool->fresh_end;
		pool->rest = rest;
	}
	pool->fresh = chunk;
	pool->fresh_end = chunk + bytes;
	pool->mapped += bytes / pool->object_bytes;
	return 0;
}

int las_pool_reserve(struct las_pool *pool, size_t n)
{
	int err = 0;

	las_lock(&pool->lock);
	if (pool->promised + n > pool->mapped)
		err = grow_locked(pool, pool->promised + n - pool->mapped);
	if (!err)
		pool->promised += n;
	las_unlock(&pool->lock);
	return err;
}

void las_pool_release(struct las_pool *pool, size_t n)
{
	las_lock(&pool->lock);
	pool->promised -= n;
	las_unlock(&pool->lock);
}

void *las_pool_get(struct las_pool *pool)
{
	void *object = NULL;

	las_lock(&pool->lock);
	if (pool->free) {
		object = pool->free;
		pool->free = *(void **)object;
	} else if (fresh_locked(pool) || grow_locked(pool, 1) == 0) {
		object = pool->fresh;
		pool->fresh += pool->object_bytes;
	}
	las_unlock(&pool->lock);
	return object;
}

void las_pool_put(struct las_pool *pool, void *object)
{
	las_lock(&pool->lock);
	*(void **)object = pool->free;
	pool->free = object;
	las_unlock(&pool->lock);
}
