/* Commands as bytes: what goes in comes out, and what is no command is refused. */
#include <stdlib.h>
#include <string.h>

#include "fs/codec.h"
#include "tests/lib/tap.h"

static struct command full_command(char *name, char *data)
{
    struct command command = {
        .type = COMMAND_ACQUIRE,
        .node = 3,
        .incarnation = UINT64_MAX,
        .seq = 1 << 20,
        .stamp_ms = -5,
        .lock = UINT64_MAX - 1,
        .name = {name, LIMIT_NAME_BYTES},
        .handle = UINT64_MAX,
        .token = 9,
        .target = 10,
        .replaces = 11,
        .kind = CLAIM_FCNTL,
        .claim_mode = CLAIM_SHARED,
        .wait = true,
        .owner = 12,
        .ttl_ms = 13,
        .process = {.pid = 14, .start = 15, .comm = "fifteen-bytes-x"},
        .attributes = 16,
        .mode = 07777,
        .uid = UINT32_MAX,
        .gid = 17,
        .limit = 18,
        .release = RELEASE_EXIT,
        .delay_ms = 19,
        .offset = 20,
        .append = true,
        .data = {data, LIMIT_CONTENT_BYTES},
    };
    memset(name, 'n', LIMIT_NAME_BYTES);
    memset(data, 0, LIMIT_CONTENT_BYTES);
    return command;
}

static bool is_same(const struct command *a, const struct command *b)
{
    return a->type == b->type && a->node == b->node && a->incarnation == b->incarnation &&
           a->seq == b->seq && a->stamp_ms == b->stamp_ms && a->lock == b->lock &&
           a->handle == b->handle && a->token == b->token && a->target == b->target &&
           a->replaces == b->replaces && a->kind == b->kind && a->claim_mode == b->claim_mode &&
           a->wait == b->wait && a->owner == b->owner && a->ttl_ms == b->ttl_ms &&
           a->process.pid == b->process.pid && a->process.start == b->process.start &&
           strcmp(a->process.comm, b->process.comm) == 0 && a->attributes == b->attributes &&
           a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->limit == b->limit &&
           a->release == b->release && a->delay_ms == b->delay_ms && a->offset == b->offset &&
           a->append == b->append && a->name.len == b->name.len && a->data.len == b->data.len &&
           memcmp(a->name.data, b->name.data, a->name.len) == 0 &&
           memcmp(a->data.data, b->data.data, a->data.len) == 0;
}

static bool takes_only_what_is_in_range(const char *bytes, size_t len)
{
    static struct codec_storage storage;
    struct command command;
    if (!codec_decode_command((struct span){bytes, len}, &storage, &command))
        return true;
    return command.type >= COMMAND_INCARNATION && command.type <= COMMAND_END_DELAY &&
           command.name.len <= LIMIT_NAME_BYTES && command.data.len <= LIMIT_CONTENT_BYTES &&
           memchr(command.process.comm, 0, sizeof command.process.comm) != NULL;
}

int main(void)
{
    static char name[LIMIT_NAME_BYTES], data[LIMIT_CONTENT_BYTES], bytes[LIMIT_COMMAND_BYTES];
    static struct codec_storage storage;
    struct command command = full_command(name, data);
    struct command back;

    size_t len = codec_encode_command(&command, bytes, sizeof bytes);
    tap_ok(len > 0, "the largest command fits");
    tap_ok(codec_decode_command((struct span){bytes, len}, &storage, &back) &&
               is_same(&command, &back),
           "and comes back as it was");
    tap_equal(codec_encode_command(&command, bytes, len - 1), 0, "too small a buffer is refused");

    len = codec_encode_command(&command, bytes, sizeof bytes);
    bool in_range = true;
    for (size_t cut = 0; cut < len; cut++)
        in_range = in_range && takes_only_what_is_in_range(bytes, cut);
    tap_ok(in_range, "of a command that is cut anywhere only what is in range is taken");
    size_t taken = 0;
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        in_range = in_range && takes_only_what_is_in_range(bytes, len);
        taken += codec_decode_command((struct span){bytes, len}, &storage, &back);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    tap_ok(in_range, "so it is with a flipped bit");
    tap_ok(taken > 0 && taken < len * 8, "some of these are commands, and some are not");

    command = (struct command){.type = COMMAND_RELEASE, .node = 1, .seq = 1, .handle = 1};
    len = codec_encode_command(&command, bytes, sizeof bytes);
    tap_ok(len > 0 && len <= LIMIT_GIVE_BACK_BYTES / LIMIT_GIVE_BACK_COMMANDS -
                                 LIMIT_RECORD_OVERHEAD_BYTES,
           "a release fits into the room that is reserved for it");
    tap_ok(codec_decode_command((struct span){bytes, len}, &storage, &back), "and is a command");
    command.type = COMMAND_ACQUIRE;
    len = codec_encode_command(&command, bytes, sizeof bytes);
    tap_ok(!codec_decode_command((struct span){bytes, len}, &storage, &back),
           "an acquire without a name, kind and mode is none");
    command = (struct command){.type = COMMAND_ACQUIRE,
                               .name = {"f", 1},
                               .kind = CLAIM_CREATE,
                               .claim_mode = CLAIM_SHARED};
    len = codec_encode_command(&command, bytes, sizeof bytes);
    tap_ok(!codec_decode_command((struct span){bytes, len}, &storage, &back),
           "nor is a shared claim by creating");
    tap_ok(!codec_decode_command((struct span){"", 0}, &storage, &back), "nor is nothing");
    return tap_done();
}
