/* What a script shows of what its servers do, see raft_script_show.h. */
#include "raft_script_show.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

static const char *role_name(enum raft_role role)
{
    switch (role) {
    case RAFT_FOLLOWER:
        return "follower";
    case RAFT_PRE_CANDIDATE:
        return "pre-candidate";
    case RAFT_CANDIDATE:
        return "candidate";
    case RAFT_LEADER:
        return "leader";
    case RAFT_FAILED:
        return "failed";
    }
    return "?";
}

const char *script_error_name(enum raft_error error)
{
    switch (error) {
#define X(name, value, text)                                                                       \
    case name:                                                                                     \
        return #name;
        RAFT_ERRORS(X)
#undef X
    }
    return "?";
}

char script_name_of(uint64_t id)
{
    return id >= 1 && id <= 26 ? (char)('A' + id - 1) : id == 0 ? '-' : '?';
}

/* What is shown */

void script_show(struct script *script, const struct cluster_server *server, const char *format,
                 ...)
{
    va_list args;

    fputs("    ", script->out);
    if (server != NULL && !script->alone)
        fprintf(script->out, "%c: ", script_name_of(server->id));
    va_start(args, format);
    vfprintf(script->out, format, args);
    va_end(args);
    fputs("\n", script->out);
    script->shown++;
}

static void print_entry(FILE *out, const struct raft_entry *entry)
{
    static const char *changes[] = {"?", "add learner", "promote", "demote", "remove"};

    switch (entry->type) {
    case RAFT_ENTRY_NOOP:
        fputs("no-op", out);
        break;
    case RAFT_ENTRY_COMMAND:
        fputs("commands", out);
        break;
    case RAFT_ENTRY_CHANGE:
        fprintf(out, "%s %c", changes[entry->change.type], script_name_of(entry->change.id));
        break;
    }
}

/* Entries that follow each other, in runs of one term and kind. */
static void print_entries(FILE *out, uint64_t first, const struct cluster_entry *entries,
                          uint64_t count)
{
    for (uint64_t i = 0, next; i < count; i = next) {
        const struct raft_entry *entry = &entries[i].raft;
        next = i + 1;
        while (next < count && entry->type == RAFT_ENTRY_COMMAND &&
               entries[next].raft.type == entry->type && entries[next].raft.term == entry->term)
            next++;
        fprintf(out, "%s%" PRIu64, i > 0 ? ", " : "", first + i);
        fprintf(out, " to %" PRIu64 ", term %" PRIu64 ", ", first + next - 1, entry->term);
        print_entry(out, entry);
    }
}

/* As text to be freed. */
static char *entries_text(uint64_t first, const struct cluster_entry *entries, uint64_t count)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    print_entries(out, first, entries, count);
    fclose(out);
    return text;
}

static void print_message(FILE *out, const struct cluster_message *message)
{
    const struct raft_message *raft = &message->raft;

    fprintf(out, "%c -> %c term %" PRIu64 ": ", script_name_of(raft->from),
            script_name_of(raft->to), raft->term);
    switch (raft->type) {
    case RAFT_MESSAGE_PRE_VOTE:
    case RAFT_MESSAGE_VOTE:
        fprintf(out, "%s for term %" PRIu64 ", log ends with %" PRIu64 "/%" PRIu64 "%s",
                raft->type == RAFT_MESSAGE_VOTE ? "vote" : "pre-vote", raft->vote.campaign_term,
                raft->vote.last_index, raft->vote.last_term,
                raft->vote.transfer ? ", by transfer" : "");
        break;
    case RAFT_MESSAGE_PRE_VOTE_REPLY:
    case RAFT_MESSAGE_VOTE_REPLY:
        fprintf(out, "%s for term %" PRIu64 ": %s",
                raft->type == RAFT_MESSAGE_VOTE_REPLY ? "vote" : "pre-vote",
                raft->vote_reply.campaign_term, raft->vote_reply.granted ? "yes" : "no");
        break;
    case RAFT_MESSAGE_APPEND:
        fprintf(out,
                "append behind %" PRIu64 "/%" PRIu64 ", commit %" PRIu64 ", round %" PRIu64 ": ",
                raft->append.prev_index, raft->append.prev_term, raft->append.commit,
                raft->append.round);
        if (raft->append.count == 0)
            fputs("empty", out);
        print_entries(out, raft->append.prev_index + 1, message->entries, raft->append.count);
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        if (raft->append_reply.rejected && raft->append_reply.rejected_index == 0)
            fputs("no leader any more", out);
        else if (raft->append_reply.rejected)
            fprintf(out,
                    "lacks %" PRIu64 ", try behind %" PRIu64 "/%" PRIu64 ", match %" PRIu64
                    ", round %" PRIu64,
                    raft->append_reply.rejected_index, raft->append_reply.hint_index,
                    raft->append_reply.hint_term, raft->append_reply.match,
                    raft->append_reply.round);
        else
            fprintf(out, "match %" PRIu64 ", round %" PRIu64, raft->append_reply.match,
                    raft->append_reply.round);
        break;
    case RAFT_MESSAGE_SNAPSHOT:
        fprintf(out,
                "snapshot %" PRIu64 "/%" PRIu64 ", bytes from %" PRIu64 ": %" PRIu32
                "%s, round %" PRIu64,
                raft->snapshot.index, raft->snapshot.index_term, raft->snapshot.offset,
                raft->snapshot.bytes, raft->snapshot.done ? ", the last" : "",
                raft->snapshot.round);
        break;
    case RAFT_MESSAGE_SNAPSHOT_REPLY:
        fprintf(out, "snapshot %" PRIu64 ", wants bytes from %" PRIu64 ", round %" PRIu64,
                raft->snapshot_reply.index, raft->snapshot_reply.offset,
                raft->snapshot_reply.round);
        break;
    case RAFT_MESSAGE_TIMEOUT_NOW:
        fputs("lead now", out);
        break;
    }
}

