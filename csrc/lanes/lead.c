/*
 * lead.c - who takes events off a hidden ring: a drain, or the leader.
 *
 * Everything about `led`.  docs/waiting.md has it as states and transitions,
 * tests/model/waiting.pml as a model.
 */
#include "lanes/hidden.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/atomic.h"
#include "base/config.h"
#include "base/futex.h"
#include "base/sys.h"

#define KICK 0                               /* the data of an iocb that is nobody's request */
#define SLICE_NS ((int64_t)50 * 1000 * 1000) /* a leader looks around this often, should a kick have failed */
#define LATE_NS ((int64_t)500 * 1000 * 1000) /* a leader away for longer may have left by longjmp, or have ended */

/* The request of an event that was taken off the hidden ring, if it is ours to finish; NULL if it is its submitter's. */
static struct las_req *claim(const struct las_event *event)
{
	struct las_req *req = (struct las_req *)(uintptr_t)event->data;

	if (event->data == KICK)
		return NULL;
	/* Acquire: pairs with prepare() (native.c), as the language has it; the kernel's barriers had ordered it before. */
	(void)las_load_acquire(&req->phase);
	req->result = event->res;
	/* Acquire and release: the result to the submitter, or the submitter's last writes to us. */
	return __atomic_exchange_n(&req->phase, LAS_PHASE_FOUND, __ATOMIC_ACQ_REL) == LAS_PHASE_DOWN ? NULL : req;
}

static void count_moved_locked(struct las_native *native, long n)
{
	las_store_release(&native->moved, native->moved + (uint64_t)n);
}

/* Claims the requests of the first n events in the leader's hands; none if n is an error. */
static unsigned claim_taken_locked(struct las_native *native, struct las_req **out, long n)
{
	unsigned claimed = 0;

	for (long i = 0; i < n; i++) {
		struct las_req *req = claim(&native->taken[i]);

		native->taken[i].data = KICK;
		if (req)
			out[claimed++] = req;
	}
	if (n > 0)
		count_moved_locked(native, n);
	return claimed;
}

/*
 * Beside a leader, which may take events off the ring right now: by the kernel, which serves one at a time.  *kicks: how
 * many of them were meant to make the leader return.
 */
static unsigned take_beside_locked(struct las_native *native, struct las_req **out, unsigned *kicks)
{
	struct las_event events[LAS_NATIVE_BATCH];
	struct timespec at_once = { 0, 0 };
	unsigned claimed = 0;
	long n = las_sys.io_getevents((uintptr_t)native->ring, 0, LAS_NATIVE_BATCH, events, &at_once, NULL);

	for (long i = 0; i < n; i++) {
		struct las_req *req = claim(&events[i]);

		*kicks += events[i].data == KICK;
		if (req)
			out[claimed++] = req;
	}
	if (n > 0)
		count_moved_locked(native, n);
	return claimed;
}

/*
 * With a leader that is late.  What it had taken before it became late is
 * complete and claimed here, in case that it has gone: the kernel has moved
 * head past it.
 */
static unsigned take_from_late_locked(struct las_native *native, struct las_req **out, unsigned *kicks)
{
	const struct las_ring *ring = native->ring;
	long n;

	if (native->late)
		return take_beside_locked(native, out, kicks);
	n = ((int64_t)las_load_acquire(&ring->head) - native->led_head + ring->nr) % ring->nr;
	las_store_relaxed(&native->late, true);
	return claim_taken_locked(native, out, n < LAS_NATIVE_BATCH ? n : LAS_NATIVE_BATCH);
}

/*
 * Takes up to max events off the hidden ring in memory (the kernel only moves
 * tail, we only head) and claims their requests.  Claims are all made under
 * the lock: when a submitter has held it after its system call and nobody
 * leads, no refusal of its requests is in anybody's hands unclaimed.
 */
