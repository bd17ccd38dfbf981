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
/* Around a guess of the head's: what it learns from it. */
struct las_guess {
	bool learns; /* not where the guess is always right */
	uint64_t start;
	long switches; /* -1: not counted */
};

void las_predict_begin(struct las_guess *guess, const struct las_file *file);
void las_predict_end(const struct las_guess *guess, const struct las_file *file, const struct las_op *op);

/* For a request that goes to the crew: under which entry it is to be noted, 0 for none. */
uint16_t las_predict_entry(const struct las_file *file, const struct las_op *op);
void las_predict_crew_took(uint16_t entry, const struct las_op *op, uint64_t ticks);

#endif
