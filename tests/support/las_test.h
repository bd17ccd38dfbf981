/*
 * las_test.h - the harness of the C tests: named cases, checks that say what they saw, and the few helpers that nearly
 * every case needs.
 *
 * A program is a list of TEST(name) { ... } blocks.  `prog --list` prints the names, `prog NAME` runs that one case in
 * this process and exits 0 (pass), 1 (fail) or 77 (skip, reason on stdout).  One case is one process, so a case may do
 * what it likes to its signals, limits, credentials and descriptors.
 *
 * After a case that passed, the harness destroys the contexts made by t_context(), closes the descriptors handed to
 * t_own() and then wants to see exactly the descriptors that were open before: whatever else is open has leaked.
 *
 * The kernel's AIO is the oracle.  Where the shim rightly differs the case says DIFFERS("name"), which is true when the
 * shim answers; the name must have its section in docs/kernel-differences.md.
 */
#ifndef LAS_TEST_H
#define LAS_TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- cases ---- */

struct t_case {
	const char *name;
	void (*run)(void);
	struct t_case *next;
};

void t_register(struct t_case *c);

#define TEST(id)                                                     \
	static void case_##id(void);                                 \
	static struct t_case reg_##id = { #id, case_##id, NULL };    \
	__attribute__((constructor)) static void register_##id(void) \
	{                                                            \
		t_register(&reg_##id);                               \
	}                                                            \
	static void case_##id(void)

__attribute__((noreturn, format(printf, 3, 4))) void t_fail(const char *file, int line, const char *format, ...);
__attribute__((noreturn, format(printf, 1, 2))) void t_skip(const char *format, ...);

#define FAIL(...) t_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(...) t_skip(__VA_ARGS__)
#define CHECK(condition)                                                                         \
	do {                                                                                     \
		if (!(condition))                                                                \
			FAIL("%s is false (errno now: %s)", #condition, strerrorname_np(errno)); \
	} while (0)
#define CHECK_EQ(got, want)                                                        \
	do {                                                                       \
		long long t_got = (long long)(got), t_want = (long long)(want);    \
		if (t_got != t_want)                                               \
			t_fail_eq(__FILE__, __LINE__, #got, t_got, #want, t_want); \
	} while (0)
/* The call must have returned this negative errno, or this count. */
#define CHECK_RET(got, want) CHECK_EQ(got, want)

__attribute__((noreturn)) void t_fail_eq(const char *file, int line, const char *got_text, long long got,
                                         const char *want_text, long long want);

/* ---- who answers ---- */

/* True if the shim's engine is in this process, whatever the way it came in. */
bool is_shim(void);
#define DIFFERS(name) is_shim()

/* The system call, past any library; for arguments that the system's libaio itself would look at and crash on. */
long raw_getevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout);
/* The same through the library when the shim answers: it looks every handle up before it touches it. */
long any_getevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout);

/* ---- the ring as programs see it ---- */

struct t_ring {
	uint32_t id;
	uint32_t nr;
	uint32_t head;
	uint32_t tail;
	uint32_t magic;
	uint32_t compat_features;
	uint32_t incompat_features;
	uint32_t header_length;
	struct io_event events[];
};

struct t_ring *t_ring(io_context_t ctx);
/* Events between head and tail, as a program that peeks computes it. */
unsigned t_ring_count(io_context_t ctx);
/* Waits until that many events are visible, calling nothing of libaio. */
void t_ring_wait(io_context_t ctx, unsigned count);

/* ---- contexts and requests ---- */

io_context_t t_context(int nr_events);
/* io_submit of exactly one. */
int t_submit(io_context_t ctx, struct iocb *iocb);
/* Submits one, waits for its event with no time limit, checks that it is this request's, and returns res. */
long t_run(io_context_t ctx, struct iocb *iocb);
/* Waits without time limit for exactly n events. */
void t_reap(io_context_t ctx, long n, struct io_event *events);
/* Waits for one event and returns its res. */
long t_reap_one(io_context_t ctx);
/* Looks for a little while and fails if an event appears. */
void t_no_event(io_context_t ctx);
long t_pread(io_context_t ctx, int fd, void *buf, size_t count, long long offset);
long t_pwrite(io_context_t ctx, int fd, const void *buf, size_t count, long long offset);
static inline long t_res(const struct io_event *event)
{
	return (long)event->res;
}

/* aio_flags and the flag that asks for aio_reqprio. */
#define T_FLAG_RESFD 1u
#define T_FLAG_IOPRIO 2u

/* ---- descriptors and files ---- */

int t_own(int fd);
void t_close(int fd);
/* A new file of that size filled as by t_fill(), seed 0, open O_RDWR, in the case's own directory. */
int t_file(const char *name, size_t bytes);
int t_open(const char *path, int flags);
/* The byte that t_file() puts at an offset; seed tells files apart. */
unsigned char t_byte(unsigned seed, size_t offset);
void t_fill(void *buf, size_t bytes, unsigned seed, size_t offset);
void t_check_pattern(const void *buf, size_t bytes, unsigned seed, size_t offset);
/* Page-aligned, zeroed memory; freed with the process. */
void *t_pages(size_t bytes);
/* An address inside a mapping without any access. */
void *t_no_access(void);
/* A read-only copy of something. */
void *t_read_only(const void *data, size_t bytes);
/* Number of open descriptors. */
int t_count_fds(void);
/* The directory in an environment variable that the test run sets up, or a skip. */
const char *t_directory(const char *variable);
void t_need_root(void);

/* ---- the stalling FUSE file system (tests/support/stallfs.c) ---- */

/* Its mount point, or a skip. */
const char *t_stall(void);
/* From now on reads, writes and fsyncs are kept waiting, until the release. */
void t_stall_hold(void);
void t_stall_hold_fsync(void);
/* The same, and for what else asks the server: how large a file is, what the file system is, closing. */
void t_stall_hold_all(void);
void t_stall_release(void);
/* From now on each is answered that much later. */
void t_stall_delay(int ms);
struct t_stall_counts {
	int held;
	unsigned long reads, writes, fsyncs;
};
struct t_stall_counts t_stall_counts(void);
/* Waits until exactly that many are kept. */
void t_stall_wait(int held);
/* Releases, from a thread, after a while; for what cannot go on by itself. */
pthread_t t_stall_release_later(int ms);
/* A new file there of that size with the pattern, opened with these flags; nothing of it in the page cache. */
int t_stall_file(const char *name, size_t bytes, int flags);

/* ---- threads and processes ---- */

pthread_t t_thread(void *(*run)(void *), void *arg);
void t_join(pthread_t thread);
/* Waits for a child that must exit with 0. */
void t_wait_ok(pid_t pid);
/* This program again in a fresh process, running `name`; its wait status. */
int t_again(const char *name);
void t_sleep_ms(int ms);
int64_t t_now_ms(void);
/* Waits until the thread sleeps in the kernel, so that what follows finds it waiting. */
void t_wait_asleep(pid_t tid);

#endif
