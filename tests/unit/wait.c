/* wait.c - io_getevents: who sleeps, who is woken, and what ends a sleep. */
#include "unit.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "aio/context.h"
#include "base/config.h"
#include "libaio_shim.h"

static unsigned futex_calls;

static long counted_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2,
                          uint32_t val3)
{
	u_count(&futex_calls);
	return u_real.futex(word, op, val, ts, word2, val3);
}

static struct u_gate working = U_GATE_OPEN;

static long stopped_pwritev2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	u_gate_pass(&working);
	return u_real.pwritev2(fd, iov, n, offset, flags);
}

/* Writes wait at the gate, in the crew. */
static io_context_t crew_context(int n)
{
	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	las_sys.pwritev2 = stopped_pwritev2;
	las_sys.futex = counted_futex;
	return t_context(n);
}

static struct iocb iocbs[64], *list[64];

static void prepare_writes(int n)
{
	int fd = t_file("written", 4096);

	for (int i = 0; i < n; i++)
		io_prep_pwrite(list[i] = &iocbs[i], fd, "x", 1, i);
}

struct waiter {
	io_context_t ctx;
	long min_nr, nr, result;
	struct timespec timeout;
	bool has_timeout;
	pid_t tid;
	struct io_event events[64];
	pthread_t thread;
};

static void *wait_in_thread(void *arg)
{
	struct waiter *w = arg;

	__atomic_store_n(&w->tid, gettid(), __ATOMIC_RELEASE);
	__atomic_store_n(&w->result,
	                 io_getevents(w->ctx, w->min_nr, w->nr, w->events, w->has_timeout ? &w->timeout : NULL),
	                 __ATOMIC_RELEASE);
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

TEST(completions_short_of_min_nr_wake_nobody)
{
	io_context_t ctx = crew_context(64);
	static struct waiter w = { .has_timeout = true, .timeout = { 100, 0 } };
	unsigned before;

	prepare_writes(32);
	u_gate_close(&working);
	CHECK_RET(io_submit(ctx, 32, list), 32);
	start_waiter(&w, ctx, 32, 32);
	t_sleep_ms(20);
	before = u_counted(&futex_calls);
	u_gate_admit(&working, 31);
	t_ring_wait(ctx, 31);
	t_sleep_ms(20);
	/* The crew's own calls are there too; the waiter alone would have made 31 sleeps. */
	CHECK(u_counted(&futex_calls) - before < 31 + 31);
	CHECK_EQ(w.result, 0);
	u_gate_admit(&working, 1);
	t_join(w.thread);
	CHECK_EQ(w.result, 32);
}

TEST(a_min_nr_beyond_32_bits_sleeps_until_the_timeout)
{
	io_context_t ctx = crew_context(4);
	struct timespec timeout = { 0, 50 * 1000 * 1000 };
	static const long wanted[] = { 1L << 31, 1L << 32, (1L << 32) + 1, LONG_MAX };
	struct io_event event;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		unsigned before = u_counted(&futex_calls);
		struct timespec start, end;

		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
		CHECK_RET(io_getevents(ctx, wanted[i], LONG_MAX, &event, &timeout), 0);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
		CHECK((end.tv_sec - start.tv_sec) * 1000000000 + end.tv_nsec - start.tv_nsec < 25 * 1000 * 1000);
		CHECK(u_counted(&futex_calls) - before < 10);
	}
}

TEST(every_waiter_gets_what_it_waits_for)
{
	io_context_t ctx = crew_context(64);
	static struct waiter w[4];
	long sum = 0;

	prepare_writes(16);
	u_gate_close(&working);
	CHECK_RET(io_submit(ctx, 16, list), 16);
	for (int i = 0; i < 4; i++)
		start_waiter(&w[i], ctx, 4, 4);
	u_gate_open(&working);
	for (int i = 0; i < 4; i++) {
		t_join(w[i].thread);
		CHECK_EQ(w[i].result, 4);
		sum += w[i].result;
	}
	CHECK_EQ(sum, 16);
}

TEST(waiters_for_many_and_for_few_both_end)
{
	io_context_t ctx = crew_context(64);
	static struct waiter many, few;

	prepare_writes(8);
	u_gate_close(&working);
	CHECK_RET(io_submit(ctx, 8, list), 8);
	start_waiter(&many, ctx, 7, 7);
	start_waiter(&few, ctx, 1, 1);
	u_gate_admit(&working, 1);
	t_join(few.thread);
	CHECK_EQ(few.result, 1);
	u_gate_open(&working);
	t_join(many.thread);
	CHECK_EQ(many.result, 7);
}

static unsigned woken;
static const void *watched;

