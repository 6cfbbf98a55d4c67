/* What is in `.lockfs`: the node about itself, and all that it knows of who holds and waits. */
#include <assert.h>
#include <string.h>

#include "node_internal.h"

/* locks */

/* The lines of `locks`: the head, then claims, then waiters, by slot, then delays, by id. */
#define LOCKS_CLAIMS  (UINT64_C(1) << 32)
#define LOCKS_WAITERS (UINT64_C(2) << 32)
#define LOCKS_DELAYS  (UINT64_C(1) << 63)

/* How long ago this node knew last that it lacks nothing of what is committed. */
static uint64_t age_ms(const struct node *node)
{
    bool current = node->leader && !node->stalled && !node->failed;
    return current ? 0 : node->now_ms - node->applied_ms;
}

static void add_head(const struct node *node, struct text *line)
{
    text_string(line, "index ");
    text_number(line, node->applied);
    text_string(line, " age_ms ");
    text_number(line, age_ms(node));
    text_string(line, "\n");
}

static void add_place(const struct node *node, struct text *line, const char *what, uint64_t lock)
{
    char buffer[LIMIT_DEPTH * (LIMIT_NAME_BYTES + 1) + 1];
    struct text path = {.data = buffer, .size = sizeof buffer};
    node__path_add(node, lock, &path);
    if (path.len)
        path.len--; /* the slash at its end */
    text_string(line, what);
    text_string(line, " /");
    text_field(line, (struct span){path.data, path.len});
    text_string(line, " ");
}

/* Goes on to the next line; `reader->key` says where it was. */
static enum walk walk_locks(const struct node *node, struct reader *reader,
                            struct claim_view *ret_view)
{
    for (;;) {
        bool waiters = reader->key >= LOCKS_WAITERS;
        uint32_t slot = (uint32_t)reader->key;
        enum walk walk = waiters
                             ? lock_table_walk_waiters(node->table, &slot, &reader->steps, ret_view)
                             : lock_table_walk_claims(node->table, &slot, &reader->steps, ret_view);
        reader->key = (waiters ? LOCKS_WAITERS : LOCKS_CLAIMS) | slot;
        if (walk == WALK_END && !waiters) {
            reader->key = LOCKS_WAITERS;
            continue;
        }
        bool hidden = walk == WALK_FOUND && !(waiters ? control__visible_waiter(node, ret_view)
                                                      : node__visible_claim(node, ret_view));
        if (!hidden)
            return walk;
    }
}

static bool next_delay_of_locks(const struct node *node, struct reader *reader, struct text *line)
{
    struct delay_view delay;
    if (!lock_table_next_delay(node->table, reader->key & ~LOCKS_DELAYS, &delay))
        return false;
    reader->key = LOCKS_DELAYS | delay.id;
    add_place(node, line, "holder", delay.lock);
    control__add_delay(node, line, &delay);
    return true;
}

static bool next_of_locks(const struct node *node, struct reader *reader, struct text *line)
{
    struct claim_view view;
    if (reader->key & LOCKS_DELAYS)
        return next_delay_of_locks(node, reader, line);
    bool begins = !reader->key;
    if (begins)
        reader->key = LOCKS_CLAIMS;
    switch (begins ? WALK_MORE : walk_locks(node, reader, &view)) {
    case WALK_END:
        reader->key = LOCKS_DELAYS;
        return next_delay_of_locks(node, reader, line);
    case WALK_FOUND:
        add_place(node, line, view.token ? "holder" : "waiter", view.lock);
        control__add_person(node, line, &view);
        break;
    case WALK_MORE: /* the daemon has others to serve: what comes is of a later moment */
        add_head(node, line);
        reader->pauses = !begins;
        break;
    }
    return true;
}

/* events */

