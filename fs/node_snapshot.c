/*
 * What survives of a node when its log is cut off: the lock table's records, and behind them what
 * the node knows for itself. See lock_table_snapshot.c.
 */
#include <assert.h>
#include <string.h>

#include <pb_decode.h>
#include <pb_encode.h>

#include "lockfs.pb.h"
#include "node_internal.h"

static_assert(sizeof(((lockfs_SnapshotNode *)0)->boot_id.bytes) == BOOT_ID_BYTES, "lockfs.options");
static_assert(sizeof(((lockfs_SnapshotLostProcess *)0)->comm.bytes) == LIMIT_COMM_BYTES,
              "lockfs.options");

/* What a record takes in the file beside the message in it. */
enum {
    EXTRA_BYTES =
        lockfs_SnapshotRecord_size - lockfs_SnapshotFile_size + LIMIT_SNAPSHOT_FRAME_BYTES,
};

static_assert(lockfs_SnapshotClaim_size >=
                  lockfs_SnapshotDelay_size + lockfs_SnapshotLostProcess_size + (int)EXTRA_BYTES,
              "the end of a claim makes no snapshot larger, whatever it leaves behind");

enum part {
    PART_TABLE = 0, /* all that is the lock table's */
    PART_NODE = lockfs_SnapshotRecord_node_tag,
    PART_LOST_PROCESSES = lockfs_SnapshotRecord_lost_process_tag,
};

void node_get_applied(const struct node *node, uint64_t *ret_index, uint64_t *ret_term)
{
    *ret_index = node->applied;
    *ret_term = raft_get_term_at(node->raft, node->applied);
}

/* Saving */

static size_t encode(const lockfs_SnapshotRecord *record, char *buffer)
{
    pb_ostream_t stream = pb_ostream_from_buffer((pb_byte_t *)buffer, LIMIT_SNAPSHOT_RECORD_BYTES);
    bool fits = pb_encode(&stream, lockfs_SnapshotRecord_fields, record);
    assert(fits);
    return stream.bytes_written;
}

static size_t save_node(const struct node *node, char *buffer)
{
    lockfs_SnapshotRecord record;
    lockfs_SnapshotNode *message = &record.record.node;
    record.which_record = PART_NODE;
    message->boot_id.size = BOOT_ID_BYTES;
    memcpy(message->boot_id.bytes, node->config.boot_id, BOOT_ID_BYTES);
    message->lost_processes = node->lost_processes.used;
    message->lost_overflow = node->lost_overflow;
    struct raft_member members[RAFT_MEMBERS_MAX];
    message->members_count = (pb_size_t)raft_get_members_at(node->raft, node->applied, members);
    for (pb_size_t i = 0; i < message->members_count; i++)
        message->members[i] = (lockfs_Member){members[i].id, members[i].voter};
    return encode(&record, buffer);
}

static size_t save_lost_process(const struct lost_process *lost, char *buffer)
{
    lockfs_SnapshotRecord record;
    lockfs_SnapshotLostProcess *message = &record.record.lost_process;
    record.which_record = PART_LOST_PROCESSES;
    message->lock = lost->lock;
    message->token = lost->token;
    message->pid = lost->process.pid;
    message->start = lost->process.start;
    message->comm.size = 0;
    while (message->comm.size < LIMIT_COMM_BYTES && lost->process.comm[message->comm.size])
        message->comm.size++;
    memcpy(message->comm.bytes, lost->process.comm, message->comm.size);
    return encode(&record, buffer);
}

size_t node_save(const struct node *node, struct node_cursor *cursor, char *buffer)
{
    if (cursor->part == PART_TABLE) {
        size_t len = lock_table_save(node->table, &cursor->table, buffer);
        if (len)
            return len;
        cursor->part = PART_NODE;
        return save_node(node, buffer);
    }
    cursor->part = PART_LOST_PROCESSES;
    while (cursor->slot < node->lost_processes.touched) {
        const struct lost_process *lost = slab_at(&node->lost_processes, ++cursor->slot);
        if (lost->process.pid)
            return save_lost_process(lost, buffer);
    }
    return 0;
}

uint64_t node_snapshot_bytes(const struct node *node)
{
    return LIMIT_SNAPSHOT_ENDS_BYTES + lock_table_snapshot_bytes(node->table) +
           lockfs_SnapshotNode_size + EXTRA_BYTES +
           (uint64_t)node->lost_processes.used * (lockfs_SnapshotLostProcess_size + EXTRA_BYTES) +
           node->pending_growth;
}

/* Restoring */

static void take_members(const lockfs_SnapshotNode *message, struct raft_member *ret_members,
                         size_t *ret_count)
{
    for (pb_size_t i = 0; i < message->members_count; i++)
        ret_members[i] = (struct raft_member){message->members[i].id, message->members[i].voter};
    *ret_count = message->members_count;
}

bool node_read_members(struct span bytes, struct raft_member *ret_members, size_t *ret_count)
{
    pb_istream_t stream = pb_istream_from_buffer((const pb_byte_t *)bytes.data, bytes.len);
    lockfs_SnapshotRecord record;
    if (!pb_decode(&stream, lockfs_SnapshotRecord_fields, &record) ||
        record.which_record != PART_NODE)
        return false;
    take_members(&record.record.node, ret_members, ret_count);
    return true;
}

/* Processes of an earlier boot are gone. */
static bool restore_node(struct node *node, struct node_restoring *restoring,
                         const lockfs_SnapshotNode *message)
{
    if (restoring->has_node || message->boot_id.size != BOOT_ID_BYTES)
        return false;
    restoring->has_node = true;
    restoring->same_boot = memcmp(message->boot_id.bytes, node->config.boot_id, BOOT_ID_BYTES) == 0;
    restoring->lost_processes = message->lost_processes;
    node->lost_overflow = restoring->same_boot && message->lost_overflow;
    take_members(message, node->members, &node->members_count);
    return true;
}

static bool restore_lost_process(struct node *node, struct node_restoring *restoring,
                                 const lockfs_SnapshotLostProcess *message)
{
    struct process process = {.pid = message->pid, .start = message->start};
    if (!restoring->has_node || !restoring->lost_processes || !message->pid)
        return false;
    restoring->lost_processes--;
    memcpy(process.comm, message->comm.bytes, message->comm.size);
    if (restoring->same_boot)
        control__lost_without_handle(node, message->lock, message->token, &process);
    return true;
}

bool node_restore(struct node *node, struct node_restoring *restoring, struct span bytes)
{
    pb_istream_t stream = pb_istream_from_buffer((const pb_byte_t *)bytes.data, bytes.len);
    pb_istream_t begin = stream;
    pb_wire_type_t wire_type;
    uint32_t tag;
    bool eof;
    lockfs_SnapshotRecord record;

    if (!pb_decode_tag(&begin, &wire_type, &tag, &eof))
        return false;
    if (tag != PART_NODE && tag != PART_LOST_PROCESSES)
        return !restoring->has_node && lock_table_restore(node->table, &restoring->table, bytes);
    if (!pb_decode(&stream, lockfs_SnapshotRecord_fields, &record))
        return false;
    if (record.which_record == PART_NODE)
        return restore_node(node, restoring, &record.record.node);
    return record.which_record == PART_LOST_PROCESSES &&
           restore_lost_process(node, restoring, &record.record.lost_process);
}

bool node_is_restored(const struct node *node, const struct node_restoring *restoring)
{
    return restoring->has_node && !restoring->lost_processes &&
           lock_table_is_restored(node->table, &restoring->table);
}
