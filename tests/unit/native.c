/* native.c - requests on their way to a kernel AIO that does what the test says, and back. */
#include "fake_aio.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/statfs.h>

#include "libaio_shim.h"

static struct f_context *const hidden = &f_contexts[0];

TEST(direct_reads_go_down_with_nowait_and_come_back)
{
	io_context_t ctx;
	struct io_event events[4];

	f_install();
	ctx = t_context(4);
	f_prepare_reads(f_direct_file(65536), 4);
	CHECK_RET(io_submit(ctx, 4, f_list), 4);
	CHECK_EQ(hidden->submitted, 4);
	for (int i = 0; i < 4; i++) {
		CHECK(hidden->pending[i]->rw_flags & 8 /* RWF_NOWAIT */);
		CHECK_EQ(hidden->pending[i]->buf, f_iocbs[i].u.c.buf);
		CHECK_EQ(hidden->pending[i]->nbytes, 8192);
		CHECK_EQ(hidden->pending[i]->offset, i * 8192);
	}
	for (int i = 3; i >= 0; i--)
		f_finish(hidden, i, 8192);
	t_reap(ctx, 4, events);
	for (int i = 0; i < 4; i++) {
		CHECK(events[i].obj == &f_iocbs[3 - i]);
		CHECK_EQ(events[i].res, 8192);
	}
}

static unsigned asked;

/* Where it can be done: a transfer to nowhere is refused for that, not for its flags. */
static long nowait_is_known(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	if (n == 1 && iov->iov_base == (void *)1) {
		u_count(&asked);
		return -EINVAL;
	}
	return u_real.preadv2(fd, iov, n, offset, flags);
}

TEST(what_the_program_wants_done_without_waiting_does_not_wait_in_io_submit)
{
	struct io_event events[4];
	io_context_t ctx;

	f_install();
	las_sys.preadv2 = nowait_is_known;
	ctx = t_context(4);
	f_prepare_reads(f_direct_file(65536), 4);
	for (int i = 0; i < 4; i++)
		f_iocbs[i].aio_rw_flags = 8; /* RWF_NOWAIT */
	CHECK_RET(io_submit(ctx, 4, f_list), 4);
	CHECK_EQ(hidden->submitted, 4);
	CHECK_EQ(t_ring_count(ctx), 0);
	CHECK_EQ(asked, 1); /* once for a file and a call */
	f_finish(hidden, 0, 8192);
	f_finish(hidden, 1, -EAGAIN); /* the program's to see */
	f_finish(hidden, 2, 4096);
	f_finish(hidden, 3, 8192);
	t_reap(ctx, 4, events);
	for (int i = 0; i < 4; i++) {
		static const long results[] = { 8192, -EAGAIN, 4096, 8192 };

		CHECK_EQ(t_res(&events[i]), results[(struct iocb *)events[i].obj - f_iocbs]);
	}
}

static int odd(struct f_context *c, const struct las_iocb *iocb)
{
	return iocb->offset % 16384 ? -EOPNOTSUPP : 0;
}

TEST(what_the_kernel_refuses_at_once_is_run_by_the_crew)
{
	io_context_t ctx;
	struct io_event events[4];

	f_install();
	f_refuse = odd;
	ctx = t_context(4);
	f_prepare_reads(f_direct_file(65536), 4);
	CHECK_RET(io_submit(ctx, 4, f_list), 4);
	CHECK_EQ(hidden->submitted, 2);
	f_finish(hidden, 0, 8192);
	f_finish(hidden, 1, 8192);
	t_reap(ctx, 4, events);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(events[i].res, 8192);
	t_check_pattern(f_buffers + 8192, 8192, 0, 8192);
	t_check_pattern(f_buffers + 3 * 8192, 8192, 0, 3 * 8192);
}

TEST(what_comes_back_with_eagain_is_run_by_the_crew)
{
	io_context_t ctx;
	struct io_event events[2];

	f_install();
	ctx = t_context(4);
	f_prepare_reads(f_direct_file(65536), 2);
	CHECK_RET(io_submit(ctx, 2, f_list), 2);
	f_finish(hidden, 0, -EAGAIN);
	f_finish(hidden, 1, -EAGAIN);
	t_reap(ctx, 2, events);
	CHECK_EQ(events[0].res, 8192);
	CHECK_EQ(events[1].res, 8192);
	t_check_pattern(f_buffers, 16384, 0, 0);
}

