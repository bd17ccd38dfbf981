/* process.c - forks, signal handlers that call in, and the end of the process, each at the worst moment. */
#include "unit.h"

#include <setjmp.h>
#include <sys/syscall.h>

#include "base/fork.h"
#include "base/lock.h"
#include "lanes/crew.h"
#include "libaio_shim.h"

/* ---- a signal at a chosen system call ---- */

static int raise_now; /* how many of them from now on, in the program's own thread */
static pid_t main_tid;

static void maybe_raise(void)
{
	if (gettid() == main_tid && raise_now > 0) {
		raise_now--;
		raise(SIGUSR1);
	}
}

static long raising_fstat(int fd, struct stat *st)
{
	maybe_raise();
	return u_real.fstat(fd, st);
}

static long raising_ioprio_get(int which, int who)
{
	maybe_raise();
	return u_real.ioprio_get(which, who);
}

static long raising_pwritev2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	maybe_raise();
	return u_real.pwritev2(fd, iov, n, offset, flags);
}

static void handle(void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	main_tid = gettid();
}

/* A child must end by itself; one that hangs is a failure that says so. */
static void must_end(pid_t pid, int seconds)
{
	int status;

	CHECK(pid > 0);
	for (int i = 0; i < seconds * 100; i++) {
		pid_t got = waitpid(pid, &status, WNOHANG);

		CHECK(got >= 0);
		if (got == pid) {
			CHECK(WIFEXITED(status));
			CHECK_EQ(WEXITSTATUS(status), 0);
			return;
		}
		t_sleep_ms(10);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	FAIL("the process does not end");
}

/* ---- the end ---- */

static io_context_t crew_context(void)
{
	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	return t_context(64);
}

static void exit_at_once(int sig)
{
	exit(0);
}

TEST(exit_from_a_handler_inside_io_submit_ends_the_process)
{
	pid_t pid = fork();

	if (pid == 0) {
		io_context_t ctx = crew_context();
		struct iocb iocb;

		/* A write is accepted, but not yet on its way, when the signal comes. */
		las_sys.ioprio_get = raising_ioprio_get;
		handle(exit_at_once);
		io_prep_pwrite(&iocb, t_file("written", 4096), "x", 1, 0);
		raise_now = 1;
		t_submit(ctx, &iocb);
		_exit(3);
	}
	must_end(pid, 5);
}

static long slow_thread(void *(*entry)(void *), void *arg)
{
	/* The thread is on its way for ever: whoever waits helps himself. */
	return 0;
}

TEST(exit_from_a_handler_inside_a_helped_write_ends_the_process)
{
	pid_t pid = fork();

	if (pid == 0) {
		io_context_t ctx = crew_context();
		struct io_event event;
		struct iocb iocb;

		las_sys.thread_start = slow_thread;
		las_sys.pwritev2 = raising_pwritev2;
		handle(exit_at_once);
		io_prep_pwrite(&iocb, t_file("written", 4096), "x", 1, 0);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		raise_now = 1;
		io_getevents(ctx, 1, 1, &event, NULL);
		_exit(3);
	}
	must_end(pid, 5);
}

static sigjmp_buf way_out;

static void jump_out(int sig)
{
	siglongjmp(way_out, 1);
}

TEST(a_handler_that_jumps_out_of_a_helped_write_loses_nothing)
{
	io_context_t ctx = crew_context();
	struct io_event event;
	struct iocb iocb;

	las_sys.thread_start = slow_thread;
	las_sys.pwritev2 = raising_pwritev2;
	handle(jump_out);
	io_prep_pwrite(&iocb, t_file("written", 4096), "x", 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	raise_now = 1;
	if (!sigsetjmp(way_out, 1)) {
		io_getevents(ctx, 1, 1, &event, NULL);
		FAIL("no jump");
	}
	CHECK_RET(io_getevents(ctx, 1, 1, &event, &(struct timespec){ 5, 0 }), 1);
	CHECK_EQ(event.res, 1);
	CHECK_RET(io_destroy(ctx), 0);
}

static void *submit_for_ever(void *arg)
{
	io_context_t ctx = t_context(64);
	struct iocb iocbs[32], *list[32];
	struct io_event events[32];
	static char block[4096];

	for (int i = 0; i < 32; i++)
		io_prep_pwrite(list[i] = &iocbs[i], *(int *)arg, block, sizeof(block), i * 4096);
	CHECK_RET(io_submit(ctx, 32, list), 32);
	/* There is never a moment without any in flight. */
	for (;;) {
		long n = io_getevents(ctx, 1, 16, events, NULL);

		CHECK(n > 0);
		CHECK_RET(io_submit(ctx, n, list), n);
	}
	return NULL;
}

TEST(exit_does_not_wait_for_what_other_threads_keep_submitting)
{
	pid_t pid = fork();

	if (pid == 0) {
		int fd = t_file("written", 4096);

		setenv("LIBAIO_SHIM_LANES", "crew", 1);
		CHECK_EQ(pthread_detach(t_thread(submit_for_ever, &fd)), 0);
		CHECK_EQ(pthread_detach(t_thread(submit_for_ever, &fd)), 0);
		t_sleep_ms(50);
		exit(0);
	}
	must_end(pid, 5);
}

static struct u_gate writing = U_GATE_OPEN;

static long stopped_pwritev2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	u_gate_pass(&writing);
	return u_real.pwritev2(fd, iov, n, offset, flags);
}

static void *open_later(void *unused)
{
	t_sleep_ms(100);
	u_gate_open(&writing);
	return NULL;
}

TEST(exit_waits_for_accepted_writes)
{
	int fd = t_file("written", 4096);
	pid_t pid = fork();
	char bytes[8];

	if (pid == 0) {
		io_context_t ctx = crew_context();
		struct iocb iocbs[8], *list[8];

		las_sys.pwritev2 = stopped_pwritev2;
		u_gate_close(&writing);
		for (int i = 0; i < 8; i++)
			io_prep_pwrite(list[i] = &iocbs[i], fd, "!", 1, i);
		CHECK_RET(io_submit(ctx, 8, list), 8);
		CHECK_EQ(pthread_detach(t_thread(open_later, NULL)), 0);
		exit(0);
	}
	must_end(pid, 5);
	CHECK_EQ(pread(fd, bytes, 8, 0), 8);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(bytes[i], '!');
}

/* ---- handlers that call in ---- */

static io_context_t shared_ctx;
static long handler_result;

static void destroy_it(int sig)
{
	handler_result = io_destroy(shared_ctx);
}

TEST(destroy_from_a_handler_inside_io_submit_does_not_wait_for_itself)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct iocb iocb;
		char byte;

		CHECK_RET(io_setup(4, &shared_ctx), 0);
		las_sys.fstat = raising_fstat;
		handle(destroy_it);
		setenv("LIBAIO_SHIM_LANES", "crew", 1);
		io_prep_pwrite(&iocb, t_file("written", 4096), "x", 1, 0);
		io_prep_fsync(&iocb, t_file("synced", 1));
		(void)byte;
		raise_now = 1;
		t_submit(shared_ctx, &iocb);
		CHECK(raise_now == 0);
		_exit(0);
	}
	must_end(pid, 5);
}

