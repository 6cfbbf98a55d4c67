/*
 * Snapshots as files: every byte of one counts, and whatever keeps one from being written does no
 * harm.
 *
 * SEED repeats a run.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <isa-l/crc.h>

#include "fs/snapshot_file.h"
#include "fs/snapshot_file_internal.h"
#include "tests/lib/node_bench.h"
#include "tests/lib/powerless_disk.h"
#include "tests/lib/tap.h"

#define DIRECTORY "/data"

/* A node with something of most things in it. */
static struct bench *busy_bench(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inner, file, handle;

    bench_mkdir(bench, NODE_ROOT_INODE, "lock", &lock);
    bench_mkdir(bench, lock, "inner", &inner);
    bench_create(bench, inner, "lost", true, 20, &file, &handle);
    bench_write(bench, file, handle, "this one ends with the daemon");
    bench_restart(bench, &bench_limits); /* which leaves a lost process behind */
    bench_lookup(bench, NODE_ROOT_INODE, "lock", &lock);
    bench_create(bench, lock, "held", true, 30, &file, &handle);
    bench_write(bench, file, handle, "a process id, say");
    bench_create(bench, NODE_ROOT_INODE, "plain", false, 31, &file, &handle);
    bench_flock(bench, 1, file, handle, NODE_FLOCK_EXCLUSIVE, false, 31);
    bench_create(bench, NODE_ROOT_INODE, "plain", false, 32, &file, &handle);
    bench_flock(bench, 2, file, handle, NODE_FLOCK_EXCLUSIVE, true, 32);
    return bench;
}

struct fresh {
    void *memory;
    struct node *node;
};

static struct fresh fresh_node(uint8_t boot)
{
    struct node_config config = {.id = 1,
                                 .incarnation = 99,
                                 .boot_id = {boot, 2, 3},
                                 .ttl_ms = 10000,
                                 .op_timeout_ms = 5000};
    struct fresh fresh = {.memory = calloc(1, node_size(&bench_limits))};
    fresh.node = node_init(fresh.memory, &bench_limits, &config);
    return fresh;
}

static char message[512];

/* What snapshot_load() says; the digest of what it loaded. */
static int load(const struct disk *disk, const char *directory, struct snapshot_info *ret_info,
                uint64_t *ret_digest)
{
    struct fresh fresh = fresh_node(1);
    message[0] = '\0';
    int error = snapshot_load(disk, directory, fresh.node, ret_info, message, sizeof message);
    if (!error)
        *ret_digest = lock_table_digest(node_table(fresh.node));
    free(fresh.memory);
    return error;
}

static uint64_t write_one(const struct disk *disk, const struct node *node, const char *suffix)
{
    static struct snapshot__output output;
    uint64_t index, term;
    node_get_applied(node, &index, &term);
    struct snapshot__path path = snapshot__path(DIRECTORY, index, suffix);
    int error = snapshot__write(&output, disk, path.text, node, index, term);
    tap_equal(error, 0, "snapshot %" PRIu64 "%s is written", index, suffix);
    return index;
}

static void test_round_trip(void)
{
    struct powerless_disk *disk = powerless_disk_new(1);
    const struct disk *calls = powerless_disk_calls(disk);
    struct bench *bench = busy_bench();
    struct snapshot_info info = {0};
    uint64_t digest = 0;

    tap_ok(load(calls, DIRECTORY, &info, &digest) == 0 && info.index == 0,
           "an empty directory has no snapshot");
    uint64_t index = write_one(calls, bench->node, "");
    tap_equal(load(calls, DIRECTORY, &info, &digest), 0, "it is loaded: %s", message);
    tap_ok(info.index == index && info.term == 2, "with its index and term");
    tap_ok(digest == lock_table_digest(node_table(bench->node)), "and the same state");

    struct fresh fresh = fresh_node(1);
    snapshot_load(calls, DIRECTORY, fresh.node, &info, message, sizeof message);
    struct node_cursor cursor = {0};
    char record[LIMIT_SNAPSHOT_RECORD_BYTES];
    size_t records = 0, len, last = 0;
    while ((len = node_save(fresh.node, &cursor, record)))
        records++, last = len;
    tap_ok(last > 10 && memmem(record, last, "test", 4), "a process that lost a claim is in it");
    free(fresh.memory);

    fresh = fresh_node(7);
    snapshot_load(calls, DIRECTORY, fresh.node, &info, message, sizeof message);
    cursor = (struct node_cursor){0};
    size_t records_after_boot = 0;
    while (node_save(fresh.node, &cursor, record))
        records_after_boot++;
    tap_equal(records_after_boot, records - 1, "and is forgotten after a boot");
    free(fresh.memory);

    powerless_disk_free(disk);
    bench_close(bench);
}

