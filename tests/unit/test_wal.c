/* The log on disk: what each promise of fs/wal.h means. Loss of power at random points is tested by
 * test_wal_power_loss.c. */
#include "tests/lib/tap.h"
#include "tests/lib/wal_rig.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <isa-l/crc.h>

#define LOG_1 RIG_DIRECTORY "/log-0000000000000001"
#define LOG_2 RIG_DIRECTORY "/log-0000000000000002"
#define LOG_3 RIG_DIRECTORY "/log-0000000000000003"

enum {
    SEGMENT_BYTES = 128 << 10,
    SMALL_SEGMENT_BYTES = 32 << 10,
    FIRST = WAL__SEGMENT_HEADER_BYTES, /* where the first record of a segment is */
};

static uint64_t seed;

static void start(struct rig *rig, uint64_t segment_bytes)
{
    rig_init(rig, seed, segment_bytes);
    if (rig_open(rig))
        tap_ok(false, "open: %s", rig->message);
}

/* One batch of entries. */
static void batch(struct rig *rig, size_t count, size_t len)
{
    for (size_t i = 0; i < count; i++)
        rig_next_entry(rig, len);
    rig_flush(rig);
    rig_run(rig);
}

static bool reopen(struct rig *rig)
{
    rig_close(rig);
    return rig_check(rig, rig_open(rig) == 0, "reopen: %s", rig->message) &&
           rig_check_contents(rig);
}

/* The last point of each test. */
static void finish(struct rig *rig, const char *what)
{
    if (!tap_ok(rig->error[0] == '\0', "%s", what))
        tap_note("%s", rig->error);
    rig_free(rig);
}

/* A whole file, and back: what a test has done to it is undone. */
static char *save(struct rig *rig, const char *path, size_t size)
{
    char *bytes = malloc(size);
    assert(bytes);
    bool good = powerless_disk_peek(rig->disk, path, 0, bytes, size);
    assert(good);
    return bytes;
}

static void restore(struct rig *rig, const char *path, const char *bytes, size_t size)
{
    bool good = powerless_disk_poke(rig->disk, path, 0, bytes, size);
    assert(good);
}

/* Appending and recovering */

static void test_append_and_recover(void)
{
    struct rig rig;
    start(&rig, SEGMENT_BYTES);
    rig_check(&rig, rig.states_count == 0 && rig.entries_count == 0, "a new log hands over");
    rig_state(&rig, false, 3, 1);
    batch(&rig, 3, 100);
    tap_equal(rig.durable_count, 4, "a batch is reported durable as a whole");
    tap_equal(rig.durable_calls, 1, "with one call");
    rig_state(&rig, false, 4, 2);
    batch(&rig, 1, 0);
    reopen(&rig);
    tap_equal(rig.states_count, 1, "one state is handed over");
    tap_ok(rig.state_term == 4 && rig.state_vote == 2, "the latest");
    tap_equal(rig.entries_count, 4, "and each entry");
    batch(&rig, 2, LIMIT_COMMAND_BYTES);
    rig_close(&rig);
    powerless_disk_cut(rig.disk, seed);
    rig_check(&rig, rig_open(&rig) == 0 && rig_check_contents(&rig), "after a cut: %s",
              rig.message);
    tap_equal(rig.entries_count, 6, "all of it after a loss of power");
    finish(&rig, "append and recover");
}

static void test_group_commit(void)
{
    struct rig rig;
    start(&rig, SEGMENT_BYTES);
    uint64_t syncs = powerless_disk_count(rig.disk, POWERLESS_SYNC);
    uint64_t writes = powerless_disk_count(rig.disk, POWERLESS_WRITE);
    rig_next_entry(&rig, 50);
    rig_flush(&rig);
    for (int i = 0; i < 999; i++) {
        rig_next_entry(&rig, 50);
        rig_flush(&rig);
    }
    rig_run(&rig);
    tap_equal(rig.durable_count, 1000, "a thousand records are durable");
    tap_equal(powerless_disk_count(rig.disk, POWERLESS_SYNC) - syncs, 2, "with two fdatasyncs");
    tap_equal(powerless_disk_count(rig.disk, POWERLESS_WRITE) - writes, 2, "and two writes");
    reopen(&rig);
    finish(&rig, "group commit");
}

