/*
 * Each limit of raft/limits.h at its true value: what is still taken, what is refused at it, and
 * what gives room again.
 */
#include <string.h>

#include "tests/lib/raft_lone.h"
#include "tests/lib/raft_rig.h"

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
    const struct raft_config config = only_voter();
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

static struct raft_event compacted_to(uint64_t index)
{
    return (struct raft_event){.type = RAFT_EVENT_COMPACTED, .compacted = {index, index}};
}

/* A leader of `voters` voters and some learners, whose log is committed and covered by a snapshot.
 */
static struct lone *new_lone_leader(size_t voters, size_t count)
{
    struct lone *lone = lone_new_of(voters, count);

    check(lone_start(lone) == RAFT_OK);
    check(lone_lead(lone));
    lone_turn_end(lone);
    lone_all_match(lone, 1);
    check(raft_get_commit(lone->raft) == 1);
    check(lone_step(lone, compacted_to(1)) == RAFT_OK);
    return lone;
}

static void test_voters_full(void)
{
    struct lone *lone = new_lone_leader(RAFT_VOTERS_MAX, RAFT_VOTERS_MAX + 1);

    lone_reply(lone, RAFT_VOTERS_MAX + 1, raft_get_last_index(lone->raft), 1);
    tap_equal(lone_change(lone, RAFT_CHANGE_PROMOTE, RAFT_VOTERS_MAX + 1), RAFT_ERR_FULL,
              "a voter too many");
    tap_equal(lone_change(lone, RAFT_CHANGE_DEMOTE, 2), RAFT_OK, "one votes no more");
    lone_all_match(lone, 1);
    lone_turn_end(lone);
    lone_reply(lone, RAFT_VOTERS_MAX + 1, raft_get_last_index(lone->raft), 1);
    tap_equal(lone_change(lone, RAFT_CHANGE_PROMOTE, RAFT_VOTERS_MAX + 1), RAFT_OK,
              "and another may");
    no_violations("voters full");
    lone_free(lone);
}

static void test_members_full(void)
{
    struct lone *lone = new_lone_leader(3, RAFT_MEMBERS_MAX);
    size_t sent = 0;

    tap_equal(lone_change(lone, RAFT_CHANGE_ADD_LEARNER, RAFT_MEMBERS_MAX + 1), RAFT_ERR_FULL,
              "a member too many");
    lone_propose(lone, 1, 1);
    lone_tick(lone, lone->now_ms + LONE_HEARTBEAT_MS);
    lone_turn_end(lone);
    for (size_t i = 0; i < lone->actions.count; i++)
        sent += lone->actions.items[i].type == RAFT_ACTION_SEND;
    tap_equal(sent, RAFT_MEMBERS_MAX - 1, "one turn sends to every other member");
    tap_equal(lone_change(lone, RAFT_CHANGE_REMOVE, RAFT_MEMBERS_MAX), RAFT_OK, "one goes");
    lone_all_match(lone, 1);
    tap_equal(lone_change(lone, RAFT_CHANGE_ADD_LEARNER, RAFT_MEMBERS_MAX + 1), RAFT_OK,
              "and another may come");
    no_violations("members full");
    lone_free(lone);
}

