/* cancel.c - every outcome of io_cancel: the request goes on, or it is gone without an event; never both. */
#include "las_test.h"

#include <poll.h>

struct pipe_poll {
	struct iocb iocb;
	int reader, writer;
};

static void start_poll(io_context_t ctx, struct pipe_poll *p)
{
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	p->reader = t_own(ends[0]);
	p->writer = t_own(ends[1]);
	io_prep_poll(&p->iocb, p->reader, POLLIN);
	p->iocb.data = p;
	CHECK_RET(t_submit(ctx, &p->iocb), 1);
}

TEST(null_iocb_is_efault)
{
	struct io_event event;

	CHECK_RET(io_cancel(t_context(1), NULL, &event), -EFAULT);
}

TEST(unreadable_iocb_is_efault)
{
	struct io_event event;
	io_context_t ctx = t_context(1);

	CHECK_RET(io_cancel(ctx, t_no_access(), &event), -EFAULT);
	CHECK_RET(io_cancel(ctx, (struct iocb *)(uintptr_t)0xffff800000000000u, &event), -EFAULT);
}

TEST(iocb_of_which_only_the_key_is_readable_is_einval)
{
	io_context_t ctx = t_context(1);
	char *pages = t_pages(8192);
	struct io_event event;

	CHECK_EQ(mprotect(pages + 4096, 4096, PROT_NONE), 0);
	CHECK_RET(io_cancel(ctx, (struct iocb *)(void *)(pages + 4096 - 16), &event), -EINVAL);
	CHECK_RET(io_cancel(ctx, (struct iocb *)(void *)(pages + 4096 - 8), &event), -EFAULT);
}

TEST(bad_iocb_wins_over_bad_context)
{
	struct io_event event;

	CHECK_RET(io_cancel(NULL, NULL, &event), -EFAULT);
	CHECK_RET(io_cancel((io_context_t)t_no_access(), t_no_access(), &event), -EFAULT);
}

TEST(unknown_iocb_is_einval)
{
	struct iocb iocb;
	struct io_event event;
	io_context_t ctx = t_context(1);

	memset(&iocb, 0, sizeof(iocb));
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
}

TEST(finished_request_is_einval)
{
	io_context_t ctx = t_context(1);
	struct iocb iocb;
	struct io_event event;
	char byte;

	io_prep_pread(&iocb, t_file("data", 64), &byte, 1, 0);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_ring_wait(ctx, 1);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
	CHECK_RET(t_reap_one(ctx), 1);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
}

TEST(pending_poll_is_einprogress_then_one_event)
{
	io_context_t ctx = t_context(8);
	struct pipe_poll p;
	struct io_event event;

	start_poll(ctx, &p);
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINPROGRESS);
	t_reap(ctx, 1, &event);
	CHECK(event.obj == &p.iocb);
	CHECK(event.data == &p);
	CHECK_EQ(t_res(&event), 0);
	CHECK_EQ(write(p.writer, "x", 1), 1);
	t_no_event(ctx);
}

TEST(pending_poll_can_be_cancelled_once)
{
	io_context_t ctx = t_context(8);
	struct pipe_poll p;
	struct io_event event;

	start_poll(ctx, &p);
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINPROGRESS);
	t_reap_one(ctx);
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINVAL);
	t_no_event(ctx);
}

TEST(iocb_in_read_only_memory_can_be_cancelled)
{
	io_context_t ctx = t_context(8);
	struct iocb *iocb = t_pages(4096);
	struct io_event event;
	int ends[2];

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_poll(iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, iocb), 1);
	CHECK_EQ(mprotect(iocb, 4096, PROT_READ), 0);
	CHECK_RET(io_cancel(ctx, iocb, &event), -EINPROGRESS);
	CHECK_RET(t_reap_one(ctx), 0);
}

TEST(cancelled_poll_raises_its_eventfd_once)
{
	io_context_t ctx = t_context(8);
	int ends[2], efd = t_own(eventfd(0, 0));
	struct iocb iocb;
	struct io_event event;
	uint64_t count;

	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_poll(&iocb, ends[0], POLLIN);
	io_set_eventfd(&iocb, efd);
	CHECK_RET(t_submit(ctx, &iocb), 1);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINPROGRESS);
	CHECK_EQ(read(efd, &count, 8), 8);
	CHECK_EQ(count, 1);
	CHECK_RET(t_reap_one(ctx), 0);
}

