/*
 * In QEMU's style: an eventfd wakes the loop, completions are taken from the
 * ring itself; a callback runs while pointers into the ring are held, may
 * submit more and may itself process completions (nested); head is moved
 * before the callbacks of a batch run.  Several queues share one loop.
 */
#include "aio_calls.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { QUEUES = 3, DEPTH = 128, REQUESTS = 12000 };

struct queue {
	io_context_t ctx;
	int event_fd;
	unsigned started, finished, depth;
	/* The batch that is being processed, for the nested call. */
	const struct io_event *batch;
	unsigned at, n;
};

struct request {
	struct iocb iocb;
	struct queue *queue;
	uint64_t offset;
	void *buffer;
};

static int fd;
static uint64_t count;

static void start(struct request *r)
{
	struct iocb *list[1] = { &r->iocb };

	r->offset = next_random() % count * BLOCK;
	io_prep_pread(&r->iocb, fd, r->buffer, BLOCK, (long long)r->offset);
	r->iocb.data = r;
	io_set_eventfd(&r->iocb, r->queue->event_fd);
	CHECK(aio_submit(r->queue->ctx, 1, list) == 1);
	r->queue->started++;
}

static unsigned peek(struct queue *q)
{
	struct aio_ring *ring = (struct aio_ring *)q->ctx;
	unsigned head = ring->head, tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);

	/* Only up to the end of the array; the rest is the next batch. */
	q->batch = ring->events + head;
	q->at = 0;
	q->n = (tail >= head ? tail : ring->nr) - head;
	return q->n;
}

static void commit(struct queue *q, unsigned n)
{
	struct aio_ring *ring = (struct aio_ring *)q->ctx;

	if (n)
		__atomic_store_n(&ring->head, (ring->head + n) % ring->nr, __ATOMIC_RELEASE);
}

static void process(struct queue *q, int nested)
{
	do {
		while (q->at < q->n) {
			const struct io_event *event = &q->batch[q->at++];
			struct request *r = event->data;

			CHECK(event->obj == &r->iocb && event->res == BLOCK && has_stamp(r->buffer, r->offset));
			q->finished++;
			if (q->started < REQUESTS)
				start(r);
			/* Now and then a callback runs the loop itself: it goes on with the same batch. */
			if (!nested && q->finished % 5 == 0)
				process(q, 1);
		}
		if (nested)
			return;
		commit(q, q->n);
	} while (peek(q));
}

int main(int argc, char **argv)
{
	static struct queue queues[QUEUES];
	int epoll = epoll_create1(0);
	unsigned open_queues = QUEUES;

	fd = open_file(argc, argv, &count);
	for (int i = 0; i < QUEUES; i++) {
		struct queue *q = &queues[i];
		struct epoll_event interest = { .events = EPOLLIN, .data.ptr = q };

		q->event_fd = eventfd(0, EFD_NONBLOCK);
		CHECK(aio_setup(DEPTH, &q->ctx) == 0);
		CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, q->event_fd, &interest) == 0);
		for (int k = 0; k < 16 << i; k++) {
			struct request *r = calloc(1, sizeof(*r));

			r->queue = q;
			r->buffer = blocks(1);
			start(r);
		}
	}
	while (open_queues) {
		struct epoll_event ready[QUEUES];
		int n = epoll_wait(epoll, ready, QUEUES, 20000);

		CHECK(n > 0);
		for (int i = 0; i < n; i++) {
			struct queue *q = ready[i].data.ptr;
			unsigned before = q->finished;
			uint64_t unused;

			CHECK(read(q->event_fd, &unused, sizeof(unused)) == sizeof(unused));
			if (peek(q))
				process(q, 0);
			open_queues -= before < REQUESTS && q->finished == REQUESTS;
		}
	}
	for (int i = 0; i < QUEUES; i++) {
		CHECK(queues[i].finished == queues[i].started);
		CHECK(aio_destroy(queues[i].ctx) == 0);
	}
	printf("ok %u\n", QUEUES * REQUESTS);
	return 0;
}
