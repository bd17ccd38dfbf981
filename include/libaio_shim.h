/*
 * libaio_shim.h - what the shim offers beside libaio's own interface.
 *
 * A program that uses <libaio.h> needs none of this.  It is for foreign
 * function interfaces (which cannot use libaio.h's inline helpers), for
 * programs that want to know which library answers, and for our own facades.
 *
 * Everything here is in libaio_shim.so.0, symbol version LIBAIO_SHIM_0.
 * Every las_io_* function has the kernel's convention: a negative errno is an
 * error, errno itself is left untouched.
 */
#ifndef LIBAIO_SHIM_H
#define LIBAIO_SHIM_H

#include <libaio.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version as MAJOR.MINOR.PATCH, for example "0.1.0"; static storage. */
const char *las_version(void);

/*
 * The five calls.  Same arguments, results and errors as the system calls of
 * the same name (man 2 io_setup and so on), see docs/kernel-differences.md.
 */
long las_io_setup(unsigned nr_events, io_context_t *ctxp);
long las_io_destroy(io_context_t ctx);
long las_io_submit(io_context_t ctx, long nr, struct iocb **iocbpp);
/*
 * For callers that look at the ring after each submission, as an event loop's
 * binding does: the same as las_io_submit, but an eventfd given with
 * IOCB_FLAG_RESFD is neither checked nor raised for a request that is
 * complete when the call returns.
 */
long las_io_submit_quiet(io_context_t ctx, long nr, struct iocb **iocbpp);
/*
 * The same for one request, whose result is returned if it is complete by then and has not failed: 0 or more, and there
 * is no event.  Else LAS_SUBMITTED, and the event, also that of a failure, is in the ring or will be; or io_submit's
 * error.  Who loses the result, as by a signal handler that does not come back, finds LAS_KEY_RETURNED in aio_key, which
 * is 0 otherwise.
 */
long las_io_submit_one(io_context_t ctx, struct iocb *iocb);
#define LAS_SUBMITTED (-4096L)
#define LAS_KEY_RETURNED 1u
long las_io_cancel(io_context_t ctx, struct iocb *iocb, struct io_event *result);
long las_io_getevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout);
/* sigset_bytes is the kernel's size of a signal set: 8. */
long las_io_pgetevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout,
                       const sigset_t *sigmask, size_t sigset_bytes);

/* 1 if ctx was returned by las_io_setup in this process and not destroyed since, else 0.  Any bit pattern is safe. */
int las_io_owns(io_context_t ctx);

/* The inline helpers of libaio.h, out of line.  count is in bytes, offset in bytes from the start of the file. */
void las_io_prep_pread(struct iocb *iocb, int fd, void *buf, size_t count, long long offset);
void las_io_prep_pwrite(struct iocb *iocb, int fd, void *buf, size_t count, long long offset);
void las_io_prep_preadv(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, long long offset);
void las_io_prep_pwritev(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, long long offset);
void las_io_prep_preadv2(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, long long offset, int flags);
void las_io_prep_pwritev2(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, long long offset, int flags);
void las_io_prep_fsync(struct iocb *iocb, int fd);
void las_io_prep_fdsync(struct iocb *iocb, int fd);
void las_io_prep_poll(struct iocb *iocb, int fd, int events);
void las_io_set_eventfd(struct iocb *iocb, int eventfd);

/*
 * Process-wide counts since the program started (or since fork, in a child).
 * Fields are only ever appended; las_stats_get() fills at most `bytes` bytes
 * and returns how many it filled, so old callers and new libraries agree.
 */
struct las_stats {
	uint64_t contexts;  /* successful io_setup calls */
	uint64_t submitted; /* requests that were accepted and have their event, or whose result was returned */
	uint64_t head;      /* of these: finished in the caller, inside io_submit */
	uint64_t native;    /* given to kernel AIO */
	uint64_t crew;      /* given to a crew thread */
	uint64_t polled;    /* waited for in the poll set (polls, pipes, sockets) */
	uint64_t helped;    /* crew requests that a waiting caller ran itself */
	uint64_t cancelled; /* taken back by io_cancel or io_destroy before they ran */
	uint64_t threads;   /* threads of the library's that were started */
};

size_t las_stats_get(struct las_stats *out, size_t bytes);

/*
 * Waits until the writes and syncs that io_submit has accepted are done, then
 * writes the line for LIBAIO_SHIM_STATS if it is wished and not yet written.
 * exit(), quick_exit() and a return from main do it by themselves; what ends
 * or replaces the process without them (_exit, exec) has to call it.
 * May be called in a signal handler and in a forked or vforked child.
 */
void las_finish(void);

/*
 * For interposers of read(): the calling thread is about to read from fd, which may be an eventfd of requests in flight;
 * then the result is 1, and las_has_read() has to follow if the read returns, whatever it says.  What the thread has
 * learned of by it is in its ring afterwards.  Else it is 0, after a look at a variable.  Both are async-signal-safe;
 * errno may change.
 */
int las_reads(int fd);
void las_has_read(int fd);

#ifdef __cplusplus
}
#endif
#endif
