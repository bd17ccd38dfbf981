/*
 * waiting.pml - who sleeps where and who wakes whom: docs/waiting.md in a form that spin can search.
 *
 * Names are those of csrc/; an inline is the function of that name.  A section under a lock is one atomic step, but
 * where others look into it without the lock; what is read without the lock is read in a step of its own.  Memory is
 * sequentially consistent, as the code's fences make it where it matters.  Events and requests are only counted;
 * request.pml follows a single one, reaper.pml the reaper's sleep, and waiters.pml has more threads that sleep on seq.
 *
 * There is no clock.  A leader sleeps until the kernel has enough for it and a follower until it is woken: nothing
 * here may depend on their looking around now and then.  The reaper, whose look is the bound, moves at any time what
 * nobody leads.  Slow requests end only when all else has come to rest, and at_rest() says what must be true then:
 * no event is left in the hidden ring, and nobody sleeps who has enough.
 *
 * tests/model/test_model.py runs it, with the macros that choose a program, and with mutations: mistakes that the
 * checker must find (the #ifdefs below).
 */

#ifndef ONE_QUICK
#define ONE_QUICK 0     /* requests of the first thread for the kernel, quick */
#endif
#ifndef ONE_SLOW
#define ONE_SLOW  0     /* and slow ones */
#endif
#ifndef ONE_CREW
#define ONE_CREW  0     /* and for the crew, slow */
#endif
#ifndef TWO_QUICK
#define TWO_QUICK 0     /* the second thread's, all quick */
#endif
#ifndef TWO_CREW
#define TWO_CREW  0
#endif
#ifndef JUMPS
#define JUMPS     false /* whether the first may leave its wait by longjmp */
#endif
#define NEVER     255

/* ---- struct las_ctx; what ctx->lock guards comes first ---- */
byte avail;             /* events in the public ring */
byte done;              /* requests that ever had one */
byte waiters;
byte wake_at = NEVER;   /* the value of `done` that satisfies one of them */
bool same[3];           /* per thread: seq is what it has read */
bool asleep[3];         /* per thread: in futex_wait on seq */
bool leading;
byte elsewhere;
byte user;              /* ctx->thread */
bool shared, dead;
bool locked;            /* ctx->lock, where a section takes several steps as others look into it */

/* ---- struct las_native ---- */
byte led;               /* the leader, 0 if there is none */
bool late;              /* it has been away for long: has it gone, or is it in the kernel yet? */
byte minimum = 1;       /* events that make it return */
byte taken;             /* events in its hands */
byte in_flight;

/* ---- the kernel and the crew ---- */
byte quick, slow;       /* requests that the kernel works on */
byte arrived, kicks;    /* events in the hidden ring */
byte queue, slow_queue; /* requests that the crew has */

/* ---- what only the checker knows ---- */
byte inside;            /* leaders inside the kernel's io_getevents */
byte need[3];           /* per thread: events that it still waits for */
byte enough[3];         /* per thread: with fewer it leaves them to others */
byte accepted, ended;
bool gone;              /* the first thread has jumped away */

#define LOCALS byte n, hands, some; bool waking, kicking, go, clear, leads, jumped, gave_up, stolen, slept, idle

/* ---- lanes/lead.c ---- */

/* More than three are as good as three, no leader waits for more. */
inline las_native_kick()
{
	atomic {
		if
#ifdef KICK_ONCE
		:: led -> kicks++
#else
		:: led -> kicks = kicks + minimum
#endif
#ifdef SLICES
		:: true /* no descriptor is left, or the hidden ring is full */
#endif
		:: else
		fi;
		kicks = (kicks > 3 -> 3 : kicks)
	}
}

/* A request's end, or the kernel gives it back and it is moved to the crew. */
inline finish()
{
	if
	:: las_complete_post()
#ifdef REFUSALS
	:: las_complete_elsewhere(); queue++
#endif
	fi;
	in_flight--
}

inline finish_all()
{
	do
	:: hands -> hands--; finish()
	:: else -> break
	od
}

