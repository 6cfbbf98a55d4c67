/* Makes commands for the lock table up, so that most of them make sense in the state that the naive
 * model is in. */
#ifndef TESTS_RANDOM_COMMANDS_H
#define TESTS_RANDOM_COMMANDS_H

#include "tests/lib/naive_model.h"

#define RANDOM_NAMES_MAX 64
#define COMMAND_TYPES    (COMMAND_END_DELAY + 1)

/* What kind of life the tables lead. Percentages unless the name says otherwise. */
struct profile {
    const char *name;
    struct lock_table_limits limits;
    uint32_t steps_share;
    uint32_t run_steps; /* after which the tables start anew */
    uint32_t check_steps;
    uint32_t nodes;
    uint32_t handles; /* of each node */
    uint32_t names;
    uint32_t name_bytes;
    uint32_t data_bytes;
    uint32_t at_root;
    uint32_t waits;
    uint32_t shared;
    uint32_t creates;
    uint32_t fcntls; /* of the claims that are not by creating */
    uint32_t owners; /* of these, of each node */
    uint32_t deep;   /* MKDIRs that go to the deepest lock */
    uint32_t limit;  /* the highest one that is set */
    uint32_t delays; /* of the settings of a delay, those that are not 0 */
    uint32_t wrong_permille;
    uint8_t weights[COMMAND_TYPES];
};

extern const struct profile random_profiles[];
extern const size_t random_profiles_count;

struct random_commands {
    const struct profile *profile;
    const struct naive_model *model;
    uint64_t random;
    uint64_t count;
    uint64_t incarnations;
    char names_bytes[RANDOM_NAMES_MAX][LIMIT_NAME_BYTES];
    struct span names[RANDOM_NAMES_MAX];
};

/* The model, which is the caller's to set and to replace, is looked at with each command. */
void random_commands_init(struct random_commands *commands, const struct profile *profile,
                          uint64_t seed);

/* What the command points to may be gone when the model has changed. */
void random_commands_next(struct random_commands *commands, struct command *ret_command);

#endif
