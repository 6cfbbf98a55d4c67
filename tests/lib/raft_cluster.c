/* Servers of the consensus core over models of disks, see raft_cluster.h. */
#include "raft_cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tap.h"

static void carry_out(struct cluster *cluster, struct cluster_server *server,
                      const struct raft_action *action, const struct raft_event *event,
                      const struct cluster_entry *entries);

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition) && cluster->violations++ < 10)                                            \
            tap_note("%s:%d: violated: %s", __FILE__, __LINE__, #condition);                       \
    } while (0)

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "raft_cluster: %s\n", what);
    abort();
}

static void init_core(struct cluster *cluster, struct cluster_server *server)
{
    const struct raft_config config = {
        .id = server->id,
        .members = server->founding ? cluster->members : NULL,
        .members_count = server->founding ? cluster->members_count : 0,
        .election_ms = CLUSTER_ELECTION_MS,
        .heartbeat_ms = CLUSTER_HEARTBEAT_MS,
        .max_drift_permille = cluster->drift_permille,
        .seed = cluster->seed + server->id,
    };

    must(raft_init(server->memory, &config, &server->raft) == RAFT_OK, "configuration refused");
    server->started = false;
    server->role = RAFT_FOLLOWER;
    server->issued = server->reported = 0;
    server->commit = 0;
    server->incoming = (struct cluster_snapshot){0};
    server->incoming_bytes = 0;
    server->incoming_whole = false;
}

struct cluster_server *cluster_add(struct cluster *cluster, bool founding)
{
    struct cluster_server *server = calloc(1, sizeof(*server));

    must(server != NULL && cluster->servers_count < CLUSTER_SERVERS_MAX, "too many servers");
    server->id = cluster->servers_count + 1;
    server->founding = founding;
    server->memory = aligned_alloc(16, raft_size());
    memset(server->memory, 0xa5, raft_size());
    cluster->servers[cluster->servers_count++] = server;
    init_core(cluster, server);
    return server;
}

struct cluster *cluster_new(size_t voters, size_t joining)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));

    must(cluster != NULL, "no memory");
    cluster->drift_permille = CLUSTER_DRIFT_PERMILLE;
    cluster->members_count = voters;
    for (size_t i = 0; i < voters; i++)
        cluster->members[i] = (struct raft_member){.id = i + 1, .voter = true};
    for (size_t i = 0; i < voters + joining; i++)
        cluster_add(cluster, i < voters);
    return cluster;
}

static void forget_writes(struct cluster_server *server)
{
    for (uint64_t i = server->reported + 1; i <= server->issued; i++)
        free(server->writes[i].entries);
}

void cluster_message_free(struct cluster_message *message)
{
    free(message->entries);
    free(message);
}

void cluster_free(struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->queue_count; i++)
        cluster_message_free(cluster->queue[i]);
    for (size_t i = 0; i < cluster->servers_count; i++) {
        forget_writes(cluster->servers[i]);
        free(cluster->servers[i]->memory);
        free(cluster->servers[i]);
    }
    free(cluster);
}

struct cluster_server *cluster_server(struct cluster *cluster, uint64_t id)
{
    return id >= 1 && id <= cluster->servers_count ? cluster->servers[id - 1] : NULL;
}

static enum raft_error step_with(struct cluster *cluster, struct cluster_server *server,
                                 struct raft_event *event, const struct cluster_entry *entries)
{
    static struct raft_actions actions;
    enum raft_error error;

    event->now_ms = server->now_ms;
    error = raft_step(server->raft, event, &actions);
    check(error == RAFT_OK || actions.count == 0);
    for (size_t i = 0; i < actions.count; i++)
        carry_out(cluster, server, &actions.items[i], event, entries);
    check(raft_get_role(server->raft) == server->role);
    check(!server->started || raft_get_commit(server->raft) == server->commit);
    check(!server->started || raft_get_last_index(server->raft) == server->log.last);
    return error;
}

enum raft_error cluster_step(struct cluster *cluster, struct cluster_server *server,
                             struct raft_event event)
{
    return step_with(cluster, server, &event, NULL);
}

enum raft_error cluster_start(struct cluster *cluster, struct cluster_server *server)
{
    struct raft_event event = {.type = RAFT_EVENT_START};
    const enum raft_error error = cluster_step(cluster, server, event);

