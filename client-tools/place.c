/* Where a lock is: what a path of the command line means. See tool.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fs/lockfs.h"
#include "tool.h"

static int split(const char *path, struct place *place, struct failure *ret_failure);
static int look_at_limit(const char *path, struct place *place, struct failure *ret_failure);

int place_find(const char *path, struct place *ret_place, struct failure *ret_failure)
{
    struct place place = {.unlimited = false};
    int code = split(path, &place, ret_failure);

    if (code == 0)
        code = look_at_limit(path, &place, ret_failure);
    if (code == 0)
        *ret_place = place;
    return code;
}

static int path_failure(const char *path, int error, struct failure *ret_failure)
{
    return fail(ret_failure, exit_code_of(error), "%s: %s", path, explain(error));
}

static int split(const char *path, struct place *place, struct failure *ret_failure)
{
    char directory[PATH_MAX];
    struct stat status;

    if (path[0] == '\0')
        return fail(ret_failure, EXIT_USAGE, "the path of a lock is empty");
    int error = stat(path, &status) == 0 ? 0 : errno;
    if (error == ENOTCONN || error == ECONNABORTED)
        return path_failure(path, error, ret_failure);
    if (error == 0 && S_ISDIR(status.st_mode))
        return realpath(path, place->directory) != NULL ? 0
                                                        : path_failure(path, errno, ret_failure);

    /* A file, which comes and goes with its claims: the directory decides. */
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    size_t length = slash == NULL ? 0 : (size_t)(slash - path);
    if (name[0] == '\0')
        return path_failure(path, ENOENT, ret_failure);
    if (length >= sizeof directory || strlen(name) >= sizeof place->file)
        return path_failure(path, ENAMETOOLONG, ret_failure);
    memcpy(directory, path, length);
    directory[length] = '\0';
    if (slash == path)
        strcpy(directory, "/");
    else if (slash == NULL)
        strcpy(directory, ".");
    if (realpath(directory, place->directory) == NULL)
        return path_failure(directory, errno, ret_failure);
    strcpy(place->file, name);
    /* Whether the target of a link is on a lockfs would depend on whether it is held. */
    if (lstat(path, &status) == 0 && S_ISLNK(status.st_mode))
        return fail(ret_failure, EXIT_NO_LOCK, "%s: is a symbolic link; name the lockfile itself",
                    path);
    return 0;
}

static int look_at_limit(const char *path, struct place *place, struct failure *ret_failure)
{
    char limit_path[PATH_MAX];
    char limit[32] = "";
    struct statfs filesystem;
    uint64_t number;

    if (statfs(place->directory, &filesystem) != 0)
        return path_failure(path, errno, ret_failure);
    if (filesystem.f_type != FUSE_SUPER_MAGIC)
        return fail(ret_failure, EXIT_UNAVAILABLE,
                    "%s: this is not on a lockfs (is lockfsd running?)", path);
    if (!place_join(place, ".limit", limit_path, sizeof limit_path))
        return path_failure(path, ENAMETOOLONG, ret_failure);
    int fd = open(limit_path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && errno == EACCES)
        return 0; /* one may claim without looking; whether it is a lockfs, the claim tells */
    if (fd < 0)
        return path_failure(path, errno == ENOENT ? ENOTTY : errno, ret_failure);
    int error = ioctl(fd, LOCKFS_IOC_TOKEN, &number) == 0 ? 0 : errno;
    ssize_t length = read(fd, limit, sizeof limit - 1);
    if (length < 0)
        error = errno;
    close(fd);
    if (error == ENOTTY || error == ENOSYS)
        return path_failure(path, ENOTTY, ret_failure);
    if (length < 0)
        return path_failure(path, error, ret_failure);
    place->unlimited = strncmp(limit, "unlimited", strlen("unlimited")) == 0;
    return 0;
}

bool place_is_reserved(const struct place *place)
{
    static const char *const names[] = {"token",    "last",   "holders", "waiters", ".limit",
                                        ".release", ".delay", ".ttl",    ".lockfs"};

    if (place->file[0] == '.' && !place->unlimited)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(place->file, names[i]) == 0)
            return true;
    }
    return false;
}

bool place_join(const struct place *place, const char *name, char *ret_path, size_t size)
{
    bool is_root = strcmp(place->directory, "/") == 0;
    int length = snprintf(ret_path, size, "%s/%s", is_root ? "" : place->directory, name);

    return length >= 0 && (size_t)length < size;
}