#ifdef LOSE_TAKEN
#define LEFT arrived
#else
#define LEFT (arrived || taken)
#endif

/*
 * What is in the hidden ring, if nobody leads.  A leader that is late may be in the kernel: then by the kernel's own
 * call, and with what the leader has taken, should it never come back for that.  What was to kick the leader is made
 * good.
 */
inline las_native_drain(me)
{
	atomic {
		if
#ifdef DRAIN_BESIDE_LEADER
		:: in_flight ->
#else
		:: in_flight && (!led || led == me || late) ->
#endif
#ifdef MEMORY_BESIDE_LATE
			assert(!inside || !arrived); /* in memory, one at a time may take events off */
#else
			assert(!inside || !arrived || late);
#endif
			hands = arrived;
			arrived = 0;
			kicks = 0;
#ifndef LOSE_TAKEN
			if
			:: late || led == me -> hands = hands + taken; taken = 0
			:: else
			fi
#endif
		/* Beside a leader, by a thread that would have to sleep otherwise. */
		:: in_flight && led && led != me && me && !late && !avail ->
			hands = arrived;
			arrived = 0;
			stolen = kicks > 0;
			kicks = 0
		:: else
		fi
	};
	finish_all();
	if
	:: atomic { stolen -> stolen = false };
#ifndef STEAL_KICKS
		las_native_kick()
#endif
	:: else
	fi
}

/* Until there is enough, or earlier: by a time-out or a signal, whose handler may also never come back. */
inline las_native_wait(impatient, jumps)
{
	inside++;
	assert(inside == 1);
	do
	:: atomic { arrived || kicks -> n = n + arrived + kicks; taken = taken + arrived; arrived = 0; kicks = 0 }
	:: n >= minimum -> break
	:: impatient -> gave_up = true; break
	:: jumps -> jumped = true; gone = true; break
#ifdef SLICES
	:: break
#endif
	od;
	atomic { inside--; n = 0 }
}

/* ---- aio/complete.c ---- */

/* wake_locked(), inside a step; wake() follows it. */
#define WAKE_LOCKED \
	wake_at = NEVER; \
	same[1] = false; same[2] = false; /* seq++ */ \
	waking = waiters > leading; \
	kicking = leading

/* wake_enough_locked(), the same: `some` events are to be had, and who has enough with them is woken. */
#define WAKE_ENOUGH_LOCKED \
	same[1] = false; same[2] = false; \
	some = avail; \
	kicking = leading && some

#define MEANT(i) (asleep[i] && need[i] <= some)

/* One of those that a wake-up of the kernel's finds; the leader hears of what nobody else takes. */
inline wake()
{
	if
	:: atomic { waking -> waking = false; asleep[1] = false; asleep[2] = false }
	:: else
	fi;
	if
	:: atomic { some ->
		if
		:: MEANT(1) -> asleep[1] = false; kicking = kicking && some > 1
		:: MEANT(2) -> asleep[2] = false; kicking = kicking && some > 1
		:: else
		fi;
#ifdef KICK_NOBODY
		kicking = false;
#endif
		some = 0 }
	:: else
	fi;
	if
	:: atomic { kicking -> kicking = false }; las_native_kick()
	:: else
	fi
}

inline las_complete_post()
{
	atomic { !locked ->
		avail++;
		done++;
		if
		:: waiters && done >= wake_at && avail >= waiters -> WAKE_LOCKED
		:: waiters && done >= wake_at && avail < waiters -> wake_at = done + 1; WAKE_ENOUGH_LOCKED
		:: else ->
#ifndef POST_SILENTLY
			kicking = leading && minimum > 1
#endif
		fi
	};
	wake()
}

inline las_complete_wake_all()
{
	atomic { !locked -> WAKE_LOCKED };
	wake()
}

inline las_complete_pass_on()
{
	atomic { !locked -> WAKE_ENOUGH_LOCKED };
	wake()
}

inline las_complete_wake_one()
{
	atomic { !locked -> same[1] = false; same[2] = false };
	atomic {
		if
		:: asleep[1] -> asleep[1] = false
		:: asleep[2] -> asleep[2] = false
		:: else
		fi
	}
}

