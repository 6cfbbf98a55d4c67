/* The network: delays, loses, repeats and reorders messages, and cuts links in one direction. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct message *message_make(const struct raft_message *raft, size_t entries_count)
{
    struct message *message = sim_alloc(
        sizeof(*message) + entries_count * (sizeof(struct raft_entry) + sizeof(uint64_t)));

    message->refs = 1;
    message->raft = *raft;
    message->snapshot = NULL;
    message->bytes = NULL;
    message->bytes_size = 0;
    message->entries = (const struct raft_entry *)(message + 1);
    message->commands = (const uint64_t *)(message->entries + entries_count);
    return message;
}

void message_unref(struct message *message)
{
    if (message == NULL || --message->refs > 0)
        return;
    blob_unref(message->snapshot);
    free(message->bytes);
    free(message);
}

static void deliver_at(struct sim *sim, uint64_t us, unsigned slot, struct message *message)
{
    message->refs++;
    schedule_add(sim, us, (struct event){.type = EVENT_DELIVER, .slot = slot, .message = message});
}

void network_send(struct server *server, struct message *message)
{
    struct sim *sim = server->sim;
    struct network *network = &sim->network;
    const struct plan *plan = &sim->plan;
    struct server *to = server_by_id(sim, message->raft.to);
    uint64_t us = sim->now_us;
    bool lost;

    sim->stats->messages_sent++;
    if (adversary_sends(server, message))
        return;
    lost = to == NULL || sim->now_us < network->cut_until[server->slot][to->slot];
    if (!sim->recovering) {
        lost = lost || rng_chance(&sim->rng, plan->loss) ||
               (us < network->lossy_until && rng_chance(&sim->rng, 400000));
    }
    if (lost) {
        sim->stats->messages_lost++;
        trace_drop(sim, &message->raft);
        message_unref(message);
        return;
    }

    us += rng_skewed(&sim->rng, plan->delay_min_us, plan->delay_max_us);
    if (!sim->recovering &&
        (rng_chance(&sim->rng, plan->late) ||
         (sim->now_us < network->slow_until && message->raft.type == network->slow_type))) {
        us += rng_skewed(&sim->rng, 0, plan->late_max_us);
        sim->stats->messages_late++;
    } else if (plan->in_order) {
        uint64_t *last_us = &network->last_us[server->slot][to->slot];
        if (us < *last_us)
            us = *last_us;
        *last_us = us;
    }
    deliver_at(sim, us, to->slot, message);
    if (!sim->recovering && rng_chance(&sim->rng, plan->repeat)) {
        deliver_at(sim, us + rng_skewed(&sim->rng, 0, plan->late_max_us), to->slot, message);
        sim->stats->messages_repeated++;
    }
    message_unref(message);
}

void network_deliver_soon(struct sim *sim, struct message *message)
{
    const struct server *to = server_by_id(sim, message->raft.to);

    if (to != NULL)
        deliver_at(sim, sim->now_us + sim->plan.delay_min_us, to->slot, message);
    message_unref(message);
}

void network_deliver(struct sim *sim, unsigned slot, struct message *message)
{
    struct server *server = &sim->servers[slot];

    /* The slot may have been given to another server. */
    if (server->state != SERVER_UP || server->id != message->raft.to) {
        message_unref(message);
        return;
    }
    server_post(server, (struct item){.type = ITEM_MESSAGE, .message = message});
}

void network_cut(struct sim *sim, unsigned from, unsigned to, uint64_t until_us)
{
    if (from != to && sim->network.cut_until[from][to] < until_us)
        sim->network.cut_until[from][to] = until_us;
}

void network_heal(struct sim *sim)
{
    memset(&sim->network.cut_until, 0, sizeof(sim->network.cut_until));
    sim->network.lossy_until = 0;
    sim->network.slow_until = 0;
}
