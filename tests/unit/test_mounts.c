/*
 * fs/mounts: what is mounted on a path, from texts and on the real kernel. Runs as root, in a mount
 * namespace of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/mounts.h"
#include "tests/lib/tap.h"

static const char text[] =
    "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "30 21 0:25 / /locks ro,nosuid,nodev,noexec - tmpfs lockfs-guard ro,size=4k\n"
    "31 30 0:26 / /locks rw,nosuid,nodev shared:7 master:2 - fuse.lockfs lockfs rw,user_id=0\n"
    "32 21 0:27 / /a\\040b\\011c\\012d\\134e\\043f rw - tmpfs with\\040blank rw\n"
    "33 21 0:28 / /empty rw -  - \n"
    "34 21 0:28 / /empty-source rw - tmpfs  ro\n"
    "36 35 0:30 / /order rw - tmpfs second rw\n"
    "35 21 0:29 / /order rw - tmpfs first rw\n"
    "40 99 0:31 / /hidden rw - tmpfs hidden rw\n"
    "41 21 0:32 / /locks-2 rw,errors=ro - ext4 name-goes-on rw,ro=1\n"
    "42 21 0:33 / /locks/below rw - tmpfs below rw\n"
    "43 43 0:34 / /itself rw - tmpfs itself rw\n"
    "50 21 0:35 / /no-dash rw shared:1\n"
    "x 21 0:35 / /no-number rw - tmpfs none rw\n"
    "\n"
    "51 21 0:36 / /last rw - tmpfs last rw"; /* no newline */

static struct mount_stack parse(const char *path, int parent_id, size_t expected)
{
    struct mount_stack stack = {0};

    tap_equal(mounts_parse(text, parent_id, path, &stack), 0, "parse for %.4s", path);
    tap_equal(stack.count, expected, "so many on it");
    return stack;
}

static void test_parse(void)
{
    struct mount_stack stack = parse("/locks", 21, 2);
    tap_ok(strcmp(stack.entries[0].source, "lockfs-guard") == 0 &&
               strcmp(stack.entries[0].type, "tmpfs") == 0 && stack.entries[0].read_only &&
               stack.entries[0].id == 30,
           "the guard lies below");
    const struct mount_entry *top = mounts_top(&stack);
    tap_ok(top != NULL && strcmp(top->type, "fuse.lockfs") == 0 && !top->read_only && top->id == 31,
           "the lockfs on top");
    stack = parse("/nothing", 21, 0);
    tap_ok(mounts_top(&stack) == NULL, "nothing has no top");
    stack = parse("/a b\tc\nd\\e#f", 21, 1);
    tap_ok(strcmp(stack.entries[0].source, "with blank") == 0, "names are unescaped");
    parse("/a\\040b\\011c\\012d\\134e\\043f", 21, 0);
    stack = parse("/empty-source", 21, 1);
    tap_ok(stack.entries[0].source[0] == '\0' && stack.entries[0].read_only,
           "an empty source shifts nothing; read-only by the filesystem");
    stack = parse("/order", 21, 2);
    tap_ok(strcmp(stack.entries[1].source, "second") == 0, "the order of the lines is nothing");
    parse("/hidden", 21, 0);
    stack = parse("/locks-2", 21, 1);
    tap_ok(!stack.entries[0].read_only, "errors=ro is not ro");
    parse("/lock", 21, 0);
    parse("/itself", 43, 0);
    parse("/no-dash", 21, 0);
    parse("/no-number", 21, 0);
    parse("/last", 21, 1);
}

/* Every beginning of the text, in memory that ends where it does. */
static void test_cut(void)
{
    static const char *const paths[] = {"/locks", "/a b\tc\nd\\e#f", "/order", "/empty", "/last"};
    size_t failed = 0;

    for (size_t len = 0; len < sizeof text; len++) {
        char *cut = strndup(text, len);
        for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
            struct mount_stack stack;
            if (mounts_parse(cut, 21, paths[i], &stack) != 0 || stack.count > 2)
                failed++;
        }
        free(cut);
    }
    tap_equal(failed, 0, "a cut text is no harm");
}

static void test_long_names(void)
{
    char line[2048];
    char name[600];
    struct mount_stack stack;

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(line, sizeof line, "5 4 0:1 / /x ro - %s %s rw\n", name, name);
    tap_equal(mounts_parse(line, 4, "/x", &stack), 0, "long names");
    tap_ok(strlen(stack.entries[0].source) == sizeof stack.entries[0].source - 1 &&
               strlen(stack.entries[0].type) == sizeof stack.entries[0].type - 1,
           "are cut");
}

static char base[PATH_MAX];

