/*
 * hostile.c - what no program should do and some do: memory, descriptors and limits that change under our feet.
 *
 * The kernel answers each of them in some way and goes on; so must the shim.
 */
#include "las_test.h"

#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

/* ---- descriptors ---- */

TEST(first_context_without_a_free_descriptor_still_knows_eventfds)
{
	int fd = t_file("data", 4096), counter = t_own(eventfd(0, EFD_NONBLOCK));
	struct rlimit limit;
	struct iocb iocb;
	char buf[16];
	io_context_t ctx = NULL;
	uint64_t count;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)counter + 1;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	CHECK_RET(io_setup(8, &ctx), 0);
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	io_set_eventfd(&iocb, counter);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_RET(t_reap_one(ctx), sizeof(buf));
	CHECK_EQ(read(counter, &count, sizeof(count)), sizeof(count));
	CHECK_EQ(count, 1);
	/* And what is none is still told apart. */
	io_set_eventfd(&iocb, fd);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	CHECK_RET(io_destroy(ctx), 0);
}

/* A number that was used a moment ago is another file now, which was opened for something else. */
static void check_reused_number(const char *path, bool write)
{
	io_context_t ctx = t_context(8);
	int number = t_open(path, O_RDWR), other = t_open(path, write ? O_RDONLY : O_WRONLY);
	int first = t_own(dup(number));
	char buf[16] = "";
	struct iocb iocb;

	if (write)
		io_prep_pwrite(&iocb, number, buf, sizeof(buf), 0);
	else
		io_prep_pread(&iocb, number, buf, sizeof(buf), 0);
	for (int i = 0; i < 300; i++) {
		CHECK_EQ(dup2(first, number), number);
		CHECK_RET(t_run(ctx, &iocb), sizeof(buf));
		CHECK_EQ(dup2(other, number), number);
		CHECK_RET(t_submit(ctx, &iocb), -EBADF);
	}
}

TEST(number_reused_for_a_file_that_cannot_be_read_is_ebadf)
{
	t_file("data", 4096);
	check_reused_number("data", false);
}

TEST(number_reused_for_a_file_that_cannot_be_written_is_ebadf)
{
	t_file("data", 4096);
	check_reused_number("data", true);
}

/* On a file system in memory, where everything is done at once. */
TEST(number_reused_for_a_pipe_is_a_pipe)
{
	io_context_t ctx = t_context(8);
	int memory = t_own(memfd_create("memory", 0)), number = t_own(dup(memory)), ends[2];
	char byte = 0;
	struct iocb iocb;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	CHECK_EQ(pwrite(memory, "mm", 2, 0), 2);
	io_prep_pread(&iocb, number, &byte, 1, 1);
	for (int i = 0; i < 300; i++) {
		CHECK_EQ(dup2(memory, number), number);
		CHECK_RET(t_run(ctx, &iocb), 1);
		CHECK_EQ(byte, 'm');
		CHECK_EQ(write(ends[1], "p", 1), 1);
		CHECK_EQ(dup2(ends[0], number), number);
		CHECK_RET(t_run(ctx, &iocb), 1);
		CHECK_EQ(byte, 'p');
	}
}

/* The numbers of all descriptors from `lowest` on. */
static int list_fds(int lowest, int *numbers, int max)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	CHECK(dir != NULL);
	for (struct dirent *entry; (entry = readdir(dir)) && n < max;) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] != '.' && fd >= lowest && fd != dirfd(dir))
			numbers[n++] = fd;
	}
	closedir(dir);
	return n;
}

static void check_untouched(const char *path, size_t bytes)
{
	int fd = t_open(path, O_RDONLY);
	char *back = t_pages(bytes);
	struct stat st;

	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, bytes);
	CHECK_EQ(pread(fd, back, bytes, 0), (ssize_t)bytes);
	t_check_pattern(back, bytes, 0, 0);
}

