/*
 * What the daemon is told on its command line. Nothing here exits or prints.
 */
#ifndef FS_CONFIG_H
#define FS_CONFIG_H

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOCKFS_VERSION "0.1.0"

/* With which status the daemon ends. --help lists them. */
enum exit_code {
    EXIT_STOPPED = 0,      /* as it was asked to, or --help and the like did their work */
    EXIT_FAILED = 1,       /* it ran, and had to stop: a write failed. Or --remove-guard failed */
    EXIT_USAGE = 2,        /* the command line makes no sense */
    EXIT_CANNOT_START = 3, /* the mount point, the data directory or the kernel is not fit */
};

enum {
    CONFIG_ELECTION_MS = 500,

    CONFIG_TTL_MS_DEFAULT = 10 * 1000,
    CONFIG_TTL_MS_MIN = 10 * CONFIG_ELECTION_MS,
    CONFIG_TTL_MS_MAX = 3600 * 1000,

    CONFIG_OP_TIMEOUT_MS_DEFAULT = 5 * 1000,
    CONFIG_OP_TIMEOUT_MS_MIN = 100,
    CONFIG_OP_TIMEOUT_MS_MAX = 3600 * 1000,

    CONFIG_DRAIN_TIMEOUT_MS_DEFAULT = 30 * 1000,
    CONFIG_DRAIN_TIMEOUT_MS_MIN = 0,
    CONFIG_DRAIN_TIMEOUT_MS_MAX = 24 * 3600 * 1000,

    CONFIG_SNAPSHOT_LOG_BYTES_MIN = 1 << 10,
    CONFIG_SNAPSHOT_LOG_BYTES_MAX = 1 << 30,
};

static_assert(CONFIG_TTL_MS_MIN <= CONFIG_TTL_MS_DEFAULT, "the default is in range");

struct config {
    /* Real paths; where a directory does not exist (yet), its name behind what does. */
    char mount_point[PATH_MAX];
    char data[PATH_MAX];
    uint32_t ttl_ms;
    uint32_t op_timeout_ms;
    uint32_t drain_timeout_ms;
    uint32_t snapshot_log_bytes;
    bool foreground;
    bool unguarded;
};

enum config_action {
    CONFIG_RUN = 1,
    CONFIG_REMOVE_GUARD, /* only mount_point counts */
    CONFIG_HELP,
    CONFIG_VERSION,
    CONFIG_USAGE_ERROR, /* `message` says what is wrong, without a newline */
};

/* Reads the command line, HOME and XDG_STATE_HOME. Reorders argv, options first. Writes
 * `ret_config` for RUN and REMOVE_GUARD, `message` for USAGE_ERROR. */
enum config_action config_parse(int argc, char *argv[], struct config *ret_config, char *message,
                                size_t message_size);

/* What --help and --version print, with newlines. */
const char *config_help(void);
const char *config_version(void);

#endif
