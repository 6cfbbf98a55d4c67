/* Dropping the front of the log behind a snapshot: which files go, in which order, and what stays.
 */
#include <errno.h>
#include <stdio.h>

#include "tests/lib/tap.h"
#include "tests/lib/wal_rig.h"

enum { SEGMENT_BYTES = 24 << 10, ENTRY_BYTES = 5000, ENTRIES = 30 };

/* A state, and then entries in many small files. */
static void fill(struct rig *rig)
{
    rig_init(rig, 1, SEGMENT_BYTES);
    rig_open(rig);
    rig_state(rig, false, 7, 3);
    for (int i = 0; i < ENTRIES; i++) {
        rig_batch(rig, 1, ENTRY_BYTES);
        wal_want_room(rig->wal, SEGMENT_BYTES);
        rig_run(rig);
    }
}

/* The numbers of the first and the last file; false where one between is missing. */
static bool files(struct rig *rig, uint64_t *ret_first, uint64_t *ret_last)
{
    char byte;
    uint64_t count = 0;
    *ret_first = *ret_last = 0;
    for (uint64_t number = 1; number < 100; number++) {
        struct wal__path path = wal__path(RIG_DIRECTORY, number, "");
        if (!powerless_disk_peek(rig->disk, path.text, 0, &byte, 1))
            continue;
        count++;
        *ret_first = *ret_first ? *ret_first : number;
        *ret_last = number;
    }
    return count == *ret_last - *ret_first + 1;
}

struct found {
    uint64_t term;
    uint64_t vote;
    uint64_t first;
    uint64_t last;
};

static void on_state(void *context, uint64_t term, uint64_t vote)
{
    struct found *found = context;
    found->term = term;
    found->vote = vote;
}

static void on_entry(void *context, uint64_t index, uint64_t term, uint32_t type, const char *data,
                     size_t len)
{
    (void)type;
    (void)data;
    (void)len;
    struct found *found = context;
    (void)term;
    found->first = found->first ? found->first : index;
    found->last = index;
}

static const struct wal_handler handler = {.state = on_state, .entry = on_entry};

/* Opens the log as a start with a snapshot does, and closes it. */
static int look(struct rig *rig, uint64_t snapshot_index, struct found *ret_found)
{
    struct wal_options options = {.segment_bytes = SEGMENT_BYTES, .snapshot_index = snapshot_index};
    struct wal *wal = NULL;
    *ret_found = (struct found){0};
    rig_close(rig);
    int error = wal_open(&rig->loop, powerless_disk_calls(rig->disk), RIG_DIRECTORY, &options,
                         &handler, ret_found, rig->message, sizeof rig->message, &wal);
    wal_close(wal);
    rig_run(rig);
    return error;
}

static void test_drop(void)
{
    struct rig rig;
    struct found found;
    uint64_t first, last, before;

    fill(&rig);
    files(&rig, &first, &before);
    tap_ok(before > 6, "there are %d files", (int)before);
    wal_drop_until(rig.wal, 1);
    rig_run(&rig);
    files(&rig, &first, &last);
    tap_equal(first, 1, "the file with the last entry of the snapshot stays");
    wal_drop_until(rig.wal, ENTRIES - 5);
    rig_run(&rig);
    tap_ok(files(&rig, &first, &last) && first > 3 && last >= before, "the files before it go");
    tap_equal(rig.durable_write, rig.write - 1, "no write is reported that nobody made");
    rig_batch(&rig, 3, ENTRY_BYTES);
    tap_equal(look(&rig, ENTRIES - 5, &found), 0, "what is left is a log");
    tap_ok(found.term == 7 && found.vote == 3,
           "term and vote are not lost with the file they were in");
    tap_ok(found.first <= ENTRIES - 5 && found.last == ENTRIES + 3, "nor is any later entry");
    tap_equal(look(&rig, 0, &found), -EBADMSG, "without a snapshot it is refused: %s", rig.message);
    tap_equal(look(&rig, 2, &found), -EBADMSG, "with an older one, too: %s", rig.message);
    tap_equal(look(&rig, ENTRIES + 4, &found), -EBADMSG, "and one that ends behind it: %s",
              rig.message);
    rig_free(&rig);
}

/* What cannot be removed stays, and so does all behind it. */
static void test_failures(enum powerless_call call, const char *name)
{
    struct rig rig;
    struct found found;
    uint64_t first, last;

    fill(&rig);
    powerless_disk_fail(rig.disk, call, call == POWERLESS_UNLINK ? 2 : 3, 1, -EIO);
    wal_drop_until(rig.wal, ENTRIES - 5);
    rig_run(&rig);
    bool whole = files(&rig, &first, &last);
    tap_ok(whole && first > 1 && first < 5, "%s: up to there the files are gone", name);
    tap_equal(rig.failed_calls, 0, "%s: the log works on", name);
    rig.wal->drop_retry_at_ms = 0;
    rig_batch(&rig, 1, ENTRY_BYTES);
    tap_ok(files(&rig, &first, &last) && first >= 5, "%s: the next try goes on from there", name);
    tap_equal(look(&rig, ENTRIES - 5, &found), 0, "%s: what is left is a log", name);
    rig_free(&rig);
}

int main(void)
{
    rig_seed();
    test_drop();
    test_failures(POWERLESS_UNLINK, "a file that cannot be removed");
    test_failures(POWERLESS_SYNC_DIRECTORY, "a directory that cannot be synced");
    return tap_done();
}