void script_show_message(struct script *script, const struct cluster_message *message,
                         const char *note)
{
    fputs("    ", script->out);
    print_message(script->out, message);
    fprintf(script->out, "%s\n", note);
    script->shown++;
}

void script_show_lost(struct script *script, const struct cluster_message *message)
{
    if (!script->quiet)
        script_show_message(script, message, " (lost)");
}

static void show_write(struct script *script, const struct cluster_server *server,
                       const struct raft_action *action)
{
    const struct cluster_write *write;
    char *text;

    if (action->type == RAFT_ACTION_PERSIST_RESET) {
        script_show(script, server, "persist-reset write %" PRIu64 ": log begins behind %" PRIu64,
                    action->persist_reset.write, action->persist_reset.index);
    } else if (action->type == RAFT_ACTION_PERSIST_STATE) {
        char vote[24];
        if (script->alone)
            snprintf(vote, sizeof(vote), "%" PRIu64, action->persist_state.vote);
        else
            snprintf(vote, sizeof(vote), "%c", script_name_of(action->persist_state.vote));
        script_show(script, server, "persist-state write %" PRIu64 ": term %" PRIu64 ", vote %s",
                    action->persist_state.write, action->persist_state.term, vote);
    } else {
        write = &server->writes[action->persist_entries.write];
        text = entries_text(write->first, write->entries, write->last - write->first + 1);
        script_show(script, server, "persist-entries write %" PRIu64 ": %s",
                    action->persist_entries.write, text);
        free(text);
    }
}

void script_show_action(void *context, const struct cluster_server *server,
                        const struct raft_action *action, const struct cluster_message *message)
{
    struct script *script = context;

    switch (action->type) {
    case RAFT_ACTION_PERSIST_STATE:
    case RAFT_ACTION_PERSIST_ENTRIES:
    case RAFT_ACTION_PERSIST_RESET:
        if (!script->quiet)
            show_write(script, server, action);
        break;
    case RAFT_ACTION_SEND:
        if (!script->quiet) {
            const struct cluster_server *to = cluster_server(script->cluster, message->raft.to);
            script_show_message(script, message,
                                server->cut || (to != NULL && to->cut) ? " (lost)" : "");
        }
        break;
    case RAFT_ACTION_COMMIT:
        script_show(script, server, "commit %" PRIu64, action->commit.index);
        break;
    case RAFT_ACTION_ROLE:
        script_show(script, server, "role %s, term %" PRIu64, role_name(action->role.role),
                    action->role.term);
        break;
    case RAFT_ACTION_SNAPSHOT_CHUNK:
        if (!script->quiet)
            script_show(script, server, "write bytes of snapshot %" PRIu64 " from %" PRIu64 "%s",
                        action->snapshot_chunk.index, action->snapshot_chunk.offset,
                        action->snapshot_chunk.done ? ", the last" : "");
        break;
    case RAFT_ACTION_RESTORE:
        script_show(script, server, "restore snapshot %" PRIu64 "/%" PRIu64, action->restore.index,
                    action->restore.term);
        break;
    case RAFT_ACTION_READ_READY:
        script_show(script, server, "reads up to %" PRIu64 ": ready at %" PRIu64,
                    action->read_ready.id, action->read_ready.index);
        break;
    case RAFT_ACTION_READ_FAILED:
        script_show(script, server, "reads up to %" PRIu64 ": failed", action->read_failed.id);
        break;
    }
}

void script_show_status(struct script *script, struct cluster_server *server)
{
    script_show(script, server, "%s, term %" PRIu64 ", last %" PRIu64 ", commit %" PRIu64,
                role_name(raft_get_role(server->raft)), raft_get_term(server->raft),
                raft_get_last_index(server->raft), raft_get_commit(server->raft));
}

void script_show_members(struct script *script, struct cluster_server *server)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    char text[64 * RAFT_MEMBERS_MAX] = "";
    size_t length = 0;
    const size_t count =
        raft_get_members_at(server->raft, raft_get_last_index(server->raft), members);

    for (size_t i = 0; i < count; i++)
        length +=
            (size_t)snprintf(text + length, sizeof(text) - length, "%s%c%s", i > 0 ? ", " : "",
                             script_name_of(members[i].id), members[i].voter ? "" : " (learner)");
    script_show(script, server, "members %s", count > 0 ? text : "not known");
}

void script_show_log(struct script *script, struct cluster_server *server)
{
    const uint64_t base = raft_get_log_base(server->raft);
    const uint64_t last = raft_get_last_index(server->raft);
    char text[8 * CLUSTER_LOG_MAX];
    size_t length = 0;

    for (uint64_t i = base + 1; i <= last && length < sizeof(text) - 32; i++)
        length += (size_t)snprintf(text + length, sizeof(text) - length, " %" PRIu64,
                                   raft_get_term_at(server->raft, i));
    script_show(script, server, "log behind %" PRIu64 ", terms%s", base,
                length > 0 ? text : " none");
}
