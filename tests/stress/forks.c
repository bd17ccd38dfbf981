/*
 * forks.c - forks while requests are under way: in the parent nothing is lost, in the child nothing is left.
 */
#include "chance.h"

#include <spawn.h>
#include <sys/syscall.h>

#include "libaio_shim.h"

enum { DEPTH = 32 };

static int file, open_before;
static io_context_t inherited;
static int64_t end_ms;

/*
 * malloc counts processors when it makes an arena for a new thread: a child forked in that moment has the C library's
 * descriptor, which is not ours.
 */
static int count_of_libc(void)
{
	int n = 0;

	for (int fd = 3; fd < 256; fd++) {
		char path[64], target[256];
		ssize_t bytes;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		bytes = readlink(path, target, sizeof(target) - 1);
		target[bytes < 0 ? 0 : bytes] = 0;
		n += strcmp(target, "/sys/devices/system/cpu/online") == 0;
	}
	return n;
}

static void check_child(void)
{
	struct io_event event;
	struct iocb iocb;
	io_context_t ctx = NULL;
	char byte;

	/* No descriptor of the library's came along. */
	CHECK_EQ(t_count_fds() - count_of_libc(), open_before);
	io_prep_pread(&iocb, file, &byte, 1, 0);
	CHECK_RET(t_submit(inherited, &iocb), -EINVAL);
	CHECK_RET(io_getevents(inherited, 0, 1, &event, NULL), -EINVAL);
	CHECK_RET(io_destroy(inherited), -EINVAL);
	/* And everything works anew. */
	CHECK_RET(io_setup(4, &ctx), 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_reap(ctx, 1, &event);
	CHECK_RET(io_destroy(ctx), 0);
}

static void wait_for(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

static void *keep_busy(void *unused)
{
	struct c_source source = { 11 };
	struct iocb iocbs[DEPTH], *list[DEPTH];
	struct io_event events[DEPTH];
	static char data[DEPTH][512];
	io_context_t ctx = NULL;

	CHECK_RET(io_setup(DEPTH, &ctx), 0);
	while (t_now_ms() < end_ms) {
		for (int i = 0; i < DEPTH; i++) {
			if (c_one_in(&source, 2))
				io_prep_pwrite(&iocbs[i], file, data[i], 512, i * 512);
			else
				io_prep_pread(&iocbs[i], file, data[i], 512, i * 512);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, DEPTH, list), DEPTH);
		t_reap(ctx, DEPTH, events);
		for (int i = 0; i < DEPTH; i++)
			CHECK_EQ(events[i].res, 512);
	}
	CHECK_RET(io_destroy(ctx), 0);
	return NULL;
}

static void storm(void)
{
	pthread_t busy[2];
	unsigned children = 0;

	if (U_TSAN)
		SKIP("n/a: ThreadSanitizer does not follow a fork of several threads");
	file = t_file("file", DEPTH * 512);
	inherited = t_context(4);
	open_before = t_count_fds();
	end_ms = t_now_ms() + (int64_t)c_setting("LAS_STRESS_MS", 300);
	for (int i = 0; i < 2; i++)
		busy[i] = t_thread(keep_busy, NULL);
	while (t_now_ms() < end_ms || children <= 3) {
		pid_t pid = fork();

		if (pid == 0) {
			alarm(20);
			check_child();
			if (children % 2)
				exit(0); /* with whatever the library does there */
			_exit(0);
		}
		wait_for(pid);
		children++;
	}
	for (int i = 0; i < 2; i++)
		t_join(busy[i]);
}

TEST(forks_between_requests_on_all_lanes)
{
	storm();
}

TEST(forks_between_requests_on_the_crew)
{
	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	storm();
}

/* How many descriptors a new program is given. */
static int given_to_a_program(void)
{
	extern char **environ;
	char *arguments[] = { "sh", "-c", "set -- /proc/self/fd/*; exit $#", NULL };
	int status;
	pid_t pid;

	CHECK_EQ(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status);
}

TEST(spawned_programs_inherit_no_descriptor)
{
	int before = given_to_a_program();
	pthread_t busy;

	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	file = t_file("file", DEPTH * 512);
	CHECK_EQ(fcntl(file, F_SETFD, FD_CLOEXEC), 0);
	end_ms = t_now_ms() + (int64_t)c_setting("LAS_STRESS_MS", 300);
	busy = t_thread(keep_busy, NULL);
	while (t_now_ms() < end_ms)
		CHECK_EQ(given_to_a_program(), before);
	t_join(busy);
}