static void test_names(void)
{
    struct powerless_disk *disk = powerless_disk_new(1);
    const struct disk *calls = powerless_disk_calls(disk);
    struct bench *bench = busy_bench();
    struct snapshot_info info = {0};
    uint64_t digest = 0, inode;
    char byte;

    uint64_t older = write_one(calls, bench->node, "");
    bench_mkdir(bench, NODE_ROOT_INODE, "newer", &inode);
    uint64_t newer = write_one(calls, bench->node, "");
    bench_mkdir(bench, NODE_ROOT_INODE, "newest", &inode);
    uint64_t unfinished = write_one(calls, bench->node, ".new");
    int file = calls->open(calls->context, DIRECTORY "/snapshot-x", O_RDWR | O_CREAT);
    calls->close(calls->context, file);

    tap_ok(load(calls, DIRECTORY, &info, &digest) == 0 && info.index == newer,
           "of two the newer one counts: %s", message);
    struct snapshot__path path = snapshot__path(DIRECTORY, older, "");
    tap_ok(!powerless_disk_peek(disk, path.text, 0, &byte, 0), "the older one is removed");
    path = snapshot__path(DIRECTORY, unfinished, ".new");
    tap_ok(!powerless_disk_peek(disk, path.text, 0, &byte, 0), "and the unfinished one");
    tap_ok(powerless_disk_peek(disk, DIRECTORY "/snapshot-x", 0, &byte, 0),
           "a file that is none of ours stays");
    powerless_disk_free(disk);
    bench_close(bench);
}

static void test_damage(void)
{
    struct powerless_disk *disk = powerless_disk_new(1);
    const struct disk *calls = powerless_disk_calls(disk);
    struct bench *bench = busy_bench();
    struct snapshot_info info = {0};
    uint64_t digest = 0, taken = 0, nameless = 0;
    unsigned char bytes[16384];

    uint64_t index = write_one(calls, bench->node, "");
    struct snapshot__path path = snapshot__path(DIRECTORY, index, "");
    load(calls, DIRECTORY, &info, &digest);
    size_t size = (size_t)info.bytes;
    tap_ok(size > 400 && size < sizeof bytes &&
               powerless_disk_peek(disk, path.text, 0, bytes, size),
           "it has %zu bytes", size);
    for (size_t at = 0; at < size; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            unsigned char flipped = bytes[at] ^ (unsigned char)(1u << bit);
            powerless_disk_poke(disk, path.text, at, &flipped, 1);
            int error = load(calls, DIRECTORY, &info, &digest);
            taken += error == 0;
            nameless += !strstr(message, path.text) || !strstr(message, "byte ");
        }
        powerless_disk_poke(disk, path.text, at, &bytes[at], 1);
    }
    tap_equal(taken, 0, "with any bit flipped it is refused");
    tap_equal(nameless, 0, "with file and offset: %s", message);
    tap_equal(load(calls, DIRECTORY, &info, &digest), 0, "as it was it is fine");
    unsigned char header[48];
    memcpy(header, bytes, sizeof header);
    header[12] = 2;
    uint32_t crc = ~crc32_iscsi(header + 12, 36, UINT32_MAX);
    for (int i = 0; i < 4; i++)
        header[8 + i] = (unsigned char)(crc >> 8 * i);
    powerless_disk_poke(disk, path.text, 0, header, sizeof header);
    tap_ok(load(calls, DIRECTORY, &info, &digest) == -EPROTO && strstr(message, "version 2"),
           "another format is refused: %s", message);
    powerless_disk_poke(disk, path.text, 0, bytes, sizeof header);
    taken = nameless = 0;
    for (size_t cut = size; cut-- > 0;) {
        powerless_disk_truncate(disk, path.text, cut);
        taken += load(calls, DIRECTORY, &info, &digest) == 0;
        nameless += !strstr(message, path.text) || !strstr(message, "byte ");
    }
    tap_ok(taken == 0 && nameless == 0, "cut off anywhere it is refused: %s", message);
    powerless_disk_free(disk);
    bench_close(bench);
}

