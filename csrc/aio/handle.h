/*
 * handle.h - from a handle, the address of a ring, to its context.  For
 * context.c only.
 *
 * The table is open-addressed and only grows, so readers need no lock: an
 * entry whose ring the program has moved away stays, without a context.  A
 * table that became too small is left to late readers and replaced by a
 * larger one.
 */
#ifndef LAS_AIO_HANDLE_H
#define LAS_AIO_HANDLE_H

#include <stddef.h>
#include <stdint.h>

#include "aio/context.h"
#include "base/atomic.h"
#include "base/lock.h"

#define LAS_RING_ALIGN ((size_t)4096) /* at least; the kernel's pages may be larger */

struct las_handle {
	const void *handle; /* written last, release */
	struct las_ctx *ctx;
};

struct las_handle_table {
	size_t mask, used;
	struct las_handle entries[];
};

extern struct las_handles {
	struct las_lock lock; /* guards the table, which is read without it, and what context.c says */
	struct las_handle_table *table;
} las_handles;

static inline size_t las_handle_hash(const void *handle)
{
	return (size_t)((uintptr_t)handle / LAS_RING_ALIGN * 0x9e3779b97f4a7c15u >> 20);
}

static inline struct las_handle *las_handle_entry(struct las_handle_table *t, const void *handle)
{
	for (size_t i = las_handle_hash(handle) & t->mask;; i = (i + 1) & t->mask) {
		const void *at = las_load_acquire(&t->entries[i].handle); /* pairs with insert_locked() */

		if (at == handle)
			return &t->entries[i];
		if (!at)
			return NULL;
	}
}

static inline struct las_ctx *las_handle_find(const void *handle)
{
	/* Acquire: pairs with the release that publishes a table.  Whoever has a handle has it from a later moment. */
	struct las_handle_table *t = las_load_acquire(&las_handles.table);
	struct las_handle *e = t && handle ? las_handle_entry(t, handle) : NULL;

	return e ? las_load_acquire(&e->ctx) : NULL;
}

/* From now on the context is found by its handle: 0 or -ENOMEM. */
int las_handle_register_locked(struct las_ctx *ctx);
/* From now on the context is found at another address, not at the one before: 0; or -ENOMEM, and all is as it was. */
int las_handle_relocate_locked(struct las_ctx *ctx, struct las_ring *handle);
/* The context whose ring the program has moved to there, or NULL; takes the lock. */
struct las_ctx *las_handle_find_moved(const void *handle);

#endif