static void test_changes_full(void)
{
    struct lone *lone = new_lone_leader(1, 1);
    struct raft_entry entries[4];
    bool ok = true;

    for (int i = 0; i < RAFT_CHANGES_MAX; i++) {
        ok =
            lone_change(lone, i % 2 ? RAFT_CHANGE_REMOVE : RAFT_CHANGE_ADD_LEARNER, 2) == RAFT_OK &&
            ok;
        lone_persisted(lone);
    }
    tap_ok(ok, "as many changes as the log may hold");
    tap_equal(lone_change(lone, RAFT_CHANGE_ADD_LEARNER, 2), RAFT_ERR_FULL, "one more is refused");
    tap_equal(lone_propose(lone, 1, 1), RAFT_OK, "commands are not");
    lone_step(lone, compacted_to(2));
    tap_equal(lone_change(lone, RAFT_CHANGE_ADD_LEARNER, 2), RAFT_OK,
              "a snapshot that covers one gives room");
    lone_free(lone);

    /* A follower. */
    lone = lone_new_of(3, 3);
    lone_start(lone);
    for (int i = 0; i < 4; i++)
        entries[i] =
            (struct raft_entry){.term = 1,
                                .type = RAFT_ENTRY_CHANGE,
                                .change = {.type = RAFT_CHANGE_ADD_LEARNER, .id = 4 + (unsigned)i}};
    for (uint64_t last = 0; last < RAFT_CHANGES_MAX; last += 4) {
        lone_append(lone,
                    (struct raft_message){.type = RAFT_MESSAGE_APPEND,
                                          .from = 2,
                                          .term = 1,
                                          .append = {.prev_index = last,
                                                     .prev_term = last > 0,
                                                     .count = 4,
                                                     .commit = last,
                                                     .round = 1}},
                    entries);
        lone_persisted(lone);
    }
    tap_equal(raft_get_last_index(lone->raft), RAFT_CHANGES_MAX, "a follower takes as many");
    const struct raft_message more = {.type = RAFT_MESSAGE_APPEND,
                                      .from = 2,
                                      .term = 1,
                                      .append = {.prev_index = RAFT_CHANGES_MAX,
                                                 .prev_term = 1,
                                                 .count = 1,
                                                 .commit = RAFT_CHANGES_MAX,
                                                 .round = 1}};
    lone_append(lone, more, entries);
    tap_equal(raft_get_last_index(lone->raft), RAFT_CHANGES_MAX, "and no more");
    entries[0].type = RAFT_ENTRY_COMMAND;
    lone_append(lone, more, entries);
    tap_equal(raft_get_last_index(lone->raft), RAFT_CHANGES_MAX + 1, "but other entries");
    lone_persisted(lone);
    tap_equal(raft_get_commit(lone->raft), RAFT_CHANGES_MAX, "which let it commit");
    no_violations("changes full");
    lone_free(lone);
}

/* A follower with as many runs of terms as it may have. */
static void test_follower_runs_full(void)
{
    struct lone *lone = lone_new_of(3, 3);
    struct raft_entry entry = {.term = RAFT_TERM_RUNS_MAX, .type = RAFT_ENTRY_COMMAND};
    struct raft_message append = {.type = RAFT_MESSAGE_APPEND,
                                  .from = 2,
                                  .term = RAFT_TERM_RUNS_MAX + 1,
                                  .append = {.count = 1, .round = 1}};

    check(lone_step(lone, state_event(RAFT_TERM_RUNS_MAX, 0)) == RAFT_OK);
    for (uint64_t i = 1; i <= RAFT_TERM_RUNS_MAX; i++)
        check(lone_step(lone, entry_event(i, i)) == RAFT_OK);
    check(lone_start(lone) == RAFT_OK);
    append.append.prev_index = append.append.prev_term = RAFT_TERM_RUNS_MAX;
    entry.term = RAFT_TERM_RUNS_MAX + 1;
    lone_append(lone, append, &entry);
    tap_equal(raft_get_last_index(lone->raft), RAFT_TERM_RUNS_MAX,
              "a follower without room for a term takes no entry of another one");
    /* It has started anew, so without this it would not know what to make a snapshot of. */
    lone_persisted(lone);
    append.append.commit = RAFT_TERM_RUNS_MAX - 1;
    lone_append(lone, append, &entry);
    tap_equal(raft_get_commit(lone->raft), RAFT_TERM_RUNS_MAX - 1,
              "but hears by it what is committed");
    entry.term = RAFT_TERM_RUNS_MAX;
    lone_append(lone, append, &entry);
    tap_equal(raft_get_last_index(lone->raft), RAFT_TERM_RUNS_MAX + 1, "and takes one of the last");
    lone_tick(lone, raft_get_deadline_ms(lone->raft));
    tap_equal(raft_get_role(lone->raft), RAFT_PRE_CANDIDATE, "it asks for votes");
    lone_persisted(lone);
    for (uint64_t from = 2; from <= 3; from++)
        lone_message(lone,
                     (struct raft_message){.type = RAFT_MESSAGE_PRE_VOTE_REPLY,
                                           .from = from,
                                           .vote_reply = {raft_get_term(lone->raft) + 1, true}});
    tap_equal(raft_get_role(lone->raft), RAFT_FOLLOWER,
              "and begins no term that it has no room for");
    no_violations("a follower's terms full");
    lone_free(lone);
}