TEST(a_transfer_that_stopped_halfway_is_finished)
{
	io_context_t ctx;
	struct io_event event;

	f_install();
	ctx = t_context(4);
	f_prepare_reads(f_direct_file(65536), 1);
	CHECK_RET(io_submit(ctx, 1, f_list), 1);
	t_fill(f_buffers, 4096, 0, 0); /* the half that the kernel did */
	f_finish(hidden, 0, 4096);
	t_reap(ctx, 1, &event);
	CHECK_EQ(event.res, 8192);
	t_check_pattern(f_buffers, 8192, 0, 0);
}

static bool switched;

static long say_direct_until_switched(int fd, int cmd, uintptr_t arg)
{
	long ret = u_real.fcntl(fd, cmd, arg);

	return cmd == F_GETFL && ret >= 0 && !switched ? ret | O_DIRECT : ret;
}

static long switch_and_write(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	switched = true;
	return u_real.pwritev2(fd, iov, n, offset, flags);
}

TEST(what_was_appended_while_o_direct_was_switched_off_is_there_once)
{
	int fd = t_open("appended", O_RDWR | O_CREAT | O_APPEND);
	io_context_t ctx;

	f_install();
	las_sys.fcntl = say_direct_until_switched;
	las_sys.pwritev2 = switch_and_write;
	ctx = t_context(1);
	CHECK_RET(t_pwrite(ctx, fd, "appended", 8, 0), 8);
	CHECK(switched);
	CHECK_EQ(lseek(fd, 0, SEEK_END), 8);
}

static unsigned syncs;

static long interrupted_once(int fd)
{
	return syncs++ ? 0 : -EINTR;
}

TEST(a_sync_that_was_interrupted_is_made_again)
{
	int fd = t_file("synced", 1);
	struct iocb iocb;
	io_context_t ctx;

	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	las_sys.fsync = las_sys.fdatasync = interrupted_once;
	ctx = t_context(1);
	io_prep_fsync(&iocb, fd);
	CHECK_RET(t_run(ctx, &iocb), 0);
	CHECK_EQ(syncs, 2);
	syncs = 0;
	io_prep_fdsync(&iocb, fd);
	CHECK_RET(t_run(ctx, &iocb), 0);
	CHECK_EQ(syncs, 2);
}

TEST(a_descriptor_closed_meanwhile_does_not_matter)
{
	io_context_t ctx;
	struct io_event event;
	int fd;

	f_install();
	ctx = t_context(4);
	fd = f_direct_file(65536);
	f_prepare_reads(fd, 1);
	CHECK_RET(io_submit(ctx, 1, f_list), 1);
	t_close(fd);
	CHECK_EQ(t_open("/dev/zero", O_RDONLY), fd); /* the number is taken again at once */
	f_finish(hidden, 0, -EAGAIN);
	t_reap(ctx, 1, &event);
	CHECK_EQ(event.res, 8192);
	t_check_pattern(f_buffers, 8192, 0, 0);
}

TEST(hidden_contexts_are_used_again_and_never_destroyed)
{
	struct iocb iocb;
	int ends[2];

	f_install();
	u_pipe(ends);
	for (int round = 0; round < 20; round++) {
		io_context_t ctx = NULL;
		struct io_event event;

		CHECK_RET(io_setup(8, &ctx), 0);
		io_prep_poll(&iocb, ends[0], POLLIN);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		f_finish(hidden, round, POLLIN);
		t_reap(ctx, 1, &event);
		CHECK_EQ(event.res, POLLIN);
		CHECK_RET(io_destroy(ctx), 0); /* fake_destroy() fails the test */
	}
	CHECK_EQ(f_context_count, 1);
}

TEST(destroy_cancels_pending_polls)
{
	io_context_t ctx = NULL;
	struct iocb polls[10];
	int ends[2];

	f_install();
	u_pipe(ends);
	CHECK_RET(io_setup(10, &ctx), 0);
	for (int i = 0; i < 10; i++) {
		io_prep_poll(&polls[i], ends[0], POLLIN);
		CHECK_RET(t_submit(ctx, &polls[i]), 1);
	}
	CHECK_EQ(hidden->submitted, 10);
	CHECK_RET(io_destroy(ctx), 0);
	for (int i = 0; i < 10; i++)
		CHECK(hidden->pending[i] == NULL);
}

