/*
 * fs/guard: with it, nothing can be created under the mount point while no lockfsd serves it. Runs
 * as root, in a mount namespace of its own, on the filesystem of TMPDIR and on a tmpfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/guard.h"
#include "fs/mounts.h"
#include "tests/lib/tap.h"

#define NOBODY 65534

/* Where the tests work, and whether a directory there can be immutable. */
static char base[PATH_MAX];
static bool can_immutable;

/* The mount point of the test at hand, a fresh directory each. */
static char point[PATH_MAX + 32];
static char message[2048];

static void point_make(const char *name)
{
    static unsigned number;

    snprintf(point, sizeof point, "%s/%s-%u", base, name, number++);
    if (mkdir(point, 0755) != 0)
        tap_ok(false, "mkdir %s: %s", point, strerror(errno));
    tap_note("%s", name);
}

static const char *in_point(const char *name)
{
    static char path[2 * PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", point, name);
    return path;
}

/* What creating a file, or a directory, in the mount point gives: 0 or an errno. */
static int create_error(void)
{
    int error = 0;
    int fd = open(in_point("probe"), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);

    if (fd < 0)
        error = errno;
    else
        unlink(in_point("probe"));
    if (fd >= 0)
        close(fd);
    if (mkdir(in_point("probe-dir"), 0755) == 0) {
        rmdir(in_point("probe-dir"));
        return error == 0 ? 0 : -1;
    }
    return error == errno ? error : -1;
}

/* The immutable flag of the mount point, on whatever is on top. Negative where there is none. */
static int flag_get(const char *path)
{
    unsigned int flags = 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    int error = ioctl(fd, FS_IOC_GETFLAGS, &flags);
    close(fd);
    return error != 0 ? -1 : (flags & FS_IMMUTABLE_FL) != 0;
}

static bool flag_set(const char *path, bool immutable)
{
    unsigned int flags = 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return false;
    bool done = ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0;
    flags = immutable ? flags | FS_IMMUTABLE_FL : flags & ~(unsigned int)FS_IMMUTABLE_FL;
    done = done && ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
    close(fd);
    return done;
}

static size_t mounts_count(void)
{
    struct mount_stack stack = {0};

    if (mounts_on(point, &stack) != 0)
        tap_ok(false, "look at the mounts");
    return stack.count;
}

static bool guard_on_top(void)
{
    struct mount_stack stack = {0};

    mounts_on(point, &stack);
    const struct mount_entry *top = mounts_top(&stack);
    return top != NULL && strcmp(top->type, "tmpfs") == 0 &&
           strcmp(top->source, GUARD_SOURCE) == 0 && top->read_only;
}

static bool says(const char *part)
{
    bool found = strstr(message, part) != NULL;

    if (!found)
        tap_note("message: %s", message);
    return found;
}

/* Each call, its result, and that the message is there exactly where there is something to say. */
static void prepare(const char *path, int expected)
{
    strcpy(message, "untouched");
    tap_equal(mount_point_prepare(path, message, sizeof message), expected, "prepare");
    tap_ok(strcmp(message, "untouched") != 0 && strchr(message, '\n') == NULL, "  a message");
    if (expected != 0)
        tap_ok(strncmp(message, path, strlen(path)) == 0 || path[0] != '/',
               "  which names the mount point");
}

static void lay(const char *path, int expected)
{
    bool immutable = !can_immutable;

    strcpy(message, "untouched");
    tap_equal(guard_lay(path, &immutable, message, sizeof message), expected, "lay");
    if (expected == 0)
        tap_ok(immutable == can_immutable && message[0] == '\0', "  nothing to say; immutable: %s",
               immutable ? "yes" : "no");
    else
        tap_ok(strlen(message) > 10 && immutable != can_immutable, "  a message");
}

static void take_away(const char *path, int expected)
{
    strcpy(message, "untouched");
    tap_equal(guard_remove(path, message, sizeof message), expected, "remove");
    tap_ok(strlen(message) > 10 && strchr(message, '\n') == NULL, "  a message");
}

static void test_lay_and_remove(void)
{
    struct statvfs status;

    point_make("lay-and-remove");
    prepare(point, 0);
    tap_ok(message[0] == '\0', "nothing to say about a good mount point");
    tap_equal(create_error(), 0, "files can be made before");
    lay(point, 0);
    tap_ok(mounts_count() == 1 && guard_on_top(), "the guard lies there, read-only");
    tap_equal(create_error(), EROFS, "nothing can be made");
    tap_ok(statvfs(point, &status) == 0 &&
               (status.f_flag & (ST_NODEV | ST_NOSUID | ST_NOEXEC | ST_RDONLY)) ==
                   (ST_NODEV | ST_NOSUID | ST_NOEXEC | ST_RDONLY) &&
               status.f_blocks * status.f_frsize <= 65536,
           "nodev, nosuid, noexec, ro, small");

    lay(point, 0);
    tap_equal(mounts_count(), 1, "a second one is not laid");
    prepare(point, 0);
    tap_ok(mounts_count() == 1 && guard_on_top(), "the guard is no obstacle");

    take_away(point, 0);
    tap_ok(says("removed"), "it says so");
    tap_equal(mounts_count(), 0, "the guard is away");
    tap_equal(create_error(), 0, "files can be made again");
    tap_ok(flag_get(point) <= 0, "no flag is left");
    take_away(point, 0);
    tap_ok(says("there was no guard"), "removing nothing is no error");
}

static void test_reboot(void)
{
    point_make("reboot");
    lay(point, 0);
    tap_equal(umount2(point, MNT_DETACH), 0, "the tmpfs goes, as by a reboot");
    tap_equal(create_error(), can_immutable ? EPERM : 0, "nothing can be made where it can be so");
    prepare(point, 0);
    lay(point, 0);
    tap_ok(mounts_count() == 1 && guard_on_top(), "the next start lays the guard again");
    tap_equal(umount2(point, MNT_DETACH), 0, "another reboot");
    take_away(point, 0);
    tap_ok(says(can_immutable ? "removed" : "there was no guard"), "half a guard is one");
    tap_equal(create_error(), 0, "files can be made again");

    /* The boot unit lays a tmpfs only; what the start adds is found below it. */
    tap_equal(mount(GUARD_SOURCE, point, "tmpfs", MS_RDONLY, "size=4k"), 0, "a guard by mount(8)");
    lay(point, 0);
    tap_equal(mounts_count(), 1, "is kept");
    umount2(point, MNT_DETACH);
    tap_equal(flag_get(point) == 1, can_immutable, "and the directory below was made immutable");
    take_away(point, 0);
}

static void test_spellings(void)
{
    char name[PATH_MAX + 64];
    const char *last;

    point_make("spellings");
    last = strrchr(point, '/') + 1;
    snprintf(name, sizeof name, "%s///", point);
    lay(name, 0);
    tap_equal(mounts_count(), 1, "slashes at the end");
    if (chdir(base) != 0)
        tap_ok(false, "chdir");
    lay(last, 0);
    prepare(last, 0);
    tap_equal(mounts_count(), 1, "relative");
    if (chdir(point) != 0)
        tap_ok(false, "chdir");
    lay(".", 0);
    prepare(".", 0);
    tap_equal(mounts_count(), 1, "the working directory");
    snprintf(name, sizeof name, "%s/link", base);
    if (symlink(last, name) != 0)
        tap_ok(false, "symlink");
    lay(name, 0);
    tap_equal(mounts_count(), 1, "a link");
    take_away(name, 0);
    tap_equal(mounts_count(), 0, "removed by the link");
    unlink(name);
    if (chdir("/") != 0)
        tap_ok(false, "chdir");
    lay("/", -EBUSY);
    prepare("/", -EBUSY);
    take_away("/", -EBUSY);
}

static void test_at_once(void)
{
    enum { PROCESSES = 8, ROUNDS = 25 };
    size_t failed = 0;
    size_t others = 0;

    point_make("at-once");
    for (int round = 0; round < ROUNDS; round++) {
        int gate[2];
        if (pipe(gate) != 0)
            abort();
        pid_t children[PROCESSES];
        for (size_t i = 0; i < PROCESSES; i++) {
            children[i] = fork();
            if (children[i] == 0) {
                bool immutable;
                char byte;
                close(gate[1]);
                if (read(gate[0], &byte, 1) != 0)
                    _exit(2);
                _exit(guard_lay(point, &immutable, message, sizeof message) != 0);
            }
        }
        close(gate[0]);
        close(gate[1]); /* and off they go */
        for (size_t i = 0; i < PROCESSES; i++) {
            int status = 1;
            waitpid(children[i], &status, 0);
            failed += status != 0;
        }
        others += mounts_count() != 1;
        guard_remove(point, message, sizeof message);
    }
    tap_equal(failed, 0, "several processes lay it at once");
    tap_equal(others, 0, "and it always lies there once");
    tap_equal(mounts_count(), 0, "and can be taken away");
}

/* Somebody who locks the directory for ever does not keep the daemon from starting. */
static void test_locked(void)
{
    point_make("locked");
    int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tap_ok(fd >= 0 && syscall(SYS_flock, fd, 2 /* LOCK_EX */) == 0, "the directory is locked");
    lay(point, 0);
    take_away(point, 0);
    close(fd);
}

static void test_stacked(void)
{
    point_make("stacked");
    for (int i = 0; i < 3; i++)
        mount(GUARD_SOURCE, point, "tmpfs", MS_RDONLY, "size=4k");
    tap_equal(mounts_count(), 3, "three guards, laid by somebody else");
    lay(point, 0);
    tap_equal(mounts_count(), 3, "get no fourth");
    take_away(point, 0);
    tap_equal(mounts_count(), 0, "and go together");
}

static void test_others(void)
{
    point_make("others");
    lay(point, 0);
    tap_equal(mount("somebody", point, "tmpfs", 0, "size=64k"), 0, "another mount on the guard");
    prepare(point, -EBUSY);
    tap_ok(says("somebody") && says("tmpfs"), "it says what is mounted");
    lay(point, -EBUSY);
    take_away(point, -EBUSY);
    tap_equal(mounts_count(), 2, "nothing was touched");
    umount2(point, MNT_DETACH);
    tap_equal(mount(GUARD_SOURCE, point, "ramfs", 0, NULL), 0, "our name, another type");
    prepare(point, -EBUSY);
    umount2(point, MNT_DETACH);
    take_away(point, 0);
}

static void test_contents(void)
{
    char path[PATH_MAX + 64];

    point_make("contents");
    snprintf(path, sizeof path, "%s/missing", point);
    prepare(path, -ENOENT);
    take_away(path, -ENOENT);
    lay(path, -ENOENT);
    strcpy(path, in_point(".hidden"));
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    close(fd);
    prepare(path, -ENOTDIR);
    lay(path, -ENOTDIR);
    prepare(point, -ENOTEMPTY);
    tap_ok(says(".hidden") && says("local"), "it names a file, and what it may be");
    tap_equal(mounts_count(), 0, "nothing was mounted");
    lay(point, 0);
    prepare(point, -ENOTEMPTY);
    tap_ok(says("--remove-guard"), "also below the guard");
    take_away(point, 0);
    tap_equal(unlink(path), 0, "the file can be removed then");
    prepare(point, 0);
}

/* A lockfs that answers, to whoever asks, that its root is a directory. */
static void serve(int device)
{
    struct {
        union {
            struct fuse_in_header header;
            char bytes[FUSE_MIN_READ_BUFFER * 16];
        };
    } in;
    struct {
        struct fuse_out_header header;
        union {
            struct fuse_init_out init;
            struct fuse_attr_out attr;
            struct fuse_open_out open;
        };
    } out;

    for (;;) {
        ssize_t got = read(device, &in, sizeof in);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < (ssize_t)sizeof in.header)
            _exit(0);
        memset(&out, 0, sizeof out);
        size_t body = 0;
        if (in.header.opcode == FUSE_INIT) {
            out.init.major = FUSE_KERNEL_VERSION;
            out.init.minor = 31;
            out.init.max_write = 65536;
            body = sizeof out.init;
        } else if (in.header.opcode == FUSE_GETATTR) {
            out.attr.attr_valid = 3600; /* the kernel's memory must not pass for a daemon */
            out.attr.attr.ino = 1;
            out.attr.attr.mode = S_IFDIR | 0755;
            out.attr.attr.nlink = 2;
            body = sizeof out.attr;
        } else if (in.header.opcode == FUSE_FORGET) {
            continue;
        } else {
            out.header.error = -ENOSYS;
        }
        out.header.unique = in.header.unique;
        out.header.len = (uint32_t)(sizeof out.header + body);
        if (write(device, &out, out.header.len) < 0 && errno == ENODEV)
            _exit(0);
    }
}

