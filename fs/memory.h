/*
 * Memory for the pure part: carved out of one piece at start, never more. Things are named by slot
 * numbers (uint32_t, 0 is nobody), so that the same events lead to the same bytes everywhere.
 */
#ifndef FS_MEMORY_H
#define FS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command.h"

/* Hands out a piece of memory from its start. With `base` NULL it only counts: a layout function is
 * run once to learn the size, and once to lay out. */
struct arena {
    char *base;
    size_t used;
};

/* 16-byte aligned; NULL while counting. */
void *arena_take(struct arena *arena, size_t bytes);

/* Items of one size. */
struct slab {
    char *items;
    uint32_t item_bytes;
    uint32_t capacity;
    uint32_t used;
    uint32_t touched; /* slots that were ever taken: memory behind them was never written */
    uint32_t free_head;
};

void slab_layout(struct slab *slab, struct arena *arena, size_t item_bytes, uint32_t capacity);

/* A zeroed item, 0 where all are taken. */
uint32_t slab_take(struct slab *slab);
void slab_give(struct slab *slab, uint32_t slot);

static inline void *slab_at(const struct slab *slab, uint32_t slot)
{
    return slab->items + (size_t)slot * slab->item_bytes;
}

/* Doubly linked lists through items of a slab. `offset` is that of a struct link in the item. */
struct link {
    uint32_t prev;
    uint32_t next;
};

struct list {
    uint32_t head;
    uint32_t tail;
};

void list_append(const struct slab *slab, size_t offset, struct list *list, uint32_t slot);
void list_remove(const struct slab *slab, size_t offset, struct list *list, uint32_t slot);

/* Chained hash tables through items of a slab, by linear hashing (Litwin 1980): they grow and
 * shrink by one bucket at a time, so that no step takes long and little memory is touched while
 * little is in them. `offset` is that of a struct chain in the item. */
struct chain {
    uint32_t next;
    uint32_t hash;
};

struct index {
    uint32_t *heads;
    uint32_t buckets;
    uint32_t buckets_max;
    uint32_t count;
    size_t offset;
    const struct slab *slab;
};

void index_layout(struct index *index, struct arena *arena, const struct slab *slab, size_t offset);
/* Takes everything out, as if it were new. */
void index_clear(struct index *index);
void index_add(struct index *index, uint64_t hash, uint32_t slot);
void index_remove(struct index *index, uint64_t hash, uint32_t slot);
/* The candidates for a hash, one after another, until 0. */
uint32_t index_first(const struct index *index, uint64_t hash);
uint32_t index_next(const struct index *index, uint32_t slot);

uint64_t hash_number(uint64_t number);
uint64_t hash_bytes(uint64_t seed, const void *data, size_t len);

/* Byte strings (names, contents) as chains of small chunks: no fragmentation, so what fits does not
 * depend on history. The owner keeps head and length; an empty string's head is 0. */
enum { CHUNK_DATA_BYTES = 28 };

void chunks_layout(struct slab *chunks, struct arena *arena, uint64_t capacity);
/* Changes the length; what is new is zero. False, and nothing changed, where chunks run out. */
bool chunks_resize(struct slab *chunks, uint32_t *head, size_t old_len, size_t new_len);
void chunks_write(const struct slab *chunks, uint32_t head, size_t offset, struct span data);
void chunks_read(const struct slab *chunks, uint32_t head, size_t offset, char *buffer, size_t len);
bool chunks_equal(const struct slab *chunks, uint32_t head, size_t len, struct span data);

#endif
