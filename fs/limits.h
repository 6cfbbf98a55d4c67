/* Every limit of the daemon, in one place. README lists the ones that users can meet. */
#ifndef FS_LIMITS_H
#define FS_LIMITS_H

#include <assert.h>

enum {
    /* Bytes of a name, and levels of locks below the mount point: ENAMETOOLONG. */
    LIMIT_NAME_BYTES = 255,
    LIMIT_DEPTH = 16,
    /* Bytes of one claim's content: EFBIG; of all contents together: ENOSPC. */
    LIMIT_CONTENT_BYTES = 4096,
    LIMIT_CONTENTS_BYTES = 64 << 20,
    /* Bytes of all names of locks, claimed files and waiters together: ENOSPC, ENOLCK. */
    LIMIT_NAMES_BYTES = 128 << 20,
    /* A command's name as /proc/PID/comm gives it, without the zero byte. */
    LIMIT_COMM_BYTES = 15,

    /* Of the cluster. Locks: ENOSPC. Claims, waiters: ENOLCK. */
    LIMIT_LOCKS = 1 << 20,
    LIMIT_CLAIMS = 1 << 20,
    LIMIT_WAITERS = 1 << 17,
    LIMIT_SESSIONS = 256,

    /* Settings of a lock: EINVAL. A TTL has a lower end too, which hangs on the election timeout.
     */
    LIMIT_TTL_MS = 3600 * 1000,
    LIMIT_DELAY_MS = 24 * 3600 * 1000,

    /* Of one node. RELEASE must never wait in the kernel behind max_background, a field of 16 bits,
     * so the handles fit in it: ENOLCK. */
    LIMIT_HANDLES = 65534,
    LIMIT_MAX_BACKGROUND = 65535,
    /* Requests that the kernel waits for an answer to, blocked flock calls included: ENOLCK. */
    LIMIT_REQUESTS = 1 << 17,
    /* Inodes that the kernel knows: ENOLCK. */
    LIMIT_INODES = 1 << 21,
    /* Entries proposed and not yet applied, and their bytes: ENOLCK, releases excepted. */
    LIMIT_PENDING_ENTRIES = 1 << 17,
    LIMIT_PENDING_BYTES = 64 << 20,
    /* Ancestors of a reader of `token` that are looked at. */
    LIMIT_ANCESTORS = 64,
    /* Processes that the daemon keeps a descriptor for, so that it knows them when they ask again.
     */
    LIMIT_PROCESSES_KNOWN = 128,
    /* Open control files on one node: ENOLCK. */
    LIMIT_CONTROL_READERS = 1024,
    /* One line of a control file, or all of one that is not made line by line. */
    LIMIT_CONTROL_LINE_BYTES = 24 << 10,
    /* Claims and waiters, or slots for them, that one read of `.lockfs/locks` looks at. */
    LIMIT_LOCKS_STEPS = 1 << 14,
    /* What `.lockfs/events` keeps: the oldest lines go. */
    LIMIT_EVENTS_BYTES = 1 << 20,
    /* Entries of one READDIR answer. */
    LIMIT_DIRENTS = 64,

    /* One encoded command, the largest being a write of a whole content. */
    LIMIT_COMMAND_BYTES = 8192,
    /* Log space for giving one claim or wait back, whatever way: a release and an unlink or a
     * cancel. It is reserved when the claim or the wait begins (DESIGN C10). */
    LIMIT_GIVE_BACK_BYTES = 640,
    /* Commands for that, at most. */
    LIMIT_GIVE_BACK_COMMANDS = 2,
    /* Processes that lost a claim by a restart of the daemon and may still live. */
    LIMIT_LOST_PROCESSES = 1 << 17,

    /* The log on disk. */
    LIMIT_SEGMENT_BYTES = 4 << 20,
    LIMIT_RECORD_OVERHEAD_BYTES = 64,
    /* A snapshot is made when the log has grown by so much since the last one, or by twice the size
     * of that one. */
    LIMIT_SNAPSHOT_LOG_BYTES = 64 << 20,
    /* One record of a snapshot, the largest being a file with its content; what it takes in the
     * file beside itself, and what the two ends of the file take. */
    LIMIT_SNAPSHOT_RECORD_BYTES = 8192,
    LIMIT_SNAPSHOT_FRAME_BYTES = 8,
    LIMIT_SNAPSHOT_ENDS_BYTES = 64,
    /* By how much one command can make a snapshot larger. */
    LIMIT_SNAPSHOT_GROWTH_BYTES = 8192,
    /* Disk space for the next snapshot that is reserved ahead of what it needs now, beside an
     * eighth of that, so that work does not wait for it. */
    LIMIT_SNAPSHOT_AHEAD_BYTES = 4 << 20,
    /* Room that only starts and releases may use. */
    LIMIT_LOG_RESERVE_BYTES = 64 << 10,
    /* For how long a record that nobody waits for may stay off the disk, so that it gets there
     * together with one that somebody waits for. */
    LIMIT_UNHURRIED_MS = 2,
};

static_assert(LIMIT_HANDLES < LIMIT_MAX_BACKGROUND,
              "every open handle's RELEASE is in flight at once");
static_assert(LIMIT_COMMAND_BYTES >= LIMIT_CONTENT_BYTES + LIMIT_NAME_BYTES + 256,
              "a write of a whole content is one command");
static_assert(LIMIT_CONTROL_LINE_BYTES >= 5 * (LIMIT_DEPTH + 1) * (LIMIT_NAME_BYTES + 1) + 1024,
              "a line has room for a path and a name of bytes that are all escaped");
static_assert(LIMIT_EVENTS_BYTES >= 4 * LIMIT_CONTROL_LINE_BYTES, "the ring holds some lines");
static_assert(LIMIT_SEGMENT_BYTES >= 64 * LIMIT_COMMAND_BYTES, "a batch fits into a segment");
static_assert(LIMIT_GIVE_BACK_BYTES >=
                  LIMIT_GIVE_BACK_COMMANDS * (LIMIT_RECORD_OVERHEAD_BYTES + 112) + LIMIT_NAME_BYTES,
              "a release, and an unlink with its name");
static_assert(LIMIT_PENDING_ENTRIES >= LIMIT_GIVE_BACK_COMMANDS * LIMIT_HANDLES,
              "all that is held can be given back at once");

#endif
