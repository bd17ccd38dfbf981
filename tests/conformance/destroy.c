/* destroy.c - io_destroy against everything: requests, waiters, peeking readers, other destroyers, fork. */
#include "las_test.h"

#include <poll.h>
#include <sys/syscall.h>

struct waiter {
	io_context_t ctx;
	pid_t tid;
	long answer;
};

static void *wait_for_one(void *arg)
{
	struct waiter *w = arg;
	struct io_event event;

	__atomic_store_n(&w->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	w->answer = io_getevents(w->ctx, 1, 1, &event, NULL);
	return NULL;
}

static pthread_t start_waiter(struct waiter *w, io_context_t ctx)
{
	pthread_t thread;

	*w = (struct waiter){ .ctx = ctx };
	thread = t_thread(wait_for_one, w);
	while (!__atomic_load_n(&w->tid, __ATOMIC_ACQUIRE))
		usleep(100);
	t_wait_asleep(w->tid);
	return thread;
}

struct destroyer {
	io_context_t ctx;
	int answer;
	int done;
};

static void *destroy(void *arg)
{
	struct destroyer *d = arg;

	d->answer = io_destroy(d->ctx);
	__atomic_store_n(&d->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static int pending_poll(io_context_t ctx, int eventfd_or_none)
{
	static struct iocb iocbs[256];
	static int used;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_poll(&iocbs[used], ends[0], POLLIN);
	if (eventfd_or_none >= 0)
		io_set_eventfd(&iocbs[used], eventfd_or_none);
	CHECK_RET(t_submit(ctx, &iocbs[used++]), 1);
	return ends[1];
}

TEST(waiter_wakes_with_einval)
{
	io_context_t ctx = t_context(8);
	struct waiter w;
	pthread_t thread = start_waiter(&w, ctx);

	CHECK_RET(io_destroy(ctx), 0);
	t_join(thread);
	CHECK_RET(w.answer, -EINVAL);
}

TEST(waiter_with_requests_in_flight_wakes_with_einval)
{
	io_context_t ctx = t_context(8);
	struct waiter w;
	pthread_t thread;

	pending_poll(ctx, -1);
	thread = start_waiter(&w, ctx);
	CHECK_RET(io_destroy(ctx), 0);
	t_join(thread);
	/* The cancelled poll's own event may reach the waiter before the end of the context does. */
	CHECK(w.answer == -EINVAL || w.answer == 1);
}

TEST(all_waiters_wake_with_einval)
{
	enum { COUNT = 16 };
	io_context_t ctx = t_context(8);
	struct waiter w[COUNT];
	pthread_t threads[COUNT];

	for (int i = 0; i < COUNT; i++)
		threads[i] = start_waiter(&w[i], ctx);
	CHECK_RET(io_destroy(ctx), 0);
	for (int i = 0; i < COUNT; i++) {
		t_join(threads[i]);
		CHECK_RET(w[i].answer, -EINVAL);
	}
}

TEST(waits_for_running_requests)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("running", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(8 * 4096);
	struct destroyer d = { .ctx = ctx };
	struct iocb iocbs[8], *list[8];
	pthread_t thread;

	for (int i = 0; i < 8; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		list[i] = &iocbs[i];
	}
	t_stall_hold();
	CHECK_RET(io_submit(ctx, 8, list), 8);
	t_stall_wait(8);
	thread = t_thread(destroy, &d);
	t_sleep_ms(80);
	CHECK(!__atomic_load_n(&d.done, __ATOMIC_ACQUIRE));
	t_stall_release();
	t_join(thread);
	CHECK_RET(d.answer, 0);
	t_check_pattern(buf, 8 * 4096, 0, 0);
}

TEST(waits_for_a_running_fsync)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("sync", 4096, O_RDWR);
	struct destroyer d = { .ctx = ctx };
	struct iocb iocb;
	pthread_t thread;

	io_prep_fsync(&iocb, fd);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	thread = t_thread(destroy, &d);
	t_sleep_ms(80);
	CHECK(!__atomic_load_n(&d.done, __ATOMIC_ACQUIRE));
	t_stall_release();
	t_join(thread);
	CHECK_RET(d.answer, 0);
}

TEST(calls_are_refused_while_it_waits)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("running", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct destroyer d = { .ctx = ctx };
	struct iocb iocb;
	struct io_event event;
	pthread_t thread;

	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	thread = t_thread(destroy, &d);
	while (any_getevents(ctx, 0, 0, &event, &(struct timespec){ 0, 0 }) == 0)
		usleep(500);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	CHECK_RET(any_getevents(ctx, 1, 1, &event, NULL), -EINVAL);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
	CHECK_RET(io_destroy(ctx), -EINVAL);
	t_stall_release();
	t_join(thread);
	CHECK_RET(d.answer, 0);
}

/* More writes than can run at once: all were accepted, so all must be in the file when io_destroy returns. */
TEST(queued_writes_are_finished)
{
	enum { COUNT = 64 };
	io_context_t ctx = t_context(COUNT);
	int fd = t_stall_file("writes", COUNT * 4096, O_RDWR | O_DIRECT);
	char *buf = t_pages(COUNT * 4096), *back = t_pages(COUNT * 4096);
	static struct iocb iocbs[COUNT];
	struct iocb *list[COUNT];
	pthread_t thread;

	t_fill(buf, COUNT * 4096, 6, 0);
	for (int i = 0; i < COUNT; i++) {
		io_prep_pwrite(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		list[i] = &iocbs[i];
	}
	t_stall_hold();
	CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
	thread = t_stall_release_later(50);
	CHECK_RET(io_destroy(ctx), 0);
	t_join(thread);
	memset(buf, 0, COUNT * 4096);
	CHECK_EQ(pread(fd, back, COUNT * 4096, 0), COUNT * 4096);
	t_check_pattern(back, COUNT * 4096, 6, 0);
}

TEST(queued_appends_are_finished_in_order)
{
	enum { COUNT = 50 };
	io_context_t ctx = t_context(COUNT);
	int fd = t_stall_file("appends", 0, O_RDWR | O_APPEND);
	static struct iocb iocbs[COUNT];
	char text[COUNT], back[COUNT + 1];

	t_stall_delay(2);
	t_fill(text, COUNT, 3, 0);
	for (int i = 0; i < COUNT; i++) {
		io_prep_pwrite(&iocbs[i], fd, &text[i], 1, 0);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	CHECK_RET(io_destroy(ctx), 0);
	t_stall_delay(0);
	CHECK_EQ(pread(fd, back, sizeof(back), 0), COUNT);
	t_check_pattern(back, COUNT, 3, 0);
}

/* The program frees its buffers right after io_destroy. */
TEST(nothing_touches_the_buffers_afterwards)
{
	enum { COUNT = 64 };
	char path[4096];
	int fd;
	char *buf = t_pages(COUNT * 16384);

	snprintf(path, sizeof(path), "%s/late", t_directory("LAS_TEST_EXT4"));
	fd = t_file(path, COUNT * 16384);
	CHECK_EQ(fsync(fd), 0);
	for (int round = 0; round < 20; round++) {
		io_context_t ctx = NULL;
		static struct iocb iocbs[COUNT];
		struct iocb *list[COUNT];

		CHECK_RET(io_setup(COUNT, &ctx), 0);
		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		for (int i = 0; i < COUNT; i++) {
			io_prep_pread(&iocbs[i], fd, buf + i * 16384, 16384, i * 16384);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		CHECK_RET(io_destroy(ctx), 0);
		memset(buf, 0x55, COUNT * 16384);
		t_sleep_ms(2);
		for (int i = 0; i < COUNT * 16384; i++)
			CHECK_EQ(buf[i], 0x55);
	}
}

TEST(pending_polls_do_not_hold_it)
{
	io_context_t ctx = t_context(64);
	int writers[20];

	for (int i = 0; i < 20; i++)
		writers[i] = pending_poll(ctx, -1);
	CHECK_RET(io_destroy(ctx), 0);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(write(writers[i], "x", 1), 1);
}

TEST(pending_polls_raise_their_eventfd)
{
	io_context_t ctx = t_context(64);
	int efd = t_own(eventfd(0, EFD_NONBLOCK));
	uint64_t count = 0;

	for (int i = 0; i < 5; i++)
		pending_poll(ctx, efd);
	CHECK_RET(io_destroy(ctx), 0);
	CHECK_EQ(read(efd, &count, 8), 8);
	CHECK_EQ(count, 5);
}

TEST(unreaped_events_do_not_hold_it)
{
	io_context_t ctx = t_context(64);
	int fd = t_file("data", 64);
	static struct iocb iocb;
	char byte;

	io_prep_pread(&iocb, fd, &byte, 1, 0);
	for (int i = 0; i < 60; i++)
		CHECK_RET(t_submit(ctx, &iocb), 1);
	t_ring_wait(ctx, 60);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(two_at_once_exactly_one_succeeds)
{
	for (int round = 0; round < 20; round++) {
		io_context_t ctx = NULL;
		struct destroyer d[4];
		pthread_t threads[4];
		int succeeded = 0;

		CHECK_RET(io_setup(8, &ctx), 0);
		for (int i = 0; i < 4; i++) {
			d[i] = (struct destroyer){ .ctx = ctx };
			threads[i] = t_thread(destroy, &d[i]);
		}
		for (int i = 0; i < 4; i++) {
			t_join(threads[i]);
			CHECK(d[i].answer == 0 || d[i].answer == -EINVAL);
			succeeded += d[i].answer == 0;
		}
		CHECK_EQ(succeeded, 1);
	}
}

static void *submit_until_refused(void *arg)
{
	io_context_t ctx = arg;
	struct iocb iocb;
	static char byte;
	int answer, fd = open("data", O_RDONLY);

	CHECK(fd >= 0);
	io_prep_pread(&iocb, fd, &byte, 1, 0);
	do {
		struct io_event event;

		answer = t_submit(ctx, &iocb);
		if (answer == 1)
			any_getevents(ctx, 0, 1, &event, NULL);
	} while (answer == 1 || answer == -EAGAIN);
	CHECK_RET(answer, -EINVAL);
	close(fd);
	return NULL;
}

TEST(submitters_are_refused_from_then_on)
{
	t_file("data", 64);
	for (int round = 0; round < 10; round++) {
		io_context_t ctx = NULL;
		pthread_t threads[3];

		CHECK_RET(io_setup(64, &ctx), 0);
		for (int i = 0; i < 3; i++)
			threads[i] = t_thread(submit_until_refused, ctx);
		t_sleep_ms(3);
		CHECK_RET(io_destroy(ctx), 0);
		for (int i = 0; i < 3; i++)
			t_join(threads[i]);
	}
}

/* Whether the 32 bytes of the header can still be read, found out without a fault. */
static bool header_is_readable(io_context_t ctx)
{
	int ends[2];
	bool readable;

	CHECK_EQ(pipe(ends), 0);
	readable = write(ends[1], (void *)ctx, 32) == 32;
	close(ends[0]);
	close(ends[1]);
	return readable;
}

TEST(ring_under_a_peeking_reader)
{
	io_context_t ctx = t_context(8);

	CHECK(header_is_readable(ctx));
	CHECK_RET(io_destroy(ctx), 0);
	if (DIFFERS("ring-stays-readable"))
		CHECK(header_is_readable(ctx));
	else
		CHECK(!header_is_readable(ctx));
}

static int stop_peeking;

static void *peek(void *arg)
{
	struct t_ring *ring = arg;

	while (!__atomic_load_n(&stop_peeking, __ATOMIC_ACQUIRE))
		CHECK(ring->head <= ring->nr || ring->nr == 0);
	return NULL;
}

TEST(peeking_thread_never_faults)
{
	pthread_t thread;
	io_context_t ctx;

	if (!is_shim())
		SKIP("n/a: the kernel unmaps the ring: such a program crashes there");
	ctx = t_context(8);
	thread = t_thread(peek, ctx);
	t_sleep_ms(2);
	CHECK_RET(io_destroy(ctx), 0);
	t_sleep_ms(20);
	for (int i = 0; i < 200; i++) {
		io_context_t other = NULL;

		CHECK_RET(io_setup(8, &other), 0);
		CHECK_RET(io_destroy(other), 0);
	}
	__atomic_store_n(&stop_peeking, 1, __ATOMIC_RELEASE);
	t_join(thread);
}

TEST(files_and_eventfds_may_be_closed_before)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("closed", 8192, O_RDONLY | O_DIRECT), efd = t_own(eventfd(0, 0));
	char *buf = t_pages(4096);
	struct iocb iocb;
	pthread_t thread;

	io_prep_pread(&iocb, fd, buf, 4096, 0);
	io_set_eventfd(&iocb, efd);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	t_close(fd);
	t_close(efd);
	thread = t_stall_release_later(30);
	CHECK_RET(io_destroy(ctx), 0);
	t_join(thread);
	t_check_pattern(buf, 4096, 0, 0);
}

TEST(handle_may_be_destroyed_by_another_thread)
{
	io_context_t ctx = t_context(8);
	struct destroyer d = { .ctx = ctx };
	char byte;

	CHECK_RET(t_pread(ctx, t_file("data", 64), &byte, 1, 0), 1);
	t_join(t_thread(destroy, &d));
	CHECK_RET(d.answer, 0);
	CHECK_RET(io_destroy(ctx), -EINVAL);
}

TEST(child_destroys_nothing_of_its_parent)
{
	io_context_t ctx = t_context(8);
	int writer = pending_poll(ctx, -1);
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK_RET(io_destroy(ctx), -EINVAL);
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_EQ(write(writer, "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
}

static void do_nothing(int number)
{
}

TEST(signal_does_not_cut_it_short)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("running", 8192, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;
	struct sigaction action = { .sa_handler = do_nothing };
	pthread_t thread;

	CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	thread = t_stall_release_later(120);
	ualarm(20000, 20000);
	CHECK_RET(io_destroy(ctx), 0);
	ualarm(0, 0);
	t_check_pattern(buf, 4096, 0, 0);
	t_join(thread);
}
