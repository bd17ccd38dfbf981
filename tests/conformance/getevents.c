/* getevents.c - what io_getevents and io_pgetevents answer, and how they wait. */
#include "las_test.h"

#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/syscall.h>
#include <sys/time.h>

static struct iocb *cached_read(void)
{
	static struct iocb iocb;
	static char buf[16];

	io_prep_pread(&iocb, t_file("data", 4096), buf, sizeof(buf), 0);
	return &iocb;
}

/* A poll request that stays in flight until the other end is written to. */
static int pending_poll(io_context_t ctx)
{
	static struct iocb iocbs[64];
	static int used;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_poll(&iocbs[used], ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &iocbs[used++]), 1);
	return ends[1];
}

TEST(min_above_nr_is_einval)
{
	io_context_t ctx = t_context(8);
	struct io_event events[2];

	CHECK_RET(io_getevents(ctx, 2, 1, events, NULL), -EINVAL);
	CHECK_RET(io_getevents(ctx, 1, 0, events, NULL), -EINVAL);
	CHECK_RET(io_getevents(ctx, LONG_MAX, 1, events, NULL), -EINVAL);
}

TEST(negative_min_is_einval)
{
	io_context_t ctx = t_context(8);
	struct io_event events[2];

	CHECK_RET(io_getevents(ctx, -1, 1, events, NULL), -EINVAL);
	CHECK_RET(io_getevents(ctx, LONG_MIN, 1, events, NULL), -EINVAL);
	CHECK_RET(io_getevents(ctx, -1, -1, events, NULL), -EINVAL);
}

TEST(negative_nr_is_einval)
{
	io_context_t ctx = t_context(8);
	struct io_event events[2];

	CHECK_RET(io_getevents(ctx, 0, -1, events, NULL), -EINVAL);
	CHECK_RET(io_getevents(ctx, 0, LONG_MIN, events, NULL), -EINVAL);
}

TEST(zero_nr_is_zero_and_takes_nothing)
{
	io_context_t ctx = t_context(8);

	CHECK_RET(io_getevents(ctx, 0, 0, NULL, NULL), 0);
	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_getevents(ctx, 0, 0, NULL, NULL), 0);
	CHECK_RET(t_reap_one(ctx), 16);
}

TEST(min_zero_returns_at_once_whatever_the_timeout)
{
	io_context_t ctx = t_context(8);
	struct io_event events[8];
	struct timespec year = { 31536000, 0 };

	CHECK_RET(io_getevents(ctx, 0, 8, events, NULL), 0);
	CHECK_RET(io_getevents(ctx, 0, 8, events, &year), 0);
	pending_poll(ctx);
	CHECK_RET(io_getevents(ctx, 0, 8, events, NULL), 0);
	CHECK_RET(io_getevents(ctx, 0, 8, events, &year), 0);
}

TEST(min_zero_takes_what_is_there)
{
	io_context_t ctx = t_context(8);
	struct io_event events[8];
	struct iocb *iocb = cached_read();

	for (int i = 0; i < 5; i++)
		CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 5);
	CHECK_RET(io_getevents(ctx, 0, 8, events, NULL), 5);
	CHECK_RET(io_getevents(ctx, 0, 8, events, NULL), 0);
}

TEST(takes_up_to_nr_when_more_are_there)
{
	io_context_t ctx = t_context(16);
	struct io_event events[16];
	struct iocb *iocb = cached_read();

	for (int i = 0; i < 10; i++) {
		iocb->data = (void *)(uintptr_t)i;
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_ring_wait(ctx, (unsigned)i + 1);
	}
	CHECK_RET(io_getevents(ctx, 1, 4, events, NULL), 4);
	CHECK_RET(io_getevents(ctx, 1, 16, events + 4, NULL), 6);
	for (int i = 0; i < 10; i++)
		CHECK_EQ((uintptr_t)events[i].data, i);
}

TEST(nothing_beyond_the_count_is_written)
{
	io_context_t ctx = t_context(8);
	struct io_event events[4], untouched;

	memset(events, 0x5a, sizeof(events));
	untouched = events[3];
	CHECK_RET(t_submit(ctx, cached_read()), 1);
	CHECK_RET(io_getevents(ctx, 1, 4, events, NULL), 1);
	for (int i = 1; i < 4; i++)
		CHECK_EQ(memcmp(&events[i], &untouched, sizeof(untouched)), 0);
}

