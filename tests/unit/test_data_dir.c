/* The data directory: made, locked, known by its identity, refused where it is not fit. */
#include "fs/data_dir.h"
#include "tests/lib/tap.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char scratch[] = "/tmp/test_data_dir.XXXXXX";
static char message[512];

static const char *in_scratch(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    int file = open(in_scratch(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert(file >= 0);
    ssize_t done = write(file, text, strlen(text));
    assert(done == (ssize_t)strlen(text));
    close(file);
}

static size_t read_file(const char *name, char *text, size_t size)
{
    int file = open(in_scratch(name), O_RDONLY);
    ssize_t len = file < 0 ? 0 : read(file, text, size - 1);
    if (file >= 0)
        close(file);
    assert(len >= 0);
    text[len] = '\0';
    return (size_t)len;
}

static int try_open(const char *name, struct data_dir *ret_data_dir)
{
    message[0] = '\0';
    return data_dir_open(in_scratch(name), message, sizeof message, ret_data_dir);
}

static void expect_refused(const char *name, int error, const char *word, const char *what)
{
    struct data_dir data_dir = {.lock_file = -1};
    int result = try_open(name, &data_dir);
    tap_ok(result == error && strstr(message, word) && strstr(message, scratch), "%s: %s", what,
           message);
    if (!result)
        data_dir_close(&data_dir);
}

static void test_make(void)
{
    struct data_dir data_dir;
    struct stat status;

    tap_equal(try_open("state/lockfs/data", &data_dir), 0, "a directory is made, with its parents");
    tap_ok(stat(in_scratch("state/lockfs/data"), &status) == 0 && (status.st_mode & 0777) == 0700,
           "for its owner alone");
    uint64_t identity = data_dir.identity;
    tap_ok(identity != 0, "it gets an identity");
    tap_ok(fcntl(data_dir.lock_file, F_GETFD) & FD_CLOEXEC, "programs do not inherit the lock");
    data_dir_close(&data_dir);
    tap_equal(try_open("state/lockfs/data/", &data_dir), 0, "it is opened again");
    tap_ok(data_dir.identity == identity, "with the same identity");
    data_dir_close(&data_dir);
    tap_equal(try_open("other", &data_dir), 0, "another one");
    tap_ok(data_dir.identity != identity, "has another identity");
    data_dir_close(&data_dir);
}

static void test_lock(void)
{
    struct data_dir data_dir;
    char expected[64];
    int opened[2];
    int done[2];
    char byte;

    int error = pipe(opened) || pipe(done);
    assert(!error);
    pid_t child = fork();
    if (child == 0) {
        struct data_dir mine;
        close(done[1]);
        byte = try_open("locked", &mine) == 0;
        if (write(opened[1], &byte, 1) != 1)
            _exit(1);
        (void)!read(done[0], &byte, 1);
        _exit(0);
    }
    ssize_t len = read(opened[0], &byte, 1);
    tap_ok(len == 1 && byte, "a process takes it");
    snprintf(expected, sizeof expected, "(pid %ld)", (long)child);
    expect_refused("locked", -EBUSY, expected, "another one is refused");
    expect_refused("locked", -EBUSY, expected, "and again");
    unlink(in_scratch("locked/lock"));
    tap_equal(try_open("locked", &data_dir), 0, "without its file there is no lock");
    data_dir_close(&data_dir);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    tap_equal(try_open("locked", &data_dir), 0, "it is free once the process is killed");
    expect_refused("locked", -EBUSY, "is in use", "a second one in the same process is refused");
    data_dir_close(&data_dir);
    close(opened[0]), close(opened[1]), close(done[0]), close(done[1]);
}

static void test_identity(void)
{
    struct data_dir data_dir;
    char good[128];
    char bad[128];
    bool refused = true;

    int error = try_open("identity", &data_dir);
    assert(!error);
    uint64_t identity = data_dir.identity;
    data_dir_close(&data_dir);
    size_t len = read_file("identity/identity", good, sizeof good);
    for (size_t i = 0; i < len; i++) {
        memcpy(bad, good, sizeof good);
        bad[i] ^= 1;
        write_file("identity/identity", bad);
        error = try_open("identity", &data_dir);
        if (error != -EBADMSG && error != -EPROTO) {
            refused = false;
            tap_note("byte %zu: %d %s", i, error, message);
        }
        if (!error)
            data_dir_close(&data_dir);
    }
    tap_ok(refused, "each flipped bit is refused");
    write_file("identity/identity", "");
    expect_refused("identity", -EBADMSG, "damaged", "an empty identity");
    memcpy(bad, good, sizeof good);
    bad[len - 1] = '\0';
    write_file("identity/identity", bad);
    expect_refused("identity", -EBADMSG, "damaged", "a short identity");
    write_file("identity/identity", "lockfs-data 2 something else\n");
    expect_refused("identity", -EPROTO, "version 2", "a version from the future");
    write_file("identity/identity", good);
    write_file("identity/identity.new", "left over");
    tap_ok(try_open("identity", &data_dir) == 0 && data_dir.identity == identity,
           "unharmed it is what it was");
    data_dir_close(&data_dir);
    unlink(in_scratch("identity/identity"));
    write_file("identity/log-0000000000000001", "");
    expect_refused("identity", -EBADMSG, "missing", "a log without an identity");
    unlink(in_scratch("identity/log-0000000000000001"));
    write_file("identity/reserve", "");
    expect_refused("identity", -EBADMSG, "missing", "a reserve without one");
    unlink(in_scratch("identity/reserve"));
    write_file("identity/mine", "of somebody");
    expect_refused("identity", -ENOTEMPTY, "mine", "a directory with files of somebody");
    len = read_file("identity/mine", bad, sizeof bad);
    tap_ok(len == 11 && strcmp(bad, "of somebody") == 0, "which are left alone");
    unlink(in_scratch("identity/mine"));
    tap_ok(try_open("identity", &data_dir) == 0 && data_dir.made && data_dir.identity != identity,
           "in an empty one a new identity is drawn");
    data_dir_close(&data_dir);
}

static void test_not_fit(void)
{
    char name[5000];

    write_file("file", "");
    expect_refused("file", -ENOTDIR, "Not a directory", "a file");
    expect_refused("file/below", -ENOTDIR, "Not a directory", "below a file");
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    struct data_dir data_dir;
    int error = data_dir_open(name, message, sizeof message, &data_dir);
    tap_equal(error, -ENAMETOOLONG, "too long a name");
    mkdir(in_scratch("shared"), 0700);
    chmod(in_scratch("shared"), 0770);
    expect_refused("shared", -EPERM, "770", "a directory that others can write to");
    error = data_dir_open("/proc/self/lockfs", message, sizeof message, &data_dir);
    tap_ok(error && strstr(message, "cannot be made"), "where nothing can be made: %s", message);
    error = data_dir_open("/sys/kernel", message, sizeof message, &data_dir);
    tap_ok(error && strstr(message, geteuid() ? "belongs to" : "none of lockfs's"),
           "a directory of the system: %s", message);
    if (geteuid() == 0) {
        mkdir(in_scratch("foreign"), 0700);
        error = chown(in_scratch("foreign"), 12345, 12345);
        assert(!error);
        expect_refused("foreign", -EPERM, "user 12345", "another user's directory");
        return;
    }
    mkdir(in_scratch("readonly"), 0500);
    expect_refused("readonly", -EACCES, "cannot be written",
                   "a directory without write permission");
}

/* Only what this test can have made. */
static void remove_all(void)
{
    static const char *const names[] = {
        "state/lockfs/data/lock",
        "state/lockfs/data/identity",
        "state/lockfs/data",
        "state/lockfs",
        "state",
        "other/lock",
        "other/identity",
        "other",
        "locked/lock",
        "locked/identity",
        "locked",
        "identity/lock",
        "identity/identity",
        "identity/identity.new",
        "identity/mine",
        "identity",
        "file",
        "shared",
        "lock",
        "identity",
        "foreign",
        "readonly",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        remove(in_scratch(names[i]));
    tap_ok(rmdir(scratch) == 0, "no other file was left");
}

int main(void)
{
    if (!mkdtemp(scratch))
        return 1;
    test_make();
    test_lock();
    test_identity();
    test_not_fit();
    remove_all();
    return tap_done();
}
