/*
 * unit.h - what the unit tests share: faults in the table of system calls, gates that stop a thread at a chosen
 * point, and a lane's view of an owner.
 *
 * A case replaces entries of las_sys; u_real has the originals.  Each case is a process of its own (las_test.h), so
 * nothing is put back.
 */
#ifndef LAS_UNIT_H
#define LAS_UNIT_H

#include "las_test.h"

#include "base/abi.h"
#include "base/atomic.h"
#include "base/sys.h"
#include "lanes/req.h"

/* Under ThreadSanitizer: it knows nothing of what a forked child does. */
#if defined(__SANITIZE_THREAD__)
#define U_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define U_TSAN 1
#endif
#endif
#ifndef U_TSAN
#define U_TSAN 0
#endif

/* The table as it was when the program started. */
extern struct las_sys u_real;

/* ---- gates ---- */

/* Threads that come to a closed gate wait there; the test sees them come and lets them go. */
struct u_gate {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool open;
	int waiting, passed; /* how many are there now, how many have come through */
	int tickets;         /* how many may pass although it is closed */
};

#define U_GATE_CLOSED                                                                   \
	{                                                                               \
		.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
	}
#define U_GATE_OPEN                                                                                   \
	{                                                                                             \
		.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .open = true \
	}

void u_gate_pass(struct u_gate *gate);
void u_gate_open(struct u_gate *gate);
void u_gate_close(struct u_gate *gate);
/* Lets n threads through, now or when they come. */
void u_gate_admit(struct u_gate *gate, int n);
/* Waits until n threads wait at the gate. */
void u_gate_await(struct u_gate *gate, int n);
/* Waits until n threads have come through. */
void u_gate_await_passed(struct u_gate *gate, int n);
int u_gate_waiting(struct u_gate *gate);

/* ---- counting ---- */

/* For hooks: they run in any thread. */
static inline unsigned u_count(unsigned *counter)
{
	return __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

static inline unsigned u_counted(unsigned *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

/* Waits until the counter has reached n. */
void u_await(unsigned *counter, unsigned n);

/* ---- an owner for requests that belong to no context ---- */

#define U_RESULTS 4096

/* What the lanes reported, in the order in which they did. */
struct u_owner {
	struct las_owner owner;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	int completed, discarded, moved;
	struct {
		uint64_t data;
		long result;
		bool by_discard;
	} results[U_RESULTS];
};

/* All modules into their first state, as the first call does. */
void u_start(void);
void u_owner_init(struct u_owner *owner);
/* Waits until that many requests have ended, in whatever way. */
void u_owner_await(struct u_owner *owner, int ended);
/* A request for this owner, data and obj as given, of a kind and with a hold on fd (-1: none). */
struct las_req *u_req(struct u_owner *owner, uint64_t data, enum las_op_kind kind, int fd);
/* The same, to read or write these bytes at an offset. */
struct las_req *u_rw(struct u_owner *owner, uint64_t data, enum las_op_kind kind, int fd, void *buf, size_t bytes,
                     int64_t offset);

/* ---- hooks that many cases want ---- */

long u_refuse_thread(void *(*entry)(void *), void *arg);

/* A pipe that is closed when the case has ended. */
void u_pipe(int ends[2]);

#endif