TEST(waiting_write_never_lands_in_a_file_put_on_our_descriptor)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("append", 0, O_RDWR | O_APPEND), victim = t_file("victim", 65536), highest;
	struct iocb iocbs[3], *list[3];
	struct io_event events[3];
	static char block[4096];
	int numbers[64], n;

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for each append");
	memset(block, 'x', sizeof(block));
	highest = victim > fd ? victim : fd;
	t_stall_hold();
	for (int i = 0; i < 3; i++) {
		io_prep_pwrite(&iocbs[i], fd, block, sizeof(block), 0);
		list[i] = &iocbs[i];
	}
	CHECK_RET(io_submit(ctx, 3, list), 3);
	t_stall_wait(1);
	/* The others wait for their turn, each by a descriptor; the program takes all of those for itself. */
	n = list_fds(highest + 1, numbers, 64);
	CHECK(n > 0);
	for (int i = 0; i < n; i++)
		CHECK_EQ(dup2(victim, numbers[i]), numbers[i]);
	t_stall_release();
	t_reap(ctx, 3, events);
	for (int i = 0; i < 3; i++)
		CHECK(t_res(&events[i]) == 4096 ||
		      (t_res(&events[i]) == -EBADF && DIFFERS("descriptors-while-waiting")));
	check_untouched("victim", 65536);
	_exit(0);
}

struct own_table {
	io_context_t ctx;
	int fd;
};

static void *append_in_own_table(void *arg)
{
	const struct own_table *t = arg;
	static struct iocb iocbs[4], *list[4];
	static char block[4096];

	CHECK_EQ(unshare(CLONE_FILES), 0);
	memset(block, 'y', sizeof(block));
	for (int i = 0; i < 4; i++) {
		io_prep_pwrite(&iocbs[i], t->fd, block, sizeof(block), 0);
		list[i] = &iocbs[i];
	}
	CHECK_RET(io_submit(t->ctx, 4, list), 4);
	return NULL;
}

/* What waits has a descriptor of its own, whose number means another file in another thread's table. */
TEST(thread_with_its_own_table_writes_into_its_own_file)
{
	io_context_t ctx = t_context(8);
	int first = t_stall_file("first", 0, O_RDWR | O_APPEND), second = t_stall_file("second", 0, O_RDWR | O_APPEND);
	struct own_table t = { ctx, second };
	struct iocb iocbs[4], *list[4];
	struct io_event events[8];
	static char block[4096];
	struct stat st;
	pthread_t thread;

	for (int i = 0; i < 4; i++) {
		io_prep_pwrite(&iocbs[i], first, block, sizeof(block), 0);
		list[i] = &iocbs[i];
	}
	t_stall_delay(20);
	thread = t_thread(append_in_own_table, &t);
	CHECK_RET(io_submit(ctx, 4, list), 4);
	t_reap(ctx, 8, events);
	t_join(thread);
	t_stall_delay(0);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(t_res(&events[i]), 4096);
	for (int which = 0; which < 2; which++) {
		int fd = which ? second : first;

		CHECK_EQ(fstat(fd, &st), 0);
		CHECK_EQ(st.st_size, 4 * 4096);
		for (int i = 0; i < 4; i++) {
			char back;

			CHECK_EQ(pread(fd, &back, 1, i * 4096), 1);
			CHECK_EQ(back, which ? 'y' : 0);
		}
	}
}

struct stranger {
	io_context_t ctx;
	pthread_barrier_t *step;
};

static void *reap_in_own_table(void *arg)
{
	const struct stranger *s = arg;
	struct io_event events[8];
	char path[] = "taken";
	int fd;

	CHECK_EQ(unshare(CLONE_FILES), 0);
	/* Numbers above the usual are files here. */
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	for (int number = 4096; number < 4200; number++)
		CHECK_EQ(dup2(fd, number), number);
	pthread_barrier_wait(s->step);
	for (int n = 0; n < 8;) {
		int got = io_getevents(s->ctx, 1, 8 - n, events, NULL);

		CHECK(got > 0);
		n += got;
	}
	return NULL;
}

