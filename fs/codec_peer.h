/* What servers say to each other, as bytes: the messages of lockfs.proto. Pure. */
#ifndef FS_CODEC_PEER_H
#define FS_CODEC_PEER_H

#include "command.h"
#include "raft/raft.h"

/* Of a message without its entries' data and its snapshot's bytes. */
enum { CODEC_PEER_HEADER_BYTES = 256 };
/* Of what goes before the data of an entry. */
enum { CODEC_PEER_ENTRY_BYTES = 32 };

/* The head of a message. Behind it the caller puts the entries of an append, or the bytes of a
 * snapshot. Returns its length. */
size_t codec_encode_message(const struct raft_message *message,
                            char buffer[CODEC_PEER_HEADER_BYTES]);
/* What goes before the data of an entry. Returns its length. */
size_t codec_encode_entry(uint64_t term, enum raft_entry_type type, uint32_t bytes,
                          char buffer[CODEC_PEER_ENTRY_BYTES]);

/* A message that has arrived. It is large, so the caller keeps one. */
struct codec_peer_message {
    struct raft_message message;
    /* Of an append. The data point into what was decoded. */
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    struct span data[RAFT_APPEND_ENTRIES_MAX];
    struct span chunk; /* of a snapshot */
};

/* Decodes and checks; false where these bytes are no message. */
bool codec_decode_message(struct span bytes, struct codec_peer_message *ret_message);

enum { CODEC_CHANGE_BYTES = 32 };
/* The data of an entry that changes the configuration. Returns its length. */
size_t codec_encode_change(const struct raft_change *change, char buffer[CODEC_CHANGE_BYTES]);
bool codec_decode_change(struct span bytes, struct raft_change *ret_change);

#endif
