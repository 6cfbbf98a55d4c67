/* Scripts of the consensus core, see raft_script.h. */
#include "raft_script.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raft_cluster.h"
#include "raft_script_show.h"
#include "tap.h"

enum {
    WORDS_MAX = 64,
};

static bool run_command(struct script *script, char **words, size_t count);

static bool parse_number(const char *word, uint64_t *ret_number)
{
    char *end;
    uint64_t number;

    if (word[0] < '0' || word[0] > '9')
        return false;
    errno = 0;
    number = strtoull(word, &end, 10);
    if (errno != 0 || *end != '\0')
        return false;
    *ret_number = number;
    return true;
}

static struct cluster_server *parse_server(struct script *script, const char *word)
{
    if (word[0] < 'A' || word[0] > 'Z' || word[1] != '\0')
        return NULL;
    return cluster_server(script->cluster, (uint64_t)(word[0] - 'A') + 1);
}

/* "5", or "+5" to what it was. */
static bool parse_time(const char *word, uint64_t *time_ms)
{
    uint64_t number;

    if (!parse_number(word + (word[0] == '+'), &number))
        return false;
    *time_ms = word[0] == '+' ? *time_ms + number : number;
    return true;
}

static void end_turn(struct script *script, struct cluster_server *server)
{
    if (server != NULL && !script->manual)
        cluster_turn_end(script->cluster, server);
}

static void show_error(struct script *script, enum raft_error error)
{
    if (error != RAFT_OK)
        script_show(script, NULL, "error %s", script_error_name(error));
}

static bool step(struct script *script, struct cluster_server *server, struct raft_event event)
{
    show_error(script, cluster_step(script->cluster, server, event));
    return true;
}

static bool command_cluster(struct script *script, char **words, size_t count)
{
    size_t voters = 0;

    if (!script->alone)
        return false;
    while (voters < count && strcmp(words[voters], "joining") != 0)
        voters++;
    for (size_t i = 0; i < count; i++) {
        const size_t id = i < voters ? i + 1 : i;
        if (i != voters && (words[i][0] != 'A' + (int)id - 1 || words[i][1] != '\0'))
            return false;
    }
    if (voters == 0 || count > CLUSTER_SERVERS_MAX)
        return false;
    cluster_free(script->cluster);
    script->cluster = cluster_new(voters, count > voters ? count - voters - 1 : 0);
    script->cluster->watch = script_show_action;
    script->cluster->watch_context = script;
    script->alone = false;
    return true;
}

/* The next message from one server to another. */
static size_t find_message(struct script *script, char **words, bool newest)
{
    const struct cluster_server *from = parse_server(script, words[0]);
    const struct cluster_server *to = parse_server(script, words[1]);
    size_t found = SIZE_MAX;

    for (size_t i = 0; from != NULL && to != NULL && i < script->cluster->queue_count; i++) {
        const struct raft_message *message = &script->cluster->queue[i]->raft;
        if (message->from == from->id && message->to == to->id) {
            found = i;
            if (!newest)
                break;
        }
    }
    return found;
}

static void deliver(struct script *script, const struct cluster_message *message)
{
    cluster_deliver(script->cluster, message);
    end_turn(script, cluster_server(script->cluster, message->raft.to));
}

static struct held *find_held(struct script *script, const char *name)
{
    for (size_t i = 0; i < script->held_count; i++)
        if (strcmp(script->held[i].name, name) == 0)
            return &script->held[i];
    return NULL;
}

/* forge B C PREV_INDEX PREV_TERM COMMIT: an append without entries. */
static bool command_forge(struct script *script, char **words, size_t count)
{
    const struct cluster_server *from = count == 6 ? parse_server(script, words[1]) : NULL;
    const struct cluster_server *to = count == 6 ? parse_server(script, words[2]) : NULL;
    struct cluster_message message = {.raft = {.type = RAFT_MESSAGE_APPEND}};

    if (from == NULL || to == NULL || !parse_number(words[3], &message.raft.append.prev_index) ||
        !parse_number(words[4], &message.raft.append.prev_term) ||
        !parse_number(words[5], &message.raft.append.commit))
        return false;
    message.raft.from = from->id;
    message.raft.to = to->id;
    message.raft.term = raft_get_term(from->raft);
    message.raft.append.round = 1;
    cluster_put(script->cluster, &message);
    script_show_message(script, &message, "");
    return true;
}

