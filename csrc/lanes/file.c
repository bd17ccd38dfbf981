/* file.c - what a descriptor is, see file.h. */
#include "lanes/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "base/lock.h"
#include "base/rwf.h"
#include "base/sys.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif
#define RWF_LONG_KNOWN 0xff /* RWF_HIPRI to RWF_DONTCACHE */

/* What this kernel can do and looks like; written when the process is set up, read-only afterwards. */
static struct {
	uint64_t anon_device, anon_inode; /* the one inode behind all eventfds */
	int rw_flags;                     /* RWF_* bits that it knows */
	bool tells_iter;                  /* RWF_APPEND|RWF_NOAPPEND: EINVAL if the file has read_iter (Linux 6.9) */
} kernel;

#define SERVERS 8
/* Devices known to be file systems of a server; a word each, read and written whole.  0: unused. */
static uint64_t servers[SERVERS];

void las_file_init(void)
{
	long fd = las_sys.eventfd2(0, EFD_CLOEXEC | EFD_NONBLOCK);
	char byte;
	struct iovec iov = { &byte, 1 };
	struct stat st;

	kernel.rw_flags = RWF_LONG_KNOWN;
	if (fd < 0)
		return;
	if (las_sys.fstat((int)fd, &st) == 0) {
		kernel.anon_device = st.st_dev;
		kernel.anon_inode = st.st_ino;
	}
	kernel.tells_iter = las_sys.preadv2((int)fd, &iov, 1, -1, RWF_APPEND | RWF_NOAPPEND) == -EINVAL;
	/* A read of one byte from an eventfd is EINVAL by itself; a flag that is not known comes first: EOPNOTSUPP. */
	for (int bit = 8; bit < 31; bit++)
		if (las_sys.preadv2((int)fd, &iov, 1, -1, 1 << bit) == -EINVAL)
			kernel.rw_flags |= 1 << bit;
	las_sys.close((int)fd);
}

bool las_file_allows(const struct las_file *file, enum las_op_kind kind)
{
	int access = file->flags & O_ACCMODE;

	return kind > LAS_OP_WRITE || access == O_RDWR || access == (kind == LAS_OP_READ ? O_RDONLY : O_WRONLY);
}

bool las_file_bounded(const struct las_file *file)
{
	return S_ISREG(file->mode) || S_ISBLK(file->mode) || S_ISDIR(file->mode);
}

static int stat_file(struct las_file *file)
{
	struct stat st;
	long err = las_sys.fstat(file->fd, &st);

	if (err < 0)
		return (int)err;
	file->mode = st.st_mode;
	file->device = st.st_dev;
	file->inode = st.st_ino;
	return 0;
}

/* Without asking whether others know it already; its flags are no assumption. */
static int look_alone(struct las_file *file)
{
	int err;

	if (file->looked)
		return 0;
	err = stat_file(file);
	if (err < 0)
		return err;
	/* Whatever has no position refuses a positioned read, even one of nothing and whatever it was opened for. */
	if (S_ISSOCK(file->mode) || S_ISFIFO(file->mode))
		file->stream = true;
	else if (!las_file_bounded(file))
		file->stream = las_sys.preadv2(file->fd, NULL, 0, 0, 0) == -ESPIPE;
	file->looked = true;
	file->remembered = false;
	return 0;
}

int las_file_look(struct las_file *file)
{
	/* A look is taken before something is done that an assumption is not good enough for. */
	int err = las_file_refresh(file);

	if (err < 0)
		return err;
	if (!file->looked)
		las_file_join(file);
	return look_alone(file);
}

bool las_file_direct(const struct las_file *file)
{
	return file->flags & O_DIRECT;
}

bool las_file_anonymous(const struct las_file *file)
{
	/* Where no descriptor was to be had for learning it: such files are of no type. */
	if (las_unlikely(!kernel.anon_inode))
		return !(file->mode & S_IFMT);
	return file->device == kernel.anon_device && file->inode == kernel.anon_inode;
}

int las_file_check_eventfd(struct las_file *file)
{
	int err;

	if (file->is_eventfd)
		return 0;
	err = stat_file(file);
	if (err)
		return err;
	/* The inode keeps us from ever writing into a file of the program's; of its kind, only an eventfd looks at 8 bytes. */
	if (!las_file_anonymous(file))
		return -EINVAL;
	if (las_sys.write(file->fd, NULL, 8) != -EFAULT)
		return -EINVAL;
	file->is_eventfd = true;
	return 0;
}

/* Files that the kernel makes up. */
static bool is_pseudo(const struct statfs *st)
{
	switch (st->f_type) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case DEBUGFS_MAGIC:
	case TRACEFS_MAGIC:
	case SECURITYFS_MAGIC:
	case NSFS_MAGIC:
		return true;
	default:
		return false;
	}
}

/*
 * Asking a file system what it is means asking its server, which may not answer: once is enough.  A device number that
 * is another file system's by now costs time and nothing else.
 */
