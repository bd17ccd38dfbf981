/* setup.c - what io_setup and io_destroy answer, and what a context is. */
#include "las_test.h"

#include <limits.h>
#include <sys/resource.h>

static int read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return 65536;
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return atoi(text);
}

TEST(makes_a_context)
{
	io_context_t ctx = NULL;

	CHECK_RET(io_setup(1, &ctx), 0);
	CHECK(ctx != NULL);
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(zero_events_is_einval)
{
	io_context_t ctx = NULL;

	CHECK_RET(io_setup(0, &ctx), -EINVAL);
	CHECK(ctx == NULL);
}

TEST(int_max_events_is_einval)
{
	io_context_t ctx = NULL;

	CHECK_RET(io_setup(INT_MAX, &ctx), -EINVAL);
	CHECK(ctx == NULL);
}

TEST(negative_events_never_succeed)
{
	io_context_t ctx = NULL;
	int answer = io_setup(-1, &ctx);

	/* The kernel sees a large unsigned number and refuses it as too many. */
	CHECK_RET(answer, -EINVAL);
	CHECK(ctx == NULL);
}

TEST(counts_whose_double_is_small_are_eagain)
{
	io_context_t ctx = NULL;

	CHECK_RET(io_setup(INT_MIN, &ctx), -EAGAIN);
	CHECK_RET(io_setup(INT_MIN + 1, &ctx), -EAGAIN);
	CHECK(ctx == NULL);
}

TEST(more_than_a_ring_can_hold_is_einval)
{
	io_context_t ctx = NULL;

	/* Twice as many events of 32 bytes would be more than 256 MiB. */
	CHECK_RET(io_setup((0x10000000 / 32) / 2 + 1, &ctx), -EINVAL);
	CHECK(ctx == NULL);
}

TEST(one_context_for_more_than_the_system_allows)
{
	io_context_t ctx = NULL;
	int limit = read_number("/proc/sys/fs/aio-max-nr");

	if (limit < 65536 || limit >= (0x10000000 / 32) / 2)
		SKIP("fs.aio-max-nr is not between 65536 and what a ring can hold");
	CHECK_RET(io_setup(limit + 1, &ctx), -EAGAIN);
	CHECK(ctx == NULL);
}

TEST(no_room_for_the_ring_is_enomem)
{
	struct rlimit little = { 1 << 20, 1 << 20 };
	io_context_t ctx = NULL;

	t_context(1);
	CHECK_EQ(setrlimit(RLIMIT_AS, &little), 0);
	CHECK_RET(io_setup(30000, &ctx), -ENOMEM);
	CHECK(ctx == NULL);
}

TEST(nonzero_handle_is_einval)
{
	io_context_t ctx = (io_context_t)(uintptr_t)1;

	CHECK_RET(io_setup(1, &ctx), -EINVAL);
	CHECK(ctx == (io_context_t)(uintptr_t)1);
}

TEST(null_handle_pointer_is_efault)
{
	CHECK_RET(io_setup(1, NULL), -EFAULT);
}

TEST(unreadable_handle_pointer_is_efault)
{
	CHECK_RET(io_setup(1, t_no_access()), -EFAULT);
}

TEST(handle_pointer_in_kernel_range_is_efault)
{
	CHECK_RET(io_setup(1, (io_context_t *)(uintptr_t)0xffff800000000000u), -EFAULT);
}

TEST(read_only_handle_pointer_is_efault)
{
	io_context_t zero = NULL;
	io_context_t *page = t_read_only(&zero, sizeof(zero));

	CHECK_RET(io_setup(1, page), -EFAULT);
	CHECK(*page == NULL);
}

TEST(bad_values_win_over_a_read_only_handle_pointer)
{
	io_context_t zero = NULL, other = (io_context_t)(uintptr_t)7;

	CHECK_RET(io_setup(1, t_read_only(&other, sizeof(other))), -EINVAL);
	CHECK_RET(io_setup(0, t_read_only(&zero, sizeof(zero))), -EINVAL);
	CHECK_RET(io_setup(INT_MAX, t_read_only(&zero, sizeof(zero))), -EINVAL);
}

TEST(bad_pointer_is_noticed_before_bad_count)
{
	CHECK_RET(io_setup(0, NULL), -EFAULT);
	CHECK_RET(io_setup(INT_MAX, t_no_access()), -EFAULT);
}

TEST(handle_pointer_may_be_unaligned)
{
	char place[sizeof(io_context_t) + 1] = { 0 };
	io_context_t ctx;

	CHECK_RET(io_setup(1, (io_context_t *)(void *)(place + 1)), 0);
	memcpy(&ctx, place + 1, sizeof(ctx));
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(destroy_twice_is_einval)
{
	io_context_t ctx = t_context(1);

	CHECK_RET(io_destroy(ctx), 0);
	CHECK_RET(io_destroy(ctx), -EINVAL);
}

TEST(destroy_null_is_einval)
{
	CHECK_RET(io_destroy(NULL), -EINVAL);
}

TEST(every_call_refuses_a_destroyed_context)
{
	io_context_t ctx = t_context(1);
	int fd = t_file("data", 16);
	char byte;
	struct iocb iocb, *list = &iocb;
	struct io_event event;

	CHECK_RET(io_destroy(ctx), 0);
	io_prep_pread(&iocb, fd, &byte, 1, 0);
	CHECK_RET(io_submit(ctx, 1, &list), -EINVAL);
	CHECK_RET(io_submit(ctx, 0, &list), -EINVAL);
	CHECK_RET(any_getevents(ctx, 0, 1, &event, NULL), -EINVAL);
	CHECK_RET(any_getevents(ctx, 1, 1, &event, NULL), -EINVAL);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
	CHECK_RET(io_destroy(ctx), -EINVAL);
}

/* Bit patterns that a confused program could pass: small, odd, inside other memory, not canonical, kernel's. */
static void each_wild_handle(void (*check)(io_context_t ctx))
{
	static char zeros[8192] __attribute__((aligned(4096)));
	struct t_ring *forged = t_pages(8192);
	const uintptr_t values[] = { 0,
		                     1,
		                     7,
		                     8,
		                     4095,
		                     4096,
		                     0xdeadbeef,
		                     (uintptr_t)zeros,
		                     (uintptr_t)zeros + 1,
		                     (uintptr_t)&values,
		                     (uintptr_t)forged,
		                     (uintptr_t)t_no_access(),
		                     0x00007ffffffff000u,
		                     0x0000800000000000u,
		                     0x8000000000000000u,
		                     0xffff800000000000u,
		                     0xffffffffff600000u,
		                     0xfffffffffffff000u,
		                     UINTPTR_MAX };

	*forged = (struct t_ring){ .nr = 127, .magic = 0xa10a10a1, .compat_features = 1, .header_length = 32 };
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		check((io_context_t)values[i]);
	for (int bit = 0; bit < 64; bit++)
		check((io_context_t)((uintptr_t)1 << bit));
}

static void wild_destroy(io_context_t ctx)
{
	CHECK_RET(io_destroy(ctx), -EINVAL);
}

TEST(wild_handles_to_destroy_are_einval)
{
	each_wild_handle(wild_destroy);
}

static void wild_submit(io_context_t ctx)
{
	struct iocb iocb, *list = &iocb;
	char byte;

	io_prep_pread(&iocb, 0, &byte, 1, 0);
	CHECK_RET(io_submit(ctx, 1, &list), -EINVAL);
	CHECK_RET(io_submit(ctx, 0, NULL), -EINVAL);
}

TEST(wild_handles_to_submit_are_einval)
{
	each_wild_handle(wild_submit);
}

static void wild_getevents(io_context_t ctx)
{
	struct io_event event;
	struct timespec zero = { 0, 0 };

	CHECK_RET(any_getevents(ctx, 1, 1, &event, NULL), -EINVAL);
	CHECK_RET(any_getevents(ctx, 1, 1, &event, &zero), -EINVAL);
	CHECK_RET(any_getevents(ctx, 0, 0, NULL, &zero), -EINVAL);
}

TEST(wild_handles_to_getevents_are_einval)
{
	each_wild_handle(wild_getevents);
}

static void wild_cancel(io_context_t ctx)
{
	struct iocb iocb;
	struct io_event event;

	memset(&iocb, 0, sizeof(iocb));
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
}

TEST(wild_handles_to_cancel_are_einval)
{
	each_wild_handle(wild_cancel);
}

TEST(handle_near_a_real_one_is_einval)
{
	io_context_t ctx = t_context(128);
	struct io_event event;
	struct timespec zero = { 0, 0 };

	for (int offset = -64; offset <= 64; offset += 8) {
		io_context_t near = (io_context_t)((uintptr_t)ctx + (uintptr_t)offset);

		if (offset == 0)
			continue;
		CHECK_RET(any_getevents(near, 0, 1, &event, &zero), -EINVAL);
		CHECK_RET(io_destroy(near), -EINVAL);
	}
	CHECK_RET(any_getevents(ctx, 0, 1, &event, &zero), 0);
}

TEST(contexts_are_independent)
{
	io_context_t first = t_context(8), second = t_context(8);
	int fd = t_file("data", 4096);
	char a[16], b[16];
	struct iocb one, two;
	struct io_event event;

	CHECK(first != second);
	io_prep_pread(&one, fd, a, sizeof(a), 0);
	io_prep_pread(&two, fd, b, sizeof(b), 100);
	CHECK_RET(t_submit(first, &one), 1);
	CHECK_RET(t_submit(second, &two), 1);
	t_reap(second, 1, &event);
	CHECK(event.obj == &two);
	t_reap(first, 1, &event);
	CHECK(event.obj == &one);
	t_no_event(first);
	t_no_event(second);
	CHECK_RET(io_destroy(first), 0);
	CHECK_RET(t_pread(second, fd, b, sizeof(b), 0), 16);
}

TEST(a_thousand_contexts_at_once)
{
	enum { COUNT = 1000 };
	static io_context_t all[COUNT];
	int fd = t_file("data", 4096);
	char byte;

	for (int i = 0; i < COUNT; i++)
		CHECK_RET(io_setup(1, &all[i]), 0);
	for (int i = 0; i < COUNT; i++) {
		for (int j = i + 1; j < i + 3 && j < COUNT; j++)
			CHECK(all[i] != all[j]);
		CHECK_RET(t_pread(all[i], fd, &byte, 1, i), 1);
		CHECK_EQ((unsigned char)byte, t_byte(0, (size_t)i));
	}
	/* The kernel takes 30 ms for each; the process's exit takes them all at once. */
	for (int i = 0; i < (is_shim() ? COUNT : 2); i++)
		CHECK_RET(io_destroy(all[i]), 0);
}

TEST(sixty_five_thousand_contexts_at_once)
{
	enum { COUNT = 65536 };
	io_context_t *all = calloc(COUNT, sizeof(*all));
	int limit = read_number("/proc/sys/fs/aio-max-nr"), fd = t_file("data", 4096), made = 0;
	char byte;

	if (!is_shim()) {
		/* Each of the kernel's contexts uses up the whole machine's budget: ask for more than there is at once. */
		CHECK_RET(io_setup(limit + 1, &all[0]), -EAGAIN);
		return;
	}
	while (made < COUNT && (DIFFERS("no-system-limit"))) {
		int answer = io_setup(1, &all[made]);

		if (answer)
			FAIL("io_setup number %d answered %d", made, answer);
		made++;
	}
	CHECK_RET(t_pread(all[0], fd, &byte, 1, 0), 1);
	CHECK_RET(t_pread(all[COUNT - 1], fd, &byte, 1, 0), 1);
	for (int i = 0; i < COUNT; i++)
		CHECK_RET(io_destroy(all[i]), 0);
}

TEST(context_count_is_not_used_up_by_destroyed_ones)
{
	int fd = t_file("data", 4096);
	char byte;

	for (int i = 0; i < (is_shim() ? 5000 : 20); i++) {
		io_context_t ctx = NULL;

		CHECK_RET(io_setup(16, &ctx), 0);
		if (i % 50 == 0)
			CHECK_RET(t_pread(ctx, fd, &byte, 1, i % 4096), 1);
		CHECK_RET(io_destroy(ctx), 0);
	}
}

TEST(destroy_of_an_idle_context_frees_its_memory)
{
	/* The ring of 100,000 requests has more than 6 MiB; a thousand kept would be noticed below. */
	struct stat unused;
	int made = is_shim() ? 1000 : 10;
	long pages_before, pages_after;
	char text[128] = "";
	int fd = t_open("/proc/self/statm", O_RDONLY);

	(void)unused;
	CHECK(pread(fd, text, sizeof(text) - 1, 0) > 0);
	pages_before = atol(text);
	for (int i = 0; i < made; i++) {
		io_context_t ctx = NULL;

		CHECK_RET(io_setup(50000, &ctx), 0);
		CHECK_RET(io_destroy(ctx), 0);
	}
	CHECK(pread(fd, text, sizeof(text) - 1, 0) > 0);
	pages_after = atol(text);
	if (pages_after - pages_before > 256 * 1024 * 1024 / 4096)
		FAIL("address space grew by %ld pages", pages_after - pages_before);
}

TEST(idle_context_owns_no_descriptor)
{
	int before = t_count_fds(), fd;
	io_context_t ctx = t_context(64);
	char byte;

	CHECK_EQ(t_count_fds(), before);
	fd = t_file("data", 4096);
	CHECK_RET(t_pread(ctx, fd, &byte, 1, 0), 1);
	CHECK_RET(t_pwrite(ctx, fd, &byte, 1, 0), 1);
	for (int tries = 0; t_count_fds() != before + 1; tries++) {
		if (tries == 3000)
			FAIL("%d descriptors, expected %d", t_count_fds(), before + 1);
		t_sleep_ms(10);
	}
}
