/*
 * A server that is the shipping consensus core and the small state machine: the caller's duties of
 * raft.h, carried out on the simulated network and disk.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct own_proposal {
    uint64_t index;
    uint64_t term;
    uint64_t command;
};

struct own_read {
    struct call call;
    uint64_t ready_index; /* UINT64_MAX: not yet */
};

struct cover {
    uint64_t write;
    uint64_t last;
};

struct raft_server {
    struct raft *raft; /* NULL: not running */
    void *memory;
    struct raft_actions actions;
    size_t next;
    bool at_once; /* the step is a READ */

    struct entries log;
    struct machine machine;
    uint64_t commit;
    uint64_t durable; /* the log's last entry that was reported durable */
    struct cover *covers;
    size_t covers_count, covers_capacity;
    bool applying; /* ITEM_APPLY is on its way */

    struct own_proposal *proposals;
    size_t proposals_count, proposals_capacity;
    struct own_read *reads;
    size_t reads_count, reads_capacity;

    struct blob *snapshot; /* the one that the core knows of */
    bool making_snapshot;
    uint8_t *received;
    size_t received_bytes, received_capacity;
    uint64_t received_index;
};

static bool carry(struct server *server, const struct raft_action *action);
static void apply(struct server *server, bool all);

static struct raft_server *kind_of(const struct server *server)
{
    return server->kind;
}

static void create(struct server *server)
{
    struct raft_server *own = sim_alloc(sizeof(*own));

    memset(own, 0, sizeof(*own));
    own->memory = aligned_alloc(16, raft_size());
    assert(own->memory != NULL);
    server->kind = own;
}

static void forget(struct server *server)
{
    struct raft_server *own = kind_of(server);

    own->raft = NULL;
    own->actions.count = 0;
    own->next = 0;
    own->covers_count = 0;
    server->sim->stats->proposals_lost += own->proposals_count;
    own->proposals_count = 0;
    server->sim->stats->reads_failed += own->reads_count;
    own->reads_count = 0;
    blob_unref(own->snapshot);
    own->snapshot = NULL;
    own->making_snapshot = false;
    own->applying = false;
    own->received_bytes = 0;
    own->received_index = 0;
    entries_reset(&own->log, 0, 0);
}

static void destroy(struct server *server)
{
    struct raft_server *own = kind_of(server);

    forget(server);
    entries_destroy(&own->log);
    free(own->covers);
    free(own->proposals);
    free(own->reads);
    free(own->received);
    free(own->memory);
    free(own);
    server->kind = NULL;
}

/* A rule is broken so that this server cannot go on: with a mutant it just stops. */
static void give_up(struct server *server)
{
    server_crash(server, server->sim->now_us + 1000000);
}

/* Start */

static bool recover(struct server *server, const struct raft_event *event)
{
    struct raft_server *own = kind_of(server);
    enum raft_error error = raft_step(own->raft, event, &own->actions);

    trace_step(server, event, error);
    if (error == RAFT_OK)
        return true;
    sim_broken(server->sim, server, "does not start from its disk: %s", raft_error_text(error));
    return false;
}

static bool recover_all(struct server *server, uint64_t now_ms)
{
    struct raft_server *own = kind_of(server);
    struct disk *disk = &server->disk;
    struct raft_event event = {.now_ms = now_ms};
    struct raft_member members[RAFT_MEMBERS_MAX];

    if (disk->state.term != 0) {
        event.type = RAFT_EVENT_RECOVERED_STATE;
        event.recovered_state.term = disk->state.term;
        event.recovered_state.vote = disk->state.vote;
        if (!recover(server, &event))
            return false;
    }
    if (disk->snapshot != NULL) {
        size_t count = 0;
        bool good = machine_load(&own->machine, disk->snapshot, members, &count);
        assert(good);
        own->snapshot = blob_ref(disk->snapshot);
        event.type = RAFT_EVENT_RECOVERED_SNAPSHOT;
        event.recovered_snapshot.index = disk->snapshot->index;
        event.recovered_snapshot.term = disk->snapshot->term;
        event.recovered_snapshot.members = members;
        event.recovered_snapshot.members_count = count;
        if (!recover(server, &event))
            return false;
        oracle_restored(server, members, count);
        /* An empty log may begin anywhere. */
        if (disk->log.last == disk->log.base && disk->log.base < disk->snapshot->index)
            entries_reset(&disk->log, disk->snapshot->index, disk->snapshot->term);
    }
    entries_reset(&own->log, disk->log.base, disk->log.base_term);
    for (uint64_t index = disk->log.base + 1; index <= disk->log.last; index++) {
        const struct entry *entry = entries_at(&disk->log, index);
        event.type = RAFT_EVENT_RECOVERED_ENTRY;
        event.recovered_entry.index = index;
        event.recovered_entry.entry = entry->raft;
        if (!recover(server, &event))
            return false;
        entries_write(&own->log, index, entry, 1);
    }
    event.type = RAFT_EVENT_START;
    return recover(server, &event);
}

