/* base.c - the ground: pools, the lock, pages that are tried before they are touched, and the configuration. */
#include "unit.h"

#include "base/config.h"
#include "base/fork.h"
#include "base/lock.h"
#include "base/pool.h"
#include "base/umem.h"

/* ---- pool ---- */

static struct las_pool pool;
static unsigned maps;
static size_t map_budget = SIZE_MAX;

static void *limited_mmap(void *addr, size_t bytes, int prot, int flags)
{
	u_count(&maps);
	if (bytes > map_budget)
		return NULL;
	map_budget -= bytes;
	return u_real.mmap(addr, bytes, prot, flags);
}

TEST(reserved_objects_are_had_without_a_system_call)
{
	las_sys.mmap = limited_mmap;
	las_pool_init(&pool, 512);
	CHECK_RET(las_pool_reserve(&pool, 1000), 0);
	maps = 0;
	for (int i = 0; i < 1000; i++)
		CHECK(las_pool_get(&pool) != NULL);
	CHECK_EQ(maps, 0);
}

TEST(objects_are_distinct_aligned_and_warm_ones_come_first)
{
	char *objects[300];

	las_pool_init(&pool, 192);
	for (int i = 0; i < 300; i++) {
		objects[i] = las_pool_get(&pool);
		CHECK(objects[i] != NULL);
		CHECK_EQ((uintptr_t)objects[i] % 64, 0);
		memset(objects[i], i, 192);
	}
	for (int i = 0; i < 300; i++)
		for (int k = 0; k < 192; k++)
			CHECK_EQ(objects[i][k], (char)i);
	las_pool_put(&pool, objects[7]);
	las_pool_put(&pool, objects[9]);
	CHECK(las_pool_get(&pool) == objects[9]);
	CHECK(las_pool_get(&pool) == objects[7]);
}

TEST(reserving_and_releasing_for_ever_maps_once)
{
	las_sys.mmap = limited_mmap;
	las_pool_init(&pool, 512);
	for (int i = 0; i < 10000; i++) {
		CHECK_RET(las_pool_reserve(&pool, 100), 0);
		las_pool_release(&pool, 100);
	}
	CHECK_EQ(maps, 1);
}

TEST(untouched_objects_cost_no_memory)
{
	enum { N = 100000 };
	size_t before, after;
	long pages;
	FILE *statm = fopen("/proc/self/statm", "r");

	CHECK(statm != NULL);
	las_pool_init(&pool, 512);
	CHECK_EQ(fscanf(statm, "%*s %zu", &before), 1);
	for (int i = 0; i < 8; i++)
		CHECK_RET(las_pool_reserve(&pool, N), 0); /* 400 MB */
	rewind(statm);
	fflush(statm);
	CHECK_EQ(fscanf(statm, "%*s %zu", &after), 1);
	fclose(statm);
	pages = (long)(after - before);
	CHECK(pages < 2000);
	/* And all of them can be had. */
	las_sys.mmap = limited_mmap;
	for (int i = 0; i < 8 * N; i += 1000)
		for (int k = 0; k < 1000; k++)
			CHECK(las_pool_get(&pool) != NULL);
	CHECK_EQ(maps, 0);
}

TEST(without_memory_reserving_fails_and_changes_nothing)
{
	las_sys.mmap = limited_mmap;
	las_pool_init(&pool, 512);
	map_budget = 64 * 1024;
	CHECK_RET(las_pool_reserve(&pool, 100000), -ENOMEM);
	CHECK_RET(las_pool_reserve(&pool, 10), 0);
	for (int i = 0; i < 128; i++)
		CHECK(las_pool_get(&pool) != NULL);
	CHECK(las_pool_get(&pool) == NULL);
	map_budget = SIZE_MAX;
	CHECK(las_pool_get(&pool) != NULL);
}

static void *churn(void *unused)
{
	uint64_t *mine[16];

	for (int round = 0; round < 5000; round++) {
		for (int i = 0; i < 16; i++) {
			mine[i] = las_pool_get(&pool);
			CHECK(mine[i] != NULL);
			mine[i][5] = (uint64_t)(uintptr_t)&mine[i] ^ (uint64_t)round;
		}
		for (int i = 0; i < 16; i++) {
			CHECK_EQ(mine[i][5], (uint64_t)(uintptr_t)&mine[i] ^ (uint64_t)round);
			las_pool_put(&pool, mine[i]);
		}
	}
	return NULL;
}

