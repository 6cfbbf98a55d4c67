/*
 * The guard of the mount point: without a running lockfsd nothing can be created under it, so that
 * no lock is ever silently a local one (DESIGN B8).
 *
 * It has two parts. An empty read-only tmpfs lies on the mount point, below the lockfs, and stays
 * there when the daemon goes. The directory itself is immutable where its filesystem knows that,
 * which outlives a reboot.
 *
 * All take the mount point as the user wrote it. They return 0 or a negative errno; `message` then
 * holds a sentence for the user, without a newline. After success it holds one where something
 * worth telling was done, and else the empty string.
 */
#ifndef FS_GUARD_H
#define FS_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* How the guard shows in /proc/self/mountinfo and in mount(8). */
#define GUARD_SOURCE "lockfs-guard"

/* The filesystem type of our own mounts there. */
#define GUARD_LOCKFS_TYPE "fuse.lockfs"

/* The checks before a mount: it must be a directory, empty below whatever lies on it, with nothing
 * mounted on it but the guard. Unmounts what a dead lockfsd has left there. -EBUSY: something is
 * mounted, perhaps a lockfs that lives. -ENOTEMPTY: a lockfs would hide files. */
int mount_point_prepare(const char *mount_point, char *message, size_t message_size);

/* Lays the guard, or keeps the one that lies there. `ret_immutable`: whether the directory is
 * immutable, too. -EPERM without the privilege to mount; -EBUSY where anything else is mounted. */
int guard_lay(const char *mount_point, bool *ret_immutable, char *message, size_t message_size);

/* Takes the guard away. -EBUSY while anything else is mounted there. That there was no guard is
 * success. */
int guard_remove(const char *mount_point, char *message, size_t message_size);

#endif