TEST(nr_may_be_huge)
{
	io_context_t ctx = t_context(8);
	struct io_event events[8];

	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_getevents(ctx, 1, LONG_MAX, events, NULL), 1);
}

TEST(no_timeout_never_returns_zero)
{
	io_context_t ctx = t_context(64);
	int fd = t_file("data", 1 << 20);
	struct iocb iocbs[8], *list[8];
	static char bufs[8][4096];
	struct io_event events[8];

	for (int round = 0; round < 300; round++) {
		int got = 0;

		for (int i = 0; i < 8; i++) {
			io_prep_pread(&iocbs[i], fd, bufs[i], 4096, (round * 8 + i) % 256 * 4096);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, 8, list), 8);
		while (got < 8) {
			int n = io_getevents(ctx, 1, 8, events, NULL);

			CHECK(n >= 1 && n <= 8 - got);
			got += n;
		}
	}
}

TEST(timeout_with_nothing_in_flight_returns_zero)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	struct timespec wait = { 0, 5000000 };
	int64_t start = t_now_ms();

	CHECK_RET(io_getevents(ctx, 1, 1, &event, &wait), 0);
	CHECK(t_now_ms() - start >= 4);
}

TEST(timeout_is_never_too_early)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	const long times_ns[] = { 1, 1000, 100000, 999999, 1000001, 20000000 };

	pending_poll(ctx);
	for (size_t i = 0; i < sizeof(times_ns) / sizeof(times_ns[0]); i++) {
		struct timespec wait = { 0, times_ns[i] }, before, after;

		clock_gettime(CLOCK_MONOTONIC, &before);
		CHECK_RET(io_getevents(ctx, 1, 1, &event, &wait), 0);
		clock_gettime(CLOCK_MONOTONIC, &after);
		CHECK((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec >= times_ns[i]);
	}
}

TEST(zero_timeout_does_not_wait)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	struct timespec zero = { 0, 0 };

	pending_poll(ctx);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, &zero), 0);
	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, &zero), 1);
}

TEST(timeout_gives_what_there_was)
{
	io_context_t ctx = t_context(8);
	struct io_event events[8];
	struct timespec wait = { 0, 5000000 };
	struct iocb *iocb = cached_read();

	pending_poll(ctx);
	for (int i = 0; i < 3; i++)
		CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 3);
	CHECK_RET(io_getevents(ctx, 4, 8, events, &wait), 3);
}

TEST(min_larger_than_what_is_in_flight_waits_for_the_timeout)
{
	io_context_t ctx = t_context(8);
	struct io_event events[8];
	struct timespec wait = { 0, 10000000 };

	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_getevents(ctx, 8, 8, events, &wait), 1);
	CHECK_RET(io_getevents(ctx, 8, 8, events, &wait), 0);
}

static void *submit_later(void *arg)
{
	t_sleep_ms(30);
	CHECK_RET(t_submit(arg, cached_read()), 1);
	return NULL;
}

TEST(min_larger_than_what_is_in_flight_waits_for_later_submits)
{
	io_context_t ctx = t_context(8);
	struct io_event events[2];
	pthread_t thread;

	CHECK_RET(t_submit(ctx, cached_read()), 1);
	thread = t_thread(submit_later, ctx);
	CHECK_RET(io_getevents(ctx, 2, 2, events, NULL), 2);
	t_join(thread);
}

TEST(waiting_starts_before_anything_is_in_flight)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	pthread_t thread = t_thread(submit_later, ctx);

	CHECK_RET(io_getevents(ctx, 1, 1, &event, NULL), 1);
	t_join(thread);
}

TEST(oversized_nanoseconds_are_accepted)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	struct timespec wait = { 0, 1005000000 };
	int64_t start = t_now_ms();

	CHECK_RET(io_getevents(ctx, 1, 1, &event, &wait), 0);
	CHECK(t_now_ms() - start >= 1000);
}

/* The kernel's arithmetic turns any time before now into the end of time. */
TEST(negative_timeouts_wait_for_ever)
{
	io_context_t ctx = t_context(8);
	struct timespec waits[] = { { -1, 0 }, { 0, -1 }, { 1, -2000000000 } };

	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		struct io_event event;
		pthread_t thread = t_thread(submit_later, ctx);

		CHECK_RET(io_getevents(ctx, 1, 1, &event, &waits[i]), 1);
		t_join(thread);
	}
}