size_t control__read_events(const struct node *node, struct reader *reader, uint64_t offset,
                            char *buffer, size_t size)
{
    /* A line whose beginning was read is read to its end, wherever the ring is by then. */
    if (!reader->started || offset != reader->offset)
        *reader =
            (struct reader){.started = true, .offset = offset, .key = offset, .line = reader->line};
    size_t rest = reader->line_len - reader->line_used;
    size_t got = rest < size ? rest : size;
    memcpy(buffer, reader->line + reader->line_used, got);
    reader->line_used += got;
    if (reader->line_used == reader->line_len) {
        got += events_read(&node->events, &reader->key, buffer + got, size - got);
        reader->line_len = events_read_rest(&node->events, &reader->key, reader->line);
        reader->line_used = 0;
    }
    reader->offset += got;
    return got;
}

/* metrics */

/* A sample; `help` begins a family. Labels may be NULL. */
static void add_sample(struct text *text, const char *type, const char *name, const char *help,
                       const char *labels, uint64_t value)
{
    const char *const head[] = {"# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n"};
    for (size_t i = 0; help && i < sizeof head / sizeof head[0]; i++)
        text_string(text, head[i]);
    text_string(text, name);
    if (labels) {
        text_string(text, "{");
        text_string(text, labels);
        text_string(text, "}");
    }
    text_string(text, " ");
    text_number(text, value);
    text_string(text, "\n");
}

static void add_counter(struct text *text, const char *name, const char *help, const char *labels,
                        uint64_t value)
{
    add_sample(text, "counter", name, help, labels, value);
}

static void add_gauge(struct text *text, const char *name, const char *help, uint64_t value)
{
    add_sample(text, "gauge", name, help, NULL, value);
}

static void add_claim_counters(const struct node_counts *counts, struct text *text)
{
    const char *grants = "lockfs_grants_total";
    add_counter(text, grants, "Claims granted, in the whole cluster.", "kind=\"create\"",
                counts->grants[CLAIM_CREATE]);
    add_counter(text, grants, NULL, "kind=\"flock\"", counts->grants[CLAIM_FLOCK]);
    add_counter(text, grants, NULL, "kind=\"fcntl\"", counts->grants[CLAIM_FCNTL]);
    add_counter(text, "lockfs_releases_total", "Claims that their holders ended.", NULL,
                counts->releases);
    const char *losses = "lockfs_losses_total";
    add_counter(text, losses, "Claims that were taken from their holders.", "cause=\"unlinked\"",
                counts->lost_unlinked);
    add_counter(text, losses, NULL, "cause=\"forced\"", counts->lost_forced);
    add_counter(text, losses, NULL, "cause=\"restart\"", counts->lost_by_restart);
    add_counter(text, "lockfs_forces_total", "Requests that revoked claims by force.", NULL,
                counts->forces);
    add_counter(text, "lockfs_waits_total", "Requests that were queued.", NULL, counts->waits);
    add_counter(text, "lockfs_waits_granted_total", "Waits that ended with a claim.", NULL,
                counts->waits_granted);
    add_counter(text, "lockfs_waits_interrupted_total", "Waits that were given up.", NULL,
                counts->waits_interrupted);
}

static void add_refusals(const struct node_counts *counts, struct text *text)
{
    static const char *const reasons[REFUSAL_COUNT] = {
        [REFUSED_EEXIST] = "reason=\"EEXIST\"",
        [REFUSED_EWOULDBLOCK] = "reason=\"EWOULDBLOCK\"",
        [REFUSED_ENOLCK] = "reason=\"ENOLCK\"",
        [REFUSED_ENOSPC] = "reason=\"ENOSPC\"",
        [REFUSED_ETIMEDOUT] = "reason=\"ETIMEDOUT\"",
        [REFUSED_EINTR] = "reason=\"EINTR\"",
        [REFUSED_ESTALE] = "reason=\"ESTALE\"",
        [REFUSED_OTHER] = "reason=\"other\"",
    };
    const char *help = "Requests for a claim that this node refused. O_EXCL of a name that the "
                       "kernel has just looked up is refused by the kernel, and not counted.";
    for (enum refusal refusal = 0; refusal < REFUSAL_COUNT; refusal++)
        add_counter(text, "lockfs_refusals_total", refusal ? NULL : help, reasons[refusal],
                    counts->refusals[refusal]);
}

