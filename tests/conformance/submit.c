/* submit.c - what io_submit answers: counts, partial counts, bad arguments, and which error wins. */
#include "las_test.h"

#include <limits.h>
#include <sys/resource.h>

static struct iocb *read_request(struct iocb *iocb, int fd)
{
	static char buf[64];

	io_prep_pread(iocb, fd, buf, 16, 0);
	return iocb;
}

TEST(zero_requests_is_zero)
{
	io_context_t ctx = t_context(1);

	CHECK_RET(io_submit(ctx, 0, NULL), 0);
	CHECK_RET(io_submit(ctx, 0, t_no_access()), 0);
	t_no_event(ctx);
}

TEST(negative_count_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb, *list = read_request(&iocb, t_file("data", 64));

	CHECK_RET(io_submit(ctx, -1, &list), -EINVAL);
	CHECK_RET(io_submit(ctx, LONG_MIN, &list), -EINVAL);
	t_no_event(ctx);
}

TEST(null_array_is_efault)
{
	io_context_t ctx = t_context(1);

	CHECK_RET(io_submit(ctx, 1, NULL), -EFAULT);
}

TEST(unreadable_array_is_efault)
{
	io_context_t ctx = t_context(1);

	CHECK_RET(io_submit(ctx, 1, t_no_access()), -EFAULT);
	CHECK_RET(io_submit(ctx, 1, (struct iocb **)(uintptr_t)0xffff800000000000u), -EFAULT);
}

TEST(null_first_element_is_efault)
{
	io_context_t ctx = t_context(1);
	struct iocb *list = NULL;

	CHECK_RET(io_submit(ctx, 1, &list), -EFAULT);
}

TEST(unreadable_iocb_is_efault)
{
	io_context_t ctx = t_context(1);
	struct iocb *list = t_no_access();

	CHECK_RET(io_submit(ctx, 1, &list), -EFAULT);
	list = (struct iocb *)(uintptr_t)0xffff800000000000u;
	CHECK_RET(io_submit(ctx, 1, &list), -EFAULT);
	list = (struct iocb *)(uintptr_t)UINTPTR_MAX;
	CHECK_RET(io_submit(ctx, 1, &list), -EFAULT);
}

TEST(iocb_that_ends_in_unreadable_memory_is_efault)
{
	io_context_t ctx = t_context(1);
	char *pages = t_pages(8192);
	struct iocb *list = (struct iocb *)(void *)(pages + 4096 - 32);

	CHECK_EQ(mprotect(pages + 4096, 4096, PROT_NONE), 0);
	CHECK_RET(io_submit(ctx, 1, &list), -EFAULT);
}

TEST(array_that_ends_in_unreadable_memory_is_a_partial_count)
{
	io_context_t ctx = t_context(8);
	char *pages = t_pages(8192);
	struct iocb iocb, **list = (struct iocb **)(void *)(pages + 4096 - sizeof(*list));
	struct io_event event;

	CHECK_EQ(mprotect(pages + 4096, 4096, PROT_NONE), 0);
	list[0] = read_request(&iocb, t_file("data", 64));
	CHECK_RET(io_submit(ctx, 2, list), 1);
	t_reap(ctx, 1, &event);
	CHECK_EQ(t_res(&event), 16);
	t_no_event(ctx);
}

TEST(unaligned_iocb_works)
{
	io_context_t ctx = t_context(1);
	char place[sizeof(struct iocb) + 1], buf[16];
	struct iocb iocb, *list = (struct iocb *)(void *)(place + 1);
	struct io_event event;

	io_prep_pread(&iocb, t_file("data", 64), buf, sizeof(buf), 0);
	memcpy(place + 1, &iocb, sizeof(iocb));
	CHECK_RET(io_submit(ctx, 1, &list), 1);
	t_reap(ctx, 1, &event);
	CHECK(event.obj == list);
	t_check_pattern(buf, sizeof(buf), 0, 0);
}

TEST(good_bad_good_is_one_with_one_event)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 64);
	struct iocb good, bad, last;
	struct iocb *list[] = { read_request(&good, fd), read_request(&bad, -1), read_request(&last, fd) };
	struct io_event events[3];

	CHECK_RET(io_submit(ctx, 3, list), 1);
	t_reap(ctx, 1, events);
	CHECK(events[0].obj == &good);
	t_no_event(ctx);
}

