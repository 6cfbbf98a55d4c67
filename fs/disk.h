/*
 * The calls with which the log reaches the disk, as a table, so that a test can stand in between.
 *
 * Files are small numbers, errors negative errnos. `read` and `write` are whole or fail. All of it
 * may be called from several threads at once.
 */
#ifndef FS_DISK_H
#define FS_DISK_H

#include <stddef.h>
#include <stdint.h>

typedef void disk_visitor(void *visitor_context, const char *name);

struct disk {
    void *context; /* the first argument of each call */
    /* O_CREAT and O_EXCL are the only flags beside the access mode; new files are 0600. Returns the
     * file. */
    int (*open)(void *context, const char *path, int flags);
    void (*close)(void *context, int file);
    int (*size)(void *context, int file, uint64_t *ret_size);
    int (*read)(void *context, int file, void *buffer, size_t len, uint64_t offset);
    int (*write)(void *context, int file, const void *data, size_t len, uint64_t offset);
    /* Takes room for these bytes: what is written there later finds it. The file grows by zeros
     * where they are behind its end, and what it has stays. It may do a part, and fail. */
    int (*allocate)(void *context, int file, uint64_t offset, uint64_t len);
    /* Cuts the file off. */
    int (*truncate)(void *context, int file, uint64_t size);
    /* After an error nothing that was written since the last success counts as durable, whatever a
     * later call says. */
    int (*sync)(void *context, int file);
    int (*sync_directory)(void *context, const char *path);
    int (*rename)(void *context, const char *from, const char *to);
    int (*unlink)(void *context, const char *path);
    /* Every name in a directory, "." and ".." apart, in no order. */
    int (*list)(void *context, const char *path, disk_visitor *visitor, void *visitor_context);
};

/* The machine's own. */
extern const struct disk disk_real;

#endif
