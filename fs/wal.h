/*
 * The log on disk: what raft must not forget, in segments of zero-filled files.
 *
 * A segment is a file of LIMIT_SEGMENT_BYTES, written full of zeros before its first use, so that
 * an append changes no metadata and costs one fdatasync. Each record has a length, a CRC32C, its
 * number, and the number of the first record of the batch that it was written with. Batches are
 * written one after another, each with one write and one fdatasync, both on libuv's pool; what is
 * appended meanwhile goes into the next batch, which starts when somebody waits for it, or soon.
 *
 * Recovery reads record after record. The first one that does not check ends the log. When it is of
 * the batch that was written last, a crash tore it, and nothing of it was ever reported durable: it
 * is cut off. When a later batch is behind it, it had been durable: the disk has lost data, and the
 * log is refused.
 *
 * What a snapshot covers is dropped from the front, whole segments at a time.
 *
 * Everything runs on the loop's thread, the pool's part inside apart.
 */
#ifndef FS_WAL_H
#define FS_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

struct wal;
struct disk; /* disk.h: the calls that reach the disk, replaced by tests */

/* What is told to the owner. `context` is that of wal_open(). */
struct wal_handler {
    /* During wal_open(), in the order of the log: the latest term and vote, and each entry. */
    void (*state)(void *context, uint64_t term, uint64_t vote);
    void (*entry)(void *context, uint64_t index, uint64_t term, uint32_t type, const char *data,
                  size_t len);
    /* From the loop: all records up to `write` are durable. */
    void (*durable)(void *context, uint64_t write);
    /* From the loop, once: a write or fdatasync failed with `error` (negative errno). Nothing that
     * was not yet reported durable counts, and the log takes no more. `file` lives for the call. */
    void (*failed)(void *context, int error, const char *file);
};

struct wal_options {
    uint64_t segment_bytes;  /* of new segments; 0: LIMIT_SEGMENT_BYTES */
    uint64_t snapshot_index; /* of the last entry that the snapshot covers; 0: there is none */
};

/* Opens (or makes) the log in `directory`, which exists and is locked by the caller, and recovers
 * it: what was torn off is overwritten with zeros, and the last batch is written and synced again,
 * before it is handed over. Blocks. Returns 0 or a negative errno, with a sentence in `message`
 * that names file and offset: -EBADMSG for a log that has lost data, -ENOSPC where there is no room
 * for the reserve that a start needs. A log that does not begin with the first entry, or does not
 * have the last one that the snapshot covers, has lost data. `options` may be NULL. */
int wal_open(uv_loop_t *loop, const struct disk *disk, const char *directory,
             const struct wal_options *options, const struct wal_handler *handler, void *context,
             char *message, size_t message_size, struct wal **ret_wal);

/* One entry, as it was appended. Returns false to stop the walk. */
typedef bool wal_visitor(void *context, uint64_t index, uint64_t term, uint32_t type,
                         const char *data, size_t len);

/* Reads the entries `first` to `last` back from disk, in order. Blocks. 0 or a negative errno. */
int wal_read(struct wal *wal, uint64_t first, uint64_t last, wal_visitor *visitor, void *context,
             char *message, size_t message_size);

/* Queue a record; the bytes are copied. It reaches the disk with the next batch. `write` is what
 * `durable` reports; it does not decrease. There must be room for it: see wal_room(). */
void wal_append_state(struct wal *wal, uint64_t write, uint64_t term, uint64_t vote);
void wal_append_entry(struct wal *wal, uint64_t write, uint64_t index, uint64_t term, uint32_t type,
                      const char *data, size_t len);

/* Write what is queued: at once, or as soon as the batch in flight is durable. Called once a loop
 * turn, when everything that the turn brought has been queued. */
void wal_flush(struct wal *wal);

/* Write what is queued with the next wal_flush(), or LIMIT_UNHURRIED_MS after the first such call.
 */
void wal_flush_later(struct wal *wal);

/* Flushes, and runs the loop until all that was appended before is durable, or the log has failed.
 * Handlers are called meanwhile. */
void wal_settle(struct wal *wal);

/* Bytes that can be appended without asking the filesystem for room. A record of `len` bytes of
 * data takes at most `len` + LIMIT_RECORD_OVERHEAD_BYTES. */
uint64_t wal_room(const struct wal *wal);

/* Keep at least so many bytes of room: preallocates segments, on the pool, until there are, or
 * until the filesystem is full (then tries again, at most once a second, as long as it is called).
 * Returns at once. */
void wal_want_room(struct wal *wal, uint64_t bytes);

/* Whether the filesystem refused room when the log asked last. */
bool wal_is_short_of_room(const struct wal *wal);

/* A snapshot that covers the entries up to `index` is durable: drop what only they need, on the
 * pool, oldest first. Entry `index` itself stays, so that a start can see that log and snapshot
 * belong together, and so does the latest term and vote. Returns at once. Not before the first
 * record was appended after wal_open(). */
void wal_drop_until(struct wal *wal, uint64_t index);

/* Bytes of all records that wal_open() found, and of those appended since: never decreases. */
uint64_t wal_written_bytes(const struct wal *wal);

/* For status: the size of the log on disk. */
uint64_t wal_disk_bytes(const struct wal *wal);

/* Waits for what is in flight, writes nothing more, frees. NULL is fine. */
void wal_close(struct wal *wal);

#endif
