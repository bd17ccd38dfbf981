/* filesystems.c - the same everyday work on each file system: data, sizes, sync, O_DIRECT, appends, mixed load. */
#include "las_test.h"

#include <sys/vfs.h>

enum { DEPTH = 32, BLOCK = 4096 };

static struct iocb iocbs[DEPTH];
static struct iocb *list[DEPTH];
static struct io_event events[DEPTH];

static int make(const char *variable, int flags, char path[4096])
{
	snprintf(path, 4096, "%s/work-%d", t_directory(variable), (int)getpid());
	return t_open(path, O_RDWR | O_CREAT | O_TRUNC | flags);
}

static void run(io_context_t ctx, long count, long want)
{
	CHECK_RET(io_submit(ctx, count, list), count);
	t_reap(ctx, count, events);
	for (long i = 0; i < count; i++)
		CHECK_EQ(t_res(&events[i]), want);
}

/* Writes, syncs, reads cached, reads uncached, overwrites, reads again: every byte is checked. */
static void check_everyday(const char *variable, int flags)
{
	io_context_t ctx = t_context(DEPTH);
	char path[4096];
	char *out = t_pages(DEPTH * BLOCK), *in = t_pages(DEPTH * BLOCK);
	int fd = make(variable, flags, path);
	struct iocb sync;
	struct stat st;

	for (unsigned seed = 1; seed < 4; seed++) {
		t_fill(out, DEPTH * BLOCK, seed, 0);
		for (int i = 0; i < DEPTH; i++) {
			/* Backwards: each write extends the file or fills a hole. */
			io_prep_pwrite(&iocbs[i], fd, out + (DEPTH - 1 - i) * BLOCK, BLOCK, (DEPTH - 1 - i) * BLOCK);
			list[i] = &iocbs[i];
		}
		run(ctx, DEPTH, BLOCK);
		CHECK_EQ(fstat(fd, &st), 0);
		CHECK_EQ(st.st_size, DEPTH * BLOCK);
		io_prep_fdsync(&sync, fd);
		CHECK_RET(t_run(ctx, &sync), 0);
		for (int cold = 0; cold < 2; cold++) {
			memset(in, 0, DEPTH * BLOCK);
			if (cold)
				CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
			for (int i = 0; i < DEPTH; i++) {
				io_prep_pread(&iocbs[i], fd, in + i * BLOCK, BLOCK, i * BLOCK);
				list[i] = &iocbs[i];
			}
			run(ctx, DEPTH, BLOCK);
			t_check_pattern(in, DEPTH * BLOCK, seed, 0);
		}
	}
	CHECK_RET(t_pread(ctx, fd, in, BLOCK, DEPTH * BLOCK), 0);
	CHECK_EQ(unlink(path), 0);
}

/* Odd sizes at odd places, short at the end of the file, holes. */
static void check_odd_sizes(const char *variable)
{
	io_context_t ctx = t_context(DEPTH);
	char path[4096];
	static char out[DEPTH * 997], in[DEPTH * 997];
	int fd = make(variable, 0, path);
	struct iovec iov[3] = { { in, 1 }, { in + 1, 500 }, { in + 501, 5000 } };
	struct iocb vector;

	t_fill(out, sizeof(out), 5, 0);
	for (int i = 0; i < DEPTH; i++) {
		io_prep_pwrite(&iocbs[i], fd, out + i * 997, 997, 10007 + i * 997);
		list[i] = &iocbs[i];
	}
	run(ctx, DEPTH, 997);
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	for (int i = 0; i < DEPTH; i++)
		io_prep_pread(&iocbs[i], fd, in + i * 997, 997, 10007 + i * 997);
	run(ctx, DEPTH, 997);
	t_check_pattern(in, sizeof(in), 5, 0);
	CHECK_RET(t_pread(ctx, fd, in, 2000, 10007 + (long)sizeof(out) - 500), 500);
	CHECK_RET(t_pread(ctx, fd, in, 5000, 1000), 5000);
	for (int i = 0; i < 5000; i++)
		CHECK_EQ(in[i], 0);
	io_prep_preadv(&vector, fd, iov, 3, 10007);
	CHECK_RET(t_run(ctx, &vector), 5501);
	t_check_pattern(in, 5501, 5, 0);
	CHECK_EQ(unlink(path), 0);
}

