/*
 * reaper.c - see reaper.h.
 *
 * The lock guards the thread's existence and the eventfd.  `awake` is read
 * without it: a submitter that finds it set relies on the thread's next look,
 * at most LOOK_NS away; the thread clears it, then looks once more, then
 * sleeps, so that whoever sees it cleared wakes it, and whoever sees it set
 * is seen.
 */
#include "lanes/reaper.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "base/futex.h"
#include "base/lock.h"
#include "base/stats.h"
#include "lanes/announce.h"
#include "lanes/crew.h"
#include "lanes/native.h"
#include "lanes/table.h"

#define LOOK_NS ((int64_t)1000 * 1000)
#define IDLE_LOOKS 20 /* looks in a row with nothing in flight before it sleeps */
#define CLOSE_LOOKS 2 /* and before it closes its eventfd: an idle library owns no descriptor */
#define IDLE_NS ((int64_t)2 * 1000 * 1000 * 1000)

static struct {
	struct las_lock lock;
	bool thread;
	struct las_hold *eventfd, *epoll; /* while it is awake and somebody asked for them; both or none */
	uint32_t awake; /* atomic; a futex: 0 asleep, else looking; 1 and 2 take turns when an eventfd comes */
} reaper;

void las_reaper_init(void)
{
	memset(&reaper, 0, sizeof(reaper));
}

/* Moves on, or calls the crew to, whatever nobody looks after: how much there is. */
static unsigned look(void)
{
	return las_announce_watch() + las_native_reap_all() + las_crew_look();
}

static void close_eventfd(void)
{
	struct las_hold *eventfd, *epoll;

	las_lock(&reaper.lock);
	eventfd = reaper.eventfd;
	epoll = reaper.epoll;
	reaper.eventfd = reaper.epoll = NULL;
	las_unlock(&reaper.lock);
	if (eventfd)
		las_hold_put(eventfd);
	if (epoll)
		las_hold_put(epoll);
}

/* Waits for an event that was announced, or for the next look. */
static void wait_for_event(void)
{
	struct epoll_event report;
	struct las_hold *epoll;
	uint32_t awake;

	las_lock(&reaper.lock);
	epoll = reaper.epoll;
	awake = las_load_relaxed(&reaper.awake); /* changed under the lock when an eventfd comes */
	las_unlock(&reaper.lock);
	/* Only this thread closes it, so it stays good without a reference. */
	if (!epoll)
		las_futex_wait(&reaper.awake, awake, las_now_ns() + LOOK_NS);
	else if (!las_hold_has_number(epoll) || las_sys.epoll_pwait(epoll->fd, &report, 1, LOOK_NS / 1000000, NULL) < 0)
		close_eventfd(); /* the program has closed it under our feet */
}

/*
 * The eventfd is watched edge-triggered: each announcement wakes once, and
 * nobody has to read the counter, which the kernel lets grow without end.
 */
static void open_eventfd_locked(void)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	long epoll = las_sys.epoll_create1(EPOLL_CLOEXEC), fd;

	if (epoll < 0 || las_hold_adopt((int)epoll, &reaper.epoll) < 0)
		return;
	fd = las_sys.eventfd2(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0 || las_hold_adopt((int)fd, &reaper.eventfd) < 0)
		goto close_epoll;
	if (las_sys.epoll_ctl(reaper.epoll->fd, EPOLL_CTL_ADD, reaper.eventfd->fd, &event) == 0)
		return;
	las_hold_put(reaper.eventfd);
	reaper.eventfd = NULL;
close_epoll:
	las_hold_put(reaper.epoll);
	reaper.epoll = NULL;
}

/* Whether there are holds to be looked at again.  What a server keeps waiting must not keep this thread. */
static bool close_parked(void)
{
	bool left = las_hold_expire(LAS_EXPIRE_QUICK);

	if (las_hold_lingering())
		las_crew_sweep();
	return left;
}

/* Sleeps until somebody watches: false when the thread is to end. */
static bool sleep_idle(void)
{
	long err = 0;
	bool parked, end;

	close_eventfd();
	las_store_release(&reaper.awake, 0);
	las_fence_seq_cst(); /* clears before it looks; las_reaper_watch adds before it reads */
	do {
		parked = close_parked();
		err = 0; /* what is found now is no time-out */
		if (look())
			break;
		err = las_futex_wait(&reaper.awake, 0, las_now_ns() + (parked ? LAS_LINGER_NS : IDLE_NS));
	} while (err == -ETIMEDOUT && parked);
	las_lock(&reaper.lock);
	end = las_load_acquire(&reaper.awake) == 0 && err == -ETIMEDOUT;
	if (end)
		reaper.thread = false;
	else
		las_store_release(&reaper.awake, 1);
	las_unlock(&reaper.lock);
	return !end;
}

static void *thread_main(void *arg)
{
	unsigned idle = 0;

	(void)arg;
	prctl(PR_SET_NAME, "syslet/reaper");
	do {
		for (idle = 0; idle < IDLE_LOOKS; idle++) {
			if (look())
				idle = 0;
			if (idle == CLOSE_LOOKS)
				close_eventfd();
			wait_for_event();
			if (idle == CLOSE_LOOKS)
				close_parked();
		}
	} while (sleep_idle());
	return NULL;
}

static bool see_to_thread_locked(void)
{
	if (!reaper.thread) {
		reaper.thread = !las_table_is_stranger() && las_sys.thread_start(thread_main, NULL) == 0;
		/* Not before it is there, or others would rely on it; the thread needs the lock before it clears this. */
		if (reaper.thread) {
			las_store_release(&reaper.awake, 1);
			las_count(threads, 1);
		}
	} else if (!las_load_acquire(&reaper.awake)) {
		las_store_release(&reaper.awake, 1);
		las_futex_wake(&reaper.awake, 1);
	}
	return reaper.thread;
}

bool las_reaper_watch(void)
{
	bool there;

	las_fence_seq_cst(); /* see sleep_idle */
	if (las_likely(las_load_acquire(&reaper.awake)))
		return true;
	las_lock(&reaper.lock);
	there = see_to_thread_locked();
	las_unlock(&reaper.lock);
	return there;
}

struct las_hold *las_reaper_get(void)
{
	struct las_hold *eventfd = NULL;

	las_lock(&reaper.lock);
	if (!see_to_thread_locked())
		goto unlock;
	if (!reaper.eventfd) {
		open_eventfd_locked();
		if (!reaper.eventfd)
			goto unlock;
		/* From now on the descriptor wakes it; if it sleeps on the word, that has to change once. */
		las_store_release(&reaper.awake, las_load_relaxed(&reaper.awake) ^ 3);
		las_futex_wake(&reaper.awake, 1);
	}
	if (!las_hold_has_number(reaper.eventfd))
		goto unlock; /* until the thread has closed it */
	eventfd = reaper.eventfd;
	las_hold_ref(eventfd);
unlock:
	las_unlock(&reaper.lock);
	return eventfd;
}
