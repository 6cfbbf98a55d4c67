/*
 * Elections (thesis 3.4), asked for first by a pre-vote (thesis 9.6), and the roles that come of
 * them.
 */
#include "internal.h"

static void begin_campaign(struct raft *raft);
static void count_votes(struct raft *raft, struct raft_actions *actions);

void raft__set_role(struct raft *raft, enum raft_role role, struct raft_actions *actions)
{
    struct raft_action *action = raft__add_action(actions, RAFT_ACTION_ROLE);

    if (raft->role == RAFT_LEADER)
        raft__reads_fail(raft, actions);
    raft->role = role;
    if (role != RAFT_FOLLOWER)
        raft->leader = role == RAFT_LEADER ? raft->id : 0;
    action->role.role = role;
    action->role.term = raft->term;
}

/* What a follower knows by its leader is of the term: another leader's log is another one, and its
 * rounds have numbers of their own. */
static void forget_leader(struct raft *raft)
{
    raft->verified = raft->leader_commit = raft->acknowledged = 0;
    raft->owes_reply = false;
    raft->owed_round = 0;
}

void raft__follow(struct raft *raft, uint64_t term, struct raft_actions *actions)
{
    const bool was_leader = raft->role == RAFT_LEADER;

    assert(term >= raft->term);
    if (term > raft->term) {
        raft->term = term;
        raft->vote = 0;
        raft->state_changed = true;
        raft->leader = 0;
        raft->owed_vote = 0;
    }
    if (raft->role == RAFT_LEADER)
        raft->leader = 0;
    forget_leader(raft);
    if (raft->role != RAFT_FOLLOWER)
        raft__set_role(raft, RAFT_FOLLOWER, actions);
    if (was_leader || raft->election_deadline_ms == UINT64_MAX)
        raft__reset_election_timer(raft);
}

/* Randomised, so that votes are seldom split (thesis 3.4). */
void raft__reset_election_timer(struct raft *raft)
{
    raft->election_deadline_ms =
        raft->now_ms + raft->election_ms + 1 + raft__random(raft, raft->election_ms);
}

/* Both readings were rounded down, so equality is not yet enough. */
bool raft__hears_leader(const struct raft *raft)
{
    if (RAFT_MUTANT(VOTE_DESPITE_LEADER) && raft->role != RAFT_LEADER)
        return false;
    return raft->role == RAFT_LEADER || raft->now_ms <= raft->heard_ms + raft->election_ms;
}

/* A server asks first whether it would be elected, so that one that cannot be does not disturb a
 * leader by a new term (thesis 9.6). */
void raft__election_timeout(struct raft *raft, struct raft_actions *actions)
{
    raft__reset_election_timer(raft);
    if (!raft__may_campaign(raft))
        return;
    if (raft->role != RAFT_PRE_CANDIDATE)
        raft__set_role(raft, RAFT_PRE_CANDIDATE, actions);
    begin_campaign(raft);
    if (raft__is_voter(raft))
        raft->peers[raft->self].granted = true;
    if (raft__may_speak(raft)) {
        for (size_t i = 0; i < raft->peers_count; i++) {
            if (i == raft->self || !raft->peers[i].member.voter)
                continue;
            struct raft_message *message =
                raft__send(raft, RAFT_MESSAGE_PRE_VOTE, raft->peers[i].member.id, actions);
            message->vote.campaign_term = raft->term + 1;
            message->vote.last_index = raft->log.last;
            message->vote.last_term = raft__log_last_term(&raft->log);
        }
    }
    count_votes(raft, actions);
}

static void begin_campaign(struct raft *raft)
{
    for (size_t i = 0; i < raft->peers_count; i++)
        raft->peers[i].granted = false;
    raft->votes_asked = false;
}

/* Begins a new term as a candidate that votes for itself (thesis 3.4). Term and vote go to disk as
 * one write (thesis 3.8): were the term durable without the vote, a restart could vote again in it.
 */
enum raft_error raft__campaign(struct raft *raft, bool transfer, struct raft_actions *actions)
{
    /* A leader must append an entry of its term at once, so room for it is a condition of running:
     * a term that cannot have one is not begun. */
    if (raft->term == UINT64_MAX || !raft__log_has_room(&raft->log, raft->term + 1) ||
        raft__writes_full(raft))
        return RAFT_ERR_FULL;

    raft->term++;
    raft->vote = raft->id;
    raft->state_changed = true;
    raft->owed_vote = 0;
    forget_leader(raft);
    raft->campaign_is_transfer = transfer;
    begin_campaign(raft);
    raft__persist_state(raft, actions);
    raft__set_role(raft, RAFT_CANDIDATE, actions);
    /* Its own vote is waited for, or a slow disk would see one term after the other. */
    raft->election_deadline_ms = UINT64_MAX;
    return RAFT_OK;
}