/* How many messages and entries leave for server 2 until its window is full. */
static void fill_window(struct lone *lone, size_t *ret_messages, uint64_t *ret_entries,
                        uint32_t *ret_largest)
{
    *ret_messages = 0;
    *ret_entries = 0;
    *ret_largest = 0;
    while (raft_wants_turn_end(lone->raft)) {
        lone_turn_end(lone);
        const struct raft_message *append = lone_sent(lone, RAFT_MESSAGE_APPEND, 2);
        if (append == NULL)
            break;
        (*ret_messages)++;
        *ret_entries += append->append.count;
        if (append->append.count > *ret_largest)
            *ret_largest = append->append.count;
    }
}

static void test_windows(void)
{
    struct lone *lone = new_lone_leader(2, 2);
    size_t messages;
    uint64_t entries;
    uint32_t largest;

    lone_turn_end(lone);
    lone_propose(lone, 3 * RAFT_APPEND_ENTRIES_MAX, 1);
    fill_window(lone, &messages, &entries, &largest);
    tap_equal(largest, RAFT_APPEND_ENTRIES_MAX, "the entries of a message");
    tap_equal(entries, 3 * RAFT_APPEND_ENTRIES_MAX, "all of them leave");
    lone_all_match(lone, 1);
    lone_turn_end(lone);

    lone_propose(lone, 1000, RAFT_ENTRY_BYTES_MAX);
    fill_window(lone, &messages, &entries, &largest);
    tap_equal(largest, RAFT_APPEND_BYTES_MAX / RAFT_ENTRY_BYTES_MAX, "the bytes of a message");
    tap_equal(entries, RAFT_INFLIGHT_BYTES_MAX / RAFT_ENTRY_BYTES_MAX, "the bytes in flight");
    lone_all_match(lone, 1);
    lone_turn_end(lone);

    /* 3 of them fill no message to the byte, nor the window. */
    lone_propose(lone, 1000, RAFT_ENTRY_BYTES_MAX - 1);
    fill_window(lone, &messages, &entries, &largest);
    tap_ok(entries * (RAFT_ENTRY_BYTES_MAX - 1) <= RAFT_INFLIGHT_BYTES_MAX,
           "the bytes in flight are never more");
    lone_all_match(lone, 1);
    lone_turn_end(lone);

    messages = 0;
    for (int i = 0; i < 2 * RAFT_INFLIGHT_MAX; i++) {
        lone_propose(lone, 1, 1);
        lone_turn_end(lone);
        messages += lone_sent(lone, RAFT_MESSAGE_APPEND, 2) != NULL;
    }
    tap_equal(messages, RAFT_INFLIGHT_MAX, "the messages in flight");
    lone_reply(lone, 2, raft_get_last_index(lone->raft) - 2 * RAFT_INFLIGHT_MAX + 1, 1);
    fill_window(lone, &messages, &entries, &largest);
    tap_ok(messages == 1 && largest == RAFT_INFLIGHT_MAX,
           "the first one's answer lets one more leave, with all that waits");
    no_violations("windows");
    lone_free(lone);
}

