/*
 * predictor.c - see predictor.h.
 *
 * One word per entry, read and written whole with relaxed atomics: a lost
 * update costs one wrong guess.  Entries are found by inode and direction, not
 * by descriptor, which may be another file's by now; two files that share an
 * entry take turns in starting afresh.
 *
 * That an op took long does not say that it blocked: on a busy machine the
 * thread may just have lost its processor.  So a slow one only makes the
 * thread watchful for a while: it counts its voluntary context switches
 * around each guess, and the next slow one that has switched is the proof.
 * Only what took very long is believed at once.
 */
#include "lanes/predictor.h"

#include <string.h>
#include <sys/resource.h>

#include "base/atomic.h"
#include "base/config.h"
#include "base/lock.h"
#include "base/sys.h"
#include "base/ticks.h"

#define ENTRIES 1024
#define SLOW_TICKS 150000    /* 30 to 150 microseconds */
#define STALL_TICKS 15000000 /* 3 to 15 milliseconds: longer than the scheduler takes a processor away */
#define WATCHFUL 32          /* guesses */
#define TICKS_A_BYTE 4       /* and what copying takes, generously */
#define STACKED_START 4      /* quick ones wanted before the first guess on a file whose layers are unknown */
#define PENALTY_MIN 16
#define PENALTY_MAX 1024
#define RECENT_STAMP 64 /* stamps are 1 << 24 ticks, about 5 ms: a third of a second */

struct state {
	uint16_t tag;     /* of the file; 0: unused */
	uint16_t left;    /* quick ones wanted from the crew; 0: the head may guess */
	uint16_t penalty; /* what `left` becomes after a wrong guess */
	uint16_t stamp;   /* of the last wrong guess */
};

static uint64_t table[ENTRIES];

void las_predictor_init(void)
{
	memset(table, 0, sizeof(table));
}

static struct state load(unsigned i)
{
	uint64_t word = las_load_relaxed(&table[i]);
	struct state s;

	memcpy(&s, &word, sizeof(s));
	return s;
}

static void store(unsigned i, struct state s)
{
	uint64_t word;

	memcpy(&word, &s, sizeof(word));
	las_store_relaxed(&table[i], word);
}

static uint64_t hash(const struct las_file *file, enum las_op_kind kind)
{
	return ((file->device * 31 + file->inode) * 4 + las_file_direct(file) * 2u + (kind == LAS_OP_WRITE)) *
	       0x9e3779b97f4a7c15u;
}

static unsigned index_of(uint64_t h)
{
	return (unsigned)(h >> 54);
}

static uint16_t tag_of(uint64_t h)
{
	return (uint16_t)(h >> 32 | 1);
}

static struct state state_of(const struct las_file *file, enum las_op_kind kind, unsigned *i)
{
	uint64_t h = hash(file, kind);
	struct state s;

	*i = index_of(h);
	s = load(*i);
	if (las_likely(s.tag == tag_of(h)))
		return s;
	return (struct state){ .tag = tag_of(h),
		               .left = file->medium == LAS_MEDIUM_STACKED ? STACKED_START : 0,
		               .penalty = PENALTY_MIN };
}

static bool guesses(const struct las_file *file)
{
	return las_config.inline_mode == LAS_INLINE_AUTO &&
	       (file->medium == LAS_MEDIUM_DISK || file->medium == LAS_MEDIUM_STACKED);
}

bool las_predict(const struct las_file *file, const struct las_op *op)
{
	unsigned i;

	if (file->medium == LAS_MEDIUM_MEMORY)
		return true;
	return guesses(file) && state_of(file, op->kind, &i).left == 0;
}

static _Thread_local unsigned watchful LAS_TLS_MODEL;

static long voluntary_switches(void)
{
	struct rusage usage;

	return las_sys.getrusage(RUSAGE_THREAD, &usage) < 0 ? 0 : usage.ru_nvcsw;
}

void las_predict_begin(struct las_guess *guess, const struct las_file *file, const struct las_op *op)
{
	guess->learns = guesses(file);
	if (!guess->learns)
		return;
	guess->kind = op->kind;
	guess->bytes = op->bytes;
	guess->switches = las_likely(!watchful) ? -1 : voluntary_switches();
	guess->start = las_ticks();
}

/* Whether a slow guess has blocked, as far as is known. */
static bool has_blocked(const struct las_guess *guess, uint64_t ticks)
{
	bool watched = guess->switches >= 0;

	if (watched)
		return voluntary_switches() > guess->switches;
	watchful = WATCHFUL;
	return ticks > STALL_TICKS;
}

static bool is_slow(size_t bytes, uint64_t ticks)
{
	return ticks > SLOW_TICKS + bytes * TICKS_A_BYTE;
}

void las_predict_end(const struct las_guess *guess, const struct las_file *file)
{
	struct state s;
	uint64_t ticks;
	uint16_t now;
	unsigned i;

	if (!guess->learns)
		return;
	ticks = las_ticks() - guess->start;
	if (las_unlikely(watchful))
		watchful--;
	if (las_likely(!is_slow(guess->bytes, ticks)) || !has_blocked(guess, ticks))
		return;
	s = state_of(file, guess->kind, &i);
	now = (uint16_t)(las_ticks() >> 24);
	if ((uint16_t)(now - s.stamp) > RECENT_STAMP)
		s.penalty = PENALTY_MIN;
	else if (s.penalty < PENALTY_MAX)
		s.penalty = (uint16_t)(s.penalty * 2);
	s.left = s.penalty;
	s.stamp = now;
	store(i, s);
}

uint16_t las_predict_entry(const struct las_file *file, const struct las_op *op)
{
	struct state s;
	unsigned i;

	if (!las_op_is_rw(op) || !guesses(file))
		return 0;
	s = state_of(file, op->kind, &i);
	store(i, s);
	return (uint16_t)(i + 1);
}

void las_predict_crew_took(uint16_t entry, const struct las_op *op, uint64_t ticks)
{
	struct state s;

	if (!entry)
		return;
	s = load(entry - 1u);
	if (is_slow(op->bytes, ticks))
		s.left = s.left > PENALTY_MIN ? s.left : PENALTY_MIN;
	else if (s.left)
		s.left--;
	else
		return;
	store(entry - 1u, s);
}

void las_predict_crew_had(uint16_t entry)
{
	struct state s;

	if (!entry)
		return;
	s = load(entry - 1u);
	if (s.left == 0)
		return;
	s.left--;
	store(entry - 1u, s);
}
