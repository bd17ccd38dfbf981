/* ring.c - the ring in memory as programs read it, and how many requests fit: slots, not n, are the limit. */
#include "las_test.h"

#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>

static int possible_cpus(void)
{
	char text[64] = "";
	int fd = open("/sys/devices/system/cpu/possible", O_RDONLY), last = 0;
	char *dash;

	if (fd < 0)
		return (int)sysconf(_SC_NPROCESSORS_CONF);
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	dash = strrchr(text, '-');
	last = atoi(dash ? dash + 1 : text);
	return last + 1;
}

static unsigned expected_slots(unsigned n)
{
	unsigned least = 4 * (unsigned)possible_cpus();
	size_t bytes = 32 + 32 * ((size_t)(n > least ? n : least) * 2 + 2);

	return (unsigned)(((bytes + 4095) / 4096 * 4096 - 32) / 32);
}

/* One CPU: the kernel's per-CPU reserves make the exact limit depend on where the program runs. */
static void stay_on_one_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)sched_getcpu(), &set);
	CHECK_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
}

static struct iocb *cached_read(void)
{
	static struct iocb iocb;
	static char buf[16];

	io_prep_pread(&iocb, t_file("data", 4096), buf, sizeof(buf), 0);
	return &iocb;
}

/* Submits one after the other until the context is full. */
static int fill(io_context_t ctx, struct iocb *iocb)
{
	int count = 0, answer;

	while ((answer = t_submit(ctx, iocb)) == 1)
		count++;
	CHECK_RET(answer, -EAGAIN);
	return count;
}

TEST(handle_is_the_ring)
{
	struct t_ring *ring = t_ring(t_context(1));

	CHECK_EQ((uintptr_t)ring % 4096, 0);
	CHECK_EQ(ring->magic, 0xa10a10a1u);
	CHECK_EQ(ring->compat_features, 1);
	CHECK_EQ(ring->incompat_features, 0);
	CHECK_EQ(ring->header_length, 32);
	CHECK_EQ(ring->head, 0);
	CHECK_EQ(ring->tail, 0);
}

TEST(ring_size_rule)
{
	const unsigned sizes[] = { 1,   2,   7,   8,   16,  32,  62,   63,   64,   65,
		                   100, 127, 128, 129, 255, 256, 1000, 1024, 4096, 10000 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned nr = t_ring(t_context((int)sizes[i]))->nr;

		if (nr != expected_slots(sizes[i]))
			FAIL("io_setup(%u) gives %u slots, expected %u", sizes[i], nr, expected_slots(sizes[i]));
	}
}

TEST(event_appears_without_any_call)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();

	iocb->data = (void *)(uintptr_t)0x1234;
	CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 1);
	CHECK_EQ(ring->head, 0);
	CHECK_EQ(ring->tail, 1);
	CHECK(ring->events[0].obj == iocb);
	CHECK_EQ((uintptr_t)ring->events[0].data, 0x1234);
	CHECK_EQ(t_res(&ring->events[0]), 16);
	CHECK_EQ(ring->events[0].res2, 0);
}

TEST(direct_event_appears_without_any_call)
{
	io_context_t ctx = t_context(8);
	struct iocb iocb;
	char path[4096];
	char *buf = t_pages(4096);
	int fd;

	snprintf(path, sizeof(path), "%s/ring-direct", t_directory("LAS_TEST_EXT4"));
	fd = t_file(path, 4096);
	CHECK_EQ(fsync(fd), 0);
	io_prep_pread(&iocb, t_open(path, O_RDONLY | O_DIRECT), buf, 4096, 0);
	for (int i = 0; i < 50; i++) {
		CHECK_RET(t_submit(ctx, &iocb), 1);
		t_ring_wait(ctx, (unsigned)i + 1);
	}
	t_check_pattern(buf, 4096, 0, 0);
}

