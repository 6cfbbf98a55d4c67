/*
 * The entry point of the core: recovery, the events and where they go, and the actions that come
 * out. What depends on a write is caused by the report of that write, and by nothing else.
 */
#include "internal.h"

static enum raft_error dispatch(struct raft *raft, const struct raft_event *event,
                                struct raft_actions *actions);
static enum raft_error on_recovered_state(struct raft *raft, uint64_t term, uint64_t vote);
static enum raft_error on_recovered_snapshot(struct raft *raft, const struct raft_event *event);
static enum raft_error on_recovered_entry(struct raft *raft, uint64_t index,
                                          const struct raft_entry *entry);
static enum raft_error on_start(struct raft *raft, struct raft_actions *actions);
static void on_tick(struct raft *raft, struct raft_actions *actions);
static void on_message(struct raft *raft, const struct raft_message *message,
                       const struct raft_entry *entries, struct raft_actions *actions);
static void on_persisted(struct raft *raft, uint64_t write, struct raft_actions *actions);
static void on_persist_failed(struct raft *raft, struct raft_actions *actions);
static void on_compacted(struct raft *raft, uint64_t index, uint64_t log_base);

enum {
    MEMORY_ALIGNMENT = 16,
    /* Writes that one event can issue: a term, entries or a reset, and what a vote brings. */
    WRITES_PER_EVENT = 4,
};

static_assert(_Alignof(struct raft) <= MEMORY_ALIGNMENT, "the caller's memory is aligned to 16");

const char *raft_error_text(enum raft_error error)
{
    switch (error) {
#define X(name, value, text)                                                                       \
    case name:                                                                                     \
        return text;
        RAFT_ERRORS(X)
#undef X
    }
    return "unknown error";
}

