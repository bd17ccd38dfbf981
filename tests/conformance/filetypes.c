/*
 * filetypes.c - every kind of file, and who refuses what: io_submit or the event.
 *
 * One line tells how a file answers: read and write of 8 bytes at offset 0, fsync, and a poll for IN and OUT.  A name
 * with "!" was refused by io_submit, one without is the event's result, "-" is no event yet.
 */
#include "las_test.h"

#include <dirent.h>
#include <poll.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

static const char *result_text(long res)
{
	static char text[32];

	if (res < 0)
		snprintf(text, sizeof(text), "%s", strerrorname_np((int)-res));
	else
		snprintf(text, sizeof(text), "%ld", res);
	return text;
}

static void add_answer(char *line, size_t bytes, const char *name, struct iocb *iocb, const char *want)
{
	/* A context each: what stays pending must not be taken for a later one's answer. */
	io_context_t ctx = t_context(1);
	int answer = t_submit(ctx, iocb);
	size_t used = strlen(line);
	struct timespec wait = { 20, 0 }; /* a busy disk takes its time for an fsync */
	struct io_event event;
	char nothing[16];

	snprintf(nothing, sizeof(nothing), "%s=-", name);
	if (strstr(want, nothing))
		wait = (struct timespec){ 0, 250 * 1000 * 1000 };

	if (answer != 1)
		snprintf(line + used, bytes - used, "%s=!%s ", name, result_text(answer));
	else if (io_getevents(ctx, 1, 1, &event, &wait) == 1)
		snprintf(line + used, bytes - used, "%s=%s ", name, result_text(t_res(&event)));
	else
		snprintf(line + used, bytes - used, "%s=- ", name);
}

static const char *answers(int fd, const char *want)
{
	static char line[256];
	static char buf[8];
	struct iocb iocb;

	line[0] = 0;
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	add_answer(line, sizeof(line), "read", &iocb, want);
	memset(buf, 0, sizeof(buf));
	buf[0] = 1;
	io_prep_pwrite(&iocb, fd, buf, sizeof(buf), 0);
	add_answer(line, sizeof(line), "write", &iocb, want);
	io_prep_fsync(&iocb, fd);
	add_answer(line, sizeof(line), "fsync", &iocb, want);
	io_prep_poll(&iocb, fd, POLLIN | POLLOUT);
	add_answer(line, sizeof(line), "poll", &iocb, want);
	line[strlen(line) - 1] = 0;
	return line;
}

#define CHECK_ANSWERS(fd, want)                                              \
	do {                                                                 \
		const char *t_line = answers(fd, want);                      \
		if (strcmp(t_line, want))                                    \
			FAIL("answers\n  %s\nexpected\n  %s", t_line, want); \
	} while (0)

TEST(ordinary_file)
{
	CHECK_ANSWERS(t_file("data", 4096), "read=8 write=8 fsync=0 poll=5");
}

TEST(dev_null)
{
	CHECK_ANSWERS(t_open("/dev/null", O_RDWR), "read=0 write=8 fsync=!EINVAL poll=5");
}

TEST(dev_zero)
{
	CHECK_ANSWERS(t_open("/dev/zero", O_RDWR), "read=8 write=8 fsync=!EINVAL poll=5");
}

TEST(dev_full)
{
	/* No ENOSPC: the device has no write that AIO could use. */
	CHECK_ANSWERS(t_open("/dev/full", O_RDWR), "read=8 write=!EINVAL fsync=!EINVAL poll=5");
}

TEST(dev_urandom)
{
	CHECK_ANSWERS(t_open("/dev/urandom", O_RDWR), "read=8 write=8 fsync=!EINVAL poll=5");
}

TEST(directory)
{
	CHECK_ANSWERS(t_open(".", O_RDONLY), "read=!EINVAL write=!EBADF fsync=0 poll=5");
}

TEST(o_path)
{
	CHECK_ANSWERS(t_open(".", O_PATH), "read=!EBADF write=!EBADF fsync=!EBADF poll=!EBADF");
}

TEST(symbolic_link_by_o_path)
{
	CHECK_EQ(symlink("nowhere", "link"), 0);
	CHECK_ANSWERS(t_open("link", O_PATH | O_NOFOLLOW), "read=!EBADF write=!EBADF fsync=!EBADF poll=!EBADF");
}