static void test_segments(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    for (int i = 0; i < 200; i++) {
        batch(&rig, 1 + (size_t)rig_random(&rig, 5), (size_t)rig_random(&rig, 1500));
        wal_want_room(rig.wal, 40000);
        rig_run(&rig);
        rig_check(&rig, wal_room(rig.wal) >= 40000, "room");
        rig_check(&rig, rig.wal->segment + 1 < rig.wal->segments_count, "a spare segment");
    }
    tap_ok(rig.wal->segments_count > 10, "the log spans many segments");
    tap_equal(wal_disk_bytes(rig.wal), powerless_disk_used(rig.disk), "its size on disk is told");
    size_t open_files = 0;
    for (size_t i = 0; i < rig.wal->segments_count; i++)
        open_files += rig.wal->segments[i].file >= 0;
    tap_ok(open_files <= 5, "full segments are closed");
    reopen(&rig);
    finish(&rig, "segments");
}

/* What wal_room() says can be used up to the last byte, whatever the sizes. */
static void test_room(void)
{
    for (uint64_t i = 0; i < 200; i++) {
        struct rig rig;
        rig_init(&rig, seed + i, SMALL_SEGMENT_BYTES);
        rig_check(&rig, rig_open(&rig) == 0, "open: %s", rig.message);
        powerless_disk_set_capacity(rig.disk, powerless_disk_used(rig.disk));
        for (int tries = 0; tries < 400; tries++) {
            size_t len =
                (size_t)rig_random(&rig, rig_random(&rig, 2) ? LIMIT_COMMAND_BYTES + 1 : 90);
            if (wal_room(rig.wal) < len + LIMIT_RECORD_OVERHEAD_BYTES)
                continue;
            uint64_t before = wal_room(rig.wal);
            rig_next_entry(&rig, len);
            rig_check(&rig,
                      wal_room(rig.wal) + len + LIMIT_RECORD_OVERHEAD_BYTES >= before ||
                          wal_room(rig.wal) == 0,
                      "a record takes more room than promised");
            if (rig_random(&rig, 4) == 0) {
                rig_flush(&rig);
                rig_run(&rig);
            }
        }
        rig_check(&rig, wal_room(rig.wal) < 200, "room is left over");
        rig_flush(&rig);
        rig_run(&rig);
        rig_check(&rig, rig.durable_count == rig.records_count, "not all durable");
        powerless_disk_set_capacity(rig.disk, UINT64_MAX);
        bool good = reopen(&rig) && rig.error[0] == '\0';
        if (!good || i == 199) {
            finish(&rig, "what wal_room() promises can be appended, in 200 logs");
            break;
        }
        rig_free(&rig);
    }
}

static void test_replacing(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    for (int i = 0; i < 60; i++) {
        batch(&rig, 1 + (size_t)rig_random(&rig, 12), 700);
        rig.term++;
        rig_entry(&rig, false, 1 + rig_random(&rig, rig_last_index(&rig)), 30);
        rig_flush(&rig);
        wal_want_room(rig.wal, 60000);
        rig_run(&rig);
        rig_check_contents(&rig);
    }
    tap_ok(rig.wal->segments_count > 8, "entries are replaced over many segments");
    reopen(&rig);
    rig_entry(&rig, false, 1, 10);
    rig_flush(&rig);
    rig_run(&rig);
    reopen(&rig);
    tap_equal(rig.entries_count, 1, "the first entry replaces all");
    finish(&rig, "entries with a lower index replace what came before");
}

/* A write that a segment's end divides is durable with its last record. */
static void test_divided_write(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    batch(&rig, 1, 10);
    uint64_t before = rig.durable_write;
    rig_next_entry(&rig, 8000);
    while (rig.wal->segment == 0)
        rig_entry(&rig, true, rig_last_index(&rig) + 1, 8000);
    uint64_t count = powerless_disk_count(rig.disk, POWERLESS_SYNC);
    powerless_disk_fail(rig.disk, POWERLESS_WRITE, 1, 0, 0);
    /* The segment that is made meanwhile would be counted, too. */
    powerless_disk_set_capacity(rig.disk, 0);
    rig_run(&rig);
    powerless_disk_fail(rig.disk, POWERLESS_SYNC, 2, 1, -EIO);
    rig_flush(&rig);
    rig_run(&rig);
    tap_ok(powerless_disk_count(rig.disk, POWERLESS_SYNC) >= count + 2, "two batches were written");
    tap_equal(rig.failed_calls, 1, "the second fails");
    tap_equal(rig.durable_write, before, "and nothing of the write is reported durable");
    finish(&rig, "a write divided by the end of a segment");
}

/* Reading back */

struct count_reads {
    uint64_t count;
    uint64_t stop_at;
    uint64_t last;
};

static bool count_read(void *context, uint64_t index, uint64_t term, uint32_t type,
                       const char *data, size_t len)
{
    struct count_reads *reads = context;
    (void)term, (void)type, (void)data, (void)len;
    reads->last = index;
    return ++reads->count != reads->stop_at;
}

