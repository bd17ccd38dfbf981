/* lifetime.c - what the program may reuse, close or change as soon as io_submit has returned: all of it but the data. */
#include "las_test.h"

#include <sys/syscall.h>

/* A read of a held file: certainly in flight until the release, in every implementation. */
static void hold_read(io_context_t ctx, struct iocb *iocb, int fd, void *buf)
{
	io_prep_pread(iocb, fd, buf, 4096, 4096);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, iocb), 1);
}

TEST(iocb_may_be_overwritten)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("iocb", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;
	struct io_event event;

	hold_read(ctx, &iocb, fd, buf);
	memset(&iocb, 0xff, sizeof(iocb));
	t_stall_release();
	t_reap(ctx, 1, &event);
	CHECK(event.obj == &iocb);
	CHECK(event.data == NULL);
	CHECK_EQ(t_res(&event), 4096);
	t_check_pattern(buf, 4096, 0, 4096);
}

TEST(iocb_may_be_unmapped)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("iocb", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb *iocb = t_pages(4096);
	struct io_event event;

	hold_read(ctx, iocb, fd, buf);
	CHECK_EQ(munmap(iocb, 4096), 0);
	t_stall_release();
	t_reap(ctx, 1, &event);
	CHECK(event.obj == iocb);
	CHECK_EQ(t_res(&event), 4096);
	t_check_pattern(buf, 4096, 0, 4096);
}

TEST(iocb_array_may_be_reused)
{
	enum { COUNT = 32 };
	io_context_t ctx = t_context(COUNT);
	int fd = t_stall_file("array", COUNT * 4096, O_RDONLY | O_DIRECT);
	char *buf = t_pages(COUNT * 4096);
	struct iocb *iocb = t_pages(4096), **list = t_pages(4096);
	struct io_event events[COUNT];

	t_stall_hold();
	/* One iocb and one slot for all of them. */
	for (int i = 0; i < COUNT; i++) {
		io_prep_pread(iocb, fd, buf + i * 4096, 4096, (COUNT - 1 - i) * 4096);
		list[0] = iocb;
		CHECK_RET(io_submit(ctx, 1, list), 1);
	}
	CHECK_EQ(munmap(iocb, 4096), 0);
	CHECK_EQ(munmap(list, 4096), 0);
	t_stall_release();
	t_reap(ctx, COUNT, events);
	for (int i = 0; i < COUNT; i++)
		t_check_pattern(buf + i * 4096, 4096, 0, (size_t)(COUNT - 1 - i) * 4096);
}

TEST(iocb_may_be_resubmitted_while_in_flight)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("again", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(8192);
	struct iocb iocb;
	struct io_event events[2];

	hold_read(ctx, &iocb, fd, buf);
	io_prep_pread(&iocb, fd, buf + 4096, 4096, 8192);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_release();
	t_reap(ctx, 2, events);
	t_check_pattern(buf, 8192, 0, 4096);
}

TEST(vector_may_be_overwritten)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("vector", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(8192);
	struct iovec iov[2] = { { buf, 4096 }, { buf + 4096, 4096 } };
	struct iocb iocb;

	io_prep_preadv(&iocb, fd, iov, 2, 4096);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	memset(iov, 0xff, sizeof(iov));
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 8192);
	t_check_pattern(buf, 8192, 0, 4096);
}

TEST(long_vector_may_be_unmapped)
{
	enum { COUNT = 1024 };
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("vector", COUNT * 512, O_RDONLY | O_DIRECT);
	char *buf = t_pages(COUNT * 512);
	struct iovec *iov = t_pages(COUNT * sizeof(*iov));
	struct iocb iocb;
	struct io_event event;
	long got = 0;

	for (int i = 0; i < COUNT; i++)
		iov[i] = (struct iovec){ buf + i * 512, 512 };
	io_prep_preadv(&iocb, fd, iov, COUNT, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(munmap(iov, COUNT * sizeof(*iov)), 0);
	t_stall_release();
	t_reap(ctx, 1, &event);
	got = t_res(&event);
	CHECK(got > 0);
	t_check_pattern(buf, (size_t)got, 0, 0);
}

TEST(file_may_be_closed)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("closed", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;

	hold_read(ctx, &iocb, fd, buf);
	t_close(fd);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
	t_check_pattern(buf, 4096, 0, 4096);
}

TEST(closed_file_is_let_go_after_the_event)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	char byte;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	CHECK_RET(t_pwrite(ctx, ends[1], "x", 1, 0), 1);
	CHECK_EQ(close(ends[1]), 0);
	CHECK_EQ(read(ends[0], &byte, 1), 1);
	/* End of file, not a wait for ever: nobody else holds the writing end. */
	CHECK_EQ(read(ends[0], &byte, 1), 0);
}

