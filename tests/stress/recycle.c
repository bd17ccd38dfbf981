/*
 * recycle.c - descriptors are closed the moment io_submit returns, and their numbers are other files' at once.
 *
 * A request belongs to the file that it was submitted on: no byte may come from, or go to, the next one of that number.
 */
#include "chance.h"

#include <sys/socket.h>

#include "libaio_shim.h"

enum { FILES = 24, BYTES = 4096 };

static io_context_t ctx;
static int64_t end_ms;
static struct c_source source;

static int open_numbered(unsigned number, int flags, bool fresh)
{
	char name[32], data[BYTES];
	int fd;

	snprintf(name, sizeof(name), "numbered-%u", number);
	fd = open(name, flags | O_CREAT | O_CLOEXEC, 0644);
	CHECK(fd >= 0);
	if (fresh) {
		t_fill(data, BYTES, number, 0);
		CHECK_EQ(pwrite(fd, data, BYTES, 0), BYTES);
	}
	return fd;
}

static void prepare(const char *lanes)
{
	if (lanes)
		setenv("LIBAIO_SHIM_LANES", lanes, 1);
	for (unsigned i = 0; i < FILES; i++)
		close(open_numbered(i, O_RDWR, true));
	ctx = t_context(FILES);
	source.state = c_setting("LAS_FUZZ_SEED", 1);
	end_ms = t_now_ms() + (int64_t)c_setting("LAS_STRESS_MS", 300);
}

static void run_reads(int flags)
{
	static struct iocb iocbs[FILES];
	struct io_event events[FILES];
	char *data = t_pages((size_t)FILES * BYTES);
	int number = -1;

	while (t_now_ms() < end_ms) {
		memset(data, 0, (size_t)FILES * BYTES);
		for (unsigned i = 0; i < FILES; i++) {
			int fd = open_numbered(i, flags, false);

			CHECK(number < 0 || fd == number); /* always the same */
			number = fd;
			if (c_one_in(&source, 3))
				posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
			io_prep_pread(&iocbs[i], fd, data + i * BYTES, BYTES, 0);
			CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
			CHECK_EQ(close(fd), 0);
		}
		t_reap(ctx, FILES, events);
		for (unsigned i = 0; i < FILES; i++) {
			CHECK_EQ(events[i].res, BYTES);
			t_check_pattern(data + i * BYTES, BYTES, i, 0);
		}
	}
}

static void run_writes(int flags)
{
	static struct iocb iocbs[FILES];
	struct io_event events[FILES];
	char *data = t_pages((size_t)FILES * BYTES), got[BYTES];

	for (unsigned round = 1; t_now_ms() < end_ms; round++) {
		for (unsigned i = 0; i < FILES; i++) {
			int fd = open_numbered(i, flags, false);

			t_fill(data + i * BYTES, BYTES, round * FILES + i, 0);
			io_prep_pwrite(&iocbs[i], fd, data + i * BYTES, BYTES, 0);
			CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
			CHECK_EQ(close(fd), 0);
		}
		t_reap(ctx, FILES, events);
		for (unsigned i = 0; i < FILES; i++) {
			int fd = open_numbered(i, O_RDONLY, false);

			CHECK_EQ(events[i].res, BYTES);
			CHECK_EQ(pread(fd, got, BYTES, 0), BYTES);
			t_check_pattern(got, BYTES, round * FILES + i, 0);
			close(fd);
		}
	}
}

TEST(reads_on_all_lanes)
{
	prepare(NULL);
	run_reads(O_RDONLY);
}

TEST(reads_on_the_crew)
{
	prepare("crew");
	run_reads(O_RDONLY);
}