TEST(nonblocking_pipe)
{
	int ends[2];

	CHECK_EQ(pipe2(ends, O_NONBLOCK), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	CHECK_ANSWERS(ends[0], "read=EAGAIN write=!EBADF fsync=!EINVAL poll=-");
	CHECK_ANSWERS(ends[1], "read=!EBADF write=8 fsync=!EINVAL poll=4");
}

TEST(nonblocking_pipe_that_is_full_is_eagain)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	static char big[1 << 20];

	CHECK_EQ(pipe2(ends, O_NONBLOCK), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	CHECK_RET(t_pwrite(ctx, ends[1], big, sizeof(big), 0), 65536);
	CHECK_RET(t_pwrite(ctx, ends[1], big, 1, 0), -EAGAIN);
}

TEST(pipe_ignores_the_offset)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	char buf[8];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	CHECK_RET(t_pwrite(ctx, ends[1], "text", 4, 12345678), 4);
	CHECK_RET(t_pread(ctx, ends[0], buf, 8, 87654321), 4);
	CHECK_EQ(memcmp(buf, "text", 4), 0);
}

TEST(pipe_with_a_negative_offset_is_einval)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	struct iocb iocb;
	char byte = 0;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_pwrite(&iocb, ends[1], &byte, 1, -1);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(pipe_at_end_of_file_is_zero)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	char byte;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	CHECK_EQ(close(ends[1]), 0);
	CHECK_RET(t_pread(ctx, ends[0], &byte, 1, 0), 0);
}

TEST(fifo)
{
	io_context_t ctx = t_context(8);
	char buf[8];
	int fd;

	CHECK_EQ(mkfifo("fifo", 0600), 0);
	fd = t_open("fifo", O_RDWR);
	CHECK_RET(t_pwrite(ctx, fd, "text", 4, 100), 4);
	CHECK_RET(t_pread(ctx, fd, buf, 8, 100), 4);
	CHECK_EQ(memcmp(buf, "text", 4), 0);
}

static void sockets(int type, int ends[2])
{
	CHECK_EQ(socketpair(AF_UNIX, type, 0, ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
}

TEST(nonblocking_stream_socket)
{
	int ends[2];

	sockets(SOCK_STREAM | SOCK_NONBLOCK, ends);
	CHECK_ANSWERS(ends[0], "read=EAGAIN write=8 fsync=!EINVAL poll=4");
	CHECK_ANSWERS(ends[1], "read=8 write=8 fsync=!EINVAL poll=4");
}

TEST(nonblocking_datagram_socket)
{
	int ends[2];

	sockets(SOCK_DGRAM | SOCK_NONBLOCK, ends);
	CHECK_ANSWERS(ends[0], "read=EAGAIN write=8 fsync=!EINVAL poll=4");
	CHECK_ANSWERS(ends[1], "read=8 write=8 fsync=!EINVAL poll=4");
}

TEST(socket_vectors_are_one_message)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	char a[] = "ab", b[] = "cde", back[16];
	struct iovec iov[] = { { a, 2 }, { b, 3 } };
	struct iocb iocb;

	sockets(SOCK_SEQPACKET, ends);
	io_prep_pwritev(&iocb, ends[0], iov, 2, 0);
	CHECK_RET(t_run(ctx, &iocb), 5);
	CHECK_RET(t_pread(ctx, ends[1], back, sizeof(back), 0), 5);
	CHECK_EQ(memcmp(back, "abcde", 5), 0);
}

TEST(socket_with_an_offset_is_espipe)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	char buf[8];

	sockets(SOCK_STREAM | SOCK_NONBLOCK, ends);
	CHECK_RET(t_pwrite(ctx, ends[0], "text", 4, 1), -ESPIPE);
	CHECK_RET(t_pwrite(ctx, ends[0], "text", 4, 0), 4);
	CHECK_RET(t_pread(ctx, ends[1], buf, 8, 1), -ESPIPE);
	CHECK_RET(t_pread(ctx, ends[1], buf, 8, 0), 4);
	CHECK_EQ(memcmp(buf, "text", 4), 0);
}

TEST(other_streams_ignore_the_offset)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(3, EFD_NONBLOCK));
	uint64_t count = 0;
	char byte;

	CHECK_RET(t_pread(ctx, efd, &count, 8, 1000), 8);
	CHECK_EQ(count, 3);
	CHECK_RET(t_pread(ctx, t_open("/dev/zero", O_RDONLY), &byte, 1, 1000), 1);
	CHECK_RET(t_pwrite(ctx, t_open("/dev/null", O_WRONLY), "x", 1, 1000), 1);
}

