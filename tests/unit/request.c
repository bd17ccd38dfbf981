/* request.c - decoding an iocb: each rule of the kernel's, and the op that comes out.  No file is touched. */
#include "unit.h"

#include <linux/fs.h>
#include <linux/ioprio.h>
#include <poll.h>

#include "aio/request.h"

static struct las_file file;
static struct las_iocb iocb;
static struct las_op op;
static char buffer[8192];

static void prepare(uint16_t opcode)
{
	u_start();
	file = (struct las_file){ .fd = 0, .flags = O_RDWR };
	iocb = (struct las_iocb){
		.data = 1, .opcode = opcode, .buf = (uint64_t)(uintptr_t)buffer, .nbytes = 4096, .offset = 8192
	};
	if (opcode >= LAS_CMD_FSYNC && opcode <= LAS_CMD_POLL)
		iocb.buf = iocb.nbytes = (uint64_t)(iocb.offset = 0);
}

/* The answer to the iocb as it stands; the op's memory is given back. */
static int decode(void)
{
	int err = las_request_decode(&iocb, &file, &op);

	if (!err)
		las_op_fini(&op);
	return err;
}

TEST(reserved_bits_and_huge_lengths_are_refused_first)
{
	prepare(LAS_CMD_PREAD);
	CHECK_RET(las_request_check(&iocb), 0);
	iocb.reserved2 = 1;
	CHECK_RET(las_request_check(&iocb), -EINVAL);
	iocb.reserved2 = (uint64_t)1 << 63;
	CHECK_RET(las_request_check(&iocb), -EINVAL);
	iocb.reserved2 = 0;
	iocb.nbytes = INT64_MAX;
	CHECK_RET(las_request_check(&iocb), 0);
	iocb.nbytes = (uint64_t)INT64_MAX + 1;
	CHECK_RET(las_request_check(&iocb), -EINVAL);
}

TEST(unknown_opcodes_are_refused)
{
	static const uint16_t opcodes[] = { 4, LAS_CMD_NOOP, 9, 10, 255, 0xffff };

	for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++) {
		prepare(opcodes[i]);
		CHECK_RET(decode(), -EINVAL);
	}
}

TEST(a_read_becomes_an_op_with_one_segment)
{
	prepare(LAS_CMD_PREAD);
	CHECK_RET(decode(), 0);
	CHECK_EQ(op.kind, LAS_OP_READ);
	CHECK_EQ(op.iovcnt, 1);
	CHECK(op.iov == op.inline_iov);
	CHECK(op.iov->iov_base == buffer);
	CHECK_EQ(op.iov->iov_len, 4096);
	CHECK_EQ(op.bytes, 4096);
	CHECK_EQ(op.offset, 8192);
	CHECK_EQ(op.done, 0);
	CHECK_EQ(op.rw_flags, 0);
	CHECK(!op.has_ioprio);
}

TEST(access_mode_must_allow_the_direction)
{
	static const struct {
		uint16_t opcode;
		int flags, err;
	} rows[] = { { LAS_CMD_PREAD, O_RDONLY, 0 },
		     { LAS_CMD_PREAD, O_WRONLY, -EBADF },
		     { LAS_CMD_PREAD, O_RDWR, 0 },
		     { LAS_CMD_PWRITE, O_RDONLY, -EBADF },
		     { LAS_CMD_PWRITE, O_WRONLY, 0 },
		     { LAS_CMD_PWRITE, O_RDWR, 0 },
		     { LAS_CMD_PREAD, O_WRONLY | O_DIRECT, -EBADF },
		     { LAS_CMD_FSYNC, O_RDONLY, 0 },
		     { LAS_CMD_FDSYNC, O_WRONLY, 0 },
		     { LAS_CMD_POLL, O_WRONLY, 0 } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		prepare(rows[i].opcode);
		file.flags = rows[i].flags;
		CHECK_RET(decode(), rows[i].err);
	}
}

TEST(offsets_below_zero_and_past_the_end_of_numbers_are_refused)
{
	static const struct {
		int64_t offset;
		uint64_t bytes;
		int err;
	} rows[] = { { 0, 0, 0 },
		     { -1, 0, -EINVAL },
		     { -1, 4096, -EINVAL },
		     { INT64_MIN, 1, -EINVAL },
		     { INT64_MAX, 0, 0 },
		     { INT64_MAX, 1, -EINVAL },
		     { INT64_MAX - 4096, 4096, 0 },
		     { INT64_MAX - 4095, 4096, -EINVAL } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		prepare(LAS_CMD_PWRITE);
		iocb.offset = rows[i].offset;
		iocb.nbytes = rows[i].bytes;
		CHECK_RET(decode(), rows[i].err);
	}
}

