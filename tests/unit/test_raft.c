/*
 * The consensus core with one voter: each rule, each limit, restarts after every prefix of what
 * could be on disk, and random runs against what a server may at most have promised.
 *
 * SEED=number replays the random runs of an earlier call.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "raft/internal.h"
#include "raft/raft.h"
#include "tests/lib/tap.h"

enum {
    RECORDS_MAX = 4096,
    HISTORIES = 400,
    LIVES = 12,
    EVENTS_PER_LIFE = 60,
};

/* Violations found by check(), which is for what is checked too often to be a test point each. */
static long violations;

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition) && violations++ < 20)                                                     \
            tap_note("%s:%d: violated: %s", __FILE__, __LINE__, #condition);                       \
    } while (0)

/* One record of a disk: a state (index 0) or an entry, named by a number that no other entry has.
 */
struct record {
    uint64_t write; /* 0: recovered */
    uint64_t term;
    uint64_t vote;
    uint64_t index;
    uint64_t name;
};

/* A core, its disk, and what its actions have said since it was started. */
struct server {
    void *memory;
    struct raft *raft;
    struct raft_actions actions;
    enum raft_role role;
    uint64_t term;
    uint64_t commit;
    uint64_t issued;
    uint64_t reported;

    struct record records[RECORDS_MAX];
    size_t records_count;
    size_t entry_at[RECORDS_MAX]; /* the position of each entry's record, by index */
    uint64_t last;

    /* Over all lives. */
    uint64_t names;
    uint64_t leader_term_max;
    uint64_t entry_term_max;
    uint64_t committed[RECORDS_MAX]; /* names, by index */
    uint64_t committed_max;
};

static const struct raft_event start_event = {.type = RAFT_EVENT_START};
static const struct raft_event failed_event = {.type = RAFT_EVENT_PERSIST_FAILED};

static struct raft_event propose_event(uint32_t count)
{
    return (struct raft_event){.type = RAFT_EVENT_PROPOSE, .propose = {.count = count}};
}

static struct raft_event persisted_event(uint64_t write)
{
    return (struct raft_event){.type = RAFT_EVENT_PERSISTED, .persisted = {.write = write}};
}

static struct raft_event state_event(uint64_t term, uint64_t vote)
{
    return (struct raft_event){.type = RAFT_EVENT_RECOVERED_STATE,
                               .recovered_state = {.term = term, .vote = vote}};
}

static struct raft_event entry_event(uint64_t index, uint64_t term)
{
    return (struct raft_event){.type = RAFT_EVENT_RECOVERED_ENTRY,
                               .recovered_entry = {.index = index, .term = term}};
}

/* A core with nothing recovered yet, over the disk as it is. */
static void server_init(struct server *server)
{
    const uint64_t voters[] = {1};
    const struct raft_config config = {.id = 1, .voters = voters, .voters_count = 1};

    check(raft_init(server->memory, &config, &server->raft) == RAFT_OK);
    server->role = RAFT_FOLLOWER;
    server->term = 0;
    server->commit = 0;
    server->issued = 0;
    server->reported = 0;
}

static struct server *server_new(void)
{
    struct server *server = calloc(1, sizeof(*server));

    server->memory = aligned_alloc(16, raft_size());
    memset(server->memory, 0xa5, raft_size());
    server_init(server);
    return server;
}

static void server_free(struct server *server)
{
    free(server->memory);
    free(server);
}

static void add_record(struct server *server, struct record record)
{
    if (server->records_count == RECORDS_MAX)
        abort();
    if (record.index != 0) {
        check(record.index == server->last + 1);
        server->last++;
        server->entry_at[server->last] = server->records_count;
    }
    server->records[server->records_count++] = record;
}

/* The record of an entry, NULL where the disk (durable or not) has none. */
static const struct record *find_entry(const struct server *server, uint64_t index)
{
    if (index == 0 || index > server->last)
        return NULL;
    return &server->records[server->entry_at[index]];
}

static bool is_reported(const struct server *server, const struct record *record)
{
    return record->write <= server->reported;
}

