/* eventfd.c - exactly one count per event, after the event is visible, and never a wait for the descriptor's reader. */
#include "las_test.h"

#include <poll.h>

/* The count follows the event; so this waits for it, also where a read would not. */
static uint64_t take(int efd)
{
	struct pollfd wait = { efd, POLLIN, 0 };
	uint64_t count;

	CHECK_EQ(poll(&wait, 1, -1), 1);

	CHECK_EQ(read(efd, &count, sizeof(count)), 8);
	return count;
}

static struct iocb *read_with(struct iocb *iocb, int fd, int efd)
{
	static char buf[16];

	io_prep_pread(iocb, fd, buf, sizeof(buf), 0);
	io_set_eventfd(iocb, efd);
	return iocb;
}

/* Waits in read() until that many were counted in all. */
static void take_until(int efd, uint64_t count)
{
	uint64_t sum = 0;

	while (sum < count)
		sum += take(efd);
	CHECK_EQ(sum, count);
}

TEST(one_count_per_event)
{
	io_context_t ctx = t_context(64);
	int fd = t_file("data", 4096), efd = t_own(eventfd(0, 0));
	struct iocb iocb, *list[64];

	for (int i = 0; i < 64; i++)
		list[i] = &iocb;
	read_with(&iocb, fd, efd);
	for (int round = 0; round < 50; round++) {
		struct io_event events[64];

		CHECK_RET(io_submit(ctx, 64, list), 64);
		take_until(efd, 64);
		/* As many as were counted are there to take, at once and with no time-out. */
		CHECK_RET(io_getevents(ctx, 0, 64, events, NULL), 64);
	}
	CHECK_EQ(fcntl(efd, F_SETFL, O_NONBLOCK), 0);
	t_sleep_ms(20);
	CHECK_EQ(read(efd, &(uint64_t){ 0 }, 8), -1);
	CHECK_EQ(errno, EAGAIN);
}

TEST(event_is_visible_before_the_count)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 1 << 20), efd = t_own(eventfd(0, EFD_SEMAPHORE));
	struct iocb iocb, *list[8];
	struct io_event events[8];

	for (int i = 0; i < 8; i++)
		list[i] = &iocb;
	read_with(&iocb, fd, efd);
	for (int round = 0; round < 500; round++) {
		CHECK_RET(io_submit(ctx, 8, list), 8);
		for (unsigned i = 0; i < 8; i++) {
			CHECK_EQ(take(efd), 1);
			CHECK(t_ring_count(ctx) >= 1);
			CHECK_RET(io_getevents(ctx, 0, 1, events, NULL), 1);
		}
	}
}

TEST(direct_requests_are_counted_too)
{
	io_context_t ctx = t_context(32);
	int efd = t_own(eventfd(0, 0)), fd;
	struct iocb iocbs[32], *list[32];
	struct io_event events[32];
	char path[4096];
	char *buf = t_pages(32 * 4096);

	snprintf(path, sizeof(path), "%s/eventfd-direct", t_directory("LAS_TEST_EXT4"));
	fd = t_file(path, 32 * 4096);
	CHECK_EQ(fsync(fd), 0);
	fd = t_open(path, O_RDONLY | O_DIRECT);
	for (int i = 0; i < 32; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		io_set_eventfd(&iocbs[i], efd);
		list[i] = &iocbs[i];
	}
	for (int round = 0; round < 50; round++) {
		CHECK_RET(io_submit(ctx, 32, list), 32);
		take_until(efd, 32);
		CHECK_RET(io_getevents(ctx, 0, 32, events, NULL), 32);
	}
}

TEST(fsync_and_poll_are_counted)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(0, 0)), ends[2];
	struct iocb sync, poll;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_fsync(&sync, t_file("data", 64));
	io_set_eventfd(&sync, efd);
	CHECK_RET(t_submit(ctx, &sync), 1);
	CHECK_EQ(take(efd), 1);
	io_prep_poll(&poll, ends[0], POLLIN);
	io_set_eventfd(&poll, efd);
	CHECK_RET(t_submit(ctx, &poll), 1);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK_EQ(take(efd), 1);
	CHECK_EQ(t_ring_count(ctx), 2);
}

