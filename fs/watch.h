/*
 * Waits for processes to end, by their pidfds on the loop. Where the kernel gives no descriptor
 * (too many are open), it looks once a second instead.
 */
#ifndef FS_WATCH_H
#define FS_WATCH_H

#include <uv.h>

#include "command.h"

struct watches;

/* Called from the loop, never from within watches_add(). */
typedef void watch_handler(void *context, const struct process *process);

int watches_open(uv_loop_t *loop, watch_handler *handler, void *context,
                 struct watches **ret_watches);

/* Tells when this process has ended, also if it has already. Each process is told of once. Returns
 * 0 or -ENOMEM. */
int watches_add(struct watches *watches, const struct process *process);

/* No handler is called any more; the memory goes in the loop's next turns. NULL is nothing. */
void watches_close(struct watches *watches);

#endif
