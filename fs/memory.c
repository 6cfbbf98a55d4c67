/* Slabs, lists, hash tables and byte strings in memory that was taken at start. */
#include "memory.h"

#include <assert.h>
#include <string.h>

enum { ARENA_ALIGNMENT = 16 };

void *arena_take(struct arena *arena, size_t bytes)
{
    void *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used += (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    return piece;
}

void slab_layout(struct slab *slab, struct arena *arena, size_t item_bytes, uint32_t capacity)
{
    assert(item_bytes >= sizeof(uint32_t) && capacity < UINT32_MAX);
    *slab = (struct slab){.item_bytes = (uint32_t)item_bytes, .capacity = capacity};
    slab->items = arena_take(arena, item_bytes * ((size_t)capacity + 1));
}

uint32_t slab_take(struct slab *slab)
{
    uint32_t slot = slab->free_head;
    if (slot) {
        memcpy(&slab->free_head, slab_at(slab, slot), sizeof slab->free_head);
    } else {
        if (slab->touched == slab->capacity)
            return 0;
        slot = ++slab->touched;
    }
    memset(slab_at(slab, slot), 0, slab->item_bytes);
    slab->used++;
    return slot;
}

void slab_give(struct slab *slab, uint32_t slot)
{
    assert(slot && slot <= slab->touched && slab->used);
    memcpy(slab_at(slab, slot), &slab->free_head, sizeof slab->free_head);
    slab->free_head = slot;
    slab->used--;
}

static struct link *link_at(const struct slab *slab, size_t offset, uint32_t slot)
{
    return (struct link *)(void *)((char *)slab_at(slab, slot) + offset);
}

void list_append(const struct slab *slab, size_t offset, struct list *list, uint32_t slot)
{
    struct link *link = link_at(slab, offset, slot);
    link->prev = list->tail;
    link->next = 0;
    if (list->tail)
        link_at(slab, offset, list->tail)->next = slot;
    else
        list->head = slot;
    list->tail = slot;
}

void list_remove(const struct slab *slab, size_t offset, struct list *list, uint32_t slot)
{
    struct link *link = link_at(slab, offset, slot);
    if (link->prev)
        link_at(slab, offset, link->prev)->next = link->next;
    else
        list->head = link->next;
    if (link->next)
        link_at(slab, offset, link->next)->prev = link->prev;
    else
        list->tail = link->prev;
    *link = (struct link){0, 0};
}

enum { BUCKETS_MIN = 16 };

void index_layout(struct index *index, struct arena *arena, const struct slab *slab, size_t offset)
{
    uint32_t buckets_max = slab->capacity > BUCKETS_MIN ? slab->capacity : BUCKETS_MIN;
    *index = (struct index){
        .buckets = BUCKETS_MIN, .buckets_max = buckets_max, .offset = offset, .slab = slab};
    index->heads = arena_take(arena, sizeof *index->heads * buckets_max);
}

void index_clear(struct index *index)
{
    memset(index->heads, 0, sizeof *index->heads * index->buckets);
    index->buckets = BUCKETS_MIN;
    index->count = 0;
}

static struct chain *chain_at(const struct index *index, uint32_t slot)
{
    return (struct chain *)(void *)((char *)slab_at(index->slab, slot) + index->offset);
}

/* The mask of the smallest power of two that is not below the number of buckets. */
static uint32_t mask_of(uint32_t buckets)
{
    return UINT32_MAX >> __builtin_clz(buckets - 1);
}

static uint32_t bucket_of(const struct index *index, uint32_t hash)
{
    uint32_t mask = mask_of(index->buckets);
    uint32_t bucket = hash & mask;
    return bucket < index->buckets ? bucket : hash & (mask >> 1);
}

/* One bucket more: it takes its share of the one that served for it so far. */
static void grow(struct index *index)
{
    uint32_t added = index->buckets++;
    uint32_t *place = &index->heads[added & (mask_of(index->buckets) >> 1)];
    uint32_t *end = &index->heads[added];
    while (*place) {
        uint32_t slot = *place;
        struct chain *chain = chain_at(index, slot);
        if (bucket_of(index, chain->hash) != added) {
            place = &chain->next;
            continue;
        }
        *place = chain->next;
        chain->next = 0;
        *end = slot;
        end = &chain->next;
    }
}

/* One bucket less: what is in the last one goes where it came from. */
static void shrink(struct index *index)
{
    uint32_t removed = index->buckets - 1;
    uint32_t *place = &index->heads[removed & (mask_of(index->buckets) >> 1)];
    while (*place)
        place = &chain_at(index, *place)->next;
    *place = index->heads[removed];
    index->heads[removed] = 0;
    index->buckets = removed;
}

void index_add(struct index *index, uint64_t hash, uint32_t slot)
{
    if (++index->count > index->buckets && index->buckets < index->buckets_max)
        grow(index);
    uint32_t *head = &index->heads[bucket_of(index, (uint32_t)hash)];
    *chain_at(index, slot) = (struct chain){*head, (uint32_t)hash};
    *head = slot;
}

void index_remove(struct index *index, uint64_t hash, uint32_t slot)
{
    uint32_t *place = &index->heads[bucket_of(index, (uint32_t)hash)];
    while (*place != slot) {
        assert(*place);
        place = &chain_at(index, *place)->next;
    }
    *place = chain_at(index, slot)->next;
    if (--index->count < index->buckets / 4 && index->buckets > BUCKETS_MIN)
        shrink(index);
}

uint32_t index_first(const struct index *index, uint64_t hash)
{
    return index->heads[bucket_of(index, (uint32_t)hash)];
}

uint32_t index_next(const struct index *index, uint32_t slot)
{
    return chain_at(index, slot)->next;
}

/* The finalizer of MurmurHash3 (Appleby, public domain constants). */
uint64_t hash_number(uint64_t number)
{
    number ^= number >> 33;
    number *= 0xff51afd7ed558ccdULL;
    number ^= number >> 33;
    number *= 0xc4ceb9fe1a85ec53ULL;
    number ^= number >> 33;
    return number;
}

/* FNV-1a (Fowler, Noll, Vo), mixed once more since its low bits are weak. */
uint64_t hash_bytes(uint64_t seed, const void *data, size_t len)
{
    const unsigned char *bytes = data;
    uint64_t hash = 0xcbf29ce484222325ULL ^ seed;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
    return hash_number(hash);
}

struct chunk {
    uint32_t next;
    char data[CHUNK_DATA_BYTES];
};

void chunks_layout(struct slab *chunks, struct arena *arena, uint64_t capacity)
{
    assert(capacity < UINT32_MAX);
    slab_layout(chunks, arena, sizeof(struct chunk), (uint32_t)capacity);
}

static struct chunk *chunk_at(const struct slab *chunks, uint32_t slot)
{
    return slab_at(chunks, slot);
}

static size_t chunks_needed(size_t len)
{
    return (len + CHUNK_DATA_BYTES - 1) / CHUNK_DATA_BYTES;
}

bool chunks_resize(struct slab *chunks, uint32_t *head, size_t old_len, size_t new_len)
{
    size_t had = chunks_needed(old_len);
    size_t wanted = chunks_needed(new_len);
    if (wanted > had && wanted - had > chunks->capacity - chunks->used)
        return false;

    uint32_t *place = head;
    for (size_t i = 0; i < wanted; i++) {
        if (!*place)
            *place = slab_take(chunks);
        struct chunk *chunk = chunk_at(chunks, *place);
        size_t begin = i * CHUNK_DATA_BYTES;
        /* What was cut off must not show again when the string grows. */
        if (new_len < begin + CHUNK_DATA_BYTES)
            memset(chunk->data + (new_len - begin), 0, begin + CHUNK_DATA_BYTES - new_len);
        place = &chunk->next;
    }
    uint32_t rest = *place;
    *place = 0;
    while (rest) {
        uint32_t next = chunk_at(chunks, rest)->next;
        slab_give(chunks, rest);
        rest = next;
    }
    return true;
}

/* A place in a string: a chunk, and how many of its bytes are before the place. */
struct piece {
    uint32_t slot;
    size_t skip;
};

static struct piece chunks_seek(const struct slab *chunks, uint32_t head, size_t offset)
{
    struct piece piece = {head, offset};
    while (piece.skip >= CHUNK_DATA_BYTES && piece.slot) {
        piece.slot = chunk_at(chunks, piece.slot)->next;
        piece.skip -= CHUNK_DATA_BYTES;
    }
    return piece;
}

void chunks_write(const struct slab *chunks, uint32_t head, size_t offset, struct span data)
{
    struct piece piece = chunks_seek(chunks, head, offset);
    while (data.len) {
        assert(piece.slot);
        struct chunk *chunk = chunk_at(chunks, piece.slot);
        size_t len = CHUNK_DATA_BYTES - piece.skip;
        if (len > data.len)
            len = data.len;
        memcpy(chunk->data + piece.skip, data.data, len);
        data.data += len;
        data.len -= len;
        piece = (struct piece){chunk->next, 0};
    }
}

void chunks_read(const struct slab *chunks, uint32_t head, size_t offset, char *buffer, size_t len)
{
    struct piece piece = chunks_seek(chunks, head, offset);
    while (len) {
        assert(piece.slot);
        const struct chunk *chunk = chunk_at(chunks, piece.slot);
        size_t part = CHUNK_DATA_BYTES - piece.skip;
        if (part > len)
            part = len;
        memcpy(buffer, chunk->data + piece.skip, part);
        buffer += part;
        len -= part;
        piece = (struct piece){chunk->next, 0};
    }
}

bool chunks_equal(const struct slab *chunks, uint32_t head, size_t len, struct span data)
{
    if (len != data.len)
        return false;
    while (len) {
        const struct chunk *chunk = chunk_at(chunks, head);
        size_t part = len < CHUNK_DATA_BYTES ? len : CHUNK_DATA_BYTES;
        if (memcmp(chunk->data, data.data + (data.len - len), part) != 0)
            return false;
        len -= part;
        head = chunk->next;
    }
    return true;
}
