/* fs/config: the command line. fs/report: what is told to people. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/config.h"
#include "fs/report.h"
#include "tests/lib/tap.h"

#define NOBODY        65534
#define ARGUMENTS_MAX 16

static char base[PATH_MAX];
static struct config config;
static char message[512];

/* Parses the words of a line; '' stands for an empty one. The result is in `config`, `message`. */
static enum config_action parse(const char *line)
{
    static char words[2 * PATH_MAX];
    char *argv[ARGUMENTS_MAX + 2] = {(char[]){"lockfsd"}, NULL};
    int argc = 1;

    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word != NULL && argc <= ARGUMENTS_MAX;
         word = strtok(NULL, " ")) {
        if (strcmp(word, "''") == 0)
            word[0] = '\0';
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    memset(&config, 0xff, sizeof config);
    message[0] = '\0';
    return config_parse(argc, argv, &config, message, sizeof message);
}

static void refused(const char *line, const char *part)
{
    tap_equal(parse(line), CONFIG_USAGE_ERROR, "refused: %s", line);
    if (!tap_ok(strstr(message, part) != NULL && strchr(message, '\n') == NULL, "  says: %s", part))
        tap_note("message: %s", message);
    tap_ok(config.ttl_ms == UINT32_MAX && config.mount_point[0] == '\xff' &&
               config.data[0] == '\xff',
           "  and writes no result");
}

static void accepted(const char *line)
{
    if (!tap_ok(parse(line) == CONFIG_RUN, "accepted: %s", line))
        tap_note("message: %s", message);
}

static void test_defaults(void)
{
    accepted("--data /nowhere/data /nowhere/locks");
    tap_equal(config.ttl_ms, 10000, "ttl");
    tap_equal(config.op_timeout_ms, 5000, "op-timeout");
    tap_equal(config.drain_timeout_ms, 30000, "drain-timeout");
    tap_equal(config.snapshot_log_bytes, 64 << 20, "snapshot-log-bytes");
    tap_ok(!config.foreground && !config.unguarded, "background, guarded");
    tap_ok(strcmp(config.data, "/nowhere/data") == 0, "data");
    tap_ok(strcmp(config.mount_point, "/nowhere/locks") == 0, "mount point");
}

static void test_options(void)
{
    accepted("-f --ttl 7.25 --op-timeout=0.1 --drain-timeout 0 --unguarded --data=/nowhere/d /m");
    tap_equal(config.ttl_ms, 7250, "ttl");
    tap_equal(config.op_timeout_ms, 100, "op-timeout");
    tap_equal(config.drain_timeout_ms, 0, "drain-timeout");
    tap_ok(config.foreground && config.unguarded, "flags");
    accepted("/m --foreground --data /nowhere/d");
    tap_ok(config.foreground && strcmp(config.mount_point, "/m") == 0, "options behind MOUNT");
    accepted("--data /nowhere/d --data /nowhere/e --ttl 5 --ttl 6 /m");
    tap_ok(config.ttl_ms == 6000 && strcmp(config.data, "/nowhere/e") == 0, "the last one counts");
    accepted("--data /nowhere/d -- -m");
    tap_ok(strcmp(strrchr(config.mount_point, '/'), "/-m") == 0, "a MOUNT with a dash");

    tap_equal(parse("--help"), CONFIG_HELP, "--help");
    tap_equal(parse("-h"), CONFIG_HELP, "-h");
    tap_equal(parse("-fh"), CONFIG_HELP, "-fh");
    tap_equal(parse("--help --unknown"), CONFIG_HELP, "--help wins over what comes later");
    tap_equal(parse("--version"), CONFIG_VERSION, "--version");
    tap_equal(parse("--remove-guard /m"), CONFIG_REMOVE_GUARD, "--remove-guard");
    tap_ok(strcmp(config.mount_point, "/m") == 0, "its mount point");

    refused("", "missing");
    refused("-f", "missing");
    refused("--remove-guard", "missing");
    refused("''", "empty");
    refused("/m /n", "unexpected argument '/n'");
    refused("--remove-guard /m /n", "unexpected argument '/n'");
    refused("--remove-guard --unguarded /m", "--unguarded");
    refused("--unknown /m", "unknown option '--unknown'");
    refused("--unknown=1 /m", "unknown option '--unknown=1'");
    refused("-x /m", "unknown option '-x'");
    refused("--ttl=6 -fx /m", "unknown option '-x'");
    refused("--foreground=1 /m", "'--foreground=1' takes no value");
    refused("--unguarded=1 /m", "'--unguarded=1' takes no value");
    refused("/m --ttl", "'--ttl' needs a value");
    refused("/m --data", "'--data' needs a value");
    refused("--data '' /m", "empty");
}

