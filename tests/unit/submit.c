/* submit.c - what becomes of a request inside io_submit: by the head, by the crew, here after all, or refused. */
#include "unit.h"

#include <linux/fs.h>
#include <poll.h>
#include <sys/mman.h>

#include "libaio_shim.h"

/* ---- a file whose pages are never there: NOWAIT reads of it fail, or move only so much ---- */

static int cold_fd = -1;
static size_t warm_bytes; /* so many of its bytes can be had without waiting */
static unsigned cold_runs;

static long cold_preadv2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	struct iovec some;

	if (!(flags & RWF_NOWAIT)) {
		u_count(&cold_runs);
		return u_real.preadv2(fd, iov, n, offset, flags);
	}
	if (fd != cold_fd)
		return u_real.preadv2(fd, iov, n, offset, flags);
	if (offset < 0 || (size_t)offset >= warm_bytes || n == 0)
		return -EAGAIN;
	some = iov[0];
	if (some.iov_len > warm_bytes - (size_t)offset)
		some.iov_len = warm_bytes - (size_t)offset;
	return u_real.preadv2(fd, &some, 1, offset, 0);
}

static int cold_file(size_t bytes)
{
	cold_fd = t_file("cold", bytes);
	las_sys.preadv2 = cold_preadv2;
	return cold_fd;
}

static struct iocb iocbs[512], *list[512];
static struct io_event events[512];
static char *data;

static void prepare_reads(int fd, int n, size_t bytes)
{
	data = t_pages((size_t)n * bytes);
	for (int i = 0; i < n; i++)
		io_prep_pread(list[i] = &iocbs[i], fd, data + (size_t)i * bytes, bytes,
		              (long long)i * (long long)bytes);
}

static void check_reads(int n, size_t bytes)
{
	for (int i = 0; i < n; i++)
		CHECK_EQ(events[i].res, bytes);
	t_check_pattern(data, (size_t)n * bytes, 0, 0);
}

TEST(what_is_cached_is_an_event_when_io_submit_returns)
{
	io_context_t ctx = t_context(16);

	prepare_reads(t_file("cached", 65536), 16, 4096);
	CHECK_RET(io_submit(ctx, 16, list), 16);
	CHECK_RET(io_getevents(ctx, 16, 16, events, &(struct timespec){ 0, 0 }), 16);
	check_reads(16, 4096);
}

TEST(what_would_block_is_run_by_the_crew)
{
	io_context_t ctx = t_context(16);

	prepare_reads(cold_file(65536), 16, 4096);
	CHECK_RET(io_submit(ctx, 16, list), 16);
	t_reap(ctx, 16, events);
	check_reads(16, 4096);
	CHECK_EQ(cold_runs, 16);
}

TEST(what_was_read_already_is_not_read_again)
{
	io_context_t ctx = t_context(16);
	struct iovec iov[7];

	cold_file(65536);
	data = t_pages(65536);
	/* Every length of the part that is there, over segments of odd sizes. */
	for (warm_bytes = 0; warm_bytes < 7 * 100; warm_bytes += 13) {
		memset(data, 0, 700);
		for (int i = 0; i < 7; i++)
			iov[i] = (struct iovec){ data + i * 100, 100 };
		io_prep_preadv(&iocbs[0], cold_fd, iov, 7, 0);
		CHECK_EQ(t_run(ctx, &iocbs[0]), 700);
		t_check_pattern(data, 700, 0, 0);
	}
}

TEST(a_read_ends_short_at_the_end_of_the_file_and_nowhere_else)
{
	io_context_t ctx = t_context(16);

	cold_file(1000);
	data = t_pages(8192);
	for (warm_bytes = 0; warm_bytes <= 1000; warm_bytes += 250) {
		CHECK_EQ(t_pread(ctx, cold_fd, data, 8192, 0), 1000);
		t_check_pattern(data, 1000, 0, 0);
		CHECK_EQ(t_pread(ctx, cold_fd, data, 8192, 900), 100);
		CHECK_EQ(t_pread(ctx, cold_fd, data, 8192, 1000), 0);
		CHECK_EQ(t_pread(ctx, cold_fd, data, 8192, 5000), 0);
	}
}

TEST(without_any_thread_everything_is_still_done)
{
	io_context_t ctx = t_context(32);

	las_sys.thread_start = u_refuse_thread;
	prepare_reads(cold_file(65536), 16, 4096);
	CHECK_RET(io_submit(ctx, 16, list), 16);
	/* Waiting for less than everything: whoever waits for all may help himself, this one may not. */
	for (int i = 0; i < 16; i++)
		t_reap(ctx, 1, &events[i]);
	check_reads(16, 4096);
}

