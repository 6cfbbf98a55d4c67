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

static uint64_t handle_number(struct random_commands *r)
{
    /* Spread over all 64 bits, but the small ones. */
    uint64_t n = below(r, r->profile->handles) + 1;
    return n % 3 == 0 ? n : n * 0x9e3779b97f4a7c15u;
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

static void choose_acquire(struct random_commands *r, struct command *command)
{
    const struct profile *profile = r->profile;
    const struct naive_claim *on = NULL;
    bool created = false;
    command->handle = handle_number(r);
    for (size_t i = 0; i < r->model->waiters.count; i++) {
        const struct naive_claim *waiter = naive_waiter_at(r->model, i);
        if (waiter->node == command->node && waiter->handle == command->handle)
            on = waiter;
    }
    for (size_t i = 0; i < r->model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(r->model, i);
        if (claim->node == command->node && claim->handle == command->handle) {
            on = claim;
            created |= claim->kind == CLAIM_CREATE;
        }
    }
    if (on && chance(r, 96)) {
        command->lock = on->lock;
        command->name = span_of(on->name);
    } else {
        command->lock = some_lock(r);
        command->name = name_of_file(r);
    }
    /* A handle makes one file at most: that is its CREATE. */
    command->kind = !created && chance(r, profile->creates) ? CLAIM_CREATE : CLAIM_FLOCK;
    command->claim_mode =
        command->kind == CLAIM_FLOCK && chance(r, profile->shared) ? CLAIM_SHARED : CLAIM_EXCLUSIVE;
    command->wait = chance(r, profile->waits);
    command->ttl_ms = 10000;
    command->process.pid = (uint32_t)below(r, 1000);
    command->process.start = next_random(r);
    snprintf(command->process.comm, sizeof(command->process.comm), "%.*s",
             (int)below(r, sizeof(command->process.comm)), "a-long-command-name");
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
    case COMMAND_UNLOCK:
        choose_handle(r, command);
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
        command->lock = some_lock(r);
        command->attributes = (uint32_t)below(r, 8);
        choose_attributes(r, command);
        break;
    case COMMAND_SET_CLAIM:
        choose_creator(r, command);
        command->attributes = (uint32_t)below(r, 8);
        choose_attributes(r, command);
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
