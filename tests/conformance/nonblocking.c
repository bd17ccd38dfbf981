/*
 * nonblocking.c - the departure that is the point: io_submit returns while the device has not answered.
 *
 * The file system holds every request until it is told to answer, so these cases prove "does not wait" without a clock:
 * on the kernel a buffered request keeps its submitter inside io_submit until the release, which a second thread sees.
 */
#include "las_test.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

struct submission {
	io_context_t ctx;
	struct iocb **list;
	long count;
	int answer;
	int done;
};

static void *submit(void *arg)
{
	struct submission *s = arg;

	s->answer = io_submit(s->ctx, s->count, s->list);
	__atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Submits while the file system holds everything; on return the requests are accepted and the events are reaped. */
static void check_held_submit(io_context_t ctx, struct iocb **list, long count, struct io_event *events)
{
	struct submission s = { .ctx = ctx, .list = list, .count = count };
	pthread_t thread;

	t_stall_hold();
	thread = t_thread(submit, &s);
	if (DIFFERS("submit-returns-first")) {
		t_join(thread);
		CHECK_RET(s.answer, count);
		CHECK_EQ(t_ring_count(ctx), 0);
		t_stall_release();
	} else {
		t_stall_wait(1);
		t_sleep_ms(20);
		CHECK(!__atomic_load_n(&s.done, __ATOMIC_ACQUIRE));
		t_stall_release();
		t_join(thread);
		CHECK_RET(s.answer, count);
	}
	t_reap(ctx, count, events);
}

TEST(uncached_read_does_not_hold_submit)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("read", 65536, O_RDONLY);
	char buf[4096];
	struct iocb iocb, *list = &iocb;
	struct io_event event;

	io_prep_pread(&iocb, fd, buf, sizeof(buf), 8192);
	check_held_submit(ctx, &list, 1, &event);
	CHECK_EQ(t_res(&event), 4096);
	t_check_pattern(buf, sizeof(buf), 0, 8192);
}

TEST(thirty_two_uncached_reads_do_not_hold_submit)
{
	enum { COUNT = 32 };
	io_context_t ctx = t_context(COUNT);
	static char bufs[COUNT][4096];
	struct iocb iocbs[COUNT], *list[COUNT];
	struct io_event events[COUNT];

	for (int i = 0; i < COUNT; i++) {
		io_prep_pread(&iocbs[i], t_stall_file("many", 8192, O_RDONLY), bufs[i], 4096, 4096);
		list[i] = &iocbs[i];
	}
	check_held_submit(ctx, list, COUNT, events);
	for (int i = 0; i < COUNT; i++) {
		CHECK_EQ(t_res(&events[i]), 4096);
		t_check_pattern(bufs[i], 4096, 0, 4096);
	}
}

TEST(write_does_not_hold_submit)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("write", 4096, O_RDWR);
	char buf[4096], back[4096];
	struct iocb iocb, *list = &iocb;
	struct io_event event;

	t_fill(buf, sizeof(buf), 9, 0);
	io_prep_pwrite(&iocb, fd, buf, sizeof(buf), 0);
	check_held_submit(ctx, &list, 1, &event);
	CHECK_EQ(t_res(&event), 4096);
	CHECK_EQ(pread(fd, back, sizeof(back), 0), 4096);
	t_check_pattern(back, sizeof(back), 9, 0);
}

TEST(extending_write_does_not_hold_submit)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("extend", 0, O_RDWR);
	char buf[1000];
	struct iocb iocb, *list = &iocb;
	struct io_event event;
	struct stat st;

	t_fill(buf, sizeof(buf), 9, 0);
	io_prep_pwrite(&iocb, fd, buf, sizeof(buf), 50000);
	check_held_submit(ctx, &list, 1, &event);
	CHECK_EQ(t_res(&event), 1000);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 51000);
}

TEST(vectors_do_not_hold_submit)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("vector", 65536, O_RDONLY);
	char a[100], b[1000];
	struct iovec iov[2] = { { a, sizeof(a) }, { b, sizeof(b) } };
	struct iocb iocb, *list = &iocb;
	struct io_event event;

	io_prep_preadv(&iocb, fd, iov, 2, 7000);
	check_held_submit(ctx, &list, 1, &event);
	CHECK_EQ(t_res(&event), 1100);
	t_check_pattern(a, sizeof(a), 0, 7000);
	t_check_pattern(b, sizeof(b), 0, 7100);
}

