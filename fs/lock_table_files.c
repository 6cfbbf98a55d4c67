/* The lock table: names that are claimed or waited for, and what was written into them. */
#include <assert.h>
#include <errno.h>

#include "lock_table_internal.h"

bool lock_table__name_take(struct lock_table *table, struct span name, uint32_t *ret_chunks)
{
    assert(name.len && name.len <= LIMIT_NAME_BYTES);
    if (name.len > table->limits.names_bytes - table->names_bytes)
        return false;
    *ret_chunks = 0;
    bool fits = chunks_resize(&table->chunks, ret_chunks, 0, name.len);
    assert(fits); /* the store is laid out for the limit */
    chunks_write(&table->chunks, *ret_chunks, 0, name);
    table->names_bytes += name.len;
    return true;
}

void lock_table__name_give(struct lock_table *table, uint32_t *chunks, size_t len)
{
    chunks_resize(&table->chunks, chunks, len, 0);
    table->names_bytes -= len;
}

static uint64_t file_hash(const struct lock_table *table, uint32_t lock, struct span name)
{
    return hash_bytes(lock_at(table, lock)->id, name.data, name.len);
}

uint32_t lock_table__file(const struct lock_table *table, uint32_t lock, struct span name)
{
    uint32_t slot = index_first(&table->files_by_name, file_hash(table, lock, name));
    for (; slot; slot = index_next(&table->files_by_name, slot)) {
        const struct file *file = file_at(table, slot);
        if (file->lock == lock && chunks_equal(&table->chunks, file->name, file->name_len, name))
            return slot;
    }
    return 0;
}

uint32_t lock_table__file_put(struct lock_table *table, uint32_t lock, struct span name,
                              uint64_t id)
{
    uint32_t chunks;
    /* There are as many files as claims and waiters; delays keep some of them. */
    if (table->files.used == table->files.capacity || !lock_table__name_take(table, name, &chunks))
        return 0;
    uint32_t slot = slab_take(&table->files);
    struct file *file = file_at(table, slot);
    file->id = id;
    file->lock = lock;
    file->name = chunks;
    file->name_len = (uint32_t)name.len;
    index_add(&table->files_by_id, hash_number(file->id), slot);
    index_add(&table->files_by_name, file_hash(table, lock, name), slot);
    list_append(&table->files, offsetof(struct file, siblings), &lock_at(table, lock)->files, slot);
    return slot;
}

uint32_t lock_table__file_make(struct lock_table *table, uint32_t lock, struct span name)
{
    uint32_t slot = lock_table__file_put(table, lock, name, table->next_id);
    table->next_id += slot != 0;
    return slot;
}

uint32_t lock_table__file_by_id(const struct lock_table *table, uint64_t id)
{
    uint32_t slot = index_first(&table->files_by_id, hash_number(id));
    while (slot && file_at(table, slot)->id != id)
        slot = index_next(&table->files_by_id, slot);
    return slot;
}

void lock_table__file_drop_content(struct lock_table *table, uint32_t file)
{
    int error = lock_table__content_resize(table, file, 0);
    assert(!error);
}

void lock_table__file_drop_unused(struct lock_table *table, uint32_t slot)
{
    struct file *file = file_at(table, slot);
    if (file->claims_count || file->waiters_count || file->queue.delay)
        return;
    assert(!file->content_len);
    char name[LIMIT_NAME_BYTES];
    chunks_read(&table->chunks, file->name, 0, name, file->name_len);
    struct span span = {name, file->name_len};
    index_remove(&table->files_by_id, hash_number(file->id), slot);
    index_remove(&table->files_by_name, file_hash(table, file->lock, span), slot);
    list_remove(&table->files, offsetof(struct file, siblings), &lock_at(table, file->lock)->files,
                slot);
    lock_table__name_give(table, &file->name, file->name_len);
    slab_give(&table->files, slot);
}

int lock_table__content_resize(struct lock_table *table, uint32_t slot, uint64_t len)
{
    struct file *file = file_at(table, slot);
    if (len > LIMIT_CONTENT_BYTES)
        return -EFBIG;
    if (len > file->content_len &&
        len - file->content_len > table->limits.contents_bytes - table->contents_bytes)
        return -ENOSPC;
    bool fits = chunks_resize(&table->chunks, &file->content, file->content_len, (size_t)len);
    assert(fits); /* the store is laid out for the limit */
    table->contents_bytes = table->contents_bytes - file->content_len + len;
    file->content_len = (uint32_t)len;
    return 0;
}
