/*
 * process.c - fork, vfork, posix_spawn, exec and every way to end, with requests in flight.
 *
 * What was accepted as a write is on its way to the file: however the process ends, other than by SIGKILL, it arrives.
 */
#include "las_test.h"

#include <dlfcn.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>

extern char **environ;

static int pending_poll(io_context_t ctx)
{
	static struct iocb iocb;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_poll(&iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	return ends[1];
}

/* ---- fork ---- */

TEST(child_gets_einval_for_everything)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 4096);
	char byte;
	pid_t pid;

	CHECK_RET(t_pread(ctx, fd, &byte, 1, 0), 1);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		struct iocb iocb;
		struct io_event event;
		struct timespec zero = { 0, 0 };

		io_prep_pread(&iocb, fd, &byte, 1, 0);
		CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
		CHECK_RET(any_getevents(ctx, 0, 1, &event, NULL), -EINVAL);
		CHECK_RET(any_getevents(ctx, 1, 1, &event, &zero), -EINVAL);
		CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
		CHECK_RET(io_destroy(ctx), -EINVAL);
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_RET(t_pread(ctx, fd, &byte, 1, 7), 1);
	CHECK_EQ((unsigned char)byte, t_byte(0, 7));
}

TEST(child_may_look_at_the_inherited_ring)
{
	io_context_t ctx = t_context(8);
	char byte;
	pid_t pid;

	CHECK_RET(t_pread(ctx, t_file("data", 64), &byte, 1, 0), 1);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(t_ring(ctx)->head == t_ring(ctx)->tail);
		_exit(0);
	}
	t_wait_ok(pid);
}

TEST(child_uses_aio_afresh)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 65536);
	unsigned char byte;
	pid_t pid;

	CHECK_RET(t_pread(ctx, fd, &byte, 1, 0), 1);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		io_context_t own = NULL;

		CHECK_RET(io_setup(64, &own), 0);
		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		for (unsigned i = 0; i < 100; i++) {
			CHECK_RET(t_pread(own, fd, &byte, 1, i * 600), 1);
			CHECK_EQ(byte, t_byte(0, i * 600));
		}
		CHECK_RET(io_destroy(own), 0);
		exit(0);
	}
	for (unsigned i = 0; i < 100; i++)
		CHECK_RET(t_pread(ctx, fd, &byte, 1, i * 600), 1);
	t_wait_ok(pid);
}

TEST(grandchild_uses_aio_afresh)
{
	int fd = t_file("data", 65536), depth = 0;
	unsigned char byte;

	for (; depth < 4; depth++) {
		io_context_t ctx = NULL;
		pid_t pid;

		CHECK_RET(io_setup(8, &ctx), 0);
		CHECK_RET(t_pread(ctx, fd, &byte, 1, 5), 1);
		pid = fork();
		CHECK(pid >= 0);
		if (pid) {
			CHECK_RET(t_pread(ctx, fd, &byte, 1, 6), 1);
			t_wait_ok(pid);
			CHECK_RET(io_destroy(ctx), 0);
			if (depth)
				exit(0);
			return;
		}
	}
	exit(0);
}

TEST(fork_with_requests_in_flight)
{
	enum { COUNT = 16 };
	io_context_t ctx = t_context(COUNT);
	int fd = t_stall_file("fork", COUNT * 4096, O_RDONLY | O_DIRECT);
	char *buf = t_pages(COUNT * 4096);
	static struct iocb iocbs[COUNT];
	struct io_event events[COUNT];
	pid_t pid;

	t_stall_hold();
	for (int i = 0; i < COUNT; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		/* Nothing of the parent's is waited for, neither here nor at the exit. */
		io_context_t own = NULL;
		char byte;

		CHECK_RET(io_setup(8, &own), 0);
		CHECK_RET(t_pread(own, t_file("child", 64), &byte, 1, 0), 1);
		exit(0);
	}
	t_wait_ok(pid);
	CHECK_EQ(t_ring_count(ctx), 0);
	t_stall_release();
	t_reap(ctx, COUNT, events);
	t_check_pattern(buf, COUNT * 4096, 0, 0);
}

