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
    CLAIM_FCNTL = 3, /* of the whole file; its owner is not the handle but what the kernel names */
};

enum claim_mode {
    CLAIM_SHARED = 1,
    CLAIM_EXCLUSIVE = 2,
};

/* What ends a claim by creating, beside unlink and force (DESIGN A3). */
enum release_mode {
    RELEASE_CLOSE = 1, /* the last close of its handle */
    RELEASE_EXIT = 2,  /* the end of the process that made it */
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
    /* The handle is closed: its claims and waits end, but for a claim by creating whose release
     * mode is RELEASE_EXIT. */
    COMMAND_RELEASE,
    /* CLAIM_FLOCK: the handle's flock claim ends. CLAIM_FCNTL: the fcntl claim of `owner` on file
     * `name` of `lock` ends, whatever handle it came through. Other claims stay, and so do waits
     * (another thread goes on waiting when this one unlocks). */
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
    /* Set what `attributes` names of lock `lock`. ESTALE. Of a setting that cannot be (see the
     * values below), EINVAL, and nothing is changed: a limit below what is held, and a change
     * between a number and unlimited while anything is held, waited for or delayed. */
    COMMAND_SET_LOCK,
    /* Set what `attributes` names of the claim `token` by creating, on file `name` of `lock`.
     * EPERM: there is no such claim (any more). */
    COMMAND_SET_CLAIM,
    /* The claim `token` of this session ends: the process that made it has. Succeeds where there is
     * no such claim (any more). */
    COMMAND_END,
    /* Every claim on file `name` of `lock` is revoked, or the claim `token` there, unless that is
     * 0; with it all that its handle holds and waits for. ENODATA: there is no such claim. */
    COMMAND_FORCE,
    /* The delay `target` is over. Succeeds where there is none such (any more). */
    COMMAND_END_DELAY,
};

enum command_attributes {
    ATTRIBUTE_MODE = 1,
    ATTRIBUTE_UID = 2,
    ATTRIBUTE_GID = 4,
    /* Of locks only. */
    ATTRIBUTE_LIMIT = 8,    /* `limit`: 0: unlimited; at most LIMIT_CLAIMS */
    ATTRIBUTE_TTL = 16,     /* `ttl_ms`: 0: the session's */
    ATTRIBUTE_RELEASE = 32, /* `release` */
    ATTRIBUTE_DELAY = 64,   /* `delay_ms` */
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
    uint64_t owner;  /* CLAIM_FCNTL, and its UNLOCK */
    uint32_t ttl_ms; /* of the session: a lock may have its own */
    struct process process;

    /* MKDIR, ACQUIRE (of the claim by creating), SET_LOCK, SET_CLAIM */
    uint32_t attributes;
    uint32_t mode; /* permission bits, 07777 */
    uint32_t uid;
    uint32_t gid;

    /* SET_LOCK, beside ttl_ms */
    uint32_t limit;
    enum release_mode release;
    uint32_t delay_ms;

    /* WRITE, TRUNCATE */
    uint64_t offset;
    bool append;
    struct span data;
};

struct command_result {
    int error;       /* 0 or a negative errno */
    bool queued;     /* ACQUIRE: waits; EFFECT_GRANTED or EFFECT_DROPPED will follow */
    bool again;      /* ACQUIRE: it was held already, and nothing was granted */
    bool converted;  /* ACQUIRE, of fcntl: it replaces one of the other mode */
    uint64_t token;  /* ACQUIRE: the number of the claim */
    uint32_t ttl_ms; /* ACQUIRE: of the claim */
    enum release_mode release;
    uint64_t lock; /* MKDIR: the id of the new lock */
};

#endif
