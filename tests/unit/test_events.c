/*
 * `.lockfs/events` and `.lockfs/locks`: what is written is JSON whatever names there are, the ring
 * keeps whole lines, and who reads in pieces never sees half of one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/node_internal.h"
#include "tests/lib/node_bench.h"
#include "tests/lib/tap.h"

/* Random numbers: xorshift64 (Marsaglia). */

static uint64_t seed;

static uint32_t below(uint32_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % limit;
}

/* A strict reader of the lines: an object of strings and numbers, of printable ASCII. */

struct value {
    uint64_t number;
    char bytes[LIMIT_CONTROL_LINE_BYTES]; /* what a string stands for */
    size_t len;
};

static const char *skip_digits(const char *at)
{
    while (*at >= '0' && *at <= '9')
        at++;
    return at;
}

/* Each returns where it ends, NULL where it is none. */

static const char *read_number(const char *at, struct value *ret)
{
    const char *end = skip_digits(at);
    if (end == at || (*at == '0' && end - at > 1))
        return NULL;
    ret->number = strtoull(at, NULL, 10);
    if (*end != '.')
        return end;
    at = end + 1;
    end = skip_digits(at);
    return end > at ? end : NULL;
}

static const char *read_string(const char *at, struct value *ret)
{
    ret->len = 0;
    if (*at++ != '"')
        return NULL;
    while (*at != '"') {
        char byte = *at++;
        if (byte < ' ' || byte > '~')
            return NULL;
        if (byte == '\\' && *at == '"') {
            byte = *at++;
        } else if (byte == '\\') {
            /* A backslash, for JSON, and then three octal digits, as in `holders`. */
            if (*at != '\\' || strspn(at + 1, "01234567") < 3)
                return NULL;
            byte = (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0'));
            at += 4;
        }
        ret->bytes[ret->len++] = byte;
    }
    ret->bytes[ret->len] = 0;
    return at + 1;
}

/* Looks for `key` in the line at `text`. Returns whether that is a whole line of JSON, and then
 * `ret_end` is behind it; `ret` is as it was where there is no such key. */
static bool read_line(const char *text, const char *key, struct value *ret, const char **ret_end)
{
    static struct value name, value;
    const char *at = text;
    if (*at != '{')
        return false;
    do {
        at = read_string(at + 1, &name);
        if (!at || *at++ != ':')
            return false;
        at = *at == '"' ? read_string(at, &value) : read_number(at, &value);
        if (!at)
            return false;
        if (key && strcmp(name.bytes, key) == 0)
            *ret = value;
    } while (*at == ',');
    if (at[0] != '}' || at[1] != '\n')
        return false;
    *ret_end = at + 2;
    return true;
}

/* How many lines there are with a key of this value; -1 where something is no line. */
static int count_lines(const char *text, const char *key, const char *wanted)
{
    static struct value value;
    int count = 0;
    while (*text) {
        value.len = 0;
        value.bytes[0] = 0;
        if (!read_line(text, key, &value, &text))
            return -1;
        count += strcmp(value.bytes, wanted) == 0;
    }
    return count;
}

/* The ring alone */

static struct events *make_events(void)
{
    struct events *events = calloc(1, sizeof *events);
    struct arena arena = {NULL, 0};
    events_layout(events, &arena);
    arena = (struct arena){calloc(1, arena.used), 0};
    events_layout(events, &arena);
    return events;
}

static void free_events(struct events *events)
{
    free(events->ring);
    free(events);
}

static char text[LIMIT_EVENTS_BYTES + 1];

static size_t all_of(const struct events *events)
{
    uint64_t position = 0;
    size_t len = events_read(events, &position, text, sizeof text - 1);
    text[len] = 0;
    return len;
}

static void test_names(void)
{
    struct events *events = make_events();
    static struct value value;
    char lock[LIMIT_DEPTH * (LIMIT_NAME_BYTES + 1)];
    char file[LIMIT_NAME_BYTES];
    struct process process = {.pid = UINT32_MAX, .start = 1};
    int bad = 0;
    const char *end;
    memset(process.comm, '\377', LIMIT_COMM_BYTES);
    for (int round = 0; round < 3000; round++) {
        /* At last the longest line that there can be. */
        bool last = round == 2999;
        size_t lock_len = last ? sizeof lock : 1 + below(below(10) ? 40 : sizeof lock - 1);
        size_t file_len = last ? sizeof file : 1 + below(sizeof file);
        for (size_t i = 0; i < lock_len; i++)
            lock[i] = last ? '\377' : (char)(1 + below(255));
        for (size_t i = 0; i < file_len; i++)
            file[i] = last ? '\377' : (char)(round < 256 ? round : 1 + (int)below(255));
        struct event event = {
            .time_ms = last ? INT64_MAX : (int64_t)below(1000) - 10,
            .index = UINT64_MAX,
            .what = "granted",
            .lock = {lock, lock_len},
            .file = {file, file_len},
            .token = UINT64_MAX,
            .kind = CLAIM_CREATE,
            .claim_mode = CLAIM_EXCLUSIVE,
            .cause = "converted",
            .setting = ".release",
            .value = {file, file_len < EVENT_VALUE_BYTES ? file_len : EVENT_VALUE_BYTES},
            .node = UINT64_MAX,
            .actor = {&process, UINT32_MAX},
            .by = {&process, UINT32_MAX},
        };
        uint64_t position = events->end;
        events_add(events, &event);
        text[events_read(events, &position, text, sizeof text - 1)] = 0;
        bool good = read_line(text, "lock", &value, &end) && !*end && value.len == lock_len &&
                    memcmp(value.bytes, lock, lock_len) == 0;
        good = good && read_line(text, "file", &value, &end) && value.len == file_len &&
               memcmp(value.bytes, file, file_len) == 0;
        bad += !good;
    }
    tap_equal(bad, 0, "3000 lines with hostile names are JSON, and give the names back");
    tap_ok(strlen(text) <= LIMIT_CONTROL_LINE_BYTES, "the longest line, %zu bytes, has room",
           strlen(text));
    free_events(events);
}

static void add_some(struct events *events, uint64_t *index, int count)
{
    char name[LIMIT_NAME_BYTES];
    for (; count; count--) {
        size_t len = 1 + below(below(4) ? 20 : sizeof name);
        memset(name, below(2) ? 'a' : ' ', len);
        events_add(events, &(struct event){.time_ms = 1700000000000,
                                           .index = ++*index,
                                           .what = "granted",
                                           .lock = {"/", 1},
                                           .file = {name, len}});
    }
}

static void test_wrap(void)
{
    struct events *events = make_events();
    uint64_t index = 0;
    uint64_t bytes = 0;
    int bad = 0;
    for (int i = 0; i < 400; i++) {
        uint64_t before = events->end;
        add_some(events, &index, 50);
        bytes += events->end - before;
        bad += all_of(events) != events->end - events->begin ||
               count_lines(text, "event", "granted") < 1;
    }
    tap_equal(bad, 0, "at each look the ring holds whole lines only");
    tap_ok(events->begin > 0, "it has wrapped");
    tap_equal(events->end, bytes, "its end is where all lines ever written end");
    tap_equal(events->count, index, "they are counted");
    tap_ok(events->end - events->begin > LIMIT_EVENTS_BYTES - LIMIT_CONTROL_LINE_BYTES,
           "and it is full but for a line");
    free_events(events);
}

/* Reading through a handle */

struct reading {
    struct bench *bench;
    struct reader reader;
    uint64_t offset;
    char line[LIMIT_CONTROL_LINE_BYTES];
};

static size_t read_some(struct reading *reading, char *buffer, size_t size)
{
    reading->reader.line = reading->line;
    size_t got =
        control__read_events(reading->bench->node, &reading->reader, reading->offset, buffer, size);
    reading->offset += got;
    return got;
}

/* A follower and a writer that is faster or slower, at random. */
static void test_follower(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct events *events = &bench->node->events;
    struct reading *reading = calloc(1, sizeof *reading);
    static char line[LIMIT_CONTROL_LINE_BYTES];
    static char buffer[70000];
    static struct value value;
    uint64_t index = 1000;
    uint64_t last = 0;
    size_t len = 0;
    int bad = 0;
    int lines = 0;
    int gaps = 0;
    reading->bench = bench;
    for (int round = 0; round < 3000; round++) {
        uint64_t begin = events->begin;
        add_some(events, &index, (int)below(below(20) ? 4 : 3000));
        gaps += events->begin > begin;
        size_t got = read_some(reading, buffer, 1 + below(below(10) ? 300 : 65536));
        for (size_t i = 0; i < got; i++) {
            line[len++] = buffer[i];
            if (buffer[i] != '\n')
                continue;
            const char *end;
            line[len] = 0;
            bad += !read_line(line, "index", &value, &end) || value.number <= last;
            last = value.number;
            lines++;
            len = 0;
        }
    }
    tap_equal(bad, 0, "%d lines, each of them whole and newer than the one before", lines);
    tap_ok(gaps > 10 && lines > 1000, "the ring ran away from the reader %d times", gaps);
    free(reading);
    bench_close(bench);
}

static void test_half_line(void)
{
    struct bench *bench = bench_open(&bench_limits);
    struct events *events = &bench->node->events;
    struct reading *reading = calloc(1, sizeof *reading);
    uint64_t index = 0;
    const char *end;
    reading->bench = bench;
    reading->offset = events->end;
    tap_equal(read_some(reading, text, 100), 0, "at the end there is nothing");
    add_some(events, &index, 1);
    size_t len = read_some(reading, text, 20);
    tap_equal(len, 20, "then the beginning of a line");
    add_some(events, &index, 20000);
    tap_ok(events->begin > reading->offset, "the ring goes on, and has that line no more");
    while (text[len - 1] != '\n')
        len += read_some(reading, text + len, 7);
    /* The last piece may have brought the beginning of the next line. */
    const char *newline = memchr(text, '\n', len);
    text[newline - text + 1] = 0;
    tap_ok(read_line(text, NULL, NULL, &end), "the line is read to its end");
    len = read_some(reading, text, 60000);
    text[len] = 0;
    tap_ok(strncmp(text, "{\"time\":", 8) == 0, "and then comes a whole one");

    reading->offset = events->end - 30;
    len = read_some(reading, text, 1000);
    tap_ok(len == 30 && text[len - 1] == '\n', "a seek to shortly before the end");
    reading->offset = 1;
    len = read_some(reading, text, 1000);
    tap_ok(len == 1000 && strncmp(text, "{\"time\":", 8) == 0,
           "a seek to what is gone gives the oldest line");
    reading->offset = events->end + 1000;
    tap_equal(read_some(reading, text, 1000), 0, "a seek beyond the end gives nothing");
    free(reading);
    bench_close(bench);
}

/* What a node tells */

static const char *events_of(struct bench *bench)
{
    all_of(&bench->node->events);
    return text;
}

static int told(struct bench *bench, const char *key, const char *value)
{
    return count_lines(events_of(bench), key, value);
}

static void test_told(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t lock, inode, a, b;
    bench_mkdir(bench, NODE_ROOT_INODE, "l", &lock);
    tap_equal(told(bench, "event", "restart"), 1, "the start is told");
    tap_equal(told(bench, "event", "mkdir"), 1, "mkdir");
    bench_create(bench, lock, "f", false, 1, &inode, &a);
    bench_create(bench, lock, "f", false, 2, &inode, &b);
    bench_flock(bench, 1, inode, a, NODE_FLOCK_EXCLUSIVE, false, 1);
    tap_equal(told(bench, "event", "granted"), 1, "a grant");
    bench_flock(bench, 2, inode, b, NODE_FLOCK_SHARED, true, 2);
    tap_equal(told(bench, "event", "queued"), 1, "a wait");
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_INTERRUPT, .interrupt = {2}});
    tap_equal(told(bench, "event", "unqueued"), 1, "its end");
    tap_equal(told(bench, "cause", "cancelled"), 1, "and why");
    tap_equal(bench->node->counts.waits_interrupted, 1, "which is counted");
    bench_flock(bench, 2, inode, b, NODE_FLOCK_SHARED, true, 2);
    bench_release(bench, inode, a);
    tap_equal(told(bench, "event", "released"), 1, "a release");
    tap_equal(told(bench, "event", "granted"), 2, "and who gets it then");
    tap_equal(told(bench, "lock", "/l"), 7, "all of the lock but restart");
    struct node_request force = {.op = NODE_OP_IOC_FORCE, .inode = inode};
    bench_create(bench, lock, "f", false, 3, &inode, &force.handle);
    bench_request(bench, force, 3, 3);
    tap_equal(told(bench, "event", "lost"), 1, "a loss by force");
    tap_equal(told(bench, "cause", "forced"), 1, "is told as such");
    tap_equal(told(bench, "by_comm", "test"), 1, "and by whom");
    tap_equal(bench->node->counts.lost_forced, 1, "and counted");
    tap_equal(told(bench, "event", "setting"), 0, "no setting was changed");
    size_t before = bench->node->events.count;
    tap_equal(bench_create(bench, lock, "g", true, 4, NULL, NULL), 0, "somebody holds");
    tap_equal(bench_create(bench, lock, "h", true, 5, NULL, NULL), -EEXIST,
              "and somebody is refused");
    tap_equal(bench->node->counts.refusals[REFUSED_EEXIST], 1, "which is counted");
    tap_equal(bench->node->events.count, before + 1, "and not told");

    bench_restart(bench, &bench_limits);
    tap_equal(told(bench, "event", "lost"), 1, "a new daemon tells what its start has ended");
    tap_equal(told(bench, "cause", "restart"), 1, "by the restart");
    tap_equal(told(bench, "event", "granted"), 0, "and nothing from before");
    tap_equal(bench->node->counts.lost_by_restart, 1, "it is counted");
    bench_close(bench);
}

