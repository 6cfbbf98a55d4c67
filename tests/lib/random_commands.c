/* Random commands that mostly make sense. See random_commands.h. */
#include "tests/lib/random_commands.h"

#include <stdio.h>
#include <string.h>

static uint64_t next_random(struct random_commands *r)
{
    uint64_t z = r->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t below(struct random_commands *r, uint64_t n)
{
    return next_random(r) % n;
}

static struct span span_of(const char *name)
{
    return (struct span){name, strlen(name)};
}

static bool chance(struct random_commands *r, uint32_t percent)
{
    return below(r, 100) < percent;
}

/* Handles and owners have the same numbers. Spread over all 64 bits, but the small ones. */
static uint64_t spread(uint64_t n)
{
    return n % 3 == 0 ? n : n * 0x9e3779b97f4a7c15u;
}

static uint64_t handle_number(struct random_commands *r)
{
    return spread(below(r, r->profile->handles) + 1);
}

static uint64_t owner_number(struct random_commands *r)
{
    return spread(below(r, r->profile->owners) + 1);
}

static struct span name_of_file(struct random_commands *r)
{
    uint32_t half = r->profile->names / 2;
    return r->names[chance(r, 90) ? below(r, half) : below(r, r->profile->names)];
}

/* Names of locks and files are mostly others, so that they are seldom in each other's way. */
static struct span name_of_lock(struct random_commands *r)
{
    uint32_t half = r->profile->names / 2;
    return r->names[chance(r, 90) ? half + below(r, r->profile->names - half)
                                  : below(r, r->profile->names)];
}

static uint64_t some_lock(struct random_commands *r)
{
    if (chance(r, 2))
        return below(r, r->model->highest_lock + 3);
    if (chance(r, r->profile->at_root))
        return LOCK_TABLE_ROOT;
    return naive_lock_at(r->model, below(r, r->model->locks.count))->id;
}

static uint64_t deepest_lock(const struct random_commands *r)
{
    uint64_t deepest = LOCK_TABLE_ROOT;
    for (size_t i = 0; i < r->model->locks.count; i++) {
        uint64_t id = naive_lock_at(r->model, i)->id;
        if (naive_depth(r->model, id) > naive_depth(r->model, deepest))
            deepest = id;
    }
    return deepest;
}

/* A claim or a waiter; NULL where there is none. */
static const struct naive_claim *some_claim(struct random_commands *r)
{
    const struct naive_model *model = r->model;
    size_t count = model->claims.count + model->waiters.count;
    if (count == 0)
        return NULL;
    size_t n = below(r, count);
    return n < model->claims.count ? naive_claim_at(model, n)
                                   : naive_waiter_at(model, n - model->claims.count);
}

static const struct naive_claim *some_creator(struct random_commands *r)
{
    const struct naive_claim *claim = NULL;
    for (int tries = 0; tries < 5; tries++) {
        claim = some_claim(r);
        if (!claim || claim->kind == CLAIM_CREATE)
            break;
    }
    return claim;
}

static void choose_attributes(struct random_commands *r, struct command *command)
{
    command->mode = (uint32_t)below(r, 010000);
    command->uid = (uint32_t)below(r, 3) * 1000;
    command->gid = (uint32_t)below(r, 3) * 100;
}

/* What a handle holds or waits for; NULL where that is nothing. */
static const struct naive_claim *claim_of_handle(const struct random_commands *r, uint64_t node,
                                                 uint64_t handle)
{
    for (size_t i = 0; i < r->model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(r->model, i);
        if (claim->node == node && claim->handle == handle)
            return claim;
    }
    for (size_t i = 0; i < r->model->waiters.count; i++) {
        const struct naive_claim *waiter = naive_waiter_at(r->model, i);
        if (waiter->node == node && waiter->handle == handle)
            return waiter;
    }
    return NULL;
}

static bool has_created(const struct random_commands *r, uint64_t node, uint64_t handle)
{
    for (size_t i = 0; i < r->model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(r->model, i);
        if (claim->node == node && claim->handle == handle && claim->kind == CLAIM_CREATE)
            return true;
    }
    return false;
}

/* A file, and a handle that is on no other one. */
static void choose_place(struct random_commands *r, struct command *command)
{
    command->handle = handle_number(r);
    const struct naive_claim *on = claim_of_handle(r, command->node, command->handle);
    if (on && chance(r, 96)) {
        command->lock = on->lock;
        command->name = span_of(on->name);
    } else {
        command->lock = some_lock(r);
        command->name = name_of_file(r);
    }
}

/* A file where there is somebody already, mostly through another handle, often of the same owner.
 */
static void choose_place_beside(struct random_commands *r, struct command *command,
                                const struct naive_claim *beside)
{
    command->node = beside->node;
    command->lock = beside->lock;
    command->name = span_of(beside->name);
    command->handle = beside->handle;
    if (beside->kind == CLAIM_FCNTL && chance(r, 60))
        command->owner = beside->owner;
    for (int tries = 0; tries < 5 && chance(r, 75); tries++) {
        uint64_t handle = handle_number(r);
        const struct naive_claim *on = claim_of_handle(r, command->node, handle);
        if (on && (on->lock != beside->lock || strcmp(on->name, beside->name) != 0))
            continue;
        command->handle = handle;
        break;
    }
}

static void choose_acquire(struct random_commands *r, struct command *command)
{
    static const char comm[LIMIT_COMM_BYTES + 1] = "a-long-command-";
    const struct profile *profile = r->profile;
    const struct naive_claim *beside = some_claim(r);
    bool fcntl = chance(r, profile->fcntls);
    command->owner = owner_number(r);
    if (beside && chance(r, fcntl ? 60 : 5))
        choose_place_beside(r, command, beside);
    else
        choose_place(r, command);
    /* A handle makes one file at most: that is its CREATE. */
    if (!has_created(r, command->node, command->handle) && chance(r, profile->creates))
        command->kind = CLAIM_CREATE;
    else
        command->kind = fcntl ? CLAIM_FCNTL : CLAIM_FLOCK;
    command->claim_mode = command->kind != CLAIM_CREATE && chance(r, profile->shared)
                              ? CLAIM_SHARED
                              : CLAIM_EXCLUSIVE;
    command->wait = chance(r, profile->waits);
    command->ttl_ms = 10000 + (uint32_t)below(r, 3);
    command->process.pid = (uint32_t)below(r, 1000);
    command->process.start = next_random(r);
    memcpy(command->process.comm, comm, below(r, sizeof(comm)));
    command->attributes = ATTRIBUTE_MODE | ATTRIBUTE_UID | ATTRIBUTE_GID;
    choose_attributes(r, command);
}

/* The handle of some claim or waiter, or any handle. */
static void choose_handle(struct random_commands *r, struct command *command)
{
    const struct naive_claim *claim = some_claim(r);
    if (claim && chance(r, 85)) {
        command->node = claim->node;
        command->handle = claim->handle;
    } else {
        command->handle = handle_number(r);
    }
}

static void choose_unlock(struct random_commands *r, struct command *command)
{
    const struct naive_claim *claim = some_claim(r);
    command->kind = chance(r, r->profile->fcntls) ? CLAIM_FCNTL : CLAIM_FLOCK;
    command->handle = handle_number(r);
    command->owner = owner_number(r);
    command->lock = some_lock(r);
    command->name = name_of_file(r);
    if (!claim || chance(r, 10))
        return;
    command->node = claim->node;
    command->handle = claim->handle;
    command->lock = claim->lock;
    command->name = span_of(claim->name);
    if (claim->kind == CLAIM_CREATE || chance(r, 10))
        return;
    command->kind = claim->kind;
    command->owner = claim->owner;
    if (claim->kind == CLAIM_FCNTL && chance(r, 50))
        command->handle = handle_number(r);
}

/* FORCE. */
static void choose_forced(struct random_commands *r, struct command *command)
{
    const struct naive_claim *claim = some_claim(r);
    command->lock = some_lock(r);
    command->name = name_of_file(r);
    command->token = chance(r, 50) ? 0 : below(r, r->model->token + 2);
    if (!claim || chance(r, 5))
        return;
    command->lock = claim->lock;
    command->name = span_of(claim->name);
    if (chance(r, 55))
        command->token = claim->token;
}

/* END: mostly of a claim that nothing else ends. */
static void choose_ended(struct random_commands *r, struct command *command)
{
    const struct naive_claim *claim = NULL;
    for (int tries = 0; tries < 6; tries++) {
        claim = some_claim(r);
        if (!claim || claim->release == RELEASE_EXIT)
            break;
    }
    command->lock = some_lock(r);
    command->name = name_of_file(r);
    command->token = below(r, r->model->token + 2);
    if (!claim || chance(r, 5))
        return;
    if (chance(r, 92))
        command->node = claim->node;
    command->token = claim->token;
    if (chance(r, 90)) {
        command->lock = claim->lock;
        command->name = span_of(claim->name);
    }
}

/* END_DELAY: of one that lasts, was, or never was. */
static void choose_delay(struct random_commands *r, struct command *command)
{
    const struct naive_model *model = r->model;
    command->target = chance(r, 70) ? below(r, model->highest_delay + 1) : next_random(r);
    if (model->delays.count == 0 || chance(r, 25))
        return;
    const struct naive_delay *delay = naive_delay_at(model, below(r, model->delays.count));
    command->target = delay->id;
    command->lock = delay->lock;
}

static bool is_in_use(const struct naive_model *model, uint64_t lock)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        if (naive_claim_at(model, i)->lock == lock)
            return true;
    }
    for (size_t i = 0; i < model->waiters.count; i++) {
        if (naive_waiter_at(model, i)->lock == lock)
            return true;
    }
    return false;
}

