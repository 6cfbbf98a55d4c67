/*
 * Snapshots on disk: what the entries of the log up to some index led to, so that these entries can
 * be dropped.
 *
 * A snapshot is a file "snapshot-" and the 16 decimal digits of that index. It is written as
 * "snapshot-....new" by a child process, from the memory as it was when that was forked, while the
 * daemon goes on. When it is whole and durable it gets its name; then the one before it is removed,
 * and then entries of the log. There is one, or for a moment two, of which the newer one counts.
 *
 * A snapshot that does not check is an error, and never passed over: the log that was in it is
 * gone.
 *
 * Room for the next one is reserved on the disk: a preallocated file "reserve", at least as large
 * as a snapshot of the present state can be, which the child writes into and which is made anew
 * when the snapshot has its name. So it grows before the state may. Where the disk has no room for
 * that, new work is refused, and a snapshot still finds its own.
 */
#ifndef FS_SNAPSHOT_FILE_H
#define FS_SNAPSHOT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "node.h"

struct disk;

struct snapshot_info {
    uint64_t index; /* of the last entry that it covers; 0: there is no snapshot */
    uint64_t term;  /* of that entry */
    uint64_t bytes;
};

/* Finds the newest snapshot in `directory`, checks it and restores `node`, which nothing has
 * happened to yet, from it; removes what earlier ones, and unfinished ones, have left. Blocks.
 * Returns 0 or a negative errno, with a sentence in `message` that names file and offset:
 * -EBADMSG for one that is damaged. */
int snapshot_load(const struct disk *disk, const char *directory, struct node *node,
                  struct snapshot_info *ret_info, char *message, size_t message_size);

struct snapshot_writer;

struct snapshot_options {
    /* By how many bytes the log grows between two snapshots, at least, but twice the size of the
     * last one; 0: LIMIT_SNAPSHOT_LOG_BYTES. */
    uint64_t log_bytes;
    /* What is reserved beyond an eighth more than the next one needs; 0:
     * LIMIT_SNAPSHOT_AHEAD_BYTES. */
    uint64_t ahead_bytes;
    /* For tests: in place of fork(2), or NULL; and no child at all, where the disk is one that a
     * child would not reach. */
    pid_t (*fork)(void);
    bool in_process;
};

/* What is told to the owner, from the loop. */
struct snapshot_handler {
    /* A snapshot is durable: the log up to `index` may go. */
    void (*done)(void *context, uint64_t index);
    /* One was given up; nothing is lost, and another one will be tried. `why` lives for the call.
     */
    void (*failed)(void *context, const char *why);
};

/* `last` is what snapshot_load() found, `node` what will be saved: the reserve is made for it, as
 * far as there is room. Blocks. Returns 0 or a negative errno. */
int snapshot_writer_open(uv_loop_t *loop, const struct disk *disk, const char *directory,
                         const struct snapshot_options *options, const struct snapshot_info *last,
                         const struct node *node, const struct snapshot_handler *handler,
                         void *context, struct snapshot_writer **ret_writer);

/* Begins a snapshot of `node` where it is time for one and none is being written; makes the reserve
 * larger where it is short. `written_bytes` is wal_written_bytes(), `short_of_room`
 * wal_is_short_of_room(). Cheap, to be called after each step; not during one, and not while the
 * node replays. */
void snapshot_writer_consider(struct snapshot_writer *writer, const struct node *node,
                              uint64_t written_bytes, bool short_of_room);

/* Bytes that the next snapshot may have: node_snapshot_bytes() must not exceed them. */
uint64_t snapshot_writer_room(const struct snapshot_writer *writer);

/* Gives up what is being written, and frees. NULL is fine. */
void snapshot_writer_close(struct snapshot_writer *writer);

#endif