static void test_durations(void)
{
    static const struct {
        const char *text;
        uint32_t ms;
    } good[] = {{"5", 5000},           {"5.0", 5000},   {"5.5", 5500},
                {"5.05", 5050},        {"5.005", 5005}, {"3600", 3600000},
                {"3600.000", 3600000}, {"0010", 10000}, {"3599.999", 3599999}};
    static const char *const bad[] = {"abc",
                                      "''",
                                      "-5",
                                      "+5",
                                      "5s",
                                      "1e3",
                                      "5.",
                                      ".5",
                                      "5,5",
                                      "0x10",
                                      "5.0001",
                                      "5..5",
                                      "inf",
                                      "nan",
                                      "5.5.5",
                                      "5-",
                                      "9999999999999999"};
    static const char *const outside[] = {"4.999",          "0",          "3600.001", "3601",
                                          "18446744073714", "4294972.296"};
    char line[128];

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(line, sizeof line, "--data /nowhere/d --ttl %s /m", good[i].text);
        accepted(line);
        tap_equal(config.ttl_ms, good[i].ms, "  is so many milliseconds");
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(line, sizeof line, "--ttl=%s /m", strcmp(bad[i], "''") == 0 ? "" : bad[i]);
        refused(line, "is not a number of seconds");
    }
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        snprintf(line, sizeof line, "--ttl %s /m", outside[i]);
        refused(line, "out of range: 5 to 3600 seconds");
    }
    refused("--op-timeout 0.099 /m", "out of range: 0.1 to 3600 seconds");
    refused("--op-timeout 3600.001 /m", "--op-timeout");
    refused("--drain-timeout 86400.001 /m", "out of range: 0 to 86400 seconds");
    refused("--snapshot-log-bytes 1023 /m", "out of range: 1024 to 1073741824 bytes");
    refused("--snapshot-log-bytes 1073741825 /m", "out of range: 1024 to 1073741824 bytes");
    refused("--snapshot-log-bytes 64M /m", "not a number of bytes");
    refused("--snapshot-log-bytes -1 /m", "not a number of bytes");
    accepted("--data /nowhere/d --snapshot-log-bytes 1024 /m");
    tap_equal(config.snapshot_log_bytes, 1024, "snapshot-log-bytes");
    accepted("--data /nowhere/d --op-timeout 3600 --drain-timeout 86400 /m");
    tap_ok(config.op_timeout_ms == 3600000 && config.drain_timeout_ms == 86400000, "the largest");
}

/* Both as names below `base`. */
static void refused_data(const char *data, const char *mount_point)
{
    char line[3 * PATH_MAX];

    snprintf(line, sizeof line, "--data %s/%s %s/%s", base, data, base, mount_point);
    refused(line, "below the mount point");
}

static void accepted_data(const char *data, const char *mount_point, const char *real)
{
    char line[3 * PATH_MAX];
    char expected[2 * PATH_MAX];

    snprintf(line, sizeof line, "--data %s/%s %s/%s", base, data, base, mount_point);
    snprintf(expected, sizeof expected, "%s%s%s", base, real[0] == '\0' ? "" : "/", real);
    accepted(line);
    if (!tap_ok(strcmp(config.data, expected) == 0, "  data is %s", expected))
        tap_note("got: %s", config.data);
}

static void in_base(const char *name, char *ret_path)
{
    snprintf(ret_path, PATH_MAX, "%.3000s/%s", base, name);
}

static void make_directory(const char *name)
{
    char path[PATH_MAX];

    in_base(name, path);
    if (mkdir(path, 0755) != 0)
        tap_ok(false, "mkdir %s", path);
}

static void make_link(const char *target, const char *name)
{
    char path[PATH_MAX];

    in_base(name, path);
    if (symlink(target, path) != 0)
        tap_ok(false, "symlink %s", path);
}

