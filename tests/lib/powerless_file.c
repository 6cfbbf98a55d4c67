/* One file of a powerless disk, see powerless_file.h. */
#include "powerless_file.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void *powerless__must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

void *powerless__grow(void *items, size_t *capacity, size_t count, size_t item_bytes)
{
    if (count < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 16;
    return powerless__must(realloc(items, *capacity * item_bytes));
}

uint64_t powerless__random(uint64_t *random, uint64_t end)
{
    uint64_t z = *random += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) % end;
}

static bool is_zero(const char *bytes, size_t len)
{
    return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* The page that has `offset`, made where it is missing. */
static struct page *page_at(struct file *file, uint64_t offset)
{
    size_t at = (size_t)(offset / PAGE_BYTES);
    if (at >= file->pages_count) {
        size_t count = file->pages_count ? file->pages_count : 16;
        while (count <= at)
            count *= 2;
        file->pages = powerless__must(realloc(file->pages, count * sizeof(struct page *)));
        memset(file->pages + file->pages_count, 0,
               (count - file->pages_count) * sizeof(struct page *));
        file->pages_count = count;
    }
    if (!file->pages[at])
        file->pages[at] = powerless__must(calloc(1, sizeof *file->pages[at]));
    return file->pages[at];
}

static bool has_page(const struct file *file, uint64_t offset)
{
    return offset / PAGE_BYTES < file->pages_count && file->pages[offset / PAGE_BYTES];
}

/* The length of the piece of `offset` to `end` that lies in one unit. */
static size_t piece(uint64_t offset, uint64_t end, size_t unit)
{
    uint64_t rest = unit - offset % unit;
    return (size_t)(rest < end - offset ? rest : end - offset);
}

void file_put(struct file *file, enum side side, uint64_t offset, const char *bytes, size_t len)
{
    uint64_t end = offset + len;
    while (offset < end) {
        size_t part = piece(offset, end, PAGE_BYTES);
        if (has_page(file, offset) || (bytes && !is_zero(bytes, part))) {
            struct page *page = page_at(file, offset);
            unsigned char *to = side == FILE_SEEN ? page->seen : page->durable;
            if (bytes)
                memcpy(to + offset % PAGE_BYTES, bytes, part);
            else
                memset(to + offset % PAGE_BYTES, 0, part);
        }
        offset += part;
        if (bytes)
            bytes += part;
    }
}

void file_get(const struct file *file, uint64_t offset, char *bytes, size_t len)
{
    uint64_t end = offset + len;
    while (offset < end) {
        size_t part = piece(offset, end, PAGE_BYTES);
        if (has_page(file, offset))
            memcpy(bytes, file->pages[offset / PAGE_BYTES]->seen + offset % PAGE_BYTES, part);
        else
            memset(bytes, 0, part);
        offset += part;
        bytes += part;
    }
}

void file_write(struct file *file, const char *bytes, size_t len, uint64_t offset)
{
    file_put(file, FILE_SEEN, offset, bytes, len);
    if (offset + len > file->size_seen)
        file->size_seen = offset + len;
    file->pending = powerless__grow(file->pending, &file->pending_capacity, file->pending_count,
                                    sizeof *file->pending);
    struct pending *pending = &file->pending[file->pending_count++];
    *pending = (struct pending){.offset = offset, .len = len};
    if (!is_zero(bytes, len)) {
        pending->bytes = powerless__must(malloc(len));
        memcpy(pending->bytes, bytes, len);
    }
}

void file_truncate(struct file *file, uint64_t size)
{
    if (size < file->size_seen)
        file_put(file, FILE_SEEN, size, NULL, (size_t)(file->size_seen - size));
    file->size_seen = size;
    file->is_cut = true;
}

static void drop_pending(struct file *file)
{
    file->is_cut = false;
    for (size_t i = 0; i < file->pending_count; i++)
        free(file->pending[i].bytes);
    file->pending_count = 0;
}

/* Linux writes what the page cache has, by whole sectors. */
void file_sync(struct file *file)
{
    for (size_t i = 0; i < file->pending_count; i++) {
        uint64_t offset = file->pending[i].offset / SECTOR_BYTES * SECTOR_BYTES;
        uint64_t end = file->pending[i].offset + file->pending[i].len;
        for (; offset < end; offset += SECTOR_BYTES) {
            if (has_page(file, offset)) {
                struct page *page = file->pages[offset / PAGE_BYTES];
                memcpy(page->durable + offset % PAGE_BYTES, page->seen + offset % PAGE_BYTES,
                       SECTOR_BYTES);
            }
        }
    }
    file->size_durable = file->size_seen;
    drop_pending(file);
}

static bool is_lost(const struct file *file, uint64_t offset)
{
    return file->lost[offset / SECTOR_BYTES / 8] >> offset / SECTOR_BYTES % 8 & 1;
}

static void set_lost(struct file *file, uint64_t offset)
{
    file->lost[offset / SECTOR_BYTES / 8] |= (unsigned char)(1 << offset / SECTOR_BYTES % 8);
}

/* Sectors survive or do not, `percent` of them. The file goes on being seen as it was. */
void file_lose(struct file *file, uint64_t *random, uint64_t percent)
{
    bool is_cut = file->is_cut && powerless__random(random, 100) < percent;
    uint64_t reach = file->size_seen;

    for (size_t i = 0; i < file->pending_count; i++)
        if (file->pending[i].offset + file->pending[i].len > reach)
            reach = file->pending[i].offset + file->pending[i].len;
    file->lost = powerless__must(calloc(1, (size_t)(reach / SECTOR_BYTES / 8 + 1)));
    for (size_t i = 0; i < file->pending_count; i++) {
        const struct pending *pending = &file->pending[i];
        uint64_t end = pending->offset + pending->len;
        for (uint64_t at = pending->offset; at < end;) {
            size_t part = piece(at, end, SECTOR_BYTES);
            if (!is_lost(file, at) && powerless__random(random, 100) >= percent)
                set_lost(file, at);
            if (!is_lost(file, at)) {
                file_put(file, FILE_DURABLE, at,
                         pending->bytes ? pending->bytes + (at - pending->offset) : NULL, part);
                if (at + part > file->size_durable)
                    file->size_durable = at + part;
            }
            at += part;
        }
    }
    if (is_cut && file->size_durable > file->size_seen)
        file->size_durable = file->size_seen;
    free(file->lost);
    file->lost = NULL;
    drop_pending(file);
}

void file_see_durable(struct file *file)
{
    file->size_seen = file->size_durable;
    for (size_t i = 0; i < file->pages_count; i++) {
        if (file->pages[i])
            memcpy(file->pages[i]->seen, file->pages[i]->durable, PAGE_BYTES);
    }
}

void file_free(struct file *file)
{
    drop_pending(file);
    free(file->pending);
    for (size_t i = 0; i < file->pages_count; i++)
        free(file->pages[i]);
    free(file->pages);
    free(file);
}
