/*
 * sys.h - every system call of the library, behind one table.
 *
 * Each entry has the kernel's convention: the result, or a negative errno;
 * errno itself is never touched.  The calls are made directly, not through
 * libc's syscall(), because our own interposer may stand there, and so that
 * no call is a cancellation point.  Where a sandbox forbids one, what is left is
 * done in its place (fallback.h).
 *
 * Tests replace entries to inject faults; the library reads the table only.
 */
#ifndef LAS_BASE_SYS_H
#define LAS_BASE_SYS_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct epoll_event;
struct iovec;
struct las_event;
struct las_iocb;
struct pollfd;
struct rusage;
struct stat;
struct statfs;
struct timespec;

#define LAS_SIGSET_BYTES 8 /* the kernel's size of a signal set on 64-bit Linux */

struct las_sys {
	/* the work itself */
	long (*preadv2)(int fd, const struct iovec *iov, size_t iovcnt, int64_t offset, int flags);
	long (*pwritev2)(int fd, const struct iovec *iov, size_t iovcnt, int64_t offset, int flags);
	long (*fsync)(int fd);
	long (*fdatasync)(int fd);
	long (*ppoll)(struct pollfd *fds, size_t n, const struct timespec *timeout, const sigset_t *mask);
	/* descriptors */
	long (*fcntl)(int fd, int cmd, uintptr_t arg);
	long (*close)(int fd);
	long (*fstat)(int fd, struct stat *st); /* mode, device and inode only, and no server is asked */
	long (*fstatfs)(int fd, struct statfs *st);
	long (*fadvise)(int fd, int64_t offset, int64_t bytes, int advice);
	long (*kcmp_file)(int pid, int fd1, int fd2); /* 0: they are of the same open file */
	long (*kcmp)(int tid1, int tid2, int type);   /* KCMP_FILES, KCMP_VM */
	long (*eventfd2)(unsigned initial, int flags);
	long (*write)(int fd, const void *buf, size_t bytes);
	long (*openat)(int dirfd, const char *path, int flags, int mode);
	long (*epoll_create1)(int flags);
	long (*epoll_ctl)(int epfd, int op, int fd, struct epoll_event *event);
	long (*epoll_pwait)(int epfd, struct epoll_event *events, int n, int timeout_ms, const sigset_t *mask);
	/* waiting and memory */
	long (*futex)(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2, uint32_t val3);
	void *(*mmap)(void *addr, size_t bytes, int prot, int flags); /* anonymous; NULL on failure */
	void *(*mremap_dup)(void *addr, size_t bytes); /* a second view of a shared mapping; NULL on failure */
	long (*munmap)(void *addr, size_t bytes);
	long (*mprotect)(void *addr, size_t bytes, int prot);
	long (*madvise)(void *addr, size_t bytes, int advice);
	/* kernel AIO, for the native lane; contexts are the kernel's handles */
	long (*io_setup)(unsigned nr, uintptr_t *ctx);
	long (*io_destroy)(uintptr_t ctx);
	long (*io_submit)(uintptr_t ctx, long nr, struct las_iocb **iocbs);
	/* mask: the signal mask meanwhile, or NULL */
	long (*io_getevents)(uintptr_t ctx, long min, long nr, struct las_event *events, struct timespec *timeout,
	                     const sigset_t *mask);
	long (*io_cancel)(uintptr_t ctx, struct las_iocb *iocb, struct las_event *result);
	/* the thread and the process */
	long (*sigprocmask)(int how, const void *set, void *old);
	long (*sigaltstack)(const stack_t *stack, stack_t *old);
	long (*sigtimedwait)(const void *set, const struct timespec *timeout);
	long (*kill)(int pid, int sig);
	long (*getpid)(void);
	long (*gettid)(void);
	long (*getrusage)(int who, struct rusage *usage);
	long (*ioprio_set)(int which, int who, int ioprio);
	long (*ioprio_get)(int which, int who);
	long (*sched_getaffinity)(int pid, size_t bytes, void *mask);
	long (*sched_setaffinity)(int pid, size_t bytes, const void *mask);
	long (*prlimit)(int resource, void *old);
	long (*rseq)(void *area, uint32_t bytes, int flags, uint32_t signature);
	long (*thread_start)(void *(*entry)(void *), void *arg); /* thread.h */
};

extern struct las_sys las_sys;

/* The same calls made from within libc's code: there if libaio_trap.so is loaded, and then used from the start. */
extern struct las_sys las_trap_sys __attribute__((weak, visibility("default")));

/* CLOCK_MONOTONIC in nanoseconds; no system call where the vDSO has it. */
int64_t las_now_ns(void);

#endif