    if (error == RAFT_OK)
        server->started = true;
    return error;
}

void cluster_turn_end(struct cluster *cluster, struct cluster_server *server)
{
    for (int i = 0; raft_wants_turn_end(server->raft); i++) {
        must(i < 1000, "a turn without an end");
        cluster_step(cluster, server, (struct raft_event){.type = RAFT_EVENT_TURN_END});
    }
}

enum raft_error cluster_read(struct cluster *cluster, struct cluster_server *server)
{
    const uint64_t id = server->reads + 1;
    const uint64_t floor_before = server->read_floor[id % CLUSTER_READS_MAX];
    enum raft_error error;

    server->reads = id;
    server->read_floor[id % CLUSTER_READS_MAX] = cluster->committed_last;
    error = cluster_step(cluster, server,
                         (struct raft_event){.type = RAFT_EVENT_READ, .read = {.id = id}});
    if (error != RAFT_OK) {
        server->reads--;
        server->read_floor[id % CLUSTER_READS_MAX] = floor_before;
    }
    return error;
}

/* Disks */

static const struct cluster_entry *entry_at(const struct cluster_log *log, uint64_t index)
{
    return index > log->base && index <= log->last ? &log->entries[index] : NULL;
}

static void put_on_disk(struct cluster_server *server, struct cluster_write *write)
{
    if (write->type == RAFT_ACTION_PERSIST_STATE) {
        server->disk_term = write->term;
        server->disk_vote = write->vote;
    } else if (write->type == RAFT_ACTION_PERSIST_RESET) {
        server->disk.base = server->disk.last = write->first;
    } else {
        /* An empty log may begin anywhere. */
        if (server->disk.last == server->disk.base && write->first > server->disk.last)
            server->disk.base = server->disk.last = write->first - 1;
        must(write->first > server->disk.base && write->first <= server->disk.last + 1,
             "a gap on a disk");
        for (uint64_t i = write->first; i <= write->last; i++)
            server->disk.entries[i] = write->entries[i - write->first];
        server->disk.last = write->last;
    }
    free(write->entries);
    write->entries = NULL;
}

enum raft_error cluster_persisted(struct cluster *cluster, struct cluster_server *server,
                                  uint64_t write)
{
    while (server->reported < write && server->reported < server->issued)
        put_on_disk(server, &server->writes[++server->reported]);
    return cluster_step(
        cluster, server,
        (struct raft_event){.type = RAFT_EVENT_PERSISTED, .persisted = {.write = write}});
}

static enum raft_error recover(struct cluster *cluster, struct cluster_server *server)
{
    enum raft_error error =
        cluster_step(cluster, server,
                     (struct raft_event){.type = RAFT_EVENT_RECOVERED_STATE,
                                         .recovered_state = {.term = server->disk_term,
                                                             .vote = server->disk_vote}});

    if (error == RAFT_OK && server->snapshot.index != 0)
        error =
            cluster_step(cluster, server,
                         (struct raft_event){.type = RAFT_EVENT_RECOVERED_SNAPSHOT,
                                             .recovered_snapshot = {
                                                 .index = server->snapshot.index,
                                                 .term = server->snapshot.term,
                                                 .members = server->snapshot.members,
                                                 .members_count = server->snapshot.members_count}});
    for (uint64_t i = server->disk.base + 1; error == RAFT_OK && i <= server->disk.last; i++)
        error =
            cluster_step(cluster, server,
                         (struct raft_event){.type = RAFT_EVENT_RECOVERED_ENTRY,
                                             .recovered_entry = {i, server->disk.entries[i].raft}});
    return error;
}

bool cluster_restart(struct cluster *cluster, struct cluster_server *server, uint64_t kept)
{
    while (server->reported < kept && server->reported < server->issued)
        put_on_disk(server, &server->writes[++server->reported]);
    forget_writes(server);
    server->log = server->disk;
    init_core(cluster, server);
    if (recover(cluster, server) != RAFT_OK)
        return false;
    server->commit = server->snapshot.index;
    /* What the core's log is: behind the snapshot, and without what contradicts it. */
    server->log.last = raft_get_last_index(server->raft);
    server->log.base = raft_get_log_base(server->raft);
    return true;
}

