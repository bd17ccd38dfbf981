/* raw.c - see raw.h. */
#include "raw.h"

#include <assert.h>
#include <errno.h>
#include <libaio_shim.h>
#include <sys/syscall.h>
#include <unistd.h>

static_assert(SYS_io_setup == RAW_AIO_FIRST && SYS_io_pgetevents == RAW_IO_PGETEVENTS, "system call numbers");
static_assert(SYS_io_destroy - RAW_AIO_FIRST < RAW_AIO_COUNT && SYS_io_getevents - RAW_AIO_FIRST < RAW_AIO_COUNT &&
                      SYS_io_submit - RAW_AIO_FIRST < RAW_AIO_COUNT && SYS_io_cancel - RAW_AIO_FIRST < RAW_AIO_COUNT,
              "the five are in a row");
static_assert(SYS_execve == RAW_EXECVE && SYS_execveat == RAW_EXECVEAT && SYS_exit_group == RAW_EXIT_GROUP,
              "system call numbers");

long las_raw_kernel(long number, long a, long b, long c, long d, long e, long f)
{
	int saved = errno;
	long result = las_next_syscall(number, a, b, c, d, e, f);

	if (result == -1)
		result = -errno;
	errno = saved;
	return result;
}

/* io_pgetevents has a seventh argument; it travels with the sixth. */
struct mask_argument {
	const sigset_t *mask;
	size_t bytes;
};

#define RAW_SIGSET_BYTES 8 /* the kernel's */

/* An unknown `how` makes the kernel read the set's 8 bytes and then refuse, so that nothing happens: EFAULT or EINVAL. */
static bool is_readable(const unsigned long *words, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (las_raw_kernel(SYS_rt_sigprocmask, -1, (long)&words[i], 0, RAW_SIGSET_BYTES, 0, 0) == -EFAULT)
			return false;
	return true;
}

static long pgetevents(io_context_t ctx, long min, long nr, struct io_event *events, struct timespec *timeout,
                       const struct mask_argument *argument)
{
	if (!argument)
		return las_io_getevents(ctx, min, nr, events, timeout);
	if (!is_readable((const unsigned long *)(const void *)argument, 2))
		return -EFAULT;
	return las_io_pgetevents(ctx, min, nr, events, timeout, argument->mask, argument->bytes);
}

/*
 * The engine is asked first, so that its own contexts pay for one look-up
 * only: a success is always the engine's.  A failure may be one because the
 * context is the kernel's, made by another library or before we were here.
 */
bool las_raw_aio(long number, long a, long b, long c, long d, long e, long f, long *result)
{
	io_context_t ctx = (io_context_t)a;

	switch ((int)number) {
	case SYS_io_setup:
		*result = las_io_setup((unsigned)a, (io_context_t *)b);
		return true;
	case SYS_io_destroy:
		*result = las_io_destroy(ctx);
		break;
	case SYS_io_submit:
		*result = las_io_submit(ctx, b, (struct iocb **)c);
		break;
	case SYS_io_cancel:
		*result = las_io_cancel(ctx, (struct iocb *)b, (struct io_event *)c);
		break;
	case SYS_io_getevents:
		*result = las_io_getevents(ctx, b, c, (struct io_event *)d, (struct timespec *)e);
		break;
	default:
		*result = pgetevents(ctx, b, c, (struct io_event *)d, (struct timespec *)e,
		                     (const struct mask_argument *)f);
		break;
	}
	return *result >= 0 || las_io_owns(ctx);
}

long las_raw_kernel_said(long kernel, long engine)
{
	/* No AIO here, or not for us: then nobody has such a context. */
	return kernel == -ENOSYS || kernel == -EPERM ? engine : kernel;
}