static long woken_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2, uint32_t val3)
{
	long ret = u_real.futex(word, op, val, ts, word2, val3);

	if (word == watched && (op & FUTEX_CMD_MASK) == FUTEX_WAKE_BITSET && ret > 0)
		__atomic_add_fetch(&woken, (unsigned)ret, __ATOMIC_RELAXED);
	return ret;
}

TEST(an_event_wakes_one_of_many_waiters)
{
	io_context_t ctx = crew_context(64);
	struct las_ctx *inside = las_ctx_visit(ctx);
	static struct waiter w[8];

	las_sys.futex = woken_futex;
	watched = &inside->seq;
	las_ctx_unvisit(inside);
	prepare_writes(8);
	u_gate_close(&working);
	CHECK_RET(io_submit(ctx, 8, list), 8);
	for (int i = 0; i < 8; i++)
		start_waiter(&w[i], ctx, 1, 1);
	for (unsigned i = 1; i <= 8; i++) {
		long sum;

		u_gate_admit(&working, 1);
		do {
			t_sleep_ms(1);
			sum = 0;
			for (int j = 0; j < 8; j++)
				sum += __atomic_load_n(&w[j].result, __ATOMIC_ACQUIRE);
		} while (sum < i);
	}
	for (int i = 0; i < 8; i++)
		t_join(w[i].thread);
	u_await(&woken, 8); /* counted after the thread has been woken */
	CHECK_EQ(u_counted(&woken), 8);
}

/* Whoever has left after it was woken has taken the wake-up along. */
static long lost_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2, uint32_t val3)
{
	if (word == watched && (op & FUTEX_CMD_MASK) == FUTEX_WAKE_BITSET)
		return (long)val;
	return u_real.futex(word, op, val, ts, word2, val3);
}

TEST(a_wake_up_that_was_lost_is_made_good)
{
	io_context_t ctx = crew_context(64);
	struct las_ctx *inside = las_ctx_visit(ctx);
	static struct waiter w[2];

	las_sys.futex = lost_futex;
	watched = &inside->seq;
	las_ctx_unvisit(inside);
	prepare_writes(2);
	u_gate_close(&working);
	CHECK_RET(io_submit(ctx, 2, list), 2);
	for (int i = 0; i < 2; i++)
		start_waiter(&w[i], ctx, 1, 1);
	u_gate_open(&working);
	for (int i = 0; i < 2; i++) {
		t_join(w[i].thread);
		CHECK_EQ(w[i].result, 1);
	}
}

static volatile sig_atomic_t handled;

static void note_signal(int sig)
{
	handled = handled + 1;
}

static void catch_signal(int flags)
{
	struct sigaction action = { .sa_handler = note_signal, .sa_flags = flags };

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
}

TEST(a_handler_ends_the_wait_with_eintr_even_with_sa_restart)
{
	io_context_t ctx = crew_context(4);
	static struct waiter w;

	catch_signal(SA_RESTART);
	start_waiter(&w, ctx, 1, 1);
	CHECK_EQ(pthread_kill(w.thread, SIGUSR1), 0);
	t_join(w.thread);
	CHECK_EQ(w.result, -EINTR);
	CHECK_EQ(handled, 1);
}

TEST(a_handler_after_some_events_ends_the_wait_with_their_number)
{
	io_context_t ctx = crew_context(8);
	static struct waiter w;

	catch_signal(0);
	prepare_writes(2);
	CHECK_RET(io_submit(ctx, 2, list), 2);
	t_ring_wait(ctx, 2);
	start_waiter(&w, ctx, 3, 8);
	t_sleep_ms(10);
	CHECK_EQ(pthread_kill(w.thread, SIGUSR1), 0);
	t_join(w.thread);
	CHECK_EQ(w.result, 2);
}

static long spurious_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2,
                           uint32_t val3)
{
	/* Every other sleep ends for no reason at all. */
	if ((op & 0x7f) == 9 /* FUTEX_WAIT_BITSET */ && u_count(&futex_calls) % 2)
		return 0;
	return u_real.futex(word, op, val, ts, word2, val3);
}

TEST(spurious_wakeups_are_slept_off)
{
	io_context_t ctx = crew_context(8);
	static struct waiter w;

	las_sys.futex = spurious_futex;
	prepare_writes(1);
	u_gate_close(&working);
	CHECK_RET(io_submit(ctx, 1, list), 1);
	start_waiter(&w, ctx, 1, 1);
	t_sleep_ms(10);
	CHECK_EQ(w.result, 0);
	u_gate_open(&working);
	t_join(w.thread);
	CHECK_EQ(w.result, 1);
}

