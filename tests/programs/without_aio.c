/*
 * without_aio - runs a program as if the kernel had no AIO.
 *
 *   without_aio [-e EPERM] PROGRAM ARGS...
 *
 * A seccomp filter answers the AIO system calls with ENOSYS, as a kernel without
 * CONFIG_AIO does, or with EPERM, as many container sandboxes do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REFUSE(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, refusal)

int main(int argc, char **argv)
{
	unsigned refusal = SECCOMP_RET_ERRNO | ENOSYS;
	int first = 1;

	if (argc > 2 && strcmp(argv[1], "-e") == 0) {
		refusal = SECCOMP_RET_ERRNO | (strcmp(argv[2], "EPERM") == 0 ? EPERM : ENOSYS);
		first = 3;
	}
	if (first >= argc) {
		fprintf(stderr, "usage: without_aio [-e EPERM] PROGRAM ARGS...\n");
		return 2;
	}
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		REFUSE(SYS_io_setup),
		REFUSE(SYS_io_destroy),
		REFUSE(SYS_io_submit),
		REFUSE(SYS_io_cancel),
		REFUSE(SYS_io_getevents),
		REFUSE(SYS_io_pgetevents),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
		perror("without_aio: no seccomp here");
		return 77;
	}
	execvp(argv[first], argv + first);
	perror(argv[first]);
	return 127;
}
