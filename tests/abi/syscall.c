/*
 * syscall.c - libc's syscall() with the shim before it: the AIO calls are answered, every other call is the kernel's.
 *
 * The kernel is the oracle: each case holds without the shim, too.
 */
#include "las_test.h"

#include <dlfcn.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>

/* What the interposer's own preparations use; the cases that ask the kernel itself go past every library. */
static long instruction(long number, long a, long b, long c, long d, long e)
{
	long result;
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;

	__asm__ volatile("syscall"
	                 : "=a"(result)
	                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
	                 : "rcx", "r11", "memory");
#else
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory", "cc");
	result = x0;
#endif
	return result;
}

/* The engine's own word for it; false without the shim. */
static bool is_engines(io_context_t ctx)
{
	int (*owns)(io_context_t);

	*(void **)&owns = dlsym(RTLD_DEFAULT, "las_io_owns");
	return owns && owns(ctx);
}

#define FAILS_WITH(call, error)         \
	do {                            \
		errno = 4711;           \
		CHECK_EQ(call, -1);     \
		CHECK_EQ(errno, error); \
	} while (0)

TEST(setup_by_number_makes_a_context_of_the_engine)
{
	io_context_t ctx = NULL;

	CHECK_EQ(syscall(SYS_io_setup, 8, &ctx), 0);
	CHECK(ctx);
	CHECK_EQ(is_engines(ctx), is_shim());
	CHECK_EQ(syscall(SYS_io_destroy, ctx), 0);
}

TEST(name_looked_up_at_run_time_is_the_same_function)
{
	long (*found)(long, ...);
	io_context_t ctx = NULL;

	*(void **)&found = dlsym(RTLD_DEFAULT, "syscall");
	CHECK(found == syscall);
	CHECK_EQ(found(SYS_io_setup, 8, &ctx), 0);
	CHECK_EQ(is_engines(ctx), is_shim());
	CHECK_EQ(syscall(SYS_io_destroy, ctx), 0);
}

TEST(library_and_numbers_mix_on_one_context)
{
	io_context_t ctx = t_context(8), own = NULL;
	int fd = t_file("data", 4096);
	struct iocb iocb, *list = &iocb;
	struct io_event event;
	char buf[8];

	io_prep_pread(&iocb, fd, buf, sizeof(buf), 16);
	for (int round = 0; round < 4; round++) {
		bool submits = round & 1, reaps = round & 2;

		CHECK_EQ(submits ? syscall(SYS_io_submit, ctx, 1L, &list) : io_submit(ctx, 1, &list), 1);
		CHECK_EQ(reaps ? syscall(SYS_io_getevents, ctx, 1L, 1L, &event, NULL)
		               : io_getevents(ctx, 1, 1, &event, NULL),
		         1);
		CHECK(event.obj == &iocb);
		CHECK_EQ(t_res(&event), 8);
	}
	CHECK_EQ(syscall(SYS_io_setup, 8, &own), 0);
	CHECK_RET(io_submit(own, 1, &list), 1);
	CHECK_RET(io_destroy(own), 0);
}

TEST(results_are_the_system_calls_with_errno)
{
	struct iocb iocb, *list = &iocb, *bad = NULL;
	io_context_t ctx = t_context(8), used = ctx;
	struct timespec none = { 0, 0 };
	struct io_event event;

	io_prep_pread(&iocb, -1, &event, 1, 0);
	FAILS_WITH(syscall(SYS_io_setup, 0, &used), EINVAL);
	FAILS_WITH(syscall(SYS_io_setup, 8, NULL), EFAULT);
	FAILS_WITH(syscall(SYS_io_submit, ctx, 1L, &list), EBADF);
	FAILS_WITH(syscall(SYS_io_submit, ctx, 1L, &bad), EFAULT);
	FAILS_WITH(syscall(SYS_io_submit, ctx, -1L, &list), EINVAL);
	FAILS_WITH(syscall(SYS_io_submit, NULL, 1L, &list), EINVAL);
	FAILS_WITH(syscall(SYS_io_getevents, ctx, 2L, 1L, &event, NULL), EINVAL);
	FAILS_WITH(syscall(SYS_io_cancel, ctx, &iocb, &event), EINVAL);
	FAILS_WITH(syscall(SYS_io_cancel, ctx, NULL, &event), EFAULT);
	FAILS_WITH(syscall(SYS_io_destroy, NULL), EINVAL);
	errno = 4711;
	CHECK_EQ(syscall(SYS_io_submit, ctx, 0L, &list), 0);
	CHECK_EQ(syscall(SYS_io_getevents, ctx, 1L, 1L, &event, &none), 0);
	CHECK_EQ(errno, 4711);
}