/* Whoever reaps in a table of his own raises no eventfd, closes nothing, and writes nothing there, by others' numbers. */
TEST(thread_with_its_own_table_reaps_for_others)
{
	io_context_t ctx = t_context(16);
	int taken = t_file("taken", 4096), fd = t_file("data", 65536), counter = t_own(eventfd(0, 0));
	int direct = t_open("data", O_RDONLY | O_DIRECT);
	char *buf = t_pages(8 * 4096);
	pthread_barrier_t step;
	struct stranger s = { ctx, &step };
	struct iocb iocbs[8], *list[8];
	uint64_t count = 0, total = 0;
	pthread_t thread;

	CHECK_EQ(pthread_barrier_init(&step, NULL, 2), 0);
	thread = t_thread(reap_in_own_table, &s);
	pthread_barrier_wait(&step);
	for (int i = 0; i < 8; i++) {
		if (i % 2)
			io_prep_fsync(&iocbs[i], fd);
		else
			io_prep_pread(&iocbs[i], direct, buf + i * 4096, 4096, i * 4096);
		io_set_eventfd(&iocbs[i], counter);
		list[i] = &iocbs[i];
	}
	for (int i = 0; i < 8; i += 2)
		CHECK_RET(io_submit(ctx, 2, list + i), 2);
	while (total < 8) {
		CHECK_EQ(read(counter, &count, sizeof(count)), sizeof(count));
		total += count;
	}
	t_join(thread);
	(void)taken;
	check_untouched("taken", 4096);
}

static void *destroy_in_own_table(void *arg)
{
	CHECK_EQ(unshare(CLONE_FILES), 0);
	CHECK_RET(io_destroy(arg), 0);
	return NULL;
}

TEST(thread_with_its_own_table_destroys_and_all_writes_are_finished)
{
	enum { COUNT = 64 };
	io_context_t ctx = t_context(COUNT);
	int fd = t_stall_file("destroyed", 0, O_RDWR | O_APPEND);
	static struct iocb iocbs[COUNT], *list[COUNT];
	static char block[4096];
	struct stat st;

	for (int i = 0; i < COUNT; i++) {
		io_prep_pwrite(&iocbs[i], fd, block, sizeof(block), 0);
		list[i] = &iocbs[i];
	}
	t_stall_delay(2);
	CHECK_RET(io_submit(ctx, COUNT, list), COUNT);
	t_join(t_thread(destroy_in_own_table, ctx));
	t_stall_delay(0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, COUNT * 4096);
}

static int64_t cpu_ms(void)
{
	struct rusage usage;

	CHECK_EQ(getrusage(RUSAGE_SELF, &usage), 0);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

TEST(closing_every_descriptor_while_polls_wait_is_no_busy_loop)
{
	io_context_t ctx = t_context(8);
	int ends[2], counter = eventfd(0, 0);
	struct iocb polls[2];
	int64_t before;

	CHECK_EQ(pipe(ends), 0);
	CHECK_EQ(dup2(ends[1], 0), 0); /* or closing the writer's end would make them ready */
	for (int i = 0; i < 2; i++) {
		io_prep_poll(&polls[i], ends[0], POLLIN);
		if (i)
			io_set_eventfd(&polls[i], counter);
		CHECK_RET(t_submit(ctx, &polls[i]), 1);
	}
	t_sleep_ms(10);
	CHECK_EQ((int)syscall(SYS_close_range, 3u, ~0u, 0), 0);
	/* What wakes a helper that waits: another request comes and goes. */
	CHECK_EQ(pipe(ends), 0);
	io_prep_poll(&polls[1], ends[0], POLLIN);
	t_submit(ctx, &polls[1]);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	before = cpu_ms();
	t_sleep_ms(400);
	CHECK(cpu_ms() - before < 200);
	_exit(0);
}

/* ---- jumps ---- */

static sigjmp_buf way_out;

static void jump_out(int sig)
{
	(void)sig;
	siglongjmp(way_out, 1);
}

static void *interrupt_then_release(void *arg)
{
	pid_t tid = *(pid_t *)arg;

	t_stall_wait(1);
	syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
	t_sleep_ms(20);
	t_stall_release();
	return NULL;
}

TEST(handler_that_jumps_out_of_the_wait_for_one_slow_request_loses_nothing)
{
	struct sigaction action = { .sa_handler = jump_out };
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("slow", 65536, O_RDONLY);
	static char buf[4096];
	static struct iocb iocb;
	static pid_t me;
	static volatile bool jumped;
	struct io_event event;
	pthread_t thread;

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for the data (difference submit-returns-first)");
	me = (pid_t)syscall(SYS_gettid);
	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	t_stall_hold();
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	thread = t_thread(interrupt_then_release, &me);
	if (!sigsetjmp(way_out, 1)) {
		CHECK_RET(t_submit(ctx, &iocb), 1);
		io_getevents(ctx, 1, 1, &event, NULL);
	}
	jumped = true;
	t_join(thread);
	t_stall_release();
	CHECK(jumped);
	if (t_ring_count(ctx) == 0 && event.obj != &iocb)
		CHECK_RET(t_reap_one(ctx), 4096);
	CHECK_RET(io_destroy(ctx), 0);
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 4096);
	ctx = t_context(8);
	CHECK_RET(t_run(ctx, &iocb), 4096);
}

