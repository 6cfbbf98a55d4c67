/* The settings of a lock. See settings.h. */
#include "settings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *const settings_names[SETTINGS_COUNT] = {"limit", "ttl", "release", "delay"};

static bool path_of(const struct place *place, const char *name, char *ret_path, size_t size)
{
    char file[32];

    snprintf(file, sizeof file, ".%s", name);
    return place_join(place, file, ret_path, size);
}

int setting_write(const struct place *place, const char *name, const char *value,
                  struct failure *ret_failure)
{
    char path[PATH_MAX];
    char text[64];

    if (!path_of(place, name, path, sizeof path))
        return fail(ret_failure, EXIT_NO_LOCK, "%s: %s", place->directory, explain(ENAMETOOLONG));
    int length = snprintf(text, sizeof text, "%s\n", value);
    int error = length < (int)sizeof text ? write_file(path, text) : -EINVAL;
    if (error == -EINVAL)
        return fail(ret_failure, EXIT_USAGE,
                    "%s=%s: not a value for %s, or not while claims are held or waited for", name,
                    value, place->directory);
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
