/* sandbox.c - seccomp filters that forbid system calls which only the shim makes, one kind in each case: all still works. */
#include "las_test.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define MOST 8

/* From now on these are EPERM, in this thread and in those that it starts; the list ends with -1. */
static void forbid(const int *numbers)
{
	struct sock_filter filter[2 + 2 * MOST] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	unsigned short n = 1;
	struct sock_fprog program = { .filter = filter };

	for (int i = 0; i < MOST && numbers[i] >= 0; i++) {
		filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)numbers[i], 0, 1);
		filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	}
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program.len = n;
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		SKIP("seccomp filters (CONFIG_SECCOMP_FILTER)");
}
#define FORBID(...) forbid((const int[]){ __VA_ARGS__, -1 })

static int ends[2];

/* A poll of an empty pipe. */
static void begin_poll(io_context_t ctx, struct iocb *iocb)
{
	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_poll(iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, iocb), 1);
}

static int fd = -1, direct;

static void open_files(void)
{
	if (fd >= 0)
		return;
	fd = t_file("data", 65536);
	direct = t_open("data", O_RDWR | O_DIRECT);
}

static void check_everyday_work(io_context_t ctx)
{
	char *buf = t_pages(8192);
	struct iocb iocb;

	open_files();
	CHECK_EQ(fdatasync(fd), 0);
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	CHECK_RET(t_pread(ctx, fd, buf, 8192, 4096), 8192);
	t_check_pattern(buf, 8192, 0, 4096);
	CHECK_RET(t_pread(ctx, direct, buf, 8192, 8192), 8192);
	t_check_pattern(buf, 8192, 0, 8192);
	t_fill(buf, 8192, 0, 0);
	CHECK_RET(t_pwrite(ctx, fd, buf, 8192, 0), 8192);
	CHECK_RET(t_pwrite(ctx, direct, buf, 8192, 0), 8192);
	io_prep_fsync(&iocb, fd);
	CHECK_RET(t_run(ctx, &iocb), 0);
}

static void check_time_outs(io_context_t ctx)
{
	struct timespec soon = { 0, 20 * 1000 * 1000 };
	struct io_event event;
	sigset_t none;

	sigemptyset(&none);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, &soon), 0);
	CHECK_RET(io_pgetevents(ctx, 1, 1, &event, &soon, &none), 0);
}

/* With nothing in flight, and with a poll that pends and is answered. */
static void check_waiting(io_context_t ctx)
{
	struct iocb iocb;

	check_time_outs(ctx);
	begin_poll(ctx, &iocb);
	check_time_outs(ctx);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
	check_everyday_work(ctx);
}

TEST(time_outs_end_without_futexes)
{
	io_context_t ctx = t_context(8);

	FORBID(SYS_futex);
	check_waiting(ctx);
}

TEST(time_outs_end_without_ppoll)
{
	io_context_t ctx = t_context(8);

#ifdef SYS_poll
	FORBID(SYS_ppoll, SYS_poll);
#else
	FORBID(SYS_ppoll);
#endif
	check_waiting(ctx);
}

/* The calls that wait in the kernel's AIO; the kernel itself cannot do without. */
TEST(time_outs_end_without_the_kernels_wait)
{
	io_context_t ctx = t_context(8);

	if (is_shim())
		FORBID(SYS_io_getevents, SYS_io_pgetevents);
	check_waiting(ctx);
}

TEST(destroy_ends_polls_without_io_cancel)
{
	io_context_t ctx = NULL;
	struct iocb iocb;

	CHECK_RET(io_setup(8, &ctx), 0);
	FORBID(SYS_io_cancel);
	begin_poll(ctx, &iocb);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(destroy_ends_polls_without_epoll)
{
	io_context_t ctx = NULL;
	struct iocb iocb;

	CHECK_RET(io_setup(8, &ctx), 0);
	if (is_shim())
		FORBID(SYS_epoll_create1, SYS_epoll_ctl, SYS_io_setup);
	begin_poll(ctx, &iocb);
	CHECK_RET(io_destroy(ctx), 0);
}

/* The C library of a program with one thread makes these calls at its start only. */
TEST(calls_that_begin_a_thread)
{
	io_context_t ctx = t_context(8);

#ifdef SYS_rseq
	FORBID(SYS_rseq, SYS_set_robust_list);
#else
	FORBID(SYS_set_robust_list);
#endif
	check_everyday_work(ctx);
}

TEST(reads_and_writes_without_a_vector)
{
	io_context_t ctx = t_context(8);

	open_files();
	FORBID(SYS_pread64, SYS_pwrite64);
	check_everyday_work(ctx);
}

TEST(appends_without_the_newer_calls)
{
	io_context_t ctx = t_context(8);
	int end = t_open("appended", O_RDWR | O_CREAT | O_APPEND), other = t_file("other", 64);

	FORBID(SYS_preadv2, SYS_pwritev2);
	CHECK_RET(t_pwrite(ctx, end, "abc", 3, 0), 3);
	CHECK_RET(t_pwrite(ctx, end, "def", 3, 0), 3);
	CHECK_EQ(lseek(end, 0, SEEK_END), 6);
	CHECK_RET(t_pwrite(ctx, other, "abc", 3, 16), 3);
	CHECK_EQ(lseek(other, 0, SEEK_END), 64);
}

TEST(writes_at_an_offset_where_pwritev2_alone_is_forbidden)
{
	io_context_t ctx = t_context(8);
	int durable = t_open("data", O_RDWR | O_CREAT | O_DSYNC);

	FORBID(SYS_pwritev2);
	CHECK_RET(t_pwrite(ctx, durable, "abc", 3, 16), 3);
	CHECK_EQ(lseek(durable, 0, SEEK_END), 19);
}
