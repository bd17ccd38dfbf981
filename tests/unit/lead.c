/* lead.c - threads that wait in a kernel AIO that does what the test says: who leads, jumps away, is late or is kicked. */
#include "fake_aio.h"

#include <poll.h>
#include <setjmp.h>
#include <sys/eventfd.h>

#include "lanes/hidden.h"

static struct f_context *const hidden = &f_contexts[0];

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
	f_buffers = t_pages(4096);
	io_prep_pread(&read_it, f_direct_file(65536), f_buffers, 4096, 0);
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

	CHECK_RET(io_submit(ctx, 2, f_list), 2);
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
	f_prepare_reads(file, 2);
	leader = t_thread(submit_two_and_wait, ctx);
	f_await_waiter_for(hidden, 2);
	io_prep_pread(&read_it, file, f_buffers, 4096, 0);
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
	f_prepare_reads(f_direct_file(65536), 2);
	CHECK_RET(io_submit(ctx, 2, f_list), 2);
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
	fd = f_direct_file(65536);
	f_buffers = t_pages(4096);
	io_prep_pread(&read_it, fd, f_buffers, 4096, 0); /* within one block: it goes down without a hold */
	CHECK_RET(t_submit(shared_ctx, &read_it), 1);
	t_close(fd);
	CHECK_EQ(t_open("/dev/zero", O_RDONLY), fd); /* the number is taken again at once */
	u_gate_open(&refusal_taken);
	t_join(second);
	t_check_pattern(f_buffers, 4096, 0, 0);
	f_finish(hidden, 0, POLLIN);
	t_reap(shared_ctx, 1, &event);
}