TEST(without_any_thread_a_program_that_only_peeks_is_served)
{
	io_context_t ctx = t_context(32);

	las_sys.thread_start = u_refuse_thread;
	prepare_reads(cold_file(65536), 16, 4096);
	CHECK_RET(io_submit(ctx, 16, list), 16);
	t_ring_wait(ctx, 16);
	t_reap(ctx, 16, events);
	check_reads(16, 4096);
}

static long no_duplicates(int fd, int cmd, uintptr_t arg)
{
	return cmd == F_DUPFD_CLOEXEC ? -EMFILE : u_real.fcntl(fd, cmd, arg);
}

TEST(without_a_descriptor_to_spare_requests_on_files_are_run_in_the_caller)
{
	io_context_t ctx = t_context(32);

	prepare_reads(cold_file(65536), 16, 4096);
	las_sys.fcntl = no_duplicates;
	CHECK_RET(io_submit(ctx, 16, list), 16);
	CHECK_RET(io_getevents(ctx, 16, 16, events, &(struct timespec){ 0, 0 }), 16);
	check_reads(16, 4096);
}

TEST(without_a_descriptor_to_spare_what_may_wait_for_ever_is_told_to_come_again)
{
	io_context_t ctx;
	struct iocb poll, read;
	char byte;
	int ends[2];

	setenv("LIBAIO_SHIM_LANES", "head,crew", 1);
	ctx = t_context(4);
	u_pipe(ends);
	las_sys.fcntl = no_duplicates;
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &poll), -EAGAIN);
	io_prep_pread(&read, ends[0], &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &read), -EAGAIN);
	las_sys.fcntl = u_real.fcntl;
	CHECK_RET(t_submit(ctx, &read), 1);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK_EQ(t_reap_one(ctx), 1);
}

static void *no_memory(void *addr, size_t bytes, int prot, int flags)
{
	return NULL;
}

TEST(a_context_of_depth_n_takes_n_without_memory_or_fails_to_be_made)
{
	io_context_t ctx = t_context(500), none = NULL;

	prepare_reads(cold_file(500 * 128), 500, 128);
	las_sys.mmap = no_memory; /* what was promised is there */
	CHECK_RET(io_submit(ctx, 500, list), 500);
	t_reap(ctx, 500, events);
	check_reads(500, 128);
	CHECK_RET(io_setup(60000, &none), -ENOMEM);
	CHECK(none == NULL);
}

/* ---- errors, and where a batch stops ---- */

TEST(a_batch_stops_at_the_first_that_is_refused)
{
	io_context_t ctx = t_context(16);
	struct iocb bad;

	prepare_reads(t_file("cached", 65536), 3, 4096);
	io_prep_pread(&bad, 999, data, 1, 0);
	list[1] = &bad;
	CHECK_RET(io_submit(ctx, 3, list), 1);
	CHECK_RET(io_submit(ctx, 2, list + 1), -EBADF);
	CHECK_RET(io_submit(ctx, 1, list + 2), 1);
	t_reap(ctx, 2, events);
	list[1] = NULL;
	CHECK_RET(io_submit(ctx, 3, list), 1);
	CHECK_RET(io_submit(ctx, 2, list + 1), -EFAULT);
	CHECK_EQ(t_reap_one(ctx), 4096);
}

TEST(a_refused_request_gives_its_slot_back)
{
	io_context_t ctx = t_context(1);
	struct iocb bad, *bads[1] = { &bad };

	io_prep_pread(&bad, 999, NULL, 1, 0);
	for (int i = 0; i < 1000; i++)
		CHECK_RET(io_submit(ctx, 1, bads), -EBADF);
	prepare_reads(t_file("cached", 65536), 126, 8);
	CHECK_RET(io_submit(ctx, 126, list), 126);
	/* Full: that is told before anything is looked at but the iocb. */
	CHECK_RET(io_submit(ctx, 1, bads), -EAGAIN);
	bad.u.c.__pad3 = 1;
	CHECK_RET(io_submit(ctx, 1, bads), -EINVAL);
	CHECK_RET(io_submit(ctx, 1, NULL), -EFAULT);
}

TEST(the_key_is_written_and_an_iocb_in_constant_memory_refused)
{
	io_context_t ctx = t_context(16);
	struct iocb *constant;

	prepare_reads(t_file("cached", 4096), 1, 4096);
	constant = t_read_only(&iocbs[0], sizeof(iocbs[0]));
	CHECK_RET(t_submit(ctx, constant), -EFAULT);
	iocbs[0].key = 77;
	CHECK_EQ(t_run(ctx, &iocbs[0]), 4096);
	CHECK_EQ(iocbs[0].key, 0);
}

/* ---- eventfds ---- */