/* locks */

static uint64_t open_control(struct bench *bench, const char *name, uint64_t *ret_inode)
{
    uint64_t directory;
    bench_lookup(bench, NODE_ROOT_INODE, ".lockfs", &directory);
    bench_lookup(bench, directory, name, ret_inode);
    struct node_request open = {.op = NODE_OP_OPEN, .inode = *ret_inode};
    return bench_request(bench, open, 0, 1)->handle;
}

static size_t read_control(struct bench *bench, uint64_t inode, uint64_t handle, uint64_t offset,
                           uint32_t size, char *buffer)
{
    struct node_request read = {
        .op = NODE_OP_READ, .inode = inode, .handle = handle, .read = {offset, size, NULL, 0}};
    const struct node_reply *reply = bench_request(bench, read, 0, 1);
    memcpy(buffer, bench->data[0], reply->data.len);
    return reply->data.len;
}

enum { HELD = 2000 };

/* Claims that are held all the time are listed once, whoever comes and goes meanwhile. */
static void test_locks(void)
{
    struct node_limits limits = bench_limits;
    limits.table.claims = limits.handles = HELD + 100;
    limits.table.names_bytes = 1 << 20;
    limits.inodes = 4 * HELD;
    limits.pending_entries = 1 << 15;
    limits.pending_bytes = 64 << 20;
    struct bench *bench = bench_open(&limits);
    uint64_t lock, inode, handle, other_inode, other = 0;
    char name[32];
    static char listing[1 << 20];
    static bool seen[HELD];
    bench_mkdir(bench, NODE_ROOT_INODE, "far", &lock);
    for (int i = 0; i < HELD; i++) {
        snprintf(name, sizeof name, "claim-%d", i);
        if (bench_create(bench, NODE_ROOT_INODE, name, true, 1, NULL, NULL) != 0)
            tap_ok(false, "claim %d", i);
    }
    bench_create(bench, lock, "f x", true, 7, NULL, NULL);
    handle = open_control(bench, "locks", &inode);
    size_t len = 0;
    size_t got;
    for (int i = 0; (got = read_control(bench, inode, handle, len, 1 + below(300), listing + len));
         i++) {
        len += got;
        if (other)
            bench_release(bench, other_inode, other);
        snprintf(name, sizeof name, "passing-%d", i);
        bench_create(bench, NODE_ROOT_INODE, name, true, 1, &other_inode, &other);
    }
    listing[len] = 0;
    int held = 0;
    int bad = 0;
    int twice = 0;
    char *next = strchr(listing, '\n') + 1;
    *strchr(listing, '\n') = 0;
    tap_ok(strncmp(listing, "index ", 6) == 0 && strstr(listing, " age_ms 0"), "the head: %s",
           listing);
    while (*next) {
        char path[64], file[64];
        int number;
        char *line = next;
        next = strchr(line, '\n') + 1;
        next[-1] = 0;
        if (sscanf(line, "holder %63s %*d exclusive 1 %*d 0 0 %63s test", path, file) != 2) {
            tap_note("%s", line);
            bad++;
        } else if (sscanf(file, "claim-%d", &number) == 1) {
            twice += seen[number];
            seen[number] = true;
            held++;
        } else if (strncmp(file, "passing-", 8) != 0) {
            bad += strcmp(path, "/far") != 0 || strcmp(file, "f\\040x") != 0;
            held += HELD;
        }
    }
    tap_equal(bad, 0, "each line is whole");
    tap_equal(held, 2 * HELD, "%d claims are listed, and one in another lock", HELD);
    tap_equal(twice, 0, "none of them twice");
    tap_ok(!bench->failed, "the node works");
    bench_close(bench);
}