TEST(negative_timeouts_take_what_is_there)
{
	io_context_t ctx = t_context(8);
	struct timespec wait = { -1, 0 };
	struct io_event event;

	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, &wait), 1);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, &wait), 0);
}

TEST(enormous_timeouts_wait)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	struct timespec wait = { LONG_MAX, 999999999 };
	pthread_t thread = t_thread(submit_later, ctx);

	CHECK_RET(io_getevents(ctx, 1, 1, &event, &wait), 1);
	t_join(thread);
}

TEST(timeout_is_never_written_back)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	const struct timespec wait = { 0, 3000000 };
	struct timespec *read_only = t_read_only(&wait, sizeof(wait));

	CHECK_RET(io_getevents(ctx, 1, 1, &event, read_only), 0);
	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1); /* the time may be over before a thread has read it */
	CHECK_RET(io_getevents(ctx, 1, 1, &event, read_only), 1);
}

TEST(bad_timeout_pointer_is_efault)
{
	io_context_t ctx = t_context(8);
	struct io_event event;

	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(any_getevents(ctx, 1, 1, &event, t_no_access()), -EFAULT);
	CHECK_RET(any_getevents(ctx, 0, 1, &event, (struct timespec *)(uintptr_t)0xffff800000000000u), -EFAULT);
	CHECK_EQ(t_ring_count(ctx), 1);
	CHECK_RET(t_reap_one(ctx), 16);
}

TEST(bad_timeout_pointer_wins_over_bad_context)
{
	struct io_event event;

	CHECK_RET(any_getevents(NULL, 1, 1, &event, t_no_access()), -EFAULT);
}

TEST(bad_events_pointer_is_efault_and_loses_nothing)
{
	io_context_t ctx = t_context(8);
	struct iocb *iocb = cached_read();
	struct io_event event;

	for (int i = 0; i < 3; i++)
		CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 3);
	CHECK_RET(io_getevents(ctx, 1, 3, t_no_access(), NULL), -EFAULT);
	CHECK_RET(io_getevents(ctx, 0, 3, NULL, NULL), -EFAULT);
	CHECK_RET(io_getevents(ctx, 1, 1, t_read_only(&event, sizeof(event)), NULL), -EFAULT);
	CHECK_RET(io_getevents(ctx, 1, 1, (struct io_event *)(uintptr_t)0xffff800000000000u, NULL), -EFAULT);
	CHECK_EQ(t_ring_count(ctx), 3);
	for (int i = 0; i < 3; i++)
		CHECK_RET(t_reap_one(ctx), 16);
}

TEST(events_array_that_ends_in_unreadable_memory_loses_nothing)
{
	io_context_t ctx = t_context(8);
	struct iocb *iocb = cached_read();
	char *pages = t_pages(8192);
	struct io_event *events = (struct io_event *)(void *)(pages + 4096 - sizeof(*events)), taken[3];

	CHECK_EQ(mprotect(pages + 4096, 4096, PROT_NONE), 0);
	for (int i = 0; i < 3; i++)
		CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 3);
	CHECK_RET(io_getevents(ctx, 1, 3, events, NULL), -EFAULT);
	CHECK_EQ(t_ring_count(ctx), 3);
	t_reap(ctx, 3, taken);
}

TEST(bad_events_pointer_with_no_event_is_no_error)
{
	io_context_t ctx = t_context(8);
	struct timespec wait = { 0, 1000000 };

	CHECK_RET(io_getevents(ctx, 0, 1, NULL, NULL), 0);
	CHECK_RET(io_getevents(ctx, 1, 1, t_no_access(), &wait), 0);
}

TEST(unaligned_events_array_works)
{
	io_context_t ctx = t_context(8);
	char place[sizeof(struct io_event) + 4];
	struct io_event event;

	CHECK_RET(t_submit(ctx, cached_read()), 1);
	CHECK_RET(io_getevents(ctx, 1, 1, (struct io_event *)(void *)(place + 1), NULL), 1);
	memcpy(&event, place + 1, sizeof(event));
	CHECK_EQ(t_res(&event), 16);
}

TEST(completion_order_is_kept)
{
	io_context_t ctx = t_context(64);
	struct iocb *iocb = cached_read();
	struct io_event events[64];

	for (int i = 0; i < 64; i++) {
		iocb->data = (void *)(uintptr_t)i;
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_ring_wait(ctx, (unsigned)i + 1);
	}
	t_reap(ctx, 64, events);
	for (int i = 0; i < 64; i++)
		CHECK_EQ((uintptr_t)events[i].data, i);
}