static void choose_settings(struct random_commands *r, struct command *command)
{
    command->lock = some_lock(r);
    for (int tries = 0; tries < 5 && chance(r, 40) && is_in_use(r->model, command->lock); tries++)
        command->lock = some_lock(r);
    command->attributes = (uint32_t)below(r, 128);
    if (chance(r, 50))
        command->attributes = ATTRIBUTE_LIMIT;
    choose_attributes(r, command);
    bool unlimited = chance(r, is_in_use(r->model, command->lock) ? 15 : 50);
    command->limit = unlimited ? 0 : 1 + (uint32_t)below(r, r->profile->limit);
    if (chance(r, 2))
        command->limit = chance(r, 50) ? LIMIT_CLAIMS + 1 : UINT32_MAX;
    command->ttl_ms = chance(r, 50) ? 0 : 20000 + (uint32_t)below(r, 5);
    command->release = chance(r, 50) ? RELEASE_CLOSE : RELEASE_EXIT;
    if (chance(r, 3))
        command->release = chance(r, 50) ? 0 : RELEASE_EXIT + 1;
    command->delay_ms = chance(r, r->profile->delays) ? 1000 + (uint32_t)below(r, 5) : 0;
}

/* UNLINK and SET_CLAIM. */
static void choose_creator(struct random_commands *r, struct command *command)
{
    const struct naive_claim *claim = some_creator(r);
    command->lock = some_lock(r);
    command->name = name_of_file(r);
    command->token = below(r, r->model->token + 2);
    if (!claim)
        return;
    if (chance(r, 85))
        command->node = claim->node;
    if (chance(r, 95))
        command->lock = claim->lock;
    if (chance(r, 95))
        command->name = span_of(claim->name);
    if (chance(r, 90))
        command->token = claim->token;
}

