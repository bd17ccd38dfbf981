/*
 * request.pml - one request on its way to the kernel and back: req->phase of csrc/lanes/native.c.
 *
 * The submitter calls the kernel, which may finish the request, or refuse it: by its result, or by an event that is
 * there before the call is back.  A leader or the reaper may take that event off the hidden ring first.  Checked:
 * whoever finishes the request is the only one, nobody touches it afterwards, and a refusal that is carried on
 * when the submitter's descriptor may be closed has a hold on its file.
 *
 * What native->lock guards is one atomic step.  The #ifdefs are mutations: mistakes that must be found.
 */

mtype = { NONE, DOWN, FOUND, KERNEL };

mtype phase = NONE;
bool accepted;          /* the kernel works on it */
bool refused;           /* what the event says */
bool hold;              /* req->file */
bool arrived;           /* its event is in the hidden ring */
bool taken;             /* in the leader's hands, unclaimed */
bool led;
bool descriptor = true; /* the program's is open: io_submit is not back */
byte finished;

/* By whoever the request is left to. */
inline finish(by_submitter)
{
	atomic {
		assert(!finished);
		assert(!refused || hold || (by_submitter && descriptor));
		finished++
	}
}

/* claim(): sets `mine` if the request is ours. */
inline claim()
{
	assert(!finished);
	mine = phase == KERNEL;
	phase = FOUND
}

active proctype Submitter()
{
	mtype old;
	bool mine, led_by_another;

	phase = DOWN;
	if
	:: atomic { refused = true; phase = FOUND } /* io_submit says so */
	:: atomic { refused = true; arrived = true }
	:: accepted = true
	fi;
	atomic { /* las_native_drain_now() */
		led_by_another = led;
#ifndef NO_DRAIN
		if
		:: arrived && !led -> arrived = false; claim()
		:: else
		fi
#endif
	};
#ifndef NO_HOLD
	if
	:: led_by_another -> hold = refused /* hold_refused(): its event is in the ring, or was */
	:: else
	fi;
#endif
#ifdef TWO_STEPS
	old = phase;
	phase = KERNEL;
#else
	atomic { assert(!finished); old = phase; phase = KERNEL };
#endif
	if
	:: old == FOUND -> finish(true)
	:: else
	fi;
	descriptor = false
}

/* It finishes what it has not refused, at any time.  (What it may refuse late has a hold from the beginning.) */
active proctype Kernel()
{
end:
	atomic { accepted -> arrived = true }
}

/* A second thread: in io_getevents, hence it leads. */
active proctype Leader()
{
	bool mine;

	do
	:: atomic { !led -> led = true };
		if
		:: atomic { arrived -> arrived = false; taken = true }
		:: else
		fi;
#ifdef CLAIM_UNLOCKED
		led = false;
		if
		:: atomic { taken -> taken = false; claim() }
		:: else
		fi;
#else
		atomic { /* las_native_leave_lead() */
			if
			:: taken -> taken = false; claim()
			:: else
			fi;
			led = false
		};
#endif
		if
		:: mine -> mine = false; finish(false)
		:: else
		fi
	:: finished -> break
	od
}

/* And whoever has the kernel give it events beside the leader: take_beside_locked(). */
active proctype Reaper()
{
	bool mine;

end:
	do
	:: atomic { arrived -> arrived = false; claim() };
		if
		:: mine -> mine = false; finish(false)
		:: else
		fi
	od
}

ltl ends { <> finished }
