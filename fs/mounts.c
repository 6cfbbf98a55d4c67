/* What is mounted where. See mounts.h. */
#include "mounts.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"

/* As many links in a row as the kernel follows. */
#define LINKS_MAX 40

static void strip_end(char *path);
static int join(char *buffer, const char *directory, const char *name);

int mounts_resolve(const char *path, char *ret_path)
{
    char current[PATH_MAX];
    char directory[PATH_MAX];
    char joined[PATH_MAX];
    char target[PATH_MAX];

    if (strlen(path) >= sizeof current)
        return -ENAMETOOLONG;
    if (path[0] == '\0')
        return -ENOENT;
    strcpy(current, path);
    for (int links = 0; links <= LINKS_MAX; links++) {
        strip_end(current);
        if (strcmp(current, "/") == 0) {
            strcpy(ret_path, current);
            return 0;
        }
        if (strcmp(current, ".") == 0) {
            /* The kernel knows it by heart: no look at the directory itself. */
            if (getcwd(directory, sizeof directory) == NULL)
                return -errno;
            strcpy(ret_path, directory);
            return 0;
        }

        char *slash = strrchr(current, '/');
        const char *name = slash != NULL ? slash + 1 : current;
        const char *parent = slash == NULL ? "." : slash == current ? "/" : current;
        if (slash != NULL && slash != current)
            *slash = '\0';
        if (realpath(parent, directory) == NULL)
            return -errno;
        if (strcmp(name, "..") == 0) {
            slash = strrchr(directory, '/');
            slash[slash == directory ? 1 : 0] = '\0';
            strcpy(ret_path, directory);
            return 0;
        }

        int error = join(joined, directory, name);
        if (error != 0)
            return error;
        ssize_t len = readlink(joined, target, sizeof target);
        if (len < 0 && errno == EINVAL) { /* no link: a dead mount says so, too */
            strcpy(ret_path, joined);
            return 0;
        }
        if (len < 0)
            return -errno;
        if ((size_t)len == sizeof target)
            return -ENAMETOOLONG;
        target[len] = '\0';
        if (target[0] == '/') {
            strcpy(current, target);
        } else {
            error = join(current, directory, target);
            if (error != 0)
                return error;
        }
    }
    return -ELOOP;
}

/* Takes slashes and "." off the end. */
static void strip_end(char *path)
{
    size_t len = strlen(path);

    for (;;) {
        while (len > 1 && path[len - 1] == '/')
            len--;
        if (len < 2 || path[len - 1] != '.' || path[len - 2] != '/')
            break;
        len--;
    }
    path[len] = '\0';
}

static int join(char *buffer, const char *directory, const char *name)
{
    const char *slash = strcmp(directory, "/") == 0 ? "" : "/";

    if (strlen(directory) + strlen(slash) + strlen(name) >= PATH_MAX)
        return -ENAMETOOLONG;
    stpcpy(stpcpy(stpcpy(buffer, directory), slash), name);
    return 0;
}

static int parent_mount_id(const char *path, int *ret_id);
static int read_whole(const char *path, char **ret_text);

int mounts_on(const char *path, struct mount_stack *ret_stack)
{
    assert(path[0] == '/' && path[1] != '\0');

    int parent_id;
    int error = parent_mount_id(path, &parent_id);
    if (error != 0)
        return error;
    char *text = NULL;
    error = read_whole("/proc/self/mountinfo", &text);
    if (error != 0)
        return error;
    assert(text != NULL);
    error = mounts_parse(text, parent_id, path, ret_stack);
    free(text);
    return error;
}

static int parent_mount_id(const char *path, int *ret_id)
{
    char parent[PATH_MAX];
    struct statx status;

    assert(strlen(path) < sizeof parent);
    strcpy(parent, path);
    char *slash = strrchr(parent, '/');
    slash[slash == parent ? 1 : 0] = '\0';
    if (statx(AT_FDCWD, parent, AT_STATX_DONT_SYNC, STATX_MNT_ID, &status) != 0)
        return -errno;
    if ((status.stx_mask & STATX_MNT_ID) == 0)
        return -EOPNOTSUPP; /* Linux before 5.8 */
    *ret_id = (int)status.stx_mnt_id;
    return 0;
}

