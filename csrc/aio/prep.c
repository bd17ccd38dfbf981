/* prep.c - libaio.h's inline helpers out of line, for callers that cannot include C. */
#include "libaio_shim.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT void las_io_prep_pread(struct iocb *iocb, int fd, void *buf, size_t count, long long offset)
{
	io_prep_pread(iocb, fd, buf, count, offset);
}

EXPORT void las_io_prep_pwrite(struct iocb *iocb, int fd, void *buf, size_t count, long long offset)
{
	io_prep_pwrite(iocb, fd, buf, count, offset);
}

EXPORT void las_io_prep_preadv(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, long long offset)
{
	io_prep_preadv(iocb, fd, iov, iovcnt, offset);
}

EXPORT void las_io_prep_pwritev(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, long long offset)
{
	io_prep_pwritev(iocb, fd, iov, iovcnt, offset);
}

EXPORT void las_io_prep_preadv2(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, long long offset,
                                int flags)
{
	io_prep_preadv2(iocb, fd, iov, iovcnt, offset, flags);
}

EXPORT void las_io_prep_pwritev2(struct iocb *iocb, int fd, const struct iovec *iov, int iovcnt, long long offset,
                                 int flags)
{
	io_prep_pwritev2(iocb, fd, iov, iovcnt, offset, flags);
}

EXPORT void las_io_prep_fsync(struct iocb *iocb, int fd)
{
	io_prep_fsync(iocb, fd);
}

EXPORT void las_io_prep_fdsync(struct iocb *iocb, int fd)
{
	io_prep_fdsync(iocb, fd);
}

EXPORT void las_io_prep_poll(struct iocb *iocb, int fd, int events)
{
	io_prep_poll(iocb, fd, events);
}

EXPORT void las_io_set_eventfd(struct iocb *iocb, int eventfd)
{
	io_set_eventfd(iocb, eventfd);
}
