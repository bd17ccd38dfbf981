/*
 * prototypes.c - every declaration of <libaio.h> once more, as libaio 0.3.113 has it: a compiler refuses what differs.
 *
 * Also includes the header twice, assigns each helper to a pointer of its exact type, and is compiled as every C and as
 * C++, with our header and with the system's.
 */
/* Twice on purpose. */
/* clang-format off */
#include <libaio.h>
#include <libaio.h>
/* clang-format on */

#ifdef __cplusplus
extern "C" {
#endif

extern int io_setup(int, io_context_t *);
extern int io_destroy(io_context_t);
extern int io_submit(io_context_t, long, struct iocb **);
extern int io_cancel(io_context_t, struct iocb *, struct io_event *);
extern int io_getevents(io_context_t, long, long, struct io_event *, struct timespec *);
extern int io_pgetevents(io_context_t, long, long, struct io_event *, struct timespec *, sigset_t *);
extern int io_queue_init(int, io_context_t *);
extern int io_queue_release(io_context_t);
extern int io_queue_run(io_context_t);

/* The two are one function only if the types are the same. */
extern int typedefs(io_context_t, io_callback_t, io_iocb_cmd_t);
extern int typedefs(struct io_context *, void (*)(struct io_context *, struct iocb *, long, long), enum io_iocb_cmd);

#ifdef __cplusplus
}
#endif

typedef void (*prep_plain)(struct iocb *, int, void *, size_t, long long);
typedef void (*prep_vector)(struct iocb *, int, const struct iovec *, int, long long);
typedef void (*prep_vector2)(struct iocb *, int, const struct iovec *, int, long long, int);
typedef void (*prep_fd)(struct iocb *, int);
typedef void (*prep_poll)(struct iocb *, int, int);
typedef int (*submit_poll)(io_context_t, struct iocb *, io_callback_t, int, int);
typedef int (*submit_fd)(io_context_t, struct iocb *, io_callback_t, int);
typedef void (*set_callback)(struct iocb *, io_callback_t);

struct helpers {
	prep_plain pread, pwrite;
	prep_vector preadv, pwritev;
	prep_vector2 preadv2, pwritev2;
	prep_fd fsync, fdsync, eventfd;
	prep_poll poll;
	submit_poll do_poll;
	submit_fd do_fsync, do_fdsync;
	set_callback callback;
};

void fill(struct helpers *h);

void fill(struct helpers *h)
{
	h->pread = io_prep_pread;
	h->pwrite = io_prep_pwrite;
	h->preadv = io_prep_preadv;
	h->pwritev = io_prep_pwritev;
	h->preadv2 = io_prep_preadv2;
	h->pwritev2 = io_prep_pwritev2;
	h->fsync = io_prep_fsync;
	h->fdsync = io_prep_fdsync;
	h->eventfd = io_set_eventfd;
	h->poll = io_prep_poll;
	h->do_poll = io_poll;
	h->do_fsync = io_fsync;
	h->do_fdsync = io_fdsync;
	h->callback = io_set_callback;
}

/* The types of the members, and the names inside. */
struct members {
	void **data;
	unsigned *key, *rw_flags;
	short *opcode, *reqprio;
	int *fd, *poll_events;
	struct io_iocb_common *c;
	void **buf;
	unsigned long *nbytes, *nr, *len;
	long long *offset, *v_offset;
	unsigned *flags, *resfd;
	const struct iovec **vec;
	struct sockaddr **addr;
	struct iocb **obj;
	unsigned long *res, *res2;
};

void point(struct members *m, struct iocb *iocb, struct io_event *event);

void point(struct members *m, struct iocb *iocb, struct io_event *event)
{
	m->data = &iocb->data;
	m->key = &iocb->key;
	m->rw_flags = &iocb->aio_rw_flags;
	m->opcode = &iocb->aio_lio_opcode;
	m->reqprio = &iocb->aio_reqprio;
	m->fd = &iocb->aio_fildes;
	m->poll_events = &iocb->u.poll.events;
	m->c = &iocb->u.c;
	m->buf = &iocb->u.c.buf;
	m->nbytes = &iocb->u.c.nbytes;
	m->offset = &iocb->u.c.offset;
	m->flags = &iocb->u.c.flags;
	m->resfd = &iocb->u.c.resfd;
	m->vec = &iocb->u.v.vec;
	m->nr = &iocb->u.v.nr;
	m->v_offset = &iocb->u.v.offset;
	m->addr = &iocb->u.saddr.addr;
	m->len = &iocb->u.saddr.len;
	m->data = &event->data;
	m->obj = &event->obj;
	m->res = &event->res;
	m->res2 = &event->res2;
}
