/*
 * crew.c - see crew.h.
 *
 * Each class has one queue, one lock and one word to sleep on.  A push makes
 * at most one wake-up (or starts one thread); a thread that takes a request
 * and sees more of them waiting passes the call on before it starts to work.
 * `called` says that such a call is under way, so that it is made once.
 *
 * KERNEL: threads-of-the-process: it has threads of its own; these are the
 * process's, and are seen there (test: threads.helpers_are_threads_of_the_process).
 *
 * Why no wake-up is lost, in steps: (1) a thread that finds nothing counts
 * itself idle and reads `word`, both under the lock; (2) a push appends and,
 * seeing idle threads and no call under way, changes `word` under the same
 * lock, then wakes; (3) so the sleeper either sees the request in (1), or
 * sleeps on a value that (2) has changed, and does not sleep.
 */
#include "lanes/crew.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/futex.h"
#include "base/lock.h"
#include "base/stats.h"
#include "base/sys.h"
#include "lanes/order.h"
#include "lanes/pollset.h"
#include "lanes/queue.h"
#include "lanes/reaper.h"
#include "lanes/run.h"
#include "lanes/table.h"

#define IDLE_NS ((int64_t)2 * 1000 * 1000 * 1000) /* a thread without work for this long ends */
#define NAPS 4 /* short ones before a long rest: holds may be parked just after the work */
#define IMPATIENCE_NS ((int64_t)100 * 1000 * 1000) /* in which something has to end, where not all can be waited for */
#define AFFINITY_BYTES 1024

struct crew_class {
	struct las_lock lock; /* guards all below but the words' futex use */
	unsigned threads, idle, max;
	bool called;   /* a woken or new thread is on its way */
	uint32_t word; /* idle threads sleep on it; changed for each call */
	struct las_queue queue;
} LAS_LINE_ALIGNED;

static struct {
	struct crew_class bounded, unbounded;
	uint32_t names;    /* numbers for thread names */
	uint32_t draining; /* calls of las_crew_drain() under way */
	uint32_t owed;     /* requests that exit has to wait for; a futex */
} crew;

static void init_class(struct crew_class *c, unsigned max, unsigned share)
{
	las_queue_init(&c->queue, share);
	c->max = max;
}

void las_crew_init(void)
{
	memset(&crew, 0, sizeof(crew));
	init_class(&crew.bounded, LAS_CREW_BOUNDED_MAX, LAS_CREW_DEVICE_SHARE);
	init_class(&crew.unbounded, LAS_CREW_UNBOUNDED_MAX, LAS_CREW_UNBOUNDED_MAX);
}

void las_crew_owe(struct las_req *req)
{
	/*
	 * What is accepted while the process ends is nobody's promise any more, or the end would never come.  Should it not
	 * come, since an exec fails, what follows is one again.
	 */
	if (!req->bounded || !las_op_must_finish(&req->op) || las_load_relaxed(&crew.draining))
		return;
	req->owed = true;
	las_add_relaxed(&crew.owed, 1); /* the exit path is ordered behind this thread's work by the program */
}

static _Thread_local unsigned finishing LAS_TLS_MODEL;

void las_crew_finishing(unsigned n)
{
	finishing += n;
	las_fence_signal();
}

void las_crew_paid(unsigned n)
{
	if (n == 0)
		return;
	/* Counts down before it looks for who waits, who says so before it looks at the count: both in one order. */
	if (__atomic_fetch_sub(&crew.owed, n, __ATOMIC_SEQ_CST) == n &&
	    __atomic_load_n(&crew.draining, __ATOMIC_SEQ_CST))
		las_futex_wake(&crew.owed, LAS_WAKE_ALL);
	las_fence_signal();
	finishing -= n;
}

static void push(struct las_link *batch, bool lazily);

/* Lets those go on that waited for this one; those that nobody else can run stay on `next`. */
static void leave_order(struct las_req *req, struct las_link *next)
{
	struct las_link *l, *tmp;

	las_list_init(next);
	las_order_leave(req, next);
	las_list_each(next, l, tmp) {
		struct las_req *waited = las_container_of(l, struct las_req, link);

		if (!waited->pollable)
			continue;
		las_list_remove(l);
		if (las_pollset_add(waited) < 0)
			las_list_push(next, l);
	}
	if (!las_list_empty(next))
		push(next, false);
}

/* In the calling thread, one after the other: also those that may go only when one of these has ended. */
static void run_in_turn(struct las_link *batch)
{
	struct las_link *l, next;

	while ((l = las_list_pop(batch))) {
		struct las_req *req = las_container_of(l, struct las_req, link);
		long result = las_run_here(req);

		if (req->order) {
			leave_order(req, &next);
			las_list_append(batch, &next);
		}
		req->owner->complete(req, result);
	}
}

void las_crew_leave_order(struct las_req *req)
{
	struct las_link next;

	if (las_likely(!req->order))
		return;
	leave_order(req, &next);
	run_in_turn(&next);
}

