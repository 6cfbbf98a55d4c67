/* What is told in `.lockfs/events` and counted in `.lockfs/metrics`: what this node applies after
 * its start. Entries that it reads back from its log then were told by whom applied them first. */
#include <errno.h>
#include <string.h>

#include "node_internal.h"

static bool is_news(const struct node *node)
{
    return node->applied > node->recovered_last;
}

struct path {
    char bytes[LIMIT_DEPTH * (LIMIT_NAME_BYTES + 1) + LIMIT_NAME_BYTES + 2];
};

/* The path of a lock, or of what is called `name` in it, from the mount point on. */
static struct span path_of(const struct node *node, uint64_t lock, struct span name,
                           struct path *path)
{
    struct text text = {.data = path->bytes, .size = sizeof path->bytes};
    text_string(&text, "/");
    node__path_add(node, lock, &text);
    text_add(&text, name);
    if (!name.len && text.len > 1)
        text.len--;
    return (struct span){text.data, text.len};
}

static const struct span no_name = {NULL, 0};

static struct event event_of(const struct node *node, const char *what)
{
    return (struct event){
        .time_ms = node->applying->stamp_ms, .index = node->applied, .what = what};
}

/* Claims and waits */

static struct event_actor ender_of(const struct node *node)
{
    return (struct event_actor){node->ender.pid ? &node->ender : NULL, node->ender_uid};
}

/* As the holder sees it: only its own process ends a claim by unlink without loss. */
static bool is_loss(const struct node *node, const struct effect *effect)
{
    switch (effect->cause) {
    case CAUSE_INCARNATION:
    case CAUSE_FORCED:
        return true;
    case CAUSE_UNLINKED:
        return !node__same_process(&effect->process, &node->ender);
    default:
        return false;
    }
}

static void tell_effect(struct node *node, const char *what, const struct effect *effect)
{
    static const char *const causes[] = {
        [CAUSE_RELEASED] = "released",   [CAUSE_CONVERTED] = "converted",
        [CAUSE_UNLINKED] = "unlinked",   [CAUSE_CANCELLED] = "cancelled",
        [CAUSE_INCARNATION] = "restart", [CAUSE_EXITED] = "exited",
        [CAUSE_FORCED] = "forced",
    };
    bool taken = effect->cause == CAUSE_UNLINKED || effect->cause == CAUSE_FORCED;
    struct path path;
    struct event event = event_of(node, what);
    event.lock = path_of(node, effect->lock, no_name, &path);
    event.file = effect->name;
    event.token = effect->token;
    event.kind = effect->kind;
    event.claim_mode = effect->claim_mode;
    event.cause = causes[effect->cause];
    event.node = effect->node;
    event.actor = (struct event_actor){&effect->process, effect->uid};
    if (taken)
        event.by = ender_of(node);
    events_add(&node->events, &event);
}

static void tell_delay(struct node *node, const char *what, const struct delay_view *delay)
{
    struct path path;
    char seconds[24];
    struct text value = {.data = seconds, .size = sizeof seconds};
    text_seconds(&value, delay->delay_ms);
    struct event event = event_of(node, what);
    event.lock = path_of(node, delay->lock, no_name, &path);
    event.file = (struct span){delay->name, delay->name_len};
    event.value = (struct span){value.data, value.len};
    events_add(&node->events, &event);
}

static void count_end(struct node *node, const struct effect *effect, bool lost)
{
    struct node_counts *counts = &node->counts;
    if (!lost)
        counts->releases++;
    else if (effect->cause == CAUSE_UNLINKED)
        counts->lost_unlinked++;
    else if (effect->cause == CAUSE_FORCED)
        counts->lost_forced++;
    else
        counts->lost_by_restart++;
}