TEST(timeouts_end_the_wait_with_what_there_is)
{
	io_context_t ctx = crew_context(8);
	struct timespec timeout = { 0, 20 * 1000 * 1000 };
	struct io_event events[4];
	int64_t start = t_now_ms();

	prepare_writes(1);
	CHECK_RET(io_submit(ctx, 1, list), 1);
	t_ring_wait(ctx, 1); /* the time may be over before a thread has written it */
	start = t_now_ms();
	CHECK_RET(io_getevents(ctx, 2, 4, events, &timeout), 1);
	CHECK(t_now_ms() - start >= 20);
	start = t_now_ms();
	timeout = (struct timespec){ 0, 2000000000 / 100 }; /* not normal, and taken at its word */
	CHECK_RET(io_getevents(ctx, 1, 4, events, &timeout), 0);
	CHECK(t_now_ms() - start >= 20);
	CHECK_EQ(timeout.tv_nsec, 20000000);
}

TEST(destroy_wakes_every_waiter_with_einval)
{
	static struct waiter w[3];
	static io_context_t ctx;

	crew_context(1);
	CHECK_RET(io_setup(4, &ctx), 0);
	for (int i = 0; i < 3; i++)
		start_waiter(&w[i], ctx, 1, 1);
	CHECK_RET(io_destroy(ctx), 0);
	for (int i = 0; i < 3; i++) {
		t_join(w[i].thread);
		CHECK_EQ(w[i].result, -EINVAL);
	}
}

static long thread_on_its_way_for_ever(void *(*entry)(void *), void *arg)
{
	return 0;
}

TEST(who_waits_for_everything_works)
{
	io_context_t ctx = crew_context(8);
	struct las_stats before, after;
	struct io_event events[8];

	las_sys.thread_start = thread_on_its_way_for_ever;
	prepare_writes(8);
	CHECK_RET(io_submit(ctx, 8, list), 8);
	las_stats_get(&before, sizeof(before));
	t_reap(ctx, 8, events);
	las_stats_get(&after, sizeof(after));
	CHECK_EQ(after.helped - before.helped, 8);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(events[i].res, 1);
}

TEST(who_does_not_wait_for_everything_does_not_work)
{
	io_context_t ctx = crew_context(8);
	struct las_stats stats;
	static struct waiter w;

	prepare_writes(2);
	u_gate_close(&working);
	CHECK_RET(io_submit(ctx, 2, list), 2);
	u_gate_await(&working, 2);
	start_waiter(&w, ctx, 1, 1);
	u_gate_open(&working);
	t_join(w.thread);
	las_stats_get(&stats, sizeof(stats));
	CHECK_EQ(stats.helped, 0);
}

TEST(events_that_cannot_be_stored_are_not_lost)
{
	io_context_t ctx = crew_context(8);
	struct io_event events[8];

	prepare_writes(4);
	CHECK_RET(io_submit(ctx, 4, list), 4);
	t_ring_wait(ctx, 4);
	CHECK_RET(io_getevents(ctx, 1, 4, t_no_access(), NULL), -EFAULT);
	CHECK_RET(io_getevents(ctx, 1, 4, NULL, NULL), -EFAULT);
	t_reap(ctx, 4, events);
	for (int i = 0; i < 4; i++)
		CHECK(events[i].obj != NULL);
}

static long no_eventfd(unsigned initial, int flags)
{
	return -EMFILE;
}

TEST(without_a_descriptor_to_spare_io_pgetevents_still_waits)
{
	io_context_t ctx = crew_context(8);
	struct timespec timeout = { 0, 20 * 1000 * 1000 };
	struct io_event event;
	sigset_t mask;

	las_sys.eventfd2 = no_eventfd;
	sigemptyset(&mask);
	CHECK_RET(las_io_pgetevents(ctx, 1, 1, &event, &timeout, &mask, 8), 0);
}

TEST(io_pgetevents_lets_in_a_signal_that_was_blocked)
{
	io_context_t ctx = crew_context(8);
	struct io_event event;
	sigset_t blocked, mask;

	catch_signal(0);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, &blocked, NULL), 0);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(handled, 0);
	sigemptyset(&mask);
	CHECK_RET(las_io_pgetevents(ctx, 1, 1, &event, NULL, &mask, 8), -EINTR);
	CHECK_EQ(handled, 1);
	CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
	CHECK(sigismember(&mask, SIGUSR1));
}

TEST(settle_waits_for_what_the_kernel_would_have_done)
{
	static const char *const setting = "1";
	io_context_t ctx;
	static struct waiter w;

	setenv("LIBAIO_SHIM_SETTLE", setting, 1);
	ctx = crew_context(8);
	prepare_writes(4);
	u_gate_close(&working);
	CHECK_RET(io_submit(ctx, 4, list), 4);
	u_gate_await(&working, 1);
	start_waiter(&w, ctx, 0, 4);
	u_gate_open(&working);
	t_join(w.thread);
	CHECK_EQ(w.result, 4);
}

