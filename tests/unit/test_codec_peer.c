/* Messages between servers as bytes: each comes back as it went, and nothing else is taken for one.
 */
#include <string.h>

#include "fs/codec_peer.h"
#include "tests/lib/tap.h"

enum { BYTES_MAX = 4096, ENTRIES = 3 };

static struct codec_peer_message decoded;

struct bytes {
    char data[BYTES_MAX];
    size_t len;
};

static void add(struct bytes *bytes, const void *data, size_t len)
{
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
}

static void begin(struct bytes *bytes, const struct raft_message *message)
{
    char head[CODEC_PEER_HEADER_BYTES];
    bytes->len = 0;
    add(bytes, head, codec_encode_message(message, head));
}

static void add_entry(struct bytes *bytes, uint32_t type, const void *data, uint32_t len)
{
    char head[CODEC_PEER_ENTRY_BYTES];
    add(bytes, head, codec_encode_entry(7, (enum raft_entry_type)type, len, head));
    add(bytes, data, len);
}

static bool decode(const struct bytes *bytes)
{
    return codec_decode_message((struct span){bytes->data, bytes->len}, &decoded);
}

/* Every field of it is set, so that one which is left out shows. */
static struct raft_message message_of(enum raft_message_type type)
{
    struct raft_message message = {.type = type, .from = 1, .to = UINT64_MAX, .term = 8};
    switch (type) {
    case RAFT_MESSAGE_PRE_VOTE:
    case RAFT_MESSAGE_VOTE:
        message.vote.campaign_term = 9;
        message.vote.last_index = 10;
        message.vote.last_term = 11;
        message.vote.transfer = true;
        break;
    case RAFT_MESSAGE_PRE_VOTE_REPLY:
    case RAFT_MESSAGE_VOTE_REPLY:
        message.vote_reply.campaign_term = 9;
        message.vote_reply.granted = true;
        break;
    case RAFT_MESSAGE_APPEND:
        message.append.prev_index = 9;
        message.append.prev_term = 10;
        message.append.commit = 11;
        message.append.round = 12;
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        message.append_reply.round = 9;
        message.append_reply.match = 10;
        message.append_reply.rejected = true;
        message.append_reply.wants_snapshot = true;
        message.append_reply.rejected_index = 11;
        message.append_reply.hint_index = 12;
        message.append_reply.hint_term = 13;
        break;
    case RAFT_MESSAGE_SNAPSHOT:
        message.snapshot.index = 9;
        message.snapshot.index_term = 10;
        message.snapshot.offset = 11;
        message.snapshot.bytes = 5;
        message.snapshot.done = true;
        message.snapshot.round = 12;
        break;
    case RAFT_MESSAGE_SNAPSHOT_REPLY:
        message.snapshot_reply.index = 9;
        message.snapshot_reply.offset = 10;
        message.snapshot_reply.round = 11;
        break;
    case RAFT_MESSAGE_TIMEOUT_NOW:
        break;
    }
    return message;
}

/* What is decoded, encoded again, gives the same bytes: none of them is passed over. A field that
 * is lost both ways shows in the simulator, whose nodes speak by these bytes. */
static void test_each_type(void)
{
    for (int type = RAFT_MESSAGE_PRE_VOTE; type <= RAFT_MESSAGE_TIMEOUT_NOW; type++) {
        const struct raft_message message = message_of((enum raft_message_type)type);
        struct bytes bytes;
        struct bytes again;
        begin(&bytes, &message);
        begin(&again, &message);
        if (type == RAFT_MESSAGE_SNAPSHOT)
            add(&bytes, "chunk", 5);
        bool ok = decode(&bytes);
        if (ok)
            begin(&again, &decoded.message);
        if (ok && type == RAFT_MESSAGE_SNAPSHOT) {
            ok = decoded.chunk.len == 5 && memcmp(decoded.chunk.data, "chunk", 5) == 0;
            add(&again, decoded.chunk.data, decoded.chunk.len);
        }
        tap_ok(ok && again.len == bytes.len && memcmp(again.data, bytes.data, bytes.len) == 0,
               "a message of type %d comes back as it went", type);

        bool cut = false;
        size_t whole = bytes.len;
        for (bytes.len = 0; bytes.len < whole; bytes.len++)
            cut = cut || decode(&bytes);
        tap_ok(!cut, "cut off anywhere it is none");
        add(&bytes, "x", 1);
        tap_ok(!decode(&bytes), "nor with a byte too many");
    }
}

static void append(struct bytes *bytes, uint32_t count)
{
    struct raft_message message = message_of(RAFT_MESSAGE_APPEND);
    message.append.count = count;
    begin(bytes, &message);
}