static int lockfs_mount(void)
{
    char options[120];
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other",
             device);
    if (mount("lockfs", point, GUARD_LOCKFS_TYPE, MS_NODEV | MS_NOSUID, options) != 0)
        tap_ok(false, "mount a FUSE filesystem: %s", strerror(errno));
    return device;
}

static pid_t lockfs_start(void)
{
    struct stat status;
    int device = lockfs_mount();
    pid_t daemon = fork();

    if (daemon == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(device);
    }
    close(device);
    /* From now on the kernel remembers the attributes of the root. */
    tap_ok(stat(point, &status) == 0 && access(point, F_OK) == 0, "a lockfs lives");
    return daemon;
}

static void lockfs_kill(pid_t daemon)
{
    struct statx status;

    kill(daemon, SIGKILL);
    waitpid(daemon, NULL, 0);
    tap_ok(statx(AT_FDCWD, point, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &status) != 0 &&
               errno == ENOTCONN,
           "the mount is dead");
}

static void test_alive(void)
{
    point_make("alive");
    lay(point, 0);
    pid_t daemon = lockfs_start();
    prepare(point, -EBUSY);
    tap_ok(says("another lockfsd"), "no second one may start");
    lay(point, -EBUSY);
    take_away(point, -EBUSY);
    tap_ok(says("umount "), "it names the command that is needed first");
    tap_ok(mounts_count() == 2 && access(point, F_OK) == 0, "nothing was touched");

    kill(daemon, SIGSTOP);
    waitpid(daemon, NULL, WUNTRACED);
    prepare(point, -EBUSY);
    tap_ok(mounts_count() == 2, "one that is stopped lives");
    kill(daemon, SIGCONT);
    umount2(point, MNT_DETACH);
    waitpid(daemon, NULL, 0);
    tap_ok(guard_on_top(), "the guard remains when it goes");
    tap_equal(create_error(), EROFS, "and guards");
    take_away(point, 0);
}

