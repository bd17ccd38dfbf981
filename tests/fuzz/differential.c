/*
 * differential.c - the kernel's AIO and the shim get the same random requests and must give the same answers.
 *
 * Each request exists twice, on two files that were made alike: one for io_submit(2), one for the shim.  What io_submit
 * says must agree, then the event's result, then what was read and what is in the file.  The sequence depends on the
 * seed alone, so a disagreement can be looked at again:
 *
 *   differential KIND                 one kind of file, see --list and kinds.c
 *   LAS_FUZZ_SEED=7 LAS_FUZZ_ROUNDS=100000 LAS_FUZZ_VERBOSE=1 differential KIND
 */
#include "chance.h"
#include "kinds.h"

#include <linux/fs.h>
#include <sys/syscall.h>

#include "libaio_shim.h"

enum { KERNEL, SHIM, SIDES };

static io_context_t ctx[SIDES];
static struct c_place places[SIDES];
static struct k_file files[SIDES];
static const struct k_kind *kind;
static struct c_source source;
static uint64_t round_seed;
static unsigned disagreements;

static const struct iocb *request(int side)
{
	return &places[side].iocb;
}

/* ---- the two sides ---- */

static long submit(int side)
{
	struct iocb *list[1] = { places[side].user };
	long ret;

	if (side == SHIM)
		return las_io_submit(ctx[SHIM], 1, list);
	ret = syscall(SYS_io_submit, ctx[KERNEL], 1, list);
	return ret < 0 ? -errno : ret;
}

static long getevents(int side, struct io_event *event, struct timespec *timeout)
{
	return side == SHIM ? las_io_getevents(ctx[SHIM], 1, 1, event, timeout)
	                    : raw_getevents(ctx[KERNEL], 1, 1, event, timeout);
}

static long cancel(int side)
{
	struct io_event event;
	long ret;

	if (side == SHIM)
		return las_io_cancel(ctx[SHIM], places[SHIM].user, &event);
	ret = syscall(SYS_io_cancel, ctx[KERNEL], places[KERNEL].user, &event);
	return ret < 0 ? -errno : ret;
}

/* ---- comparing ---- */

static const char *text_of(long value)
{
	static char texts[4][32];
	static unsigned next;
	char *text = texts[next++ % 4];
	const char *name = value < 0 && value > -4096 ? strerrorname_np((int)-value) : NULL;

	if (name)
		snprintf(text, sizeof(texts[0]), "-%s", name);
	else
		snprintf(text, sizeof(texts[0]), "%ld", value);
	return text;
}

static void disagree(const char *what, const char *kernel, const char *shim)
{
	const struct iocb *c = request(SHIM);

	if (++disagreements > 20)
		return;
	printf("%s: %s: kernel %s, shim %s; opcode %d rw_flags %#x flags %#x prio %#x offset %lld nbytes %#lx buf %p",
	       kind->name, what, kernel, shim, c->aio_lio_opcode, (unsigned)c->aio_rw_flags, c->u.c.flags,
	       (unsigned short)c->aio_reqprio, c->u.c.offset, c->u.c.nbytes, c->u.c.buf);
	if (c->u.c.buf == places[SHIM].iov)
		for (unsigned i = 0; i < c->u.c.nbytes && i < 4; i++)
			printf(" [%p %#zx]", places[SHIM].iov[i].iov_base, places[SHIM].iov[i].iov_len);
	printf(" arena %p (LAS_FUZZ_SEED=%#lx)\n", places[SHIM].arena, round_seed);
}

static bool is_recycled; /* the number was another file's a moment ago */

static void compare(const char *what, long kernel, long shim)
{
	if (kernel != shim)
		disagree(what, text_of(kernel), text_of(shim));
}

/*
 * What is known to differ at io_submit.  Which error comes first when there are several is not worth a look at the file
 * for each request; LAS_FUZZ_STRICT=1 tells of these too.  A terminal has two wait queues, too many for the kernel's
 * polls.  And the difference number-of-another-file.
 */
static bool is_known(long kernel, long shim)
{
	if (kernel < 0 && shim < 0 && !c_setting("LAS_FUZZ_STRICT", 0))
		return true;
	if (is_recycled && kernel == -EINVAL && shim == 1 && strncmp(kind->name, "proc", 4) == 0)
		return true;
	return kind->is_terminal && request(SHIM)->aio_lio_opcode == 5 && kernel == -EINVAL && shim == 1;
}

/*
 * The event, or LONG_MIN if the request is still pending after a while (a poll); it is cancelled then.  is_due: the
 * other side had its event, and so a while is as long as a busy machine may need.
 */
