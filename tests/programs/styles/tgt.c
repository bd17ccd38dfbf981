/*
 * In tgt's style: submits from one array that it fills anew at once, waits in
 * epoll for the eventfd, reads its count, and then waits for exactly that many
 * events with no timeout: one signal too many, or one before its event, and it
 * hangs.
 */
#include "aio_calls.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { DEPTH = 64, REQUESTS = 20000 };

int main(int argc, char **argv)
{
	struct epoll_event interest = { .events = EPOLLIN }, ready;
	struct iocb array[DEPTH], *list[DEPTH];
	struct io_event events[DEPTH];
	io_context_t ctx = NULL;
	uint64_t count, waiting = 0;
	int fd = open_file(argc, argv, &count), epoll = epoll_create1(0), event_fd = eventfd(0, O_NONBLOCK);
	char *memory = blocks(DEPTH);
	unsigned started = 0, finished = 0, free_slots[DEPTH], idle = DEPTH;

	CHECK(aio_setup(DEPTH, &ctx) == 0);
	CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, event_fd, &interest) == 0);
	for (unsigned i = 0; i < DEPTH; i++)
		free_slots[i] = i;
	while (finished < REQUESTS) {
		unsigned n = 0;

		while (idle && started < REQUESTS) {
			unsigned slot = free_slots[--idle];
			uint64_t offset = next_random() % count * BLOCK;

			/* Which slot and which offset, both in the data; the array is not looked at again. */
			io_prep_pread(&array[n], fd, memory + (size_t)slot * BLOCK, BLOCK, (long long)offset);
			array[n].data = (void *)(uintptr_t)(offset | slot);
			io_set_eventfd(&array[n], event_fd);
			list[n] = &array[n];
			n++;
			started++;
		}
		if (n)
			CHECK(aio_submit(ctx, n, list) == (int)n);
		memset(array, 0xee, sizeof(array));
		CHECK(epoll_wait(epoll, &ready, 1, 20000) == 1);
		CHECK(read(event_fd, &waiting, sizeof(waiting)) == sizeof(waiting));
		CHECK(waiting <= DEPTH);
		CHECK(aio_getevents(ctx, (long)waiting, (long)waiting, events, NULL) == (int)waiting);
		for (unsigned i = 0; i < waiting; i++) {
			uintptr_t word = (uintptr_t)events[i].data;
			unsigned slot = word % BLOCK;

			CHECK(events[i].res == BLOCK);
			CHECK(has_stamp(memory + (size_t)slot * BLOCK, word - slot));
			free_slots[idle++] = slot;
			finished++;
		}
	}
	CHECK(read(event_fd, &waiting, sizeof(waiting)) == -1 && errno == EAGAIN);
	CHECK(aio_destroy(ctx) == 0);
	printf("ok %u\n", finished);
	return 0;
}