static void start(struct server *server, uint64_t now_ms)
{
    struct sim *sim = server->sim;
    struct raft_server *own = kind_of(server);
    const size_t members_count = server->starts_cluster ? sim->plan.servers : 0;
    const struct raft_config config = {
        .id = server->id,
        .members = sim->first_members,
        .members_count = members_count,
        .election_ms = sim->plan.election_ms,
        .heartbeat_ms = sim->plan.heartbeat_ms,
        .max_drift_permille = sim->plan.max_drift_permille,
        .seed = rng_next(&sim->rng),
    };
    enum raft_error error;

    machine_init(&own->machine, sim->first_members, members_count);
    own->actions.count = 0;
    own->next = 0;
    error = raft_init(own->memory, &config, &own->raft);
    assert(error == RAFT_OK);
    if (!recover_all(server, now_ms)) {
        own->actions.count = 0;
        server->held_down = true; /* for good */
        give_up(server);
        return;
    }
    own->commit = own->machine.applied;
    own->durable = own->log.last;
    oracle_started(server);
    oracle_after_step(server);
}

/* Steps */

static void begin_snapshot(struct server *server)
{
    struct sim *sim = server->sim;
    struct raft_server *own = kind_of(server);
    const struct machine *machine = &own->machine;
    struct raft_member members[RAFT_MEMBERS_MAX];
    size_t count;

    if (own->making_snapshot || machine->applied > own->durable || machine->applied == 0 ||
        (own->snapshot != NULL && own->snapshot->index >= machine->applied) ||
        machine->applied < own->log.base)
        return;
    count = raft_get_members_at(own->raft, machine->applied, members);
    own->making_snapshot = true;
    trace_say(sim, server, "makes a snapshot up to %llu", machine->applied, 0, 0);
    disk_store_snapshot(server,
                        machine_save(machine, members, count,
                                     (uint32_t)rng_between(&sim->rng, sim->plan.snapshot_bytes_min,
                                                           sim->plan.snapshot_bytes_max),
                                     server->id),
                        true);
}

static void maybe_begin_snapshot(struct server *server)
{
    const struct raft_server *own = kind_of(server);
    const uint64_t since = own->snapshot == NULL ? 0 : own->snapshot->index;
    const uint64_t wanted = server->sim->plan.snapshot_entries;
    /* Its log has room for some more while it sends one. */
    const uint64_t enough = raft_is_sending_snapshot(own->raft) ? 20 * wanted : wanted;

    if (own->machine.applied >= since + enough || raft_wants_snapshot(own->raft))
        begin_snapshot(server);
}

static void add_read(struct raft_server *own, const struct call *call)
{
    own->reads =
        sim_grow(own->reads, &own->reads_capacity, own->reads_count + 1, sizeof(*own->reads));
    own->reads[own->reads_count++] = (struct own_read){.call = *call, .ready_index = UINT64_MAX};
}

static void after_call(struct server *server, const struct call *call, enum raft_error error)
{
    struct raft_server *own = kind_of(server);
    struct sim_stats *stats = server->sim->stats;

    if (error == RAFT_OK)
        return;
    switch (call->type) {
    case CALL_PROPOSE:
        stats->proposals_refused += call->count;
        break;
    case CALL_READ:
        own->reads_count--; /* the last one */
        stats->reads_failed++;
        break;
    case CALL_CHANGE:
        stats->changes_refused++;
        if (error == RAFT_ERR_SNAPSHOT)
            begin_snapshot(server);
        break;
    case CALL_TRANSFER:
        stats->transfers_refused++;
        break;
    case CALL_SNAPSHOT:
        break;
    }
}

