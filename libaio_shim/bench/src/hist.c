/* hist.c - histograms of times.  Each belongs to one thread until it is merged. */
#include "aioload.h"

#include <string.h>

/* Values below HIST_SUB have a bucket each; above, the five bits after the leading one choose it. */
static unsigned bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns < HIST_SUB)
		return (unsigned)ns;
	shift = 63 - (unsigned)__builtin_clzll(ns) - 5;
	return (shift + 1) * HIST_SUB + (unsigned)((ns >> shift) & (HIST_SUB - 1));
}

static uint64_t upper_end(unsigned bucket)
{
	unsigned shift;

	if (bucket < HIST_SUB)
		return bucket;
	shift = bucket / HIST_SUB - 1;
	return ((uint64_t)(HIST_SUB + bucket % HIST_SUB + 1) << shift) - 1;
}

void hist_add(struct hist *h, uint64_t ns)
{
	h->count++;
	h->sum += ns;
	if (ns > h->max)
		h->max = ns;
	h->bucket[bucket_of(ns)]++;
}

void hist_merge(struct hist *into, const struct hist *from)
{
	into->count += from->count;
	into->sum += from->sum;
	if (from->max > into->max)
		into->max = from->max;
	for (size_t i = 0; i < sizeof(into->bucket) / sizeof(into->bucket[0]); i++)
		into->bucket[i] += from->bucket[i];
}

void hist_clear(struct hist *h)
{
	memset(h, 0, sizeof(*h));
}

static double percentile_us(const struct hist *h, double fraction)
{
	uint64_t wanted = (uint64_t)(fraction * (double)h->count), seen = 0;

	for (unsigned i = 0; i < sizeof(h->bucket) / sizeof(h->bucket[0]); i++) {
		seen += h->bucket[i];
		if (seen > wanted)
			return (double)(upper_end(i) < h->max ? upper_end(i) : h->max) / 1e3;
	}
	return (double)h->max / 1e3;
}

void hist_print(FILE *out, const struct hist *h)
{
	fprintf(out, "{\"p50\": %.3f, \"p99\": %.3f, \"p99.9\": %.3f, \"max\": %.3f, \"mean\": %.3f}",
	        percentile_us(h, 0.5), percentile_us(h, 0.99), percentile_us(h, 0.999), (double)h->max / 1e3,
	        h->count ? (double)h->sum / (double)h->count / 1e3 : 0);
}