TEST(descriptor_number_may_be_reused_for_reading)
{
	io_context_t ctx = t_context(64);
	char *buf = t_pages(32 * 4096);
	struct iocb iocbs[32];
	struct io_event events[32];
	int fd = t_stall_file("right", 32 * 4096, O_RDONLY | O_DIRECT), wrong = t_open("/dev/zero", O_RDONLY);

	t_stall_hold();
	for (int i = 0; i < 32; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	CHECK_EQ(dup2(wrong, fd), fd);
	t_stall_release();
	t_reap(ctx, 32, events);
	t_check_pattern(buf, 32 * 4096, 0, 0);
}

TEST(descriptor_number_may_be_reused_for_writing)
{
	enum { COUNT = 32 };
	io_context_t ctx = t_context(COUNT);
	char *buf = t_pages(COUNT * 4096), *back = t_pages(COUNT * 4096);
	static struct iocb iocbs[COUNT];
	struct io_event events[COUNT];
	int fd = t_stall_file("right", COUNT * 4096, O_RDWR | O_DIRECT), wrong = t_file("wrong", 0), again;
	struct stat st;

	again = t_own(dup(fd));
	t_fill(buf, COUNT * 4096, 8, 0);
	t_stall_hold();
	for (int i = 0; i < COUNT; i++) {
		io_prep_pwrite(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	CHECK_EQ(dup2(wrong, fd), fd);
	t_stall_release();
	t_reap(ctx, COUNT, events);
	CHECK_EQ(fstat(wrong, &st), 0);
	CHECK_EQ(st.st_size, 0);
	CHECK_EQ(pread(again, back, COUNT * 4096, 0), COUNT * 4096);
	t_check_pattern(back, COUNT * 4096, 8, 0);
}

struct churn {
	char path[4096];
	int index;
	int rounds;
};

/*
 * One thread's life: open a file of its own, submit uncached reads and writes, close it at once and open another on what
 * most likely is the same number.  Each file holds its own pattern; a byte in the wrong file would show.
 */
static void *churn(void *arg)
{
	enum { DEPTH = 8 };
	struct churn *c = arg;
	io_context_t ctx = NULL;
	unsigned char *bufs = aligned_alloc(4096, DEPTH * 4096);

	CHECK(bufs != NULL);
	CHECK_RET(io_setup(DEPTH, &ctx), 0);
	for (int round = 0; round < c->rounds; round++) {
		unsigned seed = (unsigned)(c->index * 4 + round % 4);
		struct iocb iocbs[DEPTH], *list[DEPTH];
		struct io_event events[DEPTH];
		char name[4200];
		int fd;

		snprintf(name, sizeof(name), "%s/churn-%d-%d", c->path, c->index, round % 4);
		fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		CHECK(fd >= 0);
		if (round >= 4)
			CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		for (int i = 0; i < DEPTH; i++) {
			bool write_it = round < 4 || (i + round) % 3 == 0;

			if (write_it) {
				t_fill(bufs + i * 4096, 4096, seed, (size_t)i * 4096);
				io_prep_pwrite(&iocbs[i], fd, bufs + i * 4096, 4096, i * 4096);
			} else {
				memset(bufs + i * 4096, 0, 4096);
				io_prep_pread(&iocbs[i], fd, bufs + i * 4096, 4096, i * 4096);
			}
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, DEPTH, list), DEPTH);
		CHECK_EQ(close(fd), 0);
		t_reap(ctx, DEPTH, events);
		for (int i = 0; i < DEPTH; i++)
			CHECK_EQ(t_res(&events[i]), 4096);
		t_check_pattern(bufs, DEPTH * 4096, seed, 0);
	}
	CHECK_RET(io_destroy(ctx), 0);
	free(bufs);
	return NULL;
}

static void check_churn(const char *directory, int rounds)
{
	enum { THREADS = 4 };
	static struct churn churns[THREADS];
	pthread_t threads[THREADS];
	char name[4200];

	for (int i = 0; i < THREADS; i++) {
		churns[i].index = i;
		churns[i].rounds = rounds;
		snprintf(churns[i].path, sizeof(churns[i].path), "%s", directory);
		threads[i] = t_thread(churn, &churns[i]);
	}
	for (int i = 0; i < THREADS; i++)
		t_join(threads[i]);
	for (int i = 0; i < THREADS * 4; i++) {
		static char back[8 * 4096 + 1];
		int fd;

		snprintf(name, sizeof(name), "%s/churn-%d-%d", directory, i / 4, i % 4);
		fd = t_open(name, O_RDONLY);
		CHECK_EQ(read(fd, back, sizeof(back)), 8 * 4096);
		t_check_pattern(back, 8 * 4096, (unsigned)i, 0);
		CHECK_EQ(unlink(name), 0);
	}
}

TEST(descriptor_numbers_recycled_under_load)
{
	check_churn(t_directory("LAS_TEST_EXT4"), 200);
}

TEST(descriptor_numbers_recycled_under_load_while_requests_wait)
{
	t_stall_delay(1);
	check_churn(t_stall(), 40);
	t_stall_delay(0);
}

/* ---- a thread that puts one file, then the other, on a number, as fast as it can ---- */

struct exchange {
	int files[2], number;
	bool done;
};

static void *exchange_files(void *arg)
{
	struct exchange *exchange = arg;

	for (unsigned i = 0; !__atomic_load_n(&exchange->done, __ATOMIC_RELAXED); i++)
		CHECK_EQ(dup2(exchange->files[i % 2], exchange->number), exchange->number);
	return NULL;
}

/* Whichever it is, the kernel reads one of them, and lets it go. */
TEST(number_that_another_thread_gives_to_other_files_all_the_time)
{
	const char *directory = t_directory("LAS_TEST_EXT4");
	io_context_t ctx = t_context(8);
	struct exchange exchange = { .number = t_own(open("/dev/null", O_RDONLY)) };
	char *buf = t_pages(8192), name[2][4096];
	pthread_t thread;

	for (int i = 0; i < 2; i++) {
		snprintf(name[i], sizeof(name[i]), "%s/exchange-%d", directory, i);
		t_close(t_file(name[i], 8192));
		exchange.files[i] = t_open(name[i], O_RDONLY | O_DIRECT);
	}
	CHECK_EQ(dup2(exchange.files[0], exchange.number), exchange.number);
	thread = t_thread(exchange_files, &exchange);
	for (int i = 0; i < 5000; i++) {
		CHECK_RET(t_pread(ctx, exchange.number, buf, 8192, 0), 8192);
		t_check_pattern(buf, 8192, 0, 0);
	}
	__atomic_store_n(&exchange.done, true, __ATOMIC_RELAXED);
	t_join(thread);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(unlink(name[i]), 0);
}

TEST(eventfd_may_be_closed)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("eventfd", 65536, O_RDONLY | O_DIRECT), efd = t_own(eventfd(0, 0)), again;
	char *buf = t_pages(4096);
	struct iocb iocb;
	uint64_t count;

	again = t_own(dup(efd));
	io_prep_pread(&iocb, fd, buf, 4096, 0);
	io_set_eventfd(&iocb, efd);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_close(efd);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
	CHECK_EQ(read(again, &count, 8), 8);
	CHECK_EQ(count, 1);
}

TEST(eventfd_number_may_be_reused)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("eventfd", 65536, O_RDONLY | O_DIRECT), efd = t_own(eventfd(0, 0)), again;
	int other = t_own(eventfd(0, EFD_NONBLOCK));
	char *buf = t_pages(4096);
	struct iocb iocb;
	uint64_t count;

	again = t_own(dup(efd));
	io_prep_pread(&iocb, fd, buf, 4096, 0);
	io_set_eventfd(&iocb, efd);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(dup2(other, efd), efd);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
	CHECK_EQ(read(again, &count, 8), 8);
	CHECK_EQ(count, 1);
	CHECK_EQ(read(other, &count, 8), -1);
}

