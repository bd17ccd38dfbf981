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
 * Requests wait in buckets, by device, and buckets take turns.  A read that
 * the head lane tried has its pages on their way (it is "warm"): its thread
 * only waits, and by then the pages of those behind it have come as well.  One
 * thread serves a deep queue of them, so warm requests have buckets of their
 * own; another comes when none was taken for a while, so that a page that is
 * late does not keep those that are there.
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
#include <limits.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/futex.h"
#include "base/lock.h"
#include "base/stats.h"
#include "base/ticks.h"
#include "lanes/order.h"
#include "lanes/pollset.h"
#include "lanes/predictor.h"
#include "lanes/reaper.h"

#define IDLE_NS ((int64_t)2 * 1000 * 1000 * 1000) /* a thread without work for this long ends */
#define NAPS 4 /* short ones before a long rest: holds may be parked just after the work */
#define IMPATIENCE_NS ((int64_t)100 * 1000 * 1000)
#define WARM_MAX 16         /* threads that wait for pages of one device which are being read already */
#define STUCK_TICKS 3000000 /* a millisecond or so without one of them being taken calls one more */
#define DEVICES 64          /* buckets: devices that share one share its threads */
#define NEAR 8              /* how far las_crew_take_near looks */
#define AFFINITY_BYTES 1024

struct bucket {
	struct las_link link; /* in its class's waiting, while anything queues here */
	struct las_link queue;
	unsigned running; /* threads that run requests of it */
	uint64_t taken;   /* warm: ticks when the last one was */
};

struct crew_class {
	struct las_lock lock;    /* guards all below but the words' futex use */
	struct las_link waiting; /* buckets whose queue is not empty, the next one's turn first */
	unsigned queued;         /* requests in all of them; also read without the lock, as a hint */
	unsigned threads, idle, max;
	bool called;                       /* a woken or new thread is on its way */
	uint32_t word;                     /* idle threads sleep on it; changed for each call */
	unsigned share;                    /* threads that one device may take */
	struct bucket buckets[2][DEVICES]; /* cold, warm */
} LAS_LINE_ALIGNED;

static struct {
	struct crew_class bounded, unbounded;
	uint32_t names; /* numbers for thread names */
	long pid;       /* whose descriptor table the threads use */
	bool draining;  /* the process ends */
	uint32_t owed;  /* requests that exit has to wait for; a futex */
} crew;

_Thread_local enum las_table las_crew_table;

static void init_class(struct crew_class *c, unsigned max, unsigned share)
{
	las_list_init(&c->waiting);
	c->max = max;
	c->share = share;
	for (int warm = 0; warm < 2; warm++) {
		for (int i = 0; i < DEVICES; i++) {
			las_list_init(&c->buckets[warm][i].link);
			las_list_init(&c->buckets[warm][i].queue);
		}
	}
}

void las_crew_init(void)
{
	memset(&crew, 0, sizeof(crew));
	init_class(&crew.bounded, LAS_CREW_BOUNDED_MAX, LAS_CREW_DEVICE_SHARE);
	init_class(&crew.unbounded, LAS_CREW_UNBOUNDED_MAX, LAS_CREW_UNBOUNDED_MAX);
	crew.pid = las_sys.getpid();
	las_crew_table = LAS_TABLE_UNKNOWN;
}

bool las_crew_same_process(void)
{
	return las_sys.getpid() == crew.pid;
}

/*
 * Told by the main thread's table, if it has one: a main thread that has ended has given up its table and its memory
 * alike.  Where the kernel does not tell, other processes that share this memory count as strangers.
 */
static bool shares_table(bool same_process)
{
	int me = (int)las_sys.gettid();
	long order = las_sys.kcmp((int)crew.pid, me, KCMP_FILES);

	if (order <= 0)
		return order == 0 || same_process;
	return same_process && las_sys.kcmp((int)crew.pid, me, KCMP_VM) != 0;
}

/*
 * KERNEL: own-descriptor-table: a thread of ours sees the table of the
 * process, so what a thread with a table of its own (unshare, clone) submits
 * is never given to one (test: hostile.thread_with_its_own_table_writes_into_its_own_file).
 * A thread is asked once: it is not expected to unshare between its requests.
 */
bool las_crew_shares_descriptors(void)
{
	/* A clone(CLONE_VM) child may share its parent's thread-local memory: there the process id differs. */
	return las_crew_same_process() ? !las_crew_is_stranger() : shares_table(false);
}