inline las_complete_elsewhere()
{
	elsewhere++;
	if
	:: leading -> las_native_kick()
	:: else
	fi
}

/* ---- aio/context.c ---- */

/* With a second thread nobody counts on several events any more, a leader that does so is called back. */
inline las_ctx_used(me)
{
	if
	:: atomic { !user -> user = me }
	:: atomic { user && user != me && !shared -> shared = true };
#ifndef SHARE_SILENTLY
		if
		:: leading && minimum > 1 -> las_native_kick()
		:: else
		fi
#endif
	:: else
	fi
}

/* ---- aio/submit.c ---- */

inline las_submit(me, nquick, nslow, ncrew, crews)
{
	las_ctx_used(me);
	accepted = accepted + nquick + nslow + ncrew;
	in_flight = in_flight + nquick + nslow;
	atomic { quick = quick + nquick; slow = slow + nslow };
	if
	:: ncrew -> las_complete_elsewhere(); crews++
	:: else
	fi;
	if
	:: ncrew > 1 -> las_complete_elsewhere(); crews++
	:: else
	fi
}

/* ---- aio/wait.c ---- */

#ifdef KEEP_LATER
#define SOONER(at) ((at) > wake_at || wake_at == NEVER)
#else
#define SOONER(at) ((at) < wake_at)
#endif

/* Both inside a step.  While nobody waits, nobody reads wake_at; that it has one value then spares states. */
#define REGISTER(me) \
	if :: !waiters || SOONER(done + need[me] - avail) -> wake_at = done + need[me] - avail :: else fi; \
	waiters++
#define UNREGISTER \
	waiters--; \
	if :: !waiters -> wake_at = NEVER :: else fi

inline lead(me, impatient, jumps)
{
	atomic { /* las_native_try_lead(); it may have left an earlier lead by a jump */
		leads = !elsewhere && in_flight && (!led || led == me);
		if
		:: leads -> led = me; late = false; minimum = 1; hands = taken; taken = 0
		:: else
		fi
	};
	if
	:: leads ->
		finish_all();
		lead_on(me, impatient, jumps)
	:: else
	fi
}

inline lead_on(me, impatient, jumps)
{
	atomic { !locked ->
		go = avail < need[me] && !dead;
		if
		:: go -> REGISTER(me); leading = true
		:: else
		fi;
		locked = true
	};
	if
	:: atomic { go && !shared -> n = need[me] - avail; n = (n < in_flight || !in_flight -> n : in_flight) }
	:: atomic { else -> n = 1 }
	fi;
	atomic { minimum = n; n = 0; locked = false };
#ifndef SHARE_UNSEEN
	if
	:: shared -> minimum = 1
	:: else
	fi;
#endif
	clear = !elsewhere;
	if
	:: go && clear && in_flight -> las_native_wait(impatient, jumps)
	:: else
	fi;
	if
	:: jumped /* nothing of what follows is done */
	:: else ->
		atomic { !locked ->
			if
			:: go -> UNREGISTER; leading = false
			:: else
			fi;
			go = false;
			clear = false
		};
		atomic { led = 0; late = false; minimum = 1; hands = taken; taken = 0 }; /* las_native_leave_lead() */
		finish_all()
	fi
}

inline follow(me, impatient)
{
	atomic { !locked ->
		go = avail < need[me] && !dead;
		if
		:: go -> REGISTER(me); same[me] = true
		:: else
		fi
	};
#ifdef SEQ_UNLOCKED
	same[me] = true;
#endif
	if
	:: go ->
		atomic { asleep[me] = same[me]; same[me] = false };
		if
		:: atomic { !locked && !asleep[me] -> UNREGISTER; go = false }
		:: atomic { !locked && impatient -> gave_up = true; asleep[me] = false; UNREGISTER; go = false }
		fi
	:: else
	fi
}

