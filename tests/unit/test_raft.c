/*
 * The consensus core with one voter: each rule, restarts after every prefix of what could be on
 * disk, and random runs against what a server may at most have promised.
 *
 * SEED=number replays the random runs of an earlier call.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/raft_rig.h"

enum {
    HISTORIES = 400,
    LIVES = 12,
    EVENTS_PER_LIFE = 60,
};

static void test_init(void)
{
    const struct raft_config good = only_voter();
    const struct raft_member nobody[] = {{.id = 0, .voter = true}};
    const struct raft_member twice[] = {{.id = 1, .voter = true}, {.id = 1}};
    const struct raft_member learner[] = {{.id = 1}};
    struct raft_member many[RAFT_MEMBERS_MAX + 1];
    struct raft_config bad[9];
    size_t count = 0;
    void *memory = aligned_alloc(16, raft_size());
    struct raft *raft = NULL;

    for (size_t i = 0; i <= RAFT_MEMBERS_MAX; i++)
        many[i] = (struct raft_member){.id = i + 1, .voter = i <= RAFT_VOTERS_MAX};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        bad[i] = good;
    bad[count++].id = 0;
    bad[count++].heartbeat_ms = 0;
    bad[count++].election_ms = 2 * RIG_HEARTBEAT_MS;
    bad[count++].election_ms = 2 * RIG_HEARTBEAT_MS + 1;
    bad[count++].members = nobody;
    bad[count].members_count = 2;
    bad[count++].members = twice;
    bad[count++].members = learner;
    bad[count].members_count = RAFT_VOTERS_MAX + 1;
    bad[count++].members = many;
    bad[count].members_count = RAFT_MEMBERS_MAX + 1;
    bad[count++].members = many + 1;

    tap_equal(raft_size() % 16, 0, "the size is a multiple of 16");
    for (size_t i = 0; i < count; i++)
        tap_ok(raft_init(memory, &bad[i], &raft) == RAFT_ERR_CONFIG && raft == NULL,
               "configuration %zu is refused", i);
    tap_ok(raft_init(memory, &good, &raft) == RAFT_OK && raft != NULL, "a good one is not");

    many[RAFT_VOTERS_MAX].voter = false;
    bad[0] = good;
    bad[0].members = many;
    bad[0].members_count = RAFT_MEMBERS_MAX;
    tap_equal(raft_init(memory, &bad[0], &raft), RAFT_OK,
              "as many members and voters as the limits say");
    bad[0].members_count = 0;
    tap_equal(raft_init(memory, &bad[0], &raft), RAFT_OK, "a server that joins later knows none");
    free(memory);

    tap_ok(strcmp(raft_error_text(RAFT_OK), "no error") == 0, "RAFT_OK has a text");
    tap_ok(strcmp(raft_error_text((enum raft_error)99), "unknown error") == 0,
           "a number that is no error has a text");
}

/* Thesis 3.4, 3.8, 6.4. */
static void test_election(void)
{
    struct server *server = server_new();

    refuses(server, propose_event(1), RAFT_ERR_NOT_LEADER, "a proposal before the start");

    tap_equal(step(server, start_event), RAFT_OK, "start");
    tap_ok(action_at(server, 0)->type == RAFT_ACTION_PERSIST_STATE &&
               action_at(server, 0)->persist_state.term == 1 &&
               action_at(server, 0)->persist_state.vote == 1,
           "term and vote are one write, and the first action");
    tap_ok(server->actions.count == 2 && server->role == RAFT_CANDIDATE, "then it is a candidate");
    refuses(server, propose_event(1), RAFT_ERR_NOT_LEADER, "a proposal to a candidate");

    tap_equal(step(server, persisted_event(1)), RAFT_OK, "the vote is durable");
    tap_ok(server->actions.count == 2 && action_at(server, 0)->type == RAFT_ACTION_ROLE &&
               server->role == RAFT_LEADER,
           "only then it is leader");
    tap_ok(action_at(server, 1)->type == RAFT_ACTION_PERSIST_ENTRIES &&
               action_at(server, 1)->persist_entries.entry.type == RAFT_ENTRY_NOOP &&
               action_at(server, 1)->persist_entries.first == 1 &&
               action_at(server, 1)->persist_entries.last == 1,
           "it appends a no-op");
    tap_equal(server->commit, 0, "the no-op is not committed before it is durable");

    tap_equal(step(server, persisted_event(2)), RAFT_OK, "the no-op is durable");
    tap_ok(server->actions.count == 1 && server->commit == 1, "it is committed");
    no_violations("election");
    server_free(server);
}