enum raft_error cluster_snapshot(struct cluster *cluster, struct cluster_server *server,
                                 uint64_t index, uint64_t log_base, uint64_t bytes)
{
    struct cluster_snapshot snapshot = {
        .index = index, .term = raft_get_term_at(server->raft, index), .bytes = bytes};
    enum raft_error error;

    must(entry_at(&server->disk, index) != NULL && index <= server->commit,
         "a snapshot of what is not durable and committed");
    snapshot.name = server->log.entries[index].name;
    snapshot.members_count = raft_get_members_at(server->raft, index, snapshot.members);
    server->snapshot = snapshot;
    error = cluster_step(cluster, server,
                         (struct raft_event){.type = RAFT_EVENT_COMPACTED,
                                             .compacted = {.index = index, .log_base = log_base}});
    if (log_base > server->disk.base)
        server->disk.base = log_base;
    if (log_base > server->log.base)
        server->log.base = log_base;
    return error;
}

enum raft_error cluster_installed(struct cluster *cluster, struct cluster_server *server)
{
    struct raft_event event = {.type = RAFT_EVENT_SNAPSHOT_DURABLE};

    must(server->incoming_whole, "no snapshot is whole");
    server->incoming_whole = false;
    /* It may have made a later one itself meanwhile. */
    if (server->incoming.index <= server->snapshot.index)
        return cluster_step(cluster, server,
                            (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_REFUSED});
    server->snapshot = server->incoming;
    event.snapshot_durable.index = server->snapshot.index;
    event.snapshot_durable.term = server->snapshot.term;
    event.snapshot_durable.members = server->snapshot.members;
    event.snapshot_durable.members_count = server->snapshot.members_count;
    return cluster_step(cluster, server, event);
}

/* Messages */

struct cluster_message *cluster_take(struct cluster *cluster, size_t at)
{
    struct cluster_message *message = cluster->queue[at];

    cluster->queue_count--;
    for (; at < cluster->queue_count; at++)
        cluster->queue[at] = cluster->queue[at + 1];
    return message;
}

void cluster_put(struct cluster *cluster, const struct cluster_message *message)
{
    struct cluster_message *copy = malloc(sizeof(*copy));

    *copy = *message;
    if (message->entries != NULL) {
        const size_t bytes = message->raft.append.count * sizeof(message->entries[0]);
        copy->entries = malloc(bytes);
        memcpy(copy->entries, message->entries, bytes);
    }
    must(cluster->queue_count < CLUSTER_QUEUE_MAX, "too many messages");
    cluster->queue[cluster->queue_count++] = copy;
}

void cluster_deliver(struct cluster *cluster, const struct cluster_message *message)
{
    struct cluster_server *server = cluster_server(cluster, message->raft.to);
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE,
                               .message = {.message = &message->raft, .entries = entries}};

    if (server == NULL || !server->started)
        return;
    if (message->raft.type == RAFT_MESSAGE_APPEND)
        for (uint32_t i = 0; i < message->raft.append.count; i++)
            entries[i] = message->entries[i].raft;
    if (message->raft.type == RAFT_MESSAGE_SNAPSHOT && !server->incoming_whole) {
        /* In place before the step, which may ask for it. */
        struct cluster_snapshot before = server->incoming;
        server->incoming = message->snapshot;
        server->incoming_bytes = message->raft.snapshot.bytes;
        step_with(cluster, server, &event, NULL);
        if (!server->incoming_whole)
            server->incoming = before;
        return;
    }
    step_with(cluster, server, &event, message->entries);
}

void cluster_settle(struct cluster *cluster)
{
    bool busy = true;

    for (int rounds = 0; busy; rounds++) {
        must(rounds < 10000, "no end to what the servers have to say");
        busy = cluster->queue_count > 0;
        if (busy) {
            struct cluster_message *message = cluster_take(cluster, 0);
            cluster_deliver(cluster, message);
            cluster_message_free(message);
        }
        for (size_t i = 0; i < cluster->servers_count; i++) {
            struct cluster_server *server = cluster->servers[i];
            if (!server->started || server->cut)
                continue;
            if (server->incoming_whole && server->role != RAFT_FAILED) {
                cluster_installed(cluster, server);
                busy = true;
            }
            if (server->reported < server->issued && server->role != RAFT_FAILED) {
                cluster_persisted(cluster, server, server->issued);
                busy = true;
            }
            cluster_turn_end(cluster, server);
        }
        busy = busy || cluster->queue_count > 0;
    }
}

