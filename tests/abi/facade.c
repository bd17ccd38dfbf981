/*
 * facade.c - what libaio adds to the system calls: io_queue_*, the first interface (LIBAIO_0.1), int results, errno.
 *
 * The old functions are found by dlvsym, as the loader finds them for a binary linked before 2003.
 */
#include "las_test.h"

#include <dlfcn.h>

static void *versioned(const char *name, const char *version)
{
	void *function = dlvsym(RTLD_DEFAULT, name, version);

	if (!function)
		FAIL("%s@%s: %s", name, version, dlerror());
	return function;
}

#define FUNCTION(pointer, name, version) *(void **)(&(pointer)) = versioned(name, version)

/* A pipe that a request can wait for: its read end. */
static int empty_pipe(int *write_end)
{
	int fds[2];

	CHECK_EQ(pipe(fds), 0);
	*write_end = t_own(fds[1]);
	return t_own(fds[0]);
}

TEST(queue_init_zeroes_the_handle_first)
{
	io_context_t ctx = (io_context_t)(uintptr_t)0x5a5a5a5a;

	CHECK_RET(io_queue_init(8, &ctx), 0);
	CHECK(ctx != NULL && ctx != (io_context_t)(uintptr_t)0x5a5a5a5a);
	CHECK_RET(io_queue_release(ctx), 0);
	CHECK_RET(io_queue_release(ctx), -EINVAL);
}

TEST(queue_init_refuses_no_events_before_it_touches_the_handle)
{
	io_context_t ctx = (io_context_t)(uintptr_t)0x5a5a5a5a;

	CHECK_RET(io_queue_init(0, &ctx), -EINVAL);
	CHECK_RET(io_queue_init(-1, &ctx), -EINVAL);
	CHECK_RET(io_queue_init(0, NULL), -EINVAL);
	CHECK(ctx == (io_context_t)(uintptr_t)0x5a5a5a5a);
}

struct seen {
	io_context_t ctx;
	struct iocb *iocb[8];
	long res[8];
	int count;
};
static struct seen seen;

static void remember(io_context_t ctx, struct iocb *iocb, long res, long res2)
{
	CHECK_EQ(res2, 0);
	CHECK(seen.count < 8);
	seen.ctx = ctx;
	seen.iocb[seen.count] = iocb;
	seen.res[seen.count++] = res;
}

TEST(queue_run_calls_each_callback_with_its_request)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 4096);
	char buf[3][4096];
	struct iocb iocb[3], *list[3];

	for (int i = 0; i < 3; i++) {
		io_prep_pread(&iocb[i], fd, buf[i], sizeof(buf[i]), 4096 - 1 - i);
		io_set_callback(&iocb[i], remember);
		list[i] = &iocb[i];
	}
	CHECK_RET(io_submit(ctx, 3, list), 3);
	while (t_ring_count(ctx) < 3)
		usleep(200);
	CHECK_RET(io_queue_run(ctx), 0);
	CHECK_EQ(seen.count, 3);
	CHECK(seen.ctx == ctx);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(seen.res[i], 1 + (seen.iocb[i] - iocb));
	CHECK_EQ(t_ring_count(ctx), 0);
}

TEST(queue_run_gives_errors_as_negative_results)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	io_prep_pread(&iocb, t_file("data", 4096), t_no_access(), 4096, 0);
	io_set_callback(&iocb, remember);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_queue_run(ctx), 0);
	CHECK_EQ(seen.count, 1);
	CHECK_EQ(seen.res[0], -EFAULT);
}

TEST(queue_run_of_nothing_returns_at_once)
{
	CHECK_RET(io_queue_run(t_context(1)), 0);
	CHECK_EQ(seen.count, 0);
}

static void submit_again(io_context_t ctx, struct iocb *iocb, long res, long res2)
{
	remember(ctx, iocb, res, res2);
	if (seen.count < 3)
		CHECK_RET(t_submit(ctx, iocb), 1);
}