static void test_read(void)
{
    struct rig rig;
    struct count_reads reads = {0};
    start(&rig, SMALL_SEGMENT_BYTES);
    for (int i = 0; i < 50; i++) {
        batch(&rig, 4, 900);
        wal_want_room(rig.wal, 40000);
        rig_run(&rig);
    }
    int error = wal_read(rig.wal, 60, 140, count_read, &reads, rig.message, sizeof rig.message);
    tap_ok(!error && reads.count == 81 && reads.last == 140, "a part in the middle is read");
    reads = (struct count_reads){.stop_at = 5};
    error = wal_read(rig.wal, 10, 200, count_read, &reads, rig.message, sizeof rig.message);
    tap_ok(!error && reads.count == 5 && reads.last == 14, "the visitor can stop");
    reads = (struct count_reads){0};
    error = wal_read(rig.wal, 195, 201, count_read, &reads, rig.message, sizeof rig.message);
    tap_ok(error == -ENODATA && strstr(rig.message, "201"), "beyond the end: %s", rig.message);
    error = wal_read(rig.wal, 5, 4, count_read, &reads, rig.message, sizeof rig.message);
    tap_equal(error, 0, "nothing is read without an error");
    powerless_disk_fail(rig.disk, POWERLESS_READ, 2, 1, -EIO);
    error = wal_read(rig.wal, 1, 200, count_read, &reads, rig.message, sizeof rig.message);
    tap_ok(error == -EIO && strstr(rig.message, RIG_DIRECTORY "/log-"), "failed: %s", rig.message);
    bool poked = powerless_disk_poke(rig.disk, LOG_2, FIRST + 1000, "damage", 6);
    assert(poked);
    error = wal_read(rig.wal, 1, 200, count_read, &reads, rig.message, sizeof rig.message);
    tap_ok(error == -EBADMSG && strstr(rig.message, LOG_2), "damaged: %s", rig.message);
    finish(&rig, "wal_read");
}

/* A torn tail */

/* The number of whole records in the first `len` bytes of what was appended after record `from`. */
static size_t whole_records(const struct rig *rig, size_t from, size_t len)
{
    size_t whole = from;
    size_t bytes = 0;
    while (whole < rig->records_count) {
        bytes += wal__record_bytes(rig->records[whole].len);
        if (bytes > len)
            break;
        whole++;
    }
    return whole;
}

static size_t bytes_of(const struct rig *rig, size_t from, size_t to)
{
    size_t bytes = 0;
    for (size_t i = from; i < to; i++)
        bytes += wal__record_bytes(rig->records[i].len);
    return bytes;
}

/* Two batches: three records that were durable, five that are torn. */
static void test_torn_tail(void)
{
    enum { DURABLE = 3, TORN = 5 };
    struct rig rig;
    unsigned opened = 0;

    start(&rig, SMALL_SEGMENT_BYTES);
    batch(&rig, DURABLE, 100);
    batch(&rig, TORN, 333);
    struct rig_record records[DURABLE + TORN];
    memcpy(records, rig.records, sizeof records);
    uint64_t from = FIRST + bytes_of(&rig, 0, DURABLE);
    size_t len = bytes_of(&rig, DURABLE, DURABLE + TORN);
    rig_close(&rig);
    char *good = save(&rig, LOG_1, SMALL_SEGMENT_BYTES);
    char *torn = malloc(len);
    assert(torn);
    /* What is missing is at first zeros from some byte on, then one of the sectors, then garbage.
     */
    size_t first_sector = (size_t)(from / 512);
    size_t sectors = (size_t)((from + len - 1) / 512) - first_sector + 1;
    for (size_t i = 0; i < len + sectors + len / 16 && !rig.error[0]; i++) {
        size_t expected;
        memcpy(torn, good + from, len);
        if (i < len) {
            memset(torn + i, 0, len - i);
            expected = i;
        } else if (i < len + sectors) {
            uint64_t sector = (first_sector + (i - len)) * 512;
            size_t begin = sector > from ? (size_t)(sector - from) : 0;
            size_t end = (size_t)(sector + 512 - from) < len ? (size_t)(sector + 512 - from) : len;
            memset(torn + begin, 0, end - begin);
            expected = begin;
        } else {
            expected = (i - len - sectors) * 16;
            for (size_t j = expected; j < len; j++)
                torn[j] = (char)~torn[j];
        }
        restore(&rig, LOG_1, good, SMALL_SEGMENT_BYTES);
        powerless_disk_poke(rig.disk, LOG_1, from, torn, len);
        memcpy(rig.records, records, sizeof records);
        rig.records_count = DURABLE + TORN;
        rig.durable_count = whole_records(&rig, DURABLE, expected);
        /* A last record that ends in zeros is whole without them. */
        size_t wanted = rig.durable_count;
        if (!rig_check(&rig, rig_open(&rig) == 0, "at %zu: %s", i, rig.message))
            break;
        rig_check(&rig, rig.records_count == wanted || rig.records_count == wanted + 1,
                  "at %zu: %zu records wanted, %zu recovered", i, wanted, rig.records_count);
        rig_check_contents(&rig);
        batch(&rig, 1, 40);
        rig_close(&rig);
        powerless_disk_cut(rig.disk, seed + i);
        rig_check(&rig, rig_open(&rig) == 0, "at %zu, again: %s", i, rig.message);
        rig_check_contents(&rig);
        rig_close(&rig);
        opened++;
    }
    tap_note("%u torn tails", opened);
    free(torn);
    free(good);
    finish(&rig, "a tail torn at each byte and in each sector is cut, and the log goes on");
}

