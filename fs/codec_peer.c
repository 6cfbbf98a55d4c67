/* Messages between servers as bytes. Each part is delimited by its length. */
#include "codec_peer.h"

#include <assert.h>
#include <string.h>

#include <pb_decode.h>
#include <pb_encode.h>

#include "lockfs.pb.h"

static_assert(lockfs_PeerMessage_size + 8 <= CODEC_PEER_HEADER_BYTES, "codec_peer.h");
static_assert(lockfs_Entry_size + 8 <= CODEC_PEER_ENTRY_BYTES, "codec_peer.h");
static_assert(lockfs_Change_size <= CODEC_CHANGE_BYTES, "codec_peer.h");
static_assert(sizeof((lockfs_SnapshotNode *)0)->members / sizeof(lockfs_Member) == RAFT_MEMBERS_MAX,
              "lockfs.options");

static size_t encode_delimited(const pb_msgdesc_t *fields, const void *message, char *buffer,
                               size_t size)
{
    pb_ostream_t stream = pb_ostream_from_buffer((pb_byte_t *)buffer, size);
    bool fits = pb_encode_ex(&stream, fields, message, PB_ENCODE_DELIMITED);
    assert(fits);
    return stream.bytes_written;
}

size_t codec_encode_message(const struct raft_message *message,
                            char buffer[CODEC_PEER_HEADER_BYTES])
{
    lockfs_PeerMessage out = {
        .type = message->type, .from = message->from, .to = message->to, .term = message->term};
    switch (message->type) {
    case RAFT_MESSAGE_PRE_VOTE:
    case RAFT_MESSAGE_VOTE:
        out.campaign_term = message->vote.campaign_term;
        out.last_index = message->vote.last_index;
        out.last_term = message->vote.last_term;
        out.transfer = message->vote.transfer;
        break;
    case RAFT_MESSAGE_PRE_VOTE_REPLY:
    case RAFT_MESSAGE_VOTE_REPLY:
        out.campaign_term = message->vote_reply.campaign_term;
        out.granted = message->vote_reply.granted;
        break;
    case RAFT_MESSAGE_APPEND:
        out.prev_index = message->append.prev_index;
        out.prev_term = message->append.prev_term;
        out.commit = message->append.commit;
        out.round = message->append.round;
        out.count = message->append.count;
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        out.round = message->append_reply.round;
        out.match = message->append_reply.match;
        out.rejected = message->append_reply.rejected;
        out.wants_snapshot = message->append_reply.wants_snapshot;
        out.rejected_index = message->append_reply.rejected_index;
        out.hint_index = message->append_reply.hint_index;
        out.hint_term = message->append_reply.hint_term;
        break;
    case RAFT_MESSAGE_SNAPSHOT:
        out.index = message->snapshot.index;
        out.index_term = message->snapshot.index_term;
        out.offset = message->snapshot.offset;
        out.bytes = message->snapshot.bytes;
        out.done = message->snapshot.done;
        out.round = message->snapshot.round;
        break;
    case RAFT_MESSAGE_SNAPSHOT_REPLY:
        out.index = message->snapshot_reply.index;
        out.offset = message->snapshot_reply.offset;
        out.round = message->snapshot_reply.round;
        break;
    case RAFT_MESSAGE_TIMEOUT_NOW:
        break;
    }
    return encode_delimited(lockfs_PeerMessage_fields, &out, buffer, CODEC_PEER_HEADER_BYTES);
}

size_t codec_encode_entry(uint64_t term, enum raft_entry_type type, uint32_t bytes,
                          char buffer[CODEC_PEER_ENTRY_BYTES])
{
    lockfs_Entry out = {.term = term, .type = type, .bytes = bytes};
    return encode_delimited(lockfs_Entry_fields, &out, buffer, CODEC_PEER_ENTRY_BYTES);
}