static long no_kernel_aio(unsigned nr, uintptr_t *handle)
{
	return -ENOSYS;
}

TEST(without_kernel_aio_everything_is_done_elsewhere)
{
	io_context_t ctx;
	struct io_event events[4];
	struct iocb poll;
	int ends[2];

	f_install();
	las_sys.io_setup = no_kernel_aio;
	ctx = t_context(8);
	f_prepare_reads(f_direct_file(65536), 3);
	CHECK_RET(io_submit(ctx, 3, f_list), 3);
	u_pipe(ends);
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &poll), 1);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, 4, events);
	t_check_pattern(f_buffers, 3 * 8192, 0, 0);
}

/* ---- who moves events on: a leader in the kernel, and the reaper beside it ---- */

TEST(without_a_thread_to_spare_nothing_waits_for_one_in_the_hidden_ring)
{
	io_context_t ctx;
	struct iocb read_it;
	struct io_event event;
	uint64_t count;
	int efd;

	f_install();
	las_sys.thread_start = u_refuse_thread;
	ctx = t_context(4);
	efd = t_own(eventfd(0, 0));
	f_buffers = t_pages(4096);
	io_prep_pread(&read_it, f_direct_file(65536), f_buffers, 4096, 0);
	io_set_eventfd(&read_it, efd);
	CHECK_RET(t_submit(ctx, &read_it), 1);
	CHECK_EQ(read(efd, &count, sizeof(count)), sizeof(count));
	t_reap(ctx, 1, &event);
	CHECK_EQ(event.res, 4096);
}

/* ---- writes that NOWAIT refuses because they change the file's map, on what counts as a disk ---- */

static long (*fake_submit)(uintptr_t handle, long nr, struct las_iocb **iocbs);
static pthread_t submitter;
static bool begins_block;

static long all_direct(int fd, int cmd, uintptr_t arg)
{
	long ret = u_real.fcntl(fd, cmd, arg);

	return cmd == F_GETFL && ret >= 0 ? ret | O_DIRECT : ret;
}

static long say_ext4(int fd, struct statfs *st)
{
	long err = u_real.fstatfs(fd, st);

	st->f_type = 0xef53;
	return err;
}

static long say_disk(int fd, struct stat *st)
{
	long err = u_real.fstat(fd, st);

	st->st_dev = 0xfd00; /* 253:0 */
	return err;
}

/*
 * A write with NOWAIT is refused by its event before io_submit returns; without, the program's thread may block.  They
 * come one by one, and may be another request's memory once they are accepted.
 */
static long refuse_nowait(uintptr_t handle, long nr, struct las_iocb **submitted)
{
	const struct timespec long_enough = { .tv_nsec = 50 * 1000 * 1000 };
	bool nowait = submitted[0]->rw_flags & 8 /* RWF_NOWAIT */;
	long n = fake_submit(handle, nr, submitted);

	if (n == 1 && nowait)
		f_finish(hidden, hidden->submitted - 1, -EAGAIN);
	else if (n == 1 && begins_block && pthread_equal(pthread_self(), submitter))
		nanosleep(&long_enough, NULL);
	return n;
}

static int file_with_holes(void)
{
	submitter = pthread_self();
	las_sys.fcntl = all_direct;
	las_sys.fstatfs = say_ext4;
	las_sys.fstat = say_disk;
	fake_submit = las_sys.io_submit;
	las_sys.io_submit = refuse_nowait;
	return t_file("holes", 65536);
}

static void write_block(io_context_t ctx, int fd, int i)
{
	if (!f_buffers)
		f_buffers = t_pages(8192);
	t_fill(f_buffers + 4096 * (i % 2), 4096, 7, (size_t)i * 4096);
	io_prep_pwrite(&f_iocbs[i], fd, f_buffers + 4096 * (i % 2), 4096, i * 4096);
	CHECK_RET(t_submit(ctx, &f_iocbs[i]), 1);
}

