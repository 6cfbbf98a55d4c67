/* Compares all that can be seen of a lock table with the naive model. See naive_compare.h. */
#include "tests/lib/naive_compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNTOUCHED 0x5a5a5a5a5a5a5a5a

static uint64_t below(struct naive_compare *c, uint64_t n)
{
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return (c->random >> 33) % n;
}

static bool same(struct naive_compare *c, const char *what, uint64_t got, uint64_t expected)
{
    char name[41] = "";
    if (got == expected)
        return true;
    if (c->look_name)
        snprintf(name, sizeof(name), "%s", c->look_name);
    for (char *byte = name; *byte; byte++)
        *byte = *byte > ' ' && *byte < 127 ? *byte : '?';
    snprintf(c->message, sizeof(c->message),
             "%s of lock %" PRIu64 " \"%s\": %s is %" PRIu64 " (0x%" PRIx64
             ") and should be %" PRIu64 " (0x%" PRIx64 ")",
             c->look, c->look_lock, name, what, got, got, expected, expected);
    return false;
}

static bool same_process(struct naive_compare *c, const struct process *got,
                         const struct process *expected)
{
    return same(c, "pid", got->pid, expected->pid) &&
           same(c, "start", got->start, expected->start) &&
           same(c, "comm", strncmp(got->comm, expected->comm, sizeof(got->comm)) == 0, true);
}

static bool same_string(struct naive_compare *c, const char *got, size_t got_len,
                        const char *expected)
{
    return same(c, "name_len", got_len, strlen(expected)) &&
           same(c, "name", memcmp(got, expected, got_len) == 0 && got[got_len] == 0, true);
}

static void look_at(struct naive_compare *c, const char *look, uint64_t lock, const char *name)
{
    c->look = look;
    c->look_lock = lock;
    c->look_name = name;
}

/* Looks: each compares one thing, and ends at the first difference. */

static struct span span_of(const char *name)
{
    return (struct span){name, strlen(name)};
}

static bool check_counts(struct naive_compare *c)
{
    const struct naive_model *model = c->model;
    struct lock_table_counts counts;
    lock_table_get_counts(c->table, &counts);
    look_at(c, "counts", 0, NULL);
    return same(c, "locks", counts.locks, model->locks.count) &&
           same(c, "claims", counts.claims, model->claims.count) &&
           same(c, "waiters", counts.waiters, model->waiters.count) &&
           same(c, "token", counts.token, model->token) &&
           same(c, "contents_bytes", counts.contents_bytes, naive_contents_bytes(model));
}

static bool check_sessions(struct naive_compare *c)
{
    for (uint64_t node = 0; node <= c->nodes + 1; node++) {
        const struct naive_session *session = naive_session(c->model, node);
        struct session_view view;
        memset(&view, 0x5a, sizeof(view));
        look_at(c, "session (of node)", node, NULL);
        bool found = lock_table_get_session(c->table, node, &view);
        if (!same(c, "found", found, session != NULL))
            return false;
        if (!session && !same(c, "an untouched view", view.seq, UNTOUCHED))
            return false;
        if (session &&
            !(same(c, "incarnation", view.incarnation, session->incarnation) &&
              same(c, "seq", view.seq, session->seq) &&
              same(c, "boot_id", memcmp(view.boot_id, session->boot_id, BOOT_ID_BYTES) == 0, true)))
            return false;
    }
    return true;
}

