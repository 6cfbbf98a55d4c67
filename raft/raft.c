/*
 * The entry point of the core: recovery, the events and where they go, and the actions that come
 * out. What depends on a write is caused by the report of that write, and by nothing else.
 */
#include "internal.h"

static enum raft_error dispatch(struct raft *raft, const struct raft_event *event,
                                struct raft_actions *actions);
static enum raft_error on_recovered_state(struct raft *raft, uint64_t term, uint64_t vote);
static enum raft_error on_recovered_snapshot(struct raft *raft, uint64_t index, uint64_t term);
static enum raft_error on_recovered_entry(struct raft *raft, uint64_t index, uint64_t term);
static enum raft_error on_start(struct raft *raft, struct raft_actions *actions);
static void on_persisted(struct raft *raft, uint64_t write, struct raft_actions *actions);
static void on_compacted(struct raft *raft, uint64_t index);

enum {
    MEMORY_ALIGNMENT = 16,
};

static_assert(_Alignof(struct raft) <= MEMORY_ALIGNMENT, "the caller's memory is aligned to 16");
static_assert(RAFT_ACTIONS_MAX >= 2, "an election is a role and a write");

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

enum raft_error raft_init(void *memory, const struct raft_config *config, struct raft **ret_raft)
{
    struct raft *raft = memory;

    assert(memory != NULL && (uintptr_t)memory % MEMORY_ALIGNMENT == 0);

    /* With one voter, it is at position 0. */
    if (config->id == 0 || config->voters_count != 1 || config->voters[0] != config->id)
        return RAFT_ERR_CONFIG;

    raft->id = config->id;
    raft->voters_count = config->voters_count;
    raft->self = 0;
    raft->voters[0] = config->voters[0];
    raft->term = 0;
    raft->vote = 0;
    raft->recovered_index = 0;
    raft->recovered_term = 0;
    raft->started = false;
    raft->role = RAFT_FOLLOWER;
    raft->commit = 0;
    raft->vote_write = 0;
    raft->granted[0] = false;
    raft->match[0] = 0;
    raft__log_init(&raft->log);
    raft->writes.issued = 0;
    raft->writes.durable = 0;

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
    error = dispatch(raft, event, actions);

    assert(error == RAFT_OK || actions->count == 0);
    assert(raft->term >= term_before);
    assert(!raft->started || raft->term >= raft__log_last_term(&raft->log));
    assert(raft->commit >= commit_before && raft->commit <= raft->log.last);
    assert(raft->log.base <= raft->commit && raft->log.base <= raft->match[raft->self]);
    assert(raft->match[raft->self] <= raft->log.last);
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
        return on_recovered_snapshot(raft, event->recovered_snapshot.index,
                                     event->recovered_snapshot.term);
    case RAFT_EVENT_RECOVERED_ENTRY:
        return on_recovered_entry(raft, event->recovered_entry.index, event->recovered_entry.term);
    case RAFT_EVENT_START:
        return on_start(raft, actions);
    case RAFT_EVENT_PROPOSE:
        return raft__propose(raft, event->propose.count, actions);
    case RAFT_EVENT_PERSISTED:
        on_persisted(raft, event->persisted.write, actions);
        return RAFT_OK;
    case RAFT_EVENT_PERSIST_FAILED:
        /* What was not reported durable may be on disk or not. A leader that went on could give the
         * same index of the same term to another entry, so this is for good. */
        raft__set_role(raft, RAFT_FAILED, actions);
        return RAFT_OK;
    case RAFT_EVENT_COMPACTED:
        on_compacted(raft, event->compacted.index);
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
static enum raft_error on_recovered_snapshot(struct raft *raft, uint64_t index, uint64_t term)
{
    assert(!raft->started);

    if (index == 0 || term == 0 || raft->log.base != 0 || raft->recovered_index != 0)
        return RAFT_ERR_LOG;
    raft__log_begin_behind(&raft->log, index, term);
    raft->commit = index;
    raft->match[raft->self] = index;
    return RAFT_OK;
}

/* Whether an entry can follow on what was handed over before it. Between a snapshot and the log
 * there is no gap, and where they overlap they agree. */
static bool follows(const struct raft *raft, uint64_t index, uint64_t term)
{
    const struct raft__log *log = &raft->log;

    if (index == 0 || term == 0 || term < raft->recovered_term)
        return false;
    if (raft->recovered_index == 0 ? index - 1 > log->base : index - 1 != raft->recovered_index)
        return false;
    if (index < log->base)
        return term <= log->base_term;
    return index == log->base ? term == log->base_term : term >= raft__log_last_term(log);
}

static enum raft_error on_recovered_entry(struct raft *raft, uint64_t index, uint64_t term)
{
    assert(!raft->started);

