/* order.c - requests on a stream or an appending descriptor run in the order of submission. */
#include "las_test.h"

#include <poll.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static void make_pipe(int ends[2])
{
	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
}

enum { COUNT = 64 };

static struct iocb iocbs[COUNT];
static struct iocb *list[COUNT];
static struct io_event events[COUNT];
static unsigned char bytes[COUNT];

static void prepare_writes(int fd)
{
	for (int i = 0; i < COUNT; i++) {
		bytes[i] = (unsigned char)i;
		io_prep_pwrite(&iocbs[i], fd, &bytes[i], 1, 0);
		list[i] = &iocbs[i];
	}
}

static void prepare_reads(int fd)
{
	memset(bytes, 0xff, sizeof(bytes));
	for (int i = 0; i < COUNT; i++) {
		io_prep_pread(&iocbs[i], fd, &bytes[i], 1, 0);
		list[i] = &iocbs[i];
	}
}

static void check_bytes(const unsigned char *got)
{
	for (int i = 0; i < COUNT; i++)
		CHECK_EQ(got[i], i);
}

static void check_each_is_one(void)
{
	for (int i = 0; i < COUNT; i++)
		CHECK_EQ(t_res(&events[i]), 1);
}

static void check_written_to(int fd)
{
	unsigned char got[COUNT];
	ssize_t n;

	for (size_t done = 0; done < COUNT; done += (size_t)n) {
		n = read(fd, got + done, COUNT - done);
		CHECK(n > 0);
	}
	check_bytes(got);
}

TEST(pipe_writes_in_one_call)
{
	io_context_t ctx = t_context(COUNT);
	int ends[2];

	make_pipe(ends);
	for (int round = 0; round < 200; round++) {
		prepare_writes(ends[1]);
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		check_written_to(ends[0]);
		t_reap(ctx, COUNT, events);
	}
}

TEST(pipe_writes_in_many_calls)
{
	io_context_t ctx = t_context(COUNT);
	int ends[2];

	make_pipe(ends);
	for (int round = 0; round < 200; round++) {
		prepare_writes(ends[1]);
		for (int i = 0; i < COUNT; i++)
			CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
		check_written_to(ends[0]);
		t_reap(ctx, COUNT, events);
	}
}

TEST(pipe_writes_on_two_contexts)
{
	io_context_t one = t_context(COUNT), two = t_context(COUNT);
	int ends[2];

	make_pipe(ends);
	for (int round = 0; round < 100; round++) {
		prepare_writes(ends[1]);
		for (int i = 0; i < COUNT; i++)
			CHECK_RET(t_submit(i % 2 ? one : two, &iocbs[i]), 1);
		check_written_to(ends[0]);
		t_reap(one, COUNT / 2, events);
		t_reap(two, COUNT / 2, events);
	}
}

TEST(pipe_writes_through_two_descriptors)
{
	io_context_t ctx = t_context(COUNT);
	int ends[2], again;

	make_pipe(ends);
	again = t_own(dup(ends[1]));
	for (int round = 0; round < 100; round++) {
		prepare_writes(ends[1]);
		for (int i = 1; i < COUNT; i += 2)
			iocbs[i].aio_fildes = again;
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		check_written_to(ends[0]);
		t_reap(ctx, COUNT, events);
	}
}

TEST(pipe_reads_of_waiting_data)
{
	io_context_t ctx = t_context(COUNT);
	int ends[2];
	unsigned char text[COUNT];

	make_pipe(ends);
	for (int i = 0; i < COUNT; i++)
		text[i] = (unsigned char)i;
	for (int round = 0; round < 200; round++) {
		CHECK_EQ(write(ends[1], text, COUNT), COUNT);
		prepare_reads(ends[0]);
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		t_reap(ctx, COUNT, events);
		check_each_is_one();
		check_bytes(bytes);
	}
}

TEST(pipe_reads_before_the_data)
{
	io_context_t ctx = t_context(COUNT);
	int ends[2];
	unsigned char byte;

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for the data (difference submit-returns-first)");
	make_pipe(ends);
	for (int round = 0; round < 50; round++) {
		prepare_reads(ends[0]);
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		for (int i = 0; i < COUNT; i++) {
			byte = (unsigned char)i;
			CHECK_EQ(write(ends[1], &byte, 1), 1);
		}
		t_reap(ctx, COUNT, events);
		check_each_is_one();
		check_bytes(bytes);
	}
}

