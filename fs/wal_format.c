/* Segments and records of the log as bytes, see wal_internal.h. */
#include "wal_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "disk_format.h"

static const char magic[8] = {'l', 'o', 'c', 'k', 'f', 's', '\n', 'L'};

enum {
    HEADER_USED_BYTES = 48,
    HEADER_CRC_AT = 8,
    HEADER_CRC_FROM = 12,
    ZEROS_BYTES = 64 << 10,
};

static const char zeros[ZEROS_BYTES];

struct wal__path wal__path(const char *directory, uint64_t segment, const char *suffix)
{
    struct wal__path path;
    int len = snprintf(path.text, sizeof path.text, "%s/log-%016" PRIu64 "%s", directory, segment,
                       suffix);
    assert(len > 0 && (size_t)len < sizeof path.text);
    return path;
}

void wal__say(char *message, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, size, format, arguments);
    va_end(arguments);
}

/* Records */

size_t wal__record_bytes(size_t len)
{
    return (WAL__RECORD_FIXED_BYTES + len + WAL__ALIGNMENT - 1) / WAL__ALIGNMENT * WAL__ALIGNMENT;
}

void wal__encode_record(const struct wal__record *record, uint64_t mark, char *bytes)
{
    size_t size = wal__record_bytes(record->len);
    bool is_entry = record->kind == WAL__ENTRY;

    assert(record->len <= LIMIT_COMMAND_BYTES);
    memset(bytes + size - WAL__ALIGNMENT, 0, WAL__ALIGNMENT);
    put32(bytes + 4, (uint32_t)(WAL__FIXED_PAYLOAD_BYTES + record->len));
    put64(bytes + 8, record->number);
    put64(bytes + 16, record->batch);
    put64(bytes + 24, mark);
    put32(bytes + 32, record->kind);
    put32(bytes + 36, record->entry_type);
    put64(bytes + 40, is_entry ? record->index : record->term);
    put64(bytes + 48, is_entry ? record->term : record->vote);
    if (record->len)
        memcpy(bytes + WAL__RECORD_FIXED_BYTES, record->data, record->len);
    put32(bytes, crc32c(0, bytes + 4, size - 4));
}

int wal__record_at(struct wal__window *window, uint64_t offset, struct wal__record *ret_record)
{
    char *bytes;

    assert(offset % WAL__ALIGNMENT == 0);
    if (offset + WAL__RECORD_FIXED_BYTES > window->size)
        return 0;
    int error = wal__window_at(window, offset, WAL__RECORD_FIXED_BYTES, &bytes);
    if (error)
        return error;
    uint32_t payload = get32(bytes + 4);
    if (payload < WAL__FIXED_PAYLOAD_BYTES ||
        payload > WAL__FIXED_PAYLOAD_BYTES + LIMIT_COMMAND_BYTES || window->mark == 0 ||
        get64(bytes + 24) != window->mark)
        return 0;
    size_t len = payload - WAL__FIXED_PAYLOAD_BYTES;
    size_t size = wal__record_bytes(len);
    if (offset + size > window->size)
        return 0;
    error = wal__window_at(window, offset, size, &bytes);
    if (error)
        return error;
    if (get32(bytes) != crc32c(0, bytes + 4, size - 4))
        return 0;

    uint32_t kind = get32(bytes + 32);
    if (kind != WAL__STATE && kind != WAL__ENTRY)
        return 0;
    struct wal__record record = {
        .number = get64(bytes + 8),
        .batch = get64(bytes + 16),
        .kind = kind,
        .entry_type = get32(bytes + 36),
        .data = bytes + WAL__RECORD_FIXED_BYTES,
        .len = len,
        .bytes = size,
    };
    if (kind == WAL__ENTRY) {
        record.index = get64(bytes + 40);
        record.term = get64(bytes + 48);
    } else {
        record.term = get64(bytes + 40);
        record.vote = get64(bytes + 48);
    }
    *ret_record = record;
    return 1;
}

/* Windows */

int wal__window_open(struct wal__window *window, const struct disk *disk, const char *directory,
                     const struct wal__segment *segment)
{
    *window = (struct wal__window){
        .disk = disk,
        .size = segment->size,
        .mark = segment->mark,
        .bytes = malloc(WAL__WINDOW_BYTES),
    };
    if (!window->bytes) {
        window->file = -1;
        return -ENOMEM;
    }
    window->file =
        disk->open(disk->context, wal__path(directory, segment->number, "").text, O_RDONLY);
    if (window->file >= 0)
        return 0;
    int error = window->file;
    wal__window_close(window);
    return error;
}

void wal__window_close(struct wal__window *window)
{
    if (window->file >= 0)
        window->disk->close(window->disk->context, window->file);
    window->file = -1;
    free(window->bytes);
    window->bytes = NULL;
}