/* Actions */

static struct cluster_write *new_write(struct cluster *cluster, struct cluster_server *server,
                                       enum raft_action_type type, uint64_t number)
{
    struct cluster_write *write;

    check(number == server->issued + 1);
    must(number < CLUSTER_WRITES_MAX, "too many writes");
    server->issued = number;
    write = &server->writes[number];
    *write = (struct cluster_write){.type = type};
    return write;
}

static void persist_entries(struct cluster *cluster, struct cluster_server *server,
                            const struct raft_action *action, const struct raft_event *event,
                            const struct cluster_entry *entries)
{
    const uint64_t first = action->persist_entries.first;
    const uint64_t last = action->persist_entries.last;
    struct cluster_write *write =
        new_write(cluster, server, action->type, action->persist_entries.write);

    must(last < CLUSTER_LOG_MAX, "the log is too long");
    check(first > server->log.base && first <= server->log.last + 1 && first <= last);
    check(first > server->commit);
    write->first = first;
    write->last = last;
    write->entries = calloc(last - first + 1, sizeof(write->entries[0]));
    for (uint64_t i = first; i <= last; i++) {
        struct cluster_entry *entry = &write->entries[i - first];
        if (entries != NULL) {
            *entry = entries[event->message.message->append.count - (last - i) - 1];
        } else {
            check(server->role == RAFT_LEADER && first == server->log.last + 1);
            entry->raft = action->persist_entries.entry;
            entry->name = ++cluster->names;
        }
        server->log.entries[i] = *entry;
    }
    server->log.last = last;
}

/* An entry, or all up to it, is committed: the same one everywhere. */
static void commit(struct cluster *cluster, struct cluster_server *server, uint64_t index)
{
    check(index > server->commit && index <= server->log.last);
    for (uint64_t i = server->commit + 1; i <= index; i++) {
        const struct cluster_entry *entry = entry_at(&server->log, i);
        check(entry != NULL);
        if (entry == NULL)
            continue;
        if (i > cluster->committed_last) {
            check(i == cluster->committed_last + 1);
            cluster->committed[i] = *entry;
            cluster->committed_last = i;
        }
        check(cluster->committed[i].name == entry->name &&
              cluster->committed[i].raft.term == entry->raft.term);
    }
    server->commit = index;
}

static void lead(struct cluster *cluster, struct cluster_server *server, uint64_t term)
{
    must(term < CLUSTER_TERMS_MAX, "too many terms");
    check(cluster->leaders[term] == 0);
    cluster->leaders[term] = server->id;
    check(server->disk_term == term && server->disk_vote == server->id);
    for (uint64_t i = 1; i <= cluster->committed_last; i++) {
        const struct cluster_entry *entry = entry_at(&server->log, i);
        check(entry != NULL ? entry->name == cluster->committed[i].name
                            : i <= server->snapshot.index);
    }
}

static bool is_durable(const struct cluster_server *server, uint64_t index)
{
    const struct cluster_entry *entry = entry_at(&server->disk, index);

    if (index <= server->snapshot.index || index <= server->disk.base)
        return true;
    return entry != NULL && index <= server->log.last &&
           entry->name == server->log.entries[index].name;
}

