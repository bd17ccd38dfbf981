/*
 * trap.c - system calls made by the bare instruction, with --trap and without: AIO is answered by the shim, everything
 * else is as if nobody had caught it.
 *
 * The kernel is the oracle: each case holds without the shim, too.
 */
#include "las_test.h"

#include <dlfcn.h>
#include <libaio_shim.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>

static inline long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
	                 : "=a"(result)
	                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	return result;
}
#define CALL0(n) call(n, 0, 0, 0, 0, 0, 0)
#define CALL1(n, a) call(n, (long)(a), 0, 0, 0, 0, 0)
#define CALL2(n, a, b) call(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define CALL4(n, a, b, c, d) call(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

static bool is_engines(io_context_t ctx)
{
	int (*owns)(io_context_t);

	*(void **)&owns = dlsym(RTLD_DEFAULT, "las_io_owns");
	return owns && owns(ctx);
}

/* Makes a context, reads a byte of this program and says whether the right one answered. */
static bool aio_works(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct iocb iocb, *list = &iocb;
	struct io_event event;
	io_context_t ctx = NULL;
	char byte = 0;
	long got = 0;
	bool ok;

	io_prep_pread(&iocb, fd, &byte, 1, 1);
	ok = CALL2(SYS_io_setup, 4, &ctx) == 0 && is_engines(ctx) == is_shim() &&
	     call(SYS_io_submit, (long)ctx, 1, (long)&list, 0, 0, 0) == 1;
	if (ok)
		do {
			got = call(SYS_io_getevents, (long)ctx, 1, 1, (long)&event, 0, 0);
		} while (got == -EINTR);
	ok = ok && got == 1 && event.res == 1 && byte == 'E' && CALL1(SYS_io_destroy, ctx) == 0;
	close(fd);
	return ok;
}

TEST(aio_by_instruction_is_answered)
{
	CHECK(aio_works());
}

/* What the engine itself asks of the kernel in a thread that is caught must not come back to the engine. */
TEST(engines_own_kernel_aio_is_the_kernels)
{
	size_t (*stats_get)(struct las_stats *, size_t);
	int fd = t_file("data", 8192);
	char *block = t_pages(4096);
	struct iocb iocb, *list = &iocb;
	struct las_stats stats;
	struct io_event event;
	io_context_t ctx = NULL;

	fcntl(fd, F_SETFL, O_DIRECT); /* for kernel AIO, where the file system has it */
	io_prep_pread(&iocb, fd, block, 4096, 4096);
	CHECK_EQ(CALL2(SYS_io_setup, 4, &ctx), 0);
	CHECK_EQ(call(SYS_io_submit, (long)ctx, 1, (long)&list, 0, 0, 0), 1);
	CHECK_EQ(call(SYS_io_getevents, (long)ctx, 1, 1, (long)&event, 0, 0), 1);
	CHECK_EQ(event.res, 4096);
	t_check_pattern(block, 4096, 0, 4096);
	CHECK_EQ(CALL1(SYS_io_destroy, ctx), 0);
	*(void **)&stats_get = dlsym(RTLD_DEFAULT, "las_stats_get");
	if (!stats_get)
		return;
	CHECK_EQ(stats_get(&stats, sizeof(stats)), sizeof(stats));
	CHECK_EQ(stats.contexts, 1);
	CHECK_EQ(stats.submitted, 1);
}

static void *aio_thread(void *unused)
{
	(void)unused;
	return aio_works() ? NULL : "no";
}

static int aio_thread_c11(void *unused)
{
	(void)unused;
	return !aio_works();
}

TEST(threads_are_caught_too)
{
	pthread_t thread = t_thread(aio_thread, NULL);
	void *answer;
	thrd_t c11;
	int result;

	CHECK_EQ(pthread_join(thread, &answer), 0);
	CHECK(!answer);
	CHECK_EQ(thrd_create(&c11, aio_thread_c11, NULL), thrd_success);
	CHECK_EQ(thrd_join(c11, &result), thrd_success);
	CHECK_EQ(result, 0);
}

TEST(forked_children_are_caught_too)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(!aio_works());
	t_wait_ok(pid);
}

TEST(child_of_clone_is_caught_too)
{
	char *stack = t_pages(1 << 20);
	pid_t pid = clone(aio_thread_c11, stack + (1 << 20), SIGCHLD, NULL);

	CHECK(pid > 0);
	t_wait_ok(pid);
	pid = clone(aio_thread_c11, stack + (1 << 20) - 8, CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD, NULL);
	CHECK(pid > 0);
	t_wait_ok(pid);
}