TEST(sync_write_does_not_hold_submit)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("sync", 4096, O_RDWR | O_SYNC);
	char buf[100] = { 0 };
	struct iocb iocb, *list = &iocb;
	struct io_event event;

	io_prep_pwrite(&iocb, fd, buf, sizeof(buf), 0);
	check_held_submit(ctx, &list, 1, &event);
	CHECK_EQ(t_res(&event), 100);
}

/* These are asynchronous in the kernel too: nothing differs. */
TEST(fsync_and_direct_requests_never_hold_submit)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("async", 65536, O_RDWR | O_DIRECT);
	/* Of another file: on the same one it would wait for the write's lock. */
	int synced = t_stall_file("sync", 4096, O_RDWR);
	char *buf = t_pages(8192);
	struct iocb read, write, sync, *list[] = { &read, &write, &sync };
	struct io_event events[3];

	io_prep_pread(&read, fd, buf, 4096, 0);
	io_prep_pwrite(&write, fd, buf + 4096, 4096, 8192);
	io_prep_fsync(&sync, synced);
	t_stall_hold();
	CHECK_RET(io_submit(ctx, 3, list), 3);
	CHECK_EQ(t_ring_count(ctx), 0);
	t_stall_wait(3);
	t_stall_release();
	t_reap(ctx, 3, events);
	t_check_pattern(buf, 4096, 0, 0);
}

TEST(other_requests_go_on_while_some_are_held)
{
	io_context_t ctx = t_context(64);
	int stuck = t_stall_file("stuck", 65536, O_RDONLY | O_DIRECT), fine = t_file("data", 65536);
	char *buf = t_pages(32 * 4096), byte;
	struct iocb iocbs[16], *list[16], other;
	struct io_event events[16];

	for (int i = 0; i < 16; i++) {
		io_prep_pread(&iocbs[i], stuck, buf + i * 4096, 4096, i * 4096);
		list[i] = &iocbs[i];
	}
	t_stall_hold();
	CHECK_RET(io_submit(ctx, 16, list), 16);
	for (int i = 0; i < 200; i++) {
		struct io_event event;

		io_prep_pread(&other, fine, &byte, 1, i);
		CHECK_RET(t_submit(ctx, &other), 1);
		t_reap(ctx, 1, &event);
		CHECK(event.obj == &other);
		CHECK_EQ((unsigned char)byte, t_byte(0, (size_t)i));
	}
	io_prep_fsync(&other, fine);
	CHECK_RET(t_run(ctx, &other), 0);
	t_stall_release();
	t_reap(ctx, 16, events);
}

TEST(other_contexts_go_on_while_one_is_held)
{
	io_context_t held = t_context(8), free_one = t_context(8);
	int stuck = t_stall_file("stuck", 65536, O_RDWR | O_DIRECT), fine = t_file("data", 65536);
	char *buf = t_pages(4096), byte;
	struct iocb iocb;

	io_prep_pread(&iocb, stuck, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(held, &iocb), 1);
	for (int i = 0; i < 200; i++) {
		CHECK_RET(t_pread(free_one, fine, &byte, 1, i), 1);
		CHECK_RET(t_pwrite(free_one, fine, &byte, 1, i), 1);
	}
	t_stall_release();
	CHECK_RET(t_reap_one(held), 4096);
}

TEST(empty_pipe_does_not_hold_submit)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	char buf[5] = "";
	struct iocb iocb, *list = &iocb;
	struct submission s = { .ctx = ctx, .list = &list, .count = 1 };
	pthread_t thread;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_pread(&iocb, ends[0], buf, 4, 0);
	thread = t_thread(submit, &s);
	if (DIFFERS("submit-returns-first")) {
		t_join(thread);
		CHECK_EQ(t_ring_count(ctx), 0);
		CHECK_EQ(write(ends[1], "text", 4), 4);
	} else {
		t_sleep_ms(20);
		CHECK(!__atomic_load_n(&s.done, __ATOMIC_ACQUIRE));
		CHECK_EQ(write(ends[1], "text", 4), 4);
		t_join(thread);
	}
	CHECK_RET(s.answer, 1);
	CHECK_RET(t_reap_one(ctx), 4);
	CHECK_EQ(memcmp(buf, "text", 4), 0);
}

