/*
 * Time, majorities and chance in the core: the edges of a lease and of a voter's promise to the
 * millisecond, under clocks of the largest difference; election timeouts; the quorum functions by
 * definition.
 */
#include <math.h>

#include "tests/lib/raft_lone.h"
#include "tests/lib/tap.h"

/* Thesis 3.4, 3.6.2: by definition, without sorting. */
static bool has_bit(const struct raft *raft, size_t at)
{
    return raft->peers[at].granted;
}

static uint64_t match_of(const struct raft *raft, size_t at)
{
    return raft->peers[at].match;
}

static void test_quorum(void)
{
    bool votes_ok = true;
    bool match_ok = true;

    for (size_t voters = 1; voters <= RAFT_VOTERS_MAX; voters++) {
        /* Learners have it all, and count for nothing. */
        struct lone *lone = lone_new_of(voters, voters + 3);
        struct raft *raft = lone->raft;
        for (size_t i = voters; i < voters + 3; i++) {
            raft->peers[i].granted = true;
            raft->peers[i].match = 100;
        }
        for (unsigned code = 0; code < 1u << voters; code++) {
            size_t count = 0;
            for (size_t i = 0; i < voters; i++) {
                raft->peers[i].granted = code >> i & 1;
                count += code >> i & 1;
            }
            votes_ok = raft__has_majority(raft, has_bit) == (2 * count > voters) && votes_ok;
        }
        /* Every way of giving each voter one of four indexes. */
        for (unsigned code = 0; code < 1u << (2 * voters); code++) {
            uint64_t best = 0;
            for (size_t i = 0; i < voters; i++)
                raft->peers[i].match = code >> (2 * i) & 3;
            for (uint64_t index = 0; index <= 3; index++) {
                size_t have = 0;
                for (size_t i = 0; i < voters; i++)
                    have += raft->peers[i].match >= index;
                if (2 * have > voters)
                    best = index;
            }
            match_ok = raft__majority_reached(raft, match_of) == best && match_ok;
        }
        lone_free(lone);
    }
    tap_ok(votes_ok, "every set of votes of 1 to %d voters", RAFT_VOTERS_MAX);
    tap_ok(match_ok, "what a majority has, for 1 to %d voters", RAFT_VOTERS_MAX);

    struct lone *lone = lone_new(NULL, 0);
    tap_ok(!raft__has_majority(lone->raft, has_bit) &&
               raft__majority_reached(lone->raft, match_of) == 0,
           "nobody is no majority");
    lone_free(lone);
}

/* The timeouts of many seeds spread over the whole interval; seeds that are neighbours, as the
 * callers' are, do not follow each other. */
static void test_timeouts(void)
{
    enum { SEEDS = 4000, BINS = 20 };
    const struct raft_member members[] = {{1, true}, {2, true}, {3, true}};
    struct raft_config config = {.id = 1,
                                 .members = members,
                                 .members_count = 3,
                                 .election_ms = LONE_ELECTION_MS,
                                 .heartbeat_ms = LONE_HEARTBEAT_MS};
    void *memory = aligned_alloc(16, raft_size());
    struct raft_actions actions;
    long bins[2][BINS] = {{0}};
    long same = 0;
    uint64_t last_ms = 0;
    bool within = true;
    bool spread = true;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct raft *raft = NULL;
        struct raft_event event = {.type = RAFT_EVENT_START, .now_ms = 5000};
        config.seed = seed;
        if (raft_init(memory, &config, &raft) != RAFT_OK ||
            raft_step(raft, &event, &actions) != RAFT_OK)
            break;
        for (int round = 0; round < 2; round++) {
            const uint64_t at_ms = raft_get_deadline_ms(raft) - event.now_ms;
            within = at_ms > LONE_ELECTION_MS && at_ms <= 2 * LONE_ELECTION_MS && within;
            if (within)
                bins[round][(at_ms - LONE_ELECTION_MS - 1) * BINS / LONE_ELECTION_MS]++;
            if (round == 0) {
                same += at_ms == last_ms;
                last_ms = at_ms;
            }
            event.type = RAFT_EVENT_TICK;
            event.now_ms = raft_get_deadline_ms(raft);
            raft_step(raft, &event, &actions);
        }
    }
    tap_ok(within, "election timeouts are between election_ms, and double");
    /* 200 each are expected, with a standard deviation of 14. */
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < BINS; i++)
            spread = bins[round][i] > 130 && bins[round][i] < 270 && spread;
    tap_ok(spread, "and spread evenly, the first and the second of a server");
    tap_ok(same < 20, "neighbouring seeds differ (%ld of %d do not)", same, SEEDS);
    free(memory);
}

