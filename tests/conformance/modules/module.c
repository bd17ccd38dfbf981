/* module.c - a shared object that uses libaio from its constructor and in a function; library.c loads it. */
#include <fcntl.h>
#include <libaio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int module_constructor_answer = -1;

int module_read(int fd)
{
	io_context_t ctx = NULL;
	struct iocb iocb, *list = &iocb;
	struct io_event event;
	static char buf[4096];
	int answer = io_setup(8, &ctx);

	if (answer)
		return answer;
	io_prep_pread(&iocb, fd, buf, sizeof(buf), 0);
	answer = io_submit(ctx, 1, &list);
	if (answer == 1)
		answer = io_getevents(ctx, 1, 1, &event, NULL) == 1 ? (int)(long)event.res : -1;
	io_destroy(ctx);
	return answer;
}

__attribute__((constructor)) static void start(void)
{
	int fd = open("/proc/self/exe", O_RDONLY);

	module_constructor_answer = module_read(fd) == 4096 ? 0 : -1;
	close(fd);
}