/* Thesis 3.5, 3.6.2, 10.2.1. */
static void test_propose(void)
{
    struct server *server = server_new();

    step(server, start_event);
    step(server, persisted_event(1));
    tap_equal(step(server, propose_event(3)), RAFT_OK, "a leader takes proposals at once");
    tap_ok(server->actions.count == 1 &&
               action_at(server, 0)->type == RAFT_ACTION_PERSIST_ENTRIES &&
               action_at(server, 0)->persist_entries.write == 3 &&
               action_at(server, 0)->persist_entries.first == 2 &&
               action_at(server, 0)->persist_entries.last == 4 &&
               action_at(server, 0)->persist_entries.entry.type == RAFT_ENTRY_COMMAND,
           "three commands are one write");
    step(server, propose_event(1));
    step(server, propose_event(2));
    tap_equal(raft_get_last_index(server->raft), 7, "the log grows");

    step(server, persisted_event(3));
    tap_equal(server->commit, 4, "a joined report commits what it covers, and not more");
    tap_ok(server->actions.count == 1, "as one action");
    step(server, persisted_event(2));
    tap_ok(server->actions.count == 0 && server->commit == 4, "an older report says nothing new");
    step(server, persisted_event(3));
    tap_ok(server->actions.count == 0 && server->commit == 4, "nor does the same one again");
    step(server, persisted_event(5));
    tap_equal(server->commit, 7, "the rest is committed");

    tap_equal(raft_get_term_at(server->raft, 0), 0, "there is no entry 0");
    tap_equal(raft_get_term_at(server->raft, 7), 1, "the last entry has a term");
    tap_equal(raft_get_term_at(server->raft, 8), 0, "the one after it has none");
    no_violations("proposals");
    server_free(server);
}

static void test_recovery(void)
{
    struct server *server = server_new();

    /* Before any state, since the order of the two is open. */
    tap_equal(step(server, entry_event(1, 1)), RAFT_OK, "a first entry is recovered");
    refuses(server, start_event, RAFT_ERR_LOG, "entries without a state");
    tap_equal(step(server, state_event(5, 1)), RAFT_OK, "a state is recovered");
    tap_equal(step(server, entry_event(2, 3)), RAFT_OK, "a second entry is recovered");
    tap_equal(step(server, entry_event(3, 3)), RAFT_OK, "a third entry is recovered");

    refuses(server, entry_event(5, 3), RAFT_ERR_LOG, "a gap");
    refuses(server, entry_event(3, 3), RAFT_ERR_LOG, "an entry again");
    refuses(server, entry_event(0, 3), RAFT_ERR_LOG, "an entry 0");
    refuses(server, entry_event(4, 2), RAFT_ERR_LOG, "a term that goes back");
    refuses(server, state_event(4, 1), RAFT_ERR_LOG, "a state whose term goes back");
    refuses(server, state_event(5, 2), RAFT_ERR_LOG, "a second vote in a term");
    refuses(server, state_event(5, 0), RAFT_ERR_LOG, "a vote taken back in its term");
    refuses(server, propose_event(1), RAFT_ERR_NOT_LEADER, "a proposal during recovery");
    tap_equal(step(server, state_event(5, 1)), RAFT_OK, "the same state again is no harm");
    tap_equal(step(server, state_event(6, 0)), RAFT_OK, "nor is a newer one without a vote");
    tap_equal(step(server, state_event(6, 2)), RAFT_OK, "nor is the vote of that one");

    tap_equal(step(server, start_event), RAFT_OK, "start");
    tap_equal(raft_get_term(server->raft), 7, "in a new term");
    tap_equal(raft_get_last_index(server->raft), 3, "with the log as it was");
    tap_equal(raft_get_durable(server->raft), 3, "which counts as durable");
    tap_ok(raft_get_term_at(server->raft, 1) == 1 && raft_get_term_at(server->raft, 2) == 3 &&
               raft_get_term_at(server->raft, 3) == 3,
           "and its terms");
    server_free(server);

    server = server_new();
    refuses(server, entry_event(2, 1), RAFT_ERR_LOG, "a first entry that is not 1");
    refuses(server, entry_event(1, 0), RAFT_ERR_LOG, "an entry of term 0");
    refuses(server, state_event(0, 1), RAFT_ERR_LOG, "a vote in term 0");
    tap_equal(step(server, state_event(0, 0)), RAFT_OK, "an empty state");
    step(server, state_event(2, 1));
    step(server, entry_event(1, 3));
    refuses(server, start_event, RAFT_ERR_LOG, "an entry of a later term than the state's");
    no_violations("recovery");
    server_free(server);
}