static void check_appends(const char *variable)
{
	io_context_t ctx = t_context(DEPTH);
	char path[4096], out[DEPTH], back[DEPTH];
	int fd = make(variable, O_APPEND, path);

	t_fill(out, DEPTH, 6, 0);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < DEPTH; i++) {
			io_prep_pwrite(&iocbs[i], fd, &out[i], 1, 0);
			list[i] = &iocbs[i];
		}
		run(ctx, DEPTH, 1);
		CHECK_EQ(pread(fd, back, DEPTH, round * DEPTH), DEPTH);
		t_check_pattern(back, DEPTH, 6, 0);
	}
	CHECK_EQ(unlink(path), 0);
}

#define EVERYDAY(fs, VARIABLE)               \
	static void check_all_##fs(void)     \
	{                                    \
		check_everyday(VARIABLE, 0); \
		check_odd_sizes(VARIABLE);   \
		check_appends(VARIABLE);     \
	}

EVERYDAY(ext4, "LAS_TEST_EXT4")
EVERYDAY(xfs, "LAS_TEST_XFS")
EVERYDAY(btrfs, "LAS_TEST_BTRFS")
EVERYDAY(tmpfs, "LAS_TEST_TMPFS")
EVERYDAY(overlay, "LAS_TEST_OVERLAY")
EVERYDAY(fuse, "LAS_TEST_STALL")

TEST(everyday_work_on_ext4)
{
	check_all_ext4();
}

TEST(everyday_work_on_xfs)
{
	check_all_xfs();
}

TEST(everyday_work_on_btrfs)
{
	check_all_btrfs();
}

TEST(everyday_work_on_tmpfs)
{
	check_all_tmpfs();
}

TEST(everyday_work_on_overlay)
{
	check_all_overlay();
}

TEST(everyday_work_on_fuse)
{
	check_all_fuse();
}

TEST(direct_work_on_ext4)
{
	check_everyday("LAS_TEST_EXT4", O_DIRECT);
}

TEST(direct_work_on_xfs)
{
	check_everyday("LAS_TEST_XFS", O_DIRECT);
}

TEST(direct_work_on_btrfs)
{
	check_everyday("LAS_TEST_BTRFS", O_DIRECT);
}

TEST(direct_work_on_tmpfs)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/probe", t_directory("LAS_TEST_TMPFS"));
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	if (fd < 0)
		SKIP("n/a: this kernel's tmpfs has no O_DIRECT");
	close(fd);
	check_everyday("LAS_TEST_TMPFS", O_DIRECT);
}

TEST(direct_work_on_overlay)
{
	char path[4096];
	int fd;

	/* Depends on the file system below. */
	snprintf(path, sizeof(path), "%s/probe", t_directory("LAS_TEST_OVERLAY"));
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	if (fd < 0)
		SKIP("n/a: no O_DIRECT here");
	close(fd);
	check_everyday("LAS_TEST_OVERLAY", O_DIRECT);
}

TEST(direct_work_on_fuse)
{
	check_everyday("LAS_TEST_STALL", O_DIRECT);
}

TEST(sync_work_on_ext4)
{
	check_everyday("LAS_TEST_EXT4", O_SYNC);
}

TEST(sync_work_on_xfs)
{
	check_everyday("LAS_TEST_XFS", O_DSYNC);
}

