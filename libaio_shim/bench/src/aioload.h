/* aioload.h - what the parts of the load generator share.  aioload.c tells what it is. */
#ifndef AIOLOAD_H
#define AIOLOAD_H

#include <libaio.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

/* A histogram of times: 32 buckets for every power of two, so at most 3 % off. */
#define HIST_SUB 32
struct hist {
	uint64_t count, sum, max;
	uint64_t bucket[64 * HIST_SUB];
};

void hist_add(struct hist *h, uint64_t ns);
void hist_merge(struct hist *into, const struct hist *from);
void hist_clear(struct hist *h);
/* {"p50": ..., "p99": ..., "p99.9": ..., "max": ..., "mean": ...}, microseconds */
void hist_print(FILE *out, const struct hist *h);

enum reap { REAP_GETEVENTS, REAP_EVENTFD, REAP_RING, REAP_EVENTFD_RING };
enum mode { MODE_IO, MODE_POLL, MODE_EPOLL, MODE_CHURN };

struct options {
	enum mode mode;
	enum reap reap;
	const char *path;
	size_t block_bytes;
	uint64_t span_bytes; /* the part of the file that is used */
	unsigned depth;      /* in flight, per thread; sockets in the poll modes */
	unsigned batch;      /* at most, per io_submit */
	unsigned threads;
	unsigned contexts; /* per thread, used in turn; one request at a time on each if more than one */
	unsigned parked;   /* polls that never end, pending on the same context */
	unsigned write_percent;
	unsigned direct_percent; /* of the requests, through an O_DIRECT descriptor */
	unsigned fsync_every;    /* writes, 0: never */
	double seconds, warmup_seconds;
	int shared, sequential, extend, cold, hot;
};

/* What one thread measured. */
struct result {
	struct hist submit, complete;
	uint64_t ops, bytes, submits, errors;
	int first_error; /* errno of the first failed request */
};

/* Set by main once the warm-up is over, and when it is time to stop. */
extern atomic_int measuring, stopping;

uint64_t now_ns(void);
_Noreturn void die(const char *what, int err);
void *must(void *memory);

/* Each runs until `stopping` and adds up what its threads measured in `total`. */
void run_io(const struct options *o, struct result *total);
void run_poll(const struct options *o, struct result *total);
void run_churn(const struct options *o, struct result *total);

#endif
