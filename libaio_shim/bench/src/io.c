/*
 * io.c - reads, writes and fsyncs on one file.
 *
 * Every thread owns `depth` requests, submits whatever is idle and then waits
 * for at least one event.  On a shared context a thread may reap what another
 * submitted and then owns that request; the number in flight is therefore
 * counted per context.  Only one thread may read a ring, so a shared context
 * is always reaped by io_getevents.
 */
#define _GNU_SOURCE
#include "aioload.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PORTION = 1024 };

struct request {
	struct iocb iocb;
	uint64_t begun_ns;
	size_t expected;
	void *buffer;
};

/* The ring behind io_context_t, as the kernel lays it out. */
struct ring {
	unsigned id, nr;
	_Atomic unsigned head, tail;
	unsigned magic, compat, incompat, header_bytes;
	struct io_event events[];
};

struct job {
	const struct options *o;
	int fd, direct_fd;
	uint64_t blocks, bits; /* bits: blocks <= 2^bits */
	atomic_uint_fast64_t extended;
};

struct context {
	io_context_t id;
	atomic_uint in_flight;
};

struct worker {
	pthread_t thread;
	struct job *job;
	struct context *context; /* the one in use, of `contexts` in a row */
	unsigned contexts, turn;
	unsigned number, idle_count, writes;
	uint64_t next, random;
	int eventfd, epoll, clean;
	struct request **idle;
	struct iocb **list;
	struct io_event *events;
	struct result result;
};

/* xorshift64*: see coldread.c; here it chooses what to do, not where. */
static unsigned percent(struct worker *w)
{
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return (unsigned)((w->random * UINT64_C(2685821657736338717)) >> 33) % 100;
}

/*
 * The i-th block of a fixed random order without repetition, so that a cold
 * run never reads a block twice.  Each step below is a bijection on `bits`
 * bits; numbers beyond the last block are sent round again.
 */
static uint64_t permute(const struct job *job, uint64_t i)
{
	uint64_t mask = (UINT64_C(1) << job->bits) - 1, half = (job->bits + 1) / 2;

	do {
		for (int round = 0; round < 3; round++) {
			i = (i * UINT64_C(0x9e3779b97f4a7c15) + 0x7f4a7c15) & mask;
			i ^= i >> half;
		}
	} while (i >= job->blocks);
	return i;
}

/* Prepares the thread's next request; 0 if the file is used up. */
static int prepare(struct worker *w, struct request *r)
{
	struct job *job = w->job;
	const struct options *o = job->o;
	uint64_t block, index = w->next;
	int write = o->write_percent && percent(w) < o->write_percent;
	int fd = o->direct_percent && percent(w) < o->direct_percent ? job->direct_fd : job->fd;

	if (o->fsync_every && w->writes >= o->fsync_every) {
		w->writes = 0;
		r->expected = 0;
		io_prep_fdsync(&r->iocb, job->fd);
		goto notify;
	}
	if (o->extend) {
		block = atomic_fetch_add(&job->extended, 1);
		if (block >= job->blocks)
			return 0;
	} else {
		uint64_t mine = job->blocks / o->threads;

		if (index >= mine) {
			if (o->cold)
				return 0;
			index = 0;
		}
		w->next = index + 1;
		block = o->sequential ? w->number * mine + index : permute(job, w->number + index * o->threads);
	}
	r->expected = o->block_bytes;
	if (write) {
		io_prep_pwrite(&r->iocb, fd, r->buffer, o->block_bytes, (long long)(block * o->block_bytes));
		w->writes++;
	} else {
		io_prep_pread(&r->iocb, fd, r->buffer, o->block_bytes, (long long)(block * o->block_bytes));
	}
notify:
	r->iocb.data = r;
	if (w->eventfd >= 0)
		io_set_eventfd(&r->iocb, w->eventfd);
	return 1;
}

/* Submits all that is idle; 0 if there is no more to do. */
static int submit(struct worker *w)
{
	const struct options *o = w->job->o;

	while (w->idle_count) {
		unsigned n = 0, sent = 0;

		while (n < o->batch && w->idle_count && prepare(w, w->idle[w->idle_count - 1]))
			w->list[n++] = &w->idle[--w->idle_count]->iocb;
		if (n == 0)
			return 0;
		atomic_fetch_add(&w->context->in_flight, n);
		while (sent < n) {
			uint64_t before = now_ns();
			int ret;

			for (unsigned i = sent; i < n; i++)
				((struct request *)w->list[i]->data)->begun_ns = before;
			ret = io_submit(w->context->id, (long)(n - sent), w->list + sent);
			hist_add(&w->result.submit, now_ns() - before);
			w->result.submits++;
			if (ret <= 0)
				die("io_submit", ret ? -ret : EAGAIN);
			sent += (unsigned)ret;
		}
	}
	return 1;
}

