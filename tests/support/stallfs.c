/*
 * stallfs.c - a FUSE file system in memory that answers when it is told to.
 *
 *   stallfs MOUNTPOINT [-o fuse options]
 *
 * One flat directory of ordinary files plus ".control".  Writing a command to it:
 *
 *   hold        from now on reads, writes and fsyncs of ordinary files are kept waiting
 *   hold fsync  the same for fsyncs only
 *   hold all    the same for closing them, and for asking about them or the file system, as well
 *   release     answers all that were kept, in the order in which they came, and keeps no more
 *   delay MS    from now on each of them is answered MS milliseconds after it came (0: at once)
 *
 * Reading it gives four numbers: the requests kept waiting by "hold", and the reads, writes and fsyncs so far.  So a
 * test can prove "this call does not wait for the device" without measuring time: it returns while the file system
 * refuses to answer.
 *
 * One thread reads requests; a request that must wait is remembered, never a blocked thread, so any number of them can
 * wait at once.  A second thread answers what a delay has let ripen.  `lock` guards everything in `fs`.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 34
#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CONTROL_INO 2
#define FIRST_INO 3
#define MAX_FILES 4096
#define MAX_BYTES (256u << 20)

struct file {
	char *name; /* NULL: unlinked, lives while it is known to the kernel */
	char *data;
	size_t size;
	size_t room;
	uint64_t lookups;
	mode_t mode;
	struct timespec mtime;
};

enum kind { KIND_READ, KIND_WRITE, KIND_FSYNC, KIND_FLUSH, KIND_ATTR, KIND_STATFS, KINDS };

struct waiting {
	struct waiting *next;
	fuse_req_t req;
	fuse_ino_t ino;
	enum kind kind;
	size_t size;
	off_t offset;
	char *data;
	int64_t due_ms; /* -1: held */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct file files[MAX_FILES];
	struct waiting *queue;
	struct waiting **queue_end;
	int holding; /* a set of 1 << enum kind */
	int held;
	unsigned long counts[KINDS];
	int64_t delay_ms;
} fs = { .lock = PTHREAD_MUTEX_INITIALIZER, .queue_end = &fs.queue };

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct file *file_of(fuse_ino_t ino)
{
	return ino >= FIRST_INO && ino < FIRST_INO + MAX_FILES ? &fs.files[ino - FIRST_INO] : NULL;
}

static void stat_of(fuse_ino_t ino, struct stat *st)
{
	struct file *file = file_of(ino);

	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_nlink = 1;
	st->st_uid = getuid();
	st->st_gid = getgid();
	st->st_blksize = 4096;
	if (ino == FUSE_ROOT_ID) {
		st->st_mode = S_IFDIR | 0777;
		st->st_nlink = 2;
	} else if (!file) {
		st->st_mode = S_IFREG | 0666;
	} else {
		st->st_mode = S_IFREG | file->mode;
		st->st_size = (off_t)file->size;
		st->st_blocks = (blkcnt_t)((file->size + 511) / 512);
		st->st_mtim = st->st_ctim = st->st_atim = file->mtime;
	}
}

static int resize(struct file *file, size_t size)
{
	if (size > MAX_BYTES)
		return EFBIG;
	if (size > file->room) {
		size_t room = size + size / 2 + 4096;
		char *data = realloc(file->data, room);

		if (!data)
			return ENOMEM;
		file->data = data;
		file->room = room;
	}
	if (size > file->size)
		memset(file->data + file->size, 0, size - file->size);
	file->size = size;
	clock_gettime(CLOCK_REALTIME, &file->mtime);
	return 0;
}

/* Freed when neither a name nor the kernel refers to it. */
static void drop_unused(struct file *file)
{
	if (!file->name && !file->lookups) {
		free(file->data);
		memset(file, 0, sizeof(*file));
	}
}

static void answer(struct waiting *w)
{
	struct file *file = file_of(w->ino);
	int error = 0;

	switch (w->kind) {
	case KIND_READ: {
		size_t start = (size_t)w->offset < file->size ? (size_t)w->offset : file->size;
		size_t n = file->size - start < w->size ? file->size - start : w->size;

		fuse_reply_buf(w->req, n ? file->data + start : NULL, n);
		break;
	}
	case KIND_WRITE:
		if ((size_t)w->offset + w->size > file->size)
			error = resize(file, (size_t)w->offset + w->size);
		if (error) {
			fuse_reply_err(w->req, error);
			break;
		}
		memcpy(file->data + w->offset, w->data, w->size);
		clock_gettime(CLOCK_REALTIME, &file->mtime);
		fuse_reply_write(w->req, w->size);
		break;
	case KIND_ATTR: {
		struct stat st;

		stat_of(w->ino, &st);
		fuse_reply_attr(w->req, &st, 1.0);
		break;
	}
	case KIND_STATFS: {
		struct statvfs st = { .f_bsize = 4096, .f_frsize = 4096, .f_blocks = 1 << 20, .f_namemax = 255 };

		st.f_bfree = st.f_bavail = st.f_blocks;
		fuse_reply_statfs(w->req, &st);
		break;
	}
	default:
		fuse_reply_err(w->req, 0);
		break;
	}
	free(w->data);
	free(w);
}

