/*
 * calls.c - the exported functions.
 *
 * Each looks the handle up, checks its arguments in the kernel's order,
 * delegates, and lets the handle go.  Every entry first makes sure that the
 * state is this process's (base/fork.h), and that it was not called from a
 * signal handler that interrupted one of the library's own short sections
 * (base/lock.h): such a call is answered "try again", it cannot be served.
 */
#include <errno.h>
#include <string.h>

#include "aio/cancel.h"
#include "aio/complete.h"
#include "aio/context.h"
#include "aio/report.h"
#include "aio/submit.h"
#include "aio/wait.h"
#include "base/config.h"
#include "base/fork.h"
#include "base/futex.h"
#include "base/umem.h"
#include "lanes/announce.h"
#include "lanes/crew.h"
#include "lanes/file.h"
#include "lanes/native.h"
#include "lanes/op.h"
#include "lanes/order.h"
#include "lanes/pollset.h"
#include "lanes/predictor.h"
#include "lanes/table.h"
#include "libaio_shim.h"

#define EXPORT __attribute__((visibility("default")))

/* Puts every module into its first state, in a new process or in a forked child, which has no contexts. */
static void start(void)
{
	las_config_load();
	memset(&las_stats, 0, sizeof(las_stats));
	las_hold_init();
	las_file_init();
	las_op_init();
	las_order_init();
	las_pollset_init();
	las_native_init();
	las_predictor_init();
	las_table_init();
	las_crew_init();
	las_complete_init();
	las_wait_init();
	las_ctx_init();
}

static bool ready(void)
{
	return las_likely(las_process_ready()) || las_process_start(start) == 0;
}

static bool interrupted_ourselves(void)
{
	return las_unlikely(las_critical != 0);
}

EXPORT long las_io_setup(unsigned nr_events, io_context_t *ctxp)
{
	struct las_ctx *ctx;
	int err;

	if (interrupted_ourselves())
		return -EAGAIN;
	if (!ready())
		return -ENOMEM;
	if (!las_umem_readable(ctxp, sizeof(*ctxp)))
		return -EFAULT;
	if (*ctxp)
		return -EINVAL;
	err = las_ctx_create(nr_events, &ctx);
	if (err)
		return err;
	if (!las_umem_writable(ctxp, sizeof(*ctxp))) {
		las_io_destroy((io_context_t)(void *)ctx->slots.handle);
		return -EFAULT;
	}
	*ctxp = (io_context_t)(void *)ctx->slots.handle;
	return 0;
}

EXPORT long las_io_destroy(io_context_t handle)
{
	struct las_ctx *ctx;

	/* From a handler that interrupted a call of the same thread it would wait for that call. */
	if (interrupted_ourselves() || las_inside)
		return -EAGAIN;
	if (!ready())
		return -EINVAL;
	ctx = las_ctx_visit(handle);
	if (!ctx)
		return -EINVAL;
	/* Whoever sets the bit destroys; a second caller is too late. */
	if (las_or_acq_rel(&ctx->busy, LAS_CTX_DEAD) & LAS_CTX_DEAD) {
		las_ctx_unvisit(ctx);
		return -EINVAL;
	}
	las_inside++;
	las_destroy(ctx);
	las_inside--;
	las_ctx_unvisit(ctx);
	return 0;
}

/*
 * KERNEL: jump-out-of-a-call: no handler runs inside its io_submit, so none
 * can leave it by longjmp and keep the context busy for ever (test:
 * hostile.handler_that_jumps_out_of_submit).
 */
static long submit(io_context_t handle, long nr, struct iocb **iocbpp, enum las_telling telling)
{
	struct las_ctx *ctx;
	long ret;

	if (interrupted_ourselves())
		return -EAGAIN;
	if (las_unlikely(nr < 0) || !ready())
		return -EINVAL;
	ctx = las_ctx_enter(handle);
	if (las_unlikely(!ctx))
		return -EINVAL;
	las_inside++;
	ret = las_submit(ctx, nr, (struct las_iocb *const *)(void *)iocbpp, telling);
	las_inside--;
	las_ctx_leave(ctx, 1);
	return ret;
}

EXPORT long las_io_submit(io_context_t handle, long nr, struct iocb **iocbpp)
{
	return submit(handle, nr, iocbpp, LAS_TELL_ALL);
}

EXPORT long las_io_submit_quiet(io_context_t handle, long nr, struct iocb **iocbpp)
{
	return submit(handle, nr, iocbpp, LAS_TELL_EVENT);
}

EXPORT long las_io_submit_one(io_context_t handle, struct iocb *iocb)
{
	return submit(handle, 1, &iocb, LAS_TELL_RESULT);
}

