/* order.c - who waits for whom: lines of requests, and fsyncs behind the writes before them. */
#include "unit.h"

#include "aio/complete.h"
#include "lanes/order.h"

static struct u_owner owner, other;
static struct las_file one = { .device = 1, .inode = 100, .looked = true };
static struct las_file two = { .device = 1, .inode = 200, .looked = true };

static void prepare(void)
{
	u_start();
	u_owner_init(&owner);
	u_owner_init(&other);
}

static struct las_req *request(uint64_t data, enum las_op_kind kind)
{
	return u_req(&owner, data, kind, -1);
}

/* Ends the request and returns those that may go on, as a string of their data: "" if there are none. */
static const char *leave(struct las_req *req)
{
	static char text[256];
	struct las_link next, *l;
	size_t n = 0;

	las_list_init(&next);
	las_order_leave(req, &next);
	text[0] = 0;
	while ((l = las_list_pop(&next)))
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%c",
		                      (char)las_container_of(l, struct las_req, link)->data);
	CHECK(req->order == NULL);
	return text;
}

#define LEAVES(req, expected) CHECK_EQ(strcmp(leave(req), expected), 0)

TEST(the_first_of_a_line_goes_and_the_others_follow_in_turn)
{
	struct las_req *a, *b, *c;

	prepare();
	CHECK(!las_order_busy(&one, LAS_OP_WRITE));
	CHECK_RET(las_order_enter(a = request('a', LAS_OP_WRITE), &one, true), 1);
	CHECK(las_order_busy(&one, LAS_OP_WRITE));
	CHECK_RET(las_order_enter(b = request('b', LAS_OP_WRITE), &one, true), 0);
	CHECK_RET(las_order_enter(c = request('c', LAS_OP_WRITE), &one, true), 0);
	LEAVES(a, "b");
	CHECK(las_order_busy(&one, LAS_OP_WRITE));
	LEAVES(b, "c");
	LEAVES(c, "");
	CHECK(!las_order_busy(&one, LAS_OP_WRITE));
}

TEST(lines_of_other_files_and_directions_are_apart)
{
	struct las_req *a, *b, *c;

	prepare();
	CHECK_RET(las_order_enter(a = request('a', LAS_OP_WRITE), &one, true), 1);
	CHECK(!las_order_busy(&one, LAS_OP_READ));
	CHECK(!las_order_busy(&two, LAS_OP_WRITE));
	CHECK_RET(las_order_enter(b = request('b', LAS_OP_READ), &one, true), 1);
	CHECK_RET(las_order_enter(c = request('c', LAS_OP_WRITE), &two, true), 1);
	LEAVES(a, "");
	LEAVES(b, "");
	LEAVES(c, "");
}

TEST(an_fsync_waits_for_the_writes_before_it)
{
	struct las_req *a, *b, *f;

	prepare();
	CHECK_RET(las_order_enter(a = request('a', LAS_OP_WRITE), &one, false), 1);
	CHECK_RET(las_order_enter(b = request('b', LAS_OP_WRITE), &one, false), 1);
	CHECK(las_order_busy(&one, LAS_OP_FSYNC));
	CHECK_RET(las_order_enter(f = request('f', LAS_OP_FSYNC), &one, false), 0);
	LEAVES(b, "");
	LEAVES(a, "f");
	CHECK(!las_order_busy(&one, LAS_OP_FSYNC));
	LEAVES(f, "");
}

TEST(an_fsync_does_not_wait_for_the_writes_after_it)
{
	struct las_req *a, *b, *f;

	prepare();
	CHECK_RET(las_order_enter(a = request('a', LAS_OP_WRITE), &one, false), 1);
	CHECK_RET(las_order_enter(f = request('f', LAS_OP_FDSYNC), &one, false), 0);
	CHECK_RET(las_order_enter(b = request('b', LAS_OP_WRITE), &one, false), 1);
	LEAVES(a, "f");
	LEAVES(f, "");
	LEAVES(b, "");
}

TEST(an_fsync_on_a_quiet_file_goes_at_once)
{
	struct las_req *a, *f, *r;

	prepare();
	CHECK_RET(las_order_enter(r = request('r', LAS_OP_READ), &one, true), 1);
	CHECK_RET(las_order_enter(a = request('a', LAS_OP_WRITE), &two, false), 1);
	CHECK(!las_order_busy(&one, LAS_OP_FSYNC));
	CHECK_RET(las_order_enter(f = request('f', LAS_OP_FSYNC), &one, false), 1);
	LEAVES(f, "");
	LEAVES(a, "");
	LEAVES(r, "");
}

TEST(fsyncs_between_writes_wait_for_all_before_them_and_none_after)
{
	struct las_req *w[6], *f[6];

	prepare();
	/* a 0 b 1 c 2: each fsync (digit) has the writes (letters) to its left before it. */
	for (int i = 0; i < 3; i++) {
		CHECK_RET(las_order_enter(w[i] = request((uint64_t)('a' + i), LAS_OP_WRITE), &one, false), 1);
		CHECK_RET(las_order_enter(f[i] = request((uint64_t)('0' + i), LAS_OP_FSYNC), &one, false), 0);
	}
	LEAVES(w[2], "");
	LEAVES(w[1], "");
	CHECK_EQ(strspn(leave(w[0]), "012"), 3); /* all of them, in any order */
	for (int i = 0; i < 3; i++)
		LEAVES(f[i], "");
}

