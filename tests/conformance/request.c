/* request.c - what each operation accepts, what it answers, and at which moment: io_submit's or the event's. */
#include "las_test.h"

#include <limits.h>
#include <linux/fs.h>
#include <sys/syscall.h>

#ifndef RWF_APPEND
#define RWF_APPEND 0x10
#endif

static const uintptr_t kernel_address = 0xffff800000000000u;

/* ---- reads ---- */

TEST(read_gives_the_bytes_at_the_offset)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 20000);
	char *buf = t_pages(8192);

	CHECK_RET(t_pread(ctx, fd, buf, 8192, 4321), 8192);
	t_check_pattern(buf, 8192, 0, 4321);
}

TEST(read_is_short_at_end_of_file)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 5000);
	char *buf = t_pages(8192);

	CHECK_RET(t_pread(ctx, fd, buf, 8192, 4096), 904);
	t_check_pattern(buf, 904, 0, 4096);
	CHECK_EQ(buf[904], 0);
}

TEST(read_at_and_past_end_of_file_is_zero)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 5000);
	char buf[16];

	CHECK_RET(t_pread(ctx, fd, buf, 16, 5000), 0);
	CHECK_RET(t_pread(ctx, fd, buf, 16, 1 << 20), 0);
	CHECK_RET(t_pread(ctx, fd, buf, 16, LLONG_MAX - 16), 0);
}

TEST(read_of_zero_bytes_is_an_event_of_zero)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 5000);
	char byte;

	CHECK_RET(t_pread(ctx, fd, &byte, 0, 0), 0);
	CHECK_RET(t_pread(ctx, fd, NULL, 0, 0), 0);
}

TEST(write_puts_the_bytes_at_the_offset)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 20000);
	char buf[1000], back[1000];

	t_fill(buf, sizeof(buf), 7, 0);
	CHECK_RET(t_pwrite(ctx, fd, buf, sizeof(buf), 3333), 1000);
	CHECK_EQ(pread(fd, back, sizeof(back), 3333), 1000);
	t_check_pattern(back, sizeof(back), 7, 0);
	CHECK_EQ(pread(fd, back, 1, 3332), 1);
	t_check_pattern(back, 1, 0, 3332);
	CHECK_EQ(pread(fd, back, 1, 4333), 1);
	t_check_pattern(back, 1, 0, 4333);
}

TEST(write_past_the_end_makes_a_hole)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 10);
	struct stat st;
	char buf[8];

	CHECK_RET(t_pwrite(ctx, fd, "x", 1, 100000), 1);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 100001);
	CHECK_RET(t_pread(ctx, fd, buf, 8, 50000), 8);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(buf[i], 0);
}

TEST(write_of_zero_bytes_from_null_is_an_event_of_zero)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 10);
	struct stat st;

	CHECK_RET(t_pwrite(ctx, fd, NULL, 0, 0), 0);
	CHECK_RET(t_pwrite(ctx, fd, NULL, 0, 1 << 20), 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 10);
}

TEST(file_position_is_neither_used_nor_moved)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 5000);
	char buf[16];

	CHECK_EQ(lseek(fd, 777, SEEK_SET), 777);
	CHECK_RET(t_pread(ctx, fd, buf, 16, 0), 16);
	t_check_pattern(buf, 16, 0, 0);
	CHECK_RET(t_pwrite(ctx, fd, buf, 16, 4000), 16);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 777);
}

TEST(negative_offset_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);
	char byte = 0;
	struct iovec iov = { &byte, 1 };

	io_prep_pread(&iocb, fd, &byte, 1, -1);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_pwrite(&iocb, fd, &byte, 1, LLONG_MIN);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_preadv(&iocb, fd, &iov, 1, -1);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_pwritev(&iocb, fd, &iov, 1, -4096);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	t_no_event(ctx);
}

TEST(negative_offset_with_zero_bytes_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);

	io_prep_pread(&iocb, fd, NULL, 0, -1);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_pwrite(&iocb, fd, NULL, 0, -1);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(end_beyond_the_largest_offset_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);
	char buf[16] = { 0 };

	io_prep_pread(&iocb, fd, buf, 16, LLONG_MAX - 7);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_pwrite(&iocb, fd, buf, 16, LLONG_MAX);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	t_no_event(ctx);
}

TEST(write_at_the_largest_offset_is_efbig)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 64);

	CHECK_RET(t_pwrite(ctx, fd, "x", 1, LLONG_MAX - 1), -EFBIG);
}

