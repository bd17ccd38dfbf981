/* waiters.c - several threads in io_getevents of one context: who gets which event. */
#include "las_test.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

enum { MOST = 32 };

/* Requests that end one by one, when the test says so. */
static struct iocb polls[MOST];
static int ready[MOST];

static io_context_t pending_polls(int n)
{
	io_context_t ctx = t_context(MOST);

	for (int i = 0; i < n; i++) {
		ready[i] = t_own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
		io_prep_poll(&polls[i], ready[i], POLLIN);
		CHECK_RET(t_submit(ctx, &polls[i]), 1);
	}
	return ctx;
}

static void end_polls(int from, int to)
{
	for (int i = from; i < to; i++)
		CHECK_EQ(eventfd_write(ready[i], 1), 0);
}

struct waiter {
	io_context_t ctx;
	long min_nr, nr, result;
	struct timespec *timeout;
	pid_t tid;
	struct io_event events[MOST];
	pthread_t thread;
};

static void *wait_in_thread(void *arg)
{
	struct waiter *w = arg;

	__atomic_store_n(&w->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	w->result = io_getevents(w->ctx, w->min_nr, w->nr, w->events, w->timeout);
	return NULL;
}

/* A thread that is asleep in io_getevents when this returns. */
static void start_waiter(struct waiter *w, io_context_t ctx, long min_nr, long nr)
{
	w->ctx = ctx;
	w->min_nr = min_nr;
	w->nr = nr;
	w->thread = t_thread(wait_in_thread, w);
	while (!__atomic_load_n(&w->tid, __ATOMIC_ACQUIRE))
		usleep(100);
	t_wait_asleep(w->tid);
}

/* The one that waits for many is there first, and leads where one leads. */
TEST(events_go_to_whom_they_are_enough_for)
{
	io_context_t ctx = pending_polls(8);
	static struct waiter many, few[3];

	start_waiter(&many, ctx, 5, MOST);
	for (int i = 0; i < 3; i++) {
		start_waiter(&few[i], ctx, 1, 1);
		end_polls(i, i + 1);
		t_join(few[i].thread);
		CHECK_EQ(few[i].result, 1);
	}
	end_polls(3, 8);
	t_join(many.thread);
	CHECK_EQ(many.result, 5);
}

TEST(who_comes_for_many_keeps_what_was_there)
{
	io_context_t ctx = pending_polls(4);
	static struct waiter many, few;

	end_polls(0, 2);
	t_ring_wait(ctx, 2);
	start_waiter(&many, ctx, 3, 3); /* and no more, or it would take the other's if it comes late */
	start_waiter(&few, ctx, 1, 1);
	end_polls(2, 3);
	t_sleep_ms(20);
	/* One event is enough for either now. */
	end_polls(3, 4);
	t_join(few.thread);
	t_join(many.thread);
	CHECK_EQ(few.result, 1);
	CHECK_EQ(many.result, 3);
}

TEST(time_out_gives_what_was_not_enough)
{
	io_context_t ctx = pending_polls(3);
	struct timespec timeout = { 2, 0 }; /* the events have to come before, on a busy machine too */
	static struct waiter many, more;

	start_waiter(&more, ctx, 6, MOST);
	many.timeout = &timeout;
	start_waiter(&many, ctx, 5, MOST);
	end_polls(0, 3);
	t_join(many.thread);
	CHECK_EQ(many.result, 3);
	CHECK_RET(io_destroy(ctx), 0);
	t_join(more.thread);
	CHECK_EQ(more.result, -EINVAL);
}

/* Every event ends a wait, whoever comes when, and for however many. */
TEST(waiters_for_different_numbers_all_end)
{
	enum { WAITERS = 7 }; /* for 1, 2, ... 7 events: 28 in all */
	io_context_t ctx = pending_polls(28);
	static struct waiter w[WAITERS];
	struct timespec at_once = { 0, 0 };
	struct io_event event;

	for (int i = 0; i < WAITERS; i++)
		start_waiter(&w[i], ctx, WAITERS - i, WAITERS - i);
	for (int i = 0; i < 28; i++) {
		end_polls(i, i + 1);
		if (i % 3 == 0)
			t_sleep_ms(1);
	}
	for (int i = 0; i < WAITERS; i++) {
		t_join(w[i].thread);
		CHECK_EQ(w[i].result, WAITERS - i);
	}
	CHECK_RET(io_getevents(ctx, 0, 1, &event, &at_once), 0);
}
