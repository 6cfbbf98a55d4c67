/*
 * Recovery of the log: which records count, what was torn and is cut off, and when the log must be
 * refused because the disk has lost what had been durable.
 */
#include "wal_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct recovery {
    struct wal *wal;
    char *message;
    size_t message_size;

    /* What the directory has. */
    uint64_t *numbers;
    size_t numbers_count;
    size_t numbers_capacity;
    uint64_t *leftovers; /* numbers of segments that were never finished */
    size_t leftovers_count;
    size_t leftovers_capacity;
    int list_error;

    struct wal__window window;
    /* The last batch, 0: none. */
    uint64_t batch_number;
    size_t batch_segment;
    uint64_t batch_offset;
};

static int list_segments(struct recovery *recovery);
static int remove_leftovers(struct recovery *recovery);
static int open_segments(struct recovery *recovery);
static int scan(struct recovery *recovery);
static int check_snapshot(struct recovery *recovery);
static int repair(struct recovery *recovery);
static int hand_over(struct recovery *recovery);

int wal__recover(struct wal *wal, char *message, size_t message_size)
{
    struct recovery recovery = {
        .wal = wal,
        .message = message,
        .message_size = message_size,
        .window = {.file = -1},
    };
    int error = list_segments(&recovery);
    if (!error)
        error = remove_leftovers(&recovery);
    if (!error)
        error = open_segments(&recovery);
    if (!error && wal->segments_count)
        error = scan(&recovery);
    if (!error && wal->snapshot_index)
        error = check_snapshot(&recovery);
    if (!error && wal->segments_count)
        error = repair(&recovery);
    if (!error)
        error = hand_over(&recovery);
    wal__window_close(&recovery.window);
    free(recovery.numbers);
    free(recovery.leftovers);
    return error;
}

/* A call failed. Returns `error`. */
static int refuse_call(struct recovery *recovery, const char *what, const char *path, int error)
{
    wal__say(recovery->message, recovery->message_size, "%s: cannot %s: %s", path, what,
             strerror(-error));
    return error;
}

/* The log is not whole. */
static int refuse_damage(struct recovery *recovery, size_t segment, uint64_t offset,
                         const char *what)
{
    const struct wal *wal = recovery->wal;
    wal__say(recovery->message, recovery->message_size, "%s, byte %" PRIu64 ": %s",
             wal__path(wal->directory, wal->segments[segment].number, "").text, offset, what);
    return -EBADMSG;
}

/* Which files there are */

static bool note_number(uint64_t **numbers, size_t *count, size_t *capacity, uint64_t number)
{
    if (*count == *capacity) {
        size_t larger = *capacity ? *capacity * 2 : 64;
        uint64_t *moved = realloc(*numbers, larger * sizeof *moved);
        if (!moved)
            return false;
        *numbers = moved;
        *capacity = larger;
    }
    (*numbers)[(*count)++] = number;
    return true;
}

