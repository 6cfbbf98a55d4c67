/*
 * A core among messages that no sound server would send: fields at random, or just beside what is
 * right, in any order, of any term. Whatever comes from outside must never trip an assertion, nor
 * make the core break its own word: see check_promises().
 *
 * Each run is a process of its own. SEED=number replays the run of that seed, RUNS=number says how
 * many there are.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/raft_lone.h"
#include "tests/lib/tap.h"

enum {
    RUNS = 600,
    EVENTS = 3000,
};

struct run {
    struct lone *lone;
    uint64_t random;
    uint64_t reported;
    uint64_t reads;
    struct raft_action chunk; /* the one that made a snapshot whole */
    bool whole;
    /* What it may have said, or not yet. */
    uint64_t durable_term;
    uint64_t voted_term;
    uint64_t voted_for;
    struct raft_action states[EVENTS]; /* PERSIST_STATEs that are not durable, the oldest first */
    size_t states_count;
    long broken;
};

static uint64_t next(struct run *run)
{
    uint64_t z = (run->random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t below(struct run *run, uint64_t limit)
{
    return next(run) % limit;
}

/* A number like `near`, mostly. */
static uint64_t like(struct run *run, uint64_t near)
{
    switch (below(run, 20)) {
    case 0:
        return next(run);
    case 1:
        return UINT64_MAX - below(run, 3);
    case 2:
        return 0;
    case 3:
        return below(run, near < UINT64_MAX / 4 ? 2 * near + 2 : near);
    case 4:
    case 5:
    case 6:
        return near + below(run, 5);
    case 7:
    case 8:
    case 9:
        return near - below(run, 5);
    default:
        return near;
    }
}

static uint64_t some_index(struct run *run)
{
    const struct raft *raft = run->lone->raft;
    const uint64_t marks[] = {raft->log.last, raft->commit, raft->log.base, raft->durable,
                              raft->snapshot_index};

    return like(run, marks[below(run, 5)]);
}

static uint64_t some_term_at(struct run *run, uint64_t index)
{
    return like(run, raft_get_term_at(run->lone->raft, index));
}

/* Terms grow slowly, or there would be no room for another one soon. */
static uint64_t some_term(struct run *run)
{
    const uint64_t term = raft_get_term(run->lone->raft);

    switch (below(run, 2000)) {
    case 0:
        return like(run, term);
    case 1:
        return term + 1 + below(run, 3);
    default:
        return below(run, 20) == 0 ? term - below(run, 2) : below(run, 100) == 0 ? term + 1 : term;
    }
}

static uint32_t fill_entries(struct run *run, uint64_t prev_term, uint64_t term,
                             struct raft_entry *entries)
{
    const uint32_t count = (uint32_t)below(run, 12);

    for (uint32_t i = 0; i < count; i++) {
        if (below(run, 6) == 0 && prev_term < term)
            prev_term++;
        entries[i] = (struct raft_entry){
            .term = below(run, 30) == 0 ? like(run, prev_term) : prev_term,
            .type = (enum raft_entry_type)(below(run, 10) == 0 ? below(run, 6) : 2),
            .bytes = (uint32_t)(below(run, 50) == 0 ? next(run) : below(run, 20000)),
            .change = {.type = (enum raft_change_type)below(run, 6), .id = below(run, 9)}};
    }
    /* More than a message may have. */
    return below(run, 100) == 0 ? RAFT_APPEND_ENTRIES_MAX + 1 : count;
}

static void some_message(struct run *run)
{
    static struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX + 1];
    struct raft_message message = {
        .type = (enum raft_message_type)(1 + below(run, RAFT_MESSAGE_TIMEOUT_NOW)),
        .from = below(run, 8),
        .to = below(run, 50) == 0 ? below(run, 3) : 1,
        .term = some_term(run),
    };
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE,
                               .message = {.message = &message, .entries = entries}};

    /* Mostly by whom it knows for the leader. */
    if (below(run, 3) > 0 && raft_get_leader(run->lone->raft) > 1)
        message.from = raft_get_leader(run->lone->raft);
    switch (message.type) {
    case RAFT_MESSAGE_PRE_VOTE:
    case RAFT_MESSAGE_VOTE:
        message.vote.campaign_term =
            like(run, message.term + (message.type == RAFT_MESSAGE_PRE_VOTE));
        message.vote.last_index = some_index(run);
        message.vote.last_term = some_term_at(run, message.vote.last_index);
        message.vote.transfer = below(run, 2);
        break;
    case RAFT_MESSAGE_PRE_VOTE_REPLY:
    case RAFT_MESSAGE_VOTE_REPLY:
        message.vote_reply.campaign_term =
            like(run, message.term + (message.type == RAFT_MESSAGE_PRE_VOTE_REPLY));
        message.vote_reply.granted = below(run, 3);
        break;
    case RAFT_MESSAGE_APPEND:
        message.append.prev_index = some_index(run);
        message.append.prev_term =
            below(run, 10) == 0 ? some_term_at(run, message.append.prev_index)
                                : raft_get_term_at(run->lone->raft, message.append.prev_index);
        message.append.commit = some_index(run);
        message.append.round = like(run, run->lone->raft->owed_round);
        message.append.count = fill_entries(run, message.append.prev_term, message.term, entries);
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        message.append_reply.round = like(run, run->lone->raft->round);
        message.append_reply.match = some_index(run);
        message.append_reply.rejected = below(run, 2);
        message.append_reply.wants_snapshot = below(run, 4) == 0;
        message.append_reply.rejected_index = some_index(run);
        message.append_reply.hint_index = some_index(run);
        message.append_reply.hint_term = some_term_at(run, message.append_reply.hint_index);
        break;
    case RAFT_MESSAGE_SNAPSHOT:
        message.snapshot.index = some_index(run);
        message.snapshot.index_term = like(run, message.term);
        message.snapshot.offset = like(run, run->lone->raft->incoming.offset);
        message.snapshot.bytes = (uint32_t)like(run, 10);
        message.snapshot.done = below(run, 4) == 0;
        message.snapshot.round = like(run, run->lone->raft->owed_round);
        break;
    case RAFT_MESSAGE_SNAPSHOT_REPLY:
        message.snapshot_reply.index = some_index(run);
        message.snapshot_reply.offset = like(run, 10);
        message.snapshot_reply.round = like(run, run->lone->raft->round);
        break;
    case RAFT_MESSAGE_TIMEOUT_NOW:
        break;
    }
    lone_step(run->lone, event);
}