enum { FREED = LIMIT_LOCKS_STEPS + 1000 };

/* Where many have held and few do, one read looks at a part of it only. */
static void test_thin_locks(void)
{
    struct node_limits limits = bench_limits;
    limits.table.claims = limits.handles = FREED + 10;
    limits.table.names_bytes = 1 << 20;
    limits.inodes = FREED + 100;
    limits.pending_entries = 1 << 16;
    limits.pending_bytes = 64 << 20;
    struct bench *bench = bench_open(&limits);
    static uint64_t inodes[FREED], handles[FREED];
    uint64_t inode, handle;
    char name[32];
    char listing[1024];
    for (int i = 0; i < FREED; i++) {
        snprintf(name, sizeof name, "%d", i);
        bench_create(bench, NODE_ROOT_INODE, name, true, 1, &inodes[i], &handles[i]);
    }
    bench_create(bench, NODE_ROOT_INODE, "last of all", true, 1, NULL, NULL);
    for (int i = 0; i < FREED; i++)
        bench_release(bench, inodes[i], handles[i]);
    handle = open_control(bench, "locks", &inode);
    size_t len = read_control(bench, inode, handle, 0, 1000, listing);
    listing[len] = 0;
    tap_ok(strncmp(listing, "index ", 6) == 0 && !strstr(listing, "holder"),
           "the first read has no holder");
    size_t first = len;
    len += read_control(bench, inode, handle, len, 1000, listing + len);
    listing[len] = 0;
    tap_ok(strstr(listing + first, "holder / "), "the next one has it");
    tap_equal(read_control(bench, inode, handle, len, 1000, listing), 0, "then it ends");
    bench_close(bench);
}

