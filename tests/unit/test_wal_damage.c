/* The log on disk, damaged: what was torn is cut off, what was lost in the middle is refused. */
#include "tests/lib/tap.h"
#include "tests/lib/wal_rig.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <isa-l/crc.h>

#define LOG_1 RIG_DIRECTORY "/log-0000000000000001"
#define LOG_2 RIG_DIRECTORY "/log-0000000000000002"
#define LOG_3 RIG_DIRECTORY "/log-0000000000000003"

enum {
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
    rig_batch(&rig, DURABLE, 100);
    rig_batch(&rig, TORN, 333);
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
        rig_batch(&rig, 1, 40);
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
        rig_batch(&rig, 1, 8000);
    rig_batch(&rig, 3, 200);
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
    rig_batch(&rig, 2, 8000);
    rig_reopen(&rig);
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
    rig_batch(&rig, next_segment ? (SMALL_SEGMENT_BYTES - FIRST) / record : 2, 1000);
    const char *file = next_segment ? LOG_2 : LOG_1;
    uint64_t torn_at = next_segment ? FIRST : rig.wal->offset;
    size_t durable = rig.records_count;
    rig_batch(&rig, 6, 1000);
    rig_close(&rig);
    powerless_disk_poke(rig.disk, file, torn_at, zeros, record);
    rig.durable_count = durable;
    powerless_disk_fail(rig.disk, POWERLESS_SYNC, next_segment ? 2 : 1, 1, -EIO);
    rig_check(&rig, rig_open(&rig) == -EIO, "a failed fdatasync is ignored");
    powerless_disk_kill(rig.disk);
    rig_check(&rig, rig_open(&rig) == 0, "opened: %s", rig.message);
    rig_batch(&rig, 1, 1000);
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
    rig_batch(&rig, 1, 100);
    rig_batch(&rig, 2, 77);
    size_t early = bytes_of(&rig, 0, 3);
    rig_batch(&rig, 1, 10);
    while (rig.wal->segment == 0)
        rig_batch(&rig, 1, 5000);
    rig_batch(&rig, 3, 100);
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
        rig_batch(&rig, 1, 7000);
    rig_check(&rig, rig.wal->segment >= 2, "the spare is not used");
    rig_reopen(&rig);
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
        rig_batch(&rig, 1, 5000);
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
    rig_batch(&rig, 1, 10);
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
    rig_batch(&rig, 1, 64);
    rig_close(&rig);
    memset(data, 0, sizeof data);
    struct wal__record forged = {.number = 900, .batch = 900, .kind = WAL__STATE, .term = 9};
    for (uint64_t at = 0; at + 64 <= sizeof data; at += 64)
        wal__encode_record(&forged, at % 128 ? 0 : rig_random(&rig, UINT64_MAX), data + at);
    powerless_disk_poke(rig.disk, LOG_1, FIRST + wal__record_bytes(64), data, sizeof data);
    rig_check(&rig, rig_open(&rig) == 0 && rig_check_contents(&rig), "opened: %s", rig.message);
    finish(&rig, "what looks like records without the segment's mark does not count");
}

int main(void)
{
    seed = rig_seed();
    tap_note("SEED=%llu", (unsigned long long)seed);

    test_torn_tail();
    test_torn_first_batch_of_segment();
    test_stale_records();
    test_damage_in_the_middle();
    test_missing_and_short_files();
    test_other_version();
    test_forged_records();
    return tap_done();
}