static void test_dead(void)
{
    point_make("dead");
    lay(point, 0);
    lockfs_kill(lockfs_start());
    tap_equal(create_error(), ENOTCONN, "nothing can be made");
    take_away(point, -EBUSY);
    tap_ok(says("umount ") && says("dead"), "it names the command that is needed first");
    lay(point, -EBUSY);
    prepare(point, 0);
    tap_ok(says("dead"), "it says what it did");
    tap_ok(mounts_count() == 1 && guard_on_top(), "the dead mount is away, the guard is not");

    lockfs_kill(lockfs_start());
    lockfs_kill(lockfs_start());
    tap_equal(mounts_count(), 3, "two dead ones");
    prepare(point, 0);
    tap_ok(mounts_count() == 1 && guard_on_top(), "go together");
    lockfs_kill(lockfs_start());
    pid_t daemon = lockfs_start();
    prepare(point, -EBUSY);
    tap_equal(mounts_count(), 3, "a living one on a dead one is left");
    umount2(point, MNT_DETACH);
    waitpid(daemon, NULL, 0);
    prepare(point, 0);
    take_away(point, 0);

    lockfs_kill(lockfs_start());
    prepare(point, 0);
    tap_equal(mounts_count(), 0, "a dead one without a guard goes, too");

    daemon = lockfs_start();
    if (chdir(point) != 0)
        tap_ok(false, "chdir: %s", strerror(errno));
    lockfs_kill(daemon);
    prepare(".", 0);
    tap_equal(mounts_count(), 0, "also when one stands in it");
    if (chdir("/") != 0)
        tap_ok(false, "chdir");
}

