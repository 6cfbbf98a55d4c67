/*
 * What must hold of what callers were told of claims, in true time, whichever server told them; and
 * of the lock tables behind that.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node_kind.h"

struct world *world_of(struct sim *sim)
{
    if (sim->world == NULL) {
        sim->world = sim_alloc(sizeof(*sim->world));
        memset(sim->world, 0, sizeof(*sim->world));
        sim->world->dirs[0] = (struct world_dir){.usable = true};
    }
    return sim->world;
}

void world_end(struct sim *sim)
{
    struct world *world = sim->world;

    if (world == NULL)
        return;
    for (size_t i = 0; i < world->stored_count; i++)
        free(world->stored[i].data);
    free(world->stored);
    free(world->stored_by_hash);
    free(world->tokens);
    free(world->tables);
    free(world->limits);
    free(world);
    sim->world = NULL;
}

/* Bytes of entries */

static uint64_t hash_of(struct span data)
{
    uint64_t hash = data.len;

    for (size_t i = 0; i < data.len; i++)
        hash = (hash ^ (uint8_t)data.data[i]) * 0x100000001b3u;
    return rng_mix(hash);
}

static void add_hash(struct world *world, uint64_t hash, uint32_t number)
{
    size_t at = hash & (world->hash_size - 1);

    while (world->stored_by_hash[at] != 0)
        at = (at + 1) & (world->hash_size - 1);
    world->stored_by_hash[at] = number;
}

static void grow_hash(struct world *world)
{
    world->hash_size = world->hash_size == 0 ? 1024 : 2 * world->hash_size;
    free(world->stored_by_hash);
    world->stored_by_hash = sim_alloc(world->hash_size * sizeof(*world->stored_by_hash));
    memset(world->stored_by_hash, 0, world->hash_size * sizeof(*world->stored_by_hash));
    for (uint32_t i = 0; i < world->stored_count; i++)
        add_hash(world, hash_of((struct span){world->stored[i].data, world->stored[i].len}), i + 1);
}

uint64_t world_store(struct sim *sim, struct span data)
{
    struct world *world = world_of(sim);
    const uint64_t hash = hash_of(data);
    struct stored *stored;

    if (data.len == 0)
        return 0;
    if (2 * world->stored_count >= world->hash_size)
        grow_hash(world);
    for (size_t at = hash & (world->hash_size - 1); world->stored_by_hash[at] != 0;
         at = (at + 1) & (world->hash_size - 1)) {
        stored = &world->stored[world->stored_by_hash[at] - 1];
        if (stored->len == data.len && memcmp(stored->data, data.data, data.len) == 0)
            return world->stored_by_hash[at];
    }
    world->stored = sim_grow(world->stored, &world->stored_capacity, world->stored_count + 1,
                             sizeof(*world->stored));
    stored = &world->stored[world->stored_count++];
    stored->len = (uint32_t)data.len;
    stored->data = sim_alloc(data.len);
    memcpy(stored->data, data.data, data.len);
    add_hash(world, hash, (uint32_t)world->stored_count);
    return world->stored_count;
}

struct span world_stored(const struct sim *sim, uint64_t number)
{
    const struct stored *stored;

    if (number == 0)
        return (struct span){"", 0};
    stored = &sim->world->stored[number - 1];
    return (struct span){stored->data, stored->len};
}

/* Tables */

void oracle_table(struct server *server)
{
    struct sim *sim = server->sim;
    struct world *world = world_of(sim);
    const uint64_t index = sim->kind->get_machine(server)->applied;
    const size_t before = world->tables_capacity;
    const uint64_t digest = lock_table_digest(node_table(node_of(server)));

    world->tables =
        sim_grow(world->tables, &world->tables_capacity, index + 1, sizeof(*world->tables));
    memset(world->tables + before, 0, (world->tables_capacity - before) * sizeof(*world->tables));
    if (world->tables[index].known && world->tables[index].digest != digest)
        sim_fail(sim, SIM_SAFETY,
                 "the lock table of server %" PRIu64 " at entry %" PRIu64
                 " is another one than elsewhere",
                 server->id, index);
    sim->stats->tables_compared += world->tables[index].known;
    world->tables[index] = (struct known_table){.known = true, .digest = digest};
}

/* Claims */

static uint32_t limit_of(const struct sim *sim, uint64_t dir)
{
    return dir == 0 ? 0 : sim->world->limits[dir];
}

bool place_is_same_resource(const struct sim *sim, const struct place *a, const struct place *b)
{
    return a->dir == b->dir && (a->name == b->name || limit_of(sim, a->dir) != 0);
}

typedef bool claim_check(struct server *server, struct desk_file *file, void *context);

/* All that callers rely on. */
static void each_claim(struct sim *sim, claim_check *check, void *context)
{
    for (unsigned slot = 0; slot < SIM_SERVERS_MAX; slot++) {
        struct server *server = &sim->servers[slot];
        if (server->state != SERVER_UP || !desk_of(server)->ready)
            continue;
        for (int i = 0; i < DESK_FILES; i++) {
            struct desk_file *file = &desk_of(server)->files[i];
            if (file->used && file->mode != 0 && !check(server, file, context))
                return;
        }
    }
}

struct holders {
    const struct place *place;
    uint32_t exclusive;
    uint32_t shared;
};