/* ---- signals ---- */

static volatile sig_atomic_t handled;

static void on_signal(int number)
{
	handled = number;
}

static void handle(int number, int flags)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };

	CHECK_EQ(sigaction(number, &action, NULL), 0);
}

struct kicked {
	pthread_t thread;
	pid_t tid;
	int signal;
};

static void *kick(void *arg)
{
	struct kicked *kicked = arg;

	t_wait_asleep(kicked->tid);
	CHECK_EQ(pthread_kill(kicked->thread, kicked->signal), 0);
	return NULL;
}

static pthread_t kick_me(int number)
{
	static struct kicked kicked;

	kicked = (struct kicked){ pthread_self(), (pid_t)syscall(SYS_gettid), number };
	return t_thread(kick, &kicked);
}

static void check_interrupted(int flags)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	pthread_t thread;

	handle(SIGUSR1, flags);
	pending_poll(ctx);
	thread = kick_me(SIGUSR1);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, NULL), -EINTR);
	CHECK_EQ(handled, SIGUSR1);
	t_join(thread);
}

TEST(signal_is_eintr)
{
	check_interrupted(0);
}

TEST(signal_is_eintr_even_with_sa_restart)
{
	check_interrupted(SA_RESTART);
}

TEST(signal_with_a_timeout_is_eintr)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	struct timespec wait = { 20, 0 };
	pthread_t thread;

	handle(SIGUSR1, SA_RESTART);
	pending_poll(ctx);
	thread = kick_me(SIGUSR1);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, &wait), -EINTR);
	t_join(thread);
}

TEST(signal_with_nothing_in_flight_is_eintr)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	pthread_t thread;

	handle(SIGUSR1, 0);
	thread = kick_me(SIGUSR1);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, NULL), -EINTR);
	t_join(thread);
}

TEST(signal_after_some_events_gives_their_count)
{
	io_context_t ctx = t_context(8);
	struct io_event events[8];
	struct iocb *iocb = cached_read();
	pthread_t thread;

	handle(SIGUSR1, 0);
	pending_poll(ctx);
	for (int i = 0; i < 2; i++)
		CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 2);
	thread = kick_me(SIGUSR1);
	CHECK_RET(io_getevents(ctx, 8, 8, events, NULL), 2);
	CHECK_EQ(handled, SIGUSR1);
	t_join(thread);
}

TEST(ignored_signal_does_not_interrupt)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	struct timespec wait = { 0, 50000000 };
	pthread_t thread;

	CHECK(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
	pending_poll(ctx);
	thread = kick_me(SIGUSR1);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, &wait), 0);
	t_join(thread);
}

TEST(blocked_signal_does_not_interrupt)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	struct timespec wait = { 0, 50000000 };
	sigset_t set;

	handle(SIGUSR1, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	CHECK_EQ(raise(SIGUSR1), 0);
	pending_poll(ctx);
	CHECK_RET(io_getevents(ctx, 1, 1, &event, &wait), 0);
	CHECK_EQ(handled, 0);
}

static io_context_t handler_ctx;
static struct iocb *handler_iocb;
static int handler_answer;

static void submit_in_handler(int number)
{
	handler_answer = t_submit(handler_ctx, handler_iocb);
}

/* io_submit and io_getevents are system calls: a program may well call them in a handler that interrupted one. */
TEST(handler_that_submits_does_not_deadlock)
{
	io_context_t ctx = t_context(8);
	struct sigaction action = { .sa_handler = submit_in_handler };
	struct io_event event;
	pthread_t thread;

	handler_ctx = ctx;
	handler_iocb = cached_read();
	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	pending_poll(ctx);
	thread = kick_me(SIGUSR1);
	int answer = io_getevents(ctx, 1, 1, &event, NULL);

	/* The event of the handler's own request may be found before the interruption is reported. */
	CHECK(answer == -EINTR || answer == 1);
	CHECK_EQ(handler_answer, 1);
	if (answer == -EINTR)
		CHECK_RET(t_reap_one(ctx), 16);
	t_join(thread);
}

