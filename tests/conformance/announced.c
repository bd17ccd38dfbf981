/*
 * announced.c - programs that learn of O_DIRECT requests by an eventfd, for long enough that the way in which they do it is
 * known: every event is found by whoever was told of it, in whichever order it looks, and counted once.
 */
#include "las_test.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

enum { DEPTH = 16, REQUESTS = 4000, BLOCKS = 256 };

static struct {
	io_context_t ctx;
	int file, efd;
	unsigned started, finished;
	struct iocb iocbs[DEPTH];
	char *buffers;
	bool writes;
	uint64_t counted; /* by the eventfd, so far */
} load;

static void start(struct iocb *iocb)
{
	char *buffer = load.buffers + (iocb - load.iocbs) * 4096;
	long long offset = (long long)(load.started++ * 7 % BLOCKS) * 4096;

	if (load.writes)
		io_prep_pwrite(iocb, load.file, buffer, 4096, offset);
	else
		io_prep_pread(iocb, load.file, buffer, 4096, offset);
	io_set_eventfd(iocb, load.efd);
	CHECK_RET(t_submit(load.ctx, iocb), 1);
}

static void prepare(int flags)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/announced-%d", t_directory("LAS_TEST_EXT4"), (int)getpid());
	CHECK_EQ(fsync(t_file(path, BLOCKS * 4096)), 0);
	load.file = t_open(path, O_RDWR | O_DIRECT);
	CHECK_EQ(unlink(path), 0);
	load.buffers = t_pages(DEPTH * 4096);
	load.efd = t_own(eventfd(0, flags));
	load.ctx = t_context(DEPTH);
}

static void begin(int flags)
{
	prepare(flags);
	for (int i = 0; i < DEPTH; i++)
		start(&load.iocbs[i]);
}

static void finish(struct iocb *iocb, long res)
{
	CHECK_EQ(res, 4096);
	load.finished++;
	if (load.started < REQUESTS)
		start(iocb);
}

/* Takes what is in the ring, calling nothing but io_submit. */
static void take_from_ring(void)
{
	struct t_ring *ring = t_ring(load.ctx);

	while (ring->head != __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE)) {
		struct io_event event = ring->events[ring->head];

		__atomic_store_n(&ring->head, (ring->head + 1) % ring->nr, __ATOMIC_RELEASE);
		finish(event.obj, (long)event.res);
	}
}

static void count(void)
{
	uint64_t value;

	CHECK_EQ(read(load.efd, &value, sizeof(value)), sizeof(value));
	load.counted += value;
}

/* All that was ever submitted is finished, and was counted once. */
static void check_all(void)
{
	uint64_t value;

	CHECK_EQ(load.finished, load.started);
	CHECK_EQ(fcntl(load.efd, F_SETFL, O_NONBLOCK), 0);
	t_sleep_ms(20);
	if (read(load.efd, &value, sizeof(value)) == sizeof(value))
		load.counted += value;
	CHECK_EQ(load.counted, load.started);
}

TEST(counter_then_ring_after_poll)
{
	struct pollfd p = { .events = POLLIN };

	begin(EFD_NONBLOCK);
	p.fd = load.efd;
	while (load.finished < REQUESTS) {
		CHECK_EQ(poll(&p, 1, -1), 1);
		count();
		take_from_ring();
	}
	check_all();
}

TEST(counter_then_ring_one_at_a_time)
{
	prepare(0);
	while (load.started < REQUESTS) {
		start(&load.iocbs[0]);
		count(); /* waits in read() */
		CHECK_EQ(t_ring_count(load.ctx), 1);
		t_ring(load.ctx)->head = t_ring(load.ctx)->tail;
		load.finished++;
	}
	check_all();
}

static int begin_by_edges(void)
{
	int epoll = t_own(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };

	prepare(EFD_NONBLOCK);
	CHECK_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, load.efd, &event), 0);
	for (int i = 0; i < DEPTH; i++)
		start(&load.iocbs[i]);
	return epoll;
}

TEST(ring_and_counter_by_edges)
{
	int epoll = begin_by_edges();
	struct epoll_event event;

	while (load.finished < REQUESTS) {
		uint64_t value;

		CHECK_EQ(epoll_wait(epoll, &event, 1, -1), 1);
		do {
			take_from_ring();
			value = 0;
			(void)!read(load.efd, &value, sizeof(value));
			load.counted += value;
		} while (value);
	}
	check_all();
}

/* With edges the counter may grow for ever; who reads it now and then looks at the ring afterwards. */
TEST(ring_by_edges_and_seldom_the_counter)
{
	int epoll = begin_by_edges();
	struct epoll_event event;

	for (int n = 1; load.finished < REQUESTS; n++) {
		CHECK_EQ(epoll_wait(epoll, &event, 1, -1), 1);
		if (n % 32 == 0)
			count();
		take_from_ring();
	}
	check_all();
}

TEST(ring_after_select)
{
	begin(EFD_NONBLOCK);
	while (load.finished < REQUESTS) {
		fd_set in;

		FD_ZERO(&in);
		FD_SET(load.efd, &in);
		CHECK_EQ(select(load.efd + 1, &in, NULL, NULL, NULL), 1);
		count();
		take_from_ring();
	}
	check_all();
}

static void take_exactly(uint64_t n)
{
	struct io_event events[DEPTH];

	CHECK(n <= DEPTH);
	CHECK_RET(io_getevents(load.ctx, (long)n, (long)n, events, NULL), n);
	for (uint64_t i = 0; i < n; i++)
		finish(events[i].obj, (long)events[i].res);
}

static void wait_for_exactly_the_count(void)
{
	while (load.finished < REQUESTS) {
		uint64_t value;

		CHECK_EQ(read(load.efd, &value, sizeof(value)), sizeof(value));
		load.counted += value;
		take_exactly(value);
	}
	check_all();
}