TEST(eventfd_closed_right_after_a_cached_read)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 4096);

	for (int i = 0; i < 1000; i++) {
		int efd = eventfd(0, 0), again = dup(efd);
		struct iocb iocb;
		char byte;
		uint64_t count;

		io_prep_pread(&iocb, fd, &byte, 1, i);
		io_set_eventfd(&iocb, efd);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		close(efd);
		CHECK_EQ(read(again, &count, 8), 8);
		CHECK_EQ(count, 1);
		CHECK_RET(io_getevents(ctx, 0, 1, &(struct io_event){ 0 }, NULL), 1);
		close(again);
	}
}

/* ---- what a descriptor stands for may change from one call to the next ---- */

static const char *direct_path(void)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/direct", t_directory("LAS_TEST_EXT4"));
	return path;
}

/* A direct read, so that the number is known as that of a direct file; then the same number is something else. */
static int direct_for_a_moment(io_context_t ctx, char *buf)
{
	int fd = t_file(direct_path(), 65536);

	CHECK_EQ(fsync(fd), 0);
	t_close(fd);
	fd = t_own(open(direct_path(), O_RDWR | O_DIRECT));
	CHECK(fd >= 0);
	for (int i = 0; i < 3; i++)
		CHECK_RET(t_pread(ctx, fd, buf, 4096, i * 4096), 4096);
	return fd;
}

