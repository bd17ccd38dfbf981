/*
 * signals.c - a storm of signals whose handlers submit, reap, cancel and set up contexts, on the context that they
 * interrupted.
 *
 * Accepted and reaped must agree in the end, whoever did either.  A handler that stands inside one of the library's
 * short sections is told to try again, which it does not.
 */
#include "chance.h"

#include <sys/time.h>

#include "libaio_shim.h"

enum { DEPTH = 64 };

static io_context_t ctx;
static int file;
static volatile unsigned long accepted, reaped, cancelled, in_handler;
static struct c_source handler_chance = { 7 };
static char handler_bytes[4096], bytes[DEPTH][4096];

/* Each request has an iocb of its own until its event has come. */
static struct slot {
	struct iocb iocb;
	volatile int state; /* atomic: 0 free, 1 in use */
} slots[DEPTH * 2];

static struct slot *free_slot(void)
{
	for (int i = 0; i < DEPTH * 2; i++)
		if (!__atomic_exchange_n(&slots[i].state, 1, __ATOMIC_ACQ_REL))
			return &slots[i];
	return NULL;
}

static void prepare(struct c_source *source, struct slot *slot, char *data)
{
	long long offset = c_below(source, 60000);

	switch (c_below(source, 4)) {
	case 0:
		io_prep_pwrite(&slot->iocb, file, data, 100, offset);
		break;
	case 1:
		io_prep_fdsync(&slot->iocb, file);
		break;
	default:
		io_prep_pread(&slot->iocb, file, data, 100, offset);
		break;
	}
	slot->iocb.data = slot;
}

static long submit_one(struct c_source *source, char *data)
{
	struct slot *slot = free_slot();
	struct iocb *list[1];
	long ret;

	if (!slot)
		return 0;
	prepare(source, slot, data);
	list[0] = &slot->iocb;
	__atomic_add_fetch(&accepted, 1, __ATOMIC_SEQ_CST); /* before: a handler may reap it inside the call */
	ret = las_io_submit(ctx, 1, list);
	if (ret == 1)
		return 1;
	if (ret != -EAGAIN)
		abort();
	__atomic_sub_fetch(&accepted, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&slot->state, 0, __ATOMIC_RELEASE);
	return ret;
}

static long reap(long min, struct timespec *timeout)
{
	struct io_event events[16];
	long n = las_io_getevents(ctx, min, 16, events, timeout);

	for (long i = 0; i < n; i++) {
		struct slot *slot = events[i].data;

		if (events[i].obj != &slot->iocb || (long)events[i].res < 0 ||
		    !__atomic_exchange_n(&slot->state, 0, __ATOMIC_ACQ_REL))
			abort();
		__atomic_add_fetch(&reaped, 1, __ATOMIC_SEQ_CST);
	}
	return n;
}

static void cancel_one(struct c_source *source)
{
	struct slot *slot = &slots[c_below(source, DEPTH * 2)];
	struct io_event event;

	if (las_io_cancel(ctx, &slot->iocb, &event) != 0)
		return;
	if (!__atomic_exchange_n(&slot->state, 0, __ATOMIC_ACQ_REL))
		abort();
	__atomic_add_fetch(&cancelled, 1, __ATOMIC_SEQ_CST);
}

static void handler(int sig)
{
	struct timespec soon = { 0, 100000 };
	io_context_t other = NULL;
	int saved = errno;

	in_handler++;
	switch (c_below(&handler_chance, 5)) {
	case 0:
		reap(0, NULL);
		break;
	case 1:
		reap(1, &soon);
		break;
	case 2:
		cancel_one(&handler_chance);
		break;
	case 3:
		if (las_io_setup(1, &other) == 0 && las_io_destroy(other) == -EINVAL)
			abort();
		break;
	default:
		submit_one(&handler_chance, handler_bytes);
		break;
	}
	errno = saved;
}

static void start_storm(void)
{
	struct itimerval interval = { .it_interval = { 0, 150 }, .it_value = { 0, 150 } };
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };

	CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &interval, NULL), 0);
}

static void stop_storm(void)
{
	struct itimerval none = { 0 };

	CHECK_EQ(setitimer(ITIMER_REAL, &none, NULL), 0);
}

static void run(void)
{
	struct c_source source = { c_setting("LAS_FUZZ_SEED", 1) };
	int64_t end_ms = t_now_ms() + (int64_t)c_setting("LAS_STRESS_MS", 300);

	file = t_file("file", 65536);
	ctx = t_context(DEPTH);
	start_storm();
	for (unsigned i = 0; t_now_ms() < end_ms || in_handler <= 100; i++) {
		struct timespec timeout = { 0, 300000 };

		submit_one(&source, bytes[i % DEPTH]);
		if (c_one_in(&source, 3))
			reap(c_below(&source, 2), &timeout);
		if (c_one_in(&source, 20))
			cancel_one(&source);
	}
	stop_storm();
	for (int64_t patience = t_now_ms() + 20000; reaped + cancelled < accepted;) {
		struct timespec timeout = { 0, 10000000 };

		CHECK(t_now_ms() < patience);
		reap(1, &timeout);
	}
	CHECK_EQ(reaped + cancelled, accepted);
	for (int i = 0; i < DEPTH * 2; i++)
		CHECK_EQ(slots[i].state, 0);
}

TEST(handlers_call_in_on_all_lanes)
{
	run();
}

TEST(handlers_call_in_on_the_crew)
{
	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	run();
}

TEST(handlers_call_in_on_the_native_lane)
{
	setenv("LIBAIO_SHIM_LANES", "native", 1);
	run();
}

/* The wait without end, which is what a handler interrupts most. */
static void nothing(int sig)
{
	in_handler++;
}

TEST(every_wait_ends_with_its_events_or_with_eintr)
{
	struct sigaction action = { .sa_handler = nothing };
	struct itimerval interval = { .it_interval = { 0, 100 }, .it_value = { 0, 100 } };
	struct c_source source = { c_setting("LAS_FUZZ_SEED", 1) };
	int64_t end_ms = t_now_ms() + (int64_t)c_setting("LAS_STRESS_MS", 300);
	unsigned long interrupted = 0;

	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	file = t_file("file", 65536);
	ctx = t_context(DEPTH);
	CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &interval, NULL), 0);
	while (t_now_ms() < end_ms) {
		long n = 0;

		CHECK_RET(submit_one(&source, bytes[0]), 1);
		while (n < 1) {
			n = reap(1, NULL);
			CHECK(n == 1 || n == -EINTR);
			interrupted += n == -EINTR;
		}
	}
	stop_storm();
	CHECK_EQ(reaped, accepted);
	printf("%lu waits, %lu of them interrupted\n", reaped, interrupted);
}
