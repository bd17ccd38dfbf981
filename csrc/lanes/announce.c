/* announce.c - see announce.h. */
#include "lanes/announce.h"

#include <linux/fs.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/uio.h>

#include "base/futex.h"
#include "base/hold.h"
#include "base/lock.h"
#include "base/sys.h"
#include "lanes/file.h"
#include "lanes/hidden.h"
#include "lanes/table.h"

#define PLACES 16 /* hidden contexts, each looked at by every arrival; more are the reaper's */
#define READS 16  /* of the eventfd, by its thread, that tell how a program learns of events */
#define YIELDS 16 /* before it sleeps, for NAP_NS, as nobody wakes it */
#define NAP_NS ((int64_t)100 * 1000)
/* A second of them: whoever takes so long has left by longjmp, or stands below this one on the stack. */
#define NAPS 10000
#define LOOKS 5 /* of the reaper, for whoever has read the eventfd to get from there to the ring */
/* For whoever is about to read it, and may have done so: one that takes longer was cancelled, or has left by longjmp. */
#define READING_NS ((int64_t)1000 * 1000 * 1000)

static struct {
	struct las_lock lock; /* guards both against each other */
	uint32_t used;        /* a hint without it */
	struct las_native *at[PLACES];
} places;

void las_announce_init(void)
{
	memset(&places, 0, sizeof(places));
}

void las_announce_begin(struct las_native *native)
{
	las_store_relaxed(&native->announce.reading, 0);
	las_store_relaxed(&native->announce.asked_ns, 0);
	las_store_relaxed(&native->announce.fd, -1);
	las_store_relaxed(&native->announce.thread, las_thread_self());
}

static void take_place(struct las_native *native)
{
	las_lock(&places.lock);
	for (unsigned i = 0; i < PLACES && !native->announce.placed; i++) {
		if (places.at[i])
			continue;
		las_store_release(&places.at[i], native);
		las_store_relaxed(&places.used, places.used + 1);
		native->announce.placed = true;
	}
	las_unlock(&places.lock);
}

void las_announce_forget(struct las_native *native)
{
	struct las_announce *a = &native->announce;

	las_lock(&places.lock);
	for (unsigned i = 0; a->placed && i < PLACES; i++) {
		if (places.at[i] != native)
			continue;
		las_store_relaxed(&places.at[i], NULL);
		las_store_relaxed(&places.used, places.used - 1);
		a->placed = false;
	}
	las_unlock(&places.lock);
	las_announce_stop(native);
	las_store_relaxed(&a->counted, false);
	las_store_relaxed(&a->doubts, 0);
	las_store_relaxed(&a->called, false);
	/* Not hands: the reaper may be about to lower it. */
}

bool las_announce_by_kernel(struct las_native *native, int fd)
{
	struct las_announce *a = &native->announce;

	if (las_likely(las_load_relaxed(&a->fd) == fd && las_load_relaxed(&a->thread) == las_thread_self())) {
		las_store_relaxed(&a->visits, las_load_relaxed(&a->visits) + 1);
		return las_load_relaxed(&a->by_kernel);
	}
	las_announce_stop(native);
	las_store_relaxed(&a->fd, fd);
	las_store_relaxed(&a->thread, las_thread_self());
	take_place(native);
	return false;
}

void las_announce_stop(struct las_native *native)
{
	las_store_relaxed(&native->announce.by_kernel, false);
	las_store_relaxed(&native->announce.reads, 0);
}

void las_announce_take_back(int fd)
{
	uint64_t counted, left;
	struct iovec iov = { &counted, sizeof(counted) };

	/* All of the counter at once; one of it if it is a semaphore. */
	if (las_sys.preadv2(fd, &iov, 1, -1, RWF_NOWAIT) != sizeof(counted) || counted <= 1)
		return;
	left = counted - 1;
	las_sys.write(fd, &left, sizeof(left));
}