TEST(fsync_and_poll_events_appear_without_any_call)
{
	io_context_t ctx = t_context(8);
	struct iocb sync, poll;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_fsync(&sync, t_file("data", 64));
	io_prep_poll(&poll, ends[0], 1);
	CHECK_RET(t_submit(ctx, &sync), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(t_submit(ctx, &poll), 1);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_ring_wait(ctx, 2);
}

TEST(getevents_moves_the_head)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();
	struct io_event events[4];

	for (int i = 0; i < 4; i++)
		CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 4);
	CHECK_RET(io_getevents(ctx, 1, 3, events, NULL), 3);
	CHECK_EQ(ring->head, 3);
	CHECK_EQ(ring->tail, 4);
	CHECK_RET(io_getevents(ctx, 1, 3, events, NULL), 1);
	CHECK_EQ(ring->head, 4);
}

TEST(program_that_moves_the_head_has_reaped)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();
	struct io_event events[4];

	for (int i = 0; i < 4; i++) {
		iocb->data = (void *)(uintptr_t)i;
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_ring_wait(ctx, (unsigned)i + 1);
	}
	__atomic_store_n(&ring->head, 3, __ATOMIC_RELEASE);
	CHECK_RET(io_getevents(ctx, 0, 4, events, NULL), 1);
	CHECK_EQ((uintptr_t)events[0].data, 3);
	t_no_event(ctx);
}

TEST(slots_between_head_and_tail_are_never_rewritten)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();
	struct io_event copy[8];

	for (int i = 0; i < 8; i++) {
		iocb->data = (void *)(uintptr_t)(100 + i);
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_ring_wait(ctx, (unsigned)i + 1);
	}
	memcpy(copy, ring->events, sizeof(copy));
	iocb->data = NULL;
	for (int i = 0; i < 40; i++)
		CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 48);
	CHECK_EQ(memcmp(copy, ring->events, sizeof(copy)), 0);
}

TEST(ring_wraps_around)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();
	struct io_event event;

	for (unsigned i = 0; i < ring->nr * 3; i++) {
		iocb->data = (void *)(uintptr_t)i;
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_reap(ctx, 1, &event);
		CHECK_EQ((uintptr_t)event.data, i);
		CHECK_EQ(ring->head, (i + 1) % ring->nr);
		CHECK_EQ(ring->tail, (i + 1) % ring->nr);
	}
}

TEST(user_space_reader_alone_all_the_way_round)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();

	for (unsigned i = 0; i < ring->nr * 3; i++) {
		unsigned head = ring->head;

		iocb->data = (void *)(uintptr_t)(i + 1);
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_ring_wait(ctx, 1);
		CHECK_EQ((uintptr_t)ring->events[head].data, i + 1);
		__atomic_store_n(&ring->head, (head + 1) % ring->nr, __ATOMIC_RELEASE);
	}
}

TEST(getevents_wraps_around_in_one_call)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();
	struct io_event *events = calloc(ring->nr, sizeof(*events));
	unsigned before = ring->nr - 10;

	for (unsigned i = 0; i < before; i++) {
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_reap(ctx, 1, events);
	}
	for (int i = 0; i < 30; i++) {
		iocb->data = (void *)(uintptr_t)i;
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_ring_wait(ctx, (unsigned)i + 1);
	}
	t_reap(ctx, 30, events);
	for (int i = 0; i < 30; i++)
		CHECK_EQ((uintptr_t)events[i].data, i);
}

TEST(at_least_n_fit_in_one_call)
{
	const int sizes[] = { 1, 8, 100, 128, 500, 1024 };

	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		int n = sizes[s];
		io_context_t ctx = t_context(n);
		struct iocb *iocb = cached_read(), **list = calloc((size_t)n, sizeof(*list));
		struct io_event *events = calloc((size_t)n, sizeof(*events));

		for (int i = 0; i < n; i++)
			list[i] = iocb;
		CHECK_RET(io_submit(ctx, n, list), n);
		t_reap(ctx, n, events);
	}
}

TEST(a_hundred_and_twenty_fit_in_the_smallest_context)
{
	io_context_t ctx;
	struct io_event *events;

	if (possible_cpus() > 2)
		SKIP("n/a: written for at most 2 possible CPUs");
	stay_on_one_cpu();
	ctx = t_context(1);
	CHECK_EQ(t_ring(ctx)->nr, 127);
	int count = fill(ctx, cached_read());

	if (DIFFERS("every-slot"))
		CHECK_EQ(count, 126);
	else
		CHECK_EQ(count, 120);
	events = calloc((size_t)count, sizeof(*events));
	t_reap(ctx, count, events);
}

