/* The claims, waits and delays of the naive model: who gets what, and what ends it. */
#include "tests/lib/naive_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Who is who. */

static bool same_owner(const struct naive_claim *a, const struct naive_claim *b)
{
    if ((a->kind == CLAIM_FCNTL) != (b->kind == CLAIM_FCNTL) || a->node != b->node)
        return false;
    return a->kind == CLAIM_FCNTL ? a->owner == b->owner : a->handle == b->handle;
}

/* Whether a claim or waiter competes for the resource of file `name` of `lock`. */
static bool competes(const struct naive_model *model, const struct naive_claim *claim,
                     uint64_t lock, const char *name)
{
    if (claim->lock != lock)
        return false;
    return naive_lock(model, lock)->limit != 0 || strcmp(claim->name, name) == 0;
}

/* The claims on the resource of a file, in order of token; the caller frees the items. */
static struct naive_list claims_on(const struct naive_model *model, uint64_t lock, const char *name)
{
    struct naive_list list = {0};
    for (size_t i = 0; i < model->claims.count; i++) {
        if (competes(model, naive_claim_at(model, i), lock, name))
            naive__append(&list, naive_claim_at(model, i));
    }
    return list;
}

/* How many there may be. */
static uint32_t limit_of(const struct naive_model *model, uint64_t lock)
{
    uint32_t limit = naive_lock(model, lock)->limit;
    return limit == 0 ? 1 : limit;
}

/* Whether this is the first claim of its owner in the list, so that each owner counts once. */
static bool is_first_of_owner(const struct naive_list *claims, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (same_owner(claims->items[i], claims->items[n]))
            return false;
    }
    return true;
}

static bool is_exclusive_owner(const struct naive_list *claims, const struct naive_claim *one)
{
    for (size_t i = 0; i < claims->count; i++) {
        const struct naive_claim *claim = claims->items[i];
        if (same_owner(claim, one) && claim->claim_mode == CLAIM_EXCLUSIVE)
            return true;
    }
    return false;
}

/* Whether the owner of `one` can be in the way of a request: it is another one, and not all that it
 * has came through the request's own handle. */
static bool is_other_owner(const struct naive_list *claims, const struct naive_claim *one,
                           const struct naive_claim *wanted)
{
    if (same_owner(one, wanted))
        return false;
    /* Such as parent and child, which share a descriptor. */
    if (one->kind == CLAIM_FCNTL && wanted->kind == CLAIM_FCNTL)
        return true;
    for (size_t i = 0; i < claims->count; i++) {
        const struct naive_claim *claim = claims->items[i];
        if (same_owner(claim, one) && !naive__same_handle(claim, wanted->node, wanted->handle))
            return true;
    }
    return false;
}

/* The claim that a grant of `wanted` replaces, or that makes it needless. */
static struct naive_claim *replaced_by(const struct naive_model *model,
                                       const struct naive_claim *wanted)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        if (wanted->kind != CLAIM_CREATE && claim->kind == wanted->kind &&
            naive__same_file(claim, wanted->lock, wanted->name) && same_owner(claim, wanted))
            return claim;
    }
    return NULL;
}

struct naive_claim *naive_fcntl_claim(const struct naive_model *model, uint64_t lock,
                                      struct span name, uint64_t node, uint64_t owner)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        if (claim->kind == CLAIM_FCNTL && claim->lock == lock &&
            naive_same_name(claim->name, name) && claim->node == node && claim->owner == owner)
            return claim;
    }
    return NULL;
}

uint32_t naive_held(const struct naive_model *model, uint64_t lock, const char *name)
{
    struct naive_list claims = claims_on(model, lock, name);
    uint32_t exclusive = 0;
    bool shared = false;
    for (size_t i = 0; i < claims.count; i++) {
        if (!is_first_of_owner(&claims, i))
            continue;
        if (is_exclusive_owner(&claims, claims.items[i]))
            exclusive++;
        else
            shared = true;
    }
    free(claims.items);
    return exclusive + shared;
}

/*
 * Whether a request fits beside all that can be in its way. Its owner counts once, too: as
 * exclusive if it asks for that, or if any of its claims is, but for the one that the grant
 * replaces.
 */
