/*
 * trap.h - `libaio-shim run --trap`: AIO system calls made by the processor's own instruction.
 *
 * Four parts in libaio_trap.so, x86-64 only: trap.c catches a call and answers
 * or forwards it, trap_range.c says which code is not caught at all,
 * trap_guard.c keeps every thread caught and the signal ours, and trap_sys.c
 * keeps the engine's own calls from being caught.
 */
#ifndef LAS_COMPAT_TRAP_H
#define LAS_COMPAT_TRAP_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

/* Code whose system calls go straight to the kernel: libc, and what of the loader and the shim lies beside it. */
extern uintptr_t las_trap_allowed_start, las_trap_allowed_bytes;
/* The two instructions "syscall; ret", inside that code as soon as it is found. */
extern uintptr_t las_trap_gadget;

/* Finds the three above.  False if libc has no such instructions. */
bool las_trap_find_range(void);
/* The code of the library that holds this address. */
bool las_trap_code_of(const void *address, uintptr_t *start, uintptr_t *end);

/* From now on the calling thread is caught.  0, or a negative errno: -EINVAL if the kernel cannot. */
long las_trap_arm(void);
/* Called in a child made by a forwarded clone, with every register the program's; arms, then goes on there. */
void las_trap_child(void);

/* The program's own idea of what SIGSYS does, for one that was not ours. */
void las_trap_pass_on(int number, siginfo_t *info, void *context);
/* The same for a program that sets it by system call: 0 or a negative errno. */
long las_trap_set_action(const void *kernel_action, void *old_kernel_action);

void las_trap_on_sigsys(int number, siginfo_t *info, void *context);

#pragma GCC visibility pop
#endif