TEST(program_after_exec_is_caught_too)
{
	CHECK_EQ(t_again("aio_by_instruction_is_answered"), 0);
}

TEST(fork_and_vfork_by_instruction)
{
	volatile int before = 1;
	long pid = CALL0(SYS_fork);

	if (pid == 0)
		CALL1(SYS_exit_group, !aio_works());
	t_wait_ok((pid_t)pid);
	pid = CALL0(SYS_vfork);
	if (pid == 0)
		CALL1(SYS_exit_group, !aio_works());
	CHECK(before == 1);
	t_wait_ok((pid_t)pid);
	pid = CALL2(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0);
	if (pid == 0)
		CALL1(SYS_exit_group, 0);
	t_wait_ok((pid_t)pid);
}

/* A thread as a runtime without libc makes one: its stack holds where it goes. */
static long bare_thread(void (*run)(void), char *stack, int *gone)
{
	unsigned long flags =
		CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
	register long r10 __asm__("r10") = (long)gone;
	void **top = (void **)stack - 1;
	long result;

	*top = *(void **)&run;
	__asm__ volatile("syscall\n\t"
	                 "testl %%eax, %%eax\n\t"
	                 "jnz 1f\n\t"
	                 "popq %%rax\n\t"
	                 "callq *%%rax\n\t"
	                 "movl $60, %%eax\n\t"
	                 "xorl %%edi, %%edi\n\t"
	                 "syscall\n"
	                 "1:"
	                 : "=a"(result)
	                 : "a"(SYS_clone), "D"(flags), "S"(top), "d"(0), "r"(r10)
	                 : "rcx", "r11", "memory");
	return result;
}

static volatile bool bare_worked;

static void bare_main(void)
{
	io_context_t ctx = NULL;

	/* No libc here: the thread shares its creator's thread-local storage. */
	bare_worked =
		CALL2(SYS_io_setup, 4, &ctx) == 0 && is_engines(ctx) == is_shim() && CALL1(SYS_io_destroy, ctx) == 0;
}

