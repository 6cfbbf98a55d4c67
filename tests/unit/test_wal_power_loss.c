/*
 * The log on disk under loss of power, kills and failed writes, at random points, those in the
 * middle of recovery included. SEED replays a run, POINTS says how many points there are.
 */
#include "tests/lib/tap.h"
#include "tests/lib/wal_rig.h"

#include <errno.h>

enum {
    POINTS_DEFAULT = 3000,
    POINTS_OF_ONE_DISK = 40,
    SEGMENT_BYTES = 48 << 10,
};

struct counts {
    uint64_t points;
    uint64_t in_recovery;
    uint64_t kills;
    uint64_t cuts;
    uint64_t failures;
    uint64_t recovered;
    uint64_t undurable_recovered;
    uint64_t undurable_lost;
    uint64_t durable_calls;
    uint64_t segments_max;
};

/* Appends until something happens. */
static void work(struct rig *rig)
{
    for (int round = 0; round < 60 && !powerless_disk_stopped(rig->disk) && !rig->failed_calls;
         round++) {
        for (int batch = 0; batch < 2; batch++) {
            uint64_t count = rig_random(rig, 12);
            for (uint64_t i = 0; i < count && wal_room(rig->wal) >=
                                                  LIMIT_COMMAND_BYTES + LIMIT_RECORD_OVERHEAD_BYTES;
                 i++)
                rig_random_record(rig);
            /* The second half waits behind the first. */
            rig_flush(rig);
        }
        wal_want_room(rig->wal, 30000 + rig_random(rig, 60000));
        rig_run(rig);
        rig_check(rig, rig->failed_calls || rig->durable_count == rig->records_count,
                  "idle, with %zu of %zu records durable", rig->durable_count, rig->records_count);
    }
}

static void set_trap(struct rig *rig, struct counts *counts)
{
    switch (rig_random(rig, 8)) {
    case 0:
        powerless_disk_stop_at(rig->disk, 1 + rig_random(rig, 8)); /* in recovery, likely */
        break;
    case 1:
        powerless_disk_fail(rig->disk, POWERLESS_SYNC, 1 + rig_random(rig, 20), 1, -EIO);
        counts->failures++;
        break;
    case 2:
        powerless_disk_fail(rig->disk, POWERLESS_WRITE, 1 + rig_random(rig, 40), 1, -ENOSPC);
        counts->failures++;
        break;
    default:
        powerless_disk_stop_at(rig->disk, 1 + rig_random(rig, 120));
        break;
    }
}

/* From one opening to the end of the process or of the power. Returns whether all is well. */
static bool one_point(struct rig *rig, struct counts *counts)
{
    size_t appended = rig->records_count;
    size_t durable = rig->durable_count;

    counts->points++;
    set_trap(rig, counts);
    int error = rig_open(rig);
    if (error) {
        /* A fault in recovery refuses the log, and never as one that has lost data. */
        rig_check(rig, error == -EIO || error == -ENOSPC, "not opened: %s", rig->message);
        counts->in_recovery++;
    } else {
        counts->recovered++;
        counts->undurable_recovered += rig->records_count - durable;
        counts->undurable_lost += appended - rig->records_count;
        rig_check(rig, powerless_disk_stopped(rig->disk) || rig_check_contents(rig), "contents");
        work(rig);
        if (rig->wal->segments_count > counts->segments_max)
            counts->segments_max = rig->wal->segments_count;
        rig_close(rig);
    }
    if (rig_random(rig, 3) == 0) {
        powerless_disk_kill(rig->disk);
        counts->kills++;
    } else {
        powerless_disk_cut(rig->disk, rig_random(rig, UINT64_MAX));
        counts->cuts++;
    }
    powerless_disk_fail(rig->disk, POWERLESS_SYNC, 1, 0, 0);
    powerless_disk_fail(rig->disk, POWERLESS_WRITE, 1, 0, 0);
    return rig->error[0] == '\0';
}

static bool one_disk(uint64_t seed, uint64_t points, struct counts *counts)
{
    struct rig rig;
    bool good = true;

    rig_init(&rig, seed, SEGMENT_BYTES);
    /* Where all records have one size, a stale one can stand just where the next one goes. */
    if (seed % 2)
        rig.fixed_len = 500;
    for (uint64_t i = 0; i < points && good; i++)
        good = one_point(&rig, counts);
    if (good) {
        good = rig_check(&rig, rig_open(&rig) == 0, "not opened at the end: %s", rig.message) &&
               rig_check_contents(&rig) && rig.error[0] == '\0';
    }
    counts->durable_calls += rig.durable_calls;
    if (!good)
        tap_note("disk %llu: %s", (unsigned long long)seed, rig.error);
    rig_free(&rig);
    return good;
}

int main(void)
{
    const char *points_text = getenv("POINTS");
    struct counts counts = {0};
    bool good = true;

    uint64_t seed = rig_seed();
    uint64_t points = points_text ? strtoull(points_text, NULL, 0) : POINTS_DEFAULT;
    tap_note("SEED=%llu", (unsigned long long)seed);

    for (uint64_t disk = 0; counts.points < points && good; disk++)
        good = one_disk(seed + disk, POINTS_OF_ONE_DISK, &counts);
    tap_ok(good, "%llu points: nothing durable is lost, what is recovered is a beginning",
           (unsigned long long)counts.points);
    if (!good)
        tap_note("replay: SEED=%llu", (unsigned long long)seed);
    tap_note("%llu cuts, %llu kills, %llu failures set, %llu openings failed, %llu worked",
             (unsigned long long)counts.cuts, (unsigned long long)counts.kills,
             (unsigned long long)counts.failures, (unsigned long long)counts.in_recovery,
             (unsigned long long)counts.recovered);
    tap_note("%llu batches durable; records not durable: %llu recovered, %llu lost; %llu segments",
             (unsigned long long)counts.durable_calls,
             (unsigned long long)counts.undurable_recovered,
             (unsigned long long)counts.undurable_lost, (unsigned long long)counts.segments_max);
    tap_ok(counts.in_recovery > 0 && counts.undurable_recovered > 0 && counts.undurable_lost > 0 &&
               counts.durable_calls > counts.points && counts.segments_max > 3,
           "each of these happened");
    return tap_done();
}
