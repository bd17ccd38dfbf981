/* context.c - handles and lifetimes: what is a context, what was one, and what never will be. */
#include "unit.h"

#include "base/config.h"
#include "libaio_shim.h"

static long destroy_wild(uintptr_t handle)
{
	return io_destroy((io_context_t)handle);
}

TEST(no_bit_pattern_but_a_handle_is_a_context)
{
	io_context_t ctx = t_context(4);
	uintptr_t handle = (uintptr_t)ctx;

	for (int bit = 0; bit < 64; bit++) {
		uintptr_t wild = handle ^ (uintptr_t)1 << bit;

		CHECK_EQ(las_io_owns((io_context_t)wild), 0);
		CHECK_RET(destroy_wild(wild), -EINVAL);
	}
	CHECK_RET(destroy_wild(0), -EINVAL);
	CHECK_RET(destroy_wild(UINTPTR_MAX), -EINVAL);
	CHECK_RET(destroy_wild((uintptr_t)t_no_access()), -EINVAL);
	CHECK_RET(destroy_wild((uintptr_t)&ctx), -EINVAL);
	CHECK_EQ(las_io_owns(ctx), 1);
}

TEST(a_destroyed_context_is_none_and_its_memory_stays)
{
	io_context_t ctx = NULL;
	struct io_event event;
	struct iocb iocb;
	char byte;

	CHECK_RET(io_setup(4, &ctx), 0);
	io_prep_pread(&iocb, t_file("file", 1), &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_RET(io_destroy(ctx), 0);
	CHECK_RET(io_destroy(ctx), -EINVAL);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, NULL), -EINVAL);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
	CHECK_EQ(las_io_owns(ctx), 0);
	CHECK_EQ(t_ring(ctx)->magic, 0xa10a10a1); /* a late look finds no hole */
}

TEST(a_new_context_never_shows_old_events)
{
	struct iocb iocb;
	char byte;

	io_prep_pread(&iocb, t_file("file", 1), &byte, 1, 0);
	for (int round = 0; round < 300; round++) {
		io_context_t ctx = NULL;

		CHECK_RET(io_setup(round % 3 ? 1 : 500, &ctx), 0);
		CHECK_EQ(t_ring_count(ctx), 0);
		CHECK_EQ(t_ring(ctx)->head, 0);
		for (int i = 0; i < 5; i++)
			CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_RET(io_destroy(ctx), 0);
	}
}

static unsigned maps;

static void *counted_mmap(void *addr, size_t bytes, int prot, int flags)
{
	u_count(&maps);
	return u_real.mmap(addr, bytes, prot, flags);
}

TEST(contexts_that_come_and_go_use_the_same_memory)
{
	io_context_t ctx = NULL;

	CHECK_RET(io_setup(200, &ctx), 0);
	CHECK_RET(io_destroy(ctx), 0);
	las_sys.mmap = counted_mmap;
	for (int i = 0; i < 2000; i++) {
		ctx = NULL;
		CHECK_RET(io_setup(200, &ctx), 0);
		CHECK_RET(io_destroy(ctx), 0);
	}
	CHECK_EQ(maps, 0);
}

TEST(thousands_of_contexts_are_told_apart)
{
	enum { N = 5000 };
	static io_context_t contexts[N];
	static struct iocb iocbs[N];
	int fd = t_file("file", 256);
	char byte;

	for (int i = 0; i < N; i++)
		CHECK_RET(io_setup(1, &contexts[i]), 0);
	for (int i = 0; i < N; i += 7) {
		io_prep_pread(&iocbs[i], fd, &byte, 1, i % 256);
		CHECK_RET(t_submit(contexts[i], &iocbs[i]), 1);
	}
	for (int i = 0; i < N; i++) {
		struct io_event event;

		CHECK_RET(io_getevents(contexts[i], 0, 1, &event, NULL), i % 7 == 0);
		if (i % 7 == 0)
			CHECK(event.obj == &iocbs[i]);
	}
	for (int i = 0; i < N; i += 2)
		CHECK_RET(io_destroy(contexts[i]), 0);
	for (int i = 0; i < N; i++)
		CHECK_EQ(las_io_owns(contexts[i]), i % 2);
	for (int i = 1; i < N; i += 2)
		CHECK_RET(io_destroy(contexts[i]), 0);
}