static bool fits_beside(const struct naive_model *model, const struct naive_list *claims,
                        const struct naive_claim *wanted)
{
    const struct naive_claim *replaced = replaced_by(model, wanted);
    bool is_exclusive = wanted->claim_mode == CLAIM_EXCLUSIVE;
    uint32_t exclusive = 0;
    bool shared = false;
    for (size_t i = 0; i < claims->count; i++) {
        const struct naive_claim *claim = claims->items[i];
        if (same_owner(claim, wanted) && claim != replaced)
            is_exclusive |= claim->claim_mode == CLAIM_EXCLUSIVE;
        if (!is_first_of_owner(claims, i) || !is_other_owner(claims, claim, wanted))
            continue;
        if (is_exclusive_owner(claims, claim))
            exclusive++;
        else
            shared = true;
    }
    if (is_exclusive)
        exclusive++;
    else
        shared = true;
    return exclusive + shared <= limit_of(model, wanted->lock);
}

static bool fits(const struct naive_model *model, const struct naive_claim *wanted)
{
    struct naive_list claims = claims_on(model, wanted->lock, wanted->name);
    bool result = fits_beside(model, &claims, wanted);
    free(claims.items);
    return result;
}

bool naive_is_taken(const struct naive_model *model, uint64_t lock, struct span name,
                    enum claim_mode mode)
{
    if (!naive_lock(model, lock))
        return false;
    struct naive_claim stranger = {
        .lock = lock,
        .name = naive__copy_name(name.data, name.len),
        .kind = CLAIM_FLOCK,
        .claim_mode = mode,
    };
    bool taken = naive_is_delayed(model, lock, stranger.name) || !fits(model, &stranger);
    free(stranger.name);
    return taken;
}

const struct naive_claim *naive_obstacle(const struct naive_model *model, uint64_t lock,
                                         struct span name, uint64_t after_token, uint64_t node,
                                         uint64_t handle, uint64_t owner, enum claim_mode mode)
{
    if (!naive_lock(model, lock))
        return NULL;
    struct naive_claim wanted = {
        .lock = lock,
        .name = naive__copy_name(name.data, name.len),
        .node = node,
        .handle = handle,
        .owner = owner,
        .kind = CLAIM_FCNTL,
        .claim_mode = mode,
    };
    struct naive_list claims = claims_on(model, lock, wanted.name);
    const struct naive_claim *obstacle = NULL;
    for (size_t i = 0; !obstacle && !fits_beside(model, &claims, &wanted) && i < claims.count;
         i++) {
        /* To a shared one more, other shared ones make no difference. */
        const struct naive_claim *claim = claims.items[i];
        if (claim->token > after_token && !same_owner(claim, &wanted) &&
            (claim->kind == CLAIM_FCNTL || !naive__same_handle(claim, node, handle)) &&
            (mode == CLAIM_EXCLUSIVE || claim->claim_mode == CLAIM_EXCLUSIVE))
            obstacle = claim;
    }
    free(claims.items);
    free(wanted.name);
    return obstacle;
}

bool naive_fits_beside(const struct naive_model *model, uint64_t lock, struct span name,
                       uint64_t node, uint64_t handle, uint64_t owner, enum claim_mode mode,
                       uint64_t but)
{
    if (!naive_lock(model, lock))
        return true;
    struct naive_claim wanted = {
        .lock = lock,
        .name = naive__copy_name(name.data, name.len),
        .node = node,
        .handle = handle,
        .owner = owner,
        .kind = CLAIM_FCNTL,
        .claim_mode = mode,
    };
    struct naive_list claims = claims_on(model, lock, wanted.name);
    size_t kept = 0;
    for (size_t i = 0; i < claims.count; i++) {
        const struct naive_claim *claim = claims.items[i];
        if (claim->token % but)
            claims.items[kept++] = claims.items[i];
    }
    claims.count = kept;
    bool result = fits_beside(model, &claims, &wanted);
    free(claims.items);
    free(wanted.name);
    return result;
}

/* Whether the owner or the handle has any claim on what it asks for. */
static bool holds(const struct naive_model *model, const struct naive_claim *wanted)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(model, i);
        if (competes(model, claim, wanted->lock, wanted->name) &&
            (same_owner(claim, wanted) ||
             (naive__same_handle(claim, wanted->node, wanted->handle) &&
              !(claim->kind == CLAIM_FCNTL && wanted->kind == CLAIM_FCNTL))))
            return true;
    }
    return false;
}

static struct naive_claim *first_waiter(const struct naive_model *model, uint64_t lock,
                                        const char *name)
{
    for (size_t i = 0; i < model->waiters.count; i++) {
        if (competes(model, naive_waiter_at(model, i), lock, name))
            return naive_waiter_at(model, i);
    }
    return NULL;
}

