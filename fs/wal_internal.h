/*
 * What the files of the log share: the format, and the log's state.
 *
 *     wal.c          appending, batches, segments made ahead
 *     wal_recover.c  what wal_open() does with the log that it finds
 *     wal_read.c     reading entries back
 *     wal_drop.c     dropping what a snapshot covers
 *     wal_format.c   segments and records as bytes
 *
 * A segment is a file "log-" and 16 decimal digits. All numbers are little-endian.
 *
 *     segment header, one block        record, aligned to 8 bytes
 *      0  magic "lockfs\nL"             0  CRC32C of the bytes from 4 to the end of the padding
 *      8  CRC32C of bytes 12 to 47      4  payload length; 0: no record
 *     12  format version                8  number, consecutive over all segments, from 1
 *     16  number of the segment        16  number of the first record of its batch
 *     24  size of the file             24  mark of the segment
 *     32  mark                         32  payload: kind (4), entry's type (4), then
 *     40  0                                state: term (8), vote (8)
 *                                          entry: index (8), term (8), data
 *
 * The mark is a random number. What a user writes is in the log as it is, and without the mark
 * could be made to pass for a record where recovery searches behind a damaged one.
 *
 * A batch never spans segments. A record that does not fit into a segment begins the next one, and
 * zeros are left at the end.
 */
#ifndef FS_WAL_INTERNAL_H
#define FS_WAL_INTERNAL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "disk.h"
#include "limits.h"
#include "wal.h"

enum {
    WAL__VERSION = 1,
    WAL__SEGMENT_HEADER_BYTES = 4096, /* a block of its own, not rewritten with the first records */
    WAL__RECORD_HEADER_BYTES = 32,
    WAL__FIXED_PAYLOAD_BYTES = 24,
    WAL__RECORD_FIXED_BYTES = WAL__RECORD_HEADER_BYTES + WAL__FIXED_PAYLOAD_BYTES,
    WAL__ALIGNMENT = 8,
    WAL__RECORD_BYTES_MAX = WAL__RECORD_FIXED_BYTES + LIMIT_COMMAND_BYTES,
    WAL__WINDOW_BYTES = 64 << 10,
    WAL__NAME_BYTES = 32, /* of a segment's file, a suffix included */
};

static_assert(WAL__RECORD_FIXED_BYTES + WAL__ALIGNMENT - 1 <= LIMIT_RECORD_OVERHEAD_BYTES,
              "what wal.h says of a record's size");
static_assert(WAL__RECORD_BYTES_MAX % WAL__ALIGNMENT == 0, "the largest record needs no padding");
static_assert(WAL__WINDOW_BYTES >= WAL__RECORD_BYTES_MAX, "a window shows a whole record");

struct wal__segment {
    uint64_t number;
    uint64_t size;
    uint64_t mark;        /* 0: the header is zero, and there is no record */
    uint64_t end;         /* of what is durable in it */
    uint64_t first_index; /* of its first entry, 0: none */
    bool has_state;       /* a term and vote is durable in it */
    int file;             /* open where it is or will be written, else -1 */
};

/* Record `number` replaced the entries from `index` on. */
struct wal__cut {
    uint64_t number;
    uint64_t index;
};

enum wal__stage {
    WAL__IDLE,
    WAL__ON_POOL,
    WAL__REPORTING, /* a handler is being called */
};

/* What happens on the pool, one thing at a time. It outlives a log that is closed meanwhile: its
 * callback frees it then. The pool's part touches nothing else, what never changes in `wal` apart.
 */
struct wal__work {
    uv_work_t request;
    uv_sem_t done;   /* posted at the end of the pool's part */
    struct wal *wal; /* NULL: closed */
    enum wal__stage stage;
    int error;
    struct wal__batch *batch;    /* to be written, */
    struct wal__segment segment; /* to `file` of this; or the segment to be made */
    uint64_t first_number;       /* of the segments to be dropped, */
    size_t count;                /* so many, */
    size_t dropped;              /* of which so many are gone */
};

/* Records with consecutive places in one segment: one write and one fdatasync. */
struct wal__batch {
    struct wal__batch *next;
    size_t segment; /* position in `segments` */
    uint64_t offset;
    uint64_t first_number;
    uint64_t write; /* what is durable with it */
    bool split;     /* the next batch has the rest of the write that this one ends with */
    bool has_state;
    size_t len;
    size_t capacity;
    char *bytes;
};

struct wal {
    uv_loop_t *loop;
    const struct disk *disk;
    const struct wal_handler *handler;
    void *context;
    char *directory;
    uint64_t segment_bytes; /* of new segments */
    uint64_t snapshot_index;

    struct wal__segment *segments;
    size_t segments_count;
    size_t segments_capacity;

    /* In order of number and of index, both: a cut makes earlier ones void that it goes below. */
    struct wal__cut *cuts;
    size_t cuts_count;
    size_t cuts_capacity;