TEST(child_that_exits_harms_no_request_of_its_parent)
{
	io_context_t ctx = t_context(8);
	int writer = pending_poll(ctx);

	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			if (i % 2)
				exit(0);
			_exit(0);
		}
		t_wait_ok(pid);
	}
	CHECK_EQ(write(writer, "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
}

TEST(child_inherits_no_descriptor_of_ours)
{
	io_context_t ctx = t_context(64);
	int fd = t_stall_file("fds", 65536, O_RDONLY | O_DIRECT), before;
	char *buf = t_pages(16 * 4096);
	static struct iocb iocbs[16];
	struct io_event events[16];
	pid_t pid;

	pending_poll(ctx);
	before = t_count_fds();
	t_stall_hold();
	for (int i = 0; i < 16; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		io_context_t own = NULL;
		char byte;

		/* Whatever was open for the parent's requests is closed by the time the child uses AIO. */
		CHECK_RET(io_setup(8, &own), 0);
		CHECK_RET(t_pread(own, t_file("child", 64), &byte, 1, 0), 1);
		CHECK_EQ(io_destroy(own), 0);
		if (!is_shim())
			CHECK_EQ(t_count_fds(), before + 1);
		else if (DIFFERS("descriptors-while-waiting"))
			CHECK(t_count_fds() <= before + 4);
		_exit(0);
	}
	t_wait_ok(pid);
	t_stall_release();
	t_reap(ctx, 16, events);
}

TEST(fork_from_many_threads_under_load)
{
	io_context_t ctx = t_context(64);
	int fd = t_file("data", 65536);
	unsigned char byte;

	for (int i = 0; i < 60; i++) {
		pid_t pid;
		static struct iocb iocbs[16];
		static unsigned char bytes[16];
		struct io_event events[16];

		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		for (unsigned j = 0; j < 16; j++) {
			io_prep_pread(&iocbs[j], fd, &bytes[j], 1, j * 4096);
			CHECK_RET(t_submit(ctx, &iocbs[j]), 1);
		}
		pid = fork();
		CHECK(pid >= 0);
		if (pid == 0) {
			io_context_t own = NULL;

			CHECK_RET(io_setup(8, &own), 0);
			CHECK_RET(t_pread(own, fd, &byte, 1, i), 1);
			CHECK_EQ(byte, t_byte(0, (size_t)i));
			_exit(0);
		}
		t_reap(ctx, 16, events);
		for (unsigned j = 0; j < 16; j++)
			CHECK_EQ(bytes[j], t_byte(0, j * 4096));
		t_wait_ok(pid);
	}
}

/* ---- vfork, spawn, exec ---- */

static int self_with(const char *name)
{
	int status = t_again(name);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		SKIP("n/a: the process that was started skipped");
	if (WIFSIGNALED(status))
		FAIL("%s ended by signal %d", name, WTERMSIG(status));
	return WEXITSTATUS(status);
}

TEST(vfork_and_exec_with_requests_in_flight)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("vfork", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;
	pid_t pid;

	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	pid = vfork();
	CHECK(pid >= 0);
	if (pid == 0) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(1);
	}
	t_wait_ok(pid);
	CHECK_EQ(t_ring_count(ctx), 0);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
	t_check_pattern(buf, 4096, 0, 0);
}

TEST(vfork_child_that_ends_at_once)
{
	io_context_t ctx = t_context(8);
	int writer = pending_poll(ctx), fd = t_file("data", 64);
	char byte;

	for (int i = 0; i < 20; i++) {
		pid_t pid = vfork();

		CHECK(pid >= 0);
		if (pid == 0)
			_exit(0);
		t_wait_ok(pid);
		CHECK_RET(t_pread(ctx, fd, &byte, 1, 0), 1);
	}
	CHECK_EQ(write(writer, "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
}

TEST(posix_spawn_with_requests_in_flight)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("spawn", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096), *arguments[] = { "true", NULL };
	struct iocb iocb;
	pid_t pid;

	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ), 0);
	t_wait_ok(pid);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
	t_check_pattern(buf, 4096, 0, 0);
}

/* In the process that was spawned or executed: exactly the standard descriptors and those in LAS_TEST_FDS. */
TEST(helper_counts_descriptors)
{
	const char *expected = getenv("LAS_TEST_FDS");

	if (expected)
		CHECK_EQ(t_count_fds(), atoi(expected));
}