/* Granting and letting in. */

static void emit(struct naive_model *model, enum effect_type type, enum effect_cause cause,
                 const struct naive_claim *claim, bool same_boot)
{
    struct effect effect = {
        .type = type,
        .cause = cause,
        .node = claim->node,
        .handle = claim->handle,
        .seq = claim->seq,
        .token = claim->token,
        .owner = claim->owner,
        .ttl_ms = claim->ttl_ms,
        .release = claim->release,
        .converted = type == EFFECT_GRANTED && claim->converted,
        .lock = claim->lock,
        .name = {claim->name, strlen(claim->name)},
        .uid = claim->uid,
        .kind = claim->kind,
        .claim_mode = claim->claim_mode,
        .process = claim->process,
        .same_boot = same_boot,
    };
    model->sink(model->context, &effect);
}

static void grant(struct naive_model *model, struct naive_claim *claim, int64_t stamp_ms)
{
    struct naive_lock *lock = naive_lock(model, claim->lock);
    naive__need_file(model, claim->lock, claim->name);
    claim->token = ++model->token;
    claim->stamp_ms = stamp_ms;
    claim->ttl_ms = lock->ttl_ms ? lock->ttl_ms : claim->session_ttl_ms;
    claim->release = claim->kind == CLAIM_CREATE ? lock->release : 0;
    lock->last_token = claim->token;
    naive__append(&model->claims, claim);
}

/* Ends the claim that a grant replaces. Of fcntl, the file's content stays. */
static void convert(struct naive_model *model, struct naive_claim *replaced)
{
    emit(model, EFFECT_ENDED, CAUSE_CONVERTED, replaced, false);
    naive__remove(&model->claims, replaced);
    if (replaced->kind == CLAIM_FLOCK)
        naive__forget_files(model);
    naive__free_claim(replaced);
}

/* The first waiter that may be let in: the head of the queue, or one that others wait for. */
static struct naive_claim *next_in(struct naive_model *model, uint64_t lock, const char *name)
{
    struct naive_claim *head = first_waiter(model, lock, name);
    if (naive_is_delayed(model, lock, name))
        return NULL;
    for (size_t i = 0; i < model->waiters.count; i++) {
        struct naive_claim *waiter = naive_waiter_at(model, i);
        if (competes(model, waiter, lock, name) && (waiter == head || holds(model, waiter)) &&
            fits(model, waiter)) {
            model->passes += waiter != head;
            return waiter;
        }
    }
    return NULL;
}

/* The waiter has what it waited for. */
/* A second request has found held what the first one converted: no CANCEL finds that any more. */
static void confirm(struct naive_claim *held)
{
    if (!held->converted || held->weakened)
        return;
    held->converted = false;
    held->seq = 0;
}

static void let_in_again(struct naive_model *model, struct naive_claim *waiter,
                         struct naive_claim *held)
{
    confirm(held);
    struct effect effect = {
        .type = EFFECT_GRANTED,
        .node = waiter->node,
        .handle = waiter->handle,
        .seq = waiter->seq,
        .token = held->token,
        .owner = waiter->owner,
        .ttl_ms = held->ttl_ms,
        .again = true,
        .lock = waiter->lock,
        .name = {waiter->name, strlen(waiter->name)},
        .uid = waiter->uid,
        .kind = waiter->kind,
        .claim_mode = waiter->claim_mode,
        .process = waiter->process,
    };
    model->sink(model->context, &effect);
    naive__remove(&model->waiters, waiter);
    naive__free_claim(waiter);
}

void naive__let_in(struct naive_model *model, uint64_t lock, const char *name, int64_t stamp_ms)
{
    struct naive_claim *waiter;
    while ((waiter = next_in(model, lock, name)) != NULL) {
        struct naive_claim *replaced = replaced_by(model, waiter);
        if (replaced && replaced->claim_mode == waiter->claim_mode) {
            let_in_again(model, waiter, replaced);
            continue;
        }
        if (replaced)
            convert(model, replaced);
        naive__remove(&model->waiters, waiter);
        waiter->converted = replaced && waiter->kind == CLAIM_FCNTL;
        grant(model, waiter, stamp_ms);
        emit(model, EFFECT_GRANTED, CAUSE_NONE, waiter, false);
    }
}