TEST(threads_never_get_the_same_object)
{
	pthread_t threads[4];

	las_pool_init(&pool, 64);
	for (int i = 0; i < 4; i++)
		threads[i] = t_thread(churn, NULL);
	for (int i = 0; i < 4; i++)
		t_join(threads[i]);
}

/* ---- lock ---- */

static struct las_lock lock;
static unsigned long guarded;

static void *add_guarded(void *unused)
{
	for (int i = 0; i < 100000; i++) {
		las_lock(&lock);
		guarded++;
		las_unlock(&lock);
	}
	return NULL;
}

TEST(the_lock_excludes)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		threads[i] = t_thread(add_guarded, NULL);
	for (int i = 0; i < 4; i++)
		t_join(threads[i]);
	CHECK_EQ(guarded, 400000);
	CHECK_EQ(lock.word, 0);
}

static pid_t sleeper;

static void *lock_once(void *unused)
{
	__atomic_store_n(&sleeper, gettid(), __ATOMIC_RELEASE);
	las_lock(&lock);
	CHECK_EQ(las_critical, 1);
	las_unlock(&lock);
	CHECK_EQ(las_critical, 0);
	return NULL;
}

TEST(who_sleeps_for_the_lock_is_woken)
{
	pthread_t thread;

	las_lock(&lock);
	thread = t_thread(lock_once, NULL);
	while (!__atomic_load_n(&sleeper, __ATOMIC_ACQUIRE))
		usleep(100);
	t_wait_asleep(sleeper);
	las_unlock(&lock);
	t_join(thread);
}

/* ---- umem ---- */

static unsigned tries;

static long counted_sigprocmask(int how, const void *set, void *old)
{
	u_count(&tries);
	return u_real.sigprocmask(how, set, old);
}

static long counted_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2,
                          uint32_t val3)
{
	u_count(&tries);
	return u_real.futex(word, op, val, ts, word2, val3);
}

static void count_tries(void)
{
	las_sys.sigprocmask = counted_sigprocmask;
	las_sys.futex = counted_futex;
}

TEST(what_can_be_read_and_written_is_told_apart)
{
	char *pages = t_pages(4096), *file;
	int fd = t_file("short", 100);

	CHECK(las_umem_readable(pages, 4096));
	CHECK(las_umem_writable(pages, 4096));
	CHECK(las_umem_readable("constant", 8));
	CHECK(!las_umem_writable((void *)(uintptr_t) "constant", 8));
	CHECK(!las_umem_readable(NULL, 1));
	CHECK(!las_umem_writable(NULL, 1));
	CHECK(!las_umem_readable((void *)100, 8));
	CHECK(!las_umem_readable(t_no_access(), 8));
	CHECK(!las_umem_writable(t_no_access(), 8));
	CHECK(!las_umem_readable((void *)0xffff888000000000, 8));
	CHECK(!las_umem_readable((void *)0x0000900000000000, 8)); /* not canonical */
	CHECK(!las_umem_readable((void *)(UINTPTR_MAX - 3), 8));
	CHECK(!las_umem_readable(pages, SIZE_MAX));
	/* Behind the end of a file is a mapping that raises SIGBUS. */
	file = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(file != MAP_FAILED);
	CHECK(las_umem_writable(file, 4096));
	CHECK(!las_umem_readable(file + 4096, 8));
	CHECK(!las_umem_writable(file + 4096, 8));
}

TEST(every_page_of_a_range_is_tried)
{
	char *pages = t_pages(5 * 4096);

	CHECK(las_umem_readable(pages + 100, 4 * 4096));
	CHECK_EQ(mprotect(pages + 4 * 4096, 4096, PROT_NONE), 0);
	CHECK(las_umem_readable(pages, 4 * 4096));
	CHECK(!las_umem_readable(pages, 4 * 4096 + 1));
	CHECK(!las_umem_readable(pages + 4 * 4096 - 1, 2));
	CHECK_EQ(mprotect(pages + 2 * 4096, 4096, PROT_READ), 0);
	CHECK(las_umem_readable(pages, 4 * 4096));
	CHECK(!las_umem_writable(pages, 4 * 4096));
	CHECK(las_umem_writable(pages, 2 * 4096));
}

