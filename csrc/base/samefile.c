/* samefile.c - see samefile.h. */
#include "base/samefile.h"

#include <errno.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/sys.h"

int las_same_open_file(int a, int b)
{
	long order = las_sys.fcntl(a, F_DUPFD_QUERY, (uintptr_t)b);

	if (order == -EBADF)
		return 0;
	if (order >= 0)
		return (int)order;
	order = las_sys.kcmp_file((int)las_sys.getpid(), a, b);
	return order >= 0 ? order == 0 : -1;
}

bool las_same_file(int a, int b)
{
	int order = las_same_open_file(a, b);
	struct stat sa, sb;

	if (order >= 0)
		return order;
	return las_sys.fstat(a, &sa) == 0 && las_sys.fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino && las_sys.fcntl(a, F_GETFL, 0) == las_sys.fcntl(b, F_GETFL, 0);
}