static bool check_lock_view(struct naive_compare *c, const struct lock_view *view,
                            const struct naive_lock *lock)
{
    const struct naive_model *model = c->model;
    uint32_t locks = 0;
    uint32_t claims = 0;
    uint32_t waiters = 0;
    for (size_t i = 0; i < model->locks.count; i++)
        locks += naive_lock_at(model, i)->parent == lock->id;
    for (size_t i = 0; i < model->claims.count; i++)
        claims += naive_claim_at(model, i)->lock == lock->id;
    for (size_t i = 0; i < model->waiters.count; i++)
        waiters += naive_waiter_at(model, i)->lock == lock->id;
    return same(c, "id", view->id, lock->id) && same(c, "parent", view->parent, lock->parent) &&
           same(c, "uid", view->uid, lock->uid) && same(c, "gid", view->gid, lock->gid) &&
           same(c, "mode", view->mode, lock->mode) && same(c, "limit", view->limit, lock->limit) &&
           same(c, "ttl_ms", view->ttl_ms, lock->ttl_ms) &&
           same(c, "delay_ms", view->delay_ms, lock->delay_ms) &&
           same(c, "release", view->release, lock->release) &&
           same(c, "last_token", view->last_token, lock->last_token) &&
           same(c, "stamp_ms", view->stamp_ms, lock->stamp_ms) &&
           same(c, "locks_count", view->locks_count, locks) &&
           same(c, "claims_count", view->claims_count, claims) &&
           same(c, "waiters_count", view->waiters_count, waiters) &&
           same_string(c, view->name, view->name_len, lock->name);
}

static bool check_file_view(struct naive_compare *c, const struct file_view *view,
                            struct naive_file *file)
{
    const struct naive_model *model = c->model;
    struct span name = span_of(file->name);
    const struct naive_claim *creator = naive_creator(model, file->lock, name);
    uint32_t claims = 0;
    for (size_t i = 0; i < model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(model, i);
        claims += claim->lock == file->lock && naive_same_name(claim->name, name);
    }
    if (!file->mark)
        file->mark = view->id;
    if (file->mark > c->highest_file)
        c->highest_file = file->mark;
    if (!(same(c, "id", view->id, file->mark) &&
          same(c, "claims_count", view->claims_count, claims) &&
          same(c, "create_token", view->create_token, creator ? creator->token : 0) &&
          same(c, "content_len", view->content_len, file->content_len) &&
          same_string(c, view->name, view->name_len, file->name)))
        return false;
    if (!creator)
        return true;
    return same(c, "create_node", view->create_node, creator->node) &&
           same(c, "create_handle", view->create_handle, creator->handle) &&
           same(c, "mode", view->mode, creator->mode) &&
           same(c, "uid", view->uid, creator->file_uid) &&
           same(c, "gid", view->gid, creator->file_gid) &&
           same(c, "release", view->release, creator->release) &&
           same_process(c, &view->process, &creator->process);
}

static bool check_claim_view(struct naive_compare *c, const struct claim_view *view,
                             const struct naive_claim *claim)
{
    return same(c, "token", view->token, claim->token) &&
           same(c, "node", view->node, claim->node) &&
           same(c, "handle", view->handle, claim->handle) &&
           same(c, "seq", view->seq, claim->seq) && same(c, "kind", view->kind, claim->kind) &&
           same(c, "claim_mode", view->claim_mode, claim->claim_mode) &&
           same(c, "owner", claim->kind == CLAIM_FCNTL ? view->owner : 0, claim->owner) &&
           same(c, "uid", view->uid, claim->uid) &&
           same(c, "ttl_ms", claim->token ? view->ttl_ms : 0, claim->ttl_ms) &&
           same(c, "stamp_ms", view->stamp_ms, claim->stamp_ms) &&
           same_process(c, &view->process, &claim->process) &&
           same_string(c, view->name, view->name_len, claim->name);
}

static bool check_content(struct naive_compare *c, const struct naive_file *file)
{
    uint64_t offset = below(c, 2) ? 0 : below(c, file->content_len + 3);
    size_t size = below(c, 2) ? file->content_len : (size_t)below(c, file->content_len + 3);
    size_t left = offset < file->content_len ? file->content_len - (size_t)offset : 0;
    size_t expected = size < left ? size : left;
    char *buffer = malloc(size); /* of exactly that size, for the sanitizer */
    look_at(c, "content", file->lock, file->name);
    size_t got = lock_table_read(c->table, file->lock, span_of(file->name), offset, buffer, size);
    bool ok = same(c, "bytes read", got, expected) &&
              (expected == 0 ||
               same(c, "content", memcmp(buffer, file->content + offset, expected) == 0, true));
    free(buffer);
    return ok;
}