static bool is_weakened(const struct random_commands *r, const struct command *command)
{
    for (size_t i = 0; i < r->model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(r->model, i);
        if (claim->weakened && claim->node == command->node && claim->handle == command->handle &&
            claim->seq == command->target)
            return true;
    }
    return false;
}

static void choose_cancel(struct random_commands *r, struct command *command)
{
    const struct naive_claim *claim = some_claim(r);
    const struct naive_lock *lock = naive_lock_at(r->model, below(r, r->model->locks.count));
    const struct naive_session *session = naive_session(r->model, command->node);
    command->handle = handle_number(r);
    command->target = below(r, session ? session->seq + 3 : 3);
    command->lock = some_lock(r);
    command->name = name_of_lock(r);
    if (chance(r, 40)) {
        if (lock->node)
            command->node = lock->node;
        command->lock = lock->parent;
        command->name = span_of(lock->name);
        command->target = lock->seq;
        command->handle = 0;
    } else if (claim) {
        command->node = claim->node;
        if (chance(r, 90))
            command->handle = claim->handle;
        if (chance(r, 90))
            command->target = claim->seq;
        /* No command is cancelled twice. */
        while (is_weakened(r, command))
            command->target++;
    }
}

/* WRITE and TRUNCATE. */
static void choose_data(struct random_commands *r, struct command *command)
{
    static char data[LIMIT_CONTENT_BYTES + 200];
    uint64_t first = next_random(r);
    choose_handle(r, command);
    command->append = chance(r, 30);
    command->offset = below(r, r->profile->data_bytes);
    command->data.len = chance(r, 80) ? below(r, 40) : below(r, r->profile->data_bytes);
    if (command->data.len > LIMIT_CONTENT_BYTES)
        command->data.len = LIMIT_CONTENT_BYTES;
    if (chance(r, 1))
        command->offset = UINT64_MAX - below(r, 3);
    if (chance(r, 3))
        command->offset = LIMIT_CONTENT_BYTES + below(r, 3) - 1;
    /* Whether a write of nothing beyond the end is EFBIG is left open. */
    if (command->data.len == 0 && command->offset > LIMIT_CONTENT_BYTES)
        command->data.len = 1;
    for (size_t i = 0; i < command->data.len; i++)
        data[i] = (char)(first >> (i % 8 * 8)) ^ (char)i;
    command->data.data = data;
}