/* A writer over a bench, as the daemon has it. */
struct rig {
    uv_loop_t loop;
    struct bench *bench;
    struct snapshot_writer *writer;
    uint64_t written_bytes;
    uint64_t done_index;
    unsigned done;
    unsigned failed;
    char why[256];
};

static void on_done(void *context, uint64_t index)
{
    struct rig *rig = context;
    rig->done++;
    rig->done_index = index;
}

static void on_failed(void *context, const char *why)
{
    struct rig *rig = context;
    rig->failed++;
    snprintf(rig->why, sizeof rig->why, "%s", why);
}

static const struct snapshot_handler handler = {on_done, on_failed};

static void rig_open(struct rig *rig, const struct disk *disk, const char *directory,
                     const struct snapshot_options *options)
{
    struct snapshot_info last = {0};
    *rig = (struct rig){.bench = busy_bench()};
    int error = uv_loop_init(&rig->loop);
    error = error ? error
                  : snapshot_writer_open(&rig->loop, disk, directory, options, &last,
                                         rig->bench->node, &handler, rig, &rig->writer);
    if (error)
        abort();
}

static void rig_close(struct rig *rig)
{
    snapshot_writer_close(rig->writer);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&rig->loop))
        abort();
    bench_close(rig->bench);
}

/* The log grows by so much, and the loop runs until nothing is under way. */
static void rig_grow(struct rig *rig, uint64_t bytes, bool short_of_room)
{
    rig->written_bytes += bytes;
    snapshot_writer_consider(rig->writer, rig->bench->node, rig->written_bytes, short_of_room);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
}

static pid_t fork_fails(void)
{
    errno = EAGAIN;
    return -1;
}

static pid_t fork_kills(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        raise(SIGKILL);
        _exit(1);
    }
    return pid;
}

static pid_t fork_hangs(void)
{
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    return pid;
}

static size_t count_files(const char *directory, const char *pattern)
{
    char path[600];
    glob_t found;
    snprintf(path, sizeof path, "%s/%s", directory, pattern);
    int error = glob(path, 0, NULL, &found);
    if (error && error != GLOB_NOMATCH)
        abort();
    size_t count = error ? 0 : found.gl_pathc;
    globfree(&found);
    return count;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status;
    (void)type;
    (void)at;
    return remove(path);
}

static void test_writer(const char *directory)
{
    const struct snapshot_options options = {.log_bytes = 1000};
    struct snapshot_info info = {0};
    struct rig rig;
    uint64_t digest = 0, inode, first, term;

    rig_open(&rig, &disk_real, directory, &options);
    node_get_applied(rig.bench->node, &first, &term);
    rig_grow(&rig, 1000, false);
    tap_ok(!rig.done && !rig.failed, "nothing is due yet");
    rig_grow(&rig, 1, false);
    tap_ok(rig.done == 1 && rig.done_index == first, "a child writes a snapshot: %s", rig.why);
    tap_ok(load(&disk_real, directory, &info, &digest) == 0 &&
               digest == lock_table_digest(node_table(rig.bench->node)),
           "of the state as it is: %s", message);
    rig_grow(&rig, 100000, false);
    tap_equal(rig.done, 1, "without a new entry there is none");
    bench_mkdir(rig.bench, NODE_ROOT_INODE, "another", &inode);
    rig_grow(&rig, 1, false);
    tap_ok(rig.done == 2 && rig.done_index > first, "and another one");
    tap_equal(count_files(directory, "snapshot-*"), 1, "which is the only one");
    tap_equal(waitpid(-1, NULL, WNOHANG), -1, "no child is left");
    rig_close(&rig);
}

