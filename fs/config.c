/* What the daemon is told on its command line. See config.h. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "limits.h"
#include "mounts.h"

static const char help[] =
    "Usage: lockfsd [options] MOUNT\n"
    "       lockfsd --remove-guard MOUNT\n"
    "Serves locks as files under the directory MOUNT.\n"
    "\n"
    "      --data DIR               where the log is kept, not below MOUNT (default:\n"
    "                               /var/lib/lockfs for root, else\n"
    "                               $XDG_STATE_HOME/lockfs or ~/.local/state/lockfs)\n"
    "      --ttl SECONDS            claims outlive their node's silence by this:\n"
    "                               5 to 3600 (default 10)\n"
    "      --op-timeout SECONDS     a request gives up after this (default 5)\n"
    "      --drain-timeout SECONDS  SIGTERM waits this long for claims (default 30)\n"
    "      --snapshot-log-bytes N   cut off the log when it has grown by so much, or\n"
    "                               by twice what is kept (default 67108864)\n"
    "      --unguarded              do without the guard, which needs root: whenever\n"
    "                               lockfsd is not running, locks are silently local\n"
    "      --remove-guard           take the guard away from MOUNT, and exit\n"
    "  -f, --foreground             do not go to the background; messages to stderr\n"
    "  -h, --help                   print this, and exit\n"
    "      --version                print the version, and exit\n"
    "\n"
    "Exit status: 0 stopped as asked, 1 stopped because something failed, 2 wrong\n"
    "usage, 3 could not start (mount point, data directory, kernel).\n";

const char *config_help(void)
{
    return help;
}

const char *config_version(void)
{
    return "lockfsd " LOCKFS_VERSION "\n";
}

/* Options without a letter have numbers that no letter has. */
enum option_code {
    OPTION_DATA = 256,
    OPTION_TTL,
    OPTION_OP_TIMEOUT,
    OPTION_DRAIN_TIMEOUT,
    OPTION_SNAPSHOT_LOG_BYTES,
    OPTION_UNGUARDED,
    OPTION_REMOVE_GUARD,
    OPTION_VERSION,
    OPTION_FOREGROUND = 'f',
    OPTION_HELP = 'h',
};

static const struct option options[] = {
    {"data", required_argument, NULL, OPTION_DATA},
    {"ttl", required_argument, NULL, OPTION_TTL},
    {"op-timeout", required_argument, NULL, OPTION_OP_TIMEOUT},
    {"drain-timeout", required_argument, NULL, OPTION_DRAIN_TIMEOUT},
    {"snapshot-log-bytes", required_argument, NULL, OPTION_SNAPSHOT_LOG_BYTES},
    {"unguarded", no_argument, NULL, OPTION_UNGUARDED},
    {"remove-guard", no_argument, NULL, OPTION_REMOVE_GUARD},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"foreground", no_argument, NULL, OPTION_FOREGROUND},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

struct problem {
    char *message;
    size_t size;
};

/* Writes the sentence; false, so that it can be returned. */
__attribute__((format(printf, 2, 3))) static bool complain(const struct problem *problem,
                                                           const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(problem->message, problem->size, format, args);
    va_end(args);
    return false;
}

static void complain_option(const struct problem *problem, int code, const char *argument);
static bool set_duration(const char *option, const char *text, uint32_t min_ms, uint32_t max_ms,
                         uint32_t *ret_ms, const struct problem *problem);
static bool set_bytes(const char *option, const char *text, uint32_t min, uint32_t max,
                      uint32_t *ret_bytes, const struct problem *problem);
static bool set_mount_point(const char *const *arguments, int count, struct config *config,
                            const struct problem *problem);
static bool set_data(const char *data, struct config *config, const struct problem *problem);

