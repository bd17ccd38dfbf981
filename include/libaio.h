/*
 * libaio.h - the interface of libaio 0.3.113, written afresh from its ABI.
 *
 * Same names, same layouts, same helpers: a program includes this header or
 * the one of the system and cannot tell which.  The records are those of the
 * kernel (linux/aio_abi.h), seen through pointers and longs; tests/abi holds
 * every offset, size and value against the system's header.
 *
 * Compiles as C89 (also with -pedantic), every later C, and C++.
 */
#ifndef __LIBAIO_H /* the name that libaio uses, so that including both headers is harmless */
#define __LIBAIO_H

#include <signal.h>
#include <string.h>
#include <sys/select.h> /* sigset_t and struct timespec even where -std=c89 hides them in signal.h and time.h */
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sockaddr;
struct iovec;
struct timespec;

/* Points at the completion ring, which programs may read and advance themselves; see docs/design.md. */
typedef struct io_context *io_context_t;

typedef enum io_iocb_cmd {
	IO_CMD_PREAD = 0,
	IO_CMD_PWRITE = 1,
	IO_CMD_FSYNC = 2,
	IO_CMD_FDSYNC = 3,
	/* 4 was never given out by a released kernel */
	IO_CMD_POLL = 5,
	IO_CMD_NOOP = 6,
	IO_CMD_PREADV = 7,
	IO_CMD_PWRITEV = 8
} io_iocb_cmd_t;

/*
 * The kernel's records have 64-bit slots on every machine.  LIBAIO_WORD and
 * LIBAIO_PTR put a C object of the machine's own width into the low half of
 * such a slot, LIBAIO_PAIR shares a slot between two 32-bit objects, of which
 * the first is the low half.  What is left over gets the name given last.
 */
#if defined(__BYTE_ORDER__) && defined(__ORDER_LITTLE_ENDIAN__) && defined(__ORDER_BIG_ENDIAN__)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LIBAIO_LITTLE 1
#elif __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LIBAIO_LITTLE 0
#endif
#endif
#if !defined(LIBAIO_LITTLE)
#error "libaio.h: this compiler does not tell the byte order (__BYTE_ORDER__)"
#endif

#if defined(__SIZEOF_LONG__) && defined(__SIZEOF_POINTER__) && __SIZEOF_LONG__ == __SIZEOF_POINTER__
#define LIBAIO_WORD_BYTES __SIZEOF_LONG__
#else
#error "libaio.h: a machine whose long and pointer differ in width (or a compiler that does not tell)"
#endif

#if LIBAIO_LITTLE
#define LIBAIO_PAIR(type, low, high) \
	type low;                    \
	unsigned high
#else
#define LIBAIO_PAIR(type, low, high) \
	unsigned high;               \
	type low
#endif

#if LIBAIO_WORD_BYTES == 8
#define LIBAIO_PTR(pointer, pad) pointer
#define LIBAIO_WORD(word, pad) unsigned long word
#elif LIBAIO_LITTLE
#define LIBAIO_PTR(pointer, pad) \
	pointer;                 \
	unsigned pad
#define LIBAIO_WORD(word, pad) \
	unsigned long word;    \
	unsigned pad
#else
#define LIBAIO_PTR(pointer, pad) \
	unsigned pad;            \
	pointer
#define LIBAIO_WORD(word, pad) \
	unsigned pad;          \
	unsigned long word
#endif

/* C89 and C++98 have no long long of their own: named once, here, so that -pedantic stays quiet. */
#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wlong-long"
#endif
typedef long long libaio_int64;
#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif

/* IO_CMD_POLL; the event's res is the mask of what is ready. */
struct io_iocb_poll {
	LIBAIO_PAIR(int, events, __pad1);
};

/* No released kernel has an opcode that uses it. */
struct io_iocb_sockaddr {
	LIBAIO_PTR(struct sockaddr *addr, __pad1);
	LIBAIO_WORD(len, __pad2);
};

/* IO_CMD_PREAD, PWRITE, FSYNC, FDSYNC; the event's res is the number of bytes. */
struct io_iocb_common {
	LIBAIO_PTR(void *buf, __pad1);
	LIBAIO_WORD(nbytes, __pad2);
	libaio_int64 offset;
	libaio_int64 __pad3; /* must be 0 */
	unsigned flags;      /* 1: resfd is an eventfd to raise; 2: aio_reqprio counts */
	unsigned resfd;
};

/* IO_CMD_PREADV, PWRITEV: the same slots, nr counts segments. */
struct io_iocb_vector {
	LIBAIO_PTR(const struct iovec *vec, __pad1);
	LIBAIO_WORD(nr, __pad2);
	libaio_int64 offset;
};

/* One request. */
struct iocb {
	LIBAIO_PTR(void *data, __pad1); /* handed back in the event */
	/* key: the kernel's, written at submit.  aio_rw_flags: RWF_* of preadv2(2). */
	LIBAIO_PAIR(unsigned, key, aio_rw_flags);

	short aio_lio_opcode; /* enum io_iocb_cmd */
	short aio_reqprio;
	int aio_fildes;

	union {
		struct io_iocb_common c;
		struct io_iocb_vector v;
		struct io_iocb_poll poll;
		struct io_iocb_sockaddr saddr;
	} u;
};

/* One result.  res is declared unsigned, as ever, and holds a negative errno after an error: read it as a long. */
struct io_event {
	LIBAIO_PTR(void *data, __pad1);
	LIBAIO_PTR(struct iocb *obj, __pad2);
	LIBAIO_WORD(res, __pad3);
	LIBAIO_WORD(res2, __pad4);
};

