/* The inodes that the kernel knows. */
#include "tree.h"

#include <assert.h>

void tree_layout(struct tree *tree, struct arena *arena, uint32_t inodes)
{
    slab_layout(&tree->inodes, arena, sizeof(struct inode), inodes);
    /* Room for names of three chunks (84 bytes) on average. */
    chunks_layout(&tree->chunks, arena, (uint64_t)inodes * 3);
    index_layout(&tree->by_key, arena, &tree->inodes, offsetof(struct inode, by_key));
}

void tree_init(struct tree *tree, uint64_t root_lock)
{
    uint32_t slot = tree_make_lock(tree, root_lock);
    assert(slot == TREE_ROOT);
    tree_pin(tree, slot);
}

static uint64_t key_hash(uint64_t lock, struct span name)
{
    return hash_bytes(hash_number(lock), name.data, name.len);
}

static uint32_t find(const struct tree *tree, uint64_t lock, struct span name)
{
    uint32_t slot = index_first(&tree->by_key, key_hash(lock, name));
    for (; slot; slot = index_next(&tree->by_key, slot)) {
        const struct inode *inode = tree_at(tree, slot);
        if (inode->lock == lock && chunks_equal(&tree->chunks, inode->name, inode->name_len, name))
            return slot;
    }
    return 0;
}

static uint32_t make(struct tree *tree, uint64_t lock, uint32_t parent, struct span name)
{
    uint32_t chunks = 0;
    if (!chunks_resize(&tree->chunks, &chunks, 0, name.len))
        return 0;
    uint32_t slot = slab_take(&tree->inodes);
    if (!slot) {
        chunks_resize(&tree->chunks, &chunks, name.len, 0);
        return 0;
    }
    chunks_write(&tree->chunks, chunks, 0, name);
    *tree_at(tree, slot) = (struct inode){
        .lock = lock, .parent = parent, .name = chunks, .name_len = (uint32_t)name.len};
    index_add(&tree->by_key, key_hash(lock, name), slot);
    return slot;
}

static bool is_live(const struct inode *inode)
{
    return inode->lookups || inode->pins;
}

struct inode *tree_inode(const struct tree *tree, uint64_t number)
{
    uint32_t slot = tree_slot(number);
    if (!slot || slot > tree->inodes.touched || tree_control(number) >= CONTROL_COUNT)
        return NULL;
    struct inode *inode = tree_at(tree, slot);
    return is_live(inode) ? inode : NULL;
}

uint32_t tree_find_lock(const struct tree *tree, uint64_t lock)
{
    return find(tree, lock, (struct span){NULL, 0});
}

uint32_t tree_make_lock(struct tree *tree, uint64_t lock)
{
    uint32_t slot = tree_find_lock(tree, lock);
    return slot ? slot : make(tree, lock, 0, (struct span){NULL, 0});
}

uint32_t tree_find_file(const struct tree *tree, uint64_t lock, struct span name)
{
    return find(tree, lock, name);
}

uint32_t tree_make_file(struct tree *tree, uint32_t parent, struct span name)
{
    uint64_t lock = tree_at(tree, parent)->lock;
    uint32_t slot = find(tree, lock, name);
    if (slot)
        return slot;
    slot = make(tree, lock, parent, name);
    if (slot)
        tree_pin(tree, parent);
    return slot;
}

void tree_pin(struct tree *tree, uint32_t slot)
{
    tree_at(tree, slot)->pins++;
}

void tree_unpin(struct tree *tree, uint32_t slot)
{
    assert(tree_at(tree, slot)->pins);
    tree_at(tree, slot)->pins--;
    tree_drop_unused(tree, slot);
}

void tree_forget(struct tree *tree, uint64_t number, uint64_t count)
{
    struct inode *inode = tree_inode(tree, number);
    if (!inode)
        return;
    inode->lookups -= count < inode->lookups ? count : inode->lookups;
    tree_drop_unused(tree, tree_slot(number));
}

void tree_drop_unused(struct tree *tree, uint32_t slot)
{
    struct inode *inode = tree_at(tree, slot);
    if (is_live(inode))
        return;
    assert(!inode->gone_claims && !inode->waits_proposed && !inode->claimants.head);
    char buffer[LIMIT_NAME_BYTES];
    index_remove(&tree->by_key, key_hash(inode->lock, tree_name(tree, inode, buffer)), slot);
    chunks_resize(&tree->chunks, &inode->name, inode->name_len, 0);
    uint32_t parent = inode->parent;
    /* A number of a freed slot must not look alive. */
    inode->lookups = 0;
    slab_give(&tree->inodes, slot);
    if (parent)
        tree_unpin(tree, parent);
}

struct span tree_name(const struct tree *tree, const struct inode *inode, char *buffer)
{
    chunks_read(&tree->chunks, inode->name, 0, buffer, inode->name_len);
    return (struct span){buffer, inode->name_len};
}
