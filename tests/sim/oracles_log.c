/* Invariants of entries and messages, checked against what the simulated disks really hold. */
#include <inttypes.h>
#include <string.h>

#include "sim.h"

static struct known_entry *find_known(struct sim *sim, uint64_t index, uint64_t term)
{
    struct oracles *oracles = &sim->oracles;
    size_t before = oracles->known_capacity;
    struct known_entry *known;

    oracles->known =
        sim_grow(oracles->known, &oracles->known_capacity, index + 1, sizeof(struct known_entry *));
    for (size_t i = before; i < oracles->known_capacity; i++)
        oracles->known[i] = NULL;
    for (known = oracles->known[index]; known != NULL && known->term != term; known = known->next)
        ;
    return known;
}

/* Log matching: an index and a term stand for one entry, and for all before it. By induction it is
 * enough to compare the term of the one before. */
void oracle_logged(struct server *server, uint64_t index, const struct entry *entry,
                   uint64_t prev_term)
{
    struct sim *sim = server->sim;
    struct known_entry *known = find_known(sim, index, entry->raft.term);
    const struct known_leader *leader;

    if (known != NULL) {
        if (known->command != entry->command || known->type != entry->raft.type ||
            known->prev_term != prev_term || known->change.id != entry->raft.change.id ||
            known->change.type != entry->raft.change.type)
            sim_broken(sim, server,
                       "entry %" PRIu64 " of term %" PRIu64
                       " is another one, or follows another one, than elsewhere",
                       index, entry->raft.term);
        return;
    }
    leader = oracle_leader(sim, entry->raft.term);
    if (leader->id != server->id || leader->boot != server->boot)
        sim_broken(sim, server, "entry %" PRIu64 " of term %" PRIu64 " comes from no leader", index,
                   entry->raft.term);
    known = sim_alloc(sizeof(*known));
    *known = (struct known_entry){.term = entry->raft.term,
                                  .prev_term = prev_term,
                                  .command = entry->command,
                                  .type = entry->raft.type,
                                  .change = entry->raft.change,
                                  .next = sim->oracles.known[index]};
    sim->oracles.known[index] = known;
}

/* Thesis 3.6.2: an entry of the leader's own term, durable on a majority of the voters. */
static void check_first_commit(struct server *server, uint64_t to, uint64_t term)
{
    struct sim *sim = server->sim;
    const struct raft *raft = sim->kind->get_raft(server);
    const struct known_leader *leader = oracle_leader(sim, raft_get_term(raft));
    struct raft_member members[RAFT_MEMBERS_MAX];
    const size_t count = raft_get_members_at(raft, raft_get_last_index(raft), members);
    size_t voters = 0;
    size_t having = 0;

    if (leader->id != server->id || leader->boot != server->boot) {
        sim_broken(sim, server, "commits entry %" PRIu64 " before any leader", to);
        return;
    }
    if (term != raft_get_term(raft))
        sim_broken(sim, server, "commits entry %" PRIu64 " of term %" PRIu64 " by counting", to,
                   term);
    for (size_t i = 0; i < count; i++) {
        const struct server *voter = server_by_id(sim, members[i].id);
        if (!members[i].voter)
            continue;
        voters++;
        if (voter == NULL || disk_has(&voter->disk, to, term))
            having++;
    }
    if (having * 2 <= voters)
        sim_broken(sim, server, "commits entry %" PRIu64 ", durable on %zu of %zu voters", to,
                   having, voters);
}

void oracle_commit(struct server *server, const struct entries *log, uint64_t from, uint64_t to)
{
    struct sim *sim = server->sim;
    struct oracles *oracles = &sim->oracles;

    if (to > log->last) {
        sim_broken(sim, server, "commits entry %" PRIu64 ", has %" PRIu64, to, log->last);
        return;
    }
    if (to > oracles->committed_count) {
        check_first_commit(server, to, entries_term_at(log, to));
        adversary_committed(server);
    }
    for (uint64_t index = from + 1; index <= to; index++) {
        const struct entry *entry = entries_at(log, index);
        if (entry == NULL)
            continue;
        if (index <= oracles->committed_count) {
            const struct committed_entry *committed = &oracles->committed[index - 1];
            if (committed->term != entry->raft.term || committed->command != entry->command)
                sim_broken(sim, server, "commits another entry %" PRIu64, index);
            continue;
        }
        oracles->committed = sim_grow(oracles->committed, &oracles->committed_capacity, index,
                                      sizeof(*oracles->committed));
        oracles->committed_count = index;
        oracles->committed[index - 1] =
            (struct committed_entry){.term = entry->raft.term,
                                     .command = entry->command,
                                     .in_term = raft_get_term(sim->kind->get_raft(server))};
        sim->stats->entries_committed++;
        if (entry->raft.type == RAFT_ENTRY_CHANGE) {
            switch (entry->raft.change.type) {
            case RAFT_CHANGE_ADD_LEARNER:
                sim->stats->learners_added++;
                break;
            case RAFT_CHANGE_PROMOTE:
                sim->stats->learners_promoted++;
                break;
            case RAFT_CHANGE_DEMOTE:
                sim->stats->voters_demoted++;
                break;
            case RAFT_CHANGE_REMOVE:
                sim->stats->members_removed++;
                break;
            }
        }
    }
}

