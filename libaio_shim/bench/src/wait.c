/*
 * wait.c - waiting instead of reading: many pending polls, and contexts made
 * and destroyed.
 *
 * Polls: `depth` datagram sockets, all waited for.  A second thread sends a
 * byte to `batch` of them at random and pauses until they were all handled, so
 * the time from the sending to the handling is a wake-up and no queue builds
 * up.  One socket sends to all: the limit of open files is often near 20,000.
 * The same with epoll, to compare with.
 */
#define _GNU_SOURCE
#include "aioload.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct target {
	int socket;
	int last; /* poked in the last round */
	uint64_t poked_ns;
	struct sockaddr_un address;
	socklen_t address_bytes;
	struct iocb iocb;
};

struct polls {
	const struct options *o;
	struct target *targets;
	int sender;
	sem_t handled;
	int over; /* a poke of the last round was handled */
};

static void *poke(void *argument)
{
	struct polls *p = argument;
	uint64_t random = 88172645463325252u;
	int last = 0;

	while (!last) {
		last = atomic_load(&stopping);
		for (unsigned i = 0; i < p->o->batch; i++) {
			struct target *target;

			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			/* Spread over all sockets, none twice in one round. */
			target = &p->targets[(random % (p->o->depth / p->o->batch)) * p->o->batch + i];
			target->last = last;
			target->poked_ns = now_ns();
			if (sendto(p->sender, "", 1, 0, (struct sockaddr *)&target->address, target->address_bytes) !=
			    1)
				die("sendto", errno);
		}
		for (unsigned i = 0; i < p->o->batch; i++)
			while (sem_wait(&p->handled))
				continue;
	}
	return NULL;
}

static void handle(struct polls *p, struct target *target, struct result *result)
{
	char byte;

	hist_add(&result->complete, now_ns() - target->poked_ns);
	result->ops++;
	if (read(target->socket, &byte, 1) != 1) {
		result->errors++;
		result->first_error = errno;
	}
	if (target->last)
		p->over = 1;
}

static void submit_polls(io_context_t ctx, struct iocb **list, unsigned n, struct result *result)
{
	uint64_t before = now_ns();

	for (unsigned sent = 0; sent < n;) {
		int ret = io_submit(ctx, (long)(n - sent), list + sent);

		if (ret <= 0)
			die("io_submit", ret ? -ret : EAGAIN);
		sent += (unsigned)ret;
	}
	hist_add(&result->submit, now_ns() - before);
	result->submits++;
}

static void make_targets(struct polls *p)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		die("getrlimit", errno);
	if (files.rlim_cur < p->o->depth + 64) {
		files.rlim_cur = files.rlim_max;
		if (files.rlim_max < p->o->depth + 64 || setrlimit(RLIMIT_NOFILE, &files))
			die("limit of open files", EMFILE);
	}
	p->sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	p->targets = must(calloc(p->o->depth, sizeof(*p->targets)));
	for (unsigned i = 0; i < p->o->depth; i++) {
		struct target *target = &p->targets[i];
		struct sockaddr_un any = { .sun_family = AF_UNIX };

		/* An address of only the family lets the kernel choose an abstract name. */
		target->address_bytes = sizeof(target->address);
		target->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (target->socket < 0 || bind(target->socket, (struct sockaddr *)&any, sizeof(any.sun_family)) ||
		    getsockname(target->socket, (struct sockaddr *)&target->address, &target->address_bytes))
			die("socket", errno);
	}
}

/* Forgets the warm-up when it is over. */
static void begin_measuring(int *clean, struct result *result)
{
	if (*clean || atomic_load_explicit(&measuring, memory_order_relaxed) != 2)
		return;
	memset(result, 0, sizeof(*result));
	*clean = 1;
}

static void wait_with_aio(struct polls *p, struct result *result, pthread_t *poker)
{
	unsigned depth = p->o->depth;
	struct iocb **list = must(calloc(depth, sizeof(*list)));
	struct io_event *events = must(calloc(depth, sizeof(*events)));
	io_context_t ctx = NULL;
	int clean = 0, err = io_setup((int)depth, &ctx);
	unsigned left = 0;

	if (err < 0)
		die("io_setup", -err);
	for (unsigned i = 0; i < depth; i++) {
		io_prep_poll(&p->targets[i].iocb, p->targets[i].socket, POLLIN);
		p->targets[i].iocb.data = &p->targets[i];
		list[i] = &p->targets[i].iocb;
	}
	for (unsigned i = 0; i < depth; i += 1024)
		submit_polls(ctx, list + i, depth - i < 1024 ? depth - i : 1024, result);
	atomic_store(&measuring, 1);
	if (pthread_create(poker, NULL, poke, p))
		die("pthread_create", EAGAIN);
	while (!p->over || left) {
		int n = io_getevents(ctx, 1, depth, events, NULL);

		if (n < 0 && n != -EINTR)
			die("io_getevents", -n);
		begin_measuring(&clean, result);
		for (int i = 0; i < n; i++) {
			struct target *target = events[i].data;

			handle(p, target, result);
			list[i] = &target->iocb;
		}
		if (n > 0)
			submit_polls(ctx, list, (unsigned)n, result);
		left = (left + p->o->batch - (unsigned)(n > 0 ? n : 0)) % p->o->batch;
		for (int i = 0; i < n; i++)
			sem_post(&p->handled);
	}
	io_destroy(ctx);
	free(list);
	free(events);
}

static void wait_with_epoll(struct polls *p, struct result *result, pthread_t *poker)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC), clean = 0;
	struct epoll_event *events = must(calloc(p->o->depth, sizeof(*events)));
	unsigned left = 0;

	for (unsigned i = 0; i < p->o->depth; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = &p->targets[i] };

		if (epoll_ctl(epoll, EPOLL_CTL_ADD, p->targets[i].socket, &event))
			die("epoll_ctl", errno);
	}
	atomic_store(&measuring, 1);
	if (pthread_create(poker, NULL, poke, p))
		die("pthread_create", EAGAIN);
	while (!p->over || left) {
		int n = epoll_wait(epoll, events, (int)p->o->depth, -1);

		begin_measuring(&clean, result);
		for (int i = 0; i < n; i++)
			handle(p, events[i].data.ptr, result);
		left = (left + p->o->batch - (unsigned)(n > 0 ? n : 0)) % p->o->batch;
		for (int i = 0; i < n; i++)
			sem_post(&p->handled);
	}
	close(epoll);
	free(events);
}

void run_poll(const struct options *o, struct result *total)
{
	struct polls p = { .o = o };
	pthread_t poker;

	sem_init(&p.handled, 0, 0);
	make_targets(&p);
	if (o->mode == MODE_POLL)
		wait_with_aio(&p, total, &poker);
	else
		wait_with_epoll(&p, total, &poker);
	pthread_join(poker, NULL);
}

void run_churn(const struct options *o, struct result *total)
{
	int clean = 0;

	atomic_store(&measuring, 1);
	while (!atomic_load(&stopping)) {
		io_context_t ctx = NULL;
		uint64_t before = now_ns(), between;
		int err = io_setup((int)o->depth, &ctx);

		if (err < 0)
			die("io_setup", -err);
		between = now_ns();
		io_destroy(ctx);
		begin_measuring(&clean, total);
		hist_add(&total->submit, between - before);
		hist_add(&total->complete, now_ns() - between);
		total->ops++;
		total->submits++;
	}
}
