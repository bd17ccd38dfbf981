/* hidden.c - the pool of hidden kernel contexts, see hidden.h. */
#include "lanes/hidden.h"

#include <string.h>

#include "base/pool.h"
#include "base/sys.h"
#include "base/ticks.h"
#include "lanes/reaper.h"

#define RETRY_TICKS 30000000 /* about 10 ms between attempts to get a hidden context that failed */

static struct {
	struct las_lock lock; /* guards all below */
	struct las_link all;
	unsigned count; /* on it */
	struct las_pool memory;
	uint64_t failed_at; /* ticks of the last refusal to set one up; 0: none */
} pool;

void las_native_init(void)
{
	memset(&pool, 0, sizeof(pool));
	las_list_init(&pool.all);
	las_pool_init(&pool.memory, (sizeof(struct las_native) + LAS_CACHE_LINE - 1) / LAS_CACHE_LINE * LAS_CACHE_LINE);
	las_announce_init();
	las_reaper_init();
}

static struct las_native *free_one_locked(unsigned depth)
{
	struct las_link *l, *tmp;

	las_list_each(&pool.all, l, tmp) {
		struct las_native *native = las_container_of(l, struct las_native, link);

		if (!native->lent && native->depth >= depth)
			return native;
	}
	return NULL;
}

static struct las_native *set_up(unsigned depth)
{
	struct las_native *native;
	uintptr_t hidden = 0;

	if (las_sys.io_setup(depth, &hidden) < 0)
		return NULL;
	las_lock(&pool.lock);
	native = las_pool_get(&pool.memory);
	if (native) {
		memset(native, 0, sizeof(*native));
		native->ring = (struct las_ring *)hidden;
		native->depth = depth;
		native->lent = true;
		las_announce_begin(native);
		las_list_init(&native->polls);
		las_list_push(&pool.all, &native->link);
		pool.count++;
	}
	las_unlock(&pool.lock);
	if (!native)
		las_sys.io_destroy(hidden);
	return native;
}

struct las_native *las_native_get(unsigned depth)
{
	struct las_native *native;
	bool wait;

	las_lock(&pool.lock);
	native = free_one_locked(depth);
	if (native)
		native->lent = true;
	wait = pool.failed_at && las_ticks() - pool.failed_at < RETRY_TICKS;
	las_unlock(&pool.lock);
	if (native)
		las_announce_begin(native);
	if (native || wait)
		return native;
	native = set_up(depth);
	las_lock(&pool.lock);
	pool.failed_at = native ? 0 : las_ticks() | 1;
	las_unlock(&pool.lock);
	return native;
}

void las_native_put(struct las_native *native)
{
	las_announce_forget(native);
	las_lock(&pool.lock);
	native->lent = false;
	las_unlock(&pool.lock);
}

unsigned las_native_reap_all(void)
{
	struct las_native *batch[LAS_NATIVE_BATCH];
	unsigned total = 0, n = 0, seen = 0;
	struct las_link *l, *tmp;

	las_lock(&pool.lock);
	las_list_each(&pool.all, l, tmp) {
		struct las_native *native = las_container_of(l, struct las_native, link);
		unsigned in_flight = las_native_in_flight(native);

		total += in_flight;
		if (in_flight && las_native_has_work(native) && !las_load_relaxed(&native->announce.counted) &&
		    n < LAS_NATIVE_BATCH) {
			/* To the end, so that others have their turn when more than a batch are busy. */
			las_list_remove(l);
			las_list_push(&pool.all, l);
			batch[n++] = native;
		}
		if (++seen == pool.count)
			break;
	}
	las_unlock(&pool.lock);
	/* Hidden contexts are never freed, so the pointers stay good. */
	for (unsigned i = 0; i < n; i++)
		las_native_drain(batch[i], false);
	return total;
}
