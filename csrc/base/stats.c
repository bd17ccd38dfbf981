/* stats.c - see stats.h. */
#include "base/stats.h"

struct las_stats las_stats;
