/*
 * What the files of the snapshots share: the format. All numbers are little-endian.
 *
 *     header, 48 bytes                     frame
 *      0  magic "lockfs\nS"                 0  CRC32C of all lengths and payloads up to here,
 *      8  CRC32C of bytes 12 to 47             begun with the header's
 *     12  format version                    4  payload length
 *     16  index of the last entry           8  payload: a SnapshotRecord of lockfs.proto
 *     24  its term
 *     32  0
 *
 * Behind the last record stands a frame of length UINT32_MAX, whose payload is the number of
 * records (8); and there the file ends.
 */
#ifndef FS_SNAPSHOT_FILE_INTERNAL_H
#define FS_SNAPSHOT_FILE_INTERNAL_H

#include "disk.h"
#include "snapshot_file.h"

enum {
    SNAPSHOT__VERSION = 1,
    SNAPSHOT__HEADER_BYTES = 48,
    SNAPSHOT__FRAME_BYTES = 8,
    SNAPSHOT__COUNT_BYTES = 8,
    SNAPSHOT__NAME_BYTES = 48,
    SNAPSHOT__BUFFER_BYTES = 64 << 10,
};
#define SNAPSHOT__END UINT32_MAX

struct snapshot__path {
    char text[4096];
};
struct snapshot__path snapshot__path(const char *directory, uint64_t index, const char *suffix);

/* Where a snapshot is written: pieces are gathered into large writes. */
struct snapshot__output {
    const struct disk *disk;
    int file;
    uint64_t offset; /* of the buffer in the file */
    uint64_t synced;
    size_t used;
    uint32_t crc;
    uint64_t count;
    char buffer[SNAPSHOT__BUFFER_BYTES];
};

/* Writes and syncs a whole snapshot of `node` as `path`; what is there already gives its room.
 * Calls nothing that a child of fork() must not call, where the disk's calls do not. */
int snapshot__write(struct snapshot__output *output, const struct disk *disk, const char *path,
                    const struct node *node, uint64_t index, uint64_t term);

struct snapshot__path snapshot__reserve_path(const char *directory);

/* Makes the reserve `wanted` bytes large, of which it has `there`, as far as the disk has room.
 * Returns how large it is. */
uint64_t snapshot__reserve(const struct disk *disk, const char *directory, uint64_t there,
                           uint64_t wanted);

/* Restores `node` from the snapshot `index`. */
int snapshot__read(const struct disk *disk, const char *directory, uint64_t index,
                   struct node *node, struct snapshot_info *ret_info, char *message,
                   size_t message_size);

#endif
