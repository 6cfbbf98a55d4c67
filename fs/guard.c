/* The guard of the mount point. See guard.h. */
#include "guard.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mounts.h"

/* How long a mounted lockfs may take to answer before it counts as alive, but stuck. */
#define PROBE_TIMEOUT_MS 3000
#define PROBE_KILL_MS    1000

/* How long to wait for another lockfsd that works on the same guard. */
#define LOCK_TIMEOUT_MS 1000

/* The sentence for `error`, which is returned. */
__attribute__((format(printf, 4, 5))) static int say(char *message, size_t message_size, int error,
                                                     const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(message, message_size, format, args);
    va_end(args);
    return error;
}

static int resolve(const char *mount_point, char *ret_path, char *message, size_t message_size);
static int read_stack(const char *path, struct mount_stack *ret_stack, char *message,
                      size_t message_size);
static bool is_guard(const struct mount_entry *entry);
static bool is_lockfs(const struct mount_entry *entry);
static int lockfs_probe(const char *path);
static int refuse_mounted(const char *path, const struct mount_entry *entry, char *message,
                          size_t message_size);
static int check_directory(const char *path, bool covered, char *message, size_t message_size);

int mount_point_prepare(const char *mount_point, char *message, size_t message_size)
{
    char path[PATH_MAX];
    struct mount_stack stack;
    size_t dead = 0;

    int error = resolve(mount_point, path, message, message_size);
    if (error != 0)
        return error;
    for (;;) {
        error = read_stack(path, &stack, message, message_size);
        if (error != 0)
            return error;
        const struct mount_entry *top = mounts_top(&stack);
        if (top == NULL || is_guard(top))
            break;
        if (!is_lockfs(top) || lockfs_probe(path) != -ENOTCONN)
            return refuse_mounted(path, top, message, message_size);
        if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
            return say(message, message_size, -errno,
                       "%s: cannot unmount what a dead lockfsd has left there: %s (as its user: "
                       "fusermount3 -u %s)",
                       path, strerror(errno), path);
        dead++;
    }
    error = check_directory(path, stack.count > 0, message, message_size);
    if (error != 0)
        return error;
    if (dead > 0)
        return say(message, message_size, 0, "%s: unmounted what a dead lockfsd had left there",
                   path);
    return say(message, message_size, 0, "%s", "");
}

static int resolve(const char *mount_point, char *ret_path, char *message, size_t message_size)
{
    char path[PATH_MAX];
    int error = mounts_resolve(mount_point, path);

    if (error == -ENOENT)
        return say(message, message_size, error,
                   "%s: no such directory: the mount point must exist", mount_point);
    if (error != 0)
        return say(message, message_size, error, "%s: cannot be a mount point: %s", mount_point,
                   strerror(-error));
    if (strcmp(path, "/") == 0)
        return say(message, message_size, -EBUSY, "%s: the root directory cannot be a mount point",
                   mount_point);
    strcpy(ret_path, path);
    return 0;
}

static int read_stack(const char *path, struct mount_stack *ret_stack, char *message,
                      size_t message_size)
{
    int error = mounts_on(path, ret_stack);

    if (error != 0)
        return say(message, message_size, error, "%s: cannot tell what is mounted there: %s", path,
                   strerror(-error));
    return 0;
}

static bool is_guard(const struct mount_entry *entry)
{
    return strcmp(entry->type, "tmpfs") == 0 && strcmp(entry->source, GUARD_SOURCE) == 0;
}

static bool is_lockfs(const struct mount_entry *entry)
{
    return strcmp(entry->type, GUARD_LOCKFS_TYPE) == 0;
}

/* 0, or an errno. Never answered from the attributes that the kernel remembers. */
static int ask(const char *path)
{
    struct statx status;

    if (statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &status) == 0)
        return 0;
    return errno;
}

/* -ENOTCONN: the daemon of the lockfs at `path` is dead. Anything else: it lives, or may. A child
 * asks, since a daemon that lives and is stopped never answers, and can make who asks unkillable.
 */
static int lockfs_probe(const char *path)
{
    pid_t child = fork();

    if (child < 0)
        return -errno;
    if (child == 0)
        _exit(ask(path));

    int error = -ETIMEDOUT;
    struct pollfd ended = {.fd = pidfd_open(child, 0), .events = POLLIN};
    if (ended.fd < 0)
        error = -errno;
    int got;
    do {
        got = ended.fd < 0 ? 0 : poll(&ended, 1, PROBE_TIMEOUT_MS);
    } while (got < 0 && errno == EINTR);
    int status;
    if (got == 1 && waitpid(child, &status, 0) == child) {
        error = WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
        if (error == -ECONNABORTED) /* it died while it was asked */
            error = -ENOTCONN;
    } else {
        kill(child, SIGKILL);
        poll(&ended, 1, PROBE_KILL_MS);
        waitpid(child, NULL, WNOHANG);
    }
    if (ended.fd >= 0)
        close(ended.fd);
    return error;
}

