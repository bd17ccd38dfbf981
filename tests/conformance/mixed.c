/*
 * mixed.c - everything at once on one context: each accepted request gives exactly one event with its own right result,
 * whatever lane it went and whoever waits how.
 */
#include "las_test.h"

#include <poll.h>
#include <sched.h>

enum { SLOTS = 64, FILE_BYTES = 1 << 20, KINDS = 8 };

enum kind { CACHED, COLD, DIRECT, WRITE, SYNC, POLL_READY, POLL_LATER, POLL_AGAIN };

struct slot {
	struct iocb iocb;
	enum kind kind;
	bool busy;
	unsigned offset;
	int efd;
	unsigned char *buf;
	int events_seen;
};

struct load {
	io_context_t ctx;
	int cached, cold, direct, written, ready;
	unsigned random;
	struct slot slots[SLOTS];
};

static unsigned next_random(struct load *l)
{
	l->random = l->random * 1664525 + 1013904223;
	return l->random >> 8;
}

static void open_files(struct load *l)
{
	char path[4096];
	uint64_t one = 1;

	memset(l, 0, sizeof(*l));
	l->random = 12345;
	l->cached = t_file("cached", FILE_BYTES);
	l->written = t_file("written", FILE_BYTES);
	snprintf(path, sizeof(path), "%s/mixed-%d", t_directory("LAS_TEST_EXT4"), (int)getpid());
	l->cold = t_file(path, FILE_BYTES);
	CHECK_EQ(fsync(l->cold), 0);
	l->direct = t_open(path, O_RDONLY | O_DIRECT);
	CHECK_EQ(unlink(path), 0);
	l->ready = t_own(eventfd(1, 0));
	CHECK_EQ(write(l->ready, &one, 8), 8);
	for (int i = 0; i < SLOTS; i++) {
		l->slots[i].buf = t_pages(4096);
		l->slots[i].efd = t_own(eventfd(0, EFD_NONBLOCK));
	}
	l->ctx = t_context(SLOTS);
}

static void submit_something(struct load *l, struct slot *s)
{
	s->kind = (enum kind)(next_random(l) % KINDS);
	s->offset = next_random(l) % (FILE_BYTES / 4096) * 4096;
	memset(s->buf, 0, 4096);
	switch (s->kind) {
	case CACHED:
		io_prep_pread(&s->iocb, l->cached, s->buf, 4096, s->offset);
		break;
	case COLD:
		CHECK_EQ(posix_fadvise(l->cold, (off_t)s->offset, 4096, POSIX_FADV_DONTNEED), 0);
		io_prep_pread(&s->iocb, l->cold, s->buf, 4096, s->offset);
		break;
	case DIRECT:
		io_prep_pread(&s->iocb, l->direct, s->buf, 4096, s->offset);
		break;
	case WRITE:
		t_fill(s->buf, 4096, 0, s->offset);
		io_prep_pwrite(&s->iocb, l->written, s->buf, 4096, s->offset);
		break;
	case SYNC:
		io_prep_fdsync(&s->iocb, l->written);
		break;
	case POLL_READY:
		io_prep_poll(&s->iocb, l->ready, POLLIN);
		break;
	case POLL_LATER:
	case POLL_AGAIN:
		io_prep_poll(&s->iocb, s->efd, POLLIN);
		break;
	}
	s->iocb.data = s;
	s->busy = true;
	CHECK_RET(t_submit(l->ctx, &s->iocb), 1);
	if (s->kind == POLL_LATER || s->kind == POLL_AGAIN) {
		uint64_t one = 1;

		CHECK_EQ(write(s->efd, &one, 8), 8);
	}
}

static void take(const struct io_event *event)
{
	struct slot *s = event->data;
	uint64_t count;

	CHECK(event->obj == &s->iocb);
	CHECK(s->busy);
	s->busy = false;
	s->events_seen++;
	switch (s->kind) {
	case CACHED:
	case COLD:
	case DIRECT:
		CHECK_EQ(t_res(event), 4096);
		t_check_pattern(s->buf, 4096, 0, s->offset);
		break;
	case WRITE:
		CHECK_EQ(t_res(event), 4096);
		break;
	case SYNC:
		CHECK_EQ(t_res(event), 0);
		break;
	case POLL_LATER:
	case POLL_AGAIN:
		CHECK_EQ(read(s->efd, &count, 8), 8);
		CHECK(t_res(event) & POLLIN);
		break;
	case POLL_READY:
		CHECK(t_res(event) & POLLIN);
		break;
	}
}

static int busy_slots(const struct load *l)
{
	int count = 0;

	for (int i = 0; i < SLOTS; i++)
		count += l->slots[i].busy;
	return count;
}

TEST(one_thread_with_every_kind_of_wait)
{
	static struct load l;

	open_files(&l);
	for (int round = 0; round < 4000; round++) {
		struct io_event events[SLOTS];
		struct timespec soon = { 0, (long)(next_random(&l) % 200000) };
		int wanted, n, in_flight;

		for (unsigned i = next_random(&l) % 12; i > 0; i--) {
			struct slot *s = &l.slots[next_random(&l) % SLOTS];

			if (!s->busy)
				submit_something(&l, s);
		}
		in_flight = busy_slots(&l);
		switch (next_random(&l) % 4) {
		case 0:
			n = io_getevents(l.ctx, 0, SLOTS, events, NULL);
			CHECK(n >= 0);
			break;
		case 1:
			n = io_getevents(l.ctx, in_flight, SLOTS, events, NULL);
			CHECK_EQ(n, in_flight);
			break;
		case 2:
			wanted = in_flight ? (int)(next_random(&l) % (unsigned)in_flight) + 1 : 0;
			n = io_getevents(l.ctx, wanted, SLOTS, events, NULL);
			CHECK(n >= wanted && n <= in_flight);
			break;
		default:
			n = io_getevents(l.ctx, in_flight + 1, SLOTS + 1, events, &soon);
			CHECK(n >= 0 && n <= in_flight);
			break;
		}
		for (int i = 0; i < n; i++)
			take(&events[i]);
	}
	while (busy_slots(&l)) {
		struct io_event event;

		t_reap(l.ctx, 1, &event);
		take(&event);
	}
	t_no_event(l.ctx);
}