/* The caller keeps its duties, and believes of a snapshot what its bytes say: anything. */
static void some_event(struct run *run)
{
    struct raft *raft = run->lone->raft;
    struct raft_event event = {.type = RAFT_EVENT_TICK};
    struct raft_member members[4];
    const uint64_t most = raft->commit < raft->durable ? raft->commit : raft->durable;

    switch (below(run, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        if (run->reported == run->lone->issued)
            break;
        run->reported += 1 + below(run, run->lone->issued - run->reported);
        event.type = RAFT_EVENT_PERSISTED;
        event.persisted.write = run->reported;
        break;
    case 4:
        event.type = RAFT_EVENT_TURN_END;
        break;
    case 5:
        event.type = RAFT_EVENT_PROPOSE;
        event.propose.count = 1 + (uint32_t)below(run, 4);
        event.propose.bytes = (uint32_t)below(run, RAFT_ENTRY_BYTES_MAX + 1);
        break;
    case 6:
        event.type = RAFT_EVENT_CHANGE;
        event.change.type = (enum raft_change_type)below(run, 6);
        event.change.id = below(run, 9);
        break;
    case 7:
        event.type = RAFT_EVENT_TRANSFER;
        event.transfer.to = below(run, 9);
        break;
    case 8:
        event.type = RAFT_EVENT_READ;
        event.read.id = ++run->reads;
        break;
    case 9:
        if (most == 0)
            break;
        event.type = RAFT_EVENT_COMPACTED;
        event.compacted.index = most - below(run, 3) % most;
        event.compacted.log_base = event.compacted.index - below(run, 3) % event.compacted.index;
        break;
    case 10:
        if (!run->whole)
            break;
        run->whole = false;
        event.type = below(run, 3) ? RAFT_EVENT_SNAPSHOT_DURABLE : RAFT_EVENT_SNAPSHOT_REFUSED;
        event.snapshot_durable.index = run->chunk.snapshot_chunk.index;
        event.snapshot_durable.term = run->chunk.snapshot_chunk.term;
        event.snapshot_durable.members = members;
        event.snapshot_durable.members_count = below(run, 5);
        for (size_t i = 0; i < 4; i++)
            members[i] =
                (struct raft_member){.id = i + 1 + below(run, 2) * 4, .voter = below(run, 3)};
        break;
    default:
        break;
    }
    run->lone->now_ms += below(run, 40) == 0 ? below(run, 1500) : below(run, 30);
    lone_step(run->lone, event);
    if (event.type == RAFT_EVENT_PERSISTED)
        while (run->states_count > 0 && run->states[0].persist_state.write <= run->reported) {
            run->durable_term = run->states[0].persist_state.term;
            memmove(run->states, run->states + 1, --run->states_count * sizeof(run->states[0]));
        }
}

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition) && run->broken++ < 5)                                                     \
            fprintf(stderr, "%s:%d: violated: %s\n", __FILE__, __LINE__, #condition);              \
    } while (0)

