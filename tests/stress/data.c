/*
 * data.c - many threads, shared contexts, random reads and writes of many kinds, and every byte checked.
 *
 * A file is an array of blocks.  A block is free or in one request's hands; what it should hold is known by its stamp.
 * Any thread may submit for any block and reap anybody's event; whoever reaps checks.
 *
 *   LAS_STRESS_MS=60000 LAS_FUZZ_SEED=3 data CASE
 */
#include "chance.h"

#include "libaio_shim.h"

enum { BLOCK = 4096, BLOCKS = 512, MOST = 4 /* blocks of one request */, BATCH = 16, CONTEXTS = 3, THREADS = 4 };

struct block {
	bool busy; /* atomic */
	uint32_t stamp;
};

struct file {
	int fd;
	bool may_sync;
	struct block blocks[BLOCKS];
};

struct op {
	struct iocb iocb;
	struct iovec iov[MOST];
	struct file *file;
	unsigned first, count;
	bool write, sync, done;
	uint32_t stamp;
	char *data; /* MOST blocks, aligned */
};

static struct file files[4];
static unsigned file_count;
static io_context_t contexts[CONTEXTS];
static int64_t end_ms;
static unsigned accepted, ended;

static uint64_t word_of(uint32_t stamp, const struct file *file, unsigned block)
{
	return ((uint64_t)stamp << 32 | (uint64_t)(file - files) << 24 | block) * 0x9e3779b97f4a7c15u | 1;
}

static void fill(char *data, uint32_t stamp, const struct file *file, unsigned block)
{
	uint64_t word = word_of(stamp, file, block);

	for (size_t i = 0; i < BLOCK; i += 8)
		memcpy(data + i, &word, 8);
}

static void check(const char *data, uint32_t stamp, const struct file *file, unsigned block)
{
	uint64_t word = word_of(stamp, file, block), got;

	for (size_t i = 0; i < BLOCK; i += 8) {
		memcpy(&got, data + i, 8);
		if (got != word)
			FAIL("file %d block %u byte %zu: %lx, expected %lx (stamp %u)", (int)(file - files), block, i,
			     got, word, stamp);
	}
}

static bool take_block(struct file *file, unsigned i)
{
	return !__atomic_exchange_n(&file->blocks[i].busy, true, __ATOMIC_ACQ_REL);
}

static void give_block(struct file *file, unsigned i)
{
	__atomic_store_n(&file->blocks[i].busy, false, __ATOMIC_RELEASE);
}

/* Up to `most` free blocks in a row. */
static unsigned take_blocks(struct file *file, unsigned first, unsigned most)
{
	unsigned n = 0;

	while (n < most && first + n < BLOCKS && take_block(file, first + n))
		n++;
	return n;
}

static void make_transfer(struct c_source *source, struct op *op)
{
	bool vector = c_one_in(source, 3);

	op->write = c_one_in(source, 2);
	op->stamp = (uint32_t)c_next(source);
	for (unsigned i = 0; i < op->count; i++) {
		op->iov[i] = (struct iovec){ op->data + i * BLOCK, BLOCK };
		if (op->write)
			fill(op->data + i * BLOCK, op->stamp, op->file, op->first + i);
		else
			memset(op->data + i * BLOCK, 0, BLOCK);
	}
	if (vector && op->write)
		io_prep_pwritev(&op->iocb, op->file->fd, op->iov, (int)op->count, (long long)op->first * BLOCK);
	else if (vector)
		io_prep_preadv(&op->iocb, op->file->fd, op->iov, (int)op->count, (long long)op->first * BLOCK);
	else if (op->write)
		io_prep_pwrite(&op->iocb, op->file->fd, op->data, (size_t)op->count * BLOCK,
		               (long long)op->first * BLOCK);
	else
		io_prep_pread(&op->iocb, op->file->fd, op->data, (size_t)op->count * BLOCK,
		              (long long)op->first * BLOCK);
}

static bool make_op(struct c_source *source, struct op *op)
{
	op->file = &files[c_below(source, file_count)];
	op->sync = op->file->may_sync && c_one_in(source, 200);
	op->count = 0;
	if (op->sync) {
		if (c_one_in(source, 2))
			io_prep_fsync(&op->iocb, op->file->fd);
		else
			io_prep_fdsync(&op->iocb, op->file->fd);
	} else {
		op->first = c_below(source, BLOCKS);
		op->count = take_blocks(op->file, op->first, 1 + c_below(source, MOST));
		if (op->count == 0)
			return false;
		make_transfer(source, op);
	}
	op->iocb.data = op;
	return true;
}

static void finish(struct op *op, long res)
{
	if (op->sync)
		CHECK_EQ(res, 0);
	else
		CHECK_EQ(res, (long)op->count * BLOCK);
	for (unsigned i = 0; i < op->count; i++) {
		struct block *block = &op->file->blocks[op->first + i];

		if (op->write)
			block->stamp = op->stamp;
		else
			check(op->data + i * BLOCK, block->stamp, op->file, op->first + i);
		give_block(op->file, op->first + i);
	}
	CHECK(!__atomic_exchange_n(&op->done, true, __ATOMIC_ACQ_REL));
	u_count(&ended);
}

static void reap(struct c_source *source, io_context_t ctx, long min)
{
	struct timespec timeout = { 0, 1000 * 1000 };
	struct io_event events[BATCH];
	long n = las_io_getevents(ctx, min, BATCH, events, c_one_in(source, 8) && min == 0 ? NULL : &timeout);

	CHECK(n >= 0);
	for (long i = 0; i < n; i++) {
		CHECK(events[i].obj == &((struct op *)events[i].data)->iocb);
		finish(events[i].data, (long)events[i].res);
	}
}

struct thread {
	struct c_source source;
	struct op ops[BATCH * 4];
};