TEST(good_then_null_is_one)
{
	io_context_t ctx = t_context(8);
	struct iocb good;
	struct iocb *list[] = { read_request(&good, t_file("data", 64)), NULL };

	CHECK_RET(io_submit(ctx, 2, list), 1);
	CHECK_RET(t_reap_one(ctx), 16);
	t_no_event(ctx);
}

TEST(count_larger_than_the_array_stops_at_the_first_bad_one)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 64);
	struct iocb one, two;
	struct iocb *list[4] = { read_request(&one, fd), read_request(&two, fd), NULL, NULL };
	struct io_event events[2];

	CHECK_RET(io_submit(ctx, LONG_MAX, list), 2);
	t_reap(ctx, 2, events);
	t_no_event(ctx);
}

TEST(refused_request_leaves_nothing_behind)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 64);
	struct iocb bad, good;
	char buf[16];

	/* Far more refusals than the ring has places: none of them may keep one. */
	read_request(&bad, -1);
	for (int i = 0; i < 3000; i++)
		CHECK_RET(t_submit(ctx, &bad), -EBADF);
	io_prep_pread(&good, fd, buf, sizeof(buf), 0);
	CHECK_RET(t_run(ctx, &good), 16);
	t_no_event(ctx);
}

TEST(bad_descriptor_is_ebadf)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	const int numbers[] = { -1, -100, INT_MIN, INT_MAX, 1 << 20, 999 };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		CHECK_RET(t_submit(ctx, read_request(&iocb, numbers[i])), -EBADF);
	for (int opcode = 0; opcode < 10; opcode++) {
		memset(&iocb, 0, sizeof(iocb));
		iocb.aio_lio_opcode = (short)opcode;
		iocb.aio_fildes = -1;
		CHECK_RET(t_submit(ctx, &iocb), -EBADF);
	}
}

TEST(closed_descriptor_is_ebadf)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);

	t_close(fd);
	CHECK_RET(t_submit(ctx, read_request(&iocb, fd)), -EBADF);
}

TEST(o_path_descriptor_is_ebadf)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	t_file("data", 64);
	CHECK_RET(t_submit(ctx, read_request(&iocb, t_open("data", O_PATH))), -EBADF);
	iocb.aio_lio_opcode = IO_CMD_FSYNC;
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
	io_prep_poll(&iocb, iocb.aio_fildes, 1);
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
}

TEST(read_on_write_only_is_ebadf)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char byte;
	struct iovec iov = { &byte, 1 };
	int fd;

	t_file("data", 64);
	fd = t_open("data", O_WRONLY);
	CHECK_RET(t_submit(ctx, read_request(&iocb, fd)), -EBADF);
	io_prep_preadv(&iocb, fd, &iov, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
}

TEST(write_on_read_only_is_ebadf)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	int fd;

	t_file("data", 64);
	fd = t_open("data", O_RDONLY);
	io_prep_pwrite(&iocb, fd, &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
	io_prep_pwritev(&iocb, fd, &iov, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
}

TEST(read_on_the_write_end_of_a_pipe_is_ebadf)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int ends[2];
	char byte = 0;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	CHECK_RET(t_submit(ctx, read_request(&iocb, ends[1])), -EBADF);
	io_prep_pwrite(&iocb, ends[0], &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
}

TEST(unknown_opcodes_are_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);
	const short opcodes[] = { 4, 9, 10, 100, 255, 256, SHRT_MAX, -1, SHRT_MIN };

	for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++) {
		read_request(&iocb, fd)->aio_lio_opcode = opcodes[i];
		CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	}
	t_no_event(ctx);
}

TEST(noop_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	read_request(&iocb, t_file("data", 64))->aio_lio_opcode = IO_CMD_NOOP;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(reserved_field_set_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	read_request(&iocb, t_file("data", 64))->u.c.__pad3 = 1;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(reserved_field_wins_over_bad_descriptor)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	read_request(&iocb, -1)->u.c.__pad3 = 1;
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
}

TEST(bad_descriptor_wins_over_bad_opcode_and_eventfd)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	read_request(&iocb, -1)->aio_lio_opcode = 99;
	io_set_eventfd(&iocb, -1);
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
}

