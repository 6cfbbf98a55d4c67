/*
 * The configuration: a base, and the changes in the log, each in force from its append on (thesis
 * 4.1). It is always made anew from both, so a log that is cut takes its changes along.
 *
 * One change at a time alters at most one voter, so that majorities of neighbouring configurations
 * share a voter; and none before an entry of the leader's own term is committed, without which two
 * leaders could each change a configuration that the other does not know (Ongaro, raft-dev, July
 * 2015).
 */
#include "internal.h"

static size_t apply_change(struct raft_member *members, size_t count,
                           const struct raft_change *change);
static void rebuild(struct raft *raft);

bool raft__members_are_sound(const struct raft_member *members, size_t count)
{
    size_t voters = 0;

    if (count > RAFT_MEMBERS_MAX)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (members[i].id == 0)
            return false;
        for (size_t j = 0; j < i; j++)
            if (members[j].id == members[i].id)
                return false;
        voters += members[i].voter;
    }
    return voters <= RAFT_VOTERS_MAX && (count == 0 || voters > 0);
}

void raft__members_begin(struct raft *raft, const struct raft_member *members, size_t count)
{
    raft->members.changes_count = 0;
    raft__members_rebase(raft, members, count);
}

void raft__members_rebase(struct raft *raft, const struct raft_member *members, size_t count)
{
    raft->members.base_count = count;
    for (size_t i = 0; i < count; i++)
        raft->members.base[i] = members[i];
    rebuild(raft);
}

bool raft__members_have_room(const struct raft *raft, size_t changes)
{
    return changes <= RAFT_CHANGES_MAX - raft->members.changes_count;
}

void raft__members_append(struct raft *raft, uint64_t index, const struct raft_change *change)
{
    struct raft__members *members = &raft->members;

    assert(raft__members_have_room(raft, 1));
    members->changes[members->changes_count++] =
        (struct raft__change){.index = index, .change = *change};
    rebuild(raft);
}

void raft__members_truncate(struct raft *raft, uint64_t last)
{
    struct raft__members *members = &raft->members;
    const size_t before = members->changes_count;

    while (members->changes_count > 0 && members->changes[members->changes_count - 1].index > last)
        members->changes_count--;
    if (members->changes_count != before)
        rebuild(raft);
}

void raft__members_compact(struct raft *raft, uint64_t base)
{
    struct raft__members *members = &raft->members;
    size_t gone = 0;

    for (; gone < members->changes_count && members->changes[gone].index <= base; gone++)
        members->base_count =
            apply_change(members->base, members->base_count, &members->changes[gone].change);
    members->changes_count -= gone;
    for (size_t i = 0; i < members->changes_count; i++)
        members->changes[i] = members->changes[i + gone];
}

/* A change that does not fit changes nothing: what a leader logs fits, and what is read back from a
 * disk must not do harm. */
static size_t apply_change(struct raft_member *members, size_t count,
                           const struct raft_change *change)
{
    size_t at = 0;
    size_t voters = 0;

    while (at < count && members[at].id != change->id)
        at++;
    for (size_t i = 0; i < count; i++)
        voters += members[i].voter;
    switch (change->type) {
    case RAFT_CHANGE_ADD_LEARNER:
        if (at == count && count < RAFT_MEMBERS_MAX && change->id != 0)
            members[count++] = (struct raft_member){.id = change->id};
        break;
    case RAFT_CHANGE_PROMOTE:
        if (at < count && voters < RAFT_VOTERS_MAX)
            members[at].voter = true;
        break;
    case RAFT_CHANGE_DEMOTE:
        if (at < count && (voters > 1 || !members[at].voter))
            members[at].voter = false;
        break;
    case RAFT_CHANGE_REMOVE:
        if (at == count || (voters == 1 && members[at].voter))
            break;
        count--;
        for (; at < count; at++)
            members[at] = members[at + 1];
        break;
    }
    return count;
}

static size_t members_at(const struct raft *raft, uint64_t index, struct raft_member *members)
{
    size_t count = raft->members.base_count;

    for (size_t i = 0; i < count; i++)
        members[i] = raft->members.base[i];
    for (size_t i = 0; i < raft->members.changes_count; i++)
        if (raft->members.changes[i].index <= index)
            count = apply_change(members, count, &raft->members.changes[i].change);
    return count;
}

size_t raft_get_members_at(const struct raft *raft, uint64_t index, struct raft_member *ret_members)
{
    assert(index >= raft->log.base && index <= raft->log.last);
    return members_at(raft, index, ret_members);
}

struct raft__peer *raft__peer(struct raft *raft, uint64_t id)
{
    for (size_t i = 0; i < raft->peers_count; i++)
        if (raft->peers[i].member.id == id)
            return &raft->peers[i];
    return NULL;
}

static void find_self(struct raft *raft)
{
    raft->self = 0;
    while (raft->self < raft->peers_count && raft->peers[raft->self].member.id != raft->id)
        raft->self++;
}