/* Serves the queue in which the waiter is whom the table granted something. */
static void serve(struct naive_model *model, const struct effect *granted, int64_t stamp_ms)
{
    for (size_t i = 0; granted->type == EFFECT_GRANTED && i < model->waiters.count; i++) {
        const struct naive_claim *waiter = naive_waiter_at(model, i);
        if (naive__same_handle(waiter, granted->node, granted->handle) &&
            waiter->seq == granted->seq) {
            char *name = naive__copy_name(waiter->name, strlen(waiter->name));
            naive__let_in(model, waiter->lock, name, stamp_ms);
            free(name);
            return;
        }
    }
}

/* Ending. */

static void move_doomed(struct naive_list *from, struct naive_list *to)
{
    for (size_t i = 0; i < from->count;) {
        struct naive_claim *claim = from->items[i];
        if (claim->doomed) {
            naive__remove(from, claim);
            naive__append(to, claim);
        } else {
            i++;
        }
    }
}

/* Delays what a claim left, anew where it is delayed already. */
static void delay(struct naive_model *model, const struct naive_claim *claim, int64_t stamp_ms)
{
    const struct naive_lock *lock = naive_lock(model, claim->lock);
    const char *name = lock->limit == 0 ? claim->name : "";
    for (size_t i = 0; i < model->delays.count; i++) {
        struct naive_delay *old = naive_delay_at(model, i);
        if (old->lock != lock->id || strcmp(old->name, name) != 0)
            continue;
        if (old->id == 0)
            return; /* began with this very command */
        naive__remove(&model->delays, old);
        naive__free_delay(old);
        break;
    }
    struct naive_delay *begun = naive__allocate(sizeof(*begun));
    begun->lock = lock->id;
    begun->name = naive__copy_name(name, strlen(name));
    begun->delay_ms = lock->delay_ms;
    begun->stamp_ms = stamp_ms;
    naive__append(&model->delays, begun);
    struct effect effect = {.type = EFFECT_DELAYED, .lock = lock->id};
    model->sink(model->context, &effect);
}

/* Ends what is doomed, all of it before anybody gains by it. */
static void sweep(struct naive_model *model, enum effect_cause cause, bool same_boot,
                  int64_t stamp_ms)
{
    struct naive_list ended = {0};
    move_doomed(&model->waiters, &ended);
    move_doomed(&model->claims, &ended);
    for (size_t i = 0; i < ended.count; i++) {
        const struct naive_claim *claim = ended.items[i];
        emit(model, claim->token ? EFFECT_ENDED : EFFECT_DROPPED, cause, claim,
             same_boot && claim->token);
        if (cause == CAUSE_INCARNATION && claim->token &&
            naive_lock(model, claim->lock)->delay_ms != 0)
            delay(model, claim, stamp_ms);
    }
    naive__forget_files(model);
    for (size_t i = 0; i < model->order_count; i++)
        serve(model, &model->order[i], stamp_ms);
    for (size_t i = 0; i < ended.count; i++) {
        const struct naive_claim *claim = ended.items[i];
        naive__let_in(model, claim->lock, claim->name, stamp_ms);
    }
    for (size_t i = 0; i < ended.count; i++)
        naive__free_claim(ended.items[i]);
    free(ended.items);
}

int naive__incarnation(struct naive_model *model, const struct command *command)
{
    struct naive_session *session = naive_session(model, command->node);
    bool same_boot = false;
    if (command->replaces != (session ? session->incarnation : 0))
        return -ESTALE;
    if (!session) {
        if (model->sessions.count >= model->limits.sessions)
            return -ENOSPC;
        session = naive__allocate(sizeof(*session));
        session->node = command->node;
        naive__append(&model->sessions, session);
    } else {
        same_boot = memcmp(session->boot_id, command->boot_id, BOOT_ID_BYTES) == 0;
    }
    session->incarnation = command->incarnation;
    session->seq = 0;
    memcpy(session->boot_id, command->boot_id, BOOT_ID_BYTES);
    for (size_t i = 0; i < model->claims.count; i++)
        naive_claim_at(model, i)->doomed = naive_claim_at(model, i)->node == command->node;
    for (size_t i = 0; i < model->waiters.count; i++)
        naive_waiter_at(model, i)->doomed = naive_waiter_at(model, i)->node == command->node;
    sweep(model, CAUSE_INCARNATION, same_boot, command->stamp_ms);
    return 0;
}

/* All that a handle holds and waits for. */
static void doom_handle(struct naive_model *model, uint64_t node, uint64_t handle)
{
    for (size_t i = 0; i < model->claims.count; i++)
        naive_claim_at(model, i)->doomed |=
            naive__same_handle(naive_claim_at(model, i), node, handle);
    for (size_t i = 0; i < model->waiters.count; i++)
        naive_waiter_at(model, i)->doomed |=
            naive__same_handle(naive_waiter_at(model, i), node, handle);
}