static void choose_incarnation(struct random_commands *r, struct command *command)
{
    const struct naive_session *session = naive_session(r->model, command->node);
    command->incarnation = ++r->incarnations * 0x9e3779b97f4a7c15u;
    command->replaces = session ? session->incarnation : 0;
    if (session && chance(r, 50))
        memcpy(command->boot_id, session->boot_id, BOOT_ID_BYTES);
    else
        command->boot_id[below(r, BOOT_ID_BYTES)] = (uint8_t)next_random(r);
    if (chance(r, 10))
        command->replaces = chance(r, 50) ? 0 : next_random(r);
}

static enum command_type choose_type(struct random_commands *r)
{
    const uint8_t *weights = r->profile->weights;
    uint32_t sum = 0;
    for (int i = 0; i < COMMAND_TYPES; i++)
        sum += weights[i];
    uint64_t n = below(r, sum);
    int type = 0;
    while (n >= weights[type])
        n -= weights[type++];
    return (enum command_type)type;
}

void random_commands_next(struct random_commands *r, struct command *command)
{
    memset(command, 0, sizeof(*command));
    command->type = choose_type(r);
    command->node = below(r, r->profile->nodes) + 1;
    if (!naive_session(r->model, command->node) && chance(r, 80))
        command->node = below(r, r->profile->nodes) + 1;
    if (!naive_session(r->model, command->node) && chance(r, 50))
        command->type = COMMAND_INCARNATION;
    switch (command->type) {
    case COMMAND_INCARNATION:
        choose_incarnation(r, command);
        break;
    case COMMAND_MKDIR:
        command->lock = chance(r, r->profile->deep) ? deepest_lock(r) : some_lock(r);
        command->name = name_of_lock(r);
        command->attributes = ATTRIBUTE_MODE | ATTRIBUTE_UID | ATTRIBUTE_GID;
        choose_attributes(r, command);
        break;
    case COMMAND_RMDIR: {
        const struct naive_lock *lock = naive_lock_at(r->model, below(r, r->model->locks.count));
        command->lock = chance(r, 95) ? lock->parent : some_lock(r);
        command->name = chance(r, 95) ? span_of(lock->name) : name_of_lock(r);
        break;
    }
    case COMMAND_ACQUIRE:
        choose_acquire(r, command);
        break;
    case COMMAND_RELEASE:
        choose_handle(r, command);
        break;
    case COMMAND_UNLOCK:
        choose_unlock(r, command);
        break;
    case COMMAND_UNLINK:
        choose_creator(r, command);
        break;
    case COMMAND_CANCEL:
        choose_cancel(r, command);
        break;
    case COMMAND_WRITE:
    case COMMAND_TRUNCATE:
        choose_data(r, command);
        break;
    case COMMAND_SET_LOCK:
        choose_settings(r, command);
        break;
    case COMMAND_SET_CLAIM:
        choose_creator(r, command);
        command->attributes = (uint32_t)below(r, 8);
        choose_attributes(r, command);
        break;
    case COMMAND_END:
        choose_ended(r, command);
        break;
    case COMMAND_FORCE:
        choose_forced(r, command);
        break;
    case COMMAND_END_DELAY:
        choose_delay(r, command);
        break;
    }
    command->stamp_ms = (int64_t)(++r->count * 10 + below(r, 1000));
    if (command->type == COMMAND_INCARNATION)
        return;
    const struct naive_session *session = naive_session(r->model, command->node);
    command->incarnation = session ? session->incarnation : next_random(r);
    command->seq = session ? session->seq + 1 : 1;
    if (below(r, 1000) < r->profile->wrong_permille) {
        if (chance(r, 50))
            command->incarnation -= chance(r, 50) ? 0x9e3779b97f4a7c15u : 1;
        else
            command->seq += below(r, 5) - 2;
    }
}

static void make_names(struct random_commands *r)
{
    uint32_t count = r->profile->names;
    for (uint32_t i = 0; i < count; i++) {
        char *name = r->names_bytes[i];
        size_t len = 1 + (size_t)(i * 7 % count) * (r->profile->name_bytes - 1) / (count - 1);
        int start = snprintf(name, 8, i < 26 ? "%c" : "%c%u", 'a' + i % 26, i / 26);
        if (len < (size_t)start)
            len = (size_t)start;
        for (size_t j = (size_t)start; j < len; j++)
            name[j] = (char)(0x80 + (i * 31 + j) % 0x80);
        r->names[i] = (struct span){name, len};
    }
}

void random_commands_init(struct random_commands *r, const struct profile *profile, uint64_t seed)
{
    memset(r, 0, sizeof(*r));
    r->profile = profile;
    r->random = seed;
    make_names(r);
}
