/* native.c - the native lane on a kernel AIO that does what the test says. */
#include "fake_aio.h"

#include <poll.h>
#include <setjmp.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statfs.h>

#include "lanes/hidden.h"
#include "libaio_shim.h"

static struct f_context *const hidden = &f_contexts[0];

static int direct_file(size_t bytes)
{
	return f_direct(t_file("direct", bytes));
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

static unsigned asked;

/* Where it can be done: a transfer to nowhere is refused for that, not for its flags. */
static long nowait_is_known(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	if (n == 1 && iov->iov_base == (void *)1) {
		u_count(&asked);
		return -EINVAL;
	}
	return u_real.preadv2(fd, iov, n, offset, flags);
}

TEST(what_the_program_wants_done_without_waiting_does_not_wait_in_io_submit)
{
	struct io_event events[4];
	io_context_t ctx;

	f_install();
	las_sys.preadv2 = nowait_is_known;
	ctx = t_context(4);
	prepare_reads(direct_file(65536), 4);
	for (int i = 0; i < 4; i++)
		iocbs[i].aio_rw_flags = 8; /* RWF_NOWAIT */
	CHECK_RET(io_submit(ctx, 4, list), 4);
	CHECK_EQ(hidden->submitted, 4);
	CHECK_EQ(t_ring_count(ctx), 0);
	CHECK_EQ(asked, 1); /* once for a file and a call */
	f_finish(hidden, 0, 8192);
	f_finish(hidden, 1, -EAGAIN); /* the program's to see */
	f_finish(hidden, 2, 4096);
	f_finish(hidden, 3, 8192);
	t_reap(ctx, 4, events);
	for (int i = 0; i < 4; i++) {
		static const long results[] = { 8192, -EAGAIN, 4096, 8192 };

		CHECK_EQ(t_res(&events[i]), results[(struct iocb *)events[i].obj - iocbs]);
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

static bool switched;

static long say_direct_until_switched(int fd, int cmd, uintptr_t arg)
{
	long ret = u_real.fcntl(fd, cmd, arg);

	return cmd == F_GETFL && ret >= 0 && !switched ? ret | O_DIRECT : ret;
}

static long switch_and_write(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	switched = true;
	return u_real.pwritev2(fd, iov, n, offset, flags);
}

TEST(what_was_appended_while_o_direct_was_switched_off_is_there_once)
{
	int fd = t_open("appended", O_RDWR | O_CREAT | O_APPEND);
	io_context_t ctx;

	f_install();
	las_sys.fcntl = say_direct_until_switched;
	las_sys.pwritev2 = switch_and_write;
	ctx = t_context(1);
	CHECK_RET(t_pwrite(ctx, fd, "appended", 8, 0), 8);
	CHECK(switched);
	CHECK_EQ(lseek(fd, 0, SEEK_END), 8);
}

static unsigned syncs;

static long interrupted_once(int fd)
{
	return syncs++ ? 0 : -EINTR;
}

TEST(a_sync_that_was_interrupted_is_made_again)
{
	int fd = t_file("synced", 1);
	struct iocb iocb;
	io_context_t ctx;

	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	las_sys.fsync = las_sys.fdatasync = interrupted_once;
	ctx = t_context(1);
	io_prep_fsync(&iocb, fd);
	CHECK_RET(t_run(ctx, &iocb), 0);
	CHECK_EQ(syncs, 2);
	syncs = 0;
	io_prep_fdsync(&iocb, fd);
	CHECK_RET(t_run(ctx, &iocb), 0);
	CHECK_EQ(syncs, 2);
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
                                  struct timespec *timeout, const sigset_t *mask)
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

static io_context_t waited_for;

static void wait_a_moment(int sig)
{
	struct timespec moment = { 0, 1000000 };
	struct io_event event;

	CHECK_RET(io_getevents(waited_for, 1, 1, &event, &moment), 0);
}

static long interrupted_before_getevents(uintptr_t handle, long min, long nr, struct las_event *events,
                                         struct timespec *timeout, const sigset_t *mask)
{
	static unsigned calls;

	/* The handler comes when its thread leads, but is not in the kernel yet; it waits, too, and goes back. */
	if (u_count(&calls) == 1) {
		raise(SIGUSR1);
		f_finish(hidden, 0, POLLIN);
	}
	return f_getevents(handle, min, nr, events, timeout, mask);
}

TEST(a_handler_that_waits_gives_the_lead_back)
{
	struct timespec second = { 1, 0 };
	struct io_event event;
	struct iocb poll;
	int ends[2];

	f_install();
	las_sys.io_getevents = interrupted_before_getevents;
	signal(SIGUSR1, wait_a_moment);
	waited_for = t_context(4);
	u_pipe(ends);
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(waited_for, &poll), 1);
	CHECK_RET(io_getevents(waited_for, 1, 1, &event, &second), 1);
	CHECK_EQ(event.res, POLLIN);
}

static long taken_then_interrupted(uintptr_t handle, long min, long nr, struct las_event *events,
                                   struct timespec *timeout, const sigset_t *mask)
{
	static unsigned calls;
	long n;

	if (u_count(&calls) != 1)
		return f_getevents(handle, min, nr, events, timeout, mask);
	/* The first leader's event comes, and its handler before the call is back. */
	f_finish(hidden, 0, POLLIN);
	n = f_getevents(handle, min, nr, events, timeout, mask);
	raise(SIGUSR1);
	return n;
}

TEST(what_a_leader_had_taken_when_it_jumped_away_is_not_lost)
{
	io_context_t ctx;
	struct io_event event;
	struct iocb poll;
	int ends[2];

	f_install();
	las_sys.io_getevents = taken_then_interrupted;
	signal(SIGUSR1, jump);
	ctx = t_context(4);
	u_pipe(ends);
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &poll), 1);
	t_join(t_thread(lead_and_jump, ctx));
	t_reap(ctx, 1, &event);
	CHECK_EQ(event.res, POLLIN);
}

