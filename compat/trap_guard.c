/*
 * trap_guard.c - keeps every thread caught, and SIGSYS ours, see trap.h.
 *
 * Dispatch is a property of a thread and is lost at clone, fork and exec.  So
 * threads are started through a function that arms them first, forked
 * children arm themselves, and an exec preloads this library again.  The
 * engine's own threads are left alone: they make nobody's calls but ours.
 *
 * A call that is caught while SIGSYS is blocked or ignored kills the process.
 * So the program may block, ignore or handle SIGSYS, and is told that it has,
 * but the kernel does not learn of it; a SIGSYS that is not ours (a seccomp
 * filter's, kill) is passed on to what the program asked for.
 */
#include "trap.h"

#include <dlfcn.h>
#include <errno.h>
#include <libaio_shim.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <threads.h>
#include <unistd.h>

#include "raw.h"

#define EXPORT __attribute__((visibility("default")))

static struct {
	int (*pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	int (*thrd_create)(thrd_t *, thrd_start_t, void *);
	int (*clone)(int (*)(void *), void *, int, void *, ...);
	int (*sigaction)(int, const struct sigaction *, struct sigaction *);
	sighandler_t (*signal)(int, sighandler_t);
	int (*sigprocmask)(int, const sigset_t *, sigset_t *);
	int (*pthread_sigmask)(int, const sigset_t *, sigset_t *);
	int (*sigsuspend)(const sigset_t *);
	int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	int (*pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *);
	int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
} next;

static uintptr_t engine_start, engine_end;
static bool armed; /* this process is caught: written by the constructor only */

/* What the program believes to have set for SIGSYS. */
static struct sigaction believed;

static bool from_engine(const void *caller)
{
	return (uintptr_t)caller - engine_start < engine_end - engine_start;
}
#define CALLED_BY_ENGINE() from_engine(__builtin_return_address(0))

/* Libraries whose constructors come before ours may call any of these functions. */
static void find_next(void)
{
	if (las_next_syscall)
		return;
#define FIND(name) (*(void **)&next.name = dlsym(RTLD_NEXT, #name))
	FIND(pthread_create);
	FIND(thrd_create);
	FIND(clone);
	FIND(sigaction);
	FIND(signal);
	FIND(sigprocmask);
	FIND(pthread_sigmask);
	FIND(sigsuspend);
	FIND(ppoll);
	FIND(pselect);
	FIND(epoll_pwait);
	*(void **)&las_next_syscall = dlsym(RTLD_NEXT, "syscall");
}

/* Threads. */

struct start {
	void *(*run)(void *);
	thrd_start_t run_c11;
	void *arg;
};

static struct start taken(void *arg)
{
	struct start start = *(struct start *)arg;

	free(arg);
	las_trap_arm();
	return start;
}

static void *start_thread(void *arg)
{
	struct start start = taken(arg);

	return start.run(start.arg);
}

static int start_thread_c11(void *arg)
{
	struct start start = taken(arg);

	return start.run_c11(start.arg);
}

static struct start *make_start(void *(*run)(void *), thrd_start_t run_c11, void *arg)
{
	struct start *start = malloc(sizeof(*start));

	if (start)
		*start = (struct start){ run, run_c11, arg };
	return start;
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	struct start *start;
	int err;