/* Pitfall: entries of an older term are on a quorum of disks, which does not commit them (3.6.2).
 */
static void test_own_term_guard(void)
{
    struct server *server = server_new();

    step(server, state_event(2, 1));
    step(server, entry_event(1, 1));
    step(server, entry_event(2, 2));
    add_record(server, (struct record){.term = 2, .vote = 1});
    add_record(server, (struct record){.term = 1, .index = 1, .name = 1});
    add_record(server, (struct record){.term = 2, .index = 2, .name = 2});
    server->names = 2;

    step(server, start_event);
    tap_equal(raft_get_commit(server->raft), 0, "a start commits nothing");
    step(server, persisted_event(1));
    tap_ok(server->role == RAFT_LEADER && raft_get_commit(server->raft) == 0,
           "durable entries of older terms are not committed by counting");
    step(server, persisted_event(2));
    tap_equal(raft_get_commit(server->raft), 3, "but along with the no-op");
    no_violations("own-term guard");
    server_free(server);
}

/* Pitfall: the leader's own write fails, and it uses index and term again. */
static void test_failed_write(void)
{
    struct server *server = new_leader();

    step(server, propose_event(2));
    tap_equal(step(server, failed_event), RAFT_OK, "a write fails");
    tap_ok(server->actions.count == 1 && action_at(server, 0)->type == RAFT_ACTION_ROLE &&
               server->role == RAFT_FAILED,
           "the server is out of it");
    refuses(server, propose_event(1), RAFT_ERR_FAILED, "a proposal");
    refuses(server, (struct raft_event){.type = RAFT_EVENT_PERSISTED, .persisted = {.write = 3}},
            RAFT_ERR_FAILED, "a late report that the write is durable");
    refuses(server, failed_event, RAFT_ERR_FAILED, "a second failure");
    refuses(server, start_event, RAFT_ERR_FAILED, "a start");
    refuses(server, state_event(9, 0), RAFT_ERR_FAILED, "a state");
    refuses(server, entry_event(9, 9), RAFT_ERR_FAILED, "an entry");
    tap_equal(raft_get_commit(server->raft), 1, "nothing more is committed");

    /* One of the two entries of the failed write is on disk after all, and stays, under its own
     * term; what comes next has another. */
    restart(server, 3);
    step(server, persisted_event(1));
    step(server, persisted_event(2));
    tap_ok(raft_get_term_at(server->raft, 2) == 1 && raft_get_term_at(server->raft, 3) == 2,
           "after a restart the index is used in a new term only");
    no_violations("failed write");
    server_free(server);

    server = server_new();
    step(server, start_event);
    step(server, failed_event);
    tap_equal(raft_get_role(server->raft), RAFT_FAILED, "a vote that cannot be written elects not");
    no_violations("failed vote");
    server_free(server);
}

/* A fixed run of `events` events, with reports that lag and are joined. */
static void scripted_run(struct server *server, int events)
{
    const struct raft_event script[] = {
        start_event,        persisted_event(1), propose_event(2),   persisted_event(2),
        propose_event(1),   propose_event(3),   persisted_event(4), propose_event(1),
        persisted_event(5), persisted_event(6), propose_event(2),
    };

    check((size_t)events <= sizeof(script) / sizeof(script[0]));
    for (int i = 0; i < events; i++)
        check(step(server, script[i]) == RAFT_OK);
}

static void reelect(struct server *server)
{
    check(step(server, persisted_event(1)) == RAFT_OK);
    check(step(server, propose_event(1)) == RAFT_OK);
    check(step(server, persisted_event(3)) == RAFT_OK);
    check(server->role == RAFT_LEADER);
    check(server->commit == raft_get_last_index(server->raft));
    check(server->commit >= server->committed_max);
}

/* Power is lost after each event of a run, with each possible rest of what was under way on disk;
 * then again during the recovery. */
