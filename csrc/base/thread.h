/* thread.h - how a thread of ours begins. */
#ifndef LAS_BASE_THREAD_H
#define LAS_BASE_THREAD_H

/*
 * What las_sys.thread_start is unless a test replaces it: starts a detached thread, every signal blocked, with a stack of
 * 128 KiB, or libc's usual one where thread-local storage fills that.  0 or -errno: EAGAIN where a sandbox would have libc
 * end the process.  errno is untouched.
 */
long las_thread_start(void *(*entry)(void *), void *arg);

#endif
