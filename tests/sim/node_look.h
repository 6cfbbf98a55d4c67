/* What the simulator sees inside of a node. */
#ifndef TESTS_SIM_NODE_LOOK_H
#define TESTS_SIM_NODE_LOOK_H

#include <stdbool.h>

struct node;
struct raft;

struct raft *node_look_raft(const struct node *node);
/* Whether it has bytes of entries in memory, or counts what they will take in a snapshot. */
bool node_look_keeps_entries(const struct node *node);

#endif