/* The event of a caller's wish; false: there is none. */
static bool event_of_call(struct server *server, const struct call *call,
                          struct raft_event *ret_event)
{
    struct sim *sim = server->sim;
    struct raft_server *own = kind_of(server);
    uint32_t bytes = 0;

    switch (call->type) {
    case CALL_PROPOSE:
        if (sim->now_us < server->disk.full_until_us) {
            sim->stats->proposals_refused += call->count;
            return false;
        }
        for (uint32_t i = 0; i < call->count; i++)
            if (callers_command_bytes(sim, call->first + i) > bytes)
                bytes = callers_command_bytes(sim, call->first + i);
        ret_event->type = RAFT_EVENT_PROPOSE;
        ret_event->propose.count = call->count;
        ret_event->propose.bytes = bytes;
        return true;
    case CALL_READ:
        ret_event->type = RAFT_EVENT_READ;
        ret_event->read.id = call->first;
        add_read(own, call);
        own->at_once = true;
        return true;
    case CALL_CHANGE:
        ret_event->type = RAFT_EVENT_CHANGE;
        ret_event->change = call->change;
        return true;
    case CALL_TRANSFER:
        ret_event->type = RAFT_EVENT_TRANSFER;
        ret_event->transfer.to = call->to;
        sim->stats->transfers_asked++;
        return true;
    case CALL_SNAPSHOT:
        begin_snapshot(server);
        return false;
    }
    return false;
}

static void on_persisted(struct raft_server *own, uint64_t write)
{
    size_t covered = 0;

    while (covered < own->covers_count && own->covers[covered].write <= write)
        own->durable = own->covers[covered++].last;
    if (covered == 0)
        return;
    own->covers_count -= covered;
    memmove(own->covers, own->covers + covered, own->covers_count * sizeof(*own->covers));
}

/* A snapshot of ours is durable: say so, and how much of the log may go with it. */
static void on_snapshot_stored(struct server *server, struct blob *blob,
                               struct raft_event *ret_event)
{
    struct raft_server *own = kind_of(server);
    uint64_t base = raft_get_log_base(own->raft);

    own->making_snapshot = false;
    server->sim->stats->snapshots_made++;
    if (own->snapshot == NULL || own->snapshot->index < blob->index) {
        blob_unref(own->snapshot);
        own->snapshot = blob_ref(blob);
    }
    ret_event->type = RAFT_EVENT_COMPACTED;
    ret_event->compacted.index = blob->index;
    ret_event->compacted.log_base = blob->index;
    if (base < blob->index)
        ret_event->compacted.log_base = rng_between(&server->sim->rng, base, blob->index);
}

static void on_snapshot_received(struct server *server, struct blob *blob,
                                 struct raft_member *members, struct raft_event *ret_event)
{
    struct raft_server *own = kind_of(server);
    struct machine machine;
    size_t count = 0;
    bool good = machine_load(&machine, blob, members, &count);

    assert(good);
    blob_unref(own->snapshot);
    own->snapshot = blob_ref(blob);
    ret_event->type = RAFT_EVENT_SNAPSHOT_DURABLE;
    ret_event->snapshot_durable.index = blob->index;
    ret_event->snapshot_durable.term = blob->term;
    ret_event->snapshot_durable.members = members;
    ret_event->snapshot_durable.members_count = count;
}