TEST(errors_are_counted_too)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(0, 0));
	struct iocb iocb;

	io_prep_pread(&iocb, t_file("data", 64), t_no_access(), 16, 0);
	io_set_eventfd(&iocb, efd);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(take(efd), 1);
	CHECK_RET(t_reap_one(ctx), -EFAULT);
}

TEST(refused_requests_are_not_counted)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(0, EFD_NONBLOCK));
	struct iocb iocb;

	read_with(&iocb, t_file("data", 64), efd)->u.c.offset = -1;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	iocb.aio_lio_opcode = 77;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	t_sleep_ms(10);
	CHECK_EQ(read(efd, &(uint64_t){ 0 }, 8), -1);
	CHECK_EQ(errno, EAGAIN);
}

TEST(requests_without_the_flag_are_not_counted)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(0, EFD_NONBLOCK)), fd = t_file("data", 64);
	struct iocb with, without;
	struct io_event events[2];

	read_with(&with, fd, efd);
	read_with(&without, fd, efd)->u.c.flags = 0;
	CHECK_RET(t_submit(ctx, &without), 1);
	CHECK_RET(t_submit(ctx, &with), 1);
	t_reap(ctx, 2, events);
	take_until(efd, 1);
	t_sleep_ms(10);
	CHECK_EQ(read(efd, &(uint64_t){ 0 }, 8), -1);
}

TEST(each_request_raises_its_own)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 64), one = t_own(eventfd(0, EFD_NONBLOCK)), two = t_own(eventfd(0, EFD_NONBLOCK));
	struct iocb a, b, *list[] = { read_with(&a, fd, one), read_with(&b, fd, two), &b };
	struct io_event events[3];

	CHECK_RET(io_submit(ctx, 3, list), 3);
	t_reap(ctx, 3, events);
	take_until(one, 1);
	take_until(two, 2);
	t_sleep_ms(10);
	CHECK_EQ(read(one, &(uint64_t){ 0 }, 8), -1);
	CHECK_EQ(read(two, &(uint64_t){ 0 }, 8), -1);
}

TEST(semaphore_eventfd_counts)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK));
	struct iocb iocb, *list[3] = { &iocb, &iocb, &iocb };
	struct io_event events[3];

	read_with(&iocb, t_file("data", 64), efd);
	CHECK_RET(io_submit(ctx, 3, list), 3);
	t_reap(ctx, 3, events);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(take(efd), 1);
	CHECK_EQ(read(efd, &(uint64_t){ 0 }, 8), -1);
}

TEST(wakes_poll_and_epoll)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(0, EFD_NONBLOCK)), fd = t_file("data", 64);
	struct iocb iocb;

	read_with(&iocb, fd, efd);
	for (int i = 0; i < 200; i++) {
		struct pollfd wait = { efd, POLLIN, 0 };
		struct io_event event;

		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_EQ(poll(&wait, 1, -1), 1);
		CHECK_EQ(take(efd), 1);
		CHECK_RET(io_getevents(ctx, 0, 1, &event, NULL), 1);
	}
}

/* The largest count an eventfd can hold by writing; one more write would wait for a reader. */
static int full_eventfd(int flags)
{
	int efd = t_own(eventfd(0, flags));
	uint64_t most = UINT64_MAX - 1;

	CHECK_EQ(write(efd, &most, 8), 8);
	return efd;
}

static void check_full(int flags)
{
	io_context_t ctx = t_context(8);
	int efd = full_eventfd(flags), fd = t_file("data", 64);
	const char *lanes = getenv("LIBAIO_SHIM_LANES");
	struct pollfd p = { .fd = efd, .events = POLLIN };
	struct iocb iocb;
	uint64_t count;

	read_with(&iocb, fd, efd);
	for (int i = 0; i < 20; i++)
		CHECK_RET(t_run(ctx, &iocb), 16);
	CHECK_EQ(poll(&p, 1, 0), 1);
	count = take(efd);
	if (DIFFERS("eventfd-overflow") && lanes && !strstr(lanes, "native")) {
		CHECK(count == UINT64_MAX - 1);
	} else {
		CHECK(p.revents & POLLERR);
		CHECK(count == UINT64_MAX);
	}
}