static void submit_and_reap(int sig)
{
	static char byte;
	struct io_event event;
	struct iocb iocb;
	long ret;

	io_prep_pread(&iocb, open("written", O_RDONLY | O_CLOEXEC), &byte, 1, 0);
	ret = t_submit(shared_ctx, &iocb);
	handler_result = ret == 1 ? io_getevents(shared_ctx, 1, 1, &event, NULL) : ret;
	close(iocb.aio_fildes);
}

TEST(a_handler_inside_io_submit_may_submit_and_reap)
{
	struct iocb iocb;

	shared_ctx = t_context(8);
	las_sys.fstat = raising_fstat;
	handle(submit_and_reap);
	io_prep_fsync(&iocb, t_file("written", 4096));
	raise_now = 1;
	CHECK_EQ(t_run(shared_ctx, &iocb), 0);
	CHECK_EQ(raise_now, 0);
	CHECK_EQ(handler_result, 1);
}

static long raising_openat(int dirfd, const char *path, int flags, int mode)
{
	maybe_raise();
	return u_real.openat(dirfd, path, flags, mode);
}

static void set_up(int sig)
{
	io_context_t ctx = NULL;

	handler_result = io_setup(1, &ctx);
	if (handler_result == 0)
		io_destroy(ctx);
}

TEST(a_handler_inside_the_very_first_call_may_call_in)
{
	las_sys.openat = raising_openat; /* the configuration is being read */
	handle(set_up);
	raise_now = 1;
	t_context(1);
	CHECK_EQ(raise_now, 0);
	CHECK(handler_result == 0 || handler_result == -EAGAIN);
}

static long raising_dup(int fd, int cmd, uintptr_t arg)
{
	if (cmd == F_DUPFD_CLOEXEC)
		maybe_raise();
	return u_real.fcntl(fd, cmd, arg);
}

static void fork_and_wait(int sig)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	must_end(pid, 5);
	handler_result = 1;
}

TEST(a_handler_may_fork_while_a_descriptor_is_duplicated)
{
	io_context_t ctx;
	struct iocb iocb;

	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	ctx = t_context(4);
	handle(fork_and_wait);
	io_prep_pwrite(&iocb, t_file("written", 4096), "x", 1, 0);
	las_sys.fcntl = raising_dup;
	raise_now = 1;
	CHECK_EQ(t_run(ctx, &iocb), 1);
	CHECK_EQ(raise_now, 0);
	CHECK_EQ(handler_result, 1);
}

static void count_stats(int sig)
{
	struct las_stats stats;

	las_stats_get(&stats, sizeof(stats));
	las_io_owns(shared_ctx);
	handler_result = 1;
}

static void *raising_mmap(void *addr, size_t bytes, int prot, int flags)
{
	maybe_raise();
	return u_real.mmap(addr, bytes, prot, flags);
}

