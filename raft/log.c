/*
 * The log as the core knows it: no bytes, only which index has which term. Terms never decrease
 * along a log (thesis 3.5), so it is a short list of runs. What a snapshot covers is cut off at its
 * front (thesis 5.1).
 */
#include <string.h>

#include "internal.h"

void raft__log_init(struct raft__log *log)
{
    raft__log_begin_behind(log, 0, 0);
}

void raft__log_begin_behind(struct raft__log *log, uint64_t index, uint64_t term)
{
    log->base = index;
    log->base_term = term;
    log->last = index;
    log->runs_count = 0;
}

/* Whether an entry of `term` would belong to the last run. */
static bool continues_run(const struct raft__log *log, uint64_t term)
{
    return log->runs_count > 0 && log->runs[log->runs_count - 1].term == term;
}

bool raft__log_has_room(const struct raft__log *log, uint64_t term)
{
    return log->runs_count < RAFT_TERM_RUNS_MAX || continues_run(log, term);
}

void raft__log_append(struct raft__log *log, uint64_t count, uint64_t term)
{
    assert(count >= 1 && count <= UINT64_MAX - log->last);
    assert(term >= 1 && term >= raft__log_last_term(log));
    assert(raft__log_has_room(log, term));

    if (!continues_run(log, term))
        log->runs[log->runs_count++] = (struct raft__run){.first = log->last + 1, .term = term};
    log->last += count;
}

uint64_t raft__log_last_term(const struct raft__log *log)
{
    return log->runs_count == 0 ? log->base_term : log->runs[log->runs_count - 1].term;
}

/* The run of an entry of the log: the last one that begins at or before `index`. */
static size_t find_run(const struct raft__log *log, uint64_t index)
{
    size_t low = 0;
    size_t high = log->runs_count;

    /* It is in [low, high). */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (log->runs[middle].first <= index)
            low = middle;
        else
            high = middle;
    }
    assert(high > low && log->runs[low].first <= index);
    return low;
}

uint64_t raft__log_term_at(const struct raft__log *log, uint64_t index)
{
    if (index < log->base || index > log->last)
        return 0;
    return index == log->base ? log->base_term : log->runs[find_run(log, index)].term;
}

void raft__log_compact(struct raft__log *log, uint64_t index)
{
    size_t gone;

    assert(index > log->base && index <= log->last);
    gone = find_run(log, index);
    log->base = index;
    log->base_term = log->runs[gone].term;
    /* The run of `index` itself goes with its last entry. */
    if (index == log->last ||
        (gone + 1 < log->runs_count && log->runs[gone + 1].first == index + 1))
        gone++;
    log->runs_count -= gone;
    memmove(log->runs, log->runs + gone, log->runs_count * sizeof(log->runs[0]));
    if (log->runs_count > 0 && log->runs[0].first <= index)
        log->runs[0].first = index + 1;
}

void raft__log_truncate(struct raft__log *log, uint64_t last)
{
    assert(last >= log->base && last <= log->last);
    while (log->runs_count > 0 && log->runs[log->runs_count - 1].first > last)
        log->runs_count--;
    log->last = last;
}

uint64_t raft__log_find(const struct raft__log *log, uint64_t index, uint64_t term)
{
    assert(index <= log->last);
    while (index > log->base && raft__log_term_at(log, index) > term) {
        const size_t run = find_run(log, index);
        index = log->runs[run].first - 1;
    }
    return index > log->base ? index : log->base;
}
