/*
 * trap_sys.c - the engine's system calls, made by libc's instruction, see trap.h.
 *
 * Where libraries of the program lie between libc and the engine, the engine's
 * code is outside the allowed range.  A call of its own in a program's thread
 * would be caught: slow, and wrong for those of the native lane, which are for
 * the kernel and would be answered by the engine.  So here is its table of
 * calls once more, with the gadget for the instruction; the engine takes it at
 * its start (base/sys.h), which comes before this library's, hence the gadget
 * here to begin with.  What is done where a sandbox forbids a call is linked
 * in as it is (base/fallback.c).
 */
#include "trap.h"

#pragma GCC visibility push(hidden)
extern const unsigned char las_trap_first_gadget[];
#pragma GCC visibility pop

__asm__(".text\n"
        ".globl las_trap_first_gadget\n"
        ".hidden las_trap_first_gadget\n"
        ".type las_trap_first_gadget, @function\n"
        "las_trap_first_gadget:\n"
        "	syscall\n"
        "	ret\n"
        ".size las_trap_first_gadget, . - las_trap_first_gadget\n");

uintptr_t las_trap_gadget = (uintptr_t)las_trap_first_gadget;

static long enter_by_gadget(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	/* The compiler does not see the call: its red zone is stepped over. */
	__asm__ volatile("leaq -128(%%rsp), %%rsp\n\t"
	                 "callq *las_trap_gadget(%%rip)\n\t"
	                 "leaq 128(%%rsp), %%rsp"
	                 : "=a"(ret)
	                 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory", "cc");
	return ret;
}

#define LAS_SYS_ENTER enter_by_gadget
#define las_sys las_trap_sys
#define las_now_ns las_trap_now_ns
#include "base/sys.c"
