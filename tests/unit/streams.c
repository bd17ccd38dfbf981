/* streams.c - pipes and what is like them: order, the poll set, and io_destroy; the poll thread is held by a gate. */
#include "unit.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "base/config.h"
#include "libaio_shim.h"

static unsigned epoll_waits;
static struct u_gate serving = U_GATE_OPEN;

static long counted_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout_ms, const sigset_t *mask)
{
	long ret;

	u_count(&epoll_waits);
	ret = u_real.epoll_pwait(epfd, events, n, timeout_ms, mask);
	u_gate_pass(&serving);
	return ret;
}

/* A context whose polls and streams wait in the poll set, not in the kernel's AIO. */
static io_context_t context(int n)
{
	setenv("LIBAIO_SHIM_LANES", "head,crew", 1);
	las_sys.epoll_pwait = counted_epoll_pwait;
	return t_context(n);
}

TEST(a_read_does_not_overtake_one_that_waits_in_an_earlier_call)
{
	io_context_t ctx = context(4);
	struct iocb first, second;
	struct io_event events[2];
	char a = 0, b = 0;
	int ends[2];

	u_pipe(ends);
	io_prep_pread(&first, ends[0], &a, 1, 0);
	CHECK_RET(t_submit(ctx, &first), 1);
	u_gate_close(&serving);
	CHECK_EQ(write(ends[1], "12", 2), 2);
	u_gate_await(&serving, 1); /* the poll thread knows, and has not read yet */
	io_prep_pread(&second, ends[0], &b, 1, 0);
	CHECK_RET(t_submit(ctx, &second), 1);
	u_gate_open(&serving);
	t_reap(ctx, 2, events);
	CHECK_EQ(a, '1');
	CHECK_EQ(b, '2');
}

static void fill(int fd)
{
	static const char block[4096];

	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	while (write(fd, block, sizeof(block)) > 0)
		;
	while (write(fd, block, 1) > 0)
		;
	CHECK_EQ(fcntl(fd, F_SETFL, 0), 0);
}

TEST(a_write_does_not_land_between_the_halves_of_an_earlier_one)
{
	io_context_t ctx = context(4);
	struct iocb first, second;
	struct io_event events[2];
	static char big[100000], all[100001];
	size_t got = 0;
	int ends[2];

	u_pipe(ends);
	memset(big, 'a', sizeof(big));
	io_prep_pwrite(&first, ends[1], big, sizeof(big), 0);
	CHECK_RET(t_submit(ctx, &first), 1); /* 65536 of it go in, the rest waits */
	u_gate_close(&serving);
	CHECK_EQ(read(ends[0], all, 65536), 65536);
	got = 65536;
	u_gate_await(&serving, 1);
	io_prep_pwrite(&second, ends[1], "b", 1, 0);
	CHECK_RET(t_submit(ctx, &second), 1);
	u_gate_open(&serving);
	while (got < sizeof(all)) {
		ssize_t n = read(ends[0], all + got, sizeof(all) - got);

		CHECK(n > 0);
		got += (size_t)n;
	}
	t_reap(ctx, 2, events);
	for (size_t i = 0; i < sizeof(big); i++)
		CHECK_EQ(all[i], 'a');
	CHECK_EQ(all[sizeof(big)], 'b');
}

TEST(several_reads_of_one_call_are_served_in_turn)
{
	io_context_t ctx = context(8);
	struct iocb iocbs[8], *list[8];
	struct io_event events[8];
	char bytes[8];
	int ends[2];

	u_pipe(ends);
	for (int i = 0; i < 8; i++) {
		io_prep_pread(list[i] = &iocbs[i], ends[0], &bytes[i], 1, 0);
	}
	CHECK_RET(io_submit(ctx, 8, list), 8);
	for (int i = 0; i < 8; i++) {
		char byte = (char)('0' + i);

		CHECK_EQ(write(ends[1], &byte, 1), 1);
		t_reap(ctx, 1, events);
		CHECK(events[0].obj == &iocbs[i]);
		CHECK_EQ(events[0].res, 1);
		CHECK_EQ(bytes[i], byte);
	}
}

TEST(destroy_gives_up_reads_that_came_to_their_turn)
{
	io_context_t ctx = NULL;
	struct iocb iocbs[3], *list[3];
	struct io_event event;
	char bytes[3];
	int ends[2];

	context(1);
	CHECK_RET(io_setup(4, &ctx), 0);
	u_pipe(ends);
	for (int i = 0; i < 3; i++)
		io_prep_pread(list[i] = &iocbs[i], ends[0], &bytes[i], 1, 0);
	CHECK_RET(io_submit(ctx, 3, list), 3);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, 1, &event); /* now the second is the first of its line, and there is nothing for it */
	t_sleep_ms(20);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(destroy_gives_up_writes_to_a_full_pipe)
{
	io_context_t ctx = NULL;
	struct iocb iocbs[3], *list[3];
	int ends[2];

	context(1);
	CHECK_RET(io_setup(4, &ctx), 0);
	u_pipe(ends);
	fill(ends[1]);
	for (int i = 0; i < 3; i++)
		io_prep_pwrite(list[i] = &iocbs[i], ends[1], "x", 1, 0);
	CHECK_RET(io_submit(ctx, 3, list), 3);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(one_empty_eventfd_does_not_keep_another_from_being_read)
{
	io_context_t ctx = context(4);
	struct iocb never, soon;
	struct io_event event;
	uint64_t a, b;
	int first = t_own(eventfd(0, 0)), second = t_own(eventfd(0, 0));

	/* They are two files, though all eventfds share one inode. */
	io_prep_pread(&never, first, &a, 8, 0);
	CHECK_RET(t_submit(ctx, &never), 1);
	io_prep_pread(&soon, second, &b, 8, 0);
	CHECK_RET(t_submit(ctx, &soon), 1);
	CHECK_EQ(eventfd_write(second, 7), 0);
	t_reap(ctx, 1, &event);
	CHECK(event.obj == &soon);
	CHECK_EQ(event.res, 8);
	CHECK_EQ(b, 7);
}

TEST(the_poll_thread_sleeps_after_the_last_request_was_taken_back_and_another_came)
{
	io_context_t ctx = context(4);
	struct iocb one, two;
	struct io_event event;
	int ends[2];
	unsigned before;

	u_pipe(ends);
	io_prep_poll(&one, ends[0], POLLIN);
	io_prep_poll(&two, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &one), 1);
	u_await(&epoll_waits, 1);
	t_sleep_ms(20); /* it sleeps in the kernel */
	u_gate_close(&serving);
	CHECK_RET(io_cancel(ctx, &one, &event), -EINPROGRESS);
	u_gate_await(&serving, 1); /* it was woken to close up, but does not get to it */
	CHECK_RET(t_submit(ctx, &two), 1);
	u_gate_open(&serving);
	t_sleep_ms(20);
	before = u_counted(&epoll_waits);
	t_sleep_ms(100);
	/* Asleep, it makes no calls; a spinning thread makes tens of thousands. */
	CHECK(u_counted(&epoll_waits) - before < 10);
	CHECK_RET(io_cancel(ctx, &two, &event), -EINPROGRESS);
}

