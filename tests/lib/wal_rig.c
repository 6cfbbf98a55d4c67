/* A log on a powerless disk, with a model beside it, see wal_rig.h. */
#include "wal_rig.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DATA_BYTES_MAX = LIMIT_COMMAND_BYTES };

static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint64_t rig_random(struct rig *rig, uint64_t end)
{
    return mix(&rig->random) % end;
}

bool rig_check(struct rig *rig, bool ok, const char *format, ...)
{
    va_list arguments;
    if (ok || rig->error[0])
        return ok;
    va_start(arguments, format);
    vsnprintf(rig->error, sizeof rig->error, format, arguments);
    va_end(arguments);
    return ok;
}

uint64_t rig_seed(void)
{
    const char *text = getenv("SEED");
    struct timespec now;

    setenv("UV_THREADPOOL_SIZE", "1", 1);
    clock_gettime(CLOCK_REALTIME, &now);
    return text ? strtoull(text, NULL, 0) : (uint64_t)now.tv_sec * 1000003 + now.tv_nsec;
}

void rig_init(struct rig *rig, uint64_t seed, uint64_t segment_bytes)
{
    *rig = (struct rig){.random = seed, .segment_bytes = segment_bytes, .term = 1};
    int error = uv_loop_init(&rig->loop);
    assert(!error);
    rig->disk = powerless_disk_new(mix(&rig->random));
}

void rig_free(struct rig *rig)
{
    rig_close(rig);
    powerless_disk_free(rig->disk);
    free(rig->records);
    free(rig->entries);
    int error = uv_loop_close(&rig->loop);
    assert(!error);
}

void rig_run(struct rig *rig)
{
    uv_run(&rig->loop, UV_RUN_DEFAULT);
}

/* What the log says */

static void on_state(void *context, uint64_t term, uint64_t vote)
{
    struct rig *rig = context;
    rig->states_count++;
    rig->state_term = term;
    rig->state_vote = vote;
}

static void on_entry(void *context, uint64_t index, uint64_t term, uint32_t type, const char *data,
                     size_t len)
{
    (void)type;
    (void)data;
    (void)len;
    struct rig *rig = context;
    if (rig->entries_count == rig->entries_capacity) {
        rig->entries_capacity = rig->entries_capacity ? rig->entries_capacity * 2 : 64;
        rig->entries = realloc(rig->entries, rig->entries_capacity * sizeof *rig->entries);
        assert(rig->entries);
    }
    rig->entries[rig->entries_count++] = (struct rig_entry){.index = index, .term = term};
}

static void on_durable(void *context, uint64_t write)
{
    struct rig *rig = context;
    rig_check(rig, rig->failed_calls == 0, "durable after failed");
    rig_check(rig, write >= rig->durable_write, "durable goes back");
    rig->durable_calls++;
    rig->durable_write = write;
    while (rig->durable_count < rig->records_count &&
           rig->records[rig->durable_count].write <= write)
        rig->durable_count++;
}

static void on_failed(void *context, int error, const char *file)
{
    struct rig *rig = context;
    rig->failed_calls++;
    rig->failed_error = error;
    snprintf(rig->failed_file, sizeof rig->failed_file, "%s", file);
    if (rig->close_when_failed) {
        wal_close(rig->wal);
        rig->wal = NULL;
    }
}

static const struct wal_handler handler = {
    .state = on_state,
    .entry = on_entry,
    .durable = on_durable,
    .failed = on_failed,
};

/* Opening and comparing */

/* The positions of the living entries, in order. The caller frees. */
static size_t *live_entries(const struct rig *rig, size_t count, size_t *ret_live_count)
{
    size_t *live = calloc(count + 1, sizeof *live);
    size_t live_count = 0;
    assert(live);
    for (size_t i = 0; i < count; i++) {
        const struct rig_record *record = &rig->records[i];
        if (!record->is_entry)
            continue;
        while (live_count && rig->records[live[live_count - 1]].index >= record->index)
            live_count--;
        live[live_count++] = i;
    }
    *ret_live_count = live_count;
    return live;
}

static void compare(struct rig *rig)
{
    size_t count = (size_t)(rig->wal->number - 1);
    size_t live_count;
    const struct rig_record *state = NULL;

    rig_check(rig, count >= rig->durable_count, "%zu records durable, %zu recovered",
              rig->durable_count, count);
    if (!rig_check(rig, count <= rig->records_count, "%zu records appended, %zu recovered",
                   rig->records_count, count))
        return;
    for (size_t i = 0; i < count; i++) {
        if (!rig->records[i].is_entry)
            state = &rig->records[i];
    }
    rig_check(rig, rig->states_count == (state ? 1 : 0), "%zu states handed over",
              rig->states_count);
    if (state)
        rig_check(rig, rig->state_term == state->term && rig->state_vote == state->vote,
                  "another state");
    size_t *live = live_entries(rig, count, &live_count);
    rig_check(rig, live_count == rig->entries_count, "%zu entries expected, %zu handed over",
              live_count, rig->entries_count);
    for (size_t i = 0; i < live_count && i < rig->entries_count; i++) {
        rig_check(rig,
                  rig->entries[i].index == rig->records[live[i]].index &&
                      rig->entries[i].term == rig->records[live[i]].term,
                  "entry %zu is another one", i);
    }
    free(live);
    rig->records_count = count;
    rig->durable_count = count;
}

