/* A snapshot as a file: writing all of it, and reading it back. See snapshot_file_internal.h. */
#include "snapshot_file_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_format.h"

static const char magic[8] = {'l', 'o', 'c', 'k', 'f', 's', '\n', 'S'};

enum {
    CRC_AT = 8,
    CRC_FROM = 12,
    /* What is written is synced in portions, so that a sync of the log waits for one only. */
    SYNC_BYTES = 8 << 20,
};

static_assert(SNAPSHOT__BUFFER_BYTES >= LIMIT_SNAPSHOT_RECORD_BYTES + SNAPSHOT__FRAME_BYTES,
              "a record fits into an empty buffer");
static_assert((int)SNAPSHOT__FRAME_BYTES == (int)LIMIT_SNAPSHOT_FRAME_BYTES &&
                  SNAPSHOT__HEADER_BYTES + SNAPSHOT__FRAME_BYTES + SNAPSHOT__COUNT_BYTES <=
                      (int)LIMIT_SNAPSHOT_ENDS_BYTES,
              "what node_snapshot_bytes() counts");

struct snapshot__path snapshot__path(const char *directory, uint64_t index, const char *suffix)
{
    struct snapshot__path path;
    int len = snprintf(path.text, sizeof path.text, "%s/snapshot-%016" PRIu64 "%s", directory,
                       index, suffix);
    assert(len > 0 && (size_t)len < sizeof path.text);
    return path;
}

/* Writing */

static int flush(struct snapshot__output *output)
{
    const struct disk *disk = output->disk;
    int error = 0;

    if (output->used)
        error =
            disk->write(disk->context, output->file, output->buffer, output->used, output->offset);
    output->offset += output->used;
    output->used = 0;
    if (!error && output->offset - output->synced >= SYNC_BYTES) {
        error = disk->sync(disk->context, output->file);
        output->synced = output->offset;
    }
    return error;
}

/* Where the next `bytes` go; NULL with an error where the disk takes no more. */
static char *reserve(struct snapshot__output *output, size_t bytes, int *ret_error)
{
    *ret_error = 0;
    if (output->used + bytes > sizeof output->buffer)
        *ret_error = flush(output);
    return *ret_error ? NULL : output->buffer + output->used;
}

static void put_header(struct snapshot__output *output, uint64_t index, uint64_t term)
{
    char *header = output->buffer;
    memset(header, 0, SNAPSHOT__HEADER_BYTES);
    memcpy(header, magic, sizeof magic);
    put32(header + 12, SNAPSHOT__VERSION);
    put64(header + 16, index);
    put64(header + 24, term);
    output->crc = crc32c(0, header + CRC_FROM, SNAPSHOT__HEADER_BYTES - CRC_FROM);
    put32(header + CRC_AT, output->crc);
    output->used = SNAPSHOT__HEADER_BYTES;
}

/* Makes a frame of the `payload` bytes that stand behind its place in the buffer. */
static void put_frame(struct snapshot__output *output, uint32_t length, size_t payload)
{
    char *frame = output->buffer + output->used;
    put32(frame + 4, length);
    output->crc = crc32c(output->crc, frame + 4, 4 + payload);
    put32(frame, output->crc);
    output->used += SNAPSHOT__FRAME_BYTES + payload;
}

static int put_records(struct snapshot__output *output, const struct node *node)
{
    struct node_cursor cursor = {0};
    int error;

    for (;;) {
        char *frame = reserve(output, SNAPSHOT__FRAME_BYTES + LIMIT_SNAPSHOT_RECORD_BYTES, &error);
        if (!frame)
            return error;
        size_t len = node_save(node, &cursor, frame + SNAPSHOT__FRAME_BYTES);
        if (len == 0)
            break;
        put_frame(output, (uint32_t)len, len);
        output->count++;
    }
    put64(output->buffer + output->used + SNAPSHOT__FRAME_BYTES, output->count);
    put_frame(output, SNAPSHOT__END, SNAPSHOT__COUNT_BYTES);
    return 0;
}

int snapshot__write(struct snapshot__output *output, const struct disk *disk, const char *path,
                    const struct node *node, uint64_t index, uint64_t term)
{
    output->disk = disk;
    output->offset = output->synced = output->count = 0;
    output->file = disk->open(disk->context, path, O_RDWR | O_CREAT);
    if (output->file < 0)
        return output->file;
    put_header(output, index, term);
    int error = put_records(output, node);
    if (!error)
        error = flush(output);
    if (!error)
        error = disk->truncate(disk->context, output->file, output->offset);
    if (!error)
        error = disk->sync(disk->context, output->file);
    disk->close(disk->context, output->file);
    return error;
}

/* Reading */

struct input {
    const struct disk *disk;
    int file; /* -1: none */
    const char *path;
    uint64_t size;
    uint64_t offset; /* of the next byte */
    uint64_t start;  /* of the buffer in the file */
    size_t len;
    uint32_t crc;
    uint64_t count;
    char *message;
    size_t message_size;
    char buffer[SNAPSHOT__BUFFER_BYTES];
};

__attribute__((format(printf, 3, 4))) static int refuse(struct input *input, int error,
                                                        const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(input->message, input->message_size, format, arguments);
    va_end(arguments);
    return error;
}