TEST(accepted_requests_never_exceed_the_ring)
{
	const int sizes[] = { 1, 64, 100, 128, 1000 };

	stay_on_one_cpu();
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		io_context_t ctx = t_context(sizes[i]);
		int count = fill(ctx, cached_read());

		CHECK(count >= sizes[i]);
		CHECK(count <= (int)t_ring(ctx)->nr - 1);
		t_ring_wait(ctx, (unsigned)count);
		CHECK_EQ(t_ring_count(ctx), count);
	}
}

TEST(more_than_fits_is_a_partial_count_then_eagain)
{
	io_context_t ctx = t_context(8);
	struct iocb *iocb = cached_read(), *list[1000];
	struct io_event events[1000];
	int count;

	for (int i = 0; i < 1000; i++)
		list[i] = iocb;
	count = io_submit(ctx, 1000, list);
	CHECK(count >= 8 && count < (int)t_ring(ctx)->nr);
	CHECK_RET(io_submit(ctx, 1, list), -EAGAIN);
	CHECK_RET(io_submit(ctx, 1000, list), -EAGAIN);
	t_reap(ctx, count, events);
	t_no_event(ctx);
	CHECK_RET(io_submit(ctx, 8, list), 8);
}

TEST(full_ring_wins_over_bad_descriptor_but_not_over_reserved_field)
{
	io_context_t ctx = t_context(1);
	struct iocb bad;
	char byte;

	stay_on_one_cpu();
	fill(ctx, cached_read());
	io_prep_pread(&bad, -1, &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &bad), -EAGAIN);
	bad.u.c.__pad3 = 1;
	CHECK_RET(t_submit(ctx, &bad), -EINVAL);
	bad.u.c.__pad3 = 0;
	bad.u.c.nbytes = SIZE_MAX;
	CHECK_RET(t_submit(ctx, &bad), -EINVAL);
}

TEST(full_ring_keeps_events)
{
	io_context_t ctx = t_context(1);
	struct iocb *iocb = cached_read();
	struct io_event *events;
	int count = 0, answer;

	do {
		iocb->data = (void *)(uintptr_t)count;
		answer = t_submit(ctx, iocb);
		if (answer == 1)
			t_ring_wait(ctx, (unsigned)++count);
	} while (answer == 1);
	CHECK_RET(answer, -EAGAIN);
	events = calloc((size_t)count, sizeof(*events));
	t_reap(ctx, count, events);
	for (int i = 0; i < count; i++)
		CHECK_EQ((uintptr_t)events[i].data, i);
}

TEST(reaping_makes_room_for_as_many)
{
	io_context_t ctx = t_context(8);
	struct iocb *iocb = cached_read();
	struct io_event events[32];

	stay_on_one_cpu();
	fill(ctx, iocb);
	for (int k = 1; k < 32; k++) {
		t_reap(ctx, k, events);
		CHECK_EQ(fill(ctx, iocb), k);
	}
}

TEST(moving_the_head_makes_room_for_exactly_as_many)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();
	int capacity;

	stay_on_one_cpu();
	capacity = fill(ctx, iocb);
	t_ring_wait(ctx, (unsigned)capacity);
	for (unsigned k = 1; k < 40; k++) {
		__atomic_store_n(&ring->head, (ring->head + k) % ring->nr, __ATOMIC_RELEASE);
		CHECK_EQ(fill(ctx, iocb), k);
		t_ring_wait(ctx, (unsigned)capacity);
	}
}

/* Any call on a context with this head; none may crash, hang or lose the context for good. */
static void survive_head(unsigned head)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();
	static struct io_event events[4096];
	struct timespec soon = { 0, 1000000 };
	int answer;

	CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 1);
	__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
	for (int i = 0; i < 5; i++) {
		answer = t_submit(ctx, iocb);
		CHECK(answer == 1 || answer == -EAGAIN);
	}
	answer = io_getevents(ctx, 0, (long)ring->nr, events, &soon);
	CHECK(answer >= 0 && answer <= (int)ring->nr);
	answer = io_getevents(ctx, 1, 8, events, &soon);
	CHECK(answer >= 0 && answer <= 8);
	answer = t_submit(ctx, iocb);
	CHECK(answer == 1 || answer == -EAGAIN);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(any_head_value_is_survived)
{
	const unsigned heads[] = { 2, 5, 126, 127, 128, 1000, INT_MAX, 0x80000000u, UINT_MAX - 1, UINT_MAX };

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		survive_head(heads[i]);
}

