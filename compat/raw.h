/*
 * raw.h - the AIO system calls by number, answered by the engine.
 *
 * Shared by the two ways in which a program that makes system calls itself is
 * reached: libc's syscall() (syscall.c) and the bare instruction (trap.c).
 */
#ifndef LAS_COMPAT_RAW_H
#define LAS_COMPAT_RAW_H

#include <stdbool.h>

/* The numbers, as the assembler needs them too: plain, and the same list in las_raw_aio(). */
#if defined(__x86_64__)
#define RAW_AIO_FIRST 206 /* io_setup, io_destroy, io_getevents, io_submit, io_cancel */
#define RAW_IO_PGETEVENTS 333
#define RAW_EXECVE 59
#define RAW_EXECVEAT 322
#define RAW_EXIT_GROUP 231
#elif defined(__aarch64__)
#define RAW_AIO_FIRST 0 /* io_setup, io_destroy, io_submit, io_cancel, io_getevents */
#define RAW_IO_PGETEVENTS 292
#define RAW_EXECVE 221
#define RAW_EXECVEAT 281
#define RAW_EXIT_GROUP 94
#else
#error "the interposers know the system calls of x86-64 and aarch64 only"
#endif
#define RAW_AIO_COUNT 5

#pragma GCC visibility push(hidden)

/* libc's syscall(), behind whatever stands before it; each library that uses this file finds it at its start. */
extern long (*las_next_syscall)(long number, ...);

/* The same with the kernel's convention: a negative errno, and errno itself untouched. */
long las_raw_kernel(long number, long a, long b, long c, long d, long e, long f);

/* Whether the number, of which the kernel looks at 32 bits, is one of the six. */
static inline bool las_raw_is_aio(long number)
{
	return (unsigned)number - RAW_AIO_FIRST < RAW_AIO_COUNT || (int)number == RAW_IO_PGETEVENTS;
}

/*
 * Answers one of the six: true, and the kernel's result in *result, a negative
 * errno for an error.  False if the call is for a context that is not the
 * engine's: then the kernel has to be asked, and *result is what the engine
 * made of it, for the case that the kernel has no AIO at all.
 */
bool las_raw_aio(long number, long a, long b, long c, long d, long e, long f, long *result);

/* What the kernel said to the call of a foreign context, given what the engine said before. */
long las_raw_kernel_said(long kernel, long engine);

#pragma GCC visibility pop

#endif