TEST(count_above_ssize_max_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);
	char byte = 0;

	io_prep_pread(&iocb, fd, &byte, (size_t)SSIZE_MAX + 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_pwrite(&iocb, fd, &byte, SIZE_MAX, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(count_above_ssize_max_wins_over_bad_descriptor)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char byte = 0;

	io_prep_pread(&iocb, -1, &byte, SIZE_MAX, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(read_of_three_gigabytes_of_a_small_file_is_short)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 5000);
	size_t bytes = 3ul << 30;
	char *buf = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(buf != MAP_FAILED);
	CHECK_RET(t_pread(ctx, fd, buf, bytes, 0), 5000);
	t_check_pattern(buf, 5000, 0, 0);
}

TEST(more_than_two_gigabytes_are_cut_to_the_kernels_limit)
{
	io_context_t ctx = t_context(1);
	int fd = t_open("/dev/null", O_WRONLY);
	size_t bytes = 3ul << 30;
	char *buf = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(buf != MAP_FAILED);
	CHECK_RET(t_pwrite(ctx, fd, buf, bytes, 0), pwrite(fd, buf, bytes, 0));
}

/* ---- buffers ---- */

TEST(buffer_in_kernel_range_is_efault)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);

	io_prep_pread(&iocb, fd, (void *)kernel_address, 16, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
	io_prep_pwrite(&iocb, fd, (void *)kernel_address, 16, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
	t_no_event(ctx);
}

TEST(buffer_that_wraps_around_is_efault)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);

	io_prep_pread(&iocb, fd, (void *)(UINTPTR_MAX - 7), 16, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
}

TEST(unmapped_buffer_is_an_efault_event)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 64);
	void *bad = t_no_access();

	CHECK_RET(t_pread(ctx, fd, bad, 16, 0), -EFAULT);
	CHECK_RET(t_pwrite(ctx, fd, bad, 16, 0), -EFAULT);
	CHECK_RET(t_pread(ctx, fd, NULL, 16, 0), -EFAULT);
	CHECK_RET(t_pwrite(ctx, fd, NULL, 16, 0), -EFAULT);
}

TEST(read_into_read_only_memory_is_an_efault_event)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 64);
	char *page = t_read_only("text", 4);

	CHECK_RET(t_pread(ctx, fd, page, 16, 0), -EFAULT);
	CHECK_EQ(memcmp(page, "text", 4), 0);
}

TEST(buffer_that_ends_in_unmapped_memory_is_short_or_efault)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 8192);
	char *pages = t_pages(8192);
	long got;

	CHECK_EQ(mprotect(pages + 4096, 4096, PROT_NONE), 0);
	/* As pread does: what could be copied is counted. */
	got = t_pread(ctx, fd, pages, 8192, 0);
	CHECK_EQ(got, pread(fd, pages, 8192, 0));
	CHECK(got > 0);
	t_check_pattern(pages, (size_t)got, 0, 0);
}

/* ---- vectors ---- */

TEST(vectors_are_filled_in_order)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 8192);
	char a[10], b[1], c[1000];
	struct iovec iov[] = { { a, 10 }, { NULL, 0 }, { b, 1 }, { c, 1000 } };

	io_prep_preadv(&iocb, fd, iov, 4, 500);
	CHECK_RET(t_run(ctx, &iocb), 1011);
	t_check_pattern(a, 10, 0, 500);
	t_check_pattern(b, 1, 0, 510);
	t_check_pattern(c, 1000, 0, 511);
}

TEST(vectors_are_written_in_order)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 8192);
	char all[1011], back[1011];
	struct iovec iov[] = { { all, 10 }, { all + 10, 1 }, { all + 11, 1000 } };

	t_fill(all, sizeof(all), 3, 0);
	io_prep_pwritev(&iocb, fd, iov, 3, 500);
	CHECK_RET(t_run(ctx, &iocb), 1011);
	CHECK_EQ(pread(fd, back, sizeof(back), 500), 1011);
	t_check_pattern(back, sizeof(back), 3, 0);
}

