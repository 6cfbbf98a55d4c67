/*
 * The log as the core knows it: no bytes, only which index has which term. Terms never decrease
 * along a log (thesis 3.5), so it is a short list of runs.
 */
#include "internal.h"

void raft__log_init(struct raft__log *log)
{
    log->last = 0;
    log->runs_count = 0;
}

bool raft__log_has_room(const struct raft__log *log, uint64_t term)
{
    return log->runs_count < RAFT_TERM_RUNS_MAX || raft__log_last_term(log) == term;
}

void raft__log_append(struct raft__log *log, uint64_t count, uint64_t term)
{
    assert(count >= 1 && count <= UINT64_MAX - log->last);
    assert(term >= 1 && term >= raft__log_last_term(log));
    assert(raft__log_has_room(log, term));

    if (raft__log_last_term(log) != term)
        log->runs[log->runs_count++] = (struct raft__run){.first = log->last + 1, .term = term};
    log->last += count;
}

uint64_t raft__log_last_term(const struct raft__log *log)
{
    return log->runs_count == 0 ? 0 : log->runs[log->runs_count - 1].term;
}

uint64_t raft__log_term_at(const struct raft__log *log, uint64_t index)
{
    size_t low = 0;
    size_t high = log->runs_count;

    if (index == 0 || index > log->last)
        return 0;

    /* The run looked for is in [low, high): the last one that begins at or before `index`. */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (log->runs[middle].first <= index)
            low = middle;
        else
            high = middle;
    }
    assert(log->runs[low].first <= index);
    return log->runs[low].term;
}