/* The last batch of the log begins a segment, and is torn: the log ends in the segment before. */
static void test_torn_first_batch_of_segment(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    while (rig.wal->segment == 0)
        batch(&rig, 1, 8000);
    batch(&rig, 3, 200);
    size_t before = rig.records_count - 4;
    rig_close(&rig);
    /* Three of the four records are in one batch of its own, the first batch has one: tear both. */
    char zeros[3000] = {0};
    powerless_disk_poke(rig.disk, LOG_2, FIRST, zeros, sizeof zeros);
    rig_check(&rig, rig_open(&rig) == -EBADMSG, "a later batch is there");
    size_t first = wal__record_bytes(8000);
    char *rest = calloc(1, SMALL_SEGMENT_BYTES);
    assert(rest);
    powerless_disk_poke(rig.disk, LOG_2, FIRST + first, rest, SMALL_SEGMENT_BYTES - FIRST - first);
    free(rest);
    rig.durable_count = before;
    rig_check(&rig, rig_open(&rig) == 0, "opened: %s", rig.message);
    tap_equal(rig.records_count, before, "the log ends in the segment before");
    batch(&rig, 2, 8000);
    reopen(&rig);
    finish(&rig, "a torn batch at the start of a segment");
}

/* Stale records of a torn batch, of the very size of new ones, behind a recovery whose fdatasync
 * failed: the page cache shows zeros that never reached the disk. */
static bool try_stale_records(uint64_t run, bool next_segment, unsigned *stale)
{
    const size_t record = wal__record_bytes(1000);
    char zeros[1100] = {0};
    struct rig rig;

    rig_init(&rig, seed + run, SMALL_SEGMENT_BYTES);
    rig_check(&rig, rig_open(&rig) == 0, "opened: %s", rig.message);
    batch(&rig, next_segment ? (SMALL_SEGMENT_BYTES - FIRST) / record : 2, 1000);
    const char *file = next_segment ? LOG_2 : LOG_1;
    uint64_t torn_at = next_segment ? FIRST : rig.wal->offset;
    size_t durable = rig.records_count;
    batch(&rig, 6, 1000);
    rig_close(&rig);
    powerless_disk_poke(rig.disk, file, torn_at, zeros, record);
    rig.durable_count = durable;
    powerless_disk_fail(rig.disk, POWERLESS_SYNC, next_segment ? 2 : 1, 1, -EIO);
    rig_check(&rig, rig_open(&rig) == -EIO, "a failed fdatasync is ignored");
    powerless_disk_kill(rig.disk);
    rig_check(&rig, rig_open(&rig) == 0, "opened: %s", rig.message);
    batch(&rig, 1, 1000);
    rig_close(&rig);
    powerless_disk_cut(rig.disk, run);
    char byte = 0;
    for (size_t at = record; at < 6 * record && !byte; at++)
        powerless_disk_peek(rig.disk, file, torn_at + at, &byte, 1);
    *stale += byte != 0;
    rig_check(&rig, rig_open(&rig) == 0, "opened again: %s", rig.message);
    rig_check(&rig, rig.records_count == durable + 1, "%zu records", rig.records_count);
    bool good = !rig.error[0] && rig_check_contents(&rig);
    if (!good)
        tap_note("%s", rig.error);
    rig_free(&rig);
    return good;
}

static void test_stale_records(void)
{
    bool good = true;
    unsigned stale = 0;
    for (uint64_t run = 0; run < 100 && good; run++)
        good = try_stale_records(run, run % 2, &stale);
    tap_ok(good, "stale records never count");
    tap_equal(stale, 0, "and are not left on the disk");
}

/* Damage in the middle */

