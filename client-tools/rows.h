/* The lines of `holders` and `waiters`. */
#ifndef ROWS_H
#define ROWS_H

#include <stdbool.h>
#include <stddef.h>

#include "tool.h"

enum column {
    COLUMN_TOKEN, /* "-" for a waiter */
    COLUMN_MODE,
    COLUMN_NODE,
    COLUMN_PID,
    COLUMN_UID,
    COLUMN_SECONDS,
    COLUMN_FILE, /* odd characters as \ooo */
    COLUMN_COMMAND,
    COLUMN_COUNT,
};

extern const char *const column_names[COLUMN_COUNT];

struct row {
    char *columns[COLUMN_COUNT]; /* into the text of the file */
    char *note;                  /* a line of another kind; the columns are NULL */
};

struct rows {
    char *text;
    struct row *rows;
    size_t count;
};

/* Reads `name` ("holders" or "waiters") of the place: those on its file only, where it has one.
 * Returns 0 or a negative errno. */
int rows_read(const struct place *place, const char *name, struct rows *ret_rows);
void rows_free(struct rows *rows);

/* Turns \ooo into the character it stands for, in place. */
void field_decode(char *field);

#endif