void node__tell_effect(struct node *node, const struct effect *effect)
{
    struct delay_view delay;
    if (!is_news(node))
        return;
    switch (effect->type) {
    case EFFECT_GRANTED:
        node->counts.waits_granted++;
        if (effect->again)
            break; /* nothing was granted but an answer */
        node->counts.grants[effect->kind]++;
        tell_effect(node, "granted", effect);
        break;
    case EFFECT_DROPPED:
        node->counts.waits_interrupted += effect->cause == CAUSE_CANCELLED;
        tell_effect(node, "unqueued", effect);
        break;
    case EFFECT_ENDED: {
        bool lost = is_loss(node, effect);
        count_end(node, effect, lost);
        tell_effect(node, lost ? "lost" : "released", effect);
        break;
    }
    case EFFECT_DELAYED:
        if (lock_table_next_delay(node->table, effect->token - 1, &delay))
            tell_delay(node, "delay_begun", &delay);
        break;
    }
}

/* Commands */

/* Who asked for it, where that was here. */
static struct event_actor sender_of(const struct node *node, const struct command *command)
{
    bool own = command->node == node->config.id && command->incarnation == node->incarnation;
    uint32_t slot = own ? node__request_slot(node, command->seq) : NODE_NO_SLOT;
    if (slot == NODE_NO_SLOT)
        return (struct event_actor){NULL, 0};
    const struct request *request = node__request_at(node, slot);
    return (struct event_actor){&request->process, request->uid};
}

static void tell_acquire(struct node *node, const struct command *command,
                         const struct command_result *result)
{
    struct path path;
    struct event event = event_of(node, result->queued ? "queued" : "granted");
    if (result->again)
        return;
    if (result->queued)
        node->counts.waits++;
    else
        node->counts.grants[command->kind]++;
    event.lock = path_of(node, command->lock, no_name, &path);
    event.file = command->name;
    event.token = result->token;
    event.kind = command->kind;
    event.claim_mode = command->claim_mode;
    event.node = command->node;
    event.actor = (struct event_actor){&command->process, command->uid};
    events_add(&node->events, &event);
}

/* A lock was made or removed. */
static void tell_lock(struct node *node, const char *what, const struct command *command)
{
    struct path path;
    struct event event = event_of(node, what);
    event.lock = path_of(node, command->lock, command->name, &path);
    event.node = command->node;
    event.actor = sender_of(node, command);
    events_add(&node->events, &event);
}

static void add_octal(struct text *text, uint32_t mode)
{
    char digits[4] = {(char)('0' + (mode >> 9 & 7)), (char)('0' + (mode >> 6 & 7)),
                      (char)('0' + (mode >> 3 & 7)), (char)('0' + (mode & 7))};
    text_add(text, (struct span){digits, sizeof digits});
}

/* The name of a setting, and its value in the form in which its control file takes it. */
static const char *setting_of(const struct command *command, uint32_t attribute, struct text *value)
{
    switch (attribute) {
    case ATTRIBUTE_MODE:
        add_octal(value, command->mode);
        return "mode";
    case ATTRIBUTE_UID:
        text_number(value, command->uid);
        return "uid";
    case ATTRIBUTE_GID:
        text_number(value, command->gid);
        return "gid";
    case ATTRIBUTE_LIMIT:
        if (command->limit)
            text_number(value, command->limit);
        else
            text_string(value, "unlimited");
        return ".limit";
    case ATTRIBUTE_TTL:
        text_seconds(value, command->ttl_ms);
        return ".ttl";
    case ATTRIBUTE_RELEASE:
        text_string(value, command->release == RELEASE_EXIT ? "exit" : "close");
        return ".release";
    case ATTRIBUTE_DELAY:
        text_seconds(value, command->delay_ms);
        return ".delay";
    default:
        return NULL;
    }
}

