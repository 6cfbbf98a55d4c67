/*
 * The commands of the lock table: what the log replicates. A command says everything that its
 * effect depends on, so that every node computes the same state from the same log; it carries no
 * time but stamps for display.
 */
#ifndef FS_COMMAND_H
#define FS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"

/* Bytes that belong to somebody else, not terminated. */
struct span {
    const char *data;
    size_t len;
};

/* A process as the node's kernel knows it. `pid` 0: unknown (it lives outside the daemon's pid
 * namespace). `start` is field 22 of /proc/PID/stat: with the boot id, it makes a pid unique. */
struct process {
    uint32_t pid;
    uint64_t start;
    char comm[LIMIT_COMM_BYTES + 1];
};

#define BOOT_ID_BYTES 16

enum claim_kind {
    CLAIM_CREATE = 1, /* by making the file: O_EXCL */
    CLAIM_FLOCK = 2,
};

enum claim_mode {
    CLAIM_SHARED = 1,
    CLAIM_EXCLUSIVE = 2,
};

enum command_type {
    /* A daemon has started on `node`: `incarnation` replaces `replaces`, and is void (ESTALE) where
     * that is not the current one (0: the node's first). Ends every claim and wait of the node's
     * older incarnation, and restarts its numbering. Its own seq is 0. */
    COMMAND_INCARNATION = 1,
    /* Make lock `name` in `lock`. EEXIST, ESTALE (no such parent), ENAMETOOLONG (depth), ENOSPC. */
    COMMAND_MKDIR,
    /* Remove lock `name` of `lock`. ENOENT, ENOTEMPTY (claims, waiters or locks in it), ESTALE. */
    COMMAND_RMDIR,
    /* Claim file `name` of `lock` for `handle`. See lock_table.h. */
    COMMAND_ACQUIRE,
    /* The handle is closed: its claims and waits end. */
    COMMAND_RELEASE,
    /* The handle's flock claim ends. A claim by creating stays, and so do its waits (another
     * thread's flock(2) goes on waiting when this one unlocks). */
    COMMAND_UNLOCK,
    /* The claim `token`, made by creating file `name` of `lock`, ends, and with it every claim and
     * wait of its handle. EBUSY: it is another node's. ENOENT: there is no such claim (any more).
     */
    COMMAND_UNLINK,
    /* The command `target` of this incarnation was given up: what it gained ends, be it a wait, a
     * claim (found by `handle`), or a lock made by mkdir (found by `lock` and `name`, and undone
     * only while nothing was ever granted or made in it). Succeeds where it gained nothing. */
    COMMAND_CANCEL,
    /* Put `data` at `offset` (or at the end: `append`) of the content of the file that `handle` has
     * a claim on. EPERM (no claim), EFBIG, ENOSPC. */
    COMMAND_WRITE,
    /* Cut or extend that content to `offset` bytes. EPERM, EFBIG, ENOSPC. */
    COMMAND_TRUNCATE,
    /* Set what `attributes` names of lock `lock`. ESTALE. */
    COMMAND_SET_LOCK,
    /* Set what `attributes` names of the claim `token` by creating, on file `name` of `lock`.
     * EPERM: there is no such claim (any more). */
    COMMAND_SET_CLAIM,
};

enum command_attributes {
    ATTRIBUTE_MODE = 1,
    ATTRIBUTE_UID = 2,
    ATTRIBUTE_GID = 4,
};

struct command {
    enum command_type type;
    /* Who says so. A command of an incarnation that is not its node's current one is void (ESTALE),
     * and so is one whose `seq` is not the successor of the last one applied (EPROTO). */
    uint64_t node;
    uint64_t incarnation;
    uint64_t seq;
    int64_t stamp_ms; /* wall clock of the node, for display */

    uint64_t lock; /* a lock's id; for MKDIR and RMDIR the parent's */
    struct span name;
    uint64_t handle;
    uint64_t token;
    uint64_t target;
    uint64_t replaces;
    uint8_t boot_id[BOOT_ID_BYTES]; /* INCARNATION */

    /* ACQUIRE */
    enum claim_kind kind;
    enum claim_mode claim_mode;
    bool wait;
    uint32_t ttl_ms;
    struct process process;

    /* MKDIR, ACQUIRE (of the claim by creating), SET_LOCK, SET_CLAIM */
    uint32_t attributes;
    uint32_t mode; /* permission bits, 07777 */
    uint32_t uid;
    uint32_t gid;

    /* WRITE, TRUNCATE */
    uint64_t offset;
    bool append;
    struct span data;
};

struct command_result {
    int error;      /* 0 or a negative errno */
    bool queued;    /* ACQUIRE: waits; EFFECT_GRANTED or EFFECT_DROPPED will follow */
    uint64_t token; /* ACQUIRE: the number of the claim */
    uint64_t lock;  /* MKDIR: the id of the new lock */
};

#endif
