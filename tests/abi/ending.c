/*
 * ending.c - writes 64 blocks by one io_submit and ends at once, in the way that its second argument names.  The first
 * is the file.  What an exec starts gets the arguments "one" and "two words" and, where it can be given, ENDING=given.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 64, BYTES = 65536 };

static char blocks[BLOCKS][BYTES];
static char *program;

static void submit(const char *path)
{
	static struct iocb iocbs[BLOCKS], *list[BLOCKS];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	io_context_t ctx = NULL;

	for (int i = 0; i < BLOCKS; i++) {
		memset(blocks[i], 'A' + i % 26, BYTES);
		io_prep_pwrite(&iocbs[i], fd, blocks[i], BYTES, (long long)i * BYTES);
		list[i] = &iocbs[i];
	}
	if (fd < 0 || io_setup(BLOCKS, &ctx) || io_submit(ctx, BLOCKS, list) != BLOCKS)
		abort();
}

static void *leave_in_a_thread(void *unused)
{
	(void)unused;
	_exit(3);
}

static void say(void)
{
	(void)!write(1, "parent", 6);
}

static void end(const char *how)
{
	static char *argv[] = { "show", "one", "two words", NULL }, *envp[] = { "ENDING=given", NULL };
	static char *none[] = { "none", NULL };
	pthread_t thread;
	pid_t pid;

#define IS(word) (strcmp(how, word) == 0)
	if (IS("return"))
		return;
	if (IS("exit"))
		exit(3);
	if (IS("quick_exit"))
		quick_exit(3);
	if (IS("_exit"))
		_exit(3);
	if (IS("_Exit"))
		_Exit(3);
	if (IS("exit_group"))
		syscall(SYS_exit_group, 3);
	if (IS("thread")) {
		pthread_create(&thread, NULL, leave_in_a_thread, NULL);
		pause();
	}
	if (IS("execve"))
		execve(program, argv, envp);
	if (IS("execv"))
		execv(program, argv);
	if (IS("execvp"))
		execvp("ending-show", argv);
	if (IS("execvpe"))
		execvpe("ending-show", argv, envp);
	if (IS("execl"))
		execl(program, "show", "one", "two words", (char *)NULL);
	if (IS("execlp"))
		execlp("ending-show", "show", "one", "two words", (char *)NULL);
	if (IS("execle"))
		execle(program, "show", "one", "two words", (char *)NULL, envp);
	if (IS("fexecve"))
		fexecve(open(program, O_RDONLY | O_CLOEXEC), argv, envp);
	if (IS("execveat"))
		execveat(AT_FDCWD, program, argv, envp, 0);
	if (IS("syscall execve"))
		syscall(SYS_execve, program, argv, envp);
	if (IS("syscall execveat"))
		syscall(SYS_execveat, AT_FDCWD, program, argv, envp, 0);
	/* A child that ends otherwise; the parent is the one that has written. */
	if (IS("vfork _exit") || IS("vfork exec")) {
		pid = vfork();
		if (pid == 0) {
			if (IS("vfork exec"))
				execve(program, argv, envp);
			_exit(9);
		}
		say();
		waitpid(pid, NULL, 0);
		_exit(3);
	}
	if (IS("fork _exit")) {
		pid = fork();
		if (pid == 0)
			_exit(9);
		waitpid(pid, NULL, 0);
		_exit(3);
	}
	/* What cannot be executed leaves everything as it was. */
	if (IS("failing exec")) {
		if (execv("/nowhere", none) != -1 || errno != ENOENT ||
		    execlp("no-such-program", "x", (char *)NULL) != -1 || errno != ENOENT)
			abort();
		_exit(3);
	}
}

int main(int argc, char **argv)
{
	if (strcmp(argv[0], "show") == 0) {
		const char *given = getenv("ENDING");

		for (int i = 1; i < argc; i++)
			printf("%s,", argv[i]);
		printf("%s\n", given ? given : "-");
		return 3;
	}
	program = realpath("/proc/self/exe", NULL);
	submit(argv[1]);
	end(argv[2]);
	return 3;
}