size_t raft_size(void)
{
    return (sizeof(struct raft) + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

static bool config_is_sound(const struct raft_config *config)
{
    return config->id != 0 && config->heartbeat_ms > 0 &&
           config->election_ms / 2 > config->heartbeat_ms &&
           raft__members_are_sound(config->members, config->members_count);
}

enum raft_error raft_init(void *memory, const struct raft_config *config, struct raft **ret_raft)
{
    struct raft *raft = memory;

    assert(memory != NULL && (uintptr_t)memory % MEMORY_ALIGNMENT == 0);

    if (!config_is_sound(config))
        return RAFT_ERR_CONFIG;

    raft->id = config->id;
    raft->election_ms = config->election_ms;
    raft->heartbeat_ms = config->heartbeat_ms;
    raft->lease_ms = (uint32_t)((uint64_t)config->election_ms * 1000 /
                                (UINT64_C(1000) + config->max_drift_permille));
    raft->random = config->seed;
    raft->now_ms = 0;
    raft->term = raft->vote = 0;
    raft->state_changed = false;
    raft->state_write = 0;
    raft->recovered_index = raft->recovered_term = 0;
    raft->recovered_void = false;
    raft->started = false;
    raft->role = RAFT_FOLLOWER;
    raft->leader = 0;
    raft->commit = raft->durable = 0;
    raft->snapshot_index = raft->snapshot_term = 0;
    raft->heard_ms = 0;
    raft->election_deadline_ms = UINT64_MAX;
    raft->campaign_is_transfer = raft->votes_asked = false;
    raft->verified = raft->leader_commit = raft->acknowledged = 0;
    raft->owes_reply = false;
    raft->owed_round = raft->owed_vote = 0;
    raft->incoming = (struct raft__incoming){0};
    raft->noop = raft->round = 0;
    raft->heartbeat_deadline_ms = UINT64_MAX;
    raft->transfer_to = raft->transfer_deadline_ms = 0;
    raft->transfer_sent = false;
    raft->reads = (struct raft__reads){0};
    raft->peers_count = raft->self = 0;
    raft__log_init(&raft->log);
    raft__members_begin(raft, config->members, config->members_count);
    raft->writes.issued = raft->writes.durable = 0;

    *ret_raft = raft;
    return RAFT_OK;
}

enum raft_error raft_step(struct raft *raft, const struct raft_event *event,
                          struct raft_actions *actions)
{
    const uint64_t term_before = raft->term;
    const uint64_t commit_before = raft->commit;
    enum raft_error error;

    actions->count = 0;
    if (event->now_ms > raft->now_ms)
        raft->now_ms = event->now_ms;
    error = dispatch(raft, event, actions);

    assert(error == RAFT_OK || actions->count == 0);
    assert(!raft->state_changed || !raft->started);
    assert(raft->term >= term_before);
    assert(!raft->started || raft->term >= raft__log_last_term(&raft->log));
    assert(raft->commit >= commit_before && raft->commit <= raft->log.last);
    assert(raft->log.base <= raft->commit && raft->log.base <= raft->durable);
    assert(raft->log.base <= raft->snapshot_index && raft->snapshot_index <= raft->commit);
    assert(raft->durable <= raft->log.last);
    assert(raft->role == RAFT_LEADER || raft->verified <= raft->log.last);
    assert(raft->writes.durable <= raft->writes.issued);
    assert(raft->writes.issued - raft->writes.durable <= RAFT_WRITES_MAX);
    return error;
}

static enum raft_error dispatch(struct raft *raft, const struct raft_event *event,
                                struct raft_actions *actions)
{
    if (raft->role == RAFT_FAILED)
        return RAFT_ERR_FAILED;

    switch (event->type) {
    case RAFT_EVENT_RECOVERED_STATE:
        return on_recovered_state(raft, event->recovered_state.term, event->recovered_state.vote);
    case RAFT_EVENT_RECOVERED_SNAPSHOT:
        return on_recovered_snapshot(raft, event);
    case RAFT_EVENT_RECOVERED_ENTRY:
        return on_recovered_entry(raft, event->recovered_entry.index,
                                  &event->recovered_entry.entry);
    case RAFT_EVENT_START:
        return on_start(raft, actions);
    case RAFT_EVENT_TICK:
        on_tick(raft, actions);
        return RAFT_OK;
    case RAFT_EVENT_TURN_END:
        raft__send_due(raft, actions);
        return RAFT_OK;
    case RAFT_EVENT_MESSAGE:
        on_message(raft, event->message.message, event->message.entries, actions);
        return RAFT_OK;
    case RAFT_EVENT_PROPOSE:
        return raft__propose(raft, event->propose.count, event->propose.bytes, actions);
    case RAFT_EVENT_CHANGE:
        return raft__change(raft, &event->change, actions);
    case RAFT_EVENT_TRANSFER:
        return raft__transfer(raft, event->transfer.to);
    case RAFT_EVENT_READ:
        return raft__read(raft, event->read.id, actions);
    case RAFT_EVENT_PERSISTED:
        on_persisted(raft, event->persisted.write, actions);
        return RAFT_OK;
    case RAFT_EVENT_PERSIST_FAILED:
        on_persist_failed(raft, actions);
        return RAFT_OK;
    case RAFT_EVENT_COMPACTED:
        on_compacted(raft, event->compacted.index, event->compacted.log_base);
        return RAFT_OK;
    case RAFT_EVENT_SNAPSHOT_DURABLE:
        raft__snapshot_durable(raft, event, actions);
        return RAFT_OK;
    case RAFT_EVENT_SNAPSHOT_REFUSED:
        raft->incoming = (struct raft__incoming){0};
        return RAFT_OK;
    }
    assert(false); /* not a type of event */
    return RAFT_ERR_CONFIG;
}

/* Of several states the last one counts, as on the disk that they come from. A vote is not taken
 * back within its term (thesis 3.4). */
static enum raft_error on_recovered_state(struct raft *raft, uint64_t term, uint64_t vote)
{
    assert(!raft->started);

    if (term < raft->term || (term == 0 && vote != 0))
        return RAFT_ERR_LOG;
    if (term == raft->term && raft->vote != 0 && vote != raft->vote)
        return RAFT_ERR_LOG;
    raft->term = term;
    raft->vote = vote;
    return RAFT_OK;
}

/* Only what was committed is in a snapshot (thesis 5.1). */
static enum raft_error on_recovered_snapshot(struct raft *raft, const struct raft_event *event)
{
    const uint64_t index = event->recovered_snapshot.index;
    const uint64_t term = event->recovered_snapshot.term;

    assert(!raft->started);

    if (index == 0 || term == 0 || raft->log.base != 0 || raft->recovered_index != 0)
        return RAFT_ERR_LOG;
    if (!raft__members_are_sound(event->recovered_snapshot.members,
                                 event->recovered_snapshot.members_count))
        return RAFT_ERR_CONFIG;
    raft__log_begin_behind(&raft->log, index, term);
    raft__members_begin(raft, event->recovered_snapshot.members,
                        event->recovered_snapshot.members_count);
    raft->commit = raft->durable = index;
    raft->snapshot_index = index;
    raft->snapshot_term = term;
    return RAFT_OK;
}

/* Whether an entry follows on the one before it, and leaves no gap behind the snapshot. */
static bool follows(const struct raft *raft, uint64_t index, uint64_t term)
{
    if (index == 0 || term == 0 || term < raft->recovered_term)
        return false;
    return raft->recovered_index == 0 ? index - 1 <= raft->log.base
                                      : index - 1 == raft->recovered_index;
}

/* Whether an entry and the snapshot can both be of this server's making. */
static bool agrees(const struct raft *raft, uint64_t index, uint64_t term)
{
    if (index < raft->log.base)
        return term <= raft->log.base_term;
    return index == raft->log.base ? term == raft->log.base_term
                                   : term >= raft__log_last_term(&raft->log);
}

static enum raft_error on_recovered_entry(struct raft *raft, uint64_t index,
                                          const struct raft_entry *entry)
{
    const bool is_change = entry->type == RAFT_ENTRY_CHANGE;

    assert(!raft->started);

    if (!follows(raft, index, entry->term) || entry->bytes > RAFT_ENTRY_BYTES_MAX)
        return RAFT_ERR_LOG;
    if (!raft->recovered_void && !agrees(raft, index, entry->term)) {
        /* To the only voter nobody sends snapshots. */
        if (raft__is_only_voter(raft))
            return RAFT_ERR_LOG;
        raft->recovered_void = true;
    }
    if (index > raft->log.base && !raft->recovered_void) {
        if (!raft__log_has_room(&raft->log, entry->term) ||
            (is_change && !raft__members_have_room(raft, 1)))
            return RAFT_ERR_FULL;
        raft__log_append(&raft->log, 1, entry->term);
        raft__note_size(raft, index, entry->bytes);
        if (is_change)
            raft__members_append(raft, index, &entry->change);
        raft->durable = raft->log.last; /* the caller's duty 2 */
    }
    raft->recovered_index = index;
    raft->recovered_term = entry->term;
    return RAFT_OK;
}

/* The commit index is not persisted (thesis 3.8): it is the snapshot's now, or 0, whatever it was,
 * and the first commit of a leader brings it back. */
static enum raft_error on_start(struct raft *raft, struct raft_actions *actions)
{
    const bool ends_early = raft->recovered_index != 0 && raft->recovered_index < raft->log.base;

    assert(!raft->started);

    /* A term is durable before the first entry of it is written, so this disk has lost a state. A
     * snapshot's term is one that this server has seen, too. */
    if (raft__log_last_term(&raft->log) > raft->term)
        return RAFT_ERR_LOG;
    /* A snapshot of one's own is made of entries that are durable in the log, so this one has lost
     * its end. */
    if (ends_early && raft__is_only_voter(raft))
        return RAFT_ERR_LOG;

    /* What this server did before its start, or for whom it voted, it may not remember in full: as
     * if it had just heard a leader (DESIGN C12). */
    raft->heard_ms = raft->now_ms;
    /* The only voter has nobody to wait for, unless the others were removed by a change that their
     * leader may not yet know to be committed. */
    if (raft__is_only_voter(raft) && raft->members.changes_count == 0) {
        enum raft_error error = raft__campaign(raft, false, actions);
        if (error != RAFT_OK)
            return error;
    } else {
        if (raft->recovered_index < raft->log.base || raft->recovered_void)
            raft__persist_reset(raft, actions);
        raft__reset_election_timer(raft);
    }
    raft->started = true;
    return RAFT_OK;
}

static void on_tick(struct raft *raft, struct raft_actions *actions)
{
    if (!raft->started)
        return;
    if (raft->role == RAFT_LEADER)
        raft__leader_tick(raft, actions);
    else if (raft->now_ms >= raft->election_deadline_ms)
        raft__election_timeout(raft, actions);
}

/* A message of a later term makes this server follow in that term (thesis 3.3). A pre-vote does
 * not, it only asks (thesis 9.6); nor does a vote that must not be given, or a server that was
 * removed could depose a leader (thesis 4.2.3). */
static bool is_of_later_term(const struct raft *raft, const struct raft_message *message)
{
    if (message->term <= raft->term || message->type == RAFT_MESSAGE_PRE_VOTE)
        return false;
    return message->type != RAFT_MESSAGE_VOTE || message->vote.transfer ||
           !raft__hears_leader(raft);
}

static void on_message(struct raft *raft, const struct raft_message *message,
                       const struct raft_entry *entries, struct raft_actions *actions)
{
    /* Before the first campaign there is no term, and nobody leads or votes in it. */
    const bool asks_first =
        message->type == RAFT_MESSAGE_PRE_VOTE || message->type == RAFT_MESSAGE_PRE_VOTE_REPLY;

    if (!raft->started || message->to != raft->id || message->from == raft->id ||
        message->from == 0 || (message->term == 0 && !asks_first))
        return;
    if (raft->writes.issued - raft->writes.durable > RAFT_WRITES_MAX - WRITES_PER_EVENT)
        return;
    if (is_of_later_term(raft, message))
        raft__follow(raft, message->term, actions);

    const bool current = message->term == raft->term;
    const bool old = message->term < raft->term;
    switch (message->type) {
    case RAFT_MESSAGE_PRE_VOTE:
        raft__on_pre_vote(raft, message, actions);
        break;
    case RAFT_MESSAGE_VOTE:
        if (current || old)
            raft__on_vote(raft, message, actions);
        break;
    case RAFT_MESSAGE_PRE_VOTE_REPLY:
    case RAFT_MESSAGE_VOTE_REPLY:
        if (current || old)
            raft__on_vote_reply(raft, message, actions);
        break;
    case RAFT_MESSAGE_APPEND:
        if (current)
            raft__on_append(raft, message, entries, actions);
        else if (old)
            raft__refuse_old_leader(raft, message, actions);
        break;
    case RAFT_MESSAGE_SNAPSHOT:
        if (current)
            raft__on_snapshot(raft, message, actions);
        else if (old)
            raft__refuse_old_leader(raft, message, actions);
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        if (current || (RAFT_MUTANT(STALE_APPEND_ACK) && old))
            raft__on_append_reply(raft, message, actions);
        break;
    case RAFT_MESSAGE_SNAPSHOT_REPLY:
        if (current)
            raft__on_snapshot_reply(raft, message, actions);
        break;
    case RAFT_MESSAGE_TIMEOUT_NOW:
        if (current)
            raft__on_timeout_now(raft, message, actions);
        break;
    }
    raft__persist_state(raft, actions);
}

/* Reports may be joined, so a number below an earlier one says nothing new. */
static void on_persisted(struct raft *raft, uint64_t write, struct raft_actions *actions)
{
    uint64_t covered;

    assert(write >= 1 && write <= raft->writes.issued);
    if (write <= raft->writes.durable)
        return;

    /* Not the end of the log: entries of later writes are still on their way. */
    covered = raft->writes.covers[write % RAFT_WRITES_MAX];
    assert(covered >= raft->durable);
    raft->writes.durable = write;
    raft->durable = covered;

    raft__votes_durable(raft, actions);
    raft__follower_durable(raft, actions);
    raft__advance_commit(raft, actions);
}

/* What was not reported durable may be on disk or not. A leader that went on could give the same
 * index of the same term to another entry, so this is for good. */
static void on_persist_failed(struct raft *raft, struct raft_actions *actions)
{
    if (RAFT_MUTANT(INDEX_REUSE_AFTER_FAILED_WRITE) && raft->role == RAFT_LEADER) {
        raft__truncate(raft, raft->durable > raft->commit ? raft->durable : raft->commit);
        raft->writes.durable = raft->writes.issued;
        return;
    }
    raft__set_role(raft, RAFT_FAILED, actions);
}

static void on_compacted(struct raft *raft, uint64_t index, uint64_t log_base)
{
    assert(raft->started);
    assert(index <= raft->commit && index <= raft->durable && log_base <= index);
    if (index > raft->snapshot_index) {
        raft->snapshot_term = raft__log_term_at(&raft->log, index);
        raft->snapshot_index = index;
    }
    if (log_base > raft->log.base) {
        raft__members_compact(raft, log_base);
        raft__log_compact(&raft->log, log_base);
    }
}

struct raft_action *raft__add_action(struct raft_actions *actions, enum raft_action_type type)
{
    struct raft_action *action;

    assert(actions->count < RAFT_ACTIONS_MAX);
    action = &actions->items[actions->count++];
    action->type = type;
    return action;
}

struct raft_message *raft__send(struct raft *raft, enum raft_message_type type, uint64_t to,
                                struct raft_actions *actions)
{
    struct raft_message *message = &raft__add_action(actions, RAFT_ACTION_SEND)->send;

    assert(raft__may_speak(raft));
    *message = (struct raft_message){.type = type, .from = raft->id, .to = to, .term = raft->term};
    return message;
}

/* The last entry that is durable once all writes that were issued are. */
static uint64_t covered_by_all(const struct raft *raft)
{
    const struct raft__writes *writes = &raft->writes;

    return writes->issued == writes->durable ? raft->durable
                                             : writes->covers[writes->issued % RAFT_WRITES_MAX];
}

static uint64_t issue_write(struct raft *raft, uint64_t covers)
{
    uint64_t write;

    assert(!raft__writes_full(raft));
    write = ++raft->writes.issued;
    raft->writes.covers[write % RAFT_WRITES_MAX] = covers;
    return write;
}

bool raft__writes_full(const struct raft *raft)
{
    return raft->writes.issued - raft->writes.durable == RAFT_WRITES_MAX;
}

bool raft__may_speak(const struct raft *raft)
{
    if (RAFT_MUTANT(REPLY_BEFORE_FDATASYNC))
        return true;
    return !raft->state_changed && raft->writes.durable >= raft->state_write;
}

void raft__persist_state(struct raft *raft, struct raft_actions *actions)
{
    struct raft_action *action;

    if (!raft->state_changed)
        return;
    raft->state_changed = false;
    /* The log may have entries already whose write comes next. */
    raft->state_write = issue_write(raft, covered_by_all(raft));
    action = raft__add_action(actions, RAFT_ACTION_PERSIST_STATE);
    action->persist_state.write = raft->state_write;
    action->persist_state.term = raft->term;
    action->persist_state.vote = RAFT_MUTANT(VOTE_NOT_PERSISTED) ? 0 : raft->vote;
}

void raft__persist_entries(struct raft *raft, uint64_t first, const struct raft_entry *entry,
                           struct raft_actions *actions)
{
    struct raft_action *action;

    assert(first >= 1 && first <= raft->log.last && first > raft->commit);
    /* A term is on its way to the disk before any entry of it. */
    raft__persist_state(raft, actions);
    action = raft__add_action(actions, RAFT_ACTION_PERSIST_ENTRIES);
    action->persist_entries.write = issue_write(raft, raft->log.last);
    action->persist_entries.first = first;
    action->persist_entries.last = raft->log.last;
    action->persist_entries.entry = *entry;
}

void raft__persist_reset(struct raft *raft, struct raft_actions *actions)
{
    struct raft_action *action = raft__add_action(actions, RAFT_ACTION_PERSIST_RESET);

    action->persist_reset.write = issue_write(raft, raft->log.base);
    action->persist_reset.index = raft->log.base;
    action->persist_reset.term = raft->log.base_term;
}

/* Outstanding writes of entries that are cut off make nothing durable any more: what they wrote is
 * overwritten, maybe by other entries of the same indexes. */
void raft__truncate(struct raft *raft, uint64_t last)
{
    assert(last >= raft->commit);
    raft__log_truncate(&raft->log, last);
    raft__members_truncate(raft, last);
    if (raft->durable > last)
        raft->durable = last;
    for (uint64_t write = raft->writes.durable + 1; write <= raft->writes.issued; write++) {
        uint64_t *covers = &raft->writes.covers[write % RAFT_WRITES_MAX];
        if (*covers > last && !RAFT_MUTANT(ACK_COVERS_TRUNCATED))
            *covers = last;
    }
}

void raft__commit(struct raft *raft, uint64_t index, struct raft_actions *actions)
{
    struct raft_action *action = raft__add_action(actions, RAFT_ACTION_COMMIT);

    assert(index > raft->commit && index <= raft->log.last);
    raft->commit = index;
    action->commit.index = index;
}

/* Xorshift (Marsaglia, "Xorshift RNGs", 2003), behind a step of a Weyl sequence, so that any seed
 * will do. */
uint64_t raft__random(struct raft *raft, uint64_t below)
{
    uint64_t x = raft->random += UINT64_C(0x9e3779b97f4a7c15);

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return ((x * UINT64_C(0x2545f4914f6cdd1d)) >> 32) % below;
}

uint64_t raft_get_deadline_ms(const struct raft *raft)
{
    uint64_t deadline_ms;

    if (!raft->started || raft->role == RAFT_FAILED)
        return UINT64_MAX;
    if (raft->role != RAFT_LEADER)
        return raft->election_deadline_ms;
    deadline_ms = raft->heartbeat_deadline_ms;
    if (raft->transfer_to != 0 && raft->transfer_deadline_ms < deadline_ms)
        deadline_ms = raft->transfer_deadline_ms;
    return deadline_ms;
}

bool raft_wants_turn_end(const struct raft *raft)
{
    return raft->role == RAFT_LEADER && raft__wants_send(raft);
}

bool raft_wants_snapshot(const struct raft *raft)
{
    if (raft->role != RAFT_LEADER || raft->snapshot_index > 0)
        return false;
    for (size_t i = 0; i < raft->peers_count; i++)
        if (raft->peers[i].wants_snapshot)
            return true;
    return false;
}

bool raft_is_sending_snapshot(const struct raft *raft)
{
    if (raft->role != RAFT_LEADER)
        return false;
    for (size_t i = 0; i < raft->peers_count; i++)
        if (raft->peers[i].progress == RAFT__SNAPSHOT &&
            raft->now_ms <= raft->peers[i].heard_ms + raft->election_ms)
            return true;
    return false;
}

enum raft_role raft_get_role(const struct raft *raft)
{
    return raft->role;
}

uint64_t raft_get_term(const struct raft *raft)
{
    return raft->term;
}

uint64_t raft_get_leader(const struct raft *raft)
{
    return raft->role == RAFT_FAILED ? 0 : raft->leader;
}

uint64_t raft_get_commit(const struct raft *raft)
{
    return raft->commit;
}

uint64_t raft_get_last_index(const struct raft *raft)
{
    return raft->log.last;
}

uint64_t raft_get_durable(const struct raft *raft)
{
    return raft->durable;
}

uint64_t raft_get_log_base(const struct raft *raft)
{
    return raft->log.base;
}

uint64_t raft_get_term_at(const struct raft *raft, uint64_t index)
{
    return raft__log_term_at(&raft->log, index);
}

uint64_t raft_get_lease_ms(const struct raft *raft)
{
    return raft->role == RAFT_LEADER ? raft__lease_until_ms(raft) : 0;
}