void las_crew_ask_table(void)
{
	las_crew_table = shares_table(true) ? LAS_TABLE_SHARED : LAS_TABLE_OWN;
}

static struct bucket *bucket_of(struct crew_class *c, const struct las_req *req)
{
	return &c->buckets[req->warm][req->device % DEVICES];
}

static void enqueue_locked(struct crew_class *c, struct las_req *req)
{
	struct bucket *b = bucket_of(c, req);

	if (las_list_empty(&b->queue))
		las_list_push(&c->waiting, &b->link);
	las_list_push(&b->queue, &req->link);
	las_store_relaxed(&c->queued, c->queued + 1);
}

static void dequeue_locked(struct crew_class *c, struct las_req *req)
{
	struct bucket *b = bucket_of(c, req);

	las_list_remove(&req->link);
	if (las_list_empty(&b->queue))
		las_list_remove(&b->link);
	las_store_relaxed(&c->queued, c->queued - 1);
}

/* Whether one more thread may be used for a bucket. */
static bool has_room(const struct crew_class *c, const struct bucket *b)
{
	bool warm = b >= c->buckets[1];

	if (!warm || b->running == 0)
		return b->running < c->share;
	return b->running < WARM_MAX && las_ticks() - b->taken > STUCK_TICKS;
}

/* The bucket whose turn it is among those for which a thread may be used, or NULL. */
static struct bucket *next_locked(struct crew_class *c)
{
	for (struct las_link *l = c->waiting.next; l != &c->waiting; l = l->next) {
		struct bucket *b = las_container_of(l, struct bucket, link);

		if (has_room(c, b))
			return b;
	}
	return NULL;
}

static struct las_req *pop_locked(struct crew_class *c)
{
	struct bucket *b = next_locked(c);
	struct las_req *req;

	if (!b)
		return NULL;
	req = las_container_of(b->queue.next, struct las_req, link);
	dequeue_locked(c, req);
	b->running++;
	if (req->warm)
		b->taken = las_ticks();
	if (!las_list_empty(&b->queue)) {
		las_list_remove(&b->link);
		las_list_push(&c->waiting, &b->link);
	}
	return req;
}

void las_crew_owe(struct las_req *req)
{
	/* What is accepted while the process ends is nobody's promise any more, or the end would never come. */
	if (!req->bounded || !las_op_must_finish(&req->op) || las_load_relaxed(&crew.draining))
		return;
	req->owed = true;
	las_add_relaxed(&crew.owed, 1); /* the exit path is ordered behind this thread's work by the program */
}

void las_crew_paid(const struct las_req *req)
{
	/* Release what the request did to las_crew_drain's acquire. */
	if (req->owed && las_sub_acq_rel(&crew.owed, 1) == 1)
		las_futex_wake(&crew.owed, LAS_WAKE_ALL);
}

/*
 * KERNEL: a request is direct or buffered as its file was at io_submit
 * (test: lifetime.buffered_as_of_submit).  If the program has switched
 * O_DIRECT since, the request gets an open file of its own.
 */
static long run_as_of_submit(struct las_req *req)
{
	char path[32];
	long fd, result;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", req->file->fd);
	fd = las_sys.openat(AT_FDCWD, path, (req->flags & ~(O_CREAT | O_EXCL | O_TRUNC)) | O_CLOEXEC, 0);
	if (fd < 0)
		return las_op_run(&req->op, req->file->fd);
	result = las_op_run(&req->op, (int)fd);
	las_sys.close((int)fd);
	return result;
}

static bool direct_changed(const struct las_req *req)
{
	return las_op_is_rw(&req->op) && req->bounded &&
	       ((las_sys.fcntl(req->file->fd, F_GETFL, 0) ^ req->flags) & O_DIRECT);
}

/* Switched while it ran, nobody knows as what it ran: then it runs once more, as it was meant to. */
static long run_direct(struct las_req *req)
{
	bool can_repeat = req->op.iov == req->op.inline_iov;
	struct las_op op;
	long result;

	if (direct_changed(req))
		return run_as_of_submit(req);
	if (can_repeat)
		las_op_move(&op, &req->op);
	result = las_op_run(&req->op, req->file->fd);
	if (!can_repeat || !direct_changed(req))
		return result;
	las_op_move(&req->op, &op);
	return run_as_of_submit(req);
}

