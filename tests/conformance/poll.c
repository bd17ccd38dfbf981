/* poll.c - IO_CMD_POLL: what is ready at once, what comes later, what is refused. */
#include "las_test.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static long poll_now(io_context_t ctx, int fd, int events)
{
	struct iocb iocb;

	io_prep_poll(&iocb, fd, events);
	return t_run(ctx, &iocb);
}

static void make_pipe(int ends[2])
{
	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
}

static void make_sockets(int ends[2])
{
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
}

TEST(ready_gives_the_mask_that_was_asked_for)
{
	io_context_t ctx = t_context(8);
	int ends[2];

	make_sockets(ends);
	CHECK_EQ(poll_now(ctx, ends[0], POLLIN | POLLOUT), POLLOUT);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK_EQ(poll_now(ctx, ends[0], POLLIN | POLLOUT), POLLIN | POLLOUT);
	CHECK_EQ(poll_now(ctx, ends[0], POLLIN), POLLIN);
	CHECK_EQ(poll_now(ctx, ends[0], POLLOUT), POLLOUT);
	CHECK_EQ(poll_now(ctx, ends[0], POLLRDNORM), POLLRDNORM);
}

TEST(comes_later_when_something_is_written)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	struct iocb iocb;

	make_pipe(ends);
	io_prep_poll(&iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_no_event(ctx);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
}

static long late(io_context_t ctx, int fd, int events, int writer)
{
	struct iocb iocb;

	io_prep_poll(&iocb, fd, events);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(write(writer, "12345678", 8), 8);
	return t_reap_one(ctx);
}

TEST(late_event_names_the_wake_ups_bits)
{
	io_context_t ctx = t_context(8);
	int ends[2], efd = t_own(eventfd(0, 0));

	make_pipe(ends);
	CHECK_EQ(late(ctx, ends[0], POLLIN, ends[1]), POLLIN | POLLRDNORM);
	CHECK_EQ(late(ctx, efd, POLLIN, efd), POLLIN);
}

TEST(late_room_names_the_wake_ups_bits)
{
	io_context_t ctx = t_context(8);
	static char much[1 << 20];
	struct iocb iocb;
	int ends[2];

	make_pipe(ends);
	CHECK_EQ(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
	while (write(ends[1], much, sizeof(much)) > 0)
		;
	io_prep_poll(&iocb, ends[1], POLLOUT);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK(read(ends[0], much, sizeof(much)) > 0);
	CHECK_EQ(t_reap_one(ctx), POLLOUT | POLLWRNORM);
}

TEST(late_hang_up_names_what_was_asked_for)
{
	io_context_t ctx = t_context(8);
	struct iocb iocb;
	int ends[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	t_own(ends[0]);
	io_prep_poll(&iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	close(ends[1]);
	CHECK_EQ(t_reap_one(ctx), POLLIN | POLLHUP);
}

TEST(late_event_of_a_socket_names_four_bits)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	long mask;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	mask = late(ctx, ends[0], POLLIN, ends[1]);
	if (DIFFERS("poll-late-mask"))
		CHECK_EQ(mask & ~(POLLPRI | POLLRDBAND), POLLIN | POLLRDNORM);
	else
		CHECK_EQ(mask, POLLIN | POLLRDNORM | POLLPRI | POLLRDBAND);
}

TEST(is_for_one_event_only)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	struct iocb iocb;

	make_pipe(ends);
	io_prep_poll(&iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	for (int i = 0; i < 5; i++)
		CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap_one(ctx);
	t_no_event(ctx);
}

TEST(hangup_is_told_unasked)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	struct iocb iocb;

	make_pipe(ends);
	io_prep_poll(&iocb, ends[0], 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_no_event(ctx);
	t_close(ends[1]);
	CHECK(t_reap_one(ctx) & POLLHUP);
	CHECK_EQ(poll_now(ctx, ends[0], 0), POLLHUP);
	CHECK_EQ(poll_now(ctx, ends[0], POLLIN), POLLHUP);
}

TEST(error_is_told_unasked)
{
	io_context_t ctx = t_context(8);
	int ends[2];

	make_pipe(ends);
	t_close(ends[0]);
	CHECK_EQ(poll_now(ctx, ends[1], 0), POLLERR);
	CHECK_EQ(poll_now(ctx, ends[1], POLLOUT), POLLERR | POLLOUT);
}

TEST(peer_shutdown_is_told_as_rdhup)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	struct iocb iocb;

	make_sockets(ends);
	io_prep_poll(&iocb, ends[0], POLLRDHUP);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_no_event(ctx);
	CHECK_EQ(shutdown(ends[1], SHUT_WR), 0);
	CHECK(t_reap_one(ctx) & POLLRDHUP);
}

TEST(fields_that_mean_nothing_to_poll_are_einval)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	struct iocb clean, iocb;

	make_sockets(ends);
	io_prep_poll(&clean, ends[0], POLLOUT);
	iocb = clean;
	iocb.u.c.offset = 1;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	iocb = clean;
	iocb.u.c.nbytes = 1;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	iocb = clean;
	iocb.aio_rw_flags = RWF_NOWAIT;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	iocb = clean;
	iocb.aio_reqprio = 77;
	CHECK_EQ(t_run(ctx, &iocb), POLLOUT);
	t_no_event(ctx);
}

