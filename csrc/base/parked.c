/* parked.c - see parked.h. */
#include "base/parked.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/samefile.h"
#include "base/sys.h"

#define LOCK_RANGES 16 /* locks of others that are looked past before a file counts as locked */

static struct {
	struct las_link list;
	unsigned count, lingering; /* all, and those of servers; also read without the lock, as hints */
} parked;

void las_parked_init(void)
{
	memset(&parked, 0, sizeof(parked));
	las_list_init(&parked.list);
}

void las_parked_close_all(void)
{
	las_hold_close_all(&parked.list);
	parked.count = parked.lingering = 0;
}

void las_parked_push_locked(struct las_hold *hold)
{
	hold->parked_ns = las_now_ns();
	las_list_push(&parked.list, &hold->link);
	las_store_relaxed(&parked.count, parked.count + 1);
	if (hold->kind == LAS_HOLD_LINGERS)
		las_store_relaxed(&parked.lingering, parked.lingering + 1);
}

static void remove_locked(struct las_hold *hold)
{
	las_list_remove(&hold->link);
	las_store_relaxed(&parked.count, parked.count - 1);
	if (hold->kind == LAS_HOLD_LINGERS)
		las_store_relaxed(&parked.lingering, parked.lingering - 1);
}

struct las_hold *las_parked_take_locked(int fd)
{
	struct las_link *l, *tmp;

	las_list_each(&parked.list, l, tmp) {
		struct las_hold *hold = las_container_of(l, struct las_hold, link);

		if (hold->from != fd || hold->lost || !las_same_file(fd, hold->fd))
			continue;
		remove_locked(hold);
		return hold;
	}
	return NULL;
}

struct las_hold *las_parked_pop_locked(int64_t until_ns, enum las_expire which, bool *lingers)
{
	struct las_link *l, *tmp;

	las_list_each(&parked.list, l, tmp) {
		struct las_hold *hold = las_container_of(l, struct las_hold, link);
		bool waits = hold->kind == LAS_HOLD_LINGERS &&
		             (which == LAS_EXPIRE_QUICK ||
		              (which == LAS_EXPIRE_DUE && hold->parked_ns > until_ns - LAS_LINGER_NS));

		if (waits) {
			*lingers = true;
		} else if (hold->parked_ns <= until_ns) {
			remove_locked(hold);
			return hold;
		}
	}
	return NULL;
}

bool las_hold_parked(void)
{
	return las_load_relaxed(&parked.count) != 0; /* a hold that is being parked is its thread's next look */
}

bool las_hold_lingering(void)
{
	return las_load_relaxed(&parked.lingering) != 0;
}

/*
 * Seen as an open-file-description lock, every POSIX lock conflicts, our own process's too; locks of other descriptions
 * (pid -1) are looked past.
 */
bool las_hold_carries_lock(const struct las_hold *hold)
{
	off_t start = 0;

	for (int i = 0; i < LOCK_RANGES; i++) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start };

		if (las_sys.fcntl(hold->fd, F_OFD_GETLK, (uintptr_t)&lock) < 0 || lock.l_type == F_UNLCK)
			return false;
		if (lock.l_pid != -1)
			return true;
		if (lock.l_len == 0)
			return false;
		start = lock.l_start + lock.l_len;
	}
	return true;
}
