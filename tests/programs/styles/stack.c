/*
 * In stressapptest's and tapdisk's styles: iocb and iovec live in a function
 * that has returned before the request is done; one thread submits, any of
 * several reaps; vectors are used as well as plain buffers.
 */
#include "aio_calls.h"

#include <pthread.h>
#include <sched.h>
#include <sys/uio.h>

enum { DEPTH = 64, REQUESTS = 12000, REAPERS = 3 };

static io_context_t ctx;
static int fd;
static char *memory;
static unsigned done;
static unsigned char busy[DEPTH];
static uint64_t offsets[DEPTH];

static __attribute__((noinline)) void submit_from_stack(unsigned slot, int write)
{
	struct iovec parts[2] = { { memory + (size_t)slot * BLOCK, BLOCK }, { NULL, 0 } };
	struct iocb iocb, *list[1] = { &iocb };

	if (write) {
		stamp(parts[0].iov_base, offsets[slot]);
		io_prep_pwritev(&iocb, fd, parts, 1, (long long)offsets[slot]);
	} else {
		io_prep_preadv(&iocb, fd, parts, 1, (long long)offsets[slot]);
	}
	iocb.data = (void *)(uintptr_t)slot;
	CHECK(aio_submit(ctx, 1, list) == 1);
	memset(&iocb, 0x55, sizeof(iocb));
	memset(parts, 0x55, sizeof(parts));
	__asm__ volatile("" ::"r"(&iocb), "r"(parts) : "memory");
}

static void *reap(void *unused)
{
	while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < REQUESTS) {
		struct timespec limit = { 0, 50000000 };
		struct io_event events[4];
		int n = aio_getevents(ctx, 1, 4, events, &limit);

		CHECK(n >= 0 || n == -EINTR);
		for (int i = 0; i < n; i++) {
			unsigned slot = (unsigned)(uintptr_t)events[i].data;

			CHECK(events[i].res == BLOCK);
			CHECK(has_stamp(memory + (size_t)slot * BLOCK, offsets[slot]));
			__atomic_store_n(&busy[slot], 0, __ATOMIC_RELEASE);
			__atomic_add_fetch(&done, 1, __ATOMIC_ACQ_REL);
		}
	}
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t reapers[REAPERS];
	uint64_t count;

	fd = open_file(argc, argv, &count);
	memory = blocks(DEPTH);
	CHECK(aio_setup(DEPTH, &ctx) == 0);
	for (int i = 0; i < REAPERS; i++)
		CHECK(pthread_create(&reapers[i], NULL, reap, NULL) == 0);
	for (unsigned i = 0, slot = 0; i < REQUESTS; i++, slot = (slot + 1) % DEPTH) {
		while (__atomic_load_n(&busy[slot], __ATOMIC_ACQUIRE))
			sched_yield();
		busy[slot] = 1;
		/* Each slot has blocks of its own. */
		offsets[slot] = (next_random() % (count / DEPTH) * DEPTH + slot) * BLOCK;
		submit_from_stack(slot, i % 3 == 0);
	}
	for (int i = 0; i < REAPERS; i++)
		CHECK(pthread_join(reapers[i], NULL) == 0);
	CHECK(aio_destroy(ctx) == 0);
	printf("ok %d\n", REQUESTS);
	return 0;
}