static long result_of(int side, bool is_due)
{
	struct timespec soon = { 0, 5 * 1000 * 1000 }, later = { 60, 0 };
	struct io_event event;
	bool is_poll = request(side)->aio_lio_opcode == 5;
	long n = getevents(side, &event, is_due ? &later : &soon);

	if (n == 0 && is_poll) {
		long err = cancel(side);

		if (err != -EINPROGRESS)
			disagree("io_cancel of a poll", side == KERNEL ? text_of(err) : "-",
			         side == SHIM ? text_of(err) : "-");
	}
	if (n == 0) {
		if (getevents(side, &event, &later) != 1)
			FAIL("%s: the %s never finishes LAS_FUZZ_SEED=%#lx", kind->name,
			     side == SHIM ? "shim" : "kernel", round_seed);
		if (is_poll)
			return LONG_MIN;
	}
	CHECK(event.obj == places[side].user);
	CHECK(event.data == request(side)->data);
	CHECK_EQ(event.res2, 0);
	return (long)event.res;
}

/* KERNEL: a transfer of nothing is answered by preadv2 itself, before the file is asked. */
static bool is_transfer_of_nothing(void)
{
	return request(SHIM)->aio_lio_opcode != 5 && c_asked_for(&places[SHIM]) == 0;
}

static void compare_results(long kernel, long shim)
{
	/* How much it is may depend on a full buffer, or on the scheduler where nothing may be waited for. */
	bool any_count_will_do = kind->is_terminal || request(SHIM)->aio_rw_flags & RWF_NOWAIT;

	if (shim == 0 && is_transfer_of_nothing())
		return;
	if (any_count_will_do && kernel > 0 && shim > 0)
		return;
	compare("event", kernel, shim);
}

static void compare_memory(void)
{
	if (!kind->random_data && memcmp(places[KERNEL].arena, places[SHIM].arena, C_ARENA) != 0)
		disagree("memory after it", "one", "another");
}

static void compare_files(void)
{
	struct stat st[SIDES];
	char *bytes[SIDES];

	if (!kind->has_content)
		return;
	for (int side = 0; side < SIDES; side++) {
		CHECK_EQ(fstat(files[side].fd, &st[side]), 0);
		bytes[side] = mmap(NULL, 200000, PROT_READ, MAP_SHARED, files[side].fd, 0);
		CHECK(bytes[side] != MAP_FAILED);
	}
	compare("size of the file", st[KERNEL].st_size, st[SHIM].st_size);
	if (st[KERNEL].st_size == st[SHIM].st_size && st[SHIM].st_size <= 200000 &&
	    memcmp(bytes[KERNEL], bytes[SHIM], (size_t)st[SHIM].st_size) != 0)
		disagree("content of the file", "one", "another");
	for (int side = 0; side < SIDES; side++)
		munmap(bytes[side], 200000);
}

/* What has arrived at the other end. */
static void compare_other_ends(void)
{
	static char got[SIDES][C_ARENA];
	long n[SIDES];

	if (files[KERNEL].beside < 0 || kind->is_terminal || is_transfer_of_nothing())
		return;
	for (int side = 0; side < SIDES; side++) {
		n[side] = read(files[side].beside, got[side], C_ARENA);
		if (n[side] < 0)
			n[side] = -errno;
	}
	compare("bytes at the other end", n[KERNEL], n[SHIM]);
	if (n[KERNEL] > 0 && n[KERNEL] == n[SHIM] && memcmp(got[KERNEL], got[SHIM], (size_t)n[SHIM]) != 0)
		disagree("content at the other end", "one", "another");
}

static void add_counts(uint64_t counts[SIDES])
{
	for (int side = 0; side < SIDES; side++) {
		uint64_t more = 0;

		if (read(places[side].eventfd, &more, 8) < 0)
			CHECK_EQ(errno, EAGAIN);
		counts[side] += more;
	}
}

static void compare_eventfds(void)
{
	uint64_t counts[SIDES] = { 0, 0 };

	/* It is raised after the event is visible; a moment after, for what a thread of the shim's did. */
	for (int tries = 0; tries < 100000; tries++) {
		add_counts(counts);
		if (counts[KERNEL] == counts[SHIM])
			return;
		usleep(200);
	}
	compare("count of the eventfd", (long)counts[KERNEL], (long)counts[SHIM]);
}

/* ---- a number that was another file's a moment ago ---- */

static int recycled = -1, others[4];