static uint64_t count_of(int fd)
{
	uint64_t count = 0;

	if (read(fd, &count, 8) < 0)
		CHECK_EQ(errno, EAGAIN);
	return count;
}

TEST(more_eventfds_in_one_call_than_are_remembered_are_each_raised_exactly)
{
	io_context_t ctx = t_context(64);
	int fds[20];

	prepare_reads(t_file("cached", 65536), 60, 1024);
	for (int i = 0; i < 20; i++)
		fds[i] = t_own(eventfd(0, EFD_NONBLOCK));
	for (int i = 0; i < 60; i++)
		io_set_eventfd(&iocbs[i], fds[i * 7 % 20]);
	CHECK_RET(io_submit(ctx, 60, list), 60);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(count_of(fds[i]), 3);
	t_reap(ctx, 60, events);
}

TEST(cold_requests_raise_their_eventfd_once_each)
{
	io_context_t ctx = t_context(64);
	int fd = t_own(eventfd(0, EFD_NONBLOCK));
	uint64_t sum = 0;

	prepare_reads(cold_file(65536), 16, 4096);
	for (int i = 0; i < 16; i++)
		io_set_eventfd(&iocbs[i], fd);
	CHECK_RET(io_submit(ctx, 16, list), 16);
	while (sum < 16) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t more;

		CHECK_EQ(poll(&p, 1, 5000), 1);
		more = count_of(fd);
		/* What it counts can be seen. */
		CHECK(t_ring_count(ctx) >= sum + more);
		sum += more;
	}
	t_sleep_ms(10);
	CHECK_EQ(count_of(fd), 0);
	t_reap(ctx, 16, events);
	check_reads(16, 4096);
}

TEST(an_eventfd_may_be_closed_after_io_submit)
{
	io_context_t ctx = t_context(64);
	int fd = t_own(eventfd(0, EFD_NONBLOCK)), again;

	prepare_reads(cold_file(4096), 1, 4096);
	io_set_eventfd(&iocbs[0], fd);
	again = t_own(dup(fd));
	CHECK_RET(t_submit(ctx, &iocbs[0]), 1);
	t_close(fd);
	CHECK_EQ(t_own(open("innocent", O_RDWR | O_CREAT, 0644)), fd);
	t_reap(ctx, 1, events);
	for (int tries = 0; count_of(again) != 1; tries++) {
		CHECK(tries < 5000);
		usleep(1000);
	}
	CHECK_EQ(lseek(fd, 0, SEEK_END), 0);
}

/* ---- another thread puts another file on a number while io_submit looks at it ---- */

static int changing = -1, taking_over = -1;

static long changed_fcntl(int fd, int cmd, uintptr_t arg)
{
	if (cmd == F_DUPFD_CLOEXEC && fd == changing && taking_over >= 0) {
		CHECK_EQ(dup2(taking_over, changing), changing);
		taking_over = -1;
	}
	return u_real.fcntl(fd, cmd, arg);
}

TEST(a_number_that_changes_hands_meanwhile_stands_for_one_file_or_the_other)
{
	io_context_t ctx = t_context(64);
	int other = t_file("other", 4096);

	prepare_reads(cold_file(4096), 1, 4096);
	changing = cold_fd;
	taking_over = other;
	las_sys.fcntl = changed_fcntl;
	CHECK_RET(t_submit(ctx, &iocbs[0]), 1);
	t_reap(ctx, 1, events);
	CHECK_EQ(taking_over, -1);
	check_reads(1, 4096);
	/* The harness sees that what was held is let go. */
}

TEST(an_eventfd_whose_number_changes_hands_meanwhile_has_nothing_written_over_it)
{
	io_context_t ctx = t_context(64);
	int fd = t_own(eventfd(0, EFD_NONBLOCK)), innocent = t_own(open("innocent", O_RDWR | O_CREAT, 0644));

	prepare_reads(cold_file(4096), 1, 4096);
	io_set_eventfd(&iocbs[0], fd);
	changing = fd;
	taking_over = innocent;
	las_sys.fcntl = changed_fcntl;
	CHECK_RET(t_submit(ctx, &iocbs[0]), 1);
	t_reap(ctx, 1, events);
	CHECK_EQ(taking_over, -1);
	check_reads(1, 4096);
	t_sleep_ms(10);
	CHECK_EQ(lseek(innocent, 0, SEEK_END), 0);
}

