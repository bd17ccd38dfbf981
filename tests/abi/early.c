/*
 * early.c - a library whose constructor makes AIO calls by number, as some programs' static objects do, and one that
 * tells what came of it.  It is linked with nothing of ours and may be loaded before or after the interposer.
 */
#define _GNU_SOURCE
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

static aio_context_t context;
static long pid;

__attribute__((constructor)) static void early(void)
{
	pid = syscall(SYS_getpid);
	if (syscall(SYS_io_setup, 4, &context) != 0)
		context = 0;
}

int early_worked(void);
int early_worked(void)
{
	return pid == getpid() && context && syscall(SYS_io_destroy, context) == 0;
}