/* A walk over all of its kind, in order, and then one step from anywhere, which the table need not
 * have any more. `list` is in the order of the walk. */

static bool check_child_locks(struct naive_compare *c, uint64_t lock)
{
    const struct naive_model *model = c->model;
    uint64_t after = 0;
    uint64_t anywhere = below(c, model->highest_lock + 2);
    uint64_t from_anywhere = 0; /* where a step from there leads */
    struct lock_view view;
    for (size_t i = 0; i < model->locks.count; i++) {
        const struct naive_lock *child = naive_lock_at(model, i);
        if (child->parent != lock)
            continue;
        look_at(c, "next_lock", lock, child->name);
        if (!same(c, "found", lock_table_next_lock(c->table, lock, after, &view), true) ||
            !check_lock_view(c, &view, child))
            return false;
        after = child->id;
        if (child->id > anywhere && !from_anywhere)
            from_anywhere = child->id;
    }
    look_at(c, "next_lock", lock, "");
    if (!same(c, "one more", lock_table_next_lock(c->table, lock, after, &view), false))
        return false;
    look_at(c, "next_lock from anywhere", lock, "");
    bool found = lock_table_next_lock(c->table, lock, anywhere, &view);
    return same(c, "id", found ? view.id : 0, from_anywhere);
}

static bool check_files(struct naive_compare *c, uint64_t lock)
{
    const struct naive_model *model = c->model;
    uint64_t after = 0;
    uint64_t anywhere = below(c, c->highest_file + 2);
    uint64_t from_anywhere = 0; /* where a step from there leads */
    struct file_view view;
    for (size_t i = 0; i < model->files.count; i++) {
        struct naive_file *file = naive_file_at(model, i);
        if (file->lock != lock || !naive_is_claimed(model, lock, file->name))
            continue;
        look_at(c, "next_file", lock, file->name);
        if (!same(c, "found", lock_table_next_file(c->table, lock, after, &view), true) ||
            !check_file_view(c, &view, file) || !check_content(c, file))
            return false;
        after = view.id;
        if (view.id > anywhere && !from_anywhere)
            from_anywhere = view.id;
    }
    look_at(c, "next_file", lock, "");
    if (!same(c, "one more", lock_table_next_file(c->table, lock, after, &view), false))
        return false;
    look_at(c, "next_file from anywhere", lock, "");
    bool found = lock_table_next_file(c->table, lock, anywhere, &view);
    return same(c, "id", found ? view.id : 0, from_anywhere);
}

static bool check_claims(struct naive_compare *c, uint64_t lock)
{
    const struct naive_model *model = c->model;
    uint64_t after = 0;
    uint64_t anywhere = below(c, model->token + 2);
    uint64_t from_anywhere = 0; /* where a step from there leads */
    struct claim_view view;
    for (size_t i = 0; i < model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(model, i);
        if (claim->lock != lock)
            continue;
        look_at(c, "next_claim", lock, claim->name);
        if (!same(c, "found", lock_table_next_claim(c->table, lock, after, &view), true) ||
            !check_claim_view(c, &view, claim))
            return false;
        look_at(c, "get_claim", lock, claim->name);
        if (!same(c, "found", lock_table_get_claim(c->table, lock, claim->token, &view), true) ||
            !check_claim_view(c, &view, claim))
            return false;
        after = view.token;
        if (view.token > anywhere && !from_anywhere)
            from_anywhere = claim->token;
    }
    look_at(c, "next_claim", lock, "");
    if (!same(c, "one more", lock_table_next_claim(c->table, lock, after, &view), false))
        return false;
    look_at(c, "next_claim from anywhere", lock, "");
    bool found = lock_table_next_claim(c->table, lock, anywhere, &view);
    return same(c, "token", found ? view.token : 0, from_anywhere);
}

