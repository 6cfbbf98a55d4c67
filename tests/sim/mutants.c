/*
 * Which deliberate bug the core has. Compiled twice: for the program that runs the shipping core,
 * where there is none, and with RAFT_MUTANTS for the one that runs the core with mutants.
 */
#include <string.h>

#include "raft/mutants.h"
#include "sim.h"

#ifdef RAFT_MUTANTS
#define MUTANTS RAFT_MUTANT_LIST(X)
enum raft_mutant raft__mutant;
#else
#define MUTANTS
#endif

/* In the order of the enum, where 0 is none. */
static const struct {
    const char *name;
    const char *text;
} mutants[] = {{"", ""},
#define X(name, text) {#name, text},
               MUTANTS
#undef X
};

static uint64_t *failed_assertions;

/* Called by counting/assert.h, which only the core with mutants is built with. */
void sim_count_failed_assertion(void);

void sim_count_failed_assertion(void)
{
    if (failed_assertions != NULL)
        ++*failed_assertions;
}

const char *mutants_name(unsigned at)
{
    return at + 1 < sizeof(mutants) / sizeof(mutants[0]) ? mutants[at + 1].name : NULL;
}

const char *mutants_text(unsigned at)
{
    return mutants[at + 1].text;
}

void mutants_choose(const char *name, uint64_t *failed)
{
    unsigned chosen = 0;

    for (unsigned at = 0; name != NULL && mutants_name(at) != NULL; at++)
        if (strcmp(mutants_name(at), name) == 0)
            chosen = at + 1;
    failed_assertions = failed;
#ifdef RAFT_MUTANTS
    raft__mutant = (enum raft_mutant)chosen;
#else
    (void)chosen;
#endif
}
