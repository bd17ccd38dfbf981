/*
 * fallback.h - what is done instead of a system call that a sandbox forbids.
 *
 * The author of a seccomp filter listed the calls that the program was seen to make, which may be the older ones only.
 * sys.c makes the call as it should be; where las_is_barred() says of the answer that this may be why it failed, the
 * function here of the same name does what is left: an older call that means the same, or none.
 *
 * Each gets the call's arguments, and `ret`, what it answered; the result is the call's as sys.h has it, `ret` if
 * nothing takes its place.  `enter` makes a system call in the caller's own way: there are two (compat/trap_sys.c).
 */
#ifndef LAS_BASE_FALLBACK_H
#define LAS_BASE_FALLBACK_H

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct iovec;
struct pollfd;
struct stat;
struct timespec;

/* The number of a system call and its arguments: the result or a negative errno, errno untouched. */
typedef long las_enter(long n, long a, long b, long c, long d, long e, long f);

/* Kernels that do not know a call say ENOSYS too.  EPERM may also be the file's answer, which an older call repeats. */
static inline bool las_is_barred(long ret)
{
	return ret == -ENOSYS || ret == -EPERM;
}

#define LAS_COLD __attribute__((cold))

LAS_COLD long las_fallback_preadv2(las_enter *enter, int fd, const struct iovec *iov, size_t n, int64_t offset,
                                   int flags, long ret);
LAS_COLD long las_fallback_pwritev2(las_enter *enter, int fd, const struct iovec *iov, size_t n, int64_t offset,
                                    int flags, long ret);
/* With a signal mask there is none. */
LAS_COLD long las_fallback_ppoll(las_enter *enter, struct pollfd *fds, size_t n, const struct timespec *timeout,
                                 const sigset_t *mask, long ret);
LAS_COLD long las_fallback_fstat(las_enter *enter, int fd, struct stat *st);
/* For waits with a deadline, which then look every 100 microseconds, so that no wake-up is needed. */
LAS_COLD long las_fallback_futex(las_enter *enter, const uint32_t *word, int op, uint32_t val,
                                 const struct timespec *deadline, long ret);

#endif
