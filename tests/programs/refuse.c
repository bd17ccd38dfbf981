/*
 * refuse - runs a program as if the kernel had no AIO, or no io_uring.
 *
 *   refuse aio|io_uring ENOSYS|EPERM PROGRAM ARGS...
 *
 * A seccomp filter answers those system calls with ENOSYS, as a kernel does that
 * was built without them, or with EPERM, as many container sandboxes do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 8 };

static const long aio_calls[] = { SYS_io_setup,  SYS_io_destroy,   SYS_io_submit,
	                          SYS_io_cancel, SYS_io_getevents, SYS_io_pgetevents };
static const long uring_calls[] = { SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register };

int main(int argc, char **argv)
{
	struct sock_filter filter[2 * MOST + 2], *next = filter;
	struct sock_fprog program = { 0, filter };
	const long *calls = aio_calls;
	size_t count = sizeof(aio_calls) / sizeof(aio_calls[0]);
	unsigned refusal = SECCOMP_RET_ERRNO | ENOSYS;

	if (argc < 4) {
		fprintf(stderr, "usage: refuse aio|io_uring ENOSYS|EPERM PROGRAM ARGS...\n");
		return 2;
	}
	if (strcmp(argv[1], "io_uring") == 0) {
		calls = uring_calls;
		count = sizeof(uring_calls) / sizeof(uring_calls[0]);
	}
	if (strcmp(argv[2], "EPERM") == 0)
		refusal = SECCOMP_RET_ERRNO | EPERM;

	*next++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < count; i++) {
		*next++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
		*next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, refusal);
	}
	*next++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program.len = (unsigned short)(next - filter);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
		perror("refuse: no seccomp here");
		return 77;
	}
	execvp(argv[3], argv + 3);
	perror(argv[3]);
	return 127;
}