static void vote_request(struct lone *lone, enum raft_message_type type, uint64_t term)
{
    lone_message(lone, (struct raft_message){
                           .type = type,
                           .from = 3,
                           .term = term,
                           .vote = {.campaign_term = 2, .last_index = 100, .last_term = 1}});
}

/* A voter's word, from a heartbeat's arrival on. */
static void test_voter(void)
{
    for (int vote = 0; vote <= 1; vote++) {
        for (uint64_t elapsed_ms = LONE_ELECTION_MS - 1; elapsed_ms <= LONE_ELECTION_MS + 1;
             elapsed_ms++) {
            struct lone *lone = lone_new_of(3, 3);
            const struct raft_message *reply;
            lone->now_ms = 70;
            lone_start(lone);
            lone_message(lone, (struct raft_message){.type = RAFT_MESSAGE_APPEND,
                                                     .from = 2,
                                                     .term = 1,
                                                     .append = {.round = 1}});
            lone_persisted(lone);
            lone->now_ms += elapsed_ms;
            vote_request(lone, vote ? RAFT_MESSAGE_VOTE : RAFT_MESSAGE_PRE_VOTE, vote ? 2 : 1);
            if (vote)
                lone_persisted(lone);
            reply =
                lone_sent(lone, vote ? RAFT_MESSAGE_VOTE_REPLY : RAFT_MESSAGE_PRE_VOTE_REPLY, 3);
            if (elapsed_ms <= LONE_ELECTION_MS)
                tap_ok((reply == NULL || !reply->vote_reply.granted) &&
                           raft_get_term(lone->raft) == 1,
                       "%s: refused %d ms after the leader", vote ? "vote" : "pre-vote",
                       (int)elapsed_ms);
            else
                tap_ok(reply != NULL && reply->vote_reply.granted, "%s: granted 1 ms later",
                       vote ? "vote" : "pre-vote");
            lone_free(lone);
        }
    }

    struct lone *lone = lone_new_of(3, 3);
    lone->now_ms = 5000;
    lone_start(lone);
    lone->now_ms += LONE_ELECTION_MS;
    vote_request(lone, RAFT_MESSAGE_VOTE, 2);
    tap_equal(raft_get_term(lone->raft), 0, "a server that has just started does not vote");
    lone->now_ms++;
    vote_request(lone, RAFT_MESSAGE_VOTE, 2);
    tap_equal(raft_get_term(lone->raft), 2, "1 ms after an election timeout it does");
    lone_free(lone);
}

/* A leader and a voter on clocks whose rates have the largest ratio allowed, read in whole
 * milliseconds, at every phase of both: the last moment of the lease is before the first at which
 * the voter may vote. */
static void test_lease_and_vote(uint32_t election_ms, uint32_t drift_permille)
{
    const uint64_t lease_ms = (uint64_t)election_ms * 1000 / (1000 + drift_permille);
    const double slow = 1.0; /* of the leader's clock */
    const double fast = 1 + drift_permille / 1000.0;
    double closest_ms = INFINITY;

    for (int phase = 0; phase < 100; phase++) {
        for (int other = 0; other < 100; other++) {
            /* True times, the leader's reading at its beginning, the voter's at once: no delay. */
            const double begin = (double)phase / 100;
            const double heard = begin;
            const uint64_t begun_ms = (uint64_t)floor(begin * slow);
            const double offset = (double)other / 100;
            const uint64_t heard_ms = (uint64_t)floor(heard * fast + offset);
            /* The last reading at which it reads, and the end of that millisecond. */
            const uint64_t last_read_ms = begun_ms + lease_ms - 2;
            const double last_read = (double)(last_read_ms + 1) / slow;
            /* The first reading at which it votes, and the beginning of that one. */
            const uint64_t vote_ms = heard_ms + election_ms + 1;
            const double vote = ((double)vote_ms - offset) / fast;
            if (vote - last_read < closest_ms)
                closest_ms = vote - last_read;
        }
    }
    tap_ok(closest_ms >= 0, "%u ms, %u permille: lease and vote are %.3f ms apart", election_ms,
           drift_permille, closest_ms);
}