static void take_fields(const lockfs_PeerMessage *in, struct raft_message *message)
{
    *message =
        (struct raft_message){.type = in->type, .from = in->from, .to = in->to, .term = in->term};
    switch (message->type) {
    case RAFT_MESSAGE_PRE_VOTE:
    case RAFT_MESSAGE_VOTE:
        message->vote.campaign_term = in->campaign_term;
        message->vote.last_index = in->last_index;
        message->vote.last_term = in->last_term;
        message->vote.transfer = in->transfer;
        break;
    case RAFT_MESSAGE_PRE_VOTE_REPLY:
    case RAFT_MESSAGE_VOTE_REPLY:
        message->vote_reply.campaign_term = in->campaign_term;
        message->vote_reply.granted = in->granted;
        break;
    case RAFT_MESSAGE_APPEND:
        message->append.prev_index = in->prev_index;
        message->append.prev_term = in->prev_term;
        message->append.commit = in->commit;
        message->append.round = in->round;
        message->append.count = in->count;
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        message->append_reply.round = in->round;
        message->append_reply.match = in->match;
        message->append_reply.rejected = in->rejected;
        message->append_reply.wants_snapshot = in->wants_snapshot;
        message->append_reply.rejected_index = in->rejected_index;
        message->append_reply.hint_index = in->hint_index;
        message->append_reply.hint_term = in->hint_term;
        break;
    case RAFT_MESSAGE_SNAPSHOT:
        message->snapshot.index = in->index;
        message->snapshot.index_term = in->index_term;
        message->snapshot.offset = in->offset;
        message->snapshot.bytes = in->bytes;
        message->snapshot.done = in->done;
        message->snapshot.round = in->round;
        break;
    case RAFT_MESSAGE_SNAPSHOT_REPLY:
        message->snapshot_reply.index = in->index;
        message->snapshot_reply.offset = in->offset;
        message->snapshot_reply.round = in->round;
        break;
    case RAFT_MESSAGE_TIMEOUT_NOW:
        break;
    }
}

/* The next bytes of what is being decoded. */
static struct span rest_of(struct span bytes, const pb_istream_t *stream, size_t len)
{
    return (struct span){bytes.data + (bytes.len - stream->bytes_left), len};
}

static bool take_entry(struct span bytes, pb_istream_t *stream, struct raft_entry *entry,
                       struct span *data)
{
    lockfs_Entry in;
    if (!pb_decode_ex(stream, lockfs_Entry_fields, &in, PB_DECODE_DELIMITED))
        return false;
    if (in.type < RAFT_ENTRY_NOOP || in.type > RAFT_ENTRY_CHANGE ||
        in.bytes > RAFT_ENTRY_BYTES_MAX || in.bytes > stream->bytes_left)
        return false;
    *entry = (struct raft_entry){.term = in.term, .type = in.type, .bytes = in.bytes};
    *data = rest_of(bytes, stream, in.bytes);
    if (in.type == RAFT_ENTRY_CHANGE && !codec_decode_change(*data, &entry->change))
        return false;
    return pb_read(stream, NULL, in.bytes);
}

bool codec_decode_message(struct span bytes, struct codec_peer_message *ret_message)
{
    pb_istream_t stream = pb_istream_from_buffer((const pb_byte_t *)bytes.data, bytes.len);
    lockfs_PeerMessage in;
    if (!pb_decode_ex(&stream, lockfs_PeerMessage_fields, &in, PB_DECODE_DELIMITED) ||
        in.type < RAFT_MESSAGE_PRE_VOTE || in.type > RAFT_MESSAGE_TIMEOUT_NOW)
        return false;
    if (in.type == RAFT_MESSAGE_APPEND && in.count > RAFT_APPEND_ENTRIES_MAX)
        return false;
    for (uint32_t i = 0; in.type == RAFT_MESSAGE_APPEND && i < in.count; i++)
        if (!take_entry(bytes, &stream, &ret_message->entries[i], &ret_message->data[i]))
            return false;
    ret_message->chunk = rest_of(bytes, &stream, stream.bytes_left);
    if (stream.bytes_left != (in.type == RAFT_MESSAGE_SNAPSHOT ? in.bytes : 0))
        return false;
    take_fields(&in, &ret_message->message);
    return true;
}

size_t codec_encode_change(const struct raft_change *change, char buffer[CODEC_CHANGE_BYTES])
{
    lockfs_Change out = {.type = change->type, .id = change->id};
    pb_ostream_t stream = pb_ostream_from_buffer((pb_byte_t *)buffer, CODEC_CHANGE_BYTES);
    bool fits = pb_encode(&stream, lockfs_Change_fields, &out);
    assert(fits);
    return stream.bytes_written;
}

bool codec_decode_change(struct span bytes, struct raft_change *ret_change)
{
    pb_istream_t stream = pb_istream_from_buffer((const pb_byte_t *)bytes.data, bytes.len);
    lockfs_Change in;
    if (!pb_decode(&stream, lockfs_Change_fields, &in) || in.id == 0 ||
        in.type < RAFT_CHANGE_ADD_LEARNER || in.type > RAFT_CHANGE_REMOVE)
        return false;
    *ret_change = (struct raft_change){.type = in.type, .id = in.id};
    return true;
}
