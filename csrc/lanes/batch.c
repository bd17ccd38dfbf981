/*
 * batch.c - the descriptors of one io_submit call, and what is remembered and
 * assumed of them from a moment ago, see file.h.
 */
#include "lanes/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/lock.h"
#include "base/sys.h"
#include "base/ticks.h"

#define RECENT 4
#define RECENT_TICKS 50000   /* 10 to 50 microseconds, whatever the machine; opening a file on a server takes longer */
#define DIRECT_TICKS 3000000 /* a millisecond or so: what the kernel checks itself */
#define RECENT_USES 64       /* assumptions in a row before the flags are read again */

/* Thread-local: what another thread does to a descriptor is as unknown as what this one does outside the library. */
static _Thread_local struct recent {
	uint64_t stamp;
	unsigned uses; /* left; 0, as in the beginning: it is nobody's */
	struct las_file file;
} recent[RECENT] LAS_TLS_MODEL;

void las_batch_init(struct las_batch *batch, bool alone)
{
	batch->count = batch->next = 0;
	batch->alone = alone;
}

void las_batch_fini(struct las_batch *batch)
{
	for (unsigned i = 0; i < batch->count; i++)
		if (batch->files[i].hold)
			las_hold_put(batch->files[i].hold);
}

static int read_flags(int fd, int *out)
{
	long flags = las_sys.fcntl(fd, F_GETFL, 0);

	if (flags < 0 || flags & O_PATH)
		return -EBADF;
	*out = (int)flags;
	return 0;
}

/* The file as of a moment ago, if this thread used the descriptor then; NULL if it did not. */
static struct recent *recall(int fd, bool alone)
{
	struct recent *r = &recent[(unsigned)fd % RECENT];
	uint64_t now;

	if (r->file.fd != fd || r->uses == 0)
		return NULL;
	r->file.checked = alone && r->file.flags & O_DIRECT && !r->file.bare;
	now = las_ticks();
	if (now - r->stamp > (r->file.checked ? DIRECT_TICKS : RECENT_TICKS))
		return NULL;
	/* Already now what las_file_remember() would do in a moment: reading the time is dear in virtual machines. */
	r->stamp = now;
	r->uses--;
	return r;
}

void las_file_remember(struct las_file *file)
{
	struct recent *r = &recent[(unsigned)file->fd % RECENT];

	if (file->assumed || file->remembered)
		return;
	file->remembered = true;
	r->file = *file;
	r->file.hold = NULL;
	r->uses = RECENT_USES;
	r->stamp = las_ticks();
}

int las_file_ask_again(struct las_file *file)
{
	recent[(unsigned)file->fd % RECENT].uses = 0;
	*file = (struct las_file){ .fd = file->fd, .hold = file->hold, .alone = file->alone };
	return read_flags(file->fd, &file->flags);
}

bool las_file_is_same(const struct las_file *file)
{
	struct stat st;

	return file->looked && las_sys.fstat(file->fd, &st) == 0 && st.st_mode == file->mode &&
	       st.st_dev == file->device && st.st_ino == file->inode;
}

int las_file_confirm(struct las_file *file)
{
	struct las_file was = *file;
	int err = las_file_refresh(file);

	if (err || !was.assumed || was.flags != file->flags || !las_file_is_same(&was))
		return err;
	*file = was;
	file->assumed = file->checked = file->remembered = false;
	return 0;
}

static struct las_file *in_batch(struct las_batch *batch, int fd)
{
	for (unsigned i = 0; i < batch->count; i++)
		if (batch->files[i].fd == fd)
			return &batch->files[i];
	return NULL;
}

/* A place for one more file; the oldest makes room. */
static struct las_file *place(struct las_batch *batch)
{
	struct las_file *file;

	if (batch->count < LAS_BATCH_FILES)
		return &batch->files[batch->count++];
	file = &batch->files[batch->next++ % LAS_BATCH_FILES];
	if (file->hold)
		las_hold_put(file->hold);
	return file;
}

int las_batch_file(struct las_batch *batch, int fd, struct las_file **out)
{
	struct las_file *file = in_batch(batch, fd);
	struct recent *r;
	int flags = 0, err;

	if (file) {
		*out = file;
		return 0;
	}
	r = recall(fd, batch->alone);
	err = r ? 0 : read_flags(fd, &flags);
	if (err)
		return err;
	file = place(batch);
	if (r) {
		*file = r->file;
		file->assumed = true;
	} else {
		*file = (struct las_file){ .fd = fd, .flags = flags };
	}
	file->alone = batch->alone;
	*out = file;
	return 0;
}

int las_batch_eventfd(struct las_batch *batch, int fd, struct las_file **out)
{
	struct las_hold *hold;
	int err;

	*out = in_batch(batch, fd);
	if (*out && (*out)->is_eventfd)
		return 0;
	hold = *out ? NULL : las_hold_find(fd);
	if (hold && hold->facts.is_eventfd) {
		*out = place(batch);
		**out = (struct las_file){ .fd = fd, .flags = hold->facts.flags, .is_eventfd = true, .hold = hold };
		return 0;
	}
	if (hold)
		las_hold_put(hold);
	err = las_batch_file(batch, fd, out);
	if (!err)
		err = las_file_refresh(*out); /* eight bytes are going to be written there */
	return err ? err : las_file_check_eventfd(*out);
}
