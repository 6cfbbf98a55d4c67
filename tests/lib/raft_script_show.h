/* What a script shows of what its servers do; for raft_script.c. */
#ifndef TESTS_RAFT_SCRIPT_SHOW_H
#define TESTS_RAFT_SCRIPT_SHOW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "raft_cluster.h"

enum {
    HELD_MAX = 32,
};

struct held {
    char *name;
    struct cluster_message *message;
};

struct script {
    struct cluster *cluster;
    bool alone;  /* no `cluster` command: one server, not named, whose disk the script holds */
    bool manual; /* turns end by command only */
    bool quiet;  /* messages and writes are not shown */
    size_t shown;
    struct held held[HELD_MAX];
    size_t held_count;
    FILE *out;
};

/* A line; of a server, or NULL. */
__attribute__((format(printf, 3, 4))) void
script_show(struct script *script, const struct cluster_server *server, const char *format, ...);
char script_name_of(uint64_t id);
const char *script_error_name(enum raft_error error);
void script_show_message(struct script *script, const struct cluster_message *message,
                         const char *note);
void script_show_lost(struct script *script, const struct cluster_message *message);
/* The cluster's watcher; `context` is the script. */
void script_show_action(void *context, const struct cluster_server *server,
                        const struct raft_action *action, const struct cluster_message *message);
void script_show_status(struct script *script, struct cluster_server *server);
void script_show_members(struct script *script, struct cluster_server *server);
void script_show_log(struct script *script, struct cluster_server *server);

#endif
