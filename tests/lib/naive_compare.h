/* Compares all that can be seen of a lock table, through the looks of lock_table.h, with the naive
 * model. */
#ifndef TESTS_NAIVE_COMPARE_H
#define TESTS_NAIVE_COMPARE_H

#include "tests/lib/naive_model.h"

/* The first six are the caller's to set; the rest is 0 at first. */
struct naive_compare {
    const struct lock_table *table;
    const struct naive_model *model; /* whose marks are set */
    uint64_t random;                 /* decides what is looked at, where all would be too much */
    uint64_t nodes;                  /* whose numbers run from 1 */
    const struct span *names;        /* that may be in use */
    size_t names_count;

    uint64_t highest_file;
    uint64_t highest_position;
    uint64_t obstacles; /* requests that met one, so far */
    uint64_t free_ways; /* and that met none */
    const char *look;   /* what is being looked at */
    uint64_t look_lock;
    const char *look_name;
    char message[512];
};

/* Returns false and sets the message at the first difference. */
bool naive_compare(struct naive_compare *c);

#endif
