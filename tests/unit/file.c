/* file.c - what is asked about a descriptor, how often, and what is assumed about it between two calls. */
#include "unit.h"

#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>

#include "lanes/file.h"
#include "lanes/predictor.h"
#include "libaio_shim.h"

static unsigned flag_reads, looks, duplicates;

static long counted_fcntl(int fd, int cmd, uintptr_t arg)
{
	if (cmd == F_GETFL)
		u_count(&flag_reads);
	if (cmd == F_DUPFD_CLOEXEC)
		u_count(&duplicates);
	return u_real.fcntl(fd, cmd, arg);
}

static long counted_fstat(int fd, struct stat *st)
{
	u_count(&looks);
	return u_real.fstat(fd, st);
}

static struct las_batch batch;

static void prepare(void)
{
	u_start();
	las_batch_init(&batch, false);
	las_sys.fcntl = counted_fcntl;
	las_sys.fstat = counted_fstat;
}

static struct las_file *file_of(int fd)
{
	struct las_file *file = NULL;

	CHECK_RET(las_batch_file(&batch, fd, &file), 0);
	CHECK_EQ(file->fd, fd);
	return file;
}

TEST(flags_are_read_once_per_descriptor_and_batch)
{
	int a = t_file("a", 1), b = t_file("b", 1);

	prepare();
	for (int i = 0; i < 100; i++)
		CHECK(file_of(i % 2 ? a : b)->flags & O_RDWR);
	CHECK_EQ(flag_reads, 2);
	CHECK_EQ(looks, 0);
	las_batch_fini(&batch);
}

TEST(a_batch_of_many_files_forgets_the_oldest_and_leaks_no_hold)
{
	int fds[20], before;
	struct las_hold *holds[20];

	prepare();
	CHECK_RET(las_hold_reserve(64), 0);
	for (int i = 0; i < 20; i++) {
		char name[] = { (char)('a' + i), 0 };

		fds[i] = t_file(name, 1);
	}
	before = t_count_fds();
	for (int i = 0; i < 20; i++)
		CHECK_RET(las_file_hold(file_of(fds[i]), &holds[i]), 0);
	for (int i = 0; i < 20; i++) {
		struct stat mine, theirs;

		CHECK_EQ(fstat(fds[i], &mine), 0);
		CHECK_EQ(fstat(holds[i]->fd, &theirs), 0);
		CHECK_EQ(mine.st_ino, theirs.st_ino);
		las_hold_put(holds[i]);
	}
	las_batch_fini(&batch);
	for (int tries = 0; las_hold_expire(LAS_EXPIRE_DUE); tries++)
		t_sleep_ms(5);
	CHECK_EQ(t_count_fds(), before);
}

TEST(one_hold_serves_all_requests_of_a_batch_on_one_file)
{
	struct las_hold *holds[10];
	int fd = t_file("a", 1);

	prepare();
	CHECK_RET(las_hold_reserve(64), 0);
	duplicates = 0;
	for (int i = 0; i < 10; i++)
		CHECK_RET(las_file_hold(file_of(fd), &holds[i]), 0);
	CHECK_EQ(duplicates, 1);
	las_batch_fini(&batch);
	for (int i = 0; i < 10; i++)
		las_hold_put(holds[i]);
}

TEST(closed_and_path_descriptors_are_ebadf)
{
	struct las_file *file;

	prepare();
	CHECK_RET(las_batch_file(&batch, 999, &file), -EBADF);
	CHECK_RET(las_batch_file(&batch, -1, &file), -EBADF);
	CHECK_RET(las_batch_file(&batch, t_own(open(".", O_PATH)), &file), -EBADF);
}

