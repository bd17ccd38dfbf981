/* fallback.c - see fallback.h. */
#include "base/fallback.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "base/atomic.h"
#include "base/rwf.h"

#define L(x) ((long)(x))

/* RWF_APPEND or NOAPPEND that say what the descriptor says as well (lanes/file.c pins it to each write). */
static bool is_as_opened(las_enter *enter, int fd, int flags)
{
	long opened = enter(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0);

	return opened >= 0 && flags == (opened & O_APPEND ? RWF_APPEND : RWF_NOAPPEND);
}

/* plain, at: the calls without flags, for a stream and at an offset. */
static long without_v2(las_enter *enter, long plain, long at, int fd, const struct iovec *iov, size_t n, int64_t offset,
                       int flags, long ret)
{
	if (flags == RWF_NOWAIT)
		return -EOPNOTSUPP;
	if (flags != 0 && !is_as_opened(enter, fd, flags))
		return ret;
	return offset < 0 ? enter(plain, fd, L(iov), L(n), 0, 0, 0) : enter(at, fd, L(iov), L(n), L(offset), 0, 0);
}

long las_fallback_preadv2(las_enter *enter, int fd, const struct iovec *iov, size_t n, int64_t offset, int flags,
                          long ret)
{
	return without_v2(enter, SYS_readv, SYS_preadv, fd, iov, n, offset, flags, ret);
}

long las_fallback_pwritev2(las_enter *enter, int fd, const struct iovec *iov, size_t n, int64_t offset, int flags,
                           long ret)
{
	return without_v2(enter, SYS_writev, SYS_pwritev, fd, iov, n, offset, flags, ret);
}

long las_fallback_ppoll(las_enter *enter, struct pollfd *fds, size_t n, const struct timespec *timeout,
                        const sigset_t *mask, long ret)
{
#ifdef SYS_poll
	if (!mask) /* rounded up, as a time-out may be late but not early */
		ret = enter(SYS_poll, L(fds), L(n),
		            timeout ? timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000 : -1, 0, 0, 0);
#else /* aarch64 */
	(void)enter, (void)fds, (void)n, (void)timeout, (void)mask;
#endif
	return ret;
}

long las_fallback_fstat(las_enter *enter, int fd, struct stat *st)
{
	return enter(SYS_newfstatat, fd, L(""), L(st), AT_EMPTY_PATH, 0, 0); /* what libc calls */
}

long las_fallback_futex(las_enter *enter, const uint32_t *word, int op, uint32_t val, const struct timespec *deadline,
                        long ret)
{
	const struct timespec nap = { .tv_nsec = 100 * 1000 };
	struct timespec now;

	if (op != (FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG))
		return ret;
	if (las_load_acquire(word) != val)
		return -EAGAIN;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec > deadline->tv_sec || (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec))
		return -ETIMEDOUT;
	/* A wake-up for no reason is allowed. */
	return enter(SYS_nanosleep, L(&nap), 0, 0, 0, 0, 0) == -EINTR ? -EINTR : 0;
}