void naive__release(struct naive_model *model, const struct command *command)
{
    doom_handle(model, command->node, command->handle);
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        if (claim->kind == CLAIM_CREATE && claim->release == RELEASE_EXIT)
            claim->doomed = false;
    }
    sweep(model, CAUSE_RELEASED, false, command->stamp_ms);
}

void naive__unlock(struct naive_model *model, const struct command *command)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        if (claim->kind != command->kind)
            continue;
        if (claim->kind == CLAIM_FLOCK)
            claim->doomed = naive__same_handle(claim, command->node, command->handle);
        else
            claim->doomed = claim->node == command->node && claim->owner == command->owner &&
                            claim->lock == command->lock &&
                            naive_same_name(claim->name, command->name);
    }
    sweep(model, CAUSE_RELEASED, false, command->stamp_ms);
}

int naive__unlink(struct naive_model *model, const struct command *command)
{
    const struct naive_claim *claim = naive__named_creator(model, command);
    if (!claim)
        return -ENOENT;
    if (claim->node != command->node)
        return -EBUSY;
    doom_handle(model, claim->node, claim->handle);
    sweep(model, CAUSE_UNLINKED, false, command->stamp_ms);
    return 0;
}

void naive__cancel_claims(struct naive_model *model, const struct command *command)
{
    if (command->target == 0)
        return; /* no command has this number */
    struct naive_claim *weakened = NULL;
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        bool gained = naive__same_handle(claim, command->node, command->handle) &&
                      claim->seq == command->target;
        claim->doomed = gained && !claim->converted;
        if (gained && claim->converted)
            weakened = claim;
    }
    for (size_t i = 0; i < model->waiters.count; i++) {
        struct naive_claim *waiter = naive_waiter_at(model, i);
        waiter->doomed = naive__same_handle(waiter, command->node, command->handle) &&
                         waiter->seq == command->target;
    }
    /* The one mode or the other was shared, which is the weaker one. */
    if (weakened) {
        weakened->claim_mode = CLAIM_SHARED;
        weakened->weakened = true;
        naive__let_in(model, weakened->lock, weakened->name, command->stamp_ms);
    }
    sweep(model, CAUSE_CANCELLED, false, command->stamp_ms);
}

void naive__end(struct naive_model *model, const struct command *command)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        claim->doomed = claim->token == command->token && claim->node == command->node;
    }
    sweep(model, CAUSE_EXITED, false, command->stamp_ms);
}

int naive__force(struct naive_model *model, const struct command *command)
{
    bool found = false;
    for (size_t i = 0; i < model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(model, i);
        if (claim->lock == command->lock && naive_same_name(claim->name, command->name) &&
            (command->token == 0 || claim->token == command->token)) {
            doom_handle(model, claim->node, claim->handle);
            found = true;
        }
    }
    if (!found)
        return -ENODATA;
    sweep(model, CAUSE_FORCED, false, command->stamp_ms);
    return 0;
}

void naive__end_delay(struct naive_model *model, const struct command *command)
{
    for (size_t i = 0; i < model->delays.count; i++) {
        struct naive_delay *ended = naive_delay_at(model, i);
        if (ended->id != command->target)
            continue;
        naive__remove(&model->delays, ended);
        naive__let_in(model, ended->lock, ended->name, command->stamp_ms);
        naive__free_delay(ended);
        naive__forget_files(model);
        return;
    }
}

/* Acquiring. */

/* Whether one more claim, or one more waiter, on this file finds room. A waiter that becomes a
 * claim needs none: it brings its own, and so does a claim that replaces another. */
static bool has_room(const struct naive_model *model, const struct naive_claim *wanted, bool waits)
{
    struct span name = naive__span(wanted->name);
    uint64_t more = naive__find_file(model, wanted->lock, name) ? 0 : name.len;
    if (!waits && replaced_by(model, wanted))
        return true;
    if (naive__names_bytes(model) + more > model->limits.names_bytes)
        return false;
    if (model->claims.count + model->waiters.count >=
        (size_t)model->limits.claims + model->limits.waiters)
        return false;
    return waits ? model->waiters.count < model->limits.waiters
                 : model->claims.count < model->limits.claims;
}

/* Whether it is this request's turn: nobody waits whom it must not overtake, and a claim by
 * creating is the first one of its handle. */
