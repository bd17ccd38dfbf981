/*
 * kernel_aio.c - a libaio.so.1 that does nothing but the system calls.
 *
 * Only for tests, the demo and the benchmark: it gives programs the kernel's
 * AIO on a machine where no libaio is installed, so that there is something to
 * compare the shim with.  Never installed.  Built with kernel_aio.map:
 *
 *   cc -shared -fPIC -Wl,-soname,libaio.so.1 -Wl,--version-script=kernel_aio.map kernel_aio.c -o libaio.so.1
 *
 * Errors are negative return values and errno stays as it was, as in libaio.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct iocb;
struct io_event;
typedef struct io_context *io_context_t;
struct sigset_argument {
	const sigset_t *mask;
	size_t mask_bytes;
};

static int call(long number, long a, long b, long c, long d, long e, long f)
{
	int saved = errno;
	long result = syscall(number, a, b, c, d, e, f);

	if (result == -1)
		result = -errno;
	errno = saved;
	return (int)result;
}

int io_setup(int maxevents, io_context_t *ctxp)
{
	return call(SYS_io_setup, maxevents, (long)ctxp, 0, 0, 0, 0);
}

int io_destroy(io_context_t ctx)
{
	return call(SYS_io_destroy, (long)ctx, 0, 0, 0, 0, 0);
}

int io_submit(io_context_t ctx, long nr, struct iocb **iocbs)
{
	return call(SYS_io_submit, (long)ctx, nr, (long)iocbs, 0, 0, 0);
}

int io_cancel(io_context_t ctx, struct iocb *iocb, struct io_event *event)
{
	return call(SYS_io_cancel, (long)ctx, (long)iocb, (long)event, 0, 0, 0);
}

int io_getevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout)
{
	return call(SYS_io_getevents, (long)ctx, min_nr, nr, (long)events, (long)timeout, 0);
}

int io_pgetevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout,
                  sigset_t *sigmask)
{
	/* The kernel's signal set has 8 bytes, the C library's more. */
	struct sigset_argument set = { sigmask, 8 };

	return call(SYS_io_pgetevents, (long)ctx, min_nr, nr, (long)events, (long)timeout, (long)&set);
}

int io_queue_init(int maxevents, io_context_t *ctxp)
{
	if (maxevents <= 0)
		return -EINVAL;
	*ctxp = NULL;
	return io_setup(maxevents, ctxp);
}

int io_queue_release(io_context_t ctx)
{
	return io_destroy(ctx);
}