TEST(direct_reads)
{
	int fd;

	prepare(NULL);
	fd = open("numbered-0", O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		SKIP("n/a: no O_DIRECT here");
	close(fd);
	run_reads(O_RDONLY | O_DIRECT);
}

TEST(writes_on_all_lanes)
{
	prepare(NULL);
	run_writes(O_RDWR);
}

TEST(durable_writes)
{
	prepare(NULL);
	run_writes(O_RDWR | O_DSYNC);
}

TEST(writes_on_the_crew)
{
	prepare("crew");
	run_writes(O_RDWR);
}

/* ---- many threads, all of whose files stand at the same few numbers ---- */

enum { THREADS = 3, OWN_FILES = 12, BLOCKS = 8 };

/* A request on a file that was closed when io_submit returned. */
struct errand {
	struct iocb iocb;
	char *page;
	unsigned file, block;
	uint32_t stamp; /* what it writes */
	int feeder;     /* the other end of its pipe, or -1 */
	bool is_write, is_sync, busy;
};

struct errands {
	struct c_source source;
	io_context_t ctx;
	unsigned number;                    /* of the thread */
	uint32_t stamps[OWN_FILES][BLOCKS]; /* what is in its files; 0: a hole */
	bool taken[OWN_FILES][BLOCKS];
	struct errand list[OWN_FILES];
};

static void name_file(char name[32], const struct errands *e, unsigned file)
{
	snprintf(name, 32, "of-%u-%u", e->number, file);
}

static unsigned seed_of(const struct errands *e, unsigned file, unsigned block, uint32_t stamp)
{
	return stamp * 31 + e->number * 1009 + file * 101 + block;
}

static void check_block(const struct errands *e, unsigned file, unsigned block, const char *page)
{
	static const char hole[BYTES];

	if (e->stamps[file][block])
		t_check_pattern(page, BYTES, seed_of(e, file, block, e->stamps[file][block]), 0);
	else
		CHECK_EQ(memcmp(page, hole, BYTES), 0);
}

/* Holes make the kernel refuse O_DIRECT writes late, O_DSYNC and O_APPEND make them wait, NONBLOCK changes nothing. */
static int open_own(struct errands *e, unsigned file)
{
	static const int flags[] = { 0, 0, O_DIRECT, O_DIRECT, O_DSYNC, O_NONBLOCK };
	char name[32];
	int fd;

	name_file(name, e, file);
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | C_PICK(&e->source, flags), 0600);
	if (fd < 0)
		fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	return fd;
}

static void set_out(struct errands *e, struct errand *one)
{
	int fd;

	one->busy = true;
	one->feeder = -1;
	one->is_sync = false;
	if (c_one_in(&e->source, 6)) {
		int ends[2];

		CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
		fd = ends[0];
		one->feeder = ends[1];
		one->stamp = (uint32_t)c_next(&e->source);
		io_prep_pread(&one->iocb, fd, one->page, BYTES, 0);
	} else {
		do {
			one->file = c_below(&e->source, OWN_FILES);
			one->block = c_below(&e->source, BLOCKS);
		} while (e->taken[one->file][one->block]);
		e->taken[one->file][one->block] = true;
		fd = open_own(e, one->file);
		one->is_sync = c_one_in(&e->source, 40);
		one->is_write = !one->is_sync && c_one_in(&e->source, 2);
		one->stamp = (uint32_t)c_next(&e->source) | 1;
		memset(one->page, 0xee, BYTES);
		if (one->is_write)
			t_fill(one->page, BYTES, seed_of(e, one->file, one->block, one->stamp), 0);
		if (one->is_sync)
			io_prep_fdsync(&one->iocb, fd);
		else if (one->is_write)
			io_prep_pwrite(&one->iocb, fd, one->page, BYTES, (long long)one->block * BYTES);
		else
			io_prep_pread(&one->iocb, fd, one->page, BYTES, (long long)one->block * BYTES);
		if (c_one_in(&e->source, 8))
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}
	one->iocb.data = one;
	CHECK_RET(las_io_submit(e->ctx, 1, (struct iocb *[]){ &one->iocb }), 1);
	CHECK_EQ(close(fd), 0);
}

static void come_home(struct errands *e, const struct io_event *event)
{
	struct errand *one = event->data;
	uint32_t got;

	CHECK(one->busy && event->obj == &one->iocb);
	one->busy = false;
	if (one->feeder >= 0) {
		CHECK_EQ(event->res, sizeof(got));
		memcpy(&got, one->page, sizeof(got));
		CHECK_EQ(got, one->stamp);
		CHECK_EQ(close(one->feeder), 0);
		return;
	}
	e->taken[one->file][one->block] = false;
	if (one->is_sync) {
		CHECK_EQ(event->res, 0);
		return;
	}
	if (one->is_write) {
		CHECK_EQ(event->res, BYTES);
		e->stamps[one->file][one->block] = one->stamp;
		return;
	}
	/* The file may be shorter yet. */
	if (event->res != BYTES) {
		CHECK_EQ(event->res, 0);
		memset(one->page, 0, BYTES);
	}
	check_block(e, one->file, one->block, one->page);
}

static void *run_errands(void *arg)
{
	struct errands *e = arg;
	struct io_event events[OWN_FILES];

	for (unsigned i = 0; i < OWN_FILES; i++)
		e->list[i].page = t_pages(BYTES);
	while (t_now_ms() < end_ms) {
		unsigned out = 0;
		long n;

		for (unsigned i = 0; i < OWN_FILES; i++)
			set_out(e, &e->list[i]);
		for (unsigned i = 0; i < OWN_FILES; i++)
			if (e->list[i].feeder >= 0)
				CHECK_EQ(write(e->list[i].feeder, &e->list[i].stamp, 4), 4);
		for (; out < OWN_FILES; out += (unsigned)n) {
			n = las_io_getevents(e->ctx, 1, OWN_FILES, events, NULL);
			CHECK(n > 0);
			for (long i = 0; i < n; i++)
				come_home(e, &events[i]);
		}
	}
	return NULL;
}