TEST(pipe_writes_that_fill_it)
{
	enum { BIG = 65536, PARTS = 16 };
	io_context_t ctx = t_context(PARTS);
	static unsigned char big[BIG * PARTS], back[BIG * PARTS];
	int ends[2];
	size_t got = 0;

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for the reader (difference submit-returns-first)");
	make_pipe(ends);
	t_fill(big, sizeof(big), 2, 0);
	for (int i = 0; i < PARTS; i++) {
		io_prep_pwrite(&iocbs[i], ends[1], big + i * BIG, BIG, 0);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	while (got < sizeof(back)) {
		ssize_t n = read(ends[0], back + got, sizeof(back) - got);

		CHECK(n > 0);
		got += (size_t)n;
	}
	t_check_pattern(back, sizeof(back), 2, 0);
	t_reap(ctx, PARTS, events);
	for (int i = 0; i < PARTS; i++)
		CHECK_EQ(t_res(&events[i]), BIG);
}

TEST(reader_and_writer_of_one_socket_do_not_wait_for_each_other)
{
	io_context_t ctx = t_context(COUNT);
	int ends[2];
	char in[4], out[4] = "ping";
	struct iocb read_it, write_it;

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for the data (difference submit-returns-first)");
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_pread(&read_it, ends[0], in, 4, 0);
	io_prep_pwrite(&write_it, ends[0], out, 4, 0);
	CHECK_RET(t_submit(ctx, &read_it), 1);
	CHECK_RET(t_submit(ctx, &write_it), 1);
	t_reap(ctx, 1, events);
	CHECK(events[0].obj == &write_it);
	CHECK_EQ(read(ends[1], in, 4), 4);
	CHECK_EQ(write(ends[1], "pong", 4), 4);
	CHECK_RET(t_reap_one(ctx), 4);
	CHECK_EQ(memcmp(in, "pong", 4), 0);
}

TEST(socket_writes_in_order)
{
	io_context_t ctx = t_context(COUNT);
	int ends[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	for (int round = 0; round < 100; round++) {
		prepare_writes(ends[0]);
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		check_written_to(ends[1]);
		t_reap(ctx, COUNT, events);
	}
}

TEST(datagrams_keep_order_and_boundaries)
{
	enum { MESSAGES = 8 };
	io_context_t ctx = t_context(COUNT);
	int ends[2];
	char out[MESSAGES][100], in[MESSAGES][100];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < MESSAGES; i++) {
			memset(out[i], 'a' + i, sizeof(out[i]));
			io_prep_pwrite(&iocbs[i], ends[0], out[i], (size_t)i + 1, 0);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, MESSAGES, list), MESSAGES);
		t_reap(ctx, MESSAGES, events);
		for (int i = 0; i < MESSAGES; i++)
			io_prep_pread(&iocbs[i], ends[1], in[i], 100, 0);
		CHECK_RET(io_submit(ctx, MESSAGES, list), MESSAGES);
		t_reap(ctx, MESSAGES, events);
		for (int i = 0; i < MESSAGES; i++) {
			CHECK_EQ(t_res(&events[i]), (struct iocb *)events[i].obj - iocbs + 1);
			CHECK_EQ(in[i][0], 'a' + i);
		}
	}
}

TEST(pty_writes_in_order)
{
	io_context_t ctx = t_context(COUNT);
	int master, slave;
	struct termios raw;

	CHECK_EQ(openpty(&master, &slave, NULL, NULL, NULL), 0);
	t_own(master);
	t_own(slave);
	CHECK_EQ(tcgetattr(slave, &raw), 0);
	cfmakeraw(&raw);
	CHECK_EQ(tcsetattr(slave, TCSANOW, &raw), 0);
	for (int round = 0; round < 50; round++) {
		prepare_writes(slave);
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		check_written_to(master);
		t_reap(ctx, COUNT, events);
	}
}

static void check_appends(const char *directory, int open_flags, unsigned rw_flags, bool two_descriptors)
{
	enum { ROUNDS = 20 };
	io_context_t ctx = t_context(COUNT);
	char path[4096];
	unsigned char back[COUNT];
	int fd, other;

	snprintf(path, sizeof(path), "%s/appends-%d", directory, (int)getpid());
	fd = t_open(path, O_RDWR | O_CREAT | O_TRUNC | open_flags);
	other = t_open(path, O_RDWR | open_flags);
	for (int round = 0; round < ROUNDS; round++) {
		prepare_writes(fd);
		for (int i = 0; i < COUNT; i++) {
			iocbs[i].aio_rw_flags = rw_flags;
			if (two_descriptors && i % 3 == 0)
				iocbs[i].aio_fildes = other;
		}
		/* Half in one call, half one by one. */
		CHECK_RET(io_submit(ctx, COUNT / 2, list), COUNT / 2);
		for (int i = COUNT / 2; i < COUNT; i++)
			CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
		t_reap(ctx, COUNT, events);
	}
	for (int round = 0; round < ROUNDS; round++) {
		CHECK_EQ(pread(fd, back, COUNT, round * COUNT), COUNT);
		check_bytes(back);
	}
	CHECK_EQ(unlink(path), 0);
}

TEST(appends_in_order)
{
	check_appends(".", O_APPEND, 0, false);
}

TEST(appends_on_ext4_in_order)
{
	check_appends(t_directory("LAS_TEST_EXT4"), O_APPEND, 0, false);
}

TEST(appends_on_xfs_in_order)
{
	check_appends(t_directory("LAS_TEST_XFS"), O_APPEND, 0, false);
}

TEST(appends_that_must_wait_in_order)
{
	io_context_t ctx = t_context(COUNT);
	int fd = t_stall_file("append", 0, O_RDWR | O_APPEND);
	unsigned char back[COUNT];

	t_stall_delay(1);
	prepare_writes(fd);
	CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
	t_reap(ctx, COUNT, events);
	t_stall_delay(0);
	CHECK_EQ(pread(fd, back, COUNT, 0), COUNT);
	check_bytes(back);
}

