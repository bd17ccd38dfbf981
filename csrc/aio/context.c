/*
 * context.c - see context.h.
 *
 * Rings are cut from chunks of shared anonymous memory, each mapped twice;
 * free contexts wait in a list per size (powers of two of pages), oldest
 * first, so that a handle is not handed out again at once.
 */
#include "aio/context.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "aio/complete.h"
#include "aio/handle.h"
#include "base/config.h"
#include "base/futex.h"
#include "base/pool.h"
#include "base/stats.h"
#include "base/sys.h"
#include "base/umem.h"

#define CHUNK_BYTES ((size_t)1 << 20)
#define SIZES 20            /* powers of two of pages: up to 2 GiB */
#define RETIRED 0x80000000u /* in visitors */
#define KEEP_PAGES 4        /* pages of a free ring that keep their memory */
#define ALWAYS_ROOM 65536   /* events that any context may have: the kernel's default for the whole system */

/* Guarded by the lock of the table, handle.h. */
static struct {
	struct las_link free[SIZES];
	struct {
		char *handle, *view;
		size_t left;
	} fresh; /* what is left of the chunk for small rings */
	struct las_pool pool;
	uint32_t ids;
	uint64_t ended_head, ended_all; /* counts of contexts that are gone */
} contexts;

void las_ctx_init(void)
{
	memset(&las_handles, 0, sizeof(las_handles));
	memset(&contexts, 0, sizeof(contexts));
	for (unsigned i = 0; i < SIZES; i++)
		las_list_init(&contexts.free[i]);
	las_pool_init(&contexts.pool, (sizeof(struct las_ctx) + LAS_CACHE_LINE - 1) / LAS_CACHE_LINE * LAS_CACHE_LINE);
}

/*
 * KERNEL: a ring that cannot be read is no context
 * (test: ring.unmapped_ring_is_einval).  That costs nothing once
 * base/umem.h trusts the page.
 */
static struct las_ctx *look_up(const void *handle)
{
	struct las_ctx *ctx = las_handle_find(handle);

	if (las_unlikely(!ctx))
		return las_handle_find_moved(handle);
	return las_likely(las_umem_readable(handle, sizeof(uint32_t))) ? ctx : NULL;
}

/*
 * Maps `bytes` twice.  Without the second view the first serves for both.
 *
 * KERNEL: inaccessible-ring: it writes events whatever the program has done to
 * its mapping, and hands them out when that can be read again (test:
 * ring.ring_made_inaccessible_with_requests_in_flight).
 *
 * KERNEL: ring-without-a-name: it maps a file called [aio].
 */
static int map_twice(size_t bytes, char **handle, char **view)
{
	*handle = las_sys.mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE);
	if (!*handle)
		return -ENOMEM;
	*view = las_sys.mremap_dup(*handle, bytes);
	if (!*view)
		*view = *handle;
	return 0;
}

static int cut_locked(struct las_ctx *ctx, size_t bytes)
{
	char *handle, *view;

	if (bytes >= CHUNK_BYTES) {
		int err = map_twice(bytes, &handle, &view);

		if (err)
			return err;
	} else {
		if (contexts.fresh.left < bytes) {
			int err = map_twice(CHUNK_BYTES, &contexts.fresh.handle, &contexts.fresh.view);

			if (err) {
				contexts.fresh.left = 0;
				return err;
			}
			contexts.fresh.left = CHUNK_BYTES;
		}
		handle = contexts.fresh.handle;
		view = contexts.fresh.view;
		contexts.fresh.handle += bytes;
		contexts.fresh.view += bytes;
		contexts.fresh.left -= bytes;
	}
	ctx->slots.handle = (struct las_ring *)(void *)handle;
	ctx->slots.view = (struct las_ring *)(void *)view;
	return 0;
}

static unsigned size_of(uint32_t pages)
{
	unsigned size = 0;

	while (((uint32_t)1 << size) < pages)
		size++;
	return size;
}

static size_t ring_bytes(unsigned size)
{
	return (size_t)las_config.page_bytes << size;
}

static struct las_ctx *fresh_locked(unsigned size)
{
	struct las_ctx *ctx = las_pool_get(&contexts.pool);

	if (!ctx)
		return NULL;
	memset(ctx, 0, sizeof(*ctx));
	ctx->busy = LAS_CTX_DEAD;
	if (cut_locked(ctx, ring_bytes(size)) < 0 || las_handle_register_locked(ctx) < 0) {
		las_pool_put(&contexts.pool, ctx);
		return NULL;
	}
	return ctx;
}

static struct las_ctx *recycled_locked(unsigned size)
{
	for (;;) {
		struct las_link *l = las_list_pop(&contexts.free[size]);
		struct las_ctx *ctx;

		if (!l)
			return NULL;
		ctx = las_container_of(l, struct las_ctx, link);
		/* The program may have protected or unmapped its ring; a hole is not handed out again. */
		if (las_sys.mprotect(ctx->slots.handle, ring_bytes(size), PROT_READ | PROT_WRITE) == 0)
			return ctx;
	}
}

/*
 * KERNEL: no-system-limit: one context for more than fs.aio-max-nr is refused,
 * as programs probe for that; what other contexts have is not counted, and an
 * administrator's smaller number is for the kernel's memory, not for ours
 * (test: setup.one_context_for_more_than_the_system_allows).
 */
static bool too_many(unsigned n)
{
	return n > ALWAYS_ROOM && n > las_config_max_events();
}

