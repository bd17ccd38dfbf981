/*
 * chance.h - numbers and requests at random, from a seed alone.
 *
 * A request is drawn once and made out for one file or for several, whose buffers lie elsewhere: the same lengths,
 * offsets and flags, and the same kind of address.
 */
#ifndef LAS_UNIT_CHANCE_H
#define LAS_UNIT_CHANCE_H

#include "unit.h"

struct c_source {
	uint64_t state;
};

uint64_t c_next(struct c_source *source);
unsigned c_below(struct c_source *source, unsigned n);
bool c_one_in(struct c_source *source, unsigned n);
#define C_PICK(source, array) ((array)[c_below(source, sizeof(array) / sizeof((array)[0]))])

/* The number in an environment variable, or else this one. */
uint64_t c_setting(const char *variable, uint64_t otherwise);

#define C_ARENA ((size_t)64 * 1024)
#define C_VECTOR 1030

/* What one request needs of its own. */
struct c_place {
	char *arena; /* C_ARENA bytes, and nothing behind them */
	int fd, eventfd;
	struct iovec iov[C_VECTOR];
	struct iocb iocb;  /* the request */
	struct iocb *user; /* where io_submit finds it: iocb, a copy that can only be read, or nowhere */
};

void c_place_init(struct c_place *place);
/* Draws a request and makes it out for n places, of which fd and eventfd are set. */
void c_request(struct c_source *source, struct c_place *const *places, unsigned n);
/* Bytes that it asks for, all segments together. */
uint64_t c_asked_for(const struct c_place *place);

/* Memory without any access. */
char *c_unmapped(void);

#endif
