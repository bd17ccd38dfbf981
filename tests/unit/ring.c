/* ring.c - the completion ring: its size, who may have a slot, and what survives a program that writes to it. */
#include "unit.h"

#include "aio/ring.h"
#include "base/lock.h"

static struct las_slots slots;

/* A ring of io_setup(n) on a machine of two processors, as the kernel has it. */
static void make_ring(unsigned n)
{
	CHECK_RET(las_ring_size(n, 2, 4096, &slots.nr, &slots.pages), 0);
	slots.view = slots.handle = t_pages(slots.pages * 4096);
	las_ring_init(&slots, 7);
}

static void post(uint64_t data)
{
	struct las_event event = { .data = data, .obj = ~data, .res = (int64_t)data * 2 };

	las_ring_post_locked(&slots, &event);
}

static void get_and_post(uint64_t data)
{
	CHECK(las_slot_get(&slots));
	post(data);
}

static uint64_t reap_one(void)
{
	struct las_event event = { 0 };

	CHECK_EQ(las_ring_reap_locked(&slots, &event, 1), 1);
	CHECK_EQ(event.obj, ~event.data);
	CHECK_EQ(event.res, event.data * 2);
	return event.data;
}

TEST(size_is_the_kernels)
{
	/* What Linux 6.18 with two possible processors answers, see docs and conformance setup.c. */
	static const struct {
		unsigned n, nr;
	} measured[] = { { 1, 127 },   { 8, 127 },     { 62, 127 },      { 63, 255 },
		         { 128, 383 }, { 1024, 2175 }, { 65536, 131199 } };
	uint32_t nr, pages;

	for (size_t i = 0; i < sizeof(measured) / sizeof(measured[0]); i++) {
		CHECK_RET(las_ring_size(measured[i].n, 2, 4096, &nr, &pages), 0);
		CHECK_EQ(nr, measured[i].nr);
		CHECK_EQ(pages, (32 + nr * 32ull + 4095) / 4096);
		CHECK(pages * 4096ull - 32 - nr * 32ull < 32); /* no slot is given away */
	}
}

TEST(size_grows_with_the_processors)
{
	uint32_t few, many, pages;

	CHECK_RET(las_ring_size(1, 2, 4096, &few, &pages), 0);
	CHECK_RET(las_ring_size(1, 128, 4096, &many, &pages), 0);
	CHECK_EQ(many, 1151); /* 512 * 2 + 2 in whole pages */
	CHECK(few < many);
}

/* As the kernel computes it there: whole pages. */
TEST(size_grows_with_the_pages)
{
	uint32_t nr, pages;

	CHECK_RET(las_ring_size(1, 2, 16384, &nr, &pages), 0);
	CHECK_EQ(nr, 511);
	CHECK_EQ(pages, 1);
	CHECK_RET(las_ring_size(1024, 2, 65536, &nr, &pages), 0);
	CHECK_EQ(nr, 4095);
	CHECK_EQ(pages, 2);
}

TEST(size_refuses_what_the_kernel_refuses)
{
	uint32_t nr, pages;

	CHECK_RET(las_ring_size(0, 2, 4096, &nr, &pages), -EINVAL);
	CHECK_RET(las_ring_size(INT_MAX, 2, 4096, &nr, &pages), -EINVAL);
	CHECK_RET(las_ring_size(UINT_MAX, 2, 4096, &nr, &pages), -EINVAL);
	CHECK_RET(las_ring_size(0x80000000, 2, 4096, &nr, &pages), -EAGAIN);
	CHECK_RET(las_ring_size(0x80000000 + 0x10000000 / 32 / 2, 2, 4096, &nr, &pages), -EAGAIN);
	CHECK_RET(las_ring_size(0x80000000 + 0x10000000 / 32 / 2 + 1, 2, 4096, &nr, &pages), -EINVAL);
	/* 2 n events of 32 bytes may take 256 MiB. */
	CHECK_RET(las_ring_size(0x10000000 / 32 / 2, 2, 4096, &nr, &pages), 0);
	CHECK_RET(las_ring_size(0x10000000 / 32 / 2 + 1, 2, 4096, &nr, &pages), -EINVAL);
}