/* deliver, drop, duplicate and hold take the oldest message between two servers. */
static bool command_message(struct script *script, char **words, size_t count)
{
    const bool all = count == 4 && strcmp(words[3], "all") == 0;
    const bool newest = count == 4 && strcmp(words[3], "newest") == 0;
    const char *verb = words[0];
    struct cluster_message *message;
    size_t at;

    if (strcmp(verb, "deliver") == 0 && count == 2) {
        struct held *held = find_held(script, words[1]);
        if (held == NULL)
            return false;
        deliver(script, held->message);
        return true;
    }
    if (count != 3 && count != 4)
        return false;
    at = find_message(script, words + 1, newest);
    if (at == SIZE_MAX)
        return all;
    if (strcmp(verb, "duplicate") == 0) {
        cluster_put(script->cluster, script->cluster->queue[at]);
        script_show_message(script, script->cluster->queue[at], " (again)");
        return count == 3;
    }
    if (strcmp(verb, "hold") == 0) {
        if (count != 4 || script->held_count == HELD_MAX || find_held(script, words[3]) != NULL)
            return false;
        message = cluster_take(script->cluster, find_message(script, words + 1, false));
        script_show_message(script, message, " (held)");
        script->held[script->held_count++] = (struct held){strdup(words[3]), message};
        return true;
    }
    if (count == 4 && !all && !newest)
        return false;
    /* All that are on their way now, and not those that come of them. */
    for (size_t left = all ? script->cluster->queue_count : 1; left > 0; left--) {
        at = find_message(script, words + 1, newest);
        if (at == SIZE_MAX)
            break;
        message = cluster_take(script->cluster, at);
        if (strcmp(verb, "deliver") == 0)
            deliver(script, message);
        else
            script_show_lost(script, message);
        cluster_message_free(message);
    }
    return true;
}

static bool command_settle(struct script *script)
{
    script->quiet = true;
    cluster_settle(script->cluster);
    script->quiet = false;
    return true;
}

static void catch_up_clocks(struct script *script, uint64_t time_ms)
{
    for (size_t i = 0; i < script->cluster->servers_count; i++)
        if (script->cluster->servers[i]->now_ms < time_ms)
            script->cluster->servers[i]->now_ms = time_ms;
}

/* Commands that are not one server's; false in `ret_known` where it is none of them. */
static bool run_global(struct script *script, char **words, size_t count, bool *ret_known)
{
    const char *verb = words[0];
    struct cluster_server *server;

    *ret_known = true;
    if (strcmp(verb, "cluster") == 0)
        return command_cluster(script, words + 1, count - 1);
    if (script->alone) {
        *ret_known = false;
        return false;
    }
    if (strcmp(verb, "settle") == 0)
        return count == 1 && command_settle(script);
    if (strcmp(verb, "manual-turns") == 0) {
        script->manual = true;
        return count == 1;
    }
    if (strcmp(verb, "queue") == 0) {
        for (size_t i = 0; i < script->cluster->queue_count; i++)
            script_show_message(script, script->cluster->queue[i], "");
        return count == 1;
    }
    if (strcmp(verb, "time") == 0) {
        bool ok = count == 2;
        for (size_t i = 0; ok && i < script->cluster->servers_count; i++)
            ok = parse_time(words[1], &script->cluster->servers[i]->now_ms);
        return ok;
    }
    if (strcmp(verb, "cut") == 0 || strcmp(verb, "heal") == 0) {
        server = count == 2 ? parse_server(script, words[1]) : NULL;
        if (server == NULL)
            return false;
        server->cut = strcmp(verb, "cut") == 0;
        return true;
    }
    if (strcmp(verb, "forge") == 0)
        return command_forge(script, words, count);
    if (strcmp(verb, "deliver") == 0 || strcmp(verb, "drop") == 0 ||
        strcmp(verb, "duplicate") == 0 || strcmp(verb, "hold") == 0)
        return command_message(script, words, count);
    *ret_known = false;
    return false;
}

