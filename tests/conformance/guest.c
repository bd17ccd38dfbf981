/*
 * guest.c - limits, credentials, locks, priorities and durability: a request does what the program's own system call
 * would have done, whoever carries it out.
 */
#include "las_test.h"

#include <dirent.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* ---- RLIMIT_FSIZE and SIGXFSZ ---- */

static volatile sig_atomic_t signals;
static volatile sig_atomic_t signal_tid;

static void on_signal(int number)
{
	signals++;
	signal_tid = (sig_atomic_t)syscall(SYS_gettid);
}

static void limit_file_size(rlim_t bytes)
{
	struct rlimit limit = { bytes, RLIM_INFINITY };

	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

TEST(write_across_the_size_limit_is_short)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 0);
	char buf[1000] = { 0 };
	struct stat st;

	signal(SIGXFSZ, SIG_IGN);
	limit_file_size(500);
	CHECK_RET(t_pwrite(ctx, fd, buf, 1000, 0), 500);
	CHECK_RET(t_pwrite(ctx, fd, buf, 1000, 499), 1);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 500);
}

TEST(write_at_the_size_limit_is_efbig)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 0);

	signal(SIGXFSZ, SIG_IGN);
	limit_file_size(500);
	CHECK_RET(t_pwrite(ctx, fd, "x", 1, 500), -EFBIG);
	CHECK_RET(t_pwrite(ctx, fd, "x", 1, 5000), -EFBIG);
}

TEST(empty_write_at_the_size_limit_succeeds)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 0);

	signal(SIGXFSZ, on_signal);
	limit_file_size(500);
	CHECK_RET(t_pwrite(ctx, fd, "x", 0, 500), 0);
	CHECK_RET(t_pwrite(ctx, fd, NULL, 0, 5000), 0);
	CHECK_EQ(signals, 0);
}

TEST(sigxfsz_reaches_the_submitter)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 0);

	signal(SIGXFSZ, on_signal);
	limit_file_size(500);
	CHECK_RET(t_pwrite(ctx, fd, "x", 1, 500), -EFBIG);
	CHECK_EQ(signals, 1);
	CHECK_EQ(signal_tid, getpid());
	CHECK_RET(t_pwrite(ctx, fd, "xy", 2, 499), 1);
	CHECK_EQ(signals, 1);
}

TEST(helper_dies_of_sigxfsz)
{
	io_context_t ctx = t_context(8);

	if (!getenv("LAS_TEST_DIE"))
		return;
	limit_file_size(500);
	t_pwrite(ctx, t_file("data", 0), "x", 1, 500);
}

TEST(sigxfsz_ends_the_process_by_default)
{
	int status;

	setenv("LAS_TEST_DIE", "1", 1);
	status = t_again("helper_dies_of_sigxfsz");
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGXFSZ);
}

TEST(vector_write_across_the_size_limit_is_short)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 0);
	char a[300] = { 0 }, b[300] = { 0 };
	struct iovec iov[] = { { a, 300 }, { b, 300 } };
	struct iocb iocb;

	signal(SIGXFSZ, SIG_IGN);
	limit_file_size(500);
	io_prep_pwritev(&iocb, fd, iov, 2, 0);
	CHECK_RET(t_run(ctx, &iocb), 500);
}

TEST(size_limit_lifted_later_is_lifted)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 0);
	char buf[1000] = { 0 };

	signal(SIGXFSZ, SIG_IGN);
	limit_file_size(500);
	CHECK_RET(t_pwrite(ctx, fd, buf, 1000, 0), 500);
	limit_file_size(RLIM_INFINITY);
	CHECK_RET(t_pwrite(ctx, fd, buf, 1000, 0), 1000);
}

/* ---- SIGPIPE ---- */

static int readerless_pipe(void)
{
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	CHECK_EQ(close(ends[0]), 0);
	return t_own(ends[1]);
}

TEST(write_without_reader_is_epipe)
{
	io_context_t ctx = t_context(8);

	signal(SIGPIPE, SIG_IGN);
	CHECK_RET(t_pwrite(ctx, readerless_pipe(), "x", 1, 0), -EPIPE);
}

TEST(sigpipe_reaches_the_submitter)
{
	io_context_t ctx = t_context(8);

	signal(SIGPIPE, on_signal);
	CHECK_RET(t_pwrite(ctx, readerless_pipe(), "x", 1, 0), -EPIPE);
	CHECK_EQ(signals, 1);
	CHECK_EQ(signal_tid, getpid());
}