enum config_action config_parse(int argc, char *argv[], struct config *ret_config, char *message,
                                size_t message_size)
{
    const struct problem problem = {message, message_size};
    struct config config = {
        .ttl_ms = CONFIG_TTL_MS_DEFAULT,
        .op_timeout_ms = CONFIG_OP_TIMEOUT_MS_DEFAULT,
        .drain_timeout_ms = CONFIG_DRAIN_TIMEOUT_MS_DEFAULT,
        .snapshot_log_bytes = LIMIT_SNAPSHOT_LOG_BYTES,
    };
    const char *data = NULL;
    bool remove_guard = false;
    bool fine = true;
    int code;

    optind = 0; /* glibc: begin anew, with all that it remembers */
    opterr = 0;
    while (fine && (code = getopt_long(argc, argv, ":fh", options, NULL)) != -1) {
        switch (code) {
        case OPTION_DATA:
            data = optarg;
            break;
        case OPTION_TTL:
            fine = set_duration("--ttl", optarg, CONFIG_TTL_MS_MIN, CONFIG_TTL_MS_MAX,
                                &config.ttl_ms, &problem);
            break;
        case OPTION_OP_TIMEOUT:
            fine = set_duration("--op-timeout", optarg, CONFIG_OP_TIMEOUT_MS_MIN,
                                CONFIG_OP_TIMEOUT_MS_MAX, &config.op_timeout_ms, &problem);
            break;
        case OPTION_DRAIN_TIMEOUT:
            fine = set_duration("--drain-timeout", optarg, CONFIG_DRAIN_TIMEOUT_MS_MIN,
                                CONFIG_DRAIN_TIMEOUT_MS_MAX, &config.drain_timeout_ms, &problem);
            break;
        case OPTION_SNAPSHOT_LOG_BYTES:
            fine = set_bytes("--snapshot-log-bytes", optarg, CONFIG_SNAPSHOT_LOG_BYTES_MIN,
                             CONFIG_SNAPSHOT_LOG_BYTES_MAX, &config.snapshot_log_bytes, &problem);
            break;
        case OPTION_UNGUARDED:
            config.unguarded = true;
            break;
        case OPTION_REMOVE_GUARD:
            remove_guard = true;
            break;
        case OPTION_FOREGROUND:
            config.foreground = true;
            break;
        case OPTION_HELP:
            return CONFIG_HELP;
        case OPTION_VERSION:
            return CONFIG_VERSION;
        default:
            complain_option(&problem, code, argv[optind - 1]);
            fine = false;
            break;
        }
    }
    if (fine && remove_guard && config.unguarded)
        fine = complain(&problem, "--remove-guard and --unguarded do not go together");
    if (fine)
        fine =
            set_mount_point((const char *const *)argv + optind, argc - optind, &config, &problem);
    if (fine && !remove_guard)
        fine = set_data(data, &config, &problem);
    if (!fine)
        return CONFIG_USAGE_ERROR;
    *ret_config = config;
    return remove_guard ? CONFIG_REMOVE_GUARD : CONFIG_RUN;
}

static void complain_option(const struct problem *problem, int code, const char *argument)
{
    if (code == ':')
        complain(problem, "option '%s' needs a value", argument);
    else if (optopt > UCHAR_MAX || optopt == OPTION_FOREGROUND || optopt == OPTION_HELP)
        complain(problem, "option '%s' takes no value", argument);
    else if (optopt != 0)
        complain(problem, "unknown option '-%c'", optopt);
    else
        complain(problem, "unknown option '%s'", argument);
}

static bool parse_seconds(const char *text, uint64_t *ret_ms);

static bool set_duration(const char *option, const char *text, uint32_t min_ms, uint32_t max_ms,
                         uint32_t *ret_ms, const struct problem *problem)
{
    uint64_t ms;

    if (!parse_seconds(text, &ms))
        return complain(problem, "%s: '%s' is not a number of seconds, such as 10 or 2.5", option,
                        text);
    if (ms < min_ms || ms > max_ms)
        return complain(problem, "%s: %s is out of range: %g to %g seconds", option, text,
                        min_ms / 1000.0, max_ms / 1000.0);
    *ret_ms = (uint32_t)ms;
    return true;
}

/* Digits, and perhaps a point with one to three more. No sign, no exponent, no locale. */
static bool parse_seconds(const char *text, uint64_t *ret_ms)
{
    size_t whole = strspn(text, "0123456789");
    size_t fraction = 0;
    uint64_t ms = 0;

    if (whole == 0 || whole > 15)
        return false;
    if (text[whole] == '.') {
        fraction = strspn(text + whole + 1, "0123456789");
        if (fraction == 0 || fraction > 3 || text[whole + 1 + fraction] != '\0')
            return false;
    } else if (text[whole] != '\0') {
        return false;
    }
    for (size_t i = 0; i < whole; i++)
        ms = 10 * ms + (uint64_t)(text[i] - '0');
    for (size_t i = 0; i < 3; i++)
        ms = 10 * ms + (i < fraction ? (uint64_t)(text[whole + 1 + i] - '0') : 0);
    *ret_ms = ms;
    return true;
}