static unsigned take_locked(struct las_native *native, struct las_req **out, unsigned max)
{
	struct las_ring *ring = native->ring;
	uint32_t nr = ring->nr, head = las_load_relaxed(&ring->head); /* only this side writes it, under the lock */
	uint32_t tail = las_load_acquire(&ring->tail); /* pairs with the kernel's barrier after the event */
	unsigned n = 0, moved = 0;

	if (head == tail)
		return 0;
	while (head != tail && n < max) {
		struct las_req *req = claim(&ring->events[head]);

		if (req)
			out[n++] = req;
		moved++;
		if (++head == nr)
			head = 0;
	}
	count_moved_locked(native, moved);
	las_store_release(&ring->head, head);
	return n;
}

/*
 * If this very thread leads, it is in a signal handler that interrupted its
 * wait, or has left that by longjmp: in both cases it is not in the kernel.
 * Of another one nobody can tell.
 */
static bool led_by_another_locked(const struct las_native *native)
{
	return native->led && native->leader != las_thread_self();
}

/* Relaxed: without the lock it is a hint. */
static bool is_late(const struct las_native *native)
{
	return las_now_ns() - las_load_relaxed(&native->led_ns) >= LATE_NS;
}

static bool is_empty(const struct las_native *native)
{
	return las_load_relaxed(&native->ring->head) == las_load_relaxed(&native->ring->tail);
}

/* A hint: what arrives right now is found by the next look.  A leader may have gone with events in its hands. */
bool las_native_has_work(const struct las_native *native)
{
	return !is_empty(native) ||
	       (las_load_relaxed(&native->led) && !las_load_relaxed(&native->late) && is_late(native));
}

bool las_native_drain_now(struct las_native *native, bool beside)
{
	struct las_req *reqs[LAS_NATIVE_BATCH];
	struct las_announce_turn turn = las_announce_take(native);
	bool led_by_another, announced = false;
	unsigned n, kicks = 0;

	do {
		n = 0;
		las_lock(&native->lock);
		led_by_another = led_by_another_locked(native);
		if (!led_by_another) {
			if (las_unlikely(native->led))
				n = claim_taken_locked(native, reqs, LAS_NATIVE_BATCH);
			n += take_locked(native, reqs + n, LAS_NATIVE_BATCH - n);
		} else if (is_late(native)) {
			n = take_from_late_locked(native, reqs, &kicks);
		} else if (beside && !is_empty(native)) {
			n = take_beside_locked(native, reqs, &kicks);
		}
		las_unlock(&native->lock);
		announced = las_native_finish_all(native, reqs, n) || announced;
	} while (n == LAS_NATIVE_BATCH);
	las_announce_taken(native, &turn, announced);
	if (las_unlikely(kicks))
		las_native_kick(native);
	return !led_by_another;
}

void las_native_drain(struct las_native *native, bool beside)
{
	if (las_native_has_work(native))
		las_native_drain_now(native, beside);
}

static void set_leader_locked(struct las_native *native, uint32_t ticket, uintptr_t frame, unsigned min)
{
	native->leader = las_thread_self();
	native->frame = frame;
	las_store_relaxed(&native->min, min);
	las_store_relaxed(&native->led_ns, las_now_ns());
	native->led_head = las_load_relaxed(&native->ring->head);
	las_store_relaxed(&native->late, false);
	las_store_release(&native->led, ticket);
}

/*
 * Whether this thread has left its earlier lead by longjmp: a handler that has interrupted it stands deeper on the
 * stack, or on a stack of its own, where depths say nothing.
 */
static bool has_jumped_locked(const struct las_native *native, uintptr_t frame)
{
	stack_t stack;

	return frame >= native->frame && las_sys.sigaltstack(NULL, &stack) == 0 && !(stack.ss_flags & SS_ONSTACK);
}

__attribute__((noinline)) bool las_native_try_lead(struct las_native *native, struct las_lead *lead)
{
	uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
	struct las_req *reqs[LAS_NATIVE_BATCH];
	unsigned n = 0;
	bool leads;

	*lead = (struct las_lead){ .before = 0 };
	las_lock(&native->lock);
	leads = !led_by_another_locked(native);
	if (leads) {
		if (las_unlikely(native->led)) {
			n = claim_taken_locked(native, reqs, LAS_NATIVE_BATCH);
			if (!has_jumped_locked(native, frame))
				*lead = (struct las_lead){ 0, native->led, native->min, native->frame };
		}
		if (++native->tickets == 0)
			native->tickets = 1;
		lead->ticket = native->tickets;
		set_leader_locked(native, native->tickets, frame, 1);
	}
	las_unlock(&native->lock);
	las_native_finish_all(native, reqs, n);
	return leads;
}