static struct u_gate in_kernel = U_GATE_OPEN;
static unsigned leads, looks;

static long late_getevents(uintptr_t handle, long min, long nr, struct las_event *events, struct timespec *timeout,
                           const sigset_t *mask)
{
	if (min == 0)
		u_count(&looks);
	else if (u_count(&leads) == 1)
		u_gate_pass(&in_kernel);
	return f_getevents(handle, min, nr, events, timeout, mask);
}

/* A leader that could take events off the ring at any time, and gets no processor; two polls wait. */
static pthread_t stopped_leader(io_context_t ctx, int *ends, struct iocb *polls)
{
	pthread_t leader;

	u_pipe(ends);
	for (int i = 0; i < 2; i++) {
		io_prep_poll(&polls[i], ends[0], POLLIN);
		CHECK_RET(t_submit(ctx, &polls[i]), 1);
	}
	u_gate_close(&in_kernel);
	leader = t_thread(wait_for_one, ctx);
	u_gate_await(&in_kernel, 1);
	return leader;
}

TEST(beside_a_leader_that_is_late_events_are_taken_by_the_kernel)
{
	int efd = t_own(eventfd(0, 0)), ends[2];
	struct iocb polls[2], read_it;
	struct io_event event;
	io_context_t ctx;
	pthread_t leader;
	uint64_t raised;

	f_install();
	las_sys.io_getevents = late_getevents;
	ctx = t_context(4);
	leader = stopped_leader(ctx, ends, polls);
	buffers = t_pages(4096);
	io_prep_pread(&read_it, direct_file(65536), buffers, 4096, 0);
	io_set_eventfd(&read_it, efd);
	CHECK_RET(t_submit(ctx, &read_it), 1);
	f_finish(hidden, 2, 4096);
	CHECK_EQ(read(efd, &raised, sizeof(raised)), sizeof(raised)); /* nobody asks for it: the reaper has found it */
	CHECK(u_counted(&looks) > 0);
	t_reap(ctx, 1, &event);
	f_finish(hidden, 0, POLLIN);
	u_gate_open(&in_kernel);
	t_join(leader);
}

TEST(a_thread_that_looks_is_given_events_beside_the_leader)
{
	struct timespec at_once = { 0, 0 };
	struct iocb polls[2];
	struct io_event event;
	io_context_t ctx;
	pthread_t leader;
	int ends[2];

	f_install();
	las_sys.io_getevents = late_getevents;
	ctx = t_context(4);
	leader = stopped_leader(ctx, ends, polls);
	f_finish(hidden, 0, POLLIN);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, &at_once), 1);
	CHECK(event.obj == &polls[0]);
	f_finish(hidden, 1, POLLIN);
	u_gate_open(&in_kernel);
	t_join(leader);
}

