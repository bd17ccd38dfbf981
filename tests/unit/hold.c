/* hold.c - duplicates of descriptors: where they are numbered, when they are closed, and when they must not be. */
#include "unit.h"

#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>

#include "base/hold.h"

static void prepare(void)
{
	u_start();
	CHECK_RET(las_hold_reserve(64), 0);
}

static struct las_hold *get(int fd, enum las_hold_kind kind)
{
	struct las_hold *hold = NULL;

	CHECK_RET(las_hold_get(fd, kind, &hold), 0);
	CHECK(hold != NULL);
	return hold;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void expire_all(void)
{
	for (int tries = 0; las_hold_expire(LAS_EXPIRE_DUE); tries++) {
		CHECK(tries < 500);
		t_sleep_ms(5);
	}
}

static void set_lock(int fd, int type, off_t start, off_t len)
{
	struct flock lock = { .l_type = (short)type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
}

/* Whether another process finds the file locked. */
static bool locked_for_others(const char *name)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		int fd = open(name, O_RDWR);

		_exit(fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? 1 : 0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status) == 1;
}

TEST(a_hold_is_close_on_exec_and_numbered_high)
{
	int fd = t_file("file", 10);
	struct las_hold *hold;

	prepare();
	hold = get(fd, LAS_HOLD_LOCKS);
	CHECK(hold->fd >= 4096);
	CHECK_EQ(fcntl(hold->fd, F_GETFD), FD_CLOEXEC);
	las_hold_put(hold);
	CHECK(!is_open(hold->fd));
}

TEST(the_last_reference_closes)
{
	struct las_hold *hold;
	int fd = t_file("file", 10), dup;

	prepare();
	hold = get(fd, LAS_HOLD_LOCKS);
	dup = hold->fd;
	las_hold_ref(hold);
	las_hold_ref(hold);
	las_hold_put(hold);
	las_hold_put(hold);
	CHECK(is_open(dup));
	las_hold_put(hold);
	CHECK(!is_open(dup));
}

TEST(a_hold_survives_the_descriptor)
{
	struct las_hold *hold;
	char bytes[10];
	int fd = t_file("file", 10);

	prepare();
	hold = get(fd, LAS_HOLD_LOCKS);
	t_close(fd);
	CHECK_EQ(t_open("/dev/zero", O_RDONLY), fd);
	CHECK_EQ(pread(hold->fd, bytes, 10, 0), 10);
	t_check_pattern(bytes, 10, 0, 0);
	las_hold_put(hold);
}

TEST(a_closed_descriptor_is_ebadf)
{
	struct las_hold *hold = (void *)1;

	prepare();
	CHECK_RET(las_hold_get(999, LAS_HOLD_LOCKS, &hold), -EBADF);
	CHECK(hold == NULL);
	CHECK_RET(las_hold_get(-1, LAS_HOLD_PLAIN, &hold), -EBADF);
}

TEST(a_hold_whose_number_was_given_to_another_file_is_told_and_not_closed)
{
	int fd = t_file("file", 10), other = t_file("other", 10);
	struct las_hold *hold;
	struct stat st;

	prepare();
	CHECK_EQ(fstat(fd, &st), 0);
	hold = get(fd, LAS_HOLD_LOCKS);
	CHECK(las_hold_intact(hold)); /* nothing is known of it */
	las_hold_name(hold, st.st_dev, st.st_ino);
	CHECK(las_hold_intact(hold));
	CHECK_EQ(dup2(other, hold->fd), hold->fd);
	CHECK(!las_hold_intact(hold));
	las_hold_put(hold);
	CHECK(is_open(hold->fd));
	CHECK_EQ(close(hold->fd), 0);
}

static struct u_gate at_close = U_GATE_OPEN;

static long stop_after_look(int fd, struct stat *st)
{
	long ret = u_real.fstat(fd, st);

	u_gate_pass(&at_close);
	return ret;
}

static void *put_last(void *hold)
{
	las_hold_put(hold);
	return NULL;
}

TEST(a_number_that_the_program_closes_meanwhile_is_not_closed_in_the_next_holds_hands)
{
	int fd = t_file("data", 1), before = t_count_fds();
	struct las_hold *hold, *next;
	struct stat st;
	pthread_t closer;

	prepare();
	hold = get(fd, LAS_HOLD_PLAIN);
	CHECK_EQ(fstat(fd, &st), 0);
	las_hold_name(hold, st.st_dev, st.st_ino);
	las_sys.fstat = stop_after_look;
	u_gate_close(&at_close);
	closer = t_thread(put_last, hold);
	u_gate_await(&at_close, 1); /* it has seen that the number is still its own */
	CHECK_EQ(close(hold->fd), 0);
	next = get(fd, LAS_HOLD_PLAIN);
	u_gate_open(&at_close);
	t_join(closer);
	CHECK(is_open(next->fd));
	las_hold_put(next);
	CHECK_EQ(t_count_fds(), before);
}

TEST(a_number_that_the_program_closed_is_the_next_holds_alone)
{
	int fd = t_file("data", 4096), fds[2];
	struct las_hold *first, *second;

	prepare();
	first = get(fd, LAS_HOLD_LOCKS); /* not named: only the number tells that it is another one */
	CHECK_EQ(close(first->fd), 0);
	CHECK_EQ(pipe(fds), 0);
	t_own(fds[0]);
	t_own(fds[1]);
	second = get(fds[0], LAS_HOLD_PLAIN);
	CHECK_EQ(second->fd, first->fd);
	CHECK(!las_hold_has_number(first));
	CHECK(!las_hold_intact(first));
	CHECK(las_hold_has_number(second));
	las_hold_put(first);
	CHECK(is_open(second->fd));
	CHECK(las_hold_intact(second));
	las_hold_put(second);
	CHECK(!is_open(second->fd));
}

TEST(a_hold_that_lost_its_number_serves_nobody_else)
{
	int fd = t_file("data", 4096);
	struct las_hold_facts facts = { .mode = S_IFREG };
	struct las_hold *lost, *found;

	prepare();
	lost = get(fd, LAS_HOLD_LOCKS);
	las_hold_offer(lost, &facts);
	CHECK_EQ(close(lost->fd), 0);
	found = get(fd, LAS_HOLD_LOCKS); /* of the same open file, under the same number */
	CHECK(found != lost);
	CHECK_EQ(found->fd, lost->fd);
	CHECK(las_hold_find(fd) == NULL);
	las_hold_put(lost);
	CHECK(is_open(found->fd));
	las_hold_put(found);
}

TEST(what_a_descriptor_is_is_told_as_fstat_tells_it)
{
	int fd = t_file("file", 10);
	struct stat mine, theirs;

	CHECK_EQ(fstat(fd, &mine), 0);
	CHECK_EQ(las_sys.fstat(fd, &theirs), 0);
	CHECK(mine.st_mode == theirs.st_mode && mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino);
	CHECK_EQ(las_sys.fstat(999, &theirs), -EBADF);
}

static void limit_descriptors(rlim_t n)
{
	struct rlimit limit;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = n;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

TEST(a_small_limit_means_a_smaller_number)
{
	struct las_hold *hold;
	int fd = t_file("file", 10);

	limit_descriptors(256);
	prepare();
	hold = get(fd, LAS_HOLD_LOCKS);
	CHECK(hold->fd >= 128 && hold->fd < 256);
	las_hold_put(hold);
}

TEST(a_limit_lowered_later_is_lived_with)
{
	struct las_hold *hold;
	int fd = t_file("file", 10);

	prepare();
	limit_descriptors(64); /* below the number from which holds count: F_DUPFD says EINVAL */
	hold = get(fd, LAS_HOLD_LOCKS);
	CHECK(hold->fd < 64);
	las_hold_put(hold);
	CHECK(!is_open(hold->fd));
}

TEST(full_numbers_above_leave_those_below)
{
	struct las_hold *hold;
	int fd = t_file("file", 10);

	limit_descriptors(200);
	prepare();
	for (int i = 100; i < 200; i++) /* the program's own are there already */
		CHECK_EQ(t_own(fcntl(fd, F_DUPFD, i)), i);
	hold = get(fd, LAS_HOLD_LOCKS);
	CHECK(hold->fd < 100);
	las_hold_put(hold);
}

TEST(without_any_number_it_is_emfile_and_nothing_leaks)
{
	struct las_hold *hold;
	int fd = t_file("file", 10), open_before = t_count_fds(), lowest = dup(fd);

	close(lowest);
	prepare();
	limit_descriptors((rlim_t)lowest);
	for (int i = 0; i < 1000; i++)
		CHECK_RET(las_hold_get(fd, LAS_HOLD_LOCKS, &hold), -EMFILE);
	limit_descriptors(1024);
	hold = get(fd, LAS_HOLD_LOCKS);
	las_hold_put(hold);
	CHECK_EQ(t_count_fds(), open_before);
}

TEST(adopting_moves_a_descriptor_up_or_closes_it)
{
	struct las_hold *hold;
	int fd = eventfd(0, EFD_CLOEXEC), open_before = t_count_fds();

	prepare();
	CHECK_RET(las_hold_adopt(fd, &hold), 0);
	CHECK(hold->fd >= 4096);
	CHECK(!is_open(fd));
	CHECK_EQ(eventfd_write(hold->fd, 1), 0);
	las_hold_put(hold);
	CHECK_EQ(t_count_fds(), open_before - 1);
	fd = eventfd(0, EFD_CLOEXEC);
	limit_descriptors((rlim_t)fd + 1);
	CHECK_RET(las_hold_adopt(fd, &hold), -EMFILE);
	CHECK(hold == NULL);
	CHECK(!is_open(fd));
}

TEST(closing_a_hold_does_not_drop_the_programs_lock)
{
	int fd = t_file("file", 10);
	struct las_hold *hold;

	prepare();
	hold = get(fd, LAS_HOLD_LOCKS);
	set_lock(fd, F_WRLCK, 3, 4);
	las_hold_put(hold);
	CHECK(locked_for_others("file"));
	CHECK(las_hold_expire(LAS_EXPIRE_DUE));
	CHECK(locked_for_others("file"));
	set_lock(fd, F_UNLCK, 0, 0);
	expire_all();
	CHECK(!is_open(hold->fd));
}

TEST(a_file_that_stays_locked_costs_one_descriptor)
{
	int fd = t_file("file", 10), open_before = t_count_fds();

	prepare();
	set_lock(fd, F_WRLCK, 0, 0);
	for (int i = 0; i < 200; i++)
		las_hold_put(get(fd, LAS_HOLD_LOCKS));
	CHECK(t_count_fds() <= open_before + 1);
	CHECK(locked_for_others("file"));
	set_lock(fd, F_UNLCK, 0, 0);
	expire_all();
	CHECK_EQ(t_count_fds(), open_before);
}

static long no_kcmp(int pid, int fd1, int fd2)
{
	return -EPERM;
}

TEST(a_file_that_stays_locked_costs_one_descriptor_also_where_kcmp_is_forbidden)
{
	int fd = t_file("file", 10), open_before = t_count_fds();

	prepare();
	las_sys.kcmp_file = no_kcmp;
	set_lock(fd, F_WRLCK, 0, 0);
	for (int i = 0; i < 200; i++)
		las_hold_put(get(fd, LAS_HOLD_LOCKS));
	CHECK(t_count_fds() <= open_before + 1);
	set_lock(fd, F_UNLCK, 0, 0);
	expire_all();
	CHECK_EQ(t_count_fds(), open_before);
}

TEST(a_parked_hold_does_not_serve_another_file_of_the_same_number)
{
	int fd = t_file("locked", 10);
	struct las_hold *hold;
	char byte;

	prepare();
	set_lock(fd, F_WRLCK, 0, 0);
	las_hold_put(get(fd, LAS_HOLD_LOCKS));
	/* The program's own close drops the lock; the number is another file's now. */
	t_close(fd);
	CHECK_EQ(t_open("other", O_RDWR | O_CREAT), fd);
	CHECK_EQ(write(fd, "!", 1), 1);
	hold = get(fd, LAS_HOLD_LOCKS);
	CHECK_EQ(pread(hold->fd, &byte, 1, 0), 1);
	CHECK_EQ(byte, '!');
	las_hold_put(hold);
	expire_all();
}

TEST(locks_of_other_processes_and_of_open_files_are_told_apart)
{
	int fd = t_file("file", 100), open_before = t_count_fds(), other = t_open("file", O_RDWR);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10 };
	struct las_hold *hold;

	prepare();
	/* A lock of an open file goes with that open file; closing a duplicate of ours does not touch it. */
	CHECK_EQ(fcntl(other, F_OFD_SETLK, &lock), 0);
	hold = get(fd, LAS_HOLD_LOCKS);
	las_hold_put(hold);
	CHECK(!is_open(hold->fd));
	/* But a POSIX lock may stand behind it. */
	set_lock(fd, F_WRLCK, 50, 10);
	hold = get(fd, LAS_HOLD_LOCKS);
	las_hold_put(hold);
	CHECK(is_open(hold->fd));
	set_lock(fd, F_UNLCK, 0, 0);
	expire_all();
	t_close(other);
	CHECK_EQ(t_count_fds(), open_before);
}

TEST(a_hold_on_a_servers_file_lingers_and_serves_again)
{
	int fd = t_file("file", 10), open_before = t_count_fds(), first;
	struct las_hold *hold;

	prepare();
	hold = get(fd, LAS_HOLD_LINGERS);
	first = hold->fd;
	las_hold_put(hold);
	CHECK(is_open(first));
	CHECK(las_hold_parked());
	hold = get(fd, LAS_HOLD_LINGERS);
	CHECK_EQ(hold->fd, first);
	CHECK(!las_hold_parked());
	las_hold_put(hold);
	expire_all();
	CHECK(!is_open(first));
	CHECK_EQ(t_count_fds(), open_before);
}

TEST(a_hold_that_was_offered_is_found_while_it_is_in_use)
{
	const struct las_hold_facts facts = { .flags = 5, .is_eventfd = true };
	int fd = t_own(eventfd(0, EFD_NONBLOCK)), other = t_own(eventfd(0, EFD_NONBLOCK)), open_before;
	struct las_hold *hold, *again;

	prepare();
	open_before = t_count_fds();
	CHECK(!las_hold_find(fd));
	hold = get(fd, LAS_HOLD_PLAIN);
	las_hold_offer(hold, &facts);
	again = las_hold_find(fd);
	CHECK(again == hold);
	CHECK_EQ(again->facts.flags, 5);
	CHECK(!las_hold_find(other));
	CHECK(!las_hold_find(fd + 64)); /* the same place in the table */
	las_hold_put(again);
	/* Another eventfd under the number, or none, is not the same. */
	CHECK_EQ(dup2(other, fd), fd);
	CHECK(!las_hold_find(fd));
	t_close(fd);
	CHECK(!las_hold_find(fd));
	CHECK(!las_hold_find(-1));
	las_hold_put(hold);
	CHECK_EQ(t_count_fds(), open_before - 1);
}

static long no_query(int fd, int cmd, uintptr_t arg)
{
	return cmd == 1027 /* F_DUPFD_QUERY */ ? -EINVAL : u_real.fcntl(fd, cmd, arg);
}

static long forbidden_kcmp(int pid, int fd1, int fd2)
{
	(void)pid, (void)fd1, (void)fd2;
	return -EPERM;
}

TEST(an_offered_hold_is_found_only_if_the_kernel_says_that_it_is_the_same)
{
	const struct las_hold_facts facts = { .is_eventfd = true };
	int fd = t_own(eventfd(0, EFD_NONBLOCK));
	struct las_hold *hold, *again;

	prepare();
	las_sys.fcntl = no_query;
	hold = get(fd, LAS_HOLD_PLAIN);
	las_hold_offer(hold, &facts);
	again = las_hold_find(fd);
	if (again) { /* kcmp() is there */
		CHECK(again == hold);
		las_hold_put(again);
	}
	las_sys.kcmp_file = forbidden_kcmp;
	CHECK(!las_hold_find(fd));
	las_hold_put(hold);
}

static void *churn(void *arg)
{
	int fd = *(int *)arg;

	for (int i = 0; i < 3000; i++) {
		struct las_hold *hold = get(fd, i % 2 ? LAS_HOLD_LOCKS : LAS_HOLD_PLAIN);
		struct stat mine, theirs;

		las_hold_ref(hold);
		CHECK_EQ(fstat(fd, &mine), 0);
		CHECK_EQ(fstat(hold->fd, &theirs), 0);
		CHECK_EQ(mine.st_ino, theirs.st_ino);
		las_hold_put(hold);
		las_hold_put(hold);
	}
	return NULL;
}

TEST(threads_get_and_put_without_leaks_or_mix_ups)
{
	static const char *const names[] = { "a", "b", "c", "d" };
	int fds[4], open_before;
	pthread_t threads[4];

	prepare();
	for (int i = 0; i < 4; i++)
		fds[i] = t_file(names[i], 1);
	open_before = t_count_fds();
	for (int i = 0; i < 4; i++)
		threads[i] = t_thread(churn, &fds[i]);
	for (int i = 0; i < 4; i++)
		t_join(threads[i]);
	CHECK_EQ(t_count_fds(), open_before);
}

static struct u_gate closing = U_GATE_OPEN;
static pthread_t program;

static long stopped_close(int fd)
{
	if (!pthread_equal(pthread_self(), program))
		u_gate_pass(&closing);
	return u_real.close(fd);
}

static void *put_it(void *hold)
{
	las_hold_put(hold);
	return NULL;
}

TEST(a_child_forked_while_a_hold_is_being_closed_does_not_inherit_it)
{
	int fd = t_file("file", 1), open_before, status;
	struct las_hold *hold;
	pthread_t thread;
	pid_t pid;

	prepare();
	open_before = t_count_fds();
	hold = get(fd, LAS_HOLD_PLAIN);
	program = pthread_self();
	las_sys.close = stopped_close;
	u_gate_close(&closing);
	thread = t_thread(put_it, hold);
	u_gate_await(&closing, 1);
	pid = fork();
	if (pid == 0)
		_exit(t_count_fds() == open_before ? 0 : 1);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	u_gate_open(&closing);
	t_join(thread);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}