/* Hands a state, a snapshot or an entry over by itself; what is accepted is on the disk, too. */
static bool run_recover(struct script *script, struct cluster_server *server, char **words,
                        size_t count)
{
    uint64_t a;
    uint64_t b;
    struct raft_event event = {.type = RAFT_EVENT_RECOVERED_STATE};
    enum raft_error error;

    if (count != 3 || !parse_number(words[1], &a) || !parse_number(words[2], &b))
        return false;
    if (strcmp(words[0], "recover-state") == 0) {
        event.recovered_state.term = a;
        event.recovered_state.vote = b;
    } else if (strcmp(words[0], "recover-snapshot") == 0) {
        event.type = RAFT_EVENT_RECOVERED_SNAPSHOT;
        event.recovered_snapshot.index = a;
        event.recovered_snapshot.term = b;
        event.recovered_snapshot.members = script->cluster->members;
        event.recovered_snapshot.members_count = script->cluster->members_count;
    } else {
        event.type = RAFT_EVENT_RECOVERED_ENTRY;
        event.recovered_entry.index = a;
        event.recovered_entry.entry =
            (struct raft_entry){.term = b, .type = RAFT_ENTRY_COMMAND, .bytes = 100};
    }
    error = cluster_step(script->cluster, server, event);
    show_error(script, error);
    if (error != RAFT_OK)
        return true;
    if (event.type == RAFT_EVENT_RECOVERED_STATE) {
        server->disk_term = a;
        server->disk_vote = b;
    } else if (event.type == RAFT_EVENT_RECOVERED_SNAPSHOT) {
        server->snapshot = (struct cluster_snapshot){.index = a, .term = b, .bytes = 1};
        memcpy(server->snapshot.members, script->cluster->members,
               script->cluster->members_count * sizeof(server->snapshot.members[0]));
        server->snapshot.members_count = script->cluster->members_count;
        server->commit = server->disk.base = server->log.base = server->disk.last =
            server->log.last = a;
        script->cluster->committed_last = a;
    } else if (a > server->log.last && a < CLUSTER_LOG_MAX) {
        server->disk.entries[a] = server->log.entries[a] =
            (struct cluster_entry){event.recovered_entry.entry, ++script->cluster->names};
        server->disk.last = server->log.last = a;
    }
    return true;
}

/* The process ends, and the script says what the next one finds. */
static bool restart_alone(struct script *script, struct cluster_server *server)
{
    server->disk_term = server->disk_vote = 0;
    server->disk.base = server->disk.last = 0;
    server->snapshot = (struct cluster_snapshot){0};
    script->cluster->committed_last = 0;
    memset(script->cluster->leaders, 0, sizeof(script->cluster->leaders));
    return cluster_restart(script->cluster, server, 0);
}

/* disk term T vote X log 1 1 2: what a server that was not started yet has. Entries of one index
 * and term are the same ones on every server. */
static bool command_disk(struct script *script, struct cluster_server *server, char **words,
                         size_t count)
{
    const struct cluster_server *vote = count >= 4 ? parse_server(script, words[3]) : NULL;

    if (count < 5 || server->started || strcmp(words[0], "term") != 0 ||
        !parse_number(words[1], &server->disk_term) || strcmp(words[2], "vote") != 0 ||
        strcmp(words[4], "log") != 0 || (vote == NULL && strcmp(words[3], "-") != 0))
        return false;
    server->disk_vote = vote != NULL ? vote->id : 0;
    for (size_t i = 5; i < count; i++) {
        uint64_t term;
        const uint64_t index = i - 4;
        if (!parse_number(words[i], &term))
            return false;
        server->disk.entries[index] = (struct cluster_entry){
            {.term = term, .type = RAFT_ENTRY_COMMAND, .bytes = 100}, 1000000 * term + index};
        server->disk.last = index;
    }
    return cluster_restart(script->cluster, server, 0);
}

static bool command_restart(struct script *script, struct cluster_server *server, char **words,
                            size_t count)
{
    uint64_t kept = 0;

    if (script->alone)
        return count == 1 && restart_alone(script, server);
    if (count != 1 &&
        (count != 3 || strcmp(words[1], "kept") != 0 || !parse_number(words[2], &kept)))
        return false;
    if (!cluster_restart(script->cluster, server, kept)) {
        script_show(script, server, "what the disk holds is refused");
        return true;
    }
    script_show(script, server,
                "disk: term %" PRIu64 ", vote %c, snapshot %" PRIu64 ", log to %" PRIu64,
                server->disk_term, script_name_of(server->disk_vote), server->snapshot.index,
                server->disk.last);
    return true;
}

static bool command_change(struct script *script, struct cluster_server *server, char **words)
{
    static const char *names[] = {"", "add", "promote", "demote", "remove"};
    const struct cluster_server *other = parse_server(script, words[1]);
    struct raft_event event = {.type = RAFT_EVENT_CHANGE};

    if (other == NULL)
        return false;
    event.change.id = other->id;
    for (size_t i = 1; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(words[0], names[i]) == 0)
            event.change.type = (enum raft_change_type)i;
    return step(script, server, event);
}

static bool command_timeout(struct script *script, struct cluster_server *server)
{
    const uint64_t deadline_ms = raft_get_deadline_ms(server->raft);

    if (deadline_ms == UINT64_MAX)
        return false;
    catch_up_clocks(script, deadline_ms);
    return step(script, server, (struct raft_event){.type = RAFT_EVENT_TICK});
}