#if defined(__aarch64__)
#define USER_END 0x1000000000000
#else
#define USER_END 0x7ffffffff000
#endif

TEST(buffers_in_the_kernels_half_are_refused)
{
	static const struct {
		uint64_t buf, bytes;
		int err;
	} rows[] = { { 0, 4096, 0 }, /* unmapped is the event's business */
		     { USER_END - 4096, 4096, 0 },
		     { USER_END - 4095, 4096, -EFAULT },
		     { USER_END, 0, 0 },
		     { USER_END, 1, -EFAULT },
		     { 0xffff888000000000, 1, -EFAULT },
		     { UINT64_MAX, 1, -EFAULT },
		     { USER_END + 1, 0, -EFAULT } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		prepare(LAS_CMD_PREAD);
		iocb.buf = rows[i].buf;
		iocb.nbytes = rows[i].bytes;
		CHECK_RET(decode(), rows[i].err);
	}
}

static long all_is_mapped(int how, const void *set, void *old)
{
	return -EINVAL;
}

TEST(buffers_at_longer_addresses_are_taken_if_there_is_memory)
{
	prepare(LAS_CMD_PREAD);
	iocb.buf = (uint64_t)1 << 50;
	CHECK_RET(decode(), -EFAULT);
	las_sys.sigprocmask = all_is_mapped;
	CHECK_RET(decode(), 0);
	iocb.buf = 0xffff888000000000;
	CHECK_RET(decode(), -EFAULT);
}

TEST(one_transfer_is_cut_at_the_kernels_limit)
{
	prepare(LAS_CMD_PREAD);
	iocb.offset = 0;
	iocb.nbytes = 0x7ffff000;
	CHECK_RET(decode(), 0);
	CHECK_EQ(op.bytes, 0x7ffff000);
	iocb.nbytes = INT64_MAX; /* cut first, looked at then */
	CHECK_RET(decode(), 0);
	CHECK_EQ(op.bytes, 0x7ffff000);
	CHECK_EQ(op.iov->iov_len, 0x7ffff000);
}

static struct iovec iov[1100];

static void prepare_vector(unsigned n, size_t each)
{
	prepare(LAS_CMD_PREADV);
	for (unsigned i = 0; i < n; i++)
		iov[i] = (struct iovec){ .iov_base = buffer + i, .iov_len = each };
	iocb.buf = (uint64_t)(uintptr_t)iov;
	iocb.nbytes = n;
}

TEST(vectors_are_copied)
{
	static const unsigned counts[] = { 0, 1, 4, 5, 100, 1024 };

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		prepare_vector(counts[i], 3);
		CHECK_RET(las_request_decode(&iocb, &file, &op), 0);
		CHECK_EQ(op.iovcnt, counts[i]);
		CHECK_EQ(op.bytes, counts[i] * 3);
		CHECK((op.iov == op.inline_iov) == (counts[i] <= LAS_OP_INLINE_IOV));
		memset(iov, 0xff, sizeof(iov)); /* the program's array is its own again */
		for (unsigned k = 0; k < counts[i]; k++) {
			CHECK(op.iov[k].iov_base == buffer + k);
			CHECK_EQ(op.iov[k].iov_len, 3);
		}
		las_op_fini(&op);
	}
}

TEST(bad_vectors_are_refused)
{
	prepare_vector(1025, 1);
	CHECK_RET(decode(), -EINVAL);
	iocb.nbytes = UINT64_MAX >> 1;
	CHECK_RET(decode(), -EINVAL);
	prepare_vector(2, 1);
	iocb.buf = 0;
	CHECK_RET(decode(), -EFAULT);
	iocb.buf = (uint64_t)(uintptr_t)t_no_access();
	CHECK_RET(decode(), -EFAULT);
	iocb.buf = 0xffff888000000000;
	CHECK_RET(decode(), -EFAULT);
	iocb.nbytes = 0; /* nothing to look at */
	iocb.buf = 0;
	CHECK_RET(decode(), 0);
	prepare_vector(3, 1);
	iov[2].iov_len = (size_t)INT64_MAX + 1;
	CHECK_RET(decode(), -EINVAL);
	prepare_vector(3, 1);
	iov[1].iov_base = (void *)0xffff888000000000;
	CHECK_RET(decode(), -EFAULT);
}