TEST(spawned_program_inherits_no_descriptor_of_ours)
{
	io_context_t ctx = t_context(64);
	int before, fd = t_stall_file("spawn", 65536, O_RDONLY | O_DIRECT | O_CLOEXEC);
	char *buf = t_pages(16 * 4096), number[16], *arguments[] = { "again", "helper_counts_descriptors", NULL };
	static struct iocb iocbs[16];
	struct io_event events[16];
	int ends[2];
	struct iocb poll;
	pid_t pid;

	before = t_count_fds() - 1;
	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &poll), 1);
	t_stall_hold();
	for (int i = 0; i < 16; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	snprintf(number, sizeof(number), "%d", before);
	setenv("LAS_TEST_FDS", number, 1);
	CHECK_EQ(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ), 0);
	t_wait_ok(pid);
	t_stall_release();
	t_reap(ctx, 16, events);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap_one(ctx);
}

/* ---- exec and exit with requests outstanding ---- */

enum { WRITES = 40, WRITE_BYTES = 1000 };

static const char *outcome_path(void)
{
	const char *path = getenv("LAS_TEST_OUTCOME");

	if (!path)
		exit(0); /* only a part of another case */
	return path;
}

static void submit_many_writes(void)
{
	io_context_t ctx = NULL;
	static char text[WRITES][WRITE_BYTES];
	static struct iocb iocbs[WRITES];
	struct iocb *list[WRITES];
	int fd = t_open(outcome_path(), O_RDWR | O_CLOEXEC);

	CHECK_RET(io_setup(WRITES, &ctx), 0);
	for (int i = 0; i < WRITES; i++) {
		t_fill(text[i], WRITE_BYTES, 3, (size_t)i * WRITE_BYTES);
		io_prep_pwrite(&iocbs[i], fd, text[i], WRITE_BYTES, i * WRITE_BYTES);
		list[i] = &iocbs[i];
	}
	CHECK_RET(io_submit(ctx, WRITES, list), WRITES);
}

TEST(helper_returns_from_main)
{
	submit_many_writes();
}

TEST(helper_calls_exit)
{
	submit_many_writes();
	exit(0);
}

TEST(helper_calls_quick_exit)
{
	submit_many_writes();
	quick_exit(0);
}

TEST(helper_calls_underscore_exit)
{
	submit_many_writes();
	_exit(0);
}

TEST(helper_calls_exit_group)
{
	submit_many_writes();
	syscall(SYS_exit_group, 0);
}

static void *call_exit(void *arg)
{
	exit(0);
}

TEST(helper_calls_exit_in_a_thread)
{
	submit_many_writes();
	t_join(t_thread(call_exit, NULL));
}

TEST(helper_ends_its_main_thread)
{
	submit_many_writes();
	pthread_exit(NULL);
}

TEST(helper_executes_another_program)
{
	submit_many_writes();
	execl("/bin/true", "true", (char *)NULL);
	_exit(1);
}

TEST(helper_exits_after_an_exec_that_failed)
{
	t_context(1);
	CHECK_EQ(execl("/no/such/program", "program", (char *)NULL), -1);
	submit_many_writes();
	exit(0);
}

TEST(helper_raises_sigterm)
{
	submit_many_writes();
	raise(SIGTERM);
}

/*
 * How a process ends: with the handlers that a library can register (function NULL), or by a function that runs no code
 * of a library's, unless the function itself is watched.
 */

/* Under the launcher a library stands before libc's _exit, exec and syscall, and finishes the writes there too. */
static bool is_watched(const char *function)
{
	Dl_info info;

	return function && dladdr(dlsym(RTLD_DEFAULT, function), &info) && strstr(info.dli_fname, "libaio_syscall");
}

static void check_ending(const char *helper, const char *function, const char *directory, int delay_ms, int want_signal)
{
	bool may_miss = function && !is_watched(function) && DIFFERS("exit-without-handlers");
	char path[4096];
	static char back[WRITES * WRITE_BYTES];
	int fd, status;

	snprintf(path, sizeof(path), "%s/outcome-%d", directory, (int)getpid());
	fd = t_open(path, O_RDWR | O_CREAT | O_EXCL);
	setenv("LAS_TEST_OUTCOME", path, 1);
	if (delay_ms)
		t_stall_delay(delay_ms);
	status = t_again(helper);
	if (delay_ms)
		t_stall_delay(0);
	if (want_signal) {
		CHECK(WIFSIGNALED(status));
		CHECK_EQ(WTERMSIG(status), want_signal);
	} else {
		CHECK(WIFEXITED(status));
		CHECK_EQ(WEXITSTATUS(status), 0);
	}
	CHECK_EQ(ftruncate(fd, sizeof(back)), 0);
	CHECK_EQ(pread(fd, back, sizeof(back), 0), sizeof(back));
	for (int i = 0; i < WRITES; i++) {
		static const char zeros[WRITE_BYTES];

		/* A write that had no event may be missing, as a whole. */
		if (may_miss && !memcmp(back + i * WRITE_BYTES, zeros, WRITE_BYTES))
			continue;
		t_check_pattern(back + i * WRITE_BYTES, WRITE_BYTES, 3, (size_t)i * WRITE_BYTES);
	}
	CHECK_EQ(unlink(path), 0);
}