static size_t ring_bytes(io_context_t ctx)
{
	return (32 + (size_t)t_ring(ctx)->nr * 32 + 4095) & ~(size_t)4095;
}

TEST(a_ring_that_the_program_protects_is_no_context_until_it_can_be_read)
{
	io_context_t ctx = t_context(1);
	size_t bytes = ring_bytes(ctx);
	struct io_event event;

	/* Not trusted yet: no call has used its page often. */
	CHECK_EQ(mprotect(ctx, bytes, PROT_NONE), 0);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, NULL), -EINVAL);
	CHECK_EQ(mprotect(ctx, bytes, PROT_READ | PROT_WRITE), 0);
	CHECK_RET(io_getevents(ctx, 0, 1, &event, NULL), 0);
}

TEST(requests_under_way_survive_a_ring_that_is_unmapped)
{
	io_context_t ctx = NULL;
	struct iocb iocbs[64], *list[64];
	static char bytes[64];
	char expected[64];
	int fd = t_file("file", 64);

	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	CHECK_RET(io_setup(64, &ctx), 0);
	for (int i = 0; i < 64; i++)
		io_prep_pread(list[i] = &iocbs[i], fd, &bytes[i], 1, i);
	CHECK_RET(io_submit(ctx, 64, list), 64);
	CHECK_EQ(munmap(ctx, ring_bytes(ctx)), 0);
	/* The threads' own view of it is whole; nothing but the bytes tells of them. */
	t_fill(expected, 64, 0, 0);
	for (int i = 0; i < 20000 && memcmp(bytes, expected, 64) != 0; i++)
		t_sleep_ms(1);
	t_check_pattern(bytes, 64, 0, 0);
}

static void *wanted;

static void *mmap_where_wanted(void *addr, size_t bytes, int prot, int flags)
{
	if (!(flags & MAP_SHARED) || !wanted)
		return u_real.mmap(addr, bytes, prot, flags);
	return u_real.mmap(wanted, bytes, prot, flags | MAP_FIXED_NOREPLACE);
}

TEST(an_address_that_was_a_ring_can_be_another_contexts_ring)
{
	io_context_t old = NULL, new = NULL, larger = NULL;
	struct iocb iocb;
	char byte = 0;
	size_t bytes;

	/* A ring so large that it is a mapping of its own. */
	CHECK_RET(io_setup(20000, &old), 0);
	/* Leaves memory for requests behind, so that nothing but the ring is mapped into the hole. */
	CHECK_RET(io_setup(60000, &larger), 0);
	CHECK_RET(io_destroy(larger), 0);
	bytes = ring_bytes(old);
	bytes = bytes < 1 << 21 ? 1 << 21 : bytes; /* sizes are powers of two of pages */
	CHECK_EQ(munmap(old, bytes), 0);
	las_sys.mmap = mmap_where_wanted;
	wanted = old;
	CHECK_RET(io_setup(20000, &new), 0);
	wanted = NULL;
	CHECK(new == old);
	io_prep_pread(&iocb, t_file("file", 1), &byte, 1, 0);
	CHECK_RET(t_submit(new, &iocb), 1);
	CHECK_EQ(t_ring_count(new), 1); /* in the ring that the program sees */
	CHECK_EQ(t_reap_one(new), 1);
	CHECK_RET(io_destroy(new), 0);
	CHECK_RET(io_destroy(new), -EINVAL);
}

static void *no_second_view(void *addr, size_t bytes)
{
	return NULL;
}

TEST(one_view_of_the_ring_will_do)
{
	io_context_t ctx;
	struct iocb iocb;
	char byte;

	las_sys.mremap_dup = no_second_view;
	ctx = t_context(4);
	io_prep_pread(&iocb, t_file("file", 1), &byte, 1, 0);
	for (int i = 0; i < 500; i++)
		CHECK_EQ(t_run(ctx, &iocb), 1);
}

