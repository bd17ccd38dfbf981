/*
 * pollset.c - see pollset.h.
 *
 * The lock guards the list, the epoll instance and the thread's state.  A
 * request is on the list while epoll may report it; epoll's user data carries
 * its address and a tag, and a report counts only if, under the lock, the
 * request still bears that tag (its memory is type-stable, so looking is
 * safe even when it is somebody else's by now).
 */
#include "lanes/pollset.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "base/futex.h"
#include "base/lock.h"
#include "base/stats.h"
#include "lanes/crew.h"
#include "lanes/head.h"
#include "lanes/reaper.h"

#define REPORTS 64
#define IDLE_NS ((int64_t)2 * 1000 * 1000 * 1000)
#define TAG_SHIFT 48 /* what nobody asks to be higher is mapped below 1 << 47, or 1 << 48 on aarch64 */

static struct {
	struct las_lock lock;
	struct las_link waiting;
	struct las_hold *epoll; /* NULL while nothing waits */
	struct las_hold *kick;  /* an always ready descriptor in the instance, to make the thread look */
	uint16_t tag;
	bool thread;   /* it exists */
	uint32_t word; /* it sleeps here while there is no instance */
} set;

void las_pollset_init(void)
{
	memset(&set, 0, sizeof(set));
	las_list_init(&set.waiting);
}

static uint64_t name_of(const struct las_req *req)
{
	return (uint64_t)(uintptr_t)req | (uint64_t)req->poll_tag << TAG_SHIFT;
}

static struct las_req *named_locked(uint64_t name)
{
	struct las_req *req = (struct las_req *)(uintptr_t)(name & (((uint64_t)1 << TAG_SHIFT) - 1));

	return req && req->poll_tag == name >> TAG_SHIFT ? req : NULL;
}

/*
 * KERNEL: poll-late-mask: it reports what the wake-up named, which is the twin
 * of what was asked for, too.  Sockets name more, and timers and their like
 * have no twins (test: poll.late_event_names_the_wake_ups_bits).
 */
static uint32_t with_twins(uint32_t events)
{
	if (events & (POLLIN | POLLRDNORM))
		events |= POLLIN | POLLRDNORM;
	if (events & (POLLOUT | POLLWRNORM))
		events |= POLLOUT | POLLWRNORM;
	return events;
}

static uint32_t events_of(const struct las_req *req)
{
	if (req->op.kind == LAS_OP_POLL)
		return with_twins(req->op.poll_events);
	return req->op.kind == LAS_OP_READ ? POLLIN : POLLOUT;
}

static void remove_locked(struct las_req *req)
{
	las_sys.epoll_ctl(set.epoll->fd, EPOLL_CTL_DEL, req->file->fd, NULL);
	las_list_remove(&req->link);
	req->poll_tag = 0;
}

static int open_locked(void)
{
	long fd;

	if (set.epoll)
		return 0;
	fd = las_sys.epoll_create1(EPOLL_CLOEXEC);
	return fd < 0 ? (int)fd : las_hold_adopt((int)fd, &set.epoll);
}

static void close_locked(void)
{
	if (set.kick)
		las_hold_put(set.kick);
	if (set.epoll)
		las_hold_put(set.epoll);
	set.kick = set.epoll = NULL;
}

/* The last request was taken back while the thread sleeps in the kernel: let it come and close up. */
static void kick_locked(void)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = 0 };
	long fd;

	if (set.kick) {
		las_sys.epoll_ctl(set.epoll->fd, EPOLL_CTL_MOD, set.kick->fd, &event);
		return;
	}
	fd = las_sys.eventfd2(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd >= 0 && las_hold_adopt((int)fd, &set.kick) == 0)
		las_sys.epoll_ctl(set.epoll->fd, EPOLL_CTL_ADD, set.kick->fd, &event);
}

/* Runs a request that was reported ready; it is on no list.  Puts it back if the promise did not hold. */
static void serve(struct las_req *req, uint32_t ready)
{
	struct las_file file = { .fd = req->file->fd, .stream = true };
	struct las_link list;
	enum las_verdict verdict;
	long result;

	if (req->op.kind == LAS_OP_POLL) {
		/* An end or an error wakes without naming bits; then the kernel looks for what was asked for. */
		if (ready & (POLLHUP | POLLERR | POLLRDHUP))
			ready &= (uint32_t)req->op.poll_events | POLLHUP | POLLERR;
		req->owner->complete(req, ready);
		return;
	}
	result = -EBADF; /* if another file has been put on its number */
	verdict = las_hold_intact(req->file) ? las_head_try(&req->op, &file, &result) : LAS_DONE;
	if (verdict != LAS_PASS) {
		las_op_forward_signal(&req->op, result);
		las_crew_leave_order(req);
		req->owner->complete(req, result);
		return;
	}
	req->pollable = !file.refuses_nowait;
	if (req->pollable && las_pollset_add(req) == 0)
		return;
	las_list_init(&list);
	las_list_push(&list, &req->link);
	las_crew_push(&list, false);
}

