/*
 * context.c - see context.h.
 *
 * The table is open-addressed and only grows, so readers need no lock: an
 * entry whose ring the program has moved away stays, without a context.  A
 * table that became too small is left to late readers and replaced by a
 * larger one.
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
#include "base/config.h"
#include "base/futex.h"
#include "base/pool.h"
#include "base/stats.h"
#include "base/sys.h"
#include "base/umem.h"

#define PAGE_BYTES ((size_t)4096)
#define CHUNK_BYTES ((size_t)1 << 20)
#define SIZES 20 /* powers of two of pages: up to 2 GiB */
#define FIRST_TABLE 256
#define RETIRED 0x80000000u /* in visitors */
#define KEEP_PAGES 4        /* pages of a free ring that keep their memory */
#define ALWAYS_ROOM 65536   /* events that any context may have: the kernel's default for the whole system */

struct entry {
	const void *handle; /* written last, release */
	struct las_ctx *ctx;
};

struct table {
	size_t mask, used;
	struct entry entries[];
};

static struct {
	struct las_lock lock; /* guards all below; `table` is read without it */
	struct table *table;
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
	memset(&contexts, 0, sizeof(contexts));
	for (unsigned i = 0; i < SIZES; i++)
		las_list_init(&contexts.free[i]);
	las_pool_init(&contexts.pool, (sizeof(struct las_ctx) + LAS_CACHE_LINE - 1) / LAS_CACHE_LINE * LAS_CACHE_LINE);
}

static size_t hash(const void *handle)
{
	return (size_t)((uintptr_t)handle / PAGE_BYTES * 0x9e3779b97f4a7c15u >> 20);
}

static struct entry *entry_of(struct table *t, const void *handle)
{
	for (size_t i = hash(handle) & t->mask;; i = (i + 1) & t->mask) {
		const void *at = las_load_acquire(&t->entries[i].handle); /* pairs with insert_locked */

		if (at == handle)
			return &t->entries[i];
		if (!at)
			return NULL;
	}
}

static struct las_ctx *find(const void *handle)
{
	/* Acquire: pairs with the release that publishes a table.  Whoever has a handle has it from a later moment. */
	struct table *t = las_load_acquire(&contexts.table);
	struct entry *e = t && handle ? entry_of(t, handle) : NULL;

	return e ? las_load_acquire(&e->ctx) : NULL;
}

static void insert_locked(struct table *t, struct las_ctx *ctx)
{
	size_t i = hash(ctx->slots.handle) & t->mask;

	/* An address that is there already was a ring that the program has unmapped or moved; now it is this one. */
	while (t->entries[i].handle && t->entries[i].handle != ctx->slots.handle)
		i = (i + 1) & t->mask;
	las_store_release(&t->entries[i].ctx, ctx);
	las_store_release(&t->entries[i].handle, (const void *)ctx->slots.handle);
	t->used++;
}

static int register_locked(struct las_ctx *ctx)
{
	struct table *old = contexts.table;

	if (!old || old->used * 2 > old->mask) {
		size_t n = old ? (old->mask + 1) * 2 : FIRST_TABLE;
		struct table *t = las_sys.mmap(NULL, sizeof(*t) + n * sizeof(struct entry), PROT_READ | PROT_WRITE,
		                               MAP_PRIVATE | MAP_NORESERVE);

		if (!t)
			return -ENOMEM;
		t->mask = n - 1;
		for (size_t i = 0; old && i <= old->mask; i++)
			if (old->entries[i].ctx)
				insert_locked(t, old->entries[i].ctx);
		las_store_release(&contexts.table, t);
	}
	insert_locked(contexts.table, ctx);
	return 0;
}

/* From now on the context is found at another address, and no longer at the one before. */
static int relocate_locked(struct las_ctx *ctx, struct las_ring *handle)
{
	struct las_ring *before = ctx->slots.handle;
	struct entry *e;
	int err;

	ctx->slots.handle = handle;
	err = register_locked(ctx);
	if (err) {
		ctx->slots.handle = before;
		return err;
	}
	e = entry_of(contexts.table, before);
	if (e)
		las_store_release(&e->ctx, NULL);
	return 0;
}

/* Whether the program's address shows the very memory of the ring: what is written here appears there. */
static bool shows_ring(const struct las_ctx *ctx, const struct las_ring *at)
{
	struct las_ring *view = ctx->slots.view;
	uint32_t id = ctx->id;
	bool same;

	/* There is one view only, and it has gone with the program's; or it is ours, which is nobody's handle. */
	if (view == ctx->slots.handle || at == view)
		return false;
	/* The id is no use to a program. */
	las_store_relaxed(&view->id, ~id);
	same = las_load_relaxed(&at->id) == ~id;
	las_store_relaxed(&view->id, id);
	return same;
}

