/* A disk in memory that can lose its power, see powerless_disk.h. */
#include "powerless_disk.h"
#include "powerless_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_OPEN_MAX = 1024 };

struct name {
    char *path;
    struct file *file;
};

struct names {
    struct name *items;
    size_t count;
    size_t capacity;
};

/* A change of names that is not synced: `path` leads to `file`, or to nothing where that is NULL. A
 * rename is two changes that survive together. */
struct change {
    char *path;
    struct file *file;
    bool with_next;
};

struct powerless_disk {
    struct disk calls;
    pthread_mutex_t mutex;
    uint64_t random;
    bool stopped;
    uint64_t changes;
    uint64_t stop_at; /* 0: never */
    uint64_t capacity;
    uint64_t counts[POWERLESS_CALLS];
    uint64_t fail_from[POWERLESS_CALLS]; /* 0: never */
    uint64_t fail_until[POWERLESS_CALLS];
    int fail_error[POWERLESS_CALLS];

    struct file *files;
    struct names seen;
    struct names durable;
    struct change *pending;
    size_t pending_count;
    size_t pending_capacity;
    struct file *open[FILES_OPEN_MAX];
};

/* Names */

static struct file *find(const struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->items[i].path, path) == 0)
            return names->items[i].file;
    }
    return NULL;
}

static void set_name(struct names *names, const char *path, struct file *file)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->items[i].path, path) != 0)
            continue;
        if (file) {
            names->items[i].file = file;
        } else {
            free(names->items[i].path);
            names->items[i] = names->items[--names->count];
        }
        return;
    }
    if (!file)
        return;
    names->items =
        powerless__grow(names->items, &names->capacity, names->count, sizeof *names->items);
    names->items[names->count++] =
        (struct name){.path = powerless__must(strdup(path)), .file = file};
}

static void free_names(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i].path);
    free(names->items);
}

static void change_name(struct powerless_disk *disk, const char *path, struct file *file,
                        bool with_next)
{
    set_name(&disk->seen, path, file);
    disk->pending = powerless__grow(disk->pending, &disk->pending_capacity, disk->pending_count,
                                    sizeof *disk->pending);
    disk->pending[disk->pending_count++] = (struct change){
        .path = powerless__must(strdup(path)), .file = file, .with_next = with_next};
}

static bool is_in_directory(const char *path, const char *directory)
{
    size_t len = strlen(directory);
    return strncmp(path, directory, len) == 0 && path[len] == '/' && !strchr(path + len + 1, '/');
}

/* Applies and forgets the first `count` changes of a directory; NULL: of all. */
static void settle_names(struct powerless_disk *disk, const char *directory, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < disk->pending_count; i++) {
        struct change *change = &disk->pending[i];
        if (i < count && (!directory || is_in_directory(change->path, directory))) {
            set_name(&disk->durable, change->path, change->file);
            free(change->path);
        } else {
            disk->pending[kept++] = *change;
        }
    }
    disk->pending_count = kept;
}

/* Some of the first changes reach the disk. */
static void settle_some_names(struct powerless_disk *disk)
{
    size_t count = (size_t)powerless__random(&disk->random, disk->pending_count + 1);
    while (count && disk->pending[count - 1].with_next)
        count--;
    settle_names(disk, NULL, count);
}

static void forget_changes(struct powerless_disk *disk)
{
    for (size_t i = 0; i < disk->pending_count; i++)
        free(disk->pending[i].path);
    disk->pending_count = 0;
}

/* Faults */

enum verdict {
    GO,
    FAIL,   /* the call fails, and may do a part */
    REFUSE, /* there is no power: the call does nothing */
};

/* Called first in each call, with the mutex. */
static enum verdict begin(struct powerless_disk *disk, enum powerless_call call, int *ret_error)
{
    bool changes = call != POWERLESS_OPEN && call != POWERLESS_READ && call != POWERLESS_LIST;
    *ret_error = -EIO;
    if (disk->stopped)
        return REFUSE;
    uint64_t count = ++disk->counts[call];
    if (changes && ++disk->changes == disk->stop_at) {
        disk->stopped = true;
        return FAIL;
    }
    if (disk->fail_from[call] && count >= disk->fail_from[call] && count < disk->fail_until[call]) {
        *ret_error = disk->fail_error[call];
        return FAIL;
    }
    return GO;
}

/* The calls */