TEST(events_above_sixteen_bits_are_einval)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	struct iocb iocb;

	make_sockets(ends);
	io_prep_poll(&iocb, ends[0], POLLOUT | 0x10000);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_poll(&iocb, ends[0], -1);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_poll(&iocb, ends[0], POLLOUT);
	iocb.u.c.buf = (void *)((uintptr_t)iocb.u.c.buf | (uintptr_t)1 << 40);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_poll(&iocb, ends[0], 0xffff);
	CHECK(t_run(ctx, &iocb) & POLLOUT);
}

TEST(ordinary_files_are_always_ready)
{
	io_context_t ctx = t_context(8);

	CHECK_EQ(poll_now(ctx, t_file("data", 64), POLLIN | POLLOUT), POLLIN | POLLOUT);
	CHECK_EQ(poll_now(ctx, t_open(".", O_RDONLY), POLLIN | POLLOUT), POLLIN | POLLOUT);
	CHECK_EQ(poll_now(ctx, t_open("/dev/null", O_RDWR), POLLIN), POLLIN);
}

TEST(what_can_never_come_is_einval)
{
	io_context_t ctx = t_context(8);
	struct iocb iocb;

	/* An ordinary file has nothing to wait on, and is never "exceptional". */
	io_prep_poll(&iocb, t_file("data", 64), POLLPRI);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_poll(&iocb, iocb.aio_fildes, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	t_no_event(ctx);
}

/* The kernel's request can wait in one queue, and an end that both reads and writes would need two. */
TEST(fifo_open_for_both_directions)
{
	io_context_t ctx = t_context(8);
	struct iocb iocb;
	int fd;

	CHECK_EQ(mkfifo("fifo", 0600), 0);
	fd = t_open("fifo", O_RDWR);
	io_prep_poll(&iocb, fd, POLLIN);
	if (DIFFERS("poll-two-queues")) {
		int answer = t_submit(ctx, &iocb);

		if (answer == 1) {
			CHECK_EQ(write(fd, "x", 1), 1);
			CHECK(t_reap_one(ctx) & POLLIN);
		} else {
			CHECK_RET(answer, -EINVAL);
		}
	} else {
		CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	}
}

TEST(eventfd_and_timerfd)
{
	io_context_t ctx = t_context(8);
	int efd = t_own(eventfd(0, 0)), timer = t_own(timerfd_create(CLOCK_MONOTONIC, 0));
	struct itimerspec soon = { .it_value.tv_nsec = 1000000 };
	struct iocb iocb;
	uint64_t one = 1;

	CHECK_EQ(poll_now(ctx, efd, POLLOUT), POLLOUT);
	io_prep_poll(&iocb, efd, POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_no_event(ctx);
	CHECK_EQ(write(efd, &one, 8), 8);
	CHECK(t_reap_one(ctx) & POLLIN);
	io_prep_poll(&iocb, timer, POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(timerfd_settime(timer, 0, &soon, NULL), 0);
	CHECK(t_reap_one(ctx) & POLLIN);
}

TEST(inotify_and_epoll_descriptors)
{
	io_context_t ctx = t_context(8);
	int watch = t_own(inotify_init1(0)), set = t_own(epoll_create1(0)), efd = t_own(eventfd(0, 0));
	struct epoll_event want = { .events = EPOLLIN };
	struct iocb iocb;
	uint64_t one = 1;

	CHECK(inotify_add_watch(watch, ".", IN_CREATE) >= 0);
	io_prep_poll(&iocb, watch, POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_no_event(ctx);
	t_file("new", 1);
	CHECK(t_reap_one(ctx) & POLLIN);
	CHECK_EQ(epoll_ctl(set, EPOLL_CTL_ADD, efd, &want), 0);
	io_prep_poll(&iocb, set, POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_no_event(ctx);
	CHECK_EQ(write(efd, &one, 8), 8);
	CHECK(t_reap_one(ctx) & POLLIN);
}

TEST(listening_socket)
{
	io_context_t ctx = t_context(8);
	int server = t_own(socket(AF_UNIX, SOCK_STREAM, 0)), client = t_own(socket(AF_UNIX, SOCK_STREAM, 0));
	struct sockaddr address = { .sa_family = AF_UNIX };
	struct iocb iocb;

	/* Autobind: an abstract name that the kernel chooses. */
	socklen_t length = sizeof(address.sa_family);
	struct sockaddr_storage bound;
	socklen_t bound_length = sizeof(bound);

	CHECK_EQ(bind(server, &address, length), 0);
	CHECK_EQ(listen(server, 1), 0);
	CHECK_EQ(getsockname(server, (struct sockaddr *)&bound, &bound_length), 0);
	io_prep_poll(&iocb, server, POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_no_event(ctx);
	CHECK_EQ(connect(client, (struct sockaddr *)&bound, bound_length), 0);
	CHECK(t_reap_one(ctx) & POLLIN);
}

TEST(holds_its_file)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	struct iocb iocb;

	make_pipe(ends);
	io_prep_poll(&iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_close(ends[0]);
	/* No SIGPIPE: the request still is a reader. */
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
	signal(SIGPIPE, SIG_IGN);
	for (int tries = 0; write(ends[1], "x", 1) == 1; tries++) {
		if (tries == 3000)
			FAIL("the file is still held after the event");
		t_sleep_ms(10);
	}
	CHECK_EQ(errno, EPIPE);
}

TEST(descriptor_number_reused_while_it_waits)
{
	io_context_t ctx = t_context(8);
	int first[2], second[2];
	struct iocb iocb;

	make_pipe(first);
	make_pipe(second);
	io_prep_poll(&iocb, first[0], POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(dup2(second[0], first[0]), first[0]);
	CHECK_EQ(write(second[1], "x", 1), 1);
	t_no_event(ctx);
	CHECK_EQ(write(first[1], "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
}

TEST(many_on_one_file)
{
	enum { COUNT = 100 };
	io_context_t ctx = t_context(COUNT);
	static struct iocb iocbs[COUNT];
	struct io_event events[COUNT];
	int ends[2];

	make_pipe(ends);
	for (int i = 0; i < COUNT; i++) {
		io_prep_poll(&iocbs[i], ends[0], POLLIN);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	t_no_event(ctx);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, COUNT, events);
	t_no_event(ctx);
}

TEST(a_thousand_files)
{
	enum { COUNT = 1000 };
	io_context_t ctx = t_context(COUNT);
	static struct iocb iocbs[COUNT];
	static int efds[COUNT];
	static struct io_event events[COUNT];
	uint64_t one = 1;

	for (int i = 0; i < COUNT; i++) {
		efds[i] = t_own(eventfd(0, 0));
		io_prep_poll(&iocbs[i], efds[i], POLLIN);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	for (int i = COUNT - 1; i >= 0; i -= 2) {
		struct io_event event;

		CHECK_EQ(write(efds[i], &one, 8), 8);
		t_reap(ctx, 1, &event);
		CHECK(event.obj == &iocbs[i]);
	}
	t_no_event(ctx);
	for (int i = 0; i < COUNT; i += 2)
		CHECK_EQ(write(efds[i], &one, 8), 8);
	t_reap(ctx, COUNT / 2, events);
}

TEST(ready_and_reads_in_one_call)
{
	io_context_t ctx = t_context(8);
	int ends[2];
	char byte;
	struct iocb poll, read, *list[] = { &poll, &read };
	struct io_event events[2];

	make_pipe(ends);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	io_prep_poll(&poll, ends[0], POLLIN);
	io_prep_pread(&read, ends[0], &byte, 1, 0);
	CHECK_RET(io_submit(ctx, 2, list), 2);
	t_reap(ctx, 2, events);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(t_res(&events[i]), 1);
}

/* A batch ends at the first that is refused: nothing after it is begun, whatever was accepted before it waits. */
TEST(refused_one_ends_the_batch)
{
	enum { COUNT = 200, BAD = 150 };
	io_context_t ctx = t_context(512);
	struct iocb iocbs[COUNT + 1], *list[COUNT + 1];
	struct io_event events[BAD];
	int data = t_file("data", 64), ends[2];
	char byte = 'x';

	make_pipe(ends);
	for (int i = 0; i < COUNT; i++) {
		io_prep_poll(&iocbs[i], i == BAD ? -1 : ends[0], POLLIN);
		list[i] = &iocbs[i];
	}
	io_prep_pread(&iocbs[COUNT], data, &byte, 1, 0);
	list[COUNT] = &iocbs[COUNT];
	CHECK_RET(io_submit(ctx, COUNT + 1, list), BAD);
	t_no_event(ctx);
	CHECK_EQ(byte, 'x');
	CHECK_RET(io_submit(ctx, COUNT + 1 - BAD, list + BAD), -EBADF);
	io_prep_poll(&iocbs[BAD], data, 0);
	CHECK_RET(io_submit(ctx, COUNT + 1 - BAD, list + BAD), -EINVAL);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, BAD, events);
	t_no_event(ctx);
	CHECK_EQ(byte, 'x');
}

/* The places of those that were refused are free again. */
TEST(refused_ones_leave_their_places)
{
	io_context_t ctx = t_context(64);
	struct iocb iocbs[64], *list[64];
	struct io_event events[64];
	int ends[2];

	make_pipe(ends);
	for (int i = 0; i < 64; i++) {
		io_prep_poll(&iocbs[i], i % 4 ? ends[0] : -1, POLLIN);
		list[i] = &iocbs[i];
	}
	for (int i = 0; i < 1000; i++)
		CHECK_RET(io_submit(ctx, 64, list), -EBADF);
	for (int i = 0; i < 64; i += 4)
		CHECK_RET(io_submit(ctx, 4, list + i), -EBADF);
	for (int i = 0; i < 64; i += 4)
		CHECK_RET(io_submit(ctx, 3, list + i + 1), 3);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, 48, events);
	t_no_event(ctx);
}

/* Polls between transfers: what comes after one that is refused does not move a byte. */
TEST(refused_between_transfers)
{
	io_context_t ctx = t_context(8);
	struct iocb iocbs[5], *list[5];
	struct io_event events[2];
	int data = t_file("data", 64), ends[2];
	char bytes[2] = "xx";

	make_pipe(ends);
	for (int i = 0; i < 5; i++)
		list[i] = &iocbs[i];
	io_prep_pread(&iocbs[0], data, &bytes[0], 1, 1);
	io_prep_poll(&iocbs[1], ends[0], POLLIN);
	io_prep_poll(&iocbs[2], 999, POLLIN);
	io_prep_pread(&iocbs[3], data, &bytes[1], 1, 1);
	io_prep_poll(&iocbs[4], ends[0], POLLIN);
	CHECK_RET(io_submit(ctx, 5, list), 2);
	CHECK_EQ(t_reap_one(ctx), 1);
	CHECK(bytes[0] != 'x');
	CHECK_EQ(bytes[1], 'x');
	t_no_event(ctx);
	CHECK_RET(io_submit(ctx, 2, list + 3), 2);
	CHECK_EQ(t_reap_one(ctx), 1);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, 2, events);
	t_no_event(ctx);
}

TEST(two_contexts_wait_on_one_file)
{
	io_context_t one = t_context(8), two = t_context(8);
	int ends[2];
	struct iocb a, b;

	make_pipe(ends);
	io_prep_poll(&a, ends[0], POLLIN);
	io_prep_poll(&b, ends[0], POLLIN);
	CHECK_RET(t_submit(one, &a), 1);
	CHECK_RET(t_submit(two, &b), 1);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK(t_reap_one(one) & POLLIN);
	CHECK(t_reap_one(two) & POLLIN);
}

TEST(idle_poll_owns_no_visible_descriptor)
{
	io_context_t ctx = t_context(8);
	int ends[2], before;
	struct iocb iocb;

	make_pipe(ends);
	before = t_count_fds();
	io_prep_poll(&iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	if (DIFFERS("descriptors-while-waiting"))
		CHECK(t_count_fds() <= before + 3);
	else
		CHECK_EQ(t_count_fds(), before);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap_one(ctx);
	for (int tries = 0; t_count_fds() != before; tries++) {
		if (tries == 3000)
			FAIL("%d descriptors, before %d", t_count_fds(), before);
		t_sleep_ms(10);
	}
}
