/*
 * The keeper of `lockfs run`: a process apart, which holds the lock and watches over it.
 *
 * Whatever asks a mount can hang for as long as its daemon hangs, even in close(2) and exit(2).
 * So `lockfs run` itself has no descriptor there while CMD runs, and the keeper asks in a thread
 * of its own. Each of the two acts when the other one dies: without `run` the keeper kills CMD's
 * process group, and keeps the lock until nothing of the group is left; without the keeper, the
 * lock is gone, and `run` kills the group.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include "tool.h"

struct keeper {
    pid_t pid;
    int socket; /* messages from it; at its end, an end of file */
};

enum keeper_news {
    KEEPER_FOUND = 1, /* `place`: now open the file, and call keeper_lock() */
    KEEPER_WAITS,     /* it asks for the lock */
    KEEPER_GRANTED,   /* `token`, `lease_ms`: now start CMD, and call keeper_watch() */
    KEEPER_FAILED,    /* `failure`: the lock is not acquired; it ends */
    KEEPER_LOST,      /* `failure`: CMD has been told to end, by SIGTERM */
    KEEPER_KILLED,    /* CMD has been killed */
};

struct keeper_message {
    enum keeper_news news;
    uint64_t token;
    int64_t lease_ms;
    struct failure failure;
    struct place place;
};

/* Makes the keeper, which looks at `path` first. `flock_operation` is for flock(2). Returns 0 or a
 * negative errno. */
int keeper_start(struct keeper *ret_keeper, const char *path, int flock_operation);
/* Takes the next message. 0: none yet; 1; -EPIPE: the keeper has ended. */
int keeper_receive(const struct keeper *keeper, struct keeper_message *ret_message);
/* Gives it the open file to lock: false where the keeper is gone. The caller's own descriptor is
 * no longer needed. */
bool keeper_lock(const struct keeper *keeper, int fd);
/* From now on it watches: `group` is CMD's process group. */
bool keeper_watch(const struct keeper *keeper, pid_t group);
/* CMD has ended, and `group` with it may be a group of others soon: the keeper releases, and ends.
 */
void keeper_release(const struct keeper *keeper);

#endif
