/*
 * announce.c - whose completions the kernel itself announces, on a kernel AIO that does what the test says.
 *
 * The tests read their eventfd by the plain call and say so to the library, as compat/eventfd.c does.
 */
#include "fake_aio.h"

#include <sys/eventfd.h>

#include "aio/context.h"
#include "lanes/hidden.h"
#include "libaio_shim.h"

enum { READS = 16 }; /* after which the kernel announces */

static struct f_context *const hidden = &f_contexts[0];
static io_context_t ctx;
static int file, event_fd;
static char *buffer;
static struct iocb iocb;

/* As the interposer does it, but for the read itself. */
static void pass_by(void)
{
	if (las_reads(event_fd))
		las_has_read(event_fd);
}

/* How often the counter was raised since it was read. */
static uint64_t raised(void)
{
	uint64_t count = 0;

	return read(event_fd, &count, sizeof(count)) < 0 ? 0 : count;
}

static void drop_one(void)
{
	struct t_ring *ring = t_ring(ctx);

	__atomic_store_n(&ring->head, (ring->head + 1) % ring->nr, __ATOMIC_RELEASE);
}

static void await_raise(void)
{
	for (int i = 0; raised() == 0; i++) {
		CHECK(i < 20000);
		t_sleep_ms(1);
	}
}

static int submit_read(void)
{
	io_prep_pread(&iocb, file, buffer, 4096, 4096);
	io_set_eventfd(&iocb, event_fd);
	return t_submit(ctx, &iocb);
}

/* The one that was submitted last. */
static struct las_iocb *latest(void)
{
	return hidden->pending[hidden->submitted - 1];
}

static bool kernel_announces(void)
{
	return latest()->flags & LAS_FLAG_RESFD && (int)latest()->resfd == event_fd;
}

static void finish_latest(long res)
{
	f_finish(hidden, hidden->submitted - 1, res);
}

/* A program that reads the eventfd, then the ring, as often as it takes. */
static void get_used(int flags)
{
	f_install();
	file = f_direct_file(65536);
	event_fd = t_own(eventfd(0, EFD_NONBLOCK | flags));
	buffer = t_pages(8192);
	ctx = t_context(64);
	for (int i = 0; i < READS; i++) {
		CHECK_RET(submit_read(), 1);
		CHECK(!kernel_announces());
		finish_latest(4096);
		await_raise();
		CHECK_EQ(t_ring_count(ctx), 1);
		pass_by();
		drop_one();
	}
}

TEST(the_kernel_announces_to_a_program_that_reads_its_eventfd)
{
	get_used(0);
	for (int i = 0; i < 100; i++) {
		CHECK_RET(submit_read(), 1);
		CHECK(kernel_announces());
		finish_latest(4096);
		CHECK_EQ(raised(), 1);
		pass_by();
		CHECK_EQ(t_ring_count(ctx), 1);
		drop_one();
	}
	CHECK_EQ(raised(), 0);
}

TEST(several_in_one_call_are_announced_by_the_kernel_too)
{
	struct iocb iocbs[4], *list[4];

	get_used(0);
	for (int i = 0; i < 4; i++) {
		io_prep_pread(&iocbs[i], file, buffer, i % 2 ? 4096 : 8192,
		              0); /* of several blocks: may be given back */
		io_set_eventfd(&iocbs[i], event_fd);
		list[i] = &iocbs[i];
	}
	CHECK_RET(io_submit(ctx, 4, list), 4);
	CHECK(kernel_announces());
	for (int i = READS; i < READS + 4; i++)
		f_finish(hidden, i, (i - READS) % 2 ? 4096 : 8192);
	CHECK_EQ(raised(), 4);
	pass_by();
	CHECK_EQ(t_ring_count(ctx), 4);
}

/* The kernel's check, which the fake does not make. */
static int check_resfd(struct f_context *c, const struct las_iocb *sent)
{
	char link[64], target[64] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", (int)sent->resfd);
	if (readlink(link, target, sizeof(target) - 1) < 0)
		return -EBADF;
	return strstr(target, "[eventfd]") ? 0 : -EINVAL;
}

TEST(a_wrong_eventfd_is_found_by_the_kernel)
{
	get_used(0);
	f_refuse = check_resfd;
	CHECK_RET(submit_read(), 1);
	finish_latest(4096);
	close(event_fd);
	CHECK_RET(submit_read(), -EBADF);
	CHECK_EQ(dup2(file, event_fd), event_fd);
	CHECK_RET(submit_read(), -EINVAL);
	CHECK_EQ(hidden->submitted, READS + 1);
	close(event_fd);
}

static int turn_away(struct f_context *c, const struct las_iocb *sent)
{
	return -EAGAIN;
}

static long (*submit)(uintptr_t handle, long nr, struct las_iocb **iocbs);