TEST(unconnected_tcp_socket)
{
	signal(SIGPIPE, SIG_IGN);
	CHECK_ANSWERS(t_own(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)),
	              "read=ENOTCONN write=EPIPE fsync=!EINVAL poll=20");
}

TEST(unconnected_udp_socket)
{
	CHECK_ANSWERS(t_own(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)),
	              "read=EAGAIN write=EDESTADDRREQ fsync=!EINVAL poll=4");
}

TEST(terminal)
{
	io_context_t ctx = t_context(8);
	int master, slave;
	char line[16];
	struct iocb sync;

	CHECK_EQ(openpty(&master, &slave, NULL, NULL, NULL), 0);
	t_own(master);
	t_own(slave);
	CHECK_RET(t_pwrite(ctx, master, "hello\n", 6, 77), 6);
	CHECK_RET(t_pread(ctx, slave, line, sizeof(line), 99), 6);
	CHECK_EQ(memcmp(line, "hello\n", 6), 0);
	io_prep_fsync(&sync, slave);
	CHECK_RET(t_submit(ctx, &sync), -EINVAL);
	CHECK_EQ(fcntl(slave, F_SETFL, O_RDWR | O_NONBLOCK), 0);
	CHECK_RET(t_pread(ctx, slave, line, sizeof(line), 0), -EAGAIN);
}

TEST(eventfd_with_a_count)
{
	/* Written by AIO it cannot be. */
	CHECK_ANSWERS(t_own(eventfd(5, EFD_NONBLOCK)), "read=8 write=!EINVAL fsync=!EINVAL poll=4");
}

TEST(eventfd_without_a_count)
{
	CHECK_ANSWERS(t_own(eventfd(0, EFD_NONBLOCK)), "read=EAGAIN write=!EINVAL fsync=!EINVAL poll=4");
}

TEST(timerfd)
{
	int timer = t_own(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	struct itimerspec now = { .it_value.tv_nsec = 1 };

	CHECK_ANSWERS(timer, "read=EAGAIN write=!EINVAL fsync=!EINVAL poll=-");
	CHECK_EQ(timerfd_settime(timer, 0, &now, NULL), 0);
	t_sleep_ms(5);
	CHECK_ANSWERS(timer, "read=8 write=!EINVAL fsync=!EINVAL poll=-");
}

TEST(signalfd_reads_signals)
{
	io_context_t ctx = t_context(8);
	struct signalfd_siginfo info;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	fd = t_own(signalfd(-1, &set, SFD_NONBLOCK));
	CHECK_ANSWERS(fd, "read=EINVAL write=!EINVAL fsync=!EINVAL poll=-");
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_RET(t_pread(ctx, fd, &info, sizeof(info), 0), sizeof(info));
	CHECK_EQ(info.ssi_signo, SIGUSR1);
}

TEST(inotify)
{
	CHECK_ANSWERS(t_own(inotify_init1(IN_NONBLOCK)), "read=!EINVAL write=!EBADF fsync=!EINVAL poll=-");
}

TEST(epoll)
{
	CHECK_ANSWERS(t_own(epoll_create1(0)), "read=!EINVAL write=!EINVAL fsync=!EINVAL poll=-");
}

TEST(pidfd)
{
	CHECK_ANSWERS(t_own((int)syscall(SYS_pidfd_open, getpid(), 0)),
	              "read=!EINVAL write=!EINVAL fsync=!EINVAL poll=-");
}

TEST(memfd)
{
	int fd = t_own((int)syscall(SYS_memfd_create, "memory", 0u));

	CHECK_ANSWERS(fd, "read=0 write=8 fsync=0 poll=5");
	CHECK_ANSWERS(fd, "read=8 write=8 fsync=0 poll=5");
}

TEST(huge_page_memfd)
{
	int fd = (int)syscall(SYS_memfd_create, "huge", 4u /* MFD_HUGETLB */);

	if (fd < 0)
		SKIP("n/a: no huge pages: %s", strerror(errno));
	CHECK_ANSWERS(t_own(fd), "read=0 write=!EINVAL fsync=0 poll=5");
}

TEST(hugetlbfs_file)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/file", t_directory("LAS_TEST_HUGETLBFS"));
	fd = t_open(path, O_RDWR | O_CREAT);
	CHECK_ANSWERS(fd, "read=0 write=!EINVAL fsync=0 poll=5");
	/* A hole reads as zeros and needs no page. */
	CHECK_EQ(ftruncate(fd, 2 << 20), 0);
	CHECK_ANSWERS(fd, "read=8 write=!EINVAL fsync=0 poll=5");
	CHECK_EQ(unlink(path), 0);
}

