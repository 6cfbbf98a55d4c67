/*
 * A log on a powerless disk, together with a model of what was appended to it: a plain list of
 * records. After each opening the log must hold a beginning of that list, and at least all of it
 * that was reported durable.
 */
#ifndef TESTS_WAL_RIG_H
#define TESTS_WAL_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "fs/wal.h"
#include "fs/wal_internal.h"
#include "tests/lib/powerless_disk.h"

#define RIG_DIRECTORY "/data/log"

struct rig_record {
    uint64_t write;
    uint64_t index; /* of an entry */
    uint64_t term;
    uint64_t vote; /* of a state */
    size_t len;
    uint64_t content; /* seed of the data */
    uint32_t type;
    bool is_entry;
};

struct rig_entry {
    uint64_t index;
    uint64_t term;
};

struct rig {
    uv_loop_t loop;
    struct powerless_disk *disk;
    uint64_t segment_bytes;
    size_t fixed_len; /* of each random entry, 0: at random */
    struct wal *wal;  /* NULL: closed */
    uint64_t random;
    char message[512];

    /* The model. */
    struct rig_record *records;
    size_t records_count;
    size_t records_capacity;
    size_t durable_count;
    uint64_t write;
    uint64_t term;

    /* What wal_open() handed over. */
    size_t states_count;
    uint64_t state_term;
    uint64_t state_vote;
    struct rig_entry *entries;
    size_t entries_count;
    size_t entries_capacity;

    uint64_t durable_calls;
    uint64_t durable_write;
    unsigned failed_calls;
    int failed_error;
    char failed_file[256];
    bool close_when_failed;

    char error[512]; /* the first thing that is wrong, "" where all is right */
};

/* The seed of a test program, $SEED or the time. From then on the pool has one thread, so that
 * calls come in the same order each time. */
uint64_t rig_seed(void);

void rig_init(struct rig *rig, uint64_t seed, uint64_t segment_bytes);
/* Closes, and takes everything back. */
void rig_free(struct rig *rig);

uint64_t rig_random(struct rig *rig, uint64_t end);

/* As wal_open(). Where it works, what was recovered is compared with the model, and the model is
 * cut to it. */
int rig_open(struct rig *rig);
void rig_close(struct rig *rig);

/* Appends one record. `write` is that of the record before where `same_write`. */
void rig_state(struct rig *rig, bool same_write, uint64_t term, uint64_t vote);
void rig_entry(struct rig *rig, bool same_write, uint64_t index, size_t len);
/* The next entry, or whatever comes. */
void rig_next_entry(struct rig *rig, size_t len);
void rig_random_record(struct rig *rig);
/* As wal_flush(): what is appended next belongs to another write. */
void rig_flush(struct rig *rig);
uint64_t rig_last_index(const struct rig *rig);

/* One batch of entries, until it is durable. */
void rig_batch(struct rig *rig, size_t count, size_t len);
/* Closes, opens and compares, contents too. */
bool rig_reopen(struct rig *rig);

/* Runs the loop until nothing is in flight. */
void rig_run(struct rig *rig);

/* Reads all living entries back and compares them with the model. */
bool rig_check_contents(struct rig *rig);

/* Notes the first error. Returns `ok`. */
__attribute__((format(printf, 3, 4))) bool rig_check(struct rig *rig, bool ok, const char *format,
                                                     ...);

#endif
