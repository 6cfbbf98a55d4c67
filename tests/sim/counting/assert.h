/*
 * Stands before the system's <assert.h> where the core is built with mutants: a failed assertion is
 * counted and the program goes on, so that a mutant is found by what callers see and not by the
 * core's own vigilance.
 */
#ifndef TESTS_SIM_COUNTING_ASSERT_H
#define TESTS_SIM_COUNTING_ASSERT_H

void sim_count_failed_assertion(void);

#define assert(condition) ((condition) ? (void)0 : sim_count_failed_assertion())
#define static_assert _Static_assert

#endif