static void count_read(struct las_native *native)
{
	struct las_announce *a = &native->announce;
	uint32_t reads = las_load_relaxed(&a->reads) + 1;

	if (las_load_relaxed(&a->thread) != las_thread_self()) {
		las_announce_stop(native);
		return;
	}
	las_store_relaxed(&a->reads, reads);
	if (las_likely(reads < READS) || las_load_relaxed(&a->by_kernel))
		return;
	las_store_relaxed(&a->counted, true);
	las_store_relaxed(&a->by_kernel, true);
}

static void doubt(struct las_announce *a, uint32_t since)
{
	las_store_relaxed(&a->since, since);
	las_store_relaxed(&a->visited, las_load_relaxed(&a->visits));
	las_store_release(&a->doubts, LOOKS); /* since before it */
}

/*
 * For the time of a few copies; a thread of high priority lets those of lower run that are at it.  False if one of them
 * does not come back: its hands are forgotten.  Should it come back after all, there are fewer than none, which ends
 * in the same way.
 */
static bool await_hands(struct las_announce *a)
{
	uint32_t hands;

	for (unsigned i = 0; (hands = las_load_acquire(&a->hands)) != 0; i++) {
		if (i < YIELDS) {
			sched_yield();
		} else if (i < YIELDS + NAPS) {
			las_futex_wait(&a->hands, hands, las_now_ns() + NAP_NS);
		} else {
			las_store_relaxed(&a->hands, 0);
			return false;
		}
	}
	return true;
}

/*
 * What was in the hidden ring when the eventfd was raised is in the public one afterwards, whoever has taken it off: other
 * threads say so in `hands` before they do.  Only what a call has in its hands that this very thread has
 * interrupted, in a signal handler, or what another thread than ever before has learned of, cannot be waited for.
 */
static void look(struct las_native *native)
{
	struct las_announce *a = &native->announce;
	bool own = las_load_relaxed(&a->thread) == las_thread_self();

	if (!own || las_inside || las_critical)
		doubt(a, las_load_relaxed(&a->arrivals));
	if (las_critical)
		return;
	las_native_drain(native, false);
	las_fence_seq_cst(); /* looks for events before it looks for hands; they say so before they take */
	if (!await_hands(a))
		doubt(a, las_load_relaxed(&a->arrivals));
	else if (own && !las_inside)
		las_add_acq_rel(&a->arrivals, 1);
}

/* The hidden context at this place, if the eventfd is its; one eventfd may belong to several. */
static struct las_native *native_at(unsigned i, int fd)
{
	struct las_native *native = las_load_acquire(&places.at[i]); /* pairs with take_place() */

	return native && las_load_relaxed(&native->announce.fd) == fd ? native : NULL;
}

bool las_announce_reads(int fd)
{
	bool watched = false;

	if (las_likely(!las_load_relaxed(&places.used)) || las_table_is_stranger())
		return false;
	for (unsigned i = 0; i < PLACES; i++) {
		struct las_native *native = native_at(i, fd);

		if (native)
			las_add_acq_rel(&native->announce.reading, 1); /* before the read, which is a system call */
		watched = watched || native;
	}
	return watched;
}

void las_announce_has_read(int fd)
{
	for (unsigned i = 0; i < PLACES; i++) {
		struct las_native *native = native_at(i, fd);

		if (!native)
			continue;
		count_read(native);
		if (las_load_relaxed(&native->announce.counted))
			look(native);
		las_sub_acq_rel(&native->announce.reading, 1); /* after look() has counted the arrival */
	}
}

void las_announce_called(struct las_native *native)
{
	if (las_unlikely(!las_load_relaxed(&native->announce.called)))
		las_store_relaxed(&native->announce.called, true);
}

struct las_announce_turn las_announce_take(struct las_native *native)
{
	struct las_announce *a = &native->announce;
	struct las_announce_turn turn = { .others = las_load_relaxed(&a->thread) != las_thread_self() };

	if (las_likely(!turn.others))
		return turn;
	turn.arrivals = las_load_acquire(&a->arrivals);
	las_add_acq_rel(&a->hands, 1);
	las_fence_seq_cst(); /* see look() */
	return turn;
}

