/*
 * reaper.pml - whether the reaper is awake while anything is in flight: csrc/lanes/reaper.c.
 *
 * Two threads put something in flight and rely on the reaper's next look; the kernel lets it arrive in the hidden
 * ring, from where only a look moves it on.  The reaper sleeps when it has seen nothing for a while, ends when it
 * has slept for long, and cannot always be started again.  Checked: when nothing moves any more, nothing is
 * in flight.  The eventfd is left out, it only makes the next look come earlier.
 *
 * What reaper.lock guards is one atomic step.  The #ifdefs are mutations: mistakes that must be found.
 */

bool in_flight[2];      /* each submitter's request */
bool arrived[2];        /* it is in the hidden ring */
bool thread;            /* guarded by reaper.lock */
bool awake;             /* a futex, read without it */
bool dozing;            /* the reaper is in futex_wait on it, until it is set */
bool locked;            /* reaper.lock, where a section takes more than a step */

/* see_to_thread_locked(), in which thread_start takes its time and may fail; sets `there`. */
inline see_to_thread()
{
	atomic { !locked -> locked = true };
	if
	:: !thread ->
#ifdef AWAKE_BEFORE_START
		awake = true;
#endif
		if
		:: thread = true; awake = true
		:: awake = false
		fi
	:: thread && !awake -> awake = true; dozing = false
	:: else
	fi;
	there = thread;
	locked = false
}

inline las_reaper_watch()
{
	if
	:: awake -> there = true
	:: else -> see_to_thread()
	fi
}

proctype Submitter(bit me)
{
	bool there;

#ifdef WATCH_FIRST
	las_reaper_watch();
	in_flight[me] = true;
#else
	in_flight[me] = true;
	las_reaper_watch();
#endif
	if
	:: there
	:: else -> atomic { in_flight[me] = false; arrived[me] = false } /* it sees to that itself */
	fi
}

active proctype Kernel()
{
end:
	do
	:: atomic { in_flight[0] && !arrived[0] -> arrived[0] = true }
	:: atomic { in_flight[1] && !arrived[1] -> arrived[1] = true }
	od
}

/* look(): sets `seen`. */
inline look()
{
	atomic {
		seen = in_flight[0] || in_flight[1];
		in_flight[0] = in_flight[0] && !arrived[0];
		in_flight[1] = in_flight[1] && !arrived[1];
		arrived[0] = false;
		arrived[1] = false
	}
}

active proctype Reaper()
{
	bool seen, timed_out;

end:
	do
	:: thread && awake ->
		look();
		if
		:: seen
		:: else -> /* nothing in flight for some looks: sleep_idle() */
			awake = false;
#ifndef SLEEP_UNSEEN
			look();
#endif
			timed_out = false;
			if
			:: !seen ->
				atomic { dozing = !awake };
				if
				:: !dozing
				:: dozing = false; timed_out = true
				fi
			:: else
			fi;
			atomic { !locked ->
#ifdef END_UNASKED
				if
				:: timed_out -> thread = false
#else
				if
				:: timed_out && !awake -> thread = false
#endif
				:: else -> awake = true
				fi
			}
		fi
	od
}

init
{
	run Submitter(0);
	run Submitter(1);
	timeout;
	assert(!in_flight[0] && !in_flight[1])
}

ltl moved { [] (arrived[0] -> <> !arrived[0]) }