TEST(an_assumption_is_dropped_when_asked_for_the_truth)
{
	int fd = t_file("a", 1), other;
	struct las_file *file;

	prepare();
	las_file_remember(file_of(fd));
	las_batch_fini(&batch);
	/* The number becomes a descriptor that can only be read. */
	other = t_open("a", O_RDONLY);
	CHECK_EQ(dup2(other, fd), fd);
	las_batch_init(&batch, false);
	file = file_of(fd);
	/* Either it took too long and nothing is assumed, or the truth is had on demand. */
	CHECK_RET(las_file_refresh(file), 0);
	CHECK(!file->assumed);
	CHECK_EQ(file->flags & O_ACCMODE, O_RDONLY);
	las_batch_fini(&batch);
}

TEST(assumptions_do_not_last)
{
	int fd = t_file("a", 1);

	prepare();
	las_file_remember(file_of(fd));
	t_sleep_ms(5);
	las_batch_init(&batch, false);
	CHECK(!file_of(fd)->assumed);
	CHECK_EQ(flag_reads, 2);
}

TEST(a_busy_descriptor_is_read_again_now_and_then)
{
	int fd = t_file("a", 1);
	unsigned assumed = 0;

	prepare();
	for (int i = 0; i < 1000; i++) {
		struct las_file *file;

		las_batch_init(&batch, false);
		file = file_of(fd);
		assumed += file->assumed;
		las_file_remember(file);
	}
	CHECK(flag_reads >= 1000 / 65);
	CHECK_EQ(flag_reads + assumed, 1000);
}

TEST(streams_are_known_by_looking)
{
	int ends[2];

	prepare();
	u_pipe(ends);
	CHECK_RET(las_file_look(file_of(ends[0])), 0);
	CHECK(file_of(ends[0])->stream);
	CHECK_RET(las_file_look(file_of(ends[1])), 0);
	CHECK(file_of(ends[1])->stream);
	CHECK_RET(las_file_look(file_of(t_file("a", 1))), 0);
	CHECK(!batch.files[2].stream);
	CHECK_RET(las_file_look(file_of(t_own(open("/dev/null", O_RDWR)))), 0);
	CHECK(!batch.files[3].stream);
}

static int check_eventfd(int fd)
{
	struct las_file *file;

	return las_batch_eventfd(&batch, fd, &file);
}

TEST(eventfds_are_told_from_what_looks_like_them)
{
	int ends[2];

	prepare();
	u_pipe(ends);
	CHECK_RET(check_eventfd(t_own(eventfd(0, 0))), 0);
	CHECK_RET(check_eventfd(t_own(timerfd_create(CLOCK_MONOTONIC, 0))), -EINVAL);
	CHECK_RET(check_eventfd(ends[1]), -EINVAL);
	CHECK_RET(check_eventfd(t_file("a", 8)), -EINVAL);
}

TEST(an_eventfd_is_not_written_to_in_order_to_know_it)
{
	int fd = t_own(eventfd(0, EFD_NONBLOCK));
	uint64_t count;

	prepare();
	CHECK_RET(check_eventfd(fd), 0);
	CHECK_EQ(read(fd, &count, 8), -1);
}

/* ---- the predictor, on a file that counts as one of ext4 ---- */

static long say_ext4(int fd, struct statfs *st)
{
	long err = u_real.fstatfs(fd, st);

	st->f_type = EXT4_SUPER_MAGIC;
	return err;
}

static long say_disk(int fd, struct stat *st)
{
	long err = u_real.fstat(fd, st);

	if (S_ISREG(st->st_mode))
		st->st_dev = 0xfd00; /* 253:0 */
	return err;
}

static unsigned in_caller, elsewhere;
static pthread_t program;
static bool slow;

static long watched_pwritev2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	if (flags & RWF_NOWAIT)
		return -EOPNOTSUPP;
	u_count(pthread_equal(pthread_self(), program) ? &in_caller : &elsewhere);
	if (__atomic_load_n(&slow, __ATOMIC_SEQ_CST))
		t_sleep_ms(40);
	return u_real.pwritev2(fd, iov, n, offset, flags);
}