TEST(no_fsync_goes_before_a_write_that_it_covers)
{
	uint64_t chance = 1;

	prepare();
	/* At random: 8 writes and 8 fsyncs in the order of entering, writes end in any order. */
	for (int round = 0; round < 3000; round++) {
		struct las_req *reqs[16];
		bool is_sync[16], gone[16] = { false }, released[16] = { false };
		int entered = 0, left = 0;

		while (left < 16) {
			int pick;

			chance = chance * 6364136223846793005u + 1442695040888963407u;
			pick = (int)(chance >> 33);
			if (entered < 16 && (pick & 1 || entered == left)) {
				int i = entered++;

				is_sync[i] = pick & 2;
				reqs[i] = request((uint64_t)i + 1, is_sync[i] ? LAS_OP_FSYNC : LAS_OP_WRITE);
				released[i] = las_order_enter(reqs[i], &one, false) == 1;
				CHECK(is_sync[i] || released[i]);
				if (is_sync[i] && released[i])
					for (int k = 0; k < i; k++)
						CHECK(is_sync[k] || gone[k]);
				continue;
			}
			for (int tries = 0; tries < 16; tries++) {
				int i = (pick / 4 + tries) % 16;
				struct las_link next, *l;

				if (i >= entered || gone[i] || !released[i])
					continue;
				gone[i] = true;
				left++;
				las_list_init(&next);
				las_order_leave(reqs[i], &next);
				while ((l = las_list_pop(&next))) {
					int s = (int)las_container_of(l, struct las_req, link)->data - 1;

					CHECK(is_sync[s] && !released[s]);
					released[s] = true;
					for (int k = 0; k < s; k++)
						CHECK(is_sync[k] || gone[k]);
				}
				break;
			}
			/* Whoever has no write before it any more has been let go: nothing waits for ever. */
			for (int s = 0; s < entered; s++) {
				bool covers_pending = false;

				for (int k = 0; k < entered; k++)
					covers_pending |= !is_sync[k] && !gone[k];
				CHECK(!is_sync[s] || released[s] || covers_pending);
			}
		}
		CHECK(!las_order_busy(&one, LAS_OP_FSYNC));
		for (int i = 0; i < 16; i++)
			las_req_put(reqs[i]);
	}
}

TEST(a_request_taken_out_of_its_line_does_not_move_the_line_on)
{
	struct las_req *a, *b, *c, *taken;

	prepare();
	CHECK_RET(las_order_enter(a = request('a', LAS_OP_READ), &one, true), 1);
	CHECK_RET(las_order_enter(b = request('b', LAS_OP_READ), &one, true), 0);
	CHECK_RET(las_order_enter(c = request('c', LAS_OP_READ), &one, true), 0);
	CHECK(las_order_take(&other.owner, 'b') == NULL);
	CHECK(las_order_take(&owner.owner, 'a') == NULL); /* it is with a lane */
	CHECK(las_order_take(&owner.owner, 'x') == NULL);
	taken = las_order_take(&owner.owner, 'b');
	CHECK(taken == b);
	LEAVES(taken, "");
	LEAVES(a, "c");
	LEAVES(c, "");
}

TEST(an_append_taken_back_still_lets_fsyncs_go)
{
	struct las_req *a, *b, *f;

	prepare();
	CHECK_RET(las_order_enter(a = request('a', LAS_OP_WRITE), &one, true), 1);
	CHECK_RET(las_order_enter(b = request('b', LAS_OP_WRITE), &one, true), 0);
	CHECK_RET(las_order_enter(f = request('f', LAS_OP_FSYNC), &one, false), 0);
	LEAVES(a, "b");
	LEAVES(b, "f");
	LEAVES(f, "");
	CHECK_RET(las_order_enter(a = request('a', LAS_OP_WRITE), &one, true), 1);
	CHECK_RET(las_order_enter(b = request('b', LAS_OP_WRITE), &one, true), 0);
	CHECK_RET(las_order_enter(f = request('f', LAS_OP_FSYNC), &one, false), 0);
	CHECK(las_order_take(&owner.owner, 'b') == b);
	LEAVES(b, "");
	LEAVES(a, "f");
	LEAVES(f, "");
	CHECK(!las_order_busy(&one, LAS_OP_WRITE));
}

TEST(destroy_takes_reads_only)
{
	struct las_req *a, *b, *w, *x;

	prepare();
	CHECK_RET(las_order_enter(w = request('w', LAS_OP_WRITE), &one, true), 1);
	CHECK_RET(las_order_enter(x = request('x', LAS_OP_WRITE), &one, true), 0);
	CHECK(las_order_take(&owner.owner, 0) == NULL);
	CHECK_RET(las_order_enter(a = request('a', LAS_OP_READ), &two, true), 1);
	CHECK_RET(las_order_enter(b = request('b', LAS_OP_READ), &two, true), 0);
	CHECK(las_order_take(&owner.owner, 0) == b);
	LEAVES(b, "");
	LEAVES(a, "");
	LEAVES(w, "x");
	LEAVES(x, "");
}

static void *refuse_memory(void *addr, size_t bytes, int prot, int flags)
{
	return NULL;
}

TEST(without_memory_there_is_no_order_but_no_crash)
{
	struct las_req *req;

	prepare();
	req = request('a', LAS_OP_WRITE);
	las_sys.mmap = refuse_memory;
	CHECK_RET(las_order_enter(req, &one, true), -ENOMEM);
	LEAVES(req, "");
}
