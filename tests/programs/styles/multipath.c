/*
 * In multipath-tools' style: one small context per path, a single direct read
 * at a time, looked for with a zero timeout; a path that goes away is closed
 * with its read in flight, cancelled if it can be, and its memory is only freed
 * once the event came or the context is gone.  Also sanlock's: a request whose
 * time is over is cancelled, and if that says yes, no event follows.
 */
#include "aio_calls.h"

enum { PATHS = 16, ROUNDS = 8 /* the kernel takes 30 ms to destroy one */ };

int main(int argc, char **argv)
{
	uint64_t count;
	int file = open_file(argc, argv, &count);
	unsigned seen = 0;

	CHECK(close(file) == 0);
	for (int round = 0; round < ROUNDS; round++) {
		io_context_t ctx[PATHS] = { 0 };
		struct iocb iocbs[PATHS];
		void *buffers[PATHS];
		uint64_t offsets[PATHS];

		for (int i = 0; i < PATHS; i++) {
			struct iocb *list[1] = { &iocbs[i] };
			int fd = open(argv[1], O_RDONLY | (argc == 3 ? O_DIRECT : 0));

			CHECK(fd >= 0 && aio_setup(1, &ctx[i]) == 0);
			buffers[i] = blocks(1);
			offsets[i] = next_random() % count * BLOCK;
			io_prep_pread(&iocbs[i], fd, buffers[i], BLOCK, (long long)offsets[i]);
			CHECK(aio_submit(ctx[i], 1, list) == 1);
			/* The descriptor may be another file's at once. */
			CHECK(close(fd) == 0);
		}
		for (int i = 0; i < PATHS; i++) {
			struct timespec zero = { 0, 0 }, limit = { 20, 0 };
			struct io_event event, unused;
			int n = aio_getevents(ctx[i], 1, 1, &event, i % 2 ? &limit : &zero);

			CHECK(n == 1 || (n == 0 && i % 2 == 0));
			if (n == 0 && aio_cancel(ctx[i], &iocbs[i], &unused) == 0) {
				/* Never run, hence no event. */
				CHECK(aio_getevents(ctx[i], 0, 1, &event, &zero) == 0);
			} else if (n == 0 && i % 4 == 0) {
				n = aio_getevents(ctx[i], 1, 1, &event, &limit);
				CHECK(n == 1);
			}
			if (n == 1) {
				CHECK(event.obj == &iocbs[i] && event.res == BLOCK);
				CHECK(has_stamp(buffers[i], offsets[i]));
				seen++;
			}
			CHECK(aio_destroy(ctx[i]) == 0);
			memset(buffers[i], 0x77, BLOCK);
		}
		/* Nothing writes into a buffer once its context is gone. */
		for (int i = 0; i < PATHS; i++) {
			for (int k = 0; k < BLOCK; k++)
				CHECK(((char *)buffers[i])[k] == 0x77);
			free(buffers[i]);
		}
	}
	CHECK(seen >= PATHS * ROUNDS / 2);
	printf("ok %d\n", PATHS * ROUNDS);
	return 0;
}