/* The event is there when the call returns, and the eventfd raised. */
static long submit_and_refuse(uintptr_t handle, long nr, struct las_iocb **iocbs)
{
	long n = submit(handle, nr, iocbs);

	for (long i = 0; i < n; i++)
		f_finish(hidden, hidden->submitted - 1 - (int)i, -EAGAIN);
	return n;
}

/* How often it is raised by now, which is to be as often as this; each event is there before its announcement. */
static void check_raised(uint64_t times)
{
	uint64_t sum = 0;

	for (int i = 0; i < 20000 && sum < times; i++, t_sleep_ms(1))
		sum += raised();
	t_sleep_ms(20);
	CHECK_EQ(sum + raised(), times);
}

static void announced_once(int requests)
{
	struct iocb iocbs[2], *list[2] = { &iocbs[0], &iocbs[1] };
	struct io_event events[2];

	for (int i = 0; i < requests; i++) {
		io_prep_pread(&iocbs[i], file, buffer, 4096, 0);
		io_set_eventfd(&iocbs[i], event_fd);
	}
	CHECK_RET(io_submit(ctx, requests, list), requests);
	t_reap(ctx, requests, events);
	for (int i = 0; i < requests; i++)
		CHECK_EQ(events[i].res, 4096);
	check_raised((uint64_t)requests);
}

TEST(a_request_that_the_kernel_turns_away_is_announced_once)
{
	get_used(0);
	f_refuse = turn_away;
	announced_once(1);
}

TEST(requests_that_the_kernel_turns_away_are_announced_once)
{
	get_used(0);
	f_refuse = turn_away;
	announced_once(2);
}

TEST(a_request_that_the_kernel_refuses_is_announced_once)
{
	get_used(0);
	submit = las_sys.io_submit;
	las_sys.io_submit = submit_and_refuse;
	announced_once(1);
}

TEST(requests_that_the_kernel_refuses_are_announced_once)
{
	get_used(0);
	submit = las_sys.io_submit;
	las_sys.io_submit = submit_and_refuse;
	announced_once(2);
}

TEST(requests_that_the_kernel_refuses_are_counted_once_by_a_semaphore)
{
	get_used(EFD_SEMAPHORE);
	submit = las_sys.io_submit;
	las_sys.io_submit = submit_and_refuse;
	announced_once(2);
}

static void refused_and_counted(int flags)
{
	struct iocb iocbs[2], *list[2] = { &iocbs[0], &iocbs[1] };
	struct io_event events[2];

	get_used(flags);
	for (int i = 0; i < 2; i++) {
		io_prep_pread(&iocbs[i], file, buffer, 8192, 0);
		io_set_eventfd(&iocbs[i], event_fd);
	}
	CHECK_RET(io_submit(ctx, 2, list), 2);
	CHECK(kernel_announces());
	f_finish(hidden, READS, -EAGAIN);  /* raised, and there is no event yet */
	f_finish(hidden, READS + 1, 4096); /* half of it */
	t_reap(ctx, 2, events);            /* the crew has done the rest */
	CHECK_EQ(events[0].res + events[1].res, 16384);
	check_raised(2);
}

TEST(what_is_given_back_late_is_counted_once)
{
	refused_and_counted(0);
}

TEST(what_is_given_back_late_is_counted_once_by_a_semaphore)
{
	refused_and_counted(EFD_SEMAPHORE);
}

TEST(who_learns_of_an_event_past_the_library_is_told_again)
{
	get_used(0);
	CHECK_RET(submit_read(), 1);
	finish_latest(4096);
	CHECK_EQ(raised(), 1); /* and looks at the ring, in vain */
	await_raise();
	CHECK_EQ(t_ring_count(ctx), 1);
	drop_one();
	CHECK_RET(submit_read(), 1);
	CHECK(!kernel_announces());
	finish_latest(4096);
	await_raise();
}

TEST(who_has_not_read_the_eventfd_yet_is_not_told_twice)
{
	get_used(0);
	CHECK_RET(submit_read(), 1);
	finish_latest(4096);
	t_ring_wait(ctx, 1); /* the reaper's look */
	t_sleep_ms(20);
	CHECK_EQ(raised(), 1);
	pass_by();
	drop_one();
	t_sleep_ms(20);
	CHECK_EQ(raised(), 0);
}

static struct u_gate looks = U_GATE_OPEN;

static long epoll_at_gate(int epfd, struct epoll_event *events, int n, int timeout_ms, const sigset_t *mask)
{
	u_gate_pass(&looks);
	return u_real.epoll_pwait(epfd, events, n, timeout_ms, mask);
}

static pthread_t tester;

static long futex_at_gate(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2,
                          uint32_t val3)
{
	if (!pthread_equal(pthread_self(), tester))
		u_gate_pass(&looks);
	return u_real.futex(word, op, val, ts, word2, val3);
}

