/*
 * config.h - what the environment asks of the library, read once per process;
 * what has been removed since the library was loaded still counts.
 *
 * docs/configuration.md is the user's page.  Words that are not known are
 * ignored here: a guest does not complain; the launcher checks its options.
 */
#ifndef LAS_BASE_CONFIG_H
#define LAS_BASE_CONFIG_H

#include <limits.h>
#include <stdbool.h>

enum las_lane { LAS_LANE_HEAD = 1, LAS_LANE_NATIVE = 2, LAS_LANE_CREW = 4, LAS_LANE_ALL = 7 };
enum las_inline { LAS_INLINE_AUTO, LAS_INLINE_NOWAIT, LAS_INLINE_NEVER };

struct las_config {
	unsigned lanes;              /* LIBAIO_SHIM_LANES: all, or head,native,crew; the crew is always on */
	enum las_inline inline_mode; /* LIBAIO_SHIM_INLINE: auto, nowait, never */
	bool settle;                 /* LIBAIO_SHIM_SETTLE=1 */
	unsigned possible_cpus;      /* the kernel's number, on which the size of a ring depends */
	unsigned page_bytes;         /* the kernel's pages, of which a ring is made: 4, 16 or 64 KiB */
	char program[64];            /* its name, before it wrote a title over its arguments */
	char stats_path[PATH_MAX];   /* LIBAIO_SHIM_STATS: file for the line at exit; empty: none */
};

extern struct las_config las_config;

void las_config_load(void);

/* fs.aio-max-nr as it is now, UINT_MAX where there is none. */
unsigned las_config_max_events(void);

#endif
