/* Reading entries back from the log on disk. */
#include "wal_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* The first cut after the record goes deepest of those after it. */
bool wal__is_live(const struct wal *wal, uint64_t number, uint64_t index)
{
    size_t low = 0;
    size_t high = wal->cuts_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (wal->cuts[middle].number > number)
            high = middle;
        else
            low = middle + 1;
    }
    return low == wal->cuts_count || index < wal->cuts[low].index;
}

/* The last segment that begins with an entry not above `index`: that entry has made void what came
 * before it from there on, so the living one is not further ahead. */
size_t wal__find_segment(const struct wal *wal, uint64_t index)
{
    for (size_t i = wal->segments_count; i > 0; i--) {
        uint64_t first = wal->segments[i - 1].first_index;
        if (first && first <= index)
            return i - 1;
    }
    return 0;
}

struct walk {
    struct wal *wal;
    uint64_t next;
    uint64_t last;
    wal_visitor *visitor;
    void *context;
    bool stopped;
};

/* 0, a negative errno, or 1: a record does not check, at `ret_offset`. */
static int walk_segment(struct walk *walk, const struct wal__segment *segment, uint64_t *ret_offset)
{
    const struct wal *wal = walk->wal;
    struct wal__window window;
    struct wal__record record;
    uint64_t end = segment->end; /* the visitor may append */

    int error = wal__window_open(&window, wal->disk, wal->directory, segment);
    if (error)
        return error;
    for (uint64_t at = WAL__SEGMENT_HEADER_BYTES; at < end; at += record.bytes) {
        int found = wal__record_at(&window, at, &record);
        if (found <= 0) {
            *ret_offset = at;
            error = found < 0 ? found : 1;
            break;
        }
        if (record.kind != WAL__ENTRY || record.index != walk->next ||
            !wal__is_live(wal, record.number, record.index))
            continue;
        walk->stopped = !walk->visitor(walk->context, record.index, record.term, record.entry_type,
                                       record.data, record.len) ||
                        walk->next == walk->last;
        walk->next++;
        if (walk->stopped)
            break;
    }
    wal__window_close(&window);
    return error;
}

int wal_read(struct wal *wal, uint64_t first, uint64_t last, wal_visitor *visitor, void *context,
             char *message, size_t message_size)
{
    struct walk walk = {
        .wal = wal,
        .next = first,
        .last = last,
        .visitor = visitor,
        .context = context,
        .stopped = first > last,
    };

    for (size_t i = wal__find_segment(wal, first); i < wal->segments_count && !walk.stopped; i++) {
        struct wal__path path = wal__path(wal->directory, wal->segments[i].number, "");
        uint64_t offset = 0;
        if (wal->segments[i].end == WAL__SEGMENT_HEADER_BYTES)
            break;
        int error = walk_segment(&walk, &wal->segments[i], &offset);
        if (error > 0) {
            wal__say(message, message_size, "%s, byte %" PRIu64 ": a record is damaged", path.text,
                     offset);
            return -EBADMSG;
        }
        if (error) {
            wal__say(message, message_size, "%s: cannot read this file of the log: %s", path.text,
                     strerror(-error));
            return error;
        }
    }
    if (!walk.stopped) {
        wal__say(message, message_size, "%s: entry %" PRIu64 " is not in the log", wal->directory,
                 walk.next);
        return -ENODATA;
    }
    return 0;
}
