/*
 * ring.h - the completion ring: the kernel's layout, in memory that the program reads.
 *
 * Who writes what: completers write events and tail, under the context's
 * lock; the program or io_getevents writes head; nobody else writes anything.
 * An event is in place before tail says so (release), and a slot between head
 * and tail is never rewritten.
 *
 * The pages are mapped twice.  The program's view is the io_context_t; the
 * library's own view stays usable whatever the program does to its one, so
 * that a program which protects or unmaps its ring cannot crash our threads.
 *
 * Slots: nr - 1 requests may be accepted and not yet reaped.  How many are
 * unreaped is told by head in memory, since the program may move it without
 * a call.  `done` packs how many requests ever completed with the tail that
 * belongs to that number, so that both are read in one piece.
 */
#ifndef LAS_AIO_RING_H
#define LAS_AIO_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/abi.h"
#include "base/atomic.h"

struct las_slots {
	struct las_ring *view;              /* the library's mapping */
	struct las_ring *handle;            /* the program's mapping: its io_context_t */
	uint32_t nr;                        /* slots; the copy in the ring is the program's to spoil */
	uint32_t pages;                     /* of the kernel's size */
	uint32_t accepted LAS_LINE_ALIGNED; /* requests ever accepted, less those withdrawn; atomic */
	uint64_t done LAS_LINE_ALIGNED;     /* completed << 32 | tail; written under the context's lock */
};

static inline uint32_t las_done_count(uint64_t done)
{
	return (uint32_t)(done >> 32);
}

static inline uint32_t las_done_tail(uint64_t done)
{
	return (uint32_t)done;
}

/* Slots for io_setup(n) with so many processors and such pages: 0 and *nr, *pages; or the kernel's -EINVAL or -EAGAIN. */
int las_ring_size(unsigned n, unsigned cpus, unsigned page_bytes, uint32_t *nr, uint32_t *pages);

/* Makes the ring in s->view, of s->nr slots, an empty one; the id is what a moved ring is found by (handle.h). */
void las_ring_init(struct las_slots *s, uint32_t id);

/* Takes one slot: false when all are taken. */
bool las_slot_get(struct las_slots *s);
/* Gives back a slot whose request was refused or withdrawn: it will have no event. */
void las_slot_put(struct las_slots *s);

/* Events in the ring that nobody has reaped. */
uint32_t las_ring_available(const struct las_slots *s);
/* Requests that are accepted and have no event yet. */
uint32_t las_ring_in_flight(const struct las_slots *s);

/* Appends one event; the caller holds the context's lock and a slot. */
void las_ring_post_locked(struct las_slots *s, const struct las_event *event);
/* Takes up to max events off; the caller holds the consumers' lock. */
uint32_t las_ring_reap_locked(struct las_slots *s, struct las_event *out, uint32_t max);

#endif