static int do_open(struct powerless_disk *disk, const char *path, int flags)
{
    int error;
    int at = 0;

    enum verdict verdict = begin(disk, flags & O_CREAT ? POWERLESS_CREATE : POWERLESS_OPEN, &error);
    if (verdict == REFUSE || (verdict == FAIL && !disk->stopped))
        return error;
    assert(!(flags & O_TRUNC));
    struct file *file = find(&disk->seen, path);
    if (file && flags & O_CREAT && flags & O_EXCL)
        return -EEXIST;
    if (!file && !(flags & O_CREAT))
        return -ENOENT;
    if (!file) {
        file = powerless__must(calloc(1, sizeof *file));
        file->next = disk->files;
        disk->files = file;
        change_name(disk, path, file, false);
    }
    if (verdict == FAIL)
        return error;
    while (at < FILES_OPEN_MAX && disk->open[at])
        at++;
    if (at == FILES_OPEN_MAX)
        return -EMFILE;
    disk->open[at] = file;
    return at;
}

static struct file *opened(struct powerless_disk *disk, int file)
{
    assert(file >= 0 && file < FILES_OPEN_MAX && disk->open[file]);
    return disk->open[file];
}

static int do_read(struct powerless_disk *disk, int at, char *buffer, size_t len, uint64_t offset)
{
    int error;
    const struct file *file = opened(disk, at);
    if (begin(disk, POWERLESS_READ, &error) != GO)
        return error;
    if (offset + len > file->size_seen)
        return -EIO;
    file_get(file, offset, buffer, len);
    return 0;
}

static uint64_t used(const struct powerless_disk *disk)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < disk->seen.count; i++)
        bytes += disk->seen.items[i].file->size_seen;
    return bytes;
}

static int do_write(struct powerless_disk *disk, int at, const char *data, size_t len,
                    uint64_t offset)
{
    int error;
    struct file *file = opened(disk, at);
    enum verdict verdict = begin(disk, POWERLESS_WRITE, &error);
    if (verdict == REFUSE)
        return error;
    if (verdict == FAIL) {
        /* When the power goes, which sectors were written is decided later. */
        size_t part = disk->stopped ? len : (size_t)powerless__random(&disk->random, len + 1);
        file_write(file, data, part, offset);
        return error;
    }
    if (offset + len > file->size_seen) {
        uint64_t more = offset + len - file->size_seen;
        uint64_t there = used(disk);
        uint64_t room = disk->capacity > there ? disk->capacity - there : 0;
        if (more > room) {
            file_write(file, data, more - room < len ? len - (size_t)(more - room) : 0, offset);
            return -ENOSPC;
        }
    }
    file_write(file, data, len, offset);
    return 0;
}

static int do_allocate(struct powerless_disk *disk, int at, uint64_t offset, uint64_t len)
{
    static const char zeros[16 << 10];
    int error;
    struct file *file = opened(disk, at);
    enum verdict verdict = begin(disk, POWERLESS_ALLOCATE, &error);
    if (verdict == REFUSE)
        return error;
    uint64_t there = used(disk);
    uint64_t room = disk->capacity > there ? disk->capacity - there : 0;
    uint64_t end = offset + len;
    if (verdict == FAIL)
        end -= powerless__random(&disk->random, len + 1);
    if (verdict == GO && end > file->size_seen && end - file->size_seen > room) {
        end = file->size_seen + room;
        error = -ENOSPC;
        verdict = FAIL;
    }
    while (file->size_seen < end) {
        uint64_t more = end - file->size_seen;
        file_write(file, zeros, more < sizeof zeros ? (size_t)more : sizeof zeros, file->size_seen);
    }
    return verdict == GO ? 0 : error;
}

static int do_truncate(struct powerless_disk *disk, int at, uint64_t size)
{
    int error;
    struct file *file = opened(disk, at);
    enum verdict verdict = begin(disk, POWERLESS_TRUNCATE, &error);
    if (verdict == REFUSE || (verdict == FAIL && !disk->stopped))
        return error;
    file_truncate(file, size);
    return verdict == GO ? 0 : error;
}

static int do_sync(struct powerless_disk *disk, int at)
{
    int error;
    struct file *file = opened(disk, at);
    enum verdict verdict = begin(disk, POWERLESS_SYNC, &error);
    if (verdict == GO) {
        file_sync(file);
        return 0;
    }
    if (verdict == FAIL && !disk->stopped)
        file_lose(file, &disk->random, powerless__random(&disk->random, 3) * 50);
    return error;
}

static int do_sync_directory(struct powerless_disk *disk, const char *path)
{
    int error;
    if (begin(disk, POWERLESS_SYNC_DIRECTORY, &error) != GO)
        return error;
    settle_names(disk, path, disk->pending_count);
    return 0;
}