static void test_failures(const char *directory, pid_t (*fork_call)(void), const char *what)
{
    const struct snapshot_options options = {.log_bytes = 1000, .fork = fork_call};
    struct rig rig;
    size_t before = count_files(directory, "snapshot-*");
    rig_open(&rig, &disk_real, directory, &options);
    rig_grow(&rig, 2000, false);
    tap_ok(rig.done == 0 && rig.failed == 1, "%s: %s", what, rig.why);
    rig_grow(&rig, 2000, false);
    tap_equal(rig.failed, 1, "%s: it is not tried again at once", what);
    tap_equal(count_files(directory, "snapshot-*"), before, "%s: nothing is left", what);
    tap_equal(waitpid(-1, NULL, WNOHANG), -1, "%s: no child is left", what);
    rig_close(&rig);
}

static void test_close(const char *directory)
{
    const struct snapshot_options options = {.log_bytes = 1000, .fork = fork_hangs};
    struct rig rig;
    rig_open(&rig, &disk_real, directory, &options);
    snapshot_writer_consider(rig.writer, rig.bench->node, 2000, false);
    snapshot_writer_consider(rig.writer, rig.bench->node, 4000, false);
    uv_run(&rig.loop, UV_RUN_NOWAIT);
    rig_close(&rig);
    tap_equal(waitpid(-1, NULL, WNOHANG), -1, "closing ends the one child that hangs");
    tap_equal(count_files(directory, "*.new"), 0, "and removes what it wrote");
}

/* What the disk refuses, at each of its calls. */
static void test_disk_errors(void)
{
    const struct snapshot_options options = {.log_bytes = 1000, .in_process = true};
    static const struct {
        enum powerless_call call;
        int error;
        const char *name;
    } faults[] = {
        {POWERLESS_CREATE, -ENOSPC, "create"},  {POWERLESS_WRITE, -ENOSPC, "write"},
        {POWERLESS_TRUNCATE, -EIO, "truncate"}, {POWERLESS_SYNC, -EIO, "sync"},
        {POWERLESS_RENAME, -EIO, "rename"},     {POWERLESS_SYNC_DIRECTORY, -EIO, "names"},
    };

    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct powerless_disk *disk = powerless_disk_new(i + 1);
        const struct disk *calls = powerless_disk_calls(disk);
        struct snapshot_info info = {0};
        struct rig rig;
        uint64_t digest;
        rig_open(&rig, calls, DIRECTORY, &options);
        powerless_disk_fail(disk, faults[i].call, 1, 1, faults[i].error);
        rig_grow(&rig, 2000, false);
        tap_ok(rig.done == 0 && rig.failed == 1, "%s fails: %s", faults[i].name, rig.why);
        char byte;
        tap_ok(powerless_disk_peek(disk, DIRECTORY "/reserve", 0, &byte, 1) &&
                   powerless_disk_used(disk) == snapshot_writer_room(rig.writer),
               "%s: nothing but the reserve is left", faults[i].name);
        tap_ok(load(calls, DIRECTORY, &info, &digest) == 0 && info.index == 0,
               "%s: there is no snapshot", faults[i].name);
        rig_close(&rig);
        powerless_disk_free(disk);
    }
}

/* A full disk: an earlier try than the size of the log asks for, which finds its room. Once more
 * than the state needs is made of it, until others take what a snapshot has left over. */
static void test_full_disk(void)
{
    const struct snapshot_options options = {
        .log_bytes = 1 << 30, .ahead_bytes = 100000, .in_process = true};
    struct powerless_disk *disk = powerless_disk_new(1);
    struct rig rig;
    uint64_t inode;

    rig_open(&rig, powerless_disk_calls(disk), DIRECTORY, &options);
    uint64_t room = snapshot_writer_room(rig.writer);
    tap_equal(powerless_disk_used(disk), room, "room for a snapshot is there from the start");
    tap_ok(room >= node_snapshot_bytes(rig.bench->node) + options.ahead_bytes, "and more");
    powerless_disk_set_capacity(disk, room);
    rig_grow(&rig, LIMIT_SEGMENT_BYTES + 1, false);
    tap_ok(!rig.done && !rig.failed, "as long as there is room, the log may grow");
    for (unsigned i = 1; i <= 3; i++) {
        char name[] = {(char)('0' + i), '\0'};
        bench_mkdir(rig.bench, NODE_ROOT_INODE, name, &inode);
        rig_grow(&rig, LIMIT_SEGMENT_BYTES + 1, true);
        tap_ok(rig.done == i && !rig.failed, "without, a snapshot is made: %u %s", i, rig.why);
        tap_ok(snapshot_writer_room(rig.writer) >= node_snapshot_bytes(rig.bench->node),
               "and there is room for another one");
        tap_ok(powerless_disk_used(disk) <= room, "in the same room");
    }
    rig_close(&rig);
    powerless_disk_free(disk);
}

