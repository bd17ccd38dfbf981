/*
 * announce.h - completions of which the kernel itself tells the program.
 *
 * Whoever learns of an event by an eventfd has to find it in the public ring.  So as a rule the reaper moves the event,
 * then raises the eventfd: a thread in between, which costs a fast device half of its speed.  But a program that reads
 * its eventfd through libc, where compat/eventfd.c stands, passes the library on its way from the eventfd to the ring.
 * There the event can be moved as well, by the thread itself, and the kernel may be given the program's eventfd.
 *
 * That this is how the program learns of its events is seen, not assumed: the thread that submits has read the eventfd a
 * number of times.  A program that changes its ways is found by the reaper, which looks after these contexts once a
 * millisecond (docs/waiting.md).
 */
#ifndef LAS_LANES_ANNOUNCE_H
#define LAS_LANES_ANNOUNCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/atomic.h"

struct las_native;

/* Of a hidden context.  All but the counts are hints: what they get wrong, the reaper's look puts right. */
struct las_announce {
	const void *thread; /* that submits with this eventfd and reads it; at first that borrowed the context */
	int fd;             /* the program's number of it */
	uint32_t reads;     /* seen so far */
	bool placed;        /* among those that an arrival concerns; guarded by their lock */
	bool by_kernel;     /* the kernel raises it for requests to come */
	bool counted;       /* it did for some */
	uint32_t hands;     /* other threads that may have taken events off, and not moved them on yet; atomic */
	uint32_t reading;   /* threads that are about to read it, or have and are on their way to the ring; atomic */
	uint32_t arrivals;  /* of the thread at the ring, having read it; atomic */
	bool called;        /* the program takes events by io_getevents */
	unsigned doubts;    /* looks left until it is told again of what may have come to the ring too late; or 0 */
	uint32_t since;     /* arrivals when that was doubted */
	int64_t asked_ns;   /* when the reaper first put that off, as somebody was reading; 0: it has not; its own */
	uint32_t visits;    /* requests with this eventfd that the thread has submitted; its own */
	uint32_t visited;   /* the same, when that was doubted */
};

void las_announce_init(void);
/* The calling thread has borrowed it. */
void las_announce_begin(struct las_native *native);

/* Whether the kernel is to raise the calling thread's eventfd of this number for a request of this hidden context. */
bool las_announce_by_kernel(struct las_native *native, int fd);
/* The kernel has refused one of these, and raised the eventfd all the same: no more of them until it is seen again. */
void las_announce_stop(struct las_native *native);
/* Takes back one count of a descriptor that was raised too early, unless somebody has read it already. */
void las_announce_take_back(int fd);

/*
 * The calling thread is about to read fd, and has: what it has learned of by that is in its ring then.  False if fd is not
 * such an eventfd: then nothing has to follow.
 */
bool las_announce_reads(int fd);
void las_announce_has_read(int fd);

/* The program takes events of this hidden context by a call, and needs no ring. */
void las_announce_called(struct las_native *native);

/*
 * Around the time in which a thread may have events in its hands: others than the one that reads say so.  announced: some
 * of them it has moved on, and the kernel had announced them.
 */
struct las_announce_turn {
	bool others;
	uint32_t arrivals; /* before it */
};

struct las_announce_turn las_announce_take(struct las_native *native);
void las_announce_taken(struct las_native *native, const struct las_announce_turn *turn, bool announced);

/* For the reaper: moves on what these hidden contexts have, and tells those who learned of it too early; how many doubts. */
unsigned las_announce_watch(void);
/* Nothing is in flight, and the hidden context serves another one from now on. */
void las_announce_forget(struct las_native *native);

#endif