/* Whatever went to a wrong place is there now. */
static void check_own_files(const struct errands *e)
{
	char page[BYTES], name[32];

	for (unsigned file = 0; file < OWN_FILES; file++) {
		int fd;

		name_file(name, e, file);
		fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		for (unsigned block = 0; block < BLOCKS; block++) {
			memset(page, 0, BYTES);
			CHECK(pread(fd, page, BYTES, (off_t)block * BYTES) >= 0);
			check_block(e, file, block, page);
		}
		close(fd);
	}
}

/* What leaves the caller waits a little, as for a device; meanwhile its number is another file's. */
static void delay(void)
{
	static unsigned calls;

	if (gettid() != getpid() && u_count(&calls) % 4 == 0)
		usleep(300);
}

static long slow_preadv2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	if (!(flags & RWF_NOWAIT))
		delay();
	return u_real.preadv2(fd, iov, n, offset, flags);
}

static long slow_pwritev2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	if (!(flags & RWF_NOWAIT))
		delay();
	return u_real.pwritev2(fd, iov, n, offset, flags);
}

static void run_under_load(const char *lanes)
{
	static struct errands errands[THREADS];
	pthread_t threads[THREADS];

	if (lanes)
		setenv("LIBAIO_SHIM_LANES", lanes, 1);
	las_sys.preadv2 = slow_preadv2;
	las_sys.pwritev2 = slow_pwritev2;
	end_ms = t_now_ms() + (int64_t)c_setting("LAS_STRESS_MS", 300);
	for (unsigned i = 0; i < THREADS; i++) {
		errands[i].number = i;
		errands[i].source.state = c_setting("LAS_FUZZ_SEED", 1) + i * 1000003;
		errands[i].ctx = t_context(OWN_FILES);
		threads[i] = t_thread(run_errands, &errands[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		t_join(threads[i]);
	for (unsigned i = 0; i < THREADS; i++)
		check_own_files(&errands[i]);
}

TEST(threads_recycle_each_others_numbers_on_all_lanes)
{
	run_under_load(NULL);
}

TEST(threads_recycle_each_others_numbers_on_head_and_crew)
{
	run_under_load("head,crew");
}

TEST(threads_recycle_each_others_numbers_on_the_crew)
{
	run_under_load("crew");
}

TEST(threads_recycle_each_others_numbers_on_the_native_lane)
{
	run_under_load("native");
}

/* ---- kinds ---- */

/* One request on a new file of some kind, under a number that was a file of another kind a moment ago. */
static void one_of_any_kind(unsigned kind, int *number)
{
	int fd, other = -1, ends[2];
	struct io_event event;
	struct iocb iocb;
	char bytes[8] = "";
	bool is_write = kind & 1;

	switch (kind / 2) {
	case 0:
		fd = open_numbered(0, O_RDWR, false);
		break;
	case 1:
		fd = open("/dev/shm/las-recycle", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		unlink("/dev/shm/las-recycle");
		CHECK_EQ(pwrite(fd, "tmpfs...", 8, 0), 8);
		break;
	case 2:
		CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
		fd = ends[is_write];
		other = ends[!is_write];
		break;
	case 3:
		CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
		fd = ends[0];
		other = ends[1];
		break;
	case 4:
		fd = eventfd(1, EFD_CLOEXEC);
		is_write = false;
		break;
	default:
		fd = open_numbered(1, O_RDWR | O_APPEND, false);
		break;
	}
	CHECK(fd >= 0);
	/* Whatever it is, it stands at the same number. */
	if (fd != *number) {
		CHECK_EQ(dup3(fd, *number, O_CLOEXEC), *number);
		close(fd);
		fd = *number;
	}
	if (other >= 0 && !is_write)
		CHECK_EQ(write(other, "01234567", 8), 8);
	if (is_write)
		io_prep_pwrite(&iocb, fd, "01234567", 8, 0);
	else
		io_prep_pread(&iocb, fd, bytes, 8, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_reap(ctx, 1, &event);
	if ((long)event.res != 8)
		FAIL("kind %u: res %ld", kind, (long)event.res);
	if (other >= 0 && is_write)
		CHECK_EQ(read(other, bytes, 8), 8);
	if (other >= 0)
		CHECK_EQ(memcmp(bytes, "01234567", 8), 0);
	if (other >= 0)
		close(other);
}

TEST(a_number_that_is_another_kind_of_file_each_time)
{
	int number;

	prepare(NULL);
	number = t_own(open("/dev/null", O_RDONLY | O_CLOEXEC));
	while (t_now_ms() < end_ms)
		one_of_any_kind(c_below(&source, 12), &number);
}