static void expect_refused(struct rig *rig, const char *file, uint64_t offset, const char *what)
{
    char place[300];
    int error = rig_open(rig);
    snprintf(place, sizeof place, "%s, byte %llu:", file, (unsigned long long)offset);
    rig_check(rig, error == -EBADMSG, "%s: %d, %s", what, error, rig->message);
    rig_check(rig, strstr(rig->message, place) != NULL, "%s: '%s' does not name %s", what,
              rig->message, place);
    if (!error)
        rig_close(rig);
}

static void test_damage_in_the_middle(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    batch(&rig, 1, 100);
    batch(&rig, 2, 77);
    size_t early = bytes_of(&rig, 0, 3);
    batch(&rig, 1, 10);
    while (rig.wal->segment == 0)
        batch(&rig, 1, 5000);
    batch(&rig, 3, 100);
    rig_close(&rig);
    char *good = save(&rig, LOG_1, SMALL_SEGMENT_BYTES);
    char *second = save(&rig, LOG_2, SMALL_SEGMENT_BYTES);
    for (size_t i = 0; i < early && !rig.error[0]; i++) {
        char flipped = (char)(good[FIRST + i] ^ 1 << i % 8);
        uint64_t record = FIRST + bytes_of(&rig, 0, whole_records(&rig, 0, i));
        powerless_disk_poke(rig.disk, LOG_1, FIRST + i, &flipped, 1);
        expect_refused(&rig, LOG_1, record, "a flipped bit");
        powerless_disk_poke(rig.disk, LOG_1, FIRST + i, good + FIRST + i, 1);
    }
    tap_ok(!rig.error[0], "each flipped bit of an early batch is refused, with file and offset");
    tap_note("%s", rig.message);

    char zeros[200] = {0};
    powerless_disk_poke(rig.disk, LOG_1, FIRST, zeros, wal__record_bytes(100));
    expect_refused(&rig, LOG_1, FIRST, "a lost batch");
    restore(&rig, LOG_1, good, SMALL_SEGMENT_BYTES);

    powerless_disk_poke(rig.disk, LOG_2, FIRST + 60, "damage", 6);
    expect_refused(&rig, LOG_2, FIRST, "the first record of a segment");
    tap_note("%s", rig.message);
    restore(&rig, LOG_2, second, SMALL_SEGMENT_BYTES);

    size_t last_of_first = rig.records_count - 5;
    uint64_t offset = FIRST + bytes_of(&rig, 0, last_of_first);
    powerless_disk_poke(rig.disk, LOG_1, offset + 40, "damage", 6);
    expect_refused(&rig, LOG_1, offset, "the last record of a segment");
    restore(&rig, LOG_1, good, SMALL_SEGMENT_BYTES);

    powerless_disk_poke(rig.disk, LOG_1, 20, "damage", 6);
    expect_refused(&rig, LOG_1, 0, "a header");
    restore(&rig, LOG_1, good, SMALL_SEGMENT_BYTES);
    char *no_header = calloc(1, FIRST);
    assert(no_header);
    powerless_disk_poke(rig.disk, LOG_1, 0, no_header, FIRST);
    expect_refused(&rig, LOG_1, FIRST, "a header of zeros in a file that was used");
    restore(&rig, LOG_1, second, SMALL_SEGMENT_BYTES);
    expect_refused(&rig, LOG_1, 0, "the header of another file");
    restore(&rig, LOG_1, good, SMALL_SEGMENT_BYTES);

    rig_check(&rig, rig_open(&rig) == 0 && rig_check_contents(&rig), "unharmed: %s", rig.message);
    rig_close(&rig);
    powerless_disk_poke(rig.disk, LOG_3, 0, no_header, FIRST);
    rig_check(&rig, rig_open(&rig) == 0 && rig_check_contents(&rig), "a spare of zeros: %s",
              rig.message);
    for (int i = 0; i < 8; i++)
        batch(&rig, 1, 7000);
    rig_check(&rig, rig.wal->segment >= 2, "the spare is not used");
    reopen(&rig);
    free(no_header);
    free(good);
    free(second);
    finish(&rig, "damage in the middle is refused, an unused spare of zeros is not");
}

static void test_missing_and_short_files(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    for (int i = 0; i < 20; i++) {
        batch(&rig, 1, 5000);
        wal_want_room(rig.wal, 40000);
        rig_run(&rig);
    }
    rig_close(&rig);
    char *good = save(&rig, LOG_2, SMALL_SEGMENT_BYTES);
    powerless_disk_truncate(rig.disk, LOG_2, 1000);
    tap_ok(rig_open(&rig) == -EBADMSG && strstr(rig.message, LOG_2), "short: %s", rig.message);
    powerless_disk_truncate(rig.disk, LOG_2, 20000);
    rig_open(&rig);
    powerless_disk_remove(rig.disk, LOG_2);
    tap_ok(rig_open(&rig) == -EBADMSG && strstr(rig.message, LOG_2), "missing: %s", rig.message);
    powerless_disk_remove(rig.disk, LOG_1);
    tap_ok(rig_open(&rig) == -EBADMSG && strstr(rig.message, LOG_1), "missing: %s", rig.message);
    free(good);
    finish(&rig, "missing and short files are refused");
}