/* Looks, which change nothing. */
static bool run_look(struct script *script, struct cluster_server *server, char **words,
                     size_t count, bool *ret_known)
{
    uint64_t number;

    *ret_known = true;
    if (strcmp(words[0], "status") == 0 && count == 1) {
        script_show_status(script, server);
    } else if (strcmp(words[0], "members") == 0 && count == 1) {
        script_show_members(script, server);
    } else if (strcmp(words[0], "log") == 0 && count == 1) {
        script_show_log(script, server);
    } else if (strcmp(words[0], "lease") == 0 && count == 1) {
        const uint64_t lease_ms = raft_get_lease_ms(server->raft);
        if (lease_ms > server->now_ms)
            script_show(script, server, "lease for %" PRIu64 " ms", lease_ms - server->now_ms);
        else
            script_show(script, server, "no lease");
    } else if (strcmp(words[0], "term-at") == 0 && count == 2 && parse_number(words[1], &number)) {
        script_show(script, server, "%" PRIu64, raft_get_term_at(server->raft, number));
    } else {
        *ret_known = false;
        return false;
    }
    return true;
}

static bool run_disk(struct script *script, struct cluster_server *server, char **words,
                     size_t count, bool *ret_known)
{
    const char *verb = words[0];
    uint64_t number = 0;
    uint64_t bytes = 1;
    const bool has_number = count >= 2 && parse_number(words[1], &number);

    *ret_known = true;
    if (strcmp(verb, "persisted") == 0 && count == 2) {
        if (strcmp(words[1], "all") == 0)
            number = server->issued;
        else if (!has_number)
            return false;
        if (number == 0 || number > server->issued)
            return number == 0;
        if (server->role == RAFT_FAILED)
            return step(
                script, server,
                (struct raft_event){.type = RAFT_EVENT_PERSISTED, .persisted = {.write = number}});
        show_error(script, cluster_persisted(script->cluster, server, number));
    } else if (strcmp(verb, "persist-failed") == 0 && count == 1) {
        step(script, server, (struct raft_event){.type = RAFT_EVENT_PERSIST_FAILED});
    } else if (strcmp(verb, "compacted") == 0 && count == 2 && has_number) {
        step(script, server,
             (struct raft_event){.type = RAFT_EVENT_COMPACTED, .compacted = {number, number}});
    } else if (strcmp(verb, "snapshot") == 0 && has_number && number <= server->commit &&
               number <= raft_get_durable(server->raft) &&
               (count == 2 || (count == 3 && parse_number(words[2], &bytes)))) {
        show_error(script, cluster_snapshot(script->cluster, server, number, number, bytes));
    } else if (strcmp(verb, "installed") == 0 && count == 1 && server->incoming_whole) {
        show_error(script, cluster_installed(script->cluster, server));
    } else if (strcmp(verb, "refused") == 0 && count == 1 && server->incoming_whole) {
        server->incoming_whole = false;
        step(script, server, (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_REFUSED});
    } else if (strcmp(verb, "restart") == 0) {
        return command_restart(script, server, words, count);
    } else if (strcmp(verb, "disk") == 0) {
        return command_disk(script, server, words + 1, count - 1);
    } else if (strncmp(verb, "recover-", 8) == 0) {
        return (strcmp(verb, "recover-state") == 0 || strcmp(verb, "recover-snapshot") == 0 ||
                strcmp(verb, "recover-entry") == 0) &&
               run_recover(script, server, words, count);
    } else {
        *ret_known = false;
        return false;
    }
    return true;
}