TEST(return_from_main_with_writes_outstanding)
{
	check_ending("helper_returns_from_main", NULL, t_stall(), 5, 0);
}

TEST(exit_with_writes_outstanding)
{
	check_ending("helper_calls_exit", NULL, t_stall(), 5, 0);
}

TEST(exit_in_a_thread_with_writes_outstanding)
{
	check_ending("helper_calls_exit_in_a_thread", NULL, t_stall(), 5, 0);
}

TEST(quick_exit_with_writes_outstanding)
{
	check_ending("helper_calls_quick_exit", NULL, t_stall(), 5, 0);
}

TEST(underscore_exit_with_writes_outstanding)
{
	check_ending("helper_calls_underscore_exit", "_exit", t_stall(), 5, 0);
}

TEST(exit_group_with_writes_outstanding)
{
	check_ending("helper_calls_exit_group", "syscall", t_stall(), 5, 0);
}

TEST(main_thread_ends_with_writes_outstanding)
{
	check_ending("helper_ends_its_main_thread", NULL, t_stall(), 5, 0);
}

TEST(exec_with_writes_outstanding)
{
	check_ending("helper_executes_another_program", "execl", t_stall(), 5, 0);
}

TEST(exit_after_an_exec_that_failed_with_writes_outstanding)
{
	check_ending("helper_exits_after_an_exec_that_failed", NULL, t_stall(), 5, 0);
}

TEST(fatal_signal_with_writes_outstanding)
{
	check_ending("helper_raises_sigterm", "the kernel", t_stall(), 5, SIGTERM);
}

TEST(every_ending_on_an_ordinary_file)
{
	const char *directory = t_directory("LAS_TEST_EXT4");

	check_ending("helper_returns_from_main", NULL, directory, 0, 0);
	check_ending("helper_calls_exit", NULL, directory, 0, 0);
	check_ending("helper_calls_quick_exit", NULL, directory, 0, 0);
	check_ending("helper_calls_exit_in_a_thread", NULL, directory, 0, 0);
	check_ending("helper_calls_underscore_exit", "_exit", directory, 0, 0);
	check_ending("helper_executes_another_program", "execl", directory, 0, 0);
}

TEST(helper_exits_with_reads_polls_and_waiters)
{
	io_context_t ctx = NULL;
	int fd = open(outcome_path(), O_RDONLY);
	struct iocb read;
	static char buf[4096];

	CHECK_RET(io_setup(8, &ctx), 0);
	pending_poll(ctx);
	io_prep_pread(&read, fd, buf, sizeof(buf), 0);
	CHECK_RET(t_submit(ctx, &read), 1);
	exit(0);
}