/*
 * KERNEL: it finds a context by the id in the ring's memory, and lets the
 * handle move with the ring when the program moves that by mremap, as
 * checkpoint and restore do (test: ring.ring_moved_by_mremap).  Nobody tells
 * us of the move, so a handle that is not known is looked at.
 */
static __attribute__((noinline)) struct las_ctx *find_moved(const void *handle)
{
	const struct las_ring *at = handle;
	struct las_ctx *found = NULL;
	struct table *t;
	uint32_t id;

	if ((uintptr_t)handle % PAGE_BYTES || !las_umem_readable(at, sizeof(*at)) || at->magic != LAS_RING_MAGIC)
		return NULL;
	id = at->id;
	las_lock(&contexts.lock);
	t = contexts.table;
	for (size_t i = 0; t && i <= t->mask && !found; i++) {
		struct las_ctx *ctx = t->entries[i].ctx;

		if (ctx && ctx->id == id && !las_ctx_dead(ctx) && shows_ring(ctx, at))
			found = ctx;
	}
	if (found && relocate_locked(found, (struct las_ring *)(uintptr_t)at) < 0)
		found = NULL;
	if (found)
		found->moved = true;
	las_unlock(&contexts.lock);
	return found;
}

/*
 * KERNEL: a ring that cannot be read is no context
 * (test: ring.unmapped_ring_is_einval).  That costs nothing once
 * base/umem.h trusts the page.
 */
static struct las_ctx *look_up(const void *handle)
{
	struct las_ctx *ctx = find(handle);

	if (las_unlikely(!ctx))
		return find_moved(handle);
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

static struct las_ctx *fresh_locked(unsigned size)
{
	struct las_ctx *ctx = las_pool_get(&contexts.pool);

	if (!ctx)
		return NULL;
	memset(ctx, 0, sizeof(*ctx));
	ctx->busy = LAS_CTX_DEAD;
	if (cut_locked(ctx, PAGE_BYTES << size) < 0 || register_locked(ctx) < 0) {
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
		if (las_sys.mprotect(ctx->slots.handle, PAGE_BYTES << size, PROT_READ | PROT_WRITE) == 0)
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
	int err = las_ring_size(n, las_config.possible_cpus, &nr, &pages);

	if (err)
		return err;
	if (too_many(n))
		return -EAGAIN;
	err = las_complete_reserve(n);
	if (err)
		return -EAGAIN;
	size = size_of(pages);
	las_lock(&contexts.lock);
	ctx = recycled_locked(size);
	if (!ctx)
		ctx = fresh_locked(size);
	if (ctx)
		ctx->id = contexts.ids++;
	las_unlock(&contexts.lock);
	if (!ctx) {
		las_complete_release(n);
		return -EAGAIN; /* what the kernel says when it has no memory for another context */
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
	void *handle = las_sys.mremap_dup(ctx->slots.view, PAGE_BYTES << size_of(ctx->slots.pages));

	if (!handle || relocate_locked(ctx, handle) < 0)
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
	size_t bytes = (size_t)ctx->slots.pages * PAGE_BYTES;

	/* A large ring gives its memory back, its addresses stay readable. */
	if (ctx->slots.pages > KEEP_PAGES)
		las_sys.madvise((char *)ctx->slots.view + KEEP_PAGES * PAGE_BYTES, bytes - KEEP_PAGES * PAGE_BYTES,
		                MADV_REMOVE);
	las_lock(&contexts.lock);
	if (las_likely(!ctx->moved) || bring_home_locked(ctx))
		las_list_push(&contexts.free[size_of(ctx->slots.pages)], &ctx->link);
	las_unlock(&contexts.lock);
}

void las_ctx_retire(struct las_ctx *ctx)
{
	las_lock(&contexts.lock);
	contexts.ended_head += ctx->count_head;
	contexts.ended_all += ctx->count_all;
	las_store_relaxed(&ctx->count_head, 0); /* the lock keeps las_ctx_totals from seeing them twice */
	las_store_relaxed(&ctx->count_all, 0);
	las_unlock(&contexts.lock);
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
	las_lock(&contexts.lock);
	*head = contexts.ended_head;
	*all = contexts.ended_all;
	for (size_t i = 0; contexts.table && i <= contexts.table->mask; i++) {
		const struct entry *e = &contexts.table->entries[i];

		if (e->ctx) {
			*head += las_load_relaxed(&e->ctx->count_head); /* a count that is still growing */
			*all += las_load_relaxed(&e->ctx->count_all);
		}
	}
	las_unlock(&contexts.lock);
}