TEST(bad_eventfd_wins_over_bad_opcode)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);

	read_request(&iocb, fd)->aio_lio_opcode = 99;
	io_set_eventfd(&iocb, -1);
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
}

TEST(read_only_iocb_wins_over_bad_opcode)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	struct iocb *copy;

	read_request(&iocb, t_file("data", 64))->aio_lio_opcode = 99;
	copy = t_read_only(&iocb, sizeof(iocb));
	CHECK_RET(t_submit(ctx, copy), -EFAULT);
}

TEST(bad_context_wins_over_bad_array)
{
	CHECK_RET(io_submit(NULL, 1, NULL), -EINVAL);
	CHECK_RET(io_submit((io_context_t)t_no_access(), 1, NULL), -EINVAL);
}

TEST(eventfd_that_is_none_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);

	io_set_eventfd(read_request(&iocb, fd), fd);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	t_no_event(ctx);
}

TEST(eventfd_not_open_is_ebadf)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	int fd = t_file("data", 64);

	io_set_eventfd(read_request(&iocb, fd), -1);
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
	iocb.u.c.resfd = 999;
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
	t_no_event(ctx);
}

TEST(resfd_without_its_flag_is_ignored)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	read_request(&iocb, t_file("data", 64))->u.c.resfd = 12345;
	CHECK_RET(t_run(ctx, &iocb), 16);
}

TEST(unknown_aio_flags_are_ignored)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	read_request(&iocb, t_file("data", 64))->u.c.flags = ~(T_FLAG_RESFD | T_FLAG_IOPRIO);
	CHECK_RET(t_run(ctx, &iocb), 16);
}

TEST(key_is_written_zero_at_submit)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	read_request(&iocb, t_file("data", 64))->key = 0x12345678;
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_EQ(iocb.key, 0);
	t_reap_one(ctx);
}

TEST(key_is_not_written_when_the_descriptor_is_bad)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	read_request(&iocb, -1)->key = 0x12345678;
	CHECK_RET(t_submit(ctx, &iocb), -EBADF);
	CHECK_EQ(iocb.key, 0x12345678);
}

TEST(nothing_but_the_key_is_written_to_the_iocb)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb, before;

	read_request(&iocb, t_file("data", 64))->data = &iocb;
	before = iocb;
	CHECK_RET(t_run(ctx, &iocb), 16);
	CHECK_EQ(memcmp(&before, &iocb, sizeof(iocb)), 0);
}

/* An iocb so many bytes before a page of its own protection. */
static struct iocb *across(char *pages, int fd, void *buf, size_t before, int first, int second)
{
	struct iocb *iocb = (struct iocb *)(void *)(pages + 4096 - before);

	CHECK_EQ(mprotect(pages, 8192, PROT_READ | PROT_WRITE), 0);
	io_prep_pread(iocb, fd, buf, 1, 0);
	CHECK_EQ(mprotect(pages, 4096, first), 0);
	CHECK_EQ(mprotect(pages + 4096, 4096, second), 0);
	return iocb;
}

TEST(iocb_of_which_the_key_can_be_written_works)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 64), both = PROT_READ | PROT_WRITE;
	char *pages = t_pages(8192), byte;

	/* The key is in bytes 8 to 11. */
	CHECK_RET(t_run(ctx, across(pages, fd, &byte, 16, both, PROT_READ)), 1);
	CHECK_RET(t_run(ctx, across(pages, fd, &byte, 8, PROT_READ, both)), 1);
	CHECK_RET(t_submit(ctx, across(pages, fd, &byte, 16, PROT_READ, both)), -EFAULT);
	CHECK_RET(t_submit(ctx, across(pages, fd, &byte, 8, both, PROT_READ)), -EFAULT);
}

TEST(iocb_in_read_only_memory_is_efault)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;

	read_request(&iocb, t_file("data", 64));
	CHECK_RET(t_submit(ctx, t_read_only(&iocb, sizeof(iocb))), -EFAULT);
	t_no_event(ctx);
}

TEST(data_and_obj_come_back_unchanged)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	struct io_event event;
	void *const values[] = { NULL, (void *)(uintptr_t)1, (void *)UINTPTR_MAX,
		                 (void *)(uintptr_t)0x8000000000000000u };
	int fd = t_file("data", 64);

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		read_request(&iocb, fd)->data = values[i];
		CHECK_RET(t_submit(ctx, &iocb), 1);
		t_reap(ctx, 1, &event);
		CHECK(event.data == values[i]);
		CHECK(event.obj == &iocb);
		CHECK_EQ(t_res(&event), 16);
		CHECK_EQ(event.res2, 0);
	}
}

