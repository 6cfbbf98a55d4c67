/*
 * What tests of a node under random requests share: dice that can be thrown again, failures that
 * say how to repeat them, and a disk and a clock that go on by chance.
 *
 * SEED repeats a run, STEPS says how many steps.
 */
#ifndef TESTS_RANDOM_NODE_H
#define TESTS_RANDOM_NODE_H

#include "fs/node.h"
#include "node_bench.h"

struct random_node {
    struct bench *bench;
    uint64_t seed;
    uint64_t steps_max;
    uint64_t step_number;
    const char *what; /* is being done, for a failure */
    uint64_t dice;
    /* Of the test: after each step of the node; and after one that may have brought answers. */
    void (*stepped)(void);
    void (*collect)(void);
};

/* From the environment, or by chance, and noted. `steps_max` is used unless STEPS is there. */
void random_node_begin(struct random_node *run, uint64_t steps_max);

uint64_t random_node_draw(struct random_node *run);
uint32_t random_node_below(struct random_node *run, uint32_t bound);
bool random_node_one_in(struct random_node *run, uint32_t n);

/* Ends the test. */
__attribute__((format(printf, 2, 3), noreturn)) void random_node_fail(const struct random_node *run,
                                                                      const char *format, ...);

void random_node_step(struct random_node *run, struct node_event event);
/* The next `count` writes become durable; there are as many. */
void random_node_persist(struct random_node *run, uint64_t count);
uint64_t random_node_unwritten(const struct random_node *run);
void random_node_let_time_pass(struct random_node *run, uint32_t ms);
/* Interrupts one of the slots 1 to BENCH_SLOTS - 1, if it can one that is in use. */
void random_node_interrupt(struct random_node *run, bool (*is_used)(uint32_t slot));
/* Everybody has let go: nothing but `inodes` inodes is counted or kept by the node any more. */
void random_node_check_quiet(const struct random_node *run, uint32_t inodes);

#endif
