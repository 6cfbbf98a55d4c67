/*
 * The data directory of a node: it belongs to one daemon at a time, and it has an identity, drawn
 * when it was made, by which it is known for ever.
 *
 *     lock      locked by the daemon that runs, whose pid is in it
 *     identity  format version and identity, with a checksum
 *     log-...   see wal.h
 *     snapshot-..., reserve   see snapshot_file.h
 */
#ifndef FS_DATA_DIR_H
#define FS_DATA_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct data_dir {
    int lock_file;
    uint64_t identity; /* not 0 */
    bool made;         /* just now: numbers begin anew */
};

/* Makes the directory where it does not exist, its parents too, takes the lock, and reads or draws
 * the identity. Blocks. Returns 0 or a negative errno, with a sentence in `message`: -EBUSY where
 * another daemon has it, -ENOTEMPTY where there are files that are none of lockfs's, and no
 * identity: it is somebody else's directory. */
int data_dir_open(const char *path, char *message, size_t size, struct data_dir *ret_data_dir);

/* Gives the lock back. */
void data_dir_close(struct data_dir *data_dir);

#endif