/* Files that the head lane and the native lane have quick ways for. */
static void open_others(void)
{
	static const char *const paths[] = { "other", "other", "/dev/shm/las-fuzz-other", "other" };
	static const int flags[] = { O_RDWR, O_RDWR | O_APPEND, O_RDWR, O_RDWR | O_DIRECT };

	recycled = t_own(dup(places[SHIM].eventfd));
	for (unsigned i = 0; i < 4; i++) {
		int fd = open(paths[i], flags[i] | O_CREAT | O_CLOEXEC, 0600);

		others[i] = t_own(fd < 0 ? open(paths[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600) : fd);
		CHECK_EQ(ftruncate(others[i], 65536), 0);
	}
	unlink(paths[2]);
}

/* The shim's file comes to stand where another one stood in the request before. */
static void recycle_number(void)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct io_event event;
	struct iocb iocb;
	int other = C_PICK(&source, others);

	CHECK_EQ(dup3(other, recycled, O_CLOEXEC), recycled);
	for (int i = 0; i < 2; i++) {
		if (c_one_in(&source, 2))
			io_prep_pread(&iocb, recycled, page, sizeof(page), 0);
		else
			io_prep_pwrite(&iocb, recycled, page, sizeof(page), 0);
		CHECK_RET(las_io_submit(ctx[SHIM], 1, (struct iocb *[]){ &iocb }), 1);
		CHECK_RET(las_io_getevents(ctx[SHIM], 1, 1, &event, NULL), 1);
		CHECK_EQ(event.res, sizeof(page));
	}
	if (kind->not_ours)
		close(recycled);
	else
		CHECK_EQ(dup3(files[SHIM].fd, recycled, O_CLOEXEC), recycled);
}

static void draw(void)
{
	struct c_place *const both[SIDES] = { &places[KERNEL], &places[SHIM] };
	uint64_t unused[SIDES] = { 0, 0 };

	round_seed = source.state;
	for (int side = 0; side < SIDES; side++) {
		if (!k_open(kind, &files[side], side))
			SKIP("n/a: no file of this kind here: %s", strerror(errno));
		places[side].fd = files[side].fd;
		memset(places[side].arena, 0x5a, C_ARENA);
	}
	add_counts(unused);
	is_recycled = c_one_in(&source, 2);
	if (is_recycled)
		places[SHIM].fd = recycled;
	c_request(&source, both, SIDES);
	if (c_setting("LAS_FUZZ_VERBOSE", 0))
		printf("LAS_FUZZ_SEED=%#lx opcode %d\n", round_seed, request(SHIM)->aio_lio_opcode);
}

static void one_round(void)
{
	long ret[SIDES], res[SIDES] = { 0, 0 };

	draw();
	if (is_recycled)
		recycle_number();
	for (int side = 0; side < SIDES; side++)
		ret[side] = submit(side);
	if (!is_known(ret[KERNEL], ret[SHIM]))
		compare("io_submit", ret[KERNEL], ret[SHIM]);
	for (int side = 0; side < SIDES; side++)
		if (ret[side] == 1)
			res[side] = result_of(side, side == SHIM && ret[KERNEL] == 1 && res[KERNEL] != LONG_MIN);
	if (ret[KERNEL] == 1 && ret[SHIM] == 1) {
		compare_results(res[KERNEL], res[SHIM]);
		if (res[KERNEL] == res[SHIM]) {
			compare_memory();
			compare_files();
		}
		compare_other_ends();
		compare_eventfds();
		compare("key", places[KERNEL].user->key, places[SHIM].user->key);
	}
	for (int side = 0; side < SIDES; side++)
		k_close(kind, &files[side]);
	/* The other end must see that nobody is left, and a lease or a lock must go. */
	if (is_recycled)
		CHECK_EQ(dup3(others[0], recycled, O_CLOEXEC), recycled);
}

static void fuzz(void)
{
	uint64_t rounds = c_setting("LAS_FUZZ_ROUNDS", 1000);

	source.state = c_setting("LAS_FUZZ_SEED", 1);
	signal(SIGPIPE, SIG_IGN);
	if (syscall(SYS_io_setup, 128, &ctx[KERNEL]) < 0)
		SKIP("n/a: the kernel has no AIO to compare with");
	CHECK_RET(las_io_setup(128, &ctx[SHIM]), 0);
	for (int side = 0; side < SIDES; side++) {
		c_place_init(&places[side]);
		places[side].eventfd = t_own(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
	}
	open_others();
	for (uint64_t i = 0; i < rounds && disagreements < 200; i++)
		one_round();
	CHECK_RET(las_io_destroy(ctx[SHIM]), 0);
	syscall(SYS_io_destroy, ctx[KERNEL]);
	if (disagreements)
		FAIL("%u disagreements in %lu rounds", disagreements, rounds);
}

/* ---- each kind of file is a case ---- */

static void run_named(void)
{
	char arguments[4096];
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, arguments, sizeof(arguments) - 1);
	const char *name;

	CHECK(n > 0);
	close(fd);
	arguments[n] = 0;
	name = arguments + strlen(arguments) + 1;
	for (unsigned i = 0; i < k_kind_count; i++)
		if (strcmp(k_kinds[i].name, name) == 0)
			kind = &k_kinds[i];
	CHECK(kind != NULL);
	fuzz();
}

__attribute__((constructor)) static void register_kinds(void)
{
	static struct t_case cases[64];

	CHECK(k_kind_count <= 64);
	for (unsigned i = 0; i < k_kind_count; i++) {
		cases[i] = (struct t_case){ .name = k_kinds[i].name, .run = run_named };
		t_register(&cases[i]);
	}
}