/* Answers all that may be answered now; returns the time of the next, or -1. */
static int64_t answer_ripe_locked(void)
{
	struct waiting **link = &fs.queue;
	int64_t now = now_ms(), next = -1;

	while (*link) {
		struct waiting *w = *link;

		if (w->due_ms >= 0 && w->due_ms <= now) {
			*link = w->next;
			answer(w);
			continue;
		}
		if (w->due_ms >= 0 && (next < 0 || w->due_ms < next))
			next = w->due_ms;
		link = &w->next;
	}
	fs.queue_end = link;
	return next;
}

static void *ripen(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&fs.lock);
	for (;;) {
		int64_t next = answer_ripe_locked();

		if (next < 0) {
			pthread_cond_wait(&fs.changed, &fs.lock);
		} else {
			struct timespec until = { next / 1000, next % 1000 * 1000000 };

			pthread_cond_timedwait(&fs.changed, &fs.lock, &until);
		}
	}
	return NULL;
}

static void take(fuse_req_t req, fuse_ino_t ino, enum kind kind, const char *data, size_t size, off_t offset)
{
	struct waiting *w = calloc(1, sizeof(*w));
	int hold;

	if (!w || (data && !(w->data = malloc(size ? size : 1)))) {
		free(w);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (data)
		memcpy(w->data, data, size);
	w->req = req;
	w->ino = ino;
	w->kind = kind;
	w->size = size;
	w->offset = offset;
	pthread_mutex_lock(&fs.lock);
	fs.counts[kind]++;
	hold = fs.holding >> kind & 1;
	if (!hold && (!fs.delay_ms || kind > KIND_FSYNC)) {
		answer(w);
	} else {
		w->due_ms = hold ? -1 : now_ms() + fs.delay_ms;
		fs.held += hold;
		*fs.queue_end = w;
		fs.queue_end = &w->next;
		pthread_cond_signal(&fs.changed);
	}
	pthread_mutex_unlock(&fs.lock);
}

static void command(const char *text)
{
	pthread_mutex_lock(&fs.lock);
	if (!strncmp(text, "hold", 4)) {
		fs.holding = 1 << KIND_READ | 1 << KIND_WRITE | 1 << KIND_FSYNC;
		if (strstr(text, "fsync"))
			fs.holding = 1 << KIND_FSYNC;
		else if (strstr(text, "all"))
			fs.holding = (1 << KINDS) - 1;
	} else if (!strncmp(text, "release", 7)) {
		fs.holding = 0;
		fs.held = 0;
		for (struct waiting *w = fs.queue; w; w = w->next)
			w->due_ms = w->due_ms < 0 ? 0 : w->due_ms;
		answer_ripe_locked();
	} else if (!strncmp(text, "delay ", 6)) {
		fs.delay_ms = atoi(text + 6);
	}
	pthread_cond_signal(&fs.changed);
	pthread_mutex_unlock(&fs.lock);
}

/* ---- FUSE operations ---- */

static void reply_entry(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_entry_param entry = { .ino = ino, .attr_timeout = 1.0, .entry_timeout = 1.0 };

	stat_of(ino, &entry.attr);
	if (fi)
		fuse_reply_create(req, &entry, fi);
	else
		fuse_reply_entry(req, &entry);
}

static struct file *find_locked(const char *name)
{
	for (int i = 0; i < MAX_FILES; i++)
		if (fs.files[i].name && !strcmp(fs.files[i].name, name))
			return &fs.files[i];
	return NULL;
}

static fuse_ino_t ino_of(const struct file *file)
{
	return (fuse_ino_t)(file - fs.files) + FIRST_INO;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct file *file;

	(void)parent;
	if (!strcmp(name, ".control")) {
		reply_entry(req, CONTROL_INO, NULL);
		return;
	}
	pthread_mutex_lock(&fs.lock);
	file = find_locked(name);
	if (file) {
		file->lookups++;
		reply_entry(req, ino_of(file), NULL);
	} else {
		fuse_reply_err(req, ENOENT);
	}
	pthread_mutex_unlock(&fs.lock);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	struct file *file = file_of(ino);

	pthread_mutex_lock(&fs.lock);
	if (file) {
		file->lookups -= lookups < file->lookups ? lookups : file->lookups;
		drop_unused(file);
	}
	pthread_mutex_unlock(&fs.lock);
	fuse_reply_none(req);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct file *file = NULL;

	(void)parent;
	pthread_mutex_lock(&fs.lock);
	for (int i = 0; i < MAX_FILES && !file; i++)
		if (!fs.files[i].name && !fs.files[i].lookups)
			file = &fs.files[i];
	if (!file || !(file->name = strdup(name))) {
		fuse_reply_err(req, ENOSPC);
	} else {
		file->lookups = 1;
		file->mode = mode & 07777;
		clock_gettime(CLOCK_REALTIME, &file->mtime);
		reply_entry(req, ino_of(file), fi);
	}
	pthread_mutex_unlock(&fs.lock);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct file *file;

	(void)parent;
	pthread_mutex_lock(&fs.lock);
	file = find_locked(name);
	if (file) {
		free(file->name);
		file->name = NULL;
		drop_unused(file);
	}
	pthread_mutex_unlock(&fs.lock);
	fuse_reply_err(req, file ? 0 : ENOENT);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	if (file_of(ino)) {
		take(req, ino, KIND_ATTR, NULL, 0, 0);
		return;
	}
	stat_of(ino, &st);
	fuse_reply_attr(req, &st, 1.0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	take(req, ino, KIND_STATFS, NULL, 0, 0);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	if (file_of(ino))
		take(req, ino, KIND_FLUSH, NULL, 0, 0);
	else
		fuse_reply_err(req, 0);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct file *file = file_of(ino);
	int error = 0;

	pthread_mutex_lock(&fs.lock);
	if (file && (to_set & FUSE_SET_ATTR_SIZE))
		error = resize(file, (size_t)attr->st_size);
	if (file && (to_set & FUSE_SET_ATTR_MODE))
		file->mode = attr->st_mode & 07777;
	pthread_mutex_unlock(&fs.lock);
	if (error)
		fuse_reply_err(req, error);
	else
		op_getattr(req, ino, fi);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->direct_io = ino == CONTROL_INO;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)fi;
	if (ino == CONTROL_INO) {
		char text[128];
		int n;

		pthread_mutex_lock(&fs.lock);
		n = snprintf(text, sizeof(text), "%d %lu %lu %lu\n", fs.held, fs.counts[KIND_READ],
		             fs.counts[KIND_WRITE], fs.counts[KIND_FSYNC]);
		pthread_mutex_unlock(&fs.lock);
		fuse_reply_buf(req, text, offset ? 0 : (size_t)n);
		return;
	}
	take(req, ino, KIND_READ, NULL, size, offset);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
	(void)fi;
	if (ino == CONTROL_INO) {
		char text[64] = "";

		memcpy(text, data, size < sizeof(text) ? size : sizeof(text) - 1);
		command(text);
		fuse_reply_write(req, size);
		return;
	}
	take(req, ino, KIND_WRITE, data, size, offset);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	(void)fi;
	take(req, ino, KIND_FSYNC, NULL, 0, 0);
}

static void op_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	/* The kernel's default lets twelve background requests through; the tests hold many more. */
	conn->max_background = 1024;
	conn->congestion_threshold = 1024;
}

static const struct fuse_lowlevel_ops operations = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.create = op_create,
	.unlink = op_unlink,
	.getattr = op_getattr,
	.statfs = op_statfs,
	.flush = op_flush,
	.setattr = op_setattr,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts options;
	struct fuse_session *session;
	pthread_condattr_t attributes;
	pthread_t thread;
	int status = 1;

	if (fuse_parse_cmdline(&args, &options) || !options.mountpoint) {
		fprintf(stderr, "usage: stallfs MOUNTPOINT [-o options]\n");
		return 2;
	}
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&fs.changed, &attributes);
	session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (session && !fuse_set_signal_handlers(session)) {
		if (!fuse_session_mount(session, options.mountpoint)) {
			if (!pthread_create(&thread, NULL, ripen, NULL))
				status = fuse_session_loop(session) ? 1 : 0;
			fuse_session_unmount(session);
		}
		fuse_remove_signal_handlers(session);
		fuse_session_destroy(session);
	}
	free(options.mountpoint);
	fuse_opt_free_args(&args);
	return status;
}
