/* The daemon's one loop: it feeds events to the node and carries out its actions. */
#ifndef FS_LOOP_H
#define FS_LOOP_H

#include "config.h"

/* Runs a node until it is told to stop, or must. `ready` is called when the mount serves. Every
 * problem has been reported. Returns the exit code. */
enum exit_code loop_run(const struct config *config, void (*ready)(void *context), void *context);

#endif
