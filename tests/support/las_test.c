/*
 * las_test.c - the harness behind las_test.h.  It knows nothing of the shim's inside: it is compiled into programs that
 * run on the system's libaio just as well.
 */
#include "las_test.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/syscall.h>

static struct t_case *cases;
static struct t_case **cases_end = &cases;
static int owned[4096];
static int owned_count;
static io_context_t contexts[256];
static int context_count;
static pid_t main_pid;
static bool open_before[65536];

void t_register(struct t_case *c)
{
	*cases_end = c;
	cases_end = &c->next;
}

/* A process with a request that the stalling file system keeps cannot end. */
static void let_go(void)
{
	const char *directory = getenv("LAS_TEST_STALL");
	char path[4096];
	int fd;

	if (!directory)
		return;
	snprintf(path, sizeof(path), "%s/.control", directory);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "release", 7) == 7)
		close(fd);
}

/*
 * _exit: a case that failed may have left requests that never finish, and an exit handler that waits for them would
 * turn a clear failure into a time-out.
 */
void t_fail(const char *file, int line, const char *format, ...)
{
	va_list args;

	printf("%s:%d: ", file, line);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	let_go();
	_exit(1);
}

static const char *errno_text(long long value)
{
	const char *name = value < 0 && value > -4096 ? strerrorname_np((int)-value) : NULL;

	return name ? name : "";
}

void t_fail_eq(const char *file, int line, const char *got_text, long long got, const char *want_text, long long want)
{
	t_fail(file, line, "%s is %lld %s, expected %s (%lld %s)", got_text, got, errno_text(got), want_text, want,
	       errno_text(want));
}

void t_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	_exit(77);
}

bool is_shim(void)
{
	return dlsym(RTLD_DEFAULT, "las_version") != NULL;
}

static long with_errno(long result)
{
	return result == -1 ? -errno : result;
}

long raw_getevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout)
{
	return with_errno(syscall(SYS_io_getevents, ctx, min_nr, nr, events, timeout));
}

long any_getevents(io_context_t ctx, long min_nr, long nr, struct io_event *events, struct timespec *timeout)
{
	return is_shim() ? io_getevents(ctx, min_nr, nr, events, timeout)
	                 : raw_getevents(ctx, min_nr, nr, events, timeout);
}

struct t_ring *t_ring(io_context_t ctx)
{
	return (struct t_ring *)(void *)ctx;
}

unsigned t_ring_count(io_context_t ctx)
{
	struct t_ring *ring = t_ring(ctx);
	/* Acquire: pairs with the release that publishes the events before the tail. */
	unsigned tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	unsigned head = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);

	return (tail + ring->nr - head) % ring->nr;
}

void t_ring_wait(io_context_t ctx, unsigned count)
{
	while (t_ring_count(ctx) < count)
		usleep(200);
}

io_context_t t_context(int nr_events)
{
	io_context_t ctx = NULL;

	CHECK_RET(io_setup(nr_events, &ctx), 0);
	CHECK(ctx != NULL);
	if (context_count < (int)(sizeof(contexts) / sizeof(contexts[0])))
		contexts[context_count++] = ctx;
	return ctx;
}

int t_submit(io_context_t ctx, struct iocb *iocb)
{
	return io_submit(ctx, 1, &iocb);
}

void t_reap(io_context_t ctx, long n, struct io_event *events)
{
	CHECK_RET(io_getevents(ctx, n, n, events, NULL), n);
}

long t_run(io_context_t ctx, struct iocb *iocb)
{
	struct io_event event;

	CHECK_RET(t_submit(ctx, iocb), 1);
	t_reap(ctx, 1, &event);
	CHECK(event.obj == iocb);
	CHECK(event.data == iocb->data);
	CHECK_EQ(event.res2, 0);
	return t_res(&event);
}

long t_reap_one(io_context_t ctx)
{
	struct io_event event;

	t_reap(ctx, 1, &event);
	return t_res(&event);
}

void t_no_event(io_context_t ctx)
{
	struct io_event event;
	struct timespec patience = { 0, 20 * 1000 * 1000 };

	CHECK_RET(io_getevents(ctx, 1, 1, &event, &patience), 0);
}

long t_pread(io_context_t ctx, int fd, void *buf, size_t count, long long offset)
{
	struct iocb iocb;

	io_prep_pread(&iocb, fd, buf, count, offset);
	return t_run(ctx, &iocb);
}

