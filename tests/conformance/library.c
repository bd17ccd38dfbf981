/* library.c - libaio as a library: names and versions, the queue calls, loading, static constructors, the helpers. */
#include "las_test.h"

#include <dlfcn.h>
#include <poll.h>

TEST(expected_library_answers)
{
	Dl_info info;
	const char *base;

	/* The harness has compared is_shim() with what the run expects; here: the answering object itself. */
	CHECK(dladdr(dlsym(RTLD_DEFAULT, "io_submit"), &info) != 0);
	base = strrchr(info.dli_fname, '/');
	base = base ? base + 1 : info.dli_fname;
	if (strncmp(base, "libaio.so.1", 11))
		FAIL("io_submit comes from %s", info.dli_fname);
	if (is_shim()) {
		CHECK(dladdr(dlsym(RTLD_DEFAULT, "las_io_submit"), &info) != 0);
		CHECK(strstr(info.dli_fname, "libaio_shim.so.0") != NULL);
	}
}

TEST(statistics_prove_who_answered)
{
	char text[1024] = "";
	int status, fd;

	setenv("LIBAIO_SHIM_STATS", "stats.json", 1);
	status = t_again("a_read_and_a_write");
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
	fd = open("stats.json", O_RDONLY);
	if (!is_shim()) {
		CHECK(fd < 0);
		return;
	}
	t_own(fd);
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	CHECK(strstr(text, "\"libaio_shim\"") != NULL);
	CHECK(strstr(text, "\"submitted\":2") != NULL);
	CHECK(strchr(text, '\n') == text + strlen(text) - 1);
}

TEST(helper_makes_no_context)
{
}

TEST(process_without_contexts_writes_no_statistics)
{
	setenv("LIBAIO_SHIM_STATS", "stats.json", 1);
	CHECK(WIFEXITED(t_again("helper_makes_no_context")));
	CHECK(access("stats.json", F_OK) != 0);
}

TEST(a_read_and_a_write)
{
	io_context_t ctx = t_context(8);
	int fd = t_file("data", 64);
	char byte = 'x';

	CHECK_RET(t_pwrite(ctx, fd, &byte, 1, 3), 1);
	CHECK_RET(t_pread(ctx, fd, &byte, 1, 3), 1);
	CHECK_EQ(byte, 'x');
}

TEST(every_versioned_symbol_is_there)
{
	static const char *const symbols[][2] = {
		{ "io_queue_init", "LIBAIO_0.1" },    { "io_queue_run", "LIBAIO_0.1" },
		{ "io_queue_release", "LIBAIO_0.1" }, { "io_submit", "LIBAIO_0.1" },
		{ "io_cancel", "LIBAIO_0.1" },        { "io_getevents", "LIBAIO_0.1" },
		{ "io_queue_wait", "LIBAIO_0.1" },    { "io_setup", "LIBAIO_0.4" },
		{ "io_destroy", "LIBAIO_0.4" },       { "io_cancel", "LIBAIO_0.4" },
		{ "io_getevents", "LIBAIO_0.4" },     { "io_queue_wait", "LIBAIO_0.4" },
		{ "io_pgetevents", "LIBAIO_0.5" },
	};
	Dl_info info;
	void *library;

	CHECK(dladdr(dlsym(RTLD_DEFAULT, "io_submit"), &info) != 0);
	library = dlopen(info.dli_fname, RTLD_NOW);
	CHECK(library != NULL);
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++)
		if (!dlvsym(library, symbols[i][0], symbols[i][1]))
			FAIL("no %s@%s", symbols[i][0], symbols[i][1]);
	CHECK(dlvsym(library, "io_setup", "LIBAIO_0.1") == NULL);
	CHECK(dlvsym(library, "io_pgetevents", "LIBAIO_0.4") == NULL);
	CHECK(dlsym(library, "io_cancel") == dlvsym(library, "io_cancel", "LIBAIO_0.4"));
	CHECK(dlsym(library, "io_getevents") == dlvsym(library, "io_getevents", "LIBAIO_0.4"));
	CHECK(dlsym(library, "io_queue_wait") == dlvsym(library, "io_queue_wait", "LIBAIO_0.4"));
	dlclose(library);
}

static struct iocb *cached_read(void)
{
	static struct iocb iocb;
	static char buf[16];

	io_prep_pread(&iocb, t_file("data", 4096), buf, sizeof(buf), 0);
	return &iocb;
}

TEST(old_getevents_takes_no_minimum)
{
	io_context_t ctx = t_context(8);
	int (*old)(io_context_t, long, struct io_event *, const struct timespec *) =
		(int (*)(io_context_t, long, struct io_event *, const struct timespec *))(uintptr_t)dlvsym(
			RTLD_DEFAULT, "io_getevents", "LIBAIO_0.1");
	struct timespec wait = { 0, 1000000 };
	struct io_event events[4];

	CHECK(old != NULL);
	CHECK_RET(old(ctx, 4, events, &wait), 0);
	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(old(ctx, 4, events, NULL), 1);
	CHECK_EQ(t_res(&events[0]), 16);
}

