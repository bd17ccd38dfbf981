/* threads.c - any number of threads on one context, contexts in any thread, other processes in the same memory. */
#include "las_test.h"

#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>

struct job {
	io_context_t ctx;
	int fd;
	int index;
	int rounds;
	int *reaped;
	int *stop;
};

/* Submits reads of its own and reaps whatever comes; each event is counted in its own request's slot. */
struct request {
	struct iocb iocb;
	unsigned char byte;
	unsigned offset;
	int done;
};

static void submit_read(const struct job *job, struct request *r, unsigned offset)
{
	r->offset = offset;
	r->byte = 0;
	io_prep_pread(&r->iocb, job->fd, &r->byte, 1, offset);
	r->iocb.data = r;
	for (;;) {
		int answer = t_submit(job->ctx, &r->iocb);

		if (answer == 1)
			return;
		CHECK_RET(answer, -EAGAIN);
		sched_yield();
	}
}

static void take_event(const struct io_event *event)
{
	struct request *r = event->data;

	CHECK(event->obj == &r->iocb);
	CHECK_EQ(t_res(event), 1);
	CHECK_EQ(r->byte, t_byte(0, r->offset));
	CHECK_EQ(__atomic_exchange_n(&r->done, 1, __ATOMIC_ACQ_REL), 0);
}

static void *submit_and_reap(void *arg)
{
	const struct job *job = arg;
	struct request *requests = calloc((size_t)job->rounds, sizeof(*requests));
	struct io_event event;

	for (int i = 0; i < job->rounds; i++) {
		submit_read(job, &requests[i], (unsigned)(job->index * 977 + i * 61) % 65536);
		CHECK_RET(io_getevents(job->ctx, 1, 1, &event, NULL), 1);
		take_event(&event);
	}
	return NULL; /* the requests stay: other threads may still be reaping them */
}

TEST(sixty_four_threads_on_one_context)
{
	enum { THREADS = 64 };
	struct job jobs[THREADS];
	pthread_t threads[THREADS];
	io_context_t ctx = t_context(256);
	int fd = t_file("data", 65536);

	for (int i = 0; i < THREADS; i++) {
		jobs[i] = (struct job){ .ctx = ctx, .fd = fd, .index = i, .rounds = 100 };
		threads[i] = t_thread(submit_and_reap, &jobs[i]);
	}
	for (int i = 0; i < THREADS; i++)
		t_join(threads[i]);
	t_no_event(ctx);
}

