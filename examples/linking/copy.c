/*
 * copy.c - copies a file with eight requests under way at a time, by libaio's interface alone: it is linked with any
 * libaio.  README.md beside it shows the ways to link it with the shim.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOTS = 8, BYTES = 64 * 1024 };

struct slot {
	struct iocb iocb; /* first: an event's obj is its slot */
	char block[BYTES];
};

static int in, out;
static long long next, size;

static void fail(const char *what, int err)
{
	fprintf(stderr, "%s: %s\n", what, strerror(err));
	exit(1);
}

static void submit(io_context_t ctx, struct slot *slot)
{
	struct iocb *list = &slot->iocb;
	int n = io_submit(ctx, 1, &list);

	if (n != 1)
		fail("io_submit", n < 0 ? -n : EAGAIN);
}

/* Starts the next read in this slot: 1, or 0 if all of the file has been asked for. */
static int start_read(io_context_t ctx, struct slot *slot)
{
	if (next >= size)
		return 0;
	io_prep_pread(&slot->iocb, in, slot->block, BYTES, next);
	next += BYTES;
	submit(ctx, slot);
	return 1;
}

/* What was read is written to the same place; what was written makes room for a read. */
static int go_on(io_context_t ctx, const struct io_event *event)
{
	struct slot *slot = (struct slot *)event->obj;
	long result = (long)event->res;

	if (result < 0)
		fail("request", (int)-result);
	if (slot->iocb.aio_lio_opcode == IO_CMD_PWRITE)
		return start_read(ctx, slot);
	io_prep_pwrite(&slot->iocb, out, slot->block, (size_t)result, slot->iocb.u.c.offset);
	submit(ctx, slot);
	return 1;
}

int main(int argc, char **argv)
{
	static struct slot slots[SLOTS];
	struct io_event events[SLOTS];
	io_context_t ctx = NULL;
	struct stat st;
	int busy = 0, err;

	if (argc != 3) {
		fprintf(stderr, "usage: %s FROM TO\n", argv[0]);
		return 2;
	}
	in = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (in < 0 || fstat(in, &st) != 0)
		fail(argv[1], errno);
	out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (out < 0)
		fail(argv[2], errno);
	size = st.st_size;
	err = io_setup(SLOTS, &ctx);
	if (err)
		fail("io_setup", -err);
	for (int i = 0; i < SLOTS; i++)
		busy += start_read(ctx, &slots[i]);
	while (busy) {
		int n = io_getevents(ctx, 1, SLOTS, events, NULL);

		for (int i = 0; i < n; i++)
			busy += go_on(ctx, &events[i]) - 1;
	}
	io_destroy(ctx);
	return close(out) == 0 ? 0 : 1;
}
