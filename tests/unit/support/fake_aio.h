/*
 * fake_aio.h - a kernel AIO under the test's control, behind the native lane's system calls.
 *
 * What is submitted stays pending until the test finishes it; then its event is in the hidden ring, as the kernel
 * would have put it there.  Polls with data 0 (the lane's kicks) are ready at once.
 */
#ifndef LAS_UNIT_FAKE_AIO_H
#define LAS_UNIT_FAKE_AIO_H

#include "unit.h"

#define F_CONTEXTS 8
#define F_PENDING 512

struct f_context {
	struct las_ring *ring; /* one page; the handle */
	unsigned depth;
	struct las_iocb *pending[F_PENDING]; /* in order of submission; NULL once finished */
	int submitted;
	int waiters;   /* threads in io_getevents now */
	long wait_min; /* what the latest of them waits for */
	int kicks;
};

extern struct f_context f_contexts[F_CONTEXTS];
extern int f_context_count;
/* Asked for each iocb: 0 to accept it, a negative errno to refuse it.  NULL accepts all. */
extern int (*f_refuse)(struct f_context *c, const struct las_iocb *iocb);

/* Puts the fake behind las_sys. */
void f_install(void);
/* The descriptor counts as opened with O_DIRECT from now on, whatever the file system can; only one does.  Returns it. */
int f_direct(int fd);
/* A new file, which counts so. */
int f_direct_file(size_t bytes);

/* Requests for cases that need several, and memory for what they read. */
extern struct iocb f_iocbs[128], *f_list[128];
extern char *f_buffers;
/* Makes n of them reads of 8 KiB, one behind the other: they hold their file. */
void f_prepare_reads(int fd, int n);

/* The i-th iocb that was submitted ends with this result. */
void f_finish(struct f_context *c, int i, int64_t res);
/* The fake call itself, for a hook that stands before it. */
long f_getevents(uintptr_t handle, long min, long nr, struct las_event *events, struct timespec *timeout,
                 const sigset_t *mask);
/* How often a leader was kicked so far. */
int f_kicks(struct f_context *c);
/* Waits until so many iocbs have been submitted. */
void f_await_submitted(struct f_context *c, int n);
/* Waits until a thread waits in io_getevents. */
void f_await_waiter(struct f_context *c);
/* The same, for so many events. */
void f_await_waiter_for(struct f_context *c, long min);

#endif