static void test_restarts(void)
{
    enum { SCRIPT = 11 };
    int restarts = 0;

    for (int events = 1; events <= SCRIPT; events++) {
        for (int fails = 0; fails <= 1; fails++) {
            for (size_t lost = 0;; lost++) {
                struct server *server = server_new();
                size_t kept;
                scripted_run(server, events);
                if (fails)
                    check(step(server, failed_event) == RAFT_OK);
                kept = records_reported(server) + lost;
                if (kept > server->records_count) {
                    server_free(server);
                    break;
                }
                restart(server, kept);
                restart(server, server->records_count);
                restart(server, kept);
                reelect(server);
                restart(server, server->records_count);
                reelect(server);
                server_free(server);
                restarts++;
            }
        }
    }
    tap_ok(restarts > 2 * SCRIPT, "restarts after each point of a run (%d)", restarts);
    no_violations("restarts");
}

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t random_below(uint64_t *state, uint64_t limit)
{
    return random_next(state) % limit;
}

static void test_random(void)
{
    const char *given = getenv("SEED");
    const uint64_t seed = given != NULL ? strtoull(given, NULL, 0)
                                        : (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
    struct server *server = server_new();
    uint64_t state = seed;
    long elected = 0, commits = 0, failures = 0, lost_records = 0, joined = 0;

    tap_note("SEED=%llu", (unsigned long long)seed);
    for (int history = 0; history < HISTORIES && violations == 0; history++) {
        memset((char *)server + offsetof(struct server, records), 0,
               sizeof(*server) - offsetof(struct server, records));
        for (int life = 0; life < LIVES; life++) {
            size_t reported = records_reported(server);
            size_t kept = reported + random_below(&state, server->records_count - reported + 1);
            lost_records += (long)(server->records_count - kept);
            restart(server, kept);
            for (int i = 0; i < EVENTS_PER_LIFE; i++) {
                const uint64_t dice = random_below(&state, 100);
                const uint64_t commit_before = server->commit;
                const enum raft_role role_before = server->role;
                const uint64_t outstanding = server->issued - server->reported;
                if (dice < 50) {
                    uint32_t count = 1 + (uint32_t)random_below(&state, 4);
                    enum raft_error error = step(server, propose_event(count));
                    check(error == (role_before == RAFT_LEADER   ? RAFT_OK
                                    : role_before == RAFT_FAILED ? RAFT_ERR_FAILED
                                                                 : RAFT_ERR_NOT_LEADER));
                } else if (dice < 95 && outstanding > 0 && role_before != RAFT_FAILED) {
                    uint64_t write = server->reported + 1 + random_below(&state, outstanding);
                    joined += write > server->reported + 1;
                    check(step(server, persisted_event(write)) == RAFT_OK);
                    check(server->role == RAFT_LEADER);
                } else if (dice == 99 && role_before != RAFT_FAILED) {
                    check(step(server, failed_event) == RAFT_OK);
                    failures++;
                }
                elected += role_before == RAFT_CANDIDATE && server->role == RAFT_LEADER;
                commits += server->commit != commit_before;
            }
        }
        /* With a sound disk everything ends up committed. */
        restart(server, server->records_count);
        reelect(server);
    }
    tap_note("%ld elections, %ld commits, %ld joined reports, %ld failures, %ld records lost",
             elected, commits, joined, failures, lost_records);
    tap_ok(elected > 0 && commits > 0 && joined > 0 && failures > 0 && lost_records > 0,
           "random runs saw every kind of event");
    if (violations > 0)
        tap_note("replay: SEED=%llu %s", (unsigned long long)seed, program_invocation_name);
    no_violations("random runs");
    server_free(server);
}

static void test_duties(void)
{
    struct server *server = server_new();

    aborts(server, compacted_event(1), "a compaction before the start");

    aborts(server, persisted_event(1), "a report before there is a write");
    step(server, start_event);
    aborts(server, start_event, "a second start");
    aborts(server, state_event(3, 0), "a state after the start");
    aborts(server, entry_event(1, 1), "an entry after the start");
    aborts(server, snapshot_event(1, 1), "a snapshot after the start");
    aborts(server, compacted_event(1), "a compaction of what is not committed");
    aborts(server, persisted_event(2), "a report of a write never issued");
    aborts(server, persisted_event(0), "a report of write 0");
    step(server, persisted_event(1));
    aborts(server, propose_event(0), "a proposal of nothing");
    aborts(server, (struct raft_event){.type = (enum raft_event_type)99}, "an unknown event");
    no_violations("duties");
    server_free(server);
}

int main(void)
{
    test_init();
    test_election();
    test_propose();
    test_recovery();
    test_own_term_guard();
    test_failed_write();
    test_restarts();
    test_random();
    test_duties();
    return tap_done();
}
