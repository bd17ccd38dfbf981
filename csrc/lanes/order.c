/*
 * order.c - see order.h.
 *
 * One entry per inode, which exists while requests refer to it.
 *
 * Writes are counted in two generations, so that an fsync waits for those
 * before it, not for those that keep coming: an fsync that finds writes
 * pending waits for the current generation and, unless an older one is still
 * pending, starts the next.  The current generation's fsyncs go when it and
 * the older one are done.
 *
 * KERNEL: order-of-overlapping-requests: its io_submit carries out one
 * buffered write after the other; here those on ordinary files have no order
 * but that (test: order.overlapping_writes_in_one_call_are_each_whole).
 */
#include "lanes/order.h"

#include <errno.h>
#include <string.h>

#include "base/lock.h"
#include "base/pool.h"

#define BUCKETS 256

struct las_order {
	struct las_link link; /* in its bucket */
	uint64_t device, inode;
	unsigned users; /* requests that point here */
	struct {
		bool busy; /* its first is with a lane */
		struct las_link waiting;
	} line[2];           /* of reads, of writes */
	unsigned generation; /* of new writes */
	unsigned pending[2]; /* writes that have not ended, by generation */
	struct las_link syncs[2];
};

static struct {
	struct las_lock lock;
	unsigned live; /* entries; read without the lock as a hint that there is none */
	struct las_link buckets[BUCKETS];
	struct las_pool pool;
} table;

void las_order_init(void)
{
	memset(&table, 0, sizeof(table));
	for (unsigned i = 0; i < BUCKETS; i++)
		las_list_init(&table.buckets[i]);
	las_pool_init(&table.pool, sizeof(struct las_order));
}

static struct las_link *bucket_of(const struct las_file *file)
{
	return &table.buckets[(file->device * 31 + file->inode) * 0x9e3779b97f4a7c15u >> 56];
}

static struct las_order *find_locked(const struct las_file *file)
{
	struct las_link *bucket = bucket_of(file), *l, *tmp;

	las_list_each(bucket, l, tmp) {
		struct las_order *o = las_container_of(l, struct las_order, link);

		if (o->inode == file->inode && o->device == file->device)
			return o;
	}
	return NULL;
}

static struct las_order *make_locked(const struct las_file *file)
{
	struct las_order *o = las_pool_get(&table.pool);

	if (!o)
		return NULL;
	memset(o, 0, sizeof(*o));
	o->device = file->device;
	o->inode = file->inode;
	for (int i = 0; i < 2; i++) {
		las_list_init(&o->line[i].waiting);
		las_list_init(&o->syncs[i]);
	}
	las_list_push(bucket_of(file), &o->link);
	las_store_relaxed(&table.live, table.live + 1);
	return o;
}

static void put_locked(struct las_order *o)
{
	if (--o->users)
		return;
	las_list_remove(&o->link);
	las_store_relaxed(&table.live, table.live - 1);
	las_pool_put(&table.pool, o);
}

static bool is_sync(enum las_op_kind kind)
{
	return kind == LAS_OP_FSYNC || kind == LAS_OP_FDSYNC;
}

bool las_order_idle(void)
{
	/* Relaxed: the caller's own earlier requests are seen in program order, others' have no order to keep. */
	return las_load_relaxed(&table.live) == 0;
}

bool las_order_busy(const struct las_file *file, enum las_op_kind kind)
{
	const struct las_order *o;
	bool busy;

	if (las_order_idle())
		return false;
	las_lock(&table.lock);
	o = find_locked(file);
	busy = o && (is_sync(kind) ? o->pending[0] + o->pending[1] > 0 : o->line[kind].busy);
	las_unlock(&table.lock);
	return busy;
}

static int enter_sync_locked(struct las_order *o, struct las_req *req)
{
	unsigned g = o->generation;

	if (o->pending[0] + o->pending[1] == 0)
		return 1;
	las_list_push(&o->syncs[g], &req->link);
	if (o->pending[!g] == 0)
		o->generation = !g;
	return 0;
}

static int enter_rw_locked(struct las_order *o, struct las_req *req, bool in_line)
{
	unsigned direction = req->op.kind;

	if (req->op.kind == LAS_OP_WRITE) {
		req->generation = o->generation & 1;
		o->pending[o->generation]++;
	}
	req->in_line = in_line;
	if (!in_line)
		return 1;
	if (o->line[direction].busy) {
		las_list_push(&o->line[direction].waiting, &req->link);
		return 0;
	}
	o->line[direction].busy = true;
	return 1;
}

int las_order_enter(struct las_req *req, const struct las_file *file, bool in_line)
{
	struct las_order *o;
	int go = -ENOMEM;

	las_lock(&table.lock);
	o = find_locked(file);
	if (!o)
		o = make_locked(file);
	if (o) {
		o->users++;
		req->order = o;
		go = is_sync(req->op.kind) ? enter_sync_locked(o, req) : enter_rw_locked(o, req, in_line);
	}
	las_unlock(&table.lock);
	return go;
}

/* The fsyncs of a generation may go once no write of it, and none of an older one, is pending. */
static void release_syncs_locked(struct las_order *o, struct las_link *next)
{
	unsigned old = !o->generation;

	if (o->pending[old])
		return;
	las_list_append(next, &o->syncs[old]);
	if (las_list_empty(&o->syncs[o->generation]))
		return;
	/* Fsyncs that came while the older generation was pending: now theirs is the older one. */
	o->generation = old;
	if (o->pending[!old] == 0)
		las_list_append(next, &o->syncs[!old]);
}

static void pop_line_locked(struct las_order *o, unsigned direction, struct las_link *next)
{
	struct las_link *l = las_list_pop(&o->line[direction].waiting);

	if (l)
		las_list_push(next, l);
	else
		o->line[direction].busy = false;
}

void las_order_leave(struct las_req *req, struct las_link *next)
{
	struct las_order *o = req->order;

	if (!o)
		return;
	req->order = NULL;
	las_lock(&table.lock);
	if (req->in_line)
		pop_line_locked(o, req->op.kind, next);
	if (req->op.kind == LAS_OP_WRITE && --o->pending[req->generation] == 0)
		release_syncs_locked(o, next);
	put_locked(o);
	las_unlock(&table.lock);
}

static struct las_req *take_from_locked(struct las_link *list, const struct las_owner *owner, uint64_t obj)
{
	struct las_link *l, *tmp;

	las_list_each(list, l, tmp) {
		struct las_req *req = las_container_of(l, struct las_req, link);

		if (req->owner != owner || (obj ? req->obj != obj : req->op.kind != LAS_OP_READ))
			continue;
		las_list_remove(l);
		return req;
	}
	return NULL;
}

struct las_req *las_order_take(const struct las_owner *owner, uint64_t obj)
{
	struct las_req *req = NULL;

	if (las_order_idle())
		return NULL;
	las_lock(&table.lock);
	for (unsigned b = 0; b < BUCKETS && !req; b++) {
		struct las_link *l, *tmp;

		las_list_each(&table.buckets[b], l, tmp) {
			struct las_order *o = las_container_of(l, struct las_order, link);

			for (int i = 0; i < 2 && !req; i++) {
				req = take_from_locked(&o->line[i].waiting, owner, obj);
				if (!req)
					req = take_from_locked(&o->syncs[i], owner, obj);
			}
			if (req)
				break;
		}
	}
	/* It waited, so it is not the first of its line: leaving must not move the line on. */
	if (req)
		req->in_line = false;
	las_unlock(&table.lock);
	return req;
}