TEST(vector_segments_may_be_empty_and_overlap)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 4096);
	unsigned char buf[16] = { 0 };
	struct iovec holes[] = { { NULL, 0 }, { buf, 4 }, { (void *)16, 0 }, { NULL, 0 }, { buf + 4, 4 }, { NULL, 0 } };
	struct iovec overlap[] = { { buf, 8 }, { buf, 8 }, { buf + 4, 8 } };
	struct iocb iocb;

	io_prep_preadv(&iocb, fd, holes, 6, 0);
	CHECK_RET(t_run(ctx, &iocb), 8);
	t_check_pattern(buf, 8, 0, 0);
	/* The later segment wins. */
	io_prep_preadv(&iocb, fd, overlap, 3, 100);
	CHECK_RET(t_run(ctx, &iocb), 24);
	t_check_pattern(buf, 4, 0, 108);
	t_check_pattern(buf + 4, 8, 0, 116);
	io_prep_pwritev(&iocb, fd, overlap, 3, 200);
	CHECK_RET(t_run(ctx, &iocb), 24);
	CHECK_EQ(pread(fd, buf + 8, 8, 208), 8);
	CHECK(memcmp(buf, buf + 8, 4) == 0);
	/* Nothing but empty ones. */
	io_prep_preadv(&iocb, fd, &holes[2], 2, 0);
	CHECK_RET(t_run(ctx, &iocb), 0);
}

TEST(vector_of_zero_segments_is_an_event_of_zero)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	struct iovec iov = { NULL, 0 };
	int fd = t_file("data", 64);

	io_prep_preadv(&iocb, fd, &iov, 0, 0);
	CHECK_RET(t_run(ctx, &iocb), 0);
	io_prep_pwritev(&iocb, fd, NULL, 0, 0);
	CHECK_RET(t_run(ctx, &iocb), 0);
}