TEST(a_kick_that_is_taken_beside_the_leader_is_made_good)
{
	struct timespec at_once = { 0, 0 };
	struct iocb polls[2], read_it;
	struct io_event event;
	io_context_t ctx;
	pthread_t leader;
	int ends[2], more[2];
	char byte;

	f_install();
	las_sys.io_getevents = late_getevents;
	ctx = t_context(4);
	leader = stopped_leader(ctx, ends, polls);
	u_pipe(more);
	io_prep_pread(&read_it, more[0], &byte, 1, 0); /* the poll set's: the leader is kicked, to wait elsewhere */
	CHECK_RET(t_submit(ctx, &read_it), 1);
	CHECK(f_kicks(hidden) > 0);
	for (int before = f_kicks(hidden); f_kicks(hidden) == before;)
		CHECK_RET(io_getevents(ctx, 0, 1, &event, &at_once), 0);
	u_gate_open(&in_kernel);
	CHECK_EQ(write(more[1], "x", 1), 1);
	t_join(leader);
	f_finish(hidden, 0, POLLIN);
	t_reap(ctx, 1, &event);
}

/* Without its slices: what a leader keeps to itself is kept for good. */
static long patient_getevents(uintptr_t handle, long min, long nr, struct las_event *events, struct timespec *timeout,
                              const sigset_t *mask)
{
	return f_getevents(handle, min, nr, events, timeout->tv_nsec ? NULL : timeout, mask);
}

static void *submit_two_and_wait(void *ctx)
{
	struct io_event events[2];

	CHECK_RET(io_submit(ctx, 2, list), 2);
	t_reap(ctx, 2, events);
	return NULL;
}

TEST(a_leader_that_waits_for_several_keeps_no_event_from_a_second_thread)
{
	int file = t_file("direct", 65536), efd = t_own(eventfd(0, 0));
	io_context_t ctx;
	struct io_event event;
	struct iocb read_it;
	pthread_t leader;
	uint64_t count;

	f_install();
	las_sys.io_getevents = patient_getevents;
	ctx = t_context(4);
	f_direct(file);
	prepare_reads(file, 2);
	leader = t_thread(submit_two_and_wait, ctx);
	f_await_waiter_for(hidden, 2);
	io_prep_pread(&read_it, file, buffers, 4096, 0);
	io_set_eventfd(&read_it, efd);
	CHECK_RET(t_submit(ctx, &read_it), 1);
	f_await_waiter_for(hidden, 1);
	f_finish(hidden, 2, 4096);
	CHECK_EQ(read(efd, &count, sizeof(count)), sizeof(count));
	f_finish(hidden, 0, 8192);
	f_finish(hidden, 1, 8192);
	t_join(leader);
	t_reap(ctx, 1, &event);
}

TEST(a_leader_waits_for_no_more_events_than_can_come)
{
	struct timespec timeout = { 0, 20 * 1000 * 1000 };
	struct io_event events[4];
	io_context_t ctx;

	f_install();
	ctx = t_context(4);
	prepare_reads(direct_file(65536), 2);
	CHECK_RET(io_submit(ctx, 2, list), 2);
	CHECK_RET(io_getevents(ctx, 4, 4, events, &timeout), 0);
	CHECK_EQ(hidden->wait_min, 2);
	f_finish(hidden, 0, 8192);
	f_finish(hidden, 1, 8192);
	t_reap(ctx, 2, events);
}

TEST(a_wait_that_brought_nothing_takes_back_no_count_of_events)
{
	struct las_native *native;
	struct las_lead lead;
	uint64_t moved;

	f_install();
	t_context(4);
	native = las_native_get(4);
	CHECK(native);
	moved = native->moved;
	CHECK(las_native_try_lead(native, &lead));
	las_native_leave_lead(native, &lead, -ETIMEDOUT);
	/* A submitter that sees too few of them trusts slots of the hidden ring that are used again. */
	CHECK_EQ(native->moved, moved);
	las_native_put(native);
}

