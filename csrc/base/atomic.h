/*
 * atomic.h - the atomics in use, with the memory order in each name.
 *
 * Plain integers and pointers are used as operands, so that structures shared
 * with the application (the ring) need no special type.  A release names its
 * acquire in a comment where it stands; a relaxed access says why staleness
 * is harmless there.
 */
#ifndef LAS_BASE_ATOMIC_H
#define LAS_BASE_ATOMIC_H

#define las_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define las_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define las_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define las_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define las_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define las_add_acquire(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQUIRE)
#define las_add_acq_rel(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
#define las_sub_acq_rel(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_ACQ_REL)
#define las_or_acq_rel(p, v) __atomic_fetch_or((p), (v), __ATOMIC_ACQ_REL)
#define las_exchange_acquire(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQUIRE)
#define las_exchange_release(p, v) __atomic_exchange_n((p), (v), __ATOMIC_RELEASE)
#define las_cas_acquire(p, e, v) __atomic_compare_exchange_n((p), (e), (v), 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)
#define las_cas_acq_rel(p, e, v) __atomic_compare_exchange_n((p), (e), (v), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
#define las_cas_relaxed(p, e, v) __atomic_compare_exchange_n((p), (e), (v), 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)
#define las_fence_seq_cst() __atomic_thread_fence(__ATOMIC_SEQ_CST)
/* Orders one thread against its own signal handlers; costs no instruction. */
#define las_fence_signal() __atomic_signal_fence(__ATOMIC_SEQ_CST)

#define las_likely(x) __builtin_expect(!!(x), 1)
#define las_unlikely(x) __builtin_expect(!!(x), 0)

/* One cache line; what one thread writes often stands on a line of its own. */
#define LAS_CACHE_LINE 64
#define LAS_LINE_ALIGNED __attribute__((aligned(LAS_CACHE_LINE)))

static inline void las_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#endif
}

#endif