static void step(struct server *server, const struct item *item, uint64_t now_ms)
{
    struct raft_server *own = kind_of(server);
    struct raft_event event = {.now_ms = now_ms};
    struct raft_member members[RAFT_MEMBERS_MAX];
    enum raft_error error;

    own->next = 0;
    own->actions.count = 0;
    own->at_once = false;
    switch (item->type) {
    case ITEM_NONE:
        return;
    case ITEM_MESSAGE:
        event.type = RAFT_EVENT_MESSAGE;
        event.message.message = &item->message->raft;
        event.message.entries = item->message->entries;
        break;
    case ITEM_CALL:
        if (!event_of_call(server, &item->call, &event))
            return;
        break;
    case ITEM_PERSISTED:
        on_persisted(own, item->write);
        event.type = RAFT_EVENT_PERSISTED;
        event.persisted.write = item->write;
        break;
    case ITEM_PERSIST_FAILED:
        event.type = RAFT_EVENT_PERSIST_FAILED;
        break;
    case ITEM_SNAPSHOT_STORED:
        on_snapshot_stored(server, item->blob, &event);
        break;
    case ITEM_SNAPSHOT_RECEIVED:
        on_snapshot_received(server, item->blob, members, &event);
        break;
    case ITEM_SNAPSHOT_REFUSED:
        server->sim->stats->snapshots_refused++;
        event.type = RAFT_EVENT_SNAPSHOT_REFUSED;
        break;
    case ITEM_APPLY:
        own->applying = false;
        apply(server, false);
        return;
    case ITEM_TICK:
        event.type = RAFT_EVENT_TICK;
        break;
    case ITEM_TURN_END:
        event.type = RAFT_EVENT_TURN_END;
        break;
    }
    error = raft_step(own->raft, &event, &own->actions);
    trace_step(server, &event, error);
    if (item->type == ITEM_CALL)
        after_call(server, &item->call, error);
    else if (error != RAFT_OK && error != RAFT_ERR_FAILED)
        sim_broken(server->sim, server, "%s", raft_error_text(error));
    if (error != RAFT_OK && own->actions.count != 0)
        sim_broken(server->sim, server, "a step that fails causes actions");
    oracle_after_step(server);
}

static bool carry_out(struct server *server)
{
    struct raft_server *own = kind_of(server);
    const uint64_t boot = server->boot;

    while (own->next < own->actions.count) {
        if (server_stalls(server))
            return false;
        trace_action(server, &own->actions.items[own->next]);
        if (!carry(server, &own->actions.items[own->next++])) {
            give_up(server);
            return true;
        }
    }
    if (own->actions.count > 0 && server->boot == boot) {
        if (raft_get_log_base(own->raft) > own->log.base) {
            entries_drop(&own->log, raft_get_log_base(own->raft));
            disk_drop_log(server, raft_get_log_base(own->raft));
        }
        maybe_begin_snapshot(server);
    }
    return true;
}

/* Applying, and the answers that hang on it */

static void answer_proposals(struct server *server, uint64_t index, const struct entry *entry)
{
    struct raft_server *own = kind_of(server);
    size_t done = 0;

    for (; done < own->proposals_count && own->proposals[done].index <= index; done++) {
        const struct own_proposal *proposal = &own->proposals[done];
        if (entry != NULL && proposal->index == index && proposal->command == entry->command &&
            proposal->term == entry->raft.term)
            oracle_done(server, proposal->command, index);
        else
            server->sim->stats->proposals_lost++;
    }
    if (done == 0)
        return;
    own->proposals_count -= done;
    memmove(own->proposals, own->proposals + done, own->proposals_count * sizeof(*own->proposals));
}

static void answer_reads(struct server *server)
{
    struct raft_server *own = kind_of(server);
    size_t kept = 0;

    for (size_t i = 0; i < own->reads_count; i++) {
        struct own_read *read = &own->reads[i];
        if (read->ready_index <= own->machine.applied)
            oracle_read(server, &read->call);
        else
            own->reads[kept++] = *read;
    }
    own->reads_count = kept;
}

static void apply(struct server *server, bool all)
{
    struct sim *sim = server->sim;
    struct raft_server *own = kind_of(server);
    uint64_t to = own->commit;

    if (!all && to > own->machine.applied)
        to = rng_between(&sim->rng, own->machine.applied, to);
    while (own->machine.applied < to) {
        const uint64_t index = own->machine.applied + 1;
        const struct entry *entry = entries_at(&own->log, index);
        if (entry == NULL) {
            sim_broken(sim, server, "entry %llu is to be applied and is not there",
                       (unsigned long long)index);
            return;
        }
        machine_apply(&own->machine, index, entry);
        oracle_applied(server, index, entry);
        answer_proposals(server, index, entry);
    }
    answer_reads(server);
    if (own->machine.applied < own->commit && !own->applying) {
        own->applying = true;
        server_post(server, (struct item){.type = ITEM_APPLY});
    }
}