static void test_sizes(void)
{
    struct lone *lone = new_lone_leader(2, 2);
    const struct raft_message *append;

    /* Entry 2 is just not among those whose sizes are known. */
    lone_propose(lone, RAFT_SIZES_MAX, 1);
    lone_propose(lone, 1, 1);
    lone_turn_end(lone);
    append = lone_sent(lone, RAFT_MESSAGE_APPEND, 2);
    tap_ok(append != NULL && append->append.prev_index == 1 &&
               append->append.count == RAFT_APPEND_ENTRIES_MAX,
           "one entry of unknown size counts as the largest");
    lone_free(lone);

    lone = new_lone_leader(2, 2);
    lone_propose(lone, RAFT_SIZES_MAX + 100, 1);
    lone_turn_end(lone);
    append = lone_sent(lone, RAFT_MESSAGE_APPEND, 2);
    tap_ok(append != NULL && append->append.count == RAFT_APPEND_BYTES_MAX / RAFT_ENTRY_BYTES_MAX,
           "and so many of them fill a message");
    no_violations("sizes");
    lone_free(lone);
}

static void test_entry_bytes(void)
{
    struct lone *lone = lone_new_of(3, 3);
    struct raft_entry entry = {
        .term = 1, .type = RAFT_ENTRY_COMMAND, .bytes = RAFT_ENTRY_BYTES_MAX + 1};
    const struct raft_message append = {
        .type = RAFT_MESSAGE_APPEND, .from = 2, .term = 1, .append = {.count = 1, .round = 1}};
    struct raft_event recovered = {.type = RAFT_EVENT_RECOVERED_ENTRY,
                                   .recovered_entry = {.index = 1, .entry = entry}};
    struct server *server = new_leader();

    tap_equal(lone_step(lone, recovered), RAFT_ERR_LOG, "an entry on disk that is too large");
    lone_start(lone);
    lone_append(lone, append, &entry);
    tap_equal(raft_get_last_index(lone->raft), 0, "a leader's that is too large is not taken");
    entry.bytes--;
    lone_append(lone, append, &entry);
    tap_equal(raft_get_last_index(lone->raft), 1, "one of the largest size is");
    lone_free(lone);

    recovered.type = RAFT_EVENT_PROPOSE;
    recovered.propose.count = 1;
    recovered.propose.bytes = RAFT_ENTRY_BYTES_MAX + 1;
    aborts(server, recovered, "a proposal that is too large");
    recovered.propose.bytes--;
    tap_equal(step(server, recovered), RAFT_OK, "one of the largest size is taken");
    no_violations("bytes of an entry");
    server_free(server);
}

static void test_promote_lag(void)
{
    struct lone *lone = new_lone_leader(1, 2);

    lone_propose(lone, RAFT_PROMOTE_LAG_MAX + 1, 1);
    lone_persisted(lone);
    lone_reply(lone, 2, 1, 1);
    tap_equal(lone_change(lone, RAFT_CHANGE_PROMOTE, 2), RAFT_ERR_BEHIND,
              "a learner with one entry too few");
    lone_reply(lone, 2, 2, 1);
    lone->now_ms += LONE_ELECTION_MS + 1;
    tap_equal(lone_change(lone, RAFT_CHANGE_PROMOTE, 2), RAFT_ERR_BEHIND,
              "one that was not heard for an election timeout");
    lone_reply(lone, 2, 2, 1);
    tap_equal(lone_change(lone, RAFT_CHANGE_PROMOTE, 2), RAFT_OK, "it has caught up");
    no_violations("lag of a learner");
    lone_free(lone);
}

