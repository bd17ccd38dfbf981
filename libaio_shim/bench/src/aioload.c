/*
 * aioload - a load generator for libaio: options, clock and report.
 *
 * It is a plain libaio program; who answers its calls (the kernel through the
 * system's libaio, or the shim) is decided by whoever starts it.  One run
 * measures one case and prints one JSON object; libaio_shim.bench runs the
 * engines in turn and compares.
 *
 *   io.c     reads, writes and fsyncs, several threads, four ways to reap
 *   wait.c   pending polls against epoll; io_setup and io_destroy
 *   hist.c   histograms
 *
 * Threads: main only sleeps and counts; the work runs in threads of its own,
 * each with its own histograms, added up after they ended.
 */
#define _GNU_SOURCE
#include "aioload.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

atomic_int measuring, stopping;

static struct options options;
static struct result total;

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void die(const char *what, int err)
{
	fprintf(stderr, "aioload: %s: %s\n", what, strerror(err));
	exit(err == ENOSYS ? 3 : 1);
}

void *must(void *memory)
{
	if (!memory)
		die("memory", ENOMEM);
	return memory;
}

static uint64_t parse_size(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 10);

	switch (*end) {
	case 'k':
	case 'K':
		value <<= 10;
		end++;
		break;
	case 'm':
	case 'M':
		value <<= 20;
		end++;
		break;
	case 'g':
	case 'G':
		value <<= 30;
		end++;
		break;
	default:
		break;
	}
	if (end == text || *end) {
		fprintf(stderr, "aioload: not a number: %s\n", text);
		exit(2);
	}
	return value;
}

static int choose(const char *text, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (strcmp(text, names[i]) == 0)
			return i;
	fprintf(stderr, "aioload: unknown word: %s\n", text);
	exit(2);
}

enum {
	O_MODE = 1,
	O_REAP,
	O_BLOCK,
	O_SIZE,
	O_DEPTH,
	O_BATCH,
	O_THREADS,
	O_CONTEXTS,
	O_PARKED,
	O_SHARED,
	O_WRITE,
	O_DIRECT_PERCENT,
	O_FSYNC,
	O_SECONDS,
	O_WARMUP,
	O_SEQ,
	O_EXTEND,
	O_COLD,
	O_HOT,
	O_HELP
};

static const struct option names[] = {
	{ "mode", 1, NULL, O_MODE },       { "reap", 1, NULL, O_REAP },       { "block", 1, NULL, O_BLOCK },
	{ "size", 1, NULL, O_SIZE },       { "depth", 1, NULL, O_DEPTH },     { "batch", 1, NULL, O_BATCH },
	{ "threads", 1, NULL, O_THREADS }, { "shared", 0, NULL, O_SHARED },   { "contexts", 1, NULL, O_CONTEXTS },
	{ "parked", 1, NULL, O_PARKED },   { "write", 1, NULL, O_WRITE },     { "direct", 1, NULL, O_DIRECT_PERCENT },
	{ "fsync", 1, NULL, O_FSYNC },     { "seconds", 1, NULL, O_SECONDS }, { "warmup", 1, NULL, O_WARMUP },
	{ "sequential", 0, NULL, O_SEQ },  { "extend", 0, NULL, O_EXTEND },   { "cold", 0, NULL, O_COLD },
	{ "hot", 0, NULL, O_HOT },         { "help", 0, NULL, O_HELP },       { NULL, 0, NULL, 0 },
};

static _Noreturn void usage(int status)
{
	fputs("usage: aioload [options] [FILE]\n"
	      "  --mode io|poll|epoll|churn   requests on FILE; waits on sockets; io_setup and io_destroy\n"
	      "  --reap getevents|eventfd|ring|eventfd-ring\n"
	      "  --block SIZE  --size SIZE    bytes per request; part of FILE that is used (default all)\n"
	      "  --depth N  --batch N         in flight per thread; at most that many per io_submit\n"
	      "  --threads N  --shared        own contexts, or all threads on one\n"
	      "  --contexts N                 of each thread, used in turn\n"
	      "  --parked N                   polls that stay pending on the context meanwhile\n"
	      "  --write PERCENT  --direct PERCENT  of the requests\n"
	      "  --fsync N                    an fdsync request after every N writes\n"
	      "  --sequential  --extend       default random; --extend appends to an emptied FILE\n"
	      "  --cold  --hot                drop the file's pages first; read them in first\n"
	      "  --seconds S  --warmup S\n",
	      status ? stderr : stdout);
	exit(status);
}