static bool check_waiters(struct naive_compare *c, uint64_t lock)
{
    const struct naive_model *model = c->model;
    uint64_t after = 0;
    uint64_t anywhere = below(c, c->highest_position + 2);
    uint64_t from_anywhere = 0; /* where a step from there leads */
    struct claim_view view;
    for (size_t i = 0; i < model->waiters.count; i++) {
        struct naive_claim *waiter = naive_waiter_at(model, i);
        if (waiter->lock != lock)
            continue;
        look_at(c, "next_waiter", lock, waiter->name);
        if (!same(c, "found", lock_table_next_waiter(c->table, lock, after, &view), true) ||
            !check_claim_view(c, &view, waiter))
            return false;
        struct claim_view by_token;
        if (!same(c, "a waiter as a claim", lock_table_get_claim(c->table, lock, 0, &by_token),
                  false))
            return false;
        if (!waiter->mark)
            waiter->mark = view.position;
        if (!same(c, "position", view.position, waiter->mark))
            return false;
        after = view.position;
        if (view.position > anywhere && !from_anywhere)
            from_anywhere = view.position;
    }
    look_at(c, "next_waiter", lock, "");
    if (!same(c, "one more", lock_table_next_waiter(c->table, lock, after, &view), false))
        return false;
    look_at(c, "next_waiter from anywhere", lock, "");
    bool found = lock_table_next_waiter(c->table, lock, anywhere, &view);
    return same(c, "position", found ? view.position : 0, from_anywhere);
}

static bool check_delay_view(struct naive_compare *c, const struct delay_view *view,
                             const struct naive_delay *delay)
{
    return same(c, "id", view->id, delay->id) && same(c, "lock", view->lock, delay->lock) &&
           same(c, "delay_ms", view->delay_ms, delay->delay_ms) &&
           same(c, "stamp_ms", view->stamp_ms, delay->stamp_ms) &&
           same_string(c, view->name, view->name_len, delay->name);
}

static bool check_delays(struct naive_compare *c)
{
    const struct naive_model *model = c->model;
    uint64_t after = 0;
    uint64_t anywhere = below(c, model->highest_delay + 2);
    uint64_t from_anywhere = 0; /* where a step from there leads */
    struct delay_view view;
    for (size_t i = 0; i < model->delays.count; i++) {
        const struct naive_delay *delay = naive_delay_at(model, i);
        look_at(c, "next_delay", delay->lock, delay->name);
        if (!same(c, "found", lock_table_next_delay(c->table, after, &view), true) ||
            !check_delay_view(c, &view, delay))
            return false;
        after = view.id;
        if (view.id > anywhere && !from_anywhere)
            from_anywhere = view.id;
    }
    look_at(c, "next_delay", 0, "");
    memset(&view, 0x5a, sizeof(view));
    if (!same(c, "one more", lock_table_next_delay(c->table, after, &view), false) ||
        !same(c, "an untouched view", view.id, UNTOUCHED))
        return false;
    look_at(c, "next_delay from anywhere", 0, "");
    bool found = lock_table_next_delay(c->table, anywhere, &view);
    return same(c, "id", found ? view.id : 0, from_anywhere);
}

/* All locks, each once, in whatever order. */
static bool check_walk(struct naive_compare *c)
{
    const struct naive_model *model = c->model;
    bool *seen = calloc(model->locks.count, sizeof(*seen));
    uint32_t cursor = 0;
    uint64_t id;
    size_t count = 0;
    bool ok = true;
    while (ok && (id = lock_table_walk(c->table, &cursor)) != 0) {
        size_t i = 0;
        look_at(c, "walk", id, "");
        while (i < model->locks.count && naive_lock_at(model, i)->id != id)
            i++;
        ok = same(c, "a lock that is there", i < model->locks.count, true) &&
             same(c, "seen before", seen[i], false);
        if (ok)
            seen[i] = true;
        count++;
    }
    free(seen);
    return ok && same(c, "locks", count, model->locks.count);
}

