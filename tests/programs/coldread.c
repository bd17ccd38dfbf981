/*
 * coldread - random reads of a file through libaio, a fixed number in flight.
 *
 * An ordinary libaio program: it includes <libaio.h> and the C library and
 * knows nothing of who implements io_submit().  It tells how many reads a
 * second it got, and how long the calls of io_submit() took: the price that an
 * event loop pays before it can do anything else.
 *
 * Every block is read at most once (a shuffled order, not a random draw), and
 * the file's pages are dropped from the page cache first, so that each read is
 * a cold one.  With --check the first eight bytes of every block must be its
 * offset in the file, little-endian: what demo and tests write.
 *
 * Exit status: 0 done, 1 wrong data or a failed read, 2 usage, 3 no AIO here.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <libaio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct options {
	const char *path;
	size_t block_bytes;
	unsigned depth; /* requests in flight */
	unsigned batch; /* at most this many per io_submit */
	uint64_t count; /* reads to make */
	double seconds; /* stop earlier after this long, 0: never */
	uint64_t seed;
	int keep_cache, direct, check, json;
};

struct request {
	struct iocb iocb;
	uint64_t offset;
	void *buffer;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *must(void *memory)
{
	if (!memory) {
		fprintf(stderr, "coldread: out of memory\n");
		exit(1);
	}
	return memory;
}

static _Noreturn void fail(const char *what, int err)
{
	fprintf(stderr, "coldread: %s: %s\n", what, strerror(err));
	exit(err == ENOSYS ? 3 : 1);
}

/* xorshift64*: a few lines, and the same sequence on every machine. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}

/* Block numbers 0..blocks-1 in random order; only the first `wanted` of them are shuffled into place. */
static uint32_t *shuffled_blocks(uint64_t blocks, uint64_t wanted, uint64_t seed)
{
	uint32_t *order = must(malloc(blocks * sizeof(*order)));
	uint64_t state = seed ? seed : 1;

	for (uint64_t i = 0; i < blocks; i++)
		order[i] = (uint32_t)i;
	for (uint64_t i = 0; i < wanted; i++) {
		uint64_t j = i + next_random(&state) % (blocks - i);
		uint32_t swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
	return order;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The value below which `fraction` of the sorted samples lie, in microseconds. */
static double percentile_us(const uint64_t *sorted_ns, size_t n, double fraction)
{
	size_t i = (size_t)(fraction * (double)n);

	if (n == 0)
		return 0;
	return (double)sorted_ns[i < n ? i : n - 1] / 1e3;
}

static uint64_t parse_size(const char *text)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text)
		value = 0;
	else if (*end == 'k' || *end == 'K')
		value <<= 10, end++;
	else if (*end == 'm' || *end == 'M')
		value <<= 20, end++;
	else if (*end == 'g' || *end == 'G')
		value <<= 30, end++;
	if (value == 0 || *end) {
		fprintf(stderr, "coldread: not a positive size or number: %s\n", text);
		exit(2);
	}
	return value;
}

static void usage(FILE *out)
{
	fprintf(out, "usage: coldread [options] FILE\n"
	             "  -b, --block SIZE    bytes per read, default 4k\n"
	             "  -d, --depth N       reads in flight, default 32\n"
	             "  -B, --batch N       at most N reads per io_submit, default the depth\n"
	             "  -n, --count N       reads to make, default 16384 or all blocks of the file\n"
	             "  -t, --seconds S     stop after S seconds at the latest\n"
	             "  -s, --seed N        another order\n"
	             "  -k, --keep-cache    do not drop the file from the page cache first\n"
	             "  -D, --direct        open with O_DIRECT\n"
	             "  -c, --check         each block must begin with its offset, 8 bytes little-endian\n"
	             "  -j, --json          one JSON object instead of the sentence\n");
}

static struct options parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "block", 1, NULL, 'b' },      { "depth", 1, NULL, 'd' },   { "batch", 1, NULL, 'B' },
		{ "count", 1, NULL, 'n' },      { "seconds", 1, NULL, 't' }, { "seed", 1, NULL, 's' },
		{ "keep-cache", 0, NULL, 'k' }, { "direct", 0, NULL, 'D' },  { "check", 0, NULL, 'c' },
		{ "json", 0, NULL, 'j' },       { "help", 0, NULL, 'h' },    { NULL, 0, NULL, 0 },
	};
	struct options o = { .block_bytes = 4096, .depth = 32, .count = 16384, .seed = 1 };
	int c;

	while ((c = getopt_long(argc, argv, "b:d:B:n:t:s:kDcjh", names, NULL)) != -1) {
		switch (c) {
		case 'b':
			o.block_bytes = parse_size(optarg);
			break;
		case 'd':
			o.depth = (unsigned)parse_size(optarg);
			break;
		case 'B':
			o.batch = (unsigned)parse_size(optarg);
			break;
		case 'n':
			o.count = parse_size(optarg);
			break;
		case 't':
			o.seconds = strtod(optarg, NULL);
			break;
		case 's':
			o.seed = parse_size(optarg);
			break;
		case 'k':
			o.keep_cache = 1;
			break;
		case 'D':
			o.direct = 1;
			break;
		case 'c':
			o.check = 1;
			break;
		case 'j':
			o.json = 1;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			exit(2);
		}
	}
	if (optind + 1 != argc || o.depth > 65536 || o.block_bytes < 8 || o.block_bytes > (1u << 30)) {
		usage(stderr);
		exit(2);
	}
	if (o.batch == 0 || o.batch > o.depth)
		o.batch = o.depth;
	o.path = argv[optind];
	return o;
}

