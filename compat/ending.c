/*
 * ending.c - _exit() and exec for programs with writes under way.
 *
 * Kernel AIO belongs to the kernel: what io_submit has accepted is written
 * although the program calls _exit() or execs another one in the next line.
 * The shim's threads go with the process, so these calls first let the engine
 * finish (las_finish, which knows a vfork child from its parent).  exit(),
 * quick_exit() and a return from main run the engine's own handlers.
 *
 * posix_spawn, system and popen need nothing: their exec is inside libc, in a
 * child that the engine has nothing to do with.  fork with _exit or exec in
 * the child is such a child too.
 *
 * Everything here is async-signal-safe, as the functions it stands for: no
 * allocation, and the next function is looked up ahead of time.
 */
#include <dlfcn.h>
#include <libaio_shim.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "raw.h"

#define EXPORT __attribute__((visibility("default")))

static struct {
	void (*exit)(int status);
	int (*execve)(const char *path, char *const argv[], char *const envp[]);
	int (*execvpe)(const char *file, char *const argv[], char *const envp[]);
	int (*fexecve)(int fd, char *const argv[], char *const envp[]);
} next;

static void *find(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

/* Ahead of time, because dlsym is not for signal handlers; libraries whose constructors come earlier call it here. */
__attribute__((constructor)) static void find_all(void)
{
	if (next.exit)
		return;
	*(void **)&next.execve = find("execve");
	*(void **)&next.execvpe = find("execvpe");
	*(void **)&next.fexecve = find("fexecve");
	*(void **)&next.exit = find("_exit");
}

__attribute__((noreturn)) static void leave(int status)
{
	find_all();
	las_finish();
	if (next.exit)
		next.exit(status);
	for (;;)
		las_next_syscall(SYS_exit_group, (long)status);
}

EXPORT __attribute__((noreturn)) void _exit(int status)
{
	leave(status);
}

EXPORT __attribute__((noreturn)) void _Exit(int status)
{
	leave(status);
}

static int replace(const char *path, char *const argv[], char *const envp[])
{
	find_all();
	las_finish();
	return next.execve(path, argv, envp);
}

static int search_and_replace(const char *file, char *const argv[], char *const envp[])
{
	find_all();
	las_finish();
	return next.execvpe(file, argv, envp);
}

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	return replace(path, argv, envp);
}

EXPORT int execv(const char *path, char *const argv[])
{
	return replace(path, argv, environ);
}

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	return search_and_replace(file, argv, envp);
}

EXPORT int execvp(const char *file, char *const argv[])
{
	return search_and_replace(file, argv, environ);
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	find_all();
	las_finish();
	return next.fexecve(fd, argv, envp);
}

/* Not every libc declares it. */
int execveat(int fd, const char *path, char *const argv[], char *const envp[], int flags);

EXPORT int execveat(int fd, const char *path, char *const argv[], char *const envp[], int flags)
{
	las_finish();
	return (int)las_next_syscall(SYS_execveat, (long)fd, path, argv, envp, (long)flags);
}

/* How many words follow, the NULL that ends them included; none if already the first one is that. */
static size_t count_words(const char *first, va_list *words)
{
	size_t n = 1;

	if (first)
		while (n++, va_arg(*words, char *)) {
		}
	return n;
}

/* Inlined, with -fsanitize=undefined, gcc takes the array for an empty one and warns. */
static __attribute__((noinline)) void take_words(char **argv, size_t n, const char *first, va_list *words)
{
	memcpy(&argv[0], &first, sizeof(first)); /* as execv wants it; nobody writes there */
	for (size_t i = 1; i < n; i++)
		argv[i] = va_arg(*words, char *);
}

/* The list of arguments as an array on the stack; `words` stands behind the NULL afterwards. */
#define WORDS(argv, first, words)                       \
	va_start(words, first);                         \
	size_t n_##argv = count_words(first, &(words)); \
	va_end(words);                                  \
	char *argv[n_##argv];                           \
	va_start(words, first);                         \
	take_words(argv, n_##argv, first, &(words))

EXPORT int execl(const char *path, const char *arg, ...)
{
	va_list words;

	WORDS(argv, arg, words);
	va_end(words);
	return replace(path, argv, environ);
}

EXPORT int execlp(const char *file, const char *arg, ...)
{
	va_list words;

	WORDS(argv, arg, words);
	va_end(words);
	return search_and_replace(file, argv, environ);
}

EXPORT int execle(const char *path, const char *arg, ...)
{
	char *const *envp;
	va_list words;

	WORDS(argv, arg, words);
	envp = va_arg(words, char *const *);
	va_end(words);
	return replace(path, argv, envp);
}
