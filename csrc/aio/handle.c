/* handle.c - the table of handles, and rings that the program has moved, see handle.h. */
#include "aio/handle.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/sys.h"
#include "base/umem.h"

#define FIRST_TABLE 256

struct las_handles las_handles;

static void insert_locked(struct las_handle_table *t, struct las_ctx *ctx)
{
	size_t i = las_handle_hash(ctx->slots.handle) & t->mask;

	/* An address that is there already was a ring that the program has unmapped or moved; now it is this one. */
	while (t->entries[i].handle && t->entries[i].handle != ctx->slots.handle)
		i = (i + 1) & t->mask;
	las_store_release(&t->entries[i].ctx, ctx);
	las_store_release(&t->entries[i].handle, (const void *)ctx->slots.handle);
	t->used++;
}

int las_handle_register_locked(struct las_ctx *ctx)
{
	struct las_handle_table *old = las_handles.table;

	if (!old || old->used * 2 > old->mask) {
		size_t n = old ? (old->mask + 1) * 2 : FIRST_TABLE;
		struct las_handle_table *t = las_sys.mmap(NULL, sizeof(*t) + n * sizeof(struct las_handle),
		                                          PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);

		if (!t)
			return -ENOMEM;
		t->mask = n - 1;
		for (size_t i = 0; old && i <= old->mask; i++)
			if (old->entries[i].ctx)
				insert_locked(t, old->entries[i].ctx);
		las_store_release(&las_handles.table, t);
	}
	insert_locked(las_handles.table, ctx);
	return 0;
}

int las_handle_relocate_locked(struct las_ctx *ctx, struct las_ring *handle)
{
	struct las_ring *before = ctx->slots.handle;
	struct las_handle *e;
	int err;

	ctx->slots.handle = handle;
	err = las_handle_register_locked(ctx);
	if (err) {
		ctx->slots.handle = before;
		return err;
	}
	e = las_handle_entry(las_handles.table, before);
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
struct las_ctx *las_handle_find_moved(const void *handle)
{
	const struct las_ring *at = handle;
	struct las_ctx *found = NULL;
	struct las_handle_table *t;
	uint32_t id;

	if ((uintptr_t)handle % LAS_RING_ALIGN || !las_umem_readable(at, sizeof(*at)) || at->magic != LAS_RING_MAGIC)
		return NULL;
	id = at->id;
	las_lock(&las_handles.lock);
	t = las_handles.table;
	for (size_t i = 0; t && i <= t->mask && !found; i++) {
		struct las_ctx *ctx = t->entries[i].ctx;

		if (ctx && ctx->id == id && !las_ctx_dead(ctx) && shows_ring(ctx, at))
			found = ctx;
	}
	if (found && las_handle_relocate_locked(found, (struct las_ring *)(uintptr_t)at) < 0)
		found = NULL;
	if (found)
		found->moved = true;
	las_unlock(&las_handles.lock);
	return found;
}