TEST(proc_file_of_the_old_kind)
{
	CHECK_ANSWERS(t_open("/proc/self/status", O_RDONLY), "read=!EINVAL write=!EBADF fsync=!EINVAL poll=5");
	CHECK_ANSWERS(t_open("/proc/self/maps", O_RDONLY), "read=!EINVAL write=!EBADF fsync=!EINVAL poll=5");
	CHECK_ANSWERS(t_open("/proc/self/mem", O_RDONLY), "read=!EINVAL write=!EBADF fsync=!EINVAL poll=5");
}

TEST(proc_file_written)
{
	CHECK_ANSWERS(t_open("/proc/self/comm", O_RDWR), "read=!EINVAL write=!EINVAL fsync=!EINVAL poll=5");
}

TEST(proc_file_of_the_new_kind)
{
	CHECK_ANSWERS(t_open("/proc/meminfo", O_RDONLY), "read=8 write=!EBADF fsync=!EINVAL poll=5");
	CHECK_ANSWERS(t_open("/proc/cpuinfo", O_RDONLY), "read=8 write=!EBADF fsync=!EINVAL poll=5");
}

TEST(proc_sys_file)
{
	CHECK_ANSWERS(t_open("/proc/sys/kernel/ostype", O_RDONLY), "read=6 write=!EBADF fsync=!EINVAL poll=5");
}

TEST(sysfs_file)
{
	CHECK_ANSWERS(t_open("/sys/kernel/notes", O_RDONLY), "read=8 write=!EBADF fsync=0 poll=5");
}

TEST(namespace_file)
{
	CHECK_ANSWERS(t_open("/proc/self/ns/mnt", O_RDONLY), "read=!EINVAL write=!EBADF fsync=!EINVAL poll=5");
}

TEST(block_device_buffered)
{
	io_context_t ctx = t_context(8);
	int fd = t_open(t_directory("LAS_TEST_BLOCK"), O_RDWR);
	char buf[1000], back[1000];
	struct iocb sync;

	t_fill(buf, sizeof(buf), 1, 0);
	CHECK_RET(t_pwrite(ctx, fd, buf, sizeof(buf), 12345), 1000);
	CHECK_RET(t_pread(ctx, fd, back, sizeof(back), 12345), 1000);
	t_check_pattern(back, sizeof(back), 1, 0);
	io_prep_fsync(&sync, fd);
	CHECK_RET(t_run(ctx, &sync), 0);
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	CHECK_RET(t_pread(ctx, fd, back, sizeof(back), 12345), 1000);
	t_check_pattern(back, sizeof(back), 1, 0);
}

TEST(block_device_direct)
{
	enum { COUNT = 32 };
	io_context_t ctx = t_context(COUNT);
	int fd = t_open(t_directory("LAS_TEST_BLOCK"), O_RDWR | O_DIRECT);
	char *buf = t_pages(COUNT * 4096), *back = t_pages(COUNT * 4096);
	static struct iocb iocbs[COUNT];
	struct iocb *list[COUNT];
	struct io_event events[COUNT];

	t_fill(buf, COUNT * 4096, 2, 0);
	for (int write_it = 1; write_it >= 0; write_it--) {
		for (int i = 0; i < COUNT; i++) {
			if (write_it)
				io_prep_pwrite(&iocbs[i], fd, buf + i * 4096, 4096, (1 << 20) + i * 4096);
			else
				io_prep_pread(&iocbs[i], fd, back + i * 4096, 4096, (1 << 20) + i * 4096);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		t_reap(ctx, COUNT, events);
		for (int i = 0; i < COUNT; i++)
			CHECK_EQ(t_res(&events[i]), 4096);
	}
	t_check_pattern(back, COUNT * 4096, 2, 0);
}

TEST(block_device_ends)
{
	io_context_t ctx = t_context(8);
	int fd = t_open(t_directory("LAS_TEST_BLOCK"), O_RDWR);
	off_t size = lseek(fd, 0, SEEK_END);
	char buf[4096] = { 0 };

	CHECK_RET(t_pread(ctx, fd, buf, sizeof(buf), size - 100), 100);
	CHECK_RET(t_pread(ctx, fd, buf, sizeof(buf), size), 0);
	CHECK_RET(t_pwrite(ctx, fd, buf, sizeof(buf), size - 100), 100);
	CHECK_RET(t_pwrite(ctx, fd, buf, sizeof(buf), size), -ENOSPC);
}