static void tell_settings(struct node *node, const struct command *command)
{
    struct path path;
    struct event event = event_of(node, "setting");
    event.lock = path_of(node, command->lock, no_name, &path);
    event.node = command->node;
    event.actor = sender_of(node, command);
    for (uint32_t attribute = 1; attribute <= command->attributes; attribute <<= 1) {
        char buffer[24];
        struct text value = {.data = buffer, .size = sizeof buffer};
        event.setting =
            command->attributes & attribute ? setting_of(command, attribute, &value) : NULL;
        event.value = (struct span){value.data, value.len};
        if (event.setting)
            events_add(&node->events, &event);
    }
}

static void tell_restart(struct node *node, const struct command *command)
{
    char digits[16];
    for (int i = 0; i < 16; i++)
        digits[i] = "0123456789abcdef"[command->incarnation >> (60 - 4 * i) & 15];
    struct event event = event_of(node, "restart");
    event.value = (struct span){digits, sizeof digits};
    event.node = command->node;
    events_add(&node->events, &event);
}

/* Whom it lets in comes before its result: so it is told before it is applied. */
static void tell_end_of_delay(struct node *node, const struct command *command)
{
    struct session_view session;
    struct delay_view delay;
    if (lock_table_get_session(node->table, command->node, &session) &&
        session.incarnation == command->incarnation &&
        lock_table_next_delay(node->table, command->target - 1, &delay) &&
        delay.id == command->target)
        tell_delay(node, "delay_ended", &delay);
}

void node__tell_command(struct node *node, const struct command *command)
{
    if (!is_news(node))
        return;
    node->counts.commands++;
    if (command->type == COMMAND_END_DELAY)
        tell_end_of_delay(node, command);
}

void node__tell_result(struct node *node, const struct command *command,
                       const struct command_result *result)
{
    if (!is_news(node) || result->error)
        return;
    switch (command->type) {
    case COMMAND_ACQUIRE:
        tell_acquire(node, command, result);
        break;
    case COMMAND_MKDIR:
        tell_lock(node, "mkdir", command);
        break;
    case COMMAND_RMDIR:
        tell_lock(node, "rmdir", command);
        break;
    case COMMAND_SET_LOCK:
        tell_settings(node, command);
        break;
    case COMMAND_INCARNATION:
        tell_restart(node, command);
        break;
    case COMMAND_FORCE:
        node->counts.forces++;
        break;
    default:
        break;
    }
}

/* What no command says */

void node_short_claim(struct node *node, const struct node_notice *notice)
{
    struct span path = notice->path;
    size_t slash = path.len;
    while (slash && path.data[slash - 1] != '/')
        slash--;
    struct path lock = {{'/'}};
    if (slash)
        memcpy(lock.bytes + 1, path.data, slash - 1);
    struct event event = {
        .time_ms = node->wall_ms,
        .index = node->applied,
        .what = "short_claim",
        .lock = {lock.bytes, slash ? slash : 1},
        .file = {path.data + slash, path.len - slash},
        .token = notice->token,
        .node = node->config.id,
        .actor = {&notice->process, notice->uid},
    };
    node->counts.short_claims++;
    events_add(&node->events, &event);
}

void node__count_refusal(struct node *node, int error)
{
    struct node_counts *counts = &node->counts;
    switch (error) {
    case -EEXIST:
        counts->refusals[REFUSED_EEXIST]++;
        break;
    case -EWOULDBLOCK:
        counts->refusals[REFUSED_EWOULDBLOCK]++;
        break;
    case -ENOLCK:
        counts->refusals[REFUSED_ENOLCK]++;
        break;
    case -ENOSPC:
        counts->refusals[REFUSED_ENOSPC]++;
        break;
    case -ETIMEDOUT:
        counts->refusals[REFUSED_ETIMEDOUT]++;
        break;
    case -EINTR:
        counts->refusals[REFUSED_EINTR]++;
        break;
    case -ESTALE:
        counts->refusals[REFUSED_ESTALE]++;
        break;
    default:
        counts->refusals[REFUSED_OTHER]++;
        break;
    }
}