static void *write_to_pipe(void *arg)
{
	CHECK_RET(t_pwrite(arg, readerless_pipe(), "x", 1, 0), -EPIPE);
	for (int tries = 0; !signals; tries++) {
		if (tries == 3000)
			FAIL("no signal");
		t_sleep_ms(10);
	}
	if (DIFFERS("signal-to-the-process"))
		CHECK(signal_tid != 0);
	else
		CHECK_EQ(signal_tid, syscall(SYS_gettid));
	return NULL;
}

TEST(sigpipe_reaches_the_submitting_thread)
{
	signal(SIGPIPE, on_signal);
	t_join(t_thread(write_to_pipe, t_context(8)));
	CHECK_EQ(signals, 1);
}

TEST(sigpipe_of_a_socket_reaches_the_submitter)
{
	io_context_t ctx = t_context(8);
	int ends[2];

	signal(SIGPIPE, on_signal);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	t_own(ends[0]);
	CHECK_EQ(close(ends[1]), 0);
	CHECK_RET(t_pwrite(ctx, ends[0], "x", 1, 0), -EPIPE);
	CHECK_EQ(signals, 1);
}

TEST(helper_dies_of_sigpipe)
{
	io_context_t ctx = t_context(8);

	if (getenv("LAS_TEST_DIE"))
		t_pwrite(ctx, readerless_pipe(), "x", 1, 0);
}

TEST(sigpipe_ends_the_process_by_default)
{
	int status;

	setenv("LAS_TEST_DIE", "1", 1);
	status = t_again("helper_dies_of_sigpipe");
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGPIPE);
}

/* ---- locks ---- */

static struct flock whole_file(short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET };
}

/* Whether another process finds a POSIX lock. */
static bool posix_locked(const char *path)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		struct flock lock = whole_file(F_WRLCK);
		int fd = open(path, O_RDWR);

		if (fd < 0 || fcntl(fd, F_GETLK, &lock))
			_exit(2);
		_exit(lock.l_type != F_UNLCK);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) < 2);
	return WEXITSTATUS(status);
}

