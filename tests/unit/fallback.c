/* fallback.c - what is done where a sandbox forbids a call: which calls are made then, and what is answered. */
#include "unit.h"

#include <dlfcn.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>

#include "base/fallback.h"
#include "base/rwf.h"
#include "base/thread.h"

/* The calls that were made, and what they were answered. */
static struct {
	long number, arguments[6];
} made[4];
static unsigned calls;
static long answers[4];

static long enter(long n, long a, long b, long c, long d, long e, long f)
{
	CHECK(calls < 4);
	made[calls].number = n;
	memcpy(made[calls].arguments, (long[]){ a, b, c, d, e, f }, sizeof(made[calls].arguments));
	return answers[calls++];
}

static char bytes[8];
static struct iovec iov[2] = { { bytes, 4 }, { bytes + 4, 4 } };

enum { FD = 7, SAID = -EPERM };

static void check_call(unsigned i, long number, long a, long b, long c, long d)
{
	CHECK_EQ(made[i].number, number);
	CHECK_EQ(made[i].arguments[0], a);
	CHECK_EQ(made[i].arguments[1], b);
	CHECK_EQ(made[i].arguments[2], c);
	CHECK_EQ(made[i].arguments[3], d);
}

TEST(only_what_a_sandbox_or_an_old_kernel_says_is_barred)
{
	CHECK(las_is_barred(-EPERM));
	CHECK(las_is_barred(-ENOSYS));
	CHECK(!las_is_barred(0));
	CHECK(!las_is_barred(1));
	CHECK(!las_is_barred(-EAGAIN));
	CHECK(!las_is_barred(-EACCES));
	CHECK(!las_is_barred(-EOPNOTSUPP));
}

TEST(reads_and_writes_without_flags_are_the_older_calls)
{
	answers[0] = 8;
	CHECK_RET(las_fallback_preadv2(enter, FD, iov, 2, 4096, 0, SAID), 8);
	check_call(0, SYS_preadv, FD, (long)iov, 2, 4096);
	calls = 0;
	CHECK_RET(las_fallback_pwritev2(enter, FD, iov, 2, 0, 0, SAID), 8);
	check_call(0, SYS_pwritev, FD, (long)iov, 2, 0);
	CHECK_EQ(calls, 1);
}

TEST(on_a_stream_they_have_no_offset)
{
	answers[0] = -EPIPE;
	CHECK_RET(las_fallback_preadv2(enter, FD, iov, 2, -1, 0, SAID), -EPIPE);
	check_call(0, SYS_readv, FD, (long)iov, 2, 0);
	calls = 0;
	CHECK_RET(las_fallback_pwritev2(enter, FD, iov, 2, -1, 0, SAID), -EPIPE);
	check_call(0, SYS_writev, FD, (long)iov, 2, 0);
}

TEST(what_must_not_wait_is_not_tried)
{
	CHECK_RET(las_fallback_preadv2(enter, FD, iov, 2, 0, RWF_NOWAIT, SAID), -EOPNOTSUPP);
	CHECK_RET(las_fallback_pwritev2(enter, FD, iov, 2, 0, RWF_NOWAIT, SAID), -EOPNOTSUPP);
	CHECK_EQ(calls, 0);
}