TEST(header_is_the_kernels)
{
	const uint32_t *words;

	make_ring(1);
	words = (const uint32_t *)(void *)slots.handle;
	CHECK_EQ(words[0], 7);   /* id */
	CHECK_EQ(words[1], 127); /* nr */
	CHECK_EQ(words[2], 0);   /* head */
	CHECK_EQ(words[3], 0);   /* tail */
	CHECK_EQ(words[4], 0xa10a10a1);
	CHECK_EQ(words[5], 1);
	CHECK_EQ(words[6], 0);
	CHECK_EQ(words[7], 32);
}

TEST(one_slot_fewer_than_nr_may_be_taken)
{
	make_ring(1);
	for (unsigned i = 0; i < slots.nr - 1; i++)
		CHECK(las_slot_get(&slots));
	CHECK(!las_slot_get(&slots));
	CHECK_EQ(las_ring_in_flight(&slots), slots.nr - 1);
	las_slot_put(&slots);
	CHECK(las_slot_get(&slots));
	CHECK(!las_slot_get(&slots));
}

TEST(a_completion_does_not_free_a_slot_but_reaping_does)
{
	make_ring(1);
	for (unsigned i = 0; i < slots.nr - 1; i++)
		get_and_post(i);
	CHECK(!las_slot_get(&slots));
	CHECK_EQ(las_ring_available(&slots), slots.nr - 1);
	CHECK_EQ(las_ring_in_flight(&slots), 0);
	CHECK_EQ(reap_one(), 0);
	CHECK(las_slot_get(&slots));
	CHECK(!las_slot_get(&slots));
}

TEST(a_head_moved_in_memory_frees_exactly_as_many_slots)
{
	make_ring(1);
	for (unsigned i = 0; i < slots.nr - 1; i++)
		get_and_post(i);
	slots.handle->head += 5;
	for (unsigned i = 0; i < 5; i++)
		CHECK(las_slot_get(&slots));
	CHECK(!las_slot_get(&slots));
	CHECK_EQ(reap_one(), 5);
}

TEST(events_come_out_in_order_around_the_end)
{
	struct las_event events[128];
	uint64_t in = 0, out = 0;

	make_ring(1);
	/* Steps that share no divisor with 127 bring head and tail to every slot. */
	for (unsigned round = 0; round < 500; round++) {
		unsigned put = 1 + round % 126, n;

		for (unsigned i = 0; i < put; i++)
			get_and_post(in++);
		CHECK_EQ(las_ring_available(&slots), put);
		while ((n = las_ring_reap_locked(&slots, events, 1 + round % 7))) {
			CHECK(n <= 1 + round % 7);
			for (unsigned i = 0; i < n; i++)
				CHECK_EQ(events[i].data, out++);
		}
		CHECK_EQ(out, in);
		CHECK_EQ(slots.handle->head, slots.handle->tail);
		CHECK(slots.handle->tail < slots.nr);
	}
}

TEST(reap_takes_no_more_than_asked_for)
{
	struct las_event events[3];

	make_ring(1);
	memset(events, 0xff, sizeof(events));
	for (unsigned i = 0; i < 10; i++)
		get_and_post(i);
	CHECK_EQ(las_ring_reap_locked(&slots, events, 2), 2);
	CHECK_EQ(events[1].data, 1);
	CHECK_EQ(events[2].data, UINT64_MAX);
	CHECK_EQ(las_ring_reap_locked(&slots, events, 0), 0);
	CHECK_EQ(las_ring_available(&slots), 8);
}

TEST(slots_between_head_and_tail_are_never_rewritten)
{
	struct las_event before[126];

	make_ring(1);
	for (unsigned i = 0; i < 126; i++)
		get_and_post(i);
	memcpy(before, slots.handle->events, sizeof(before));
	CHECK(!las_slot_get(&slots)); /* no request is accepted, hence nothing can be posted */
	CHECK_EQ(memcmp(before, slots.handle->events, sizeof(before)), 0);
	/* With 100 reaped, 100 more go elsewhere. */
	slots.handle->head = 100;
	for (unsigned i = 126; i < 226; i++)
		get_and_post(i);
	CHECK(!las_slot_get(&slots));
	CHECK_EQ(memcmp(before + 100, slots.handle->events + 100, 26 * sizeof(before[0])), 0);
}