static void use_file(io_context_t ctx, int fd)
{
	enum { COUNT = 32 };
	static struct iocb iocbs[COUNT];
	static char bufs[COUNT][4096];
	struct iocb *list[COUNT], sync;
	struct io_event events[COUNT];

	for (int round = 0; round < 4; round++) {
		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		for (int i = 0; i < COUNT; i++) {
			if (round % 2)
				io_prep_pwrite(&iocbs[i], fd, bufs[i], 4096, i * 4096);
			else
				io_prep_pread(&iocbs[i], fd, bufs[i], 4096, i * 4096);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		t_reap(ctx, COUNT, events);
		for (int i = 0; i < COUNT; i++)
			CHECK_EQ(t_res(&events[i]), 4096);
		io_prep_fsync(&sync, fd);
		CHECK_RET(t_run(ctx, &sync), 0);
	}
}

static void check_posix_lock_survives(const char *path, int flags)
{
	io_context_t ctx = t_context(32);
	int fd = t_file(path, 32 * 4096), locked = t_open(path, O_RDWR), used = t_open(path, O_RDWR | flags);
	struct flock lock = whole_file(F_WRLCK);

	(void)fd;
	CHECK_EQ(fcntl(locked, F_SETLK, &lock), 0);
	CHECK(posix_locked(path));
	use_file(ctx, used);
	/* Closing any descriptor of the file would have dropped the lock: so nobody here may close one. */
	CHECK(posix_locked(path));
	t_sleep_ms(20);
	CHECK(posix_locked(path));
	use_file(ctx, locked);
	CHECK(posix_locked(path));
	t_close(used);
	CHECK(!posix_locked(path));
}

TEST(posix_lock_survives)
{
	check_posix_lock_survives("locked", 0);
}

TEST(posix_lock_survives_appends)
{
	check_posix_lock_survives("locked", O_APPEND);
}

TEST(posix_lock_survives_requests_that_must_wait)
{
	char path[4096];
	io_context_t ctx = t_context(32);
	struct flock lock = whole_file(F_WRLCK);
	int fd, used;

	snprintf(path, sizeof(path), "%s/locked-%d", t_stall(), (int)getpid());
	fd = t_file(path, 32 * 4096);
	used = t_open(path, O_RDWR);
	CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
	CHECK(posix_locked(path));
	t_stall_delay(1);
	use_file(ctx, used);
	t_stall_delay(0);
	CHECK(posix_locked(path));
	CHECK_EQ(unlink(path), 0);
}

TEST(posix_lock_survives_a_poll_and_its_cancel)
{
	io_context_t ctx = t_context(32);
	int fd, reader;
	struct flock lock = whole_file(F_WRLCK);
	struct iocb poll;
	struct io_event event;

	/* A FIFO can be both locked and polled. */
	CHECK_EQ(mkfifo("fifo", 0600), 0);
	fd = t_open("fifo", O_RDWR);
	reader = t_open("fifo", O_RDONLY | O_NONBLOCK);
	CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
	CHECK(posix_locked("fifo"));
	io_prep_poll(&poll, reader, 1);
	CHECK_RET(t_submit(ctx, &poll), 1);
	CHECK_RET(io_cancel(ctx, &poll, &event), -EINPROGRESS);
	t_reap_one(ctx);
	t_sleep_ms(20);
	CHECK(posix_locked("fifo"));
}

TEST(ofd_lock_and_flock_survive_and_end_with_the_file)
{
	io_context_t ctx = t_context(32);
	int fd = t_file("locked", 32 * 4096), other = t_open("locked", O_RDWR);
	struct flock lock = whole_file(F_WRLCK), query = whole_file(F_WRLCK);

	CHECK_EQ(flock(fd, LOCK_EX), 0);
	CHECK_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
	use_file(ctx, fd);
	CHECK_EQ(flock(other, LOCK_EX | LOCK_NB), -1);
	CHECK_EQ(fcntl(other, F_OFD_GETLK, &query), 0);
	CHECK_EQ(query.l_type, F_WRLCK);
	t_close(fd);
	/* No duplicate of ours may keep them alive. */
	for (int tries = 0; flock(other, LOCK_EX | LOCK_NB); tries++) {
		if (tries == 3000)
			FAIL("flock outlives its file");
		t_sleep_ms(10);
	}
	query = whole_file(F_WRLCK);
	CHECK_EQ(fcntl(other, F_OFD_GETLK, &query), 0);
	CHECK_EQ(query.l_type, F_UNLCK);
}

TEST(closing_while_a_request_waits_drops_the_posix_lock)
{
	char path[4096];
	io_context_t ctx = t_context(32);
	struct flock lock = whole_file(F_WRLCK);
	char *buf = t_pages(4096);
	struct iocb iocb;
	int fd;

	snprintf(path, sizeof(path), "%s/locked-%d", t_stall(), (int)getpid());
	t_file(path, 4096);
	fd = t_open(path, O_RDWR | O_DIRECT);
	CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_close(fd);
	CHECK(!posix_locked(path));
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
	CHECK_EQ(unlink(path), 0);
}

/* ---- credentials and roots ---- */

TEST(files_opened_as_root_stay_usable_after_setresuid)
{
	io_context_t ctx;
	int fd;
	char byte;

	t_need_root();
	ctx = t_context(32);
	fd = t_file("secret", 32 * 4096);
	CHECK_EQ(fchmod(fd, 0), 0);
	CHECK_EQ(setgroups(0, NULL), 0);
	CHECK_EQ(setresgid(65534, 65534, 65534), 0);
	CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	CHECK(open("secret", O_RDONLY) < 0);
	use_file(ctx, fd);
	CHECK_RET(t_pread(ctx, fd, &byte, 1, 0), 1);
}

TEST(setresuid_after_requests_ran_still_works)
{
	io_context_t ctx;
	int fd;
	char text[4096] = "";

	t_need_root();
	ctx = t_context(32);
	fd = t_file("data", 32 * 4096);
	use_file(ctx, fd);
	/* The C library tells every thread by a signal: none may keep it out. */
	CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	use_file(ctx, fd);
	fd = t_open("/proc/self/status", O_RDONLY);
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	CHECK(strstr(text, "Uid:\t65534\t65534\t65534") != NULL);
}

TEST(setresuid_while_requests_wait)
{
	io_context_t ctx;
	int fd;
	char *buf = t_pages(4096);
	struct iocb iocb;
	pthread_t thread;

	t_need_root();
	ctx = t_context(8);
	fd = t_stall_file("setresuid", 4096, O_RDONLY | O_DIRECT);
	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	/* A thread inside a system call of a file answers the C library's signal when that is done, not before. */
	thread = t_stall_release_later(50);
	CHECK_EQ(setresuid(65534, 0, 0), 0);
	CHECK_RET(t_reap_one(ctx), 4096);
	t_join(thread);
}

TEST(writes_after_setresuid_use_the_new_identity)
{
	io_context_t ctx;
	struct stat st;
	int fd;

	t_need_root();
	ctx = t_context(8);
	fd = t_file("setuid", 64);
	use_file(ctx, t_file("other", 32 * 4096));
	CHECK_EQ(fchmod(fd, 06777), 0);
	CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	CHECK_RET(t_pwrite(ctx, fd, "x", 1, 0), 1);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_mode & 06000, 0);
}

static void *write_as_nobody(void *arg)
{
	io_context_t ctx = t_context(8);

	/* The raw call changes this thread only, where the C library's changes all. */
	CHECK_EQ(syscall(SYS_setresuid, 65534, 65534, 65534), 0);
	CHECK_RET(t_pwrite(ctx, *(int *)arg, "x", 1, 0), 1);
	return NULL;
}

