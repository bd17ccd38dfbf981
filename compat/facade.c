/*
 * The libaio that programs find: libaio.so.1 and libaio.so.1t64, one source, two SONAMEs.
 *
 * It holds no state and takes no decision; it gives the engine's calls the
 * names, versions and argument orders of libaio 0.3.113.  Everything else is
 * in libaio_shim.so.0, of which a process has one however many facades it
 * loads.  The exports are the 13 pairs in libaio.map, held by tests/abi.
 *
 * libaio's return type is int where the engine's is long.  Nothing is lost: a
 * count is at most the size of a ring, which is far below INT_MAX.
 *
 * KERNEL: empty-ring-shortcut: when the ring is empty and the timeout zero,
 * libaio answers 0 without looking at min_nr or nr.  Here the engine is always
 * asked, because a result may be about to enter the ring, and it refuses
 * nonsense with EINVAL as the system call does
 * (test: library.empty_ring_and_zero_timeout_still_check_arguments).
 */
#include <errno.h>
#include <libaio_shim.h>
#include <stddef.h>

/* The kernel's signal set: 64 signals on every machine but MIPS. */
#ifdef __mips__
enum { KERNEL_SIGSET_BYTES = 16 };
#else
enum { KERNEL_SIGSET_BYTES = 8 };
#endif

/*
 * Three names exist twice.  The old ones, LIBAIO_0.1, have other arguments and
 * are for binaries linked before 2003; the loader gives the new ones to
 * everybody else.  The functions have names of our own, which the map does not
 * export, and are not static because the assembler must see them.
 */
#ifdef LAS_STATIC_LIBRARY
/* For libaio.a: what is linked today asks for one version only. */
#define las_io_cancel_0_4 io_cancel
#define las_io_getevents_0_4 io_getevents
#define las_io_queue_wait_0_4 io_queue_wait
#endif
int las_io_cancel_0_4(io_context_t ctx, struct iocb *iocb, struct io_event *evt);
int las_io_getevents_0_4(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout);
int las_io_queue_wait_0_4(io_context_t ctx, struct timespec *timeout);
int las_io_cancel_0_1(io_context_t ctx, struct iocb *iocb);
int las_io_getevents_0_1(io_context_t ctx, long nr, struct io_event *events, struct timespec *timeout);
int las_io_queue_wait_0_1(io_context_t ctx, struct timespec *timeout);
#ifndef LAS_STATIC_LIBRARY
__asm__(".symver las_io_cancel_0_4, io_cancel@@LIBAIO_0.4");
__asm__(".symver las_io_getevents_0_4, io_getevents@@LIBAIO_0.4");
__asm__(".symver las_io_queue_wait_0_4, io_queue_wait@@LIBAIO_0.4");
__asm__(".symver las_io_cancel_0_1, io_cancel@LIBAIO_0.1");
__asm__(".symver las_io_getevents_0_1, io_getevents@LIBAIO_0.1");
__asm__(".symver las_io_queue_wait_0_1, io_queue_wait@LIBAIO_0.1");
#endif

int io_setup(int maxevents, io_context_t *ctxp)
{
	return (int)las_io_setup((unsigned)maxevents, ctxp);
}

int io_destroy(io_context_t ctx)
{
	return (int)las_io_destroy(ctx);
}

int io_submit(io_context_t ctx, long nr, struct iocb *ios[])
{
	return (int)las_io_submit(ctx, nr, ios);
}

int las_io_cancel_0_4(io_context_t ctx, struct iocb *iocb, struct io_event *evt)
{
	return (int)las_io_cancel(ctx, iocb, evt);
}

int las_io_getevents_0_4(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout)
{
	return (int)las_io_getevents(ctx, min_nr, nr, events, timeout);
}

int io_pgetevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout,
                  sigset_t *sigmask)
{
	return (int)las_io_pgetevents(ctx, min_nr, nr, events, timeout, sigmask, KERNEL_SIGSET_BYTES);
}

int io_queue_init(int maxevents, io_context_t *ctxp)
{
	if (maxevents <= 0)
		return -EINVAL;
	*ctxp = NULL; /* callers pass what malloc gave them */
	return (int)las_io_setup((unsigned)maxevents, ctxp);
}

int io_queue_release(io_context_t ctx)
{
	return (int)las_io_destroy(ctx);
}

int io_queue_run(io_context_t ctx)
{
	struct timespec at_once = { 0, 0 };
	struct io_event event;
	io_callback_t callback;
	long n;

	while ((n = las_io_getevents(ctx, 0, 1, &event, &at_once)) == 1) {
		memcpy(&callback, &event.data, sizeof(callback)); /* as io_set_callback stored it */
		callback(ctx, event.obj, (long)event.res, (long)event.res2);
	}
	return (int)n;
}

/* "Wait until something is there" in name; with nr 0 the call never did anything but check its arguments. */
int las_io_queue_wait_0_4(io_context_t ctx, struct timespec *timeout)
{
	return (int)las_io_getevents(ctx, 0, 0, NULL, timeout);
}

#ifndef LAS_STATIC_LIBRARY
int las_io_queue_wait_0_1(io_context_t ctx, struct timespec *timeout)
{
	return (int)las_io_getevents(ctx, 0, 0, NULL, timeout);
}

int las_io_cancel_0_1(io_context_t ctx, struct iocb *iocb)
{
	struct io_event unwanted;

	return (int)las_io_cancel(ctx, iocb, &unwanted);
}

int las_io_getevents_0_1(io_context_t ctx, long nr, struct io_event *events, struct timespec *timeout)
{
	return (int)las_io_getevents(ctx, 1, nr, events, timeout);
}
#endif