TEST(old_cancel_takes_no_result)
{
	io_context_t ctx = t_context(8);
	int (*old)(io_context_t, struct iocb *) =
		(int (*)(io_context_t, struct iocb *))(uintptr_t)dlvsym(RTLD_DEFAULT, "io_cancel", "LIBAIO_0.1");
	struct iocb unknown;

	CHECK(old != NULL);
	memset(&unknown, 0, sizeof(unknown));
	CHECK_RET(old(ctx, &unknown), -EINVAL);
}

TEST(queue_wait_is_getevents_of_nothing)
{
	io_context_t ctx = t_context(8);
	int (*wait_new)(io_context_t, struct timespec *) = (int (*)(io_context_t, struct timespec *))(uintptr_t)dlvsym(
		RTLD_DEFAULT, "io_queue_wait", "LIBAIO_0.4");
	int (*wait_old)(io_context_t, struct timespec *) = (int (*)(io_context_t, struct timespec *))(uintptr_t)dlvsym(
		RTLD_DEFAULT, "io_queue_wait", "LIBAIO_0.1");
	struct timespec wait = { 0, 1000000 };

	CHECK(wait_new != NULL && wait_old != NULL);
	CHECK_RET(wait_new(ctx, &wait), 0);
	CHECK_RET(wait_old(ctx, &wait), 0);
	CHECK_RET(t_submit(ctx, cached_read()), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(wait_new(ctx, &wait), 0);
	CHECK_RET(wait_old(ctx, &wait), 0);
	CHECK_EQ(t_ring_count(ctx), 1);
}

TEST(queue_init_overwrites_garbage)
{
	io_context_t ctx = (io_context_t)(uintptr_t)0xdeadbeef;
	char byte;

	CHECK_RET(io_queue_init(8, &ctx), 0);
	CHECK_RET(t_pread(ctx, t_file("data", 64), &byte, 1, 0), 1);
	CHECK_RET(io_queue_release(ctx), 0);
	CHECK_RET(io_queue_release(ctx), -EINVAL);
}

TEST(queue_init_of_no_events_is_einval)
{
	io_context_t ctx = (io_context_t)(uintptr_t)0xdeadbeef;

	CHECK_RET(io_queue_init(0, &ctx), -EINVAL);
	CHECK_RET(io_queue_init(-1, &ctx), -EINVAL);
}

static int callbacks;
static long callback_res, callback_res2;
static struct iocb *callback_iocb;
static io_context_t callback_ctx;

static void count_callback(io_context_t ctx, struct iocb *iocb, long res, long res2)
{
	callbacks++;
	callback_ctx = ctx;
	callback_iocb = iocb;
	callback_res = res;
	callback_res2 = res2;
}

TEST(queue_run_calls_back)
{
	io_context_t ctx = t_context(8);
	struct iocb *iocb = cached_read();

	io_set_callback(iocb, count_callback);
	CHECK_RET(io_queue_run(ctx), 0);
	CHECK_EQ(callbacks, 0);
	for (int i = 0; i < 5; i++) {
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_ring_wait(ctx, (unsigned)i + 1);
	}
	CHECK_RET(io_queue_run(ctx), 0);
	CHECK_EQ(callbacks, 5);
	CHECK(callback_ctx == ctx);
	CHECK(callback_iocb == iocb);
	CHECK_EQ(callback_res, 16);
	CHECK_EQ(callback_res2, 0);
	CHECK_RET(io_queue_run(ctx), 0);
	CHECK_EQ(callbacks, 5);
}

static void submit_again(io_context_t ctx, struct iocb *iocb, long res, long res2)
{
	if (++callbacks < 10) {
		CHECK_RET(t_submit(ctx, iocb), 1);
		t_ring_wait(ctx, 1);
	}
}

TEST(queue_run_callbacks_may_submit)
{
	io_context_t ctx = t_context(8);
	struct iocb *iocb = cached_read();

	io_set_callback(iocb, submit_again);
	CHECK_RET(t_submit(ctx, iocb), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_queue_run(ctx), 0);
	CHECK_EQ(callbacks, 10);
}

TEST(structures_have_the_kernels_layout)
{
	CHECK_EQ(sizeof(struct iocb), 64);
	CHECK_EQ(offsetof(struct iocb, data), 0);
	CHECK_EQ(offsetof(struct iocb, key), 8);
	CHECK_EQ(offsetof(struct iocb, aio_rw_flags), 12);
	CHECK_EQ(offsetof(struct iocb, aio_lio_opcode), 16);
	CHECK_EQ(offsetof(struct iocb, aio_reqprio), 18);
	CHECK_EQ(offsetof(struct iocb, aio_fildes), 20);
	CHECK_EQ(offsetof(struct iocb, u.c.buf), 24);
	CHECK_EQ(offsetof(struct iocb, u.c.nbytes), 32);
	CHECK_EQ(offsetof(struct iocb, u.c.offset), 40);
	CHECK_EQ(offsetof(struct iocb, u.c.flags), 56);
	CHECK_EQ(offsetof(struct iocb, u.c.resfd), 60);
	CHECK_EQ(offsetof(struct iocb, u.poll.events), 24);
	CHECK_EQ(sizeof(struct io_event), 32);
	CHECK_EQ(offsetof(struct io_event, data), 0);
	CHECK_EQ(offsetof(struct io_event, obj), 8);
	CHECK_EQ(offsetof(struct io_event, res), 16);
	CHECK_EQ(offsetof(struct io_event, res2), 24);
}

TEST(helpers_clear_what_they_do_not_set)
{
	struct iocb iocb;
	char buf[8];

	memset(&iocb, 0xff, sizeof(iocb));
	io_prep_pread(&iocb, 5, buf, 8, 7);
	CHECK(iocb.data == NULL);
	CHECK_EQ(iocb.key, 0);
	CHECK_EQ(iocb.aio_rw_flags, 0);
	CHECK_EQ(iocb.aio_lio_opcode, IO_CMD_PREAD);
	CHECK_EQ(iocb.aio_reqprio, 0);
	CHECK_EQ(iocb.aio_fildes, 5);
	CHECK(iocb.u.c.buf == buf);
	CHECK_EQ(iocb.u.c.nbytes, 8);
	CHECK_EQ(iocb.u.c.offset, 7);
	CHECK_EQ(iocb.u.c.flags, 0);
	CHECK_EQ(iocb.u.c.resfd, 0);
	memset(&iocb, 0xff, sizeof(iocb));
	io_prep_fdsync(&iocb, 6);
	CHECK_EQ(iocb.aio_lio_opcode, IO_CMD_FDSYNC);
	CHECK_EQ(iocb.u.c.nbytes, 0);
	io_set_eventfd(&iocb, 9);
	CHECK_EQ(iocb.u.c.flags, T_FLAG_RESFD);
	CHECK_EQ(iocb.u.c.resfd, 9);
}

TEST(submitting_helpers_submit)
{
	io_context_t ctx = t_context(8);
	struct iocb sync, dsync, poll;
	int fd = t_file("data", 64);
	struct io_event events[3];

	CHECK_RET(io_fsync(ctx, &sync, count_callback, fd), 1);
	CHECK_RET(io_fdsync(ctx, &dsync, count_callback, fd), 1);
	CHECK_RET(io_poll(ctx, &poll, count_callback, fd, POLLIN), 1);
	t_reap(ctx, 3, events);
	for (int i = 0; i < 3; i++)
		CHECK(events[i].data == (void *)(uintptr_t)count_callback);
}

/* ---- loading ---- */

static int constructor_answer = -1;
static char constructor_byte;

__attribute__((constructor)) static void use_aio_early(void)
{
	io_context_t ctx = NULL;
	struct iocb iocb, *list = &iocb;
	struct io_event event;
	int fd;

	if (!getenv("LAS_TEST_CONSTRUCTOR"))
		return;
	fd = open("/proc/self/exe", O_RDONLY);
	io_prep_pread(&iocb, fd, &constructor_byte, 1, 1);
	constructor_answer = io_setup(8, &ctx);
	if (!constructor_answer)
		constructor_answer = io_submit(ctx, 1, &list) == 1 ? 0 : -1;
	if (!constructor_answer)
		constructor_answer = io_getevents(ctx, 1, 1, &event, NULL) == 1 ? 0 : -1;
	if (!constructor_answer)
		constructor_answer = io_destroy(ctx);
	close(fd);
}

TEST(helper_used_aio_in_its_constructor)
{
	if (!getenv("LAS_TEST_CONSTRUCTOR"))
		return;
	CHECK_EQ(constructor_answer, 0);
	CHECK_EQ(constructor_byte, 'E');
}

TEST(static_constructor_uses_aio)
{
	int status;

	setenv("LAS_TEST_CONSTRUCTOR", "1", 1);
	status = t_again("helper_used_aio_in_its_constructor");
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

static int use_in_module(const char *path)
{
	void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	int (*use)(int);
	int answer, fd;

	if (!module)
		FAIL("%s", dlerror());
	/* Its constructor has used AIO while dlopen held the loader's lock. */
	answer = *(int *)dlsym(module, "module_constructor_answer");
	CHECK_EQ(answer, 0);
	use = (int (*)(int))(uintptr_t)dlsym(module, "module_read");
	CHECK(use != NULL);
	fd = t_file("module-data", 4096);
	answer = use(fd);
	t_close(fd);
	CHECK_EQ(dlclose(module), 0);
	return answer;
}

TEST(dlopened_module_uses_aio_in_its_constructor)
{
	CHECK_EQ(use_in_module(t_directory("LAS_TEST_MODULE")), 4096);
}

TEST(module_can_be_loaded_and_closed_many_times)
{
	for (int i = 0; i < 20; i++)
		CHECK_EQ(use_in_module(t_directory("LAS_TEST_MODULE")), 4096);
}

TEST(dlopen_by_name_finds_the_same_library)
{
	void *library;
	Dl_info mine, theirs;

	CHECK(dladdr(dlsym(RTLD_DEFAULT, "io_submit"), &mine) != 0);
	library = dlopen(strrchr(mine.dli_fname, '/') + 1, RTLD_NOW);
	if (!library)
		library = dlopen("libaio.so.1", RTLD_NOW);
	if (!library)
		FAIL("%s", dlerror());
	CHECK(dladdr(dlsym(library, "io_submit"), &theirs) != 0);
	CHECK(!strcmp(mine.dli_fname, theirs.dli_fname));
	CHECK_EQ(dlclose(library), 0);
}

static void *load_and_use(void *arg)
{
	void *library = dlopen(arg, RTLD_NOW | RTLD_LOCAL);
	int (*setup)(int, io_context_t *);
	io_context_t ctx = NULL;

	CHECK(library != NULL);
	setup = (int (*)(int, io_context_t *))(uintptr_t)dlsym(library, "io_setup");
	CHECK(setup != NULL);
	CHECK_RET(setup(8, &ctx), 0);
	CHECK_RET(io_destroy(ctx), 0);
	CHECK_EQ(dlclose(library), 0);
	return NULL;
}

TEST(library_loaded_in_many_threads_at_once)
{
	pthread_t threads[8];
	Dl_info info;

	CHECK(dladdr(dlsym(RTLD_DEFAULT, "io_submit"), &info) != 0);
	for (int i = 0; i < 8; i++)
		threads[i] = t_thread(load_and_use, (void *)(uintptr_t)info.dli_fname);
	for (int i = 0; i < 8; i++)
		t_join(threads[i]);
}

/* Both the facade and the system's libaio are loaded: neither may take the other's handles for its own. */
TEST(two_libraries_in_one_process)
{
	const char *path = getenv("LAS_TEST_SYSTEM_LIBAIO");
	void *library;
	int (*setup)(int, io_context_t *), (*destroy)(io_context_t);
	int (*getevents)(io_context_t, long, long, struct io_event *, struct timespec *);
	int (*submit)(io_context_t, long, struct iocb **);
	io_context_t theirs = NULL, ours;
	struct iocb *iocb = cached_read();
	struct io_event event;

	if (!path)
		SKIP("no system libaio");
	library = dlmopen(LM_ID_BASE, path, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		FAIL("%s", dlerror());
	setup = (int (*)(int, io_context_t *))(uintptr_t)dlsym(library, "io_setup");
	destroy = (int (*)(io_context_t))(uintptr_t)dlsym(library, "io_destroy");
	submit = (int (*)(io_context_t, long, struct iocb **))(uintptr_t)dlsym(library, "io_submit");
	getevents = (int (*)(io_context_t, long, long, struct io_event *, struct timespec *))(uintptr_t)dlsym(
		library, "io_getevents");
	ours = t_context(8);
	if (setup(8, &theirs))
		SKIP("n/a: the kernel gives no AIO here");
	CHECK_RET(t_submit(ours, iocb), 1);
	CHECK_RET(t_reap_one(ours), 16);
	CHECK_RET(submit(theirs, 1, &iocb), 1);
	CHECK_RET(getevents(theirs, 1, 1, &event, NULL), 1);
	CHECK_RET(destroy(theirs), 0);
	CHECK_RET(t_submit(ours, iocb), 1);
	CHECK_RET(t_reap_one(ours), 16);
	CHECK_EQ(dlclose(library), 0);
}

TEST(empty_ring_and_zero_timeout_still_check_arguments)
{
	int expected = DIFFERS("empty-ring-shortcut") ? -EINVAL : 0;
	struct timespec none = { 0, 0 };
	io_context_t ctx = t_context(1);
	struct io_event event;

	CHECK_RET(raw_getevents(ctx, 2, 1, &event, &none), -EINVAL);
	CHECK_RET(io_getevents(ctx, 2, 1, &event, &none), expected);
	CHECK_RET(io_getevents(ctx, 0, -1, &event, &none), expected);
}
