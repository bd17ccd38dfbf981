/* native.c - the native lane on a kernel AIO that does what the test says. */
#include "fake_aio.h"

#include <poll.h>
#include <setjmp.h>
#include <sys/prctl.h>

#include "libaio_shim.h"

static struct f_context *const hidden = &f_contexts[0];

/* A file that counts as direct, whatever the file system can. */
static int direct_fd = -1;

static long say_direct(int fd, int cmd, uintptr_t arg)
{
	long ret = u_real.fcntl(fd, cmd, arg);

	return cmd == F_GETFL && fd == direct_fd && ret >= 0 ? ret | O_DIRECT : ret;
}

static int direct_file(size_t bytes)
{
	direct_fd = t_file("direct", bytes);
	las_sys.fcntl = say_direct;
	return direct_fd;
}

static struct iocb iocbs[128], *list[128];
static char *buffers;

/* Requests of 8 KiB: they hold their file. */
static void prepare_reads(int fd, int n)
{
	buffers = t_pages((size_t)n * 8192);
	for (int i = 0; i < n; i++) {
		io_prep_pread(&iocbs[i], fd, buffers + i * 8192, 8192, i * 8192);
		list[i] = &iocbs[i];
	}
}

static void submit_each(io_context_t ctx, int n)
{
	for (int i = 0; i < n; i++)
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
}

TEST(direct_reads_go_down_with_nowait_and_come_back)
{
	io_context_t ctx;
	struct io_event events[4];

	f_install();
	ctx = t_context(4);
	prepare_reads(direct_file(65536), 4);
	CHECK_RET(io_submit(ctx, 4, list), 4);
	CHECK_EQ(hidden->submitted, 4);
	for (int i = 0; i < 4; i++) {
		CHECK(hidden->pending[i]->rw_flags & 8 /* RWF_NOWAIT */);
		CHECK_EQ(hidden->pending[i]->buf, iocbs[i].u.c.buf);
		CHECK_EQ(hidden->pending[i]->nbytes, 8192);
		CHECK_EQ(hidden->pending[i]->offset, i * 8192);
	}
	for (int i = 3; i >= 0; i--)
		f_finish(hidden, i, 8192);
	t_reap(ctx, 4, events);
	for (int i = 0; i < 4; i++) {
		CHECK(events[i].obj == &iocbs[3 - i]);
		CHECK_EQ(events[i].res, 8192);
	}
}

static int odd(struct f_context *c, const struct las_iocb *iocb)
{
	return iocb->offset % 16384 ? -EOPNOTSUPP : 0;
}

TEST(what_the_kernel_refuses_at_once_is_run_by_the_crew)
{
	io_context_t ctx;
	struct io_event events[4];

	f_install();
	f_refuse = odd;
	ctx = t_context(4);
	prepare_reads(direct_file(65536), 4);
	CHECK_RET(io_submit(ctx, 4, list), 4);
	CHECK_EQ(hidden->submitted, 2);
	f_finish(hidden, 0, 8192);
	f_finish(hidden, 1, 8192);
	t_reap(ctx, 4, events);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(events[i].res, 8192);
	t_check_pattern(buffers + 8192, 8192, 0, 8192);
	t_check_pattern(buffers + 3 * 8192, 8192, 0, 3 * 8192);
}

TEST(what_comes_back_with_eagain_is_run_by_the_crew)
{
	io_context_t ctx;
	struct io_event events[2];

	f_install();
	ctx = t_context(4);
	prepare_reads(direct_file(65536), 2);
	CHECK_RET(io_submit(ctx, 2, list), 2);
	f_finish(hidden, 0, -EAGAIN);
	f_finish(hidden, 1, -EAGAIN);
	t_reap(ctx, 2, events);
	CHECK_EQ(events[0].res, 8192);
	CHECK_EQ(events[1].res, 8192);
	t_check_pattern(buffers, 16384, 0, 0);
}

TEST(a_transfer_that_stopped_halfway_is_finished)
{
	io_context_t ctx;
	struct io_event event;

	f_install();
	ctx = t_context(4);
	prepare_reads(direct_file(65536), 1);
	CHECK_RET(io_submit(ctx, 1, list), 1);
	t_fill(buffers, 4096, 0, 0); /* the half that the kernel did */
	f_finish(hidden, 0, 4096);
	t_reap(ctx, 1, &event);
	CHECK_EQ(event.res, 8192);
	t_check_pattern(buffers, 8192, 0, 0);
}

TEST(a_descriptor_closed_meanwhile_does_not_matter)
{
	io_context_t ctx;
	struct io_event event;
	int fd;

	f_install();
	ctx = t_context(4);
	fd = direct_file(65536);
	prepare_reads(fd, 1);
	CHECK_RET(io_submit(ctx, 1, list), 1);
	t_close(fd);
	CHECK_EQ(t_open("/dev/zero", O_RDONLY), fd); /* the number is taken again at once */
	f_finish(hidden, 0, -EAGAIN);
	t_reap(ctx, 1, &event);
	CHECK_EQ(event.res, 8192);
	t_check_pattern(buffers, 8192, 0, 0);
}

TEST(hidden_contexts_are_used_again_and_never_destroyed)
{
	struct iocb iocb;
	int ends[2];

	f_install();
	u_pipe(ends);
	for (int round = 0; round < 20; round++) {
		io_context_t ctx = NULL;
		struct io_event event;

		CHECK_RET(io_setup(8, &ctx), 0);
		io_prep_poll(&iocb, ends[0], POLLIN);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		f_finish(hidden, round, POLLIN);
		t_reap(ctx, 1, &event);
		CHECK_EQ(event.res, POLLIN);
		CHECK_RET(io_destroy(ctx), 0); /* fake_destroy() fails the test */
	}
	CHECK_EQ(f_context_count, 1);
}