static void test_other_version(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    batch(&rig, 1, 10);
    rig_close(&rig);
    unsigned char *header = (unsigned char *)save(&rig, LOG_1, 48);
    header[12] = 2;
    uint32_t crc = ~crc32_iscsi(header + 12, 36, UINT32_MAX);
    for (int i = 0; i < 4; i++)
        header[8 + i] = (unsigned char)(crc >> 8 * i);
    restore(&rig, LOG_1, (char *)header, 48);
    free(header);
    int error = rig_open(&rig);
    tap_ok(error == -EPROTO && strstr(rig.message, "version 2"), "refused: %s", rig.message);
    finish(&rig, "a log of another version is refused");
}

/* What a user writes may look like records. */
static void test_forged_records(void)
{
    struct rig rig;
    char data[LIMIT_COMMAND_BYTES];
    start(&rig, SMALL_SEGMENT_BYTES);
    batch(&rig, 1, 64);
    rig_close(&rig);
    memset(data, 0, sizeof data);
    struct wal__record forged = {.number = 900, .batch = 900, .kind = WAL__STATE, .term = 9};
    for (uint64_t at = 0; at + 64 <= sizeof data; at += 64)
        wal__encode_record(&forged, at % 128 ? 0 : rig_random(&rig, UINT64_MAX), data + at);
    powerless_disk_poke(rig.disk, LOG_1, FIRST + wal__record_bytes(64), data, sizeof data);
    rig_check(&rig, rig_open(&rig) == 0 && rig_check_contents(&rig), "opened: %s", rig.message);
    finish(&rig, "what looks like records without the segment's mark does not count");
}

/* Failures */

static void fail_a_batch(enum powerless_call call, int error, const char *what)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    batch(&rig, 3, 100);
    powerless_disk_fail(rig.disk, call, 1, 1, error);
    batch(&rig, 3, 100);
    tap_equal(rig.failed_calls, 1, "%s: failed is called once", what);
    tap_equal(rig.failed_error, error, "with the error");
    tap_ok(strcmp(rig.failed_file, LOG_1) == 0, "and the file");
    uint64_t changes = powerless_disk_changes(rig.disk);
    batch(&rig, 3, 100);
    wal_want_room(rig.wal, 1 << 20);
    rig_run(&rig);
    tap_equal(rig.failed_calls, 1, "not again");
    tap_equal(rig.durable_count, 3, "nothing more is durable");
    tap_equal(powerless_disk_changes(rig.disk), changes, "nothing more is written");
    rig.records_count = 6;
    rig_close(&rig);
    powerless_disk_kill(rig.disk);
    rig_check(&rig, rig_open(&rig) == 0 && rig_check_contents(&rig), "after a restart: %s",
              rig.message);
    rig_close(&rig);
    powerless_disk_cut(rig.disk, seed);
    rig_check(&rig, rig_open(&rig) == 0 && rig_check_contents(&rig), "after a cut: %s",
              rig.message);
    finish(&rig, what);
}

static void test_failures(void)
{
    fail_a_batch(POWERLESS_SYNC, -EIO, "a failed fdatasync");
    fail_a_batch(POWERLESS_WRITE, -EIO, "a failed write");
    fail_a_batch(POWERLESS_WRITE, -ENOSPC, "a write without room");
}

static void wait_for_room(struct rig *rig, uint64_t bytes)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    for (int i = 0; i < 1000 && wal_room(rig->wal) < bytes; i++) {
        wal_want_room(rig->wal, bytes);
        rig_run(rig);
        nanosleep(&pause, NULL);
    }
    rig_check(rig, wal_room(rig->wal) >= bytes, "no room came");
}