static bool set_bytes(const char *option, const char *text, uint32_t min, uint32_t max,
                      uint32_t *ret_bytes, const struct problem *problem)
{
    size_t len = strspn(text, "0123456789");

    if (len == 0 || len > 15 || text[len] != '\0')
        return complain(problem, "%s: '%s' is not a number of bytes, such as 1000000", option,
                        text);
    uint64_t bytes = strtoull(text, NULL, 10);
    if (bytes < min || bytes > max)
        return complain(problem, "%s: %s is out of range: %u to %u bytes", option, text, min, max);
    *ret_bytes = (uint32_t)bytes;
    return true;
}

static int real_path(const char *path, char *ret_path);

static bool set_mount_point(const char *const *arguments, int count, struct config *config,
                            const struct problem *problem)
{
    if (count < 1)
        return complain(problem, "the directory to mount on is missing");
    if (count > 1)
        return complain(problem, "unexpected argument '%s'", arguments[1]);
    if (arguments[0][0] == '\0')
        return complain(problem, "the directory to mount on has an empty name");
    int error = real_path(arguments[0], config->mount_point);
    if (error != 0)
        return complain(problem, "MOUNT: %s: %s", strerror(-error), arguments[0]);
    return true;
}

static bool default_data(char *buffer, size_t size, const struct problem *problem);
static bool lies_in(const char *path, const char *directory);

static bool set_data(const char *data, struct config *config, const struct problem *problem)
{
    char buffer[PATH_MAX];

    if (data == NULL) {
        if (!default_data(buffer, sizeof buffer, problem))
            return false;
        data = buffer;
    }
    if (data[0] == '\0')
        return complain(problem, "--data: the directory has an empty name");
    int error = real_path(data, config->data);
    if (error != 0)
        return complain(problem, "--data: %s: %s", strerror(-error), data);
    if (lies_in(config->data, config->mount_point))
        return complain(problem, "--data: %s must not lie below the mount point %s", config->data,
                        config->mount_point);
    return true;
}

static bool default_data(char *buffer, size_t size, const struct problem *problem)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int len;

    if (geteuid() == 0)
        len = snprintf(buffer, size, "/var/lib/lockfs");
    else if (state != NULL && state[0] == '/') /* a relative one does not count */
        len = snprintf(buffer, size, "%s/lockfs", state);
    else if (home != NULL && home[0] == '/')
        len = snprintf(buffer, size, "%s/.local/state/lockfs", home);
    else
        return complain(problem, "there is no default for --data, since HOME is not set");
    if ((size_t)len >= size)
        return complain(problem, "--data: its default is too long a name");
    return true;
}

static bool lies_in(const char *path, const char *directory)
{
    size_t len = strlen(directory);

    return strncmp(path, directory, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* The real path of as much as can be looked at, with the rest of the names behind it. Whether what
 * is missing can be made, or used, is found out at start. */
static int real_path(const char *path, char *ret_path)
{
    char known[PATH_MAX];
    char real[PATH_MAX];
    char rest[PATH_MAX] = "";
    int error;

    if (strlen(path) >= sizeof known)
        return -ENAMETOOLONG;
    strcpy(known, path);
    while ((error = mounts_resolve(known, real)) != 0) {
        size_t len = strlen(known);
        while (len > 1 && known[len - 1] == '/')
            known[--len] = '\0';
        char *slash = strrchr(known, '/');
        const char *name = slash != NULL ? slash + 1 : known;
        if (name[0] == '\0' || strcmp(known, ".") == 0 || strcmp(name, "..") == 0)
            return error;
        if (strcmp(name, ".") != 0) {
            char longer[PATH_MAX];
            if (strlen(name) + strlen(rest) + 1 >= sizeof longer)
                return -ENAMETOOLONG;
            stpcpy(stpcpy(stpcpy(longer, "/"), name), rest);
            strcpy(rest, longer);
        }
        if (slash == NULL)
            strcpy(known, ".");
        else
            slash[slash == known ? 1 : 0] = '\0';
    }
    const char *start = strcmp(real, "/") == 0 && rest[0] != '\0' ? "" : real;
    if (strlen(start) + strlen(rest) >= sizeof real)
        return -ENAMETOOLONG;
    stpcpy(stpcpy(ret_path, start), rest);
    return 0;
}