EXPORT long las_io_cancel(io_context_t handle, struct iocb *iocb, struct io_event *result)
{
	struct las_iocb *user = (struct las_iocb *)(void *)iocb;
	struct las_event event;
	struct las_ctx *ctx;
	long ret;

	if (interrupted_ourselves())
		return -EAGAIN;
	if (!ready())
		return -EINVAL;
	/* Of the iocb the kernel reads no more than the key; else it is a name. */
	if (!las_umem_readable((const void *)((uintptr_t)user + offsetof(struct las_iocb, key)), sizeof(user->key)))
		return -EFAULT;
	if (user->key != 0)
		return -EINVAL;
	ctx = las_ctx_visit(handle);
	if (!ctx)
		return -EINVAL;
	/*
	 * KERNEL: cancel-result-pointer: it never writes to result; here it is filled in, so a bad pointer is told
	 * before anything is taken (test: cancel.result_pointer_is_not_needed_for_a_poll).
	 */
	if (result && !las_umem_writable(result, sizeof(*result)))
		ret = -EFAULT;
	else
		ret = las_cancel(ctx, (uint64_t)(uintptr_t)user, &event);
	if (ret == 0 && result)
		memcpy(result, &event, sizeof(event));
	las_ctx_unvisit(ctx);
	return ret;
}

/* -EFAULT, or 0 and the deadline: CLOCK_MONOTONIC, LAS_FOREVER_NS, or 0 for one look. */
static int deadline_of(const struct timespec *timeout, int64_t *deadline_ns)
{
	int64_t ns;

	*deadline_ns = LAS_FOREVER_NS;
	if (!timeout)
		return 0;
	if (!las_umem_readable(timeout, sizeof(*timeout)))
		return -EFAULT;
	/*
	 * KERNEL: nanoseconds of a second and more are honoured, and a negative time saturates to "for ever"
	 * (test: getevents.negative_timeouts_wait_for_ever).
	 */
	if (__builtin_mul_overflow((int64_t)timeout->tv_sec, (int64_t)1000000000, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)timeout->tv_nsec, &ns) || ns < 0)
		return 0;
	if (ns == 0)
		*deadline_ns = 0;
	else if (__builtin_add_overflow(ns, las_now_ns(), deadline_ns))
		*deadline_ns = LAS_FOREVER_NS;
	return 0;
}

/* The program's mask, in *mask: 0, -EINVAL or -EFAULT. */
static int copy_mask(const sigset_t *user, size_t bytes, sigset_t *mask)
{
	if (bytes != LAS_SIGSET_BYTES)
		return -EINVAL;
	if (!las_umem_readable(user, LAS_SIGSET_BYTES))
		return -EFAULT;
	memset(mask, 0, sizeof(*mask));
	memcpy(mask, user, LAS_SIGSET_BYTES);
	return 0;
}

/*
 * KERNEL: what pends and is let in by the mask is delivered even if nobody had to wait, and whatever the call says;
 * without events that is EINTR (test: getevents.pgetevents_with_an_error_delivers_the_signal_and_the_error).
 */
static long let_signals_in(const sigset_t *mask, long result)
{
	const struct timespec at_once = { 0, 0 };

	return las_sys.ppoll(NULL, 0, &at_once, mask) == -EINTR && result == 0 ? -EINTR : result;
}

static long getevents(io_context_t handle, long min_nr, long nr, struct io_event *events, struct timespec *timeout,
                      const sigset_t *user_mask, size_t mask_bytes)
{
	sigset_t copy, *mask = NULL;
	int64_t deadline_ns;
	struct las_ctx *ctx;
	long ret;

	if (interrupted_ourselves())
		return min_nr == 0 ? 0 : -EINTR;
	if (!ready())
		return -EINVAL;
	ret = deadline_of(timeout, &deadline_ns);
	if (las_unlikely(ret))
		return ret;
	if (user_mask) {
		ret = copy_mask(user_mask, mask_bytes, &copy);
		if (ret)
			return ret;
		mask = &copy;
	}
	ctx = las_ctx_visit(handle);
	if (las_unlikely(!ctx || min_nr < 0 || min_nr > nr))
		ret = -EINVAL;
	else
		ret = las_wait(ctx, min_nr, nr, (struct las_event *)(void *)events, deadline_ns, mask);
	if (mask)
		ret = let_signals_in(mask, ret);
	if (las_likely(ctx))
		las_ctx_unvisit(ctx);
	return ret;
}

EXPORT long las_io_getevents(io_context_t handle, long min_nr, long nr, struct io_event *events,
                             struct timespec *timeout)
{
	return getevents(handle, min_nr, nr, events, timeout, NULL, 0);
}

EXPORT long las_io_pgetevents(io_context_t handle, long min_nr, long nr, struct io_event *events,
                              struct timespec *timeout, const sigset_t *sigmask, size_t sigset_bytes)
{
	return getevents(handle, min_nr, nr, events, timeout, sigmask, sigset_bytes);
}

EXPORT int las_reads(int fd)
{
	return las_process_ready() && las_announce_reads(fd);
}

EXPORT void las_has_read(int fd)
{
	if (las_process_ready())
		las_announce_has_read(fd);
}

EXPORT int las_io_owns(io_context_t handle)
{
	struct las_ctx *ctx;

	if (interrupted_ourselves() || !las_process_ready())
		return 0;
	ctx = las_ctx_visit(handle);
	if (ctx)
		las_ctx_unvisit(ctx);
	return ctx != NULL;
}
