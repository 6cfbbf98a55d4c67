/* What the simulator sees inside of a node. Apart, since both have a `struct event`. */
#include "node_look.h"

#include "fs/node_internal.h"

struct raft *node_look_raft(const struct node *node)
{
    return node->raft;
}

bool node_look_keeps_entries(const struct node *node)
{
    return node->pending_chunks.used != 0 || node->pending_growth != 0;
}
