/*
 * abi.h - the kernel's binary interface, as <linux/aio_abi.h> and the ring in fs/aio.c lay it out.
 *
 * The program's own struct iocb and struct io_event (libaio.h) are the same
 * bytes under other names; these have one name per field and no unions.
 */
#ifndef LAS_BASE_ABI_H
#define LAS_BASE_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum {
	LAS_CMD_PREAD = 0,
	LAS_CMD_PWRITE = 1,
	LAS_CMD_FSYNC = 2,
	LAS_CMD_FDSYNC = 3,
	LAS_CMD_POLL = 5,
	LAS_CMD_NOOP = 6,
	LAS_CMD_PREADV = 7,
	LAS_CMD_PWRITEV = 8,
};

#define LAS_FLAG_RESFD 1u
#define LAS_FLAG_IOPRIO 2u

struct las_iocb {
	uint64_t data;
	uint32_t key;
	int32_t rw_flags;
	uint16_t opcode;
	int16_t reqprio;
	uint32_t fildes;
	uint64_t buf;
	uint64_t nbytes;
	int64_t offset;
	uint64_t reserved2;
	uint32_t flags;
	uint32_t resfd;
};

struct las_event {
	uint64_t data;
	uint64_t obj;
	int64_t res;
	int64_t res2;
};

#define LAS_RING_MAGIC 0xa10a10a1u

struct las_ring {
	uint32_t id;
	uint32_t nr;
	uint32_t head; /* the program may write it */
	uint32_t tail;
	uint32_t magic;
	uint32_t compat_features;
	uint32_t incompat_features;
	uint32_t header_length;
	struct las_event events[];
};

#define LAS_ABI(type, field, at) static_assert(offsetof(struct type, field) == (at), #type "." #field)

LAS_ABI(las_iocb, data, 0);
LAS_ABI(las_iocb, key, 8);
LAS_ABI(las_iocb, rw_flags, 12);
LAS_ABI(las_iocb, opcode, 16);
LAS_ABI(las_iocb, reqprio, 18);
LAS_ABI(las_iocb, fildes, 20);
LAS_ABI(las_iocb, buf, 24);
LAS_ABI(las_iocb, nbytes, 32);
LAS_ABI(las_iocb, offset, 40);
LAS_ABI(las_iocb, reserved2, 48);
LAS_ABI(las_iocb, flags, 56);
LAS_ABI(las_iocb, resfd, 60);
static_assert(sizeof(struct las_iocb) == 64, "struct iocb");
static_assert(sizeof(struct las_event) == 32, "struct io_event");
LAS_ABI(las_ring, head, 8);
LAS_ABI(las_ring, tail, 12);
LAS_ABI(las_ring, magic, 16);
LAS_ABI(las_ring, header_length, 28);
LAS_ABI(las_ring, events, 32);
/* Little-endian order of key and rw_flags; big-endian machines swap them and are not supported. */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && sizeof(void *) == 8, "64-bit little-endian Linux");

#endif
