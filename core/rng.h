/* rng: all randomness is a pure function of counters, so it does not depend on micro-batch, rank or thread, and a run that
 * is resumed draws what it would have drawn.
 *
 * Philox4x32-10 (Salmon et al. 2011), key = seed; counter word 0: element / 4 within the sample, 1: sample index in the
 * global batch, 2: step, 3: purpose << 16 | layer. Element e of a sample is word e % 4 of block e / 4. The arithmetic is
 * kernels/philox.h, shared with the devices.
 */
#ifndef CORE_RNG_H
#define CORE_RNG_H

#include "core/base.h"

enum rng_purpose {
    RNG_ORDER = 1, /* permutation of the data set; step = epoch, sample = 0               */
    RNG_TIME,      /* u of the training noise level; sample = index in the global batch    */
    RNG_NOISE,     /* training noise eps                                                   */
    RNG_NOISE_R,   /* separate noise of the r point where loss.share_noise is off          */
    RNG_DROPOUT,   /* masks; layer = index of the dropout op in the graph                   */
    RNG_DROPOUT_R, /* masks of the r pass where loss.share_dropout is off                   */
    RNG_INIT,      /* initial weights; layer = 0, sample = parameter index                  */
    RNG_LATENT,    /* sampling: initial noise; step = 0, sample = sample seed                */
    RNG_RENOISE,   /* sampling: noise added between steps; step = step index                */
    RNG_LABEL,     /* sampling: class label drawn from the data set                          */
    RNG_FLIP,
    RNG_AUGMENT,
    RNG_SWEEP,
    RNG_BOOTSTRAP,
    RNG_EXTRACTOR,
    RNG_TEST,
    RNG_POINTS /* data sets drawn from a formula; sample = point */
};

struct rng { /* a stream: everything but the sample and element */
    uint64_t seed;
    uint32_t step;
    uint16_t purpose, layer;
};

uint32_t rng_bits(const struct rng *r, uint32_t sample, uint32_t element);
double rng_uniform(const struct rng *r, uint32_t sample, uint32_t element); /* (0,1): (bits + 0.5) / 2^32 */
float rng_normal(const struct rng *r, uint32_t sample, uint32_t element);   /* N(0,1); same bits on every device */
/* Seed of replicate k of a sweep: depends on nothing else, so equal replicates of all cells are paired. */
uint64_t rng_replicate_seed(uint64_t sweep_seed, int replicate);
/* i-th element of the epoch's permutation of 0..n-1 (Feistel network over the counter; no table). */
uint32_t rng_permute(uint64_t seed, uint32_t epoch, uint32_t n, uint32_t i);

#endif