static int do_rename(struct powerless_disk *disk, const char *from, const char *to)
{
    int error;
    enum verdict verdict = begin(disk, POWERLESS_RENAME, &error);
    if (verdict == REFUSE || (verdict == FAIL && !disk->stopped))
        return error;
    struct file *file = find(&disk->seen, from);
    if (!file)
        return -ENOENT;
    change_name(disk, to, file, true);
    change_name(disk, from, NULL, false);
    return verdict == GO ? 0 : error;
}

static int do_unlink(struct powerless_disk *disk, const char *path)
{
    int error;
    enum verdict verdict = begin(disk, POWERLESS_UNLINK, &error);
    if (verdict == REFUSE || (verdict == FAIL && !disk->stopped))
        return error;
    if (!find(&disk->seen, path))
        return -ENOENT;
    change_name(disk, path, NULL, false);
    return verdict == GO ? 0 : error;
}

/* The table: each call with the mutex */

static int call_open(void *context, const char *path, int flags)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    int result = do_open(disk, path, flags);
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static void call_close(void *context, int file)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    (void)opened(disk, file);
    disk->open[file] = NULL;
    pthread_mutex_unlock(&disk->mutex);
}

static int call_size(void *context, int file, uint64_t *ret_size)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    *ret_size = opened(disk, file)->size_seen;
    int result = disk->stopped ? -EIO : 0;
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static int call_read(void *context, int file, void *buffer, size_t len, uint64_t offset)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    int result = do_read(disk, file, buffer, len, offset);
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static int call_write(void *context, int file, const void *data, size_t len, uint64_t offset)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    int result = do_write(disk, file, data, len, offset);
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static int call_allocate(void *context, int file, uint64_t offset, uint64_t len)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    int result = do_allocate(disk, file, offset, len);
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static int call_truncate(void *context, int file, uint64_t size)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    int result = do_truncate(disk, file, size);
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static int call_sync(void *context, int file)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    int result = do_sync(disk, file);
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static int call_sync_directory(void *context, const char *path)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    int result = do_sync_directory(disk, path);
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static int call_rename(void *context, const char *from, const char *to)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    int result = do_rename(disk, from, to);
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static int call_unlink(void *context, const char *path)
{
    struct powerless_disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    int result = do_unlink(disk, path);
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

static int call_list(void *context, const char *path, disk_visitor *visitor, void *visitor_context)
{
    struct powerless_disk *disk = context;
    int error;
    pthread_mutex_lock(&disk->mutex);
    int result = begin(disk, POWERLESS_LIST, &error) == GO ? 0 : error;
    for (size_t i = 0; result == 0 && i < disk->seen.count; i++) {
        if (is_in_directory(disk->seen.items[i].path, path))
            visitor(visitor_context, disk->seen.items[i].path + strlen(path) + 1);
    }
    pthread_mutex_unlock(&disk->mutex);
    return result;
}

/* For the test */

struct powerless_disk *powerless_disk_new(uint64_t seed)
{
    struct powerless_disk *disk = powerless__must(calloc(1, sizeof *disk));
    disk->random = seed;
    disk->capacity = UINT64_MAX;
    disk->calls = (struct disk){
        .context = disk,
        .open = call_open,
        .close = call_close,
        .size = call_size,
        .read = call_read,
        .write = call_write,
        .allocate = call_allocate,
        .truncate = call_truncate,
        .sync = call_sync,
        .sync_directory = call_sync_directory,
        .rename = call_rename,
        .unlink = call_unlink,
        .list = call_list,
    };
    pthread_mutex_init(&disk->mutex, NULL);
    return disk;
}

void powerless_disk_free(struct powerless_disk *disk)
{
    if (!disk)
        return;
    forget_changes(disk);
    free(disk->pending);
    free_names(&disk->seen);
    free_names(&disk->durable);
    while (disk->files) {
        struct file *file = disk->files;
        disk->files = file->next;
        file_free(file);
    }
    pthread_mutex_destroy(&disk->mutex);
    free(disk);
}

const struct disk *powerless_disk_calls(struct powerless_disk *disk)
{
    return &disk->calls;
}

void powerless_disk_stop_at(struct powerless_disk *disk, uint64_t n)
{
    pthread_mutex_lock(&disk->mutex);
    disk->stop_at = n ? disk->changes + n : 0;
    pthread_mutex_unlock(&disk->mutex);
}

bool powerless_disk_stopped(struct powerless_disk *disk)
{
    pthread_mutex_lock(&disk->mutex);
    bool stopped = disk->stopped;
    pthread_mutex_unlock(&disk->mutex);
    return stopped;
}

uint64_t powerless_disk_changes(struct powerless_disk *disk)
{
    pthread_mutex_lock(&disk->mutex);
    uint64_t changes = disk->changes;
    pthread_mutex_unlock(&disk->mutex);
    return changes;
}

static void restart(struct powerless_disk *disk)
{
    for (size_t i = 0; i < FILES_OPEN_MAX; i++)
        assert(!disk->open[i]);
    disk->stopped = false;
    disk->stop_at = 0;
}

/* Frees the files that no name leads to. */
static void collect_files(struct powerless_disk *disk)
{
    struct file **link = &disk->files;
    while (*link) {
        struct file *file = *link;
        bool named = false;
        for (size_t i = 0; i < disk->durable.count && !named; i++)
            named = disk->durable.items[i].file == file;
        if (named) {
            link = &file->next;
        } else {
            *link = file->next;
            file_free(file);
        }
    }
}

void powerless_disk_cut(struct powerless_disk *disk, uint64_t seed)
{
    static const uint64_t percents[] = {0, 20, 50, 80, 98, 100};

    pthread_mutex_lock(&disk->mutex);
    disk->random = seed;
    restart(disk);
    settle_some_names(disk);
    forget_changes(disk);
    free_names(&disk->seen);
    disk->seen = (struct names){0};
    for (size_t i = 0; i < disk->durable.count; i++)
        set_name(&disk->seen, disk->durable.items[i].path, disk->durable.items[i].file);
    collect_files(disk);
    uint64_t percent =
        percents[powerless__random(&disk->random, sizeof percents / sizeof *percents)];
    for (struct file *file = disk->files; file; file = file->next) {
        file_lose(file, &disk->random, percent);
        file_see_durable(file);
    }
    pthread_mutex_unlock(&disk->mutex);
}

void powerless_disk_kill(struct powerless_disk *disk)
{
    pthread_mutex_lock(&disk->mutex);
    restart(disk);
    pthread_mutex_unlock(&disk->mutex);
}

void powerless_disk_fail(struct powerless_disk *disk, enum powerless_call call, uint64_t n,
                         uint64_t times, int error)
{
    pthread_mutex_lock(&disk->mutex);
    disk->fail_from[call] = disk->counts[call] + n;
    disk->fail_until[call] = disk->fail_from[call] + times;
    disk->fail_error[call] = error;
    pthread_mutex_unlock(&disk->mutex);
}

uint64_t powerless_disk_count(struct powerless_disk *disk, enum powerless_call call)
{
    pthread_mutex_lock(&disk->mutex);
    uint64_t count = disk->counts[call];
    pthread_mutex_unlock(&disk->mutex);
    return count;
}

void powerless_disk_set_capacity(struct powerless_disk *disk, uint64_t bytes)
{
    pthread_mutex_lock(&disk->mutex);
    disk->capacity = bytes;
    pthread_mutex_unlock(&disk->mutex);
}

uint64_t powerless_disk_used(struct powerless_disk *disk)
{
    pthread_mutex_lock(&disk->mutex);
    uint64_t bytes = used(disk);
    pthread_mutex_unlock(&disk->mutex);
    return bytes;
}

bool powerless_disk_peek(struct powerless_disk *disk, const char *path, uint64_t offset,
                         void *bytes, size_t len)
{
    pthread_mutex_lock(&disk->mutex);
    const struct file *file = find(&disk->seen, path);
    bool there = file && offset + len <= file->size_seen;
    if (there)
        file_get(file, offset, bytes, len);
    pthread_mutex_unlock(&disk->mutex);
    return there;
}

bool powerless_disk_poke(struct powerless_disk *disk, const char *path, uint64_t offset,
                         const void *bytes, size_t len)
{
    pthread_mutex_lock(&disk->mutex);
    struct file *file = find(&disk->seen, path);
    bool there = file && offset + len <= file->size_seen;
    if (there) {
        file_put(file, FILE_SEEN, offset, bytes, len);
        file_put(file, FILE_DURABLE, offset, bytes, len);
    }
    pthread_mutex_unlock(&disk->mutex);
    return there;
}

bool powerless_disk_remove(struct powerless_disk *disk, const char *path)
{
    pthread_mutex_lock(&disk->mutex);
    bool there = find(&disk->seen, path) != NULL;
    set_name(&disk->seen, path, NULL);
    set_name(&disk->durable, path, NULL);
    pthread_mutex_unlock(&disk->mutex);
    return there;
}

bool powerless_disk_truncate(struct powerless_disk *disk, const char *path, uint64_t size)
{
    pthread_mutex_lock(&disk->mutex);
    struct file *file = find(&disk->seen, path);
    bool there = file && size <= file->size_seen;
    if (there) {
        file->size_seen = size;
        file->size_durable = size;
    }
    pthread_mutex_unlock(&disk->mutex);
    return there;
}
