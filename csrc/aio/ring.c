/* ring.c - see ring.h. */
#include "aio/ring.h"

#include <errno.h>
#include <string.h>

#define KERNEL_MAX (0x10000000u / sizeof(struct las_event)) /* fs/aio.c: "prevent overflows" */

int las_ring_size(unsigned n, unsigned cpus, unsigned page_bytes, uint32_t *nr, uint32_t *pages)
{
	uint32_t least = n > cpus * 4 ? n : cpus * 4, slots = least * 2;
	uint64_t bytes;

	if (n == 0 || slots > KERNEL_MAX)
		return -EINVAL;
	/*
	 * KERNEL: it doubles in 32 bits, and finds what has become small to be more than the system allows (test:
	 * setup.counts_whose_double_is_small_are_eagain).
	 */
	if (slots < least)
		return -EAGAIN;
	slots += 2; /* one full ring more than twice n, as the kernel: a ring of nr holds nr - 1 */
	bytes = sizeof(struct las_ring) + (uint64_t)slots * sizeof(struct las_event);
	*pages = (uint32_t)((bytes + page_bytes - 1) / page_bytes);
	*nr = (uint32_t)((*pages * (uint64_t)page_bytes - sizeof(struct las_ring)) / sizeof(struct las_event));
	return 0;
}

void las_ring_init(struct las_slots *s, uint32_t id)
{
	struct las_ring *ring = s->view;

	ring->id = id;
	ring->nr = s->nr;
	ring->head = ring->tail = 0;
	ring->magic = LAS_RING_MAGIC;
	ring->compat_features = 1;
	ring->incompat_features = 0;
	ring->header_length = sizeof(struct las_ring);
	s->accepted = 0;
	s->done = 0;
}

/*
 * KERNEL: any value of head is survived, it counts modulo nr (test:
 * ring.any_head_value_is_survived).  The tail is ours, not the one in memory.
 */
static uint32_t head_of(const struct las_slots *s)
{
	/* Acquire: the program has read the events before it moved head past them, only then may slots be reused. */
	uint32_t head = las_load_acquire(&s->view->head);

	return las_likely(head < s->nr) ? head : head % s->nr;
}

static uint32_t distance(const struct las_slots *s, uint32_t head, uint32_t tail)
{
	return tail >= head ? tail - head : tail + s->nr - head;
}

uint32_t las_ring_available(const struct las_slots *s)
{
	uint32_t head = head_of(s);

	return distance(s, head, las_done_tail(las_load_acquire(&s->done)));
}

uint32_t las_ring_in_flight(const struct las_slots *s)
{
	/* Done first: it never passes accepted, so the difference cannot be negative. */
	uint32_t completed = las_done_count(las_load_acquire(&s->done));

	return las_load_acquire(&s->accepted) - completed;
}

/*
 * KERNEL: every-slot: it hands slots out to processors in batches, so that a
 * few may be out of reach (test: ring.a_hundred_and_twenty_fit_in_the_smallest_context).
 */
bool las_slot_get(struct las_slots *s)
{
	uint32_t accepted = las_load_relaxed(&s->accepted);

	for (;;) {
		/* Head before done: events may be added in between, which errs on the side of "full". */
		uint32_t head = head_of(s);
		uint64_t done = las_load_acquire(&s->done);
		int32_t used = (int32_t)(accepted - las_done_count(done) + distance(s, head, las_done_tail(done)));

		/* `accepted` may be stale and used then wrong; the compare-exchange finds out. */
		if (used >= (int32_t)s->nr - 1) {
			uint32_t now = las_load_acquire(&s->accepted);

			if (now == accepted)
				return false;
			accepted = now;
			continue;
		}
		if (las_cas_relaxed(&s->accepted, &accepted, accepted + 1))
			return true;
	}
}

void las_slot_put(struct las_slots *s)
{
	las_sub_acq_rel(&s->accepted, 1);
}

void las_ring_post_locked(struct las_slots *s, const struct las_event *event)
{
	uint64_t done = s->done;
	uint32_t tail = las_done_tail(done);

	s->view->events[tail] = *event;
	if (++tail == s->nr)
		tail = 0;
	/* Release both: the event is in place for whoever acquires the tail, in memory or packed. */
	las_store_release(&s->done, ((uint64_t)las_done_count(done) + 1) << 32 | tail);
	las_store_release(&s->view->tail, tail);
}

uint32_t las_ring_reap_locked(struct las_slots *s, struct las_event *out, uint32_t max)
{
	uint32_t head = head_of(s);
	uint32_t n = distance(s, head, las_done_tail(las_load_acquire(&s->done)));
	uint32_t first;

	if (n > max)
		n = max;
	if (n == 0)
		return 0;
	first = s->nr - head < n ? s->nr - head : n;
	memcpy(out, &s->view->events[head], first * sizeof(*out));
	memcpy(out + first, s->view->events, (n - first) * sizeof(*out));
	head += n;
	if (head >= s->nr)
		head -= s->nr;
	/* Release: the copies are made before a completer, seeing the new head, may rewrite the slots. */
	las_store_release(&s->view->head, head);
	return n;
}
