/*
 * One file of a powerless disk: what is seen of it, what is durable, and the writes between. For
 * powerless_disk.c only; nothing here locks.
 */
#ifndef TESTS_POWERLESS_FILE_H
#define TESTS_POWERLESS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PAGE_BYTES = 4096,
    SECTOR_BYTES = 512,
};

/* Pages that were never written to are NULL: zeros. */
struct page {
    unsigned char seen[PAGE_BYTES];
    unsigned char durable[PAGE_BYTES];
};

struct pending {
    uint64_t offset;
    size_t len;
    char *bytes; /* NULL: zeros */
};

struct file {
    struct file *next;
    uint64_t size_seen;
    uint64_t size_durable;
    struct page **pages;
    size_t pages_count;
    struct pending *pending; /* written, and not synced */
    size_t pending_count;
    size_t pending_capacity;
    bool is_cut;         /* since the last sync */
    unsigned char *lost; /* while power is cut: sectors that take no more of what was pending */
};

enum side {
    FILE_SEEN,
    FILE_DURABLE,
};

void file_put(struct file *file, enum side side, uint64_t offset, const char *bytes, size_t len);
/* What is seen. */
void file_get(const struct file *file, uint64_t offset, char *bytes, size_t len);
/* Seen at once, durable with file_sync(). */
void file_write(struct file *file, const char *bytes, size_t len, uint64_t offset);
/* Likewise. */
void file_truncate(struct file *file, uint64_t size);
void file_sync(struct file *file);
/* Of what is not synced, `percent` of the sectors become durable, and the others never will. What
 * is seen stays as it is. */
void file_lose(struct file *file, uint64_t *random, uint64_t percent);
void file_see_durable(struct file *file);
void file_free(struct file *file);

/* Memory, or abort(). */
void *powerless__must(void *memory);
void *powerless__grow(void *items, size_t *capacity, size_t count, size_t item_bytes);
/* Below `end`; `random` is the state. */
uint64_t powerless__random(uint64_t *random, uint64_t end);

#endif