/* The leader's side to the millisecond; `begun_ms` is when the round began. */
static void test_leader(uint32_t answer_after_ms)
{
    struct lone *lone = lone_new_of(3, 3);
    uint64_t begun_ms;
    uint64_t lease_ms;

    lone_start(lone);
    if (!lone_lead(lone))
        tap_ok(false, "server 1 leads");
    lone_turn_end(lone);
    lone_all_match(lone, 1);
    lone_turn_end(lone);
    lone_tick(lone, lone->now_ms + LONE_ELECTION_MS);
    begun_ms = lone->now_ms;
    lone_turn_end(lone);
    lone->now_ms += answer_after_ms;
    lone_reply(lone, 2, 1, lone->raft->round);
    lease_ms = begun_ms + (uint64_t)LONE_ELECTION_MS * 1000 / (1000 + LONE_DRIFT_PERMILLE);
    tap_equal(raft_get_lease_ms(lone->raft), lease_ms,
              "answered after %u ms: the lease counts from before the sending", answer_after_ms);
    lone->now_ms = lease_ms - 2;
    lone_read(lone, 1);
    tap_ok(lone_action(lone, RAFT_ACTION_READ_READY) != NULL, "2 ms before its end it is good");
    lone->now_ms = lease_ms - 1;
    lone_read(lone, 2);
    tap_ok(lone_action(lone, RAFT_ACTION_READ_READY) == NULL, "1 ms before, it is not");
    lone_read(lone, 3);
    tap_ok(lone_action(lone, RAFT_ACTION_READ_READY) == NULL,
           "nor is anything read while others wait");
    lone_free(lone);
}

/* Clocks that are handed over late, or go back, do not take the core back. */
static void test_clock(void)
{
    struct lone *lone = lone_new_of(3, 3);
    uint64_t deadline_ms;

    lone->now_ms = 100000;
    lone_start(lone);
    deadline_ms = raft_get_deadline_ms(lone->raft);
    lone_tick(lone, 5);
    tap_equal(raft_get_deadline_ms(lone->raft), deadline_ms,
              "a clock that goes back is not believed");
    lone_tick(lone, deadline_ms - 1);
    tap_equal(raft_get_role(lone->raft), RAFT_FOLLOWER, "1 ms before its deadline nothing happens");
    lone_tick(lone, deadline_ms);
    tap_equal(raft_get_role(lone->raft), RAFT_PRE_CANDIDATE, "at it, it asks for votes");
    lone_free(lone);

    /* Check-quorum (thesis 6.2) to the millisecond. */
    for (uint64_t extra_ms = 0; extra_ms <= 1; extra_ms++) {
        lone = lone_new_of(3, 3);
        lone_start(lone);
        lone_lead(lone);
        lone_turn_end(lone);
        lone_all_match(lone, 1);
        lone_tick(lone, lone->now_ms + LONE_ELECTION_MS + extra_ms);
        tap_equal(raft_get_role(lone->raft), extra_ms ? RAFT_FOLLOWER : RAFT_LEADER,
                  "a leader %d ms after the last answer", (int)(LONE_ELECTION_MS + extra_ms));
        lone_free(lone);
    }
}

int main(void)
{
    test_quorum();
    test_timeouts();
    test_voter();
    test_lease_and_vote(1000, 50);
    test_lease_and_vote(1000, 0);
    test_lease_and_vote(997, 37);
    test_lease_and_vote(100, 100);
    test_leader(0);
    test_leader(1);
    test_leader(500);
    test_clock();
    return tap_done();
}
