/*
 * hold.h - keeping a file while a request for it waits.
 *
 * The kernel takes a reference on the file at io_submit; the program may
 * close or reuse the descriptor at once.  A hold is a duplicate descriptor,
 * close-on-exec and numbered far above what an application expects.
 *
 * Three traps that shape this file:
 * - close() of any descriptor of a file drops all POSIX record locks that the
 *   process has on that file.  A hold whose file carries such a lock is
 *   therefore not closed but parked, used again for the same open file, and
 *   closed when the lock is gone.
 * - close() flushes a file of NFS or FUSE, a trip to the server and perhaps a
 *   long one.  A hold on such a file lingers before it is closed, and serves
 *   the next request meanwhile.
 * - a forked child inherits holds; the fork handler closes them there.
 */
#ifndef LAS_BASE_HOLD_H
#define LAS_BASE_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/list.h"

enum las_hold_kind {
	LAS_HOLD_PLAIN,  /* closing has no side effect */
	LAS_HOLD_LOCKS,  /* a regular file: POSIX locks are possible */
	LAS_HOLD_LINGERS /* a file of a server: as above, and closing may flush */
};

/* What is known of the open file, for those who find the hold. */
struct las_hold_facts {
	uint64_t device, inode;
	uint32_t mode; /* st_mode */
	int flags;     /* F_GETFL, as of then */
	int medium;    /* enum las_medium */
	bool is_eventfd;
};

struct las_hold {
	struct las_link link; /* on one of the module's lists; guarded by its lock */
	int refs;             /* atomic */
	int fd;
	int from; /* the program's descriptor that was duplicated */
	bool offered;
	bool lost; /* the program has closed its descriptor, whose number another hold has now; atomic to read */
	struct las_hold_facts facts; /* written before the hold can be found */
	enum las_hold_kind kind;
	int64_t parked_ns;      /* since when */
	uint64_t device, inode; /* what it was when it was made; an inode of 0: not noted */
};

/* Puts the module into its first state; closes what a forked child inherited. */
void las_hold_init(void);
/* Makes room for n holds and grows the descriptor table ahead of need; may take milliseconds, once.  0 or -ENOMEM. */
int las_hold_reserve(unsigned n);
void las_hold_release(unsigned n);

/* Duplicates fd: 0 and *hold with one reference, or -EBADF, -EMFILE, -ENOMEM, -EINVAL (a limit of next to nothing). */
int las_hold_get(int fd, enum las_hold_kind kind, struct las_hold **hold);
/* The same, with a descriptor that no other reference stands for at this moment. */
int las_hold_get_unshared(int fd, enum las_hold_kind kind, struct las_hold **hold);
/* Moves a descriptor of our own (an epoll instance) to a high number: results as above; fd is closed in any case. */
int las_hold_adopt(int fd, struct las_hold **hold);
/* Lets others find the hold while it is in use. */
void las_hold_offer(struct las_hold *hold, const struct las_hold_facts *facts);
/* A reference on a hold that was offered, is in use, and is of the open file that fd stands for; NULL if there is none. */
struct las_hold *las_hold_find(int fd);
void las_hold_ref(struct las_hold *hold);
void las_hold_put(struct las_hold *hold);
/* Notes what file it is, for las_hold_intact(). */
void las_hold_name(struct las_hold *hold, uint64_t device, uint64_t inode);
/*
 * Whether its number still means that file: a program that closes descriptors which it did not open, or puts others
 * on their numbers, takes ours away, and nothing may be written into what it has put there.
 */
bool las_hold_intact(const struct las_hold *hold);
/* The same, asked more cheaply where the program's descriptor still is of the same open file. */
bool las_hold_intact_for_reading(const struct las_hold *hold);
/* Of this, what is known without asking: false if its number is that of another hold by now. */
static inline bool las_hold_has_number(const struct las_hold *hold)
{
	return las_likely(!las_load_acquire(&hold->lost));
}

enum las_expire {
	LAS_EXPIRE_QUICK, /* only those that can be closed without asking a server, which may not answer */
	LAS_EXPIRE_DUE,   /* all whose time has come */
	LAS_EXPIRE_NOW    /* all */
};

#define LAS_LINGER_NS ((int64_t)50 * 1000 * 1000)
/* Closes parked holds whose lock is gone and whose time has come; true if some are left, to be looked at again. */
bool las_hold_expire(enum las_expire which);
/* Whether any are parked; whether any of them are a server's. */
bool las_hold_parked(void);
bool las_hold_lingering(void);

#endif