static void set_slow(bool value)
{
	__atomic_store_n(&slow, value, __ATOMIC_SEQ_CST);
}

/* n writes, one after the other; how many of them were run in the caller.  A wait with a time-out does not help. */
static unsigned write_some(io_context_t ctx, int fd, int n)
{
	unsigned before = u_counted(&in_caller);

	for (int i = 0; i < n; i++) {
		struct timespec timeout = { 10, 0 };
		struct io_event event;
		struct iocb iocb;

		io_prep_pwrite(&iocb, fd, (void *)(uintptr_t) "x", 1, i);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_RET(io_getevents(ctx, 1, 1, &event, &timeout), 1);
		CHECK_EQ(event.res, 1);
	}
	return u_counted(&in_caller) - before;
}

static io_context_t watched_context(void)
{
	program = pthread_self();
	las_sys.fstatfs = say_ext4;
	las_sys.fstat = say_disk;
	las_sys.pwritev2 = watched_pwritev2;
	return t_context(64);
}

TEST(writes_that_are_quick_stay_in_the_caller_and_slow_ones_leave_it)
{
	io_context_t ctx = watched_context();
	int fd = t_file("a", 4096);

	/* Most, for on a busy machine one may look slow that was only kept waiting for its processor. */
	CHECK(write_some(ctx, fd, 200) >= 100);
	/* The disk gets slow: one or two find that out here, the others do not hold the caller up. */
	set_slow(true);
	CHECK(write_some(ctx, fd, 12) <= 3);
	/* And quick again: after a while they come back. */
	set_slow(false);
	for (int tries = 0; write_some(ctx, fd, 100) < 90; tries++)
		CHECK(tries < 100);
}

static long say_overlay(int fd, struct statfs *st)
{
	long err = u_real.fstatfs(fd, st);

	st->f_type = OVERLAYFS_SUPER_MAGIC;
	return err;
}

static long watched_preadv2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	if (flags & RWF_NOWAIT)
		return -EOPNOTSUPP;
	u_count(pthread_equal(pthread_self(), program) ? &in_caller : &elsewhere);
	if (__atomic_load_n(&slow, __ATOMIC_SEQ_CST))
		t_sleep_ms(1);
	return u_real.preadv2(fd, iov, n, offset, flags);
}

static unsigned prefetches;

static long counted_fadvise(int fd, int64_t offset, int64_t bytes, int advice)
{
	CHECK_EQ(bytes, 100);
	CHECK_EQ(advice, POSIX_FADV_WILLNEED);
	u_count(&prefetches);
	return u_real.fadvise(fd, offset, bytes, advice);
}

/* n reads, one after the other; how many of them were run in the caller. */
static unsigned read_some(io_context_t ctx, int fd, int n)
{
	unsigned before = u_counted(&in_caller);

	for (int i = 0; i < n; i++) {
		struct timespec timeout = { 10, 0 };
		struct io_event event;
		struct iocb iocb;
		char data[100];

		io_prep_pread(&iocb, fd, data, sizeof(data), i);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_RET(io_getevents(ctx, 1, 1, &event, &timeout), 1);
		CHECK_EQ(event.res, 100);
		t_check_pattern(data, 100, 0, (size_t)i);
	}
	return u_counted(&in_caller) - before;
}

TEST(slow_reads_of_an_overlay_have_their_pages_asked_for_and_quick_ones_come_back)
{
	io_context_t ctx = t_context(64);
	int fd = t_file("a", 4096);

	program = pthread_self();
	las_sys.fstatfs = say_overlay;
	las_sys.preadv2 = watched_preadv2;
	las_sys.fadvise = counted_fadvise;
	set_slow(true);
	/* Some are timed instead, and on a busy machine one that was timed may have looked quick. */
	read_some(ctx, fd, 200);
	CHECK(u_counted(&prefetches) >= 100);
	CHECK(u_counted(&prefetches) < 200);
	set_slow(false);
	for (int tries = 0; read_some(ctx, fd, 100) < 90; tries++)
		CHECK(tries < 400);
}