TEST(any_head_value_is_survived)
{
	static const uint32_t heads[] = { 1, 126, 127, 128, 254, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff };
	struct las_event events[256];

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		make_ring(1);
		get_and_post(1);
		get_and_post(2);
		slots.handle->head = heads[i];
		CHECK(las_ring_available(&slots) < slots.nr);
		for (unsigned k = 0; k < 300; k++)
			if (las_slot_get(&slots))
				post(k);
		while (las_ring_reap_locked(&slots, events, 256))
			;
		CHECK(slots.handle->head < slots.nr);
		CHECK(las_slot_get(&slots)); /* and it works again once the head is sane */
	}
}

TEST(what_the_program_writes_into_the_header_changes_nothing_else)
{
	make_ring(1);
	for (unsigned i = 0; i < 5; i++)
		get_and_post(i);
	slots.handle->nr = 0;
	slots.handle->tail = 0xffffffff;
	slots.handle->id = 0xffffffff;
	slots.handle->magic = 0;
	slots.handle->header_length = 0;
	CHECK_EQ(las_ring_available(&slots), 5);
	for (unsigned i = 0; i < 5; i++)
		CHECK_EQ(reap_one(), i);
	get_and_post(5);
	CHECK_EQ(slots.handle->tail, 6); /* the next event mends the tail */
	CHECK_EQ(reap_one(), 5);
}

TEST(counts_may_wrap_around)
{
	make_ring(1);
	/* Four thousand million requests later: accepted and completed are just below 1 << 32. */
	slots.accepted = UINT32_MAX - 60;
	slots.done = (uint64_t)(UINT32_MAX - 60) << 32 | 3;
	slots.handle->head = slots.handle->tail = 3;
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < slots.nr - 1; i++)
			CHECK(las_slot_get(&slots));
		CHECK(!las_slot_get(&slots));
		CHECK_EQ(las_ring_in_flight(&slots), slots.nr - 1);
		for (unsigned i = 0; i < slots.nr - 1; i++)
			post(i);
		CHECK_EQ(las_ring_in_flight(&slots), 0);
		for (unsigned i = 0; i < slots.nr - 1; i++)
			CHECK_EQ(reap_one(), i);
	}
}

TEST(done_packs_count_and_tail)
{
	make_ring(1);
	for (unsigned i = 0; i < 200; i++) {
		get_and_post(i);
		CHECK_EQ(las_done_count(slots.done), i + 1);
		CHECK_EQ(las_done_tail(slots.done), (i + 1) % slots.nr);
		CHECK_EQ(slots.handle->tail, (i + 1) % slots.nr);
		reap_one();
	}
}

/* ---- threads ---- */

static struct las_lock lock;
static unsigned posted, reaped;

enum { THREADS = 4, EACH = 20000 };

static void *take_and_post(void *unused)
{
	for (unsigned i = 0; i < EACH;) {
		if (!las_slot_get(&slots)) {
			sched_yield();
			continue;
		}
		if (i % 5 == 0) { /* refused: the slot goes back */
			las_slot_put(&slots);
			i++;
			continue;
		}
		las_lock(&lock);
		post(i++);
		las_unlock(&lock);
		u_count(&posted);
	}
	return NULL;
}

static void *reap_from_memory(void *stop)
{
	/* As QEMU does: events first, then head, no call. */
	for (;;) {
		bool last = __atomic_load_n((bool *)stop, __ATOMIC_ACQUIRE);
		uint32_t head = slots.handle->head, tail = __atomic_load_n(&slots.handle->tail, __ATOMIC_ACQUIRE);

		while (head != tail) {
			struct las_event event = slots.handle->events[head];

			CHECK_EQ(event.obj, ~event.data);
			CHECK_EQ(event.res, event.data * 2);
			head = (head + 1) % slots.nr;
			u_count(&reaped);
			__atomic_store_n(&slots.handle->head, head, __ATOMIC_RELEASE);
		}
		if (last && head == __atomic_load_n(&slots.handle->tail, __ATOMIC_ACQUIRE))
			return NULL;
		sched_yield();
	}
}

TEST(many_threads_never_overfill_it)
{
	pthread_t threads[THREADS], reaper;
	bool stop = false;

	make_ring(1);
	reaper = t_thread(reap_from_memory, &stop);
	for (int i = 0; i < THREADS; i++)
		threads[i] = t_thread(take_and_post, NULL);
	for (int i = 0; i < THREADS; i++)
		t_join(threads[i]);
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	t_join(reaper);
	CHECK_EQ(reaped, posted); /* an overfilled ring looks empty, and loses nr events */
	CHECK_EQ(posted, THREADS * EACH / 5 * 4);
}
