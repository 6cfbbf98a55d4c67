/* A log of entries, as disks and servers hold them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

void entries_reset(struct entries *entries, uint64_t base, uint64_t base_term)
{
    entries->base = base;
    entries->base_term = base_term;
    entries->last = base;
    entries->gone = 0;
}

struct entry *entries_at(const struct entries *entries, uint64_t index)
{
    if (index <= entries->base || index > entries->last)
        return NULL;
    return &entries->items[entries->gone + (index - entries->base - 1)];
}

uint64_t entries_term_at(const struct entries *entries, uint64_t index)
{
    const struct entry *entry = entries_at(entries, index);

    if (entry != NULL)
        return entry->raft.term;
    return index == entries->base ? entries->base_term : 0;
}

void entries_write(struct entries *entries, uint64_t first, const struct entry *list, size_t count)
{
    size_t kept;

    assert(first > entries->base && first <= entries->last + 1);
    kept = first - entries->base - 1;
    if (entries->gone > kept) { /* more is gone than kept: move it to the front */
        if (kept > 0)
            memmove(entries->items, entries->items + entries->gone, kept * sizeof(*list));
        entries->gone = 0;
    }
    entries->items = sim_grow(entries->items, &entries->capacity, entries->gone + kept + count,
                              sizeof(*entries->items));
    if (count > 0)
        memcpy(entries->items + entries->gone + kept, list, count * sizeof(*list));
    entries->last = first - 1 + count;
}

void entries_drop(struct entries *entries, uint64_t base)
{
    if (base > entries->last)
        base = entries->last;
    if (base <= entries->base)
        return;
    entries->base_term = entries_term_at(entries, base);
    entries->gone += base - entries->base;
    entries->base = base;
}

void entries_destroy(struct entries *entries)
{
    free(entries->items);
    memset(entries, 0, sizeof(*entries));
}