TEST(identity_of_one_thread)
{
	struct stat st;
	int fd;

	t_need_root();
	fd = t_file("setuid", 64);
	CHECK_EQ(fchmod(fd, 06777), 0);
	t_join(t_thread(write_as_nobody, &fd));
	CHECK_EQ(fstat(fd, &st), 0);
	if (DIFFERS("identity-of-one-thread"))
		CHECK((st.st_mode & 06000) == 0 || (st.st_mode & 06000) == 06000);
	else
		CHECK_EQ(st.st_mode & 06000, 0);
}

TEST(works_after_chroot_into_an_empty_directory)
{
	io_context_t ctx;
	int fd;

	t_need_root();
	fd = t_file("data", 32 * 4096);
	CHECK_EQ(mkdir("empty", 0755), 0);
	CHECK_EQ(chroot("empty"), 0);
	CHECK_EQ(chdir("/"), 0);
	ctx = t_context(32);
	use_file(ctx, fd);
	/* The harness looks into /proc at the end. */
	_exit(0);
}

TEST(works_after_closing_every_descriptor)
{
	io_context_t ctx = t_context(32);
	int fd = t_file("data", 32 * 4096);

	use_file(ctx, fd);
	CHECK_EQ((int)syscall(SYS_close_range, 3u, ~0u, 0), 0);
	fd = open("data", O_RDWR);
	CHECK(fd >= 0);
	use_file(ctx, fd);
	CHECK_RET(io_destroy(ctx), 0);
	_exit(0);
}

/* What the shim had under its numbers is gone; what comes under them next is the new request's. */
TEST(closes_every_descriptor_again_and_again_between_requests)
{
	enum { ROUNDS = 40, FILES = 3, WRITES = 33 };
	static const char *const names[FILES] = { "a", "b", "c" };
	io_context_t ctx = t_context(64);
	static struct io_event events[WRITES];
	static struct iocb iocbs[WRITES], *list[WRITES];
	static char block[512];

	for (int i = 0; i < FILES; i++)
		t_close(t_file(names[i], 0));
	for (int round = 0; round < ROUNDS; round++) {
		int fds[FILES], ends[2], eventfd_fd = eventfd(0, 0);
		uint64_t count;

		CHECK(eventfd_fd >= 0);
		CHECK_EQ(pipe(ends), 0);
		io_prep_poll(&iocbs[0], ends[0], POLLIN);
		io_set_eventfd(&iocbs[0], eventfd_fd);
		CHECK_RET(t_submit(ctx, &iocbs[0]), 1);
		CHECK_EQ(write(ends[1], "x", 1), 1);
		CHECK_EQ(read(eventfd_fd, &count, sizeof(count)), sizeof(count));
		CHECK_RET(t_reap_one(ctx), POLLIN | POLLRDNORM);
		usleep((unsigned)round * 50); /* in another moment each time */
		CHECK_EQ((int)syscall(SYS_close_range, 3u, ~0u, 0), 0);
		for (int i = 0; i < FILES; i++)
			CHECK((fds[i] = open(names[i], O_RDWR | O_APPEND | O_DSYNC)) >= 0);
		for (int i = 0; i < WRITES; i++) {
			io_prep_pwrite(&iocbs[i], fds[i % FILES], block, sizeof(block), 0);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, WRITES, list), WRITES);
		t_reap(ctx, WRITES, events);
		for (int i = 0; i < WRITES; i++)
			CHECK_EQ(t_res(&events[i]), (long)sizeof(block));
	}
	_exit(0);
}

TEST(program_closes_every_descriptor_while_requests_wait)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("closed", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;

	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	CHECK_EQ((int)syscall(SYS_close_range, 3u, ~0u, 0), 0);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
	t_check_pattern(buf, 4096, 0, 0);
	_exit(0);
}