/* Actions */

static void persist(struct server *server, struct disk_write write)
{
    struct raft_server *own = kind_of(server);

    own->covers =
        sim_grow(own->covers, &own->covers_capacity, own->covers_count + 1, sizeof(*own->covers));
    own->covers[own->covers_count++] = (struct cover){.write = write.number, .last = own->log.last};
    disk_write(server, write);
}

/* The entries that an action speaks of: a leader's own, or the last ones of an APPEND. */
static bool collect_entries(struct server *server, const struct raft_action *action,
                            struct entry *list, size_t count)
{
    const struct item *item = &server->item;
    const bool from_leader =
        item->type == ITEM_MESSAGE && item->message->raft.type == RAFT_MESSAGE_APPEND;
    const struct raft_entry *like = &action->persist_entries.entry;

    if (from_leader) {
        const size_t all = item->message->raft.append.count;
        if (count > all ||
            item->message->raft.append.prev_index + all != action->persist_entries.last)
            return false;
        for (size_t i = 0; i < count; i++) {
            list[i].raft = item->message->entries[all - count + i];
            list[i].command = item->message->commands[all - count + i];
        }
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        list[i].raft = *like;
        list[i].command = 0;
        if (like->type != RAFT_ENTRY_COMMAND)
            continue;
        if (item->type != ITEM_CALL || item->call.type != CALL_PROPOSE || item->call.count != count)
            return false;
        list[i].command = item->call.first + i;
        list[i].raft.bytes = callers_command_bytes(server->sim, list[i].command);
    }
    return true;
}

/* What was proposed at `first` or behind it is cut off: its callers never learn what became of it.
 */
static void lose_proposals(struct server *server, uint64_t first)
{
    struct raft_server *own = kind_of(server);

    for (; own->proposals_count > 0 && own->proposals[own->proposals_count - 1].index >= first;
         own->proposals_count--)
        server->sim->stats->proposals_lost++;
}

static bool persist_entries(struct server *server, const struct raft_action *action)
{
    struct sim *sim = server->sim;
    struct raft_server *own = kind_of(server);
    const uint64_t first = action->persist_entries.first;
    const uint64_t last = action->persist_entries.last;
    struct entry *list;
    uint64_t prev_term;

    if (first > last || first <= own->log.base || first > own->log.last + 1 ||
        first <= own->commit) {
        sim_broken(sim, server, "writes entries %llu to %llu, has %llu to %llu, %llu committed",
                   (unsigned long long)first, (unsigned long long)last,
                   (unsigned long long)own->log.base + 1, (unsigned long long)own->log.last,
                   (unsigned long long)own->commit);
        return false;
    }
    list = sim_alloc((last - first + 1) * sizeof(*list));
    if (!collect_entries(server, action, list, last - first + 1)) {
        sim_broken(sim, server, "writes entries that nobody gave it");
        free(list);
        return false;
    }
    if (first <= own->log.last)
        sim->stats->entries_truncated += own->log.last - first + 1;
    lose_proposals(server, first);
    prev_term = entries_term_at(&own->log, first - 1);
    entries_write(&own->log, first, list, last - first + 1);
    for (uint64_t index = first; index <= last; index++) {
        const struct entry *entry = &list[index - first];
        oracle_logged(server, index, entry, prev_term);
        prev_term = entry->raft.term;
        if (entry->command != 0 && server->item.type == ITEM_CALL) {
            own->proposals = sim_grow(own->proposals, &own->proposals_capacity,
                                      own->proposals_count + 1, sizeof(*own->proposals));
            own->proposals[own->proposals_count++] = (struct own_proposal){
                .index = index, .term = entry->raft.term, .command = entry->command};
        }
    }
    persist(server, (struct disk_write){.type = DISK_ENTRIES,
                                        .number = action->persist_entries.write,
                                        .index = first,
                                        .entries = list,
                                        .count = last - first + 1});
    return true;
}

