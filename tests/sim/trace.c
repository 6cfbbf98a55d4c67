/*
 * The last events of a run, kept as they are and turned into text when they are wanted. They lie in
 * memory shared with the process that started the run, which prints them however the run ended.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sim.h"

struct trace_record {
    enum {
        TRACE_STEP,
        TRACE_ACTION,
        TRACE_DROP,
        TRACE_SAY,
    } type;
    uint64_t us;
    uint64_t id; /* 0: no server's */
    uint64_t now_ms;
    enum raft_role role;
    uint64_t term, commit, last;
    enum raft_error error;
    enum raft_event_type event;
    uint64_t a, b, c;
    const char *format;
    bool has_message;
    struct raft_message message;
    struct raft_action action;
};

struct sim_shared {
    struct sim_stats stats;
    bool print;
    uint64_t digest; /* of all records: equal runs have equal ones */
    uint64_t count;
    struct trace_record records[SIM_TRACE_LINES];
    char message[SIM_MESSAGE_CHARS];
};

static void print_record(const struct trace_record *record);

struct sim_shared *sim_shared_make(void)
{
    struct sim_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert(shared != MAP_FAILED);
    return shared;
}

struct sim_stats *sim_shared_stats(struct sim_shared *shared)
{
    return &shared->stats;
}

const char *sim_shared_message(const struct sim_shared *shared)
{
    return shared->message;
}

uint64_t sim_shared_digest(const struct sim_shared *shared)
{
    return shared->digest;
}

void trace_begin(struct sim_shared *shared, bool print)
{
    memset(&shared->stats, 0, sizeof(shared->stats));
    shared->print = print;
    shared->digest = 0;
    shared->count = 0;
    shared->message[0] = 0;
}

void trace_print(const struct sim_shared *shared)
{
    uint64_t from = shared->count > SIM_TRACE_LINES ? shared->count - SIM_TRACE_LINES : 0;

    for (uint64_t i = from; i < shared->count; i++)
        print_record(&shared->records[i % SIM_TRACE_LINES]);
}

static struct trace_record *add(struct sim *sim, const struct server *server, int type)
{
    struct trace_record *record = &sim->shared->records[sim->shared->count++ % SIM_TRACE_LINES];
    const struct raft *raft =
        server != NULL && server->kind != NULL ? sim->kind->get_raft(server) : NULL;

    record->type = type;
    record->us = sim->now_us;
    record->id = server == NULL ? 0 : server->id;
    record->role = RAFT_FOLLOWER;
    record->term = record->commit = record->last = 0;
    if (raft != NULL) {
        record->role = raft_get_role(raft);
        record->term = raft_get_term(raft);
        record->commit = raft_get_commit(raft);
        record->last = raft_get_last_index(raft);
    }
    record->now_ms = server == NULL ? 0 : server->now_ms;
    record->a = record->b = record->c = 0;
    record->has_message = false;
    return record;
}

static void added(struct sim *sim, const struct trace_record *record)
{
    struct sim_shared *shared = sim->shared;

    shared->digest = rng_mix(shared->digest ^ record->us ^ (record->id << 48));
    shared->digest = rng_mix(shared->digest ^ record->term ^ (record->commit << 20) ^
                             (record->last << 40) ^ (record->a << 30) ^ record->type);
    if (shared->print)
        print_record(record);
}

void trace_step(struct server *server, const struct raft_event *event, enum raft_error error)
{
    struct trace_record *record = add(server->sim, server, TRACE_STEP);

    record->event = event->type;
    record->error = error;
    switch (event->type) {
    case RAFT_EVENT_MESSAGE:
        record->has_message = true;
        record->message = *event->message.message;
        break;
    case RAFT_EVENT_PROPOSE:
        record->a = event->propose.count;
        break;
    case RAFT_EVENT_READ:
        record->a = event->read.id;
        break;
    case RAFT_EVENT_TRANSFER:
        record->a = event->transfer.to;
        break;
    case RAFT_EVENT_CHANGE:
        record->a = event->change.type;
        record->b = event->change.id;
        break;
    case RAFT_EVENT_PERSISTED:
        record->a = event->persisted.write;
        break;
    case RAFT_EVENT_COMPACTED:
        record->a = event->compacted.index;
        record->b = event->compacted.log_base;
        break;
    case RAFT_EVENT_SNAPSHOT_DURABLE:
    case RAFT_EVENT_RECOVERED_SNAPSHOT:
        record->a = event->recovered_snapshot.index;
        record->b = event->recovered_snapshot.term;
        break;
    case RAFT_EVENT_RECOVERED_STATE:
        record->a = event->recovered_state.term;
        record->b = event->recovered_state.vote;
        break;
    case RAFT_EVENT_RECOVERED_ENTRY:
        record->a = event->recovered_entry.index;
        record->b = event->recovered_entry.entry.term;
        break;
    default:
        break;
    }
    added(server->sim, record);
}

