/* What many claims of one owner cost: the loop serves nobody else meanwhile. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fs/lock_table.h"
#include "tests/lib/tap.h"

enum { FILES = 200, MANY = 10000 };

static const struct lock_table_limits limits = {
    .locks = 4,
    .claims = FILES,
    .waiters = 4,
    .sessions = 4,
    .names_bytes = 10000,
    .contents_bytes = 10000,
};

static void ignore_effect(void *context, const struct effect *effect)
{
    (void)context;
    (void)effect;
}

static struct command_result apply(struct lock_table *table, struct command command)
{
    static uint64_t seq;
    command.node = 1;
    command.incarnation = 100;
    if (command.type == COMMAND_INCARNATION)
        seq = 0;
    else
        command.seq = ++seq;
    return lock_table_apply(table, &command, ignore_effect, NULL);
}

static int asked; /* how often the filter was */

static bool filter(const void *counts, const struct claim_view *claim)
{
    (void)claim;
    asked++;
    return *(const bool *)counts;
}

static bool fits(const struct lock_table *table, uint64_t lock, bool all_count)
{
    asked = 0;
    return lock_table_fits_beside(table, lock, (struct span){"0", 1}, 1, 9999, 9999,
                                  CLAIM_EXCLUSIVE, filter, &all_count);
}

/* A process locks many files of a semaphore by fcntl: all of them are one owner's. */
static void test_one_owner(void)
{
    void *memory = calloc(1, lock_table_size(&limits));
    struct lock_table *table = lock_table_init(memory, &limits);
    apply(table, (struct command){.type = COMMAND_INCARNATION});
    uint64_t lock =
        apply(table,
              (struct command){
                  .type = COMMAND_MKDIR, .lock = LOCK_TABLE_ROOT, .name = {"l", 1}, .limit = 1})
            .lock;
    apply(table,
          (struct command){
              .type = COMMAND_SET_LOCK, .lock = lock, .attributes = ATTRIBUTE_LIMIT, .limit = 1});
    int claims = 0;
    for (int i = 0; i < FILES; i++) {
        char name[3] = {(char)('0' + i % 10), (char)('0' + i / 10 % 10), (char)('0' + i / 100)};
        struct command command = {.type = COMMAND_ACQUIRE,
                                  .lock = lock,
                                  .name = {name, sizeof name},
                                  .handle = 1 + (uint64_t)i,
                                  .owner = 7,
                                  .kind = CLAIM_FCNTL,
                                  .claim_mode = CLAIM_EXCLUSIVE,
                                  .ttl_ms = 1000};
        claims += apply(table, command).token != 0;
    }
    tap_equal(claims, FILES, "one owner has many claims in one place");
    tap_ok(!fits(table, lock, true), "nobody fits in beside it");
    tap_ok(asked <= FILES, "each claim was looked at once: %d looks", asked);
    tap_ok(fits(table, lock, false), "where none of them counts, one does");
    tap_ok(asked <= FILES, "each was looked at once: %d looks", asked);
    free(memory);
}

/* CPU time for making and ending many fcntl claims on files of their own. */
static double time_of(bool one_owner)
{
    struct lock_table_limits large = limits;
    large.claims = MANY;
    large.names_bytes = 100000;
    void *memory = calloc(1, lock_table_size(&large));
    struct lock_table *table = lock_table_init(memory, &large);
    apply(table, (struct command){.type = COMMAND_INCARNATION});
    int errors = 0;
    clock_t start = clock();
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < MANY; i++) {
            char name[8];
            int len = snprintf(name, sizeof name, "%d", i);
            struct command command = {.type = pass ? COMMAND_RELEASE : COMMAND_ACQUIRE,
                                      .lock = LOCK_TABLE_ROOT,
                                      .name = {name, (size_t)len},
                                      .handle = 1 + (uint64_t)i,
                                      .owner = one_owner ? 7 : 7 + (uint64_t)i,
                                      .kind = CLAIM_FCNTL,
                                      .claim_mode = CLAIM_SHARED,
                                      .ttl_ms = 1000};
            errors += apply(table, command).error != 0;
        }
    }
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    struct lock_table_counts counts;
    lock_table_get_counts(table, &counts);
    tap_ok(!errors && !counts.claims && counts.token == MANY, "claims come and go");
    free(memory);
    return seconds;
}

static void test_many_files(void)
{
    double many = time_of(false);
    double one = time_of(true);
    tap_ok(one < 20 * many + 0.02, "one owner's take %.3f s, those of many %.3f s", one, many);
}

int main(void)
{
    test_one_owner();
    test_many_files();
    return tap_done();
}
