/* umem.c - the slow half of umem.h: ask the kernel, page by page, and remember. */
#include "base/umem.h"

#include <errno.h>
#include <linux/futex.h>

#include "base/sys.h"

uint64_t las_umem_known[2][LAS_UMEM_ENTRIES];

/* An unknown `how` makes the kernel read the 8 bytes of the set, and then refuse: EFAULT or EINVAL. */
static bool try_read(uintptr_t addr)
{
	return las_sys.sigprocmask(-1, (const void *)(addr & ~(uintptr_t)7), NULL) != -EFAULT;
}

/* Adds 0 to the word, atomically: the content stays, a read-only page is found out. */
static bool try_write(uintptr_t addr)
{
	static uint32_t nobody_waits_here;
	uint32_t *word = (uint32_t *)(addr & ~(uintptr_t)3);

	return las_sys.futex(&nobody_waits_here, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, NULL, word,
	                     FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_LT, 0)) != -EFAULT;
}

bool las_umem_try(enum las_umem_access access, uintptr_t addr, size_t bytes)
{
	uintptr_t last = addr + bytes - 1;

	if (last < addr)
		return false;
	for (uintptr_t page = addr >> LAS_UMEM_PAGE_SHIFT; page <= last >> LAS_UMEM_PAGE_SHIFT; page++) {
		uint64_t *entry = &las_umem_known[access][page % LAS_UMEM_ENTRIES];
		uint64_t known = las_load_relaxed(entry), tries = 0;
		uintptr_t at = page << LAS_UMEM_PAGE_SHIFT;

		if (known >> 8 == page)
			tries = known & 0xff;
		if (tries >= LAS_UMEM_TRUST)
			continue;
		if (at < addr)
			at = addr;
		if (!(access == LAS_UMEM_READ ? try_read(at) : try_write(at)))
			return false;
		las_store_relaxed(entry, (uint64_t)page << 8 | (tries + 1));
	}
	return true;
}