TEST(who_slept_when_nothing_was_in_flight_leads_when_something_is)
{
	io_context_t ctx;
	pthread_t waiter;
	struct iocb poll;
	int ends[2];

	f_install();
	ctx = t_context(4);
	u_pipe(ends);
	waiter = t_thread(wait_for_one, ctx);
	t_sleep_ms(20); /* it sleeps; if it does not yet, it leads all the same */
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &poll), 1);
	f_await_waiter(hidden);
	f_finish(hidden, 0, POLLIN);
	t_join(waiter);
}

/* ---- a refusal that a leader finds only after the submitter's descriptor is closed ---- */

static struct u_gate refusal_taken = U_GATE_OPEN;
static long (*fake_submit)(uintptr_t handle, long nr, struct las_iocb **iocbs);
static io_context_t shared_ctx;
static pthread_t second;

static long stop_with_refusal(uintptr_t handle, long min, long nr, struct las_event *events, struct timespec *timeout,
                              const sigset_t *mask)
{
	long n = f_getevents(handle, min, nr, events, timeout, mask);

	for (long i = 0; i < n; i++)
		if (events[i].res == -EAGAIN)
			u_gate_pass(&refusal_taken);
	return n;
}

static long refused_while_another_leads(uintptr_t handle, long nr, struct las_iocb **submitted)
{
	long n;

	if (submitted[0]->data == 0 || submitted[0]->opcode == LAS_CMD_POLL)
		return fake_submit(handle, nr, submitted);
	second = t_thread(wait_for_one, shared_ctx);
	f_await_waiter(hidden);
	n = fake_submit(handle, nr, submitted);
	u_gate_close(&refusal_taken);
	f_finish(hidden, 1, -EAGAIN);
	u_gate_await(&refusal_taken, 1);
	return n;
}

TEST(a_refusal_in_a_leaders_hands_is_carried_on_with_the_right_file)
{
	struct iocb poll, read_it;
	struct io_event event;
	int ends[2], fd;

	f_install();
	fake_submit = las_sys.io_submit;
	las_sys.io_submit = refused_while_another_leads;
	las_sys.io_getevents = stop_with_refusal;
	shared_ctx = t_context(4);
	u_pipe(ends);
	io_prep_poll(&poll, ends[0], POLLIN);
	CHECK_RET(t_submit(shared_ctx, &poll), 1);
	fd = direct_file(65536);
	buffers = t_pages(4096);
	io_prep_pread(&read_it, fd, buffers, 4096, 0); /* within one block: it goes down without a hold */
	CHECK_RET(t_submit(shared_ctx, &read_it), 1);
	t_close(fd);
	CHECK_EQ(t_open("/dev/zero", O_RDONLY), fd); /* the number is taken again at once */
	u_gate_open(&refusal_taken);
	t_join(second);
	t_check_pattern(buffers, 4096, 0, 0);
	f_finish(hidden, 0, POLLIN);
	t_reap(shared_ctx, 1, &event);
}

static long no_thread(void *(*entry)(void *), void *arg)
{
	return -EAGAIN;
}

TEST(without_a_thread_to_spare_nothing_waits_for_one_in_the_hidden_ring)
{
	io_context_t ctx;
	struct iocb read_it;
	struct io_event event;
	uint64_t count;
	int efd;

	f_install();
	las_sys.thread_start = no_thread;
	ctx = t_context(4);
	efd = t_own(eventfd(0, 0));
	buffers = t_pages(4096);
	io_prep_pread(&read_it, direct_file(65536), buffers, 4096, 0);
	io_set_eventfd(&read_it, efd);
	CHECK_RET(t_submit(ctx, &read_it), 1);
	CHECK_EQ(read(efd, &count, sizeof(count)), sizeof(count));
	t_reap(ctx, 1, &event);
	CHECK_EQ(event.res, 4096);
}

/* ---- the reaper ---- */

static unsigned naps;

static long counted_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2,
                          uint32_t val3)
{
	if ((op & 0x7f) == 9 /* FUTEX_WAIT_BITSET */)
		u_count(&naps);
	return u_real.futex(word, op, val, ts, word2, val3);
}

static long counted_ppoll(struct pollfd *fds, size_t n, const struct timespec *timeout, const sigset_t *mask)
{
	u_count(&naps);
	return u_real.ppoll(fds, n, timeout, mask);
}

