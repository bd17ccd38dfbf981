/*
 * hold.c - see hold.h.
 *
 * The lock guards all lists, those of parked.c too.  It is held across F_DUPFD,
 * which does not block, so that a fork between the duplicate and its entry in
 * the list cannot leak it into the child, and across the questions of
 * samefile.c; never across close(), which can block.
 */
#include "base/hold.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/fork.h"
#include "base/lock.h"
#include "base/parked.h"
#include "base/pool.h"
#include "base/samefile.h"
#include "base/sys.h"

#define HIGH_FD 4096 /* duplicates are numbered from here where the limit allows */
#define SPREAD 1024  /* and no higher than so many more, to avoid a number; the table has room for them */
#define OFFERED 64   /* places for holds that can be found, by number */

static struct {
	struct las_lock lock;
	struct las_link live;    /* holds with references */
	struct las_link closing; /* holds that a thread is about to close, or has closed */
	bool ever_parked;
	struct las_hold *offered[OFFERED]; /* the latest of that number, until it is closed */
	struct las_hold *numbered[SPREAD]; /* by the descriptor's number, from base on */
	struct las_pool pool;
	int base;   /* lowest number for a duplicate */
	bool ready; /* table grown, handlers registered */
} holds;

static bool handlers_registered; /* survives fork, unlike `holds` */

static _Thread_local bool fork_locked;

/* A handler that forks may have interrupted a section of this very lock; then it has to do without. */
static void fork_prepare(void)
{
	fork_locked = las_critical == 0;
	if (fork_locked)
		las_lock(&holds.lock);
}

static void fork_parent(void)
{
	if (fork_locked)
		las_unlock(&holds.lock);
}

void las_hold_close_all(struct las_link *head)
{
	struct las_link *l, *tmp;

	las_list_each(head, l, tmp)
		las_sys.close(las_container_of(l, struct las_hold, link)->fd);
	las_list_init(head);
}

static void close_inherited(void)
{
	las_hold_close_all(&holds.live);
	las_hold_close_all(&holds.closing);
	las_parked_close_all();
}

/* The child has its own descriptor table: closing here drops nobody's locks and no file of the parent's. */
static void fork_child(void)
{
	if (fork_locked)
		las_unlock(&holds.lock);
	close_inherited();
	las_process_forked();
}

void las_hold_init(void)
{
	if (holds.live.next)
		close_inherited();
	memset(&holds, 0, sizeof(holds));
	las_list_init(&holds.live);
	las_parked_init();
	las_list_init(&holds.closing);
	las_pool_init(&holds.pool, sizeof(struct las_hold));
}

