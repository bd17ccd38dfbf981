/*
 * file.h - what a descriptor is, looked at once per descriptor and batch.
 *
 * A batch is one io_submit call.  The flags (is it direct? append?) are read
 * when the descriptor is first seen in the batch; its kind and its hold only
 * when a request has to leave the head lane.
 *
 * Between batches only a guess is kept, per thread and for microseconds: a
 * descriptor that the head lane used a moment ago is assumed to be the same
 * file.  The program may have put another one under the number meanwhile; so
 * an assumption may only let the head lane go ahead, and only a success that
 * it had there counts.  Whatever else comes of it is asked once more of the
 * file as it is (lanes/route.c): what a wrong assumption costs is time.  One
 * exception: what the native lane used a moment ago, and is O_DIRECT, goes
 * down to the kernel as such.  The kernel looks at the descriptor itself, and
 * a request that it does not take is begun afresh.
 */
#ifndef LAS_LANES_FILE_H
#define LAS_LANES_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/hold.h"
#include "lanes/op.h"

#define LAS_BATCH_FILES 8

/* Where a regular file or block device lives, as far as it says how long a read or write can take. */
enum las_medium {
	LAS_MEDIUM_UNKNOWN, /* not asked yet */
	LAS_MEDIUM_MEMORY,  /* never blocks: tmpfs, ramfs, hugetlbfs */
	LAS_MEDIUM_DISK,
	LAS_MEDIUM_STACKED, /* on other file systems: overlay */
	LAS_MEDIUM_SERVER,  /* of a process or another machine: FUSE, NFS, and all that is not known */
};

struct las_file {
	int fd;
	int flags;              /* F_GETFL */
	uint32_t mode;          /* st_mode, once looked */
	uint64_t device, inode; /* once looked */
	bool alone;             /* its request is the only one of its call */
	bool assumed;           /* all of this is a moment old; las_file_refresh() makes sure */
	bool checked;           /* assumed, but the kernel will look itself: good enough for the native lane */
	bool remembered;        /* all that is known here so far */
	bool looked;
	bool stream;            /* has no position; found by the first ESPIPE, or by looking */
	bool is_eventfd;        /* verified */
	bool bare;              /* O_DIRECT, but knows no NOWAIT; found when the native lane tried */
	bool refuses_nowait;    /* found when the head lane tried to read (or use a stream) */
	uint8_t takes_nowait;   /* of these kinds of op, a bit each: asked and found */
	enum las_medium medium; /* las_file_medium() */
	struct las_hold *hold;  /* or NULL */
};

struct las_batch {
	struct las_file files[LAS_BATCH_FILES];
	unsigned count, next; /* round robin once full */
	bool alone;           /* it is one request, which can be begun afresh */
};

void las_batch_init(struct las_batch *batch, bool alone);
void las_batch_fini(struct las_batch *batch);

/* 0, or -EBADF. */
int las_batch_file(struct las_batch *batch, int fd, struct las_file **file);
/* The same for a descriptor that has to be an eventfd: also -EINVAL.  Nothing about it is assumed. */
int las_batch_eventfd(struct las_batch *batch, int fd, struct las_file **file);
/* Reads the flags if they were assumed, and forgets the rest: 0 or -EBADF. */
int las_file_ask_again(struct las_file *file);
static inline int las_file_refresh(struct las_file *file)
{
	return las_unlikely(file->assumed) ? las_file_ask_again(file) : 0;
}
/* The same, but what was found out about it stays known if it is still the same inode, opened alike: 0 or -EBADF. */
int las_file_confirm(struct las_file *file);
/* Whether an assumed file is on the inode that it was on: the cheapest question, and enough for whatever moves bytes. */
bool las_file_is_same(const struct las_file *file);
/* The head lane has used it: the next batch of this thread may assume. */
void las_file_remember(struct las_file *file);
/* Whether it was opened for ops of this kind. */
bool las_file_allows(const struct las_file *file, enum las_op_kind kind);
/* Fills mode, device, inode and stream: 0 or -errno. */
int las_file_look(struct las_file *file);
/* Makes sure that it is an eventfd: 0, -EINVAL, or what fstat says. */
int las_file_check_eventfd(struct las_file *file);
/*
 * The kernel refuses at io_submit what its file type cannot do; asked only
 * after the head lane was refused.  0 or -EINVAL.
 */
int las_file_check_op(struct las_file *file, const struct las_op *op);
/*
 * For the few flags that not every file can do (RWF_NOWAIT, ATOMIC,
 * DONTCACHE): 0 or -EOPNOTSUPP, io_submit's error.  The file has been looked at.
 */
int las_file_check_flags(struct las_file *file, const struct las_op *op);
/* Takes over what requests in flight know of the same open file, and their hold, if there are any. */
void las_file_join(struct las_file *file);
/* One more reference on the batch's hold of this file, which is made at the first call: 0 or -errno. */
int las_file_hold(struct las_file *file, struct las_hold **hold);
/* Makes the op's meaning independent of what the program may do to the descriptor's O_APPEND from now on. */
void las_file_pin(const struct las_file *file, struct las_op *op);

/* Learns what the kernel can tell; called when the process is set up. */
void las_file_init(void);

bool las_file_direct(const struct las_file *file);
/* Once looked: of the one inode that eventfds, timerfds and their like share. */
bool las_file_anonymous(const struct las_file *file);
/* Looks, and asks where it lives: 0 or -errno.  Not for streams and directories. */
int las_file_medium(struct las_file *file);
/*
 * Its medium is known: whether an O_DIRECT write that NOWAIT refuses, one into a hole or into space that was only set
 * aside, is asynchronous all the same once the kernel has begun it.
 */
bool las_file_writes_begin(const struct las_file *file);
/* Once looked: requests on it end in finite time. */
bool las_file_bounded(const struct las_file *file);
/* Once looked: fsync never blocks there, and what it says belongs to io_submit. */
bool las_file_fsync_inline(struct las_file *file);
/* The RWF_* bits that this kernel knows. */
int las_file_known_flags(void);

#endif