struct mask_argument {
	const sigset_t *mask;
	size_t bytes;
};

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
	(void)number;
	signals++;
}

TEST(pgetevents_takes_its_mask_through_a_pointer)
{
	struct sigaction action = { .sa_handler = count_signal };
	struct timespec none = { 0, 0 };
	io_context_t ctx = t_context(1);
	struct io_event event;
	sigset_t blocked, open;
	struct mask_argument argument = { &open, 8 };

	sigemptyset(&open);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
	raise(SIGUSR1);
	FAILS_WITH(syscall(SYS_io_pgetevents, ctx, 1L, 1L, &event, NULL, &argument), EINTR);
	CHECK_EQ(signals, 1);
	CHECK_EQ(syscall(SYS_io_pgetevents, ctx, 0L, 1L, &event, &none, NULL), 0);
	argument.mask = NULL;
	argument.bytes = 3;
	CHECK_EQ(syscall(SYS_io_pgetevents, ctx, 0L, 1L, &event, &none, &argument), 0);
	argument.mask = &open;
	FAILS_WITH(syscall(SYS_io_pgetevents, ctx, 0L, 1L, &event, &none, &argument), EINVAL);
	argument = (struct mask_argument){ t_no_access(), 8 };
	FAILS_WITH(syscall(SYS_io_pgetevents, ctx, 0L, 1L, &event, &none, &argument), EFAULT);
	FAILS_WITH(syscall(SYS_io_pgetevents, ctx, 0L, 1L, &event, &none, t_no_access()), EFAULT);
	FAILS_WITH(syscall(SYS_io_pgetevents, ctx, 0L, 1L, &event, &none, (char *)t_no_access() - 8), EFAULT);
}

/* Contexts that somebody made past the shim, or before it was there. */
TEST(context_of_the_kernel_stays_the_kernels)
{
	struct timespec none = { 0, 0 };
	int fd = t_file("data", 4096), ends[2];
	struct iocb iocb, *list = &iocb;
	io_context_t ctx = NULL;
	struct io_event event;
	char buf[8];

	if (instruction(SYS_io_setup, 4, (long)&ctx, 0, 0, 0) != 0)
		SKIP("n/a: the kernel or a sandbox gives no AIO");
	CHECK(!is_engines(ctx));
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	CHECK_EQ(syscall(SYS_io_submit, ctx, 1L, &list), 1);
	CHECK_EQ(syscall(SYS_io_getevents, ctx, 1L, 1L, &event, NULL), 1);
	CHECK(event.obj == &iocb);
	CHECK_EQ(t_res(&event), 8);
	FAILS_WITH(syscall(SYS_io_getevents, ctx, 2L, 1L, &event, NULL), EINVAL);
	CHECK_EQ(syscall(SYS_io_pgetevents, ctx, 1L, 1L, &event, &none, NULL), 0);
	CHECK_EQ(pipe(ends), 0);
	io_prep_poll(&iocb, ends[0], 1 /* POLLIN */);
	CHECK_EQ(syscall(SYS_io_submit, ctx, 1L, &list), 1);
	FAILS_WITH(syscall(SYS_io_cancel, ctx, &iocb, &event), EINPROGRESS);
	CHECK_EQ(syscall(SYS_io_getevents, ctx, 1L, 1L, &event, NULL), 1);
	CHECK_EQ(syscall(SYS_io_destroy, ctx), 0);
	FAILS_WITH(syscall(SYS_io_destroy, ctx), EINVAL);
	CHECK_EQ(close(ends[0]) + close(ends[1]), 0);
}

