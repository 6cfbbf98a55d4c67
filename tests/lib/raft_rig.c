/* The only voter over a disk, see raft_rig.h. */
#include "raft_rig.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

long violations;

const struct raft_event start_event = {.type = RAFT_EVENT_START};
const struct raft_event failed_event = {.type = RAFT_EVENT_PERSIST_FAILED};

struct raft_event propose_event(uint32_t count)
{
    return (struct raft_event){.type = RAFT_EVENT_PROPOSE,
                               .propose = {.count = count, .bytes = 100}};
}

struct raft_event persisted_event(uint64_t write)
{
    return (struct raft_event){.type = RAFT_EVENT_PERSISTED, .persisted = {.write = write}};
}

struct raft_event state_event(uint64_t term, uint64_t vote)
{
    return (struct raft_event){.type = RAFT_EVENT_RECOVERED_STATE,
                               .recovered_state = {.term = term, .vote = vote}};
}

struct raft_event entry_event(uint64_t index, uint64_t term)
{
    return (struct raft_event){
        .type = RAFT_EVENT_RECOVERED_ENTRY,
        .recovered_entry = {.index = index,
                            .entry = {.term = term, .type = RAFT_ENTRY_COMMAND, .bytes = 100}}};
}

struct raft_config only_voter(void)
{
    static const struct raft_member members[] = {{.id = 1, .voter = true}};

    return (struct raft_config){.id = 1,
                                .members = members,
                                .members_count = 1,
                                .election_ms = RIG_ELECTION_MS,
                                .heartbeat_ms = RIG_HEARTBEAT_MS,
                                .max_drift_permille = 50};
}

/* A core with nothing recovered yet, over the disk as it is. */
static void server_init(struct server *server)
{
    const struct raft_config config = only_voter();

    check(raft_init(server->memory, &config, &server->raft) == RAFT_OK);
    server->role = RAFT_FOLLOWER;
    server->term = 0;
    server->commit = 0;
    server->issued = 0;
    server->reported = 0;
}

struct server *server_new(void)
{
    struct server *server = calloc(1, sizeof(*server));

    server->memory = aligned_alloc(16, raft_size());
    memset(server->memory, 0xa5, raft_size());
    server_init(server);
    return server;
}

void server_free(struct server *server)
{
    free(server->memory);
    free(server);
}

void add_record(struct server *server, struct record record)
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
        check(action->persist_entries.entry.term == server->term);
        check(action->persist_entries.first <= action->persist_entries.last);
        /* No index of a term is ever given out twice: not in this life, not in two of them. */
        check(action->persist_entries.first == server->last + 1);
        check(action->persist_entries.entry.term >= server->entry_term_max);
        server->entry_term_max = action->persist_entries.entry.term;
        server->issued++;
        for (uint64_t i = action->persist_entries.first; i <= action->persist_entries.last; i++) {
            add_record(server, (struct record){.write = server->issued,
                                               .term = action->persist_entries.entry.term,
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

    default:
        check(action->type == RAFT_ACTION_ROLE); /* an only voter needs nobody */
        break;
    }
}

/* One event, its actions carried out, and what holds after every event. */
enum raft_error step(struct server *server, struct raft_event event)
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
void restart(struct server *server, size_t kept)
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
size_t records_reported(const struct server *server)
{
    size_t count = 0;

    while (count < server->records_count && is_reported(server, &server->records[count]))
        count++;
    return count;
}

/* Events that are refused change not a bit of the core. */
bool is_refused(struct server *server, struct raft_event event, enum raft_error error)
{
    void *before = malloc(raft_size());
    bool same;
    enum raft_error got;

    memcpy(before, server->memory, raft_size());
    got = step(server, event);
    same = memcmp(before, server->memory, raft_size()) == 0;
    if (got != error)
        tap_note("got: %s", raft_error_text(got));
    free(before);
    return got == error && same;
}

const struct raft_action *action_at(const struct server *server, size_t at)
{
    static const struct raft_action none = {.type = (enum raft_action_type) - 1};

    return at < server->actions.count ? &server->actions.items[at] : &none;
}

struct server *new_leader(void)
{
    struct server *server = server_new();

    check(step(server, start_event) == RAFT_OK);
    check(step(server, persisted_event(1)) == RAFT_OK);
    check(step(server, persisted_event(2)) == RAFT_OK);
    check(server->role == RAFT_LEADER && server->commit == 1);
    return server;
}

/* A caller that breaks its duties is stopped by an assertion: in a child, that must abort. */
bool is_stopped(struct server *server, struct raft_event event)
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
    return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGABRT;
}

struct raft_event snapshot_event(uint64_t index, uint64_t term)
{
    static const struct raft_member members[] = {{.id = 1, .voter = true}};

    return (struct raft_event){
        .type = RAFT_EVENT_RECOVERED_SNAPSHOT,
        .recovered_snapshot = {
            .index = index, .term = term, .members = members, .members_count = 1}};
}

struct raft_event compacted_event(uint64_t index)
{
    return (struct raft_event){.type = RAFT_EVENT_COMPACTED,
                               .compacted = {.index = index, .log_base = index}};
}