static void test_entries(void)
{
    const struct raft_change change = {RAFT_CHANGE_PROMOTE, 42};
    char change_bytes[CODEC_CHANGE_BYTES];
    const uint32_t change_len = (uint32_t)codec_encode_change(&change, change_bytes);
    struct bytes bytes;

    append(&bytes, ENTRIES);
    add_entry(&bytes, RAFT_ENTRY_NOOP, "", 0);
    add_entry(&bytes, RAFT_ENTRY_COMMAND, "command", 7);
    add_entry(&bytes, RAFT_ENTRY_CHANGE, change_bytes, change_len);
    tap_ok(decode(&bytes), "an append with its entries");
    tap_ok(decoded.entries[0].type == RAFT_ENTRY_NOOP && decoded.data[0].len == 0 &&
               decoded.entries[1].type == RAFT_ENTRY_COMMAND && decoded.entries[1].term == 7 &&
               decoded.entries[1].bytes == 7 && decoded.data[1].len == 7 &&
               memcmp(decoded.data[1].data, "command", 7) == 0,
           "with their terms, types and data");
    tap_ok(decoded.entries[2].change.type == RAFT_CHANGE_PROMOTE &&
               decoded.entries[2].change.id == 42,
           "and what they change");

    bool cut = false;
    size_t whole = bytes.len;
    for (bytes.len = 0; bytes.len < whole; bytes.len++)
        cut = cut || decode(&bytes);
    tap_ok(!cut, "cut off anywhere it is none");

    append(&bytes, 2);
    add_entry(&bytes, RAFT_ENTRY_NOOP, "", 0);
    tap_ok(!decode(&bytes), "fewer entries than it says");
    append(&bytes, 0);
    add_entry(&bytes, RAFT_ENTRY_NOOP, "", 0);
    tap_ok(!decode(&bytes), "more entries than it says");
    append(&bytes, RAFT_APPEND_ENTRIES_MAX + 1);
    tap_ok(!decode(&bytes), "more entries than a message may have");
    append(&bytes, 1);
    add_entry(&bytes, RAFT_ENTRY_CHANGE + 1, "", 0);
    tap_ok(!decode(&bytes), "an entry of no type");
    append(&bytes, 1);
    add_entry(&bytes, RAFT_ENTRY_CHANGE, "\xff", 1);
    tap_ok(!decode(&bytes), "a change that is none");
}

static void test_entry_too_large(void)
{
    static const char data[RAFT_ENTRY_BYTES_MAX + 1];
    static char bytes[CODEC_PEER_HEADER_BYTES + CODEC_PEER_ENTRY_BYTES + sizeof data];
    struct raft_message message = message_of(RAFT_MESSAGE_APPEND);
    message.append.count = 1;
    for (uint32_t len = RAFT_ENTRY_BYTES_MAX; len <= sizeof data; len++) {
        size_t used = codec_encode_message(&message, bytes);
        used += codec_encode_entry(7, RAFT_ENTRY_COMMAND, len, bytes + used);
        memcpy(bytes + used, data, len);
        bool ok = codec_decode_message((struct span){bytes, used + len}, &decoded);
        tap_ok(ok == (len <= RAFT_ENTRY_BYTES_MAX), "an entry of %u bytes: %s", len,
               ok ? "taken" : "refused");
    }
}

static void test_no_message(void)
{
    struct raft_message message = message_of(RAFT_MESSAGE_TIMEOUT_NOW);
    struct raft_change change = {RAFT_CHANGE_REMOVE, 0};
    char change_bytes[CODEC_CHANGE_BYTES];
    struct bytes bytes;

    message.type = (enum raft_message_type)0;
    begin(&bytes, &message);
    tap_ok(!decode(&bytes), "no type");
    message.type = (enum raft_message_type)(RAFT_MESSAGE_TIMEOUT_NOW + 1);
    begin(&bytes, &message);
    tap_ok(!decode(&bytes), "a type that is not there");

    size_t len = codec_encode_change(&change, change_bytes);
    tap_ok(!codec_decode_change((struct span){change_bytes, len}, &change), "a change of nobody");
    change = (struct raft_change){(enum raft_change_type)(RAFT_CHANGE_REMOVE + 1), 1};
    len = codec_encode_change(&change, change_bytes);
    tap_ok(!codec_decode_change((struct span){change_bytes, len}, &change), "a change of no type");
}

int main(void)
{
    test_each_type();
    test_entries();
    test_entry_too_large();
    test_no_message();
    return tap_done();
}