static void test_data(void)
{
    char line[3 * PATH_MAX];
    char expected[2 * PATH_MAX];

    make_directory("locks");
    make_directory("locks/in");
    make_directory("data");
    make_link("locks", "link-to-locks");
    make_link("locks/in", "link-into-locks");
    make_link("../data", "locks/link-out");

    accepted_data("data", "locks", "data");
    accepted_data("data/new/deep/", "locks", "data/new/deep");
    accepted_data("data//new/.//deep/.", "locks", "data/new/deep");
    accepted_data("locks-too", "locks", "locks-too");
    accepted_data("locks/../data", "locks", "data");
    accepted_data("locks/link-out/x", "locks", "data/x");
    accepted_data("", "locks", "");
    accepted_data("data", "not-yet", "data");
    refused_data("locks", "locks");
    refused_data("locks/", "locks");
    refused_data("locks/x", "locks");
    refused_data("locks/x/y/z", "locks");
    refused_data("locks/in", "locks/");
    refused_data("data/../locks/x", "locks");
    refused_data("link-to-locks/x", "locks");
    refused_data("link-into-locks/x/y", "locks");
    refused_data("locks/x", "link-to-locks");
    refused_data("not-yet/x", "not-yet");
    snprintf(line, sizeof line, "--data %s/missing/../locks/x %s/locks", base, base);
    refused(line, "No such file or directory");

    if (chdir(base) != 0)
        tap_ok(false, "chdir");
    accepted("--data data/x locks");
    snprintf(expected, sizeof expected, "%s/data/x", base);
    tap_ok(strcmp(config.data, expected) == 0, "a relative --data becomes absolute");
    snprintf(expected, sizeof expected, "%s/locks", base);
    tap_ok(strcmp(config.mount_point, expected) == 0, "a relative MOUNT, too");
    accepted("--data new ./locks/.");
    snprintf(expected, sizeof expected, "%s/new", base);
    tap_ok(strcmp(config.data, expected) == 0, "also where it does not exist yet");
    refused("--data locks/x locks", "below the mount point");
    refused("--data ./x .", "below the mount point");
    if (chdir("locks/in") != 0)
        tap_ok(false, "chdir");
    refused("--data . ..", "below the mount point");
    refused("--data y ..", "below the mount point");
    if (chdir("/") != 0)
        tap_ok(false, "chdir");

    snprintf(line, sizeof line, "--data /%0*d /m", PATH_MAX, 0);
    refused(line, "File name too long");
    accepted("--data /a/new/one /m");
    tap_ok(strcmp(config.data, "/a/new/one") == 0, "nothing of it exists: %s", config.data);
}

/* The default data directory, as a user who is not root has it. */
static void default_of_user(const char *state, const char *home, const char *expected)
{
    int status = 1;
    pid_t child = fork();

    if (child == 0) {
        if (geteuid() == 0 && setuid(NOBODY) != 0)
            _exit(2);
        if (state != NULL)
            setenv("XDG_STATE_HOME", state, 1);
        else
            unsetenv("XDG_STATE_HOME");
        if (home != NULL)
            setenv("HOME", home, 1);
        else
            unsetenv("HOME");
        enum config_action action = parse("/m");
        if (expected == NULL)
            _exit(action == CONFIG_USAGE_ERROR && strstr(message, "HOME") != NULL ? 0 : 3);
        _exit(action == CONFIG_RUN && strcmp(config.data, expected) == 0 ? 0 : 4);
    }
    waitpid(child, &status, 0);
    tap_equal(status, 0, "XDG_STATE_HOME=%s HOME=%s", state != NULL ? state : "(unset)",
              home != NULL ? home : "(unset)");
}

static void test_default_data(void)
{
    if (geteuid() == 0) {
        accepted("/m");
        tap_ok(strcmp(config.data, "/var/lib/lockfs") == 0, "root's default: %s", config.data);
        refused("/var/lib", "below the mount point");
    } else {
        tap_ok(false, "this test must run as root");
    }
    default_of_user("/nowhere/state", "/nowhere/home", "/nowhere/state/lockfs");
    default_of_user(NULL, "/nowhere/home", "/nowhere/home/.local/state/lockfs");
    default_of_user("", "/nowhere/home", "/nowhere/home/.local/state/lockfs");
    default_of_user("relative", "/nowhere/home", "/nowhere/home/.local/state/lockfs");
    default_of_user(NULL, NULL, NULL);
    default_of_user(NULL, "", NULL);
}

static void test_help(void)
{
    static const char *const parts[] = {
        "--data DIR",
        "--ttl SECONDS",
        "--op-timeout SECONDS",
        "--drain-timeout SECONDS",
        "--snapshot-log-bytes N",
        "--unguarded",
        "--remove-guard",
        "-f, --foreground",
        "-h, --help",
        "--version",
        "default 10)",
        "default 5)",
        "default 30)",
        "/var/lib/lockfs",
        "Exit status: 0 ",
        "1 stopped",
        "2 wrong",
        "3 could not start",
    };
    const char *text = config_help();
    size_t lines = 0;
    size_t widest = 0;

    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        size_t width = strcspn(line, "\n");
        widest = width > widest ? width : widest;
        lines++;
    }
    tap_ok(lines <= 23, "--help fits a screen with a prompt: %zu lines", lines);
    tap_ok(widest < 80, "and %zu columns", widest);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        tap_ok(strstr(text, parts[i]) != NULL, "it has: %s", parts[i]);
    tap_ok(strncmp(config_version(), "lockfsd ", 8) == 0 && strchr(config_version(), '\n') != NULL,
           "--version");
}

