/*
 * report.c - see report.h.
 *
 * At exit, accepted writes and syncs are finished, as the kernel finishes
 * them, and the line for LIBAIO_SHIM_STATS is written if one is wished.
 * Reads are let go: the memory they would fill goes with the process.
 */
#include "aio/report.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aio/context.h"
#include "base/config.h"
#include "base/fork.h"
#include "base/lock.h"
#include "base/sys.h"
#include "lanes/crew.h"
#include "lanes/table.h"

#ifndef LAS_VERSION
#error "LAS_VERSION is given by the Makefile, from pyproject.toml"
#endif

#define EXPORT __attribute__((visibility("default")))

EXPORT const char *las_version(void)
{
	return LAS_VERSION;
}

void las_report_collect(struct las_stats *stats)
{
#define COPY(field) stats->field = las_load_relaxed(&las_stats.field) /* each number stands for itself */
	COPY(contexts);
	COPY(native);
	COPY(crew);
	COPY(polled);
	COPY(helped);
	COPY(cancelled);
	COPY(threads);
#undef COPY
	las_ctx_totals(&stats->head, &stats->submitted);
}

EXPORT size_t las_stats_get(struct las_stats *out, size_t bytes)
{
	struct las_stats stats;

	memset(&stats, 0, sizeof(stats));
	if (las_critical == 0 && las_process_ready())
		las_report_collect(&stats);
	if (bytes > sizeof(stats))
		bytes = sizeof(stats);
	memcpy(out, &stats, bytes);
	return bytes;
}

/* The program's name may hold anything; what JSON cannot is left out. */
static void plain_name(char *to, size_t bytes)
{
	const char *from = las_config.program;
	size_t n = 0;

	for (; from && *from && n + 1 < bytes; from++)
		if (*from >= ' ' && *from != '"' && *from != '\\')
			to[n++] = *from;
	to[n] = '\0';
}

/*
 * By the descriptor: by its name a socket is never opened, nor is anything by a program that has given up its privileges,
 * a pipe that nobody reads blocks, and a file gets what others write over it.  It must not end the program by SIGPIPE.
 */
static void write_to_stderr(const char *line, size_t bytes)
{
	const struct timespec at_once = { 0, 0 };
	struct pollfd p = { .fd = STDERR_FILENO };

	/* With no events asked for, only what is closed or hung up answers. */
	if (las_sys.ppoll(&p, 1, &at_once, NULL) == 0)
		las_sys.write(STDERR_FILENO, line, bytes);
}

static void write_line(void)
{
	struct las_stats s;
	char line[1024], name[64];
	long fd;
	int n;

	las_report_collect(&s);
	if (!las_config.stats_path[0] || s.contexts == 0)
		return;
	plain_name(name, sizeof(name));
#define N(field) (unsigned long long)s.field
	n = snprintf(line, sizeof(line),
	             "{\"libaio_shim\":\"" LAS_VERSION "\",\"pid\":%ld,\"program\":\"%s\",\"contexts\":%llu,"
	             "\"submitted\":%llu,\"head\":%llu,\"native\":%llu,\"crew\":%llu,\"polled\":%llu,"
	             "\"helped\":%llu,\"cancelled\":%llu,\"threads\":%llu}\n",
	             las_sys.getpid(), name, N(contexts), N(submitted), N(head), N(native), N(crew), N(polled),
	             N(helped), N(cancelled), N(threads));
#undef N
	if (strcmp(las_config.stats_path, "/dev/stderr") == 0) {
		write_to_stderr(line, (size_t)n);
		return;
	}
	/* A named pipe that nobody reads must not hold the process, nor a terminal become its own. */
	fd = las_sys.openat(AT_FDCWD, las_config.stats_path,
	                    O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
	if (fd < 0)
		return;
	las_sys.write((int)fd, line, (size_t)n);
	las_sys.close((int)fd);
}

/*
 * The counts that the line for this process tells, in one word: a process that
 * ends in two ways at once, or an exec that failed, adds no second line unless
 * something has happened since.  The process id keeps a forked child apart.
 */
static bool is_news(void)
{
	static uint64_t told;
	uint64_t before = las_load_relaxed(&told), now;
	struct las_stats s;

	las_report_collect(&s);
	now = (uint64_t)las_sys.getpid() << 42 ^ (s.contexts + s.submitted);
	return before != now && las_cas_acq_rel(&told, &before, now);
}

/*
 * KERNEL: exit-without-handlers: it finishes what it has accepted, whatever
 * ends the process; here somebody has to call this function (test:
 * process.fatal_signal_with_writes_outstanding).
 *
 * Who calls: the destructor, quick_exit, and the interposer in compat/ for
 * _exit and exec.  So it may run in a signal handler, in several threads at
 * once, and in a child that shares this memory: one of vfork or
 * clone(CLONE_VM), told by its process id, must neither wait for its parent's
 * requests nor report them, for they go on when it is gone.
 */
EXPORT void las_finish(void)
{
	int saved = errno;

	/* A forked child that never used the library has nothing to finish or to tell. */
	if (!las_process_ready() || !las_table_same_process())
		return;
	/* A handler that interrupted one of our own short sections would wait for itself. */
	if (las_critical == 0) {
		las_crew_drain(las_inside == 0);
		if (is_news())
			write_line();
	}
	errno = saved;
}

__attribute__((destructor)) static void at_exit(void)
{
	las_finish();
}

__attribute__((constructor)) static void register_quick_exit(void)
{
	at_quick_exit(las_finish);
}