TEST(vector_of_1024_segments_works_and_1025_are_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	static struct iovec iov[1025];
	static char bytes[1025];
	int fd = t_file("data", 4096);

	for (int i = 0; i < 1025; i++)
		iov[i] = (struct iovec){ &bytes[i], 1 };
	io_prep_preadv(&iocb, fd, iov, 1024, 10);
	CHECK_RET(t_run(ctx, &iocb), 1024);
	t_check_pattern(bytes, 1024, 0, 10);
	io_prep_preadv(&iocb, fd, iov, 1025, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_pwritev(&iocb, fd, iov, 1024, 0);
	CHECK_RET(t_run(ctx, &iocb), 1024);
	io_prep_pwritev(&iocb, fd, iov, 1025, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(vector_count_of_garbage_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char byte;
	struct iovec iov = { &byte, 1 };

	io_prep_preadv(&iocb, t_file("data", 64), &iov, 1, 0);
	iocb.u.v.nr = 1 << 20;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	iocb.u.v.nr = UINT32_MAX;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	iocb.u.v.nr = LONG_MAX;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(vector_array_unreadable_is_efault)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);

	io_prep_preadv(&iocb, fd, t_no_access(), 2, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
	io_prep_preadv(&iocb, fd, NULL, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
	io_prep_pwritev(&iocb, fd, (struct iovec *)kernel_address, 2, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
}

TEST(vector_segment_in_kernel_range_is_efault)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char byte;
	struct iovec iov[] = { { &byte, 1 }, { (void *)kernel_address, 16 } };

	io_prep_preadv(&iocb, t_file("data", 64), iov, 2, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
	io_prep_preadv(&iocb, iocb.aio_fildes, iov + 1, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
}

TEST(vector_segment_with_negative_length_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char byte;
	struct iovec iov[] = { { &byte, 1 }, { &byte, (size_t)SSIZE_MAX + 1 } };
	struct iovec only = { &byte, SIZE_MAX };
	int fd = t_file("data", 64);

	io_prep_preadv(&iocb, fd, iov, 2, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_preadv(&iocb, fd, &only, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(vector_segment_unmapped_is_an_efault_event)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	struct iovec iov[] = { { t_no_access(), 16 }, { t_no_access(), 16 } };

	io_prep_preadv(&iocb, t_file("data", 64), iov, 2, 0);
	CHECK_RET(t_run(ctx, &iocb), -EFAULT);
}

TEST(vectors_of_enormous_length_answer_as_preadv_does)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 5000), answer;
	char *buf = t_pages(16384);
	struct iovec iov[] = { { buf, 16384 }, { buf, SSIZE_MAX }, { buf, SSIZE_MAX } };
	ssize_t want = preadv(fd, iov, 3, 0);

	if (want < 0)
		want = -errno;
	io_prep_preadv(&iocb, fd, iov, 3, 0);
	answer = t_submit(ctx, &iocb);
	if (answer == 1)
		answer = (int)t_reap_one(ctx);
	CHECK_EQ(answer, want);
}

TEST(newer_flags_answer_as_the_system_call_does)
{
	const unsigned flags[] = { 0x20 /* RWF_NOAPPEND */, 0x40 /* RWF_ATOMIC */, 0x80 /* RWF_DONTCACHE */,
		                   0x100 /* RWF_NOSIGNAL */, 0x200 };
	const char *const variables[] = { "LAS_TEST_EXT4", "LAS_TEST_XFS", "LAS_TEST_TMPFS" };

	for (size_t v = 0; v < sizeof(variables) / sizeof(variables[0]); v++) {
		for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]) * 2; i++) {
			io_context_t ctx = t_context(1);
			char path[4096], byte = 'x';
			struct iovec iov = { &byte, 1 };
			struct iocb iocb;
			int fd, answer;
			ssize_t want;

			snprintf(path, sizeof(path), "%s/flags", t_directory(variables[v]));
			fd = t_file(path, 4096);
			want = i % 2 ? pwritev2(fd, &iov, 1, 0, (int)flags[i / 2])
			             : preadv2(fd, &iov, 1, 0, (int)flags[i / 2]);
			if (want < 0)
				want = -errno;
			if (i % 2)
				io_prep_pwrite(&iocb, fd, &byte, 1, 0);
			else
				io_prep_pread(&iocb, fd, &byte, 1, 0);
			iocb.aio_rw_flags = flags[i / 2];
			answer = t_submit(ctx, &iocb);
			if (answer == 1)
				answer = (int)t_reap_one(ctx);
			if (answer != want)
				FAIL("%s, %s with flag %#x: %d, system call %zd", variables[v],
				     i % 2 ? "write" : "read", flags[i / 2], answer, want);
			CHECK_EQ(unlink(path), 0);
		}
	}
}

TEST(noappend_flag_writes_at_the_offset)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	struct iovec iov;
	char byte = 'x', back;
	struct stat st;
	int fd = t_file("data", 64);

	fd = t_open("data", O_RDWR | O_APPEND);
	iov = (struct iovec){ &byte, 0 };
	if (pwritev2(fd, &iov, 1, 0, 0x20) < 0)
		SKIP("n/a: this kernel has no RWF_NOAPPEND");
	io_prep_pwrite(&iocb, fd, &byte, 1, 10);
	iocb.aio_rw_flags = 0x20;
	CHECK_RET(t_run(ctx, &iocb), 1);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 64);
	CHECK_EQ(pread(fd, &back, 1, 10), 1);
	CHECK_EQ(back, 'x');
}

/* ---- memory that is mapped but has nothing behind it ---- */

static void *truncated_mapping(void)
{
	int fd = t_file("truncated", 4096);
	void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(map != MAP_FAILED);
	CHECK_EQ(ftruncate(fd, 0), 0);
	return map;
}

TEST(pointers_into_a_truncated_mapping_are_efault)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 64);
	void *hole = truncated_mapping();
	struct iocb iocb;
	char byte;

	CHECK_RET(io_setup(1, hole), -EFAULT);
	CHECK_RET(io_submit(ctx, 1, hole), -EFAULT);
	CHECK_RET(t_submit(ctx, hole), -EFAULT);
	io_prep_preadv(&iocb, fd, hole, 2, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
	CHECK_RET(t_pread(ctx, fd, hole, 16, 0), -EFAULT);
	CHECK_RET(t_pwrite(ctx, fd, hole, 16, 0), -EFAULT);
	CHECK_RET(io_cancel(ctx, hole, hole), -EFAULT);
	io_prep_pread(&iocb, fd, &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(any_getevents(ctx, 1, 1, hole, NULL), -EFAULT);
	CHECK_RET(any_getevents(ctx, 1, 1, &(struct io_event){ 0 }, hole), -EFAULT);
	CHECK_RET(io_pgetevents(ctx, 1, 1, &(struct io_event){ 0 }, NULL, hole), -EFAULT);
	CHECK_RET(t_reap_one(ctx), 1);
}

/* ---- fsync ---- */

TEST(fsync_and_fdsync_give_zero)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);

	io_prep_fsync(&iocb, fd);
	CHECK_RET(t_run(ctx, &iocb), 0);
	io_prep_fdsync(&iocb, fd);
	CHECK_RET(t_run(ctx, &iocb), 0);
}

