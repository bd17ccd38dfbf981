/*
 * kinds.h - files of many kinds, for requests at random.
 *
 * Streams are O_NONBLOCK, so that nothing blocks the kernel's io_submit.
 */
#ifndef LAS_UNIT_KINDS_H
#define LAS_UNIT_KINDS_H

#include "unit.h"

#define K_FILE_BYTES 20000

struct k_file {
	int fd;
	int beside; /* the other end, or -1 */
	int number; /* tells files of one kind apart */
};

struct k_kind {
	const char *name;
	int (*open)(struct k_file *file);
	bool has_content; /* a file whose bytes can be compared */
	bool random_data; /* what is read differs from read to read */
	bool is_terminal; /* takes and gives what its buffers allow, in its own time */
	bool not_ours;    /* the descriptor is not open at all */
};

extern const struct k_kind k_kinds[];
extern const unsigned k_kind_count;

/* Opens a new file of that kind; false where this machine has none. */
bool k_open(const struct k_kind *kind, struct k_file *file, int number);
void k_close(const struct k_kind *kind, struct k_file *file);

#endif