/* Runs it, and notes for the predictor how long that took. */
static long run(struct las_req *req)
{
	uint64_t start;
	long result;

	if (las_unlikely(!(req->op.kind == LAS_OP_READ ? las_hold_intact_for_reading : las_hold_intact)(req->file)))
		return -EBADF;
	if (las_unlikely(req->flags & O_DIRECT) && las_op_is_rw(&req->op))
		return run_direct(req);
	start = las_ticks();
	result = las_op_run(&req->op, req->file->fd);
	las_predict_crew_took(req->predictor, &req->op, las_ticks() - start);
	/* What is not aligned fails when the file has become direct; only then is it worth a look. */
	if (las_unlikely(result == -EINVAL) && direct_changed(req))
		result = run_as_of_submit(req);
	return result;
}

/* In a thread of the program's, which keeps its priority. */
static long run_here(struct las_req *req)
{
	enum { IOPRIO_WHO_PROCESS = 1 };
	long before = 0, result;

	if (req->op.has_ioprio) {
		before = las_sys.ioprio_get(IOPRIO_WHO_PROCESS, 0);
		las_sys.ioprio_set(IOPRIO_WHO_PROCESS, 0, req->op.ioprio);
	}
	result = run(req);
	if (req->op.has_ioprio)
		las_sys.ioprio_set(IOPRIO_WHO_PROCESS, 0, before < 0 ? 0 : (int)before);
	return result;
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
		long result = run_here(req);

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
	long result = run_here(req);

	las_crew_leave_order(req);
	req->owner->complete(req, result);
}

/*
 * The same in a thread of the crew: it has the priority that the request was
 * given, or else its submitter's, and no signal may reach it.
 *
 * KERNEL: identity-of-one-thread: it has the credentials of the submitting
 * thread; ours are those of the process (test: guest.identity_of_one_thread).
 */
static void carry_on(struct las_req *req, int *priority)
{
	enum { IOPRIO_WHO_PROCESS = 1 };
	int wanted = req->op.has_ioprio ? req->op.ioprio : req->priority;
	long result;

	if (las_unlikely(wanted != *priority)) {
		las_sys.ioprio_set(IOPRIO_WHO_PROCESS, 0, wanted);
		*priority = wanted;
	}
	result = run(req);
	las_op_forward_signal(&req->op, result);
	las_crew_leave_order(req);
	req->owner->complete(req, result);
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
	long n = las_sys.sched_getaffinity((int)crew.pid, sizeof(process), process);

	if (n > 0 && las_sys.sched_getaffinity(0, sizeof(own), own) == n && memcmp(own, process, (size_t)n) != 0)
		las_sys.sched_setaffinity(0, (size_t)n, process);
}

static void *thread_main(void *arg);

/*
 * Sees to it that somebody comes, if anybody can: 1 if a thread has to be
 * started (already counted), 2 if one has to be woken, 0 if nothing is to do.
 */
static int call_locked(struct crew_class *c)
{
	if (c->called || !next_locked(c))
		return 0;
	if (c->idle) {
		c->called = true;
		c->word++;
		return 2;
	}
	if (c->threads < c->max) {
		c->called = true;
		c->threads++;
		return 1;
	}
	return 0;
}