static void test_read_rounds(void)
{
    struct lone *lone = new_lone_leader(3, 3);
    const struct raft_action *ready;
    uint64_t id = 0;
    uint64_t round = 0;

    lone->now_ms += LONE_ELECTION_MS; /* no lease */
    for (int i = 0; i < RAFT_READ_ROUNDS_MAX; i++) {
        check(lone_read(lone, ++id) == RAFT_OK);
        lone_turn_end(lone);
        check(lone_sent(lone, RAFT_MESSAGE_APPEND, 2) != NULL);
        round = lone_sent(lone, RAFT_MESSAGE_APPEND, 2)->append.round;
    }
    tap_equal(lone_read(lone, ++id), RAFT_OK, "a read beyond all rounds is taken");
    check(lone_read(lone, ++id) == RAFT_OK);
    tap_ok(!raft_wants_turn_end(lone->raft), "and waits");
    lone_reply(lone, 2, 1, round - 1);
    ready = lone_action(lone, RAFT_ACTION_READ_READY);
    tap_ok(ready != NULL && ready->read_ready.id == RAFT_READ_ROUNDS_MAX - 1,
           "an answer is good for its round and those before");
    tap_ok(raft_wants_turn_end(lone->raft), "then it gets one, shared with the next");
    lone_turn_end(lone);
    lone_reply(lone, 2, 1, round + 1);
    ready = lone_action(lone, RAFT_ACTION_READ_READY);
    tap_ok(ready != NULL && ready->read_ready.id == id, "and is answered");
    lone_free(lone);

    /* The only voter asks nobody, but its own disk first. */
    lone = lone_new_of(1, 1);
    lone_start(lone);
    lone_persisted(lone);
    for (id = 1; id <= 3 * RAFT_READ_ROUNDS_MAX; id++)
        check(lone_read(lone, id) == RAFT_OK && lone->actions.count == 0);
    lone_persisted(lone);
    ready = lone_action(lone, RAFT_ACTION_READ_READY);
    for (int i = 0; raft_wants_turn_end(lone->raft) && i < 10; i++) {
        lone_turn_end(lone);
        if (lone_action(lone, RAFT_ACTION_READ_READY) != NULL)
            ready = lone_action(lone, RAFT_ACTION_READ_READY);
    }
    tap_ok(ready != NULL && ready->read_ready.id == 3 * RAFT_READ_ROUNDS_MAX,
           "an only voter answers all that waited for its no-op");
    no_violations("rounds of reads");
    lone_free(lone);
}

/* An answer to a round whose time is forgotten gives no lease. */
static void test_rounds(void)
{
    struct lone *lone = new_lone_leader(3, 3);
    uint64_t first;

    lone_turn_end(lone);
    lone->now_ms += LONE_HEARTBEAT_MS;
    lone_tick(lone, lone->now_ms);
    lone_turn_end(lone);
    check(lone_sent(lone, RAFT_MESSAGE_APPEND, 2) != NULL);
    first = lone_sent(lone, RAFT_MESSAGE_APPEND, 2)->append.round;
    const uint64_t then_ms = lone->now_ms;
    lone->now_ms += 10;
    lone_reply(lone, 2, 1, first);
    tap_equal(raft_get_lease_ms(lone->raft), then_ms + lone->raft->lease_ms,
              "a lease counts from its round's beginning");
    while (lone->raft->round < first + RAFT_ROUNDS_MAX - 1)
        raft__begin_round(lone->raft);
    tap_ok(raft_get_lease_ms(lone->raft) > 0, "for the last %d rounds", RAFT_ROUNDS_MAX);
    raft__begin_round(lone->raft);
    tap_equal(raft_get_lease_ms(lone->raft), 0, "and not for older ones");
    no_violations("rounds of heartbeats");
    lone_free(lone);
}