void las_announce_taken(struct las_native *native, const struct las_announce_turn *turn, bool announced)
{
	if (las_likely(!turn->others))
		return;
	if (announced && !las_load_relaxed(&native->announce.doubts))
		doubt(&native->announce, turn->arrivals);
	las_sub_acq_rel(&native->announce.hands, 1); /* the events in the ring before it */
}

/*
 * Whether a thread has read the eventfd, and will look at the ring or has looked: asked after the eventfd itself.  Where
 * one may be about to look, the answer is put off; if it does not come, it is forgotten.  Should it come after all, there
 * are fewer than none, which ends in the same way.
 */
static bool is_on_its_way(struct las_announce *a)
{
	bool reading = las_load_acquire(&a->reading);
	int64_t now, asked;

	if (las_load_acquire(&a->arrivals) != las_load_relaxed(&a->since))
		return true;
	if (!reading)
		return false;
	now = las_now_ns();
	asked = las_load_relaxed(&a->asked_ns);
	if (!asked)
		las_store_relaxed(&a->asked_ns, asked = now);
	if (now - asked < READING_NS) {
		las_store_relaxed(&a->doubts, LOOKS);
		return true;
	}
	las_store_relaxed(&a->reading, 0);
	return false;
}

/*
 * KERNEL: count-before-event: there the event is in the ring whenever the eventfd is raised (test:
 * announced.ring_after_poll_alone).
 *
 * The reaper has moved an event some looks ago, and its thread has not come by since.  If nobody has read the eventfd
 * yet, all is well, and edges are given once more.  If somebody has, it was not through us, and may sleep again by now.
 * Programs that call io_getevents find everything there, and may rely on the count.
 */
static void tell_again(struct las_native *native)
{
	struct las_announce *a = &native->announce;
	struct pollfd p = { .events = POLLIN | POLLOUT };
	const struct timespec at_once = { 0, 0 };
	struct las_hold *hold;
	struct las_file file;
	uint64_t count;

	if (las_hold_get(las_load_relaxed(&a->fd), LAS_HOLD_PLAIN, &hold) < 0)
		return;
	p.fd = hold->fd;
	file = (struct las_file){ .fd = hold->fd };
	if (las_file_ask_again(&file) == 0 && las_file_check_eventfd(&file) == 0 &&
	    las_sys.ppoll(&p, 1, &at_once, NULL) == 1 && p.revents & POLLOUT && !is_on_its_way(a)) {
		count = !(p.revents & POLLIN);
		/* Who is busy with the ring need not read the eventfd for a while; who sleeps has waited for the event. */
		if (count || las_load_relaxed(&a->visits) == las_load_relaxed(&a->visited))
			las_announce_stop(native);
		if (!count || !las_load_relaxed(&a->called))
			las_sys.write(hold->fd, &count, sizeof(count));
	}
	las_hold_put(hold);
}

static unsigned watch(struct las_native *native)
{
	struct las_announce *a = &native->announce;
	unsigned doubts = las_load_acquire(&a->doubts);
	uint32_t arrivals = las_load_acquire(&a->arrivals);

	if (doubts) {
		doubts = arrivals == las_load_relaxed(&a->since) ? doubts - 1 : 0;
		las_store_relaxed(&a->doubts, doubts);
		if (!doubts && arrivals == las_load_relaxed(&a->since))
			tell_again(native);
		if (!las_load_relaxed(&a->doubts))
			las_store_relaxed(&a->asked_ns, 0);
	}
	las_native_drain(native, false);
	return las_load_relaxed(&a->doubts);
}

unsigned las_announce_watch(void)
{
	unsigned doubts = 0;

	if (las_likely(!las_load_relaxed(&places.used)))
		return 0;
	for (unsigned i = 0; i < PLACES; i++) {
		struct las_native *native = las_load_acquire(&places.at[i]); /* pairs with take_place() */

		if (native && las_load_relaxed(&native->announce.counted))
			doubts += watch(native);
	}
	return doubts;
}