/* The kernel looks at the low half of the number only, and so must we. */
TEST(number_is_its_low_half)
{
	long high = 0x100000000L;
	io_context_t ctx = NULL;
	long pid = syscall(SYS_getpid + high);

	if (pid == -1)
		SKIP("n/a: kernels before 5.13 look at all of it");
	CHECK_EQ(pid, getpid());
	CHECK_EQ(syscall(SYS_io_setup + high, 8, &ctx), 0);
	CHECK_EQ(is_engines(ctx), is_shim());
	CHECK_EQ(syscall(SYS_io_destroy, ctx), 0);
}

TEST(six_arguments_arrive)
{
	long page = sysconf(_SC_PAGESIZE);
	int fd = t_file("data", (size_t)page * 2);
	unsigned char *map = (void *)syscall(SYS_mmap, NULL, page, PROT_READ, MAP_PRIVATE, fd, page);
	uint32_t word = 1;

	CHECK(map != MAP_FAILED);
	t_check_pattern(map, (size_t)page, 0, (size_t)page);
	CHECK_EQ(syscall(SYS_munmap, map, page), 0);
	/* The sixth is the bit set: 0 is refused before anything else is done. */
	FAILS_WITH(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0), EINVAL);
	FAILS_WITH(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 1), EAGAIN);
}

TEST(results_that_look_like_errors_from_afar_are_results)
{
	long page = sysconf(_SC_PAGESIZE);
	void *map = (void *)syscall(SYS_mmap, NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);

	CHECK(map != MAP_FAILED);
	errno = 4711;
	CHECK_EQ(syscall(SYS_getpid), getpid());
	CHECK_EQ(errno, 4711);
	FAILS_WITH(syscall(SYS_close, -1), EBADF);
	FAILS_WITH(syscall(100000), ENOSYS);
	FAILS_WITH(syscall(-1), ENOSYS);
	FAILS_WITH(syscall(SYS_openat, AT_FDCWD, "no such file", O_RDONLY), ENOENT);
}

TEST(call_that_returns_twice)
{
	long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		syscall(SYS_exit_group, 0);
	CHECK(pid > 0);
	t_wait_ok((pid_t)pid);
}

/* The numbers of both machines around the ones that are taken. */
TEST(neighbouring_numbers_are_the_kernels)
{
#ifdef __x86_64__
	cpu_set_t set;

	CHECK(syscall(SYS_sched_getaffinity /* 204 */, 0, sizeof(set), &set) > 0);
	FAILS_WITH(syscall(205 /* set_thread_area */), ENOSYS);
	FAILS_WITH(syscall(211 /* get_thread_area */), ENOSYS);
	FAILS_WITH(syscall(SYS_statx /* 332 */, -1, NULL, 0x10000000, 0, NULL), EINVAL);
	FAILS_WITH(syscall(334 /* rseq */, NULL, 0, 0, 0), EINVAL);
#else
	FAILS_WITH(syscall(5 /* setxattr */, NULL, NULL, NULL, 0, 0), EFAULT);
	FAILS_WITH(syscall(291 /* statx */, -1, NULL, 0x10000000, 0, NULL), EINVAL);
#endif
}

static void *look_around(void *unused)
{
	(void)unused;
	for (int i = 0; i < 10000; i++)
		if (syscall(SYS_gettid) != gettid())
			return "no";
	return NULL;
}

TEST(many_threads_call_at_once)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		threads[i] = t_thread(look_around, NULL);
	for (int i = 0; i < 4; i++) {
		void *answer;

		CHECK_EQ(pthread_join(threads[i], &answer), 0);
		CHECK(!answer);
	}
}
