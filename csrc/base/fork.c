/* fork.c - see fork.h. */
#include "base/fork.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

#include "base/lock.h"
#include "base/sys.h"

#define PAGE_BYTES 4096

uint32_t *las_process_state;

static int map_state(void)
{
	uint32_t *none = NULL, *page = las_sys.mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	if (!page)
		return -ENOMEM;
	/* Before Linux 4.14 there is no such advice; then only libc's fork() is noticed (base/hold.c). */
	las_sys.madvise(page, PAGE_BYTES, MADV_WIPEONFORK);
	if (!las_cas_acq_rel(&las_process_state, &none, page))
		las_sys.munmap(page, PAGE_BYTES);
	return 0;
}

void las_process_forked(void)
{
	if (las_process_state)
		las_store_release(las_process_state, LAS_PROCESS_NEW);
}

int las_process_start(void (*init)(void))
{
	uint32_t new = LAS_PROCESS_NEW;

	if (!las_load_acquire(&las_process_state)) {
		int err = map_state();

		if (err)
			return err;
	}
	las_critical++; /* a handler that interrupts this is told to try again, rather than to wait for it */
	las_fence_signal();
	if (las_cas_acquire(las_process_state, &new, LAS_PROCESS_STARTING)) {
		init();
		las_store_release(las_process_state, LAS_PROCESS_READY); /* pairs with las_process_ready */
	}
	las_fence_signal();
	las_critical--;
	/* Else another thread is at it, for microseconds, once per process. */
	while (!las_process_ready())
		sched_yield();
	return 0;
}
