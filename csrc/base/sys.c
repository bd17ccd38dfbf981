/*
 * sys.c - the system calls themselves, see sys.h.
 *
 * x86-64 and aarch64 enter the kernel by their own instruction; any other
 * 64-bit machine goes through libc's syscall() with errno put back.  What is
 * done where a sandbox forbids a call is in fallback.c, threads are in thread.c.
 *
 * compat/trap_sys.c includes this file for a second table, with a way into the
 * kernel of its own.
 */
#include "base/sys.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/fallback.h"
#include "base/thread.h"

#if defined(LAS_SYS_ENTER)
#define enter LAS_SYS_ENTER
#elif defined(__x86_64__)
static long enter(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
	                 : "=a"(ret)
	                 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static long enter(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
	return x0;
}
#else
static long enter(long n, long a, long b, long c, long d, long e, long f)
{
	int saved = errno;
	long ret = syscall(n, a, b, c, d, e, f);

	if (ret == -1)
		ret = -errno;
	errno = saved;
	return ret;
}
#endif

#define L(x) ((long)(x))

/* Without a vector it is the same, and the kernel need not fetch one (a tenth of a cached read). */
static bool is_plain(size_t n, int64_t offset, int flags)
{
	return n == 1 && offset >= 0 && flags == 0;
}

static long sys_preadv2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	long ret;

	if (is_plain(n, offset, flags)) {
		ret = enter(SYS_pread64, fd, L(iov->iov_base), L(iov->iov_len), L(offset), 0, 0);
		if (las_likely(!las_is_barred(ret)))
			return ret;
	}
	/* The offset is passed in halves; on 64-bit machines the low one holds it all. */
	ret = enter(SYS_preadv2, fd, L(iov), L(n), L(offset), 0, flags);
	return las_is_barred(ret) ? las_fallback_preadv2(enter, fd, iov, n, offset, flags, ret) : ret;
}

static long sys_pwritev2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	long ret;

	if (is_plain(n, offset, flags)) {
		ret = enter(SYS_pwrite64, fd, L(iov->iov_base), L(iov->iov_len), L(offset), 0, 0);
		if (las_likely(!las_is_barred(ret)))
			return ret;
	}
	ret = enter(SYS_pwritev2, fd, L(iov), L(n), L(offset), 0, flags);
	return las_is_barred(ret) ? las_fallback_pwritev2(enter, fd, iov, n, offset, flags, ret) : ret;
}

static long sys_fsync(int fd)
{
	return enter(SYS_fsync, fd, 0, 0, 0, 0, 0);
}

static long sys_fdatasync(int fd)
{
	return enter(SYS_fdatasync, fd, 0, 0, 0, 0, 0);
}

static long sys_ppoll(struct pollfd *fds, size_t n, const struct timespec *timeout, const sigset_t *mask)
{
	long ret = enter(SYS_ppoll, L(fds), L(n), L(timeout), L(mask), LAS_SIGSET_BYTES, 0);

	return las_is_barred(ret) ? las_fallback_ppoll(enter, fds, n, timeout, mask, ret) : ret;
}

static long sys_fcntl(int fd, int cmd, uintptr_t arg)
{
	return enter(SYS_fcntl, fd, cmd, L(arg), 0, 0, 0);
}

static long sys_close(int fd)
{
	return enter(SYS_close, fd, 0, 0, 0, 0, 0);
}

/* struct statx, which not every libc's headers have. */
struct kernel_statx {
	uint32_t head[7];
	uint16_t mode, pad;
	uint64_t ino, middle[3 + 8];
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t tail[14];
};
static_assert(offsetof(struct kernel_statx, mode) == 28 && offsetof(struct kernel_statx, ino) == 32 &&
                      offsetof(struct kernel_statx, dev_major) == 136 && sizeof(struct kernel_statx) == 256,
              "struct statx");

static long sys_fstat(int fd, struct stat *st)
{
	enum { EMPTY_PATH = 0x1000, DONT_SYNC = 0x4000, TYPE_MODE_INO = 0x103 };
	struct kernel_statx sx;
	long err = enter(SYS_statx, fd, L(""), EMPTY_PATH | DONT_SYNC, TYPE_MODE_INO, L(&sx), 0);

	if (las_is_barred(err))
		return las_fallback_fstat(enter, fd, st);
	if (err)
		return err;
	st->st_mode = sx.mode;
	st->st_ino = sx.ino;
	st->st_dev = makedev(sx.dev_major, sx.dev_minor);
	return 0;
}

