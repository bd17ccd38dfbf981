/*
 * ticks.h - a clock for guesses: costs a few nanoseconds, unit unknown but stable.
 *
 * x86-64 counts at 1 to 5 GHz; aarch64's counter is scaled to something
 * like it; elsewhere it is nanoseconds.  Good for "about ten microseconds",
 * never for what a caller can see.
 */
#ifndef LAS_BASE_TICKS_H
#define LAS_BASE_TICKS_H

#include <stdint.h>

#include "base/sys.h"

static inline uint64_t las_ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t ticks;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
	return ticks << 5; /* 25 to 100 MHz on most, 1 GHz on the newest */
#else
	return (uint64_t)las_now_ns();
#endif
}

#endif
