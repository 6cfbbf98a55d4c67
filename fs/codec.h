/* Commands as bytes, for the log: the messages of lockfs.proto. Pure. */
#ifndef FS_CODEC_H
#define FS_CODEC_H

#include "command.h"

/* Encodes into `buffer`; returns the length, 0 where it does not fit (LIMIT_COMMAND_BYTES always
 * suffice). */
size_t codec_encode_command(const struct command *command, char *buffer, size_t size);

/* Room for the parts of a decoded command that it points to. */
struct codec_storage {
    char name[LIMIT_NAME_BYTES];
    char data[LIMIT_CONTENT_BYTES];
};

/* Decodes and checks: enumerations, lengths and ranges are such that the lock table may rely on
 * them. `ret_command` points into `storage`. False where these bytes are no command. */
bool codec_decode_command(struct span bytes, struct codec_storage *storage,
                          struct command *ret_command);

#endif
