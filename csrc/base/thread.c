/* thread.c - see thread.h. */
#include "base/thread.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/fallback.h"
#include "base/sys.h"

#define STACK_BYTES (128 * 1024)

/* glibc's __rseq_size: 0 if it does not register its threads. */
static const unsigned *registers_threads;

/* By its name, which came with glibc 2.35 and must not keep the library from being used with an older one. */
#pragma weak dlsym
__attribute__((constructor)) static void find_registration(void)
{
	if (&dlsym)
		registers_threads = dlsym(RTLD_DEFAULT, "__rseq_size");
}

/* glibc ends the process when a thread cannot be registered as its first one was.  A wrong length registers nothing. */
static bool is_fatal(void)
{
	return registers_threads && *registers_threads && las_is_barred(las_sys.rseq(NULL, 0, 0, 0));
}

static int start_with(void *(*entry)(void *), void *arg, size_t stack_bytes)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err = pthread_attr_init(&attr);

	if (err)
		return err;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (stack_bytes)
		err = pthread_attr_setstacksize(&attr, stack_bytes);
	if (!err)
		err = pthread_create(&thread, &attr, entry, arg);
	pthread_attr_destroy(&attr);
	return err;
}

long las_thread_start(void *(*entry)(void *), void *arg)
{
	sigset_t all, old;
	int saved = errno, err;

	if (is_fatal())
		return -EAGAIN;
	/* libc's own signals (setuid broadcasts, cancellation) stay open: libc filters them out of every mask. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = start_with(entry, arg, STACK_BYTES);
	if (err == EINVAL) /* the program's thread-local storage alone is larger than that */
		err = start_with(entry, arg, 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = saved;
	return -err;
}