static void test_full_disk(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    powerless_disk_set_capacity(rig.disk, powerless_disk_used(rig.disk) + SMALL_SEGMENT_BYTES / 2);
    uint64_t used = powerless_disk_used(rig.disk);
    while (wal_room(rig.wal) >= 3000) {
        batch(&rig, 1, 2500);
        wal_want_room(rig.wal, 50000);
        rig_run(&rig);
    }
    tap_equal(rig.failed_calls, 0, "a full disk is no failure");
    tap_equal(powerless_disk_used(rig.disk), used, "what was begun is deleted");
    uint64_t creates = powerless_disk_count(rig.disk, POWERLESS_CREATE);
    for (int i = 0; i < 1000; i++) {
        wal_want_room(rig.wal, 50000);
        rig_run(&rig);
    }
    tap_ok(powerless_disk_count(rig.disk, POWERLESS_CREATE) <= creates + 2,
           "it is not tried again at once");
    uint64_t room = wal_room(rig.wal);
    rig_close(&rig);
    tap_ok(room < 3000 && rig_open(&rig) == -ENOSPC, "no start without room: %s", rig.message);
    powerless_disk_set_capacity(rig.disk, UINT64_MAX);
    rig_check(&rig, rig_open(&rig) == 0 && rig_check_contents(&rig), "opened: %s", rig.message);
    powerless_disk_set_capacity(rig.disk, powerless_disk_used(rig.disk));
    while (wal_room(rig.wal) >= 20000)
        batch(&rig, 1, 2500);
    rig_close(&rig);
    tap_equal(rig_open(&rig), 0, "a start with what is left of the reserve");
    while (wal_room(rig.wal) >= 3000)
        batch(&rig, 1, 2500);
    powerless_disk_set_capacity(rig.disk, UINT64_MAX);
    wait_for_room(&rig, 50000);
    batch(&rig, 8, 5000);
    tap_equal(rig.durable_count, rig.records_count, "room comes back when space does");
    reopen(&rig);
    finish(&rig, "a full disk");
}

static void test_failed_preparation(void)
{
    static const enum powerless_call calls[] = {POWERLESS_CREATE, POWERLESS_WRITE, POWERLESS_SYNC,
                                                POWERLESS_RENAME, POWERLESS_SYNC_DIRECTORY};
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        uint64_t room = wal_room(rig.wal);
        uint64_t used = powerless_disk_used(rig.disk);
        powerless_disk_fail(rig.disk, calls[i], 1, 1, -EIO);
        wal_want_room(rig.wal, room + 1);
        rig_run(&rig);
        rig_check(&rig, rig.failed_calls == 0 && wal_room(rig.wal) == room, "call %zu", i);
        rig_check(&rig, powerless_disk_used(rig.disk) == used, "call %zu leaves a file", i);
        wait_for_room(&rig, room + 1);
    }
    batch(&rig, 20, 4000);
    reopen(&rig);
    finish(&rig, "a segment that cannot be made is no failure, and is tried again");
}

static void test_no_room_at_start(void)
{
    struct rig rig;
    rig_init(&rig, seed, SEGMENT_BYTES);
    powerless_disk_set_capacity(rig.disk, SEGMENT_BYTES - 1);
    int error = rig_open(&rig);
    tap_ok(error == -ENOSPC && strstr(rig.message, RIG_DIRECTORY), "refused: %s", rig.message);
    powerless_disk_set_capacity(rig.disk, SEGMENT_BYTES);
    tap_equal(rig_open(&rig), 0, "one segment is enough");
    rig_close(&rig);
    powerless_disk_fail(rig.disk, POWERLESS_LIST, 1, 1, -EACCES);
    error = rig_open(&rig);
    tap_ok(error == -EACCES && strstr(rig.message, RIG_DIRECTORY), "refused: %s", rig.message);
    powerless_disk_fail(rig.disk, POWERLESS_OPEN, 1, 1, -EACCES);
    error = rig_open(&rig);
    tap_ok(error == -EACCES && strstr(rig.message, LOG_1), "refused: %s", rig.message);
    finish(&rig, "a start without room, or without rights");
}

/* A segment's name is there after a kill, on no disk: the next process must not trust it. */
static void test_name_that_is_not_durable(void)
{
    bool good = true;
    for (uint64_t i = 0; i < 20 && good; i++) {
        struct rig rig;
        rig_init(&rig, seed + i, SMALL_SEGMENT_BYTES);
        good = rig_open(&rig) == 0;
        uint64_t room = wal_room(rig.wal);
        powerless_disk_fail(rig.disk, POWERLESS_SYNC_DIRECTORY, 1, 1, -EIO);
        powerless_disk_fail(rig.disk, POWERLESS_UNLINK, 2, 1, -EIO);
        wal_want_room(rig.wal, room + 1);
        rig_run(&rig);
        rig_close(&rig);
        powerless_disk_kill(rig.disk);
        powerless_disk_set_capacity(rig.disk, powerless_disk_used(rig.disk));
        good = good && rig_check(&rig, rig_open(&rig) == 0, "opened: %s", rig.message);
        rig_check(&rig, wal_room(rig.wal) > room, "the segment is not there");
        while (!rig.error[0] && rig.wal->segment + 1 < rig.wal->segments_count)
            rig_next_entry(&rig, 4000);
        batch(&rig, 1, 4000);
        rig_close(&rig);
        powerless_disk_set_capacity(rig.disk, UINT64_MAX);
        powerless_disk_cut(rig.disk, i);
        rig_check(&rig, rig_open(&rig) == 0, "opened again: %s", rig.message);
        good = good && !rig.error[0] && rig_check_contents(&rig);
        if (!good)
            tap_note("%s", rig.error);
        rig_free(&rig);
    }
    tap_ok(good, "a name that a kill left not durable is made so");
}