static bool is_its_turn(const struct naive_model *model, const struct naive_claim *wanted)
{
    /* A file that is claimed exists, and cannot be made. */
    for (size_t i = 0; wanted->kind == CLAIM_CREATE && i < model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(model, i);
        if (claim->lock == wanted->lock && strcmp(claim->name, wanted->name) == 0)
            return false;
    }
    if (holds(model, wanted))
        return wanted->kind != CLAIM_CREATE;
    return first_waiter(model, wanted->lock, wanted->name) == NULL;
}

/* Grants it: what it replaces ends before. */
static void grant_request(struct naive_model *model, struct naive_claim *wanted, int64_t stamp_ms)
{
    struct naive_claim *replaced = replaced_by(model, wanted);
    if (replaced)
        convert(model, replaced);
    wanted->converted = replaced != NULL;
    grant(model, wanted, stamp_ms);
}

static struct command_result request(struct naive_model *model, struct naive_claim *wanted,
                                     bool wait, int64_t stamp_ms)
{
    struct command_result result = {0};
    struct naive_claim *held;
    /* More than once, where ending the claim lets another wait of the same handle in. */
    while ((held = replaced_by(model, wanted)) != NULL) {
        if (held->claim_mode == wanted->claim_mode) {
            result.token = held->token;
            confirm(held);
            result.ttl_ms = held->ttl_ms;
            result.again = true;
            naive__free_claim(wanted);
            return result;
        }
        if (held->kind == CLAIM_FCNTL)
            break;
        held->doomed = true;
        sweep(model, CAUSE_CONVERTED, false, stamp_ms);
    }
    if (!naive_is_delayed(model, wanted->lock, wanted->name) && fits(model, wanted) &&
        is_its_turn(model, wanted)) {
        if (has_room(model, wanted, false)) {
            grant_request(model, wanted, stamp_ms);
            result.token = wanted->token;
            result.ttl_ms = wanted->ttl_ms;
            result.release = wanted->release;
            result.converted = wanted->converted;
            /* Who waits by the same handle or owner may pass now. */
            uint64_t lock = wanted->lock;
            char *name = naive__copy_name(wanted->name, strlen(wanted->name));
            naive__let_in(model, lock, name, stamp_ms);
            free(name);
            return result;
        }
        result.error = -ENOLCK;
    } else if (wanted->kind == CLAIM_CREATE) {
        result.error = -EEXIST;
    } else if (!wait) {
        result.error = -EWOULDBLOCK;
    } else if (has_room(model, wanted, true)) {
        wanted->stamp_ms = stamp_ms;
        naive__need_file(model, wanted->lock, wanted->name);
        naive__append(&model->waiters, wanted);
        result.queued = true;
        return result;
    } else {
        result.error = -ENOLCK;
    }
    naive__free_claim(wanted);
    return result;
}

/* A handle is on one file. */
static bool is_elsewhere(const struct naive_model *model, const struct command *command)
{
    for (size_t i = 0; i < model->claims.count + model->waiters.count; i++) {
        const struct naive_claim *claim = i < model->claims.count
                                              ? naive_claim_at(model, i)
                                              : naive_waiter_at(model, i - model->claims.count);
        if (naive__same_handle(claim, command->node, command->handle) &&
            !(claim->lock == command->lock && naive_same_name(claim->name, command->name)))
            return true;
    }
    return false;
}

struct command_result naive__acquire(struct naive_model *model, const struct command *command)
{
    struct command_result refused = {.error = -ESTALE};
    if (!naive_lock(model, command->lock) || naive_child(model, command->lock, command->name))
        return refused;
    if (is_elsewhere(model, command)) {
        refused.error = -EINVAL;
        return refused;
    }
    struct naive_claim *wanted = naive__allocate(sizeof(*wanted));
    wanted->lock = command->lock;
    wanted->name = naive__copy_name(command->name.data, command->name.len);
    wanted->node = command->node;
    wanted->handle = command->handle;
    wanted->seq = command->seq;
    wanted->kind = command->kind;
    wanted->claim_mode = command->claim_mode;
    wanted->owner = command->kind == CLAIM_FCNTL ? command->owner : 0;
    wanted->session_ttl_ms = command->ttl_ms;
    wanted->process = command->process;
    wanted->uid = command->uid;
    wanted->mode = command->mode;
    wanted->file_uid = command->uid;
    wanted->file_gid = command->gid;
    return request(model, wanted, command->wait, command->stamp_ms);
}