TEST(corrupted_header_words_are_survived)
{
	io_context_t ctx = t_context(8);
	struct t_ring *ring = t_ring(ctx);
	struct iocb *iocb = cached_read();
	struct io_event events[8];
	struct timespec soon = { 0, 1000000 };
	int answer;

	/* Nothing but id, head and tail is read again by the kernel; a library must not trust the rest either. */
	ring->nr = UINT_MAX;
	ring->compat_features = ring->incompat_features = ring->header_length = UINT_MAX;
	ring->magic = 0;
	for (int i = 0; i < 1000; i++) {
		CHECK_RET(t_submit(ctx, iocb), 1);
		answer = io_getevents(ctx, 1, 8, events, NULL);
		CHECK_EQ(answer, 1);
	}
	ring->tail = 12345678;
	answer = t_submit(ctx, iocb);
	CHECK(answer == 1 || answer == -EAGAIN);
	answer = io_getevents(ctx, 0, 8, events, &soon);
	CHECK(answer >= 0 && answer <= 8);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(unmapped_ring_is_einval)
{
	io_context_t ctx = t_context(8);
	struct iocb *iocb = cached_read();
	struct io_event event;

	/* The program has no business doing this; it must not be able to crash a thread of ours by it. */
	CHECK_EQ(mprotect((void *)ctx, 4096, PROT_NONE), 0);
	CHECK_RET(t_submit(ctx, iocb), -EINVAL);
	CHECK_RET(any_getevents(ctx, 0, 1, &event, NULL), -EINVAL);
	CHECK_RET(io_cancel(ctx, iocb, &event), -EINVAL);
	CHECK_EQ(mprotect((void *)ctx, 4096, PROT_READ | PROT_WRITE), 0);
	CHECK_RET(t_submit(ctx, iocb), 1);
	CHECK_RET(t_reap_one(ctx), 16);
}

/* The way QEMU reads: pointers into the ring while callbacks submit more. */
TEST(reader_keeps_pointers_while_it_submits)
{
	enum { DEPTH = 32, ROUNDS = 200 };
	io_context_t ctx = t_context(DEPTH);
	struct t_ring *ring = t_ring(ctx);
	int fd = t_file("data", 65536);
	static struct iocb iocbs[DEPTH];
	static unsigned char bytes[DEPTH];
	struct iocb *list[DEPTH];
	unsigned done = 0, offset[DEPTH];

	for (int i = 0; i < DEPTH; i++) {
		offset[i] = (unsigned)i;
		io_prep_pread(&iocbs[i], fd, &bytes[i], 1, i);
		list[i] = &iocbs[i];
	}
	CHECK_RET(io_submit(ctx, DEPTH, list), DEPTH);
	while (done < DEPTH * ROUNDS) {
		unsigned tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE), head = ring->head;
		struct io_event *first = &ring->events[head];
		unsigned count = tail >= head ? tail - head : ring->nr - head;

		for (unsigned i = 0; i < count; i++) {
			struct iocb *iocb = first[i].obj;
			long slot = iocb - iocbs;

			CHECK(slot >= 0 && slot < DEPTH);
			CHECK_EQ(t_res(&first[i]), 1);
			CHECK_EQ(bytes[slot], t_byte(0, offset[slot]));
			offset[slot] = (offset[slot] + 37) % 65536;
			io_prep_pread(iocb, fd, &bytes[slot], 1, offset[slot]);
			CHECK_RET(t_submit(ctx, iocb), 1);
			done++;
		}
		__atomic_store_n(&ring->head, (head + count) % ring->nr, __ATOMIC_RELEASE);
	}
}