static long sys_fstatfs(int fd, struct statfs *st)
{
	return enter(SYS_fstatfs, fd, L(st), 0, 0, 0, 0);
}

static long sys_fadvise(int fd, int64_t offset, int64_t bytes, int advice)
{
	return enter(SYS_fadvise64, fd, offset, bytes, advice, 0, 0);
}

static long sys_kcmp_file(int pid, int fd1, int fd2)
{
	return enter(SYS_kcmp, pid, pid, 0 /* KCMP_FILE */, fd1, fd2, 0);
}

static long sys_kcmp(int tid1, int tid2, int type)
{
	return enter(SYS_kcmp, tid1, tid2, type, 0, 0, 0);
}

static long sys_eventfd2(unsigned initial, int flags)
{
	return enter(SYS_eventfd2, L(initial), flags, 0, 0, 0, 0);
}

static long sys_write(int fd, const void *buf, size_t bytes)
{
	return enter(SYS_write, fd, L(buf), L(bytes), 0, 0, 0);
}

static long sys_openat(int dirfd, const char *path, int flags, int mode)
{
	return enter(SYS_openat, dirfd, L(path), flags, mode, 0, 0);
}

static long sys_epoll_create1(int flags)
{
	return enter(SYS_epoll_create1, flags, 0, 0, 0, 0, 0);
}

static long sys_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	return enter(SYS_epoll_ctl, epfd, op, fd, L(event), 0, 0);
}

static long sys_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout_ms, const sigset_t *mask)
{
	return enter(SYS_epoll_pwait, epfd, L(events), n, timeout_ms, L(mask), LAS_SIGSET_BYTES);
}

static long sys_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2, uint32_t val3)
{
	long ret = enter(SYS_futex, L(word), op, L(val), L(ts), L(word2), L(val3));

	return las_is_barred(ret) ? las_fallback_futex(enter, word, op, val, ts, ret) : ret;
}

static void *as_pointer(long ret)
{
	return ret < 0 && ret > -4096 ? NULL : (void *)ret; /* the kernel's errors are -4095 to -1 */
}

static void *sys_mmap(void *addr, size_t bytes, int prot, int flags)
{
	return as_pointer(enter(SYS_mmap, L(addr), L(bytes), prot, flags | MAP_ANONYMOUS, -1, 0));
}

static void *sys_mremap_dup(void *addr, size_t bytes)
{
	/* An old size of 0 on a shared mapping maps the same pages a second time (man 2 mremap). */
	return as_pointer(enter(SYS_mremap, L(addr), 0, L(bytes), MREMAP_MAYMOVE, 0, 0));
}

static long sys_munmap(void *addr, size_t bytes)
{
	return enter(SYS_munmap, L(addr), L(bytes), 0, 0, 0, 0);
}

static long sys_mprotect(void *addr, size_t bytes, int prot)
{
	return enter(SYS_mprotect, L(addr), L(bytes), prot, 0, 0, 0);
}

static long sys_madvise(void *addr, size_t bytes, int advice)
{
	return enter(SYS_madvise, L(addr), L(bytes), advice, 0, 0, 0);
}

static long sys_io_setup(unsigned nr, uintptr_t *ctx)
{
	return enter(SYS_io_setup, L(nr), L(ctx), 0, 0, 0, 0);
}

static long sys_io_destroy(uintptr_t ctx)
{
	return enter(SYS_io_destroy, L(ctx), 0, 0, 0, 0, 0);
}

static long sys_io_submit(uintptr_t ctx, long nr, struct las_iocb **iocbs)
{
	return enter(SYS_io_submit, L(ctx), nr, L(iocbs), 0, 0, 0);
}

static long sys_io_getevents(uintptr_t ctx, long min, long nr, struct las_event *events, struct timespec *timeout,
                             const sigset_t *mask)
{
	struct {
		const sigset_t *mask;
		size_t bytes;
	} with = { mask, LAS_SIGSET_BYTES };

	if (!mask)
		return enter(SYS_io_getevents, L(ctx), min, nr, L(events), L(timeout), 0);
	return enter(SYS_io_pgetevents, L(ctx), min, nr, L(events), L(timeout), L(&with));
}

static long sys_io_cancel(uintptr_t ctx, struct las_iocb *iocb, struct las_event *result)
{
	return enter(SYS_io_cancel, L(ctx), L(iocb), L(result), 0, 0, 0);
}