/* Thesis 3.6.3. With log matching, the last one of those that were committed before is enough. */
void oracle_leader_complete(struct server *server, const struct entries *log, uint64_t term)
{
    struct sim *sim = server->sim;
    const struct oracles *oracles = &sim->oracles;
    uint64_t index = oracles->committed_count;

    while (index > log->base && oracles->committed[index - 1].in_term >= term)
        index--;
    if (index > log->base && entries_term_at(log, index) != oracles->committed[index - 1].term)
        sim_broken(sim, server, "leads term %" PRIu64 " without the committed entry %" PRIu64, term,
                   index);
}

static void check_append(struct server *server, const struct message *message,
                         const struct entries *log)
{
    struct sim *sim = server->sim;
    const struct known_leader *leader = oracle_leader(sim, message->raft.term);
    const struct raft *raft = sim->kind->get_raft(server);
    uint64_t bytes = 0;

    if (leader->id != server->id || leader->boot != server->boot)
        sim_broken(sim, server, "sends entries in a term that it does not lead");
    if (message->raft.append.prev_term != entries_term_at(log, message->raft.append.prev_index) &&
        message->raft.append.prev_index >= log->base)
        sim_broken(sim, server, "sends a previous term that its log does not have");
    if (message->raft.append.commit > raft_get_commit(raft))
        sim_broken(sim, server, "sends a commit index beyond its own");
    if (message->raft.append.count > RAFT_APPEND_ENTRIES_MAX)
        sim_broken(sim, server, "sends too many entries");
    for (uint32_t i = 1; i < message->raft.append.count; i++)
        bytes += message->entries[i].bytes;
    if (bytes > RAFT_APPEND_BYTES_MAX)
        sim_broken(sim, server, "sends too many bytes");
}

/* Raft.h: up to there the log is the leader's, and durable. */
static void check_append_reply(struct server *server, const struct raft_message *message)
{
    struct sim *sim = server->sim;
    const struct disk *disk = &server->disk;
    const uint64_t match = message->append_reply.match;
    const struct known_leader *known = oracle_leader(sim, message->term);
    const struct server *leader = server_by_id(sim, known->id);
    const struct raft *raft;

    if (disk->snapshot != NULL && match <= disk->snapshot->index)
        return;
    if (match > disk->log.last) {
        sim_broken(sim, server, "acknowledges entry %" PRIu64 ", durable is %" PRIu64, match,
                   disk->log.last);
        return;
    }
    if (match == 0 || leader == NULL || leader->boot != known->boot || leader->state != SERVER_UP)
        return;
    raft = sim->kind->get_raft(leader);
    if (raft_get_term(raft) != message->term || match <= raft_get_log_base(raft))
        return;
    if (raft_get_term_at(raft, match) != entries_term_at(&disk->log, match))
        sim_broken(sim, server, "acknowledges entry %" PRIu64 " that is not the leader's", match);
}

void oracle_send(struct server *server, const struct message *message, const struct entries *log)
{
    struct sim *sim = server->sim;
    const struct raft_message *raft = &message->raft;
    const struct raft *core = sim->kind->get_raft(server);

    if (raft->from != server->id || raft->to == server->id || raft->to == 0)
        sim_broken(sim, server, "sends in the name of another, or to itself");
    if (raft->term != raft_get_term(core))
        sim_broken(sim, server, "sends with another term than its own");
    if (raft_get_role(core) == RAFT_FAILED)
        sim_broken(sim, server, "sends although a write failed");
    switch (raft->type) {
    case RAFT_MESSAGE_VOTE:
        if (raft->vote.transfer)
            sim->oracles.last_term_given = raft->vote.campaign_term;
        if (!disk_voted(&server->disk, raft->vote.campaign_term, server->id))
            sim_broken(sim, server, "asks for votes before its own is durable");
        break;
    case RAFT_MESSAGE_VOTE_REPLY:
        if (raft->vote_reply.granted &&
            !disk_voted(&server->disk, raft->vote_reply.campaign_term, raft->to))
            sim_broken(sim, server, "tells of a vote that is not durable");
        break;
    case RAFT_MESSAGE_APPEND:
        check_append(server, message, log);
        break;
    case RAFT_MESSAGE_APPEND_REPLY:
        check_append_reply(server, raft);
        break;
    default:
        break;
    }
}