static bool in_child(void (*body)(void))
{
    int status = 1;
    pid_t child = fork();

    if (child == 0) {
        body();
        _exit(1);
    }
    waitpid(child, &status, 0);
    return status == 0;
}

static void body_nobody(void)
{
    bool immutable;

    if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
        _exit(2);
    if (mount_point_prepare(point, message, sizeof message) != 0)
        _exit(3);
    if (guard_lay(point, &immutable, message, sizeof message) != -EPERM)
        _exit(4);
    _exit(strstr(message, "--unguarded") != NULL ? 0 : 5);
}

static void body_remove(void)
{
    if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
        _exit(2);
    _exit(guard_remove(point, message, sizeof message) == -EPERM ? 0 : 3);
}

/* May set flags, may not mount. */
static void body_cannot_mount(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    bool immutable;

    if (syscall(SYS_capget, &header, data) != 0)
        _exit(2);
    data[CAP_SYS_ADMIN / 32].effective &= ~(1u << (CAP_SYS_ADMIN % 32));
    if (syscall(SYS_capset, &header, data) != 0)
        _exit(3);
    _exit(guard_lay(point, &immutable, message, sizeof message) == -EPERM ? 0 : 4);
}

static void test_unprivileged(void)
{
    point_make("unprivileged");
    tap_ok(in_child(body_nobody), "without root the answer is EPERM, and names --unguarded");
    tap_ok(in_child(body_cannot_mount), "without the right to mount, too");
    tap_ok(flag_get(point) <= 0, "and the directory is as it was");
    tap_equal(create_error(), 0, "files can be made");
    lay(point, 0);
    tap_ok(in_child(body_remove), "nor can the guard be removed without root");
    tap_ok(guard_on_top(), "it is still there");
    take_away(point, 0);
}