void trace_action(struct server *server, const struct raft_action *action)
{
    struct trace_record *record = add(server->sim, server, TRACE_ACTION);

    record->action = *action;
    added(server->sim, record);
}

void trace_drop(struct sim *sim, const struct raft_message *message)
{
    struct trace_record *record = add(sim, NULL, TRACE_DROP);

    record->has_message = true;
    record->message = *message;
    added(sim, record);
}

void trace_say(struct sim *sim, const struct server *server, const char *format, uint64_t a,
               uint64_t b, uint64_t c)
{
    struct trace_record *record = add(sim, server, TRACE_SAY);

    record->format = format;
    record->a = a;
    record->b = b;
    record->c = c;
    added(sim, record);
}

void sim_fail(struct sim *sim, enum sim_exit exit_code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(sim->shared->message, sizeof(sim->shared->message), format, args);
    va_end(args);
    fflush(stdout);
    _Exit((int)exit_code);
}

void sim_broken(struct sim *sim, const struct server *server, const char *format, ...)
{
    char text[SIM_MESSAGE_CHARS];
    va_list args;

    sim->stats->invariants_broken++;
    if (sim->options.mutant != NULL)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    sim_fail(sim, SIM_SAFETY, "server %" PRIu64 ": %s", server->id, text);
}

/* Text */

static const char *role_text(enum raft_role role)
{
    static const char *const texts[] = {"follower", "pre-cand", "candidat", "LEADER  ", "FAILED  "};

    return (size_t)role < sizeof(texts) / sizeof(texts[0]) ? texts[role] : "?";
}

static void print_message(const struct raft_message *m)
{
    printf("%" PRIu64 " to %" PRIu64 ", term %" PRIu64 ": ", m->from, m->to, m->term);
    switch (m->type) {
    case RAFT_MESSAGE_PRE_VOTE:
    case RAFT_MESSAGE_VOTE:
        printf("%s for term %" PRIu64 ", log ends %" PRIu64 "/%" PRIu64 "%s\n",
               m->type == RAFT_MESSAGE_VOTE ? "VOTE" : "PRE_VOTE", m->vote.campaign_term,
               m->vote.last_index, m->vote.last_term, m->vote.transfer ? ", transfer" : "");
        break;
    case RAFT_MESSAGE_PRE_VOTE_REPLY:
    case RAFT_MESSAGE_VOTE_REPLY:
        printf("%s for term %" PRIu64 ": %s\n",
               m->type == RAFT_MESSAGE_VOTE_REPLY ? "VOTE_REPLY" : "PRE_VOTE_REPLY",
               m->vote_reply.campaign_term, m->vote_reply.granted ? "granted" : "refused");
        break;
    case RAFT_MESSAGE_APPEND:
        printf("APPEND %" PRIu32 " behind %" PRIu64 "/%" PRIu64 ", commit %" PRIu64
               ", round %" PRIu64 "\n",
               m->append.count, m->append.prev_index, m->append.prev_term, m->append.commit,
               m->append.round);
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        printf("APPEND_REPLY match %" PRIu64 ", round %" PRIu64, m->append_reply.match,
               m->append_reply.round);
        if (m->append_reply.wants_snapshot)
            printf(", wants a snapshot");
        if (m->append_reply.rejected)
            printf(", rejects %" PRIu64 ", hint %" PRIu64 "/%" PRIu64,
                   m->append_reply.rejected_index, m->append_reply.hint_index,
                   m->append_reply.hint_term);
        printf("\n");
        break;
    case RAFT_MESSAGE_SNAPSHOT:
        printf("SNAPSHOT %" PRIu64 "/%" PRIu64 " from byte %" PRIu64 ", %" PRIu32
               " bytes%s, round %" PRIu64 "\n",
               m->snapshot.index, m->snapshot.index_term, m->snapshot.offset, m->snapshot.bytes,
               m->snapshot.done ? ", the last" : "", m->snapshot.round);
        break;
    case RAFT_MESSAGE_SNAPSHOT_REPLY:
        printf("SNAPSHOT_REPLY %" PRIu64 ", wants byte %" PRIu64 ", round %" PRIu64 "\n",
               m->snapshot_reply.index, m->snapshot_reply.offset, m->snapshot_reply.round);
        break;
    case RAFT_MESSAGE_TIMEOUT_NOW:
        printf("TIMEOUT_NOW\n");
        break;
    }
}