TEST(thread_made_by_instruction_is_caught_too)
{
	char *stack = t_pages(1 << 20);
	int gone = 1;

	CHECK(bare_thread(bare_main, stack + (1 << 20), &gone) > 0);
	while (__atomic_load_n(&gone, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &gone, FUTEX_WAIT, 1, NULL, NULL, 0);
	CHECK(bare_worked);
}

/* All registers but rax, rcx and r11, the flags and the red zone, across one system call. */
struct registers {
	unsigned long rax, rbx, rdx, rsi, rdi, rbp, r8, r9, r10, r12, r13, r14, r15, flags, red_first, red_last;
	unsigned char xmm[16][16];
};

static void across(struct registers *r)
{
	__asm__ volatile("pushq %%rbp\n\t"
	                 "pushq %%rbx\n\t"
	                 "pushq %0\n\t"
	                 "movq %0, %%rcx\n\t"
	                 ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
	                 "movups 128+16*\\n(%%rcx), %%xmm\\n\n\t"
	                 ".endr\n\t"
	                 "pushq 104(%%rcx)\n\t"
	                 "popfq\n\t"
	                 "movq 112(%%rcx), %%rax\n\t"
	                 "movq %%rax, -8(%%rsp)\n\t"
	                 "movq 120(%%rcx), %%rax\n\t"
	                 "movq %%rax, -128(%%rsp)\n\t"
	                 "movq 0(%%rcx), %%rax\n\t"
	                 "movq 8(%%rcx), %%rbx\n\t"
	                 "movq 16(%%rcx), %%rdx\n\t"
	                 "movq 24(%%rcx), %%rsi\n\t"
	                 "movq 32(%%rcx), %%rdi\n\t"
	                 "movq 40(%%rcx), %%rbp\n\t"
	                 "movq 48(%%rcx), %%r8\n\t"
	                 "movq 56(%%rcx), %%r9\n\t"
	                 "movq 64(%%rcx), %%r10\n\t"
	                 "movq 72(%%rcx), %%r12\n\t"
	                 "movq 80(%%rcx), %%r13\n\t"
	                 "movq 88(%%rcx), %%r14\n\t"
	                 "movq 96(%%rcx), %%r15\n\t"
	                 "syscall\n\t"
	                 "movq (%%rsp), %%rcx\n\t"
	                 "movq %%rax, 0(%%rcx)\n\t"
	                 "movq %%rbx, 8(%%rcx)\n\t"
	                 "movq %%rdx, 16(%%rcx)\n\t"
	                 "movq %%rsi, 24(%%rcx)\n\t"
	                 "movq %%rdi, 32(%%rcx)\n\t"
	                 "movq %%rbp, 40(%%rcx)\n\t"
	                 "movq %%r8, 48(%%rcx)\n\t"
	                 "movq %%r9, 56(%%rcx)\n\t"
	                 "movq %%r10, 64(%%rcx)\n\t"
	                 "movq %%r12, 72(%%rcx)\n\t"
	                 "movq %%r13, 80(%%rcx)\n\t"
	                 "movq %%r14, 88(%%rcx)\n\t"
	                 "movq %%r15, 96(%%rcx)\n\t"
	                 "movq -8(%%rsp), %%rax\n\t"
	                 "movq %%rax, 112(%%rcx)\n\t"
	                 "movq -128(%%rsp), %%rax\n\t"
	                 "movq %%rax, 120(%%rcx)\n\t"
	                 "pushfq\n\t"
	                 "popq 104(%%rcx)\n\t"
	                 ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
	                 "movups %%xmm\\n, 128+16*\\n(%%rcx)\n\t"
	                 ".endr\n\t"
	                 "popq %%rcx\n\t"
	                 "popq %%rbx\n\t"
	                 "popq %%rbp\n\t"
	                 "cld\n\t"
	                 :
	                 : "r"(r)
	                 : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
	                   "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
	                   "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
}

static void check_registers(long number, unsigned long first, unsigned long second, long result)
{
	struct registers r, want;

	memset(&r, 0, sizeof(r));
	for (size_t i = 0; i < sizeof(r) / 8; i++)
		((unsigned long *)&r)[i] = 0x1111111111111111UL * (i % 15 + 1) + i;
	r.rax = (unsigned long)number;
	r.rdi = first;
	r.rsi = second;
	r.flags = 0x2 | 0x1 | 0x4 | 0x40 | 0x80 | 0x400 | 0x800; /* carry, parity, zero, sign, direction, overflow */
	want = r;
	want.rax = (unsigned long)result;
	across(&r);
	r.flags = (r.flags & ~0x200UL) | 0x2; /* interrupts are not the program's business */
	for (size_t i = 0; i < sizeof(r) / 8; i++)
		if (((unsigned long *)&r)[i] != ((unsigned long *)&want)[i])
			FAIL("call %ld, word %zu: %lx, expected %lx", number, i, ((unsigned long *)&r)[i],
			     ((unsigned long *)&want)[i]);
}

TEST(registers_flags_and_red_zone_survive)
{
	io_context_t ctx = NULL;

	check_registers(SYS_getpid, 7, 8, getpid());
	check_registers(SYS_io_setup, 0, (unsigned long)&ctx, -EINVAL);
	check_registers(SYS_io_setup, 4, (unsigned long)&ctx, 0);
	CHECK_EQ(is_engines(ctx), is_shim());
	check_registers(SYS_io_destroy, (unsigned long)ctx, 9, 0);
	check_registers(SYS_close, (unsigned long)-1, 9, -EBADF);
	check_registers(SYS_kill, (unsigned long)getpid(), 0, 0);
}

TEST(six_arguments_arrive)
{
	int fd = t_file("data", 8192);
	long map = call(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, fd, 4096);

	CHECK(map > 0);
	t_check_pattern((void *)map, 4096, 0, 4096);
	CHECK_EQ(CALL2(SYS_munmap, map, 4096), 0);
	CHECK_EQ(CALL0(100000), -ENOSYS);
}

/* Signals. */

static volatile sig_atomic_t signals;
static volatile bool handler_worked;

static void on_signal(int number)
{
	(void)number;
	signals++;
	handler_worked = aio_works();
}

static void handle(int number, int flags, bool block_all)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };

	if (block_all)
		sigfillset(&action.sa_mask);
	CHECK_EQ(sigaction(number, &action, NULL), 0);
}

TEST(calls_in_signal_handlers)
{
	handle(SIGUSR1, 0, false);
	CHECK_EQ(CALL2(SYS_kill, getpid(), SIGUSR1), 0);
	CHECK_EQ(signals, 1);
	CHECK(handler_worked);
	handle(SIGUSR1, 0, true);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(signals, 2);
	CHECK(handler_worked);
}