/* The sixth argument of the io_pgetevents system call, on 64-bit kernels and for 32-bit programs on them. */
struct io_sigset {
	unsigned long ss;
	unsigned long ss_len;
};

struct io_sigset_compat {
	LIBAIO_PTR(unsigned long ss, __ss_pad);
	unsigned long ss_len;
};

#undef LIBAIO_PAIR
#undef LIBAIO_PTR
#undef LIBAIO_WORD
#undef LIBAIO_WORD_BYTES
#undef LIBAIO_LITTLE

/* What io_queue_run calls for each event; kept in iocb.data. */
typedef void (*io_callback_t)(io_context_t ctx, struct iocb *iocb, long res, long res2);

/* All return a negative errno on error and leave errno alone; see docs/kernel-differences.md and io_submit(2). */
extern int io_setup(int maxevents, io_context_t *ctxp);
extern int io_destroy(io_context_t ctx);
extern int io_submit(io_context_t ctx, long nr, struct iocb *ios[]);
extern int io_cancel(io_context_t ctx, struct iocb *iocb, struct io_event *evt);
extern int io_getevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout);
extern int io_pgetevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout,
                         sigset_t *sigmask);

/* io_setup without the demand that *ctxp be 0 before; io_destroy; and "call the callback of whatever is ready". */
extern int io_queue_init(int maxevents, io_context_t *ctxp);
extern int io_queue_release(io_context_t ctx);
extern int io_queue_run(io_context_t ctx);

/* C89 has no inline; every compiler that tells its byte order as above has __inline__. */
#define LIBAIO_INLINE static __inline__

LIBAIO_INLINE void io_set_callback(struct iocb *iocb, io_callback_t cb)
{
	/* A function pointer is no object pointer in ISO C; its bytes may be copied all the same. */
	memcpy(&iocb->data, &cb, sizeof(iocb->data));
}

LIBAIO_INLINE void io_set_eventfd(struct iocb *iocb, int eventfd)
{
	iocb->u.c.flags |= 1U; /* IOCB_FLAG_RESFD */
	iocb->u.c.resfd = (unsigned)eventfd;
}

LIBAIO_INLINE void io_prep_pread(struct iocb *iocb, int fd, void *buf, size_t count, libaio_int64 offset)
{
	memset(iocb, 0, sizeof(*iocb));
	iocb->aio_lio_opcode = IO_CMD_PREAD;
	iocb->aio_fildes = fd;
	iocb->u.c.buf = buf;
	iocb->u.c.nbytes = count;
	iocb->u.c.offset = offset;
}

LIBAIO_INLINE void io_prep_pwrite(struct iocb *iocb, int fd, void *buf, size_t count, libaio_int64 offset)
{
	io_prep_pread(iocb, fd, buf, count, offset);
	iocb->aio_lio_opcode = IO_CMD_PWRITE;
}

LIBAIO_INLINE void io_prep_preadv2(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, libaio_int64 offset,
                                   int flags)
{
	memset(iocb, 0, sizeof(*iocb));
	iocb->aio_lio_opcode = IO_CMD_PREADV;
	iocb->aio_rw_flags = (unsigned)flags;
	iocb->aio_fildes = fd;
	iocb->u.v.vec = iov;
	iocb->u.v.nr = (unsigned long)iovcnt;
	iocb->u.v.offset = offset;
}

LIBAIO_INLINE void io_prep_pwritev2(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, libaio_int64 offset,
                                    int flags)
{
	io_prep_preadv2(iocb, fd, iov, iovcnt, offset, flags);
	iocb->aio_lio_opcode = IO_CMD_PWRITEV;
}

LIBAIO_INLINE void io_prep_preadv(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, libaio_int64 offset)
{
	io_prep_preadv2(iocb, fd, iov, iovcnt, offset, 0);
}

LIBAIO_INLINE void io_prep_pwritev(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, libaio_int64 offset)
{
	io_prep_pwritev2(iocb, fd, iov, iovcnt, offset, 0);
}

LIBAIO_INLINE void io_prep_fsync(struct iocb *iocb, int fd)
{
	memset(iocb, 0, sizeof(*iocb));
	iocb->aio_lio_opcode = IO_CMD_FSYNC;
	iocb->aio_fildes = fd;
}

LIBAIO_INLINE void io_prep_fdsync(struct iocb *iocb, int fd)
{
	io_prep_fsync(iocb, fd);
	iocb->aio_lio_opcode = IO_CMD_FDSYNC;
}

LIBAIO_INLINE void io_prep_poll(struct iocb *iocb, int fd, int events)
{
	memset(iocb, 0, sizeof(*iocb));
	iocb->aio_lio_opcode = IO_CMD_POLL;
	iocb->aio_fildes = fd;
	iocb->u.poll.events = events;
}

/* Prepare, set the callback, submit: 1 or a negative errno. */
LIBAIO_INLINE int io_poll(io_context_t ctx, struct iocb *iocb, io_callback_t cb, int fd, int events)
{
	io_prep_poll(iocb, fd, events);
	io_set_callback(iocb, cb);
	return io_submit(ctx, 1, &iocb);
}

LIBAIO_INLINE int io_fsync(io_context_t ctx, struct iocb *iocb, io_callback_t cb, int fd)
{
	io_prep_fsync(iocb, fd);
	io_set_callback(iocb, cb);
	return io_submit(ctx, 1, &iocb);
}

LIBAIO_INLINE int io_fdsync(io_context_t ctx, struct iocb *iocb, io_callback_t cb, int fd)
{
	io_prep_fdsync(iocb, fd);
	io_set_callback(iocb, cb);
	return io_submit(ctx, 1, &iocb);
}

#undef LIBAIO_INLINE

#ifdef __cplusplus
}
#endif

#endif
