/* kinds.c - see kinds.h. */
#include "kinds.h"

#include <pty.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

static int make_file(struct k_file *file, const char *directory, int flags)
{
	char block[K_FILE_BYTES], path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/las-%d-%d", directory, (int)getpid(), file->number);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -1;
	t_fill(block, sizeof(block), 0, 0);
	CHECK_EQ(pwrite(fd, block, sizeof(block), 0), sizeof(block));
	/* A direct read that must not wait says EAGAIN as long as there is something to write back. */
	if (flags & O_DIRECT)
		CHECK_EQ(fsync(fd), 0);
	close(fd);
	fd = open(path, flags | O_CLOEXEC);
	unlink(path);
	return fd;
}

static int open_regular(struct k_file *file)
{
	return make_file(file, ".", O_RDWR);
}

static int open_read_only(struct k_file *file)
{
	return make_file(file, ".", O_RDONLY);
}

static int open_write_only(struct k_file *file)
{
	return make_file(file, ".", O_WRONLY);
}

static int open_append(struct k_file *file)
{
	return make_file(file, ".", O_RDWR | O_APPEND);
}

static int open_durable(struct k_file *file)
{
	return make_file(file, ".", O_RDWR | O_DSYNC);
}

static int open_direct(struct k_file *file)
{
	return make_file(file, ".", O_RDWR | O_DIRECT);
}

static int open_nonblock_file(struct k_file *file)
{
	return make_file(file, ".", O_RDWR | O_NONBLOCK);
}

static int open_path(struct k_file *file)
{
	return make_file(file, ".", O_PATH);
}

static int open_tmpfs(struct k_file *file)
{
	return make_file(file, "/dev/shm", O_RDWR);
}

static int open_tmpfs_direct(struct k_file *file)
{
	return make_file(file, "/dev/shm", O_RDWR | O_DIRECT);
}

static int open_memfd(struct k_file *file)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	char block[K_FILE_BYTES];

	t_fill(block, sizeof(block), 0, 0);
	CHECK_EQ(pwrite(fd, block, sizeof(block), 0), sizeof(block));
	return fd;
}

static int open_sealed(struct k_file *file)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char block[K_FILE_BYTES];

	t_fill(block, sizeof(block), 0, 0);
	CHECK_EQ(pwrite(fd, block, sizeof(block), 0), sizeof(block));
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW), 0);
	return fd;
}