/* What is known is told also while the log answers nobody. */
static void test_stalled(void)
{
    struct bench *bench = bench_open(&bench_limits);
    uint64_t inode, handle;
    char listing[1024];
    bench_create(bench, NODE_ROOT_INODE, "f", true, 1, NULL, NULL);
    bench->auto_persist = false;
    tap_equal(bench_create(bench, NODE_ROOT_INODE, "g", true, 2, NULL, NULL), -EINPROGRESS,
              "the log does not answer");
    bench->now_ms = bench->timer_at_ms;
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_TIMER});
    tap_equal(bench->node->counts.refusals[REFUSED_ETIMEDOUT], 1, "a request gives up");
    handle = open_control(bench, "locks", &inode);
    listing[read_control(bench, inode, handle, 0, sizeof listing - 1, listing)] = 0;
    tap_ok(strstr(listing, "age_ms 5000\nholder / 1 exclusive 1 1 0 "), "locks");
    handle = open_control(bench, "events", &inode);
    tap_ok(read_control(bench, inode, handle, 0, sizeof listing, listing) > 100, "events");
    handle = open_control(bench, "metrics", &inode);
    tap_ok(read_control(bench, inode, handle, 0, sizeof listing, listing) > 100, "metrics");
    bench_close(bench);
}

int main(void)
{
    const char *given = getenv("SEED");
    seed = given ? strtoull(given, NULL, 10) : 20261121;
    printf("# SEED=%llu\n", (unsigned long long)seed);
    seed = seed * 2654435761u | 1;
    test_names();
    test_wrap();
    test_follower();
    test_half_line();
    test_told();
    test_locks();
    test_thin_locks();
    test_stalled();
    return tap_done();
}