static const char *in_base(const char *name)
{
    static char paths[4][2 * PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", base, name);
    return path;
}

static void resolves(const char *path, const char *expected)
{
    char real[PATH_MAX] = "";

    int error = mounts_resolve(path, real);
    if (!tap_ok(error == 0 && strcmp(real, expected) == 0, "resolve %s", path))
        tap_note("error %d, got %s, expected %s", error, real, expected);
}

static void resolves_not(const char *path, int expected)
{
    char real[PATH_MAX] = "untouched";

    tap_equal(mounts_resolve(path, real), expected, "resolve %.60s", path);
    tap_ok(strcmp(real, "untouched") == 0, "and nothing is written");
}

static void test_resolve(void)
{
    char expected[PATH_MAX];
    char long_path[PATH_MAX + 10];

    mkdir(in_base("dir"), 0755);
    mkdir(in_base("dir/sub"), 0755);
    if (symlink("dir/sub", in_base("relative")) != 0 ||
        symlink("relative", in_base("twice")) != 0 || symlink(base, in_base("dir/up")) != 0 ||
        symlink("loop", in_base("loop")) != 0 || symlink("missing", in_base("dangling")) != 0 ||
        chdir(base) != 0)
        tap_ok(false, "links are made");
    strcpy(expected, in_base("dir/sub"));
    resolves(in_base("dir/sub"), expected);
    resolves(in_base("dir/sub/"), expected);
    resolves(in_base("dir/sub///"), expected);
    resolves(in_base("dir/sub/."), expected);
    resolves(in_base("dir/sub/././/."), expected);
    resolves(in_base("dir//sub"), expected);
    resolves(in_base("dir/../dir/./sub"), expected);
    resolves("dir/sub", expected);
    resolves("./dir/sub/", expected);
    resolves("relative", expected);
    resolves("relative/", expected);
    resolves("twice/.", expected);
    resolves("dir/up/dir/sub", expected);
    resolves("relative/../sub", expected);
    resolves("dir/up", base);
    resolves("dir/..", base);
    resolves("dir/sub/../..", base);
    resolves("relative/../..", base);
    resolves(".", base);
    resolves("./", base);
    resolves("././", base);
    if (chdir("dir/sub") != 0)
        tap_ok(false, "chdir");
    resolves("..", in_base("dir"));
    resolves("../..", base);
    resolves(".", expected);
    resolves("/", "/");
    resolves("//", "/");
    resolves("/.", "/");
    resolves("/..", "/");
    resolves("/../.", "/");
    resolves("/proc", "/proc");
    resolves_not("", -ENOENT);
    resolves_not("missing", -ENOENT);
    resolves_not("missing/.", -ENOENT);
    resolves_not("missing/..", -ENOENT);
    resolves_not(in_base("dangling"), -ENOENT);
    resolves_not(in_base("loop"), -ELOOP);
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    resolves_not(long_path, -ENAMETOOLONG);
    long_path[300] = '\0';
    resolves_not(long_path, -ENAMETOOLONG);
}

static bool mount_tmpfs(const char *source, const char *path, unsigned long flags)
{
    return mount(source, path, "tmpfs", flags, "size=64k") == 0;
}

static struct mount_stack look(const char *path, size_t expected)
{
    struct mount_stack stack = {0};
    char real[PATH_MAX];

    if (mounts_resolve(path, real) != 0)
        tap_ok(false, "resolve %s", path);
    else
        tap_equal(mounts_on(real, &stack), 0, "look");
    tap_equal(stack.count, expected, "so many mounts are there");
    return stack;
}

static void test_names(void)
{
    static const char *const names[] = {"plain", "a blank", "a\ttab", "a\nnewline", "back\\slash",
                                        "\\040", "\\",      "#hash",  "\xff\xfe",   " "};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *path = in_base(names[i]);
        mkdir(path, 0755);
        look(path, 0);
        tap_ok(mount_tmpfs("a \\ source", path, MS_RDONLY), "mount on name %zu", i);
        struct mount_stack stack = look(path, 1);
        tap_ok(strcmp(stack.entries[0].source, "a \\ source") == 0 && stack.entries[0].read_only,
               "it is this one");
        umount2(path, MNT_DETACH);
        look(path, 0);
        rmdir(path);
    }
}