/* The i-th iocb of the hidden context is a write that may block, and this is its end. */
static void finish_write(io_context_t ctx, int i, int64_t res)
{
	struct io_event event;

	f_await_submitted(hidden, i + 1);
	CHECK_EQ(hidden->pending[i]->rw_flags, 0);
	f_finish(hidden, i, res);
	t_reap(ctx, 1, &event);
	CHECK_EQ((long)event.res, res);
}

TEST(a_write_that_nowait_refuses_is_begun_by_who_submits_it)
{
	struct las_stats stats;
	io_context_t ctx;
	int fd;

	f_install();
	fd = file_with_holes();
	ctx = t_context(4);
	for (int i = 0; i < 2; i++) {
		write_block(ctx, fd, i);
		CHECK_EQ(hidden->submitted, 2 * i + 2);
		CHECK_EQ(hidden->pending[2 * i + 1]->fildes, fd);
		finish_write(ctx, 2 * i + 1, i ? 512 : 4096); /* a short one is the kernel's answer */
	}
	las_stats_get(&stats, sizeof(stats));
	CHECK_EQ(stats.crew, 0);
}

/* A file with holes on a context: its first write, which the program has begun, has blocked; the crew begins the next. */
static int file_after_a_write_that_blocked(io_context_t *ctx)
{
	int fd;

	f_install();
	fd = file_with_holes();
	*ctx = t_context(4);
	begins_block = true;
	write_block(*ctx, fd, 0);
	finish_write(*ctx, 1, 4096);
	return fd;
}

TEST(after_one_that_blocked_the_crew_begins_such_writes)
{
	io_context_t ctx;
	int fd, other;

	fd = file_after_a_write_that_blocked(&ctx);
	write_block(ctx, fd, 1);
	t_close(fd);
	other = t_open("/dev/zero", O_RDONLY);
	CHECK_EQ(other, fd); /* the number is taken again at once */
	f_await_submitted(hidden, 4);
	CHECK(hidden->pending[3]->fildes != (uint32_t)fd);
	finish_write(ctx, 3, 4096);
}

static volatile sig_atomic_t too_large;

static void on_sigxfsz(int sig)
{
	too_large++;
}

/* What would be begun beyond the limit raises SIGXFSZ in a thread that would not know. */
TEST(a_write_at_the_size_limit_is_run_by_the_crew_and_raises_its_signal)
{
	struct rlimit limit = { 4096, 4096 };
	struct io_event event;
	io_context_t ctx;
	int fd;

	fd = file_after_a_write_that_blocked(&ctx);
	signal(SIGXFSZ, on_sigxfsz);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	write_block(ctx, fd, 1);
	t_reap(ctx, 1, &event);
	CHECK_EQ((long)event.res, -EFBIG);
	CHECK_EQ(hidden->submitted, 3);
	CHECK_EQ(too_large, 1);
}

/* It is behind the writes that were submitted before it, whoever carries them out. */
TEST(an_fsync_waits_for_a_write_that_the_crew_has_begun)
{
	struct io_event event;
	struct iocb sync;
	io_context_t ctx;
	int fd;

	fd = file_after_a_write_that_blocked(&ctx);
	write_block(ctx, fd, 1);
	io_prep_fsync(&sync, fd);
	CHECK_RET(t_submit(ctx, &sync), 1);
	finish_write(ctx, 3, 4096);
	t_reap(ctx, 1, &event); /* run by the crew, behind the write */
	CHECK(event.obj == &sync);
	CHECK_EQ((long)event.res, 0);
}

static int only_nowait(struct f_context *c, const struct las_iocb *iocb)
{
	return iocb->rw_flags & 8 ? 0 : -EAGAIN;
}

TEST(where_the_hidden_ring_is_full_the_crew_writes_by_itself)
{
	struct io_event events[2];
	io_context_t ctx;
	char *back;
	int fd;

	f_install();
	f_refuse = only_nowait;
	fd = file_with_holes();
	ctx = t_context(4);
	for (int i = 0; i < 2; i++)
		write_block(ctx, fd, i);
	t_reap(ctx, 2, events);
	back = t_pages(8192);
	CHECK_EQ(pread(fd, back, 8192, 0), 8192);
	t_check_pattern(back, 8192, 7, 0);
}