static void *submit_for_ever(void *arg)
{
	struct iocb *iocb = cached_read();
	struct io_event event;

	while (!__atomic_load_n((int *)arg, __ATOMIC_ACQUIRE)) {
		CHECK_RET(t_submit(handler_ctx, iocb), 1);
		while (io_getevents(handler_ctx, 1, 1, &event, NULL) == -EINTR)
			;
	}
	return NULL;
}

TEST(storm_of_signals_loses_nothing)
{
	static int stop;
	pthread_t thread;

	handler_ctx = t_context(8);
	handle(SIGUSR1, SA_RESTART);
	thread = t_thread(submit_for_ever, &stop);
	for (int i = 0; i < 3000; i++) {
		CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
		if (i % 16 == 0)
			usleep(100);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	t_join(thread);
	t_no_event(handler_ctx);
}

TEST(fatal_signal_ends_the_process_while_waiting)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (pid == 0) {
		io_context_t ctx = t_context(8);
		struct io_event event;

		alarm(0);
		pending_poll(ctx);
		kick_me(SIGTERM);
		io_getevents(ctx, 1, 1, &event, NULL);
		_exit(1);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGTERM);
}

TEST(stop_and_continue_do_not_interrupt_the_wait_for_good)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (pid == 0) {
		io_context_t ctx = t_context(8);
		struct io_event event;
		struct timespec wait = { 1, 0 };
		int answer;

		/* The kernel reports the stop as an interruption; either answer lets a program go on. */
		answer = io_getevents(ctx, 1, 1, &event, &wait);
		_exit(answer == 0 || answer == -EINTR ? 0 : 1);
	}
	t_sleep_ms(50);
	CHECK_EQ(kill(pid, SIGSTOP), 0);
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(kill(pid, SIGCONT), 0);
	t_wait_ok(pid);
}

/* ---- io_pgetevents ---- */

TEST(pgetevents_without_mask_is_getevents)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	struct timespec wait = { 0, 1000000 };

	CHECK_RET(io_pgetevents(ctx, 1, 1, &event, &wait, NULL), 0);
	CHECK_RET(t_submit(ctx, cached_read()), 1);
	CHECK_RET(io_pgetevents(ctx, 1, 1, &event, NULL, NULL), 1);
	CHECK_RET(io_pgetevents(ctx, 2, 1, &event, NULL, NULL), -EINVAL);
	CHECK_RET(io_pgetevents(ctx, -1, 1, &event, NULL, NULL), -EINVAL);
	CHECK_RET(io_pgetevents(NULL, 1, 1, &event, NULL, NULL), -EINVAL);
}

TEST(pgetevents_mask_lets_a_pending_signal_in)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	sigset_t blocked, none, now;

	handle(SIGUSR1, 0);
	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(handled, 0);
	pending_poll(ctx);
	CHECK_RET(io_pgetevents(ctx, 1, 1, &event, NULL, &none), -EINTR);
	CHECK_EQ(handled, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, NULL, &now), 0);
	CHECK_EQ(sigismember(&now, SIGUSR1), 1);
}

TEST(pgetevents_mask_keeps_a_signal_out)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	struct timespec wait = { 0, 100000000 };
	sigset_t blocked, now;
	pthread_t thread;

	handle(SIGUSR1, 0);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	pending_poll(ctx);
	thread = kick_me(SIGUSR1);
	CHECK_RET(io_pgetevents(ctx, 1, 1, &event, &wait, &blocked), 0);
	t_join(thread);
	/* Delivered as soon as the old mask is back. */
	CHECK_EQ(handled, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, NULL, &now), 0);
	CHECK_EQ(sigismember(&now, SIGUSR1), 0);
}

TEST(pgetevents_with_events_there_delivers_the_signal_and_the_events)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	sigset_t blocked, none;

	handle(SIGUSR1, 0);
	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_pgetevents(ctx, 1, 1, &event, NULL, &none), 1);
	CHECK_EQ(handled, SIGUSR1);
}

TEST(pgetevents_bad_mask_pointer_is_efault)
{
	io_context_t ctx = t_context(8);
	struct io_event event;

	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_pgetevents(ctx, 1, 1, &event, NULL, t_no_access()), -EFAULT);
	CHECK_EQ(t_ring_count(ctx), 1);
	CHECK_RET(t_reap_one(ctx), 16);
}