    if (!follows(raft, index, term))
        return RAFT_ERR_LOG;
    if (index > raft->log.base) {
        if (!raft__log_has_room(&raft->log, term))
            return RAFT_ERR_FULL;
        raft__log_append(&raft->log, 1, term);
        raft->match[raft->self] = raft->log.last; /* durable already: the caller's duty 2 */
    }
    raft->recovered_index = index;
    raft->recovered_term = term;
    return RAFT_OK;
}

/* The commit index is not persisted (thesis 3.8): it is the snapshot's now, or 0, whatever it was,
 * and the first commit of the new term brings it back. */
static enum raft_error on_start(struct raft *raft, struct raft_actions *actions)
{
    enum raft_error error;

    assert(!raft->started);

    /* A term is durable before the first entry of it is written, so this disk has lost a state. */
    if (raft__log_last_term(&raft->log) > raft->term)
        return RAFT_ERR_LOG;
    /* A snapshot is made of entries that are durable in the log, so this one has lost its end. */
    if (raft->recovered_index != 0 && raft->recovered_index < raft->log.base)
        return RAFT_ERR_LOG;

    /* The only voter has nobody to wait for. */
    error = raft__campaign(raft, actions);
    if (error == RAFT_OK)
        raft->started = true;
    return error;
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
    assert(covered >= raft->match[raft->self]);
    raft->writes.durable = write;
    raft->match[raft->self] = covered;

    raft__count_own_vote(raft, actions);
    raft__advance_commit(raft, actions);
}

static void on_compacted(struct raft *raft, uint64_t index)
{
    assert(raft->started);
    assert(index <= raft->commit && index <= raft->match[raft->self]);
    if (index > raft->log.base)
        raft__log_compact(&raft->log, index);
}

static struct raft_action *add_action(struct raft_actions *actions, enum raft_action_type type)
{
    struct raft_action *action;

    assert(actions->count < RAFT_ACTIONS_MAX);
    action = &actions->items[actions->count++];
    action->type = type;
    return action;
}

static uint64_t issue_write(struct raft *raft)
{
    uint64_t write;

    assert(!raft__writes_full(raft));
    write = ++raft->writes.issued;
    raft->writes.covers[write % RAFT_WRITES_MAX] = raft->log.last;
    return write;
}

bool raft__writes_full(const struct raft *raft)
{
    return raft->writes.issued - raft->writes.durable == RAFT_WRITES_MAX;
}

uint64_t raft__persist_state(struct raft *raft, struct raft_actions *actions)
{
    struct raft_action *action = add_action(actions, RAFT_ACTION_PERSIST_STATE);

    action->persist_state.write = issue_write(raft);
    action->persist_state.term = raft->term;
    action->persist_state.vote = raft->vote;
    return action->persist_state.write;
}

uint64_t raft__persist_entries(struct raft *raft, uint64_t first, enum raft_entry_type type,
                               struct raft_actions *actions)
{
    struct raft_action *action = add_action(actions, RAFT_ACTION_PERSIST_ENTRIES);

    assert(first >= 1 && first <= raft->log.last && first > raft->commit);
    action->persist_entries.write = issue_write(raft);
    action->persist_entries.first = first;
    action->persist_entries.last = raft->log.last;
    action->persist_entries.term = raft__log_last_term(&raft->log);
    action->persist_entries.entry_type = type;
    return action->persist_entries.write;
}

void raft__commit(struct raft *raft, uint64_t index, struct raft_actions *actions)
{
    struct raft_action *action = add_action(actions, RAFT_ACTION_COMMIT);

    assert(index > raft->commit && index <= raft->log.last);
    raft->commit = index;
    action->commit.index = index;
}

void raft__set_role(struct raft *raft, enum raft_role role, struct raft_actions *actions)
{
    struct raft_action *action = add_action(actions, RAFT_ACTION_ROLE);

    assert(raft->role != role);
    raft->role = role;
    action->role.role = role;
    action->role.term = raft->term;
}

enum raft_role raft_get_role(const struct raft *raft)
{
    return raft->role;
}

uint64_t raft_get_term(const struct raft *raft)
{
    return raft->term;
}

uint64_t raft_get_commit(const struct raft *raft)
{
    return raft->commit;
}

uint64_t raft_get_last_index(const struct raft *raft)
{
    return raft->log.last;
}

uint64_t raft_get_term_at(const struct raft *raft, uint64_t index)
{
    return raft__log_term_at(&raft->log, index);
}