TEST(full_eventfd_never_blocks)
{
	check_full(0);
}

TEST(full_nonblocking_eventfd_never_loses_the_event)
{
	check_full(EFD_NONBLOCK);
}

TEST(full_eventfd_counts_again_once_it_is_read)
{
	io_context_t ctx = t_context(8);
	int efd = full_eventfd(EFD_NONBLOCK), fd = t_file("data", 64);
	struct iocb iocb;

	read_with(&iocb, fd, efd);
	CHECK_RET(t_run(ctx, &iocb), 16);
	take(efd);
	CHECK_RET(t_run(ctx, &iocb), 16);
	CHECK(take(efd) <= 2);
}

TEST(full_eventfd_does_not_stop_other_requests)
{
	io_context_t ctx = t_context(64);
	int full = full_eventfd(0), fd = t_file("data", 4096);
	struct iocb stuck, fine, *list[32];
	struct io_event events[32];

	read_with(&stuck, fd, full);
	read_with(&fine, fd, 0)->u.c.flags = 0;
	for (int i = 0; i < 32; i++)
		list[i] = i % 2 ? &fine : &stuck;
	CHECK_RET(io_submit(ctx, 32, list), 32);
	t_reap(ctx, 32, events);
}

TEST(two_contexts_share_one)
{
	io_context_t one = t_context(8), two = t_context(8);
	int efd = t_own(eventfd(0, 0)), fd = t_file("data", 64);
	struct iocb iocb;

	read_with(&iocb, fd, efd);
	for (int i = 0; i < 100; i++) {
		CHECK_RET(t_submit(one, &iocb), 1);
		CHECK_RET(t_submit(two, &iocb), 1);
		take_until(efd, 2);
		CHECK_EQ(t_ring_count(one) + t_ring_count(two), 2);
		t_reap_one(one);
		t_reap_one(two);
	}
}

TEST(initial_count_is_kept)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(41, 0));
	struct iocb iocb;

	CHECK_RET(t_run(ctx, read_with(&iocb, t_file("data", 64), efd)), 16);
	take_until(efd, 42);
}

static io_context_t watched;

static void *reap_without_looking_at_the_eventfd(void *arg)
{
	int left = *(int *)arg;

	while (left > 0) {
		struct io_event events[16];
		int n = io_getevents(watched, 1, 16, events, NULL);

		CHECK(n > 0);
		left -= n;
	}
	return NULL;
}

TEST(counts_are_exact_while_another_thread_reaps)
{
	int total = 20000, efd = t_own(eventfd(0, 0)), fd = t_file("data", 1 << 20), direct;
	char path[4096];
	char *buf = t_pages(4096);
	struct iocb cached, cold, *list[2] = { &cached, &cold };
	pthread_t thread;

	snprintf(path, sizeof(path), "%s/watched", t_directory("LAS_TEST_EXT4"));
	CHECK_EQ(fsync(t_file(path, 4096)), 0);
	direct = t_open(path, O_RDONLY | O_DIRECT);
	watched = t_context(64);
	read_with(&cached, fd, efd);
	io_prep_pread(&cold, direct, buf, 4096, 0);
	io_set_eventfd(&cold, efd);
	thread = t_thread(reap_without_looking_at_the_eventfd, &total);
	for (int submitted = 0; submitted < total;) {
		int answer = t_submit(watched, list[submitted % 8 == 0]);

		CHECK(answer == 1 || answer == -EAGAIN);
		submitted += answer == 1;
	}
	t_join(thread);
	take_until(efd, (uint64_t)total);
	CHECK_EQ(fcntl(efd, F_SETFL, O_NONBLOCK), 0);
	CHECK_EQ(read(efd, &(uint64_t){ 0 }, 8), -1);
}
