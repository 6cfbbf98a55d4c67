/* The log on disk: what each promise of fs/wal.h means. Damage is tested by test_wal_damage.c, loss
 * of power at random points by test_wal_power_loss.c. */
#include "tests/lib/tap.h"
#include "tests/lib/wal_rig.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_1 RIG_DIRECTORY "/log-0000000000000001"
#define LOG_2 RIG_DIRECTORY "/log-0000000000000002"

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

/* The last point of each test. */
static void finish(struct rig *rig, const char *what)
{
    if (!tap_ok(rig->error[0] == '\0', "%s", what))
        tap_note("%s", rig->error);
    rig_free(rig);
}

/* Appending and recovering */

static void test_append_and_recover(void)
{
    struct rig rig;
    start(&rig, SEGMENT_BYTES);
    rig_check(&rig, rig.states_count == 0 && rig.entries_count == 0, "a new log hands over");
    rig_state(&rig, false, 3, 1);
    rig_batch(&rig, 3, 100);
    tap_equal(rig.durable_count, 4, "a batch is reported durable as a whole");
    tap_equal(rig.durable_calls, 1, "with one call");
    rig_state(&rig, false, 4, 2);
    rig_batch(&rig, 1, 0);
    rig_reopen(&rig);
    tap_equal(rig.states_count, 1, "one state is handed over");
    tap_ok(rig.state_term == 4 && rig.state_vote == 2, "the latest");
    tap_equal(rig.entries_count, 4, "and each entry");
    rig_batch(&rig, 2, LIMIT_COMMAND_BYTES);
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
    rig_reopen(&rig);
    finish(&rig, "group commit");
}

/* What nobody waits for gets to the disk with what somebody waits for, or by itself, soon. */
static void test_unhurried(void)
{
    struct rig rig;
    start(&rig, SEGMENT_BYTES);
    uint64_t writes = powerless_disk_count(rig.disk, POWERLESS_WRITE);
    for (int i = 0; i < 3; i++) {
        rig_next_entry(&rig, 50);
        wal_flush_later(rig.wal);
        rig.write++;
        uv_run(&rig.loop, UV_RUN_NOWAIT);
    }
    tap_equal(rig.durable_count + powerless_disk_count(rig.disk, POWERLESS_WRITE) - writes, 0,
              "three records without hurry are not written at once");
    rig_next_entry(&rig, 50);
    rig_flush(&rig);
    rig_run(&rig);
    tap_equal(rig.durable_count, 4, "a hurried one takes them along");
    tap_equal(powerless_disk_count(rig.disk, POWERLESS_WRITE) - writes, 1, "in one write");
    tap_ok(!uv_loop_alive(&rig.loop), "and then nothing is left to wake up for");

    rig_next_entry(&rig, 50);
    uint64_t before = uv_hrtime();
    uv_update_time(&rig.loop);
    wal_flush_later(rig.wal);
    rig_run(&rig);
    uint64_t took_ms = (uv_hrtime() - before) / 1000000;
    tap_equal(rig.durable_count, 5, "one that is alone is durable all the same");
    tap_ok(took_ms + 1 >= LIMIT_UNHURRIED_MS, "not before its time (%llu ms)",
           (unsigned long long)took_ms);

    /* Behind a batch in flight. */
    writes = powerless_disk_count(rig.disk, POWERLESS_WRITE);
    rig_next_entry(&rig, 50);
    rig_flush(&rig);
    rig_next_entry(&rig, 50);
    wal_flush_later(rig.wal);
    rig.write++;
    while (rig.durable_count < 6)
        uv_run(&rig.loop, UV_RUN_ONCE);
    tap_equal(powerless_disk_count(rig.disk, POWERLESS_WRITE) - writes, 1,
              "the end of a batch does not hurry what came meanwhile");
    rig_next_entry(&rig, 50);
    wal_settle(rig.wal);
    tap_equal(rig.durable_count, 8, "all of it is durable when the log is settled");
    tap_equal(powerless_disk_count(rig.disk, POWERLESS_WRITE) - writes, 2, "by one write more");
    wal_flush_later(rig.wal);
    wal_flush(rig.wal);
    wal_settle(rig.wal);
    tap_ok(!uv_loop_alive(&rig.loop), "an empty queue starts nothing");

    rig_next_entry(&rig, 50);
    wal_flush_later(rig.wal);
    rig_reopen(&rig); /* closed while the timer runs */
    tap_equal(rig.entries_count, 8, "what was not hurried is gone when the log is closed");
    finish(&rig, "without hurry");
}