TEST(nonzero_key_is_einval_and_the_request_goes_on)
{
	io_context_t ctx = t_context(8);
	struct pipe_poll p;
	struct io_event event;

	start_poll(ctx, &p);
	p.iocb.key = 1;
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINVAL);
	CHECK_EQ(write(p.writer, "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
}

TEST(only_the_one_that_is_meant_is_cancelled)
{
	enum { COUNT = 32 };
	io_context_t ctx = t_context(COUNT);
	static struct pipe_poll polls[COUNT];
	struct io_event event;

	for (int i = 0; i < COUNT; i++)
		start_poll(ctx, &polls[i]);
	CHECK_RET(io_cancel(ctx, &polls[17].iocb, &event), -EINPROGRESS);
	t_reap(ctx, 1, &event);
	CHECK(event.obj == &polls[17].iocb);
	t_no_event(ctx);
	for (int i = 0; i < COUNT; i++) {
		if (i == 17)
			continue;
		CHECK_EQ(write(polls[i].writer, "x", 1), 1);
		t_reap(ctx, 1, &event);
		CHECK(event.obj == &polls[i].iocb);
		CHECK(t_res(&event) & POLLIN);
	}
}

TEST(same_iocb_twice_in_flight_is_cancelled_one_by_one)
{
	io_context_t ctx = t_context(8);
	struct pipe_poll p;
	struct io_event event;

	start_poll(ctx, &p);
	CHECK_RET(t_submit(ctx, &p.iocb), 1);
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINPROGRESS);
	CHECK_RET(t_reap_one(ctx), 0);
	t_no_event(ctx);
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINPROGRESS);
	CHECK_RET(t_reap_one(ctx), 0);
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINVAL);
}

TEST(same_iocb_in_flight_again_is_cancelled_when_the_first_has_come)
{
	io_context_t ctx = t_context(8);
	struct io_event events[2], event;
	struct pipe_poll p;
	int ends[2];

	start_poll(ctx, &p);
	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	io_prep_poll(&p.iocb, ends[0], POLLIN);
	CHECK_RET(t_submit(ctx, &p.iocb), 1);
	CHECK_EQ(write(p.writer, "x", 1), 1);
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINPROGRESS);
	/* Where the poll that is ready could be cancelled still, the other one waits on. */
	CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, 2, events);
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINVAL);
}

TEST(another_contexts_request_is_einval)
{
	io_context_t ctx = t_context(8), other = t_context(8);
	struct pipe_poll p;
	struct io_event event;

	start_poll(ctx, &p);
	CHECK_RET(io_cancel(other, &p.iocb, &event), -EINVAL);
	CHECK_EQ(write(p.writer, "x", 1), 1);
	CHECK(t_reap_one(ctx) & POLLIN);
}

TEST(result_is_left_alone_when_the_request_goes_on)
{
	io_context_t ctx = t_context(8);
	struct pipe_poll p;
	struct io_event event, before;
	struct iocb unknown;

	memset(&event, 0x5a, sizeof(event));
	memset(&unknown, 0, sizeof(unknown));
	before = event;
	start_poll(ctx, &p);
	CHECK_RET(io_cancel(ctx, &unknown, &event), -EINVAL);
	CHECK_RET(io_cancel(ctx, &p.iocb, &event), -EINPROGRESS);
	CHECK_EQ(memcmp(&event, &before, sizeof(event)), 0);
	t_reap_one(ctx);
}

TEST(result_pointer_is_not_needed_for_a_poll)
{
	io_context_t ctx = t_context(8);
	struct pipe_poll p;
	struct iocb unknown;
	int answer;

	memset(&unknown, 0, sizeof(unknown));
	start_poll(ctx, &p);
	answer = io_cancel(ctx, &p.iocb, NULL);
	if (DIFFERS("cancel-result-pointer")) {
		CHECK(answer == -EINPROGRESS || answer == -EFAULT);
		if (answer == -EFAULT)
			CHECK_RET(io_cancel(ctx, &p.iocb, &(struct io_event){ 0 }), -EINPROGRESS);
	} else {
		CHECK_RET(answer, -EINPROGRESS);
		CHECK_RET(io_cancel(ctx, &unknown, NULL), -EINVAL);
	}
	CHECK_RET(t_reap_one(ctx), 0);
}

TEST(running_direct_read_is_einval_and_goes_on)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("running", 8192, O_RDONLY | O_DIRECT);
	char *buf = t_pages(4096);
	struct iocb iocb;
	struct io_event event;

	io_prep_pread(&iocb, fd, buf, 4096, 0);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
	t_no_event(ctx);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 4096);
	t_check_pattern(buf, 4096, 0, 0);
}

TEST(running_fsync_is_einval_and_goes_on)
{
	io_context_t ctx = t_context(8);
	int fd = t_stall_file("running", 8192, O_RDWR);
	struct iocb iocb;
	struct io_event event;

	io_prep_fsync(&iocb, fd);
	t_stall_hold();
	CHECK_RET(t_submit(ctx, &iocb), 1);
	t_stall_wait(1);
	CHECK_RET(io_cancel(ctx, &iocb, &event), -EINVAL);
	t_stall_release();
	CHECK_RET(t_reap_one(ctx), 0);
}

/*
 * Appends to one file run one after the other, so all but the first wait their turn while the file system holds that
 * one: a cancelled one must never reach the file.
 */