TEST(new_descriptors_get_the_lowest_numbers_as_ever)
{
	io_context_t ctx = t_context(64);
	int fd = t_stall_file("numbers", 65536, O_RDONLY | O_DIRECT), next;
	char *buf = t_pages(16 * 4096);
	static struct iocb iocbs[16];
	struct io_event events[16];

	next = dup(fd);
	CHECK_EQ(close(next), 0);
	t_stall_hold();
	for (int i = 0; i < 16; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	/* Programs that count on the lowest free number, or use select(), must not meet one of ours. */
	for (int i = 0; i < 8; i++)
		CHECK_EQ(t_own(dup(fd)), next + i);
	t_stall_release();
	t_reap(ctx, 16, events);
}

TEST(works_with_a_small_descriptor_limit)
{
	struct rlimit limit;
	io_context_t ctx;
	int fd;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = 8;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ctx = t_context(32);
	fd = t_file("data", 32 * 4096);
	use_file(ctx, fd);
}

TEST(works_where_no_thread_can_be_made)
{
	io_context_t ctx;
	int fd;
	struct rlimit none = { 0, 0 };

	t_need_root();
	fd = t_file("data", 32 * 4096);
	/* Root is not bound by the limit, everybody else is. */
	CHECK_EQ(setresuid(65533, 65533, 65533), 0);
	CHECK_EQ(setrlimit(RLIMIT_NPROC, &none), 0);
	ctx = t_context(32);
	use_file(ctx, fd);
}

TEST(works_with_little_address_space_left)
{
	io_context_t ctx = t_context(32);
	int fd = t_file("data", 32 * 4096);
	struct rlimit limit = { 64 << 20, RLIM_INFINITY };

	CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
	use_file(ctx, fd);
}

/* From now on these calls are not there, as in a sandbox whose author listed what the program makes itself. */
static void bar(const long *calls, size_t count, unsigned error)
{
	struct sock_filter filter[20], *next = filter;
	struct sock_fprog program = { 0, filter };

	*next++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < count; i++) {
		*next++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
		*next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
	}
	*next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program.len = (unsigned short)(next - filter);
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program))
		SKIP("n/a: no seccomp filters here");
}

static void check_in_sandbox(unsigned error)
{
	static const long newer[] = { SYS_preadv2,    SYS_pwritev2,  SYS_fstat, SYS_kcmp,
#ifdef SYS_poll
		                      SYS_ppoll,
#endif
		                      SYS_ioprio_get, SYS_ioprio_set };
	io_context_t ctx;
	int ends[2], fd = t_file("data", 32 * 4096);
	char bytes[8] = "written", back[8] = "";
	struct iovec halves[2] = { { back, 4 }, { back + 4, 4 } };
	struct iocb iocb;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	bar(newer, sizeof(newer) / sizeof(newer[0]), error);
	ctx = t_context(32);
	use_file(ctx, fd);
	CHECK_RET(t_pwrite(ctx, fd, bytes, 8, 0), 8);
	io_prep_preadv(&iocb, fd, halves, 2, 0);
	CHECK_RET(t_run(ctx, &iocb), 8);
	CHECK(memcmp(bytes, back, 8) == 0);
	CHECK_EQ(write(ends[1], "xyz", 3), 3);
	io_prep_poll(&iocb, ends[0], POLLIN);
	CHECK(t_run(ctx, &iocb) & POLLIN);
	io_prep_preadv(&iocb, ends[0], halves, 2, 0);
	CHECK_RET(t_run(ctx, &iocb), 3);
}

TEST(works_in_a_sandbox_that_knows_older_calls)
{
	check_in_sandbox(ENOSYS);
}

TEST(works_in_a_sandbox_that_permits_older_calls)
{
	check_in_sandbox(EPERM);
}

/* ---- priority ---- */

/* Some thread but this one must have that I/O priority; looked at while a request runs. */
static void check_some_thread_has_priority(int priority)
{
	char seen[256] = "";
	DIR *dir = opendir("/proc/self/task");

	CHECK(dir != NULL);
	for (struct dirent *entry; (entry = readdir(dir));) {
		pid_t tid = atoi(entry->d_name);
		long its = tid && tid != getpid() ? syscall(SYS_ioprio_get, 1, tid) : -1;

		if (its == priority) {
			closedir(dir);
			return;
		}
		if (its >= 0)
			snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), " %d:%#lx", (int)tid, its);
	}
	FAIL("no thread has priority %#x; there are%s", priority, seen);
}

TEST(request_priority_is_that_of_the_thread_that_runs_it)
{
	enum { IDLE_CLASS = 3 << 13, BEST_EFFORT_7 = 2 << 13 | 7 };
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("priority", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(8192);
	struct iocb idle, low;
	struct io_event events[2];

	if (!is_shim())
		SKIP("n/a: the kernel runs no thread for it");
	io_prep_pread(&idle, fd, buf, 4096, 0);
	idle.u.c.flags = T_FLAG_IOPRIO;
	idle.aio_reqprio = IDLE_CLASS;
	io_prep_pread(&low, fd, buf + 4096, 4096, 4096);
	low.u.c.flags = T_FLAG_IOPRIO;
	low.aio_reqprio = BEST_EFFORT_7;
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &idle), 1);
	CHECK_RET(t_submit(ctx, &low), 1);
	t_stall_wait(2);
	check_some_thread_has_priority(IDLE_CLASS);
	check_some_thread_has_priority(BEST_EFFORT_7);
	t_stall_release();
	t_reap(ctx, 2, events);
	/* The next request without one gets the submitter's own again. */
	CHECK_EQ(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 3), 0);
	io_prep_pread(&idle, fd, buf, 4096, 8192);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &idle), 1);
	t_stall_wait(1);
	check_some_thread_has_priority(2 << 13 | 3);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
}

