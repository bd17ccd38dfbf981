/*
 * churn.c - contexts come and go while other threads submit, wait, cancel and peek, with no order between them.
 *
 * Most answers are EINVAL.  What counts: nobody crashes, nobody hangs, io_destroy comes back, and at the end nothing is
 * left open.
 */
#include "chance.h"

#include <poll.h>

#include "libaio_shim.h"

enum { CONTEXTS = 4, USERS = 4 };

static io_context_t contexts[CONTEXTS]; /* atomic; what was there once may be used for ever */
static int64_t end_ms;
static int file, direct, pipes[2];

static io_context_t any_context(struct c_source *source)
{
	return __atomic_load_n(&contexts[c_below(source, CONTEXTS)], __ATOMIC_ACQUIRE);
}

static void *replace(void *arg)
{
	struct c_source source = { (uint64_t)(uintptr_t)arg };

	while (t_now_ms() < end_ms) {
		static const int sizes[] = { 1, 1, 64, 128, 600 };
		io_context_t made = NULL, old;

		CHECK_RET(las_io_setup((unsigned)C_PICK(&source, sizes), &made), 0);
		old = __atomic_exchange_n(&contexts[c_below(&source, CONTEXTS)], made, __ATOMIC_ACQ_REL);
		if (c_one_in(&source, 2))
			usleep(c_below(&source, 500));
		if (old)
			CHECK_RET(las_io_destroy(old), 0);
	}
	return NULL;
}

struct user {
	struct c_source source;
	struct iocb iocbs[8];
	char *data;
	struct io_event events[64];
};

static void submit(struct user *u)
{
	struct iocb *list[8];
	unsigned n = 1 + c_below(&u->source, 8);
	long ret;

	for (unsigned i = 0; i < n; i++) {
		struct iocb *iocb = list[i] = &u->iocbs[i];
		char *data = u->data + i * 4096;

		switch (c_below(&u->source, 6)) {
		case 0:
			io_prep_poll(iocb, pipes[0], POLLIN);
			break;
		case 1:
			io_prep_pread(iocb, pipes[0], data, 1, 0);
			break;
		case 2:
			io_prep_pread(iocb, direct, data, 4096, 4096 * c_below(&u->source, 16));
			break;
		case 3:
			io_prep_pwrite(iocb, file, data, 100, c_below(&u->source, 10000));
			break;
		case 4:
			io_prep_fdsync(iocb, file);
			break;
		default:
			io_prep_pread(iocb, file, data, 100, c_below(&u->source, 10000));
			break;
		}
	}
	ret = las_io_submit(any_context(&u->source), (long)n, list);
	CHECK((ret > 0 && ret <= (long)n) || ret == -EINVAL || ret == -EAGAIN);
}

static void wait_a_little(struct user *u)
{
	struct timespec timeout = { 0, c_below(&u->source, 2000000) };
	long ret = las_io_getevents(any_context(&u->source), c_below(&u->source, 3), 64, u->events,
	                            c_one_in(&u->source, 100) ? NULL : &timeout);

	CHECK((ret >= 0 && ret <= 64) || ret == -EINVAL);
}

/* As a program that reads the ring without a call, also when another thread has destroyed it meanwhile. */
static void peek(struct user *u)
{
	const struct t_ring *ring = t_ring(any_context(&u->source));
	uint32_t head, tail;

	if (!ring)
		return;
	head = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
	tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	CHECK(head < 100000 && tail < 100000);
	CHECK_EQ(__atomic_load_n(&ring->magic, __ATOMIC_RELAXED), 0xa10a10a1);
}

static void *use(void *arg)
{
	struct user *u = arg;

	u->data = t_pages(8 * 4096);
	while (t_now_ms() < end_ms) {
		struct io_event event;
		long ret;

		switch (c_below(&u->source, 8)) {
		case 0:
		case 1:
		case 2:
			submit(u);
			break;
		case 3:
			ret = las_io_cancel(any_context(&u->source), &u->iocbs[c_below(&u->source, 8)], &event);
			CHECK(ret == 0 || ret == -EINVAL || ret == -EINPROGRESS);
			break;
		case 4:
			peek(u);
			break;
		case 5:
			las_io_owns(any_context(&u->source));
			break;
		default:
			wait_a_little(u);
			break;
		}
	}
	return NULL;
}

static void *feed(void *unused)
{
	/* The pipe is ready now and then. */
	while (t_now_ms() < end_ms) {
		CHECK_EQ(write(pipes[1], "x", 1), 1);
		usleep(500);
	}
	return NULL;
}

static void run(void)
{
	static struct user users[USERS];
	pthread_t threads[USERS + 3];

	u_pipe(pipes);
	CHECK_EQ(fcntl(pipes[1], F_SETFL, O_NONBLOCK), 0);
	file = t_file("file", 65536);
	direct = open("file", O_RDWR | O_DIRECT | O_CLOEXEC);
	direct = t_own(direct < 0 ? open("file", O_RDWR | O_CLOEXEC) : direct);
	end_ms = t_now_ms() + (int64_t)c_setting("LAS_STRESS_MS", 300);
	for (unsigned i = 0; i < USERS; i++) {
		users[i].source.state = c_setting("LAS_FUZZ_SEED", 1) + i * 1000003;
		threads[i] = t_thread(use, &users[i]);
	}
	threads[USERS] = t_thread(replace, (void *)1);
	threads[USERS + 1] = t_thread(replace, (void *)2);
	threads[USERS + 2] = t_thread(feed, NULL);
	/* Whoever waits without end is woken when its context is destroyed. */
	t_join(threads[USERS]);
	t_join(threads[USERS + 1]);
	for (int i = 0; i < CONTEXTS; i++) {
		io_context_t last = __atomic_exchange_n(&contexts[i], NULL, __ATOMIC_ACQ_REL);

		if (last)
			CHECK_RET(las_io_destroy(last), 0);
	}
	for (int i = 0; i < USERS; i++)
		t_join(threads[i]);
	t_join(threads[USERS + 2]);
}

TEST(contexts_come_and_go_under_their_users)
{
	run();
}

TEST(contexts_come_and_go_without_kernel_aio)
{
	setenv("LIBAIO_SHIM_LANES", "head,crew", 1);
	run();
}

TEST(contexts_come_and_go_on_the_crew_alone)
{
	setenv("LIBAIO_SHIM_LANES", "crew", 1);
	run();
}