/* Where there is no reserve, since others were faster, a snapshot is tried, and the reserve is made
 * when there is room again. */
static void test_no_reserve(void)
{
    const struct snapshot_options options = {
        .log_bytes = 1000, .ahead_bytes = 100000, .in_process = true};
    struct powerless_disk *disk = powerless_disk_new(1);
    struct rig rig;

    powerless_disk_set_capacity(disk, 100);
    rig_open(&rig, powerless_disk_calls(disk), DIRECTORY, &options);
    tap_equal(snapshot_writer_room(rig.writer), 0, "a full disk: no room for snapshots");
    rig_grow(&rig, 2000, true);
    tap_ok(!rig.done && rig.failed == 1, "a snapshot is tried, and finds none: %s", rig.why);
    powerless_disk_set_capacity(disk, 1 << 20);
    while (!rig.done || snapshot_writer_room(rig.writer) < options.ahead_bytes) {
        usleep(10000); /* the time until the next try is the real one */
        rig_grow(&rig, 1, true);
    }
    tap_ok(rig.done == 1 && rig.failed == 1, "and made when there is room");
    rig_close(&rig);
    powerless_disk_free(disk);
}

/* The reserve grows with what a snapshot needs, as far as the disk goes. */
static void test_reserve_grows(void)
{
    const struct snapshot_options options = {
        .log_bytes = 1 << 30, .ahead_bytes = 4000, .in_process = true};
    struct powerless_disk *disk = powerless_disk_new(1);
    struct rig rig;
    uint64_t inode, need = 0, first;
    unsigned made = 0, refused = 0;
    int error = 0;

    rig_open(&rig, powerless_disk_calls(disk), DIRECTORY, &options);
    first = snapshot_writer_room(rig.writer);
    for (; made < 20 && !error; made++) {
        char name[] = {'n', (char)('a' + made), '\0'};
        rig.bench->snapshot_room = snapshot_writer_room(rig.writer) + LIMIT_SNAPSHOT_GROWTH_BYTES;
        error = bench_mkdir(rig.bench, NODE_ROOT_INODE, name, &inode);
        rig_grow(&rig, 1, false);
        need = node_snapshot_bytes(rig.bench->node);
        refused += need > snapshot_writer_room(rig.writer);
    }
    tap_ok(!error && !refused && snapshot_writer_room(rig.writer) > first,
           "after %u locks the reserve has grown from %" PRIu64 " to %" PRIu64 " bytes", made,
           first, snapshot_writer_room(rig.writer));
    powerless_disk_set_capacity(disk, powerless_disk_used(disk));
    for (; made < 26 && !error; made++) {
        char name[] = {'m', (char)('a' + made), '\0'};
        rig.bench->snapshot_room = snapshot_writer_room(rig.writer) + LIMIT_SNAPSHOT_GROWTH_BYTES;
        error = bench_mkdir(rig.bench, NODE_ROOT_INODE, name, &inode);
    }
    tap_ok(!error, "what is there is used");
    rig.bench->snapshot_room = node_snapshot_bytes(rig.bench->node) + LIMIT_SNAPSHOT_GROWTH_BYTES;
    tap_equal(bench_mkdir(rig.bench, NODE_ROOT_INODE, "z1", &inode), 0, "up to its end");
    tap_equal(bench_mkdir(rig.bench, NODE_ROOT_INODE, "z2", &inode), -ENOSPC, "and no further");
    rig_close(&rig);
    powerless_disk_free(disk);
}

int main(void)
{
    char directory[] = "/tmp/lockfs-snapshot-XXXXXX";

    if (!mkdtemp(directory))
        return 1;
    test_round_trip();
    test_names();
    test_damage();
    test_writer(directory);
    test_failures(directory, fork_fails, "no process can be made");
    test_failures(directory, fork_kills, "the child is killed");
    test_close(directory);
    test_disk_errors();
    test_full_disk();
    test_no_reserve();
    test_reserve_grows();
    int error = nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return error ? 1 : tap_done();
}
