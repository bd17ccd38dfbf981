/*
 * early.c - a library whose constructor makes AIO calls by number, as some programs' static objects do, and one that
 * tells what came of it.  It is linked with nothing of ours and may be loaded before or after the interposer.
 */
#define _GNU_SOURCE
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static aio_context_t context;
static long pid;

static void *nothing(void *arg)
{
	return arg;
}

/* What the interposers stand before, used before their constructors. */
static int uses_others(void)
{
	struct sigaction action = { .sa_handler = SIG_IGN };
	struct timespec none = { 0, 0 };
	pthread_t thread;
	int status = 0;
	sigset_t set;
	pid_t child;

	sigemptyset(&set);
	if (sigaction(SIGUSR2, &action, NULL) || sigprocmask(SIG_BLOCK, &set, NULL) || ppoll(NULL, 0, &none, &set) ||
	    pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
		return 0;
	child = fork();
	if (child == 0) {
		execlp("true", "true", (char *)NULL);
		_exit(9);
	}
	return waitpid(child, &status, 0) == child && status == 0;
}

__attribute__((constructor)) static void early(void)
{
	pid = uses_others() ? syscall(SYS_getpid) : 0;
	if (syscall(SYS_io_setup, 4, &context) != 0)
		context = 0;
}

int early_worked(void);
int early_worked(void)
{
	return pid == getpid() && context && syscall(SYS_io_destroy, context) == 0;
}