/* By number, as no library lets the size be chosen. */
static long pgetevents_by_number(io_context_t ctx, struct timespec *timeout, const void *mask, size_t bytes)
{
	struct io_event event;
	struct {
		const void *mask;
		size_t bytes;
	} argument = { mask, bytes };
	long result = syscall(SYS_io_pgetevents, ctx, 1L, 1L, &event, timeout, &argument);

	return result < 0 ? -errno : result;
}

TEST(pgetevents_looks_at_the_timeout_then_the_mask_then_the_context)
{
	io_context_t ctx = t_context(8);
	sigset_t none;

	sigemptyset(&none);
	CHECK_RET(pgetevents_by_number(ctx, t_no_access(), &none, 4), -EFAULT);
	CHECK_RET(pgetevents_by_number(ctx, NULL, t_no_access(), 4), -EINVAL);
	CHECK_RET(pgetevents_by_number(NULL, NULL, t_no_access(), 8), -EFAULT);
	CHECK_RET(pgetevents_by_number(NULL, NULL, NULL, 4), -EINVAL);
}

TEST(pgetevents_with_an_error_delivers_the_signal_and_the_error)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	sigset_t blocked, none;

	handle(SIGUSR1, 0);
	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_RET(io_pgetevents(ctx, 2, 1, &event, NULL, &none), -EINVAL);
	CHECK_EQ(handled, SIGUSR1);
	handled = 0;
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_RET(io_pgetevents(NULL, 1, 1, &event, NULL, &none), -EINVAL);
	CHECK_EQ(handled, SIGUSR1);
}

TEST(pgetevents_errors_restore_the_mask)
{
	io_context_t ctx = t_context(8);
	struct io_event event;
	sigset_t all, before, after;

	sigfillset(&all);
	CHECK_EQ(sigprocmask(SIG_BLOCK, NULL, &before), 0);
	CHECK_RET(io_pgetevents(ctx, 2, 1, &event, NULL, &all), -EINVAL);
	CHECK_RET(io_pgetevents(NULL, 1, 1, &event, NULL, &all), -EINVAL);
	CHECK_EQ(sigprocmask(SIG_BLOCK, NULL, &after), 0);
	for (int i = 1; i < 65; i++)
		CHECK_EQ(sigismember(&after, i), sigismember(&before, i));
}

/* ---- several waiters ---- */

static io_context_t shared;
static int reaped_in_all;

static void *reap_one(void *arg)
{
	struct io_event event;

	CHECK_RET(io_getevents(shared, 1, 1, &event, NULL), 1);
	__atomic_add_fetch(&reaped_in_all, 1, __ATOMIC_RELAXED);
	return NULL;
}

TEST(many_waiters_each_get_one)
{
	enum { COUNT = 32 };
	pthread_t threads[COUNT];
	struct iocb *iocb = cached_read(), *list[COUNT];

	shared = t_context(COUNT);
	for (int i = 0; i < COUNT; i++) {
		threads[i] = t_thread(reap_one, NULL);
		list[i] = iocb;
	}
	t_sleep_ms(30);
	CHECK_RET(io_submit(shared, COUNT, list), COUNT);
	for (int i = 0; i < COUNT; i++)
		t_join(threads[i]);
	CHECK_EQ(reaped_in_all, COUNT);
	t_no_event(shared);
}

TEST(waiters_are_woken_by_poll_events_one_by_one)
{
	enum { COUNT = 8 };
	pthread_t threads[COUNT];
	int writers[COUNT];

	shared = t_context(COUNT);
	for (int i = 0; i < COUNT; i++)
		writers[i] = pending_poll(shared);
	for (int i = 0; i < COUNT; i++)
		threads[i] = t_thread(reap_one, NULL);
	for (int i = 0; i < COUNT; i++) {
		CHECK_EQ(write(writers[i], "x", 1), 1);
		while (__atomic_load_n(&reaped_in_all, __ATOMIC_RELAXED) != i + 1)
			usleep(100);
	}
	for (int i = 0; i < COUNT; i++)
		t_join(threads[i]);
}

static void *reap_eight(void *arg)
{
	struct io_event events[8];

	CHECK_RET(io_getevents(shared, 8, 8, events, NULL), 8);
	return NULL;
}

TEST(waiters_for_different_counts)
{
	struct iocb *iocb = cached_read(), *list[9];
	pthread_t many, one;

	shared = t_context(16);
	for (int i = 0; i < 9; i++)
		list[i] = iocb;
	many = t_thread(reap_eight, NULL);
	one = t_thread(reap_one, NULL);
	t_sleep_ms(20);
	CHECK_RET(io_submit(shared, 9, list), 9);
	t_join(one);
	t_join(many);
	t_no_event(shared);
}