static void *only_reap(void *arg)
{
	const struct job *job = arg;
	struct io_event events[16];

	while (!__atomic_load_n(job->stop, __ATOMIC_ACQUIRE)) {
		struct timespec wait = { 0, 2000000 };
		int n = io_getevents(job->ctx, 1, 16, events, &wait);

		CHECK(n >= 0);
		for (int i = 0; i < n; i++)
			take_event(&events[i]);
		__atomic_add_fetch(job->reaped, n, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void *only_submit(void *arg)
{
	const struct job *job = arg;
	struct request *requests = calloc((size_t)job->rounds, sizeof(*requests));

	for (int i = 0; i < job->rounds; i++)
		submit_read(job, &requests[i], (unsigned)(job->index * 977 + i * 61) % 65536);
	return NULL;
}

TEST(some_threads_submit_and_others_reap)
{
	enum { SIDE = 8, ROUNDS = 1000 };
	struct job jobs[2 * SIDE];
	pthread_t threads[2 * SIDE];
	io_context_t ctx = t_context(64);
	int fd = t_file("data", 65536), reaped = 0, stop = 0;

	for (int i = 0; i < 2 * SIDE; i++) {
		jobs[i] = (struct job){ ctx, fd, i, ROUNDS, &reaped, &stop };
		threads[i] = t_thread(i < SIDE ? only_submit : only_reap, &jobs[i]);
	}
	for (int i = 0; i < SIDE; i++)
		t_join(threads[i]);
	while (__atomic_load_n(&reaped, __ATOMIC_RELAXED) < SIDE * ROUNDS)
		t_sleep_ms(1);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = SIDE; i < 2 * SIDE; i++)
		t_join(threads[i]);
	CHECK_EQ(reaped, SIDE * ROUNDS);
	t_no_event(ctx);
}

static void *own_context(void *arg)
{
	struct job *job = arg;

	for (int i = 0; i < job->rounds; i++) {
		io_context_t ctx = NULL;
		unsigned char byte;

		CHECK_RET(io_setup(8, &ctx), 0);
		for (unsigned j = 0; j < 20; j++) {
			CHECK_RET(t_pread(ctx, job->fd, &byte, 1, j * 997), 1);
			CHECK_EQ(byte, t_byte(0, j * 997));
		}
		CHECK_RET(io_destroy(ctx), 0);
	}
	return NULL;
}

TEST(threads_with_contexts_of_their_own)
{
	enum { THREADS = 16 };
	struct job jobs[THREADS];
	pthread_t threads[THREADS];
	int fd = t_file("data", 65536);

	for (int i = 0; i < THREADS; i++) {
		jobs[i] = (struct job){ .fd = fd, .index = i, .rounds = 10 };
		threads[i] = t_thread(own_context, &jobs[i]);
	}
	for (int i = 0; i < THREADS; i++)
		t_join(threads[i]);
}

TEST(first_use_by_many_threads_at_once)
{
	enum { THREADS = 32 };
	struct job jobs[THREADS];
	pthread_t threads[THREADS];
	int fd = t_file("data", 65536);

	for (int i = 0; i < THREADS; i++) {
		jobs[i] = (struct job){ .fd = fd, .rounds = 1 };
		threads[i] = t_thread(own_context, &jobs[i]);
	}
	for (int i = 0; i < THREADS; i++)
		t_join(threads[i]);
}

/* A child that shares the memory but is another process: its pid differs, the contexts are the same. */
struct shared_memory {
	io_context_t ctx;
	int fd;
	unsigned char bytes[100];
	int writer;
};

static int child_in_same_memory(void *arg)
{
	struct shared_memory *s = arg;
	struct iocb iocb;
	struct io_event event;

	for (unsigned i = 0; i < 100; i++) {
		io_prep_pread(&iocb, s->fd, &s->bytes[i], 1, i * 100);
		if (t_submit(s->ctx, &iocb) != 1)
			return 10;
		if (io_getevents(s->ctx, 1, 1, &event, NULL) != 1 || t_res(&event) != 1)
			return 11;
	}
	return 0;
}

TEST(context_works_in_a_clone_vm_child)
{
	enum { STACK = 256 * 1024 };
	struct shared_memory s = { .ctx = t_context(8), .fd = t_file("data", 65536) };
	char *stack = t_pages(STACK);
	unsigned char byte;
	pid_t pid;

	CHECK_RET(t_pread(s.ctx, s.fd, &byte, 1, 0), 1);
	/* CLONE_VFORK: the C library's thread-local data is shared too, so one of the two must stand still. */
	pid = clone(child_in_same_memory, stack + STACK, CLONE_VM | CLONE_FILES | CLONE_VFORK | SIGCHLD, &s);
	t_wait_ok(pid);
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(s.bytes[i], t_byte(0, i * 100));
	CHECK_RET(t_pread(s.ctx, s.fd, &byte, 1, 5), 1);
}

TEST(context_works_in_a_clone_vm_child_with_a_file_table_of_its_own)
{
	enum { STACK = 256 * 1024 };
	struct shared_memory s = { .ctx = t_context(8), .fd = t_file("data", 65536) };
	char *stack = t_pages(STACK);
	unsigned char byte;
	pid_t pid;

	pid = clone(child_in_same_memory, stack + STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, &s);
	t_wait_ok(pid);
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(s.bytes[i], t_byte(0, i * 100));
	CHECK_RET(t_pread(s.ctx, s.fd, &byte, 1, 5), 1);
}

static void *cancelled_in_getevents(void *arg)
{
	struct io_event event;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	io_getevents(arg, 1, 1, &event, NULL);
	return NULL;
}

TEST(thread_cancelled_while_waiting_leaves_the_context_usable)
{
	io_context_t ctx = t_context(8);
	pthread_t thread = t_thread(cancelled_in_getevents, ctx);
	int fd = t_file("data", 64);
	char byte;

	t_sleep_ms(30);
	CHECK_EQ(pthread_cancel(thread), 0);
	t_join(thread);
	for (int i = 0; i < 100; i++)
		CHECK_RET(t_pread(ctx, fd, &byte, 1, 0), 1);
}

TEST(tiny_stack_is_enough)
{
	enum { SMALL = 16384 + 4096 };
	struct job job = { .fd = t_file("data", 65536), .rounds = 2 };
	pthread_attr_t attributes;
	pthread_t thread;

	CHECK_EQ(pthread_attr_init(&attributes), 0);
	CHECK_EQ(pthread_attr_setstacksize(&attributes, SMALL), 0);
	CHECK_EQ(pthread_create(&thread, &attributes, own_context, &job), 0);
	t_join(thread);
}

/* ---- our threads are good guests ---- */

static int count_threads(void)
{
	char text[4096] = "";
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	char *line;

	CHECK(fd >= 0);
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	line = strstr(text, "\nThreads:");
	CHECK(line != NULL);
	return atoi(line + 9);
}

TEST(idle_contexts_have_no_threads)
{
	for (int i = 0; i < 50; i++)
		t_context(8);
	CHECK_EQ(count_threads(), 1);
}

static volatile sig_atomic_t handler_tid;

static void note_thread(int number)
{
	handler_tid = (sig_atomic_t)syscall(SYS_gettid);
}

TEST(signals_of_the_process_reach_the_programs_threads)
{
	io_context_t ctx = t_context(64);
	int fd = t_stall_file("threads", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(16 * 4096);
	static struct iocb iocbs[16];
	struct io_event events[16];

	signal(SIGUSR1, note_thread);
	t_stall_hold();
	for (int i = 0; i < 16; i++) {
		io_prep_pread(&iocbs[i], fd, buf + i * 4096, 4096, i * 4096);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	t_stall_wait(16);
	for (int i = 0; i < 100; i++) {
		handler_tid = 0;
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
		while (!handler_tid)
			usleep(100);
		CHECK_EQ(handler_tid, getpid());
	}
	t_stall_release();
	t_reap(ctx, 16, events);
}

TEST(blocked_signals_stay_pending)
{
	io_context_t ctx = t_context(64);
	int fd = t_stall_file("threads", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;
	sigset_t set, pending;

	signal(SIGUSR1, note_thread);
	t_stall_hold();
	io_prep_pread(&iocb, fd, buf, 4096, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	CHECK_EQ(kill(getpid(), SIGUSR1), 0);
	t_sleep_ms(20);
	CHECK_EQ(handler_tid, 0);
	CHECK_EQ(sigpending(&pending), 0);
	CHECK_EQ(sigismember(&pending, SIGUSR1), 1);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
}

TEST(threads_use_the_affinity_of_the_process)
{
	io_context_t ctx;
	int fd = t_stall_file("affinity", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;
	cpu_set_t before, one;

	/* The submitting thread is pinned, as many programs pin theirs; helpers must not all end up on its CPU. */
	CHECK_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
	CPU_ZERO(&one);
	CPU_SET((unsigned)sched_getcpu(), &one);
	CHECK_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
	ctx = t_context(8);
	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
}

TEST(helpers_are_threads_of_the_process)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("threads", 65536, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;

	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	if (DIFFERS("threads-of-the-process"))
		CHECK(count_threads() > 1);
	else
		CHECK_EQ(count_threads(), 1);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
}
