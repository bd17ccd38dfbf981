/*
 * waiters.pml - three threads that sleep on a context's seq, and whom of them an event wakes (csrc/aio/complete.c, wait.c).
 *
 * FIRST, SECOND and THIRD are the events that each waits for; each takes MORE than these if they are there.  Two crew
 * threads post: TOGETHER requests end on their own, some of them in one step; the others only when all else is at rest,
 * and at_rest() says that nobody sleeps who has enough.  Nobody leads: waiting.pml has that, with two threads.
 *
 * A section under ctx->lock is one step, as is a wake-up, for which the kernel has a lock of its own.  Which of the
 * sleepers it takes nobody knows.
 */
#ifndef MORE
#define MORE 0
#endif
#define N     3
#define NEVER 255
#define ALL   255

byte queue = TOGETHER;
byte slow = FIRST + SECOND + THIRD + MORE * N - TOGETHER;
byte avail, done, waiters, wake_at = NEVER, ended;
byte need[N];
bool same[N];   /* seq is what it has read */
bool asleep[N]; /* in the kernel's wait */

/* ---- aio/complete.c ---- */

#ifdef SEQ_KEPT
#define CHANGE_SEQ_FOR_FEW skip
#else
#define CHANGE_SEQ_FOR_FEW CHANGE_SEQ
#endif
#define CHANGE_SEQ same[0] = false; same[1] = false; same[2] = false

#define MEANT(i) (asleep[i] && need[i] <= some)

/* FUTEX_WAKE_BITSET: up to `some` of those for whom so many are enough. */
inline wake()
{
	atomic {
		if
		:: some == ALL -> asleep[0] = false; asleep[1] = false; asleep[2] = false
		:: else ->
#ifdef WAKE_ONE_EACH
			left = (some -> 1 : 0);
#else
			left = some;
#endif
			do
			:: left && MEANT(0) -> asleep[0] = false; left--
			:: left && MEANT(1) -> asleep[1] = false; left--
			:: left && MEANT(2) -> asleep[2] = false; left--
			:: !left || !MEANT(0) && !MEANT(1) && !MEANT(2) -> break
			od
		fi;
		left = 0;
		some = 0
	}
}

inline las_complete_post(n)
{
	atomic {
		avail = avail + n;
		done = done + n;
		if
		:: waiters && done >= wake_at && avail >= waiters -> wake_at = NEVER; CHANGE_SEQ; some = ALL
		:: waiters && done >= wake_at && avail < waiters ->
#ifdef NOT_ARMED
			wake_at = NEVER;
#else
			wake_at = done + 1;
#endif
			CHANGE_SEQ_FOR_FEW;
			some = avail
		:: else
		fi
	};
	wake()
}

inline las_complete_pass_on()
{
	atomic { some = avail; if :: some -> CHANGE_SEQ_FOR_FEW :: else fi };
	wake()
}

/* ---- aio/wait.c ---- */

proctype Waiter(byte me; byte min)
{
	byte n, some, left, enough, max = min + MORE;
	bool go, slept;

	need[me] = min;
	do
	:: true ->
		atomic { /* take() */
			n = (avail < max -> avail : max);
			n = (avail < enough -> 0 : n);
			avail = avail - n;
			max = max - n;
			need[me] = (n < need[me] -> need[me] - n : 0)
		};
		if
		:: !need[me] -> break
		:: need[me] && n -> n = 0
		:: need[me] && !n ->
#ifndef KEEP_WAKE_UP
			if
			:: slept && waiters && avail -> las_complete_pass_on()
			:: else
			fi;
#endif
			enough = need[me];
			atomic { /* sleep_for() */
				go = avail < need[me];
				if
				:: go ->
					if
					:: !waiters || done + need[me] - avail < wake_at -> wake_at = done + need[me] - avail
					:: else
					fi;
					waiters++;
					same[me] = true
				:: else
				fi
			};
			slept = false;
			if
			:: go ->
				atomic { asleep[me] = same[me]; slept = same[me]; same[me] = false };
				atomic { !asleep[me] -> waiters--; if :: !waiters -> wake_at = NEVER :: else fi }
			:: else
			fi
		fi
	od;
	/* What it has not taken of the `MORE` is not there for the others either: they get on without. */
	atomic { ended++; need[me] = 0 }
}

proctype Crew()
{
	byte some, left;

end:
	do
	:: atomic { queue -> queue-- }; las_complete_post(1)
	:: atomic { queue > 1 -> queue = queue - 2 }; las_complete_post(2)
	od
}

inline at_rest()
{
	assert(!asleep[0] || avail < need[0]);
	assert(!asleep[1] || avail < need[1]);
	assert(!asleep[2] || avail < need[2])
}

active proctype Slow()
{
	atomic {
		run Waiter(0, FIRST);
		run Waiter(1, SECOND);
		run Waiter(2, THIRD);
		run Crew();
		run Crew()
	};
	do
	:: atomic { timeout ->
		at_rest();
		if
		:: slow -> slow--; queue++
		:: else -> break
		fi }
	od;
	assert(ended == N)
}