/* The reaper looks once for each request, however long this thread has to wait for a processor. */
TEST(who_is_busy_with_the_ring_need_not_read_the_eventfd)
{
	tester = pthread_self();
	las_sys.epoll_pwait = epoll_at_gate;
	las_sys.futex = futex_at_gate;
	get_used(0);
	u_gate_close(&looks);
	for (int i = 0; i < 20; i++) {
		CHECK_RET(submit_read(), 1);
		CHECK(kernel_announces());
		finish_latest(4096);
		u_gate_admit(&looks, 1);
		t_ring_wait(ctx, 1);
		u_gate_await(&looks, 1);
		drop_one();
	}
	u_gate_open(&looks);
	CHECK_EQ(raised(), 20);
}

TEST(who_calls_for_events_may_rely_on_the_count)
{
	struct io_event event;

	get_used(0);
	CHECK_RET(submit_read(), 1);
	finish_latest(4096);
	t_reap(ctx, 1, &event);
	CHECK_EQ(raised(), 1);
	CHECK_RET(submit_read(), 1);
	finish_latest(4096);
	CHECK_EQ(raised(), 1);
	t_ring_wait(ctx, 1);
	t_sleep_ms(20); /* busy with something else, between the count and the call */
	t_reap(ctx, 1, &event);
	CHECK_EQ(raised(), 0);
}

/* Leaves a call in the middle, as a handler does by longjmp. */
static void *take_and_never_come_back(void *arg)
{
	struct las_ctx *inside = las_ctx_visit(ctx);

	las_announce_take(inside->native);
	las_ctx_unvisit(inside);
	return NULL;
}

TEST(who_never_comes_back_with_events_in_its_hands_is_not_waited_for_for_ever)
{
	get_used(0);
	t_join(t_thread(take_and_never_come_back, NULL));
	for (int i = 0; i < 2; i++) {
		CHECK_RET(submit_read(), 1);
		CHECK(kernel_announces());
		finish_latest(4096);
		CHECK_EQ(raised(), 1);
		pass_by();
		CHECK_EQ(t_ring_count(ctx), 1);
		drop_one();
	}
}

/* Is cancelled in read(), or leaves it as a handler does by longjmp. */
static void *read_and_never_come_back(void *arg)
{
	CHECK(las_reads(event_fd));
	return NULL;
}

TEST(who_never_comes_back_from_a_read_does_not_keep_others_from_being_told_again)
{
	get_used(0);
	t_join(t_thread(read_and_never_come_back, NULL));
	CHECK_RET(submit_read(), 1);
	CHECK(kernel_announces());
	finish_latest(4096);
	CHECK_EQ(raised(), 1); /* past the library, and looks at the ring, in vain */
	await_raise();
	CHECK_EQ(t_ring_count(ctx), 1);
}

static void *look_in_another_thread(void *arg)
{
	struct timespec at_once = { 0, 0 };
	struct io_event event;

	CHECK_RET(io_getevents(ctx, 0, 1, &event, &at_once), 0);
	return NULL;
}

static void *read_in_another_thread(void *arg)
{
	pass_by();
	return NULL;
}

TEST(a_reader_in_another_thread_is_the_reapers_again)
{
	get_used(0);
	CHECK_RET(submit_read(), 1);
	finish_latest(4096);
	CHECK_EQ(raised(), 1);
	t_join(t_thread(read_in_another_thread, NULL));
	CHECK_EQ(t_ring_count(ctx), 1);
	drop_one();
	CHECK_RET(submit_read(), 1);
	CHECK(!kernel_announces());
	finish_latest(4096);
}

TEST(a_context_that_threads_share_is_the_reapers)
{
	get_used(0);
	t_join(t_thread(look_in_another_thread, NULL));
	CHECK_RET(submit_read(), 1);
	CHECK(!kernel_announces());
	finish_latest(4096);
}

TEST(another_eventfd_has_to_be_seen_anew)
{
	get_used(0);
	event_fd = t_own(eventfd(0, EFD_NONBLOCK));
	CHECK_RET(submit_read(), 1);
	CHECK(!kernel_announces());
	finish_latest(4096);
	await_raise();
}

TEST(a_context_that_is_gone_leaves_no_trace)
{
	get_used(0);
	CHECK_RET(submit_read(), 1);
	finish_latest(4096);
	CHECK_RET(io_destroy(ctx), 0);
	CHECK_EQ(raised(), 1);
	pass_by();
	ctx = t_context(64);
	CHECK_RET(submit_read(), 1);
	CHECK(!kernel_announces());
	finish_latest(4096);
	await_raise();
	CHECK_EQ(t_ring_count(ctx), 1);
}

TEST(a_forked_child_knows_nothing_of_it)
{
	pid_t child;

	if (U_TSAN)
		SKIP("n/a: ThreadSanitizer does not follow a fork of several threads");
	get_used(0);
	CHECK_RET(submit_read(), 1);
	child = fork();
	if (child == 0) {
		pass_by();
		_exit(0);
	}
	t_wait_ok(child);
	finish_latest(4096);
	CHECK_EQ(raised(), 1);
	pass_by();
	CHECK_EQ(t_ring_count(ctx), 1);
}