TEST(same_iocb_many_times_in_one_call)
{
	io_context_t ctx = t_context(32);
	struct iocb iocb, *list[32];
	struct io_event events[32];

	read_request(&iocb, t_file("data", 64));
	for (int i = 0; i < 32; i++)
		list[i] = &iocb;
	CHECK_RET(io_submit(ctx, 32, list), 32);
	t_reap(ctx, 32, events);
	for (int i = 0; i < 32; i++) {
		CHECK(events[i].obj == &iocb);
		CHECK_EQ(t_res(&events[i]), 16);
	}
	t_no_event(ctx);
}

TEST(mixed_operations_in_one_call)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 8192);
	char in[16], out[16] = "mixed operations", vector[32];
	struct iovec iov[2] = { { vector, 16 }, { vector + 16, 16 } };
	struct iocb iocbs[6], *list[6];
	struct io_event events[6];

	io_prep_pread(&iocbs[0], fd, in, 16, 0);
	io_prep_pwrite(&iocbs[1], fd, out, 16, 4096);
	io_prep_preadv(&iocbs[2], fd, iov, 2, 100);
	io_prep_fsync(&iocbs[3], fd);
	io_prep_fdsync(&iocbs[4], fd);
	io_prep_poll(&iocbs[5], fd, 1);
	for (int i = 0; i < 6; i++) {
		list[i] = &iocbs[i];
		iocbs[i].data = (void *)(uintptr_t)i;
	}
	CHECK_RET(io_submit(ctx, 6, list), 6);
	t_reap(ctx, 6, events);
	for (int i = 0; i < 6; i++) {
		const long want[6] = { 16, 16, 32, 0, 0, 1 };

		CHECK_EQ(t_res(&events[i]), want[(uintptr_t)events[i].data]);
	}
	t_check_pattern(in, 16, 0, 0);
	t_check_pattern(vector, 32, 0, 100);
	CHECK_EQ(pread(fd, in, 16, 4096), 16);
	CHECK_EQ(memcmp(in, out, 16), 0);
}

TEST(ten_thousand_requests_one_after_another)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 65536);
	unsigned char byte;

	for (int i = 0; i < 10000; i++) {
		CHECK_RET(t_pread(ctx, fd, &byte, 1, i), 1);
		CHECK_EQ(byte, t_byte(0, (size_t)i));
	}
}

static void end_of_fault(int number)
{
	/* In a child: the fault came where the difference says it may. */
	_exit(42);
}

TEST(iocb_in_a_page_used_often_and_then_unmapped)
{
	pid_t pid;
	int status;

	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		io_context_t ctx = t_context(8);
		struct iocb *iocb = t_pages(4096);
		int fd = t_file("data", 64);

		signal(SIGSEGV, end_of_fault);
		for (int i = 0; i < 1000; i++)
			CHECK_RET(t_run(ctx, read_request(iocb, fd)), 16);
		CHECK_EQ(munmap(iocb, 4096), 0);
		CHECK_RET(t_submit(ctx, iocb), -EFAULT);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	if (DIFFERS("umem-trust"))
		CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 42);
	else
		CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(no_descriptor_free_is_no_obstacle)
{
	io_context_t ctx = t_context(64);
	int fd = t_file("data", 65536);
	struct rlimit limit;
	struct iocb iocbs[32], *list[32];
	struct io_event events[32];
	static char bufs[32][512];

	/* With the table full, the shim cannot duplicate anything; requests must succeed all the same. */
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)fd + 1;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int i = 0; i < 32; i++) {
		io_prep_pread(&iocbs[i], fd, bufs[i], 512, i * 512);
		list[i] = &iocbs[i];
	}
	CHECK_RET(io_submit(ctx, 32, list), 32);
	t_reap(ctx, 32, events);
	for (int i = 0; i < 32; i++) {
		CHECK_EQ(t_res(&events[i]), 512);
		t_check_pattern(bufs[i], 512, 0, (size_t)i * 512);
	}
	limit.rlim_cur = limit.rlim_max;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}
