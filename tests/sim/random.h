/* The simulator's random numbers: splitmix64. Equal seeds give equal numbers on every machine. */
#ifndef TESTS_SIM_RANDOM_H
#define TESTS_SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t rng_next(struct rng *rng)
{
    rng->state += 0x9e3779b97f4a7c15u;
    return rng_mix(rng->state);
}

/* 0 to count - 1; count is not 0. The bias is far below what a simulation could notice. */
static inline uint64_t rng_below(struct rng *rng, uint64_t count)
{
    return rng_next(rng) % count;
}

static inline uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high)
{
    return low + rng_below(rng, high - low + 1);
}

/* Often small, at times near `high`: what delays and sizes are like. */
static inline uint64_t rng_skewed(struct rng *rng, uint64_t low, uint64_t high)
{
    return rng_between(rng, low, rng_between(rng, low, rng_between(rng, low, high)));
}

static inline bool rng_chance(struct rng *rng, uint64_t of_a_million)
{
    return rng_below(rng, 1000000) < of_a_million;
}

#endif
