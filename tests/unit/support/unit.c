/* unit.c - see unit.h. */
#include "unit.h"

#include "aio/complete.h"
#include "base/fork.h"
#include "base/hold.h"
#include "libaio_shim.h"

struct las_sys u_real;

__attribute__((constructor)) static void keep_table(void)
{
	u_real = las_sys;
}

/* ---- gates ---- */

void u_gate_pass(struct u_gate *gate)
{
	pthread_mutex_lock(&gate->mutex);
	gate->waiting++;
	pthread_cond_broadcast(&gate->changed);
	while (!gate->open && !gate->tickets)
		pthread_cond_wait(&gate->changed, &gate->mutex);
	if (!gate->open)
		gate->tickets--;
	gate->waiting--;
	gate->passed++;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->mutex);
}

static void set_gate(struct u_gate *gate, bool open, int tickets)
{
	pthread_mutex_lock(&gate->mutex);
	gate->open = open;
	gate->tickets += tickets;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->mutex);
}

void u_gate_open(struct u_gate *gate)
{
	set_gate(gate, true, 0);
}

void u_gate_close(struct u_gate *gate)
{
	set_gate(gate, false, 0);
}

void u_gate_admit(struct u_gate *gate, int n)
{
	set_gate(gate, false, n);
}

static void await_field(struct u_gate *gate, const int *field, int n)
{
	pthread_mutex_lock(&gate->mutex);
	while (*field < n)
		pthread_cond_wait(&gate->changed, &gate->mutex);
	pthread_mutex_unlock(&gate->mutex);
}

void u_gate_await(struct u_gate *gate, int n)
{
	await_field(gate, &gate->waiting, n);
}

void u_gate_await_passed(struct u_gate *gate, int n)
{
	await_field(gate, &gate->passed, n);
}

int u_gate_waiting(struct u_gate *gate)
{
	int waiting;

	pthread_mutex_lock(&gate->mutex);
	waiting = gate->waiting;
	pthread_mutex_unlock(&gate->mutex);
	return waiting;
}

void u_await(unsigned *counter, unsigned n)
{
	while (u_counted(counter) < n)
		usleep(200);
}

/* ---- an owner ---- */

static struct u_owner *owner_of(const struct las_req *req)
{
	return las_container_of(req->owner, struct u_owner, owner);
}

/* The request is gone before its end is told, so that a test which waits for the end may look at descriptors. */
static void note(struct las_req *req, long result, bool by_discard)
{
	struct u_owner *owner = owner_of(req);
	uint64_t data = req->data;
	int at;

	las_req_put(req);
	pthread_mutex_lock(&owner->mutex);
	at = owner->completed + owner->discarded;
	CHECK(at < U_RESULTS);
	owner->results[at].data = data;
	owner->results[at].result = result;
	owner->results[at].by_discard = by_discard;
	if (by_discard)
		owner->discarded++;
	else
		owner->completed++;
	pthread_cond_broadcast(&owner->changed);
	pthread_mutex_unlock(&owner->mutex);
}

static void complete(struct las_req *req, long result)
{
	note(req, result, false);
}

static void complete_all(struct las_req **reqs, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		complete(reqs[i], reqs[i]->result);
}

static void discard(struct las_req *req)
{
	note(req, 0, true);
}

static void moved(struct las_req *req)
{
	struct u_owner *owner = owner_of(req);

	pthread_mutex_lock(&owner->mutex);
	owner->moved++;
	pthread_mutex_unlock(&owner->mutex);
}

void u_start(void)
{
	/* Any call does it; this one is refused and leaves nothing behind. */
	CHECK_RET(las_io_destroy(NULL), -EINVAL);
	CHECK(las_process_ready());
}

void u_owner_init(struct u_owner *owner)
{
	memset(owner, 0, sizeof(*owner));
	owner->owner.complete = complete;
	owner->owner.complete_all = complete_all;
	owner->owner.discard = discard;
	owner->owner.moved = moved;
	pthread_mutex_init(&owner->mutex, NULL);
	pthread_cond_init(&owner->changed, NULL);
}

void u_owner_await(struct u_owner *owner, int ended)
{
	pthread_mutex_lock(&owner->mutex);
	while (owner->completed + owner->discarded < ended)
		pthread_cond_wait(&owner->changed, &owner->mutex);
	pthread_mutex_unlock(&owner->mutex);
}

struct las_req *u_req(struct u_owner *owner, uint64_t data, enum las_op_kind kind, int fd)
{
	struct las_req *req = las_req_get();

	CHECK(req != NULL);
	las_list_init(&req->link);
	req->owner = &owner->owner;
	req->data = req->obj = data;
	req->op.kind = (uint8_t)kind;
	req->op.iov = req->op.inline_iov;
	req->lane = LAS_LANE_CREW;
	req->bounded = true;
	if (fd >= 0) {
		req->fd = fd;
		req->flags = fcntl(fd, F_GETFL);
		CHECK_RET(las_hold_get(fd, LAS_HOLD_PLAIN, &req->file), 0);
	}
	return req;
}

struct las_req *u_rw(struct u_owner *owner, uint64_t data, enum las_op_kind kind, int fd, void *buf, size_t bytes,
                     int64_t offset)
{
	struct las_req *req = u_req(owner, data, kind, fd);

	req->op.iovcnt = 1;
	req->op.iov->iov_base = buf;
	req->op.iov->iov_len = bytes;
	req->op.bytes = bytes;
	req->op.offset = offset;
	return req;
}

long u_refuse_thread(void *(*entry)(void *), void *arg)
{
	(void)entry;
	(void)arg;
	return -EAGAIN;
}

void u_pipe(int ends[2])
{
	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	t_own(ends[0]);
	t_own(ends[1]);
}