TEST(the_reaper_naps_between_its_looks)
{
	io_context_t ctx;
	struct iocb polls[20];
	int ends[2], event = t_own(eventfd(0, EFD_NONBLOCK));

	f_install();
	las_sys.futex = counted_futex;
	las_sys.ppoll = counted_ppoll;
	ctx = t_context(32);
	u_pipe(ends);
	/* It gets an eventfd of its own for these, and has closed it again when the last ones come. */
	for (int i = 0; i < 20; i++) {
		unsigned before;
		int64_t start;

		io_prep_poll(&polls[i], ends[0], POLLIN);
		if (i % 2 == 0)
			io_set_eventfd(&polls[i], event);
		CHECK_RET(t_submit(ctx, &polls[i]), 1);
		before = u_counted(&naps);
		start = t_now_ms();
		t_sleep_ms(10);
		/* A look each millisecond is what it promises; a thread that spins makes a thousand. */
		CHECK(u_counted(&naps) - before < 50 + 10 * (t_now_ms() - start));
		f_finish(hidden, i, POLLIN);
		t_reap_one(ctx);
		t_sleep_ms(1 + i % 4);
	}
}

TEST(a_program_that_only_peeks_sees_native_events)
{
	io_context_t ctx;
	struct iocb poll;
	int ends[2];

	f_install();
	ctx = t_context(4);
	u_pipe(ends);
	for (int i = 0; i < 5; i++) {
		io_prep_poll(&poll, ends[0], POLLIN);
		CHECK_RET(t_submit(ctx, &poll), 1);
		f_finish(hidden, i, POLLIN);
		t_ring_wait(ctx, 1);
		t_ring(ctx)->head = t_ring(ctx)->tail;
	}
}

TEST(a_program_that_only_peeks_is_served_as_soon_as_a_thread_can_be_had)
{
	io_context_t ctx;
	struct iocb polls[2];
	int ends[2];

	f_install();
	las_sys.thread_start = u_refuse_thread;
	ctx = t_context(4);
	u_pipe(ends);
	io_prep_poll(&polls[0], ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &polls[0]), 1);
	f_finish(hidden, 0, POLLIN);
	las_sys.thread_start = u_real.thread_start;
	io_prep_poll(&polls[1], ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &polls[1]), 1);
	t_ring_wait(ctx, 1);
	f_finish(hidden, 1, POLLIN);
	t_ring_wait(ctx, 2);
}

/* ---- writes that NOWAIT refuses because they change the file's map, on what counts as a disk ---- */

static pthread_t submitter;
static bool begins_block;

static long all_direct(int fd, int cmd, uintptr_t arg)
{
	long ret = u_real.fcntl(fd, cmd, arg);

	return cmd == F_GETFL && ret >= 0 ? ret | O_DIRECT : ret;
}

static long say_ext4(int fd, struct statfs *st)
{
	long err = u_real.fstatfs(fd, st);

	st->f_type = 0xef53;
	return err;
}

static long say_disk(int fd, struct stat *st)
{
	long err = u_real.fstat(fd, st);

	st->st_dev = 0xfd00; /* 253:0 */
	return err;
}

/*
 * A write with NOWAIT is refused by its event before io_submit returns; without, the program's thread may block.  They
 * come one by one, and may be another request's memory once they are accepted.
 */
static long refuse_nowait(uintptr_t handle, long nr, struct las_iocb **submitted)
{
	const struct timespec long_enough = { .tv_nsec = 50 * 1000 * 1000 };
	bool nowait = submitted[0]->rw_flags & 8 /* RWF_NOWAIT */;
	long n = fake_submit(handle, nr, submitted);

	if (n == 1 && nowait)
		f_finish(hidden, hidden->submitted - 1, -EAGAIN);
	else if (n == 1 && begins_block && pthread_equal(pthread_self(), submitter))
		nanosleep(&long_enough, NULL);
	return n;
}

static int file_with_holes(void)
{
	submitter = pthread_self();
	las_sys.fcntl = all_direct;
	las_sys.fstatfs = say_ext4;
	las_sys.fstat = say_disk;
	fake_submit = las_sys.io_submit;
	las_sys.io_submit = refuse_nowait;
	return t_file("holes", 65536);
}

static void write_block(io_context_t ctx, int fd, int i)
{
	if (!buffers)
		buffers = t_pages(8192);
	t_fill(buffers + 4096 * (i % 2), 4096, 7, (size_t)i * 4096);
	io_prep_pwrite(&iocbs[i], fd, buffers + 4096 * (i % 2), 4096, i * 4096);
	CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
}