TEST(flags_that_the_descriptor_has_anyway_are_left_out)
{
	static const struct {
		int opened, flags;
		bool same;
	} cases[] = {
		{ O_WRONLY | O_APPEND, RWF_APPEND, true },
		{ O_WRONLY | O_APPEND, RWF_NOAPPEND, false },
		{ O_WRONLY | O_APPEND, RWF_APPEND | RWF_DSYNC, false },
		{ O_WRONLY, RWF_NOAPPEND, true },
		{ O_WRONLY, RWF_APPEND, false },
		{ O_WRONLY, RWF_DSYNC, false },
		{ -EBADF, RWF_APPEND, false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		calls = 0;
		answers[0] = cases[i].opened;
		answers[1] = 8;
		CHECK_RET(las_fallback_pwritev2(enter, FD, iov, 2, 16, cases[i].flags, SAID), cases[i].same ? 8 : SAID);
		check_call(0, SYS_fcntl, FD, F_GETFL, 0, 0);
		CHECK_EQ(calls, 1 + cases[i].same);
		if (cases[i].same)
			check_call(1, SYS_pwritev, FD, (long)iov, 2, 16);
	}
}

#ifdef SYS_poll
TEST(a_time_out_in_milliseconds_is_never_too_short)
{
	static const struct {
		struct timespec timeout;
		long ms;
	} cases[] = {
		{ { 0, 0 }, 0 },       { { 0, 1 }, 1 },       { { 0, 999999 }, 1 },
		{ { 0, 1000000 }, 1 }, { { 0, 1000001 }, 2 }, { { 3, 999999999 }, 4000 },
	};
	struct pollfd p = { .fd = FD };

	answers[0] = 1;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		calls = 0;
		CHECK_RET(las_fallback_ppoll(enter, &p, 1, &cases[i].timeout, NULL, SAID), 1);
		check_call(0, SYS_poll, (long)&p, 1, cases[i].ms, 0);
	}
	calls = 0;
	CHECK_RET(las_fallback_ppoll(enter, &p, 1, NULL, NULL, SAID), 1);
	check_call(0, SYS_poll, (long)&p, 1, -1, 0);
}
#endif

TEST(without_ppoll_no_mask_is_let_in)
{
	const struct timespec at_once = { 0, 0 };
	sigset_t none;

	sigemptyset(&none);
	CHECK_RET(las_fallback_ppoll(enter, NULL, 0, &at_once, &none, SAID), SAID);
	CHECK_EQ(calls, 0);
}

static struct timespec in_ms(int ms)
{
	int64_t ns = las_now_ns() + (int64_t)ms * 1000000;

	return (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

static long wait_on(const uint32_t *word, uint32_t expected, const struct timespec *deadline)
{
	return las_fallback_futex(enter, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, deadline, SAID);
}

TEST(who_cannot_sleep_on_a_word_naps)
{
	const struct timespec later = in_ms(60000), past = in_ms(-1);
	uint32_t word = 5;

	CHECK_RET(wait_on(&word, 5, &later), 0); /* as if woken for no reason */
	CHECK_EQ(calls, 1);
	CHECK_EQ(made[0].number, SYS_nanosleep);
	answers[1] = -EINTR;
	CHECK_RET(wait_on(&word, 5, &later), -EINTR);
	answers[2] = -EPERM; /* that is forbidden, too */
	CHECK_RET(wait_on(&word, 5, &later), 0);
	CHECK_RET(wait_on(&word, 4, &later), -EAGAIN);
	CHECK_RET(wait_on(&word, 4, &past), -EAGAIN);
	CHECK_RET(wait_on(&word, 5, &past), -ETIMEDOUT);
	CHECK_EQ(calls, 3);
}

TEST(wake_ups_say_what_the_call_said)
{
	uint32_t word = 5;

	CHECK_RET(las_fallback_futex(enter, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, SAID), SAID);
	CHECK_EQ(calls, 0);
}

static long refuse_registration(void *area, uint32_t length, int flags, uint32_t signature)
{
	return -EPERM;
}

static void *note(void *arg)
{
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* glibc would end the process. */
TEST(no_thread_is_begun_that_could_not_be_registered)
{
	unsigned *registers = dlsym(RTLD_DEFAULT, "__rseq_size");
	static int ran;

	if (!registers || !*registers)
		SKIP("a C library that registers its threads with rseq (glibc 2.35)");
	las_sys.rseq = refuse_registration;
	errno = ENOTTY;
	CHECK_RET(las_thread_start(note, &ran), -EAGAIN);
	CHECK_EQ(errno, ENOTTY);
	las_sys.rseq = u_real.rseq;
	CHECK_RET(las_thread_start(note, &ran), 0);
	CHECK_EQ(errno, ENOTTY);
	while (!__atomic_load_n(&ran, __ATOMIC_ACQUIRE))
		t_sleep_ms(1);
}