static void send(struct cluster *cluster, struct cluster_server *server,
                 const struct raft_message *raft, struct cluster_message *message)
{
    *message = (struct cluster_message){.raft = *raft};
    check(raft->from == server->id && raft->to != server->id);
    check(server->disk_term == raft->term);
    switch (raft->type) {
    case RAFT_MESSAGE_VOTE:
        check(server->disk_vote == server->id);
        break;
    case RAFT_MESSAGE_VOTE_REPLY:
        check(!raft->vote_reply.granted || server->disk_vote == raft->to);
        break;
    case RAFT_MESSAGE_APPEND:
        check(server->role == RAFT_LEADER);
        message->entries = calloc(raft->append.count + 1, sizeof(message->entries[0]));
        for (uint32_t i = 0; i < raft->append.count; i++) {
            const struct cluster_entry *entry =
                entry_at(&server->log, raft->append.prev_index + 1 + i);
            check(entry != NULL);
            if (entry != NULL)
                message->entries[i] = *entry;
        }
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        for (uint64_t i = server->disk.base + 1; i <= raft->append_reply.match; i++)
            check(is_durable(server, i));
        break;
    case RAFT_MESSAGE_SNAPSHOT:
        check(server->role == RAFT_LEADER && raft->snapshot.index == server->snapshot.index &&
              raft->snapshot.index_term == server->snapshot.term);
        message->snapshot = server->snapshot;
        message->raft.snapshot.bytes = CLUSTER_CHUNK_BYTES;
        if (raft->snapshot.offset + CLUSTER_CHUNK_BYTES >= server->snapshot.bytes) {
            message->raft.snapshot.bytes =
                raft->snapshot.offset < server->snapshot.bytes
                    ? (uint32_t)(server->snapshot.bytes - raft->snapshot.offset)
                    : 0;
            message->raft.snapshot.done = true;
        }
        break;
    default:
        break;
    }
}

static void read_ready(struct cluster *cluster, struct cluster_server *server,
                       const struct raft_action *action)
{
    check(action->read_ready.id > server->reads_done && action->read_ready.id <= server->reads);
    check(action->read_ready.index <= server->commit);
    for (uint64_t id = server->reads_done + 1; id <= action->read_ready.id; id++)
        check(action->read_ready.index >= server->read_floor[id % CLUSTER_READS_MAX]);
    server->reads_done = action->read_ready.id;
}

static void carry_out(struct cluster *cluster, struct cluster_server *server,
                      const struct raft_action *action, const struct raft_event *event,
                      const struct cluster_entry *entries)
{
    struct cluster_write *write;
    struct cluster_message message = {.entries = NULL};

    switch (action->type) {
    case RAFT_ACTION_PERSIST_STATE:
        write = new_write(cluster, server, action->type, action->persist_state.write);
        write->term = action->persist_state.term;
        write->vote = action->persist_state.vote;
        break;
    case RAFT_ACTION_PERSIST_ENTRIES:
        persist_entries(cluster, server, action, event, entries);
        break;
    case RAFT_ACTION_PERSIST_RESET:
        write = new_write(cluster, server, action->type, action->persist_reset.write);
        write->first = action->persist_reset.index;
        check(write->first == server->snapshot.index);
        server->log.base = server->log.last = write->first;
        break;
    case RAFT_ACTION_SEND:
        send(cluster, server, &action->send, &message);
        break;
    case RAFT_ACTION_COMMIT:
        commit(cluster, server, action->commit.index);
        break;
    case RAFT_ACTION_ROLE:
        server->role = action->role.role;
        if (server->role == RAFT_LEADER)
            lead(cluster, server, action->role.term);
        break;
    case RAFT_ACTION_SNAPSHOT_CHUNK:
        check(action->snapshot_chunk.index == server->incoming.index);
        server->incoming_whole = action->snapshot_chunk.done;
        break;
    case RAFT_ACTION_RESTORE:
        check(action->restore.index == server->snapshot.index &&
              action->restore.index > server->commit);
        check(action->restore.index <= cluster->committed_last &&
              cluster->committed[action->restore.index].name == server->snapshot.name);
        server->commit = action->restore.index;
        if (server->log.base < server->commit)
            server->log.base = server->commit;
        break;
    case RAFT_ACTION_READ_READY:
        read_ready(cluster, server, action);
        break;
    case RAFT_ACTION_READ_FAILED:
        check(action->read_failed.id <= server->reads);
        server->reads_done = action->read_failed.id;
        break;
    }
    if (cluster->watch != NULL)
        cluster->watch(cluster->watch_context, server, action, &message);
    if (action->type == RAFT_ACTION_SEND) {
        const struct cluster_server *to = cluster_server(cluster, message.raft.to);
        if (!server->cut && (to == NULL || !to->cut))
            cluster_put(cluster, &message);
        free(message.entries);
    }
}
