/* The names that lockfs keeps for itself: control files, and what the root has besides. Pure. */
#ifndef FS_NAMES_H
#define FS_NAMES_H

#include "command.h"

enum control {
    CONTROL_NONE = 0, /* not a control file */
    /* In every lock. */
    CONTROL_TOKEN,
    CONTROL_LAST,
    CONTROL_HOLDERS,
    CONTROL_WAITERS,
    CONTROL_LIMIT,
    CONTROL_TTL,
    CONTROL_RELEASE,
    CONTROL_DELAY,
    /* At the root: the directory .lockfs, and what is in it. */
    CONTROL_LOCKFS,
    CONTROL_STATUS,
    CONTROL_LOCKS,
    CONTROL_EVENTS,
    CONTROL_METRICS,
    CONTROL_COUNT,
};

/* Extended attributes of lockfs begin so. */
#define NAMES_XATTR_PREFIX "user.lockfs."

/* Where a name is looked for. */
enum names_place {
    NAMES_LOCK,   /* a lock's directory */
    NAMES_ROOT,   /* the mount's root, a lock's directory too */
    NAMES_LOCKFS, /* .lockfs */
};

/* The control file `name` of a place, or CONTROL_NONE. */
enum control names_control(enum names_place place, struct span name);

/* The name of a control file. */
struct span names_of_control(enum control control);

/* Whether a place lists a control file when it is read: `numbered` says whether the lock has a
 * numeric limit. */
bool names_listed(enum names_place place, bool numbered, enum control control);

/* Whether a claim or a lock may have this name: 0, or EEXIST (reserved), EPERM (hidden names, where
 * the limit is a number: editors' temporaries would acquire), ENAMETOOLONG, negative. */
int names_check(enum names_place place, bool numbered, struct span name);

#endif