TEST(a_cancelled_write_has_not_been_written_in_part)
{
	io_context_t ctx = context(4);
	static char big[100000], all[200000];
	struct iocb iocb;
	struct io_event event;
	long ret;
	int ends[2];

	u_pipe(ends);
	io_prep_pwrite(&iocb, ends[1], big, sizeof(big), 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	ret = io_cancel(ctx, &iocb, &event);
	/* 0 promises that it did not run; half of it is in the pipe. */
	CHECK(ret != 0);
	if (ret == -EINPROGRESS) {
		CHECK_EQ(t_reap_one(ctx), 65536);
	} else {
		CHECK_RET(ret, -EINVAL);
		CHECK_EQ(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
		while (read(ends[0], all, sizeof(all)) > 0)
			;
		CHECK_EQ(t_reap_one(ctx), sizeof(big));
	}
}

TEST(idle_it_keeps_no_descriptor)
{
	io_context_t ctx = context(64);
	struct iocb iocbs[64], *list[64];
	struct io_event events[64];
	char bytes[64];
	int pipes[64][2], before;

	for (int i = 0; i < 64; i++)
		u_pipe(pipes[i]);
	before = t_count_fds();
	for (int i = 0; i < 64; i++)
		io_prep_pread(list[i] = &iocbs[i], pipes[i][0], &bytes[i], 1, 0);
	CHECK_RET(io_submit(ctx, 64, list), 64);
	CHECK(t_count_fds() > before);
	for (int i = 0; i < 64; i++)
		CHECK_EQ(write(pipes[i][1], "x", 1), 1);
	t_reap(ctx, 64, events);
	for (int tries = 0; t_count_fds() != before; tries++) {
		CHECK(tries < 500);
		t_sleep_ms(10);
	}
}

static long no_epoll(int flags)
{
	return -EMFILE;
}

TEST(without_epoll_the_crew_serves_streams)
{
	io_context_t ctx = context(4);
	struct iocb iocb;
	char byte = 0;
	int ends[2];

	las_sys.epoll_create1 = no_epoll;
	u_pipe(ends);
	io_prep_pread(&iocb, ends[0], &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(write(ends[1], "y", 1), 1);
	CHECK_EQ(t_reap_one(ctx), 1);
	CHECK_EQ(byte, 'y');
}

static long refuse_second_add(int epfd, int op, int fd, struct epoll_event *event)
{
	static unsigned adds;

	return op == EPOLL_CTL_ADD && u_count(&adds) == 2 ? -ENOSPC : u_real.epoll_ctl(epfd, op, fd, event);
}

TEST(a_failed_wait_leaves_no_descriptor_behind)
{
	io_context_t ctx = context(4);
	struct iocb iocb;
	char bytes[2];
	int ends[2], before;

	u_pipe(ends);
	las_sys.epoll_ctl = refuse_second_add;
	before = t_count_fds();
	for (int i = 0; i < 2; i++) {
		io_prep_pread(&iocb, ends[0], &bytes[i], 1, 0);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_EQ(write(ends[1], "x", 1), 1);
		CHECK_EQ(t_reap_one(ctx), 1);
		t_sleep_ms(20); /* the poll thread is idle, but there */
	}
	for (int tries = 0; t_count_fds() != before; tries++) {
		CHECK(tries < 500);
		t_sleep_ms(10);
	}
}

TEST(polls_of_one_file_wait_apart_once_files_have_carried_locks)
{
	io_context_t ctx = context(4);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct iocb first, second, sync;
	struct io_event event;
	int file = t_file("file", 10), ends[2];

	/* From now on holds are shared; epoll would take one descriptor for both polls. */
	CHECK_EQ(fcntl(file, F_SETLK, &lock), 0);
	io_prep_fsync(&sync, file);
	CHECK_RET(t_submit(ctx, &sync), 1);
	CHECK_EQ(t_reap_one(ctx), 0);
	u_pipe(ends);
	io_prep_poll(&first, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &first), 1);
	io_prep_poll(&second, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &second), 1);
	CHECK_RET(io_cancel(ctx, &second, &event), -EINPROGRESS);
	CHECK_EQ(t_reap_one(ctx), 0);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK_EQ(t_reap_one(ctx), POLLIN | POLLRDNORM);
}