TEST(exit_does_not_wait_for_what_never_comes)
{
	int fd = t_stall_file("reads", 65536, O_RDWR), status;
	char path[64];

	/* Removed already, but this way the helper can open it again. */
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
	setenv("LAS_TEST_OUTCOME", path, 1);
	t_stall_delay(5);
	status = t_again("helper_exits_with_reads_polls_and_waiters");
	t_stall_delay(0);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(helper_exec_then_uses_aio)
{
	io_context_t ctx = NULL;
	char byte;

	if (!getenv("LAS_TEST_OLD_HANDLE"))
		exit(0);
	CHECK_RET(io_destroy((io_context_t)strtoull(getenv("LAS_TEST_OLD_HANDLE"), NULL, 16)), -EINVAL);
	CHECK_RET(io_setup(8, &ctx), 0);
	CHECK_RET(t_pread(ctx, t_file("data", 64), &byte, 1, 0), 1);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(exec_starts_without_contexts)
{
	io_context_t ctx = t_context(8);
	char number[32];

	snprintf(number, sizeof(number), "%llx", (unsigned long long)(uintptr_t)ctx);
	setenv("LAS_TEST_OLD_HANDLE", number, 1);
	pending_poll(ctx);
	CHECK_EQ(self_with("helper_exec_then_uses_aio"), 0);
	execl("/proc/self/exe", "again", "helper_exec_then_uses_aio", (char *)NULL);
	FAIL("exec: %s", strerror(errno));
}

/* ---- SIGKILL ---- */

TEST(helper_writes_until_killed)
{
	const char *path = outcome_path();
	int fd = open(path, O_RDWR), report = atoi(getenv("LAS_TEST_REPORT"));
	io_context_t ctx = NULL;

	CHECK(fd >= 0);
	CHECK_RET(io_setup(8, &ctx), 0);
	for (unsigned i = 0;; i++) {
		char text[100];

		t_fill(text, sizeof(text), 3, (size_t)i * sizeof(text));
		CHECK_RET(t_pwrite(ctx, fd, text, sizeof(text), i * sizeof(text)), sizeof(text));
		/* Only now is it promised. */
		CHECK_EQ(write(report, &i, sizeof(i)), sizeof(i));
	}
}

TEST(sigkill_loses_nothing_that_had_its_event)
{
	int fd = t_file("outcome", 0), ends[2], status;
	unsigned last = 0;
	char number[16];
	static char back[1 << 20];
	pid_t pid;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	setenv("LAS_TEST_OUTCOME", "outcome", 1);
	snprintf(number, sizeof(number), "%d", ends[1]);
	setenv("LAS_TEST_REPORT", number, 1);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		execl("/proc/self/exe", "again", "helper_writes_until_killed", (char *)NULL);
		_exit(126);
	}
	for (int i = 0; i < 200; i++)
		CHECK_EQ(read(ends[0], &last, sizeof(last)), sizeof(last));
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	t_close(ends[1]);
	while (read(ends[0], &last, sizeof(last)) == sizeof(last))
		;
	CHECK(pread(fd, back, sizeof(back), 0) >=
	      (ssize_t)((last + 1) * 100 < sizeof(back) ? (last + 1) * 100 : sizeof(back)));
	t_check_pattern(back, (last + 1) * 100 < sizeof(back) ? (last + 1) * 100 : sizeof(back), 3, 0);
}

TEST(killed_process_leaves_no_thread_behind)
{
	pid_t pid;
	int status, ends[2];
	char byte;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		io_context_t ctx = NULL;
		struct io_event event;

		CHECK_RET(io_setup(8, &ctx), 0);
		pending_poll(ctx);
		CHECK_EQ(write(ends[1], "x", 1), 1);
		io_getevents(ctx, 1, 1, &event, NULL);
		_exit(1);
	}
	CHECK_EQ(close(ends[1]), 0);
	CHECK_EQ(read(ends[0], &byte, 1), 1);
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	/* Its writing end is gone: end of file. */
	CHECK_EQ(read(ends[0], &byte, 1), 0);
}

TEST(daemonised_process_uses_aio)
{
	/* The usual double fork, with a context made before it that must not matter. */
	io_context_t before = t_context(8);
	int ends[2], fd = t_file("data", 4096);
	char byte;
	pid_t pid;

	CHECK_RET(t_pread(before, fd, &byte, 1, 0), 1);
	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		if (fork() == 0) {
			io_context_t ctx = NULL;

			setsid();
			CHECK_RET(io_setup(8, &ctx), 0);
			CHECK_RET(t_pread(ctx, fd, &byte, 1, 9), 1);
			CHECK_EQ((unsigned char)byte, t_byte(0, 9));
			CHECK_EQ(write(ends[1], "k", 1), 1);
		}
		exit(0);
	}
	CHECK_EQ(close(ends[1]), 0);
	t_wait_ok(pid);
	CHECK_EQ(read(ends[0], &byte, 1), 1);
	CHECK_EQ(byte, 'k');
}

/* ---- under load, stopped, waited for ---- */

static int keep_going = 1;

static void *submit_and_reap_for_ever(void *arg)
{
	io_context_t ctx = NULL;
	unsigned char byte;

	CHECK_RET(io_setup(8, &ctx), 0);
	while (__atomic_load_n(&keep_going, __ATOMIC_ACQUIRE)) {
		posix_fadvise(*(int *)arg, 0, 0, POSIX_FADV_DONTNEED);
		CHECK_RET(t_pread(ctx, *(int *)arg, &byte, 1, 40000), 1);
		CHECK_EQ(byte, t_byte(0, 40000));
	}
	CHECK_RET(io_destroy(ctx), 0);
	return NULL;
}

