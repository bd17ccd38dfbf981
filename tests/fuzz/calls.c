/*
 * calls.c - every call with every kind of argument, from one thread and from several.
 *
 * Nothing may crash; each answer is one that the kernel has for that call; and each accepted request has exactly one
 * end: its event, its withdrawal by io_cancel, or io_destroy.  The sequence of one thread depends on the seed alone:
 *
 *   LAS_FUZZ_SEED=7 LAS_FUZZ_ROUNDS=1000000 calls random_calls_from_one_thread
 */
#include "chance.h"
#include "kinds.h"

#include <limits.h>

#include "libaio_shim.h"

#define CONTEXTS 6
#define REQUESTS (1u << 20)
#define THREADS 4
#define LENGTH 24 /* of one submission, at most */

/* One number per request: which context has it, or that it has ended. */
enum { UNUSED = 0, ENDED = 255 };
static uint8_t *fates;
static unsigned numbers;

struct handle {
	io_context_t ctx;
	pthread_rwlock_t lock; /* written by whoever replaces it */
};

static struct handle handles[CONTEXTS];
struct fuzzer {
	struct c_source source;
	struct c_place *places;
	struct k_file file;
	const struct k_kind *kind;
	struct io_event *events;
};

static void set_fate(unsigned number, uint8_t expected, uint8_t fate)
{
	CHECK(number < REQUESTS);
	if (!__atomic_compare_exchange_n(&fates[number], &expected, fate, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		FAIL("request %u is in state %u", number, expected);
}

static void ended(const struct io_event *event, unsigned slot)
{
	unsigned number = (unsigned)(uintptr_t)event->data;

	CHECK_EQ(event->res2, 0);
	set_fate(number, (uint8_t)(slot + 1), ENDED);
}

static bool among(long value, const int *allowed, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (value == -allowed[i])
			return true;
	return false;
}

#define CHECK_ERROR(value, ...)                                                            \
	do {                                                                               \
		static const int allowed[] = { __VA_ARGS__ };                              \
		long got = (value);                                                        \
		if (got < 0 && !among(got, allowed, sizeof(allowed) / sizeof(allowed[0]))) \
			FAIL("%s says %s", #value, strerrorname_np((int)-got));            \
	} while (0)

/* ---- arguments ---- */

/* Anything but a live context. */
static io_context_t wild_handle(struct c_source *source, char *arena)
{
	uint64_t live = (uint64_t)(uintptr_t)__atomic_load_n(&handles[c_below(source, CONTEXTS)].ctx, __ATOMIC_RELAXED);

	switch (c_below(source, 9)) {
	case 0:
		return NULL;
	case 1:
		return (io_context_t)(uintptr_t)(live + 4096 / 2);
	case 2:
		return (io_context_t)(uintptr_t)(live ^ 1);
	case 3:
		return (io_context_t)(uintptr_t)(live + 8);
	case 4:
		return (io_context_t)(void *)c_unmapped();
	case 5:
		return (io_context_t)(void *)arena;
	case 6:
		return (io_context_t)(uintptr_t)c_next(source);
	case 7:
		return (io_context_t)(uintptr_t)c_below(source, 70000);
	default:
		return (io_context_t)(void *)source;
	}
}

static long wild_number(struct c_source *source)
{
	static const long numbers_to_try[] = { 0,  1,        2,        3,       7,        64,       1000,
		                               -1, LONG_MIN, LONG_MAX, INT_MAX, 1l << 31, 1l << 32, 1l << 40 };

	return C_PICK(source, numbers_to_try);
}

/* ---- the calls ---- */

static void try_setup(struct fuzzer *f, unsigned slot)
{
	static const unsigned sizes[] = { 1, 2, 7, 64, 128, 500, 3000 };
	struct handle *h = &handles[slot];
	io_context_t made = NULL;
	long ret;

	if (c_one_in(&f->source, 4)) {
		io_context_t full = (io_context_t)(void *)f;

		CHECK_RET(las_io_setup(c_one_in(&f->source, 2) ? 0 : (unsigned)INT_MAX, &made), -EINVAL);
		CHECK_RET(las_io_setup(1, &full), -EINVAL);
		CHECK_RET(las_io_setup(1, (io_context_t *)(void *)c_unmapped()), -EFAULT);
		CHECK_RET(las_io_setup(0, NULL), -EFAULT);
		return;
	}
	ret = las_io_setup(C_PICK(&f->source, sizes), &made);
	CHECK_ERROR(ret, EAGAIN);
	if (ret)
		return;
	pthread_rwlock_wrlock(&h->lock);
	if (h->ctx) {
		pthread_rwlock_unlock(&h->lock);
		CHECK_RET(las_io_destroy(made), 0);
		return;
	}
	__atomic_store_n(&h->ctx, made, __ATOMIC_RELAXED);
	pthread_rwlock_unlock(&h->lock);
}

/* Whatever the context still had is over when io_destroy returns. */
static void try_destroy(struct fuzzer *f, unsigned slot)
{
	struct handle *h = &handles[slot];
	io_context_t ctx;

	if (!c_one_in(&f->source, 3)) {
		CHECK_RET(las_io_destroy(wild_handle(&f->source, f->places->arena)), -EINVAL);
		return;
	}
	pthread_rwlock_wrlock(&h->lock);
	ctx = h->ctx;
	if (ctx) {
		CHECK_RET(las_io_destroy(ctx), 0);
		CHECK_RET(las_io_destroy(ctx), -EINVAL);
		__atomic_store_n(&h->ctx, NULL, __ATOMIC_RELAXED);
		for (unsigned i = 0; i < __atomic_load_n(&numbers, __ATOMIC_SEQ_CST); i++)
			if (__atomic_load_n(&fates[i], __ATOMIC_SEQ_CST) == slot + 1)
				set_fate(i, (uint8_t)(slot + 1), ENDED);
	}
	pthread_rwlock_unlock(&h->lock);
}

static void draw_batch(struct fuzzer *f, unsigned n, struct iocb **list, unsigned *first)
{
	*first = __atomic_fetch_add(&numbers, n, __ATOMIC_SEQ_CST);
	if (*first + n >= REQUESTS)
		FAIL("too many rounds");
	for (unsigned i = 0; i < n; i++) {
		struct c_place *one = &f->places[i];

		one->fd = f->file.fd;
		one->eventfd = f->places->eventfd;
		c_request(&f->source, &one, 1);
		one->iocb.data = (void *)(uintptr_t)(*first + i);
		/* The copy that can only be read was made before; it is refused in any case. */
		list[i] = one->user;
	}
	if (c_one_in(&f->source, 30))
		list[c_below(&f->source, n)] =
			c_one_in(&f->source, 2) ? NULL : (struct iocb *)(uintptr_t)c_next(&f->source);
}

/* What comes back as a result has no event. */
static long submit(struct fuzzer *f, unsigned slot, unsigned n, struct iocb **list, unsigned first)
{
	long ret;

	if (n > 1 || c_one_in(&f->source, 2))
		return las_io_submit(handles[slot].ctx, (long)n, list);
	ret = las_io_submit_one(handles[slot].ctx, list[0]);
	if (ret < 0)
		return ret == LAS_SUBMITTED ? 1 : ret;
	set_fate(first, (uint8_t)(slot + 1), ENDED);
	return 1;
}

static void try_submit(struct fuzzer *f, unsigned slot)
{
	struct iocb *list[LENGTH];
	struct handle *h = &handles[slot];
	unsigned n = 1 + c_below(&f->source, LENGTH - 1), first;
	long ret;

	if (c_one_in(&f->source, 10)) {
		struct iocb **bad = c_one_in(&f->source, 2) ? NULL : (struct iocb **)(void *)c_unmapped();
		long nr = wild_number(&f->source);
		io_context_t wild = wild_handle(&f->source, f->places->arena);

		CHECK_RET(las_io_submit(wild, nr, bad), -EINVAL);
		CHECK_RET(las_io_submit_one(wild, (struct iocb *)(void *)bad), -EINVAL);
		return;
	}
	draw_batch(f, n, list, &first);
	pthread_rwlock_rdlock(&h->lock);
	if (h->ctx) {
		/* Before the call: an event may be reaped by another thread while io_submit runs. */
		for (unsigned i = 0; i < n; i++)
			set_fate(first + i, UNUSED, (uint8_t)(slot + 1));
		ret = submit(f, slot, n, list, first);
		CHECK_ERROR(ret, EINVAL, EFAULT, EBADF, EAGAIN, EOPNOTSUPP, EPERM);
		CHECK(ret != 0 && ret <= (long)n);
		for (unsigned i = ret < 0 ? 0 : (unsigned)ret; i < n; i++)
			set_fate(first + i, (uint8_t)(slot + 1), ENDED);
	}
	pthread_rwlock_unlock(&h->lock);
}

static void try_getevents(struct fuzzer *f, unsigned slot)
{
	struct timespec timeout = { 0, c_below(&f->source, 300000) };
	struct handle *h = &handles[slot];
	long min = c_below(&f->source, 3), nr = 1 + c_below(&f->source, 40), ret;

	if (c_one_in(&f->source, 5)) {
		io_context_t wild = wild_handle(&f->source, f->places->arena);

		ret = las_io_getevents(wild, wild_number(&f->source), wild_number(&f->source), f->events, &timeout);
		CHECK_RET(ret, -EINVAL);
		CHECK_RET(las_io_getevents(wild, 0, 1, f->events, (struct timespec *)(void *)c_unmapped()), -EFAULT);
		return;
	}
	pthread_rwlock_rdlock(&h->lock);
	if (h->ctx) {
		sigset_t mask;

		sigemptyset(&mask);
		CHECK_RET(las_io_getevents(h->ctx, 2, 1, f->events, NULL), -EINVAL);
		CHECK_RET(las_io_getevents(h->ctx, -1, 1, f->events, NULL), -EINVAL);
		ret = las_io_getevents(h->ctx, 0, nr, (struct io_event *)(void *)c_unmapped(), NULL);
		CHECK(ret == 0 || ret == -EFAULT);
		if (c_one_in(&f->source, 4))
			ret = las_io_pgetevents(h->ctx, min, min + nr, f->events, &timeout, &mask, 8);
		else
			ret = las_io_getevents(h->ctx, min, min + nr, f->events, &timeout);
		CHECK_ERROR(ret, EINTR);
		CHECK(ret <= min + nr);
		for (long i = 0; i < ret; i++)
			ended(&f->events[i], slot);
	}
	pthread_rwlock_unlock(&h->lock);
}

static void try_cancel(struct fuzzer *f, unsigned slot)
{
	struct c_place *place = &f->places[c_below(&f->source, LENGTH)];
	struct handle *h = &handles[slot];
	struct io_event event;
	long ret;

	if (c_one_in(&f->source, 5)) {
		io_context_t wild = wild_handle(&f->source, f->places->arena);

		CHECK_RET(las_io_cancel(wild, NULL, &event), -EFAULT);
		CHECK_RET(las_io_cancel(wild, &place->iocb, &event), -EINVAL);
		return;
	}
	pthread_rwlock_rdlock(&h->lock);
	if (h->ctx) {
		place->iocb.key = 0;
		ret = las_io_cancel(h->ctx, &place->iocb, &event);
		CHECK_ERROR(ret, EINVAL, EINPROGRESS);
		if (ret == 0) {
			CHECK(event.obj == &place->iocb);
			ended(&event, slot);
		}
	}
	pthread_rwlock_unlock(&h->lock);
}

static void try_others(struct fuzzer *f, unsigned slot)
{
	struct handle *h = &handles[slot];
	struct las_stats stats;

	CHECK_EQ(las_io_owns(wild_handle(&f->source, f->places->arena)), 0);
	pthread_rwlock_rdlock(&h->lock);
	if (h->ctx)
		CHECK_EQ(las_io_owns(h->ctx), 1);
	pthread_rwlock_unlock(&h->lock);
	CHECK(las_stats_get(&stats, sizeof(stats)) == sizeof(stats));
}

static void one_round(struct fuzzer *f)
{
	unsigned slot = c_below(&f->source, CONTEXTS);

	/* Another file now and then, requests for the old one still under way. */
	if (!f->kind || c_one_in(&f->source, 4)) {
		if (f->kind)
			k_close(f->kind, &f->file);
		do
			f->kind = &k_kinds[c_below(&f->source, k_kind_count)];
		while (!k_open(f->kind, &f->file, (int)(uintptr_t)f & 0xffff));
	}
	switch (c_below(&f->source, 16)) {
	case 0:
	case 1:
		try_setup(f, slot);
		break;
	case 2:
		try_destroy(f, slot);
		break;
	case 3:
		try_cancel(f, slot);
		break;
	case 4:
		try_others(f, slot);
		break;
	case 5:
	case 6:
	case 7:
	case 8:
	case 9:
		try_getevents(f, slot);
		break;
	default:
		try_submit(f, slot);
		break;
	}
}

static void init_fuzzer(struct fuzzer *f, unsigned number)
{
	memset(f, 0, sizeof(*f));
	f->source.state = c_setting("LAS_FUZZ_SEED", 1) + number * 1000003;
	f->places = calloc(LENGTH, sizeof(*f->places));
	f->events = calloc(2048, sizeof(*f->events));
	for (unsigned i = 0; i < LENGTH; i++)
		c_place_init(&f->places[i]);
	f->places->eventfd = t_own(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

static void *run_fuzzer(void *arg)
{
	struct fuzzer *f = arg;
	uint64_t rounds = c_setting("LAS_FUZZ_ROUNDS", 4000);

	for (uint64_t i = 0; i < rounds; i++)
		one_round(f);
	if (f->kind)
		k_close(f->kind, &f->file);
	return NULL;
}

static void prepare(void)
{
	signal(SIGPIPE, SIG_IGN);
	fates = mmap(NULL, REQUESTS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(fates != MAP_FAILED);
	for (int i = 0; i < CONTEXTS; i++)
		pthread_rwlock_init(&handles[i].lock, NULL);
}

static void finish(struct fuzzer *f)
{
	for (unsigned slot = 0; slot < CONTEXTS; slot++) {
		io_context_t ctx = handles[slot].ctx;
		struct timespec timeout = { 0, 1000 * 1000 };
		long n;

		if (!ctx)
			continue;
		while ((n = las_io_getevents(ctx, 1, 2048, f->events, &timeout)) > 0)
			for (long i = 0; i < n; i++)
				ended(&f->events[i], slot);
		CHECK_RET(las_io_destroy(ctx), 0);
	}
}

TEST(random_calls_from_one_thread)
{
	static struct fuzzer f;

	prepare();
	init_fuzzer(&f, 0);
	run_fuzzer(&f);
	finish(&f);
}

TEST(random_calls_from_many_threads)
{
	static struct fuzzer f[THREADS];
	pthread_t threads[THREADS];

	prepare();
	for (unsigned i = 0; i < THREADS; i++) {
		init_fuzzer(&f[i], i);
		threads[i] = t_thread(run_fuzzer, &f[i]);
	}
	for (int i = 0; i < THREADS; i++)
		t_join(threads[i]);
	finish(&f[0]);
}