int rig_open(struct rig *rig)
{
    assert(!rig->wal);
    rig->states_count = 0;
    rig->entries_count = 0;
    rig->failed_calls = 0;
    rig->durable_write = 0;
    rig->message[0] = '\0';
    struct wal_options options = {.segment_bytes = rig->segment_bytes};
    int error = wal_open(&rig->loop, powerless_disk_calls(rig->disk), RIG_DIRECTORY, &options,
                         &handler, rig, rig->message, sizeof rig->message, &rig->wal);
    if (!error)
        compare(rig);
    return error;
}

void rig_close(struct rig *rig)
{
    wal_close(rig->wal);
    rig->wal = NULL;
    rig_run(rig);
}

/* Appending */

static void fill(uint64_t content, char *data, size_t len)
{
    for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
        uint64_t value = mix(&content);
        memcpy(data + i, &value, len - i < sizeof value ? len - i : sizeof value);
    }
}

static struct rig_record *new_record(struct rig *rig, bool same_write)
{
    if (rig->records_count == rig->records_capacity) {
        rig->records_capacity = rig->records_capacity ? rig->records_capacity * 2 : 64;
        rig->records = realloc(rig->records, rig->records_capacity * sizeof *rig->records);
        assert(rig->records);
    }
    if (!same_write || !rig->write)
        rig->write++;
    struct rig_record *record = &rig->records[rig->records_count++];
    *record = (struct rig_record){.write = rig->write};
    return record;
}

void rig_state(struct rig *rig, bool same_write, uint64_t term, uint64_t vote)
{
    struct rig_record *record = new_record(rig, same_write);
    record->term = term;
    record->vote = vote;
    wal_append_state(rig->wal, record->write, term, vote);
}

void rig_entry(struct rig *rig, bool same_write, uint64_t index, size_t len)
{
    char data[DATA_BYTES_MAX];
    struct rig_record *record = new_record(rig, same_write);

    record->is_entry = true;
    record->index = index;
    record->term = rig->term;
    record->type = (uint32_t)(1 + index % 2);
    record->len = len;
    record->content = mix(&rig->random);
    fill(record->content, data, len);
    wal_append_entry(rig->wal, record->write, index, record->term, record->type, data, len);
}

uint64_t rig_last_index(const struct rig *rig)
{
    for (size_t i = rig->records_count; i > 0; i--) {
        if (rig->records[i - 1].is_entry)
            return rig->records[i - 1].index;
    }
    return 0;
}

void rig_next_entry(struct rig *rig, size_t len)
{
    rig_entry(rig, false, rig_last_index(rig) + 1, len);
}

void rig_random_record(struct rig *rig)
{
    bool same_write = rig_random(rig, 3) == 0;
    uint64_t last = rig_last_index(rig);
    size_t len = (size_t)rig_random(rig, rig_random(rig, 8) == 0 ? DATA_BYTES_MAX + 1 : 400);

    if (rig->fixed_len)
        len = rig->fixed_len;
    switch (rig_random(rig, 16)) {
    case 0:
        rig_state(rig, same_write, ++rig->term, rig_random(rig, 4));
        break;
    case 1:
        rig_entry(rig, same_write, last ? 1 + rig_random(rig, last) : 1, len);
        break;
    default:
        rig_entry(rig, same_write, last + 1, len);
        break;
    }
}

void rig_flush(struct rig *rig)
{
    wal_flush(rig->wal);
    rig->write++;
}

void rig_batch(struct rig *rig, size_t count, size_t len)
{
    for (size_t i = 0; i < count; i++)
        rig_next_entry(rig, len);
    rig_flush(rig);
    rig_run(rig);
}

/* Reading back */

struct reading {
    struct rig *rig;
    const size_t *live;
    size_t count;
    size_t at;
    bool same;
};

static bool on_read(void *context, uint64_t index, uint64_t term, uint32_t type, const char *data,
                    size_t len)
{
    struct reading *reading = context;
    char expected[DATA_BYTES_MAX];

    if (reading->at == reading->count) {
        reading->same = false;
        return false;
    }
    const struct rig_record *record = &reading->rig->records[reading->live[reading->at++]];
    fill(record->content, expected, record->len);
    if (index != record->index || term != record->term || type != record->type ||
        len != record->len || memcmp(data, expected, len) != 0)
        reading->same = false;
    return reading->same;
}

bool rig_check_contents(struct rig *rig)
{
    struct reading reading = {.rig = rig, .same = true};
    int error = 0;

    assert(rig->durable_count == rig->records_count);
    size_t *live = live_entries(rig, rig->records_count, &reading.count);
    reading.live = live;
    if (reading.count)
        error = wal_read(rig->wal, rig->records[live[0]].index,
                         rig->records[live[reading.count - 1]].index, on_read, &reading,
                         rig->message, sizeof rig->message);
    rig_check(rig, !error, "wal_read: %s", rig->message);
    rig_check(rig, reading.same, "wal_read: entry %zu differs", reading.at);
    bool good = rig_check(rig, reading.at == reading.count, "wal_read: %zu of %zu entries",
                          reading.at, reading.count);
    free(live);
    return good && !error && reading.same;
}

bool rig_reopen(struct rig *rig)
{
    rig_close(rig);
    return rig_check(rig, rig_open(rig) == 0, "reopen: %s", rig->message) &&
           rig_check_contents(rig);
}
