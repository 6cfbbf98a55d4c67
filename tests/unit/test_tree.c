/* The inodes that the kernel knows: identity, lookup counts, pins, limits. */
#include <stdlib.h>
#include <string.h>

#include "fs/tree.h"
#include "tests/lib/tap.h"

enum { INODES = 8, LOCK = 77 };

static void *open_tree(struct tree *tree)
{
    struct arena arena = {NULL, 0};
    tree_layout(tree, &arena, INODES);
    char *memory = calloc(1, arena.used);
    arena = (struct arena){memory, 0};
    tree_layout(tree, &arena, INODES);
    tree_init(tree, 1);
    return memory;
}

static struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

static void test_identity(struct tree *tree)
{
    uint32_t lock = tree_make_lock(tree, LOCK);
    tap_ok(lock && lock != TREE_ROOT, "a lock has an inode");
    tap_ok(!tree_inode(tree, lock), "which is nobody's before somebody refers to it");
    tap_equal(tree_make_lock(tree, LOCK), lock, "and is the same the next time");
    uint32_t file = tree_make_file(tree, lock, span_of("f"));
    tap_equal(tree_make_file(tree, lock, span_of("f")), file, "so is a file's");
    tap_ok(tree_make_file(tree, lock, span_of("g")) != file, "another name is another inode");
    tap_equal(tree_find_file(tree, LOCK, span_of("f")), file, "it is found by lock and name");
    tap_equal(tree_find_file(tree, 1, span_of("f")), 0, "in its own lock only");
    char name[LIMIT_NAME_BYTES];
    struct span span = tree_name(tree, tree_at(tree, file), name);
    tap_ok(span.len == 1 && name[0] == 'f', "it knows its name");
    tap_equal(tree_control(tree_number(lock, CONTROL_TOKEN)), CONTROL_TOKEN,
              "a control file is its lock's inode, marked");
    tap_equal(tree_slot(tree_number(lock, CONTROL_TOKEN)), lock, "with the same slot");
    tree_drop_unused(tree, tree_find_file(tree, LOCK, span_of("g")));
    tree_drop_unused(tree, file);
    tap_equal(tree->inodes.used, 1, "what nobody refers to is dropped, its lock with it");
    tap_equal(tree->chunks.used, 0, "and its name");
}

static void test_references(struct tree *tree)
{
    uint32_t lock = tree_make_lock(tree, LOCK);
    uint32_t file = tree_make_file(tree, lock, span_of("f"));
    tree_at(tree, file)->lookups += 3;
    tree_pin(tree, file);
    tree_forget(tree, file, 2);
    tap_ok(tree_inode(tree, file) != NULL, "one lookup is left");
    tree_forget(tree, file, 5);
    tap_ok(tree_inode(tree, file) != NULL, "a pin holds it, whatever the kernel forgets");
    tap_ok(tree_inode(tree, lock) != NULL, "and it holds its lock");
    tree_unpin(tree, file);
    tap_ok(!tree_inode(tree, file) && !tree_inode(tree, lock), "the last reference drops both");
    tap_ok(!tree_inode(tree, 0) && !tree_inode(tree, 1000), "numbers that never were are nobody's");
    tap_ok(!tree_inode(tree, UINT64_C(200) << 56 | TREE_ROOT), "nor is a control file unheard of");
    tree_forget(tree, TREE_ROOT, 1000);
    tap_ok(tree_inode(tree, TREE_ROOT) != NULL, "the root stays");
    tree_forget(tree, 1000, 1);
    tap_ok(true, "a forget of nothing does nothing");
}

static void test_full(struct tree *tree)
{
    char name[2] = "a";
    uint32_t made = 0;
    uint32_t slots[INODES] = {0};
    for (; made < INODES; made++, name[0]++) {
        slots[made] = tree_make_file(tree, TREE_ROOT, span_of(name));
        if (!slots[made])
            break;
        tree_pin(tree, slots[made]);
    }
    tap_equal(made + 1, INODES, "as many inodes as there is room for");
    tap_equal(tree_make_lock(tree, LOCK), 0, "not one more");
    tree_unpin(tree, slots[0]);
    tap_ok(tree_make_lock(tree, LOCK) != 0, "until one is given back");
    tree_drop_unused(tree, tree_find_lock(tree, LOCK));
    for (uint32_t i = 1; i < made; i++)
        tree_unpin(tree, slots[i]);
    tap_equal(tree->inodes.used, 1, "all but the root is given back");
    tap_equal(tree_at(tree, TREE_ROOT)->pins, 1, "and nothing holds the root but itself");
}

int main(void)
{
    struct tree tree;
    void *memory = open_tree(&tree);
    test_identity(&tree);
    test_references(&tree);
    test_full(&tree);
    free(memory);
    return tap_done();
}
