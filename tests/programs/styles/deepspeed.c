/*
 * In DeepSpeed's style: a fixed array of iocbs is prepared anew for the next
 * blocks and submitted again while requests made from it are still in flight;
 * it counts events, not iocbs.  And the same iocb, unchanged, many times over.
 */
#include "aio_calls.h"

enum { BLOCKS = 4096, WINDOW = 32, REPEATS = 64 };

static void wait_for(io_context_t ctx, long n)
{
	struct io_event events[WINDOW];

	while (n > 0) {
		int got = aio_getevents(ctx, 1, n < WINDOW ? n : WINDOW, events, NULL);

		CHECK(got > 0);
		for (int i = 0; i < got; i++)
			CHECK(events[i].res == BLOCK);
		n -= got;
	}
}

int main(int argc, char **argv)
{
	struct iocb iocbs[WINDOW], *list[WINDOW], *same[1] = { &iocbs[0] };
	io_context_t ctx = NULL;
	uint64_t count, next = 0, total;
	int fd = open_file(argc, argv, &count);
	char *memory;
	long in_flight = 0;

	total = count < BLOCKS ? count : BLOCKS;
	memory = blocks(total);
	CHECK(aio_setup(4 * WINDOW, &ctx) == 0);
	for (int i = 0; i < WINDOW; i++)
		list[i] = &iocbs[i];

	/* Read everything; up to four windows in flight from one array of iocbs. */
	while (next < total) {
		int n = 0;

		for (; n < WINDOW && next < total; n++, next++)
			io_prep_pread(&iocbs[n], fd, memory + next * BLOCK, BLOCK, (long long)(next * BLOCK));
		CHECK(aio_submit(ctx, n, list) == n);
		in_flight += n;
		if (in_flight > 3 * WINDOW) {
			wait_for(ctx, WINDOW);
			in_flight -= WINDOW;
		}
	}
	wait_for(ctx, in_flight);
	for (uint64_t i = 0; i < total; i++)
		CHECK(has_stamp(memory + i * BLOCK, i * BLOCK));

	/* One iocb, in flight many times over: as many events as submissions. */
	memset(memory, 0, BLOCK);
	io_prep_pread(&iocbs[0], fd, memory, BLOCK, 7 * BLOCK);
	for (int i = 0; i < REPEATS; i++)
		CHECK(aio_submit(ctx, 1, same) == 1);
	wait_for(ctx, REPEATS);
	CHECK(has_stamp(memory, 7 * BLOCK));
	CHECK(aio_destroy(ctx) == 0);
	printf("ok %llu\n", (unsigned long long)total);
	return 0;
}
