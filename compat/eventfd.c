/*
 * eventfd.c - read(), by which a program learns how many events there are.
 *
 * Preloaded, in libaio_syscall.so.  A program that reads its completion ring itself, and waits for an eventfd meanwhile,
 * calls nothing of ours in between; but it reads the eventfd, or its counter would never fall.  So the engine is told of
 * each read, and what the program has learned of is in the ring when it looks (csrc/lanes/announce.h).  Where no program
 * of that kind is about, that is a look at a variable.
 *
 * The functions are as libc has them: cancellation points, async-signal-safe (the next function is looked up ahead of
 * time), errno and result untouched.  A thread that is cancelled in one does not tell the engine, which forgets it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <libaio_shim.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/types.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static struct {
	ssize_t (*read)(int fd, void *buf, size_t bytes);
	ssize_t (*read_chk)(int fd, void *buf, size_t bytes, size_t room);
	int (*eventfd_read)(int fd, eventfd_t *value);
} next;

/* Ahead of time, because dlsym is not for signal handlers; libraries whose constructors come earlier call it here. */
__attribute__((constructor)) static void find_all(void)
{
	*(void **)&next.read_chk = dlsym(RTLD_NEXT, "__read_chk");
	*(void **)&next.eventfd_read = dlsym(RTLD_NEXT, "eventfd_read");
	*(void **)&next.read = dlsym(RTLD_NEXT, "read");
}

/* Around a read: most descriptors are none of the engine's business. */
static bool begin(int fd)
{
	int saved = errno;
	bool watched;

	if (!next.read)
		find_all();
	watched = las_reads(fd);
	errno = saved;
	return watched;
}

static void end(int fd, bool watched)
{
	int saved = errno;

	if (watched)
		las_has_read(fd);
	errno = saved;
}

EXPORT ssize_t read(int fd, void *buf, size_t bytes)
{
	bool watched = begin(fd);
	ssize_t n = next.read(fd, buf, bytes);

	end(fd, watched);
	return n;
}

EXPORT int eventfd_read(int fd, eventfd_t *value)
{
	bool watched = begin(fd);
	int err = next.eventfd_read(fd, value);

	end(fd, watched);
	return err;
}

/* Under this name the compiler calls it where it knows how large the memory is (_FORTIFY_SOURCE); not every libc has it. */
ssize_t __read_chk(int fd, void *buf, size_t bytes, size_t room);

EXPORT ssize_t __read_chk(int fd, void *buf, size_t bytes, size_t room)
{
	bool watched = begin(fd);
	ssize_t n = next.read_chk ? next.read_chk(fd, buf, bytes, room) : next.read(fd, buf, bytes);

	end(fd, watched);
	return n;
}