static void submit_and_be_interrupted(int fd)
{
	struct itimerval often = { { 0, 500 }, { 0, 500 } };
	struct sigaction action = { .sa_handler = jump_out };
	io_context_t ctx = t_context(64);
	static volatile int jumps;
	static char buf[4096];
	static struct iocb iocb;

	CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	if (sigsetjmp(way_out, 1))
		jumps++;
	CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
	while (jumps < 100) {
		struct io_event events[8];

		t_submit(ctx, &iocb);
		io_getevents(ctx, 0, 8, events, &(struct timespec){ 0, 0 });
	}
	CHECK_EQ(setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL), 0);
	CHECK_RET(io_destroy(ctx), 0);
	ctx = t_context(8);
	CHECK_RET(t_run(ctx, &iocb), sizeof(buf));
}

TEST(handler_that_jumps_out_of_submit)
{
	int fd = t_file("data", 4096), status = 0;
	pid_t pid = fork(), ended = 0;
	int patience = is_shim() ? 200 : 3000;

	if (pid == 0) {
		submit_and_be_interrupted(fd);
		_exit(0);
	}
	for (int i = 0; i < patience && ended == 0; i++) {
		ended = waitpid(pid, &status, WNOHANG);
		t_sleep_ms(10);
	}
	if (ended == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	CHECK(DIFFERS("jump-out-of-a-call"));
	if (ended == 0) {
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
	}
	/* It may not get on; it does not crash. */
	CHECK(!WIFSIGNALED(status) || WTERMSIG(status) == SIGKILL);
}

/* ---- limits ---- */

static void no_more_threads(void)
{
	struct rlimit none = { 0, 0 };

	t_need_root();
	/* Root is not bound by the limit, everybody else is. */
	CHECK_EQ(setresuid(65533, 65533, 65533), 0);
	CHECK_EQ(setrlimit(RLIMIT_NPROC, &none), 0);
}

TEST(eventfd_is_raised_where_no_thread_can_be_made)
{
	int counter = t_own(eventfd(0, 0)), fd = t_file("data", 65536), direct = t_open("data", O_RDWR | O_DIRECT);
	char *buf = t_pages(4096);
	struct pollfd p = { .fd = counter, .events = POLLIN };
	struct iocb iocbs[3];
	io_context_t ctx;

	no_more_threads();
	ctx = t_context(8);
	io_prep_pread(&iocbs[0], direct, buf, 4096, 0);
	io_prep_fsync(&iocbs[1], fd);
	io_prep_pread(&iocbs[2], fd, buf, 4096, 4096);
	for (int i = 0; i < 3; i++) {
		io_set_eventfd(&iocbs[i], counter);
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
		/* A program that sleeps in poll calls nothing of ours meanwhile. */
		CHECK_EQ(poll(&p, 1, 60000), 1);
		CHECK_RET(t_reap_one(ctx), i == 1 ? 0 : 4096);
		CHECK_EQ(eventfd_read(counter, &(eventfd_t){ 0 }), 0);
	}
}

TEST(poll_is_no_wait_where_no_thread_can_be_made)
{
	struct iocb iocb;
	io_context_t ctx;
	int ends[2];
	long answer;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	no_more_threads();
	ctx = t_context(8);
	io_prep_poll(&iocb, ends[0], POLLIN);
	answer = t_submit(ctx, &iocb);
	if (DIFFERS("threads-of-the-process") && answer == -EAGAIN)
		return;
	CHECK_RET(answer, 1);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK_RET(t_reap_one(ctx), POLLIN | POLLRDNORM);
}

TEST(events_appear_without_a_call_where_no_thread_can_be_made)
{
	int fd = t_file("data", 65536), direct = t_open("data", O_RDWR | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocbs[2];
	io_context_t ctx;

	no_more_threads();
	ctx = t_context(8);
	for (int i = 0; i < 40; i++) {
		struct io_event event;
		struct timespec at_once = { 0, 0 };

		io_prep_pread(&iocbs[0], direct, buf, 4096, 0);
		io_prep_fsync(&iocbs[1], fd);
		CHECK_RET(t_submit(ctx, &iocbs[i % 2]), 1);
		t_ring_wait(ctx, 1);
		CHECK_RET(io_getevents(ctx, 1, 1, &event, &at_once), 1);
	}
}

struct appends {
	io_context_t ctx;
	int fd;
};

static void *submit_appends(void *arg)
{
	enum { COUNT = 2000 };
	struct appends *a = arg;
	static struct iocb iocbs[COUNT], *list[COUNT];
	static struct io_event events[COUNT];
	static char byte = 'x';

	/* The real limit is per user; this thread exists already. */
	for (int i = 0; i < COUNT; i++) {
		io_prep_pwrite(&iocbs[i], a->fd, &byte, 1, 0);
		list[i] = &iocbs[i];
	}
	no_more_threads();
	CHECK_RET(io_submit(a->ctx, COUNT, list), COUNT);
	t_reap(a->ctx, COUNT, events);
	return NULL;
}

TEST(long_line_of_appends_needs_little_stack_where_no_thread_can_be_made)
{
	struct appends a = { t_context(2000), t_stall_file("line", 0, O_RDWR | O_APPEND) };
	pthread_attr_t attr;
	pthread_t thread;
	struct stat st;

	CHECK_EQ(pthread_attr_init(&attr), 0);
	CHECK_EQ(pthread_attr_setstacksize(&attr, 64 * 1024), 0);
	CHECK_EQ(pthread_create(&thread, &attr, submit_appends, &a), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(fstat(a.fd, &st), 0);
	CHECK_EQ(st.st_size, 2000);
}

/* ---- memory that changes while it is looked at ---- */

struct flipping {
	struct iocb iocb;
	struct iovec iov[8];
	int fds[3];
	char *buf;
	volatile bool stop;
};

static void *flip(void *arg)
{
	struct flipping *f = arg;

	for (unsigned i = 0; !f->stop; i++) {
		f->iocb.aio_lio_opcode = (short)(i % 9);
		f->iocb.aio_fildes = i % 5 == 4 ? 9999 : f->fds[i % 3];
		f->iocb.u.v.vec = i % 7 == 6 ? (void *)16 : f->iov;
		f->iocb.u.v.nr = i % 11 == 10 ? 4000 : (int)(i % 9);
		f->iov[i % 8].iov_len = i % 13 == 12 ? (size_t)-1 : i % 512;
		f->iov[i % 8].iov_base = i % 17 == 16 ? (void *)-4096 : f->buf;
		((uint64_t *)&f->iocb)[6] = i % 19 == 18; /* aio_reserved2 */
		((uint32_t *)&f->iocb)[2] = i;            /* aio_key */
	}
	return NULL;
}

TEST(iocb_that_another_thread_changes_gives_one_event_or_an_error)
{
	static struct flipping f;
	io_context_t ctx = t_context(64);
	struct iocb *list[1] = { &f.iocb };
	pthread_t thread;
	int accepted = 0;

	f.fds[0] = t_file("data", 65536);
	f.fds[1] = t_own(open("/dev/null", O_RDWR));
	f.fds[2] = t_own(open("/dev/zero", O_RDWR));
	f.buf = t_pages(4096);
	thread = t_thread(flip, &f);
	for (int i = 0; i < 20000; i++) {
		struct io_event event;
		int n = io_submit(ctx, 1, list);

		CHECK(n == 1 || (n < 0 && n != -EAGAIN));
		if (n != 1)
			continue;
		accepted++;
		/* A poll of an ordinary file or a zero mask is answered at once as well. */
		CHECK_RET(io_getevents(ctx, 1, 1, &event, &(struct timespec){ 10, 0 }), 1);
		CHECK(event.obj == &f.iocb);
	}
	f.stop = true;
	t_join(thread);
	CHECK(accepted > 0);
	CHECK_RET(io_getevents(ctx, 0, 1, &(struct io_event){ 0 }, &(struct timespec){ 0, 0 }), 0);
}

struct scribbling {
	struct t_ring *ring;
	volatile bool stop;
};

static void *scribble(void *arg)
{
	struct scribbling *s = arg;
	uint32_t x = 12345;

	while (!s->stop) {
		x = x * 1664525u + 1013904223u;
		((uint32_t *)s->ring)[2 + (x >> 16) % 6] = x >> (x % 32); /* everything but id and nr */
		s->ring->events[(x >> 8) % 64].res = x;
	}
	return NULL;
}

TEST(ring_that_another_thread_scribbles_on_is_survived)
{
	io_context_t ctx = t_context(64);
	struct scribbling s = { .ring = t_ring(ctx) };
	int fd = t_file("data", 65536);
	static char buf[4096];
	struct iocb iocb;
	pthread_t thread;
	int again = 0;

	thread = t_thread(scribble, &s);
	for (int i = 0; i < 20000; i++) {
		struct io_event events[16];
		int n;

		io_prep_pread(&iocb, fd, buf, 16, 0);
		n = t_submit(ctx, &iocb);
		CHECK(n == 1 || n == -EAGAIN);
		again += n == -EAGAIN;
		n = io_getevents(ctx, 0, 16, events, &(struct timespec){ 0, 0 });
		CHECK(n >= 0 && n <= 16);
	}
	s.stop = true;
	t_join(thread);
	CHECK_RET(io_destroy(ctx), 0);
	ctx = t_context(64);
	CHECK_RET(t_pread(ctx, fd, buf, 16, 0), 16);
}

TEST(read_into_the_ring_itself_is_survived)
{
	io_context_t ctx = t_context(8);
	int fd = t_open("/dev/zero", O_RDONLY);
	struct iocb iocb;

	io_prep_pread(&iocb, fd, ctx, 4096, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_sleep_ms(10);
	/* The id and the head are zero now, and so is what the ring says of itself. */
	io_destroy(ctx);
	ctx = t_context(8);
	fd = t_file("data", 4096);
	CHECK_RET(t_pread(ctx, fd, t_pages(4096), 4096, 0), 4096);
}

/* ---- sandboxes ---- */

#define DENY(number) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)

/* From now on no thread, no descriptor for waiting, no look at other threads, and no AIO of the kernel's but for itself. */
static void forbid(bool threads, bool aio)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		DENY(SYS_eventfd2),
		DENY(SYS_epoll_create1),
		DENY(SYS_epoll_ctl),
		DENY(SYS_epoll_pwait),
		DENY(SYS_kcmp),
		DENY(SYS_statx),
		DENY(SYS_ioprio_get),
		DENY(SYS_ioprio_set),
		DENY(SYS_getrusage),
		DENY(SYS_sched_getaffinity),
		DENY(SYS_sched_setaffinity),
		DENY(SYS_madvise),
		DENY(SYS_mremap),
		DENY(threads ? 99999u : SYS_clone),
		DENY(threads ? 99999u : SYS_clone3),
		DENY(aio ? 99999u : SYS_io_setup),
		DENY(aio ? 99999u : SYS_io_submit),
		DENY(aio ? 99999u : SYS_io_getevents),
		DENY(aio ? 99999u : SYS_io_pgetevents),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		SKIP("seccomp filters (CONFIG_SECCOMP_FILTER)");
}

static void check_sandboxed(bool context_before, bool threads)
{
	int fd = t_file("data", 65536), direct = t_open("data", O_RDWR | O_DIRECT), counter = t_own(eventfd(0, 0));
	char *buf = t_pages(8192);
	struct pollfd p = { .fd = counter, .events = POLLIN };
	io_context_t ctx = NULL;
	struct iocb iocb;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	if (context_before)
		CHECK_RET(io_setup(8, &ctx), 0);
	forbid(threads, !is_shim());
	if (!context_before)
		CHECK_RET(io_setup(8, &ctx), 0);
	for (int round = 0; round < 3; round++) {
		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		CHECK_RET(t_pread(ctx, fd, buf, 8192, 4096), 8192);
		t_check_pattern(buf, 8192, 0, 4096);
		CHECK_RET(t_pread(ctx, direct, buf, 4096, 0), 4096);
		CHECK_RET(t_pwrite(ctx, fd, buf, 4096, 0), 4096);
		CHECK_RET(t_pwrite(ctx, direct, buf, 4096, 4096 * 15), 4096);
		CHECK_RET(t_pwrite(ctx, direct, buf, 4096, 4096 * 15), 4096);
		io_prep_fsync(&iocb, fd);
		io_set_eventfd(&iocb, counter);
		CHECK_RET(t_submit(ctx, &iocb), 1);
		CHECK_EQ(poll(&p, 1, 60000), 1);
		CHECK_RET(t_reap_one(ctx), 0);
		CHECK_EQ(eventfd_read(counter, &(eventfd_t){ 0 }), 0);
		CHECK_EQ(write(ends[1], "abc", 3), 3);
		CHECK_RET(t_pread(ctx, ends[0], buf, 3, 0), 3);
		CHECK_EQ(ftruncate(fd, 65536), 0);
		t_fill(buf, 4096, 0, 0);
		CHECK_EQ(pwrite(fd, buf, 4096, 0), 4096);
	}
	CHECK_RET(io_destroy(ctx), 0);
}

TEST(sandbox_that_forbids_nearly_everything)
{
	check_sandboxed(false, false);
}

TEST(sandbox_that_forbids_nearly_everything_later)
{
	check_sandboxed(true, false);
}

TEST(sandbox_that_allows_threads)
{
	check_sandboxed(false, true);
}

TEST(sandbox_that_allows_threads_later)
{
	check_sandboxed(true, true);
}

static void read_in_a_sandbox(const struct sock_fprog *program, bool allowed)
{
	int fd = t_file("data", 4096);
	io_context_t ctx = t_context(8);
	char buf[16];
	long res;

	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program) != 0)
		SKIP("seccomp filters (CONFIG_SECCOMP_FILTER)");
	res = t_pread(ctx, fd, buf, sizeof(buf), 0);
	if (!(!allowed && res == -EPERM && DIFFERS("system-calls-of-its-own")))
		CHECK_EQ(res, sizeof(buf));
}

TEST(sandbox_that_knows_only_the_older_reads_and_writes)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		DENY(SYS_preadv2),
		DENY(SYS_pwritev2),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	read_in_a_sandbox(&program, true);
}