static bool is_known_server(uint64_t device)
{
	for (unsigned i = 0; i < SERVERS; i++)
		if (las_load_relaxed(&servers[i]) == device)
			return true;
	return false;
}

static void note_server(uint64_t device)
{
	static uint32_t next;

	las_store_relaxed(&servers[las_add_relaxed(&next, 1) % SERVERS], device);
}

int las_file_medium(struct las_file *file)
{
	struct statfs st;
	int err;

	if (file->medium != LAS_MEDIUM_UNKNOWN)
		return 0;
	err = las_file_look(file);
	if (err)
		return err;
	file->remembered = false;
	file->medium = LAS_MEDIUM_SERVER;
	if (S_ISBLK(file->mode)) {
		file->medium = LAS_MEDIUM_DISK;
	} else if (S_ISREG(file->mode) && !is_known_server(file->device) && las_sys.fstatfs(file->fd, &st) == 0) {
		switch (st.f_type) {
		case TMPFS_MAGIC:
		case RAMFS_MAGIC:
		case HUGETLBFS_MAGIC:
			file->medium = LAS_MEDIUM_MEMORY;
			break;
		case OVERLAYFS_SUPER_MAGIC:
			file->medium = LAS_MEDIUM_STACKED;
			break;
		case FUSE_SUPER_MAGIC: /* fuseblk has a device, and a process behind it */
			note_server(file->device);
			break;
		default:
			if (major(file->device) != 0 || st.f_type == BTRFS_SUPER_MAGIC)
				file->medium = LAS_MEDIUM_DISK;
			else if (!is_pseudo(&st))
				note_server(file->device);
			break;
		}
	}
	return 0;
}

/* btrfs, which has no device of its own, works for long before a transfer begins: threads do that side by side. */
bool las_file_writes_begin(const struct las_file *file)
{
	return las_file_direct(file) && S_ISREG(file->mode) && file->medium == LAS_MEDIUM_DISK &&
	       major(file->device) != 0;
}

static bool lives_in_pseudo(struct las_file *file)
{
	struct statfs st;

	/* The first question tells whether there is a server to be spared the second. */
	return las_file_medium(file) == 0 && !is_known_server(file->device) && las_sys.fstatfs(file->fd, &st) == 0 &&
	       is_pseudo(&st);
}

/* Files of disk file systems and block devices always have read_iter and write_iter; others are asked. */
static int check_rw(struct las_file *file, const struct las_op *op)
{
	long (*call)(int, const struct iovec *, size_t, int64_t, int) =
		op->kind == LAS_OP_READ ? las_sys.preadv2 : las_sys.pwritev2;
	int64_t at = file->stream ? -1 : 0;
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	long err;

	if (S_ISDIR(file->mode))
		return -EINVAL;
	if (S_ISBLK(file->mode) || (S_ISREG(file->mode) && major(file->device) != 0))
		return 0;
	/* A transfer of nothing is refused only by a file that has no position, or no such operation at all. */
	err = call(file->fd, NULL, 0, at, 0);
	if (err == -ESPIPE && at == 0) {
		file->stream = true;
		at = -1;
		err = call(file->fd, NULL, 0, at, 0);
	}
	if (err == -EINVAL)
		return -EINVAL;
	/* Flags that contradict each other are found out before anything is moved, but only where read_iter is. */
	if (kernel.tells_iter)
		return call(file->fd, &iov, 1, at, RWF_APPEND | RWF_NOAPPEND) == -EOPNOTSUPP ? -EINVAL : 0;
	return lives_in_pseudo(file) ? -EINVAL : 0;
}

static int check_nowait(const struct las_file *file)
{
	struct statfs st;

	/*
	 * KERNEL: a file system that never heard of NOWAIT refuses it at io_submit; ext4 did, and lets its buffered
	 * write report EOPNOTSUPP (test:
	 * request.nowait_write_where_the_file_system_has_none_is_an_event).
	 */
	if (las_sys.fstatfs(file->fd, &st) == 0 && st.f_type == EXT4_SUPER_MAGIC)
		return 0;
	return -EOPNOTSUPP;
}

static int check_flags(const struct las_file *file, const struct las_op *op, int special)
{
	struct iovec nowhere = { (void *)1, 1 };
	/* At the beginning: some file systems make a file longer before they find that there is nothing to write. */
	int64_t at = file->stream ? -1 : 0;
	long err;

	/* Pipes, sockets and their like know NOWAIT and nothing else; there, trying might take something away. */
	if (!las_file_bounded(file) && !S_ISCHR(file->mode))
		return special ? -EOPNOTSUPP : 0;
	/* The flags are looked at before the buffer, which does not exist: nothing is moved. */
	if (op->kind == LAS_OP_READ)
		return las_sys.preadv2(file->fd, &nowhere, 1, at, op->rw_flags) == -EOPNOTSUPP ? -EOPNOTSUPP : 0;
	if (special && las_sys.pwritev2(file->fd, &nowhere, 1, at, special) == -EOPNOTSUPP)
		return -EOPNOTSUPP;
	err = op->rw_flags & RWF_NOWAIT ? las_sys.pwritev2(file->fd, &nowhere, 1, at, RWF_NOWAIT) : 0;
	return err == -EOPNOTSUPP ? check_nowait(file) : 0;
}