/* The i-th iocb of the hidden context is a write that may block, and this is its end. */
static void finish_write(io_context_t ctx, int i, int64_t res)
{
	struct io_event event;

	f_await_submitted(hidden, i + 1);
	CHECK_EQ(hidden->pending[i]->rw_flags, 0);
	f_finish(hidden, i, res);
	t_reap(ctx, 1, &event);
	CHECK_EQ((long)event.res, res);
}

TEST(a_write_that_nowait_refuses_is_begun_by_who_submits_it)
{
	struct las_stats stats;
	io_context_t ctx;
	int fd;

	f_install();
	fd = file_with_holes();
	ctx = t_context(4);
	for (int i = 0; i < 2; i++) {
		write_block(ctx, fd, i);
		CHECK_EQ(hidden->submitted, 2 * i + 2);
		CHECK_EQ(hidden->pending[2 * i + 1]->fildes, fd);
		finish_write(ctx, 2 * i + 1, i ? 512 : 4096); /* a short one is the kernel's answer */
	}
	las_stats_get(&stats, sizeof(stats));
	CHECK_EQ(stats.crew, 0);
}

/* A file with holes on a context: its first write, which the program has begun, has blocked; the crew begins the next. */
static int file_after_a_write_that_blocked(io_context_t *ctx)
{
	int fd;

	f_install();
	fd = file_with_holes();
	*ctx = t_context(4);
	begins_block = true;
	write_block(*ctx, fd, 0);
	finish_write(*ctx, 1, 4096);
	return fd;
}

TEST(after_one_that_blocked_the_crew_begins_such_writes)
{
	io_context_t ctx;
	int fd, other;

	fd = file_after_a_write_that_blocked(&ctx);
	write_block(ctx, fd, 1);
	t_close(fd);
	other = t_open("/dev/zero", O_RDONLY);
	CHECK_EQ(other, fd); /* the number is taken again at once */
	f_await_submitted(hidden, 4);
	CHECK(hidden->pending[3]->fildes != (uint32_t)fd);
	finish_write(ctx, 3, 4096);
}

static volatile sig_atomic_t too_large;

static void on_sigxfsz(int sig)
{
	too_large++;
}

/* What would be begun beyond the limit raises SIGXFSZ in a thread that would not know. */
TEST(a_write_at_the_size_limit_is_run_by_the_crew_and_raises_its_signal)
{
	struct rlimit limit = { 4096, 4096 };
	struct io_event event;
	io_context_t ctx;
	int fd;

	fd = file_after_a_write_that_blocked(&ctx);
	signal(SIGXFSZ, on_sigxfsz);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	write_block(ctx, fd, 1);
	t_reap(ctx, 1, &event);
	CHECK_EQ((long)event.res, -EFBIG);
	CHECK_EQ(hidden->submitted, 3);
	CHECK_EQ(too_large, 1);
}

/* It is behind the writes that were submitted before it, whoever carries them out. */
TEST(an_fsync_waits_for_a_write_that_the_crew_has_begun)
{
	struct io_event event;
	struct iocb sync;
	io_context_t ctx;
	int fd;

	fd = file_after_a_write_that_blocked(&ctx);
	write_block(ctx, fd, 1);
	io_prep_fsync(&sync, fd);
	CHECK_RET(t_submit(ctx, &sync), 1);
	finish_write(ctx, 3, 4096);
	t_reap(ctx, 1, &event); /* run by the crew, behind the write */
	CHECK(event.obj == &sync);
	CHECK_EQ((long)event.res, 0);
}

static int only_nowait(struct f_context *c, const struct las_iocb *iocb)
{
	return iocb->rw_flags & 8 ? 0 : -EAGAIN;
}

TEST(where_the_hidden_ring_is_full_the_crew_writes_by_itself)
{
	struct io_event events[2];
	io_context_t ctx;
	char *back;
	int fd;

	f_install();
	f_refuse = only_nowait;
	fd = file_with_holes();
	ctx = t_context(4);
	for (int i = 0; i < 2; i++)
		write_block(ctx, fd, i);
	t_reap(ctx, 2, events);
	back = t_pages(8192);
	CHECK_EQ(pread(fd, back, 8192, 0), 8192);
	t_check_pattern(back, 8192, 7, 0);
}