TEST(fsync_works_on_a_read_only_descriptor)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	t_file("data", 64);
	io_prep_fsync(&iocb, t_open("data", O_RDONLY));
	CHECK_RET(t_run(ctx, &iocb), 0);
}

TEST(fsync_with_fields_set_is_einval)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 64);

	for (int dsync = 0; dsync < 2; dsync++) {
		struct iocb clean, iocb;

		if (dsync)
			io_prep_fdsync(&clean, fd);
		else
			io_prep_fsync(&clean, fd);
		iocb = clean;
		iocb.u.c.buf = &iocb;
		CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
		iocb = clean;
		iocb.u.c.nbytes = 1;
		CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
		iocb = clean;
		iocb.u.c.offset = 1;
		CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
		iocb = clean;
		iocb.aio_rw_flags = RWF_DSYNC;
		CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	}
	t_no_event(ctx);
}

TEST(fsync_on_a_pipe_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_fsync(&iocb, ends[1]);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_fdsync(&iocb, ends[0]);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(fsync_on_an_eventfd_or_dev_null_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	io_prep_fsync(&iocb, t_own(eventfd(0, 0)));
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_fsync(&iocb, t_open("/dev/null", O_RDWR));
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(fsync_ignores_reqprio_and_takes_an_eventfd)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int efd = t_own(eventfd(0, 0));
	uint64_t count;

	io_prep_fsync(&iocb, t_file("data", 64));
	iocb.aio_reqprio = -1;
	io_set_eventfd(&iocb, efd);
	CHECK_RET(t_run(ctx, &iocb), 0);
	CHECK_EQ(read(efd, &count, 8), 8);
	CHECK_EQ(count, 1);
}

/* ---- rw_flags ---- */

TEST(unknown_rw_flags_are_eopnotsupp)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);
	char byte = 0;

	io_prep_pread(&iocb, fd, &byte, 1, 0);
	iocb.aio_rw_flags = 1 << 20;
	CHECK_RET(t_submit(ctx, &iocb), -EOPNOTSUPP);
	io_prep_pwrite(&iocb, fd, &byte, 1, 0);
	iocb.aio_rw_flags = 0x80000000u;
	CHECK_RET(t_submit(ctx, &iocb), -EOPNOTSUPP);
	t_no_event(ctx);
}

TEST(unknown_rw_flags_win_over_wrong_mode)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char byte = 0;

	t_file("data", 64);
	io_prep_pwrite(&iocb, t_open("data", O_RDONLY), &byte, 1, 0);
	iocb.aio_rw_flags = 1 << 20;
	CHECK_RET(t_submit(ctx, &iocb), -EOPNOTSUPP);
}

TEST(wrong_mode_wins_over_bad_buffer_and_offset)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	t_file("data", 64);
	io_prep_pwrite(&iocb, t_open("data", O_RDONLY), (void *)kernel_address, 16, -1);
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
}

TEST(bad_buffer_wins_over_bad_offset)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	io_prep_pread(&iocb, t_file("data", 64), (void *)kernel_address, 16, -1);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
}

TEST(dsync_sync_and_hipri_are_accepted)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 64);
	const unsigned flags[] = { RWF_DSYNC, RWF_SYNC, RWF_HIPRI, RWF_DSYNC | RWF_SYNC };
	char buf[4] = "sync";

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct iocb iocb;

		io_prep_pwrite(&iocb, fd, buf, 4, 10);
		iocb.aio_rw_flags = flags[i];
		CHECK_RET(t_run(ctx, &iocb), 4);
		io_prep_pread(&iocb, fd, buf, 4, 10);
		iocb.aio_rw_flags = flags[i];
		CHECK_RET(t_run(ctx, &iocb), 4);
		CHECK_EQ(memcmp(buf, "sync", 4), 0);
	}
}

TEST(append_flag_writes_at_the_end)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);
	char buf[5], text[] = "tail";
	struct stat st;

	io_prep_pwrite(&iocb, fd, text, 4, 0);
	iocb.aio_rw_flags = RWF_APPEND;
	CHECK_RET(t_run(ctx, &iocb), 4);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 68);
	CHECK_EQ(pread(fd, buf, 4, 64), 4);
	CHECK_EQ(memcmp(buf, "tail", 4), 0);
	CHECK_EQ(pread(fd, buf, 4, 0), 4);
	t_check_pattern(buf, 4, 0, 0);
}