/* The program has closed the instance under our feet: a new one, and what has lost its file as well goes to the crew. */
static void start_again_locked(bool closed)
{
	struct las_link waited, lost, *l;

	las_list_init(&waited);
	las_list_init(&lost);
	las_list_append(&waited, &set.waiting);
	close_locked();
	las_unlock(&set.lock);
	while ((l = las_list_pop(&waited))) {
		struct las_req *req = las_container_of(l, struct las_req, link);

		if (!closed || las_pollset_add(req) < 0)
			las_list_push(&lost, l);
	}
	las_crew_push(&lost, false);
	las_lock(&set.lock);
}

static void wait_and_serve_locked(void)
{
	struct epoll_event reports[REPORTS];
	struct las_req *ready[REPORTS];
	int fd = set.epoll->fd;
	long n;

	las_unlock(&set.lock);
	n = las_sys.epoll_pwait(fd, reports, REPORTS, -1, NULL);
	las_lock(&set.lock);
	if (las_unlikely(n < 0 && n != -EINTR)) {
		start_again_locked(n == -EBADF || n == -EINVAL);
		return;
	}
	for (long i = 0; i < n; i++) {
		ready[i] = named_locked(reports[i].data.u64);
		if (ready[i])
			remove_locked(ready[i]);
	}
	las_unlock(&set.lock);
	for (long i = 0; i < n; i++)
		if (ready[i])
			serve(ready[i], reports[i].events);
	las_lock(&set.lock);
}

static void *thread_main(void *arg)
{
	(void)arg;
	prctl(PR_SET_NAME, "syslet/poll");
	las_lock(&set.lock);
	for (;;) {
		uint32_t word;
		long err;

		while (!las_list_empty(&set.waiting))
			wait_and_serve_locked();
		close_locked();
		word = set.word;
		las_unlock(&set.lock);
		if (las_hold_parked())
			las_reaper_watch(); /* it looks after what the requests have left behind */
		err = las_futex_wait(&set.word, word, las_now_ns() + IDLE_NS);
		las_lock(&set.lock);
		if (err == -ETIMEDOUT && las_list_empty(&set.waiting))
			break;
	}
	set.thread = false;
	las_unlock(&set.lock);
	return NULL;
}

bool las_pollset_pollable(int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	long epoll = las_sys.epoll_create1(EPOLL_CLOEXEC), err;

	if (epoll < 0)
		return true;
	err = las_sys.epoll_ctl((int)epoll, EPOLL_CTL_ADD, fd, &event);
	las_sys.close((int)epoll);
	return err != -EPERM;
}

static int see_to_thread_locked(void)
{
	long err = 0;

	if (set.thread) {
		set.word++;
		las_futex_wake(&set.word, 1);
		return 0;
	}
	err = las_sys.thread_start(thread_main, NULL);
	set.thread = err == 0;
	if (set.thread)
		las_count(threads, 1);
	return (int)err;
}

bool las_pollset_has_thread(void)
{
	bool there;

	las_lock(&set.lock);
	there = set.thread || see_to_thread_locked() == 0;
	las_unlock(&set.lock);
	return there;
}

int las_pollset_add(struct las_req *req)
{
	struct epoll_event event = { .events = events_of(req) | EPOLLONESHOT };
	struct las_hold *own;
	bool first;
	int err;

	/* epoll knows a file once per descriptor: each request brings its own. */
	if (las_load_acquire(&req->file->refs) > 1) {
		err = las_hold_intact(req->file) ? las_hold_get_unshared(req->file->fd, req->file->kind, &own) : -EBADF;
		if (err)
			return err;
		las_hold_name(own, req->file->device, req->file->inode);
		las_hold_put(req->file);
		req->file = own;
	}
	las_lock(&set.lock);
	err = open_locked();
	if (!err && !las_hold_has_number(set.epoll))
		err = -EBADF; /* until the thread has found out */
	if (err)
		goto unlock;
	if (++set.tag == 0)
		set.tag = 1;
	req->poll_tag = set.tag;
	event.data.u64 = name_of(req);
	first = las_list_empty(&set.waiting);
	las_list_push(&set.waiting, &req->link);
	err = (int)las_sys.epoll_ctl(set.epoll->fd, EPOLL_CTL_ADD, req->file->fd, &event);
	if (!err && (first || !set.thread))
		err = see_to_thread_locked();
	if (err) {
		remove_locked(req);
		if (las_list_empty(&set.waiting) && !set.thread)
			close_locked();
		else if (las_list_empty(&set.waiting))
			see_to_thread_locked(); /* idle, it comes to close up */
	}
unlock:
	las_unlock(&set.lock);
	return err;
}

struct las_req *las_pollset_take(const struct las_owner *owner, uint64_t obj)
{
	struct las_req *found = NULL;
	struct las_link *l, *tmp;

	las_lock(&set.lock);
	las_list_each(&set.waiting, l, tmp) {
		struct las_req *req = las_container_of(l, struct las_req, link);

		if (req->owner != owner || (obj && req->obj != obj))
			continue;
		remove_locked(req);
		found = req;
		if (las_list_empty(&set.waiting))
			kick_locked();
		break;
	}
	las_unlock(&set.lock);
	return found;
}