static void test_segments(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    for (int i = 0; i < 200; i++) {
        rig_batch(&rig, 1 + (size_t)rig_random(&rig, 5), (size_t)rig_random(&rig, 1500));
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
    rig_reopen(&rig);
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
        bool good = rig_reopen(&rig) && rig.error[0] == '\0';
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
        rig_batch(&rig, 1 + (size_t)rig_random(&rig, 12), 700);
        rig.term++;
        rig_entry(&rig, false, 1 + rig_random(&rig, rig_last_index(&rig)), 30);
        rig_flush(&rig);
        wal_want_room(rig.wal, 60000);
        rig_run(&rig);
        rig_check_contents(&rig);
    }
    tap_ok(rig.wal->segments_count > 8, "entries are replaced over many segments");
    rig_reopen(&rig);
    rig_entry(&rig, false, 1, 10);
    rig_flush(&rig);
    rig_run(&rig);
    rig_reopen(&rig);
    tap_equal(rig.entries_count, 1, "the first entry replaces all");
    finish(&rig, "entries with a lower index replace what came before");
}

/* A write that a segment's end divides is durable with its last record. */
static void test_divided_write(void)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    rig_batch(&rig, 1, 10);
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
        rig_batch(&rig, 4, 900);
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

/* Failures */

static void fail_a_batch(enum powerless_call call, int error, const char *what)
{
    struct rig rig;
    start(&rig, SMALL_SEGMENT_BYTES);
    rig_batch(&rig, 3, 100);
    powerless_disk_fail(rig.disk, call, 1, 1, error);
    rig_batch(&rig, 3, 100);
    tap_equal(rig.failed_calls, 1, "%s: failed is called once", what);
    tap_equal(rig.failed_error, error, "with the error");
    tap_ok(strcmp(rig.failed_file, LOG_1) == 0, "and the file");
    uint64_t changes = powerless_disk_changes(rig.disk);
    rig_batch(&rig, 3, 100);
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
        rig_batch(&rig, 1, 2500);
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
        rig_batch(&rig, 1, 2500);
    rig_close(&rig);
    tap_equal(rig_open(&rig), 0, "a start with what is left of the reserve");
    while (wal_room(rig.wal) >= 3000)
        rig_batch(&rig, 1, 2500);
    powerless_disk_set_capacity(rig.disk, UINT64_MAX);
    wait_for_room(&rig, 50000);
    rig_batch(&rig, 8, 5000);
    tap_equal(rig.durable_count, rig.records_count, "room comes back when space does");
    rig_reopen(&rig);
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
    rig_batch(&rig, 20, 4000);
    rig_reopen(&rig);
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
        rig_batch(&rig, 1, 4000);
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
    rig_reopen(&rig);
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
        rig_check(&rig, rig_reopen(&rig), "closed in flight");
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
    int error = wal_open(&rig.loop, &disk_real, directory, NULL, &quiet, NULL, rig.message,
                         sizeof rig.message, &wal);
    tap_ok(!error, "a log on a real disk is made %s", error ? rig.message : "");
    tap_equal(wal_disk_bytes(wal), 2 * LIMIT_SEGMENT_BYTES, "of two segments");
    wal_close(wal);
    error = wal_open(&rig.loop, &disk_real, directory, NULL, &quiet, NULL, rig.message,
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
    error = wal_open(&rig.loop, &disk_real, directory, NULL, &quiet, NULL, rig.message,
                     sizeof rig.message, &wal);
    tap_ok(error == -ENOENT && strstr(rig.message, directory), "no directory: %s", rig.message);
    rig_free(&rig);
}

int main(void)
{
    seed = rig_seed();
    tap_note("SEED=%llu", (unsigned long long)seed);

    test_append_and_recover();
    test_group_commit();
    test_unhurried();
    test_segments();
    test_room();
    test_replacing();
    test_divided_write();
    test_read();
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