TEST(queued_write_is_cancelled_for_good)
{
	enum { COUNT = 8 };
	io_context_t ctx = t_context(COUNT);
	int fd, cancelled = 0;
	struct iocb iocbs[COUNT];
	struct io_event event, events[COUNT];
	char text[COUNT], back[COUNT + 1];
	struct stat st;

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for each append");
	fd = t_stall_file("queued", 0, O_RDWR | O_APPEND);
	t_stall_hold();
	for (int i = 0; i < COUNT; i++) {
		text[i] = (char)('a' + i);
		io_prep_pwrite(&iocbs[i], fd, &text[i], 1, 0);
		iocbs[i].data = &text[i];
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	}
	t_stall_wait(1);
	for (int i = COUNT - 1; i > 0; i -= 2) {
		CHECK(DIFFERS("cancel-of-queued"));
		CHECK_RET(io_cancel(ctx, &iocbs[i], &event), 0);
		CHECK(event.obj == &iocbs[i]);
		CHECK(event.data == &text[i]);
		CHECK_EQ(event.res2, 0);
		CHECK_RET(io_cancel(ctx, &iocbs[i], &event), -EINVAL);
		cancelled++;
		text[i] = '!';
	}
	CHECK_RET(io_cancel(ctx, &iocbs[0], &event), -EINVAL);
	t_stall_release();
	t_reap(ctx, COUNT - cancelled, events);
	t_no_event(ctx);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, COUNT - cancelled);
	CHECK_EQ(pread(fd, back, sizeof(back), 0), COUNT - cancelled);
	CHECK_EQ(memcmp(back, "aceg", 4), 0);
}

TEST(cancelled_place_in_the_ring_is_free_again)
{
	io_context_t ctx = t_context(1);
	int ends[2], full = 0, answer;
	static struct iocb iocbs[1000];
	struct io_event event;
	static struct io_event events[1000];
	char byte = 0;

	if (!is_shim())
		SKIP("n/a: the kernel's io_submit waits for the pipe");
	CHECK_EQ(pipe(ends), 0);
	t_own(ends[0]);
	t_own(ends[1]);
	do {
		io_prep_pread(&iocbs[full], ends[0], &byte, 1, 0);
		answer = t_submit(ctx, &iocbs[full]);
		full += answer == 1;
	} while (answer == 1);
	CHECK_RET(answer, -EAGAIN);
	CHECK(DIFFERS("cancel-of-queued"));
	for (int i = full - 1; i > full - 11; i--)
		CHECK_RET(io_cancel(ctx, &iocbs[i], &event), 0);
	for (int i = 0; i < 10; i++)
		CHECK_RET(t_submit(ctx, &iocbs[i]), 1);
	CHECK_RET(t_submit(ctx, &iocbs[0]), -EAGAIN);
	for (int i = 0; i < full; i++)
		CHECK_EQ(write(ends[1], "x", 1), 1);
	t_reap(ctx, full, events);
}

struct race {
	io_context_t ctx;
	struct pipe_poll *polls;
	int count;
	int in_progress;
};

static void *cancel_all(void *arg)
{
	struct race *race = arg;
	struct io_event event;

	for (int i = 0; i < race->count; i++) {
		int answer = io_cancel(race->ctx, &race->polls[i].iocb, &event);

		CHECK(answer == -EINPROGRESS || answer == -EINVAL);
		race->in_progress += answer == -EINPROGRESS;
	}
	return NULL;
}

TEST(race_of_cancel_and_completion_gives_each_exactly_one_event)
{
	enum { COUNT = 64 };
	static struct pipe_poll polls[COUNT];
	struct io_event events[COUNT];
	struct race race = { t_context(COUNT), polls, COUNT, 0 };

	for (int i = 0; i < COUNT; i++)
		start_poll(race.ctx, &polls[i]);
	for (int round = 0; round < 30; round++) {
		pthread_t thread = t_thread(cancel_all, &race);
		char byte;

		for (int i = COUNT - 1; i >= 0; i--)
			CHECK_EQ(write(polls[i].writer, "x", 1), 1);
		t_reap(race.ctx, COUNT, events);
		t_join(thread);
		for (int i = 0; i < COUNT; i++) {
			CHECK(t_res(&events[i]) == 0 || (t_res(&events[i]) > 0 && t_res(&events[i]) & POLLIN));
			for (int j = 0; j < i; j++)
				CHECK(events[i].obj != events[j].obj);
		}
		for (int i = 0; i < COUNT; i++)
			CHECK_EQ(read(polls[i].reader, &byte, 1), 1);
		for (int i = 0; i < COUNT; i++)
			CHECK_RET(t_submit(race.ctx, &polls[i].iocb), 1);
	}
}

TEST(waiter_is_woken_by_a_cancelled_poll)
{
	io_context_t ctx = t_context(8);
	struct pipe_poll p;
	struct race race = { ctx, &p, 1, 0 };
	pthread_t thread;

	start_poll(ctx, &p);
	thread = t_thread(cancel_all, &race);
	CHECK_RET(t_reap_one(ctx), 0);
	t_join(thread);
	CHECK_EQ(race.in_progress, 1);
}
