/* lockfs status: shows a node, or a lock with its holders and waiters. */
#include <errno.h>
#include <getopt.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "rows.h"
#include "settings.h"
#include "tool.h"

static const char help[] =
    "Usage: lockfs status [--json] [PATH]\n"
    "Shows the node that is mounted on PATH, or the lock that PATH is, with its\n"
    "settings, holders and waiters. Without PATH: the only node that is mounted.\n"
    "\n"
    "      --json  print a JSON object\n"
    "  -h, --help  print this, and exit\n"
    "\n"
    "Odd characters in names are shown as \\ooo, in JSON, too.\n"
    "\n"
    "Exit status: 0 shown, 64 wrong usage, 66 no such lock, 69 no lockfs or daemon\n"
    "gone, 77 permission denied.\n";

static int find_mount(char *ret_path, size_t size, struct failure *ret_failure);
static int show_node(const char *path, char *text, bool as_json);
static int show_lock(const char *path, bool as_json, struct failure *ret_failure);

int status_main(int argc, char *argv[])
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    char mount[PATH_MAX];
    char path[PATH_MAX + sizeof "/.lockfs/status"];
    struct failure failure = {.code = 0};
    bool as_json = false;
    int option;

    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        switch (option) {
        case 'j':
            as_json = true;
            break;
        case 'h':
            fputs(help, stdout);
            return finish_output();
        default:
            return usage_error(argv[0]);
        }
    }
    if (optind + 1 < argc) {
        tell("one path at a time");
        return usage_error(argv[0]);
    }
    if (optind == argc && find_mount(mount, sizeof mount, &failure) != 0)
        return failure_tell(&failure);
    const char *given = optind < argc ? argv[optind] : mount;
    int length = snprintf(path, sizeof path, "%s/.lockfs/status", given);
    char *text;
    if (length < (int)sizeof path && read_whole_file(path, &text) >= 0) {
        int code = show_node(given, text, as_json);
        free(text);
        return code;
    }
    return show_lock(given, as_json, &failure) == 0 ? finish_output() : failure_tell(&failure);
}

static int find_mount(char *ret_path, size_t size, struct failure *ret_failure)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    const struct mntent *entry;
    size_t count = 0;

    if (mounts == NULL)
        return fail(ret_failure, EXIT_SYSTEM, "/proc/self/mounts: %s", strerror(errno));
    while ((entry = getmntent(mounts)) != NULL) {
        if (strcmp(entry->mnt_type, "fuse.lockfs") != 0)
            continue;
        snprintf(ret_path, size, "%s", entry->mnt_dir);
        count++;
    }
    endmntent(mounts);
    if (count == 0)
        return fail(ret_failure, EXIT_UNAVAILABLE, "no lockfs is mounted here");
    if (count > 1)
        return fail(ret_failure, EXIT_USAGE, "%zu lockfs are mounted here: name one", count);
    return 0;
}

/* The file has a line "KEY VALUE" for each thing. */
static int show_node(const char *path, char *text, bool as_json)
{
    struct json json = {.depth = 0};
    char *line;

    if (as_json) {
        json_open(&json, NULL, '{');
        json_string(&json, "mount", path);
    } else {
        printf("%-20s %s\n", "mount", path);
    }
    while ((line = strsep(&text, "\n")) != NULL) {
        const char *key = strsep(&line, " ");
        if (line == NULL)
            continue;
        if (as_json)
            json_number_or_string(&json, key, line);
        else
            printf("%-20s %s\n", key, line);
    }
    if (as_json)
        json_close(&json, '}');
    return finish_output();
}

struct lock {
    char path[PATH_MAX];
    char settings[SETTINGS_COUNT][64]; /* empty: may not be read */
    char last[32];
    char token[32]; /* of the only claim there can be */
    struct rows holders;
    struct rows waiters;
};

static int read_lock(const struct place *place, struct lock *lock, struct failure *ret_failure);
static void print_lock(const struct lock *lock);
static void print_lock_json(const struct lock *lock);

static int show_lock(const char *path, bool as_json, struct failure *ret_failure)
{
    struct lock lock = {.last = ""};
    struct place place;
    int code = place_find(path, &place, ret_failure);

    if (code == 0)
        code = read_lock(&place, &lock, ret_failure);
    if (code == 0 && as_json)
        print_lock_json(&lock);
    else if (code == 0)
        print_lock(&lock);
    rows_free(&lock.holders);
    rows_free(&lock.waiters);
    return code;
}