TEST(appends_by_flag_in_order)
{
	check_appends(".", 0, 0x10 /* RWF_APPEND */, false);
}

TEST(appends_by_flag_that_must_wait_in_order)
{
	io_context_t ctx = t_context(COUNT);
	int fd = t_stall_file("append", 0, O_RDWR);
	unsigned char back[COUNT];

	t_stall_delay(1);
	prepare_writes(fd);
	for (int i = 0; i < COUNT; i++)
		iocbs[i].aio_rw_flags = 0x10 /* RWF_APPEND */;
	CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
	t_reap(ctx, COUNT, events);
	t_stall_delay(0);
	CHECK_EQ(pread(fd, back, COUNT, 0), COUNT);
	check_bytes(back);
}

TEST(appends_through_two_open_files_in_order)
{
	check_appends(".", O_APPEND, 0, true);
}

TEST(appends_of_different_sizes_are_never_mixed)
{
	io_context_t ctx = t_context(COUNT);
	int fd = t_open("mixed", O_RDWR | O_CREAT | O_TRUNC | O_APPEND);
	static char text[COUNT][3000], back[3000];
	off_t at = 0;

	for (int i = 0; i < COUNT; i++) {
		memset(text[i], 'A' + i % 50, sizeof(text[i]));
		io_prep_pwrite(&iocbs[i], fd, text[i], (size_t)(1 + i * 37 % 3000), 0);
		list[i] = &iocbs[i];
	}
	CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
	t_reap(ctx, COUNT, events);
	for (int i = 0; i < COUNT; i++) {
		size_t size = (size_t)(1 + i * 37 % 3000);

		CHECK_EQ(pread(fd, back, size, at), size);
		CHECK_EQ(memcmp(back, text[i], size), 0);
		at += (off_t)size;
	}
}

TEST(events_of_a_stream_come_in_order)
{
	io_context_t ctx = t_context(COUNT);
	int ends[2];

	make_pipe(ends);
	prepare_writes(ends[1]);
	CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
	t_reap(ctx, COUNT, events);
	for (int i = 0; i < COUNT; i++)
		CHECK(events[i].obj == &iocbs[i]);
}

/*
 * Requests on one place of an ordinary file that are in flight together have no order of their own: the kernel's
 * buffered ones happen to run one by one.  What must hold everywhere: each write is whole, and the last one to run wins.
 */
TEST(overlapping_writes_in_one_call_are_each_whole)
{
	io_context_t ctx = t_context(COUNT);
	int fd = t_file("overlap", 4096);
	static char text[COUNT][4096], back[4096];

	for (int i = 0; i < COUNT; i++) {
		memset(text[i], ' ' + i, sizeof(text[i]));
		io_prep_pwrite(&iocbs[i], fd, text[i], 4096, 0);
		list[i] = &iocbs[i];
	}
	for (int round = 0; round < 20; round++) {
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		t_reap(ctx, COUNT, events);
		CHECK_EQ(pread(fd, back, 4096, 0), 4096);
		if (DIFFERS("order-of-overlapping-requests"))
			CHECK(back[0] >= ' ' && back[0] < ' ' + COUNT);
		else
			CHECK_EQ(back[0], ' ' + COUNT - 1);
		for (int i = 1; i < 4096; i++)
			CHECK_EQ(back[i], back[0]);
	}
}

TEST(fsync_after_a_buffered_write_in_one_call_covers_it)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("covered", 4096, O_RDWR);
	char byte = 'x';
	struct iocb write_it, sync_it, *both[] = { &write_it, &sync_it };

	io_prep_pwrite(&write_it, fd, &byte, 1, 0);
	io_prep_fsync(&sync_it, fd);
	t_stall_delay(20);
	CHECK_RET(io_submit(ctx, 2, both), 2);
	t_reap(ctx, 2, events);
	t_stall_delay(0);
	/* The kernel has written when it begins to sync: the sync's event cannot come first. */
	CHECK(events[0].obj == &write_it);
	CHECK(events[1].obj == &sync_it);
}

TEST(events_of_buffered_reads_in_one_call)
{
	enum { READS = 16 };
	io_context_t ctx = t_context(READS);
	static char bufs[READS][4096];
	bool seen[READS] = { false };

	for (int i = 0; i < READS; i++) {
		io_prep_pread(&iocbs[i], t_stall_file("events", 65536, O_RDONLY), bufs[i], 4096, 4096);
		list[i] = &iocbs[i];
	}
	t_stall_delay(1);
	CHECK_RET(io_submit(ctx, READS, list), READS);
	t_reap(ctx, READS, events);
	t_stall_delay(0);
	for (int i = 0; i < READS; i++) {
		long index = (struct iocb *)events[i].obj - iocbs;

		CHECK(index >= 0 && index < READS && !seen[index]);
		seen[index] = true;
		if (!DIFFERS("order-of-events"))
			CHECK_EQ(index, i);
	}
}