static void test_stack(void)
{
    char source[32];

    mkdir(in_base("stack"), 0755);
    mkdir(in_base("moved"), 0755);
    tap_ok(mount_tmpfs("older", in_base("moved"), 0), "an older mount elsewhere");
    tap_ok(mount_tmpfs("newer", in_base("stack"), 0), "a newer one");
    tap_ok(mount(in_base("moved"), in_base("stack"), NULL, MS_MOVE, NULL) == 0,
           "the older moves onto it");
    struct mount_stack stack = look(in_base("stack"), 2);
    tap_ok(strcmp(stack.entries[0].source, "newer") == 0 &&
               strcmp(mounts_top(&stack)->source, "older") == 0,
           "and is the top");
    umount2(in_base("stack"), MNT_DETACH);

    for (size_t i = 1; i < MOUNTS_STACK_MAX; i++) {
        snprintf(source, sizeof source, "number-%zu", i);
        if (!mount_tmpfs(source, in_base("stack"), 0))
            tap_ok(false, "mount %zu", i);
    }
    stack = look(in_base("stack"), MOUNTS_STACK_MAX);
    tap_ok(strcmp(mounts_top(&stack)->source, source) == 0, "the last is the top");
    tap_ok(mount_tmpfs("too-many", in_base("stack"), 0), "one more");
    tap_equal(mounts_on(in_base("stack"), &stack), -E2BIG, "is one too many");
    while (umount2(in_base("stack"), MNT_DETACH) == 0)
        continue;
    look(in_base("stack"), 0);
}

static void test_hidden(void)
{
    mkdir(in_base("outer"), 0755);
    mkdir(in_base("outer/inner"), 0755);
    tap_ok(mount_tmpfs("hidden", in_base("outer/inner"), 0), "a mount");
    tap_ok(mount_tmpfs("cover", in_base("outer"), 0), "is hidden by another");
    mkdir(in_base("outer/inner"), 0755);
    look(in_base("outer/inner"), 0);
    tap_ok(mount_tmpfs("seen", in_base("outer/inner"), 0), "on which there is a third");
    struct mount_stack stack = look(in_base("outer/inner"), 1);
    tap_ok(strcmp(stack.entries[0].source, "seen") == 0, "and that one is seen");
    umount2(in_base("outer"), MNT_DETACH);
    stack = look(in_base("outer/inner"), 1);
    tap_ok(strcmp(stack.entries[0].source, "hidden") == 0, "the first shows up again");
    umount2(in_base("outer/inner"), MNT_DETACH);

    tap_ok(mount(in_base("dir"), in_base("outer"), NULL, MS_BIND, NULL) == 0, "a bind mount");
    tap_ok(mount_tmpfs("in bind", in_base("outer/sub"), 0), "a mount in it");
    look(in_base("outer"), 1);
    look(in_base("outer/sub"), 1);
    look(in_base("dir/sub"), 0);
    umount2(in_base("outer"), MNT_DETACH);
}

/* A FUSE mount whose daemon is gone: every look at it fails, and it is seen all the same. */
static void test_dead(void)
{
    char options[100];
    struct stat status;

    mkdir(in_base("dead"), 0755);
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (!tap_ok(device >= 0, "/dev/fuse opens"))
        return;
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
    tap_ok(mount("lockfs", in_base("dead"), "fuse.lockfs", MS_NODEV | MS_NOSUID, options) == 0,
           "a FUSE mount");
    close(device);
    tap_ok(stat(in_base("dead"), &status) != 0 && errno == ENOTCONN, "which is dead");
    resolves(in_base("dead"), in_base("dead"));
    resolves(in_base("dead/"), in_base("dead"));
    resolves(in_base("dead/."), in_base("dead"));
    if (symlink("dead", in_base("to-dead")) != 0)
        tap_ok(false, "symlink");
    resolves(in_base("to-dead"), in_base("dead"));
    resolves_not(in_base("dead/below"), -ENOTCONN);
    struct mount_stack stack = look(in_base("dead"), 1);
    tap_ok(strcmp(stack.entries[0].type, "fuse.lockfs") == 0, "and is seen to be a lockfs");
    umount2(in_base("dead"), MNT_DETACH);
    look(in_base("dead"), 0);
}

static int run(void)
{
    test_parse();
    test_cut();
    test_long_names();
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        tap_ok(false, "a mount namespace of its own: %s: this test must run as root",
               strerror(errno));
        return tap_done();
    }
    test_resolve();
    test_names();
    test_stack();
    test_hidden();
    if (chdir("/") != 0)
        tap_ok(false, "chdir");
    test_dead();
    return tap_done();
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status;
    (void)type;
    (void)ftw;
    remove(path);
    return 0;
}

/* The tests run in a child: its mounts go when it ends, however it does, and then the files do. */
int main(void)
{
    const char *directory = getenv("TMPDIR");
    int status = 1;

    snprintf(base, sizeof base, "%s/lockfs-mounts-XXXXXX", directory != NULL ? directory : "/tmp");
    char real[PATH_MAX];
    if (mkdtemp(base) == NULL || realpath(base, real) == NULL) {
        perror(base);
        return 1;
    }
    strcpy(base, real);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        exit(run());
    }
    waitpid(child, &status, 0);
    nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
