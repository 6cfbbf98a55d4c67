/* The names that lockfs keeps for itself. */
#include "names.h"

#include <errno.h>
#include <string.h>

static const char *const control_names[CONTROL_COUNT] = {
    [CONTROL_TOKEN] = "token",      [CONTROL_LAST] = "last",    [CONTROL_HOLDERS] = "holders",
    [CONTROL_WAITERS] = "waiters",  [CONTROL_LIMIT] = ".limit", [CONTROL_TTL] = ".ttl",
    [CONTROL_RELEASE] = ".release", [CONTROL_DELAY] = ".delay", [CONTROL_LOCKFS] = ".lockfs",
    [CONTROL_STATUS] = "status",    [CONTROL_LOCKS] = "locks",  [CONTROL_EVENTS] = "events",
    [CONTROL_METRICS] = "metrics",
};

/* The directory for old programs (DESIGN A3) is not there yet; nobody may take its name. */
static const char lockfiles[] = "lockfiles";

static bool is_in(enum names_place place, enum control control)
{
    switch (place) {
    case NAMES_LOCK:
        return control >= CONTROL_TOKEN && control <= CONTROL_DELAY;
    case NAMES_ROOT:
        return control >= CONTROL_TOKEN && control <= CONTROL_LOCKFS;
    case NAMES_LOCKFS:
        return control > CONTROL_LOCKFS && control < CONTROL_COUNT;
    }
    return false;
}

static bool equals(struct span name, const char *text)
{
    return name.len == strlen(text) && memcmp(name.data, text, name.len) == 0;
}

enum control names_control(enum names_place place, struct span name)
{
    for (enum control control = CONTROL_TOKEN; control < CONTROL_COUNT; control++)
        if (is_in(place, control) && equals(name, control_names[control]))
            return control;
    return CONTROL_NONE;
}

struct span names_of_control(enum control control)
{
    const char *name = control_names[control];
    return (struct span){name, strlen(name)};
}

bool names_listed(enum names_place place, bool numbered, enum control control)
{
    return is_in(place, control) &&
           (numbered || place == NAMES_LOCKFS || control == CONTROL_LOCKFS);
}

int names_check(enum names_place place, bool numbered, struct span name)
{
    if (place == NAMES_LOCKFS)
        return -EPERM;
    if (name.len > LIMIT_NAME_BYTES)
        return -ENAMETOOLONG;
    if (names_control(place, name) != CONTROL_NONE)
        return -EEXIST;
    if (place == NAMES_ROOT && equals(name, lockfiles))
        return -EEXIST;
    if (!name.len || (numbered && name.data[0] == '.'))
        return -EPERM;
    return 0;
}
