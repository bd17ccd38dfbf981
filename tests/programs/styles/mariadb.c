/*
 * In MariaDB's style: io_setup and io_submit through libaio, but a thread of
 * its own reaps by syscall(__NR_io_getevents); at shutdown the context is
 * destroyed under that thread, which must come back with EINVAL.  A context
 * that the system call does not know makes MariaDB abort.
 */
#include "aio_calls.h"

#include <pthread.h>
#include <semaphore.h>

enum { DEPTH = 256, REQUESTS = 10000 };

struct request {
	struct iocb iocb;
	uint64_t offset;
	void *buffer;
};

static io_context_t ctx;
static sem_t free_requests;
static struct request *idle[DEPTH];
static unsigned idle_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *reap(void *unused)
{
	struct io_event events[DEPTH];

	for (;;) {
		long n = syscall(SYS_io_getevents, (long)ctx, 1L, (long)DEPTH, events, NULL);

		if (n == -1) {
			if (errno == EINTR)
				continue;
			CHECK(errno == EINVAL);
			return unused;
		}
		CHECK(n > 0);
		for (long i = 0; i < n; i++) {
			struct request *r = events[i].data;

			CHECK(events[i].res == BLOCK && has_stamp(r->buffer, r->offset));
			pthread_mutex_lock(&lock);
			idle[idle_count++] = r;
			pthread_mutex_unlock(&lock);
			sem_post(&free_requests);
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t count;
	int fd = open_file(argc, argv, &count);
	pthread_t reaper;

	CHECK(io_setup(DEPTH, &ctx) == 0);
	sem_init(&free_requests, 0, DEPTH);
	for (idle_count = 0; idle_count < DEPTH; idle_count++) {
		idle[idle_count] = calloc(1, sizeof(struct request));
		idle[idle_count]->buffer = blocks(1);
	}
	CHECK(pthread_create(&reaper, NULL, reap, NULL) == 0);
	for (unsigned i = 0; i < REQUESTS; i++) {
		struct iocb *list[1];
		struct request *r;

		sem_wait(&free_requests);
		pthread_mutex_lock(&lock);
		r = idle[--idle_count];
		pthread_mutex_unlock(&lock);
		r->offset = next_random() % count * BLOCK;
		io_prep_pread(&r->iocb, fd, r->buffer, BLOCK, (long long)r->offset);
		r->iocb.data = r;
		list[0] = &r->iocb;
		CHECK(io_submit(ctx, 1, list) == 1);
	}
	for (unsigned i = 0; i < DEPTH; i++)
		sem_wait(&free_requests);
	CHECK(io_destroy(ctx) == 0);
	CHECK(pthread_join(reaper, NULL) == 0);
	printf("ok %d\n", REQUESTS);
	return 0;
}