TEST(sandbox_that_forbids_reads_and_writes)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		DENY(SYS_preadv2),
		DENY(SYS_pwritev2),
		DENY(SYS_preadv),
		DENY(SYS_pwritev),
		DENY(SYS_pread64),
		DENY(SYS_pwrite64),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	read_in_a_sandbox(&program, false);
}

/* ---- order of checks where two things are wrong ---- */

TEST(what_a_file_cannot_do_wins_over_a_buffer_in_kernel_range)
{
	io_context_t ctx = t_context(8);
	int directory = t_open(".", O_RDONLY), proc = t_open("/proc/self/mem", O_RDONLY), fd = t_file("data", 4096);
	struct iocb iocb;

	io_prep_pread(&iocb, directory, (void *)-4096, 16, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_pread(&iocb, proc, (void *)-4096, 16, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_preadv(&iocb, directory, (void *)16, 2, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_pread(&iocb, fd, (void *)-4096, 16, 0);
	CHECK_RET(t_submit(ctx, &iocb), -EFAULT);
}

TEST(own_memory_by_its_file_is_einval)
{
	io_context_t ctx = t_context(8);
	int fd = t_open("/proc/self/mem", O_RDWR);
	static char from = 'x', to;
	struct iocb iocb;

	io_prep_pread(&iocb, fd, &to, 1, (long long)(intptr_t)&from);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	io_prep_pwrite(&iocb, fd, &to, 1, (long long)(intptr_t)&from);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	/* An address in the kernel's half is an offset that such a file would know, and AIO does not. */
	io_prep_pread(&iocb, fd, &to, 1, -4096);
	CHECK_RET(t_submit(ctx, &iocb), -EINVAL);
	CHECK_EQ(to, 0);
}