TEST(interrupted_waiter_leaves_the_others_waiting)
{
	struct io_event event;
	pthread_t other, thread;
	int writer;

	shared = t_context(8);
	handle(SIGUSR1, 0);
	writer = pending_poll(shared);
	other = t_thread(reap_one, NULL);
	t_sleep_ms(10);
	thread = kick_me(SIGUSR1);
	CHECK_RET(io_getevents(shared, 1, 1, &event, NULL), -EINTR);
	t_join(thread);
	CHECK_EQ(write(writer, "x", 1), 1);
	t_join(other);
}

/* ---- waiters that leave in unusual ways ---- */

static sigjmp_buf way_out;

static void jump_out(int number)
{
	siglongjmp(way_out, 1);
}

/* A wait is a system call: a handler may leave it by a jump, as old programs do for their own time-outs. */
TEST(handler_that_jumps_out_leaves_the_context_usable)
{
	io_context_t ctx = t_context(8);
	struct sigaction action = { .sa_handler = jump_out };
	struct iocb *iocb = cached_read();
	int writer;
	volatile int jumps = 0;

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	writer = pending_poll(ctx);
	while (jumps < 20) {
		struct io_event event;
		static pthread_t thread;

		if (sigsetjmp(way_out, 1)) {
			jumps++;
			t_join(thread);
			continue;
		}
		thread = kick_me(SIGUSR1);
		io_getevents(ctx, 1, 1, &event, NULL);
		FAIL("io_getevents returned");
	}
	for (int i = 0; i < 20; i++) {
		CHECK_RET(t_submit(ctx, iocb), 1);
		CHECK_RET(t_reap_one(ctx), 16);
	}
	CHECK_EQ(write(writer, "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
	CHECK_RET(io_destroy(ctx), 0);
}

static void *wait_and_be_cancelled(void *arg)
{
	struct io_event event;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	io_getevents(arg, 1, 1, &event, NULL);
	return NULL;
}

TEST(cancelled_waiter_does_not_take_the_wait_with_it)
{
	for (int round = 0; round < 10; round++) {
		io_context_t ctx = t_context(8);
		int writer = pending_poll(ctx);
		pthread_t first = t_thread(wait_and_be_cancelled, ctx), second;

		shared = ctx;
		t_sleep_ms(3);
		second = t_thread(reap_one, NULL);
		t_sleep_ms(3);
		CHECK_EQ(pthread_cancel(first), 0);
		t_join(first);
		CHECK_EQ(write(writer, "x", 1), 1);
		t_join(second);
		CHECK_RET(io_destroy(ctx), 0);
	}
}

static io_context_t busy_ctx;
static struct iocb *busy_iocb;
static volatile sig_atomic_t in_handler;

static void submit_and_reap_in_handler(int number)
{
	struct io_event event;
	struct timespec zero = { 0, 0 };
	int saved = errno;

	if (t_submit(busy_ctx, busy_iocb) == 1)
		in_handler++;
	if (io_getevents(busy_ctx, 0, 1, &event, &zero) == 1)
		in_handler--;
	errno = saved;
}

/* The calls are system calls to the program: it may make them in a handler that interrupted the very same call. */
TEST(calls_in_a_handler_that_interrupted_the_same_calls)
{
	struct sigaction action = { .sa_handler = submit_and_reap_in_handler, .sa_flags = SA_RESTART };
	struct itimerval often = { { 0, 150 }, { 0, 150 } }, never = { { 0, 0 }, { 0, 0 } };
	int outstanding = 0;
	struct io_event event;

	busy_ctx = t_context(256);
	busy_iocb = cached_read();
	CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
	for (int i = 0; i < 20000; i++) {
		int answer = t_submit(busy_ctx, busy_iocb);

		CHECK(answer == 1 || answer == -EAGAIN);
		outstanding += answer == 1;
		answer = io_getevents(busy_ctx, 0, 1, &event, NULL);
		CHECK(answer == 0 || answer == 1 || answer == -EINTR);
		outstanding -= answer == 1;
	}
	CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
	for (outstanding += in_handler; outstanding > 0; outstanding--)
		CHECK_RET(t_reap_one(busy_ctx), 16);
	t_no_event(busy_ctx);
}