static void parse(int argc, char **argv, struct options *o)
{
	static const char *const modes[] = { "io", "poll", "epoll", "churn", NULL };
	static const char *const reaps[] = { "getevents", "eventfd", "ring", "eventfd-ring", NULL };
	int c;

	*o = (struct options){
		.block_bytes = 4096, .depth = 1, .threads = 1, .contexts = 1, .seconds = 1, .warmup_seconds = 0.05
	};
	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case O_MODE:
			o->mode = (enum mode)choose(optarg, modes);
			break;
		case O_REAP:
			o->reap = (enum reap)choose(optarg, reaps);
			break;
		case O_BLOCK:
			o->block_bytes = parse_size(optarg);
			break;
		case O_SIZE:
			o->span_bytes = parse_size(optarg);
			break;
		case O_DEPTH:
			o->depth = (unsigned)parse_size(optarg);
			break;
		case O_BATCH:
			o->batch = (unsigned)parse_size(optarg);
			break;
		case O_THREADS:
			o->threads = (unsigned)parse_size(optarg);
			break;
		case O_CONTEXTS:
			o->contexts = (unsigned)parse_size(optarg);
			break;
		case O_PARKED:
			o->parked = (unsigned)parse_size(optarg);
			break;
		case O_SHARED:
			o->shared = 1;
			break;
		case O_WRITE:
			o->write_percent = (unsigned)parse_size(optarg);
			break;
		case O_DIRECT_PERCENT:
			o->direct_percent = (unsigned)parse_size(optarg);
			break;
		case O_FSYNC:
			o->fsync_every = (unsigned)parse_size(optarg);
			break;
		case O_SECONDS:
			o->seconds = strtod(optarg, NULL);
			break;
		case O_WARMUP:
			o->warmup_seconds = strtod(optarg, NULL);
			break;
		case O_SEQ:
			o->sequential = 1;
			break;
		case O_EXTEND:
			o->extend = 1;
			break;
		case O_COLD:
			o->cold = 1;
			break;
		case O_HOT:
			o->hot = 1;
			break;
		case O_HELP:
			usage(0);
		default:
			usage(2);
		}
	}
	if (optind < argc)
		o->path = argv[optind++];
	if (o->batch == 0 || o->batch > o->depth)
		o->batch = o->depth;
	if (optind != argc || (o->mode == MODE_IO) != (o->path != NULL) || o->depth == 0 || o->depth > 1000000 ||
	    o->threads == 0 || o->contexts == 0 || o->threads > 1024 || o->block_bytes == 0 || o->write_percent > 100 ||
	    o->direct_percent > 100)
		usage(2);
}

static void *work(void *unused)
{
	(void)unused;
	if (options.mode == MODE_CHURN)
		run_churn(&options, &total);
	else if (options.mode == MODE_IO)
		run_io(&options, &total);
	else
		run_poll(&options, &total);
	/* A cold run may have used up its file before the time was over. */
	atomic_store(&stopping, 1);
	return NULL;
}

static long count_threads(void)
{
	long n = 0;
	char line[128];
	FILE *status = fopen("/proc/self/status", "r");

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "Threads: %ld", &n) == 1)
			break;
	if (status)
		fclose(status);
	return n;
}

static double cpu_us(const struct timeval *from, const struct timeval *to)
{
	return (double)(to->tv_sec - from->tv_sec) * 1e6 + (double)(to->tv_usec - from->tv_usec);
}

static void sleep_until(uint64_t deadline_ns)
{
	const struct timespec tick = { 0, 5000000 };

	while (now_ns() < deadline_ns && !atomic_load(&stopping))
		nanosleep(&tick, NULL);
}

int main(int argc, char **argv)
{
	struct rusage before, after;
	uint64_t started, elapsed;
	double ops, user, sys;
	pthread_t worker;
	long threads;

	parse(argc, argv, &options);
	if (pthread_create(&worker, NULL, work, NULL))
		die("pthread_create", EAGAIN);
	/* Opening and reading in the file may take a while: run_* say when they begin. */
	while (!atomic_load(&measuring) && !atomic_load(&stopping))
		sleep_until(now_ns() + 1000000);
	sleep_until(now_ns() + (uint64_t)(options.warmup_seconds * 1e9));
	getrusage(RUSAGE_SELF, &before);
	started = now_ns();
	atomic_store(&measuring, 2);
	sleep_until(started + (uint64_t)(options.seconds * 1e9));
	elapsed = now_ns() - started;
	getrusage(RUSAGE_SELF, &after);
	threads = count_threads();
	atomic_store(&stopping, 1);
	pthread_join(worker, NULL);

	if (total.errors || total.ops == 0) {
		fprintf(stderr, "aioload: %llu of %llu requests failed, the first with: %s\n",
		        (unsigned long long)total.errors, (unsigned long long)total.ops, strerror(total.first_error));
		return 1;
	}
	ops = (double)total.ops;
	user = cpu_us(&before.ru_utime, &after.ru_utime);
	sys = cpu_us(&before.ru_stime, &after.ru_stime);
	printf("{\"ops\": %llu, \"seconds\": %.6f, \"iops\": %.1f, \"mib_per_s\": %.2f, \"submits\": %llu, \"submit_us\": ",
	       (unsigned long long)total.ops, (double)elapsed / 1e9, ops * 1e9 / (double)elapsed,
	       (double)total.bytes * 1e9 / (double)elapsed / 1048576, (unsigned long long)total.submits);
	hist_print(stdout, &total.submit);
	printf(", \"complete_us\": ");
	hist_print(stdout, &total.complete);
	printf(", \"cpu_us_per_op\": %.3f, \"user_us_per_op\": %.3f, \"system_us_per_op\": %.3f, "
	       "\"switches_per_op\": %.4f, \"voluntary_per_op\": %.4f, \"threads\": %ld}\n",
	       (user + sys) / ops, user / ops, sys / ops,
	       (double)(after.ru_nvcsw - before.ru_nvcsw + after.ru_nivcsw - before.ru_nivcsw) / ops,
	       (double)(after.ru_nvcsw - before.ru_nvcsw) / ops, threads);
	return 0;
}