/* What stands in the way of a request, often of somebody who has something there or elsewhere. */
static bool is_no_multiple(const void *context, const struct claim_view *claim)
{
    const uint64_t *but = context;
    return claim->token % *but != 0;
}

static bool check_obstacle(struct naive_compare *c)
{
    const struct naive_model *model = c->model;
    uint64_t lock = naive_lock_at(model, below(c, model->locks.count))->id;
    struct span name = c->names[below(c, c->names_count)];
    uint64_t node = below(c, c->nodes) + 1;
    uint64_t handle = below(c, 5);
    uint64_t owner = below(c, 5);
    enum claim_mode mode = below(c, 2) ? CLAIM_SHARED : CLAIM_EXCLUSIVE;
    if (model->claims.count && below(c, 10)) {
        const struct naive_claim *at = naive_claim_at(model, below(c, model->claims.count));
        const struct naive_claim *by = naive_claim_at(model, below(c, model->claims.count));
        if (below(c, 2)) /* of the same resource, as far as it goes */
            by = at;
        lock = at->lock;
        name = span_of(at->name);
        node = by->node;
        if (below(c, 2))
            handle = by->handle;
        if (below(c, 2))
            owner = by->owner;
    }
    if (below(c, 50) == 0)
        lock = model->highest_lock + 1;
    look_at(c, "is_taken", lock, "");
    if (!same(c, mode == CLAIM_SHARED ? "shared" : "exclusive",
              lock_table_is_taken(c->table, lock, name, mode),
              naive_is_taken(model, lock, name, mode)))
        return false;
    const struct naive_lock *in = naive_lock(model, lock);
    uint64_t but = 2 + below(c, 3);
    look_at(c, "fits_beside", lock, "");
    if (in && in->limit &&
        !same(c, mode == CLAIM_SHARED ? "shared" : "exclusive",
              lock_table_fits_beside(c->table, lock, name, node, handle, owner, mode,
                                     is_no_multiple, &but),
              naive_fits_beside(model, lock, name, node, handle, owner, mode, but)))
        return false;
    const struct naive_claim *obstacle = NULL;
    uint64_t after = 0;
    do {
        struct claim_view view;
        obstacle = naive_obstacle(model, lock, name, after, node, handle, owner, mode);
        memset(&view, 0x5a, sizeof(view));
        look_at(c, "get_obstacle", lock, obstacle ? obstacle->name : "(none)");
        bool found =
            lock_table_get_obstacle(c->table, lock, name, after, node, handle, owner, mode, &view);
        c->obstacles += obstacle != NULL;
        c->free_ways += obstacle == NULL && after == 0;
        if (!same(c, "found", found, obstacle != NULL))
            return false;
        if (!obstacle)
            return same(c, "an untouched view", view.token, UNTOUCHED);
        if (!check_claim_view(c, &view, obstacle))
            return false;
        after = obstacle->token;
    } while (true);
}

/* Ids increase in the order in which files came to be, over all locks. */
static bool check_file_ids(struct naive_compare *c)
{
    uint64_t before = 0;
    look_at(c, "files", 0, "");
    for (size_t i = 0; i < c->model->files.count; i++) {
        uint64_t id = naive_file_at(c->model, i)->mark;
        if (id == 0)
            continue; /* only waited for, so far */
        if (!same(c, "an id above the one before", id > before, true))
            return false;
        before = id;
    }
    return true;
}

/* Positions increase in the order in which the cluster accepted the waits, over all locks. */
static bool check_positions(struct naive_compare *c)
{
    uint64_t before = 0;
    look_at(c, "waiters", 0, "");
    for (size_t i = 0; i < c->model->waiters.count; i++) {
        uint64_t position = naive_waiter_at(c->model, i)->mark;
        if (!same(c, "a position above the one before", position > before, true))
            return false;
        before = position;
    }
    if (before > c->highest_position)
        c->highest_position = before;
    return true;
}