TEST(a_vector_that_ends_in_an_unreadable_page_is_refused)
{
	char *pages = t_pages(8192);
	struct iovec *at = (struct iovec *)(void *)(pages + 4096) - 1;

	CHECK_EQ(mprotect(pages + 4096, 4096, PROT_NONE), 0);
	prepare_vector(2, 1);
	*at = iov[0];
	iocb.buf = (uint64_t)(uintptr_t)at;
	CHECK_RET(decode(), -EFAULT);
	iocb.nbytes = 1;
	CHECK_RET(decode(), 0);
}

TEST(a_long_vector_is_cut_at_the_kernels_limit)
{
	prepare_vector(3, 0x40000000);
	iocb.offset = 0;
	CHECK_RET(las_request_decode(&iocb, &file, &op), 0);
	CHECK_EQ(op.bytes, 0x7ffff000);
	CHECK_EQ(op.iov[0].iov_len, 0x40000000);
	CHECK_EQ(op.iov[1].iov_len, 0x3ffff000);
	CHECK_EQ(op.iov[2].iov_len, 0);
	las_op_fini(&op);
}

static unsigned maps;

static void *counted_mmap(void *addr, size_t bytes, int prot, int flags)
{
	maps++;
	return u_real.mmap(addr, bytes, prot, flags);
}

TEST(refused_long_vectors_give_their_memory_back)
{
	prepare_vector(1000, 1);
	CHECK_RET(decode(), 0); /* there is memory for a few vectors now */
	las_sys.mmap = counted_mmap;
	for (unsigned i = 0; i < 100; i++) {
		prepare_vector(1000, 1);
		iov[999].iov_base = (void *)0xffff888000000000;
		CHECK_RET(decode(), -EFAULT);
		prepare_vector(1000, 1);
		iocb.offset = -1;
		CHECK_RET(decode(), -EINVAL);
		prepare_vector(1000, 1);
		iov[500].iov_len = SIZE_MAX;
		CHECK_RET(decode(), -EINVAL);
	}
	CHECK_EQ(maps, 0);
}

TEST(known_flags_pass_and_unknown_ones_do_not)
{
	static const int known[] = { RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND, RWF_DSYNC | RWF_APPEND };
	static const int unknown[] = { 1 << 20, 1 << 30, INT_MIN, -1 };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		prepare(LAS_CMD_PWRITE);
		iocb.rw_flags = known[i];
		CHECK_RET(decode(), 0);
		CHECK_EQ(op.rw_flags, known[i]);
	}
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		prepare(LAS_CMD_PWRITE);
		iocb.rw_flags = unknown[i];
		CHECK_RET(decode(), -EOPNOTSUPP);
		file.flags = O_RDONLY; /* flags come before the access mode */
		CHECK_RET(decode(), -EOPNOTSUPP);
	}
}

TEST(appending_and_not_appending_is_refused)
{
	prepare(LAS_CMD_PWRITE);
	iocb.rw_flags = RWF_APPEND | 0x20 /* RWF_NOAPPEND */;
	CHECK(las_file_known_flags() & 0x20);
	CHECK_RET(decode(), -EINVAL);
}

/* class, level, err */
static long priority_now = 5;

static long refuse_real_time(int which, int who, int ioprio)
{
	if (ioprio >> IOPRIO_CLASS_SHIFT == IOPRIO_CLASS_RT)
		return -EPERM;
	priority_now = ioprio;
	return 0;
}

static long allow_all(int which, int who, int ioprio)
{
	priority_now = ioprio;
	return 0;
}

static long priority_get(int which, int who)
{
	return priority_now;
}