/* Blocking all signals is what many threads begin with; it must not be the end of them. */
TEST(calls_with_all_signals_blocked)
{
	uint64_t set = ~(uint64_t)0;
	sigset_t all;
	void *answer;

	sigfillset(&all);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &all, NULL), 0);
	CHECK(aio_works());
	CHECK_EQ(pthread_sigmask(SIG_SETMASK, &all, NULL), 0);
	CHECK(aio_works());
	CHECK_EQ(CALL4(SYS_rt_sigprocmask, SIG_SETMASK, &set, 0, 8), 0);
	CHECK_EQ(set, ~(uint64_t)0);
	CHECK(aio_works());
	CHECK_EQ(pthread_join(t_thread(aio_thread, NULL), &answer), 0);
	CHECK(!answer);
	CHECK_EQ(sigprocmask(SIG_UNBLOCK, &all, NULL), 0);
	CHECK(aio_works());
}

TEST(calls_in_a_handler_during_sigsuspend)
{
	sigset_t all, all_but_one;

	handle(SIGUSR1, 0, false);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	all_but_one = all;
	sigdelset(&all_but_one, SIGUSR1);
	raise(SIGUSR1);
	CHECK_EQ(signals, 0);
	CHECK_EQ(sigsuspend(&all_but_one), -1);
	CHECK_EQ(signals, 1);
	CHECK(handler_worked);
}

/* Waits until another process sleeps, then sends it a signal. */
static void signal_when_asleep(pid_t pid, int number)
{
	char path[64], text[256], state = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	while (state != 'S') {
		FILE *file = fopen(path, "re");

		t_sleep_ms(1);
		if (file && fgets(text, sizeof(text), file))
			state = strrchr(text, ')')[2];
		fclose(file);
	}
	kill(pid, number);
}

TEST(forwarded_call_is_interrupted_and_restarted_as_ever)
{
	int ends[2];
	char byte;
	pid_t pid, me = getpid();

	CHECK_EQ(pipe(ends), 0);
	for (int restart = 0; restart < 2; restart++) {
		signals = 0;
		handle(SIGUSR1, restart ? SA_RESTART : 0, false);
		pid = fork();
		if (pid == 0) {
			signal_when_asleep(me, SIGUSR1);
			while (restart && write(ends[1], "x", 1) != 1) {
			}
			_exit(0);
		}
		CHECK_EQ(call(SYS_read, ends[0], (long)&byte, 1, 0, 0, 0), restart ? 1 : -EINTR);
		CHECK_EQ(signals, 1);
		t_wait_ok(pid);
	}
	close(ends[0]);
	close(ends[1]);
}

TEST(waiting_for_events_is_interrupted_by_a_signal)
{
	struct io_event event;
	io_context_t ctx = NULL;
	pid_t pid, me = getpid();

	handle(SIGUSR1, SA_RESTART, false);
	CHECK_EQ(CALL2(SYS_io_setup, 4, &ctx), 0);
	pid = fork();
	if (pid == 0) {
		signal_when_asleep(me, SIGUSR1);
		_exit(0);
	}
	CHECK_EQ(call(SYS_io_getevents, (long)ctx, 1, 1, (long)&event, 0, 0), -EINTR);
	CHECK_EQ(signals, 1);
	CHECK(handler_worked);
	t_wait_ok(pid);
	CHECK_EQ(CALL1(SYS_io_destroy, ctx), 0);
}

/* A handler set by system call brings its own way back. */
__asm__(".text\n"
        ".type own_restorer, @function\n"
        "own_restorer:\n"
        "	movl $15, %eax\n"
        "	syscall\n");
void own_restorer(void);

TEST(handler_with_a_restorer_of_the_programs_own)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} action = { on_signal, 0x04000000 /* SA_RESTORER */, own_restorer, ~(uint64_t)0 }, old;

	CHECK_EQ(CALL4(SYS_rt_sigaction, SIGUSR1, &action, 0, 8), 0);
	CHECK_EQ(CALL2(SYS_kill, getpid(), SIGUSR1), 0);
	CHECK_EQ(signals, 1);
	CHECK(handler_worked);
	CHECK_EQ(CALL4(SYS_rt_sigaction, SIGUSR1, 0, &old, 8), 0);
	CHECK(old.handler == on_signal);
	CHECK_EQ(CALL4(SYS_rt_sigaction, SIGUSR1, t_no_access(), 0, 8), -EFAULT);
}

TEST(alternate_stack_is_the_programs)
{
	stack_t set = { .ss_sp = t_pages(65536), .ss_size = 65536 }, got;

	CHECK_EQ(CALL2(SYS_sigaltstack, &set, 0), 0);
	CHECK_EQ(CALL2(SYS_sigaltstack, 0, &got), 0);
	CHECK(got.ss_sp == set.ss_sp);
	CHECK_EQ(got.ss_flags, 0);
	handle(SIGUSR1, SA_ONSTACK, false);
	CHECK_EQ(CALL2(SYS_kill, getpid(), SIGUSR1), 0);
	CHECK_EQ(signals, 1);
	CHECK(handler_worked);
	set.ss_flags = SS_DISABLE;
	CHECK_EQ(CALL2(SYS_sigaltstack, &set, 0), 0);
}

