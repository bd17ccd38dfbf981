/*
 * In GlusterFS's style: O_DIRECT is switched on and off on the descriptor
 * around each submission, and a thread without a time limit reaps; it takes a
 * result of 0 for the end.
 */
#include "aio_calls.h"

#include <pthread.h>
#include <semaphore.h>

enum { DEPTH = 32, REQUESTS = 8000 };

struct request {
	struct iocb iocb;
	uint64_t offset;
	void *buffer;
};

static io_context_t ctx;
static sem_t free_requests;
static struct request requests[DEPTH];
static unsigned char busy[DEPTH];

static void *reap(void *unused)
{
	for (unsigned done = 0; done < REQUESTS;) {
		struct io_event events[DEPTH];
		int n = aio_getevents(ctx, 1, DEPTH, events, NULL);

		if (n == -EINTR)
			continue;
		CHECK(n > 0);
		for (int i = 0; i < n; i++, done++) {
			struct request *r = events[i].data;

			CHECK(events[i].res == BLOCK && has_stamp(r->buffer, r->offset));
			__atomic_store_n(&busy[r - requests], 0, __ATOMIC_RELEASE);
			sem_post(&free_requests);
		}
	}
	return unused;
}

int main(int argc, char **argv)
{
	uint64_t count;
	int fd = open_file(argc, argv, &count), flags = fcntl(fd, F_GETFL) & ~O_DIRECT;
	pthread_t reaper;

	CHECK(aio_setup(DEPTH, &ctx) == 0);
	sem_init(&free_requests, 0, DEPTH);
	for (int i = 0; i < DEPTH; i++)
		requests[i].buffer = blocks(1);
	CHECK(pthread_create(&reaper, NULL, reap, NULL) == 0);
	for (unsigned i = 0, slot = 0; i < REQUESTS; i++) {
		struct iocb *list[1];
		struct request *r;

		sem_wait(&free_requests);
		while (__atomic_load_n(&busy[slot], __ATOMIC_ACQUIRE))
			slot = (slot + 1) % DEPTH;
		busy[slot] = 1;
		r = &requests[slot];
		r->offset = next_random() % count * BLOCK;
		io_prep_pread(&r->iocb, fd, r->buffer, BLOCK, (long long)r->offset);
		r->iocb.data = r;
		list[0] = &r->iocb;
		/* Not every file system takes O_DIRECT (tmpfs of old); then it stays as it is, as there. */
		fcntl(fd, F_SETFL, i % 2 ? flags | O_DIRECT : flags);
		CHECK(aio_submit(ctx, 1, list) == 1);
	}
	CHECK(pthread_join(reaper, NULL) == 0);
	CHECK(aio_destroy(ctx) == 0);
	printf("ok %d\n", REQUESTS);
	return 0;
}