TEST(trying_changes_nothing)
{
	char *pages = t_pages(3 * 4096), before[3 * 4096];

	t_fill(pages, 3 * 4096, 5, 0);
	memcpy(before, pages, sizeof(before));
	for (int i = 0; i < 100; i++)
		CHECK(las_umem_writable(pages + i * 7, 8192));
	CHECK_EQ(memcmp(before, pages, sizeof(before)), 0);
}

TEST(a_page_is_tried_so_often_and_then_trusted)
{
	char *pages = t_pages(4096);

	count_tries();
	for (int i = 0; i < LAS_UMEM_TRUST; i++)
		CHECK(las_umem_readable(pages + i, 64));
	CHECK_EQ(tries, LAS_UMEM_TRUST);
	for (int i = 0; i < 1000; i++)
		CHECK(las_umem_readable(pages + i, 64));
	CHECK_EQ(tries, LAS_UMEM_TRUST);
	/* To write is another thing. */
	CHECK(las_umem_writable(pages, 64));
	CHECK_EQ(tries, LAS_UMEM_TRUST + 1);
}

TEST(a_page_that_vanishes_before_it_is_trusted_is_noticed)
{
	char *pages = t_pages(4096);

	for (int i = 0; i < LAS_UMEM_TRUST - 1; i++)
		CHECK(las_umem_readable(pages, 8));
	CHECK_EQ(munmap(pages, 4096), 0);
	CHECK(!las_umem_readable(pages, 8));
}

TEST(two_busy_pages_of_one_slot_are_both_trusted)
{
	char *pages = t_pages((size_t)4096 * 4096);
	uintptr_t first = (uintptr_t)pages >> 12, second = 0;

	for (uintptr_t page = first + 1; page < first + 4096 && !second; page++)
		if (las_umem_slot(page) == las_umem_slot(first))
			second = page;
	CHECK(second != 0);
	for (int i = 0; i < LAS_UMEM_TRUST * 4; i++) {
		CHECK(las_umem_readable((void *)(first << 12), 8));
		CHECK(las_umem_readable((void *)(second << 12), 8));
	}
	count_tries();
	for (int i = 0; i < 100; i++) {
		CHECK(las_umem_readable((void *)(first << 12), 8));
		CHECK(las_umem_readable((void *)(second << 12), 8));
	}
	CHECK_EQ(tries, 0);
}

/* ---- configuration ---- */

static void load(const char *name, const char *value)
{
	CHECK_EQ(value ? setenv(name, value, 1) : unsetenv(name), 0);
	las_config_load();
}

TEST(lanes_are_read_from_a_list_of_words)
{
	static const struct {
		const char *text;
		unsigned lanes;
	} rows[] = { { NULL, LAS_LANE_ALL },
		     { "", LAS_LANE_ALL },
		     { "all", LAS_LANE_ALL },
		     { "crew", LAS_LANE_CREW },
		     { "head", LAS_LANE_HEAD | LAS_LANE_CREW }, /* the crew is always on */
		     { "native", LAS_LANE_NATIVE | LAS_LANE_CREW },
		     { "head,native", LAS_LANE_ALL },
		     { "crew,head", LAS_LANE_HEAD | LAS_LANE_CREW },
		     { "crew,all", LAS_LANE_ALL },
		     { "heads", LAS_LANE_ALL }, /* not a word that is known */
		     { "hea", LAS_LANE_ALL },
		     { "nothing,crew", LAS_LANE_CREW },
		     { ",,crew,,", LAS_LANE_CREW },
		     { ",", LAS_LANE_ALL } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		load("LIBAIO_SHIM_LANES", rows[i].text);
		CHECK_EQ(las_config.lanes, rows[i].lanes);
	}
}

