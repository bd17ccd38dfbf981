/*
 * slowfs - a file system with one file, `slow`, whose reads and writes take long.
 *
 *   slowfs MOUNTPOINT SIZE_MIB DELAY_MS [ONE_IN]
 *
 * Every read (or one in ONE_IN of them) sleeps DELAY_MS before it answers, as a
 * network file system or a hung disk would; many may sleep at once.  Writes do
 * the same.  It speaks the kernel's FUSE protocol itself, so no library is
 * needed; it does need root.  It prints "ready", serves until it is unmounted
 * or gets SIGTERM, and unmounts itself then.
 *
 * The file holds its own offsets: each block of 4096 bytes begins with its
 * offset as 8 bytes, the rest is zero, until it is written to.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 64, REQUEST_BYTES = 1 << 18, FILE_INODE = 2 };

static int device;
static char *data;
static uint64_t data_bytes;
static unsigned delay_ms, one_in = 1;
static atomic_uint turn;
static const char *mountpoint;

static void reply(uint64_t unique, int error, const void *body, size_t bytes)
{
	struct fuse_out_header head = { .error = error, .unique = unique };
	struct iovec parts[2] = { { &head, sizeof(head) }, { (void *)(uintptr_t)body, bytes } };

	head.len = (uint32_t)(sizeof(head) + (error ? 0 : bytes));
	/* ENOENT: the caller was killed meanwhile, and nobody waits for this any more. */
	if (writev(device, parts, error ? 1 : 2) < 0 && errno != ENOENT && errno != ENODEV)
		perror("slowfs: reply");
}

static void dawdle(void)
{
	struct timespec delay = { delay_ms / 1000, (long)(delay_ms % 1000) * 1000000 };

	if (atomic_fetch_add(&turn, 1) % one_in == 0)
		nanosleep(&delay, NULL);
}

static void describe(struct fuse_attr *attr, uint64_t inode)
{
	memset(attr, 0, sizeof(*attr));
	attr->ino = inode;
	attr->nlink = 1;
	attr->blksize = 4096;
	attr->mode = inode == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0666;
	attr->size = inode == FUSE_ROOT_ID ? 0 : data_bytes;
	attr->blocks = attr->size / 512;
}

static void answer_init(const struct fuse_in_header *in, const struct fuse_init_in *init)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = init->max_readahead,
		.flags = init->flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS | FUSE_ASYNC_DIO),
		.max_background = 1024,
		.congestion_threshold = 1024,
		.max_write = 128 << 10,
		.time_gran = 1,
	};

	reply(in->unique, 0, &out, sizeof(out));
}

static void answer_lookup(const struct fuse_in_header *in, const char *name)
{
	struct fuse_entry_out out = { .nodeid = FILE_INODE, .entry_valid = 3600, .attr_valid = 3600 };

	describe(&out.attr, FILE_INODE);
	reply(in->unique, strcmp(name, "slow") ? -ENOENT : 0, &out, sizeof(out));
}

static void answer_attributes(const struct fuse_in_header *in)
{
	struct fuse_attr_out out = { .attr_valid = 3600 };

	describe(&out.attr, in->nodeid);
	reply(in->unique, 0, &out, sizeof(out));
}

static void answer_read(const struct fuse_in_header *in, const struct fuse_read_in *read)
{
	uint64_t at = read->offset < data_bytes ? read->offset : data_bytes;
	uint64_t bytes = read->size < data_bytes - at ? read->size : data_bytes - at;

	dawdle();
	reply(in->unique, 0, data + at, bytes);
}

static void answer_write(const struct fuse_in_header *in, const struct fuse_write_in *write)
{
	struct fuse_write_out out = { .size = write->size };

	if (write->offset > data_bytes || write->size > data_bytes - write->offset) {
		reply(in->unique, -ENOSPC, NULL, 0);
		return;
	}
	dawdle();
	memcpy(data + write->offset, write + 1, write->size);
	reply(in->unique, 0, &out, sizeof(out));
}

static void answer(const struct fuse_in_header *in)
{
	const void *body = in + 1;
	struct fuse_open_out opened = { 0 };

	switch (in->opcode) {
	case FUSE_INIT:
		answer_init(in, body);
		break;
	case FUSE_LOOKUP:
		answer_lookup(in, body);
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		answer_attributes(in);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		reply(in->unique, 0, &opened, sizeof(opened));
		break;
	case FUSE_READ:
		answer_read(in, body);
		break;
	case FUSE_WRITE:
		answer_write(in, body);
		break;
	case FUSE_FSYNC:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_READDIR:
	case FUSE_FLUSH:
		reply(in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		reply(in->unique, -ENOSYS, NULL, 0);
		break;
	}
}

static void *serve(void *unused)
{
	char *buffer = malloc(REQUEST_BYTES);

	(void)unused;
	while (buffer) {
		ssize_t got = read(device, buffer, REQUEST_BYTES);

		if (got >= (ssize_t)sizeof(struct fuse_in_header))
			answer((struct fuse_in_header *)(void *)buffer);
		else if (got < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT)
			_exit(errno == ENODEV ? 0 : 1);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	char mount_options[128];
	pthread_t thread;
	sigset_t ends;
	int sig;

	if (argc < 4 || argc > 5) {
		fprintf(stderr, "usage: slowfs MOUNTPOINT SIZE_MIB DELAY_MS [ONE_IN]\n");
		return 2;
	}
	mountpoint = argv[1];
	data_bytes = strtoull(argv[2], NULL, 10) << 20;
	delay_ms = (unsigned)strtoul(argv[3], NULL, 10);
	one_in = argc == 5 ? (unsigned)strtoul(argv[4], NULL, 10) : 1;
	data = mmap(NULL, data_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (data_bytes == 0 || data == MAP_FAILED || one_in == 0)
		return 2;
	for (uint64_t at = 0; at < data_bytes; at += 4096)
		memcpy(data + at, &at, sizeof(at));

	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0) {
		perror("slowfs: /dev/fuse");
		return 77;
	}
	snprintf(mount_options, sizeof(mount_options), "fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", device);
	if (mount("slowfs", mountpoint, "fuse.slowfs", MS_NOSUID | MS_NODEV, mount_options)) {
		perror("slowfs: mount");
		return 77;
	}
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	pthread_sigmask(SIG_BLOCK, &ends, NULL);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&thread, NULL, serve, NULL))
			break;
	puts("ready");
	fflush(stdout);
	sigwait(&ends, &sig);
	umount2(mountpoint, MNT_DETACH);
	return 0;
}
