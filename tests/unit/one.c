/* one.c - las_io_submit_one(): what is complete at once comes back as the result, everything else as an event. */
#include "unit.h"

#include <linux/fs.h>

#include "libaio_shim.h"

static int cold_fd = -1;
static size_t warm_bytes; /* so many of its bytes can be had without waiting */

static long cold_preadv2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	struct iovec some;

	if (fd != cold_fd || !(flags & RWF_NOWAIT))
		return u_real.preadv2(fd, iov, n, offset, flags);
	if (offset < 0 || (size_t)offset >= warm_bytes || n == 0)
		return -EAGAIN;
	some = iov[0];
	if (some.iov_len > warm_bytes - (size_t)offset)
		some.iov_len = warm_bytes - (size_t)offset;
	return u_real.preadv2(fd, &some, 1, offset, 0);
}

static struct iocb iocb;
static struct io_event event;

/* As a binding does it, which looks for LAS_KEY_RETURNED: the key is 0 before. */
static long read_one(io_context_t ctx, int fd, void *buf, size_t bytes, long long offset)
{
	io_prep_pread(&iocb, fd, buf, bytes, offset);
	return las_io_submit_one(ctx, &iocb);
}

static long submitted_then(io_context_t ctx, long ret)
{
	CHECK_EQ(ret, LAS_SUBMITTED);
	CHECK_EQ(iocb.key, 0);
	return t_reap_one(ctx);
}

TEST(what_is_cached_is_returned_and_leaves_no_event)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("cached", 65536), raised = t_own(eventfd(0, EFD_NONBLOCK));
	char *data = t_pages(65536);
	struct las_stats stats;
	uint64_t count;

	/* Far more than the ring has room for: none takes any. */
	for (int i = 0; i < 3000; i++) {
		io_prep_pread(&iocb, fd, data + i % 16 * 4096, 4096, i % 16 * 4096);
		io_set_eventfd(&iocb, raised);
		CHECK_RET(las_io_submit_one(ctx, &iocb), 4096);
		CHECK_EQ(iocb.key, LAS_KEY_RETURNED);
	}
	t_check_pattern(data, 65536, 0, 0);
	t_no_event(ctx);
	CHECK_EQ(t_ring(ctx)->tail, 0);
	CHECK_EQ(read(raised, &count, sizeof(count)), -1);
	CHECK_EQ(las_stats_get(&stats, sizeof(stats)), sizeof(stats));
	CHECK_EQ(stats.submitted, 3000);
	CHECK_EQ(stats.head, 3000);
	/* Those that were returned are no candidates for being taken back. */
	CHECK_RET(las_io_cancel(ctx, &iocb, &event), -EINVAL);
}

TEST(the_end_of_the_file_and_nothing_are_returned)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("cached", 5000);
	char *data = t_pages(8192);

	CHECK_RET(read_one(ctx, fd, data, 4096, 4096), 904);
	t_check_pattern(data, 904, 0, 4096);
	CHECK_RET(read_one(ctx, fd, data, 4096, 5000), 0);
	CHECK_EQ(iocb.key, LAS_KEY_RETURNED);
	CHECK_RET(read_one(ctx, fd, data, 0, 0), 0);
	io_prep_pwrite(&iocb, fd, data, 100, 0);
	io_set_eventfd(&iocb, 999); /* which nobody looks at */
	CHECK_RET(las_io_submit_one(ctx, &iocb), 100);
	t_no_event(ctx);
}

TEST(what_would_block_is_submitted_and_comes_whole)
{
	io_context_t ctx = t_context(1);
	int raised = t_own(eventfd(0, EFD_NONBLOCK));
	char *data = t_pages(8192);
	uint64_t count;

	las_sys.preadv2 = cold_preadv2;
	cold_fd = t_file("cold", 8192);
	CHECK_EQ(submitted_then(ctx, read_one(ctx, cold_fd, data, 8192, 0)), 8192);
	t_check_pattern(data, 8192, 0, 0);
	memset(data, 0, 8192);
	warm_bytes = 1000; /* a part is no result */
	CHECK_EQ(submitted_then(ctx, read_one(ctx, cold_fd, data, 8192, 0)), 8192);
	t_check_pattern(data, 8192, 0, 0);
	io_prep_pread(&iocb, cold_fd, data, 8192, 0);
	io_set_eventfd(&iocb, raised);
	CHECK_EQ(submitted_then(ctx, las_io_submit_one(ctx, &iocb)), 8192);
	while (read(raised, &count, sizeof(count)) != sizeof(count))
		usleep(100);
	CHECK_EQ(count, 1);
	warm_bytes = 8192;
	CHECK_RET(read_one(ctx, cold_fd, data, 8192, 0), 8192);
	CHECK_EQ(iocb.key, LAS_KEY_RETURNED);
	t_no_event(ctx);
}