	find_next();
	if (!armed || CALLED_BY_ENGINE())
		return next.pthread_create(thread, attr, run, arg);
	start = make_start(run, NULL, arg);
	if (!start)
		return EAGAIN;
	err = next.pthread_create(thread, attr, start_thread, start);
	if (err)
		free(start);
	return err;
}

EXPORT int thrd_create(thrd_t *thread, thrd_start_t run, void *arg)
{
	struct start *start = armed ? make_start(NULL, run, arg) : NULL;
	int err;

	find_next();
	if (!armed)
		return next.thrd_create(thread, run, arg);
	if (!start)
		return thrd_nomem;
	err = next.thrd_create(thread, start_thread_c11, start);
	if (err != thrd_success)
		free(start);
	return err;
}

/* At the upper end of the child's stack. */
struct clone_start {
	int (*run)(void *);
	void *arg;
};

static int start_clone(void *arg)
{
	const struct clone_start *start = arg;

	las_trap_arm();
	return start->run(start->arg);
}

EXPORT int clone(int (*run)(void *), void *stack, int flags, void *arg, ...)
{
	void *parent_tid, *tls, *child_tid;
	va_list words;

	find_next();
	va_start(words, arg);
	parent_tid = va_arg(words, void *);
	tls = va_arg(words, void *);
	child_tid = va_arg(words, void *);
	va_end(words);
	if (armed && run && stack) {
		struct clone_start *start = (struct clone_start *)((uintptr_t)stack & ~(uintptr_t)15) - 1;

		*start = (struct clone_start){ run, arg };
		return next.clone(start_clone, start, flags, start, parent_tid, tls, child_tid);
	}
	return next.clone(run, stack, flags, arg, parent_tid, tls, child_tid);
}

static void arm_forked_child(void)
{
	las_trap_arm();
}

/* The signal. */

void las_trap_pass_on(int number, siginfo_t *info, void *context)
{
	struct sigaction action = believed;

	if (action.sa_flags & SA_SIGINFO) {
		action.sa_sigaction(number, info, context);
		return;
	}
	if (action.sa_handler == SIG_IGN)
		return;
	if (action.sa_handler != SIG_DFL) {
		action.sa_handler(number);
		return;
	}
	action = (struct sigaction){ .sa_handler = SIG_DFL };
	next.sigaction(SIGSYS, &action, NULL);
	las_raw_kernel(SYS_tgkill, getpid(), las_raw_kernel(SYS_gettid, 0, 0, 0, 0, 0, 0), SIGSYS, 0, 0, 0);
}

static int believe(const struct sigaction *action, struct sigaction *old)
{
	struct sigaction before = believed;

	if (action)
		believed = *action;
	if (old)
		*old = before;
	return 0;
}

long las_trap_set_action(const void *kernel_action, void *old_kernel_action)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} raw, old = { believed.sa_handler, (unsigned long)believed.sa_flags, NULL, 0 };

	memcpy(&old.mask, &believed.sa_mask, sizeof(old.mask));
	if (kernel_action) {
		memcpy(&raw, kernel_action, sizeof(raw));
		believed.sa_handler = raw.handler;
		believed.sa_flags = (int)raw.flags;
		memcpy(&believed.sa_mask, &raw.mask, sizeof(raw.mask));
	}
	if (old_kernel_action)
		memcpy(old_kernel_action, &old, sizeof(old));
	return 0;
}

/* The set without SIGSYS, in *room if need be. */
static const sigset_t *without_ours(const sigset_t *set, sigset_t *room)
{
	if (!armed || !set || sigismember(set, SIGSYS) != 1)
		return set;
	*room = *set;
	sigdelset(room, SIGSYS);
	return room;
}

EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
	struct sigaction open;

	find_next();
	if (!armed)
		return next.sigaction(number, action, old);
	if (number == SIGSYS)
		return believe(action, old);
	if (action && sigismember(&action->sa_mask, SIGSYS) == 1) {
		open = *action;
		sigdelset(&open.sa_mask, SIGSYS);
		action = &open;
	}
	return next.sigaction(number, action, old);
}

EXPORT sighandler_t signal(int number, sighandler_t handler)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART }, old;

	find_next();
	if (!armed || number != SIGSYS)
		return next.signal(number, handler);
	believe(&action, &old);
	return old.sa_handler;
}

EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t room;

	find_next();
	return next.sigprocmask(how, how == SIG_UNBLOCK ? set : without_ours(set, &room), old);
}

EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t room;

	find_next();
	return next.pthread_sigmask(how, how == SIG_UNBLOCK || CALLED_BY_ENGINE() ? set : without_ours(set, &room),
	                            old);
}

/* A handler that runs while these wait has their mask. */

EXPORT int sigsuspend(const sigset_t *set)
{
	sigset_t room;

	find_next();
	return next.sigsuspend(without_ours(set, &room));
}

EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *set)
{
	sigset_t room;

	find_next();
	return next.ppoll(fds, n, timeout, without_ours(set, &room));
}

EXPORT int pselect(int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout, const sigset_t *set)
{
	sigset_t room;

	find_next();
	return next.pselect(n, in, out, except, timeout, without_ours(set, &room));
}

EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout, const sigset_t *set)
{
	sigset_t room;

	find_next();
	return next.epoll_pwait(epfd, events, n, timeout, without_ours(set, &room));
}

/* The start. */

/* The launcher's question, asked of a shell that does nothing: can this kernel do it? */
static void answer_probe(bool yes)
{
	const char *question = secure_getenv("LIBAIO_SHIM_TRAP");

	if (question && strcmp(question, "probe") == 0)
		_exit(yes ? 0 : 1);
}

__attribute__((constructor)) static void start(void)
{
	struct sigaction ours = { .sa_sigaction = las_trap_on_sigsys, .sa_flags = SA_SIGINFO | SA_NODEFER };
	sigset_t open;

	find_next();
	if (!las_trap_find_range() || !las_trap_code_of((const void *)las_version, &engine_start, &engine_end) ||
	    next.sigaction(SIGSYS, &ours, &believed) != 0) {
		answer_probe(false);
		return;
	}
	sigemptyset(&open);
	sigaddset(&open, SIGSYS);
	next.pthread_sigmask(SIG_UNBLOCK, &open, NULL);
	armed = las_trap_arm() == 0;
	answer_probe(armed);
	if (!armed) {
		next.sigaction(SIGSYS, &believed, NULL);
		return;
	}
	pthread_atfork(NULL, NULL, arm_forked_child);
}