TEST(a_handler_inside_io_setup_may_read_the_statistics)
{
	io_context_t ctx = NULL;

	shared_ctx = t_context(1);
	handle(count_stats);
	las_sys.mmap = raising_mmap; /* the table of contexts is locked there */
	raise_now = 4;
	CHECK_RET(io_setup(60000, &ctx), 0);
	CHECK(raise_now < 4);
	CHECK_EQ(handler_result, 1);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(a_call_inside_a_locked_section_is_told_to_try_again)
{
	io_context_t ctx = t_context(4), none = NULL;
	struct io_event event;
	struct las_lock lock = { 0 };
	struct iocb iocb;
	char byte;

	io_prep_pread(&iocb, t_file("read", 1), &byte, 1, 0);
	las_lock(&lock);
	CHECK_RET(io_setup(1, &none), -EAGAIN);
	CHECK_RET(t_submit(ctx, &iocb), -EAGAIN);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EAGAIN);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, NULL), 0);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, NULL), -EINTR);
	CHECK_RET(io_destroy(ctx), -EAGAIN);
	las_unlock(&lock);
	CHECK_EQ(t_run(ctx, &iocb), 1);
}

/* ---- forks ---- */

static void use_inherited(io_context_t ctx)
{
	struct io_event event;
	struct iocb iocb;
	char byte;

	io_prep_pread(&iocb, t_file("child", 1), &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, NULL), -EINVAL);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
	CHECK_RET(io_destroy(ctx), -EINVAL);
	CHECK_EQ(las_io_owns(ctx), 0);
	/* And a context of its own works. */
	ctx = t_context(4);
	CHECK_EQ(t_run(ctx, &iocb), 1);
}

TEST(a_forked_child_starts_clean)
{
	io_context_t ctx = crew_context();
	pid_t pid = fork();

	if (pid == 0) {
		use_inherited(ctx);
		_exit(0);
	}
	must_end(pid, 5);
}

static long no_wipe(void *addr, size_t bytes, int advice)
{
	return advice == MADV_WIPEONFORK ? -EINVAL : u_real.madvise(addr, bytes, advice);
}

TEST(a_forked_child_starts_clean_where_the_kernel_cannot_wipe_pages)
{
	io_context_t ctx;
	pid_t pid;

	las_sys.madvise = no_wipe; /* before Linux 4.14 */
	ctx = crew_context();
	pid = fork();
	if (pid == 0) {
		use_inherited(ctx);
		_exit(0);
	}
	must_end(pid, 5);
}

TEST(a_child_forked_past_libc_starts_clean)
{
	io_context_t ctx = crew_context();
	struct iocb iocb;
	pid_t pid;

	if (U_TSAN)
		SKIP("n/a: ThreadSanitizer does not follow a fork of several threads");

	/* The child has the parent's holds; nobody closed them before it first calls. */
	las_sys.pwritev2 = stopped_pwritev2;
	u_gate_close(&writing);
	io_prep_pwrite(&iocb, t_file("written", 4096), "x", 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	pid = (pid_t)syscall(SYS_fork);
	if (pid == 0) {
		las_sys = u_real;
		CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
		_exit(0);
	}
	must_end(pid, 5);
	u_gate_open(&writing);
	t_reap_one(ctx);
}

TEST(a_forked_child_inherits_no_hold)
{
	io_context_t ctx = crew_context();
	struct iocb iocbs[16], *list[16];
	struct io_event events[16];
	int before = t_count_fds() + 1; /* the file */
	pid_t pid;

	las_sys.pwritev2 = stopped_pwritev2;
	u_gate_close(&writing);
	int fd = t_file("written", 4096);
	for (int i = 0; i < 16; i++) {
		io_prep_pwrite(list[i] = &iocbs[i], fd, "x", 1, i);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	CHECK(t_count_fds() > before);
	pid = fork();
	if (pid == 0) {
		CHECK_EQ(t_count_fds(), before);
		_exit(0);
	}
	must_end(pid, 5);
	u_gate_open(&writing);
	t_reap(ctx, 16, events);
	for (int i = 0; i < 16; i++)
		CHECK_EQ(events[i].res, 1);
}

TEST(forks_in_every_moment_leave_parent_and_child_well)
{
	io_context_t ctx = crew_context();
	struct iocb iocbs[32], *list[32];
	struct io_event events[32];
	static char bytes[32];
	int fd = t_file("written", 4096);

	if (U_TSAN)
		SKIP("n/a: ThreadSanitizer does not follow a fork of several threads");

	for (int round = 0; round < 50; round++) {
		pid_t pid;

		for (int i = 0; i < 32; i++)
			io_prep_pwrite(list[i] = &iocbs[i], fd, &bytes[i], 1, i);
		CHECK_RET(io_submit(ctx, 32, list), 32);
		pid = fork();
		if (pid == 0) {
			use_inherited(ctx);
			exit(0);
		}
		t_reap(ctx, 32, events);
		must_end(pid, 5);
	}
}
