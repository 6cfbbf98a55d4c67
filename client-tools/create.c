/* lockfs create: makes a lock, with settings. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "settings.h"
#include "tool.h"

static const char help[] =
    "Usage: lockfs create [options] LOCK\n"
    "Makes the lock LOCK, a directory, as mkdir does, and sets what the options say.\n"
    "Where a setting is refused, the lock is removed again.\n"
    "\n"
    "      --limit N|unlimited   so many claims may be held at once (default 1)\n"
    "      --ttl SECONDS         claims end this long after a crash\n"
    "      --release close|exit  what ends a claim that was made by creating\n"
    "      --delay SECONDS       so long nobody gets it after an unclean end\n"
    "      --mode MODE           permissions, in octal, whatever the umask\n"
    "  -h, --help                print this, and exit\n"
    "\n"
    "Exit status: 0 done, 64 wrong usage or value, 66 LOCK cannot be named so, 69 no\n"
    "lockfs or daemon gone, 75 LOCK exists, 77 permission denied.\n";

struct options {
    const char *lock;
    const char *settings[SETTINGS_COUNT]; /* in the order of settings_names; NULL: as it is */
    mode_t mode;
    bool has_mode;
};

static int parse(int argc, char *argv[], struct options *ret_options);
static int make(const struct options *options, struct failure *ret_failure);

int create_main(int argc, char *argv[])
{
    struct options options = {.lock = ""};
    struct failure failure = {.code = 0};
    int code = parse(argc, argv, &options);

    if (code >= 0)
        return code;
    return make(&options, &failure) == 0 ? 0 : failure_tell(&failure);
}

/* Returns the exit code, or -1 to go on. */
static int parse(int argc, char *argv[], struct options *ret_options)
{
    enum { OPTION_SETTING = 256, OPTION_MODE = 300, OPTION_LOCKFILES };
    static const struct option long_options[] = {
        {"limit", required_argument, NULL, OPTION_SETTING},
        {"ttl", required_argument, NULL, OPTION_SETTING + 1},
        {"release", required_argument, NULL, OPTION_SETTING + 2},
        {"delay", required_argument, NULL, OPTION_SETTING + 3},
        {"mode", required_argument, NULL, OPTION_MODE},
        {"lockfiles", no_argument, NULL, OPTION_LOCKFILES},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.lock = NULL};
    char *end;
    int option;

    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        switch (option) {
        case OPTION_SETTING:
        case OPTION_SETTING + 1:
        case OPTION_SETTING + 2:
        case OPTION_SETTING + 3:
            options.settings[option - OPTION_SETTING] = optarg;
            break;
        case OPTION_MODE: {
            unsigned long mode = strtoul(optarg, &end, 8);
            if (optarg[0] < '0' || optarg[0] > '7' || *end != '\0' || mode > 07777) {
                tell("--mode: '%s' is not an octal number such as 1777", optarg);
                return usage_error(argv[0]);
            }
            options.mode = (mode_t)mode;
            options.has_mode = true;
            break;
        }
        case OPTION_LOCKFILES:
            tell("--lockfiles: this version has no directories for programs that close their "
                 "lockfile while they hold it");
            return EXIT_UNAVAILABLE;
        case 'h':
            fputs(help, stdout);
            return finish_output();
        default:
            return usage_error(argv[0]);
        }
    }
    if (optind + 1 != argc) {
        tell(optind == argc ? "the lock is missing" : "one lock at a time");
        return usage_error(argv[0]);
    }
    options.lock = argv[optind];
    *ret_options = options;
    return -1;
}

static int set_all(const struct options *options, struct failure *ret_failure);

static int make(const struct options *options, struct failure *ret_failure)
{
    struct place place;
    char path[PATH_MAX];
    size_t length = strlen(options->lock);

    /* The place of the lock as if it were a file: so the mount is looked at before it is made. */
    while (length > 1 && options->lock[length - 1] == '/')
        length--;
    if (length >= sizeof path)
        return fail(ret_failure, EXIT_NO_LOCK, "%s: %s", options->lock, explain(ENAMETOOLONG));
    memcpy(path, options->lock, length);
    path[length] = '\0';
    if (place_find(path, &place, ret_failure) != 0)
        return ret_failure->code;
    /* With a mode of its own it is its owner's alone until all is set. */
    if (mkdir(path, options->has_mode ? options->mode & 0700 : 0777) != 0) {
        int error = errno;
        return fail(ret_failure, exit_code_of(error), "%s: %s", path,
                    error == EEXIST ? "it exists, or the name is taken" : explain(error));
    }
    int code = set_all(options, ret_failure);
    if (code != 0 && rmdir(path) != 0)
        tell("%s: cannot be removed again: %s", path, explain(errno));
    return code;
}

static int set_all(const struct options *options, struct failure *ret_failure)
{
    struct place place;
    int code = place_find(options->lock, &place, ret_failure);

    for (size_t i = 0; code == 0 && i < SETTINGS_COUNT; i++) {
        if (options->settings[i] != NULL)
            code =
                setting_write(&place, settings_names[i], options->settings[i], true, ret_failure);
    }
    if (code == 0 && options->has_mode && chmod(place.directory, options->mode) != 0)
        code = fail(ret_failure, exit_code_of(errno), "--mode: %s", explain(errno));
    return code;
}