long t_pwrite(io_context_t ctx, int fd, const void *buf, size_t count, long long offset)
{
	struct iocb iocb;

	io_prep_pwrite(&iocb, fd, (void *)(uintptr_t)buf, count, offset);
	return t_run(ctx, &iocb);
}

int t_own(int fd)
{
	if (fd < 0)
		FAIL("no descriptor: %s", strerror(errno));
	CHECK(owned_count < (int)(sizeof(owned) / sizeof(owned[0])));
	owned[owned_count++] = fd;
	return fd;
}

void t_close(int fd)
{
	for (int i = 0; i < owned_count; i++) {
		if (owned[i] == fd) {
			owned[i] = owned[--owned_count];
			CHECK_EQ(close(fd), 0);
			return;
		}
	}
	FAIL("descriptor %d is not owned", fd);
}

int t_open(const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	if (fd < 0)
		FAIL("open %s: %s", path, strerror(errno));
	return t_own(fd);
}

/* Not periodic in any power of two, so that data from a wrong offset or file never looks right. */
unsigned char t_byte(unsigned seed, size_t offset)
{
	uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15u + seed * 0xbf58476d1ce4e5b9u;

	return (unsigned char)(x >> 56 ^ x >> 23);
}

void t_fill(void *buf, size_t bytes, unsigned seed, size_t offset)
{
	for (size_t i = 0; i < bytes; i++)
		((unsigned char *)buf)[i] = t_byte(seed, offset + i);
}

void t_check_pattern(const void *buf, size_t bytes, unsigned seed, size_t offset)
{
	for (size_t i = 0; i < bytes; i++) {
		unsigned char got = ((const unsigned char *)buf)[i];

		if (got != t_byte(seed, offset + i))
			FAIL("byte %zu of %zu is %02x, expected %02x (file offset %zu)", i, bytes, got,
			     t_byte(seed, offset + i), offset + i);
	}
}

static void write_pattern(int fd, size_t bytes)
{
	unsigned char block[4096];

	for (size_t done = 0; done < bytes; done += sizeof(block)) {
		size_t n = bytes - done < sizeof(block) ? bytes - done : sizeof(block);

		t_fill(block, n, 0, done);
		CHECK_EQ(pwrite(fd, block, n, (off_t)done), n);
	}
}

int t_file(const char *name, size_t bytes)
{
	int fd = t_open(name, O_RDWR | O_CREAT | O_TRUNC);

	write_pattern(fd, bytes);
	return fd;
}

void *t_pages(size_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(pages != MAP_FAILED);
	return pages;
}

void *t_no_access(void)
{
	void *page = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(page != MAP_FAILED);
	return page;
}

void *t_read_only(const void *data, size_t bytes)
{
	void *pages = t_pages(bytes);

	memcpy(pages, data, bytes);
	CHECK_EQ(mprotect(pages, bytes, PROT_READ), 0);
	return pages;
}

int t_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = -1; /* the directory's own */

	CHECK(dir != NULL);
	for (struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

const char *t_directory(const char *variable)
{
	const char *path = getenv(variable), *why_not;
	char name[128];

	if (path && *path)
		return path;
	snprintf(name, sizeof(name), "%s_WHY_NOT", variable);
	why_not = getenv(name);
	SKIP("no %s: %s", variable, why_not ? why_not : "not set, run this by pytest");
}

void t_need_root(void)
{
	if (geteuid() != 0)
		SKIP("needs root (sudo make test)");
}

const char *t_stall(void)
{
	return t_directory("LAS_TEST_STALL");
}

static void stall_command(const char *text)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/.control", t_stall());
	fd = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

void t_stall_hold(void)
{
	stall_command("hold");
}

void t_stall_release(void)
{
	stall_command("release");
}

void t_stall_hold_all(void)
{
	stall_command("hold all");
}

void t_stall_hold_fsync(void)
{
	stall_command("hold fsync");
}

void t_stall_delay(int ms)
{
	char text[32];

	snprintf(text, sizeof(text), "delay %d", ms);
	stall_command(text);
}

struct t_stall_counts t_stall_counts(void)
{
	struct t_stall_counts counts;
	char path[4096], text[128] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/.control", t_stall());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	CHECK_EQ(sscanf(text, "%d %lu %lu %lu", &counts.held, &counts.reads, &counts.writes, &counts.fsyncs), 4);
	return counts;
}

static void *release_later(void *arg)
{
	t_sleep_ms((int)(intptr_t)arg);
	t_stall_release();
	return NULL;
}

pthread_t t_stall_release_later(int ms)
{
	return t_thread(release_later, (void *)(intptr_t)ms);
}

void t_stall_wait(int held)
{
	while (t_stall_counts().held != held)
		usleep(500);
}

int t_stall_file(const char *name, size_t bytes, int flags)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s-%d", t_stall(), name, (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	CHECK(fd >= 0);
	write_pattern(fd, bytes);
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	close(fd);
	fd = t_open(path, flags);
	/* The name is not needed any more; the file lives while it is open. */
	CHECK_EQ(unlink(path), 0);
	return fd;
}