static void print_event(const struct trace_record *record)
{
    static const char *const formats[] = {
        [RAFT_EVENT_RECOVERED_STATE] = "recovers term %" PRIu64 ", vote %" PRIu64,
        [RAFT_EVENT_RECOVERED_SNAPSHOT] = "recovers snapshot %" PRIu64 "/%" PRIu64,
        [RAFT_EVENT_RECOVERED_ENTRY] = "recovers entry %" PRIu64 "/%" PRIu64,
        [RAFT_EVENT_START] = "starts",
        [RAFT_EVENT_TICK] = "TICK",
        [RAFT_EVENT_TURN_END] = "TURN_END",
        [RAFT_EVENT_PROPOSE] = "PROPOSE %" PRIu64,
        [RAFT_EVENT_CHANGE] = "CHANGE type %" PRIu64 " of %" PRIu64,
        [RAFT_EVENT_TRANSFER] = "TRANSFER to %" PRIu64,
        [RAFT_EVENT_READ] = "READ %" PRIu64,
        [RAFT_EVENT_PERSISTED] = "PERSISTED %" PRIu64,
        [RAFT_EVENT_PERSIST_FAILED] = "PERSIST_FAILED",
        [RAFT_EVENT_COMPACTED] = "COMPACTED %" PRIu64 ", base %" PRIu64,
        [RAFT_EVENT_SNAPSHOT_DURABLE] = "SNAPSHOT_DURABLE %" PRIu64 "/%" PRIu64,
        [RAFT_EVENT_SNAPSHOT_REFUSED] = "SNAPSHOT_REFUSED",
    };

    if (record->has_message) {
        printf("<- ");
        print_message(&record->message);
        return;
    }
    printf("   ");
    switch (record->event) {
    case RAFT_EVENT_START:
    case RAFT_EVENT_TICK:
    case RAFT_EVENT_TURN_END:
    case RAFT_EVENT_PERSIST_FAILED:
    case RAFT_EVENT_SNAPSHOT_REFUSED:
        fputs(formats[record->event], stdout);
        break;
    case RAFT_EVENT_PROPOSE:
    case RAFT_EVENT_READ:
    case RAFT_EVENT_TRANSFER:
    case RAFT_EVENT_PERSISTED:
        printf(formats[record->event], record->a);
        break;
    default:
        printf(formats[record->event], record->a, record->b);
        break;
    }
    printf(record->error == RAFT_OK ? "\n" : ": %s\n", raft_error_text(record->error));
}

static void print_action(const struct raft_action *a)
{
    if (a->type == RAFT_ACTION_SEND) {
        printf("-> ");
        print_message(&a->send);
        return;
    }
    printf("   . ");
    switch (a->type) {
    case RAFT_ACTION_PERSIST_STATE:
        printf("write %" PRIu64 ": term %" PRIu64 ", vote %" PRIu64, a->persist_state.write,
               a->persist_state.term, a->persist_state.vote);
        break;
    case RAFT_ACTION_PERSIST_ENTRIES:
        printf("write %" PRIu64 ": entries %" PRIu64 " to %" PRIu64, a->persist_entries.write,
               a->persist_entries.first, a->persist_entries.last);
        break;
    case RAFT_ACTION_PERSIST_RESET:
        printf("write %" PRIu64 ": the log begins behind %" PRIu64 "/%" PRIu64,
               a->persist_reset.write, a->persist_reset.index, a->persist_reset.term);
        break;
    case RAFT_ACTION_COMMIT:
        printf("commit %" PRIu64, a->commit.index);
        break;
    case RAFT_ACTION_ROLE:
        printf("is %s of term %" PRIu64, role_text(a->role.role), a->role.term);
        break;
    case RAFT_ACTION_SNAPSHOT_CHUNK:
        printf("takes bytes of snapshot %" PRIu64 "/%" PRIu64 " from %" PRIu64 "%s",
               a->snapshot_chunk.index, a->snapshot_chunk.term, a->snapshot_chunk.offset,
               a->snapshot_chunk.done ? ", the last" : "");
        break;
    case RAFT_ACTION_RESTORE:
        printf("restore %" PRIu64 "/%" PRIu64, a->restore.index, a->restore.term);
        break;
    case RAFT_ACTION_READ_READY:
        printf("reads up to %" PRIu64 " at entry %" PRIu64, a->read_ready.id, a->read_ready.index);
        break;
    case RAFT_ACTION_READ_FAILED:
        printf("reads up to %" PRIu64 " fail", a->read_failed.id);
        break;
    case RAFT_ACTION_SEND:
        break;
    }
    printf("\n");
}

static void print_record(const struct trace_record *record)
{
    printf("%5" PRIu64 ".%06" PRIu64 " ", record->us / 1000000, record->us % 1000000);
    if (record->id != 0)
        printf("S%-2" PRIu64 " %9" PRIu64 " ms %s t%-3" PRIu64 " c%-5" PRIu64 " l%-5" PRIu64 " ",
               record->id, record->now_ms, role_text(record->role), record->term, record->commit,
               record->last);
    switch (record->type) {
    case TRACE_STEP:
        print_event(record);
        break;
    case TRACE_ACTION:
        print_action(&record->action);
        break;
    case TRACE_DROP:
        printf("lost: ");
        print_message(&record->message);
        break;
    case TRACE_SAY:
        printf("* ");
        printf(record->format, (unsigned long long)record->a, (unsigned long long)record->b,
               (unsigned long long)record->c);
        printf("\n");
        break;
    }
}
