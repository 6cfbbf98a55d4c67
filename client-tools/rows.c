/* The lines of `holders` and `waiters`. See rows.h. */
#include "rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const column_names[COLUMN_COUNT] = {"token", "mode",    "node", "pid",
                                                "uid",   "seconds", "file", "command"};

static bool row_parse(char *line, struct row *ret_row);
static bool is_on_file(const struct row *row, const char *file);

int rows_read(const struct place *place, const char *name, struct rows *ret_rows)
{
    struct rows rows = {.text = NULL};
    char path[PATH_MAX];
    size_t lines = 1;

    if (!place_join(place, name, path, sizeof path))
        return -ENAMETOOLONG;
    ssize_t length = read_whole_file(path, &rows.text);
    if (length < 0)
        return (int)length;
    for (const char *c = rows.text; *c != '\0'; c++)
        lines += *c == '\n';
    rows.rows = calloc(lines, sizeof *rows.rows);
    if (rows.rows == NULL) {
        free(rows.text);
        return -ENOMEM;
    }
    char *rest = rows.text;
    char *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        struct row *row = &rows.rows[rows.count];
        if (line[0] == '\0')
            continue;
        if (!row_parse(line, row))
            *row = (struct row){.note = line};
        else if (place->file[0] != '\0' && !is_on_file(row, place->file))
            continue;
        rows.count++;
    }
    *ret_rows = rows;
    return 0;
}

/* A line of another form is left as it is. */
static bool row_parse(char *line, struct row *ret_row)
{
    struct row row = {.note = NULL};
    size_t blanks = 0;

    for (const char *c = line; *c != '\0'; c++)
        blanks += *c == ' ';
    if (blanks != COLUMN_COUNT - 1)
        return false;
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        row.columns[i] = strsep(&line, " ");
    *ret_row = row;
    return true;
}

static bool is_on_file(const struct row *row, const char *file)
{
    char *name = strdup(row->columns[COLUMN_FILE]);

    if (name == NULL)
        return false;
    field_decode(name);
    bool same = strcmp(name, file) == 0;
    free(name);
    return same;
}

void rows_free(struct rows *rows)
{
    free(rows->rows);
    free(rows->text);
    *rows = (struct rows){.text = NULL};
}

static bool is_octal(char c)
{
    return c >= '0' && c <= '7';
}

void field_decode(char *field)
{
    char *out = field;

    while (*field != '\0') {
        if (field[0] == '\\' && is_octal(field[1]) && is_octal(field[2]) && is_octal(field[3])) {
            int byte = (field[1] - '0') * 64 + (field[2] - '0') * 8 + (field[3] - '0');
            *out++ = (char)(unsigned char)byte;
            field += 4;
        } else {
            *out++ = *field++;
        }
    }
    *out = '\0';
}