static void carry_out(struct server *server, const struct raft_action *action)
{
    const struct record *state = NULL;

    switch (action->type) {
    case RAFT_ACTION_PERSIST_STATE:
        check(action->persist_state.write == server->issued + 1);
        check(action->persist_state.term > server->term);
        server->issued++;
        server->term = action->persist_state.term;
        add_record(server, (struct record){.write = server->issued,
                                           .term = server->term,
                                           .vote = action->persist_state.vote});
        break;

    case RAFT_ACTION_PERSIST_ENTRIES:
        check(server->role == RAFT_LEADER);
        check(action->persist_entries.write == server->issued + 1);
        check(action->persist_entries.term == server->term);
        check(action->persist_entries.first <= action->persist_entries.last);
        /* No index of a term is ever given out twice: not in this life, not in two of them. */
        check(action->persist_entries.first == server->last + 1);
        check(action->persist_entries.term >= server->entry_term_max);
        server->entry_term_max = action->persist_entries.term;
        server->issued++;
        for (uint64_t i = action->persist_entries.first; i <= action->persist_entries.last; i++) {
            add_record(server, (struct record){.write = server->issued,
                                               .term = action->persist_entries.term,
                                               .index = i,
                                               .name = ++server->names});
        }
        break;

    case RAFT_ACTION_COMMIT:
        check(server->role == RAFT_LEADER);
        check(action->commit.index > server->commit);
        for (uint64_t i = server->commit + 1; i <= action->commit.index; i++) {
            const struct record *entry = find_entry(server, i);
            check(entry != NULL && is_reported(server, entry));
            if (entry == NULL)
                break;
            check(i < action->commit.index || entry->term == server->term);
            if (i > server->committed_max) {
                server->committed[i] = entry->name;
                server->committed_max = i;
            }
            check(server->committed[i] == entry->name);
        }
        server->commit = action->commit.index;
        break;

    case RAFT_ACTION_ROLE:
        check(action->role.role != server->role);
        check(action->role.term == server->term);
        server->role = action->role.role;
        if (server->role != RAFT_LEADER)
            break;
        for (size_t i = 0; i < server->records_count; i++) {
            if (server->records[i].index == 0)
                state = &server->records[i];
        }
        check(state != NULL && is_reported(server, state));
        check(state != NULL && state->term == server->term && state->vote == 1);
        check(server->term > server->leader_term_max && server->term > server->entry_term_max);
        server->leader_term_max = server->term;
        break;
    }
}

/* One event, its actions carried out, and what holds after every event. */
static enum raft_error step(struct server *server, struct raft_event event)
{
    enum raft_error error;

    if (event.type == RAFT_EVENT_PERSISTED && event.persisted.write > server->reported)
        server->reported = event.persisted.write;
    error = raft_step(server->raft, &event, &server->actions);
    check(error == RAFT_OK || server->actions.count == 0);
    if (event.type == RAFT_EVENT_RECOVERED_STATE && error == RAFT_OK)
        server->term = event.recovered_state.term;
    for (size_t i = 0; i < server->actions.count; i++)
        carry_out(server, &server->actions.items[i]);

    check(raft_get_role(server->raft) == server->role);
    check(raft_get_term(server->raft) == server->term);
    check(raft_get_commit(server->raft) == server->commit);
    return error;
}

/* Power is lost and comes back: the first `kept` records are what the disk still has. */
static void restart(struct server *server, size_t kept)
{
    server->records_count = 0;
    server->last = 0;
    server_init(server);
    for (size_t i = 0; i < kept; i++) {
        struct record record = server->records[i];
        record.write = 0;
        add_record(server, record);
        check(step(server, record.index == 0 ? state_event(record.term, record.vote)
                                             : entry_event(record.index, record.term)) == RAFT_OK);
    }
    check(server->term >= server->leader_term_max);
    check(step(server, start_event) == RAFT_OK);
    check(server->term > server->leader_term_max);
}

/* What has been reported durable survives; the number of such records. */
static size_t records_reported(const struct server *server)
{
    size_t count = 0;

    while (count < server->records_count && is_reported(server, &server->records[count]))
        count++;
    return count;
}

/* Events that are refused change not a bit of the core. */
static void refuses(struct server *server, struct raft_event event, enum raft_error error,
                    const char *what)
{
    void *before = malloc(raft_size());
    enum raft_error got;

    memcpy(before, server->memory, raft_size());
    got = step(server, event);
    tap_ok(got == error && memcmp(before, server->memory, raft_size()) == 0,
           "%s: refused (%s), state as it was", what, raft_error_text(error));
    if (got != error)
        tap_note("got: %s", raft_error_text(got));
    free(before);
}

static void no_violations(const char *what)
{
    tap_equal(violations, 0, "%s: no violation", what);
    violations = 0;
}