TEST(exactly_as_many_events_as_counted)
{
	begin(0);
	wait_for_exactly_the_count();
}

/* Into holes: the kernel refuses each once. */
TEST(exactly_as_many_events_as_counted_where_some_are_refused)
{
	prepare(0);
	CHECK_EQ(ftruncate(load.file, 0), 0);
	CHECK_EQ(ftruncate(load.file, BLOCKS * 4096), 0);
	load.writes = true;
	for (int i = 0; i < DEPTH; i++)
		start(&load.iocbs[i]);
	wait_for_exactly_the_count();
}

TEST(semaphore_is_read_once_per_event)
{
	begin(EFD_SEMAPHORE);
	while (load.finished < REQUESTS) {
		count();
		take_exactly(1);
	}
	check_all();
}

/* Past libc, as a program may that has its own ways; half of the time. */
TEST(counter_is_read_by_other_calls_too)
{
	struct iovec iov;
	uint64_t value;

	begin(0);
	iov = (struct iovec){ &value, sizeof(value) };
	while (load.finished < REQUESTS) {
		if (load.finished % 1000 < 500)
			CHECK_EQ(read(load.efd, &value, sizeof(value)), sizeof(value));
		else
			CHECK_EQ(readv(load.efd, &iov, 1), sizeof(value));
		take_from_ring();
	}
	CHECK_EQ(load.finished, load.started);
}

TEST(ring_after_poll_alone)
{
	struct pollfd p = { .events = POLLIN };

	prepare(0);
	p.fd = load.efd;
	for (int i = 0; i < 100; i++) {
		start(&load.iocbs[0]);
		count();
		t_ring(load.ctx)->head = t_ring(load.ctx)->tail;
	}
	start(&load.iocbs[0]);
	CHECK_EQ(poll(&p, 1, -1), 1);
	if (DIFFERS("count-before-event"))
		t_ring_wait(load.ctx, 1);
	CHECK_EQ(t_ring_count(load.ctx), 1);
}

static void *read_and_take(void *arg)
{
	(void)arg;
	while (load.finished < REQUESTS) {
		count();
		take_from_ring();
	}
	return NULL;
}

TEST(another_thread_goes_on)
{
	struct pollfd p = { .events = POLLIN };

	begin(0);
	p.fd = load.efd;
	while (load.finished < REQUESTS / 2) {
		CHECK_EQ(poll(&p, 1, -1), 1);
		count();
		take_from_ring();
	}
	t_join(t_thread(read_and_take, NULL));
	CHECK_EQ(load.finished, load.started);
}

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;

/* Reads the ring, but never calls. */
static void *only_read(void *arg)
{
	struct t_ring *ring = t_ring(load.ctx);

	(void)arg;
	while (load.finished < REQUESTS) {
		count();
		while (ring->head != __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE)) {
			CHECK_EQ(ring->events[ring->head].res, 4096);
			__atomic_store_n(&ring->head, (ring->head + 1) % ring->nr, __ATOMIC_RELEASE);
			pthread_mutex_lock(&turn);
			load.finished++;
			pthread_cond_signal(&finished);
			pthread_mutex_unlock(&turn);
		}
	}
	return NULL;
}

TEST(one_thread_submits_and_another_reads)
{
	pthread_t reader;

	prepare(0);
	reader = t_thread(only_read, NULL);
	while (load.started < REQUESTS) {
		pthread_mutex_lock(&turn);
		while (load.started - load.finished == DEPTH)
			pthread_cond_wait(&finished, &turn);
		pthread_mutex_unlock(&turn);
		start(&load.iocbs[load.started % DEPTH]);
	}
	t_join(reader);
	check_all();
}

TEST(two_contexts_with_one_eventfd)
{
	io_context_t ctxs[2];
	struct iocb iocbs[2];

	prepare(0);
	ctxs[0] = load.ctx;
	ctxs[1] = t_context(4);
	for (int round = 0; round < REQUESTS / 4; round++) {
		uint64_t sum = 0, value;

		for (int i = 0; i < 2; i++) {
			io_prep_pread(&iocbs[i], load.file, load.buffers + i * 4096, 4096, i * 4096);
			io_set_eventfd(&iocbs[i], load.efd);
			CHECK_RET(t_submit(ctxs[i], &iocbs[i]), 1);
		}
		while (sum < 2) {
			CHECK_EQ(read(load.efd, &value, sizeof(value)), sizeof(value));
			sum += value;
			CHECK(t_ring_count(ctxs[0]) + t_ring_count(ctxs[1]) >= sum);
		}
		for (int i = 0; i < 2; i++)
			t_ring(ctxs[i])->head = t_ring(ctxs[i])->tail;
	}
}

TEST(eventfd_is_replaced_now_and_then)
{
	prepare(0);
	while (load.started < REQUESTS / 4) {
		if (load.started % 50 == 49) {
			int other = eventfd(0, 0);

			CHECK_EQ(dup2(other, load.efd), load.efd);
			close(other);
		}
		start(&load.iocbs[0]);
		count();
		CHECK_EQ(t_ring_count(load.ctx), 1);
		t_ring(load.ctx)->head = t_ring(load.ctx)->tail;
		load.finished++;
	}
	close(load.efd);
	io_prep_pread(&load.iocbs[0], load.file, load.buffers, 4096, 0);
	io_set_eventfd(&load.iocbs[0], load.efd);
	CHECK_RET(t_submit(load.ctx, &load.iocbs[0]), -EBADF);
	CHECK_EQ(dup2(load.file, load.efd), load.efd);
	CHECK_RET(t_submit(load.ctx, &load.iocbs[0]), -EINVAL);
}
