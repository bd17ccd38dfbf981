/*
 * trap.c - catches system calls by Syscall User Dispatch (Linux 5.11), see trap.h.
 *
 * A call from outside the allowed code becomes a SIGSYS in the thread that
 * made it.  Here an AIO call is answered by the engine, within the handler:
 * the kernel has put the program's registers aside, and the mask is the
 * program's own.
 *
 * Every other call is not made here but forwarded: the handler returns to the
 * instruction in libc (the gadget), with the program's registers, mask and
 * alternate stack as they were, so that whatever the call does with them it
 * does rightly.  The gadget's `ret` leads to las_trap_back, which leads to the
 * program.  The words that it takes from the stack lie where the kernel wrote
 * siginfo: above the stack pointer as long as the handler runs, below nothing
 * that lives, and not in the program's red zone.
 *
 * A child that clone() starts on a stack of its own finds them there.  One
 * that shares its parent's stack, as vfork's does, would overwrite them; it
 * gets a copy of the memory instead, which POSIX allows a vfork to do.
 */
#include "trap.h"

#include <dlfcn.h>
#include <errno.h>
#include <libaio_shim.h>
#include <linux/audit.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "raw.h"

/* Newer than some headers. */
enum {
	SET_SYSCALL_USER_DISPATCH = 59, /* prctl's PR_SET_SYSCALL_USER_DISPATCH */
	DISPATCH_ON = 1,                /* its PR_SYS_DISPATCH_ON */
	SI_CODE_USER_DISPATCH = 2,      /* SYS_USER_DISPATCH */
	NUMBER_CLONE3 = 435,
};

/* What the gadget's `ret` and las_trap_back find on the stack.  The asm knows the order. */
struct way_back {
	uintptr_t next; /* las_trap_back or las_trap_child */
	uintptr_t rip, rsp, rdi, rsi;
};

#define SIGINFO_BYTES 128 /* what the kernel reserves for it */

/* Behind the way back: room for one argument that has to be changed. */
struct in_siginfo {
	struct way_back back;
	unsigned char argument[SIGINFO_BYTES - sizeof(struct way_back)];
};

#pragma GCC visibility push(hidden)
void las_trap_back(void);
void las_trap_both(void);
long (*las_next_syscall)(long number, ...);
#pragma GCC visibility pop

/*
 * Registers as after a system call: rcx is where it returns to, r11 the flags.
 * No instruction here changes a flag.  The child's first asks for prctl
 * through the gadget, from which all registers but rax, rcx and r11 come back.
 */
__asm__(".text\n"
        ".globl las_trap_back\n"
        ".hidden las_trap_back\n"
        ".type las_trap_back, @function\n"
        "las_trap_back:\n"
        "	movq 16(%rsp), %rdi\n"
        "	movq 24(%rsp), %rsi\n"
        "	movq (%rsp), %rcx\n"
        "	movq 8(%rsp), %rsp\n"
        "	jmpq *%rcx\n"
        ".size las_trap_back, . - las_trap_back\n"

        /* A call that returns twice, on two copies of the stack. */
        ".globl las_trap_both\n"
        ".hidden las_trap_both\n"
        ".type las_trap_both, @function\n"
        "las_trap_both:\n"
        "	movq %rax, %rcx\n"
        "	jrcxz las_trap_child\n"
        "	jmp las_trap_back\n"
        ".size las_trap_both, . - las_trap_both\n"

        ".globl las_trap_child\n"
        ".hidden las_trap_child\n"
        ".type las_trap_child, @function\n"
        "las_trap_child:\n"
        "	leaq -64(%rsp), %rsp\n"
        "	movq %rdx, 0(%rsp)\n"
        "	movq %r10, 8(%rsp)\n"
        "	movq %r8, 16(%rsp)\n"
        "	movq %r11, 24(%rsp)\n"
        "	movl $59, %edi\n" /* SET_SYSCALL_USER_DISPATCH */
        "	movl $1, %esi\n"  /* DISPATCH_ON */
        "	movq las_trap_allowed_start(%rip), %rdx\n"
        "	movq las_trap_allowed_bytes(%rip), %r10\n"
        "	movl $0, %r8d\n"
        "	movl $157, %eax\n" /* prctl */
        "	callq *las_trap_gadget(%rip)\n"
        "	movl $0, %eax\n"
        "	movq 0(%rsp), %rdx\n"
        "	movq 8(%rsp), %r10\n"
        "	movq 16(%rsp), %r8\n"
        "	movq 24(%rsp), %r11\n"
        "	leaq 64(%rsp), %rsp\n"
        "	jmp las_trap_back\n"
        ".size las_trap_child, . - las_trap_child\n");