static const struct raft_action *action(const struct server *server, size_t at)
{
    static const struct raft_action none = {.type = (enum raft_action_type) - 1};

    return at < server->actions.count ? &server->actions.items[at] : &none;
}

static struct server *new_leader(void)
{
    struct server *server = server_new();

    check(step(server, start_event) == RAFT_OK);
    check(step(server, persisted_event(1)) == RAFT_OK);
    check(step(server, persisted_event(2)) == RAFT_OK);
    check(server->role == RAFT_LEADER && server->commit == 1);
    return server;
}

static void test_init(void)
{
    const uint64_t one[] = {1};
    const uint64_t two[] = {1, 2};
    const uint64_t zero[] = {0};
    const struct raft_config bad[] = {
        {.id = 0, .voters = zero, .voters_count = 1},
        {.id = 2, .voters = one, .voters_count = 1},
        {.id = 1, .voters = one, .voters_count = 0},
        {.id = 1, .voters = two, .voters_count = 2},
    };
    void *memory = aligned_alloc(16, raft_size());
    struct raft *raft = NULL;

    tap_equal(raft_size() % 16, 0, "the size is a multiple of 16");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        tap_ok(raft_init(memory, &bad[i], &raft) == RAFT_ERR_CONFIG && raft == NULL,
               "configuration %zu is refused", i);
    }
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
    tap_ok(action(server, 0)->type == RAFT_ACTION_PERSIST_STATE &&
               action(server, 0)->persist_state.term == 1 &&
               action(server, 0)->persist_state.vote == 1,
           "term and vote are one write, and the first action");
    tap_ok(server->actions.count == 2 && server->role == RAFT_CANDIDATE, "then it is a candidate");
    refuses(server, propose_event(1), RAFT_ERR_NOT_LEADER, "a proposal to a candidate");

    tap_equal(step(server, persisted_event(1)), RAFT_OK, "the vote is durable");
    tap_ok(server->actions.count == 2 && action(server, 0)->type == RAFT_ACTION_ROLE &&
               server->role == RAFT_LEADER,
           "only then it is leader");
    tap_ok(action(server, 1)->type == RAFT_ACTION_PERSIST_ENTRIES &&
               action(server, 1)->persist_entries.entry_type == RAFT_ENTRY_NOOP &&
               action(server, 1)->persist_entries.first == 1 &&
               action(server, 1)->persist_entries.last == 1,
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
    tap_ok(server->actions.count == 1 && action(server, 0)->type == RAFT_ACTION_PERSIST_ENTRIES &&
               action(server, 0)->persist_entries.write == 3 &&
               action(server, 0)->persist_entries.first == 2 &&
               action(server, 0)->persist_entries.last == 4 &&
               action(server, 0)->persist_entries.entry_type == RAFT_ENTRY_COMMAND,
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
    tap_equal(server->raft->match[0], 3, "which counts as durable");
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
    tap_ok(server->actions.count == 1 && action(server, 0)->type == RAFT_ACTION_ROLE &&
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

/* Without the disk of step(), where more than recovery is done. */
static void test_runs_full(void)
{
    const struct raft_event persisted = persisted_event(1);
    const struct raft_event propose = propose_event(1);
    struct server *server = server_new();
    bool ok = true;

    step(server, state_event(RAFT_TERM_RUNS_MAX, 1));
    for (uint64_t i = 1; i < RAFT_TERM_RUNS_MAX; i++)
        ok = step(server, entry_event(i, i)) == RAFT_OK && ok;
    tap_ok(ok, "all runs but one are recovered");
    ok = true;
    for (uint64_t i = 1; i < RAFT_TERM_RUNS_MAX; i++)
        ok = raft_get_term_at(server->raft, i) == i && ok;
    tap_ok(ok, "every one is found");
    check(raft_step(server->raft, &start_event, &server->actions) == RAFT_OK);
    check(raft_step(server->raft, &persisted, &server->actions) == RAFT_OK);
    tap_equal(raft_get_term_at(server->raft, RAFT_TERM_RUNS_MAX), RAFT_TERM_RUNS_MAX + 1,
              "the last run is the no-op's");
    check(raft_step(server->raft, &propose, &server->actions) == RAFT_OK);
    tap_equal(raft_get_last_index(server->raft), RAFT_TERM_RUNS_MAX + 1, "which may grow");
    server_free(server);

    server = server_new();
    step(server, state_event(RAFT_TERM_RUNS_MAX, 1));
    for (uint64_t i = 1; i <= RAFT_TERM_RUNS_MAX; i++)
        step(server, entry_event(i, i));
    refuses(server, entry_event(RAFT_TERM_RUNS_MAX + 1, RAFT_TERM_RUNS_MAX + 1), RAFT_ERR_FULL,
            "one run too many");
    tap_equal(step(server, entry_event(RAFT_TERM_RUNS_MAX + 1, RAFT_TERM_RUNS_MAX)), RAFT_OK,
              "the last run may grow");
    refuses(server, start_event, RAFT_ERR_FULL, "a start without room for the no-op's run");
    server_free(server);

    server = server_new();
    step(server, state_event(UINT64_MAX, 1));
    refuses(server, start_event, RAFT_ERR_FULL, "a start after the last term");
    no_violations("terms full");
    server_free(server);
}

/* Without the disk of step(), too, which is far smaller. */
static void test_writes_full(void)
{
    struct server *server = new_leader();
    const struct raft_event propose = propose_event(1);
    struct raft_event persisted;
    uint64_t write = 2;
    bool ok = true;

    for (int i = 0; i < RAFT_WRITES_MAX; i++, write++)
        ok = raft_step(server->raft, &propose, &server->actions) == RAFT_OK && ok;
    tap_ok(ok, "as many writes as the limit are outstanding");
    refuses(server, propose, RAFT_ERR_FULL, "one more");

    persisted = persisted_event(3);
    raft_step(server->raft, &persisted, &server->actions);
    tap_equal(raft_get_commit(server->raft), 2, "one is durable");
    server->commit = 2;
    tap_equal(raft_step(server->raft, &propose, &server->actions), RAFT_OK, "one more is taken");
    write++;
    refuses(server, propose, RAFT_ERR_FULL, "and no other");

    /* Write n carries entry n - 1; the ring goes round twice. */
    ok = true;
    for (uint64_t i = 4; i < 4 + 2 * (uint64_t)RAFT_WRITES_MAX; i++) {
        persisted = persisted_event(i);
        raft_step(server->raft, &persisted, &server->actions);
        ok = raft_get_commit(server->raft) == i - 1 && ok;
        ok = raft_step(server->raft, &propose, &server->actions) == RAFT_OK && ok;
        write++;
    }
    tap_ok(ok, "each report commits its own write's entry, round and round");
    persisted = persisted_event(write);
    raft_step(server->raft, &persisted, &server->actions);
    tap_equal(raft_get_commit(server->raft), raft_get_last_index(server->raft),
              "one joined report commits the whole ring");
    no_violations("writes full");
    server_free(server);
}

/* Thesis 3.4, 3.6.2: by definition, without sorting. */
static void test_quorum(void)
{
    uint64_t match[RAFT_VOTERS_MAX];
    bool ok = true;

    for (size_t count = 1; count <= RAFT_VOTERS_MAX; count++) {
        ok = !raft__is_quorum(count / 2, count) && raft__is_quorum(count / 2 + 1, count) && ok;

        /* Every way of giving each voter one of four indexes. */
        for (unsigned code = 0; code < 1u << (2 * count); code++) {
            uint64_t best = 0;
            for (size_t i = 0; i < count; i++)
                match[i] = code >> (2 * i) & 3;
            for (uint64_t index = 0; index <= 3; index++) {
                size_t have = 0;
                for (size_t i = 0; i < count; i++)
                    have += match[i] >= index;
                if (2 * have > count)
                    best = index;
            }
            ok = raft__quorum_match(match, count) == best && ok;
        }
    }
    tap_ok(ok, "what a quorum has, for 1 to %d voters", RAFT_VOTERS_MAX);
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

/* A caller that breaks its duties is stopped by an assertion: in a child, that must abort. */
static void aborts(struct server *server, struct raft_event event, const char *what)
{
    const struct rlimit no_core = {0, 0};
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        setrlimit(RLIMIT_CORE, &no_core);
        fclose(stderr);
        raft_step(server->raft, &event, &server->actions);
        _exit(0);
    }
    tap_ok(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
               WTERMSIG(status) == SIGABRT,
           "%s: stopped by an assertion", what);
}

static struct raft_event snapshot_event(uint64_t index, uint64_t term)
{
    return (struct raft_event){.type = RAFT_EVENT_RECOVERED_SNAPSHOT,
                               .recovered_snapshot = {.index = index, .term = term}};
}

static struct raft_event compacted_event(uint64_t index)
{
    return (struct raft_event){.type = RAFT_EVENT_COMPACTED, .compacted = {.index = index}};
}

/* Whether the log gives the terms of a plain list from `base` on, and none before. */
static bool terms_agree(const struct raft *raft, const uint64_t *terms, uint64_t base,
                        uint64_t last)
{
    bool agree = raft_get_last_index(raft) == last && raft_get_term_at(raft, last + 1) == 0;
    for (uint64_t i = 1; i <= last; i++)
        agree = raft_get_term_at(raft, i) == (i < base ? 0 : terms[i]) && agree;
    return agree;
}

/* Logs of random runs, begun behind a random snapshot, cut off piece by piece. */
static void test_compaction(void)
{
    enum { LENGTH = 60, ROUNDS = 2000 };
    uint64_t random = 88172645463325252u;
    void *memory = aligned_alloc(16, raft_size());
    const uint64_t voters[] = {1};
    const struct raft_config config = {.id = 1, .voters = voters, .voters_count = 1};
    uint64_t terms[LENGTH + 2];
    bool agree = true;
    uint64_t cuts = 0;

    for (int round = 0; round < ROUNDS && agree; round++) {
        struct raft *raft;
        struct raft_actions actions;
        uint64_t last = 1 + random % LENGTH;
        check(raft_init(memory, &config, &raft) == RAFT_OK);
        terms[0] = 1;
        for (uint64_t i = 1; i <= last; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            terms[i] = terms[i - 1] + (random >> 60 < 5);
        }
        uint64_t base = (random >> 33) % (last + 1);
        uint64_t first = base ? 1 + (random >> 20) % (base + 1) : 1;
        struct raft_event event = state_event(terms[last], 1);
        agree = raft_step(raft, &event, &actions) == RAFT_OK;
        event = snapshot_event(base, terms[base]);
        agree = agree && (!base || raft_step(raft, &event, &actions) == RAFT_OK);
        for (uint64_t i = first; i <= last; i++) {
            event = entry_event(i, terms[i]);
            agree = agree && raft_step(raft, &event, &actions) == RAFT_OK;
        }
        agree = agree && terms_agree(raft, terms, base, last);
        event = start_event;
        agree = agree && raft_step(raft, &event, &actions) == RAFT_OK;
        for (uint64_t write = 1; write <= 2; write++) {
            event = persisted_event(write);
            agree = agree && raft_step(raft, &event, &actions) == RAFT_OK;
        }
        terms[last + 1] = terms[last] + 1;
        last++;
        agree = agree && terms_agree(raft, terms, base, last);
        while (agree && base < last) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            base += 1 + (random >> 33) % (last - base);
            event = compacted_event(base);
            agree = raft_step(raft, &event, &actions) == RAFT_OK && actions.count == 0 &&
                    terms_agree(raft, terms, base, last);
            cuts++;
        }
    }
    tap_ok(agree, "%d logs cut off %d times know their terms", ROUNDS, (int)cuts);
    free(memory);
}

/* Runs of terms are given back, so that their number is bounded between two snapshots only. */
static void test_compaction_gives_room(void)
{
    struct server *server = server_new();
    struct raft_actions actions;
    const struct raft_event start = start_event;
    const struct raft_event vote = persisted_event(1);
    const struct raft_event noop = persisted_event(2);
    const struct raft_event compacted = compacted_event(RAFT_TERM_RUNS_MAX);

    step(server, state_event(RAFT_TERM_RUNS_MAX, 1));
    for (uint64_t i = 1; i < RAFT_TERM_RUNS_MAX; i++)
        step(server, entry_event(i, i));
    check(raft_step(server->raft, &start, &actions) == RAFT_OK);
    check(raft_step(server->raft, &vote, &actions) == RAFT_OK);
    check(raft_step(server->raft, &noop, &actions) == RAFT_OK);
    tap_ok(!raft__log_has_room(&server->raft->log, RAFT_TERM_RUNS_MAX + 2),
           "with all runs in use there is no room for a term more");
    check(raft_step(server->raft, &compacted, &actions) == RAFT_OK);
    tap_ok(raft__log_has_room(&server->raft->log, RAFT_TERM_RUNS_MAX + 2),
           "until a snapshot covers them");
    tap_equal(raft_get_term_at(server->raft, RAFT_TERM_RUNS_MAX), RAFT_TERM_RUNS_MAX + 1,
              "the term of the last entry stays known");
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
    test_runs_full();
    test_writes_full();
    test_quorum();
    test_restarts();
    test_random();
    test_compaction();
    test_compaction_gives_room();
    test_duties();
    return tap_done();
}