TEST(number_of_a_direct_file_is_closed_at_the_next_call)
{
	io_context_t ctx = t_context(8);
	char *buf = t_pages(4096);
	struct iocb iocb;

	for (int round = 0; round < 50; round++) {
		int fd = direct_for_a_moment(ctx, buf);

		t_close(fd);
		io_prep_pread(&iocb, fd, buf, 4096, 0);
		CHECK_RET(t_submit(ctx, &iocb), -EBADF);
		t_no_event(ctx);
	}
}

TEST(number_of_a_direct_file_is_write_only_at_the_next_call)
{
	io_context_t ctx = t_context(8);
	char *buf = t_pages(4096);
	struct iocb iocb;

	for (int round = 0; round < 50; round++) {
		int fd = direct_for_a_moment(ctx, buf), other = open(direct_path(), O_WRONLY | O_DIRECT);

		CHECK_EQ(dup2(other, fd), fd);
		CHECK_EQ(close(other), 0);
		io_prep_pread(&iocb, fd, buf, 4096, 0);
		CHECK_RET(t_submit(ctx, &iocb), -EBADF);
		t_no_event(ctx);
		t_close(fd);
	}
}

TEST(number_of_a_direct_file_is_another_file_at_the_next_call)
{
	io_context_t ctx = t_context(8);
	char *buf = t_pages(8192);
	int other = t_file("other", 8192);

	for (int round = 0; round < 50; round++) {
		int fd = direct_for_a_moment(ctx, buf);

		CHECK_EQ(dup2(other, fd), fd);
		/* Not aligned, which only a buffered file takes; beyond the page cache in every other round. */
		if (round % 2)
			CHECK_EQ(posix_fadvise(other, 0, 0, POSIX_FADV_DONTNEED), 0);
		CHECK_RET(t_pread(ctx, fd, buf + 1, 5000, 3), 5000);
		t_check_pattern(buf + 1, 5000, 0, 3);
		t_fill(buf, 100, 0, 77);
		CHECK_RET(t_pwrite(ctx, fd, buf, 100, 77), 100);
		t_close(fd);
	}
}

TEST(number_of_a_file_in_memory_is_a_proc_file_at_the_next_call)
{
	io_context_t ctx = t_context(8);
	int proc = t_open("/proc/self/cmdline", O_RDONLY);
	struct iocb iocb;
	char byte;

	for (int round = 0; round < 50; round++) {
		int fd = t_own(memfd_create("memory", MFD_CLOEXEC)), ret;

		CHECK_EQ(write(fd, "x", 1), 1);
		for (int i = 0; i < 3; i++)
			CHECK_RET(t_pread(ctx, fd, &byte, 1, 0), 1);
		CHECK_EQ(dup2(proc, fd), fd);
		io_prep_pread(&iocb, fd, &byte, 1, 0);
		ret = t_submit(ctx, &iocb);
		if (ret == 1 && DIFFERS("number-of-another-file"))
			CHECK_RET(t_reap_one(ctx), 1);
		else
			CHECK_RET(ret, -EINVAL);
		t_close(fd);
	}
}

TEST(number_of_a_direct_file_is_a_pipe_at_the_next_call)
{
	io_context_t ctx = t_context(8);
	char *buf = t_pages(4096);
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	for (int round = 0; round < 50; round++) {
		int fd = direct_for_a_moment(ctx, buf);

		CHECK_EQ(write(ends[1], "pipe", 4), 4);
		CHECK_EQ(dup2(ends[0], fd), fd);
		CHECK_RET(t_pread(ctx, fd, buf, 4096, 4096), 4);
		CHECK_EQ(memcmp(buf, "pipe", 4), 0);
		t_close(fd);
	}
}