static void check_event(const struct options *o, const struct io_event *event)
{
	const struct request *r = event->data;
	long got = (long)event->res;
	uint64_t stamp;

	if (got < 0)
		fail("read", (int)-got);
	if ((size_t)got != o->block_bytes) {
		fprintf(stderr, "coldread: read at %" PRIu64 " returned %ld of %zu bytes\n", r->offset, got,
		        o->block_bytes);
		exit(1);
	}
	if (!o->check)
		return;
	memcpy(&stamp, r->buffer, sizeof(stamp));
	if (le64toh(stamp) != r->offset) {
		fprintf(stderr, "coldread: wrong data at %" PRIu64 "\n", r->offset);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct options o = parse(argc, argv);
	struct request *requests, **idle;
	struct iocb **list;
	struct io_event *events;
	uint64_t *submit_ns, started, elapsed, calls = 0, issued = 0, done = 0, blocks;
	unsigned idle_count = o.depth;
	uint32_t *order;
	io_context_t ctx = NULL;
	struct stat st;
	int fd, err;

	fd = open(o.path, O_RDONLY | (o.direct ? O_DIRECT : 0));
	if (fd < 0 || fstat(fd, &st) < 0)
		fail(o.path, errno);
	blocks = (uint64_t)st.st_size / o.block_bytes;
	if (blocks == 0 || blocks > UINT32_MAX) {
		fprintf(stderr, "coldread: %s has no block of %zu bytes, or too many\n", o.path, o.block_bytes);
		return 2;
	}
	if (o.count > blocks)
		o.count = blocks;

	order = shuffled_blocks(blocks, o.count, o.seed);
	requests = must(calloc(o.depth, sizeof(*requests)));
	idle = must(calloc(o.depth, sizeof(*idle)));
	list = must(calloc(o.depth, sizeof(*list)));
	events = must(calloc(o.depth, sizeof(*events)));
	submit_ns = must(malloc(o.count * sizeof(*submit_ns)));
	for (unsigned i = 0; i < o.depth; i++) {
		if (posix_memalign(&requests[i].buffer, 4096, o.block_bytes))
			must(NULL);
		idle[i] = &requests[i];
	}
	/* Only clean pages can be dropped, and a file that was just made is dirty. */
	if (!o.keep_cache) {
		fdatasync(fd);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}

	err = io_setup((int)o.depth, &ctx);
	if (err < 0)
		fail("io_setup", -err);

	started = now_ns();
	while (done < o.count) {
		unsigned n = 0;

		if (o.seconds > 0 && (double)(now_ns() - started) / 1e9 >= o.seconds)
			o.count = issued;
		while (n < o.batch && idle_count && issued < o.count) {
			struct request *r = idle[--idle_count];

			r->offset = (uint64_t)order[issued++] * o.block_bytes;
			io_prep_pread(&r->iocb, fd, r->buffer, o.block_bytes, (long long)r->offset);
			r->iocb.data = r;
			list[n++] = &r->iocb;
		}
		for (unsigned sent = 0; sent < n;) {
			uint64_t before = now_ns();
			int ret = io_submit(ctx, (long)(n - sent), list + sent);

			submit_ns[calls++] = now_ns() - before;
			if (ret <= 0)
				fail("io_submit", ret ? -ret : EAGAIN);
			sent += (unsigned)ret;
		}
		/* While a whole batch is still free, submit on; then wait for at least one. */
		if (done < issued && !(idle_count >= o.batch && issued < o.count)) {
			int got = io_getevents(ctx, 1, (long)o.depth, events, NULL);

			if (got < 0 && got != -EINTR)
				fail("io_getevents", -got);
			for (int i = 0; i < got; i++) {
				check_event(&o, &events[i]);
				idle[idle_count++] = events[i].data;
				done++;
			}
		}
	}
	elapsed = now_ns() - started;
	io_destroy(ctx);
	if (done == 0)
		fail("nothing read", ETIME);

	qsort(submit_ns, calls, sizeof(*submit_ns), by_value);
	printf(o.json ? "{\"reads\": %" PRIu64 ", \"block\": %zu, \"depth\": %u, \"batch\": %u, \"seconds\": %.6f, "
	                "\"iops\": %.1f, \"submits\": %" PRIu64 ", \"submit_us\": {\"p50\": %.3f, \"p99\": %.3f, "
	                "\"max\": %.3f}, \"checked\": %s}\n"
	              : "%" PRIu64 " reads of %zu bytes, %u in flight, %u at a time: %.3f s, %.0f IOPS; "
	                "%" PRIu64 " io_submit calls: p50 %.1f us, p99 %.1f us, max %.1f us%s\n",
	       done, o.block_bytes, o.depth, o.batch, (double)elapsed / 1e9, (double)done * 1e9 / (double)elapsed,
	       calls, percentile_us(submit_ns, calls, 0.5), percentile_us(submit_ns, calls, 0.99),
	       percentile_us(submit_ns, calls, 1),
	       o.json    ? (o.check ? "true" : "false")
	       : o.check ? ", data checked"
	                 : "");

	for (unsigned i = 0; i < o.depth; i++)
		free(requests[i].buffer);
	free(requests);
	free(idle);
	free(list);
	free(events);
	free(submit_ns);
	free(order);
	close(fd);
	return 0;
}
