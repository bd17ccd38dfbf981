/*
 * In SPDK's style: io_getevents is never called.  A poller looks at the ring,
 * takes what is there in at most two copies around its end, and moves head.
 * Reads and writes, each block written is read back.
 */
#include "aio_calls.h"

enum { DEPTH = 64, REQUESTS = 40000, AT_ONCE = 32 };

static unsigned poll_ring(io_context_t ctx, unsigned max, struct io_event *out)
{
	struct aio_ring *ring = (struct aio_ring *)ctx;
	unsigned head = ring->head, tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE), have;

	CHECK(ring->magic == 0xa10a10a1 && ring->incompat == 0);
	have = tail >= head ? tail - head : ring->nr - head + tail;
	if (have == 0)
		return 0;
	if (have > max)
		have = max;
	if (head + have <= ring->nr) {
		memcpy(out, ring->events + head, have * sizeof(*out));
	} else {
		unsigned first = ring->nr - head;

		memcpy(out, ring->events + head, first * sizeof(*out));
		memcpy(out + first, ring->events, (have - first) * sizeof(*out));
	}
	__atomic_store_n(&ring->head, (head + have) % ring->nr, __ATOMIC_RELEASE);
	return have;
}

struct request {
	struct iocb iocb;
	uint64_t offset;
	int writes;
	char *buffer;
};

static void submit(io_context_t ctx, int fd, struct request *r)
{
	struct iocb *list[1] = { &r->iocb };

	if (r->writes) {
		stamp(r->buffer, r->offset);
		io_prep_pwrite(&r->iocb, fd, r->buffer, BLOCK, (long long)r->offset);
	} else {
		memset(r->buffer, 0xff, 8);
		io_prep_pread(&r->iocb, fd, r->buffer, BLOCK, (long long)r->offset);
	}
	r->iocb.data = r;
	CHECK(aio_submit(ctx, 1, list) == 1);
}

int main(int argc, char **argv)
{
	struct request *requests = calloc(DEPTH, sizeof(*requests));
	struct io_event events[AT_ONCE];
	io_context_t ctx = NULL;
	uint64_t count;
	int fd = open_file(argc, argv, &count);
	unsigned started = 0, finished = 0;

	CHECK(aio_setup(DEPTH, &ctx) == 0);
	for (unsigned i = 0; i < DEPTH; i++) {
		requests[i].buffer = blocks(1);
		/* Blocks of its own: i, i + DEPTH, ...; no two requests in flight meet. */
		requests[i].offset = (uint64_t)i * BLOCK;
		requests[i].writes = 1;
		submit(ctx, fd, &requests[i]);
		started++;
	}
	while (finished < started) {
		unsigned n = poll_ring(ctx, AT_ONCE, events);

		for (unsigned i = 0; i < n; i++) {
			struct request *r = events[i].data;

			CHECK(events[i].obj == &r->iocb && events[i].res == BLOCK && events[i].res2 == 0);
			CHECK(has_stamp(r->buffer, r->offset));
			finished++;
			if (started >= REQUESTS)
				continue;
			if (!r->writes)
				r->offset = (r->offset + (uint64_t)DEPTH * BLOCK) % (count / DEPTH * DEPTH * BLOCK);
			r->writes = !r->writes;
			submit(ctx, fd, r);
			started++;
		}
	}
	CHECK(poll_ring(ctx, AT_ONCE, events) == 0);
	CHECK(aio_destroy(ctx) == 0);
	printf("ok %u\n", finished);
	return 0;
}
