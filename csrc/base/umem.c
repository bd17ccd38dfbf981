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

/* The page's entry, or the one of its two that has passed fewer tries and is given up for it. */
static uint64_t *entry_of(enum las_umem_access access, uintptr_t page)
{
	uint64_t *one = &las_umem_known[access][las_umem_slot(page)];
	uint64_t *other = &las_umem_known[access][las_umem_slot(page) ^ 1];
	uint64_t a = las_load_relaxed(one), b = las_load_relaxed(other);

	if (a >> 8 == page || b >> 8 == page)
		return a >> 8 == page ? one : other;
	return (a & 0xff) <= (b & 0xff) ? one : other;
}

bool las_umem_try(enum las_umem_access access, uintptr_t addr, size_t bytes)
{
	uintptr_t last = addr + bytes - 1;

	/* Nothing is mapped at NULL, and the reading call takes a NULL set for "no set". */
	if (last < addr || addr >> LAS_UMEM_PAGE_SHIFT == 0)
		return false;
	for (uintptr_t page = addr >> LAS_UMEM_PAGE_SHIFT; page <= last >> LAS_UMEM_PAGE_SHIFT; page++) {
		uint64_t *entry = entry_of(access, page);
		uint64_t known = las_load_relaxed(entry), tries = known >> 8 == page ? known & 0xff : 0;
		uintptr_t at = page << LAS_UMEM_PAGE_SHIFT;

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