void las_crew_run(struct las_req *req)
{
	long result;

	if (las_run_begins(req))
		return;
	result = las_run_here(req);
	las_crew_leave_order(req);
	req->owner->complete(req, result);
	if (las_unlikely(las_hold_parked()))
		las_reaper_watch(); /* it looks after what the request has left behind */
}

static void name_thread(void)
{
	char name[16];

	snprintf(name, sizeof(name), "syslet/%u", (unsigned)las_add_relaxed(&crew.names, 1));
	prctl(PR_SET_NAME, name);
}

/* A thread starts with the affinity of whoever happened to submit; the process's main thread's is what is meant. */
static void reset_affinity(void)
{
	unsigned long own[AFFINITY_BYTES / sizeof(long)], process[AFFINITY_BYTES / sizeof(long)];
	long n = las_sys.sched_getaffinity((int)las_table_process(), sizeof(process), process);

	if (n > 0 && las_sys.sched_getaffinity(0, sizeof(own), own) == n && memcmp(own, process, (size_t)n) != 0)
		las_sys.sched_setaffinity(0, (size_t)n, process);
}

static void *thread_main(void *arg);

enum call {
	CALL_NOBODY,
	CALL_NEW, /* a thread has to be started; it is counted already */
	CALL_IDLE /* one has to be woken */
};

/* Decides who comes, if anybody has to and can. */
static enum call call_locked(struct crew_class *c)
{
	if (c->called || !las_queue_ready(&c->queue))
		return CALL_NOBODY;
	if (c->idle) {
		c->called = true;
		c->word++;
		return CALL_IDLE;
	}
	if (c->threads < c->max) {
		c->called = true;
		c->threads++;
		return CALL_NEW;
	}
	return CALL_NOBODY;
}

/* Carries out what call_locked() decided, without the lock.  False if a thread was to be started and could not. */
static bool call(struct crew_class *c, enum call what)
{
	if (what == CALL_IDLE)
		las_futex_wake(&c->word, 1);
	if (what != CALL_NEW)
		return true;
	if (!las_table_is_stranger() && las_sys.thread_start(thread_main, c) == 0) {
		las_count(threads, 1);
		return true;
	}
	las_lock(&c->lock);
	c->called = false;
	c->threads--;
	las_unlock(&c->lock);
	return false;
}

/* Sleeps until called, or for a while: true if there may be work. */
static bool nap_locked(struct crew_class *c, int64_t ns)
{
	uint32_t word = c->word;
	long err;

	c->idle++;
	las_unlock(&c->lock);
	err = las_futex_wait(&c->word, word, las_now_ns() + ns);
	las_lock(&c->lock);
	c->idle--;
	/* Called between the time-out and the lock: stay, the call may have been for this thread. */
	return err != -ETIMEDOUT || c->called || !las_queue_empty(&c->queue);
}

/* Sleeps until called: true if there may be work, false if the thread is to end. */
static bool rest(struct crew_class *c)
{
	int64_t idle_ns = IDLE_NS;
	unsigned naps = 0;
	bool stay;

	do {
		int64_t nap;

		/* Closing may take for ever, at a server that does not answer: nobody counts on this thread then. */
		if (las_unlikely(las_hold_parked())) {
			las_unlock(&c->lock);
			las_hold_expire(LAS_EXPIRE_DUE);
			las_lock(&c->lock);
			if (c->called || !las_queue_empty(&c->queue))
				return true;
		}
		nap = las_hold_parked() || naps++ < NAPS ? LAS_LINGER_NS : idle_ns;
		stay = nap_locked(c, nap);
		idle_ns -= nap;
	} while (!stay && idle_ns > 0);
	if (!stay) {
		c->threads--;
		if (las_hold_parked())
			las_reaper_watch(); /* from now on its task */
	}
	return stay;
}

static void work(struct crew_class *c, struct las_req *req, int *priority)
{
	enum call what = call_locked(c);
	long result;

	las_unlock(&c->lock);
	call(c, what);
	if (!las_run_begins(req)) {
		result = las_run_there(req, priority);
		las_crew_leave_order(req);
		req->owner->complete(req, result);
	}
	las_lock(&c->lock);
}

/* Has the kernel read its pages, and passes it on to whoever waits for such. */
static void prefetch(struct crew_class *c, struct las_req *req)
{
	enum call what = call_locked(c);

	las_unlock(&c->lock);
	call(c, what);
	las_sys.fadvise(req->file->fd, req->op.offset, (int64_t)req->op.bytes, POSIX_FADV_WILLNEED);
	las_lock(&c->lock);
	req->stage = LAS_STAGE_WARM;
	las_queue_push(&c->queue, req);
}