static int refuse_mounted(const char *path, const struct mount_entry *entry, char *message,
                          size_t message_size)
{
    if (is_lockfs(entry))
        return say(message, message_size, -EBUSY,
                   "%s: a lockfs is already mounted there: is another lockfsd running? "
                   "(umount %s)",
                   path, path);
    return say(message, message_size, -EBUSY, "%s: something else is mounted there: %s, of type %s",
               path, entry->source, entry->type);
}

static int directory_below(const char *path, bool covered);
static int first_name(int directory, char *ret_name, size_t size);

/* The directory below all mounts must be one, and empty. `covered`: something is mounted on it. */
static int check_directory(const char *path, bool covered, char *message, size_t message_size)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return say(message, message_size, -errno, "%s: cannot be a mount point: %s", path,
                   strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return say(message, message_size, -ENOTDIR, "%s: is not a directory", path);

    int directory = directory_below(path, covered);
    if (directory < 0 && covered)
        return 0; /* nobody can look there, and the guard that lies on it is empty */
    if (directory < 0)
        return say(message, message_size, directory, "%s: cannot be read: %s", path,
                   strerror(-directory));
    char name[NAME_MAX + 1] = "";
    int error = first_name(directory, name, sizeof name);
    close(directory);
    if (error != 0)
        return say(message, message_size, error, "%s: cannot be read: %s", path, strerror(-error));
    if (name[0] != '\0')
        return say(message, message_size, -ENOTEMPTY,
                   "%s: the directory is not empty (%s), and a lockfs would hide what is in it: "
                   "locks taken there were local ones%s%s%s",
                   path, name, covered ? "; lockfsd --remove-guard " : "", covered ? path : "",
                   covered ? " lets you look" : "");
    return 0;
}

/* A descriptor of the directory itself, below whatever is mounted on it: found in a copy of the
 * mount that it is in, which has none of the mounts above. */
static int directory_below(const char *path, bool covered)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    char parent[PATH_MAX];

    assert(path[0] == '/' && strlen(path) < sizeof parent);
    strcpy(parent, path);
    char *slash = strrchr(parent, '/');
    slash[slash == parent ? 1 : 0] = '\0';
    const char *name = strrchr(path, '/') + 1;

    int fd;
    int tree = open_tree(AT_FDCWD, parent, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree >= 0)
        fd = openat(tree, name, flags);
    else if (!covered) /* without the privilege */
        fd = open(path, flags);
    else
        return -errno;
    int error = fd < 0 ? -errno : 0;
    if (tree >= 0)
        close(tree);
    return error != 0 ? error : fd;
}