static int refuse_damage(struct input *input, uint64_t offset, const char *what)
{
    return refuse(input, -EBADMSG, "%s, byte %" PRIu64 ": %s", input->path, offset, what);
}

/* The next `len` bytes, which are in the file. */
static int take(struct input *input, size_t len, char **ret_bytes)
{
    assert(len <= sizeof input->buffer && len <= input->size - input->offset);
    if (input->offset + len > input->start + input->len) {
        uint64_t rest = input->size - input->offset;
        size_t want = rest < sizeof input->buffer ? (size_t)rest : sizeof input->buffer;
        int error = input->disk->read(input->disk->context, input->file, input->buffer, want,
                                      input->offset);
        if (error)
            return refuse(input, error, "%s, byte %" PRIu64 ": cannot be read: %s", input->path,
                          input->offset, strerror(-error));
        input->start = input->offset;
        input->len = want;
    }
    *ret_bytes = input->buffer + (input->offset - input->start);
    input->offset += len;
    return 0;
}

static int read_header(struct input *input, uint64_t index, struct snapshot_info *ret_info)
{
    char *header;

    if (input->size < SNAPSHOT__HEADER_BYTES)
        return refuse_damage(input, input->size, "the snapshot ends here, which is too early");
    int error = take(input, SNAPSHOT__HEADER_BYTES, &header);
    if (error)
        return error;
    input->crc = crc32c(0, header + CRC_FROM, SNAPSHOT__HEADER_BYTES - CRC_FROM);
    if (memcmp(header, magic, sizeof magic) != 0 || get32(header + CRC_AT) != input->crc)
        return refuse_damage(input, 0, "the header of the snapshot is damaged");
    if (get32(header + 12) != SNAPSHOT__VERSION)
        return refuse(input, -EPROTO,
                      "%s: format version %" PRIu32 ", but this lockfsd knows version %d only",
                      input->path, get32(header + 12), SNAPSHOT__VERSION);
    *ret_info = (struct snapshot_info){
        .index = get64(header + 16), .term = get64(header + 24), .bytes = input->size};
    if (ret_info->index != index || !ret_info->term)
        return refuse_damage(input, 0, "the header is that of another snapshot");
    return 0;
}

/* The next frame. Its payload, or length SNAPSHOT__END. */
static int read_frame(struct input *input, uint32_t *ret_length, struct span *ret_payload)
{
    uint64_t at = input->offset;
    char *frame;

    if (input->size - at < SNAPSHOT__FRAME_BYTES)
        return refuse_damage(input, at, "the snapshot ends here, which is too early");
    int error = take(input, SNAPSHOT__FRAME_BYTES, &frame);
    if (error)
        return error;
    uint32_t length = get32(frame + 4);
    size_t payload = length == SNAPSHOT__END ? SNAPSHOT__COUNT_BYTES : length;
    if (payload > LIMIT_SNAPSHOT_RECORD_BYTES)
        return refuse_damage(input, at, "a record of the snapshot is damaged");
    if (input->size - input->offset < payload)
        return refuse_damage(input, at, "the snapshot ends in this record");
    input->offset = at;
    error = take(input, SNAPSHOT__FRAME_BYTES + payload, &frame);
    if (error)
        return error;
    input->crc = crc32c(input->crc, frame + 4, 4 + payload);
    if (get32(frame) != input->crc)
        return refuse_damage(input, at, "a record of the snapshot is damaged");
    *ret_length = length;
    *ret_payload = (struct span){frame + SNAPSHOT__FRAME_BYTES, payload};
    return 0;
}

static int read_records(struct input *input, struct node *node)
{
    struct node_restoring restoring = {0};
    struct span payload;
    uint32_t length;

    for (;;) {
        uint64_t at = input->offset;
        int error = read_frame(input, &length, &payload);
        if (error)
            return error;
        if (length == SNAPSHOT__END)
            break;
        if (!node_restore(node, &restoring, payload))
            return refuse_damage(input, at, "a record of the snapshot makes no sense here");
        input->count++;
    }
    if (get64(payload.data) != input->count || input->offset != input->size ||
        !node_is_restored(node, &restoring))
        return refuse_damage(input, input->offset, "the end of the snapshot does not fit the rest");
    return 0;
}

int snapshot__read(const struct disk *disk, const char *directory, uint64_t index,
                   struct node *node, struct snapshot_info *ret_info, char *message,
                   size_t message_size)
{
    struct snapshot__path path = snapshot__path(directory, index, "");
    struct snapshot_info info;
    struct input *input = malloc(sizeof *input);

    if (!input)
        return -ENOMEM;
    memset(input, 0, offsetof(struct input, buffer));
    input->disk = disk;
    input->path = path.text;
    input->message = message;
    input->message_size = message_size;
    input->file = disk->open(disk->context, path.text, O_RDONLY);
    int error =
        input->file < 0 ? input->file : disk->size(disk->context, input->file, &input->size);
    if (error)
        refuse(input, error, "%s: cannot open this snapshot: %s", path.text, strerror(-error));
    if (!error)
        error = read_header(input, index, &info);
    if (!error)
        error = read_records(input, node);
    if (!error)
        *ret_info = info;
    if (input->file >= 0)
        disk->close(disk->context, input->file);
    free(input);
    return error;
}