int las_file_check_flags(struct las_file *file, const struct las_op *op)
{
	int special = op->rw_flags & (RWF_ATOMIC | RWF_DONTCACHE), err;

	if (!special && (!(op->rw_flags & RWF_NOWAIT) || file->takes_nowait & 1u << op->kind))
		return 0;
	err = check_flags(file, op, special);
	if (!err && !special) {
		file->takes_nowait |= (uint8_t)(1u << op->kind);
		file->remembered = false;
	}
	return err;
}

int las_file_check_op(struct las_file *file, const struct las_op *op)
{
	int err = las_file_look(file);

	if (err)
		return err;
	return las_op_is_rw(op) ? check_rw(file, op) : 0;
}

bool las_file_fsync_inline(struct las_file *file)
{
	/* Whatever has no storage behind it answers at once, most often EINVAL, which io_submit has to report. */
	return !las_file_bounded(file) || (!S_ISBLK(file->mode) && major(file->device) == 0 && lives_in_pseudo(file));
}

int las_file_known_flags(void)
{
	return kernel.rw_flags;
}

void las_file_pin(const struct las_file *file, struct las_op *op)
{
	if (op->kind != LAS_OP_WRITE || file->stream || op->rw_flags & (RWF_APPEND | RWF_NOAPPEND))
		return;
	if (file->flags & O_APPEND)
		op->rw_flags |= RWF_APPEND;
	else if (kernel.tells_iter) /* that kernel also knows RWF_NOAPPEND */
		op->rw_flags |= RWF_NOAPPEND;
}

/* Not for pipes and their like: the poll set wants a descriptor for each request. */
static void offer(const struct las_file *file)
{
	const struct las_hold_facts facts = {
		.device = file->device,
		.inode = file->inode,
		.mode = file->mode,
		.flags = file->flags,
		.medium = (int)file->medium,
		.is_eventfd = file->is_eventfd,
	};

	if (file->is_eventfd || (file->looked && (S_ISREG(file->mode) || S_ISBLK(file->mode))))
		las_hold_offer(file->hold, &facts);
}

void las_file_join(struct las_file *file)
{
	struct las_hold *hold;

	if (file->hold || file->is_eventfd || las_file_refresh(file) < 0)
		return;
	hold = las_hold_find(file->fd);
	if (!hold)
		return;
	if (hold->facts.is_eventfd) {
		las_hold_put(hold);
		return;
	}
	file->hold = hold;
	file->device = hold->facts.device;
	file->inode = hold->facts.inode;
	file->mode = hold->facts.mode;
	file->medium = (enum las_medium)hold->facts.medium;
	file->looked = file->looked || las_file_bounded(file); /* whether anything else is a stream, nobody has noted */
}

#define STALE 1 /* no error number of the kernel's: the number is another file's since it was looked at */

/*
 * A hold on the file that was looked at.  Another thread may put another file on the number at any time: under a name
 * that is not its own, such a hold would be taken for one that the program has closed, and never be.  In an overlay a
 * file's numbers may change, when it is copied up.
 */
static int hold_anew(struct las_file *file)
{
	enum las_hold_kind kind = LAS_HOLD_LOCKS; /* any file with an inode of its own may carry one */
	int err = file->is_eventfd ? 0 : look_alone(file);
	struct las_hold *hold;
	struct stat st;

	if (!err && S_ISREG(file->mode)) {
		err = las_file_medium(file);
		if (file->medium == LAS_MEDIUM_SERVER)
			kind = LAS_HOLD_LINGERS;
	} else if (file->is_eventfd || las_file_anonymous(file) || S_ISSOCK(file->mode)) {
		kind = LAS_HOLD_PLAIN;
	}
	if (!err)
		err = las_hold_get(file->fd, kind, &hold);
	if (err)
		return err;
	if (file->medium != LAS_MEDIUM_STACKED) {
		err = (int)las_sys.fstat(hold->fd, &st);
		if (!err && (st.st_ino != file->inode || st.st_dev != file->device))
			err = STALE;
		if (err) {
			las_hold_put(hold);
			return err;
		}
		las_hold_name(hold, file->device, file->inode);
	}
	file->hold = hold;
	offer(file);
	return 0;
}

/* Asks anew what the number stands for. */
static int look_again(struct las_file *file)
{
	bool is_eventfd = file->is_eventfd;
	int err = las_file_ask_again(file);

	return !err && is_eventfd ? las_file_check_eventfd(file) : err;
}

int las_file_hold(struct las_file *file, struct las_hold **hold)
{
	int err;

	las_file_join(file);
	while (!file->hold) {
		err = hold_anew(file);
		if (las_unlikely(err == STALE))
			err = look_again(file);
		if (err)
			return err;
	}
	las_hold_ref(file->hold);
	*hold = file->hold;
	return 0;
}