static void forward(greg_t *r, struct way_back *back, void (*next)(void))
{
	*back = (struct way_back){
		.next = (uintptr_t)next,
		.rip = (uintptr_t)r[REG_RIP],
		.rsp = (uintptr_t)r[REG_RSP],
		.rdi = (uintptr_t)r[REG_RDI],
		.rsi = (uintptr_t)r[REG_RSI],
	};
	r[REG_RSP] = (greg_t)(uintptr_t)back;
	r[REG_RIP] = (greg_t)las_trap_gadget;
}

/* clone, and fork and vfork as what they are. */
static void forward_clone(greg_t *r, struct way_back *back)
{
	unsigned long flags = (unsigned long)r[REG_RDI];
	uintptr_t stack = (uintptr_t)r[REG_RSI];

	if (r[REG_RAX] != SYS_clone) {
		flags = r[REG_RAX] == SYS_vfork ? CLONE_VFORK | SIGCHLD : SIGCHLD;
		stack = 0;
	}
	if (!stack)
		flags &= ~(unsigned long)(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD);
	forward(r, back, stack ? las_trap_back : las_trap_both);
	if (stack) {
		struct way_back *childs = (struct way_back *)stack - 1;

		*childs = *back;
		childs->next = (uintptr_t)las_trap_child;
		childs->rsp = stack;
		stack = (uintptr_t)childs;
	}
	r[REG_RAX] = SYS_clone;
	r[REG_RDI] = (greg_t)flags;
	r[REG_RSI] = (greg_t)stack;
}

static bool is_readable(const void *address, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 8)
		if (las_raw_kernel(SYS_rt_sigprocmask, -1, (long)address + (long)at, 0, 8, 0, 0) == -EFAULT)
			return false;
	return true;
}

#define SIGSYS_BIT ((uint64_t)1 << (SIGSYS - 1))

/* As the system call takes it. */
struct kernel_action {
	uintptr_t handler, flags, restorer;
	uint64_t mask;
};

/* A blocked SIGSYS cannot be caught, it kills: the argument is forwarded as a copy that does not block it. */
static void forward_signal_call(greg_t *r, struct in_siginfo *room)
{
	bool action = r[REG_RAX] == SYS_rt_sigaction;
	const void *given = (const void *)r[REG_RSI];
	size_t bytes = action ? sizeof(struct kernel_action) : sizeof(uint64_t);

	if (action && (int)r[REG_RDI] == SIGSYS) {
		void *old = (void *)r[REG_RDX];

		r[REG_RAX] = given && !is_readable(given, bytes) ? -EFAULT : las_trap_set_action(given, old);
		return;
	}
	forward(r, &room->back, las_trap_back);
	if (!given || !is_readable(given, bytes))
		return;
	memcpy(room->argument, given, bytes);
	if (action)
		((struct kernel_action *)(void *)room->argument)->mask &= ~SIGSYS_BIT;
	else
		*(uint64_t *)(void *)room->argument &= r[REG_RDI] == SIG_UNBLOCK ? ~(uint64_t)0 : ~SIGSYS_BIT;
	r[REG_RSI] = (greg_t)(uintptr_t)room->argument;
}

static void forward_by_number(greg_t *r, struct in_siginfo *room)
{
	switch (r[REG_RAX]) {
	case SYS_rt_sigreturn:
		/* It finds what to restore at the stack pointer and does not return. */
		r[REG_RIP] = (greg_t)las_trap_gadget;
		break;
	case SYS_clone:
	case SYS_fork:
	case SYS_vfork:
		forward_clone(r, &room->back);
		break;
	case NUMBER_CLONE3:
		r[REG_RAX] = -ENOSYS; /* as before Linux 5.3 and in many sandboxes: callers go on to clone */
		break;
	case SYS_rt_sigaction:
	case SYS_rt_sigprocmask:
		forward_signal_call(r, room);
		break;
	case SYS_exit_group:
	case SYS_execve:
	case SYS_execveat:
		las_finish();
		forward(r, &room->back, las_trap_back);
		break;
	default:
		forward(r, &room->back, las_trap_back);
		break;
	}
}

void las_trap_on_sigsys(int number, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	long result;

	if (info->si_code != SI_CODE_USER_DISPATCH) {
		las_trap_pass_on(number, info, context);
		return;
	}
	if (info->si_arch != AUDIT_ARCH_X86_64) {
		r[REG_RAX] = -ENOSYS; /* int $0x80: the gadget is of the other kind */
		return;
	}
	r[REG_RAX] = (int)r[REG_RAX];
	if (las_raw_is_aio(r[REG_RAX]) &&
	    las_raw_aio(r[REG_RAX], r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9], &result))
		r[REG_RAX] = result;
	else
		forward_by_number(r, (struct in_siginfo *)(void *)info);
}

long las_trap_arm(void)
{
	return las_raw_kernel(SYS_prctl, SET_SYSCALL_USER_DISPATCH, DISPATCH_ON, (long)las_trap_allowed_start,
	                      (long)las_trap_allowed_bytes, 0, 0);
}