static int read_whole(const char *path, char **ret_text)
{
    size_t size = 64 << 10;
    size_t len = 0;
    int error = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    char *text = malloc(size);
    while (text != NULL) {
        ssize_t got = read(fd, text + len, size - len - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            error = -errno;
        if (got <= 0)
            break;
        len += (size_t)got;
        if (len + 1 < size)
            continue;
        size *= 2;
        char *larger = realloc(text, size);
        if (larger == NULL)
            free(text);
        text = larger;
    }
    close(fd);
    if (text == NULL)
        return -ENOMEM;
    if (error != 0) {
        free(text);
        return error;
    }
    text[len] = '\0';
    *ret_text = text;
    return 0;
}

/* One line, its strings still escaped. */
struct mount_line {
    int id;
    int parent_id;
    struct span path;
    struct span options;
    struct span type;
    struct span source;
    struct span super_options;
};

static bool line_parse(struct span line, struct mount_line *ret_line);
static bool option_in(struct span options, const char *name);
static bool unescaped_equal(struct span escaped, const char *plain);
static void unescape_copy(char *buffer, size_t size, struct span escaped);

int mounts_parse(const char *text, int parent_id, const char *path, struct mount_stack *ret_stack)
{
    struct mount_stack stack = {0};

    /* Each mount of the stack is the child of the one below it: the order of the lines says nothing
     * since mounts can be moved. */
    for (;;) {
        bool found = false;
        struct mount_line above = {0};
        const char *end;
        for (const char *start = text; *start != '\0'; start = *end == '\0' ? end : end + 1) {
            struct mount_line line;
            end = strchrnul(start, '\n');
            struct span whole = {start, (size_t)(end - start)};
            if (!line_parse(whole, &line) || line.parent_id != parent_id || line.id == parent_id ||
                !unescaped_equal(line.path, path))
                continue;
            above = line;
            found = true;
        }
        if (!found)
            break;
        if (stack.count == MOUNTS_STACK_MAX)
            return -E2BIG;
        struct mount_entry *entry = &stack.entries[stack.count++];
        entry->id = above.id;
        entry->read_only = option_in(above.options, "ro") || option_in(above.super_options, "ro");
        unescape_copy(entry->type, sizeof entry->type, above.type);
        unescape_copy(entry->source, sizeof entry->source, above.source);
        parent_id = above.id;
    }
    *ret_stack = stack;
    return 0;
}

/* The next field. Exactly one space parts two: an empty source is an empty field. */
static struct span field_next(struct span *rest)
{
    const char *space = memchr(rest->data, ' ', rest->len);
    size_t len = space != NULL ? (size_t)(space - rest->data) : rest->len;
    struct span field = {rest->data, len};
    size_t taken = space != NULL ? len + 1 : len;

    rest->data += taken;
    rest->len -= taken;
    return field;
}

static bool span_equal(struct span span, const char *text)
{
    return span.len == strlen(text) && memcmp(span.data, text, span.len) == 0;
}

static bool number_parse(struct span field, int *ret_number)
{
    int number = 0;

    if (field.len == 0 || field.len > 9)
        return false;
    for (size_t i = 0; i < field.len; i++) {
        if (field.data[i] < '0' || field.data[i] > '9')
            return false;
        number = 10 * number + (field.data[i] - '0');
    }
    *ret_number = number;
    return true;
}

/* ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [TAG...] - TYPE SOURCE SUPER-OPTIONS */
static bool line_parse(struct span line, struct mount_line *ret_line)
{
    struct span rest = line;

    if (!number_parse(field_next(&rest), &ret_line->id) ||
        !number_parse(field_next(&rest), &ret_line->parent_id))
        return false;
    field_next(&rest);
    field_next(&rest);
    ret_line->path = field_next(&rest);
    ret_line->options = field_next(&rest);
    do {
        if (rest.len == 0)
            return false;
    } while (!span_equal(field_next(&rest), "-"));
    ret_line->type = field_next(&rest);
    ret_line->source = field_next(&rest);
    ret_line->super_options = field_next(&rest);
    return true;
}

static bool option_in(struct span options, const char *name)
{
    while (options.len > 0) {
        const char *comma = memchr(options.data, ',', options.len);
        size_t len = comma != NULL ? (size_t)(comma - options.data) : options.len;
        if (span_equal((struct span){options.data, len}, name))
            return true;
        size_t taken = comma != NULL ? len + 1 : len;
        options.data += taken;
        options.len -= taken;
    }
    return false;
}

static bool octal(char c)
{
    return c >= '0' && c <= '7';
}

/* The kernel writes blanks, newlines and backslashes as a backslash and three octal digits. */
static char unescape_next(struct span *rest)
{
    char c = rest->data[0];
    size_t taken = 1;

    if (c == '\\' && rest->len >= 4 && octal(rest->data[1]) && octal(rest->data[2]) &&
        octal(rest->data[3])) {
        c = (char)((rest->data[1] - '0') << 6 | (rest->data[2] - '0') << 3 | (rest->data[3] - '0'));
        taken = 4;
    }
    rest->data += taken;
    rest->len -= taken;
    return c;
}

static bool unescaped_equal(struct span escaped, const char *plain)
{
    while (escaped.len > 0) {
        if (unescape_next(&escaped) != *plain || *plain == '\0')
            return false;
        plain++;
    }
    return *plain == '\0';
}

/* Cuts off what does not fit. */
static void unescape_copy(char *buffer, size_t size, struct span escaped)
{
    size_t len = 0;

    while (escaped.len > 0 && len + 1 < size)
        buffer[len++] = unescape_next(&escaped);
    buffer[len] = '\0';
}

const struct mount_entry *mounts_top(const struct mount_stack *stack)
{
    return stack->count == 0 ? NULL : &stack->entries[stack->count - 1];
}