TEST(empty_eventfd_does_not_hold_submit)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(0, 0));
	uint64_t count = 0, five = 5;
	struct iocb iocb, *list = &iocb;
	struct submission s = { .ctx = ctx, .list = &list, .count = 1 };
	pthread_t thread;

	io_prep_pread(&iocb, efd, &count, sizeof(count), 0);
	thread = t_thread(submit, &s);
	if (DIFFERS("submit-returns-first")) {
		t_join(thread);
		CHECK_EQ(t_ring_count(ctx), 0);
		CHECK_EQ(write(efd, &five, sizeof(five)), 8);
	} else {
		t_sleep_ms(20);
		CHECK(!__atomic_load_n(&s.done, __ATOMIC_ACQUIRE));
		CHECK_EQ(write(efd, &five, sizeof(five)), 8);
		t_join(thread);
	}
	CHECK_RET(s.answer, 1);
	CHECK_RET(t_reap_one(ctx), 8);
	CHECK_EQ(count, 5);
}

TEST(full_socket_does_not_hold_submit)
{
	io_context_t ctx = t_context(8);
	int ends[2], size = 4096;
	static char big[1 << 20], back[1 << 20];
	struct iocb iocb, *list = &iocb;
	struct submission s = { .ctx = ctx, .list = &list, .count = 1 };
	pthread_t thread;
	size_t got = 0;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	CHECK_EQ(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	t_fill(big, sizeof(big), 4, 0);
	io_prep_pwrite(&iocb, ends[0], big, sizeof(big), 0);
	thread = t_thread(submit, &s);
	if (DIFFERS("submit-returns-first")) {
		t_join(thread);
	} else {
		t_sleep_ms(20);
		CHECK(!__atomic_load_n(&s.done, __ATOMIC_ACQUIRE));
	}
	while (got < sizeof(back)) {
		ssize_t n = read(ends[1], back + got, sizeof(back) - got);

		CHECK(n > 0);
		got += (size_t)n;
	}
	if (!is_shim())
		t_join(thread);
	CHECK_RET(s.answer, 1);
	CHECK_RET(t_reap_one(ctx), 1 << 20);
	t_check_pattern(back, sizeof(back), 4, 0);
}

TEST(hung_pipes_do_not_starve_files)
{
	enum { COUNT = 100 };
	io_context_t ctx = t_context(COUNT + 8);
	int ends[2], fd = t_stall_file("fine", 65536, O_RDWR);
	static char bytes[COUNT];
	static struct iocb iocbs[COUNT];
	struct io_event events[COUNT];
	char buf[16] = "still at work";

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for the pipe");
	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	for (int i = 0; i < COUNT; i++) {
		io_prep_pread(&iocbs[i], ends[0], &bytes[i], 1, 0);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	for (int i = 0; i < 20; i++)
		CHECK_RET(t_pwrite(ctx, fd, buf, sizeof(buf), i * 100), sizeof(buf));
	for (int i = 0; i < COUNT; i++)
		CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, COUNT, events);
}

/* One look with min_nr = 0 right after the submit: the program that leans on the kernel's synchronous buffered I/O. */
TEST(one_look_after_a_held_submit)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("look", 65536, O_RDONLY);
	char buf[4096];
	const char *settle = getenv("LIBAIO_SHIM_SETTLE");
	struct iocb iocb;
	struct io_event event;

	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	t_stall_hold();
	if (DIFFERS("submit-returns-first") && (!settle || *settle != '1')) {
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_RET(io_getevents(ctx, 0, 1, &event, NULL), 0);
		t_stall_release();
		t_reap(ctx, 1, &event);
	} else {
		pthread_t thread = t_stall_release_later(50);

		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_RET(io_getevents(ctx, 0, 1, &event, NULL), 1);
		t_join(thread);
	}
	CHECK_EQ(t_res(&event), 4096);
}