TEST(queue_run_sees_what_a_callback_submits)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char buf[1];

	io_prep_pread(&iocb, t_file("data", 4096), buf, 1, 0);
	io_set_callback(&iocb, submit_again);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	while (seen.count < 3)
		CHECK_RET(io_queue_run(ctx), 0);
	CHECK_EQ(seen.res[2], 1);
}

static void destroy(io_context_t ctx, struct iocb *iocb, long res, long res2)
{
	remember(ctx, iocb, res, res2);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(queue_run_survives_a_callback_that_destroys_the_context)
{
	io_context_t ctx = NULL;
	struct iocb iocb;
	char buf[1];

	if (!is_shim())
		SKIP("n/a: libaio reads the ring that the callback has unmapped");
	CHECK_RET(io_setup(1, &ctx), 0);
	io_prep_pread(&iocb, t_file("data", 4096), buf, 1, 0);
	io_set_callback(&iocb, destroy);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_queue_run(ctx), -EINVAL);
	CHECK_EQ(seen.count, 1);
}

TEST(queue_wait_returns_at_once_and_takes_no_event)
{
	int (*wait_new)(io_context_t, struct timespec *);
	int (*wait_old)(io_context_t, struct timespec *);
	struct timespec long_time = { 3600, 0 };
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char buf[1];

	FUNCTION(wait_new, "io_queue_wait", "LIBAIO_0.4");
	FUNCTION(wait_old, "io_queue_wait", "LIBAIO_0.1");
	CHECK((void *)wait_new != (void *)wait_old);
	CHECK_RET(wait_new(ctx, &long_time), 0);
	CHECK_RET(wait_new(ctx, NULL), 0);
	CHECK_RET(wait_old(ctx, &long_time), 0);
	CHECK_RET(wait_old(ctx, NULL), 0);
	io_prep_pread(&iocb, t_file("data", 4096), buf, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(wait_new(ctx, NULL), 0);
	CHECK_RET(wait_old(ctx, NULL), 0);
	CHECK_EQ(t_reap_one(ctx), 1);
	CHECK_EQ(long_time.tv_sec, 3600);
}

TEST(default_of_a_name_is_the_newest_version)
{
	CHECK(dlsym(RTLD_DEFAULT, "io_cancel") == versioned("io_cancel", "LIBAIO_0.4"));
	CHECK(dlsym(RTLD_DEFAULT, "io_getevents") == versioned("io_getevents", "LIBAIO_0.4"));
	CHECK(dlsym(RTLD_DEFAULT, "io_queue_wait") == versioned("io_queue_wait", "LIBAIO_0.4"));
	CHECK(versioned("io_submit", "LIBAIO_0.1") == (void *)io_submit);
	CHECK(versioned("io_setup", "LIBAIO_0.4") == (void *)io_setup);
	CHECK(versioned("io_pgetevents", "LIBAIO_0.5") == (void *)io_pgetevents);
	CHECK(dlvsym(RTLD_DEFAULT, "io_submit", "LIBAIO_0.4") == NULL);
}

TEST(old_getevents_waits_for_at_least_one)
{
	int (*old)(io_context_t, long, struct io_event *, struct timespec *);
	struct timespec little = { 0, 1000000 };
	io_context_t ctx = t_context(4);
	int fd = t_file("data", 4096);
	struct io_event events[4];
	struct iocb iocb;
	char buf[100];

	FUNCTION(old, "io_getevents", "LIBAIO_0.1");
	CHECK_RET(old(ctx, 4, events, &little), 0);
	CHECK_EQ(little.tv_nsec, 1000000);
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_RET(old(ctx, 4, events, NULL), 1);
	CHECK(events[0].obj == &iocb);
	CHECK_EQ(t_res(&events[0]), 100);
	CHECK_RET(old(ctx, 0, events, NULL), -EINVAL);
}

TEST(old_cancel_takes_no_result)
{
	int (*old)(io_context_t, struct iocb *);
	io_context_t ctx = t_context(1);
	int write_end, read_end = empty_pipe(&write_end);
	struct io_event event;
	struct iocb iocb;

	FUNCTION(old, "io_cancel", "LIBAIO_0.1");
	io_prep_poll(&iocb, read_end, 1 /* POLLIN */);
	CHECK_RET(old(ctx, &iocb), -EINVAL);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_RET(old(ctx, &iocb), -EINPROGRESS);
	t_reap(ctx, 1, &event);
	CHECK(event.obj == &iocb);
}

TEST(errno_is_left_alone)
{
	int (*old_cancel)(io_context_t, struct iocb *);
	struct timespec none = { 0, 0 };
	struct io_event event;
	io_context_t ctx = NULL, live = t_context(1);
	struct iocb iocb, *list = &iocb;

	FUNCTION(old_cancel, "io_cancel", "LIBAIO_0.1");
	io_prep_pread(&iocb, -1, &event, 1, 0);
	errno = 4711;
	CHECK_RET(io_setup(0, &ctx), -EINVAL);
	CHECK_RET(io_queue_init(0, &ctx), -EINVAL);
	CHECK_RET(io_destroy(NULL), -EINVAL);
	CHECK_RET(io_queue_release(NULL), -EINVAL);
	CHECK_RET(io_submit(live, 1, &list), -EBADF);
	CHECK_RET(io_submit(NULL, 1, &list), -EINVAL);
	CHECK_RET(io_cancel(live, &iocb, &event), -EINVAL);
	CHECK_RET(old_cancel(live, &iocb), -EINVAL);
	CHECK_RET(io_getevents(live, 2, 1, &event, NULL), -EINVAL);
	CHECK_RET(io_getevents(live, 1, 1, &event, &none), 0);
	CHECK_RET(io_pgetevents(live, 2, 1, &event, NULL, NULL), -EINVAL);
	CHECK_RET(io_pgetevents(live, 1, 1, &event, &none, NULL), 0);
	CHECK_RET(io_queue_run(live), 0);
	CHECK_EQ(errno, 4711);
}

TEST(null_context_is_einval)
{
	struct timespec none = { 0, 0 };
	struct io_event event;
	struct iocb iocb = { 0 };

	CHECK_RET(io_getevents(NULL, 1, 1, &event, &none), -EINVAL);
	CHECK_RET(io_pgetevents(NULL, 1, 1, &event, &none, NULL), -EINVAL);
	CHECK_RET(io_queue_run(NULL), -EINVAL);
	CHECK_RET(io_cancel(NULL, &iocb, &event), -EINVAL);
}

/* libaio answers these itself when the ring is empty and the timeout is zero; the system call refuses them. */
TEST(empty_ring_and_zero_timeout_still_check_arguments)
{
	int expected = DIFFERS("empty-ring-shortcut") ? -EINVAL : 0;
	struct timespec none = { 0, 0 };
	io_context_t ctx = t_context(1);
	struct io_event event;

	CHECK_RET(raw_getevents(ctx, 2, 1, &event, &none), -EINVAL);
	CHECK_RET(io_getevents(ctx, 2, 1, &event, &none), expected);
	CHECK_RET(io_getevents(ctx, 0, -1, &event, &none), expected);
	CHECK_RET(io_pgetevents(ctx, 2, 1, &event, &none, NULL), expected);
}

TEST(pgetevents_of_no_mask_is_getevents)
{
	io_context_t ctx = t_context(1);
	struct io_event event;
	struct iocb iocb;
	char buf[10];

	io_prep_pread(&iocb, t_file("data", 4096), buf, sizeof(buf), 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_RET(io_pgetevents(ctx, 1, 1, &event, NULL, NULL), 1);
	CHECK_EQ(t_res(&event), 10);
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
	(void)number;
	signals++;
}

TEST(pgetevents_opens_the_mask_while_it_waits)
{
	struct sigaction action = { .sa_handler = count_signal };
	io_context_t ctx = t_context(1);
	struct io_event event;
	sigset_t blocked, open;

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	sigemptyset(&open);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
	raise(SIGUSR1);
	CHECK_EQ(signals, 0);
	CHECK_RET(io_pgetevents(ctx, 1, 1, &event, NULL, &open), -EINTR);
	CHECK_EQ(signals, 1);
	raise(SIGUSR1);
	CHECK_EQ(signals, 1);
}
