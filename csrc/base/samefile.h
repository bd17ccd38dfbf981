/* samefile.h - whether two descriptors are of the same open file. */
#ifndef LAS_BASE_SAMEFILE_H
#define LAS_BASE_SAMEFILE_H

#include <fcntl.h>
#include <stdbool.h>

#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY 1027 /* Linux 6.10 */
#endif

/* 1 or 0, for the program's number a and a hold b; -1 where the kernel does not tell. */
int las_same_open_file(int a, int b);
/* Where the kernel does not tell (seccomp), the same inode opened alike has to do. */
bool las_same_file(int a, int b);

#endif
