/* chance.c - see chance.h. */
#include "chance.h"

#include <linux/fs.h>
#include <poll.h>

#define KERNEL_HALF ((void *)0xffff888000000000)
#define USER_END ((void *)0x7ffffffff000)

uint64_t c_next(struct c_source *source)
{
	/* splitmix64 */
	uint64_t z = (source->state += 0x9e3779b97f4a7c15u);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

unsigned c_below(struct c_source *source, unsigned n)
{
	return (unsigned)(c_next(source) % n);
}

bool c_one_in(struct c_source *source, unsigned n)
{
	return c_below(source, n) == 0;
}

uint64_t c_setting(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static char *no_access;

__attribute__((constructor)) static void make_no_access(void)
{
	no_access = t_no_access();
}

char *c_unmapped(void)
{
	return no_access;
}

void c_place_init(struct c_place *place)
{
	place->arena = t_pages(C_ARENA + 4096);
	CHECK_EQ(mprotect(place->arena + C_ARENA, 4096, PROT_NONE), 0);
}

/* An address that is the same for all places, or else an offset into the arena. */
struct address {
	void *fixed;
	bool is_fixed;
	size_t offset;
};

static struct address draw_address(struct c_source *source)
{
	static const size_t offsets[] = { 0, 0, 0, 512, 4096, 1, 17 };
	static const struct iovec constant;

	switch (c_below(source, 12)) {
	case 0:
		return (struct address){ .is_fixed = true };
	case 1:
		return (struct address){ .fixed = c_unmapped(), .is_fixed = true };
	case 2:
		return (struct address){ .fixed = c_one_in(source, 2) ? KERNEL_HALF : USER_END, .is_fixed = true };
	case 3:
		/* Can be read, but not written. */
		return (struct address){ .fixed = (void *)(uintptr_t)&constant, .is_fixed = true };
	default:
		return (struct address){ .offset = C_PICK(source, offsets) };
	}
}

static void *made_out(const struct address *address, const struct c_place *place)
{
	return address->is_fixed ? address->fixed : place->arena + address->offset;
}

static int64_t draw_offset(struct c_source *source)
{
	static const int64_t usual[] = { 0, 0, 0, 0, 512, 4096, 1, 19999, 20000, 24096, 8192 };
	static const int64_t odd[] = { -1, INT64_MIN, INT64_MAX, INT64_MAX - 4096, 1ll << 50, 1ll << 43 };

	return c_one_in(source, 12) ? C_PICK(source, odd) : C_PICK(source, usual);
}

static uint64_t draw_length(struct c_source *source)
{
	static const uint64_t usual[] = { 0, 1, 7, 8, 9, 512, 4096, 4096, 8192, 4097, 20000 };
	static const uint64_t odd[] = { INT64_MAX, UINT64_MAX, 0x80000000u, 0x7ffff000u, 0x8000000000000000u };

	return c_one_in(source, 14) ? C_PICK(source, odd) : C_PICK(source, usual);
}

static void make_vector(struct c_source *source, struct c_place *const *places, unsigned n)
{
	static const unsigned counts[] = { 0, 1, 1, 2, 2, 3, 5, 8, 1024, 1025 };
	unsigned count = C_PICK(source, counts);
	void *elsewhere = c_one_in(source, 30) ? c_one_in(source, 2) ? KERNEL_HALF : c_unmapped() : NULL;

	for (unsigned i = 0; i < count; i++) {
		struct address address = { .offset = i * 16 };
		uint64_t length = count > 8 ? 16 : draw_length(source);

		if (count <= 8 && c_one_in(source, 8))
			address = draw_address(source);
		for (unsigned p = 0; p < n; p++)
			places[p]->iov[i] = (struct iovec){ made_out(&address, places[p]), length };
	}
	for (unsigned p = 0; p < n; p++) {
		places[p]->iocb.u.c.buf = elsewhere ? elsewhere : places[p]->iov;
		places[p]->iocb.u.c.nbytes = count;
	}
}

static void make_transfer(struct c_source *source, struct c_place *const *places, unsigned n)
{
	static const int all_flags[] = { 0,
		                         0,
		                         0,
		                         0,
		                         0,
		                         0,
		                         RWF_HIPRI,
		                         RWF_DSYNC,
		                         RWF_SYNC,
		                         RWF_NOWAIT,
		                         RWF_NOWAIT,
		                         RWF_APPEND,
		                         0x20 /* RWF_NOAPPEND */,
		                         RWF_APPEND | 0x20,
		                         0x40 /* RWF_ATOMIC */,
		                         0x80 /* RWF_DONTCACHE */,
		                         0x100,
		                         1 << 30,
		                         -1,
		                         RWF_NOWAIT | RWF_APPEND,
		                         RWF_DSYNC | RWF_NOWAIT };
	struct address buffer = draw_address(source);
	int64_t offset = draw_offset(source);
	uint64_t length = draw_length(source);
	int flags = C_PICK(source, all_flags);

	for (unsigned p = 0; p < n; p++) {
		struct iocb *iocb = &places[p]->iocb;

		iocb->aio_rw_flags = (unsigned)flags;
		iocb->u.c.buf = made_out(&buffer, places[p]);
		iocb->u.c.nbytes = length;
		iocb->u.c.offset = offset;
	}
}

/* Most syncs and polls are as they should be: whatever else is set is refused. */
static void clean(struct c_place *const *places, unsigned n, unsigned mask)
{
	for (unsigned p = 0; p < n; p++) {
		memset(&places[p]->iocb.u, 0, sizeof(places[p]->iocb.u));
		places[p]->iocb.aio_rw_flags = 0;
		places[p]->iocb.u.c.buf = (void *)(uintptr_t)mask;
	}
}

static unsigned draw_mask(struct c_source *source)
{
	static const unsigned masks[] = { POLLIN, POLLOUT, POLLIN | POLLOUT, POLLPRI, 0, 0xffff, POLLRDHUP, POLLERR };

	return c_one_in(source, 20) ? 0x10001 : C_PICK(source, masks);
}

static void make_extras(struct c_source *source, struct c_place *const *places, unsigned n)
{
	static const short priorities[] = { 0, 1, 0x2000, 0x2004, 0x4000, 0x4007, 0x6000, 0x6007, 0x7fff, -0x8000, -1 };
	bool reserved = c_one_in(source, 40), key = c_one_in(source, 20), odd_bits = c_one_in(source, 30);
	bool has_priority = c_one_in(source, 10), asks_for_it = has_priority && !c_one_in(source, 3);
	short priority = has_priority ? C_PICK(source, priorities) : (short)0;
	unsigned notify = c_one_in(source, 6) ? 1 + c_below(source, 10) : 0;

	for (unsigned p = 0; p < n; p++) {
		struct iocb *iocb = &places[p]->iocb;

		iocb->u.c.__pad3 = reserved;
		iocb->key = key ? 77 : 0;
		iocb->aio_reqprio = priority;
		iocb->u.c.flags =
			(asks_for_it ? T_FLAG_IOPRIO : 0) | (odd_bits ? 0xfffffff8 : 0) | (notify ? T_FLAG_RESFD : 0);
		iocb->u.c.resfd = notify == 1   ? (unsigned)places[p]->fd
		                  : notify == 2 ? 888u
		                  : notify      ? (unsigned)places[p]->eventfd
		                                : 0;
	}
}

/* Where io_submit is told that the iocb is. */
static void place_iocb(struct c_source *source, struct c_place *place, unsigned how)
{
	place->user = how == 0   ? (struct iocb *)(void *)c_unmapped()
	              : how == 1 ? t_read_only(&place->iocb, sizeof(place->iocb))
	                         : &place->iocb;
}

void c_request(struct c_source *source, struct c_place *const *places, unsigned n)
{
	static const short opcodes[] = { 0, 0, 0, 1, 1, 1, 2, 3, 5, 5, 7, 7, 8, 8, 4, 6, 9, -1 };
	short opcode = C_PICK(source, opcodes);
	unsigned how;

	for (unsigned p = 0; p < n; p++) {
		memset(&places[p]->iocb, 0, sizeof(places[p]->iocb));
		places[p]->iocb.data = (void *)(uintptr_t)0x1234;
		places[p]->iocb.aio_lio_opcode = opcode;
		places[p]->iocb.aio_fildes = places[p]->fd;
	}
	make_transfer(source, places, n);
	if (opcode == 7 || opcode == 8)
		make_vector(source, places, n);
	if ((opcode == 2 || opcode == 3) && !c_one_in(source, 5))
		clean(places, n, 0);
	if (opcode == 5 && !c_one_in(source, 6))
		clean(places, n, draw_mask(source));
	make_extras(source, places, n);
	how = c_below(source, 100);
	for (unsigned p = 0; p < n; p++)
		place_iocb(source, places[p], how);
}

uint64_t c_asked_for(const struct c_place *place)
{
	const struct iocb *c = &place->iocb;
	uint64_t bytes = 0;

	if (c->aio_lio_opcode < 7)
		return c->u.c.nbytes;
	for (unsigned i = 0; c->u.c.buf == place->iov && i < c->u.c.nbytes; i++)
		bytes += place->iov[i].iov_len;
	return bytes;
}
