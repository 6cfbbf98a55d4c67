/* One server of the core among messages, see raft_lone.h. */
#include "raft_lone.h"

#include <stdlib.h>
#include <string.h>

struct lone *lone_new(const struct raft_member *members, size_t count)
{
    const struct raft_config config = {.id = 1,
                                       .members = members,
                                       .members_count = count,
                                       .election_ms = LONE_ELECTION_MS,
                                       .heartbeat_ms = LONE_HEARTBEAT_MS,
                                       .max_drift_permille = LONE_DRIFT_PERMILLE,
                                       .seed = 1};
    struct lone *lone = calloc(1, sizeof(*lone));

    lone->memory = aligned_alloc(16, raft_size());
    memset(lone->memory, 0xa5, raft_size());
    if (raft_init(lone->memory, &config, &lone->raft) != RAFT_OK)
        abort();
    return lone;
}

struct lone *lone_new_of(size_t voters, size_t count)
{
    struct raft_member members[RAFT_MEMBERS_MAX];

    for (size_t i = 0; i < count; i++)
        members[i] = (struct raft_member){.id = i + 1, .voter = i < voters};
    return lone_new(members, count);
}

void lone_free(struct lone *lone)
{
    free(lone->memory);
    free(lone);
}

enum raft_error lone_step(struct lone *lone, struct raft_event event)
{
    enum raft_error error;

    event.now_ms = lone->now_ms;
    error = raft_step(lone->raft, &event, &lone->actions);
    for (size_t i = 0; i < lone->actions.count; i++) {
        const enum raft_action_type type = lone->actions.items[i].type;
        lone->issued += type == RAFT_ACTION_PERSIST_STATE || type == RAFT_ACTION_PERSIST_ENTRIES ||
                        type == RAFT_ACTION_PERSIST_RESET;
    }
    return error;
}

enum raft_error lone_start(struct lone *lone)
{
    return lone_step(lone, (struct raft_event){.type = RAFT_EVENT_START});
}

void lone_tick(struct lone *lone, uint64_t now_ms)
{
    lone->now_ms = now_ms;
    lone_step(lone, (struct raft_event){.type = RAFT_EVENT_TICK});
}

void lone_turn_end(struct lone *lone)
{
    lone_step(lone, (struct raft_event){.type = RAFT_EVENT_TURN_END});
}

void lone_persisted(struct lone *lone)
{
    lone_step(lone, (struct raft_event){.type = RAFT_EVENT_PERSISTED,
                                        .persisted = {.write = lone->issued}});
}

enum raft_error lone_propose(struct lone *lone, uint32_t count, uint32_t bytes)
{
    return lone_step(lone, (struct raft_event){.type = RAFT_EVENT_PROPOSE,
                                               .propose = {.count = count, .bytes = bytes}});
}

enum raft_error lone_change(struct lone *lone, enum raft_change_type type, uint64_t id)
{
    return lone_step(
        lone, (struct raft_event){.type = RAFT_EVENT_CHANGE, .change = {.type = type, .id = id}});
}

enum raft_error lone_read(struct lone *lone, uint64_t id)
{
    return lone_step(lone, (struct raft_event){.type = RAFT_EVENT_READ, .read = {.id = id}});
}

void lone_append(struct lone *lone, struct raft_message message, const struct raft_entry *entries)
{
    if (message.to == 0)
        message.to = 1;
    if (message.term == 0)
        message.term = raft_get_term(lone->raft);
    lone_step(lone, (struct raft_event){.type = RAFT_EVENT_MESSAGE,
                                        .message = {.message = &message, .entries = entries}});
}

void lone_message(struct lone *lone, struct raft_message message)
{
    lone_append(lone, message, NULL);
}

void lone_reply(struct lone *lone, uint64_t from, uint64_t match, uint64_t round)
{
    lone_message(lone, (struct raft_message){.type = RAFT_MESSAGE_APPEND_REPLY,
                                             .from = from,
                                             .append_reply = {.match = match, .round = round}});
}

static void grant(struct lone *lone, enum raft_message_type type, uint64_t campaign_term)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    const size_t count = raft_get_members_at(lone->raft, raft_get_last_index(lone->raft), members);

    for (size_t i = 0; i < count; i++)
        if (members[i].id != 1 && members[i].voter)
            lone_message(lone, (struct raft_message){.type = type,
                                                     .from = members[i].id,
                                                     .vote_reply = {.campaign_term = campaign_term,
                                                                    .granted = true}});
}

bool lone_lead(struct lone *lone)
{
    if (raft_get_role(lone->raft) == RAFT_FOLLOWER &&
        raft_get_deadline_ms(lone->raft) != UINT64_MAX)
        lone_tick(lone, raft_get_deadline_ms(lone->raft));
    if (raft_get_role(lone->raft) == RAFT_PRE_CANDIDATE)
        grant(lone, RAFT_MESSAGE_PRE_VOTE_REPLY, raft_get_term(lone->raft) + 1);
    lone_persisted(lone);
    if (raft_get_role(lone->raft) == RAFT_CANDIDATE)
        grant(lone, RAFT_MESSAGE_VOTE_REPLY, raft_get_term(lone->raft));
    return raft_get_role(lone->raft) == RAFT_LEADER;
}

void lone_all_match(struct lone *lone, uint64_t round)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    const uint64_t last = raft_get_last_index(lone->raft);
    const size_t count = raft_get_members_at(lone->raft, last, members);

    for (size_t i = 0; i < count; i++)
        if (members[i].id != 1 && members[i].voter)
            lone_reply(lone, members[i].id, last, round);
    lone_persisted(lone);
}

const struct raft_action *lone_action(const struct lone *lone, enum raft_action_type type)
{
    for (size_t i = 0; i < lone->actions.count; i++)
        if (lone->actions.items[i].type == type)
            return &lone->actions.items[i];
    return NULL;
}

const struct raft_message *lone_sent(const struct lone *lone, enum raft_message_type type,
                                     uint64_t to)
{
    for (size_t i = 0; i < lone->actions.count; i++) {
        const struct raft_action *action = &lone->actions.items[i];
        if (action->type == RAFT_ACTION_SEND && action->send.type == type && action->send.to == to)
            return &action->send;
    }
    return NULL;
}