/* The peers become the members of the latest configuration; who stays keeps what is known of it. */
static void rebuild(struct raft *raft)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    const size_t count = members_at(raft, UINT64_MAX, members);

    for (size_t i = 0; i < raft->peers_count;) {
        size_t at = 0;
        while (at < count && members[at].id != raft->peers[i].member.id)
            at++;
        if (at < count) {
            i++;
            continue;
        }
        raft->peers_count--;
        for (size_t j = i; j < raft->peers_count; j++)
            raft->peers[j] = raft->peers[j + 1];
    }
    find_self(raft);
    for (size_t i = 0; i < count; i++) {
        struct raft__peer *peer = raft__peer(raft, members[i].id);
        if (peer == NULL) {
            peer = &raft->peers[raft->peers_count++];
            *peer = (struct raft__peer){.heard_ms = raft->now_ms};
            peer->member.id = members[i].id;
            raft__probe_from(raft, peer, raft->log.last + 1);
        }
        peer->member.voter = members[i].voter;
    }
    find_self(raft);
}

bool raft__is_voter(const struct raft *raft)
{
    return raft->self < raft->peers_count && raft->peers[raft->self].member.voter;
}

/* Before the latest change. Not at the commit index, which a server that has just started knows of
 * old entries only: it may have become a voter since. */
static bool was_voter(const struct raft *raft)
{
    const struct raft__members *changes = &raft->members;
    struct raft_member members[RAFT_MEMBERS_MAX];
    const uint64_t latest = changes->changes[changes->changes_count - 1].index;
    const size_t count = members_at(raft, latest - 1, members);

    for (size_t i = 0; i < count; i++)
        if (members[i].id == raft->id)
            return members[i].voter;
    return false;
}

bool raft__may_campaign(const struct raft *raft)
{
    return raft__is_voter(raft) || (raft__change_is_pending(raft) && was_voter(raft));
}

bool raft__is_only_voter(const struct raft *raft)
{
    if (!raft__is_voter(raft))
        return false;
    for (size_t i = 0; i < raft->peers_count; i++)
        if (i != raft->self && raft->peers[i].member.voter)
            return false;
    return true;
}

bool raft__is_alone(const struct raft *raft)
{
    return raft->peers_count == 1 && raft->self == 0;
}

bool raft__change_is_pending(const struct raft *raft)
{
    const struct raft__members *members = &raft->members;

    return members->changes_count > 0 &&
           members->changes[members->changes_count - 1].index > raft->commit;
}

/* A learner is promoted once it has caught up, or the cluster could stand still until it has
 * (thesis 4.2.1). */
static enum raft_error check_change(struct raft *raft, const struct raft_change *change)
{
    const struct raft__peer *peer = raft__peer(raft, change->id);
    size_t voters = 0;

    for (size_t i = 0; i < raft->peers_count; i++)
        voters += raft->peers[i].member.voter;
    switch (change->type) {
    case RAFT_CHANGE_ADD_LEARNER:
        if (peer != NULL || change->id == 0)
            return RAFT_ERR_MEMBER;
        if (raft->snapshot_index == 0)
            return RAFT_ERR_SNAPSHOT;
        return raft->peers_count < RAFT_MEMBERS_MAX ? RAFT_OK : RAFT_ERR_FULL;
    case RAFT_CHANGE_PROMOTE:
        if (peer == NULL || peer->member.voter)
            return RAFT_ERR_MEMBER;
        if (voters == RAFT_VOTERS_MAX)
            return RAFT_ERR_FULL;
        return peer->progress == RAFT__REPLICATE &&
                       peer->match + RAFT_PROMOTE_LAG_MAX >= raft->log.last &&
                       peer->match >= raft->noop &&
                       peer->heard_ms + raft->election_ms >= raft->now_ms
                   ? RAFT_OK
                   : RAFT_ERR_BEHIND;
    case RAFT_CHANGE_DEMOTE:
        return peer != NULL && peer->member.voter && voters > 1 ? RAFT_OK : RAFT_ERR_MEMBER;
    case RAFT_CHANGE_REMOVE:
        return peer != NULL && (voters > 1 || !peer->member.voter) ? RAFT_OK : RAFT_ERR_MEMBER;
    }
    return RAFT_ERR_MEMBER;
}

enum raft_error raft__change(struct raft *raft, const struct raft_change *change,
                             struct raft_actions *actions)
{
    const struct raft_entry entry = {
        .term = raft->term, .type = RAFT_ENTRY_CHANGE, .change = *change};
    enum raft_error error;

    if (raft->role != RAFT_LEADER)
        return RAFT_ERR_NOT_LEADER;
    if ((raft__change_is_pending(raft) || !raft__knows_commit(raft)) &&
        !RAFT_MUTANT(CHANGE_WITHOUT_GUARD))
        return RAFT_ERR_BUSY;
    error = check_change(raft, change);
    if (error != RAFT_OK)
        return error;
    if (raft__writes_full(raft) || !raft__members_have_room(raft, 1))
        return RAFT_ERR_FULL;
    raft__members_append(raft, raft->log.last + 1, change);
    raft__append(raft, 1, &entry, actions);
    if (raft->heartbeat_deadline_ms == UINT64_MAX)
        raft->heartbeat_deadline_ms = raft->now_ms;
    /* A majority of fewer voters may have all that was waiting. */
    raft__advance_commit(raft, actions);
    return RAFT_OK;
}