static bool send_message(struct server *server, const struct raft_message *raft)
{
    struct sim *sim = server->sim;
    struct raft_server *own = kind_of(server);
    const bool append = raft->type == RAFT_MESSAGE_APPEND;
    const size_t count = append ? raft->append.count : 0;
    struct message *message = message_make(raft, count);

    for (size_t i = 0; i < count; i++) {
        const struct entry *entry = entries_at(&own->log, raft->append.prev_index + 1 + i);
        if (entry == NULL) {
            sim_broken(sim, server, "sends an entry that it does not have");
            message_unref(message);
            return false;
        }
        ((struct raft_entry *)(uintptr_t)message->entries)[i] = entry->raft;
        ((uint64_t *)(uintptr_t)message->commands)[i] = entry->command;
    }
    if (raft->type == RAFT_MESSAGE_SNAPSHOT) {
        struct blob *blob = own->snapshot;
        const uint64_t offset = raft->snapshot.offset;
        if (blob == NULL || blob->index != raft->snapshot.index ||
            blob->term != raft->snapshot.index_term || offset > blob->size) {
            sim_broken(sim, server, "sends a snapshot that it does not have");
            message_unref(message);
            return false;
        }
        message->snapshot = blob_ref(blob);
        message->raft.snapshot.bytes = sim->plan.chunk_bytes;
        if (blob->size - offset <= sim->plan.chunk_bytes) {
            message->raft.snapshot.bytes = (uint32_t)(blob->size - offset);
            message->raft.snapshot.done = true;
        } else {
            message->raft.snapshot.done = false;
        }
        sim->stats->snapshot_chunks++;
    }
    oracle_send(server, message, &own->log);
    network_send(server, message);
    return true;
}

static bool take_chunk(struct server *server, const struct raft_action *action)
{
    struct raft_server *own = kind_of(server);
    const struct message *message = server->item.message;
    const uint64_t offset = action->snapshot_chunk.offset;
    struct blob *blob;
    uint32_t bytes;

    if (server->item.type != ITEM_MESSAGE || message->raft.type != RAFT_MESSAGE_SNAPSHOT ||
        (offset != 0 &&
         (own->received_index != action->snapshot_chunk.index || offset != own->received_bytes))) {
        sim_broken(server->sim, server, "writes a chunk of a snapshot where none belongs");
        return false;
    }
    bytes = message->raft.snapshot.bytes;
    own->received_index = action->snapshot_chunk.index;
    own->received =
        sim_grow(own->received, &own->received_capacity, offset + bytes, sizeof(*own->received));
    if (bytes > 0)
        memcpy(own->received + offset, message->snapshot->bytes + offset, bytes);
    own->received_bytes = offset + bytes;
    if (action->snapshot_chunk.done) {
        blob = blob_make((uint32_t)own->received_bytes);
        memcpy(blob->bytes, own->received, own->received_bytes);
        blob->index = action->snapshot_chunk.index;
        blob->term = action->snapshot_chunk.term;
        own->received_bytes = 0;
        own->received_index = 0;
        disk_store_snapshot(server, blob, false);
    }
    return true;
}

static bool restore(struct server *server, uint64_t index)
{
    struct raft_server *own = kind_of(server);
    struct raft_member members[RAFT_MEMBERS_MAX];
    size_t count = 0;
    bool good;

    if (own->snapshot == NULL || own->snapshot->index != index || index < own->machine.applied) {
        sim_broken(server->sim, server, "restores what is not there, or is older");
        return false;
    }
    good = machine_load(&own->machine, own->snapshot, members, &count);
    assert(good);
    if (own->commit < index)
        own->commit = index;
    server->sim->stats->snapshots_installed++;
    oracle_restored(server, members, count);
    answer_proposals(server, index, NULL);
    answer_reads(server);
    return true;
}

static void on_role(struct server *server, enum raft_role role, uint64_t term)
{
    struct sim *sim = server->sim;

    if (role == RAFT_LEADER) {
        oracle_leader_complete(server, &kind_of(server)->log, term);
    } else if (role == RAFT_FAILED) {
        schedule_add(
            sim, sim->now_us + rng_skewed(&sim->rng, 0, 200000),
            (struct event){.type = EVENT_STOP, .slot = server->slot, .boot = server->boot});
    }
}