pthread_t t_thread(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, run, arg), 0);
	return thread;
}

void t_join(pthread_t thread)
{
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

void t_wait_ok(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		FAIL("child ended by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) == 77)
		_exit(77);
	CHECK_EQ(WEXITSTATUS(status), 0);
}

int t_again(const char *name)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		execl("/proc/self/exe", "again", name, (char *)NULL);
		_exit(126);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

void t_sleep_ms(int ms)
{
	struct timespec time = { ms / 1000, (long)(ms % 1000) * 1000000 };

	while (nanosleep(&time, &time) && errno == EINTR)
		;
}

int64_t t_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool read_task(pid_t tid, const char *name, char *text, size_t bytes)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/%s", (int)tid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, bytes - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	return n > 0;
}

/* A thread may also sleep on its way to the wait, in clone or in mmap; a signal sent then would come too early. */
static bool is_waiting_call(long number)
{
	const long calls[] = { SYS_futex, SYS_io_getevents, SYS_io_pgetevents, SYS_ppoll, SYS_epoll_pwait };

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (number == calls[i])
			return true;
	return false;
}

void t_wait_asleep(pid_t tid)
{
	for (;; usleep(200)) {
		char stat[512], call[256];
		char *state;

		CHECK(read_task(tid, "stat", stat, sizeof(stat)));
		state = strrchr(stat, ')');
		if (!state || state[2] != 'S')
			continue;
		/* Not every kernel tells the system call. */
		if (!read_task(tid, "syscall", call, sizeof(call)) || is_waiting_call(atol(call)))
			return;
	}
}

/* Calls f for each open descriptor except the one that reads the directory. */
static void each_fd(void (*f)(int fd))
{
	DIR *dir = opendir("/proc/self/fd");

	CHECK(dir != NULL);
	for (struct dirent *entry; (entry = readdir(dir));) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] != '.' && fd != dirfd(dir))
			f(fd);
	}
	closedir(dir);
}

static void note_open(int fd)
{
	if (fd < (int)sizeof(open_before))
		open_before[fd] = true;
}

static int leaked_count;
static char leaked_text[1024];

static void note_leak(int fd)
{
	char path[64], target[256] = "?";

	if (fd < (int)sizeof(open_before) && open_before[fd])
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n < 0)
		return; /* closed meanwhile */
	target[n] = 0;
	leaked_count++;
	snprintf(leaked_text + strlen(leaked_text), sizeof(leaked_text) - strlen(leaked_text), " %d=%s", fd, target);
}

/*
 * A little patience: a thread that has just published an event may still be closing what it held, and a program could
 * only notice by looking in that very moment.
 */
static void check_leaks(void)
{
	for (int tries = 0; tries < 3000; tries++) {
		leaked_count = 0;
		leaked_text[0] = 0;
		each_fd(note_leak);
		if (!leaked_count)
			return;
		usleep(10000);
	}
	FAIL("descriptors leaked:%s", leaked_text);
}

static void check_library(void)
{
	const char *wanted = getenv("LAS_TEST_IMPLEMENTATION");

	if (!wanted)
		return;
	if (strcmp(wanted, is_shim() ? "shim" : "kernel"))
		FAIL("the %s answers, but this run is of the %s", is_shim() ? "shim" : "kernel", wanted);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (struct t_case *c = cases; c; c = c->next)
			puts(c->name);
		return 0;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (struct t_case *c = cases; argc == 2 && c; c = c->next) {
		if (strcmp(c->name, argv[1]))
			continue;
		main_pid = getpid();
		check_library();
		each_fd(note_open);
		c->run();
		if (getpid() != main_pid)
			_exit(0);
		for (int i = 0; i < context_count; i++)
			io_destroy(contexts[i]);
		while (owned_count)
			close(owned[--owned_count]);
		check_leaks();
		return 0;
	}
	fprintf(stderr, "usage: %s --list | NAME\n", argv[0]);
	return 2;
}
