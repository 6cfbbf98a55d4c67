/* The data directory: making it, locking it, and its identity. */
#include "data_dir.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk_format.h"

enum {
    VERSION = 1,
    IDENTITY_BYTES_MAX = 128,
};

/* What a call needs to explain itself. */
struct opening {
    const char *path;
    int directory; /* -1: not open */
    char *message;
    size_t size;
};

static int make_directory(const struct opening *opening);
static int check_directory(struct opening *opening);
static int check_is_new(const struct opening *opening);
static int lock_directory(const struct opening *opening, int *ret_file);
static int read_identity(const struct opening *opening, uint64_t *ret_identity);
static int make_identity(const struct opening *opening, uint64_t *ret_identity);

int data_dir_open(const char *path, char *message, size_t size, struct data_dir *ret_data_dir)
{
    struct opening opening = {.path = path, .directory = -1, .message = message, .size = size};
    struct data_dir data_dir = {.lock_file = -1};

    int error = make_directory(&opening);
    if (!error)
        error = check_directory(&opening);
    if (!error && faccessat(opening.directory, "identity", F_OK, AT_SYMLINK_NOFOLLOW) != 0)
        error = check_is_new(&opening); /* before anything is written */
    if (!error)
        error = lock_directory(&opening, &data_dir.lock_file);
    if (!error)
        error = read_identity(&opening, &data_dir.identity);
    data_dir.made = error == -ENOENT && data_dir.lock_file >= 0;
    if (data_dir.made)
        error = make_identity(&opening, &data_dir.identity);
    if (opening.directory >= 0)
        close(opening.directory);
    if (error) {
        data_dir_close(&data_dir);
        return error;
    }
    *ret_data_dir = data_dir;
    return 0;
}

void data_dir_close(struct data_dir *data_dir)
{
    if (data_dir->lock_file >= 0)
        close(data_dir->lock_file);
    data_dir->lock_file = -1;
}

/* Returns `error`. */
__attribute__((format(printf, 3, 4))) static int refuse(const struct opening *opening, int error,
                                                        const char *format, ...)
{
    va_list arguments;
    int len = snprintf(opening->message, opening->size, "the data directory %s ", opening->path);
    if (len >= 0 && (size_t)len < opening->size) {
        va_start(arguments, format);
        vsnprintf(opening->message + len, opening->size - (size_t)len, format, arguments);
        va_end(arguments);
    }
    return error;
}

/* The directory */

/* So that the directory itself survives a loss of power. */
static int sync_parent(const char *path)
{
    char parent[PATH_MAX];
    int error = 0;

    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (!slash)
        snprintf(parent, sizeof parent, ".");
    else
        slash[slash == parent] = '\0';
    int file = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    if (fsync(file) < 0)
        error = -errno;
    close(file);
    return error;
}

static int make_one(const char *path)
{
    struct stat status;
    if (mkdir(path, 0700) == 0) {
        int synced = sync_parent(path);
        return synced == -EACCES ? 0 : synced; /* who may write there may not always read */
    }
    int error = -errno;
    /* Where it exists, mkdir may complain about other things first, a read-only filesystem say. */
    return stat(path, &status) == 0 ? 0 : error;
}

static int make_directory(const struct opening *opening)
{
    char path[PATH_MAX];
    int error = 0;

    if (strlen(opening->path) + NAME_MAX >= sizeof path)
        return refuse(opening, -ENAMETOOLONG, "has too long a name");
    snprintf(path, sizeof path, "%s", opening->path);
    for (char *at = path + 1; *path && *at && !error; at++) {
        if (*at != '/' || at[-1] == '/')
            continue;
        *at = '\0';
        error = make_one(path);
        *at = '/';
    }
    if (!error)
        error = make_one(path);
    return error ? refuse(opening, error, "cannot be made: %s", strerror(-error)) : 0;
}

static int check_directory(struct opening *opening)
{
    struct stat status;

    opening->directory = open(opening->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opening->directory < 0 || fstat(opening->directory, &status) < 0) {
        int error = -errno;
        return refuse(opening, error, "cannot be opened: %s", strerror(-error));
    }
    if (status.st_uid != geteuid())
        return refuse(opening, -EPERM, "belongs to user %ld, but lockfsd runs as user %ld",
                      (long)status.st_uid, (long)geteuid());
    if (status.st_mode & (S_IWGRP | S_IWOTH))
        return refuse(opening, -EPERM, "can be written by other users: mode %03o instead of 700",
                      (unsigned)(status.st_mode & 0777));
    return 0;
}

/* The lock */

static long read_pid(int file)
{
    char text[32] = "";
    if (pread(file, text, sizeof text - 1, 0) <= 0)
        return 0;
    return strtol(text, NULL, 10);
}

/* For those who are refused, so it does not matter whether it works. Always of one length, so that
 * nothing is left of the last one. */
static void write_pid(int file)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%-20ld\n", (long)getpid());
    ssize_t done = pwrite(file, text, (size_t)len, 0);
    (void)done;
}