/* The kernel's answer, found without guard.c. */
static void find_out_immutable(void)
{
    point_make("can-it-be-immutable");
    can_immutable = flag_set(point, true);
    if (can_immutable)
        flag_set(point, false);
}

static void test_all(const char *what)
{
    find_out_immutable();
    tap_note("%s: directories %s be immutable here", what, can_immutable ? "can" : "cannot");
    test_lay_and_remove();
    test_reboot();
    test_spellings();
    test_at_once();
    test_locked();
    test_stacked();
    test_others();
    test_contents();
    test_alive();
    test_dead();
    test_unprivileged();
}

static int run(void)
{
    char directory[PATH_MAX];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        tap_ok(false, "a mount namespace of its own: %s: this test must run as root",
               strerror(errno));
        return tap_done();
    }
    test_all("TMPDIR");

    strcpy(directory, base);
    if (strlen(base) + 7 < sizeof base)
        strcat(base, "/tmpfs");
    if (mkdir(base, 0755) != 0 || mount("test", base, "tmpfs", 0, "size=1m,mode=0755") != 0)
        tap_ok(false, "mount a tmpfs at %s: %s", base, strerror(errno));
    test_all("tmpfs");
    strcpy(base, directory);
    return tap_done();
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status;
    (void)ftw;
    if (type == FTW_DP || type == FTW_DNR)
        flag_set(path, false);
    remove(path);
    return 0;
}

static int unflag_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status;
    (void)ftw;
    if (type == FTW_D)
        flag_set(path, false);
    return 0;
}

/* The tests run in a child: its mounts go when it ends, however it does. Then flags and files. */
int main(void)
{
    const char *directory = getenv("TMPDIR");
    char name[PATH_MAX];
    int status = 1;

    snprintf(name, sizeof name, "%s/lockfs-guard-XXXXXX", directory != NULL ? directory : "/tmp");
    if (mkdtemp(name) == NULL || realpath(name, base) == NULL || chmod(base, 0755) != 0) {
        perror(name);
        return 1;
    }
    pid_t child = fork();
    if (child == 0)
        exit(run());
    waitpid(child, &status, 0);
    nftw(base, unflag_one, 16, FTW_PHYS);
    nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (WIFSIGNALED(status))
        printf("# killed by signal %d\n", WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