int wal__window_at(struct wal__window *window, uint64_t offset, size_t len, char **ret_bytes)
{
    assert(len <= WAL__WINDOW_BYTES && offset + len <= window->size);
    if (offset < window->start || offset + len > window->start + window->len) {
        uint64_t rest = window->size - offset;
        size_t want = rest < WAL__WINDOW_BYTES ? (size_t)rest : WAL__WINDOW_BYTES;
        window->len = 0;
        int error =
            window->disk->read(window->disk->context, window->file, window->bytes, want, offset);
        if (error)
            return error;
        window->start = offset;
        window->len = want;
    }
    *ret_bytes = window->bytes + (offset - window->start);
    return 0;
}

bool wal__is_zero(const char *bytes, size_t len)
{
    while (len) {
        size_t part = len < ZEROS_BYTES ? len : ZEROS_BYTES;
        if (memcmp(bytes, zeros, part) != 0)
            return false;
        bytes += part;
        len -= part;
    }
    return true;
}

/* Segments */

int wal__write_zeros(const struct disk *disk, int file, uint64_t offset, uint64_t end)
{
    while (offset < end) {
        size_t part = end - offset < ZEROS_BYTES ? (size_t)(end - offset) : ZEROS_BYTES;
        int error = disk->write(disk->context, file, zeros, part, offset);
        if (error)
            return error;
        offset += part;
    }
    return 0;
}

int wal__write_header(const struct disk *disk, int file, const struct wal__segment *segment)
{
    char bytes[HEADER_USED_BYTES] = {0};
    memcpy(bytes, magic, sizeof magic);
    put32(bytes + 12, WAL__VERSION);
    put64(bytes + 16, segment->number);
    put64(bytes + 24, segment->size);
    put64(bytes + 32, segment->mark);
    put32(bytes + HEADER_CRC_AT,
          crc32c(0, bytes + HEADER_CRC_FROM, HEADER_USED_BYTES - HEADER_CRC_FROM));
    return disk->write(disk->context, file, bytes, sizeof bytes, 0);
}

enum wal__header wal__decode_header(char *bytes, struct wal__segment *ret_segment,
                                    uint32_t *ret_version)
{
    if (wal__is_zero(bytes, WAL__SEGMENT_HEADER_BYTES))
        return WAL__HEADER_ZERO;
    if (memcmp(bytes, magic, sizeof magic) != 0 ||
        get32(bytes + HEADER_CRC_AT) !=
            crc32c(0, bytes + HEADER_CRC_FROM, HEADER_USED_BYTES - HEADER_CRC_FROM))
        return WAL__HEADER_BAD;
    *ret_version = get32(bytes + 12);
    if (*ret_version != WAL__VERSION)
        return WAL__HEADER_OTHER_VERSION;
    ret_segment->number = get64(bytes + 16);
    ret_segment->size = get64(bytes + 24);
    ret_segment->mark = get64(bytes + 32);
    return WAL__HEADER_GOOD;
}

int wal__draw_mark(uint64_t *ret_mark)
{
    uint64_t mark;
    do {
        if (getrandom(&mark, sizeof mark, 0) != sizeof mark)
            return -EIO;
    } while (mark == 0);
    *ret_mark = mark;
    return 0;
}

/* Under a name that recovery throws away, until it is full of durable zeros: a segment with its own
 * name is never shorter than it should be. */
int wal__make_segment(const struct disk *disk, const char *directory, struct wal__segment *segment)
{
    struct wal__path name = wal__path(directory, segment->number, "");
    struct wal__path temporary = wal__path(directory, segment->number, ".new");
    struct wal__segment made = *segment;
    const char *left = temporary.text;

    int error = wal__draw_mark(&made.mark);
    if (error)
        return error;
    made.end = WAL__SEGMENT_HEADER_BYTES;
    made.first_index = 0;
    disk->unlink(disk->context, temporary.text); /* what an earlier failure could not take away */
    made.file = disk->open(disk->context, temporary.text, O_RDWR | O_CREAT | O_EXCL);
    if (made.file < 0)
        return made.file;
    error = wal__write_zeros(disk, made.file, 0, made.size);
    if (!error)
        error = wal__write_header(disk, made.file, &made);
    if (!error)
        error = disk->sync(disk->context, made.file);
    if (!error)
        error = disk->rename(disk->context, temporary.text, name.text);
    if (!error) {
        left = name.text;
        error = disk->sync_directory(disk->context, directory);
    }
    if (error) {
        disk->close(disk->context, made.file);
        disk->unlink(disk->context, left);
        return error;
    }
    *segment = made;
    return 0;
}