TEST(destroy_cancels_pending_polls)
{
	io_context_t ctx = NULL;
	struct iocb polls[10];
	int ends[2];

	f_install();
	u_pipe(ends);
	CHECK_RET(io_setup(10, &ctx), 0);
	for (int i = 0; i < 10; i++) {
		io_prep_poll(&polls[i], ends[0], POLLIN);
		CHECK_RET(t_submit(ctx, &polls[i]), 1);
	}
	CHECK_EQ(hidden->submitted, 10);
	CHECK_RET(io_destroy(ctx), 0);
	for (int i = 0; i < 10; i++)
		CHECK(hidden->pending[i] == NULL);
}

static long no_kernel_aio(unsigned nr, uintptr_t *handle)
{
	return -ENOSYS;
}

TEST(without_kernel_aio_everything_is_done_elsewhere)
{
	io_context_t ctx;
	struct io_event events[4];
	struct iocb poll;
	int ends[2];

	f_install();
	las_sys.io_setup = no_kernel_aio;
	ctx = t_context(8);
	prepare_reads(direct_file(65536), 3);
	CHECK_RET(io_submit(ctx, 3, list), 3);
	u_pipe(ends);
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &poll), 1);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, 4, events);
	t_check_pattern(buffers, 3 * 8192, 0, 0);
}

/* ---- who moves events on: a leader in the kernel, and the reaper beside it ---- */

/* Stops every thread but the program's own as it gives up a file: between taking an event and making it visible. */
static struct u_gate give_up = U_GATE_OPEN;
static pthread_t program;

static long stop_at_close(int fd)
{
	if (!pthread_equal(pthread_self(), program))
		u_gate_pass(&give_up);
	return u_real.close(fd);
}

static void *let_reaper_go_then_finish_second(void *unused)
{
	f_await_waiter(hidden);
	u_gate_open(&give_up);
	u_gate_await_passed(&give_up, 1);
	t_sleep_ms(20); /* the event that it carries becomes visible */
	f_finish(hidden, 1, 8192);
	return NULL;
}

TEST(an_event_in_the_reapers_hands_is_not_waited_for_in_the_kernel)
{
	struct io_event events[2];
	io_context_t ctx;
	pthread_t helper;

	f_install();
	program = pthread_self();
	las_sys.close = stop_at_close;
	ctx = t_context(4);
	prepare_reads(direct_file(65536), 2);
	CHECK_RET(t_submit(ctx, &iocbs[0]), 1);
	/* Another open file, so that each gives up one of its own. */
	iocbs[1].aio_fildes = direct_file(65536);
	CHECK_RET(t_submit(ctx, &iocbs[1]), 1);
	u_gate_close(&give_up);
	f_finish(hidden, 0, 8192);
	u_gate_await(&give_up, 1); /* the reaper has taken the first event, nobody sees it yet */
	helper = t_thread(let_reaper_go_then_finish_second, NULL);
	t_reap(ctx, 2, events); /* the program waits for both: one will come in the kernel, one from the reaper */
	t_join(helper);
}

static int leave_few;

static long no_more_eventfds(unsigned initial, int flags)
{
	return __atomic_load_n(&leave_few, __ATOMIC_SEQ_CST) ? -EMFILE : u_real.eventfd2(initial, flags);
}

static void *wait_for_one(void *ctx)
{
	struct io_event event;

	t_reap(ctx, 1, &event);
	CHECK_EQ(event.data == NULL, true);
	return NULL;
}

TEST(a_leader_hears_of_other_lanes_without_a_descriptor_to_spare)
{
	io_context_t ctx;
	struct iocb poll, read;
	pthread_t waiter;
	char byte;
	int ends[2], file;

	f_install();
	las_sys.eventfd2 = no_more_eventfds;
	ctx = t_context(4);
	u_pipe(ends);
	file = t_file("cached", 4096);
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &poll), 1);
	waiter = t_thread(wait_for_one, ctx);
	f_await_waiter(hidden); /* it leads: it sleeps in the kernel, for a poll that never comes */
	__atomic_store_n(&leave_few, 1, __ATOMIC_SEQ_CST); /* the process is at its limit of descriptors */
	io_prep_pread(&read, file, &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &read), 1); /* done at once: the waiter has what it wants */
	t_join(waiter);
	__atomic_store_n(&leave_few, 0, __ATOMIC_SEQ_CST);
}

static sigjmp_buf away;

static void jump(int sig)
{
	siglongjmp(away, 1);
}

static long interrupted_getevents(uintptr_t handle, long min, long nr, struct las_event *events,
                                  struct timespec *timeout,
                           const sigset_t *mask)
{
	static unsigned calls;

	/* The first to lead is interrupted in the kernel, and its handler does not come back. */
	if (u_count(&calls) == 1) {
		raise(SIGUSR1);
		return -EINTR;
	}
	return f_getevents(handle, min, nr, events, timeout, mask);
}

static void *lead_and_jump(void *ctx)
{
	struct io_event event;

	if (sigsetjmp(away, 1) == 0) {
		io_getevents(ctx, 1, 1, &event, NULL);
		FAIL("the handler should have jumped");
	}
	return NULL;
}

TEST(a_leader_that_jumped_away_and_ended_keeps_nobody_waiting)
{
	io_context_t ctx;
	struct io_event event;
	struct iocb poll;
	int ends[2];

	f_install();
	las_sys.io_getevents = interrupted_getevents;
	signal(SIGUSR1, jump);
	ctx = t_context(4);
	u_pipe(ends);
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &poll), 1);
	t_join(t_thread(lead_and_jump, ctx));
	f_finish(hidden, 0, POLLIN);
	t_reap(ctx, 1, &event);
	CHECK_EQ(event.res, POLLIN);
}
