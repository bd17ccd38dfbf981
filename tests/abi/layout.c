/*
 * layout.c - prints what a program can see of <libaio.h>: sizes, offsets, values, and the bytes that the helpers write.
 *
 * Compiled with our header and with the system's; both must print the same.  `layout.expected` is what 64-bit machines
 * print, for where there is no system header.
 */
#include <libaio.h>
#include <stddef.h>
#include <stdio.h>

/* The helpers end in io_submit; this one only shows what it is given. */
static struct iocb *submitted;

int io_submit(io_context_t ctx, long nr, struct iocb *ios[])
{
	submitted = ctx == NULL && nr == 1 ? ios[0] : NULL;
	return 1;
}

static void callback(io_context_t ctx, struct iocb *iocb, long res, long res2)
{
	(void)ctx, (void)iocb, (void)res, (void)res2;
}

#define SIZE(type) printf("sizeof(%s) %u\n", #type, (unsigned)sizeof(type))
#define FIELD(type, field)                                                                \
	printf("%s.%s at %u, %u bytes\n", #type, #field, (unsigned)offsetof(type, field), \
	       (unsigned)sizeof(((type *)0)->field))
#define VALUE(name) printf("%s %d\n", #name, (int)(name))

static void layouts(void)
{
	SIZE(struct iocb);
	FIELD(struct iocb, data);
	FIELD(struct iocb, key);
	FIELD(struct iocb, aio_rw_flags);
	FIELD(struct iocb, aio_lio_opcode);
	FIELD(struct iocb, aio_reqprio);
	FIELD(struct iocb, aio_fildes);
	FIELD(struct iocb, u);
	FIELD(struct iocb, u.c.buf);
	FIELD(struct iocb, u.c.nbytes);
	FIELD(struct iocb, u.c.offset);
	FIELD(struct iocb, u.c.__pad3);
	FIELD(struct iocb, u.c.flags);
	FIELD(struct iocb, u.c.resfd);
	FIELD(struct iocb, u.v.vec);
	FIELD(struct iocb, u.v.nr);
	FIELD(struct iocb, u.v.offset);
	FIELD(struct iocb, u.poll.events);
	FIELD(struct iocb, u.poll.__pad1);
	FIELD(struct iocb, u.saddr.addr);
	FIELD(struct iocb, u.saddr.len);
	SIZE(struct io_event);
	FIELD(struct io_event, data);
	FIELD(struct io_event, obj);
	FIELD(struct io_event, res);
	FIELD(struct io_event, res2);
	SIZE(struct io_iocb_common);
	SIZE(struct io_iocb_vector);
	SIZE(struct io_iocb_poll);
	SIZE(struct io_iocb_sockaddr);
	SIZE(struct io_sigset);
	FIELD(struct io_sigset, ss);
	FIELD(struct io_sigset, ss_len);
	SIZE(struct io_sigset_compat);
	FIELD(struct io_sigset_compat, ss);
	FIELD(struct io_sigset_compat, ss_len);
	SIZE(io_context_t);
	SIZE(io_callback_t);
	SIZE(io_iocb_cmd_t);
}

static void values(void)
{
	VALUE(IO_CMD_PREAD);
	VALUE(IO_CMD_PWRITE);
	VALUE(IO_CMD_FSYNC);
	VALUE(IO_CMD_FDSYNC);
	VALUE(IO_CMD_POLL);
	VALUE(IO_CMD_NOOP);
	VALUE(IO_CMD_PREADV);
	VALUE(IO_CMD_PWRITEV);
	VALUE(((struct io_event){ 0 }).res - 1 > 0);
	VALUE((short)-1 == ((struct iocb){ .aio_lio_opcode = -1 }).aio_lio_opcode);
}

static void show(const char *what, struct iocb *iocb)
{
	const unsigned char *bytes = (const unsigned char *)iocb;
	size_t i;

	printf("%s:", what);
	for (i = 0; i < sizeof(*iocb); i++)
		printf("%s%02x", i % 8 ? "" : " ", bytes[i]);
	printf("\n");
}

/* Each on a record full of rubbish, with arguments that no narrowing may change. */
#define SHOW(name, call)                           \
	do {                                       \
		memset(&iocb, 0xa5, sizeof(iocb)); \
		call;                              \
		show(name, &iocb);                 \
	} while (0)

static void helpers(void)
{
	void *where = (void *)0x12345678UL;
	const struct iovec *vec = (const struct iovec *)where;
	const long long far = 0x123456789abcdefLL;
	const size_t many = (size_t)-2;
	const io_callback_t expected = callback;
	struct iocb iocb;
	int answer;

	SHOW("io_prep_pread", io_prep_pread(&iocb, -3, where, many, far));
	SHOW("io_prep_pwrite", io_prep_pwrite(&iocb, -3, where, many, -far));
	SHOW("io_prep_preadv", io_prep_preadv(&iocb, 7, vec, 1024, far));
	SHOW("io_prep_preadv of -1", io_prep_preadv(&iocb, 7, vec, -1, far));
	SHOW("io_prep_pwritev", io_prep_pwritev(&iocb, 7, vec, 1024, far));
	SHOW("io_prep_preadv2", io_prep_preadv2(&iocb, 7, vec, 5, far, 0x1f));
	SHOW("io_prep_pwritev2", io_prep_pwritev2(&iocb, 7, vec, 5, far, -1));
	SHOW("io_prep_poll", io_prep_poll(&iocb, 7, 0x12345));
	SHOW("io_prep_poll of -1", io_prep_poll(&iocb, 7, -1));
	SHOW("io_prep_fsync", io_prep_fsync(&iocb, 7));
	SHOW("io_prep_fdsync", io_prep_fdsync(&iocb, 7));
	SHOW("io_set_eventfd", io_set_eventfd(&iocb, 9));
	SHOW("io_set_eventfd after io_prep_pread", (io_prep_pread(&iocb, 1, where, 1, 0), io_set_eventfd(&iocb, -1)));

	memset(&iocb, 0xa5, sizeof(iocb));
	io_set_callback(&iocb, callback);
	printf("io_set_callback sets %s\n", memcmp(&iocb.data, &expected, sizeof(iocb.data)) ? "?" : "data");
	iocb.data = NULL;
	show("io_set_callback else", &iocb);

#define SUBMITS(name, call)                                                                                          \
	do {                                                                                                         \
		memset(&iocb, 0xa5, sizeof(iocb));                                                                   \
		submitted = NULL;                                                                                    \
		answer = call;                                                                                       \
		printf(name " returns %d, submits %s\n", answer, submitted == &iocb ? "it" : "?");                   \
		printf(name " keeps %s\n", memcmp(&iocb.data, &expected, sizeof(iocb.data)) ? "?" : "the callback"); \
		iocb.data = NULL;                                                                                    \
		show(name, &iocb);                                                                                   \
	} while (0)
	SUBMITS("io_poll", io_poll(NULL, &iocb, callback, 7, 0x41));
	SUBMITS("io_fsync", io_fsync(NULL, &iocb, callback, 7));
	SUBMITS("io_fdsync", io_fdsync(NULL, &iocb, callback, 7));
}

int main(void)
{
	layouts();
	values();
	helpers();
	return 0;
}