TEST(priority_of_the_submitter_is_left_alone)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 65536);
	struct iocb iocb;
	char buf[4096];

	CHECK_EQ(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 3), 0);
	for (int i = 0; i < 8; i++) {
		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		io_prep_pread(&iocb, fd, buf, sizeof(buf), i * 4096);
		iocb.u.c.flags = T_FLAG_IOPRIO;
		iocb.aio_reqprio = 3 << 13;
		CHECK_RET(t_run(ctx, &iocb), 4096);
		CHECK_EQ(syscall(SYS_ioprio_get, 1, 0), 2 << 13 | 3);
	}
}

/* ---- durability ---- */

struct submission {
	io_context_t ctx;
	struct iocb *iocb;
};

static void *submit(void *arg)
{
	struct submission *s = arg;

	CHECK_RET(t_submit(s->ctx, s->iocb), 1);
	return NULL;
}

/* The event must not appear before the file system has answered the sync that belongs to the write. */
static void check_durable(int open_flags, unsigned rw_flags)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("durable", 4096, O_RDWR | open_flags);
	char byte = 'x';
	struct iocb iocb;
	struct submission s = { ctx, &iocb };
	struct t_stall_counts before = t_stall_counts(), after;
	pthread_t thread;

	io_prep_pwrite(&iocb, fd, &byte, 1, 0);
	iocb.aio_rw_flags = rw_flags;
	t_stall_hold_fsync();
	thread = t_thread(submit, &s);
	t_stall_wait(1);
	t_sleep_ms(10);
	CHECK_EQ(t_ring_count(ctx), 0);
	t_stall_release();
	t_join(thread);
	CHECK_RET(t_reap_one(ctx), 1);
	after = t_stall_counts();
	CHECK(after.writes > before.writes);
	CHECK(after.fsyncs > before.fsyncs);
}

TEST(o_sync_write_is_durable_at_its_event)
{
	check_durable(O_SYNC, 0);
}

TEST(o_dsync_write_is_durable_at_its_event)
{
	check_durable(O_DSYNC, 0);
}

TEST(rwf_sync_write_is_durable_at_its_event)
{
	check_durable(0, RWF_SYNC);
}

TEST(rwf_dsync_write_is_durable_at_its_event)
{
	check_durable(0, RWF_DSYNC);
}

TEST(fsync_is_durable_at_its_event)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("durable", 4096, O_RDWR);
	struct t_stall_counts before, after;
	struct iocb iocb;

	CHECK_EQ(pwrite(fd, "x", 1, 0), 1);
	before = t_stall_counts();
	io_prep_fsync(&iocb, fd);
	CHECK_RET(t_run(ctx, &iocb), 0);
	after = t_stall_counts();
	CHECK_EQ(after.fsyncs, before.fsyncs + 1);
	io_prep_fdsync(&iocb, fd);
	CHECK_RET(t_run(ctx, &iocb), 0);
	after = t_stall_counts();
	CHECK_EQ(after.fsyncs, before.fsyncs + 2);
}

/* ---- quiet ---- */

TEST(errno_is_left_untouched)
{
	io_context_t ctx = NULL;
	struct iocb iocb, *list = &iocb;
	struct io_event event;
	struct timespec zero = { 0, 1 };
	char byte;

	errno = 12345;
	CHECK_RET(io_setup(0, &ctx), -EINVAL);
	CHECK_EQ(errno, 12345);
	CHECK_RET(io_setup(8, &ctx), 0);
	CHECK_EQ(errno, 12345);
	io_prep_pread(&iocb, -1, &byte, 1, 0);
	CHECK_RET(io_submit(ctx, 1, &list), -EBADF);
	CHECK_EQ(errno, 12345);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, &zero), 0);
	CHECK_EQ(errno, 12345);
	CHECK_RET(io_getevents(ctx, 2, 1, &event, NULL), -EINVAL);
	CHECK_EQ(errno, 12345);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
	CHECK_EQ(errno, 12345);
	io_prep_pread(&iocb, t_file("data", 64), &byte, 1, 0);
	errno = 12345;
	CHECK_RET(t_run(ctx, &iocb), 1);
	CHECK_EQ(errno, 12345);
	io_prep_pread(&iocb, iocb.aio_fildes, t_no_access(), 1, 0);
	CHECK_RET(t_run(ctx, &iocb), -EFAULT);
	CHECK_EQ(errno, 12345);
	CHECK_RET(io_destroy(ctx), 0);
	CHECK_EQ(errno, 12345);
	CHECK_RET(io_destroy(ctx), -EINVAL);
	CHECK_EQ(errno, 12345);
}