/* One vote a term, nothing said before the term is durable, and no acknowledgement beyond what is
 * durable: against whatever comes. */
static void check_promises(struct run *run)
{
    for (size_t i = 0; i < run->lone->actions.count; i++) {
        const struct raft_action *action = &run->lone->actions.items[i];
        if (action->type == RAFT_ACTION_PERSIST_STATE) {
            check(action->persist_state.term >= run->durable_term);
            if (action->persist_state.vote != 0) {
                check(action->persist_state.term > run->voted_term ||
                      action->persist_state.vote == run->voted_for);
                run->voted_term = action->persist_state.term;
                run->voted_for = action->persist_state.vote;
            }
            run->states[run->states_count++] = *action;
        } else if (action->type == RAFT_ACTION_SEND) {
            const struct raft_message *send = &action->send;
            check(send->term == run->durable_term);
            if (send->type == RAFT_MESSAGE_VOTE_REPLY && send->vote_reply.granted)
                check(send->term == run->voted_term && send->to == run->voted_for);
            if (send->type == RAFT_MESSAGE_APPEND_REPLY)
                check(send->append_reply.match <= raft_get_durable(run->lone->raft));
        } else if (action->type == RAFT_ACTION_SNAPSHOT_CHUNK && action->snapshot_chunk.done) {
            run->chunk = *action;
            run->whole = true;
        }
    }
}

static void run_seed(uint64_t seed)
{
    struct run *run = calloc(1, sizeof(*run));
    size_t voters;

    run->random = seed;
    voters = below(run, 5);
    run->lone = lone_new_of(voters, voters == 0 ? 0 : voters + below(run, 3));
    lone_start(run->lone);
    check_promises(run);
    for (int i = 0; i < EVENTS && run->broken == 0; i++) {
        if (below(run, 3) > 0)
            some_message(run);
        else
            some_event(run);
        check_promises(run);
    }
    lone_free(run->lone);
    fflush(stderr);
    _exit(run->broken > 0);
}

int main(void)
{
    const struct rlimit no_core = {0, 0};
    const char *given = getenv("SEED");
    const char *runs_text = getenv("RUNS");
    const int runs = runs_text != NULL ? atoi(runs_text) : given != NULL ? 1 : RUNS;
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0)
                                  : (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
    int bad = 0;

    tap_note("SEED=%" PRIu64, seed);
    for (int i = 0; i < runs && bad < 5; i++, seed++) {
        int status = 0;
        const pid_t child = fork();
        if (child == 0) {
            setrlimit(RLIMIT_CORE, &no_core);
            run_seed(seed);
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            tap_note("replay: SEED=%" PRIu64 " %s", seed, program_invocation_name);
            bad++;
        }
    }
    tap_equal(bad, 0, "%d runs of %d events", runs, EVENTS);
    return tap_done();
}