int las_ctx_create(unsigned n, struct las_ctx **out)
{
	uint32_t nr, pages;
	struct las_ctx *ctx;
	unsigned size;
	int err = las_ring_size(n, las_config.possible_cpus, las_config.page_bytes, &nr, &pages);

	if (err)
		return err;
	if (too_many(n))
		return -EAGAIN;
	err = las_complete_reserve(n);
	if (err)
		return err;
	size = size_of(pages);
	las_lock(&las_handles.lock);
	ctx = recycled_locked(size);
	if (!ctx)
		ctx = fresh_locked(size);
	if (ctx)
		ctx->id = contexts.ids++;
	las_unlock(&las_handles.lock);
	if (!ctx) {
		las_complete_release(n);
		return -ENOMEM;
	}
	las_complete_own(&ctx->owner);
	ctx->slots.nr = nr;
	ctx->slots.pages = pages;
	las_ring_init(&ctx->slots, ctx->id);
	ctx->reserved = n;
	ctx->waiters = ctx->settlers = ctx->settling = ctx->elsewhere = 0;
	ctx->unwaited = ctx->notifying = ctx->helped = 0;
	ctx->leading = ctx->shared = false;
	ctx->thread = NULL;
	ctx->native = NULL;
	ctx->wake_at = INT32_MAX;
	las_list_init(&ctx->sleepers);
	las_count(contexts, 1);
	/* Alive; the release pairs with the acquire in las_ctx_enter.  Subtracted, as late callers come and go. */
	las_sub_acq_rel(&ctx->busy, LAS_CTX_DEAD);
	*out = ctx;
	return 0;
}

/*
 * A ring that the program has moved lies where the program may map something
 * else without telling, so its next life is at an address of our choice.
 * What the program has stays as it is: readable, and its own to unmap.
 */
static bool bring_home_locked(struct las_ctx *ctx)
{
	void *handle = las_sys.mremap_dup(ctx->slots.view, ring_bytes(size_of(ctx->slots.pages)));

	if (!handle || las_handle_relocate_locked(ctx, handle) < 0)
		return false;
	ctx->moved = false;
	return true;
}

/*
 * KERNEL: ring-stays-readable: it unmaps the ring under whoever still peeks at
 * it (tests: destroy.ring_under_a_peeking_reader, destroy.peeking_thread_never_faults).
 */
static void recycle(struct las_ctx *ctx)
{
	size_t bytes = (size_t)ctx->slots.pages * las_config.page_bytes;
	size_t kept = (size_t)KEEP_PAGES * las_config.page_bytes;

	/* A large ring gives its memory back, its addresses stay readable. */
	if (bytes > kept)
		las_sys.madvise((char *)ctx->slots.view + kept, bytes - kept, MADV_REMOVE);
	las_lock(&las_handles.lock);
	if (las_likely(!ctx->moved) || bring_home_locked(ctx))
		las_list_push(&contexts.free[size_of(ctx->slots.pages)], &ctx->link);
	las_unlock(&las_handles.lock);
}

void las_ctx_retire(struct las_ctx *ctx)
{
	las_lock(&las_handles.lock);
	contexts.ended_head += ctx->count_head;
	contexts.ended_all += ctx->count_all;
	las_store_relaxed(&ctx->count_head, 0); /* the lock keeps las_ctx_totals from seeing them twice */
	las_store_relaxed(&ctx->count_all, 0);
	las_unlock(&las_handles.lock);
	las_complete_release(ctx->reserved);
	las_or_acq_rel(&ctx->visitors, RETIRED); /* io_destroy is a visitor too: somebody is left to see it */
}

struct las_ctx *las_ctx_enter(const void *handle)
{
	struct las_ctx *ctx = look_up(handle);

	if (las_unlikely(!ctx))
		return NULL;
	/* Acquire: pairs with the release in las_ctx_create, when the handle is an old one in its next life. */
	if (las_unlikely(las_add_acquire(&ctx->busy, 1) & LAS_CTX_DEAD)) {
		las_ctx_leave(ctx, 1);
		return NULL;
	}
	return ctx;
}

void las_ctx_leave(struct las_ctx *ctx, uint32_t n)
{
	/* Release what was done to the context to io_destroy, which acquires by loading busy. */
	if (las_unlikely(las_sub_acq_rel(&ctx->busy, n) == (LAS_CTX_DEAD | n)))
		las_futex_wake(&ctx->busy, LAS_WAKE_ALL);
}

struct las_ctx *las_ctx_visit(const void *handle)
{
	struct las_ctx *ctx = look_up(handle);

	if (las_unlikely(!ctx))
		return NULL;
	las_add_acq_rel(&ctx->visitors, 1);
	if (las_unlikely(las_ctx_dead(ctx))) {
		las_ctx_unvisit(ctx);
		return NULL;
	}
	return ctx;
}

void las_ctx_unvisit(struct las_ctx *ctx)
{
	uint32_t nobody = RETIRED;

	/*
	 * The last visitor of a retired context recycles it.  A late caller may still come and go: (1) the last one
	 * leaves RETIRED behind, (2) a late one makes it RETIRED + 1 and leaves, (3) both try the compare-exchange,
	 * one of them wins, and afterwards nobody finds the bit.
	 */
	if (las_sub_acq_rel(&ctx->visitors, 1) == (RETIRED | 1) && las_cas_acq_rel(&ctx->visitors, &nobody, 0))
		recycle(ctx);
}

void las_ctx_totals(uint64_t *head, uint64_t *all)
{
	las_lock(&las_handles.lock);
	*head = contexts.ended_head;
	*all = contexts.ended_all;
	for (size_t i = 0; las_handles.table && i <= las_handles.table->mask; i++) {
		const struct las_handle *e = &las_handles.table->entries[i];

		if (e->ctx) {
			*head += las_load_relaxed(&e->ctx->count_head); /* a count that is still growing */
			*all += las_load_relaxed(&e->ctx->count_all);
		}
	}
	las_unlock(&las_handles.lock);
}
