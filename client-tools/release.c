/* lockfs release: takes claims away from their holders. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fs/lockfs.h"
#include "rows.h"
#include "tool.h"

static const char help[] =
    "Usage: lockfs release --force [--token TOKEN] PATH\n"
    "Takes the claims on PATH away from their holders, who get ESTALE and POLLERR and\n"
    "may not notice at once: what compares fencing numbers is safe, others are not.\n"
    "PATH is a lock's directory or a file. lockfsd logs who did it.\n"
    "\n"
    "      --force        required: a lock belongs to its holder\n"
    "      --token TOKEN  only the claim with this number\n"
    "  -h, --help         print this, and exit\n"
    "\n"
    "Exit status: 0 done, 64 wrong usage, 66 no such lock, or nothing is held, 69 no\n"
    "lockfs or daemon gone, 77 permission denied (a lock's owner and root may).\n";

struct options {
    const char *path;
    uint64_t token; /* 0: all */
};

static int parse(int argc, char *argv[], struct options *ret_options);
static int fail_to_release(const char *path, uint64_t token, int error,
                           struct failure *ret_failure);
static int release_file(const struct place *place, const char *file, uint64_t token);
static int release_all(const struct place *place, uint64_t token, struct failure *ret_failure);

int release_main(int argc, char *argv[])
{
    struct options options = {.path = ""};
    struct failure failure = {.code = 0};
    struct place place;
    int code = parse(argc, argv, &options);

    if (code >= 0)
        return code;
    if (place_find(options.path, &place, &failure) != 0)
        return failure_tell(&failure);
    if (place.file[0] == '\0')
        return release_all(&place, options.token, &failure) == 0 ? 0 : failure_tell(&failure);
    int error = release_file(&place, place.file, options.token);
    if (error == 0)
        return 0;
    fail_to_release(options.path, options.token, error, &failure);
    return failure_tell(&failure);
}

static int fail_to_release(const char *path, uint64_t token, int error, struct failure *ret_failure)
{
    if (error == -ENODATA && token != 0)
        return fail(ret_failure, EXIT_NO_LOCK, "%s: no claim with the number %" PRIu64, path,
                    token);
    return fail(ret_failure, exit_code_of(-error), "%s: %s", path, explain(-error));
}

/* Returns the exit code, or -1 to go on. */
static int parse(int argc, char *argv[], struct options *ret_options)
{
    enum { OPTION_FORCE = 256, OPTION_TOKEN };
    static const struct option long_options[] = {
        {"force", no_argument, NULL, OPTION_FORCE},
        {"token", required_argument, NULL, OPTION_TOKEN},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.path = NULL};
    bool force = false;
    int option;

    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        switch (option) {
        case OPTION_FORCE:
            force = true;
            break;
        case OPTION_TOKEN:
            if (!parse_number(optarg, &options.token) || options.token == 0) {
                tell("--token: '%s' is not a fencing number", optarg);
                return usage_error(argv[0]);
            }
            break;
        case 'h':
            fputs(help, stdout);
            return finish_output();
        default:
            return usage_error(argv[0]);
        }
    }
    if (optind + 1 != argc) {
        tell(optind == argc ? "the path is missing" : "one path at a time");
        return usage_error(argv[0]);
    }
    if (!force) {
        tell("a claim belongs to its holder: '--force' takes it away all the same");
        return usage_error(argv[0]);
    }
    options.path = argv[optind];
    *ret_options = options;
    return -1;
}

/* Returns 0 or a negative errno: ENODATA where nothing was held. */
static int release_file(const struct place *place, const char *file, uint64_t token)
{
    char path[PATH_MAX];
    __u64 argument = token;
    int error = 0;

    if (!place_join(place, file, path, sizeof path))
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? -ENODATA : -errno; /* a file exists while it is held */
    if (ioctl(fd, LOCKFS_IOC_FORCE, &argument) != 0)
        error = -errno;
    close(fd);
    /* The place is on a lockfs: it is the daemon that does not know the request. */
    return error == -ENOTTY ? -EOPNOTSUPP : error;
}

static int release_all(const struct place *place, uint64_t token, struct failure *ret_failure)
{
    struct rows rows;
    size_t released = 0;
    int error = 0;

    if (place->unlimited)
        return fail(ret_failure, EXIT_NO_LOCK, "%s: each file in it is a lock of its own; name one",
                    place->directory);
    error = rows_read(place, "holders", &rows);
    if (error != 0)
        return fail(ret_failure, exit_code_of(-error), "%s/holders: %s", place->directory,
                    explain(-error));
    for (size_t i = 0; i < rows.count && error == 0; i++) {
        if (rows.rows[i].note != NULL)
            continue;
        field_decode(rows.rows[i].columns[COLUMN_FILE]);
        error = release_file(place, rows.rows[i].columns[COLUMN_FILE], token);
        if (error == 0)
            released++;
        else if (error == -ENODATA)
            error = 0; /* another line of the same file, or released meanwhile */
    }
    rows_free(&rows);
    if (error == 0 && released == 0)
        error = -ENODATA;
    return error == 0 ? 0 : fail_to_release(place->directory, token, error, ret_failure);
}
