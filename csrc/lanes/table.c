/* table.c - see table.h. */
#include "lanes/table.h"

#include <linux/kcmp.h>

#include "base/sys.h"

static long process; /* written when the process is set up, read-only afterwards */

_Thread_local enum las_table las_table_mine;

void las_table_init(void)
{
	process = las_sys.getpid();
	las_table_mine = LAS_TABLE_UNKNOWN;
}

long las_table_process(void)
{
	return process;
}

bool las_table_same_process(void)
{
	return las_sys.getpid() == process;
}

/*
 * Told by the main thread's table, if it has one: a main thread that has ended has given up its table and its memory
 * alike.  Where the kernel does not tell, other processes that share this memory count as strangers.
 */
static bool shares_table(bool same_process)
{
	int me = (int)las_sys.gettid();
	long order = las_sys.kcmp((int)process, me, KCMP_FILES);

	if (order <= 0)
		return order == 0 || same_process;
	return same_process && las_sys.kcmp((int)process, me, KCMP_VM) != 0;
}

/*
 * KERNEL: own-descriptor-table: a thread of ours sees the table of the
 * process, so what a thread with a table of its own (unshare, clone) submits
 * is never given to one (test: hostile.thread_with_its_own_table_writes_into_its_own_file).
 * A thread is asked once: it is not expected to unshare between its requests.
 */
bool las_table_shared(void)
{
	/* A clone(CLONE_VM) child may share its parent's thread-local memory: there the process id differs. */
	return las_table_same_process() ? !las_table_is_stranger() : shares_table(false);
}

void las_table_ask(void)
{
	las_table_mine = shares_table(true) ? LAS_TABLE_SHARED : LAS_TABLE_OWN;
}