static void test_leftovers(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    uint64_t used = powerless_disk_used(rig.disk);
    powerless_disk_stop_at(rig.disk, 3);
    wal_want_room(rig.wal, wal_room(rig.wal) + 1);
    rig_run(&rig);
    rig_close(&rig);
    powerless_disk_kill(rig.disk);
    tap_ok(powerless_disk_used(rig.disk) > used, "a kill leaves an unfinished file");
    reopen(&rig);
    tap_equal(powerless_disk_used(rig.disk), used, "the next start deletes it");
    finish(&rig, "unfinished files");
}

/* Closing */

static void test_close(void)
{
    struct rig rig;
    wal_close(NULL);
    start(&rig, SMALL_SEGMENT_BYTES);
    for (int i = 0; i < 100; i++) {
        rig_next_entry(&rig, 1000);
        rig_flush(&rig);
        wal_want_room(rig.wal, wal_room(rig.wal) + 1);
        rig_next_entry(&rig, 1000);
        rig_check(&rig, reopen(&rig), "closed in flight");
        if (wal_room(rig.wal) < 10000)
            wait_for_room(&rig, 50000);
    }
    rig.close_when_failed = true;
    powerless_disk_fail(rig.disk, POWERLESS_SYNC, 1, 1, -EIO);
    rig_next_entry(&rig, 10);
    rig_flush(&rig);
    rig_run(&rig);
    tap_ok(rig.failed_calls == 1 && !rig.wal, "closed from within a handler");
    finish(&rig, "a log is closed in flight");
}

/* The real disk */

static void test_real_disk(void)
{
    char directory[] = "/tmp/test_wal.XXXXXX";
    char path[64];
    struct stat status;
    struct rig rig;
    struct wal *wal = NULL;
    static const struct wal_handler quiet;

    rig_init(&rig, seed, 0);
    if (!mkdtemp(directory)) {
        tap_ok(false, "mkdtemp");
        return;
    }
    int error = wal_open(&rig.loop, &disk_real, directory, &quiet, NULL, rig.message,
                         sizeof rig.message, &wal);
    tap_ok(!error, "a log on a real disk is made %s", error ? rig.message : "");
    tap_equal(wal_disk_bytes(wal), 2 * LIMIT_SEGMENT_BYTES, "of two segments");
    wal_close(wal);
    error = wal_open(&rig.loop, &disk_real, directory, &quiet, NULL, rig.message,
                     sizeof rig.message, &wal);
    tap_ok(!error, "and opened again %s", error ? rig.message : "");
    wal_close(wal);
    for (int i = 1; i <= 2; i++) {
        snprintf(path, sizeof path, "%s/log-%016d", directory, i);
        tap_ok(stat(path, &status) == 0 && status.st_size == LIMIT_SEGMENT_BYTES &&
                   status.st_blocks * 512 >= LIMIT_SEGMENT_BYTES && (status.st_mode & 0777) == 0600,
               "segment %d is there, with its blocks", i);
        unlink(path);
    }
    rmdir(directory);
    error = wal_open(&rig.loop, &disk_real, directory, &quiet, NULL, rig.message,
                     sizeof rig.message, &wal);
    tap_ok(error == -ENOENT && strstr(rig.message, directory), "no directory: %s", rig.message);
    rig_free(&rig);
}

int main(void)
{
    const char *text = getenv("SEED");
    struct timespec now;

    setenv("UV_THREADPOOL_SIZE", "1", 1); /* the same order each time */
    clock_gettime(CLOCK_REALTIME, &now);
    seed = text ? strtoull(text, NULL, 0) : (uint64_t)now.tv_sec * 1000003 + now.tv_nsec;
    tap_note("SEED=%llu", (unsigned long long)seed);

    test_append_and_recover();
    test_group_commit();
    test_segments();
    test_room();
    test_replacing();
    test_divided_write();
    test_read();
    test_torn_tail();
    test_torn_first_batch_of_segment();
    test_stale_records();
    test_damage_in_the_middle();
    test_missing_and_short_files();
    test_other_version();
    test_forged_records();
    test_failures();
    test_full_disk();
    test_failed_preparation();
    test_no_room_at_start();
    test_name_that_is_not_durable();
    test_leftovers();
    test_close();
    test_real_disk();
    return tap_done();
}