TEST(fork_while_other_threads_submit_and_reap)
{
	pthread_t threads[3];
	int fd = t_file("data", 65536);

	for (int i = 0; i < 3; i++)
		threads[i] = t_thread(submit_and_reap_for_ever, &fd);
	for (int i = 0; i < 50; i++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			io_context_t ctx = NULL;
			unsigned char byte;

			CHECK_RET(io_setup(8, &ctx), 0);
			for (unsigned j = 0; j < 5; j++) {
				CHECK_RET(t_pread(ctx, fd, &byte, 1, j), 1);
				CHECK_EQ(byte, t_byte(0, j));
			}
			CHECK_RET(io_destroy(ctx), 0);
			_exit(0);
		}
		t_wait_ok(pid);
	}
	__atomic_store_n(&keep_going, 0, __ATOMIC_RELEASE);
	for (int i = 0; i < 3; i++)
		t_join(threads[i]);
}

TEST(stopped_and_continued_process_sees_no_interrupted_request)
{
	enum { COUNT = 8 };
	int ends[2], ready[2];
	char byte;
	pid_t pid;

	t_stall();
	CHECK_EQ(pipe(ends), 0);
	CHECK_EQ(pipe(ready), 0);
	for (int i = 0; i < 2; i++) {
		t_own(ends[i]);
		t_own(ready[i]);
	}
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		io_context_t ctx = t_context(16);
		int fd = t_stall_file("stopped", 65536, O_RDONLY | O_DIRECT);
		char *buf = t_pages(COUNT * 4096);
		static struct iocb iocbs[COUNT + 1];
		struct io_event events[COUNT + 1];
		int got = 0;

		io_prep_poll(&iocbs[COUNT], ends[0], POLLIN);
		CHECK_RET(t_submit(ctx, &iocbs[COUNT]), 1);
		t_stall_hold();
		for (int i = 0; i < COUNT; i++) {
			io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
			CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
		}
		t_stall_wait(COUNT);
		CHECK_EQ(write(ready[1], "r", 1), 1);
		while (got < COUNT + 1) {
			int n = io_getevents(ctx, 1, COUNT + 1 - got, events + got, NULL);

			CHECK(n > 0 || n == -EINTR);
			got += n > 0 ? n : 0;
		}
		for (int i = 0; i < got; i++)
			CHECK(events[i].obj == &iocbs[COUNT] ? t_res(&events[i]) & POLLIN : t_res(&events[i]) == 4096);
		t_check_pattern(buf, COUNT * 4096, 0, 0);
		_exit(0);
	}
	CHECK_EQ(read(ready[0], &byte, 1), 1);
	for (int i = 0; i < 10; i++) {
		int status;

		/* A thread inside the file system stops when that answers; the others at once. */
		CHECK_EQ(kill(pid, SIGSTOP), 0);
		if (i == 0)
			t_stall_release();
		CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
		CHECK(WIFSTOPPED(status));
		CHECK_EQ(kill(pid, SIGCONT), 0);
		usleep(2000);
	}
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_wait_ok(pid);
}

static void *wait_for_ever(void *arg)
{
	struct io_event event;

	io_getevents(arg, 1, 1, &event, NULL);
	return NULL;
}

TEST(helper_exits_while_a_thread_waits)
{
	io_context_t ctx = t_context(8);

	pending_poll(ctx);
	t_thread(wait_for_ever, ctx);
	t_sleep_ms(20);
	exit(0);
}

TEST(exit_while_a_thread_waits)
{
	for (int i = 0; i < 5; i++)
		CHECK_EQ(self_with("helper_exits_while_a_thread_waits"), 0);
}

static int stop_submitting;

static void *submit_while_exiting(void *arg)
{
	io_context_t ctx = NULL;
	int fd = *(int *)arg;
	char byte;

	CHECK_RET(io_setup(8, &ctx), 0);
	while (!__atomic_load_n(&stop_submitting, __ATOMIC_ACQUIRE))
		t_pread(ctx, fd, &byte, 1, 0);
	return NULL;
}

TEST(helper_exits_while_threads_submit)
{
	int fd = open("/proc/self/exe", O_RDONLY);

	for (int i = 0; i < 4; i++)
		t_thread(submit_while_exiting, &fd);
	t_sleep_ms(10);
	exit(0);
}

TEST(exit_while_threads_submit)
{
	for (int i = 0; i < 5; i++)
		CHECK_EQ(self_with("helper_exits_while_threads_submit"), 0);
}
