/* lock.c - the contended half of lock.h: spin for about a section's length, then sleep. */
#include "base/lock.h"

#include "base/futex.h"

_Thread_local unsigned las_critical;
_Thread_local unsigned las_inside;

void las_lock_slow(struct las_lock *lock)
{
	for (int spins = 0; spins < 64; spins++) {
		uint32_t free = 0;

		/* Relaxed: only a hint; the compare-exchange decides. */
		if (las_load_relaxed(&lock->word) == 0 && las_cas_acquire(&lock->word, &free, 1))
			return;
		las_cpu_relax();
	}
	while (las_exchange_acquire(&lock->word, 2) != 0)
		las_futex_wait(&lock->word, 2, LAS_FOREVER_NS);
}

void las_unlock_slow(struct las_lock *lock)
{
	las_futex_wake(&lock->word, 1);
}
