/* Handing leadership to a voter that has the whole log: it need not wait for a timeout (thesis
 * 3.10). */
#include "internal.h"

enum raft_error raft__transfer(struct raft *raft, uint64_t to)
{
    const struct raft__peer *peer = raft__peer(raft, to);

    if (raft->role != RAFT_LEADER)
        return RAFT_ERR_NOT_LEADER;
    if (peer == NULL || !peer->member.voter || to == raft->id)
        return RAFT_ERR_MEMBER;
    if (raft->transfer_to != 0)
        return RAFT_ERR_BUSY;
    raft->transfer_to = to;
    raft->transfer_deadline_ms = raft->now_ms + raft->election_ms;
    /* Its answer shows what it has. */
    raft__peer(raft, to)->beat_due = true;
    return RAFT_OK;
}

/* Commands are still taken, since a transfer may be given up without any change of leader: the
 * go-ahead leaves at a moment when the peer has them all. */
void raft__transfer_check(struct raft *raft, struct raft_actions *actions)
{
    const struct raft__peer *peer =
        raft->transfer_to != 0 ? raft__peer(raft, raft->transfer_to) : NULL;

    if (peer == NULL || !peer->member.voter || peer->match != raft->log.last)
        return;
    raft__send(raft, RAFT_MESSAGE_TIMEOUT_NOW, raft->transfer_to, actions);
    raft->transfer_sent = true;
    raft->transfer_to = 0;
}

void raft__on_timeout_now(struct raft *raft, const struct raft_message *message,
                          struct raft_actions *actions)
{
    if (raft->role != RAFT_FOLLOWER || raft->leader != message->from || !raft__is_voter(raft))
        return;
    /* Without room for a term it stays a follower, and the leader leads on. */
    (void)raft__campaign(raft, true, actions);
}