static void on_read_ready(struct server *server, uint64_t id, uint64_t index)
{
    struct raft_server *own = kind_of(server);

    for (size_t i = 0; i < own->reads_count; i++) {
        if (own->reads[i].call.first > id || own->reads[i].ready_index != UINT64_MAX)
            continue;
        own->reads[i].ready_index = index;
        if (own->at_once && own->reads[i].call.first == server->item.call.first)
            server->sim->stats->reads_answered_at_once++;
    }
    answer_reads(server);
}

static void on_read_failed(struct server *server, uint64_t id)
{
    struct raft_server *own = kind_of(server);
    size_t kept = 0;

    for (size_t i = 0; i < own->reads_count; i++) {
        if (own->reads[i].call.first > id || own->reads[i].ready_index != UINT64_MAX)
            own->reads[kept++] = own->reads[i];
        else
            server->sim->stats->reads_failed++;
    }
    own->reads_count = kept;
}

/* False: it cannot be carried out. */
static bool carry(struct server *server, const struct raft_action *action)
{
    struct sim *sim = server->sim;
    struct raft_server *own = kind_of(server);

    switch (action->type) {
    case RAFT_ACTION_PERSIST_STATE:
        oracle_persist_state(server, action->persist_state.term, action->persist_state.vote);
        persist(server, (struct disk_write){.type = DISK_STATE,
                                            .number = action->persist_state.write,
                                            .term = action->persist_state.term,
                                            .vote = action->persist_state.vote});
        return true;
    case RAFT_ACTION_PERSIST_ENTRIES:
        return persist_entries(server, action);
    case RAFT_ACTION_PERSIST_RESET:
        sim->stats->log_resets++;
        lose_proposals(server, 0);
        entries_reset(&own->log, action->persist_reset.index, action->persist_reset.term);
        persist(server, (struct disk_write){.type = DISK_RESET,
                                            .number = action->persist_reset.write,
                                            .index = action->persist_reset.index,
                                            .term = action->persist_reset.term});
        return true;
    case RAFT_ACTION_SEND:
        return send_message(server, &action->send);
    case RAFT_ACTION_COMMIT:
        oracle_commit(server, &own->log, own->commit, action->commit.index);
        if (action->commit.index > own->log.last)
            return false;
        own->commit = action->commit.index;
        apply(server, !sim->plan.applies_late);
        return true;
    case RAFT_ACTION_ROLE:
        on_role(server, action->role.role, action->role.term);
        return true;
    case RAFT_ACTION_SNAPSHOT_CHUNK:
        return take_chunk(server, action);
    case RAFT_ACTION_RESTORE:
        return restore(server, action->restore.index);
    case RAFT_ACTION_READ_READY:
        on_read_ready(server, action->read_ready.id, action->read_ready.index);
        return true;
    case RAFT_ACTION_READ_FAILED:
        on_read_failed(server, action->read_failed.id);
        return true;
    }
    return false;
}

static bool wants_turn_end(const struct server *server)
{
    return raft_wants_turn_end(kind_of(server)->raft);
}

static uint64_t get_deadline_ms(const struct server *server)
{
    return raft_get_deadline_ms(kind_of(server)->raft);
}

static struct raft *get_raft(const struct server *server)
{
    return kind_of(server)->raft;
}

static struct machine *get_machine(const struct server *server)
{
    return &kind_of(server)->machine;
}

static size_t get_waiting(const struct server *server)
{
    return kind_of(server)->reads_count + kind_of(server)->proposals_count;
}

const struct server_kind server_raft = {
    .name = "raft",
    .create = create,
    .destroy = destroy,
    .start = start,
    .forget = forget,
    .step = step,
    .carry_out = carry_out,
    .wants_turn_end = wants_turn_end,
    .get_deadline_ms = get_deadline_ms,
    .get_raft = get_raft,
    .get_machine = get_machine,
    .get_waiting = get_waiting,
};