static bool count_holder(struct server *server, struct desk_file *file, void *context)
{
    struct holders *holders = context;

    if (!place_is_same_resource(server->sim, &file->place, holders->place))
        return true;
    if (file->mode == NODE_FLOCK_SHARED)
        holders->shared++;
    else
        holders->exclusive++;
    return true;
}

static uint32_t count_owners(struct sim *sim, const struct place *place)
{
    struct holders holders = {.place = place};

    each_claim(sim, count_holder, &holders);
    return holders.exclusive + (holders.shared > 0);
}

bool oracle_is_held(struct sim *sim, const struct place *place)
{
    return count_owners(sim, place) > 0;
}

/* Whoever asked before it, and waits, was overtaken. */
static void check_queue(struct server *server, const struct desk_ask *granted, uint64_t token)
{
    const struct desk *desk = desk_of(server);

    for (uint32_t slot = 1; slot < DESK_SLOTS; slot++) {
        const struct desk_ask *ask = &desk->asks[slot];
        if (ask->used && ask->waits && ask->file >= 0 && ask->order < granted->order &&
            !desk->files[ask->file].given_up &&
            place_is_same_resource(server->sim, &ask->place, &granted->place))
            sim_fail(server->sim, SIM_SAFETY,
                     "claim %" PRIu64 " of server %" PRIu64 " is granted past slot %" PRIu32
                     ", which waits since before it was asked for",
                     token, server->id, slot);
    }
}

void oracle_told(struct server *server, struct desk_file *file, const struct desk_ask *ask,
                 uint64_t token)
{
    struct sim *sim = server->sim;
    struct world *world = world_of(sim);
    struct desk *desk = desk_of(server);
    const size_t before = world->tokens_capacity;
    uint32_t limit = limit_of(sim, file->place.dir);
    uint32_t owners;

    trace_say(sim, server, "tells a caller: claim %llu on f%llu in d%llu", token, file->place.name,
              file->place.dir);
    sim->stats->claims_told++;
    file->index = sim->kind->get_machine(server)->applied;
    if (token == 0 || token > 100000000)
        sim_fail(sim, SIM_SAFETY, "a claim of server %" PRIu64 " has number %" PRIu64, server->id,
                 token);
    world->tokens =
        sim_grow(world->tokens, &world->tokens_capacity, token + 1, sizeof(*world->tokens));
    memset(world->tokens + before, 0, (world->tokens_capacity - before) * sizeof(*world->tokens));
    if (world->tokens[token] != 0)
        sim_fail(sim, SIM_SAFETY, "server %" PRIu64 " gives number %" PRIu64 " a second time",
                 server->id, token);
    world->tokens[token] = server->id;
    if (token <= ask->token)
        sim_fail(sim, SIM_SAFETY,
                 "claim %" PRIu64 " of server %" PRIu64
                 " was asked for when a caller knew of claim %" PRIu64,
                 token, server->id, ask->token);
    if (token <= desk->token)
        sim_fail(sim, SIM_SAFETY,
                 "server %" PRIu64 " tells of claim %" PRIu64 " behind claim %" PRIu64, server->id,
                 token, desk->token);
    desk->token = token;
    if (world->token < token)
        world->token = token;

    owners = count_owners(sim, &file->place);
    if (limit == 0)
        limit = 1;
    if (owners > limit)
        sim_fail(sim, SIM_SAFETY,
                 "claim %" PRIu64 " of server %" PRIu64 ": %" PRIu32
                 " hold what has a limit of %" PRIu32,
                 token, server->id, owners, limit);
    check_queue(server, ask, token);
    if (ask->waits && ask->contended) {
        sim->stats->waits_granted++;
        if (ask->recovering)
            world->served = true;
    }
}

struct removed {
    uint64_t dir;
};

static bool check_not_in(struct server *server, struct desk_file *file, void *context)
{
    const struct removed *removed = context;

    if (file->place.dir == removed->dir)
        sim_fail(server->sim, SIM_SAFETY,
                 "lock d%" PRIu64 " is removed while claim %" PRIu64 " in it is held", removed->dir,
                 file->token);
    return true;
}

void oracle_removed(struct server *server, uint64_t dir)
{
    struct removed removed = {dir};

    each_claim(server->sim, check_not_in, &removed);
}

static bool check_there(struct server *server, struct desk_file *file, void *context)
{
    struct sim *sim = server->sim;
    struct server *where = context;
    const struct lock_table *table = node_table(node_of(where));
    struct claim_view view = {.token = 0};
    char name[32];
    uint64_t lock = LOCK_TABLE_ROOT;

    if (sim->kind->get_machine(where)->applied < file->index)
        return true;
    if (file->place.dir != 0) {
        int len = snprintf(name, sizeof(name), "d%" PRIu64, file->place.dir);
        lock = lock_table_find(table, LOCK_TABLE_ROOT, (struct span){name, (size_t)len});
    }
    if (lock == 0 || !lock_table_get_claim(table, lock, file->token, &view) ||
        view.node != server->id || view.handle != file->handle)
        sim_fail(sim, SIM_SAFETY,
                 "claim %" PRIu64 ", which a caller of server %" PRIu64
                 " holds, is not in the table of server %" PRIu64 " at entry %" PRIu64,
                 file->token, server->id, where->id, sim->kind->get_machine(where)->applied);
    sim->stats->claims_found++;
    return true;
}

void oracle_claims(struct server *server)
{
    each_claim(server->sim, check_there, server);
}