void las_native_leave_lead(struct las_native *native, const struct las_lead *lead, long n)
{
	struct las_req *reqs[LAS_NATIVE_BATCH];
	unsigned claimed;

	las_lock(&native->lock);
	/*
	 * Still this thread's: others never take a lead over, and handlers give it back.  One that jumped away from its
	 * own may have left events behind; what one has claimed is not there any more.
	 */
	claimed = claim_taken_locked(native, reqs, native->led == lead->ticket ? n : LAS_NATIVE_BATCH);
	set_leader_locked(native, lead->before, lead->before_frame, lead->before_min);
	las_unlock(&native->lock);
	las_native_finish_all(native, reqs, claimed);
}

unsigned las_native_in_flight(const struct las_native *native)
{
	return las_load_acquire(&native->in_flight);
}

void las_native_set_min(struct las_native *native, unsigned min)
{
	unsigned most = las_native_in_flight(native);

	/* More than there are would keep the last of them from everybody for a slice. */
	if (most == 0 || most > LAS_NATIVE_BATCH)
		most = LAS_NATIVE_BATCH;
	las_store_relaxed(&native->min, min < most ? min : most);
}

unsigned las_native_min(const struct las_native *native)
{
	return las_load_relaxed(&native->min);
}

long las_native_wait(struct las_native *native, int64_t deadline_ns, const sigset_t *mask)
{
	int64_t left_ns = SLICE_NS, now;
	struct timespec left;
	long n;

	if (deadline_ns != LAS_FOREVER_NS) {
		now = las_now_ns();
		left_ns = deadline_ns - now < SLICE_NS ? deadline_ns - now : SLICE_NS;
		if (left_ns <= 0)
			left_ns = 1;
	}
	left = (struct timespec){ .tv_sec = left_ns / 1000000000, .tv_nsec = left_ns % 1000000000 };
	n = las_sys.io_getevents((uintptr_t)native->ring, las_load_relaxed(&native->min), LAS_NATIVE_BATCH,
	                         native->taken, &left, mask);
	if (n == 0 && (deadline_ns == LAS_FOREVER_NS || las_now_ns() < deadline_ns))
		return 0;
	return n == 0 ? -ETIMEDOUT : n;
}

/* Has n events of nobody's come to the ring, at once, each of which raises resfd if that is a descriptor. */
static void come_to(const struct las_ring *ring, unsigned n, int resfd)
{
	struct las_iocb iocb[LAS_NATIVE_BATCH], *list[LAS_NATIVE_BATCH];
	long fd = las_sys.eventfd2(1, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return;
	memset(iocb, 0, n * sizeof(iocb[0]));
	for (unsigned i = 0; i < n; i++) {
		iocb[i].opcode = LAS_CMD_POLL;
		iocb[i].fildes = (uint32_t)fd;
		iocb[i].buf = 1; /* POLLIN, which is there */
		iocb[i].data = KICK;
		if (resfd >= 0) {
			iocb[i].flags = LAS_FLAG_RESFD;
			iocb[i].resfd = (uint32_t)resfd;
		}
		list[i] = &iocb[i];
	}
	las_sys.io_submit((uintptr_t)ring, n, list);
	las_sys.close((int)fd);
}

void las_native_kick(struct las_native *native)
{
	if (!las_load_acquire(&native->led))
		return;
	/* As many as the leader waits for; a newer leader's number wakes that one, which is as well. */
	come_to(native->ring, las_load_relaxed(&native->min), -1);
}

void las_native_raise(int eventfd)
{
	struct las_native *native = las_config.lanes & LAS_LANE_NATIVE ? las_native_get(1) : NULL;

	if (!native)
		return;
	come_to(native->ring, 1, eventfd);
	las_native_drain_now(native, false);
	las_native_put(native);
}
