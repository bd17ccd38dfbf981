/* config.c - see config.h. */
#include "base/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/sys.h"

struct las_config las_config;

enum variable { LANES, INLINE, SETTLE, STATS, VARIABLES };

static const char *const names[VARIABLES] = { "LIBAIO_SHIM_LANES", "LIBAIO_SHIM_INLINE", "LIBAIO_SHIM_SETTLE",
	                                      "LIBAIO_SHIM_STATS" };
static char at_load[VARIABLES][PATH_MAX];

/* Servers wipe their environment before they begin to work (nginx), or write their title over it. */
static __attribute__((constructor)) void remember(void)
{
	const char *name = program_invocation_short_name;

	memcpy(las_config.program, name, strnlen(name, sizeof(las_config.program) - 1));
	for (int i = 0; i < VARIABLES; i++) {
		const char *value = secure_getenv(names[i]);

		if (value && strlen(value) < sizeof(at_load[i]))
			memcpy(at_load[i], value, strlen(value) + 1);
	}
}

static const char *variable(enum variable which)
{
	/* In a setuid program the environment belongs to somebody else. */
	const char *value = secure_getenv(names[which]);

	return value ? value : at_load[which];
}

static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; *p;) {
		size_t len = strcspn(p, ",");

		if (len == n && memcmp(p, word, n) == 0)
			return true;
		p += len + (p[len] == ',');
	}
	return false;
}

static unsigned lanes(const char *list)
{
	unsigned set = 0;

	if (!*list || has_word(list, "all"))
		return LAS_LANE_ALL;
	if (has_word(list, "head"))
		set |= LAS_LANE_HEAD;
	if (has_word(list, "native"))
		set |= LAS_LANE_NATIVE;
	if (has_word(list, "crew"))
		set |= LAS_LANE_CREW;
	/* A list without one known word is a slip of the pen; the default serves its author better than no lane. */
	return set ? set | LAS_LANE_CREW : LAS_LANE_ALL;
}

/* The first line or so of a small file: its length, or a negative errno. */
static long read_text(const char *path, char *text, size_t bytes)
{
	struct iovec iov = { text, bytes - 1 };
	long fd = las_sys.openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0), n;

	if (fd < 0)
		return fd;
	n = las_sys.preadv2((int)fd, &iov, 1, 0, 0);
	las_sys.close((int)fd);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

/* "0-1" or "0,2-5": the last number and one. */
static unsigned possible_cpus(void)
{
	char text[256];
	const char *last = text;
	long n;

	if (read_text("/sys/devices/system/cpu/possible", text, sizeof(text)) > 0) {
		for (const char *p = text; *p; p++)
			if (*p == '-' || *p == ',')
				last = p + 1;
		return (unsigned)strtoul(last, NULL, 10) + 1;
	}
	n = sysconf(_SC_NPROCESSORS_CONF);
	return n > 0 ? (unsigned)n : 1;
}

unsigned las_config_max_events(void)
{
	char text[32];
	unsigned long max;

	if (read_text("/proc/sys/fs/aio-max-nr", text, sizeof(text)) <= 0)
		return UINT_MAX;
	max = strtoul(text, NULL, 10);
	return max < UINT_MAX ? (unsigned)max : UINT_MAX;
}

void las_config_load(void)
{
	const char *inline_mode = variable(INLINE);
	const char *path = variable(STATS);

	las_config.lanes = lanes(variable(LANES));
	las_config.inline_mode = strcmp(inline_mode, "nowait") == 0  ? LAS_INLINE_NOWAIT
	                         : strcmp(inline_mode, "never") == 0 ? LAS_INLINE_NEVER
	                                                             : LAS_INLINE_AUTO;
	las_config.settle = strcmp(variable(SETTLE), "1") == 0;
	las_config.possible_cpus = possible_cpus();
	las_config.page_bytes = (unsigned)sysconf(_SC_PAGESIZE);
	las_config.stats_path[0] = '\0';
	if (strlen(path) < sizeof(las_config.stats_path))
		memcpy(las_config.stats_path, path, strlen(path) + 1);
}