TEST(priorities_are_checked_like_the_kernels)
{
	static const struct {
		int class, level, err;
	} rows[] = { { IOPRIO_CLASS_NONE, 0, 0 },
		     { IOPRIO_CLASS_NONE, 1, -EINVAL },
		     { IOPRIO_CLASS_BE, 0, 0 },
		     { IOPRIO_CLASS_BE, 7, 0 },
		     { IOPRIO_CLASS_IDLE, 0, 0 },
		     { IOPRIO_CLASS_IDLE, 7, 0 },
		     { 4, 0, -EINVAL },
		     { 7, 7, -EINVAL },
		     { IOPRIO_CLASS_RT, 4, -EPERM } };

	las_sys.ioprio_set = refuse_real_time;
	las_sys.ioprio_get = priority_get;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		prepare(LAS_CMD_PREAD);
		iocb.flags = LAS_FLAG_IOPRIO;
		iocb.reqprio = (int16_t)(rows[i].class << IOPRIO_CLASS_SHIFT | rows[i].level);
		CHECK_RET(decode(), rows[i].err);
		if (!rows[i].err) {
			CHECK(op.has_ioprio);
			CHECK_EQ(op.ioprio, rows[i].class << IOPRIO_CLASS_SHIFT | rows[i].level);
		}
	}
}

TEST(asking_who_may_be_real_time_leaves_the_threads_own_priority)
{
	las_sys.ioprio_set = allow_all;
	las_sys.ioprio_get = priority_get;
	prepare(LAS_CMD_PREAD);
	iocb.flags = LAS_FLAG_IOPRIO;
	iocb.reqprio = IOPRIO_CLASS_RT << IOPRIO_CLASS_SHIFT | 4;
	CHECK_RET(decode(), 0);
	CHECK_EQ(priority_now, 5);
}

TEST(a_priority_without_its_flag_is_ignored)
{
	prepare(LAS_CMD_PREAD);
	iocb.reqprio = -1;
	CHECK_RET(decode(), 0);
	CHECK(!op.has_ioprio);
}

TEST(unknown_bits_of_flags_are_ignored)
{
	prepare(LAS_CMD_PREAD);
	iocb.flags = ~(LAS_FLAG_IOPRIO | LAS_FLAG_RESFD);
	CHECK_RET(decode(), 0);
}

TEST(syncs_take_nothing_but_a_file)
{
	static const uint16_t opcodes[] = { LAS_CMD_FSYNC, LAS_CMD_FDSYNC };

	for (size_t i = 0; i < 2; i++) {
		prepare(opcodes[i]);
		CHECK_RET(decode(), 0);
		CHECK_EQ(op.kind, i ? LAS_OP_FDSYNC : LAS_OP_FSYNC);
		prepare(opcodes[i]);
		iocb.buf = 1;
		CHECK_RET(decode(), -EINVAL);
		prepare(opcodes[i]);
		iocb.nbytes = 1;
		CHECK_RET(decode(), -EINVAL);
		prepare(opcodes[i]);
		iocb.offset = 1;
		CHECK_RET(decode(), -EINVAL);
		prepare(opcodes[i]);
		iocb.rw_flags = RWF_DSYNC;
		CHECK_RET(decode(), -EINVAL);
	}
}

/* What lies where the vector of a transfer would be was never set. */
TEST(syncs_and_polls_move_without_a_vector)
{
	static const uint16_t opcodes[] = { LAS_CMD_FSYNC, LAS_CMD_FDSYNC, LAS_CMD_POLL };
	struct las_op moved;

	for (size_t i = 0; i < 3; i++) {
		prepare(opcodes[i]);
		CHECK_RET(decode(), 0);
		op.iov = op.inline_iov;
		moved.iov = NULL;
		las_op_move(&moved, &op);
		CHECK_EQ(moved.kind, op.kind);
		CHECK(moved.iov == NULL);
	}
}

TEST(polls_take_a_mask_of_16_bits_and_nothing_else)
{
	prepare(LAS_CMD_POLL);
	iocb.buf = POLLIN | POLLRDHUP;
	CHECK_RET(decode(), 0);
	CHECK_EQ(op.kind, LAS_OP_POLL);
	CHECK_EQ(op.poll_events, POLLIN | POLLRDHUP);
	iocb.buf = 0xffff;
	CHECK_RET(decode(), 0);
	iocb.buf = 0x10000;
	CHECK_RET(decode(), -EINVAL);
	prepare(LAS_CMD_POLL);
	iocb.nbytes = 1;
	CHECK_RET(decode(), -EINVAL);
	prepare(LAS_CMD_POLL);
	iocb.offset = 1;
	CHECK_RET(decode(), -EINVAL);
	prepare(LAS_CMD_POLL);
	iocb.rw_flags = 1;
	CHECK_RET(decode(), -EINVAL);
}
