/* The settings of a lock. See settings.h. */
#include "settings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *const settings_names[SETTINGS_COUNT] = {"limit", "ttl", "release", "delay"};

/* What each can be, as the daemon has it. */
static const char *const values[SETTINGS_COUNT] = {
    "1 to 1048576, or unlimited",
    "5 to 3600 seconds",
    "close or exit",
    "0 to 86400 seconds",
};

static const char *values_of(const char *name)
{
    size_t i = 0;

    while (strcmp(name, settings_names[i]) != 0)
        i++;
    return values[i];
}

static bool path_of(const struct place *place, const char *name, char *ret_path, size_t size)
{
    char file[32];

    snprintf(file, sizeof file, ".%s", name);
    return place_join(place, file, ret_path, size);
}

int setting_write(const struct place *place, const char *name, const char *value, bool is_new,
                  struct failure *ret_failure)
{
    char path[PATH_MAX];
    char text[64];

    if (!path_of(place, name, path, sizeof path))
        return fail(ret_failure, EXIT_NO_LOCK, "%s: %s", place->directory, explain(ENAMETOOLONG));
    int length = snprintf(text, sizeof text, "%s\n", value);
    int error = length < (int)sizeof text ? write_file(path, text) : -EINVAL;
    if (error == -EINVAL)
        return fail(ret_failure, EXIT_USAGE, "%s=%s: refused by %s: %s%s", name, value,
                    place->directory, values_of(name),
                    strcmp(name, "limit") == 0 && !is_new
                        ? "; not below what is held, and while anything is held or waited for "
                          "not between a number and unlimited"
                        : "");
    if (error != 0)
        return fail(ret_failure, exit_code_of(-error), "%s=%s: %s", name, value, explain(-error));
    return 0;
}

int setting_read(const struct place *place, const char *name, char *buffer, size_t size)
{
    char path[PATH_MAX];

    if (!path_of(place, name, path, sizeof path))
        return -ENAMETOOLONG;
    ssize_t length = read_file(path, buffer, size);
    if (length < 0)
        return (int)length;
    buffer[strcspn(buffer, "\n")] = '\0';
    return 0;
}
