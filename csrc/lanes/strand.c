/* strand.c - see strand.h. */
#include "lanes/strand.h"

#include <errno.h>
#include <string.h>

#include "base/lock.h"
#include "base/pool.h"

#define BUCKETS 256

struct las_strand {
	struct las_link link;    /* in its bucket */
	struct las_link waiting; /* requests behind the first */
	uint64_t device, inode;
	bool writes;
};

static struct {
	struct las_lock lock;
	unsigned live; /* strands; read without the lock as a hint that there is none */
	struct las_link buckets[BUCKETS];
	struct las_pool pool;
} strands;

void las_strand_init(void)
{
	memset(&strands, 0, sizeof(strands));
	for (unsigned i = 0; i < BUCKETS; i++)
		las_list_init(&strands.buckets[i]);
	las_pool_init(&strands.pool, sizeof(struct las_strand));
}

static struct las_link *bucket_of(uint64_t device, uint64_t inode)
{
	return &strands.buckets[(device * 31 + inode) * 0x9e3779b97f4a7c15u >> 56];
}

static struct las_strand *find_locked(const struct las_file *file, bool writes)
{
	struct las_link *bucket = bucket_of(file->device, file->inode), *l, *tmp;

	las_list_each(bucket, l, tmp) {
		struct las_strand *s = las_container_of(l, struct las_strand, link);

		if (s->inode == file->inode && s->device == file->device && s->writes == writes)
			return s;
	}
	return NULL;
}

bool las_strand_busy(const struct las_file *file, enum las_op_kind kind)
{
	bool busy;

	/* Relaxed: the caller's own earlier requests are seen in program order, others' have no order to keep. */
	if (las_load_relaxed(&strands.live) == 0)
		return false;
	las_lock(&strands.lock);
	busy = find_locked(file, kind == LAS_OP_WRITE) != NULL;
	las_unlock(&strands.lock);
	return busy;
}

int las_strand_enter(struct las_req *req, const struct las_file *file)
{
	bool writes = req->op.kind == LAS_OP_WRITE;
	struct las_strand *s, *fresh = las_pool_get(&strands.pool);
	int first = 0;

	las_lock(&strands.lock);
	s = find_locked(file, writes);
	if (s) {
		las_list_push(&s->waiting, &req->link);
	} else if (fresh) {
		s = fresh;
		fresh = NULL;
		*s = (struct las_strand){ .device = file->device, .inode = file->inode, .writes = writes };
		las_list_init(&s->waiting);
		las_list_push(bucket_of(s->device, s->inode), &s->link);
		las_store_relaxed(&strands.live, strands.live + 1);
		first = 1;
	} else {
		first = -ENOMEM;
	}
	req->strand = s;
	las_unlock(&strands.lock);
	if (fresh)
		las_pool_put(&strands.pool, fresh);
	return first;
}

struct las_req *las_strand_leave(struct las_req *req)
{
	struct las_strand *s = req->strand;
	struct las_link *next;

	req->strand = NULL;
	las_lock(&strands.lock);
	next = las_list_pop(&s->waiting);
	if (!next) {
		las_list_remove(&s->link);
		las_store_relaxed(&strands.live, strands.live - 1);
	}
	las_unlock(&strands.lock);
	if (next)
		return las_container_of(next, struct las_req, link);
	las_pool_put(&strands.pool, s);
	return NULL;
}

struct las_req *las_strand_take(const struct las_owner *owner, uint64_t obj)
{
	struct las_req *found = NULL;

	if (las_load_relaxed(&strands.live) == 0) /* as in las_strand_busy */
		return NULL;
	las_lock(&strands.lock);
	for (unsigned i = 0; i < BUCKETS && !found; i++) {
		struct las_link *b, *btmp, *l, *tmp;

		las_list_each(&strands.buckets[i], b, btmp) {
			las_list_each(&las_container_of(b, struct las_strand, link)->waiting, l, tmp) {
				struct las_req *req = las_container_of(l, struct las_req, link);

				if (req->owner != owner || (obj ? req->obj != obj : req->op.kind != LAS_OP_READ))
					continue;
				las_list_remove(&req->link);
				req->strand = NULL;
				found = req;
				goto out;
			}
		}
	}
out:
	las_unlock(&strands.lock);
	return found;
}