/* GlusterFS turns O_DIRECT on and off around each submit: a request is direct or not as it was at submit. */
static void check_toggle(bool direct_at_submit)
{
	enum { COUNT = 16 };
	char path[4096];
	char *buf = t_pages(COUNT * 8192);
	io_context_t ctx = t_context(COUNT);
	int fd, flags;

	snprintf(path, sizeof(path), "%s/toggle", t_directory("LAS_TEST_EXT4"));
	fd = t_file(path, COUNT * 8192);
	CHECK_EQ(fsync(fd), 0);
	flags = fcntl(fd, F_GETFL);
	for (int round = 0; round < 30; round++) {
		struct iocb iocbs[COUNT], *list[COUNT];
		struct io_event events[COUNT];

		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		/* Misaligned: fails when direct, works when not. */
		for (int i = 0; i < COUNT; i++) {
			io_prep_pread(&iocbs[i], fd, buf + i * 8192 + 1, 5000, i * 8192 + 3);
			list[i] = &iocbs[i];
		}
		CHECK_EQ(fcntl(fd, F_SETFL, direct_at_submit ? flags | O_DIRECT : flags), 0);
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		CHECK_EQ(fcntl(fd, F_SETFL, direct_at_submit ? flags : flags | O_DIRECT), 0);
		t_reap(ctx, COUNT, events);
		for (int i = 0; i < COUNT; i++)
			CHECK_EQ(t_res(&events[i]), direct_at_submit ? -EINVAL : 5000);
	}
}

TEST(buffered_as_of_submit)
{
	check_toggle(false);
}

TEST(direct_as_of_submit)
{
	check_toggle(true);
}

TEST(append_as_of_submit)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 10);
	struct stat st;

	for (int i = 0; i < 200; i++) {
		struct iocb iocb;

		CHECK_EQ(fcntl(fd, F_SETFL, O_APPEND), 0);
		io_prep_pwrite(&iocb, fd, "x", 1, 0);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_EQ(fcntl(fd, F_SETFL, 0), 0);
		CHECK_RET(t_reap_one(ctx), 1);
		CHECK_EQ(fstat(fd, &st), 0);
		CHECK_EQ(st.st_size, 11 + i);
		io_prep_pwrite(&iocb, fd, "y", 1, 0);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_EQ(fcntl(fd, F_SETFL, O_APPEND), 0);
		CHECK_RET(t_reap_one(ctx), 1);
		CHECK_EQ(fstat(fd, &st), 0);
		CHECK_EQ(st.st_size, 11 + i);
	}
}

TEST(file_may_be_unlinked)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("gone", 65536);
	char buf[4096];
	struct iocb iocb;

	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 100);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(unlink("gone"), 0);
	CHECK_RET(t_reap_one(ctx), 4096);
	t_check_pattern(buf, sizeof(buf), 0, 100);
}

TEST(buffer_unmapped_in_flight_is_no_crash)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("unmapped", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;
	long res;

	hold_read(ctx, &iocb, fd, buf);
	CHECK_EQ(munmap(buf, 4096), 0);
	t_stall_release();
	/* The kernel has pinned the page; whoever copies at the end finds no memory. */
	res = t_reap_one(ctx);
	if (DIFFERS("buffer-unmapped-in-flight"))
		CHECK(res == 4096 || res == -EFAULT);
	else
		CHECK_EQ(res, 4096);
}

static void *submit_and_leave(void *arg)
{
	static struct iocb iocb;
	static char *buf;

	buf = t_pages(4096);
	io_prep_pread(&iocb, t_stall_file("thread", 65536, O_RDONLY | O_DIRECT), buf, 4096, 4096);
	iocb.data = buf;
	t_stall_hold();
	CHECK_RET(t_submit(arg, &iocb), 1);
	return NULL;
}

TEST(submitting_thread_may_end)
{
	io_context_t ctx = t_context(8);
	struct io_event event;

	t_join(t_thread(submit_and_leave, ctx));
	t_stall_release();
	t_reap(ctx, 1, &event);
	CHECK_EQ(t_res(&event), 4096);
	t_check_pattern(event.data, 4096, 0, 4096);
}

static void *make_context(void *arg)
{
	CHECK_RET(io_setup(8, arg), 0);
	return NULL;
}

TEST(thread_that_made_the_context_may_end)
{
	io_context_t ctx = NULL;
	char byte;

	t_join(t_thread(make_context, &ctx));
	CHECK_RET(t_pread(ctx, t_file("data", 64), &byte, 1, 0), 1);
	CHECK_RET(io_destroy(ctx), 0);
}
