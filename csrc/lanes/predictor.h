/*
 * predictor.h - where NOWAIT is refused: will this read or write block?
 *
 * ext4 refuses NOWAIT for buffered writes, overlay and tmpfs refuse it
 * altogether, and yet such work almost never blocks.  The head runs it
 * plainly while recent work of its kind on that file was quick, and leaves it
 * to the crew after one that was not; the crew notices when it is quick again.
 * Like a branch predictor: a small table, wrong only once per change, and
 * longer away from the head the more often it was wrong.
 *
 * O_DIRECT writes are guessed alike, and apart from the others: whether the
 * kernel begins them without blocking.
 *
 * Whether to guess at all depends on where the file lives: in memory, always;
 * on a disk, and on what stacks on disks, yes; on a server, never.
 * LIBAIO_SHIM_INLINE=nowait forbids the guess.
 */
#ifndef LAS_LANES_PREDICTOR_H
#define LAS_LANES_PREDICTOR_H

#include <stdbool.h>

#include "lanes/file.h"
#include "lanes/op.h"

void las_predictor_init(void);

/* Whether the head may run the op plainly.  The file has been looked at, and its medium is known. */
bool las_predict(const struct las_file *file, const struct las_op *op);
/* Around a guess: what is learnt from it.  The op may be gone when it ends. */
struct las_guess {
	bool learns; /* not where the guess is always right */
	enum las_op_kind kind;
	size_t bytes;
	uint64_t start; /* ticks (base/ticks.h) */
	long switches;  /* the thread's voluntary context switches; -1: not counted */
};

void las_predict_begin(struct las_guess *guess, const struct las_file *file, const struct las_op *op);
void las_predict_end(const struct las_guess *guess, const struct las_file *file);

/* For a request that goes to the crew: under which entry it is to be noted, 0 for none. */
uint16_t las_predict_entry(const struct las_file *file, const struct las_op *op);
/* A thread of the crew has run it in so many ticks; does nothing for entry 0. */
void las_predict_crew_took(uint16_t entry, const struct las_op *op, uint64_t ticks);
/* The same where the time says nothing, for it is the device's: so many of them go by before the next guess. */
void las_predict_crew_had(uint16_t entry);

#endif