static bool run_event(struct script *script, struct cluster_server *server, char **words,
                      size_t count)
{
    const char *verb = words[0];
    struct raft_event event = {.type = RAFT_EVENT_TICK};
    uint64_t number;
    uint64_t bytes = 100;

    if (strcmp(verb, "start") == 0 && count == 1) {
        show_error(script, cluster_start(script->cluster, server));
        return true;
    }
    if (strcmp(verb, "time") == 0 && count == 2)
        return parse_time(words[1], &server->now_ms);
    if (strcmp(verb, "tick") == 0 && count <= 2)
        return (count == 1 || parse_time(words[1], &server->now_ms)) && step(script, server, event);
    if (strcmp(verb, "timeout") == 0 && count == 1)
        return server->role != RAFT_LEADER && command_timeout(script, server);
    if (strcmp(verb, "heartbeat") == 0 && count == 1)
        return server->role == RAFT_LEADER && command_timeout(script, server);
    if (strcmp(verb, "propose") == 0 && (count == 2 || count == 3)) {
        if (!parse_number(words[1], &number) || number > UINT32_MAX ||
            (count == 3 && !parse_number(words[2], &bytes)))
            return false;
        event.type = RAFT_EVENT_PROPOSE;
        event.propose.count = (uint32_t)number;
        event.propose.bytes = (uint32_t)bytes;
        return step(script, server, event);
    }
    if (count == 2 && (strcmp(verb, "add") == 0 || strcmp(verb, "promote") == 0 ||
                       strcmp(verb, "demote") == 0 || strcmp(verb, "remove") == 0))
        return command_change(script, server, words);
    if (strcmp(verb, "transfer") == 0 && count == 2 && parse_server(script, words[1]) != NULL) {
        event.type = RAFT_EVENT_TRANSFER;
        event.transfer.to = parse_server(script, words[1])->id;
        return step(script, server, event);
    }
    if (strcmp(verb, "read") == 0 && count == 1) {
        show_error(script, cluster_read(script->cluster, server));
        return true;
    }
    if (strcmp(verb, "turn-end") == 0 && count == 1) {
        cluster_turn_end(script->cluster, server);
        return true;
    }
    return false;
}

/* 32 times COMMAND: what comes of it is shown as by settle. */
static bool run_times(struct script *script, char **words, size_t count)
{
    uint64_t times;
    bool ok = count > 2 && !script->quiet && parse_number(words[0], &times);

    script->quiet = true;
    for (uint64_t i = 0; ok && i < times; i++)
        ok = run_command(script, words + 2, count - 2);
    script->quiet = false;
    return ok;
}

static bool run_command(struct script *script, char **words, size_t count)
{
    struct cluster_server *server;
    bool known;
    bool ok;

    if (count > 1 && strcmp(words[1], "times") == 0)
        return run_times(script, words, count);
    ok = run_global(script, words, count, &known);
    if (known)
        return ok;
    server = script->alone ? script->cluster->servers[0] : parse_server(script, words[0]);
    if (server == NULL)
        return false;
    words += !script->alone;
    count -= !script->alone;
    if (count == 0)
        return false;
    ok = run_look(script, server, words, count, &known);
    if (known)
        return ok;
    ok = run_disk(script, server, words, count, &known);
    if (!known)
        ok = run_event(script, server, words, count);
    if (ok)
        end_turn(script, server);
    return ok;
}

/* Whether a command that shows nothing says so: one that is an event. */
static bool is_event(const char *line)
{
    static const char *others[] = {"cluster ", "time ", "cut ", "heal ", "manual-turns", "restart"};

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (strncmp(line, others[i], strlen(others[i])) == 0)
            return false;
    return !(line[0] >= 'A' && line[0] <= 'Z' &&
             (strncmp(line + 1, " time ", 6) == 0 || strncmp(line + 1, " disk ", 6) == 0));
}

static bool run_line(struct script *script, const char *line)
{
    char *copy = strdup(line);
    char *words[WORDS_MAX];
    size_t count = 0;
    char *rest = copy;
    bool ok = true;

    for (char *word = strsep(&rest, " "); word != NULL && ok; word = strsep(&rest, " ")) {
        ok = count < WORDS_MAX && word[0] != '\0';
        if (ok)
            words[count++] = word;
    }
    script->shown = 0;
    ok = ok && run_command(script, words, count);
    if (ok && script->shown == 0 && is_event(line))
        script_show(script, NULL, "nothing");
    free(copy);
    return ok;
}

bool script_run(const char *text, FILE *out)
{
    struct script script = {.cluster = cluster_new(1, 0), .alone = true, .out = out};
    bool ok = true;

    script.cluster->watch = script_show_action;
    script.cluster->watch_context = &script;
    while (ok && *text != '\0') {
        const size_t length = strcspn(text, "\n");
        char *line = strndup(text, length);
        if (line[0] != ' ')
            fprintf(out, "%s\n", line);
        if (line[0] != ' ' && line[0] != '\0' && line[0] != '#') {
            ok = run_line(&script, line);
            if (!ok)
                tap_note("not a command, or not now: |%s|", line);
            if (script.cluster->violations > 0) {
                tap_note("Raft's promises are broken by: |%s|", line);
                ok = false;
            }
        }
        free(line);
        text += length + (text[length] == '\n');
    }
    for (size_t i = 0; i < script.held_count; i++) {
        free(script.held[i].name);
        cluster_message_free(script.held[i].message);
    }
    cluster_free(script.cluster);
    return ok;
}