TEST(a_failure_is_an_event)
{
	io_context_t ctx = t_context(1);
	int ends[2], fd = t_file("cached", 4096);
	char byte;

	u_pipe(ends);
	CHECK_EQ(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	/* EAGAIN of the file's, which is not the ring's. */
	CHECK_EQ(submitted_then(ctx, read_one(ctx, ends[0], &byte, 1, 0)), -EAGAIN);
	CHECK_EQ(submitted_then(ctx, read_one(ctx, fd, t_no_access(), 1, 0)), -EFAULT);
}

TEST(what_io_submit_refuses_is_refused)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("cached", 4096);
	struct iocb *one = &iocb;
	char data[64];
	long ret;

	CHECK_RET(las_io_submit_one(ctx, NULL), -EFAULT);
	CHECK_RET(read_one(ctx, 999, data, 8, 0), -EBADF);
	CHECK_RET(read_one(ctx, fd, data, 8, -1), -EINVAL);
	CHECK_RET(read_one((io_context_t)(void *)data, fd, data, 8, 0), -EINVAL);
	io_prep_pread(&iocb, fd, data, 8, 0);
	iocb.key = 7;
	CHECK_RET(las_io_submit_one(ctx, t_read_only(&iocb, sizeof(iocb))), -EFAULT);
	/* A full ring. */
	while ((ret = las_io_submit(ctx, 1, &one)) == 1)
		;
	CHECK_RET(ret, -EAGAIN);
	CHECK_RET(read_one(ctx, fd, data, 8, 0), -EAGAIN);
	CHECK_EQ(iocb.key, 0);
	t_reap_one(ctx);
	CHECK_RET(read_one(ctx, fd, data, 8, 0), 8);
	CHECK_RET(read_one(ctx, fd, data, 8, 0), 8);
	CHECK_RET(las_io_submit(ctx, 1, &one), 1);
	CHECK_RET(las_io_submit(ctx, 1, &one), -EAGAIN);
}

TEST(bytes_of_a_stream_come_once_and_in_order)
{
	io_context_t ctx = t_context(8);
	struct iocb first;
	char a[2], b[2];
	int ends[2];

	u_pipe(ends);
	CHECK_EQ(write(ends[1], "abcd", 4), 4);
	CHECK_RET(read_one(ctx, ends[0], a, 2, 0), 2);
	CHECK_RET(read_one(ctx, ends[0], b, 2, 0), 2);
	CHECK(!memcmp(a, "ab", 2) && !memcmp(b, "cd", 2));
	io_prep_pread(&first, ends[0], a, 2, 0);
	CHECK_RET(las_io_submit_one(ctx, &first), LAS_SUBMITTED);
	/* The second has to wait behind the first, also when there is something for it. */
	CHECK_RET(read_one(ctx, ends[0], b, 2, 0), LAS_SUBMITTED);
	CHECK_EQ(write(ends[1], "efgh", 4), 4);
	CHECK_EQ(t_reap_one(ctx), 2);
	CHECK_EQ(t_reap_one(ctx), 2);
	CHECK(!memcmp(a, "ef", 2) && !memcmp(b, "gh", 2));
}

static void *wait_for_one(void *arg)
{
	CHECK_RET(io_getevents(arg, 1, 4, &event, NULL), 1);
	return NULL;
}

TEST(who_waits_for_an_event_is_not_given_one)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("cached", 4096);
	struct iocb other, *list = &other;
	char data[8];
	pthread_t thread = t_thread(wait_for_one, ctx);

	for (int i = 0; i < 1000; i++)
		CHECK_RET(read_one(ctx, fd, data, 8, 0), 8);
	io_prep_pread(&other, fd, data, 7, 0);
	CHECK_RET(las_io_submit(ctx, 1, &list), 1);
	t_join(thread);
	CHECK_EQ(t_res(&event), 7);
	CHECK(event.obj == &other);
	t_no_event(ctx);
}

TEST(without_the_head_lane_nothing_is_tried_in_the_caller)
{
	io_context_t ctx;
	char data[8];

	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	ctx = t_context(1);
	CHECK_EQ(submitted_then(ctx, read_one(ctx, t_file("cached", 4096), data, 8, 0)), 8);
}

TEST(nor_after_fork)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("cached", 4096);
	char data[8];
	pid_t pid;

	if (U_TSAN)
		SKIP("n/a: ThreadSanitizer knows nothing of what a forked child does");
	CHECK_RET(read_one(ctx, fd, data, 8, 0), 8);
	pid = fork();
	if (pid == 0)
		_exit(read_one(ctx, fd, data, 8, 0) != -EINVAL);
	t_wait_ok(pid);
	CHECK_RET(read_one(ctx, fd, data, 8, 0), 8);
}
