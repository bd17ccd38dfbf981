/*
 * raw_aio.c - libaio's functions for a test program that is to make the system calls itself.
 *
 * Link it in place of libaio: the program then needs no libaio, and every call
 * goes through libc's syscall(), or with -DRAW_INLINE through the processor's
 * own instruction, which no library can stand before.  Like libaio's, the
 * functions return a negative errno and leave errno alone.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <libaio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RAW_INLINE
static long call(long number, long a, long b, long c, long d, long e, long f)
{
	int saved = errno;
	long result = syscall(number, a, b, c, d, e, f);

	if (result == -1)
		result = -errno;
	errno = saved;
	return result;
}
#elif defined(__x86_64__)
static inline long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
	                 : "=a"(result)
	                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	return result;
}
#else
#error "RAW_INLINE is for x86-64"
#endif

int io_setup(int maxevents, io_context_t *ctxp)
{
	return (int)call(SYS_io_setup, maxevents, (long)ctxp, 0, 0, 0, 0);
}

int io_destroy(io_context_t ctx)
{
	return (int)call(SYS_io_destroy, (long)ctx, 0, 0, 0, 0, 0);
}

int io_submit(io_context_t ctx, long nr, struct iocb *ios[])
{
	return (int)call(SYS_io_submit, (long)ctx, nr, (long)ios, 0, 0, 0);
}

int io_cancel(io_context_t ctx, struct iocb *iocb, struct io_event *evt)
{
	return (int)call(SYS_io_cancel, (long)ctx, (long)iocb, (long)evt, 0, 0, 0);
}

int io_getevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout)
{
	return (int)call(SYS_io_getevents, (long)ctx, min_nr, nr, (long)events, (long)timeout, 0);
}

int io_pgetevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout,
                  sigset_t *sigmask)
{
	struct {
		sigset_t *mask;
		size_t bytes;
	} argument = { sigmask, 8 };

	return (int)call(SYS_io_pgetevents, (long)ctx, min_nr, nr, (long)events, (long)timeout, (long)&argument);
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

int io_queue_wait(io_context_t ctx, struct timespec *timeout)
{
	return io_getevents(ctx, 0, 0, NULL, timeout);
}

int io_queue_run(io_context_t ctx)
{
	struct timespec at_once = { 0, 0 };
	struct io_event event;
	io_callback_t callback;
	int n;

	while ((n = io_getevents(ctx, 0, 1, &event, &at_once)) == 1) {
		memcpy(&callback, &event.data, sizeof(callback));
		callback(ctx, event.obj, (long)event.res, (long)event.res2);
	}
	return n;
}