static void escapes(const char *text, const char *expected)
{
    char shown[256];

    report_escape(shown, sizeof shown, text);
    if (!tap_ok(strcmp(shown, expected) == 0, "escape to %s", expected))
        tap_note("got: %s", shown);
}

static void test_escape(void)
{
    escapes("", "");
    escapes("plain text, with: signs", "plain text, with: signs");
    escapes("a\nb\rc\td\x1b[31m\x7f", "a\\x0ab\\x0dc\\x09d\\x1b[31m\\x7f");
    escapes("back\\slash \\x0a", "back\\\\slash \\\\x0a");
    escapes("\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x92", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x92");
    escapes("\xc2\x85 \xc2\x9b", "\\xc2\\x85 \\xc2\\x9b"); /* control characters in UTF-8 */
    escapes("\xff\xfe", "\\xff\\xfe");
    escapes("\xc0\x8a", "\\xc0\\x8a");          /* a newline in two bytes */
    escapes("\xe0\x80\x8a", "\\xe0\\x80\\x8a"); /* and in three */
    escapes("\xc1\x81 \xf0\x82\x82\xac", "\\xc1\\x81 \\xf0\\x82\\x82\\xac");
    escapes("\xed\xa0\x80", "\\xed\\xa0\\x80");          /* a surrogate */
    escapes("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* beyond the last character */
    escapes("\xe2\x82", "\\xe2\\x82");                   /* cut off */
    escapes("\xe2\x82x", "\\xe2\\x82x");                 /* broken off */
    escapes("\xe2\x80\xa8", "\\xe2\\x80\\xa8");          /* the end of a line */
    static const char right_to_left[] = {'\xe2', '\x80', '\xae', '\0'};
    escapes(right_to_left, "\\xe2\\x80\\xae");
}

/* Every size of buffer: terminated, whole escapes only, cut with dots. */
static void test_escape_cut(void)
{
    static const char text[] = "ab\ncd\xe2\x82\xac\\ef";
    static const char whole[] = "ab\\x0acd\xe2\x82\xac\\\\ef";
    static const size_t ends[] = {0, 1, 2, 6, 7, 8, 11, 13, 14, 15};
    size_t wrong = 0;

    for (size_t size = 4; size <= sizeof whole + 2; size++) {
        char *buffer = malloc(size);
        report_escape(buffer, size, text);
        size_t len = strlen(buffer);
        if (size >= sizeof whole) {
            wrong += strcmp(buffer, whole) != 0;
        } else {
            bool at_end = false;
            for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
                at_end = at_end || len == ends[i] + 3;
            wrong += !at_end || strcmp(buffer + len - 3, "...") != 0 ||
                     strncmp(buffer, whole, len - 3) != 0;
        }
        free(buffer);
    }
    tap_equal(wrong, 0, "cut at whole characters");
}

static void test_limit(void)
{
    struct report_limit limit = {0};
    uint64_t left_out = 99;
    uint64_t now_ms = 1000;
    int passed = 0;

    for (int i = 0; i < 100; i++)
        passed += report_limit_take(&limit, now_ms, &left_out);
    tap_equal(passed, REPORT_LIMIT_BURST, "a burst passes");
    tap_equal(left_out, 0, "nothing was left out before");
    now_ms += REPORT_LIMIT_REFILL_MS - 1;
    tap_ok(!report_limit_take(&limit, now_ms, &left_out), "not yet");
    now_ms += 1;
    tap_ok(report_limit_take(&limit, now_ms, &left_out), "then one more passes");
    tap_equal(left_out, 100 - REPORT_LIMIT_BURST + 1, "and says how many did not");
    tap_ok(!report_limit_take(&limit, now_ms, &left_out), "one only");
    now_ms += 3 * REPORT_LIMIT_REFILL_MS + 5;
    passed = 0;
    for (int i = 0; i < 100; i++)
        passed += report_limit_take(&limit, now_ms, &left_out);
    tap_equal(passed, 3, "three later");
    now_ms += REPORT_LIMIT_REFILL_MS - 5;
    tap_ok(report_limit_take(&limit, now_ms, &left_out), "no part of the time is lost");
    now_ms += 1000ull * REPORT_LIMIT_REFILL_MS;
    passed = 0;
    for (int i = 0; i < 100; i++)
        passed += report_limit_take(&limit, now_ms, &left_out);
    tap_equal(passed, REPORT_LIMIT_BURST, "never more than a burst");
}

/* What `body` writes to stderr, in `ret_text`. */
static void capture(void (*body)(void), char *ret_text, size_t size)
{
    char path[PATH_MAX];

    in_base("stderr", path);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int saved = dup(STDERR_FILENO);
    dup2(file, STDERR_FILENO);
    body();
    dup2(saved, STDERR_FILENO);
    ssize_t len = pread(file, ret_text, size - 1, 0);
    ret_text[len < 0 ? 0 : len] = '\0';
    close(saved);
    close(file);
    unlink(path);
}

static void body_messages(void)
{
    report_info("started on %s", "/locks");
    report_warning("name '%s'", "x\n2026-01-01T00:00:00.000Z error: forged");
    report_error("%d", 7);
    report_answer("%s\n", "wrong");
}

static void body_limited(void)
{
    struct report_limit limit = {.left_out = 3};

    for (int i = 0; i < 2 * REPORT_LIMIT_BURST; i++)
        report_limited(&limit, REPORT_WARNING, "again %d", i);
}

static void body_long(void)
{
    static char name[20000];

    memset(name, '\x01', sizeof name - 1);
    report_warning("%s", name);
}

static size_t lines_in(const char *text)
{
    size_t lines = 0;

    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

/* 2026-01-31T23:59:59.123+01:00, and what follows. */
static const char *behind_time(const char *line)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.ddd+dd:dd ";

    for (size_t i = 0; i < sizeof form - 1; i++) {
        char c = line[i];
        bool fits = form[i] == 'd'   ? c >= '0' && c <= '9'
                    : form[i] == '+' ? c == '+' || c == '-'
                                     : c == form[i];
        if (!fits)
            return "";
    }
    return line + sizeof form - 1;
}

static void test_messages(void)
{
    static char text[40000];
    char *rest = text;

    setenv("TZ", "XST-5:30", 1);
    tzset();
    capture(body_messages, text, sizeof text);
    unsetenv("TZ");
    tzset();
    tap_equal(lines_in(text), 4, "a line each");
    const char *first = strsep(&rest, "\n");
    const char *second = strsep(&rest, "\n");
    const char *third = strsep(&rest, "\n");
    const char *fourth = strsep(&rest, "\n");
    tap_ok(strcmp(behind_time(first), "info: started on /locks") == 0, "%s", first);
    tap_ok(strstr(first, "+05:30 ") != NULL, "with the local offset");
    tap_ok(strcmp(behind_time(second),
                  "warning: name 'x\\x0a2026-01-01T00:00:00.000Z error: forged'") == 0,
           "nobody forges a line");
    tap_ok(strcmp(behind_time(third), "error: 7") == 0, "%s", third);
    tap_ok(strcmp(fourth, "lockfsd: wrong\\x0a") == 0, "%s", fourth);

    capture(body_limited, text, sizeof text);
    tap_equal(lines_in(text), REPORT_LIMIT_BURST, "the limit holds");
    tap_ok(strstr(text, "again 0 (3 more like this were left out)\n") != NULL,
           "and what it left out is counted");
    capture(body_long, text, sizeof text);
    tap_ok(lines_in(text) == 1 && strlen(text) <= 16384 && strstr(text, "...\n") != NULL,
           "a very long message is cut");
}

/* A pipe that nobody reads: the messages get lost, the program goes on. */
static void test_stuck_reader(void)
{
    int ends[2];
    int status = 1;

    if (pipe(ends) != 0)
        abort();
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        dup2(ends[1], STDERR_FILENO);
        for (int i = 0; i < 10000; i++)
            report_warning("number %d", i);
        _exit(0);
    }
    waitpid(child, &status, 0);
    tap_equal(status, 0, "nobody waits for a reader of stderr");
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const char *directory = getenv("TMPDIR");
    char name[PATH_MAX];

    snprintf(name, sizeof name, "%s/lockfs-config-XXXXXX", directory != NULL ? directory : "/tmp");
    if (mkdtemp(name) == NULL || realpath(name, base) == NULL) {
        perror(name);
        return 1;
    }
    test_defaults();
    test_options();
    test_durations();
    test_data();
    test_default_data();
    test_help();
    test_escape();
    test_escape_cut();
    test_limit();
    test_messages();
    test_stuck_reader();

    static const char *const made[] = {
        "link-to-locks", "link-into-locks", "locks/link-out", "locks/in", "locks", "data", ""};
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        in_base(made[i], name);
        if (remove(name) != 0)
            tap_ok(false, "clean up %s: %s", name, strerror(errno));
    }
    return tap_done();
}
