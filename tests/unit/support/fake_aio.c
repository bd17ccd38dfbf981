/* fake_aio.c - see fake_aio.h. */
#include "fake_aio.h"

#define NR 127

struct f_context f_contexts[F_CONTEXTS];
int f_context_count;
int (*f_refuse)(struct f_context *c, const struct las_iocb *iocb);

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static struct f_context *find(uintptr_t handle)
{
	for (int i = 0; i < f_context_count; i++)
		if ((uintptr_t)f_contexts[i].ring == handle)
			return &f_contexts[i];
	FAIL("%lx is no context of the fake", (long)handle);
}

static int direct_fd = -1;

static long say_direct(int fd, int cmd, uintptr_t arg)
{
	long ret = u_real.fcntl(fd, cmd, arg);

	return cmd == F_GETFL && fd == direct_fd && ret >= 0 ? ret | O_DIRECT : ret;
}

int f_direct(int fd)
{
	direct_fd = fd;
	las_sys.fcntl = say_direct;
	return fd;
}

int f_direct_file(size_t bytes)
{
	return f_direct(t_file("direct", bytes));
}

struct iocb f_iocbs[128], *f_list[128];
char *f_buffers;

void f_prepare_reads(int fd, int n)
{
	f_buffers = t_pages((size_t)n * 8192);
	for (int i = 0; i < n; i++) {
		io_prep_pread(&f_iocbs[i], fd, f_buffers + i * 8192, 8192, i * 8192);
		f_list[i] = &f_iocbs[i];
	}
}

static long fake_setup(unsigned nr, uintptr_t *handle)
{
	struct f_context *c;

	pthread_mutex_lock(&mutex);
	CHECK(f_context_count < F_CONTEXTS);
	c = &f_contexts[f_context_count++];
	c->depth = nr;
	c->ring = t_pages(4096);
	c->ring->nr = NR;
	*handle = (uintptr_t)c->ring;
	pthread_mutex_unlock(&mutex);
	return 0;
}

static long fake_destroy(uintptr_t handle)
{
	FAIL("a hidden context is destroyed");
}

static unsigned count(const struct f_context *c)
{
	return (c->ring->tail + NR - __atomic_load_n(&c->ring->head, __ATOMIC_ACQUIRE)) % NR;
}

static void post(struct f_context *c, const struct las_iocb *iocb, int64_t res)
{
	uint32_t tail = c->ring->tail;

	CHECK(count(c) < NR - 1);
	c->ring->events[tail] = (struct las_event){ .data = iocb->data, .obj = (uint64_t)(uintptr_t)iocb, .res = res };
	__atomic_store_n(&c->ring->tail, (tail + 1) % NR, __ATOMIC_RELEASE);
	if (iocb->flags & LAS_FLAG_RESFD) {
		const uint64_t one = 1;

		/* The kernel has a reference; here the reaper may have closed its descriptor, and nobody watches it any more. */
		if (write((int)iocb->resfd, &one, sizeof(one)) < 0)
			CHECK(errno == EBADF || errno == EINVAL || errno == EPERM);
	}
	pthread_cond_broadcast(&changed);
}

static long fake_submit(uintptr_t handle, long nr, struct las_iocb **iocbs)
{
	struct f_context *c;
	long i, err = 0;

	pthread_mutex_lock(&mutex);
	c = find(handle);
	for (i = 0; i < nr; i++) {
		if (iocbs[i]->data == 0) {
			c->kicks++;
			post(c, iocbs[i], 1);
			continue;
		}
		err = f_refuse ? f_refuse(c, iocbs[i]) : 0;
		if (err)
			break;
		CHECK(c->submitted < F_PENDING);
		c->pending[c->submitted++] = iocbs[i];
	}
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
	return i ? i : err;
}

/* False when the time is over. */
static bool wait_changed(const struct timespec *until)
{
	if (!until) {
		pthread_cond_wait(&changed, &mutex);
		return true;
	}
	return pthread_cond_timedwait(&changed, &mutex, until) != ETIMEDOUT;
}

long f_getevents(uintptr_t handle, long min, long nr, struct las_event *events, struct timespec *timeout,
                 const sigset_t *mask)
{
	struct timespec until;
	struct f_context *c;
	long n = 0;

	(void)mask; /* no case has one */
	if (timeout) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += timeout->tv_nsec;
		until.tv_sec += timeout->tv_sec + until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
	}
	pthread_mutex_lock(&mutex);
	c = find(handle);
	c->waiters++;
	c->wait_min = min;
	pthread_cond_broadcast(&changed);
	while ((long)count(c) < min && wait_changed(timeout ? &until : NULL))
		;
	for (uint32_t head = c->ring->head; n < nr && count(c); n++) {
		events[n] = c->ring->events[head];
		head = (head + 1) % NR;
		__atomic_store_n(&c->ring->head, head, __ATOMIC_RELEASE);
	}
	c->waiters--;
	pthread_mutex_unlock(&mutex);
	return n;
}

static long fake_cancel(uintptr_t handle, struct las_iocb *iocb, struct las_event *result)
{
	struct f_context *c;
	long err = -EINVAL;

	if (!iocb)
		return -EFAULT;
	pthread_mutex_lock(&mutex);
	c = find(handle);
	for (int i = 0; i < c->submitted; i++) {
		if (c->pending[i] != iocb || iocb->opcode != LAS_CMD_POLL)
			continue;
		c->pending[i] = NULL;
		post(c, iocb, 0);
		err = -EINPROGRESS;
		break;
	}
	pthread_mutex_unlock(&mutex);
	return err;
}

void f_install(void)
{
	las_sys.io_setup = fake_setup;
	las_sys.io_destroy = fake_destroy;
	las_sys.io_submit = fake_submit;
	las_sys.io_getevents = f_getevents;
	las_sys.io_cancel = fake_cancel;
}

void f_finish(struct f_context *c, int i, int64_t res)
{
	pthread_mutex_lock(&mutex);
	CHECK(i < c->submitted && c->pending[i]);
	post(c, c->pending[i], res);
	c->pending[i] = NULL;
	pthread_mutex_unlock(&mutex);
}

int f_kicks(struct f_context *c)
{
	int kicks;

	pthread_mutex_lock(&mutex);
	kicks = c->kicks;
	pthread_mutex_unlock(&mutex);
	return kicks;
}

void f_await_submitted(struct f_context *c, int n)
{
	pthread_mutex_lock(&mutex);
	while (c->submitted < n)
		pthread_cond_wait(&changed, &mutex);
	pthread_mutex_unlock(&mutex);
}

void f_await_waiter(struct f_context *c)
{
	pthread_mutex_lock(&mutex);
	while (c->waiters == 0)
		pthread_cond_wait(&changed, &mutex);
	pthread_mutex_unlock(&mutex);
}

void f_await_waiter_for(struct f_context *c, long min)
{
	pthread_mutex_lock(&mutex);
	while (c->waiters == 0 || c->wait_min != min)
		pthread_cond_wait(&changed, &mutex);
	pthread_mutex_unlock(&mutex);
}
