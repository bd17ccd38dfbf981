/*
 * In Seastar's style: before a call with a zero timeout it reads two words at
 * ctx + 8 (head and tail) and calls nothing if they are equal; it does so in a
 * busy loop, and calls io_getevents otherwise.  Of the device it reads with
 * RWF_NOWAIT, and without what is answered by EAGAIN.
 */
#include "aio_calls.h"

#include <stdbool.h>
#include <sys/uio.h>

enum { DEPTH = 128, REQUESTS = 30000 };

static int try_getevents(io_context_t ctx, long n, struct io_event *events)
{
	struct timespec zero = { 0, 0 };
	const volatile unsigned *words = (const volatile unsigned *)((const char *)ctx + 8);
	unsigned head = words[0], tail = words[1];

	if (head == tail)
		return 0;
	return aio_getevents(ctx, 1, n, events, &zero);
}

int main(int argc, char **argv)
{
	struct iocb *iocbs = calloc(DEPTH, sizeof(*iocbs)), *list[DEPTH];
	struct io_event events[DEPTH];
	io_context_t ctx = NULL;
	uint64_t count;
	int fd = open_file(argc, argv, &count);
	char *memory = blocks(DEPTH);
	bool direct = argc == 3;
	unsigned idle = DEPTH, started = 0, finished = 0;

	CHECK(aio_setup(DEPTH, &ctx) == 0);
	CHECK(((struct aio_ring *)ctx)->magic == 0xa10a10a1 && ((struct aio_ring *)ctx)->incompat == 0);
	for (unsigned i = 0; i < DEPTH; i++)
		list[i] = &iocbs[i];
	while (finished < REQUESTS) {
		unsigned n = 0;
		int got;

		while (n < idle && started < REQUESTS) {
			unsigned slot = (unsigned)(list[n] - iocbs);

			io_prep_pread(list[n], fd, memory + (size_t)slot * BLOCK, BLOCK,
			              (long long)(next_random() % count * BLOCK));
			list[n]->aio_rw_flags = direct ? RWF_NOWAIT : 0;
			list[n]->data = (void *)(uintptr_t)list[n]->u.c.offset;
			n++;
			started++;
		}
		for (unsigned sent = 0; sent < n;) {
			int ret = aio_submit(ctx, n - sent, list + sent);

			CHECK(ret > 0);
			sent += (unsigned)ret;
		}
		idle -= n;
		got = try_getevents(ctx, DEPTH, events);
		CHECK(got >= 0);
		for (int i = 0; i < got; i++) {
			struct iocb *iocb = events[i].obj;
			unsigned slot = (unsigned)(iocb - iocbs);

			if ((long)events[i].res == -EAGAIN && iocb->aio_rw_flags) {
				iocb->aio_rw_flags = 0;
				CHECK(aio_submit(ctx, 1, &iocb) == 1);
				continue;
			}
			CHECK(events[i].res == BLOCK);
			CHECK(has_stamp(memory + (size_t)slot * BLOCK, (uintptr_t)events[i].data));
			list[idle++] = iocb;
			finished++;
		}
	}
	CHECK(try_getevents(ctx, DEPTH, events) == 0);
	CHECK(aio_destroy(ctx) == 0);
	printf("ok %u\n", finished);
	return 0;
}