static void *thread_main(void *arg)
{
	struct crew_class *c = arg;
	int priority = (int)las_sys.ioprio_get(IOPRIO_WHO_PROCESS, 0);

	name_thread();
	reset_affinity();
	las_lock(&c->lock);
	do {
		struct las_bucket *from;
		struct las_req *req;

		c->called = false;
		while ((req = las_queue_pop(&c->queue, &from))) {
			if (req->stage == LAS_STAGE_PREFETCH)
				prefetch(c, req);
			else
				work(c, req, &priority);
			las_queue_ran(from);
		}
	} while (rest(c));
	las_unlock(&c->lock);
	return NULL;
}

/* Not one thread: give back all that is queued, others' too.  With threads at work, they will come to it. */
static void take_back_all(struct crew_class *c, struct las_link *list)
{
	las_lock(&c->lock);
	if (c->threads == 0)
		las_queue_take_all(&c->queue, list);
	las_unlock(&c->lock);
}

static void push_class(struct crew_class *c, struct las_link *batch, bool lazily)
{
	struct las_link *l;
	enum call what;

	if (las_list_empty(batch))
		return;
	las_lock(&c->lock);
	while ((l = las_list_pop(batch)))
		las_queue_push(&c->queue, las_container_of(l, struct las_req, link));
	what = lazily ? CALL_NOBODY : call_locked(c);
	las_unlock(&c->lock);
	if (call(c, what))
		return;
	take_back_all(c, batch);
}

/* Leaves on the list what the caller has to run itself. */
static void push(struct las_link *batch, bool lazily)
{
	struct las_link bounded, unbounded, *l;
	bool quick = false;

	las_list_init(&bounded);
	las_list_init(&unbounded);
	while ((l = las_list_pop(batch))) {
		const struct las_req *req = las_container_of(l, struct las_req, link);

		las_list_push(req->bounded ? &bounded : &unbounded, l);
		quick |= req->stage != LAS_STAGE_RUN;
	}
	push_class(&crew.bounded, &bounded, lazily);
	push_class(&crew.unbounded, &unbounded, false);
	if (quick)
		las_reaper_watch(); /* it notices when they are stuck */
	if (lazily && !las_reaper_watch())
		las_crew_look();
	las_list_append(batch, &bounded);
	las_list_append(batch, &unbounded);
}

void las_crew_push(struct las_link *batch, bool lazily)
{
	push(batch, lazily);
	if (las_unlikely(!las_list_empty(batch)))
		run_in_turn(batch);
}

unsigned las_crew_look(void)
{
	struct crew_class *c = &crew.bounded;
	unsigned queued = las_load_relaxed(&c->queue.queued); /* acquired by the reaper's fence */
	enum call what;

	if (queued == 0)
		return 0;
	las_lock(&c->lock);
	what = call_locked(c);
	las_unlock(&c->lock);
	if (!call(c, what)) {
		struct las_link rest;

		/* Not one thread is to be had: late is better than never. */
		las_list_init(&rest);
		take_back_all(c, &rest);
		run_in_turn(&rest);
	}
	return queued;
}

void las_crew_sweep(void)
{
	struct crew_class *c = &crew.bounded;
	enum call what = CALL_NOBODY;

	las_lock(&c->lock);
	if (!c->called) {
		c->called = true;
		c->threads += !c->idle;
		what = c->idle ? CALL_IDLE : CALL_NEW;
		c->word++;
	}
	las_unlock(&c->lock);
	if (!call(c, what))
		las_hold_expire(LAS_EXPIRE_DUE);
}

static struct las_req *take(struct crew_class *c, const struct las_owner *owner, uint64_t obj, bool near)
{
	struct las_req *req;

	las_lock(&c->lock);
	req = las_queue_take(&c->queue, owner, obj, near);
	las_unlock(&c->lock);
	return req;
}

struct las_req *las_crew_take(const struct las_owner *owner, uint64_t obj)
{
	struct las_req *req = take(&crew.bounded, owner, obj, false);

	return req ? req : take(&crew.unbounded, owner, obj, false);
}

struct las_req *las_crew_take_near(const struct las_owner *owner)
{
	/* Unlocked: an empty queue is the common case; a request missed here is run by the crew. */
	if (las_load_relaxed(&crew.bounded.queue.queued) == 0)
		return NULL;
	return take(&crew.bounded, owner, 0, true);
}

void las_crew_drain(bool patient)
{
	uint32_t owed, before = 0;

	__atomic_fetch_add(&crew.draining, 1, __ATOMIC_SEQ_CST); /* see las_crew_paid */
	while ((owed = __atomic_load_n(&crew.owed, __ATOMIC_SEQ_CST)) > finishing) {
		/* Not patient: it is this very thread that has some of them in its hands, below us on the stack. */
		if (!patient && owed == before)
			break;
		before = owed;
		/* Only the last one wakes. */
		las_futex_wait(&crew.owed, owed, patient && !finishing ? LAS_FOREVER_NS : las_now_ns() + IMPATIENCE_NS);
	}
	las_sub_acq_rel(&crew.draining, 1);
}