/* A name in the directory; leaves `ret_name` alone where it is empty. */
static int first_name(int directory, char *ret_name, size_t size)
{
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy < 0)
        return -errno;
    DIR *stream = fdopendir(copy);
    if (stream == NULL) {
        int error = -errno;
        close(copy);
        return error;
    }
    struct dirent *entry;
    do {
        errno = 0;
        entry = readdir(stream);
    } while (entry != NULL &&
             (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    int error = entry == NULL ? -errno : 0;
    if (entry != NULL)
        snprintf(ret_name, size, "%s", entry->d_name);
    closedir(stream);
    return error;
}

static void lock_briefly(int directory);
static int set_immutable(int directory, bool immutable, bool *ret_changed);
static int mount_guard(const char *path, char *message, size_t message_size);

int guard_lay(const char *mount_point, bool *ret_immutable, char *message, size_t message_size)
{
    char path[PATH_MAX];
    struct mount_stack stack;

    int error = resolve(mount_point, path, message, message_size);
    if (error == 0)
        error = read_stack(path, &stack, message, message_size);
    if (error != 0)
        return error;

    /* Two that start at once must not lay two guards. */
    int directory = directory_below(path, stack.count > 0);
    if (directory >= 0)
        lock_briefly(directory);
    bool immutable = false;
    bool changed = false;
    error = read_stack(path, &stack, message, message_size);
    if (error != 0)
        goto out;
    const struct mount_entry *top = mounts_top(&stack);
    if (top != NULL && !is_guard(top)) {
        error = refuse_mounted(path, top, message, message_size);
        goto out;
    }

    /* Immutable first: no file gets into the directory before it is covered. */
    if (directory >= 0)
        immutable = set_immutable(directory, true, &changed) == 0;
    if (top == NULL)
        error = mount_guard(path, message, message_size);
    if (error != 0) {
        if (changed)
            set_immutable(directory, false, &changed);
        goto out;
    }
    *ret_immutable = immutable;
    say(message, message_size, 0, "%s", "");
out:
    if (directory >= 0)
        close(directory);
    return error;
}

/* Anybody who can read the directory can lock it, too, so nobody is waited for for long. */
static void lock_briefly(int directory)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};

    for (int waited_ms = 0; waited_ms < LOCK_TIMEOUT_MS; waited_ms += 10) {
        if (flock(directory, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
            return;
        nanosleep(&pause, NULL);
    }
}

/* An errno where the filesystem has no such flag, or does not let us. */
static int set_immutable(int directory, bool immutable, bool *ret_changed)
{
    unsigned int flags = 0; /* an int, whatever the name of the ioctl says */

    if (ioctl(directory, FS_IOC_GETFLAGS, &flags) != 0)
        return -errno;
    unsigned int wanted =
        immutable ? flags | FS_IMMUTABLE_FL : flags & ~(unsigned int)FS_IMMUTABLE_FL;
    bool change = wanted != flags;
    if (change && ioctl(directory, FS_IOC_SETFLAGS, &wanted) != 0)
        return -errno;
    *ret_changed = change;
    return 0;
}

static int mount_guard(const char *path, char *message, size_t message_size)
{
    const unsigned long flags = MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC;

    if (mount(GUARD_SOURCE, path, "tmpfs", flags, "size=4k,nr_inodes=2,mode=0755") == 0)
        return 0;
    int error = -errno;
    if (error == -EPERM)
        return say(message, message_size, error,
                   "%s: only root can guard the mount point against locks taken while lockfsd is "
                   "not running; --unguarded does without",
                   path);
    return say(message, message_size, error, "%s: cannot mount the guard: %s", path,
               strerror(-error));
}

static int refuse_removal(const char *path, const struct mount_stack *stack, char *message,
                          size_t message_size);

int guard_remove(const char *mount_point, char *message, size_t message_size)
{
    char path[PATH_MAX];
    struct mount_stack stack;
    bool unmounted = false;
    bool changed = false;

    int error = resolve(mount_point, path, message, message_size);
    if (error == 0)
        error = read_stack(path, &stack, message, message_size);
    if (error != 0)
        return error;
    int directory = directory_below(path, stack.count > 0);
    if (directory >= 0)
        lock_briefly(directory);
    for (;;) {
        error = read_stack(path, &stack, message, message_size);
        if (error == 0)
            error = refuse_removal(path, &stack, message, message_size);
        if (error != 0)
            goto out;
        if (stack.count == 0)
            break;
        /* Whoever has its working directory there keeps an empty directory that nobody can fill. */
        if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
            error = say(message, message_size, -errno, "%s: cannot unmount the guard: %s", path,
                        strerror(errno));
            goto out;
        }
        unmounted = true;
    }
    if (directory < 0)
        directory = directory_below(path, false);
    if (directory < 0) {
        error = say(message, message_size, directory, "%s: cannot be opened: %s", path,
                    strerror(-directory));
        goto out;
    }
    error = set_immutable(directory, false, &changed);
    if (error == -EPERM || error == -EACCES || error == -EROFS) {
        say(message, message_size, error, "%s: cannot make it mutable again (chattr -i): %s", path,
            strerror(-error));
        goto out;
    }
    error = 0; /* no such flag here */
    if (unmounted || changed)
        say(message, message_size, 0,
            "%s: the guard is removed: without lockfsd, locks taken there are local ones", path);
    else
        say(message, message_size, 0, "%s: there was no guard", path);
out:
    if (directory >= 0)
        close(directory);
    return error;
}

/* Nothing but guards may lie there. */
static int refuse_removal(const char *path, const struct mount_stack *stack, char *message,
                          size_t message_size)
{
    for (size_t i = stack->count; i > 0; i--) {
        const struct mount_entry *entry = &stack->entries[i - 1];
        if (is_guard(entry))
            continue;
        if (!is_lockfs(entry))
            return refuse_mounted(path, entry, message, message_size);
        bool dead = i == stack->count && lockfs_probe(path) == -ENOTCONN;
        return say(message, message_size, -EBUSY,
                   dead ? "%s: the mount of a dead lockfsd lies on the guard: first umount %s"
                        : "%s: a lockfs is mounted on the guard: first stop its lockfsd, "
                          "or umount %s",
                   path, path);
    }
    return 0;
}