static int reap_ring(struct worker *w, long nr)
{
	struct ring *ring = (struct ring *)w->context->id;
	/* Only this thread moves head; tail is released after the event it covers. */
	unsigned head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	unsigned tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
	int n = 0;

	while (head != tail && n < nr) {
		w->events[n++] = ring->events[head];
		head = head + 1 == ring->nr ? 0 : head + 1;
	}
	atomic_store_explicit(&ring->head, head, memory_order_release);
	return n;
}

/* Waits for at least one event. */
static int reap(struct worker *w)
{
	const struct options *o = w->job->o;
	long nr = (long)o->depth * (o->shared ? o->threads : 1);
	struct timespec zero = { 0, 0 };
	struct epoll_event ready;
	uint64_t count;
	int n;

	for (;;) {
		if (o->reap == REAP_EVENTFD || o->reap == REAP_EVENTFD_RING) {
			if (epoll_wait(w->epoll, &ready, 1, -1) != 1 ||
			    read(w->eventfd, &count, sizeof(count)) != sizeof(count))
				continue;
		}
		if (o->reap == REAP_GETEVENTS)
			n = io_getevents(w->context->id, 1, nr, w->events, NULL);
		else if (o->reap == REAP_EVENTFD)
			n = io_getevents(w->context->id, 0, nr, w->events, &zero);
		else
			n = reap_ring(w, nr);
		if (n > 0)
			return n;
		if (n < 0 && n != -EINTR)
			die("io_getevents", -n);
	}
}

/* The token tells waiting threads of a shared context that all is done; whoever sees it hands it on. */
static void send_token(struct worker *w)
{
	struct iocb token, *list = &token;

	io_prep_pread(&token, w->job->fd, NULL, 0, 0);
	token.data = NULL;
	io_submit(w->context->id, 1, &list);
}

static void account(struct worker *w, int n)
{
	uint64_t now = now_ns();
	unsigned finished = 0;

	for (int i = 0; i < n; i++) {
		struct request *r = w->events[i].data;
		long res = (long)w->events[i].res;

		if (!r) {
			send_token(w);
			continue;
		}
		finished++;
		hist_add(&w->result.complete, now - r->begun_ns);
		w->result.ops++;
		if (res == (long)r->expected) {
			w->result.bytes += r->expected;
		} else {
			if (!w->result.errors++)
				w->result.first_error = res < 0 ? (int)-res : ENODATA;
		}
		w->idle[w->idle_count++] = r;
	}
	/* The thread that finds nothing left while others may still wait wakes them. */
	if (finished && atomic_fetch_sub(&w->context->in_flight, finished) == finished && w->job->o->shared &&
	    atomic_load(&stopping))
		send_token(w);
}

static void next_context(struct worker *w)
{
	struct context *first = w->context - w->turn;

	w->turn = (w->turn + 1) % w->contexts;
	w->context = first + w->turn;
}

static void *run(void *argument)
{
	struct worker *w = argument;
	int more = 1;

	for (;;) {
		if (!w->clean && atomic_load_explicit(&measuring, memory_order_relaxed) == 2) {
			/* The warm-up is over: forget it. */
			memset(&w->result, 0, sizeof(w->result));
			w->clean = 1;
		}
		/* With several contexts: all of one's requests, then the next one's. */
		if (w->contexts > 1 && atomic_load(&w->context->in_flight) == 0)
			next_context(w);
		if (w->contexts > 1 && atomic_load(&w->context->in_flight)) {
			account(w, reap(w));
			continue;
		}
		/* On storage that stalls the time may be over before anything was done: then one more is waited for. */
		if (more && ((w->result.ops && atomic_load_explicit(&stopping, memory_order_relaxed)) || !submit(w))) {
			more = 0;
			atomic_store(&stopping, 1);
		}
		if (atomic_load(&w->context->in_flight) == 0) {
			if (!more)
				return NULL;
			continue;
		}
		account(w, reap(w));
	}
}

static void warm_file(const struct options *o, int fd)
{
	char *buffer = must(malloc(1 << 20));

	for (uint64_t at = 0; at < o->span_bytes; at += 1 << 20)
		if (pread(fd, buffer, 1 << 20, (off_t)at) < 0)
			die(o->path, errno);
	free(buffer);
}