/* A drift beyond all sense leaves no lease, rather than one that is too long. */
static void test_drift_max(void)
{
    struct raft_member members[] = {{.id = 1, .voter = true}};
    struct raft_config config = {.id = 1,
                                 .members = members,
                                 .members_count = 1,
                                 .election_ms = LONE_ELECTION_MS,
                                 .heartbeat_ms = LONE_HEARTBEAT_MS};
    void *memory = aligned_alloc(16, raft_size());
    struct raft *raft;

    for (uint32_t less = 0; less < 2000; less += 999) {
        config.max_drift_permille = UINT32_MAX - less;
        check(raft_init(memory, &config, &raft) == RAFT_OK);
        check(raft->lease_ms == 0);
    }
    no_violations("clocks that drift as far as can be said");
    free(memory);
}

/* Whoever makes snapshots can wait for one that is being sent. */
static void test_sending_snapshot(void)
{
    struct lone *lone = new_lone_leader(3, 3);
    const uint64_t last = 6;
    struct raft_message reply = {.type = RAFT_MESSAGE_APPEND_REPLY, .from = 3};

    check(lone_propose(lone, 5, 1) == RAFT_OK);
    lone_turn_end(lone);
    lone_persisted(lone);
    lone_reply(lone, 2, last, 1);
    check(lone_step(lone, compacted_to(last)) == RAFT_OK);
    tap_ok(!raft_is_sending_snapshot(lone->raft), "no snapshot is being sent");
    reply.append_reply.round = 1;
    reply.append_reply.rejected = true;
    reply.append_reply.rejected_index = last;
    reply.append_reply.hint_index = 1;
    reply.append_reply.hint_term = 1;
    lone_message(lone, reply);
    lone_turn_end(lone);
    tap_ok(lone_sent(lone, RAFT_MESSAGE_SNAPSHOT, 3) != NULL &&
               raft_is_sending_snapshot(lone->raft),
           "to one that needs it, it is");
    lone_tick(lone, lone->now_ms + LONE_ELECTION_MS);
    tap_ok(raft_is_sending_snapshot(lone->raft), "as long as that one may answer");
    lone_reply(lone, 2, last, 1);
    lone_tick(lone, lone->now_ms + 1);
    tap_ok(!raft_is_sending_snapshot(lone->raft), "one that does not answer is not waited for");
    lone_reply(lone, 3, last, 1);
    tap_ok(!raft_is_sending_snapshot(lone->raft), "nor one that has it");
    lone_free(lone);
}

/* A server whose writes are nearly all outstanding takes no messages, rather than more writes. */
static void test_messages_without_writes(void)
{
    struct lone *lone = new_lone_leader(3, 3);
    bool ok = true;

    for (int i = 0; i < RAFT_WRITES_MAX; i++)
        ok = lone_propose(lone, 1, 1) == RAFT_OK && ok;
    tap_ok(ok && lone_propose(lone, 1, 1) == RAFT_ERR_FULL, "a leader's writes are full");
    tap_equal(lone_change(lone, RAFT_CHANGE_REMOVE, 3), RAFT_ERR_FULL, "no change either");
    lone_message(lone, (struct raft_message){.type = RAFT_MESSAGE_APPEND_REPLY,
                                             .from = 2,
                                             .term = raft_get_term(lone->raft) + 1});
    tap_equal(raft_get_role(lone->raft), RAFT_LEADER, "a message that needs a write is dropped");
    lone_persisted(lone);
    lone_message(lone, (struct raft_message){.type = RAFT_MESSAGE_APPEND_REPLY,
                                             .from = 2,
                                             .term = raft_get_term(lone->raft) + 1});
    tap_equal(raft_get_role(lone->raft), RAFT_FOLLOWER, "until there is room");
    no_violations("messages without room for writes");
    lone_free(lone);
}

int main(void)
{
    test_runs_full();
    test_writes_full();
    test_compaction();
    test_compaction_gives_room();
    test_drift_max();
    test_sending_snapshot();
    test_voters_full();
    test_members_full();
    test_changes_full();
    test_follower_runs_full();
    test_windows();
    test_sizes();
    test_entry_bytes();
    test_promote_lag();
    test_read_rounds();
    test_rounds();
    test_messages_without_writes();
    return tap_done();
}
