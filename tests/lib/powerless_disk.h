/*
 * A disk in memory that can lose its power: a `struct disk` that keeps, for each file, what is
 * durable and what is only written, and likewise for names.
 *
 * At a loss of power each 512-byte sector of each write that was not synced has reached the disk or
 * not, at random, but of several writes to one sector never a later one without the earlier. Of the
 * changes of names that were not synced the first few have, a random number of them. Room that was
 * allocated is a write of zeros, a file that was cut off and not synced is cut off or not. A sync
 * that fails loses writes as Linux does: they go on being seen, no later sync writes them, and the
 * next loss of power shows what is missing.
 *
 * Paths are strings without meaning: there is one flat set of them, and a directory is what stands
 * before the last slash. All functions may be called from any thread. To replay a run, let libuv's
 * pool have one thread only (UV_THREADPOOL_SIZE=1).
 */
#ifndef TESTS_POWERLESS_DISK_H
#define TESTS_POWERLESS_DISK_H

#include "fs/disk.h"

#include <stdbool.h>

struct powerless_disk;

/* The calls that can be counted and made to fail. */
enum powerless_call {
    POWERLESS_CREATE, /* open with O_CREAT */
    POWERLESS_OPEN,   /* open without */
    POWERLESS_READ,
    POWERLESS_WRITE,
    POWERLESS_ALLOCATE,
    POWERLESS_TRUNCATE,
    POWERLESS_SYNC,
    POWERLESS_SYNC_DIRECTORY,
    POWERLESS_RENAME,
    POWERLESS_UNLINK,
    POWERLESS_LIST,
    POWERLESS_CALLS,
};

/* An empty disk. */
struct powerless_disk *powerless_disk_new(uint64_t seed);
void powerless_disk_free(struct powerless_disk *disk);

/* What the code under test is given. It lives as long as the disk. */
const struct disk *powerless_disk_calls(struct powerless_disk *disk);

/* Stops the world at the n-th call from now, n >= 1, of those that change something: create, write,
 * allocate, truncate, sync, sync_directory, rename, unlink. That call may do a part of its work. It
 * fails with EIO, and so does every later call, reads included, until the power is back. 0: does
 * not stop. */
void powerless_disk_stop_at(struct powerless_disk *disk, uint64_t n);
bool powerless_disk_stopped(struct powerless_disk *disk);
/* How many calls changed something so far. */
uint64_t powerless_disk_changes(struct powerless_disk *disk);

/* Loss of power, and its return. Every file must be closed. */
void powerless_disk_cut(struct powerless_disk *disk, uint64_t seed);
/* The process was killed, and the machine was not: nothing is lost, and nothing is synced. Every
 * file must be closed. */
void powerless_disk_kill(struct powerless_disk *disk);

/* Makes the n-th call of a kind from now, n >= 1, fail with a negative errno, `times` times in a
 * row. A write that fails may have written a part, a sync that fails may have synced a part. */
void powerless_disk_fail(struct powerless_disk *disk, enum powerless_call call, uint64_t n,
                         uint64_t times, int error);
uint64_t powerless_disk_count(struct powerless_disk *disk, enum powerless_call call);

/* Bytes of all files together, beyond which a write or an allocation fails with -ENOSPC. At first
 * there is no end.
 */
void powerless_disk_set_capacity(struct powerless_disk *disk, uint64_t bytes);
uint64_t powerless_disk_used(struct powerless_disk *disk);

/* Looks at a file, or damages it, behind everybody's back: what is seen and what is durable. False
 * where there is no such file, or no such bytes. */
bool powerless_disk_peek(struct powerless_disk *disk, const char *path, uint64_t offset,
                         void *bytes, size_t len);
bool powerless_disk_poke(struct powerless_disk *disk, const char *path, uint64_t offset,
                         const void *bytes, size_t len);
bool powerless_disk_remove(struct powerless_disk *disk, const char *path);
bool powerless_disk_truncate(struct powerless_disk *disk, const char *path, uint64_t size);

#endif
