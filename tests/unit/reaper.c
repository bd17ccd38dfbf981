/* reaper.c - events that nobody waits for, from a kernel AIO that does what the test says. */
#include "fake_aio.h"

#include <poll.h>
#include <sys/eventfd.h>

static struct f_context *const hidden = &f_contexts[0];

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
	f_prepare_reads(f_direct_file(65536), 2);
	CHECK_RET(t_submit(ctx, &f_iocbs[0]), 1);
	/* Another open file, so that each gives up one of its own. */
	f_iocbs[1].aio_fildes = f_direct_file(65536);
	CHECK_RET(t_submit(ctx, &f_iocbs[1]), 1);
	u_gate_close(&give_up);
	f_finish(hidden, 0, 8192);
	u_gate_await(&give_up, 1); /* the reaper has taken the first event, nobody sees it yet */
	helper = t_thread(let_reaper_go_then_finish_second, NULL);
	t_reap(ctx, 2, events); /* the program waits for both: one will come in the kernel, one from the reaper */
	t_join(helper);
}

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
