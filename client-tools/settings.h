/* The settings of a lock, as control files. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "tool.h"

/* Their names, without the dot, in the order in which they are set and shown. */
#define SETTINGS_COUNT 4
extern const char *const settings_names[SETTINGS_COUNT];

/* Sets one, of a lock that was just made or not. Returns 0 or the exit code. */
int setting_write(const struct place *place, const char *name, const char *value, bool is_new,
                  struct failure *ret_failure);
/* Reads one into `buffer`, without its newline. Returns 0 or a negative errno. */
int setting_read(const struct place *place, const char *name, char *buffer, size_t size);

#endif