/* The kernel does not look at the time-out; programs that allow one think that they wait, and libaio's own tests do. */
TEST(look_with_a_time_out_finds_what_was_held)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("look", 65536, O_RDONLY);
	struct timespec half_a_minute = { 30, 0 };
	struct io_event event;
	char buf[4096];
	struct iocb iocb;
	pthread_t thread;

	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	t_stall_hold();
	thread = t_stall_release_later(50);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, &half_a_minute), 1);
	t_join(thread);
	CHECK_EQ(t_res(&event), 4096);
}

TEST(look_with_a_time_out_waits_no_longer_than_that)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("look", 65536, O_RDONLY);
	struct timespec moment = { 0, 1000000 };
	struct io_event event;
	char buf[4096];
	struct iocb iocb;

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for the file");
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, &moment), 0);
	t_stall_release();
	t_reap(ctx, 1, &event);
	CHECK_EQ(t_res(&event), 4096);
}

/* Such a look is not for what the kernel would not have waited for either. */
TEST(look_with_a_time_out_does_not_wait_for_a_poll)
{
	io_context_t ctx = t_context(8);
	struct timespec half_a_minute = { 30, 0 };
	struct io_event event;
	struct iocb iocb;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_poll(&iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, &half_a_minute), 0);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, 1, &event);
}

TEST(one_look_after_small_cached_requests_finds_them)
{
	io_context_t ctx = t_context(8);
	char path[4096], buf[100];
	struct io_event event;
	struct iocb iocb;
	int fd;

	snprintf(path, sizeof(path), "%s/look", t_directory("LAS_TEST_EXT4"));
	fd = t_file(path, 4096);
	for (int i = 0; i < 100; i++) {
		io_prep_pread(&iocb, fd, buf, sizeof(buf), i);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		if (is_shim() && getenv("LIBAIO_SHIM_LANES") && !strstr(getenv("LIBAIO_SHIM_LANES"), "head"))
			t_ring_wait(ctx, 1);
		CHECK_RET(io_getevents(ctx, 0, 1, &event, NULL), 1);
	}
}

TEST(settle_makes_one_look_enough)
{
	int status;

	setenv("LIBAIO_SHIM_SETTLE", "1", 1);
	t_stall();
	status = t_again("one_look_after_a_held_submit");
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(server_that_answers_nothing_does_not_hold_submit)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("silent", 65536, O_RDWR | O_DIRECT);
	char *buf = t_pages(8192);
	struct io_event events[3];
	struct iocb iocbs[3];

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for the server (difference submit-returns-first)");
	CHECK_RET(t_pread(ctx, fd, buf, 4096, 0), 4096);
	t_sleep_ms(1200); /* what the kernel knows of the file has expired */
	t_stall_hold_all();
	io_prep_pread(&iocbs[0], fd, buf, 4096, 0);
	io_prep_pwrite(&iocbs[1], fd, buf + 4096, 4096, 4096);
	io_prep_fsync(&iocbs[2], fd);
	for (int i = 0; i < 3; i++)
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	CHECK_RET(t_ring_count(ctx), 0);
	t_stall_release();
	t_reap(ctx, 3, events);
}

/* Closing a file there may take for ever: whoever does it for us, nobody waits for him. */
TEST(server_that_answers_nothing_does_not_hold_other_files)
{
	io_context_t ctx = t_context(8);
	int slow = t_stall_file("silent", 65536, O_RDWR | O_DIRECT), counter = t_own(eventfd(0, 0));
	int fd = t_file("data", 65536), direct = t_open("data", O_RDWR | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;

	CHECK_RET(t_pread(ctx, slow, buf, 4096, 0), 4096);
	t_stall_hold_all();
	t_sleep_ms(150); /* what was kept open for the request is let go soon */
	for (int round = 0; round < 8; round++) {
		uint64_t count;

		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		io_prep_pread(&iocb, round % 2 ? direct : fd, buf, 4096, round * 4096);
		io_set_eventfd(&iocb, counter);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_EQ(read(counter, &count, sizeof(count)), sizeof(count));
		CHECK_RET(t_reap_one(ctx), 4096);
		t_sleep_ms(10);
	}
	t_stall_release();
}