static volatile sig_atomic_t sys_signals;

static void on_sigsys(int number)
{
	sys_signals += number == SIGSYS;
}

/* The program may want SIGSYS for itself, for example under a seccomp filter. */
TEST(sigsys_of_others_is_the_programs)
{
	struct sigaction action = { .sa_handler = on_sigsys }, old;

	CHECK_EQ(sigaction(SIGSYS, &action, &old), 0);
	CHECK(old.sa_handler == SIG_DFL);
	CHECK(aio_works());
	CHECK_EQ(raise(SIGSYS), 0);
	CHECK_EQ(sys_signals, 1);
	CHECK(signal(SIGSYS, SIG_IGN) == on_sigsys);
	CHECK_EQ(raise(SIGSYS), 0);
	CHECK_EQ(sys_signals, 1);
	CHECK(aio_works());
	CHECK_EQ(CALL4(SYS_rt_sigaction, SIGSYS, 0, t_pages(64), 8), 0);
	CHECK(signal(SIGSYS, SIG_DFL) == SIG_IGN);
	CHECK(aio_works());
}

TEST(helper_dies_of_sigsys)
{
	raise(SIGSYS);
}

TEST(sigsys_kills_a_program_that_does_not_handle_it)
{
	int status = t_again("helper_dies_of_sigsys");

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGSYS);
}

/* Endings. */

TEST(helper_writes_and_leaves)
{
	static char block[4096];
	static struct iocb iocbs[64], *list[64];
	int fd = open("written", O_WRONLY | O_CREAT, 0600);
	io_context_t ctx = NULL;

	for (int i = 0; i < 64; i++) {
		io_prep_pwrite(&iocbs[i], fd, block, sizeof(block), i * 4096LL);
		list[i] = &iocbs[i];
	}
	CHECK_EQ(CALL2(SYS_io_setup, 64, &ctx), 0);
	CHECK_EQ(call(SYS_io_submit, (long)ctx, 64, (long)list, 0, 0, 0), 64);
	CALL1(SYS_exit_group, 0);
}

TEST(accepted_writes_are_finished_at_exit_group)
{
	struct stat st;

	CHECK_EQ(t_again("helper_writes_and_leaves"), 0);
	CHECK_EQ(stat("written", &st), 0);
	CHECK_EQ(st.st_size, 64 * 4096);
}

/* A context that is the kernel's: made through libc, which is not caught here (in the variant without libaio_syscall). */
TEST(context_made_elsewhere_is_served_by_who_made_it)
{
	struct io_event event;
	struct iocb iocb, *list = &iocb;
	io_context_t ctx = NULL;
	char byte;

	if (syscall(SYS_io_setup, 4, &ctx) != 0)
		SKIP("n/a: the kernel or a sandbox gives no AIO");
	io_prep_pread(&iocb, t_file("data", 4096), &byte, 1, 0);
	CHECK_EQ(call(SYS_io_submit, (long)ctx, 1, (long)&list, 0, 0, 0), 1);
	CHECK_EQ(call(SYS_io_getevents, (long)ctx, 1, 1, (long)&event, 0, 0), 1);
	CHECK(event.obj == &iocb);
	CHECK_EQ(CALL1(SYS_io_destroy, ctx), 0);
	CHECK_EQ(CALL1(SYS_io_destroy, ctx), -EINVAL);
}

static void count_signal(int number)
{
	(void)number;
	signals++;
	CALL0(SYS_getpid);
}

static void *mixed_load(void *unused)
{
	(void)unused;
	for (int i = 0; i < 300; i++)
		if (!aio_works() || CALL0(SYS_getpid) != getpid())
			return "no";
	return NULL;
}

TEST(many_threads_under_signals)
{
	struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { { 0, 0 }, { 0, 0 } };
	pthread_t threads[4];

	CHECK_EQ(sigaction(SIGALRM, &(struct sigaction){ .sa_handler = count_signal, .sa_flags = SA_RESTART }, NULL),
	         0);
	for (int i = 0; i < 4; i++)
		threads[i] = t_thread(mixed_load, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (int i = 0; i < 4; i++) {
		void *answer;

		CHECK_EQ(pthread_join(threads[i], &answer), 0);
		CHECK(!answer);
	}
	setitimer(ITIMER_REAL, &never, NULL);
}