static struct u_gate raising = U_GATE_OPEN;

static long stopped_write(int fd, const void *buf, size_t bytes)
{
	if (buf) /* else it is a look at what the descriptor is */
		u_gate_pass(&raising);
	return u_real.write(fd, buf, bytes);
}

TEST(a_look_that_waits_for_what_settles_ends_when_that_has)
{
	io_context_t ctx = crew_context(8);
	static struct waiter w = { .has_timeout = true, .timeout = { 1000, 0 } };
	struct iocb poll, *both[2] = { &iocbs[0], &poll };
	int ends[2];

	u_pipe(ends);
	las_sys.write = stopped_write;
	prepare_writes(1);
	io_set_eventfd(&iocbs[0], t_own(eventfd(0, EFD_NONBLOCK)));
	io_prep_poll(&poll, ends[0], POLLIN); /* it never ends */
	u_gate_close(&raising);
	CHECK_RET(io_submit(ctx, 2, both), 2);
	u_gate_await(&raising, 1); /* the write's event is visible, but it is not done with */
	start_waiter(&w, ctx, 0, 4);
	u_gate_open(&raising);
	t_join(w.thread);
	CHECK_EQ(w.result, 1);
}

static void *finish_in_thread(void *finished)
{
	las_finish();
	__atomic_store_n((bool *)finished, true, __ATOMIC_RELEASE);
	return NULL;
}

TEST(the_end_waits_for_the_event_and_the_eventfd)
{
	io_context_t ctx = crew_context(8);
	static bool finished;
	pthread_t thread;

	las_sys.write = stopped_write;
	prepare_writes(1);
	io_set_eventfd(&iocbs[0], t_own(eventfd(0, EFD_NONBLOCK)));
	u_gate_close(&raising);
	CHECK_RET(io_submit(ctx, 1, list), 1);
	u_gate_await(&raising, 1);
	thread = t_thread(finish_in_thread, &finished);
	t_sleep_ms(20);
	CHECK(!__atomic_load_n(&finished, __ATOMIC_ACQUIRE));
	u_gate_open(&raising);
	t_join(thread);
}

/* ---- what a caller leaves behind when it runs a request itself ---- */

static struct u_gate beginning = U_GATE_CLOSED;
static unsigned ended;

struct beginning {
	void *(*entry)(void *);
	void *arg;
};

static void *begin_at_gate(void *arg)
{
	struct beginning begin = *(struct beginning *)arg;

	free(arg);
	u_gate_pass(&beginning);
	begin.entry(begin.arg);
	u_count(&ended);
	return NULL;
}

static long start_at_gate(void *(*entry)(void *), void *arg)
{
	struct beginning *begin = malloc(sizeof(*begin));

	*begin = (struct beginning){ entry, arg };
	return u_real.thread_start(begin_at_gate, begin);
}

static unsigned patient;

/* Whoever would sleep for a second and more has slept enough, until all have become patient. */
static long impatient_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2,
                            uint32_t val3)
{
	int64_t ns = ts ? ts->tv_sec * 1000000000 + ts->tv_nsec - las_now_ns() : 0;

	if (ns > 1000000000 && ns < 10000000000 && !u_counted(&patient))
		return -ETIMEDOUT;
	return u_real.futex(word, op, val, ts, word2, val3);
}

/* A write that takes longer than any helper stays. */
static long outlast_helpers(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	u_gate_open(&beginning);
	u_await(&ended, 1);
	return u_real.pwritev2(fd, iov, n, offset, flags);
}

TEST(a_hold_that_is_parked_by_a_waiting_thread_is_closed_when_the_lock_has_gone)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	io_context_t ctx = crew_context(4);
	struct las_ctx *inside = las_ctx_visit(ctx);
	int before;

	inside->helped = 100; /* so that no thread of the crew is called */
	las_ctx_unvisit(inside);
	prepare_writes(1);
	before = t_count_fds();
	CHECK_EQ(fcntl((int)iocbs[0].aio_fildes, F_SETLK, &lock), 0);
	las_sys.thread_start = start_at_gate;
	las_sys.futex = impatient_futex;
	las_sys.pwritev2 = outlast_helpers;
	CHECK_EQ(t_run(ctx, &iocbs[0]), 1);
	CHECK_EQ(t_count_fds(), before + 1); /* closing it would drop the lock */
	lock.l_type = F_UNLCK;
	CHECK_EQ(fcntl((int)iocbs[0].aio_fildes, F_SETLK, &lock), 0);
	u_count(&patient);
	for (int i = 0; t_count_fds() > before; i++) {
		CHECK(i < 10000);
		t_sleep_ms(1);
	}
}
