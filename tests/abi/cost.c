/*
 * cost.c - what it costs to stand before libc: nanoseconds for getppid by libc's own syscall(), by the one that the
 * program is bound to, by libc's getppid(), and by the bare instruction; the best of many rounds, taken in turn.
 * docs/raw-calls.md says how to run it and what it printed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 200, CALLS = 2000 };

static long (*libc_syscall)(long, ...);

static long by_libc(void)
{
	return libc_syscall(SYS_getppid);
}

static long by_name(void)
{
	return syscall(SYS_getppid);
}

static long by_function(void)
{
	return getppid();
}

static long by_instruction(void)
{
	long result;
#if defined(__x86_64__)
	__asm__ volatile("syscall" : "=a"(result) : "a"(SYS_getppid) : "rcx", "r11", "memory");
#else
	register long x8 __asm__("x8") = SYS_getppid;
	register long x0 __asm__("x0");

	__asm__ volatile("svc 0" : "=r"(x0) : "r"(x8) : "memory");
	result = x0;
#endif
	return result;
}

static double round_of(long (*call)(void))
{
	struct timespec before, after;

	clock_gettime(CLOCK_MONOTONIC, &before);
	for (int i = 0; i < CALLS; i++)
		call();
	clock_gettime(CLOCK_MONOTONIC, &after);
	return ((double)(after.tv_sec - before.tv_sec) * 1e9 + (double)(after.tv_nsec - before.tv_nsec)) / CALLS;
}

int main(void)
{
	static const struct {
		const char *name;
		long (*call)(void);
	} ways[] = { { "libc's syscall()", by_libc },
		     { "the program's syscall()", by_name },
		     { "libc's getppid()", by_function },
		     { "the instruction", by_instruction } };
	double best[4] = { 1e9, 1e9, 1e9, 1e9 };

	*(void **)&libc_syscall = dlsym(dlopen("libc.so.6", RTLD_NOW), "syscall");
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < 4; i++) {
			double ns = round_of(ways[i].call);

			if (ns < best[i])
				best[i] = ns;
		}
	for (int i = 0; i < 4; i++)
		printf("%-24s %8.1f ns\n", ways[i].name, best[i]);
	return 0;
}