/* Whether the name still leads to the file that was locked. */
static bool is_named(const struct opening *opening, int file)
{
    struct stat named;
    struct stat locked;
    return fstatat(opening->directory, "lock", &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstat(file, &locked) == 0 && named.st_dev == locked.st_dev &&
           named.st_ino == locked.st_ino;
}

static int lock_directory(const struct opening *opening, int *ret_file)
{
    for (;;) {
        int file =
            openat(opening->directory, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (file < 0) {
            int error = -errno;
            return refuse(opening, error, "cannot be written: %s", strerror(-error));
        }
        if (flock(file, LOCK_EX | LOCK_NB) < 0) {
            int error = -errno;
            long pid = read_pid(file);
            close(file);
            if (error != -EWOULDBLOCK)
                return refuse(opening, error, "cannot be locked: %s", strerror(-error));
            if (pid <= 0)
                return refuse(opening, -EBUSY, "is in use by another lockfsd");
            return refuse(opening, -EBUSY, "is in use by another lockfsd (pid %ld)", pid);
        }
        if (is_named(opening, file)) {
            write_pid(file);
            *ret_file = file;
            return 0;
        }
        close(file);
    }
}

/* The identity: "lockfs-data VERSION IDENTITY CHECKSUM", the latter two hexadecimal, of 16 and 8
 * digits. Other versions will begin like this, too. */

#define BEGINNING "lockfs-data "

static uint32_t checksum(char *text, size_t len)
{
    return crc32c(0, text, len);
}

static int format_identity(uint64_t identity, char *text, size_t size)
{
    int len = snprintf(text, size, BEGINNING "%d %016" PRIx64, VERSION, identity);
    return len + snprintf(text + len, size - (size_t)len, " %08" PRIx32 "\n",
                          checksum(text, (size_t)len));
}

/* -ENOENT, without a sentence, where there is none. */
static int read_identity(const struct opening *opening, uint64_t *ret_identity)
{
    char text[IDENTITY_BYTES_MAX];
    char expected[IDENTITY_BYTES_MAX];
    uint64_t identity = 0;

    int file = openat(opening->directory, "identity", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0 && errno == ENOENT)
        return -ENOENT;
    ssize_t len = file < 0 ? -1 : read(file, text, sizeof text - 1);
    int error = -errno;
    if (file >= 0)
        close(file);
    if (len < 0)
        return refuse(opening, error == -ENOENT ? -EIO : error,
                      "has a file 'identity' that cannot be read: %s", strerror(-error));
    text[len] = '\0';
    if (strncmp(text, BEGINNING, strlen(BEGINNING)) == 0) {
        char *after;
        unsigned long version = strtoul(text + strlen(BEGINNING), &after, 10);
        if (version > VERSION)
            return refuse(opening, -EPROTO,
                          "has format version %lu, but this lockfsd knows version %d only", version,
                          VERSION);
        identity = strtoull(after, NULL, 16);
    }
    /* What it must be is known once the identity is. */
    if (identity == 0 || format_identity(identity, expected, sizeof expected) != len ||
        memcmp(text, expected, (size_t)len) != 0)
        return refuse(opening, -EBADMSG, "has a damaged file 'identity'");
    /* A name that is there after a kill may be on no disk yet. */
    if (fsync(opening->directory) < 0)
        return refuse(opening, -errno, "cannot be synced: %s", strerror(errno));
    *ret_identity = identity;
    return 0;
}

static bool is_one_of(const char *name, const char *const *names)
{
    while (*names && strcmp(name, *names) != 0)
        names++;
    return *names != NULL;
}

/* A log without an identity is not a new node: something was deleted. And a directory with other
 * files in it is somebody else's: a mistake on the command line. */
static int check_is_new(const struct opening *opening)
{
    static const char *const expected[] = {".", "..", "lock", "identity.new", "lost+found", NULL};
    bool log = false;
    char foreign[NAME_MAX + 1] = "";
    struct dirent *entry;

    DIR *directory = opendir(opening->path);
    if (!directory)
        return refuse(opening, -errno, "cannot be listed: %s", strerror(errno));
    while ((entry = readdir(directory)) != NULL) {
        if (strncmp(entry->d_name, "log-", 4) == 0 || strncmp(entry->d_name, "snapshot-", 9) == 0 ||
            strcmp(entry->d_name, "reserve") == 0)
            log = true;
        else if (!is_one_of(entry->d_name, expected))
            snprintf(foreign, sizeof foreign, "%s", entry->d_name);
    }
    closedir(directory);
    if (log)
        return refuse(opening, -EBADMSG, "has a log, but its file 'identity' is missing");
    if (foreign[0])
        return refuse(opening, -ENOTEMPTY,
                      "has '%s' in it, which is none of lockfs's: a new one must be empty",
                      foreign);
    return 0;
}

static int write_identity(const struct opening *opening, const char *text, size_t len)
{
    int error = 0;
    int file = openat(opening->directory, "identity.new",
                      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return -errno;
    ssize_t done = write(file, text, len);
    if (done != (ssize_t)len)
        error = done < 0 ? -errno : -ENOSPC;
    else if (fsync(file) < 0)
        error = -errno;
    close(file);
    if (!error && renameat(opening->directory, "identity.new", opening->directory, "identity") < 0)
        error = -errno;
    if (!error && fsync(opening->directory) < 0)
        error = -errno;
    return error;
}

static int make_identity(const struct opening *opening, uint64_t *ret_identity)
{
    char text[IDENTITY_BYTES_MAX];
    uint64_t identity = 0;

    int error = check_is_new(opening);
    if (error)
        return error;
    while (identity == 0) {
        if (getrandom(&identity, sizeof identity, 0) != sizeof identity)
            return refuse(opening, -EIO, "cannot get an identity: no random numbers");
    }
    int len = format_identity(identity, text, sizeof text);
    assert(len > 0 && (size_t)len < sizeof text);
    error = write_identity(opening, text, (size_t)len);
    if (error)
        return refuse(opening, error, "cannot be written: %s", strerror(-error));
    *ret_identity = identity;
    return 0;
}