inline take(me)
{
	las_native_drain(me);
	atomic {
		n = (avail < need[me] -> avail : need[me]);
		n = (avail < enough[me] -> 0 : n);
		avail = avail - n;
		need[me] = need[me] - n;
		idle = slept && !n;
		n = 0
	}
}

/* Twice with a min_nr of 0: it takes what is there. */
inline las_look_twice(me, count)
{
	las_ctx_used(me);
	need[me] = count;
	take(me);
	take(me);
	need[me] = 0
}

inline las_wait(me, count, impatient, jumps)
{
	las_ctx_used(me);
	need[me] = count;
	do
	:: true ->
		take(me);
		if
		:: jumped -> break
		:: !jumped && (!need[me] || (dead || gave_up) && !enough[me]) -> break
		:: !jumped && need[me] && (dead || gave_up) && enough[me] -> enough[me] = 0
		:: !jumped && need[me] && !dead && !gave_up ->
			if
			:: idle && waiters && avail -> las_complete_pass_on()
			:: else
			fi;
			atomic { enough[me] = need[me]; slept = true; idle = false };
			lead(me, impatient, jumps);
			if
			:: atomic { leads -> leads = false }
			:: else -> follow(me, impatient)
			fi
		fi
	od;
	atomic { need[me] = 0; enough[me] = 0; idle = false };
	if
	:: !jumped && slept && waiters && !leading && in_flight && !elsewhere -> las_complete_wake_one() /* hand_on() */
	:: else
	fi;
	slept = false
}

/* ---- the two threads ---- */

active proctype One()
{
	LOCALS;

	las_submit(1, ONE_QUICK, ONE_SLOW, ONE_CREW, slow_queue);
	las_wait(1, ONE_WAITS, false, JUMPS);
	ended++
}

active proctype Two()
{
	LOCALS;

#ifdef DESTROYS
	dead = true;
#ifndef DESTROY_SILENTLY
	las_complete_wake_all();
#endif
	done == accepted;
#elif defined(ALONE)
	skip;
#else
	las_submit(2, TWO_QUICK, 0, TWO_CREW, queue);
	if
	:: true -> las_wait(2, TWO_WAITS, false, false)
	:: true -> las_wait(2, TWO_WAITS, true, false)
	:: true -> las_look_twice(2, TWO_WAITS)
	:: true /* it only looks at the ring in memory */
	fi;
#endif
	ended++
}

/* ---- the kernel, the crew, the reaper, time ---- */

active proctype Kernel()
{
end:
	do
	:: atomic { quick -> quick--; arrived++ }
	od
}

active proctype Crew()
{
	LOCALS;

end:
	do
	:: atomic { queue -> queue-- };
		las_complete_post();
		elsewhere--
	od
}

active proctype Reaper()
{
	LOCALS;

end:
	do
	:: in_flight && (!led && arrived || late && LEFT) -> las_native_drain(0)
	od
}

/*
 * The first thread's lead is found late after a jump, or (SLOWED) when it only gets no processor.  Then kicks may be
 * taken off the ring beside it, so that it depends on its slices: SLOWED goes with SLICES.
 */
#ifdef SLOWED
#define AWAY (led == 1)
#else
#define AWAY (led == 1 && gone)
#endif

active proctype Clock()
{
end:
	do
	:: atomic { AWAY && !late -> late = true }
	od
}

/* The only thread of a context may leave in the hidden ring what is not enough for it, for a slice. */
#define KEPT (inside && !shared)

inline at_rest()
{
	assert(!(arrived || taken) || KEPT);
	assert(!inside || avail < need[led]);
	assert(!asleep[1] || avail < need[1]);
	assert(!asleep[2] || avail < need[2]);
	assert(!dead || !need[1])
}

active proctype Slow()
{
	do
	:: atomic { timeout ->
		at_rest();
		if
		:: slow -> slow--; arrived++
		:: slow_queue -> slow_queue--; queue++
		:: else -> break
		fi }
	od;
	assert(ended == 2 && done == accepted);
	assert(!in_flight && !elsewhere && !taken)
}

ltl served { <> (ended == 2) }
