/*
 * What is mounted where, as /proc/self/mountinfo says. Nothing here asks the mounted filesystem
 * itself, so that a FUSE mount whose daemon is dead, or does not answer, stops nobody.
 */
#ifndef FS_MOUNTS_H
#define FS_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

struct mount_entry {
    int id;
    bool read_only;
    char type[64]; /* "tmpfs", "fuse.lockfs" */
    char source[256];
};

enum { MOUNTS_STACK_MAX = 16 };

/* What is mounted on one directory, one above the other: the last one is what a path leads to. */
struct mount_stack {
    size_t count;
    struct mount_entry entries[MOUNTS_STACK_MAX];
};

/* The real path of what `path` names (it must exist), into PATH_MAX bytes: links followed, no `.`,
 * no `..`, no slash at the end. Looks at the parent directory only, never through a mount on `path`
 * itself. Returns 0 or a negative errno. */
int mounts_resolve(const char *path, char *ret_path);

/* The mounts on `path`, which mounts_resolve() gave and is not "/". Returns 0 or a negative errno;
 * -E2BIG where more than MOUNTS_STACK_MAX lie there. */
int mounts_on(const char *path, struct mount_stack *ret_stack);

/* The same from the text of a mountinfo file; `parent_id` is the mount that the parent directory of
 * `path` is in. A mount on that path which something else hides is not counted. */
int mounts_parse(const char *text, int parent_id, const char *path, struct mount_stack *ret_stack);

/* The topmost one, NULL where nothing is mounted. */
const struct mount_entry *mounts_top(const struct mount_stack *stack);

#endif