/* Files with other names are none of ours. */
static void note_name(void *context, const char *name)
{
    struct recovery *recovery = context;
    const char *digits = "0123456789";
    bool noted = true;

    if (strncmp(name, "log-", 4) != 0 || strspn(name + 4, digits) != 16)
        return;
    uint64_t number = strtoull(name + 4, NULL, 10);
    if (name[20] == '\0')
        noted = note_number(&recovery->numbers, &recovery->numbers_count,
                            &recovery->numbers_capacity, number);
    else if (strcmp(name + 20, ".new") == 0)
        noted = note_number(&recovery->leftovers, &recovery->leftovers_count,
                            &recovery->leftovers_capacity, number);
    if (!noted)
        recovery->list_error = -ENOMEM;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static int list_segments(struct recovery *recovery)
{
    const struct wal *wal = recovery->wal;
    int error = wal->disk->list(wal->disk->context, wal->directory, note_name, recovery);
    if (!error)
        error = recovery->list_error;
    if (error)
        return refuse_call(recovery, "list this directory", wal->directory, error);
    if (recovery->numbers_count)
        qsort(recovery->numbers, recovery->numbers_count, sizeof *recovery->numbers,
              compare_numbers);
    /* What a snapshot covers may be gone from the front. */
    uint64_t first = wal->snapshot_index && recovery->numbers_count ? recovery->numbers[0] : 1;
    for (size_t i = 0; i < recovery->numbers_count; i++) {
        if (recovery->numbers[i] == first + i)
            continue;
        wal__say(recovery->message, recovery->message_size,
                 "%s: this file of the log is missing, while later ones are there",
                 wal__path(wal->directory, first + i, "").text);
        return -EBADMSG;
    }
    return 0;
}

static int remove_leftovers(struct recovery *recovery)
{
    const struct wal *wal = recovery->wal;
    for (size_t i = 0; i < recovery->leftovers_count; i++) {
        struct wal__path path = wal__path(wal->directory, recovery->leftovers[i], ".new");
        int error = wal->disk->unlink(wal->disk->context, path.text);
        if (error && error != -ENOENT)
            return refuse_call(recovery, "remove this unfinished file", path.text, error);
    }
    /* A name that is there after a kill may be on no disk yet. */
    int error = wal->disk->sync_directory(wal->disk->context, wal->directory);
    return error ? refuse_call(recovery, "sync this directory", wal->directory, error) : 0;
}

/* Headers */

static int open_segment(struct recovery *recovery, uint64_t number);

static int open_segments(struct recovery *recovery)
{
    for (size_t i = 0; i < recovery->numbers_count; i++) {
        int error = open_segment(recovery, recovery->numbers[i]);
        if (error)
            return error;
    }
    return 0;
}

/* Points the window at a segment. */
static int look_at(struct recovery *recovery, size_t segment)
{
    const struct wal *wal = recovery->wal;
    wal__window_close(&recovery->window);
    int error =
        wal__window_open(&recovery->window, wal->disk, wal->directory, &wal->segments[segment]);
    if (error)
        refuse_call(recovery, "open this file of the log",
                    wal__path(wal->directory, wal->segments[segment].number, "").text, error);
    return error;
}

static int refuse_read(struct recovery *recovery, size_t segment, int error)
{
    const struct wal *wal = recovery->wal;
    return refuse_call(recovery, "read this file of the log",
                       wal__path(wal->directory, wal->segments[segment].number, "").text, error);
}

/* Files stay open for recovery only, those apart that can still be written to: there may be more of
 * them than descriptors. */
static int open_segment(struct recovery *recovery, uint64_t number)
{
    struct wal *wal = recovery->wal;
    size_t at = wal->segments_count;
    char *bytes;
    uint32_t version;

    if (!wal__reserve_segment(wal))
        return -ENOMEM;
    struct wal__segment *segment = &wal->segments[at];
    *segment = (struct wal__segment){
        .number = number,
        .end = WAL__SEGMENT_HEADER_BYTES,
        .file = -1,
    };
    int error = look_at(recovery, at);
    if (error)
        return error;
    error = wal->disk->size(wal->disk->context, recovery->window.file, &segment->size);
    if (error)
        return refuse_read(recovery, at, error);
    wal->segments_count++;
    recovery->window.size = segment->size;
    if (segment->size < WAL__SEGMENT_HEADER_BYTES)
        return refuse_damage(recovery, at, segment->size, "the file ends here, which is too early");
    error = wal__window_at(&recovery->window, 0, WAL__SEGMENT_HEADER_BYTES, &bytes);
    if (error)
        return refuse_read(recovery, at, error);

    struct wal__segment header;
    switch (wal__decode_header(bytes, &header, &version)) {
    case WAL__HEADER_GOOD:
        break;
    case WAL__HEADER_ZERO:
        return 0; /* never used, or search_later() finds out */
    case WAL__HEADER_OTHER_VERSION:
        wal__say(recovery->message, recovery->message_size,
                 "%s: format version %" PRIu32 ", but this lockfsd knows version %d only",
                 wal__path(wal->directory, number, "").text, version, WAL__VERSION);
        return -EPROTO;
    default:
        return refuse_damage(recovery, at, 0, "the header is damaged");
    }
    if (header.number != number)
        return refuse_damage(recovery, at, 0, "the header is that of another file");
    if (header.size != segment->size)
        return refuse_damage(recovery, at, segment->size,
                             "the file ends here, and its header says otherwise");
    segment->mark = header.mark;
    return 0;
}

/* Reading record after record */

static int find_next(struct recovery *recovery, struct wal__record *ret_record);
static int take(struct recovery *recovery, const struct wal__record *record);
static int check_tail(struct recovery *recovery);

/* Leaves the place of the next record in `wal`. */
static int scan(struct recovery *recovery)
{
    struct wal *wal = recovery->wal;
    struct wal__record record;
    int found;

    int error = look_at(recovery, 0);
    if (error)
        return error;
    if (wal->segments[0].number > 1) {
        found = wal__record_at(&recovery->window, WAL__SEGMENT_HEADER_BYTES, &record);
        if (found > 0)
            wal->number = record.number;
    }
    while ((found = find_next(recovery, &record)) > 0) {
        error = take(recovery, &record);
        if (error)
            return error;
    }
    if (found < 0)
        return refuse_read(recovery, wal->segment, found);
    return check_tail(recovery);
}

/* Whether a record that checks is the next one of the log. */
static bool continues(const struct recovery *recovery, const struct wal__record *record)
{
    const struct wal *wal = recovery->wal;
    if (record->number != wal->number)
        return false;
    if (record->batch == record->number)
        return true;
    return record->batch == recovery->batch_number && recovery->batch_segment == wal->segment;
}

/* 1: no record, and none torn either, but the zeros behind the last one of a segment. */
static int ends_segment(struct recovery *recovery)
{
    char *bytes;
    const struct wal *wal = recovery->wal;
    if (wal->offset + WAL__RECORD_HEADER_BYTES > recovery->window.size)
        return 1;
    int error = wal__window_at(&recovery->window, wal->offset, WAL__RECORD_HEADER_BYTES, &bytes);
    return error ? error : wal__is_zero(bytes, WAL__RECORD_HEADER_BYTES);
}

/* As wal__record_at(), for the record that continues the log. It may be in the next segment. */
static int find_next(struct recovery *recovery, struct wal__record *ret_record)
{
    struct wal *wal = recovery->wal;

    int found = wal__record_at(&recovery->window, wal->offset, ret_record);
    if (found < 0 || (found && continues(recovery, ret_record)))
        return found;
    int ends = ends_segment(recovery);
    if (ends <= 0 || wal->segment + 1 == wal->segments_count)
        return ends < 0 ? ends : 0;
    int error = look_at(recovery, wal->segment + 1);
    if (error)
        return error;
    found = wal__record_at(&recovery->window, WAL__SEGMENT_HEADER_BYTES, ret_record);
    if (found <= 0 || ret_record->number != wal->number || ret_record->batch != wal->number)
        return found < 0 ? found : 0;
    wal->segment++;
    wal->offset = WAL__SEGMENT_HEADER_BYTES;
    return 1;
}

static int take(struct recovery *recovery, const struct wal__record *record)
{
    struct wal *wal = recovery->wal;

    if (record->batch == record->number) {
        recovery->batch_number = record->number;
        recovery->batch_segment = wal->segment;
        recovery->batch_offset = wal->offset;
    }
    if (record->kind == WAL__STATE) {
        wal->segments[wal->segment].has_state = true;
        wal->has_state = true;
        wal->term = record->term;
        wal->vote = record->vote;
    } else {
        if (record->index == 0 || (wal->last_index && record->index > wal->last_index + 1))
            return refuse_damage(recovery, wal->segment, wal->offset,
                                 "an entry does not follow the one before it");
        if (!wal__note_entry(wal, wal->segment, record->number, record->index))
            return -ENOMEM;
    }
    wal->number++;
    wal->written_bytes += record->bytes;
    wal->offset += record->bytes;
    wal->segments[wal->segment].end = wal->offset;
    return 0;
}

/* The end: what if it is none? */

static int search_later(struct recovery *recovery, size_t segment, uint64_t offset);
static int refuse_lost(struct recovery *recovery);

static int check_tail(struct recovery *recovery)
{
    const struct wal *wal = recovery->wal;
    for (size_t i = wal->segment; i < wal->segments_count; i++) {
        int found = look_at(recovery, i);
        if (found)
            return found;
        found = search_later(recovery, i,
                             i == wal->segment ? wal->offset : (uint64_t)WAL__SEGMENT_HEADER_BYTES);
        if (found < 0)
            return refuse_read(recovery, i, found);
        if (found)
            return refuse_lost(recovery);
    }
    return 0;
}

/* 1: there is something that was written after the batch of the next record was durable. Without a
 * mark records cannot be told, so whatever is there counts. */
static int search_later(struct recovery *recovery, size_t segment, uint64_t offset)
{
    const struct wal *wal = recovery->wal;
    struct wal__window *window = &recovery->window;
    struct wal__record record;
    char *bytes;

    while (offset < window->size) {
        uint64_t rest = WAL__SEGMENT_HEADER_BYTES - offset % WAL__SEGMENT_HEADER_BYTES;
        size_t len = (size_t)(rest < window->size - offset ? rest : window->size - offset);
        int error = wal__window_at(window, offset, len, &bytes);
        if (error)
            return error;
        if (wal__is_zero(bytes, len)) {
            offset += len;
            continue;
        }
        if (!wal->segments[segment].mark)
            return 1;
        for (uint64_t end = offset + len; offset < end; offset += WAL__ALIGNMENT) {
            int found = wal__record_at(window, offset, &record);
            if (found < 0)
                return found;
            if (found && record.batch > wal->number)
                return 1;
        }
    }
    return 0;
}

/* Where the log continues in the next segment, it is that one's first record that is damaged. */
static int refuse_lost(struct recovery *recovery)
{
    const struct wal *wal = recovery->wal;
    const char *what = "a record is lost or damaged, and later ones are there";
    struct wal__record record;
    char *bytes;

    int ends = look_at(recovery, wal->segment);
    if (!ends)
        ends = ends_segment(recovery);
    if (ends > 0 && wal->segment + 1 < wal->segments_count &&
        !look_at(recovery, wal->segment + 1)) {
        struct wal__window *window = &recovery->window;
        int found = wal__record_at(window, WAL__SEGMENT_HEADER_BYTES, &record);
        int error =
            wal__window_at(window, WAL__SEGMENT_HEADER_BYTES, WAL__RECORD_HEADER_BYTES, &bytes);
        if (!found && !error && !wal__is_zero(bytes, WAL__RECORD_HEADER_BYTES))
            return refuse_damage(recovery, wal->segment + 1, WAL__SEGMENT_HEADER_BYTES, what);
    }
    return refuse_damage(recovery, wal->segment, wal->offset, what);
}

/* The snapshot was made of entries that were durable here, and the last of them is never dropped.
 */
static int check_snapshot(struct recovery *recovery)
{
    const struct wal *wal = recovery->wal;
    uint64_t first = 0;

    for (size_t i = 0; i < wal->segments_count && !first; i++)
        first = wal->segments[i].first_index;
    if (first && first <= wal->snapshot_index && wal->last_index >= wal->snapshot_index)
        return 0;
    wal__say(recovery->message, recovery->message_size,
             "%s: the log has entries %" PRIu64 " to %" PRIu64
             ", and the snapshot ends with entry %" PRIu64 ", which should be one of them",
             wal->directory, first, wal->last_index, wal->snapshot_index);
    return -EBADMSG;
}

/* Making sure of what counts, and that nothing else ever will */

static int repair_segment(struct recovery *recovery, size_t at);

static int repair(struct recovery *recovery)
{
    struct wal *wal = recovery->wal;
    size_t first = recovery->batch_number ? recovery->batch_segment : wal->segment;

    for (size_t i = first; i < wal->segments_count; i++) {
        struct wal__path path = wal__path(wal->directory, wal->segments[i].number, "");
        int file = wal->disk->open(wal->disk->context, path.text, O_RDWR);
        if (file < 0)
            return refuse_call(recovery, "open this file of the log for writing", path.text, file);
        wal->segments[i].file = file;
        int error = look_at(recovery, i);
        if (error)
            return error;
        error = repair_segment(recovery, i);
        if (error)
            return refuse_call(recovery, "repair this file of the log", path.text, error);
    }
    return 0;
}

/* After a kill, or after a failed write, the page cache shows what may be on no disk: records, and
 * zeros. So the last batch is written again whatever it looks like, and so are the zeros wherever
 * the batch after it can have been. */
static bool may_hide_torn_batch(const struct recovery *recovery, size_t segment)
{
    const struct wal *wal = recovery->wal;
    uint64_t rest = wal->segments[wal->segment].size - wal->offset;
    return segment == wal->segment || (segment == wal->segment + 1 && rest < WAL__RECORD_BYTES_MAX);
}

static int rewrite(struct recovery *recovery, int file, uint64_t offset, uint64_t end);
static int zero_what_is_not(struct recovery *recovery, int file, uint64_t offset, uint64_t end,
                            bool *ret_changed);

static int repair_segment(struct recovery *recovery, size_t at)
{
    const struct wal *wal = recovery->wal;
    const struct disk *disk = wal->disk;
    struct wal__segment *segment = &wal->segments[at];
    bool changed = false;
    int error = 0;

    if (!segment->mark) {
        error = wal__draw_mark(&segment->mark);
        if (!error)
            error = wal__write_header(disk, segment->file, segment);
        changed = true;
    }
    if (!error && recovery->batch_number && at == recovery->batch_segment) {
        error = rewrite(recovery, segment->file, recovery->batch_offset, segment->end);
        changed = true;
    }
    if (!error && at >= wal->segment) {
        if (may_hide_torn_batch(recovery, at)) {
            error = wal__write_zeros(disk, segment->file, segment->end, segment->size);
            changed = true;
        } else {
            error =
                zero_what_is_not(recovery, segment->file, segment->end, segment->size, &changed);
        }
    }
    return error || !changed ? error : disk->sync(disk->context, segment->file);
}

static int rewrite(struct recovery *recovery, int file, uint64_t offset, uint64_t end)
{
    const struct disk *disk = recovery->wal->disk;
    char *bytes;
    while (offset < end) {
        size_t part = end - offset < WAL__WINDOW_BYTES ? (size_t)(end - offset) : WAL__WINDOW_BYTES;
        int error = wal__window_at(&recovery->window, offset, part, &bytes);
        if (!error)
            error = disk->write(disk->context, file, bytes, part, offset);
        if (error)
            return error;
        offset += part;
    }
    return 0;
}

static int zero_what_is_not(struct recovery *recovery, int file, uint64_t offset, uint64_t end,
                            bool *ret_changed)
{
    char *bytes;
    while (offset < end) {
        size_t part = end - offset < WAL__WINDOW_BYTES ? (size_t)(end - offset) : WAL__WINDOW_BYTES;
        int error = wal__window_at(&recovery->window, offset, part, &bytes);
        if (error)
            return error;
        if (!wal__is_zero(bytes, part)) {
            *ret_changed = true;
            error = wal__write_zeros(recovery->wal->disk, file, offset, offset + part);
            if (error)
                return error;
        }
        offset += part;
    }
    return 0;
}

/* Now it counts */

static int hand_over(struct recovery *recovery)
{
    struct wal *wal = recovery->wal;
    struct wal__record record;

    if (wal->has_state)
        wal->handler->state(wal->context, wal->term, wal->vote);
    for (size_t i = 0; wal->segments_count && i <= wal->segment; i++) {
        int error = look_at(recovery, i);
        if (error)
            return error;
        for (uint64_t at = WAL__SEGMENT_HEADER_BYTES; at < wal->segments[i].end;
             at += record.bytes) {
            int found = wal__record_at(&recovery->window, at, &record);
            if (found < 0)
                return refuse_read(recovery, i, found);
            if (!found)
                return refuse_damage(recovery, i, at, "a record has changed since it was checked");
            if (record.kind == WAL__ENTRY && wal__is_live(wal, record.number, record.index))
                wal->handler->entry(wal->context, record.index, record.term, record.entry_type,
                                    record.data, record.len);
        }
    }
    return 0;
}
