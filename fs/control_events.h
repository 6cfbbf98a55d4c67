/*
 * What has happened, as `.lockfs/events` tells it: lines of JSON in a ring of bytes, the oldest of
 * which go where a new one needs their room. Pure.
 *
 * Every line has a place that it never changes: the number of bytes that were written before it,
 * those that are gone included.
 */
#ifndef FS_CONTROL_EVENTS_H
#define FS_CONTROL_EVENTS_H

#include "memory.h"

struct events {
    char *ring;     /* LIMIT_EVENTS_BYTES */
    char *line;     /* LIMIT_CONTROL_LINE_BYTES, for the one that is being written */
    uint64_t begin; /* the first byte that is kept: of a whole line */
    uint64_t end;
    uint64_t count;  /* lines ever written */
    int64_t last_ms; /* the time of the last one */
};

enum { EVENT_VALUE_BYTES = 32 };

/* Who did something: `process` may be NULL (it lives on another node, or is not known). */
struct event_actor {
    const struct process *process;
    uint32_t uid;
};

/* One event. What is NULL, 0 or empty is left out, `node` too. */
struct event {
    int64_t time_ms;
    uint64_t index;
    const char *what;
    struct span lock; /* its path, from "/": the mount point */
    struct span file;
    uint64_t token;
    enum claim_kind kind;
    enum claim_mode claim_mode;
    const char *cause;
    const char *setting;
    struct span value; /* EVENT_VALUE_BYTES at most; of the setting, or of what else has one */
    uint64_t node;
    struct event_actor actor; /* whose claim it is; of what is no claim's, who did it */
    struct event_actor by;    /* who took it away */
};

void events_layout(struct events *events, struct arena *arena);

void events_add(struct events *events, const struct event *event);

/* Copies what is there from `*position` on, at most `size` bytes, and moves the position behind it.
 * One whose bytes are gone is first moved to the oldest line that is kept. 0 at the end. */
size_t events_read(const struct events *events, uint64_t *position, char *buffer, size_t size);

/* The same up to the end of the line that the position is in; nothing where it is between lines.
 * `buffer` has LIMIT_CONTROL_LINE_BYTES. */
size_t events_read_rest(const struct events *events, uint64_t *position, char *buffer);

#endif