/* What the kernel's own answer is for a flag must be the shim's, per file system. */
static void check_nowait(const char *variable)
{
	io_context_t ctx = t_context(8);
	char path[4096], buf[BLOCK] = { 0 };
	int fd = make(variable, 0, path);
	struct iovec iov = { buf, BLOCK };
	struct iocb iocb;
	int answer;
	ssize_t direct;

	CHECK_RET(t_pwrite(ctx, fd, buf, BLOCK, 0), BLOCK);
	for (int write_it = 0; write_it < 2; write_it++) {
		if (write_it)
			io_prep_pwrite(&iocb, fd, buf, BLOCK, 0);
		else
			io_prep_pread(&iocb, fd, buf, BLOCK, 0);
		iocb.aio_rw_flags = RWF_NOWAIT;
		answer = t_submit(ctx, &iocb);
		if (answer == 1)
			answer = (int)t_reap_one(ctx);
		direct = write_it ? pwritev2(fd, &iov, 1, 0, RWF_NOWAIT) : preadv2(fd, &iov, 1, 0, RWF_NOWAIT);
		if (direct < 0)
			direct = -errno;
		/* EAGAIN depends on the moment (time stamps, locks). */
		if (answer != -EAGAIN && direct != -EAGAIN && answer != direct)
			FAIL("%s, %s: request %d, system call %zd", variable, write_it ? "write" : "read", answer,
			     direct);
	}
	CHECK_EQ(unlink(path), 0);
}

TEST(nowait_asked_for_on_each)
{
	const char *const variables[] = { "LAS_TEST_EXT4",  "LAS_TEST_XFS",     "LAS_TEST_BTRFS",
		                          "LAS_TEST_TMPFS", "LAS_TEST_OVERLAY", "LAS_TEST_STALL" };

	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
		check_nowait(variables[i]);
}

TEST(read_only_mount_is_erofs_at_open_and_reads_work)
{
	io_context_t ctx = t_context(8);
	char byte;

	CHECK_RET(t_pread(ctx, t_open("/proc/self/exe", O_RDONLY), &byte, 1, 1), 1);
	CHECK_EQ(byte, 'E');
}

TEST(file_grows_and_shrinks_under_requests)
{
	io_context_t ctx = t_context(DEPTH);
	char path[4096];
	static char out[DEPTH * BLOCK];
	int fd = make("LAS_TEST_EXT4", 0, path);

	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < DEPTH; i++) {
			if (i % 2)
				io_prep_pread(&iocbs[i], fd, out + i * BLOCK, BLOCK, i * BLOCK);
			else
				io_prep_pwrite(&iocbs[i], fd, out + i * BLOCK, BLOCK, i * BLOCK);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, DEPTH, list), DEPTH);
		CHECK_EQ(ftruncate(fd, round % 7 * BLOCK), 0);
		t_reap(ctx, DEPTH, events);
		for (int i = 0; i < DEPTH; i++) {
			long res = t_res(&events[i]);

			/* Reads are short or whole, writes are whole. */
			CHECK(res >= 0 && res <= BLOCK);
			if (((struct iocb *)events[i].obj)->aio_lio_opcode == IO_CMD_PWRITE)
				CHECK_EQ(res, BLOCK);
		}
	}
	CHECK_EQ(unlink(path), 0);
}

TEST(memory_mapped_buffer_of_the_same_file_system)
{
	io_context_t ctx = t_context(8);
	char path[4096];
	int fd = make("LAS_TEST_EXT4", 0, path), source = t_file("source", 65536);
	char *map;

	/* The buffer's pages must be faulted in while the file is locked; both orders of cold and warm. */
	CHECK_EQ(posix_fadvise(source, 0, 0, POSIX_FADV_DONTNEED), 0);
	map = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, source, 0);
	CHECK(map != MAP_FAILED);
	CHECK_RET(t_pwrite(ctx, fd, map, 65536, 0), 65536);
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	CHECK_RET(t_pread(ctx, fd, map, 65536, 0), 65536);
	t_check_pattern(map, 65536, 0, 0);
	CHECK_EQ(munmap(map, 65536), 0);
	CHECK_EQ(unlink(path), 0);
}