static int base_number(void)
{
	struct rlimit limit = { 0 };

	if (las_sys.prlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	return limit.rlim_cur >= 2 * HIGH_FD ? HIGH_FD : (int)(limit.rlim_cur / 2);
}

/*
 * Growing the descriptor table of a process with several threads waits for
 * an RCU grace period, milliseconds that must not fall into io_submit.
 */
static void grow_table(void)
{
	long fd = las_sys.eventfd2(0, EFD_CLOEXEC | EFD_NONBLOCK), high;

	if (fd < 0)
		return;
	high = las_sys.fcntl((int)fd, F_DUPFD_CLOEXEC, (uintptr_t)holds.base);
	if (high >= 0)
		las_sys.close((int)high);
	las_sys.close((int)fd);
}

int las_hold_reserve(unsigned n)
{
	bool first;

	las_lock(&holds.lock);
	first = !holds.ready;
	if (first)
		holds.base = base_number();
	holds.ready = true;
	las_unlock(&holds.lock);
	if (first) {
		grow_table();
		if (!handlers_registered && pthread_atfork(fork_prepare, fork_parent, fork_child) == 0)
			handlers_registered = true;
	}
	return las_pool_reserve(&holds.pool, n);
}

void las_hold_release(unsigned n)
{
	las_pool_release(&holds.pool, n);
}

/*
 * The program may have closed the descriptor of a hold that another thread is
 * about to close.  A duplicate that got this very number would be closed in
 * its place, so it gets a higher one.
 */
static int lowest_number_locked(void)
{
	struct las_link *l, *tmp;
	int lowest = holds.base;

	las_list_each(&holds.closing, l, tmp) {
		int fd = las_container_of(l, struct las_hold, link)->fd;

		if (fd >= lowest && fd < holds.base + SPREAD)
			lowest = fd + 1;
	}
	return lowest;
}

static long duplicate_locked(int fd)
{
	long dup = las_sys.fcntl(fd, F_DUPFD_CLOEXEC, (uintptr_t)lowest_number_locked());

	/* The program may have lowered its limit below the base, or filled the numbers above it. */
	if (dup == -EINVAL || dup == -EMFILE)
		dup = las_sys.fcntl(fd, F_DUPFD_CLOEXEC,
		                    STDERR_FILENO + 1); /* whoever closes those is about to open them */
	return dup;
}

/* The place for the hold of that number; NULL for one that lies outside, where the limit left no other. */
static struct las_hold **place_locked(int fd)
{
	return fd >= holds.base && fd - holds.base < SPREAD ? &holds.numbered[fd - holds.base] : NULL;
}

/*
 * A hold that had this number has lost it: the program has closed descriptors that it did not open.  It must neither
 * close nor use the one that is meant now.
 */
static void take_number_locked(struct las_hold *hold)
{
	struct las_hold **place = place_locked(hold->fd);

	if (!place)
		return;
	if (las_unlikely(*place))
		las_store_release(&(*place)->lost, true);
	*place = hold;
}

static void give_number_up_locked(const struct las_hold *hold)
{
	struct las_hold **place = place_locked(hold->fd);

	if (place && *place == hold)
		*place = NULL;
}

/* A reference on a hold that is in use, unless its last one has just gone. */
static bool ref_if_live(struct las_hold *hold)
{
	int refs = las_load_relaxed(&hold->refs);

	while (refs > 0)
		if (las_cas_relaxed(&hold->refs, &refs, refs + 1))
			return true;
	return false;
}

/* Where files carry locks, each duplicate stays open: one that is in use is shared rather than another one made. */
static struct las_hold *share_locked(int fd)
{
	struct las_link *l, *tmp;

	las_list_each(&holds.live, l, tmp) {
		struct las_hold *hold = las_container_of(l, struct las_hold, link);

		if (hold->from == fd && hold->kind != LAS_HOLD_PLAIN && !hold->lost && las_same_file(fd, hold->fd) &&
		    ref_if_live(hold))
			return hold;
	}
	return NULL;
}

void las_hold_offer(struct las_hold *hold, const struct las_hold_facts *facts)
{
	las_lock(&holds.lock);
	if (!hold->offered) /* else somebody may be reading them, and they are the same */
		hold->facts = *facts;
	hold->offered = true;
	holds.offered[hold->from % OFFERED] = hold;
	las_unlock(&holds.lock);
}

struct las_hold *las_hold_find(int fd)
{
	struct las_hold *hold;

	if (fd < 0)
		return NULL;
	las_lock(&holds.lock);
	hold = holds.offered[fd % OFFERED];
	if (hold && (hold->from != fd || hold->lost || !ref_if_live(hold)))
		hold = NULL;
	las_unlock(&holds.lock);
	/* All eventfds share one inode, and one file may be opened twice: only a sure answer counts. */
	if (hold && las_same_open_file(fd, hold->fd) != 1) {
		las_hold_put(hold);
		return NULL;
	}
	return hold;
}

static int get(int fd, enum las_hold_kind kind, bool may_share, struct las_hold **out)
{
	struct las_hold *hold = NULL;
	long dup = 0;

	las_lock(&holds.lock);
	if (kind != LAS_HOLD_PLAIN && holds.ever_parked) {
		hold = may_share ? share_locked(fd) : NULL;
		if (hold) {
			las_unlock(&holds.lock);
			*out = hold;
			return 0;
		}
		hold = las_parked_take_locked(fd);
	}
	if (!hold) {
		hold = las_pool_get(&holds.pool);
		dup = hold ? duplicate_locked(fd) : -ENOMEM;
		if (dup >= 0) {
			*hold = (struct las_hold){ .fd = (int)dup, .from = fd, .kind = kind };
			take_number_locked(hold);
		}
	}
	if (dup >= 0) {
		hold->refs = 1;
		las_list_push(&holds.live, &hold->link);
	}
	las_unlock(&holds.lock);
	if (dup < 0 && hold)
		las_pool_put(&holds.pool, hold);
	*out = dup < 0 ? NULL : hold;
	return dup < 0 ? (int)dup : 0;
}

int las_hold_get(int fd, enum las_hold_kind kind, struct las_hold **out)
{
	return get(fd, kind, true, out);
}

int las_hold_get_unshared(int fd, enum las_hold_kind kind, struct las_hold **out)
{
	return get(fd, kind, false, out);
}

int las_hold_adopt(int fd, struct las_hold **out)
{
	int err = las_hold_get(fd, LAS_HOLD_PLAIN, out);

	las_sys.close(fd);
	return err;
}

void las_hold_ref(struct las_hold *hold)
{
	las_add_relaxed(&hold->refs, 1); /* the caller has a reference already, nothing to order */
}

void las_hold_name(struct las_hold *hold, uint64_t device, uint64_t inode)
{
	/* Shared or parked before: it is the same file.  Two at once write the same. */
	if (las_load_acquire(&hold->inode))
		return;
	las_store_relaxed(&hold->device, device);
	las_store_release(&hold->inode, inode); /* the device before it, for whoever acquires the inode */
}

/*
 * KERNEL: descriptors-while-waiting: its reference on a file has no number
 * that a program could close or reuse (test:
 * hostile.waiting_write_never_lands_in_a_file_put_on_our_descriptor).
 */
bool las_hold_intact(const struct las_hold *hold)
{
	uint64_t inode = las_load_acquire(&hold->inode);
	struct stat st;

	if (!las_hold_has_number(hold))
		return false;
	return inode == 0 || (las_sys.fstat(hold->fd, &st) == 0 && st.st_ino == inode &&
	                      st.st_dev == las_load_relaxed(&hold->device));
}

/* Fooled only by a program that has put one other file both on its own number and on ours. */
bool las_hold_intact_for_reading(const struct las_hold *hold)
{
	return (las_hold_has_number(hold) && las_sys.fcntl(hold->from, F_DUPFD_QUERY, (uintptr_t)hold->fd) == 1) ||
	       las_hold_intact(hold);
}

/* On a list meanwhile, so that a child forked in between closes it too. */
static void close_listed(struct las_hold *hold)
{
	las_lock(&holds.lock);
	las_list_remove(&hold->link);
	las_list_push(&holds.closing, &hold->link);
	las_unlock(&holds.lock);
	if (las_hold_intact(hold))
		las_sys.close(hold->fd);
	las_lock(&holds.lock);
	las_list_remove(&hold->link);
	give_number_up_locked(hold);
	if (hold->from >= 0 && holds.offered[hold->from % OFFERED] == hold)
		holds.offered[hold->from % OFFERED] = NULL;
	las_unlock(&holds.lock);
	las_pool_put(&holds.pool, hold);
}

/* From whichever list it was on. */
static void park(struct las_hold *hold)
{
	las_lock(&holds.lock);
	las_list_remove(&hold->link);
	las_parked_push_locked(hold);
	holds.ever_parked = true;
	las_unlock(&holds.lock);
}

/* One that may be closed now as far as time goes, from those parked before `until_ns`; on the list of live ones. */
static struct las_hold *unpark(int64_t until_ns, enum las_expire which, bool *lingers)
{
	struct las_hold *hold;

	las_lock(&holds.lock);
	hold = las_parked_pop_locked(until_ns, which, lingers);
	if (hold)
		las_list_push(&holds.live, &hold->link);
	las_unlock(&holds.lock);
	return hold;
}

bool las_hold_expire(enum las_expire which)
{
	int64_t now = las_now_ns();
	bool lingers = false;
	struct las_hold *hold;

	if (!las_hold_parked()) /* whoever parks one wakes or is a thread that comes here later */
		return false;
	while ((hold = unpark(now, which, &lingers))) {
		if (!las_hold_carries_lock(hold)) {
			close_listed(hold);
			continue;
		}
		park(hold);
		lingers = true;
	}
	return lingers;
}

void las_hold_put(struct las_hold *hold)
{
	/* Release our use of the descriptor, acquire everybody else's, before it is closed. */
	if (las_sub_acq_rel(&hold->refs, 1) != 1)
		return;
	if (hold->kind == LAS_HOLD_LINGERS || (hold->kind == LAS_HOLD_LOCKS && las_hold_carries_lock(hold)))
		park(hold);
	else
		close_listed(hold);
}
