/* rwf.h - the flags of preadv2 and pwritev2, also those that came later than some headers. */
#ifndef LAS_BASE_RWF_H
#define LAS_BASE_RWF_H

#include <linux/fs.h>

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x00000020 /* Linux 6.9 */
#endif
#ifndef RWF_ATOMIC
#define RWF_ATOMIC 0x00000040 /* Linux 6.11 */
#endif
#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x00000080 /* Linux 6.14 */
#endif

#endif