static void open_job(struct job *job, struct options *o)
{
	int flags = o->write_percent ? O_RDWR | (o->extend ? O_CREAT | O_TRUNC : 0) : O_RDONLY;
	struct stat st;

	job->fd = open(o->path, flags, 0600);
	job->direct_fd = o->direct_percent ? open(o->path, (flags & ~O_TRUNC) | O_DIRECT) : -1;
	if (job->fd < 0 || fstat(job->fd, &st) < 0 || (o->direct_percent && job->direct_fd < 0))
		die(o->path, errno);
	if (o->span_bytes == 0)
		o->span_bytes = S_ISBLK(st.st_mode) ? (uint64_t)lseek(job->fd, 0, SEEK_END) : (uint64_t)st.st_size;
	job->blocks = o->span_bytes / o->block_bytes;
	if (job->blocks < o->threads)
		die("file too small", EINVAL);
	for (job->bits = 1; (UINT64_C(1) << job->bits) < job->blocks;)
		job->bits++;
	if (o->cold) {
		fdatasync(job->fd);
		posix_fadvise(job->fd, 0, 0, POSIX_FADV_DONTNEED);
	}
	if (o->hot)
		warm_file(o, job->fd);
}

static void init_worker(struct worker *w, struct job *job, struct context *context, unsigned number)
{
	const struct options *o = job->o;
	size_t most = (size_t)o->depth * (o->shared ? o->threads : 1);

	w->job = job;
	w->context = context;
	w->contexts = o->contexts;
	w->number = number;
	w->random = number + 1;
	w->eventfd = w->epoll = -1;
	w->idle = must(calloc(most, sizeof(*w->idle)));
	w->list = must(calloc(most, sizeof(*w->list)));
	w->events = must(calloc(most + 1, sizeof(*w->events)));
	for (unsigned i = 0; i < o->depth; i++) {
		struct request *r = must(calloc(1, sizeof(*r)));

		if (posix_memalign(&r->buffer, 4096, o->block_bytes))
			must(NULL);
		memset(r->buffer, (int)i | 1, o->block_bytes);
		w->idle[w->idle_count++] = r;
	}
	if (o->reap == REAP_EVENTFD || o->reap == REAP_EVENTFD_RING) {
		struct epoll_event event = { .events = EPOLLIN };

		w->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		w->epoll = epoll_create1(EPOLL_CLOEXEC);
		if (w->eventfd < 0 || w->epoll < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->eventfd, &event))
			die("eventfd", errno);
	}
}

static void set_up(struct context *context, unsigned requests, unsigned parked)
{
	/* One more than the requests: the token. */
	int err = io_setup((int)(requests + parked + 1), &context->id), ends[2];
	struct iocb iocb, *list[PORTION];

	if (err < 0)
		die("io_setup", -err);
	if (parked == 0)
		return;
	if (pipe(ends))
		die("pipe", errno);
	io_prep_poll(&iocb, ends[0], POLLIN);
	for (unsigned i = 0; i < PORTION; i++)
		list[i] = &iocb;
	while (parked) {
		int ret = io_submit(context->id, parked < PORTION ? parked : PORTION, list);

		if (ret <= 0)
			die("io_submit of polls", ret ? -ret : EAGAIN);
		parked -= (unsigned)ret;
	}
}

void run_io(const struct options *given, struct result *total)
{
	struct options o = *given;
	struct job job = { .o = &o };
	unsigned contexts = o.shared ? 1 : o.threads * o.contexts;
	struct context *context = must(calloc(contexts, sizeof(*context)));
	struct worker *workers = must(calloc(o.threads, sizeof(*workers)));

	if (o.shared && (o.reap != REAP_GETEVENTS || o.contexts > 1))
		die("--shared wants --reap getevents and one context", EINVAL);
	open_job(&job, &o);
	for (unsigned i = 0; i < contexts; i++)
		set_up(&context[i], o.depth * (o.shared ? o.threads : 1), o.parked);
	for (unsigned i = 0; i < o.threads; i++)
		init_worker(&workers[i], &job, &context[o.shared ? 0 : i * o.contexts], i);
	atomic_store(&measuring, 1);
	for (unsigned i = 0; i < o.threads; i++)
		if (pthread_create(&workers[i].thread, NULL, run, &workers[i]))
			die("pthread_create", EAGAIN);
	for (unsigned i = 0; i < o.threads; i++) {
		const struct result *r = &workers[i].result;

		pthread_join(workers[i].thread, NULL);
		hist_merge(&total->submit, &r->submit);
		hist_merge(&total->complete, &r->complete);
		total->ops += r->ops;
		total->bytes += r->bytes;
		total->submits += r->submits;
		if (r->errors && !total->errors)
			total->first_error = r->first_error;
		total->errors += r->errors;
	}
	/*
	 * All the rest goes with the process, which ends now.  The kernel takes 30 ms to destroy one context, but
	 * no longer to destroy all of them at exit.
	 */
}