TEST(nothing_is_printed)
{
	int out = t_open("out", O_RDWR | O_CREAT), err = t_open("err", O_RDWR | O_CREAT);
	int old_out = t_own(dup(1)), old_err = t_own(dup(2));
	struct stat st;
	io_context_t ctx;

	CHECK(dup2(out, 1) == 1 && dup2(err, 2) == 2);
	ctx = t_context(32);
	use_file(ctx, t_file("data", 32 * 4096));
	CHECK_RET(io_destroy(ctx), 0);
	CHECK(dup2(old_out, 1) == 1 && dup2(old_err, 2) == 2);
	CHECK_EQ(fstat(out, &st), 0);
	CHECK_EQ(st.st_size, 0);
	CHECK_EQ(fstat(err, &st), 0);
	CHECK_EQ(st.st_size, 0);
}

/* ---- descriptor tables ---- */

struct own_table {
	io_context_t ctx;
	const char *mine;
	int number;
	bool direct;
};

/* In a thread whose descriptor table is its own, a number means another file than elsewhere in the process. */
static void *read_in_own_table(void *arg)
{
	const struct own_table *t = arg;
	char *buf = t_pages(16 * 4096);
	static struct iocb iocbs[16];
	struct iocb *list[16];
	struct io_event events[16];
	int fd;

	CHECK_EQ(unshare(CLONE_FILES), 0);
	fd = open(t->mine, t->direct ? O_RDONLY | O_DIRECT : O_RDONLY);
	CHECK(fd >= 0);
	CHECK_EQ(dup2(fd, t->number), t->number);
	for (int round = 0; round < 8; round++) {
		CHECK_EQ(posix_fadvise(t->number, 0, 0, POSIX_FADV_DONTNEED), 0);
		for (int i = 0; i < 16; i++) {
			io_prep_pread(&iocbs[i], t->number, buf + i * 4096, 4096, i * 4096);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(t->ctx, 16, list), 16);
		t_reap(t->ctx, 16, events);
		for (int i = 0; i < 16; i++) {
			int which = (int)((struct iocb *)events[i].obj - iocbs);

			CHECK_EQ(t_res(&events[i]), 4096);
			t_check_pattern(buf + which * 4096, 4096, 0, (size_t)which * 4096);
		}
		memset(buf, 0, 16 * 4096);
	}
	return NULL;
}

static void check_own_table(const char *directory, bool direct)
{
	char path[4096];
	struct own_table t = { .ctx = t_context(16), .mine = path, .direct = direct };
	static char zeros[16 * 4096];
	int other;

	snprintf(path, sizeof(path), "%s/own-table-%d", directory, (int)getpid());
	CHECK_EQ(fsync(t_file(path, 16 * 4096)), 0);
	other = t_open("other", O_RDWR | O_CREAT);
	CHECK_EQ(write(other, zeros, sizeof(zeros)), sizeof(zeros));
	t.number = other;
	/* Requests of the main thread first, so that helpers exist and have seen that number. */
	use_file(t.ctx, t_file("first", 32 * 4096));
	t_join(t_thread(read_in_own_table, &t));
	CHECK_EQ(unlink(path), 0);
}

TEST(thread_with_a_descriptor_table_of_its_own)
{
	check_own_table(t_directory("LAS_TEST_EXT4"), false);
}

TEST(thread_with_a_descriptor_table_of_its_own_direct)
{
	check_own_table(t_directory("LAS_TEST_EXT4"), true);
}

/* One by one, so that what is known of the descriptor from the request before is all that is asked. */
static void *read_with_and_without_eventfd(void *arg)
{
	const struct own_table *t = arg;
	char *buf = t_pages(4096);
	struct iocb iocb;
	int fd, eventfd_;

	CHECK_EQ(unshare(CLONE_FILES), 0);
	fd = open(t->mine, O_RDONLY | O_DIRECT);
	eventfd_ = eventfd(0, EFD_NONBLOCK);
	CHECK(fd >= 0 && eventfd_ >= 0);
	for (int round = 0; round < 200; round++) {
		eventfd_t count;

		CHECK_EQ(t_pread(t->ctx, fd, buf, 4096, 0), 4096);
		io_prep_pread(&iocb, fd, buf, 4096, 4096);
		io_set_eventfd(&iocb, eventfd_);
		CHECK_EQ(t_run(t->ctx, &iocb), 4096);
		t_check_pattern(buf, 4096, 0, 4096);
		while (eventfd_read(eventfd_, &count)) { /* raised after the event is there */
		}
		CHECK_EQ(count, 1);
	}
	return NULL;
}

