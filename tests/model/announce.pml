/*
 * announce.pml - whether a thread that was told of events by its eventfd finds them in the public ring, while the kernel
 * raises the eventfd and two threads move events: csrc/lanes/announce.c.
 *
 * The reader submits requests, then reads the eventfd and looks, until it has all.  The kernel lets each arrive in the
 * hidden ring, then raises the eventfd.  The reaper moves what it finds, and where it did, asks some looks later whether
 * somebody was told too early.  Checked: whoever has read a count finds as many events; nobody who passes the library
 * is ever told again; who reads past it (PAST) is, so that nobody sleeps on an event, also if a thread that was
 * cancelled in its read counts as on its way to the ring for ever (CANCELLED).
 *
 * What native->lock guards is one atomic step.  The #ifdefs are mutations: mistakes that must be found.
 */

#define REQUESTS 3

byte waiting;   /* events in the hidden ring */
byte posted;   /* events ever put in the public ring */
byte counter;  /* of the eventfd */
byte hands;
#ifdef CANCELLED
byte reading = 1;
#else
byte reading;
#endif
byte arrivals;
byte told;     /* counts read so far */
byte spurious; /* raised again */
bool raising;  /* the kernel is between the two: for less than the looks that the reaper lets pass */
bool done;

active proctype Kernel()
{
	byte i;

	for (i : 1 .. REQUESTS) {
#ifdef RAISE_FIRST
		counter++;
		waiting++
#else
		atomic { raising = true; waiting++ };
		atomic { counter++; raising = false }
#endif
	}
}

inline look()
{
#ifdef HANDS_FIRST
	hands == 0;
#endif
	atomic { mine = waiting; waiting = 0 };
	posted = posted + mine;
#ifndef HANDS_FIRST
#ifndef NO_HANDS
	hands == 0;
#endif
#endif
	mine = 0
}

active proctype Reader()
{
	byte mine;

	do
	:: told - spurious >= REQUESTS && posted == REQUESTS -> break
	:: else ->
#ifndef PAST
		atomic { reading++ };
		atomic { counter > 0 -> told = told + counter; counter = 0 };
#ifdef ARRIVES_FIRST
		arrivals++;
#endif
#ifdef NO_READING
		reading = 0;
#endif
		look();
#ifndef ARRIVES_FIRST
		arrivals++;
#endif
		reading = 0;
		assert(posted >= told - spurious)
#else
		/* Past the library: what is not there yet is there when the eventfd is raised again. */
		atomic { counter > 0 -> told = told + counter; counter = 0 }
#endif
	od;
	done = true
}

/* One look of the reaper's, and what it asks afterwards. */
active proctype Reaper()
{
	byte mine, before, since;
	bool doubts;

	do
	:: done -> break
	:: waiting > 0 ->
		before = arrivals;
#ifdef HANDS_AFTER
		atomic { mine = waiting; waiting = 0 };
		hands++;
#else
		hands++;
		atomic { mine = waiting; waiting = 0 };
#endif
		posted = posted + mine;
		if
		:: mine > 0 && !doubts -> doubts = true; since = before
		:: else
		fi;
		mine = 0;
		hands--
#ifndef NO_TELL
	:: doubts && !raising ->
		doubts = false;
		/* The eventfd first, then whether its reader is on the way, then whether it has been. */
		if
		:: counter == 0 ->
			if
			:: reading == 0 ->
				if
				:: arrivals == since ->
#ifndef PAST
					assert(false);
#endif
					spurious++;
					counter++
				:: else
				fi
			:: else ->
				if
				:: arrivals == since ->
#ifndef DROP_DOUBT
					doubts = true; /* asks again */
#ifdef CANCELLED
					reading = 0 /* a second has passed */
#endif
#else
					skip
#endif
				:: else
				fi
			fi
		:: else
		fi
#endif
	od
}