TEST(ring_made_inaccessible_with_requests_in_flight)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("inaccessible", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4 * 4096);
	struct iocb iocbs[4];
	struct io_event events[4];

	t_stall_hold();
	for (int i = 0; i < 4; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	t_stall_wait(4);
	CHECK_EQ(mprotect((void *)ctx, 4096, PROT_NONE), 0);
	t_stall_release();
	/* Whoever completes them now meets a ring that cannot be written; that must kill nobody. */
	t_sleep_ms(50);
	CHECK_EQ(mprotect((void *)ctx, 4096, PROT_READ | PROT_WRITE), 0);
	if (DIFFERS("inaccessible-ring")) {
		struct timespec wait = { 0, 100000000 };
		int answer = io_getevents(ctx, 4, 4, events, &wait);

		CHECK(answer >= 0 && answer <= 4);
		for (size_t end = 4096; end <= 4 * 4096; end += 4096)
			while (__atomic_load_n(&buf[end - 1], __ATOMIC_ACQUIRE) != (char)t_byte(0, end - 1))
				usleep(200);
	} else {
		t_reap(ctx, 4, events);
	}
	t_check_pattern(buf, 4 * 4096, 0, 0);
}

TEST(ring_has_a_name_in_the_memory_map)
{
	io_context_t ctx = t_context(8);
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	char line[4200];
	bool named = false;

	CHECK(maps != NULL);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 && from <= (uintptr_t)ctx && (uintptr_t)ctx < to)
			named = strstr(line, "/[aio]") != NULL;
	fclose(maps);
	if (DIFFERS("ring-without-a-name"))
		CHECK(!named);
	else
		CHECK(named);
}

/* The way checkpoint and restore puts a ring where it was. */
static io_context_t move_ring(io_context_t ctx)
{
	const struct ring {
		unsigned id, nr;
	} *ring = (const void *)ctx;
	size_t bytes = (32 + ring->nr * sizeof(struct io_event) + 4095) / 4096 * 4096;
	void *place = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(place != MAP_FAILED);
	CHECK(mremap((void *)ctx, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
	return place;
}

TEST(ring_moved_by_mremap)
{
	io_context_t ctx = t_context(8), moved;
	struct iocb *iocb = cached_read();

	moved = move_ring(ctx);
	CHECK_RET(t_submit(ctx, iocb), -EINVAL);
	CHECK_RET(t_submit(moved, iocb), 1);
	CHECK_RET(t_submit(ctx, iocb), -EINVAL);
	CHECK_RET(t_reap_one(moved), 16);
	CHECK_RET(io_destroy(moved), 0);
	CHECK_RET(io_destroy(moved), -EINVAL);
}

TEST(ring_moved_with_a_request_in_flight)
{
	io_context_t ctx = t_context(500), moved;
	struct io_event event;
	struct iocb iocb;
	int ends[2];
	char byte;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	for (int round = 0; round < 3; round++) {
		io_prep_poll(&iocb, ends[0], POLLIN);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		moved = move_ring(ctx);
		CHECK_EQ(write(ends[1], "x", 1), 1);
		CHECK_RET(io_getevents(moved, 1, 1, &event, NULL), 1);
		CHECK(event.obj == &iocb);
		CHECK_EQ(read(ends[0], &byte, 1), 1);
		ctx = moved;
	}
	CHECK_RET(io_destroy(moved), 0);
}

/* Where a ring was moved to is the program's address space again once the context is gone. */
TEST(place_of_a_moved_ring_is_not_used_again)
{
	io_context_t ctx[20], moved = move_ring(t_context(8));
	struct iocb *iocb = cached_read();
	char *mine;

	CHECK_RET(t_submit(moved, iocb), 1);
	CHECK_RET(io_destroy(moved), 0);
	mine = mmap((void *)moved, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(mine == (char *)moved);
	for (int i = 0; i < 20; i++) {
		ctx[i] = t_context(8);
		CHECK(ctx[i] != moved);
		CHECK_RET(t_submit(ctx[i], iocb), 1);
	}
	for (int i = 0; i < 20; i++)
		CHECK_RET(t_reap_one(ctx[i]), 16);
	for (int i = 0; i < 4096; i++)
		CHECK_EQ(mine[i], 0);
}

/* A copy of a ring is no ring. */
TEST(copy_of_a_ring_is_einval)
{
	io_context_t ctx = t_context(8);
	void *copy = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(copy, (const void *)ctx, 4096);
	CHECK_RET(t_submit(copy, cached_read()), -EINVAL);
	CHECK_RET(io_destroy(copy), -EINVAL);
	CHECK_RET(io_destroy(ctx), 0);
}
