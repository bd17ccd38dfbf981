/*
 * aio_calls.h - the calls, for programs in the style of real AIO users.
 *
 * With RAW=0 a program calls libaio; with RAW=1 it makes the system calls
 * through syscall(), as nginx, Seastar, stress-ng and many others do.  Either
 * way a call returns the result or a negative errno.  The types are libaio's.
 */
#ifndef AIO_CALLS_H
#define AIO_CALLS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096 };

#define CHECK(condition)                                                                                        \
	do {                                                                                                    \
		if (!(condition)) {                                                                             \
			fprintf(stderr, "%s:%d: %s does not hold (errno %d)\n", __FILE__, __LINE__, #condition, \
			        errno);                                                                         \
			exit(1);                                                                                \
		}                                                                                               \
	} while (0)

static inline int raw(long number, long a, long b, long c, long d, long e)
{
	long result = syscall(number, a, b, c, d, e);

	return result == -1 ? -errno : (int)result;
}

static inline int aio_setup(unsigned n, io_context_t *ctx)
{
	return RAW ? raw(SYS_io_setup, n, (long)ctx, 0, 0, 0) : io_setup((int)n, ctx);
}

static inline int aio_destroy(io_context_t ctx)
{
	return RAW ? raw(SYS_io_destroy, (long)ctx, 0, 0, 0, 0) : io_destroy(ctx);
}

static inline int aio_submit(io_context_t ctx, long n, struct iocb **list)
{
	return RAW ? raw(SYS_io_submit, (long)ctx, n, (long)list, 0, 0) : io_submit(ctx, n, list);
}

static inline int aio_cancel(io_context_t ctx, struct iocb *iocb, struct io_event *event)
{
	return RAW ? raw(SYS_io_cancel, (long)ctx, (long)iocb, (long)event, 0, 0) : io_cancel(ctx, iocb, event);
}

static inline int aio_getevents(io_context_t ctx, long min, long n, struct io_event *events, struct timespec *timeout)
{
	return RAW ? raw(SYS_io_getevents, (long)ctx, min, n, (long)events, (long)timeout)
	           : io_getevents(ctx, min, n, events, timeout);
}

/* The ring behind io_context_t, as all who read it declare it. */
struct aio_ring {
	unsigned id, nr;
	unsigned head, tail;
	unsigned magic, compat, incompat, header_bytes;
	struct io_event events[];
};

/* What the block at that offset of the test file begins with. */
static inline void stamp(void *block, uint64_t offset)
{
	memcpy(block, &offset, sizeof(offset));
}

static inline int has_stamp(const void *block, uint64_t offset)
{
	return memcmp(block, &offset, sizeof(offset)) == 0;
}

static inline void *blocks(size_t n)
{
	void *memory = NULL;

	CHECK(posix_memalign(&memory, BLOCK, n * BLOCK) == 0);
	memset(memory, 0, n * BLOCK);
	return memory;
}

static inline uint64_t next_random(void)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Every program: PROGRAM FILE [direct].  Opens FILE, a file of stamped blocks; `count` is how many it has. */
static inline int open_file(int argc, char **argv, uint64_t *count)
{
	int fd;

	CHECK(argc == 2 || argc == 3);
	fd = open(argv[1], O_RDWR | (argc == 3 ? O_DIRECT : 0));
	CHECK(fd >= 0);
	*count = (uint64_t)lseek(fd, 0, SEEK_END) / BLOCK;
	CHECK(*count > 0);
	return fd;
}

#endif