static int open_directory(struct k_file *file)
{
	return open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_proc_directory(struct k_file *file)
{
	return open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_tmpfs_directory(struct k_file *file)
{
	return open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_closed(struct k_file *file)
{
	return 777 + file->number; /* far above what is open */
}

static int open_negative(struct k_file *file)
{
	return -1;
}

static int open_proc(struct k_file *file)
{
	return open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
}

static int open_proc_seq(struct k_file *file)
{
	return open("/proc/filesystems", O_RDONLY | O_CLOEXEC);
}

static int open_proc_sysctl(struct k_file *file)
{
	return open("/proc/sys/kernel/ostype", O_RDONLY | O_CLOEXEC);
}

static int open_proc_mem(struct k_file *file)
{
	return open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
}

static int open_sys(struct k_file *file)
{
	return open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
}

static int open_null(struct k_file *file)
{
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int open_zero(struct k_file *file)
{
	return open("/dev/zero", O_RDWR | O_CLOEXEC);
}

static int open_full(struct k_file *file)
{
	return open("/dev/full", O_RDWR | O_CLOEXEC);
}

static int open_urandom(struct k_file *file)
{
	return open("/dev/urandom", O_RDONLY | O_CLOEXEC);
}

static int make_pipe(struct k_file *file, bool reader, bool filled, bool gone)
{
	int ends[2];

	CHECK_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	if (filled)
		CHECK_EQ(write(ends[1], "0123456789", 10), 10);
	file->beside = ends[reader];
	if (gone) {
		close(file->beside);
		file->beside = -1;
	}
	return ends[!reader];
}

static int open_empty_pipe(struct k_file *file)
{
	return make_pipe(file, true, false, false);
}

static int open_filled_pipe(struct k_file *file)
{
	return make_pipe(file, true, true, false);
}

static int open_orphan_reader(struct k_file *file)
{
	return make_pipe(file, true, true, true);
}

static int open_pipe_writer(struct k_file *file)
{
	return make_pipe(file, false, false, false);
}

static int open_orphan_writer(struct k_file *file)
{
	return make_pipe(file, false, false, true);
}

/* O_DIRECT makes packets of what is written; it has nothing to do with a device. */
static int open_packet_pipe(struct k_file *file)
{
	int fd = make_pipe(file, true, true, false);

	CHECK_EQ(fcntl(file->beside, F_SETFL, O_DIRECT | O_NONBLOCK), 0);
	CHECK_EQ(fcntl(fd, F_SETFL, O_DIRECT | O_NONBLOCK), 0);
	return fd;
}

static int open_empty_packet_pipe(struct k_file *file)
{
	int fd = make_pipe(file, true, false, false);

	CHECK_EQ(fcntl(fd, F_SETFL, O_DIRECT | O_NONBLOCK), 0);
	return fd;
}

static int open_packet_pipe_writer(struct k_file *file)
{
	int fd = make_pipe(file, false, false, false);

	CHECK_EQ(fcntl(fd, F_SETFL, O_DIRECT | O_NONBLOCK), 0);
	return fd;
}

static int make_sockets(struct k_file *file, int type, bool filled)
{
	int ends[2];

	CHECK_EQ(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
	if (filled)
		CHECK_EQ(write(ends[1], "0123456789", 10), 10);
	file->beside = ends[1];
	return ends[0];
}

static int open_socket(struct k_file *file)
{
	return make_sockets(file, SOCK_STREAM, true);
}

static int open_empty_socket(struct k_file *file)
{
	return make_sockets(file, SOCK_STREAM, false);
}

static int open_datagram(struct k_file *file)
{
	return make_sockets(file, SOCK_DGRAM, true);
}

static int open_listener(struct k_file *file)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	/* An abstract name of the kernel's choice. */
	CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
	CHECK_EQ(listen(fd, 1), 0);
	return fd;
}

static int open_eventfd(struct k_file *file)
{
	return eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
}

static int open_timerfd(struct k_file *file)
{
	return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
}

static int open_signalfd(struct k_file *file)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static int open_epoll(struct k_file *file)
{
	return epoll_create1(EPOLL_CLOEXEC);
}

static int open_inotify(struct k_file *file)
{
	return inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
}

static int open_pidfd(struct k_file *file)
{
	return (int)syscall(SYS_pidfd_open, getpid(), 0);
}

static int open_namespace(struct k_file *file)
{
	return open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
}

static int open_pty_master(struct k_file *file)
{
	int master, slave;

	CHECK_EQ(openpty(&master, &slave, NULL, NULL, NULL), 0);
	file->beside = slave;
	CHECK_EQ(fcntl(master, F_SETFL, O_NONBLOCK), 0);
	return master;
}

static int open_pty_slave(struct k_file *file)
{
	int master, slave;

	CHECK_EQ(openpty(&master, &slave, NULL, NULL, NULL), 0);
	file->beside = master;
	CHECK_EQ(write(master, "line\n", 5), 5);
	CHECK_EQ(fcntl(slave, F_SETFL, O_NONBLOCK), 0);
	return slave;
}

const struct k_kind k_kinds[] = {
	{ "regular", open_regular, .has_content = true },
	{ "read_only", open_read_only, .has_content = true },
	{ "write_only", open_write_only },
	{ "append", open_append, .has_content = true },
	{ "durable", open_durable, .has_content = true },
	{ "direct", open_direct, .has_content = true },
	{ "nonblock_file", open_nonblock_file, .has_content = true },
	{ "path", open_path },
	{ "tmpfs", open_tmpfs, .has_content = true },
	{ "tmpfs_direct", open_tmpfs_direct, .has_content = true },
	{ "memfd", open_memfd, .has_content = true },
	{ "sealed_memfd", open_sealed, .has_content = true },
	{ "directory", open_directory },
	{ "proc_directory", open_proc_directory },
	{ "tmpfs_directory", open_tmpfs_directory },
	{ "closed", open_closed, .not_ours = true },
	{ "negative", open_negative, .not_ours = true },
	{ "proc", open_proc },
	{ "proc_seq", open_proc_seq },
	{ "proc_sysctl", open_proc_sysctl },
	{ "proc_mem", open_proc_mem },
	{ "sys", open_sys },
	{ "dev_null", open_null },
	{ "dev_zero", open_zero },
	{ "dev_full", open_full },
	{ "dev_urandom", open_urandom, .random_data = true },
	{ "empty_pipe", open_empty_pipe },
	{ "filled_pipe", open_filled_pipe },
	{ "orphan_reader", open_orphan_reader },
	{ "pipe_writer", open_pipe_writer },
	{ "orphan_writer", open_orphan_writer },
	{ "packet_pipe", open_packet_pipe },
	{ "empty_packet_pipe", open_empty_packet_pipe },
	{ "packet_pipe_writer", open_packet_pipe_writer },
	{ "socket", open_socket },
	{ "empty_socket", open_empty_socket },
	{ "datagram", open_datagram },
	{ "listener", open_listener },
	{ "eventfd", open_eventfd },
	{ "timerfd", open_timerfd },
	{ "signalfd", open_signalfd },
	{ "epoll", open_epoll },
	{ "inotify", open_inotify },
	{ "pidfd", open_pidfd },
	{ "namespace", open_namespace },
	{ "pty_master", open_pty_master, .random_data = true, .is_terminal = true },
	{ "pty_slave", open_pty_slave, .random_data = true, .is_terminal = true },
};

const unsigned k_kind_count = sizeof(k_kinds) / sizeof(k_kinds[0]);

bool k_open(const struct k_kind *kind, struct k_file *file, int number)
{
	file->beside = -1;
	file->number = number;
	file->fd = kind->open(file);
	return file->fd >= 0 || kind->not_ours;
}

void k_close(const struct k_kind *kind, struct k_file *file)
{
	if (!kind->not_ours)
		close(file->fd);
	if (file->beside >= 0)
		close(file->beside);
}