TEST(inline_and_settle_are_single_words)
{
	load("LIBAIO_SHIM_INLINE", NULL);
	CHECK_EQ(las_config.inline_mode, LAS_INLINE_AUTO);
	load("LIBAIO_SHIM_INLINE", "nowait");
	CHECK_EQ(las_config.inline_mode, LAS_INLINE_NOWAIT);
	load("LIBAIO_SHIM_INLINE", "never");
	CHECK_EQ(las_config.inline_mode, LAS_INLINE_NEVER);
	load("LIBAIO_SHIM_INLINE", "neverland");
	CHECK_EQ(las_config.inline_mode, LAS_INLINE_AUTO);
	load("LIBAIO_SHIM_SETTLE", "1");
	CHECK(las_config.settle);
	load("LIBAIO_SHIM_SETTLE", "0");
	CHECK(!las_config.settle);
	load("LIBAIO_SHIM_SETTLE", "11");
	CHECK(!las_config.settle);
}

/* Runs in a process of its own, which had the variable when it began. */
TEST(environment_that_was_wiped_since)
{
	if (!getenv("LIBAIO_SHIM_SETTLE"))
		SKIP("n/a: the other half of settings_outlive_the_environment");
	CHECK_EQ(clearenv(), 0);
	las_config_load();
	CHECK(las_config.settle);
	CHECK_EQ(las_config.lanes, LAS_LANE_CREW);
	load("LIBAIO_SHIM_SETTLE", "0");
	CHECK(!las_config.settle);
}

TEST(settings_outlive_the_environment)
{
	int status;

	setenv("LIBAIO_SHIM_SETTLE", "1", 1);
	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	status = t_again("environment_that_was_wiped_since");
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(a_path_that_is_too_long_is_no_path)
{
	static char path[PATH_MAX + 10];

	memset(path, 'x', PATH_MAX);
	load("LIBAIO_SHIM_STATS", path);
	CHECK_EQ(las_config.stats_path[0], 0);
	path[PATH_MAX - 1] = 0;
	load("LIBAIO_SHIM_STATS", path);
	CHECK_EQ(strlen(las_config.stats_path), PATH_MAX - 1);
}

static const char *possible;

static long fake_open(int dirfd, const char *path, int flags, int mode)
{
	CHECK_EQ(strcmp(path, "/sys/devices/system/cpu/possible"), 0);
	return possible ? 1000 : -ENOENT;
}

static long fake_preadv2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	CHECK_EQ(fd, 1000);
	CHECK(iov->iov_len >= strlen(possible));
	memcpy(iov->iov_base, possible, strlen(possible));
	return (long)strlen(possible);
}

static long fake_close(int fd)
{
	CHECK_EQ(fd, 1000);
	return 0;
}

TEST(possible_processors_are_the_last_number_and_one)
{
	static const struct {
		const char *text;
		unsigned cpus;
	} rows[] = { { "0\n", 1 }, { "0-1\n", 2 }, { "0-127\n", 128 }, { "0,2-5\n", 6 }, { "0-3,8\n", 9 } };

	las_sys.openat = fake_open;
	las_sys.preadv2 = fake_preadv2;
	las_sys.close = fake_close;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		possible = rows[i].text;
		las_config_load();
		CHECK_EQ(las_config.possible_cpus, rows[i].cpus);
	}
	possible = NULL; /* no such file: sysconf tells */
	las_config_load();
	CHECK(las_config.possible_cpus >= 1);
}

/* ---- first use ---- */

static unsigned initialised;
static struct u_gate starting = U_GATE_CLOSED;

static void slow_init(void)
{
	u_count(&initialised);
	u_gate_pass(&starting);
}

static void *first_use(void *unused)
{
	CHECK_RET(las_process_start(slow_init), 0);
	CHECK(las_process_ready());
	return NULL;
}

TEST(first_use_by_many_threads_initialises_once)
{
	pthread_t threads[8];

	for (int i = 0; i < 8; i++)
		threads[i] = t_thread(first_use, NULL);
	u_gate_await(&starting, 1);
	t_sleep_ms(10);
	CHECK(!las_process_ready());
	u_gate_open(&starting);
	for (int i = 0; i < 8; i++)
		t_join(threads[i]);
	CHECK_EQ(initialised, 1);
}

TEST(without_memory_the_first_use_fails_and_the_next_succeeds)
{
	las_sys.mmap = limited_mmap;
	map_budget = 0;
	u_gate_open(&starting);
	CHECK_RET(las_process_start(slow_init), -ENOMEM);
	CHECK_EQ(initialised, 0);
	map_budget = SIZE_MAX;
	CHECK_RET(las_process_start(slow_init), 0);
	CHECK_EQ(initialised, 1);
}