TEST(vectors_take_rw_flags)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);
	char a[] = "one", b[] = "two";
	struct iovec iov[] = { { a, 3 }, { b, 3 } };
	struct stat st;

	io_prep_pwritev2(&iocb, fd, iov, 2, 0, RWF_APPEND | RWF_DSYNC);
	CHECK_RET(t_run(ctx, &iocb), 6);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 70);
	io_prep_preadv2(&iocb, fd, iov, 2, 64, RWF_HIPRI);
	CHECK_RET(t_run(ctx, &iocb), 6);
	CHECK_EQ(memcmp(a, "one", 3), 0);
	CHECK_EQ(memcmp(b, "two", 3), 0);
	io_prep_preadv2(&iocb, fd, iov, 2, 64, 1 << 20);
	CHECK_RET(t_submit(ctx, &iocb), -EOPNOTSUPP);
}

/* ---- priority ---- */

#define PRIORITY(class, level) ((short)((class) << 13 | (level)))

static int submit_with_priority(io_context_t ctx, short priority)
{
	static struct iocb iocb;
	static char byte;
	static int fd;

	if (!fd)
		fd = t_file("data", 64);
	io_prep_pread(&iocb, fd, &byte, 1, 0);
	iocb.u.c.flags = T_FLAG_IOPRIO;
	iocb.aio_reqprio = priority;
	return t_submit(ctx, &iocb);
}

TEST(priority_classes_that_exist_are_accepted)
{
	io_context_t ctx = t_context(8);

	CHECK_RET(submit_with_priority(ctx, PRIORITY(0, 0)), 1);
	CHECK_RET(submit_with_priority(ctx, PRIORITY(2, 0)), 1);
	CHECK_RET(submit_with_priority(ctx, PRIORITY(2, 7)), 1);
	CHECK_RET(submit_with_priority(ctx, PRIORITY(3, 0)), 1);
	for (int i = 0; i < 4; i++)
		CHECK_RET(t_reap_one(ctx), 1);
}

TEST(priority_class_that_does_not_exist_is_einval)
{
	io_context_t ctx = t_context(1);

	CHECK_RET(submit_with_priority(ctx, PRIORITY(4, 0)), -EINVAL);
	CHECK_RET(submit_with_priority(ctx, PRIORITY(5, 0)), -EINVAL);
	CHECK_RET(submit_with_priority(ctx, PRIORITY(7, 0)), -EINVAL);
	t_no_event(ctx);
}

TEST(priority_level_without_class_is_einval)
{
	io_context_t ctx = t_context(1);

	CHECK_RET(submit_with_priority(ctx, PRIORITY(0, 4)), -EINVAL);
}

TEST(realtime_priority_needs_privilege)
{
	io_context_t ctx = t_context(1);

	if (geteuid() == 0) {
		CHECK_RET(submit_with_priority(ctx, PRIORITY(1, 0)), 1);
		CHECK_RET(t_reap_one(ctx), 1);
		/* No capabilities survive this. */
		CHECK_EQ(setresuid(65534, 65534, 65534), 0);
		chmod("data", 0666);
		struct iocb iocb;
		char byte;

		io_prep_pread(&iocb, t_open("/etc/passwd", O_RDONLY), &byte, 1, 0);
		iocb.u.c.flags = T_FLAG_IOPRIO;
		iocb.aio_reqprio = PRIORITY(1, 0);
		CHECK_RET(t_submit(ctx, &iocb), -EPERM);
	} else {
		CHECK_RET(submit_with_priority(ctx, PRIORITY(1, 0)), -EPERM);
	}
}

TEST(priority_without_its_flag_is_ignored)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char byte;

	io_prep_pread(&iocb, t_file("data", 64), &byte, 1, 0);
	iocb.aio_reqprio = PRIORITY(7, 7);
	CHECK_RET(t_run(ctx, &iocb), 1);
}

/* ---- RWF_NOWAIT asked for by the program ---- */

TEST(nowait_read_of_cached_data_works)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char path[4096], buf[16];
	int fd;

	snprintf(path, sizeof(path), "%s/nowait", t_directory("LAS_TEST_EXT4"));
	fd = t_file(path, 4096);
	io_prep_pread(&iocb, fd, buf, 16, 100);
	iocb.aio_rw_flags = RWF_NOWAIT;
	CHECK_RET(t_run(ctx, &iocb), 16);
	t_check_pattern(buf, 16, 0, 100);
}

