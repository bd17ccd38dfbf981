/* crew.c - the crew's queue and threads: who runs what, who is woken, and what happens when no thread can be had. */
#include "unit.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>

#include "aio/complete.h"
#include "base/config.h"
#include "lanes/crew.h"
#include "lanes/queue.h"
#include "lanes/reaper.h"
#include "libaio_shim.h"

/* Requests of the crew's are writes of one byte here; each comes to the gate of its device. */
static struct u_gate gates[4] = { U_GATE_OPEN, U_GATE_OPEN, U_GATE_OPEN, U_GATE_OPEN };
static unsigned runs, running, most_running, wakes, sleeps, starts, start_attempts;
static bool refuse_threads;
static int files[4];

static long stopped_pwritev2(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	unsigned now = u_count(&running), before = u_counted(&most_running);
	long ret;

	while (now > before &&
	       !__atomic_compare_exchange_n(&most_running, &before, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	u_count(&runs);
	u_gate_pass(&gates[*(const char *)iov->iov_base - '0']);
	ret = u_real.pwritev2(fd, iov, n, offset, flags);
	__atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
	return ret;
}

static long counted_futex(uint32_t *word, int op, uint32_t val, const struct timespec *ts, uint32_t *word2,
                          uint32_t val3)
{
	u_count((op & 0x7f) == 1 /* FUTEX_WAKE */ ? &wakes : &sleeps);
	return u_real.futex(word, op, val, ts, word2, val3);
}

static long counted_start(void *(*entry)(void *), void *arg)
{
	u_count(&start_attempts);
	if (__atomic_load_n(&refuse_threads, __ATOMIC_SEQ_CST))
		return -EAGAIN;
	u_count(&starts);
	return u_real.thread_start(entry, arg);
}

static struct u_owner owner, other;

static void prepare(void)
{
	u_start();
	u_owner_init(&owner);
	u_owner_init(&other);
	las_sys.pwritev2 = stopped_pwritev2;
	las_sys.futex = counted_futex;
	las_sys.thread_start = counted_start;
	for (int i = 0; i < 4; i++) {
		char name[] = { 'f', (char)('0' + i), 0 };

		files[i] = t_file(name, 1);
	}
}

static char digits[] = "0123";

static struct las_req *request(struct u_owner *whose, uint64_t data, unsigned device, bool bounded)
{
	struct las_req *req = u_rw(whose, data, LAS_OP_WRITE, files[device], &digits[device], 1, 0);

	req->device = device;
	req->bounded = bounded;
	return req;
}

/* Pushes n requests; those for which no thread can be had are run at once, in this one: how many more are done then. */
static int push(struct u_owner *whose, int first, int n, unsigned device, bool bounded)
{
	bool alone = __atomic_load_n(&refuse_threads, __ATOMIC_SEQ_CST);
	int before = alone ? whose->completed : 0;
	struct las_link list;

	las_list_init(&list);
	for (int i = 0; i < n; i++)
		las_list_push(&list, &request(whose, (uint64_t)(first + i), device, bounded)->link);
	las_crew_push(&list, false);
	CHECK(las_list_empty(&list));
	return alone ? whose->completed - before : 0; /* else a thread may be at it already */
}

TEST(each_request_is_run_once)
{
	bool seen[500] = { false };

	prepare();
	for (int i = 0; i < 500; i += 10)
		CHECK_EQ(push(&owner, i, 10, 0, i % 20 == 0), 0);
	u_owner_await(&owner, 500);
	CHECK_EQ(owner.completed, 500);
	CHECK_EQ(runs, 500);
	for (int i = 0; i < 500; i++) {
		CHECK_EQ(owner.results[i].result, 1);
		CHECK(!seen[owner.results[i].data]);
		seen[owner.results[i].data] = true;
	}
}

TEST(a_batch_makes_one_call_and_threads_pass_it_on)
{
	prepare();
	u_gate_close(&gates[0]);
	push(&owner, 0, 20, 0, true);
	/* The pusher started one thread; it started the next before it went to work, and so on. */
	u_gate_await(&gates[0], 20);
	CHECK_EQ(u_counted(&starts), 20);
	CHECK_EQ(u_counted(&wakes), 0);
	u_gate_open(&gates[0]);
	u_owner_await(&owner, 20);
}

TEST(idle_threads_are_woken_before_new_ones_are_started)
{
	prepare();
	for (int i = 0; i < 50; i++) {
		unsigned before = u_counted(&sleeps);

		push(&owner, i, 1, 0, true);
		u_owner_await(&owner, i + 1);
		u_await(&sleeps, before + 1); /* it is at rest */
	}
	/* One more if it happened to look around while it was called. */
	CHECK(u_counted(&starts) <= 2);
}

TEST(unbounded_requests_do_not_keep_bounded_ones_from_running)
{
	prepare();
	u_gate_close(&gates[0]);
	push(&owner, 0, 300, 0, false); /* more than all bounded threads together */
	u_gate_await(&gates[0], 300);
	push(&other, 0, 10, 1, true);
	u_owner_await(&other, 10);
	CHECK_EQ(owner.completed, 0);
	u_gate_open(&gates[0]);
	u_owner_await(&owner, 300);
}

TEST(a_hung_device_leaves_threads_for_a_healthy_one)
{
	prepare();
	u_gate_close(&gates[0]);
	push(&owner, 0, 400, 0, true);
	u_gate_await(&gates[0], LAS_CREW_DEVICE_SHARE);
	push(&other, 0, 10, 1, true);
	u_owner_await(&other, 10);
	CHECK_EQ(u_gate_waiting(&gates[0]), LAS_CREW_DEVICE_SHARE);
	u_gate_open(&gates[0]);
	u_owner_await(&owner, 400);
}

TEST(there_are_never_more_threads_than_the_class_may_have)
{
	prepare();
	for (int device = 0; device < 4; device++)
		u_gate_close(&gates[device]);
	for (unsigned device = 0; device < 4; device++)
		push(&owner, (int)device * 150, 150, device, true);
	for (int tries = 0; u_counted(&running) < LAS_CREW_BOUNDED_MAX; tries++) {
		CHECK(tries < 5000);
		usleep(1000);
	}
	t_sleep_ms(50);
	CHECK_EQ(u_counted(&running), LAS_CREW_BOUNDED_MAX);
	for (int device = 0; device < 4; device++)
		u_gate_open(&gates[device]);
	u_owner_await(&owner, 600);
	CHECK_EQ(most_running, LAS_CREW_BOUNDED_MAX);
}

TEST(without_any_thread_the_pusher_runs_them)
{
	prepare();
	refuse_threads = true;
	CHECK_EQ(push(&owner, 0, 10, 0, true), 10);
	CHECK_EQ(push(&owner, 10, 10, 0, false), 10);
	CHECK_EQ(owner.completed, 20);
	CHECK_EQ(runs, 20);
	refuse_threads = false;
	CHECK_EQ(push(&owner, 20, 10, 0, true), 0);
	u_owner_await(&owner, 30);
}

TEST(what_was_pushed_lazily_runs_though_no_thread_is_to_be_had_any_more)
{
	struct las_link list;

	prepare();
	CHECK(las_reaper_watch());
	refuse_threads = true;
	las_list_init(&list);
	las_list_push(&list, &request(&owner, 0, 0, true)->link);
	las_crew_push(&list, true);
	u_owner_await(&owner, 1);
}

TEST(without_more_threads_the_ones_there_are_do_it_all)
{
	prepare();
	u_gate_close(&gates[0]);
	push(&owner, 0, 1, 0, true);
	u_gate_await(&gates[0], 1);
	refuse_threads = true;
	CHECK_EQ(push(&owner, 1, 20, 0, true), 0);
	u_gate_open(&gates[0]);
	u_owner_await(&owner, 21);
	CHECK_EQ(most_running, 1);
}

static void *push_from_a_thread(void *first)
{
	for (int i = 0; i < 100; i++)
		push(&owner, (int)(intptr_t)first + i, 1, 0, true);
	return NULL;
}

static long flaky_start(void *(*entry)(void *), void *arg)
{
	return u_count(&start_attempts) % 3 ? -EAGAIN : u_real.thread_start(entry, arg);
}

TEST(pushes_from_many_threads_survive_failing_thread_starts)
{
	pthread_t threads[4];
	bool seen[400] = { false };

	prepare();
	las_sys.thread_start = flaky_start;
	for (intptr_t i = 0; i < 4; i++)
		threads[i] = t_thread(push_from_a_thread, (void *)(i * 100));
	for (int i = 0; i < 4; i++)
		t_join(threads[i]);
	u_owner_await(&owner, 400);
	for (int i = 0; i < 400; i++) {
		CHECK(!seen[owner.results[i].data]);
		seen[owner.results[i].data] = true;
	}
	CHECK_EQ(runs, 400);
}

/* All threads of the first request's device are busy, and no other can be had: what is pushed now stays queued. */
static void fill_queue(int n)
{
	prepare();
	u_gate_close(&gates[0]);
	push(&owner, 1000, 1, 0, true);
	u_gate_await(&gates[0], 1);
	refuse_threads = true;
	CHECK_EQ(push(&owner, 1, n, 0, true), 0);
	CHECK_EQ(push(&other, 1, n, 0, true), 0);
}

TEST(a_waiting_request_can_be_taken_back_by_its_owner_only)
{
	struct las_req *req;

	fill_queue(5);
	req = las_crew_take(&other.owner, 3);
	CHECK(req != NULL && req->owner == &other.owner && req->obj == 3);
	req->owner->discard(req);
	CHECK(las_crew_take(&other.owner, 3) == NULL);
	CHECK(las_crew_take(&owner.owner, 77) == NULL);
	CHECK(las_crew_take(&owner.owner, 1000) == NULL); /* it runs */
	req = las_crew_take(&owner.owner, 0);
	CHECK(req != NULL && req->owner == &owner.owner && req->obj == 1); /* the first in line */
	req->owner->discard(req);
	u_gate_open(&gates[0]);
	u_owner_await(&owner, 6);
	u_owner_await(&other, 5);
	CHECK_EQ(owner.completed, 5);
	CHECK_EQ(other.completed, 4);
	CHECK_EQ(runs, 9);
}

TEST(only_the_first_few_are_looked_at_for_a_helper)
{
	struct las_req *req;

	fill_queue(20);
	/* Twenty of the other owner's stand behind twenty of ours. */
	CHECK(las_crew_take_near(&other.owner) == NULL);
	req = las_crew_take_near(&owner.owner);
	CHECK(req != NULL && req->owner == &owner.owner);
	req->owner->discard(req);
	u_gate_open(&gates[0]);
	u_owner_await(&owner, 21);
	u_owner_await(&other, 20);
	CHECK(las_crew_take_near(&owner.owner) == NULL);
}

TEST(unbounded_requests_are_not_given_to_helpers)
{
	prepare();
	u_gate_close(&gates[0]);
	push(&owner, 0, 1, 0, false);
	u_gate_await(&gates[0], 1);
	refuse_threads = true;
	CHECK_EQ(push(&owner, 1, 3, 0, false), 0);
	CHECK(las_crew_take_near(&owner.owner) == NULL);
	u_gate_open(&gates[0]);
	u_owner_await(&owner, 4);
}

static void *drain_in_thread(void *done)
{
	las_crew_drain(true);
	__atomic_store_n((bool *)done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static struct las_req *owed(uint64_t data, enum las_op_kind kind, bool bounded)
{
	struct las_req *req = u_req(&owner, data, kind, -1);

	req->bounded = bounded;
	las_crew_owe(req);
	return req;
}

static void pay(unsigned n)
{
	las_crew_finishing(n);
	las_crew_paid(n);
}

TEST(the_end_waits_for_writes_and_syncs_to_files_only)
{
	static const enum las_op_kind kinds[] = { LAS_OP_WRITE, LAS_OP_FSYNC, LAS_OP_FDSYNC };
	static bool done;
	pthread_t thread;

	prepare();
	owed(1, LAS_OP_READ, true);
	owed(2, LAS_OP_POLL, false);
	owed(3, LAS_OP_WRITE, false); /* to a pipe: that may take for ever */
	las_crew_drain(true);
	for (int i = 0; i < 3; i++)
		CHECK(owed(10 + (uint64_t)i, kinds[i], true)->owed);
	thread = t_thread(drain_in_thread, &done);
	for (int i = 0; i < 3; i++) {
		t_sleep_ms(10);
		CHECK(!__atomic_load_n(&done, __ATOMIC_SEQ_CST));
		pay(1);
	}
	t_join(thread);
}

TEST(what_is_accepted_while_the_process_ends_is_not_waited_for)
{
	struct las_req *after;
	static bool done;
	pthread_t thread;

	prepare();
	CHECK(owed(1, LAS_OP_WRITE, true)->owed);
	thread = t_thread(drain_in_thread, &done);
	u_await(&sleeps, 1); /* it waits for the first */
	after = owed(2, LAS_OP_WRITE, true);
	pay(1);
	t_join(thread);
	pay(after->owed); /* and it is not counted down either */
	las_crew_drain(true);
}

TEST(what_is_accepted_after_an_end_that_did_not_come_is_waited_for)
{
	struct las_req *after;
	static bool done;
	pthread_t thread;

	prepare();
	las_crew_drain(true); /* before an exec that fails */
	after = owed(1, LAS_OP_WRITE, true);
	thread = t_thread(drain_in_thread, &done);
	t_sleep_ms(10);
	CHECK(!__atomic_load_n(&done, __ATOMIC_SEQ_CST));
	pay(after->owed);
	t_join(thread);
}

TEST(a_handler_that_ends_the_process_does_not_wait_for_what_it_has_interrupted)
{
	static bool done;
	pthread_t thread;

	prepare();
	CHECK(owed(1, LAS_OP_WRITE, true)->owed);
	las_crew_finishing(1);
	las_crew_drain(true);
	/* But for all others, and those for all. */
	CHECK(owed(2, LAS_OP_WRITE, true)->owed);
	thread = t_thread(drain_in_thread, &done);
	t_sleep_ms(10);
	CHECK(!__atomic_load_n(&done, __ATOMIC_SEQ_CST));
	las_crew_paid(1);
	t_sleep_ms(10);
	CHECK(!__atomic_load_n(&done, __ATOMIC_SEQ_CST));
	pay(1);
	t_join(thread);
}

static uint64_t blocked_signals;
static char thread_name[16];

static long look_at_thread(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	for (int sig = 1; sig < 32; sig++)
		if (sigismember(&set, sig) == 1)
			blocked_signals |= (uint64_t)1 << sig;
	pthread_getname_np(pthread_self(), thread_name, sizeof(thread_name));
	return 1;
}

TEST(threads_block_all_signals_and_say_who_they_are)
{
	prepare();
	las_sys.pwritev2 = look_at_thread;
	push(&owner, 0, 1, 0, true);
	u_owner_await(&owner, 1);
	for (int sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			CHECK(blocked_signals & (uint64_t)1 << sig);
	CHECK_EQ(strncmp(thread_name, "syslet/", 7), 0);
}

static int thread_count(void)
{
	char text[4096], *line;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	CHECK(n > 0);
	close(fd);
	text[n] = 0;
	line = strstr(text, "\nThreads:");
	CHECK(line != NULL);
	return atoi(line + 9);
}

TEST(idle_threads_end)
{
	prepare();
	u_gate_close(&gates[0]);
	push(&owner, 0, 30, 0, true);
	u_gate_await(&gates[0], 30);
	u_gate_open(&gates[0]);
	u_owner_await(&owner, 30);
	for (int tries = 0; thread_count() > 3; tries++) {
		CHECK(tries < 600);
		t_sleep_ms(10);
	}
	push(&owner, 30, 1, 0, true); /* and it begins anew */
	u_owner_await(&owner, 31);
}

TEST(a_slow_write_does_not_keep_reads_of_its_device_waiting)
{
	static char byte;
	struct las_link list;
	struct las_req *req;

	prepare();
	u_gate_close(&gates[0]);
	push(&owner, 0, 8, 0, true); /* eight writes that hang */
	u_gate_await(&gates[0], 8);
	/* A read whose page is on its way, of the same device: the disk answers it though the writes wait. */
	req = u_rw(&other, 1, LAS_OP_READ, files[0], &byte, 1, 0);
	req->device = 0;
	req->stage = LAS_STAGE_WARM;
	las_list_init(&list);
	las_list_push(&list, &req->link);
	las_crew_push(&list, false);
	CHECK(las_list_empty(&list));
	u_owner_await(&other, 1);
	CHECK_EQ(owner.completed, 0);
	u_gate_open(&gates[0]);
	u_owner_await(&owner, 8);
}

static unsigned late = 1;

static long late_first_page(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	if (__atomic_exchange_n(&late, 0, __ATOMIC_SEQ_CST))
		u_gate_pass(&gates[3]);
	return u_real.preadv2(fd, iov, n, offset, flags);
}

TEST(a_page_that_is_late_does_not_keep_those_that_are_there)
{
	static char bytes[8];
	struct las_link batch;

	prepare();
	las_sys.preadv2 = late_first_page;
	u_gate_close(&gates[3]);
	las_list_init(&batch);
	for (unsigned i = 0; i < 8; i++) {
		struct las_req *req = u_rw(&owner, i, LAS_OP_READ, files[0], &bytes[i], 1, 0);

		req->bounded = true;
		req->stage = LAS_STAGE_WARM;
		las_list_push(&batch, &req->link);
	}
	las_crew_push(&batch, false);
	u_gate_await(&gates[3], 1);
	u_owner_await(&owner, 7);
	u_gate_open(&gates[3]);
	u_owner_await(&owner, 8);
}

TEST(a_deep_queue_of_quick_reads_may_have_several_threads_where_there_are_processors)
{
	static char bytes[100];
	static struct las_queue queue;
	struct las_link left, *l;
	struct las_bucket *from;
	struct las_req *req;

	prepare();
	las_config.possible_cpus = 8;
	las_queue_init(&queue, 192);
	for (unsigned i = 0; i < 100; i++) {
		req = u_rw(&owner, i, LAS_OP_READ, files[0], &bytes[i], 1, 0);
		req->stage = LAS_STAGE_WARM;
		las_queue_push(&queue, req);
	}
	for (unsigned i = 0; i < 4; i++) {
		req = las_queue_pop(&queue, &from);
		CHECK(req);
		las_req_put(req);
	}
	CHECK_EQ(from->running, 4);
	las_list_init(&left);
	las_queue_take_all(&queue, &left);
	while ((l = las_list_pop(&left)))
		las_req_put(las_container_of(l, struct las_req, link));
}

static unsigned asked_for; /* bits: the bytes whose pages were asked for */
static unsigned prefetches;

static long note_prefetch(int fd, int64_t offset, int64_t bytes, int advice)
{
	CHECK_EQ(bytes, 1);
	CHECK_EQ(advice, POSIX_FADV_WILLNEED);
	__atomic_or_fetch(&asked_for, 1u << offset, __ATOMIC_SEQ_CST);
	u_count(&prefetches);
	return u_real.fadvise(fd, offset, bytes, advice);
}

static long late_pages(int fd, const struct iovec *iov, size_t n, int64_t offset, int flags)
{
	u_gate_pass(&gates[3]);
	CHECK(u_counted(&asked_for) & 1u << offset);
	return u_real.preadv2(fd, iov, n, offset, flags);
}

TEST(all_pages_are_asked_for_while_the_first_is_waited_for)
{
	static char bytes[8];
	struct las_link batch;

	prepare();
	CHECK_EQ(pwrite(files[0], "01234567", 8, 0), 8);
	las_sys.fadvise = note_prefetch;
	las_sys.preadv2 = late_pages;
	u_gate_close(&gates[3]);
	las_list_init(&batch);
	for (unsigned i = 0; i < 8; i++) {
		struct las_req *req = u_rw(&owner, i, LAS_OP_READ, files[0], &bytes[i], 1, i);

		req->bounded = true;
		req->stage = LAS_STAGE_PREFETCH;
		las_list_push(&batch, &req->link);
	}
	las_crew_push(&batch, false);
	u_gate_await(&gates[3], 1);
	u_await(&prefetches, 8);
	CHECK_EQ(u_counted(&asked_for), 0xff);
	CHECK_EQ(owner.completed, 0);
	u_gate_open(&gates[3]);
	u_owner_await(&owner, 8);
	CHECK(memcmp(bytes, "01234567", 8) == 0);
}
