/*
 * syscall.c - libc's syscall(), for programs that make the AIO calls by number.
 *
 * Preloaded, in libaio_syscall.so.  The six AIO calls go to the engine; every
 * other number is passed on to libc's own syscall() by a jump, with all
 * arguments and the stack as they came: whatever that does (errno, restarts,
 * a second return in a child), it does for the caller.  A C function could not
 * say that: it cannot know whether the caller gave a seventh word on the stack.
 *
 * A program passes here often and for other reasons (futex, gettid,
 * io_uring_enter), so the way through is a few compares and one jump.
 *
 * The name has no version, which satisfies callers of every version, and the
 * library is an object of its own, so that linking with the shim never
 * replaces a program's syscall.
 *
 * exit_group and exec by number end the program as _exit() and execve() do,
 * see ending.c.
 */
#include <dlfcn.h>
#include <errno.h>
#include <libaio_shim.h>

#include "raw.h"

/* The asm below calls them, and defines the third. */
#pragma GCC visibility push(hidden)
long las_syscall_ours(long number, long a, long b, long c, long d, long e, long f);
long las_syscall_failed(long negative_errno);
long las_syscall_direct(long number, ...);
#pragma GCC visibility pop

/* Until the constructor has found libc's: constructors of other libraries may come earlier. */
long (*las_next_syscall)(long number, ...) = las_syscall_direct;

/* The numbers under their names, for the assembler. */
#define STRING(x) #x
#define NUMBER(x) STRING(x)
#define NAME(x) ".set " #x ", " NUMBER(x) "\n"
#define NAMES               \
	NAME(RAW_AIO_FIRST) \
	NAME(RAW_AIO_COUNT) NAME(RAW_IO_PGETEVENTS) NAME(RAW_EXIT_GROUP) NAME(RAW_EXECVE) NAME(RAW_EXECVEAT)

#if defined(__x86_64__)
__asm__(NAMES ".text\n"
              ".globl syscall\n"
              ".type syscall, @function\n"
              ".p2align 4\n"
              "syscall:\n"
              "	.cfi_startproc\n"
              "	endbr64\n"
              "	leal -RAW_AIO_FIRST(%rdi), %eax\n"
              "	cmpl $RAW_AIO_COUNT, %eax\n"
              "	jb 1f\n"
              "	cmpl $RAW_IO_PGETEVENTS, %edi\n"
              "	je 1f\n"
              "	cmpl $RAW_EXIT_GROUP, %edi\n"
              "	je 1f\n"
              "	cmpl $RAW_EXECVE, %edi\n"
              "	je 1f\n"
              "	cmpl $RAW_EXECVEAT, %edi\n"
              "	je 1f\n"
              "	jmpq *las_next_syscall(%rip)\n"
              "1:	jmp las_syscall_ours\n" /* a C function with these seven arguments finds them where they are */
              "	.cfi_endproc\n"
              ".size syscall, . - syscall\n"

              /* What libc's does. */
              ".globl las_syscall_direct\n"
              ".hidden las_syscall_direct\n"
              ".type las_syscall_direct, @function\n"
              ".p2align 4\n"
              "las_syscall_direct:\n"
              "	.cfi_startproc\n"
              "	endbr64\n"
              "	movq %rdi, %rax\n"
              "	movq %rsi, %rdi\n"
              "	movq %rdx, %rsi\n"
              "	movq %rcx, %rdx\n"
              "	movq %r8, %r10\n"
              "	movq %r9, %r8\n"
              "	movq 8(%rsp), %r9\n"
              "	syscall\n"
              "	cmpq $-4095, %rax\n"
              "	jae 2f\n"
              "	ret\n"
              "2:	movq %rax, %rdi\n"
              "	jmp las_syscall_failed\n"
              "	.cfi_endproc\n"
              ".size las_syscall_direct, . - las_syscall_direct\n");
#else /* aarch64 */
__asm__(NAMES ".text\n"
              ".globl syscall\n"
              ".type syscall, %function\n"
              ".p2align 4\n"
              "syscall:\n"
              "	.cfi_startproc\n"
              "	hint #34\n" /* bti c */
              "	cmp w0, #RAW_AIO_COUNT\n"
              "	b.lo 1f\n"
              "	cmp w0, #RAW_IO_PGETEVENTS\n"
              "	b.eq 1f\n"
              "	cmp w0, #RAW_EXIT_GROUP\n"
              "	b.eq 1f\n"
              "	cmp w0, #RAW_EXECVE\n"
              "	b.eq 1f\n"
              "	cmp w0, #RAW_EXECVEAT\n"
              "	b.eq 1f\n"
              "	adrp x16, las_next_syscall\n"
              "	ldr x16, [x16, #:lo12:las_next_syscall]\n"
              "	br x16\n"
              "1:	b las_syscall_ours\n" /* a C function with these seven arguments finds them where they are */
              "	.cfi_endproc\n"
              ".size syscall, . - syscall\n"

              /* What libc's does. */
              ".globl las_syscall_direct\n"
              ".hidden las_syscall_direct\n"
              ".type las_syscall_direct, %function\n"
              ".p2align 4\n"
              "las_syscall_direct:\n"
              "	.cfi_startproc\n"
              "	hint #34\n"
              "	mov x8, x0\n"
              "	mov x0, x1\n"
              "	mov x1, x2\n"
              "	mov x2, x3\n"
              "	mov x3, x4\n"
              "	mov x4, x5\n"
              "	mov x5, x6\n"
              "	svc #0\n"
              "	cmn x0, #4095\n"
              "	b.hs 2f\n"
              "	ret\n"
              "2:	b las_syscall_failed\n"
              "	.cfi_endproc\n"
              ".size las_syscall_direct, . - las_syscall_direct\n");
#endif

static long with_errno(long result)
{
	if (result >= 0)
		return result;
	errno = (int)-result;
	return -1;
}

long las_syscall_failed(long negative_errno)
{
	return with_errno(negative_errno);
}

long las_syscall_ours(long number, long a, long b, long c, long d, long e, long f)
{
	long result;

	if (!las_raw_is_aio(number)) {
		las_finish();
		return las_next_syscall(number, a, b, c, d, e, f);
	}
	if (!las_raw_aio(number, a, b, c, d, e, f, &result))
		result = las_raw_kernel_said(las_raw_kernel(number, a, b, c, d, e, f), result);
	return with_errno(result);
}

__attribute__((constructor)) static void find_next(void)
{
	void *next = dlsym(RTLD_NEXT, "syscall");

	if (next)
		las_next_syscall = (long (*)(long, ...))next;
}
