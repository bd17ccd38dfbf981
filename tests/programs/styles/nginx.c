/*
 * In nginx's style: one eventfd for all requests, edge-triggered in epoll;
 * on its wake-up read the count and take that many events in portions of 64
 * with a zero timeout.  The iocb carries its request in aio_data.  Several
 * "connections" each read the file in turn.
 */
#include "aio_calls.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { CONNECTIONS = 64, REQUESTS = 20000, PORTION = 64 };

struct connection {
	struct iocb iocb;
	uint64_t offset;
	void *buffer;
};

static io_context_t ctx;
static int event_fd, fd;
static uint64_t count;
static unsigned started;

static void read_next(struct connection *c)
{
	struct iocb *list[1] = { &c->iocb };

	c->offset = next_random() % count * BLOCK;
	memset(&c->iocb, 0, sizeof(c->iocb));
	c->iocb.data = c;
	c->iocb.aio_lio_opcode = IO_CMD_PREAD;
	c->iocb.aio_fildes = fd;
	c->iocb.u.c.buf = c->buffer;
	c->iocb.u.c.nbytes = BLOCK;
	c->iocb.u.c.offset = (long long)c->offset;
	c->iocb.u.c.flags = 1; /* IOCB_FLAG_RESFD */
	c->iocb.u.c.resfd = (unsigned)event_fd;
	CHECK(aio_submit(ctx, 1, list) == 1);
	started++;
}

int main(int argc, char **argv)
{
	struct epoll_event interest = { .events = EPOLLIN | EPOLLET }, ready;
	struct connection *connections = calloc(CONNECTIONS, sizeof(*connections));
	struct io_event events[PORTION];
	uint64_t signalled = 0, finished = 0;
	int epoll = epoll_create1(0);

	fd = open_file(argc, argv, &count);
	event_fd = eventfd(0, 0);
	CHECK(event_fd >= 0 && fcntl(event_fd, F_SETFL, O_NONBLOCK) == 0);
	CHECK(aio_setup(CONNECTIONS, &ctx) == 0);
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, event_fd, &interest) == 0);
	for (int i = 0; i < CONNECTIONS; i++) {
		connections[i].buffer = blocks(1);
		read_next(&connections[i]);
	}
	while (finished < REQUESTS) {
		uint64_t pending;

		/* An edge that is lost would leave this waiting for ever. */
		CHECK(epoll_wait(epoll, &ready, 1, 20000) == 1);
		CHECK(read(event_fd, &pending, sizeof(pending)) == sizeof(pending));
		signalled += pending;
		while (pending) {
			struct timespec zero = { 0, 0 };
			int n = aio_getevents(ctx, 1, PORTION, events, &zero);

			CHECK(n >= 0);
			/* None left: an earlier look took events whose signals are counted only now. */
			if (n == 0)
				break;
			pending -= (uint64_t)n < pending ? (uint64_t)n : pending;
			for (int i = 0; i < n; i++) {
				struct connection *c = events[i].data;

				CHECK(events[i].res == BLOCK && has_stamp(c->buffer, c->offset));
				finished++;
				if (started < REQUESTS)
					read_next(c);
			}
		}
		/* An event is there before its signal is. */
		CHECK(finished >= signalled);
	}
	CHECK(finished == REQUESTS);
	CHECK(aio_destroy(ctx) == 0);
	printf("ok %llu\n", (unsigned long long)finished);
	return 0;
}
