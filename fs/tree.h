/*
 * The tree of one node: the inodes that its kernel knows, with their lookup counts. Pure.
 *
 * An inode stands for a lock, or for a file name in a lock, claimed or not; a control file has no
 * inode of its own: it is its lock's, marked with the kind of control file. An inode lives while
 * the kernel refers to it, or something here does (a pin).
 */
#ifndef FS_TREE_H
#define FS_TREE_H

#include "memory.h"
#include "names.h"

/* An inode number of the FUSE protocol: the slot, and which control file of it. */
static inline uint64_t tree_number(uint32_t slot, enum control control)
{
    return (uint64_t)control << 56 | slot;
}

static inline uint32_t tree_slot(uint64_t number)
{
    return (uint32_t)number;
}

static inline enum control tree_control(uint64_t number)
{
    return (enum control)(number >> 56);
}

enum { TREE_ROOT = 1 };

struct inode {
    uint64_t lock; /* of a file: the lock that it is in */
    uint64_t lookups;
    uint32_t pins;
    uint32_t parent; /* of a file: the slot of its lock's inode, which it pins; 0: this is a lock */
    uint32_t name;   /* of a file: chunks */
    uint32_t name_len;
    struct chain by_key;
    /* Of a file: claims in the table that this node has closed already, or never took. */
    uint32_t gone_claims; /* of a lock: of all files in it */
    /* Of a file: fcntl requests under way. */
    uint32_t fcntl_requests;
    /* Of a file: requests that will wait for a claim and are not in the table yet. */
    uint32_t waits_proposed; /* of a lock: of all files in it */
    /* Of a lock: handles that hold or have lost a claim here. */
    struct list claimants;
};

struct tree {
    struct slab inodes;
    struct slab chunks;
    struct index by_key;
};

void tree_layout(struct tree *tree, struct arena *arena, uint32_t inodes);
/* Makes the root, pinned for good. */
void tree_init(struct tree *tree, uint64_t root_lock);

static inline struct inode *tree_at(const struct tree *tree, uint32_t slot)
{
    return slab_at(&tree->inodes, slot);
}

/* The inode of a number that the kernel uses, NULL where there is none. */
struct inode *tree_inode(const struct tree *tree, uint64_t number);

/* Slots; 0 where there is none, or no room for a new one. What is made has neither lookups nor
 * pins, and is gone at tree_drop_unused(), unless it got one. */
uint32_t tree_find_lock(const struct tree *tree, uint64_t lock);
uint32_t tree_make_lock(struct tree *tree, uint64_t lock);
uint32_t tree_find_file(const struct tree *tree, uint64_t lock, struct span name);
uint32_t tree_make_file(struct tree *tree, uint32_t parent, struct span name);

void tree_pin(struct tree *tree, uint32_t slot);
void tree_unpin(struct tree *tree, uint32_t slot);
void tree_forget(struct tree *tree, uint64_t number, uint64_t count);
void tree_drop_unused(struct tree *tree, uint32_t slot);

/* Copies a file's name; `buffer` has LIMIT_NAME_BYTES. */
struct span tree_name(const struct tree *tree, const struct inode *inode, char *buffer);

#endif