static unsigned tries;
static bool cached;

static long counted_preadv2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	if (!(flags & RWF_NOWAIT))
		return u_real.preadv2(fd, iov, n, offset, flags);
	u_count(&tries);
	return cached ? u_real.preadv2(fd, iov, n, offset, 0) : -EAGAIN;
}

/* n reads under way at once, submitted one by one or in one call. */
static void read_at_once(io_context_t ctx, int fd, int n, bool one_by_one)
{
	static struct iocb iocbs[200], *list[200];
	static struct io_event events[200];
	static char data[200][100];

	for (int i = 0; i < n; i++)
		io_prep_pread(list[i] = &iocbs[i], fd, data[i], 100, i);
	for (int i = 0; one_by_one && i < n; i++)
		CHECK_RET(io_submit(ctx, 1, &list[i]), 1);
	if (!one_by_one)
		CHECK_RET(io_submit(ctx, n, list), n);
	/* With a time-out, for else this thread would run some of them. */
	CHECK_RET(io_getevents(ctx, n, n, events, &(struct timespec){ 10, 0 }), n);
	for (int i = 0; i < n; i++) {
		long at = (struct iocb *)events[i].obj - iocbs;

		CHECK_EQ(events[i].res, 100);
		t_check_pattern(data[at], 100, 0, (size_t)at);
	}
	CHECK_EQ(u_counted(&tries) + u_counted(&prefetches), n);
}

TEST(reads_are_rarely_tried_where_nothing_was_cached_for_long_until_something_is)
{
	io_context_t ctx = t_context(200);
	int fd = t_file("a", 4096);

	las_sys.fstatfs = say_ext4;
	las_sys.fstat = say_disk;
	las_sys.preadv2 = counted_preadv2;
	las_sys.fadvise = counted_fadvise;
	read_at_once(ctx, fd, 200, false);
	CHECK_EQ(u_counted(&prefetches), 0);
	tries = 0;
	read_at_once(ctx, fd, 200, true);
	CHECK(u_counted(&prefetches) > 0);
	cached = true;
	tries = prefetches = 0;
	read_at_once(ctx, fd, 100, true);
	CHECK(tries >= 93);
}

TEST(for_a_read_of_nothing_no_page_is_asked_for)
{
	enum { MISSES = 40, EMPTY = 8 };
	static struct iocb iocbs[MISSES + EMPTY], *list[MISSES + EMPTY];
	static struct io_event events[MISSES + EMPTY];
	static char data[100];
	io_context_t ctx = t_context(200);
	int fd = t_file("a", 4096);
	unsigned empty = 0;

	las_sys.fstatfs = say_ext4;
	las_sys.fstat = say_disk;
	las_sys.preadv2 = counted_preadv2;
	las_sys.fadvise = counted_fadvise; /* which knows of 100 bytes only; 0 would be all there are */
	for (int i = 0; i < MISSES + EMPTY; i++)
		io_prep_pread(list[i] = &iocbs[i], fd, data, i < MISSES ? 100 : 0, 0);
	CHECK_RET(io_submit(ctx, MISSES + EMPTY, list), MISSES + EMPTY);
	CHECK_RET(io_getevents(ctx, MISSES + EMPTY, MISSES + EMPTY, events, &(struct timespec){ 10, 0 }),
	          MISSES + EMPTY);
	for (int i = 0; i < MISSES + EMPTY; i++)
		empty += events[i].res == 0;
	CHECK_EQ(empty, EMPTY);
}

TEST(without_guessing_no_write_is_run_in_the_caller)
{
	io_context_t ctx;

	setenv("LIBAIO_SHIM_INLINE", "nowait", 1);
	ctx = watched_context();
	CHECK_EQ(write_some(ctx, t_file("a", 4096), 20), 0);
}
