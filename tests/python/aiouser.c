/*
 * aiouser.c - an ordinary user of libaio: reads one byte of itself, through the library that it is linked with, or the
 * one that it opens by the name in its first argument.  Exits 0 if that worked; knows nothing of the shim.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef RTLD_DEEPBIND
#define RTLD_DEEPBIND 0 /* musl has none */
#endif

struct calls {
	int (*setup)(int, io_context_t *);
	int (*submit)(io_context_t, long, struct iocb **);
	int (*getevents)(io_context_t, long, long, struct io_event *, struct timespec *);
	int (*destroy)(io_context_t);
};

#ifdef LINKED
static struct calls find(const char *library)
{
	(void)library;
	return (struct calls){ io_setup, io_submit, io_getevents, io_destroy };
}
#else
static void *symbol(void *handle, const char *name)
{
	void *found = dlsym(handle, name);

	if (!found) {
		fprintf(stderr, "%s\n", dlerror());
		exit(3);
	}
	return found;
}

static struct calls find(const char *library)
{
	void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
	struct calls calls;

	if (!handle) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	*(void **)&calls.setup = symbol(handle, "io_setup");
	*(void **)&calls.submit = symbol(handle, "io_submit");
	*(void **)&calls.getevents = symbol(handle, "io_getevents");
	*(void **)&calls.destroy = symbol(handle, "io_destroy");
	return calls;
}
#endif

int main(int argc, char **argv)
{
	struct calls aio = find(argc > 1 ? argv[1] : "");
	struct iocb iocb, *list = &iocb;
	io_context_t ctx = NULL;
	struct io_event event;
	char byte = 0;

	io_prep_pread(&iocb, open("/proc/self/exe", O_RDONLY | O_CLOEXEC), &byte, 1, 1);
	if (aio.setup(1, &ctx) || aio.submit(ctx, 1, &list) != 1 || aio.getevents(ctx, 1, 1, &event, NULL) != 1 ||
	    event.res != 1 || byte != 'E' || aio.destroy(ctx))
		return 1;
	return 0;
}