static void submit(struct thread *t, io_context_t ctx)
{
	unsigned n = 0, wanted = 1 + c_below(&t->source, BATCH);
	struct iocb *list[BATCH];
	long ret;

	for (unsigned i = 0; i < BATCH * 4 && n < wanted; i++) {
		struct op *op = &t->ops[i];

		if (!__atomic_load_n(&op->done, __ATOMIC_ACQUIRE) || !make_op(&t->source, op))
			continue;
		__atomic_store_n(&op->done, false, __ATOMIC_RELEASE);
		list[n++] = &op->iocb;
	}
	for (unsigned done = 0; done < n; done += (unsigned)ret) {
		ret = las_io_submit(ctx, n - done, list + done);
		if (ret == -EAGAIN) {
			reap(&t->source, ctx, 0);
			ret = 0;
			continue;
		}
		CHECK(ret > 0);
		__atomic_add_fetch(&accepted, (unsigned)ret, __ATOMIC_SEQ_CST);
	}
}

static void *run(void *arg)
{
	struct thread *t = arg;

	for (unsigned i = 0; i < BATCH * 4; i++) {
		t->ops[i].data = t_pages((size_t)MOST * BLOCK);
		t->ops[i].done = true;
	}
	while (t_now_ms() < end_ms || u_counted(&accepted) == 0) {
		io_context_t ctx = contexts[c_below(&t->source, CONTEXTS)];

		if (c_one_in(&t->source, 2))
			submit(t, ctx);
		else
			reap(&t->source, ctx, c_below(&t->source, 3));
	}
	return NULL;
}

static void open_file(const char *path, int flags)
{
	struct file *file = &files[file_count];
	static char data[BLOCK];
	int fd;

	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	CHECK(fd >= 0);
	for (unsigned i = 0; i < BLOCKS; i++) {
		fill(data, 0, file, i);
		CHECK_EQ(pwrite(fd, data, BLOCK, (off_t)i * BLOCK), BLOCK);
	}
	close(fd);
	fd = open(path, flags | O_CLOEXEC);
	unlink(path);
	if (fd < 0)
		return; /* no O_DIRECT here */
	file->fd = t_own(fd);
	file_count++;
}

static void run_threads(unsigned n)
{
	static struct thread threads[THREADS];
	pthread_t ids[THREADS];
	struct c_source source = { 0 };

	for (int i = 0; i < CONTEXTS; i++)
		CHECK_RET(las_io_setup(64, &contexts[i]), 0);
	end_ms = t_now_ms() + (int64_t)c_setting("LAS_STRESS_MS", 300);
	for (unsigned i = 0; i < n; i++) {
		threads[i].source.state = c_setting("LAS_FUZZ_SEED", 1) + i * 1000003;
		ids[i] = t_thread(run, &threads[i]);
	}
	for (unsigned i = 0; i < n; i++)
		t_join(ids[i]);
	for (int64_t patience = t_now_ms() + 20000; u_counted(&ended) < u_counted(&accepted);) {
		CHECK(t_now_ms() < patience);
		for (int i = 0; i < CONTEXTS; i++)
			reap(&source, contexts[i], 0);
	}
	for (int i = 0; i < CONTEXTS; i++)
		CHECK_RET(las_io_destroy(contexts[i]), 0);
	CHECK_EQ(u_counted(&ended), u_counted(&accepted));
	for (unsigned f = 0; f < file_count; f++) {
		char data[BLOCK] __attribute__((aligned(BLOCK)));

		for (unsigned i = 0; i < BLOCKS; i++) {
			CHECK(!files[f].blocks[i].busy);
			CHECK_EQ(pread(files[f].fd, data, BLOCK, (off_t)i * BLOCK), BLOCK);
			check(data, files[f].blocks[i].stamp, &files[f], i);
		}
	}
}

TEST(files_of_all_kinds)
{
	open_file("buffered", O_RDWR);
	open_file("direct", O_RDWR | O_DIRECT);
	open_file("/dev/shm/las-stress", O_RDWR);
	files[0].may_sync = true;
	run_threads(THREADS);
}

TEST(files_of_all_kinds_from_one_thread)
{
	open_file("buffered", O_RDWR);
	open_file("direct", O_RDWR | O_DIRECT);
	open_file("/dev/shm/las-stress", O_RDWR);
	run_threads(1);
}

TEST(files_of_all_kinds_on_the_crew_alone)
{
	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	open_file("buffered", O_RDWR);
	open_file("direct", O_RDWR | O_DIRECT);
	open_file("durable", O_RDWR | O_DSYNC);
	run_threads(THREADS);
}

TEST(direct_files_on_the_native_lane)
{
	setenv("LIBAIO_SHIM_LANES", "native", 1);
	open_file("direct", O_RDWR | O_DIRECT);
	open_file("direct2", O_RDWR | O_DIRECT);
	run_threads(THREADS);
}

static long flaky_thread(void *(*entry)(void *), void *arg)
{
	static unsigned calls;

	return u_count(&calls) % 4 ? -EAGAIN : u_real.thread_start(entry, arg);
}

static long flaky_fcntl(int fd, int cmd, uintptr_t arg)
{
	static unsigned calls;

	return cmd == F_DUPFD_CLOEXEC && u_count(&calls) % 3 == 0 ? -EMFILE : u_real.fcntl(fd, cmd, arg);
}

TEST(files_of_all_kinds_while_threads_and_descriptors_are_scarce)
{
	open_file("buffered", O_RDWR);
	open_file("direct", O_RDWR | O_DIRECT);
	open_file("durable", O_RDWR | O_DSYNC);
	las_sys.thread_start = flaky_thread;
	las_sys.fcntl = flaky_fcntl;
	run_threads(THREADS);
}
