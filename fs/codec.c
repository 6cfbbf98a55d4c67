/* Commands as bytes, by nanopb. */
#include "codec.h"

#include <assert.h>
#include <string.h>

#include <pb_decode.h>
#include <pb_encode.h>

#include "lockfs.pb.h"

static_assert(sizeof(((lockfs_Command *)0)->name.bytes) >= LIMIT_NAME_BYTES, "lockfs.options");
static_assert(sizeof(((lockfs_Command *)0)->data.bytes) >= LIMIT_CONTENT_BYTES, "lockfs.options");
static_assert(sizeof(((lockfs_Command *)0)->comm.bytes) >= LIMIT_COMM_BYTES, "lockfs.options");
static_assert(sizeof(((lockfs_Command *)0)->boot_id.bytes) == BOOT_ID_BYTES, "lockfs.options");
static_assert(lockfs_Command_size <= LIMIT_COMMAND_BYTES, "every command fits");

size_t codec_encode_command(const struct command *command, char *buffer, size_t size)
{
    lockfs_Command message;
    message.type = command->type;
    message.node = command->node;
    message.incarnation = command->incarnation;
    message.seq = command->seq;
    message.stamp_ms = (uint64_t)command->stamp_ms;
    message.lock = command->lock;
    message.handle = command->handle;
    message.token = command->token;
    message.target = command->target;
    message.replaces = command->replaces;
    message.kind = command->kind;
    message.claim_mode = command->claim_mode;
    message.wait = command->wait;
    message.ttl_ms = command->ttl_ms;
    message.pid = command->process.pid;
    message.process_start = command->process.start;
    message.attributes = command->attributes;
    message.mode = command->mode;
    message.uid = command->uid;
    message.gid = command->gid;
    message.offset = command->offset;
    message.append = command->append;
    message.limit = command->limit;
    message.release = command->release;
    message.delay_ms = command->delay_ms;
    message.owner = command->owner;

    assert(command->name.len <= LIMIT_NAME_BYTES && command->data.len <= LIMIT_CONTENT_BYTES);
    message.name.size = (pb_size_t)command->name.len;
    if (command->name.len)
        memcpy(message.name.bytes, command->name.data, command->name.len);
    message.data.size = (pb_size_t)command->data.len;
    if (command->data.len)
        memcpy(message.data.bytes, command->data.data, command->data.len);
    message.boot_id.size = command->type == COMMAND_INCARNATION ? BOOT_ID_BYTES : 0;
    memcpy(message.boot_id.bytes, command->boot_id, message.boot_id.size);
    message.comm.size = 0;
    while (message.comm.size < LIMIT_COMM_BYTES && command->process.comm[message.comm.size])
        message.comm.size++;
    memcpy(message.comm.bytes, command->process.comm, message.comm.size);

    pb_ostream_t stream = pb_ostream_from_buffer((pb_byte_t *)buffer, size);
    return pb_encode(&stream, lockfs_Command_fields, &message) ? stream.bytes_written : 0;
}

/* What each type of command must have for the lock table's assertions to hold. */
static bool is_sound(const lockfs_Command *message)
{
    bool names = message->type == COMMAND_MKDIR || message->type == COMMAND_RMDIR ||
                 message->type == COMMAND_ACQUIRE || message->type == COMMAND_UNLINK ||
                 message->type == COMMAND_SET_CLAIM || message->type == COMMAND_FORCE;
    if (message->type < COMMAND_INCARNATION || message->type > COMMAND_END_DELAY)
        return false;
    if (names && !message->name.size)
        return false;
    if (message->type == COMMAND_INCARNATION && message->boot_id.size != BOOT_ID_BYTES)
        return false;
    if (message->type == COMMAND_ACQUIRE)
        return message->kind >= CLAIM_CREATE && message->kind <= CLAIM_FCNTL &&
               (message->claim_mode == CLAIM_SHARED || message->claim_mode == CLAIM_EXCLUSIVE) &&
               (message->kind != CLAIM_CREATE ||
                (message->claim_mode == CLAIM_EXCLUSIVE && !message->wait));
    return true;
}

bool codec_decode_command(struct span bytes, struct codec_storage *storage,
                          struct command *ret_command)
{
    /* Every default is 0: nanopb, told so, need not set field by field. */
    lockfs_Command message = lockfs_Command_init_zero;
    pb_istream_t stream = pb_istream_from_buffer((const pb_byte_t *)bytes.data, bytes.len);
    if (!pb_decode_ex(&stream, lockfs_Command_fields, &message, PB_DECODE_NOINIT) ||
        !is_sound(&message))
        return false;

    struct command command = {
        .type = message.type,
        .node = message.node,
        .incarnation = message.incarnation,
        .seq = message.seq,
        .stamp_ms = (int64_t)message.stamp_ms,
        .lock = message.lock,
        .name = {storage->name, message.name.size},
        .handle = message.handle,
        .token = message.token,
        .target = message.target,
        .replaces = message.replaces,
        .kind = message.kind,
        .claim_mode = message.claim_mode,
        .wait = message.wait,
        .ttl_ms = message.ttl_ms,
        .process = {.pid = message.pid, .start = message.process_start},
        .attributes = message.attributes,
        .mode = message.mode,
        .uid = message.uid,
        .gid = message.gid,
        .offset = message.offset,
        .append = message.append,
        .limit = message.limit,
        .release = message.release,
        .delay_ms = message.delay_ms,
        .owner = message.owner,
        .data = {storage->data, message.data.size},
    };
    memcpy(command.boot_id, message.boot_id.bytes, message.boot_id.size);
    memcpy(command.process.comm, message.comm.bytes, message.comm.size);
    memcpy(storage->name, message.name.bytes, message.name.size);
    memcpy(storage->data, message.data.bytes, message.data.size);
    *ret_command = command;
    return true;
}