/* What a name leads to: a lock, a file, or nothing. */
/* The claims on one file, the newest first. */
static bool check_claims_on(struct naive_compare *c, uint64_t lock, struct span name)
{
    uint64_t before = 0;
    struct claim_view view;
    for (size_t i = c->model->claims.count; i-- > 0;) {
        const struct naive_claim *claim = naive_claim_at(c->model, i);
        if (claim->lock != lock || strlen(claim->name) != name.len ||
            memcmp(claim->name, name.data, name.len) != 0)
            continue;
        look_at(c, "prev_claim_on", lock, claim->name);
        if (!same(c, "found", lock_table_prev_claim_on(c->table, lock, name, before, &view),
                  true) ||
            !check_claim_view(c, &view, claim))
            return false;
        before = view.token;
    }
    look_at(c, "prev_claim_on", lock, "");
    return same(c, "one more", lock_table_prev_claim_on(c->table, lock, name, before, &view),
                false);
}

static bool check_name(struct naive_compare *c, uint64_t lock, struct span name)
{
    const struct naive_lock *child = naive_child(c->model, lock, name);
    struct naive_file *file = naive_file(c->model, lock, name);
    struct file_view view;
    memset(&view, 0x5a, sizeof(view));
    look_at(c, "find", lock, NULL);
    if (!same(c, "id", lock_table_find(c->table, lock, name), child ? child->id : 0))
        return false;
    if (!check_claims_on(c, lock, name))
        return false;
    look_at(c, "get_file", lock, file ? file->name : "(none)");
    if (!same(c, "found", lock_table_get_file(c->table, lock, name, &view), file != NULL))
        return false;
    if (file)
        return check_file_view(c, &view, file);
    char byte;
    return same(c, "an untouched view", view.id, UNTOUCHED) &&
           same(c, "bytes read", lock_table_read(c->table, lock, name, 0, &byte, 1), 0);
}

/* A lock that is gone, or never was, has nothing in it. */
static bool check_no_lock(struct naive_compare *c, uint64_t lock)
{
    struct lock_view view;
    struct file_view file;
    struct claim_view claim;
    memset(&view, 0x5a, sizeof(view));
    look_at(c, "absence", lock, "");
    return same(c, "get_lock", lock_table_get_lock(c->table, lock, &view), false) &&
           same(c, "an untouched view", view.id, UNTOUCHED) &&
           same(c, "next_lock", lock_table_next_lock(c->table, lock, 0, &view), false) &&
           same(c, "next_file", lock_table_next_file(c->table, lock, 0, &file), false) &&
           same(c, "next_claim", lock_table_next_claim(c->table, lock, 0, &claim), false) &&
           same(c, "next_waiter", lock_table_next_waiter(c->table, lock, 0, &claim), false) &&
           check_name(c, lock, span_of("a"));
}

static bool check_lock(struct naive_compare *c, const struct naive_lock *lock)
{
    struct lock_view view;
    look_at(c, "get_lock", lock->id, lock->name);
    if (!same(c, "found", lock_table_get_lock(c->table, lock->id, &view), true) ||
        !check_lock_view(c, &view, lock) || !check_child_locks(c, lock->id) ||
        !check_claims(c, lock->id) || !check_waiters(c, lock->id))
        return false;
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t n = below(c, c->names_count);
        if (!check_name(c, lock->id, c->names[n]))
            return false;
    }
    return true;
}

bool naive_compare(struct naive_compare *c)
{
    const struct naive_model *model = c->model;
    if (!check_counts(c) || !check_sessions(c))
        return false;
    for (size_t i = 0; i < model->locks.count; i++) {
        if (!check_lock(c, naive_lock_at(model, i)) || !check_files(c, naive_lock_at(model, i)->id))
            return false;
    }
    uint64_t id = below(c, model->highest_lock + 3);
    if (!naive_lock(model, id) && !check_no_lock(c, id))
        return false;
    for (int i = 0; i < 2; i++) {
        if (!check_obstacle(c))
            return false;
    }
    return check_delays(c) && check_walk(c) && check_file_ids(c) && check_positions(c);
}