TEST(thread_with_a_descriptor_table_of_its_own_that_begins_to_use_an_eventfd)
{
	struct own_table t = { .ctx = t_context(16), .mine = t_directory("LAS_TEST_EXT4") };
	char *buf = t_pages(4096), path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/own-table-eventfd-%d", t.mine, (int)getpid());
	t.mine = path;
	CHECK_EQ(fsync(t_file(path, 16 * 4096)), 0);
	fd = t_open(path, O_RDONLY | O_DIRECT);
	CHECK_EQ(t_pread(t.ctx, fd, buf, 4096, 0), 4096); /* helpers exist from now on */
	t_join(t_thread(read_with_and_without_eventfd, &t));
	CHECK_EQ(unlink(path), 0);
}

TEST(thread_with_a_descriptor_table_of_its_own_that_must_wait)
{
	t_stall_delay(1);
	check_own_table(t_stall(), false);
	t_stall_delay(0);
}

static void *unshare_between_requests(void *arg)
{
	const struct own_table *t = arg;
	char *buf = t_pages(4096);
	int fd;

	CHECK_EQ(posix_fadvise(t->number, 0, 0, POSIX_FADV_DONTNEED), 0);
	CHECK_RET(t_pread(t->ctx, t->number, buf, 4096, 0), 4096);
	/* What still lingers of this request would be copied into the new table, and stay there for nobody to close. */
	for (int tries = 0; tries < 10000 && fcntl(4096, F_GETFD) >= 0; tries++)
		t_sleep_ms(2);
	CHECK_EQ(unshare(CLONE_FILES), 0);
	fd = open(t->mine, O_RDONLY);
	CHECK(fd >= 0);
	for (int i = 0; i < 8; i++) {
		long res;

		memset(buf, 0, 4096);
		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		res = t_pread(t->ctx, fd, buf, 4096, 0);
		if (res == -EBADF && DIFFERS("own-descriptor-table"))
			continue;
		CHECK_EQ(res, 4096);
		t_check_pattern(buf, 4096, 0, 0);
	}
	return NULL;
}

TEST(thread_that_gets_a_descriptor_table_of_its_own_between_requests)
{
	struct own_table t = { .ctx = t_context(16) };
	char path[4096];
	int fd = t_stall_file("shared", 65536, O_RDWR);
	static char zeros[65536];

	snprintf(path, sizeof(path), "%s/later-%d", t_stall(), (int)getpid());
	t_file(path, 65536);
	CHECK_EQ(write(fd, zeros, sizeof(zeros)), sizeof(zeros));
	t.mine = path;
	t.number = fd;
	t_stall_delay(1);
	t_join(t_thread(unshare_between_requests, &t));
	t_stall_delay(0);
	CHECK_EQ(unlink(path), 0);
}

TEST(program_closes_every_descriptor_while_polls_wait)
{
	io_context_t ctx = t_context(8);
	struct iocb iocb;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	CHECK_EQ(dup2(ends[1], 20), 20);
	io_prep_poll(&iocb, ends[0], 1);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_sleep_ms(10);
	/* As daemons do when they start; the poll's own file goes too, but the kernel holds it. */
	CHECK_EQ((int)syscall(SYS_close_range, 3u, 19u, 0), 0);
	CHECK_EQ((int)syscall(SYS_close_range, 21u, ~0u, 0), 0);
	signal(SIGPIPE, SIG_IGN);
	if (DIFFERS("descriptors-while-waiting")) {
		struct timespec wait = { 0, 200000000 };
		struct io_event event;
		ssize_t ignored = write(20, "x", 1);

		(void)ignored;
		/* What must not happen: a crash, a busy loop, a context that cannot be used or destroyed any more. */
		CHECK(io_getevents(ctx, 1, 1, &event, &wait) >= 0);
		t_file("after", 4096);
		use_file(ctx, t_file("data", 32 * 4096));
		CHECK_RET(io_destroy(ctx), 0);
	} else {
		CHECK_EQ(write(20, "x", 1), 1);
		CHECK(t_reap_one(ctx) & 1);
	}
	_exit(0);
}

TEST(polls_work_after_the_program_closed_every_descriptor)
{
	io_context_t ctx = t_context(8);
	struct iocb iocb;
	int ends[2];

	for (int round = 0; round < 3; round++) {
		CHECK_EQ(pipe(ends), 0);
		io_prep_poll(&iocb, ends[0], 1);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_EQ(write(ends[1], "x", 1), 1);
		CHECK(t_reap_one(ctx) & 1);
		CHECK_EQ((int)syscall(SYS_close_range, 3u, ~0u, 0), 0);
	}
	_exit(0);
}