static void add_log_counters(const struct node *node, struct text *text)
{
    static const struct node_edge_counts nothing;
    const struct node_edge_counts *edge =
        node->config.edge_counts ? node->config.edge_counts : &nothing;
    add_counter(text, "lockfs_commands_applied_total", "Commands of the log that were applied.",
                NULL, node->counts.commands);
    add_counter(text, "lockfs_log_entries_total", "Entries that were written to the log.", NULL,
                node->counts.log_entries);
    add_counter(text, "lockfs_log_bytes_total", "Bytes of these, without what frames them.", NULL,
                node->counts.log_bytes);
    add_counter(text, "lockfs_log_syncs_total",
                "Batches of the log that became durable, each by one fdatasync.", NULL,
                edge->log_syncs);
    add_counter(text, "lockfs_snapshots_total", "Snapshots that were made.", NULL, edge->snapshots);
    add_counter(text, "lockfs_snapshots_failed_total", "Snapshots that were given up.", NULL,
                edge->snapshots_failed);
    add_gauge(text, "lockfs_log_disk_bytes", "Size of the log on disk.", edge->log_disk_bytes);
    add_gauge(text, "lockfs_log_room_bytes", "What can be written before more is preallocated.",
              node->log_room);
    add_gauge(text, "lockfs_log_reserve_bytes", "What of it only releases may use.",
              node_log_reserve(node));
}

static void add_state(const struct node *node, struct text *text)
{
    add_gauge(text, "lockfs_applied_index", "The last entry of the log that was applied.",
              node->applied);
    add_gauge(text, "lockfs_commit_index", "The last entry that is known to be committed.",
              raft_get_commit(node->raft));
    add_gauge(text, "lockfs_last_index", "The last entry of the log.",
              raft_get_last_index(node->raft));
    add_gauge(text, "lockfs_term", "The term of the consensus.", raft_get_term(node->raft));
    add_gauge(text, "lockfs_leader", "1: this node leads.", node->leader);
    add_gauge(text, "lockfs_stalled", "1: the log does not answer.", node->stalled);
    add_gauge(text, "lockfs_full", "1: the log has no room for new work.", node->full);
    add_gauge(text, "lockfs_draining", "1: this node is being stopped.", node->draining);
}

/* What is in use, beside its limit. */
static void add_use(struct text *text, const char *labels, bool first, bool limit, uint64_t value)
{
    const char *help = limit ? "How many there can be at most." : "How many there are.";
    add_sample(text, "gauge", limit ? "lockfs_limit" : "lockfs_used", first ? help : NULL, labels,
               value);
}

static void add_uses(const struct node *node, struct text *text)
{
    struct lock_table_counts counts;
    lock_table_get_counts(node->table, &counts);
    const struct node_limits *limits = &node->limits;
    const struct {
        const char *labels;
        uint64_t used;
        uint64_t limit;
    } uses[] = {
        {"what=\"locks\"", counts.locks - 1, limits->table.locks - 1},
        {"what=\"claims\"", counts.claims, limits->table.claims},
        {"what=\"waiters\"", counts.waiters, limits->table.waiters},
        {"what=\"names_bytes\"", counts.names_bytes, limits->table.names_bytes},
        {"what=\"contents_bytes\"", counts.contents_bytes, limits->table.contents_bytes},
        {"what=\"open_handles\"", node->handles_open, limits->handles},
        {"what=\"control_readers\"", node->readers.used, node->readers.capacity},
        {"what=\"inodes\"", node->tree.inodes.used, node->tree.inodes.capacity},
        {"what=\"pending_entries\"", node->pending_last - node->applied, limits->pending_entries},
    };
    for (int limit = 0; limit < 2; limit++)
        for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++)
            add_use(text, uses[i].labels, i == 0, limit, limit ? uses[i].limit : uses[i].used);
    add_gauge(text, "lockfs_delays", "Resources that nobody is granted for a while.",
              counts.delays);
    add_gauge(text, "lockfs_claims_of_this_node", "Claims that programs here hold.",
              node->claims_held);
    add_gauge(text, "lockfs_token", "The highest number that was ever granted.", counts.token);
}

