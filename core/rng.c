/* rng: the host's door to the counters. Every function is a pure function of its arguments; the devices compute the same bits
 * from kernels/philox.h and kernels/xd.h. */
#include "core/rng.h"

#include <assert.h>

#include "kernels/xd.h"

static void block(const struct rng *r, uint32_t sample, uint32_t index, uint32_t w[4])
{
    w[0] = index;
    w[1] = sample;
    w[2] = r->step;
    w[3] = (uint32_t)r->purpose << 16 | r->layer;
    philox4x32(&w[0], &w[1], &w[2], &w[3], (uint32_t)r->seed, (uint32_t)(r->seed >> 32));
}

uint32_t rng_bits(const struct rng *r, uint32_t sample, uint32_t element)
{
    uint32_t w[4];
    block(r, sample, element / 4, w);
    return w[element % 4];
}

double rng_uniform(const struct rng *r, uint32_t sample, uint32_t element)
{
    return (rng_bits(r, sample, element) + 0.5) / 4294967296.0;
}

float rng_normal(const struct rng *r, uint32_t sample, uint32_t element)
{
    uint32_t w[4];
    float z[2];
    block(r, sample, element / 4, w);
    const uint32_t *pair = w + (element & 2);
    xd_normal2(pair[0], pair[1], &z[0], &z[1]);
    return z[element & 1];
}

uint64_t rng_replicate_seed(uint64_t sweep_seed, int replicate)
{
    struct rng r = {.seed = sweep_seed, .purpose = RNG_SWEEP};
    uint32_t w[4];
    block(&r, (uint32_t)replicate, 0, w);
    return (uint64_t)w[1] << 32 | w[0];
}

/* A balanced Feistel network of four rounds permutes 0..4^half-1, the smallest such range that holds n; indices that land at n or
 * above are sent through again (cycle walking), which ends because a permutation has cycles, and soon because n > range / 4. */
uint32_t rng_permute(uint64_t seed, uint32_t epoch, uint32_t n, uint32_t i)
{
    assert(i < n);
    int half = 1;
    while (half < 16 && ((uint64_t)1 << (2 * half)) < n) half++;
    uint32_t mask = ((uint32_t)1 << half) - 1;
    struct rng r = {.seed = seed, .step = epoch, .purpose = RNG_ORDER};
    do {
        uint32_t left = i >> half, right = i & mask;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t w[4];
            r.layer = (uint16_t)round;
            block(&r, 0, right, w);
            uint32_t next = left ^ (w[0] & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