TEST(nowait_read_of_uncached_data_is_eagain)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char path[4096], buf[16];
	int fd;

	snprintf(path, sizeof(path), "%s/nowait-cold", t_directory("LAS_TEST_EXT4"));
	fd = t_file(path, 1 << 20);
	CHECK_EQ(fsync(fd), 0);
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	io_prep_pread(&iocb, fd, buf, 16, 512 << 10);
	iocb.aio_rw_flags = RWF_NOWAIT;
	CHECK_RET(t_run(ctx, &iocb), -EAGAIN);
}

TEST(nowait_read_of_the_device_works)
{
	io_context_t ctx = t_context(32);
	char path[4096], *buf = t_pages(32 * 4096);
	struct iocb iocbs[32], *list[32];
	struct io_event events[32];
	int fd;

	snprintf(path, sizeof(path), "%s/nowait-direct", t_directory("LAS_TEST_EXT4"));
	CHECK_EQ(fsync(t_file(path, 32 * 4096)), 0);
	fd = t_open(path, O_RDONLY | O_DIRECT);
	for (int i = 0; i < 32; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		iocbs[i].aio_rw_flags = RWF_NOWAIT;
		list[i] = &iocbs[i];
	}
	CHECK_RET(io_submit(ctx, 32, list), 32);
	t_reap(ctx, 32, events);
	for (int i = 0; i < 32; i++)
		CHECK_EQ(t_res(&events[i]), 4096);
	t_check_pattern(buf, 32 * 4096, 0, 0);
}

TEST(nowait_write_where_the_file_system_has_none_is_an_event)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/nowait-write", t_directory("LAS_TEST_EXT4"));
	fd = t_file(path, 4096);
	io_prep_pwrite(&iocb, fd, path, 16, 0);
	iocb.aio_rw_flags = RWF_NOWAIT;
	CHECK_RET(t_run(ctx, &iocb), -EOPNOTSUPP);
}

TEST(nowait_where_the_file_has_none_is_refused_by_submit)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char path[4096], buf[16];
	int fd;

	snprintf(path, sizeof(path), "%s/nowait", t_directory("LAS_TEST_OVERLAY"));
	fd = t_file(path, 4096);
	io_prep_pread(&iocb, fd, buf, 16, 0);
	iocb.aio_rw_flags = RWF_NOWAIT;
	CHECK_RET(t_submit(ctx, &iocb), -EOPNOTSUPP);
}

/* ---- O_DIRECT ---- */

static int direct_file(const char *name, size_t bytes)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", t_directory("LAS_TEST_EXT4"), name);
	fd = t_file(path, bytes);
	CHECK_EQ(fsync(fd), 0);
	return t_open(path, O_RDWR | O_DIRECT);
}

TEST(direct_read_and_write)
{
	io_context_t ctx = t_context(1);
	int fd = direct_file("direct", 65536);
	char *buf = t_pages(8192);

	CHECK_RET(t_pread(ctx, fd, buf, 8192, 4096), 8192);
	t_check_pattern(buf, 8192, 0, 4096);
	t_fill(buf, 8192, 5, 0);
	CHECK_RET(t_pwrite(ctx, fd, buf, 8192, 16384), 8192);
	memset(buf, 0, 8192);
	CHECK_RET(t_pread(ctx, fd, buf, 8192, 16384), 8192);
	t_check_pattern(buf, 8192, 5, 0);
}

TEST(direct_misaligned_is_an_einval_event)
{
	io_context_t ctx = t_context(1);
	int fd = direct_file("direct-misaligned", 65536);
	char *buf = t_pages(8192);

	CHECK_RET(t_pread(ctx, fd, buf + 1, 4096, 0), -EINVAL);
	CHECK_RET(t_pread(ctx, fd, buf, 4096, 1), -EINVAL);
	CHECK_RET(t_pread(ctx, fd, buf, 100, 0), -EINVAL);
	CHECK_RET(t_pwrite(ctx, fd, buf, 100, 0), -EINVAL);
}