/* What a kernel with pages of 64 KiB, as some of aarch64 have, says of an address between them. */
static long protect_large_pages(void *addr, size_t bytes, int prot)
{
	return (uintptr_t)addr % 65536 ? -EINVAL : u_real.mprotect(addr, bytes, prot);
}

static void *map_large_pages(void *addr, size_t bytes, int prot, int flags)
{
	char *at = u_real.mmap(addr, bytes + 65536, prot, flags);

	u_count(&maps);
	return at ? at + (-(uintptr_t)at & 65535) : NULL;
}

TEST(contexts_use_the_same_memory_where_pages_are_large)
{
	io_context_t held[8], ctx = NULL;
	struct io_event event;
	struct iocb iocb;
	unsigned before;
	char byte;

	u_start();
	las_config.page_bytes = 65536;
	las_sys.mprotect = protect_large_pages;
	las_sys.mmap = map_large_pages;
	las_sys.mremap_dup = no_second_view;
	for (int i = 0; i < 8; i++)
		held[i] = t_context(1);
	CHECK_RET(io_setup(1, &ctx), 0);
	CHECK_EQ(t_ring(ctx)->nr, 2047);
	CHECK_EQ((uintptr_t)ctx % 65536, 0);
	CHECK_RET(io_destroy(ctx), 0);
	before = u_counted(&maps);
	for (int i = 0; i < 1000; i++) {
		ctx = NULL;
		CHECK_RET(io_setup(1, &ctx), 0);
		CHECK_RET(io_destroy(ctx), 0);
	}
	CHECK_EQ(u_counted(&maps), before);
	io_prep_pread(&iocb, t_file("file", 1), &byte, 1, 0);
	for (int i = 0; i < 8; i++) {
		CHECK_RET(t_submit(held[i], &iocb), 1);
		CHECK_RET(io_getevents(held[i], 1, 1, &event, NULL), 1);
	}
}

TEST(counts_of_contexts_that_are_gone_are_kept)
{
	struct las_stats before, after;
	struct iocb iocb;
	char byte;

	u_start();
	io_prep_pread(&iocb, t_file("file", 1), &byte, 1, 0);
	las_stats_get(&before, sizeof(before));
	for (int i = 0; i < 10; i++) {
		io_context_t ctx = NULL;

		CHECK_RET(io_setup(4, &ctx), 0);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_RET(io_destroy(ctx), 0);
	}
	las_stats_get(&after, sizeof(after));
	CHECK_EQ(after.contexts - before.contexts, 10);
	CHECK_EQ(after.submitted - before.submitted, 10);
}

TEST(old_callers_of_the_statistics_get_what_they_know)
{
	struct las_stats stats;

	memset(&stats, 0xee, sizeof(stats));
	u_start();
	CHECK_EQ(las_stats_get(&stats, 16), 16);
	CHECK_EQ(stats.head, 0xeeeeeeeeeeeeeeeeu);
	CHECK_EQ(las_stats_get(&stats, 0), 0);
	CHECK_EQ(las_stats_get(&stats, 4096), sizeof(stats));
}

/* ---- late callers ---- */

static io_context_t shared;
static bool stop;

static void *call_late(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		io_context_t ctx = __atomic_load_n(&shared, __ATOMIC_ACQUIRE);
		struct io_event event;
		long ret = io_getevents(ctx, 0, 1, &event, NULL);

		CHECK(ret == 0 || ret == -EINVAL);
		las_io_owns(ctx);
		ret = io_submit(ctx, 0, NULL);
		CHECK(ret == 0 || ret == -EINVAL);
	}
	return NULL;
}

TEST(destroy_does_not_wait_for_late_callers_nor_they_for_it)
{
	pthread_t threads[3];

	shared = t_context(1);
	for (int i = 0; i < 3; i++)
		threads[i] = t_thread(call_late, NULL);
	for (int i = 0; i < 3000; i++) {
		io_context_t ctx = NULL;

		CHECK_RET(io_setup(1, &ctx), 0);
		__atomic_store_n(&shared, ctx, __ATOMIC_RELEASE);
		CHECK_RET(io_destroy(ctx), 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (int i = 0; i < 3; i++)
		t_join(threads[i]);
}