/* Carries out what call_locked() decided, without the lock.  False if a thread was to be started and could not. */
static bool call(struct crew_class *c, int what)
{
	if (what == 2)
		las_futex_wake(&c->word, 1);
	if (what != 1)
		return true;
	if (!las_crew_is_stranger() && las_sys.thread_start(thread_main, c) == 0) {
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
	return err != -ETIMEDOUT || c->called || !las_list_empty(&c->waiting);
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
			if (c->called || !las_list_empty(&c->waiting))
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
	struct bucket *b = bucket_of(c, req);
	int what = call_locked(c);

	las_unlock(&c->lock);
	call(c, what);
	carry_on(req, priority);
	las_lock(&c->lock);
	b->running--;
}

static void *thread_main(void *arg)
{
	struct crew_class *c = arg;
	int priority = (int)las_sys.ioprio_get(1 /* IOPRIO_WHO_PROCESS */, 0);

	name_thread();
	reset_affinity();
	las_lock(&c->lock);
	do {
		struct las_req *req;

		c->called = false;
		while ((req = pop_locked(c)))
			work(c, req, &priority);
	} while (rest(c));
	las_unlock(&c->lock);
	return NULL;
}

/* Takes every request off the class. */
static void empty_locked(struct crew_class *c, struct las_link *out)
{
	while (!las_list_empty(&c->waiting)) {
		struct bucket *b = las_container_of(c->waiting.next, struct bucket, link);

		las_list_append(out, &b->queue);
		las_list_remove(&b->link);
	}
	las_store_relaxed(&c->queued, 0);
}

/* Not one thread: give back all that is queued, others' too.  With threads at work, they will come to it. */
static void take_back_all(struct crew_class *c, struct las_link *list)
{
	las_lock(&c->lock);
	if (c->threads == 0)
		empty_locked(c, list);
	las_unlock(&c->lock);
}

static void push_class(struct crew_class *c, struct las_link *batch, bool lazily)
{
	struct las_link *l;
	int what;

	if (las_list_empty(batch))
		return;
	las_lock(&c->lock);
	while ((l = las_list_pop(batch)))
		enqueue_locked(c, las_container_of(l, struct las_req, link));
	what = lazily ? 0 : call_locked(c);
	las_unlock(&c->lock);
	if (call(c, what))
		return;
	take_back_all(c, batch);
}

/* Leaves on the list what the caller has to run itself. */
static void push(struct las_link *batch, bool lazily)
{
	struct las_link bounded, unbounded, *l;
	bool warm = false;

	las_list_init(&bounded);
	las_list_init(&unbounded);
	while ((l = las_list_pop(batch))) {
		const struct las_req *req = las_container_of(l, struct las_req, link);

		las_list_push(req->bounded ? &bounded : &unbounded, l);
		warm |= req->warm;
	}
	push_class(&crew.bounded, &bounded, lazily);
	push_class(&crew.unbounded, &unbounded, false);
	if (warm)
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
	unsigned queued = las_load_relaxed(&c->queued); /* acquired by the reaper's fence */
	int what;

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

/* Of a server: it may never answer, and who waits there for ever must stay open to signals. */
static bool may_hang(const struct las_req *req)
{
	return req->file->kind == LAS_HOLD_LINGERS;
}

void las_crew_sweep(void)
{
	struct crew_class *c = &crew.bounded;
	int what = 0;

	las_lock(&c->lock);
	if (!c->called) {
		c->called = true;
		c->threads += !c->idle;
		what = c->idle ? 2 : 1;
		c->word++;
	}
	las_unlock(&c->lock);
	if (!call(c, what))
		las_hold_expire(LAS_EXPIRE_DUE);
}

static struct las_req *take(struct crew_class *c, const struct las_owner *owner, uint64_t obj, bool near)
{
	unsigned limit = near ? NEAR : UINT_MAX;
	struct las_req *found = NULL;

	las_lock(&c->lock);
	for (struct las_link *w = c->waiting.next; w != &c->waiting && !found && limit; w = w->next) {
		struct bucket *b = las_container_of(w, struct bucket, link);

		for (struct las_link *l = b->queue.next; l != &b->queue && limit; l = l->next, limit--) {
			struct las_req *req = las_container_of(l, struct las_req, link);

			if (req->owner != owner || (obj && req->obj != obj) || (near && may_hang(req)))
				continue;
			found = req;
			break;
		}
	}
	if (found)
		dequeue_locked(c, found);
	las_unlock(&c->lock);
	return found;
}

struct las_req *las_crew_take(const struct las_owner *owner, uint64_t obj)
{
	struct las_req *req = take(&crew.bounded, owner, obj, false);

	return req ? req : take(&crew.unbounded, owner, obj, false);
}

struct las_req *las_crew_take_near(const struct las_owner *owner)
{
	/* Unlocked: an empty queue is the common case; a request missed here is run by the crew. */
	if (las_load_relaxed(&crew.bounded.queued) == 0)
		return NULL;
	return take(&crew.bounded, owner, 0, true);
}

void las_crew_drain(bool patient)
{
	uint32_t owed, before = 0;

	las_store_relaxed(&crew.draining, true);
	while ((owed = las_load_acquire(&crew.owed)) != 0) { /* pairs with las_crew_paid */
		/* Not patient: it is this very thread that has some of them in its hands, below us on the stack. */
		if (!patient && owed == before)
			return;
		before = owed;
		las_futex_wait(&crew.owed, owed, patient ? LAS_FOREVER_NS : las_now_ns() + IMPATIENCE_NS);
	}
}