TEST(direct_read_is_short_at_end_of_file)
{
	io_context_t ctx = t_context(1);
	int fd = direct_file("direct-short", 5000);
	char *buf = t_pages(8192);

	CHECK_RET(t_pread(ctx, fd, buf, 8192, 0), 5000);
	t_check_pattern(buf, 5000, 0, 0);
	CHECK_RET(t_pread(ctx, fd, buf, 4096, 8192), 0);
}

TEST(direct_vectors)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = direct_file("direct-vectors", 65536);
	char *buf = t_pages(16384);
	struct iovec iov[] = { { buf + 8192, 4096 }, { buf, 8192 } };

	io_prep_preadv(&iocb, fd, iov, 2, 4096);
	CHECK_RET(t_run(ctx, &iocb), 12288);
	t_check_pattern(buf + 8192, 4096, 0, 4096);
	t_check_pattern(buf, 8192, 0, 8192);
}

TEST(direct_reads_many_at_once)
{
	enum { COUNT = 64 };
	io_context_t ctx = t_context(COUNT);
	int fd = direct_file("direct-many", COUNT * 4096);
	char *buf = t_pages(COUNT * 4096);
	struct iocb iocbs[COUNT], *list[COUNT];
	struct io_event events[COUNT];

	for (int round = 0; round < 20; round++) {
		memset(buf, 0, COUNT * 4096);
		for (int i = 0; i < COUNT; i++) {
			io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, (COUNT - 1 - i) * 4096);
			list[i] = &iocbs[i];
		}
		CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
		t_reap(ctx, COUNT, events);
		for (int i = 0; i < COUNT; i++) {
			CHECK_EQ(t_res(&events[i]), 4096);
			t_check_pattern(buf + i * 4096, 4096, 0, (size_t)(COUNT - 1 - i) * 4096);
		}
	}
}

/* ---- what is visible is done ---- */

TEST(visible_write_shows_in_size_and_data)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 0);
	struct stat st;
	char buf[100], back[100];

	for (int i = 0; i < 500; i++) {
		t_fill(buf, sizeof(buf), (unsigned)i, 0);
		CHECK_RET(t_pwrite(ctx, fd, buf, sizeof(buf), i * 100), 100);
		CHECK_EQ(fstat(fd, &st), 0);
		CHECK_EQ(st.st_size, (i + 1) * 100);
		CHECK_EQ(pread(fd, back, sizeof(back), i * 100), 100);
		t_check_pattern(back, sizeof(back), (unsigned)i, 0);
	}
}

TEST(write_changes_the_modification_time)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 64);
	struct stat st;
	const struct timespec old[2] = { { 1000, 0 }, { 1000, 0 } };

	CHECK_EQ(futimens(fd, old), 0);
	CHECK_RET(t_pwrite(ctx, fd, "x", 1, 0), 1);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK(st.st_mtim.tv_sec > 1000000);
}

TEST(write_clears_the_setuid_bit)
{
	io_context_t ctx = t_context(1);
	int fd;
	struct stat st;

	t_need_root();
	fd = t_file("data", 64);
	CHECK_EQ(fchmod(fd, 06777), 0);
	CHECK_EQ(chmod(".", 0777), 0);
	/* Root keeps such bits; anybody else who writes clears them, and a helping thread is nobody special. */
	CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	CHECK_RET(t_pwrite(ctx, fd, "x", 1, 0), 1);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0777);
}

TEST(sealed_memfd_is_eperm)
{
	io_context_t ctx = t_context(1);
	int fd = t_own((int)syscall(SYS_memfd_create, "sealed", 2u /* MFD_ALLOW_SEALING */));
	char buf[16] = { 0 };

	CHECK_EQ(write(fd, buf, sizeof(buf)), 16);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	CHECK_RET(t_pwrite(ctx, fd, "x", 1, 0), -EPERM);
	CHECK_RET(t_pread(ctx, fd, buf, 16, 0), 16);
}

TEST(full_file_system_is_enospc)
{
	io_context_t ctx = t_context(1);
	char path[4096];
	char *buf = t_pages(1 << 20);
	int fd;

	snprintf(path, sizeof(path), "%s/full", t_directory("LAS_TEST_FULL"));
	fd = t_open(path, O_RDWR | O_CREAT | O_TRUNC);
	CHECK_RET(t_pwrite(ctx, fd, buf, 1 << 20, 0), 65536);
	CHECK_RET(t_pwrite(ctx, fd, buf, 1 << 20, 65536), -ENOSPC);
	CHECK_EQ(ftruncate(fd, 0), 0);
}
