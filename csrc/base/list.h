/*
 * list.h - an intrusive, doubly linked list with a head.
 *
 * A link that is on no list points at itself, so removing it is harmless and
 * "is it queued?" is one comparison.  Callers bring their own lock.
 */
#ifndef LAS_BASE_LIST_H
#define LAS_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct las_link {
	struct las_link *next, *prev;
};

#define las_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void las_list_init(struct las_link *l)
{
	l->next = l->prev = l;
}

static inline bool las_list_empty(const struct las_link *head)
{
	return head->next == head;
}

static inline void las_list_push(struct las_link *head, struct las_link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

static inline void las_list_remove(struct las_link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	las_list_init(l);
}

static inline struct las_link *las_list_pop(struct las_link *head)
{
	struct las_link *l = head->next;

	if (l == head)
		return NULL;
	las_list_remove(l);
	return l;
}

/* Moves everything on `from` behind what `to` holds. */
static inline void las_list_append(struct las_link *to, struct las_link *from)
{
	if (las_list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	las_list_init(from);
}

/* `l` may be removed inside the loop. */
#define las_list_each(head, l, tmp) \
	for ((l) = (head)->next, (tmp) = (l)->next; (l) != (head); (l) = (tmp), (tmp) = (l)->next)

#endif