/* Whether the sender's log holds all that may be committed (thesis 3.6.1). */
static bool is_up_to_date(const struct raft *raft, const struct raft_message *message)
{
    const uint64_t last_term = raft__log_last_term(&raft->log);

    if (message->vote.last_term != last_term)
        return message->vote.last_term > last_term;
    return message->vote.last_index >= raft->log.last;
}

/* A promise of nothing: no state changes. A refusal carries our own term, so that a sender whose
 * term lags catches up with it, and never the term proposed, or terms would grow without an
 * election. */
void raft__on_pre_vote(struct raft *raft, const struct raft_message *message,
                       struct raft_actions *actions)
{
    struct raft_message *reply;

    if (!raft__may_speak(raft))
        return;
    reply = raft__send(raft, RAFT_MESSAGE_PRE_VOTE_REPLY, message->from, actions);
    reply->vote_reply.campaign_term = message->vote.campaign_term;
    reply->vote_reply.granted = message->vote.campaign_term > raft->term &&
                                is_up_to_date(raft, message) && !raft__hears_leader(raft);
}

/* One vote a term (thesis 3.4), for a transfer too; and none by a server that hears a leader, who
 * may be reading by lease (thesis 4.2.3 and 6.4.1), unless that leader wishes it. */
void raft__on_vote(struct raft *raft, const struct raft_message *message,
                   struct raft_actions *actions)
{
    const bool is_free = raft->vote == 0 || raft->vote == message->from ||
                         (RAFT_MUTANT(DOUBLE_VOTE_ON_TRANSFER) && message->vote.transfer);
    const bool granted = message->term == raft->term && raft->role == RAFT_FOLLOWER && is_free &&
                         is_up_to_date(raft, message) &&
                         (message->vote.transfer || !raft__hears_leader(raft));

    if (!granted) {
        if (raft__may_speak(raft))
            raft__send(raft, RAFT_MESSAGE_VOTE_REPLY, message->from, actions)
                ->vote_reply.campaign_term = message->vote.campaign_term;
        return;
    }
    if (raft->vote != message->from) {
        raft->vote = message->from;
        raft->state_changed = true;
    }
    raft__reset_election_timer(raft);
    raft->owed_vote = message->from;
    raft__persist_state(raft, actions);
    raft__votes_durable(raft, actions);
}

/* Where the vote is durable already, because it was given before, this is at once. */
void raft__votes_durable(struct raft *raft, struct raft_actions *actions)
{
    if (!raft__may_speak(raft))
        return;
    if (raft->owed_vote != 0) {
        struct raft_message *reply =
            raft__send(raft, RAFT_MESSAGE_VOTE_REPLY, raft->owed_vote, actions);
        reply->vote_reply.campaign_term = raft->term;
        reply->vote_reply.granted = true;
        raft->owed_vote = 0;
    }
    if (raft->role != RAFT_CANDIDATE || raft->votes_asked)
        return;

    /* Our own vote counts as any other's does: when it is durable (thesis 3.8). Before that, a
     * crash could forget it, and this server vote in the same term again. */
    raft->votes_asked = true;
    raft__reset_election_timer(raft);
    if (raft__is_voter(raft))
        raft->peers[raft->self].granted = true;
    for (size_t i = 0; i < raft->peers_count; i++) {
        if (i == raft->self || !raft->peers[i].member.voter)
            continue;
        struct raft_message *message =
            raft__send(raft, RAFT_MESSAGE_VOTE, raft->peers[i].member.id, actions);
        message->vote.campaign_term = raft->term;
        message->vote.last_index = raft->log.last;
        message->vote.last_term = raft__log_last_term(&raft->log);
        message->vote.transfer = raft->campaign_is_transfer;
    }
    count_votes(raft, actions);
}

void raft__on_vote_reply(struct raft *raft, const struct raft_message *message,
                         struct raft_actions *actions)
{
    const bool is_pre = message->type == RAFT_MESSAGE_PRE_VOTE_REPLY;
    struct raft__peer *peer = raft__peer(raft, message->from);

    if (peer == NULL || !message->vote_reply.granted)
        return;
    if (raft->role != (is_pre ? RAFT_PRE_CANDIDATE : RAFT_CANDIDATE) ||
        (!is_pre && !raft->votes_asked) || message->vote_reply.campaign_term != raft->term + is_pre)
        return;
    peer->granted = true;
    count_votes(raft, actions);
}

static bool has_granted(const struct raft *raft, size_t at)
{
    return raft->peers[at].granted;
}

static void count_votes(struct raft *raft, struct raft_actions *actions)
{
    if (!raft__has_majority(raft, has_granted))
        return;
    if (raft->role == RAFT_PRE_CANDIDATE) {
        /* Without room for a term this server waits, and others may lead. */
        if (raft__campaign(raft, false, actions) != RAFT_OK)
            raft__set_role(raft, RAFT_FOLLOWER, actions);
    } else {
        assert(raft->role == RAFT_CANDIDATE && raft->vote == raft->id);
        raft__lead(raft, actions);
    }
}