    /* The next record. */
    size_t segment; /* position in `segments` */
    uint64_t offset;
    uint64_t number;
    uint64_t last_index; /* 0: no entry yet */

    uint64_t write;          /* of the last record appended */
    uint64_t previous_write; /* the one before, another number */
    uint64_t reported_write;

    struct wal__batch *queue;
    struct wal__batch *queue_tail;
    struct wal__batch *idle_batch; /* kept for its buffer */
    bool hurried;                  /* all that is queued is to be written without delay */
    uv_timer_t *hurrier; /* else it runs, where anything is queued; its memory is its own */
    struct wal__work *writing;
    struct wal__work *making;
    struct wal__work *dropping;

    int error; /* why the log takes no more, 0: it does */
    bool out_of_memory;

    uint64_t wanted_bytes;
    uint64_t retry_at_ms; /* before which no segment is made, after a failure */
    bool short_of_room;   /* the last try failed */
    uint64_t written_bytes;

    /* The latest term and vote. */
    bool has_state;
    uint64_t term;
    uint64_t vote;

    uint64_t drop_index;       /* 0: there is nothing to drop */
    bool state_queued;         /* once more, so that segments before it can go */
    uint64_t drop_retry_at_ms; /* before which nothing is dropped, after a failure */
};

enum {
    WAL__RETRY_MS = 1000, /* after the filesystem has refused something */
};

/* wal.c */
/* Once more, so that segments before it can be dropped. */
void wal__append_state_again(struct wal *wal);
void wal__free_work(struct wal__work *work);

/* wal_drop.c: goes on with what wal_drop_until() began. */
void wal__drop(struct wal *wal);

/* Notes that a record has an entry's index. False where memory is out. */
bool wal__note_entry(struct wal *wal, size_t segment, uint64_t number, uint64_t index);

/* Makes place for one more in `segments`. False where memory is out. */
bool wal__reserve_segment(struct wal *wal);

/* wal_recover.c: finds the segments, checks, repairs and hands over, see wal.h. With no segment in
 * the directory it does nothing. */
int wal__recover(struct wal *wal, char *message, size_t message_size);

/* wal_read.c: whether the entry of record `number` was never replaced. */
bool wal__is_live(const struct wal *wal, uint64_t number, uint64_t index);
/* The segment before which no living entry is needed by who reads from `index` on. */
size_t wal__find_segment(const struct wal *wal, uint64_t index);

/* wal_format.c */

struct wal__path {
    char text[4096];
};
struct wal__path wal__path(const char *directory, uint64_t segment, const char *suffix);

enum wal__kind {
    WAL__STATE = 1,
    WAL__ENTRY = 2,
};

struct wal__record {
    uint64_t number;
    uint64_t batch;
    enum wal__kind kind;
    uint32_t entry_type;
    uint64_t index; /* of an entry */
    uint64_t term;
    uint64_t vote; /* of a state */
    const char *data;
    size_t len;
    size_t bytes; /* on disk */
};

size_t wal__record_bytes(size_t len);
/* `bytes` has room for it. */
void wal__encode_record(const struct wal__record *record, uint64_t mark, char *bytes);

/* Looks at a file piece by piece. */
struct wal__window {
    const struct disk *disk;
    int file; /* -1: none */
    uint64_t size;
    uint64_t mark;
    uint64_t start;
    size_t len;
    char *bytes;
};

int wal__window_open(struct wal__window *window, const struct disk *disk, const char *directory,
                     const struct wal__segment *segment);
void wal__window_close(struct wal__window *window);
/* Bytes `offset` to `offset + len` of the file, of which they are a part. */
int wal__window_at(struct wal__window *window, uint64_t offset, size_t len, char **ret_bytes);
/* 1 and the record that is there, in the window; 0 where there is none; or a negative errno. */
int wal__record_at(struct wal__window *window, uint64_t offset, struct wal__record *ret_record);

bool wal__is_zero(const char *bytes, size_t len);

/* Writes zeros over a part of a file. */
int wal__write_zeros(const struct disk *disk, int file, uint64_t offset, uint64_t end);
int wal__draw_mark(uint64_t *ret_mark);
int wal__write_header(const struct disk *disk, int file, const struct wal__segment *segment);
/* Makes segment->file, of segment->number, durable and under its name, or leaves nothing. */
int wal__make_segment(const struct disk *disk, const char *directory, struct wal__segment *segment);

enum wal__header {
    WAL__HEADER_GOOD, /* `number`, `size` and `mark` are read */
    WAL__HEADER_ZERO,
    WAL__HEADER_BAD,
    WAL__HEADER_OTHER_VERSION, /* number has the version */
};
enum wal__header wal__decode_header(char *bytes, struct wal__segment *ret_segment,
                                    uint32_t *ret_version);

__attribute__((format(printf, 3, 4))) void wal__say(char *message, size_t size, const char *format,
                                                    ...);

#endif
