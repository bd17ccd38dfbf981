/* report.h - version and statistics, and what is done when the process ends. */
#ifndef LAS_AIO_REPORT_H
#define LAS_AIO_REPORT_H

#include "base/stats.h"

/* The process-wide counts with the contexts' added. */
void las_report_collect(struct las_stats *stats);

#endif