static long sys_sigprocmask(int how, const void *set, void *old)
{
	return enter(SYS_rt_sigprocmask, how, L(set), L(old), LAS_SIGSET_BYTES, 0, 0);
}

static long sys_sigaltstack(const stack_t *stack, stack_t *old)
{
	return enter(SYS_sigaltstack, L(stack), L(old), 0, 0, 0, 0);
}

static long sys_sigtimedwait(const void *set, const struct timespec *timeout)
{
	return enter(SYS_rt_sigtimedwait, L(set), 0, L(timeout), LAS_SIGSET_BYTES, 0, 0);
}

static long sys_kill(int pid, int sig)
{
	return enter(SYS_kill, pid, sig, 0, 0, 0, 0);
}

static long sys_getpid(void)
{
	return enter(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

static long sys_gettid(void)
{
	return enter(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

static long sys_getrusage(int who, struct rusage *usage)
{
	return enter(SYS_getrusage, who, L(usage), 0, 0, 0, 0);
}

static long sys_ioprio_set(int which, int who, int ioprio)
{
	return enter(SYS_ioprio_set, which, who, ioprio, 0, 0, 0);
}

static long sys_ioprio_get(int which, int who)
{
	return enter(SYS_ioprio_get, which, who, 0, 0, 0, 0);
}

static long sys_sched_getaffinity(int pid, size_t bytes, void *mask)
{
	return enter(SYS_sched_getaffinity, pid, L(bytes), L(mask), 0, 0, 0);
}

static long sys_sched_setaffinity(int pid, size_t bytes, const void *mask)
{
	return enter(SYS_sched_setaffinity, pid, L(bytes), L(mask), 0, 0, 0);
}

static long sys_prlimit(int resource, void *old)
{
	return enter(SYS_prlimit64, 0, resource, 0, L(old), 0, 0);
}

static long sys_rseq(void *area, uint32_t bytes, int flags, uint32_t signature)
{
#ifdef SYS_rseq
	return enter(SYS_rseq, L(area), L(bytes), flags, L(signature), 0, 0);
#else
	return -EINVAL; /* headers before Linux 4.18: the C library that came with them makes no such call */
#endif
}

struct las_sys las_sys = {
	.preadv2 = sys_preadv2,
	.pwritev2 = sys_pwritev2,
	.fsync = sys_fsync,
	.fdatasync = sys_fdatasync,
	.ppoll = sys_ppoll,
	.fcntl = sys_fcntl,
	.close = sys_close,
	.fstat = sys_fstat,
	.fstatfs = sys_fstatfs,
	.fadvise = sys_fadvise,
	.kcmp_file = sys_kcmp_file,
	.kcmp = sys_kcmp,
	.eventfd2 = sys_eventfd2,
	.write = sys_write,
	.openat = sys_openat,
	.epoll_create1 = sys_epoll_create1,
	.epoll_ctl = sys_epoll_ctl,
	.epoll_pwait = sys_epoll_pwait,
	.futex = sys_futex,
	.mmap = sys_mmap,
	.mremap_dup = sys_mremap_dup,
	.munmap = sys_munmap,
	.mprotect = sys_mprotect,
	.madvise = sys_madvise,
	.io_setup = sys_io_setup,
	.io_destroy = sys_io_destroy,
	.io_submit = sys_io_submit,
	.io_getevents = sys_io_getevents,
	.io_cancel = sys_io_cancel,
	.sigprocmask = sys_sigprocmask,
	.sigaltstack = sys_sigaltstack,
	.sigtimedwait = sys_sigtimedwait,
	.kill = sys_kill,
	.getpid = sys_getpid,
	.gettid = sys_gettid,
	.getrusage = sys_getrusage,
	.ioprio_set = sys_ioprio_set,
	.ioprio_get = sys_ioprio_get,
	.sched_getaffinity = sys_sched_getaffinity,
	.sched_setaffinity = sys_sched_setaffinity,
	.prlimit = sys_prlimit,
	.rseq = sys_rseq,
#ifndef LAS_SYS_ENTER
	.thread_start = las_thread_start,
#endif
};

#ifndef LAS_SYS_ENTER
__attribute__((constructor)) static void use_traps_table(void)
{
	if (!&las_trap_sys)
		return;
	las_sys = las_trap_sys;
	las_sys.thread_start = las_thread_start; /* libaio_trap.so knows the engine's threads by who creates them */
}
#endif

int64_t las_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