static int read_lock(const struct place *place, struct lock *lock, struct failure *ret_failure)
{
    char path[PATH_MAX];
    int error = 0;

    if (place->file[0] == '\0')
        strcpy(lock->path, place->directory);
    else if (!place_join(place, place->file, lock->path, sizeof lock->path))
        error = -ENAMETOOLONG;
    for (size_t i = 0; i < SETTINGS_COUNT && error == 0; i++)
        error = setting_read(place, settings_names[i], lock->settings[i], sizeof lock->settings[i]);
    if (error == 0 && place_join(place, "last", path, sizeof path)) {
        ssize_t length = read_file(path, lock->last, sizeof lock->last);
        lock->last[strcspn(lock->last, "\n")] = '\0';
        error = length < 0 ? (int)length : 0;
    }
    if (error == 0)
        error = rows_read(place, "holders", &lock->holders);
    if (error == 0)
        error = rows_read(place, "waiters", &lock->waiters);
    if (error != 0)
        return fail(ret_failure, exit_code_of(-error), "%s: %s", lock->path, explain(-error));
    /* What reading `token` says depends on who asks. Of shared claims, the last one. */
    for (size_t i = 0; i < lock->holders.count; i++) {
        const struct row *row = &lock->holders.rows[i];
        bool single = place->file[0] != '\0' || strcmp(lock->settings[0], "1") == 0;
        if (single && row->note == NULL)
            snprintf(lock->token, sizeof lock->token, "%s", row->columns[COLUMN_TOKEN]);
    }
    return 0;
}

static void print_rows(const char *title, const struct rows *rows)
{
    int widths[COLUMN_COUNT - 1];

    if (rows->count == 0) {
        printf("\n%s: none\n", title);
        return;
    }
    printf("\n%s:\n", title);
    for (size_t column = 0; column < COLUMN_COUNT - 1; column++) {
        widths[column] = (int)strlen(column_names[column]);
        for (size_t i = 0; i < rows->count; i++) {
            const char *field = rows->rows[i].columns[column];
            if (field != NULL && (int)strlen(field) > widths[column])
                widths[column] = (int)strlen(field);
        }
    }
    for (size_t column = 0; column < COLUMN_COUNT - 1; column++)
        printf("  %-*s", widths[column], column_names[column]);
    printf("  %s\n", column_names[COLUMN_COUNT - 1]);
    for (size_t i = 0; i < rows->count; i++) {
        const struct row *row = &rows->rows[i];
        for (size_t column = 0; column < COLUMN_COUNT - 1 && row->note == NULL; column++)
            printf("  %-*s", widths[column], row->columns[column]);
        printf("  %s\n", row->note != NULL ? row->note : row->columns[COLUMN_COMMAND]);
    }
}

static void print_lock(const struct lock *lock)
{
    printf("%-8s %s\n", "lock", lock->path);
    for (size_t i = 0; i < SETTINGS_COUNT; i++)
        printf("%-8s %s\n", settings_names[i], lock->settings[i]);
    printf("%-8s %s\n", "last", lock->last);
    printf("%-8s %s\n", "token", lock->token[0] != '\0' ? lock->token : "-");
    print_rows("holders", &lock->holders);
    print_rows("waiters", &lock->waiters);
}

static void print_rows_json(struct json *json, const char *key, const struct rows *rows)
{
    json_open(json, key, '[');
    for (size_t i = 0; i < rows->count; i++) {
        const struct row *row = &rows->rows[i];
        json_open(json, NULL, '{');
        if (row->note != NULL)
            json_string(json, "note", row->note);
        for (size_t column = 0; column < COLUMN_COUNT && row->note == NULL; column++) {
            const char *field = row->columns[column];
            if (column == COLUMN_FILE || column == COLUMN_COMMAND)
                json_string(json, column_names[column], field);
            else if (strcmp(field, "-") == 0)
                json_null(json, column_names[column]);
            else
                json_number_or_string(json, column_names[column], field);
        }
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void print_lock_json(const struct lock *lock)
{
    struct json json = {.depth = 0};

    json_open(&json, NULL, '{');
    json_string(&json, "lock", lock->path);
    for (size_t i = 0; i < SETTINGS_COUNT; i++)
        json_number_or_string(&json, settings_names[i], lock->settings[i]);
    json_number_or_string(&json, "last", lock->last);
    if (lock->token[0] != '\0')
        json_number_or_string(&json, "token", lock->token);
    else
        json_null(&json, "token");
    print_rows_json(&json, "holders", &lock->holders);
    print_rows_json(&json, "waiters", &lock->waiters);
    json_close(&json, '}');
}