TEST(user_space_reader_and_calls_by_turns)
{
	static struct load l;
	struct t_ring *ring;

	open_files(&l);
	ring = t_ring(l.ctx);
	for (int round = 0; round < 4000; round++) {
		for (unsigned i = next_random(&l) % 12; i > 0; i--) {
			struct slot *s = &l.slots[next_random(&l) % SLOTS];

			if (!s->busy)
				submit_something(&l, s);
		}
		if (!busy_slots(&l))
			continue;
		if (round % 2) {
			struct io_event event;

			t_reap(l.ctx, 1, &event);
			take(&event);
			continue;
		}
		t_ring_wait(l.ctx, 1);
		while (t_ring_count(l.ctx)) {
			take(&ring->events[ring->head]);
			__atomic_store_n(&ring->head, (ring->head + 1) % ring->nr, __ATOMIC_RELEASE);
		}
	}
	while (busy_slots(&l)) {
		struct io_event event;

		t_reap(l.ctx, 1, &event);
		take(&event);
	}
	t_no_event(l.ctx);
}

TEST(destroyed_in_the_middle)
{
	for (int round = 0; round < 15; round++) {
		static struct load l;
		io_context_t ctx;

		open_files(&l);
		ctx = l.ctx;
		l.random += (unsigned)round;
		for (int i = 0; i < SLOTS; i++)
			submit_something(&l, &l.slots[i]);
		CHECK_RET(io_destroy(ctx), 0);
		for (int i = 0; i < SLOTS; i++) {
			/* Nobody writes here any more. */
			memset(l.slots[i].buf, 0x77, 4096);
			l.slots[i].busy = false;
		}
		usleep(500);
		for (int i = 0; i < SLOTS; i++)
			for (int j = 0; j < 4096; j++)
				CHECK_EQ(l.slots[i].buf[j], 0x77);
	}
}

struct team {
	io_context_t ctx;
	int fd, cold, direct;
	int reaped;
	int total;
};

struct ticket {
	struct iocb iocb;
	unsigned char *buf;
	unsigned offset;
	int done;
};

static void *team_member(void *arg)
{
	struct team *t = arg;
	unsigned random = (unsigned)(uintptr_t)&random;

	while (__atomic_load_n(&t->reaped, __ATOMIC_ACQUIRE) < t->total) {
		struct io_event events[8];
		struct timespec soon = { 0, 300000 };
		long min, nr;
		int n;

		random = random * 1664525 + 1013904223;
		nr = (random >> 20) % 8 + 1;
		min = (random >> 24) % (nr + 1);
		n = io_getevents(t->ctx, min, nr, events, &soon);
		CHECK(n >= 0 && n <= nr);
		for (int i = 0; i < n; i++) {
			struct ticket *ticket = events[i].data;

			CHECK_EQ(t_res(&events[i]), 4096);
			t_check_pattern(ticket->buf, 4096, 0, ticket->offset);
			CHECK_EQ(__atomic_exchange_n(&ticket->done, 1, __ATOMIC_ACQ_REL), 0);
		}
		__atomic_add_fetch(&t->reaped, n, __ATOMIC_ACQ_REL);
	}
	return NULL;
}

TEST(many_waiters_with_different_wishes)
{
	enum { WAITERS = 12, TICKETS = 3000 };
	static struct ticket tickets[TICKETS];
	struct team t = { .total = TICKETS };
	pthread_t threads[WAITERS];
	char path[4096];
	unsigned char *memory = t_pages(256 * 4096);

	snprintf(path, sizeof(path), "%s/team-%d", t_directory("LAS_TEST_EXT4"), (int)getpid());
	t.fd = t_file("team", FILE_BYTES);
	t.cold = t_file(path, FILE_BYTES);
	CHECK_EQ(fsync(t.cold), 0);
	t.direct = t_open(path, O_RDONLY | O_DIRECT);
	CHECK_EQ(unlink(path), 0);
	t.ctx = t_context(128);
	for (int i = 0; i < WAITERS; i++)
		threads[i] = t_thread(team_member, &t);
	for (unsigned i = 0; i < TICKETS; i++) {
		struct ticket *ticket = &tickets[i];
		int fd = i % 3 == 0 ? t.direct : i % 3 == 1 ? t.cold : t.fd;

		/* A buffer comes round again only when its last read is done. */
		ticket->buf = memory + i % 256 * 4096;
		while (i >= 256 && !__atomic_load_n(&tickets[i - 256].done, __ATOMIC_ACQUIRE))
			sched_yield();
		ticket->offset = i * 37 % 256 * 4096;
		if (fd == t.cold)
			posix_fadvise(fd, (off_t)ticket->offset, 4096, POSIX_FADV_DONTNEED);
		io_prep_pread(&ticket->iocb, fd, ticket->buf, 4096, ticket->offset);
		ticket->iocb.data = ticket;
		while (t_submit(t.ctx, &ticket->iocb) != 1)
			sched_yield();
	}
	for (int i = 0; i < WAITERS; i++)
		t_join(threads[i]);
	CHECK_EQ(t.reaped, TICKETS);
	t_no_event(t.ctx);
}