static void add_metrics(const struct node *node, struct text *text)
{
    text_string(text, "# HELP lockfs_info What runs here.\n# TYPE lockfs_info gauge\n"
                      "lockfs_info{version=\"");
    text_string(text, node->config.version);
    text_string(text, "\",node=\"");
    text_number(text, node->config.id);
    text_string(text, "\"} 1\n");
    add_gauge(text, "lockfs_start_time_seconds", "When this daemon started, Unix time.",
              node->started_ms > 0 ? (uint64_t)node->started_ms / 1000 : 0);
    add_claim_counters(&node->counts, text);
    add_refusals(&node->counts, text);
    add_counter(text, "lockfs_short_claims_total",
                "Claims by O_EXCL that a program closed at once, and went on.", NULL,
                node->counts.short_claims);
    add_counter(text, "lockfs_events_total", "Lines written to .lockfs/events.", NULL,
                node->events.count);
    add_log_counters(node, text);
    add_state(node, text);
    add_uses(node, text);
    assert(text->len < text->size); /* or it was cut */
}

/* status */

static void add_pair(struct text *text, const char *key, uint64_t number)
{
    text_string(text, key);
    text_string(text, " ");
    text_number(text, number);
    text_string(text, "\n");
}

static void add_status(const struct node *node, struct text *text)
{
    struct lock_table_counts counts;
    lock_table_get_counts(node->table, &counts);
    static const char *const roles[] = {
        [RAFT_FOLLOWER] = "follower",   [RAFT_PRE_CANDIDATE] = "candidate",
        [RAFT_CANDIDATE] = "candidate", [RAFT_LEADER] = "leader",
        [RAFT_FAILED] = "failed",
    };
    text_string(text, "version ");
    text_string(text, node->config.version);
    text_string(text, "\nrole ");
    text_string(text, roles[raft_get_role(node->raft)]);
    text_string(text, node->failed     ? "\nstate failed\n"
                      : node->draining ? "\nstate draining\n"
                      : node->stalled  ? "\nstate stalled\n"
                      : node->full     ? "\nstate full\n"
                                       : "\nstate serving\n");
    add_pair(text, "node", node->config.id);
    add_pair(text, "term", raft_get_term(node->raft));
    add_pair(text, "last_index", raft_get_last_index(node->raft));
    add_pair(text, "commit_index", raft_get_commit(node->raft));
    add_pair(text, "applied_index", node->applied);
    add_pair(text, "token", counts.token);
    add_pair(text, "locks", counts.locks - 1);
    add_pair(text, "claims", counts.claims);
    add_pair(text, "waiters", counts.waiters);
    add_pair(text, "claims_of_this_node", node->claims_held);
    add_pair(text, "open_handles", node->handles_open);
    add_pair(text, "contents_bytes", counts.contents_bytes);
    add_pair(text, "ttl_ms", node->config.ttl_ms);
    add_pair(text, "op_timeout_ms", node->config.op_timeout_ms);
    add_pair(text, "log_room_bytes", node->log_room);
    add_pair(text, "log_reserve_bytes", node_log_reserve(node));
    add_pair(text, "snapshot_room_bytes", node->snapshot_room);
    add_pair(text, "snapshot_bytes_max", node_snapshot_bytes(node));
}

bool control__next_line(const struct node *node, enum control control, struct reader *reader,
                        struct text *line)
{
    if (control == CONTROL_LOCKS)
        return next_of_locks(node, reader, line);
    if (reader->key)
        return false;
    reader->key = 1;
    if (control == CONTROL_STATUS)
        add_status(node, line);
    else
        add_metrics(node, line);
    return true;
}