TEST(quiet_submission_raises_nothing_for_what_is_complete_already)
{
	io_context_t ctx = t_context(64);
	int fd = t_own(eventfd(0, EFD_NONBLOCK));

	prepare_reads(t_file("cached", 65536), 8, 1024);
	for (int i = 0; i < 8; i++)
		io_set_eventfd(&iocbs[i], fd);
	CHECK_RET(las_io_submit_quiet(ctx, 8, list), 8);
	t_reap(ctx, 8, events);
	CHECK_EQ(count_of(fd), 0);
	prepare_reads(cold_file(8192), 8, 1024);
	for (int i = 0; i < 8; i++)
		io_set_eventfd(&iocbs[i], fd);
	CHECK_RET(las_io_submit_quiet(ctx, 8, list), 8);
	for (uint64_t sum = 0; sum < 8; sum += count_of(fd))
		usleep(100);
	t_reap(ctx, 8, events);
}

TEST(only_an_eventfd_is_an_eventfd)
{
	io_context_t ctx = t_context(4);
	int others[4], ends[2];

	u_pipe(ends);
	prepare_reads(t_file("cached", 4096), 1, 8);
	others[0] = t_file("file", 8);
	others[1] = ends[1];
	others[2] = t_own(open("/dev/null", O_RDWR));
	others[3] = t_own(eventfd(0, 0));
	for (int i = 0; i < 3; i++) {
		io_set_eventfd(&iocbs[0], others[i]);
		CHECK_RET(t_submit(ctx, &iocbs[0]), -EINVAL);
	}
	io_set_eventfd(&iocbs[0], 999);
	CHECK_RET(t_submit(ctx, &iocbs[0]), -EBADF);
	io_set_eventfd(&iocbs[0], others[3]);
	CHECK_EQ(t_run(ctx, &iocbs[0]), 8);
	/* No byte was written into the file to find that out. */
	t_check_pattern(data, 8, 0, 0);
}

/* ---- what a program may do with its memory at once ---- */

TEST(iocbs_vectors_and_arrays_are_copied)
{
	io_context_t ctx = t_context(16);
	struct iovec iov[6];

	cold_file(65536);
	data = t_pages(65536);
	for (int i = 0; i < 6; i++)
		iov[i] = (struct iovec){ data + i * 100, 100 };
	for (int i = 0; i < 16; i++) {
		struct iocb on_stack, *one[1] = { &on_stack };

		io_prep_preadv(&on_stack, cold_fd, iov, 6, 0);
		on_stack.data = (void *)(uintptr_t)(i + 1);
		CHECK_RET(io_submit(ctx, 1, one), 1);
		memset(&on_stack, 0xff, sizeof(on_stack));
		one[0] = NULL;
	}
	memset(iov, 0xff, sizeof(iov));
	t_reap(ctx, 16, events);
	for (int i = 0; i < 16; i++)
		CHECK_EQ(events[i].res, 600);
	t_check_pattern(data, 600, 0, 0);
}

TEST(the_same_iocb_may_be_in_flight_many_times)
{
	io_context_t ctx = t_context(16);

	prepare_reads(cold_file(4096), 1, 4096);
	for (int i = 0; i < 16; i++)
		list[i] = &iocbs[0];
	CHECK_RET(io_submit(ctx, 16, list), 16);
	t_reap(ctx, 16, events);
	for (int i = 0; i < 16; i++)
		CHECK(events[i].obj == &iocbs[0]);
}

/* ---- O_DIRECT in memory ---- */

static int memory_fd = -1;
static unsigned started;

static long say_direct(int fd, int cmd, uintptr_t arg)
{
	long ret = u_real.fcntl(fd, cmd, arg);

	return cmd == F_GETFL && fd == memory_fd && ret >= 0 ? ret | O_DIRECT : ret;
}

static long no_kernel_aio(unsigned nr, uintptr_t *handle)
{
	return -ENOSYS;
}

static long counted_start(void *(*entry)(void *), void *arg)
{
	u_count(&started);
	return u_real.thread_start(entry, arg);
}

TEST(direct_transfers_in_memory_need_no_thread)
{
	io_context_t ctx;
	struct iocb iocb;
	char *buf;

	u_start();
	memory_fd = t_own(memfd_create("memory", MFD_CLOEXEC));
	las_sys.fcntl = say_direct;
	las_sys.io_setup = no_kernel_aio;
	ctx = t_context(4);
	buf = t_pages(4096);
	t_fill(buf, 4096, 0, 0);
	las_sys.thread_start = counted_start;
	io_prep_pwrite(&iocb, memory_fd, buf, 4096, 0);
	CHECK_EQ(t_run(ctx, &iocb), 4096);
	memset(buf, 0, 4096);
	io_prep_pread(&iocb, memory_fd, buf, 4096, 0);
	CHECK_EQ(t_run(ctx, &iocb), 4096);
	t_check_pattern(buf, 4096, 0, 0);
	CHECK_EQ(u_counted(&started), 0);
}
