/* What a node writes and sends, as its bytes: entries, messages, snapshots. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server_node.h"

/* Entries as bytes */

struct span node_kind_entry_bytes(const struct sim *sim, const struct entry *entry,
                                  char buffer[CODEC_CHANGE_BYTES])
{
    if (entry->raft.type == RAFT_ENTRY_CHANGE)
        return (struct span){buffer, codec_encode_change(&entry->raft.change, buffer)};
    return world_stored(sim, entry->command);
}

bool node_kind_entry(struct sim *sim, uint64_t term, uint32_t type, struct span data,
                     struct entry *ret_entry)
{
    *ret_entry = (struct entry){
        .raft = {.term = term, .type = (enum raft_entry_type)type, .bytes = (uint32_t)data.len}};
    if (type == RAFT_ENTRY_CHANGE)
        return codec_decode_change(data, &ret_entry->raft.change);
    ret_entry->command = world_store(sim, data);
    return true;
}

/* Of what the node itself keeps, or of what is on the disk. */
static bool read_entry(struct server *server, uint64_t index, struct entry *ret_entry)
{
    struct node_server *own = node_kind_of(server);
    const struct entry *entry = entries_at(&own->log, index);
    char buffer[LIMIT_COMMAND_BYTES];
    uint64_t term;
    uint32_t type;
    size_t len;

    if (node_copy_entry(own->node, index, buffer, &len, &term, &type))
        return node_kind_entry(server->sim, term, type, (struct span){buffer, len}, ret_entry);
    if (entry == NULL || entries_term_at(&server->disk.log, index) != entry->raft.term)
        return false;
    *ret_entry = *entry;
    return true;
}

/* Messages as bytes */

static void put(struct message *message, size_t *capacity, const void *bytes, size_t size)
{
    message->bytes = sim_grow(message->bytes, capacity, message->bytes_size + size, 1);
    if (size > 0)
        memcpy(message->bytes + message->bytes_size, bytes, size);
    message->bytes_size += size;
}

static void put_entries(struct server *server, struct message *message, size_t *capacity)
{
    struct sim *sim = server->sim;

    for (uint32_t i = 0; i < message->raft.append.count; i++) {
        const uint64_t index = message->raft.append.prev_index + 1 + i;
        char head[CODEC_PEER_ENTRY_BYTES];
        char change[CODEC_CHANGE_BYTES];
        struct entry entry = {.command = 0};
        struct span data;
        if (!read_entry(server, index, &entry)) {
            sim_broken(sim, server, "sends entry %llu that it does not have",
                       (unsigned long long)index);
            return;
        }
        data = node_kind_entry_bytes(sim, &entry, change);
        put(message, capacity, head,
            codec_encode_entry(entry.raft.term, entry.raft.type, (uint32_t)data.len, head));
        put(message, capacity, data.data, data.len);
        ((struct raft_entry *)(uintptr_t)message->entries)[i] = entry.raft;
        ((uint64_t *)(uintptr_t)message->commands)[i] = entry.command;
    }
}

struct message *node_kind_message(struct server *server, const struct raft_message *raft)
{
    struct sim *sim = server->sim;
    struct node_server *own = node_kind_of(server);
    struct message *message =
        message_make(raft, raft->type == RAFT_MESSAGE_APPEND ? raft->append.count : 0);
    char head[CODEC_PEER_HEADER_BYTES];
    size_t capacity = 0;

    if (raft->type == RAFT_MESSAGE_SNAPSHOT) {
        const struct blob *blob = own->snapshot;
        const uint64_t offset = raft->snapshot.offset;
        uint32_t size;
        if (blob == NULL || blob->index != raft->snapshot.index ||
            blob->term != raft->snapshot.index_term || offset > blob->size) {
            sim_broken(sim, server, "sends a snapshot that it does not have");
            return message;
        }
        size = (uint32_t)(blob->size - offset);
        message->raft.snapshot.done = size <= sim->plan.chunk_bytes;
        if (size > sim->plan.chunk_bytes)
            size = sim->plan.chunk_bytes;
        message->raft.snapshot.bytes = size;
        put(message, &capacity, head, codec_encode_message(&message->raft, head));
        put(message, &capacity, blob->bytes + offset, size);
        sim->stats->snapshot_chunks++;
        return message;
    }
    put(message, &capacity, head, codec_encode_message(raft, head));
    if (raft->type == RAFT_MESSAGE_APPEND)
        put_entries(server, message, &capacity);
    return message;
}

/* Snapshots */

/* Records, each behind its length. */
struct blob *node_kind_snapshot(struct server *server)
{
    struct node_server *own = node_kind_of(server);
    struct raft_member members[RAFT_MEMBERS_MAX];
    struct node_cursor cursor = {.part = 0};
    char record[LIMIT_SNAPSHOT_RECORD_BYTES];
    uint8_t *bytes = NULL;
    size_t size = 0;
    size_t capacity = 0;
    size_t count;
    struct blob *blob;

    for (size_t len; (len = node_save(own->node, &cursor, record)) > 0;) {
        const uint32_t head = (uint32_t)len;
        bytes = sim_grow(bytes, &capacity, size + sizeof(head) + len, 1);
        memcpy(bytes + size, &head, sizeof(head));
        memcpy(bytes + size + sizeof(head), record, len);
        size += sizeof(head) + len;
    }
    count = raft_get_members_at(node_look_raft(own->node), own->machine.applied, members);
    assert(bytes != NULL); /* there is at least the record of the node itself */
    blob = machine_save_with(&own->machine, members, count, bytes, size);
    free(bytes);
    node_kind_members(blob, members, &count);
    oracle_restored(server, members, count); /* as it will be restored */
    return blob;
}

static bool next_record(const uint8_t *bytes, size_t size, size_t *at, struct span *ret_record)
{
    uint32_t len;

    if (*at == size)
        return false;
    memcpy(&len, bytes + *at, sizeof(len));
    *ret_record = (struct span){(const char *)bytes + *at + sizeof(len), len};
    *at += sizeof(len) + len;
    return true;
}

void node_kind_restore(struct server *server, const struct blob *blob)
{
    struct node_server *own = node_kind_of(server);
    struct node_restoring restoring;
    size_t size;
    const uint8_t *bytes = machine_saved_bytes(blob, &size);
    struct span record;
    size_t at = 0;

    memset(&restoring, 0, sizeof(restoring));
    while (next_record(bytes, size, &at, &record))
        if (!node_restore(own->node, &restoring, record))
            sim_fail(server->sim, SIM_SAFETY, "server %u cannot restore a record of snapshot %llu",
                     (unsigned)server->id, (unsigned long long)blob->index);
    if (!node_is_restored(own->node, &restoring))
        sim_fail(server->sim, SIM_SAFETY, "server %u finds snapshot %llu incomplete",
                 (unsigned)server->id, (unsigned long long)blob->index);
}

/* As the node finds them in the records. */
void node_kind_members(const struct blob *blob, struct raft_member *ret_members, size_t *ret_count)
{
    size_t size;
    const uint8_t *bytes = machine_saved_bytes(blob, &size);
    struct span record;
    size_t at = 0;
    bool found = false;

    while (next_record(bytes, size, &at, &record))
        found = node_read_members(record, ret_members, ret_count) || found;
    assert(found);
}

void node_kind_restored(struct server *server, const struct blob *blob)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    size_t count = 0;
    bool good = machine_load(&node_kind_of(server)->machine, blob, members, &count);

    assert(good);
    node_kind_members(blob, members, &count);
    oracle_restored(server, members, count);
    oracle_table(server);
}
