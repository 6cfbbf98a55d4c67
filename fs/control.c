/* The control files: what a lock tells about itself, and who may know its number. */
#include <errno.h>
#include <string.h>

#include "node_internal.h"

uint32_t control__mode(enum control control, uint32_t lock_mode)
{
    uint32_t readers = lock_mode & 0444;
    switch (control) {
    case CONTROL_TOKEN: /* writable by whoever may read it: writing only asks */
        return readers | readers >> 1;
    case CONTROL_LIMIT:
    case CONTROL_TTL:
    case CONTROL_RELEASE:
    case CONTROL_DELAY:
        return 0644 & (readers | 0200);
    default:
        return readers;
    }
}

const char *control__claim_mode(enum claim_mode mode)
{
    return mode == CLAIM_SHARED ? "shared" : "exclusive";
}

/* A process of an earlier incarnation that had a claim when this boot's daemon was restarted reads
 * ESTALE from then on, and so does everybody else here while it lives (DESIGN A4). */
void control__lost_without_handle(struct node *node, uint64_t lock, uint64_t token,
                                  const struct process *process)
{
    uint32_t slot = process->pid ? slab_take(&node->lost_processes) : 0;
    if (!slot) {
        node->lost_overflow = node->lost_overflow || process->pid;
        return;
    }
    struct lost_process *lost = slab_at(&node->lost_processes, slot);
    lost->lock = lock;
    lost->token = token;
    lost->process = *process;
    index_add(&node->lost_by_lock, hash_number(lost->lock), slot);
    index_add(&node->lost_by_pid, hash_number(process->pid), slot);
}

void control__lost_by_restart(struct node *node, const struct effect *effect)
{
    struct session_view session;
    if (!effect->same_boot || !effect->process.pid ||
        !lock_table_get_session(node->table, node->config.id, &session) ||
        memcmp(session.boot_id, node->config.boot_id, BOOT_ID_BYTES) != 0)
        return;
    control__lost_without_handle(node, effect->lock, effect->token, &effect->process);
    if (session.incarnation != node->incarnation)
        return;
    struct node_action notice = {.type = NODE_ACTION_NOTICE,
                                 .notice = {.type = NODE_NOTICE_LOST_BY_RESTART,
                                            .token = effect->token,
                                            .holder = effect->process}};
    notice.notice.path = node__path(node, effect->lock, effect->name);
    node__emit(node, &notice);
}

void control__process_ended(struct node *node, const struct process *process)
{
    uint32_t slot = index_first(&node->lost_by_pid, hash_number(process->pid));
    while (slot) {
        uint32_t next = index_next(&node->lost_by_pid, slot);
        struct lost_process *lost = slab_at(&node->lost_processes, slot);
        if (node__same_process(&lost->process, process)) {
            index_remove(&node->lost_by_lock, hash_number(lost->lock), slot);
            index_remove(&node->lost_by_pid, hash_number(process->pid), slot);
            *lost = (struct lost_process){0};
            slab_give(&node->lost_processes, slot);
        }
        slot = next;
    }
    if (!node->lost_processes.used)
        node->lost_overflow = false;
}

bool node_next_lost_process(const struct node *node, uint32_t *cursor, struct process *ret_process)
{
    /* The newest first, which are at the heads of their chains: to end many takes no long walks. */
    uint32_t slot = *cursor ? *cursor - 1 : node->lost_processes.touched;
    for (; slot; slot--) {
        const struct lost_process *lost = slab_at(&node->lost_processes, slot);
        if (lost->process.pid) {
            *cursor = slot;
            *ret_process = lost->process;
            return true;
        }
    }
    return false;
}

static uint32_t next_lost(const struct node *node, uint64_t lock, uint32_t slot)
{
    slot = slot ? index_next(&node->lost_by_lock, slot)
                : index_first(&node->lost_by_lock, hash_number(lock));
    while (slot && ((struct lost_process *)slab_at(&node->lost_processes, slot))->lock != lock)
        slot = index_next(&node->lost_by_lock, slot);
    return slot;
}

bool node_reads_token(const struct node *node, uint64_t inode)
{
    return tree_inode(&node->tree, inode) && tree_control(inode) == CONTROL_TOKEN;
}

bool node_lost_process(const struct node *node, uint64_t inode, size_t n,
                       struct process *ret_process)
{
    const struct inode *lock = tree_inode(&node->tree, inode);
    uint32_t slot = lock ? next_lost(node, lock->lock, 0) : 0;
    while (slot && n--)
        slot = next_lost(node, lock->lock, slot);
    if (slot)
        *ret_process = ((struct lost_process *)slab_at(&node->lost_processes, slot))->process;
    return slot != 0;
}

/* What a process itself has here: its latest number, and whether that claim was lost. */
struct standing {
    uint64_t token;
    bool lost;
};

static struct standing standing_of(const struct node *node, const struct inode *lock,
                                   const struct process *process)
{
    struct standing standing = {0, false};
    uint32_t slot = lock->claimants.head;
    while (slot) {
        const struct handle *handle = node__handle_at(node, slot);
        bool kin = node__same_process(&handle->opener, process) ||
                   node__same_process(&handle->locker, process);
        if (kin && handle->token > standing.token)
            standing = (struct standing){handle->token, handle->lost || handle->unlinked};
        slot = handle->in_inode.next;
    }
    uint64_t given_back = node__number_given_back(node, lock->lock, process);
    if (given_back > standing.token)
        standing = (struct standing){given_back, false};
    slot = 0;
    while ((slot = next_lost(node, lock->lock, slot))) {
        const struct lost_process *lost = slab_at(&node->lost_processes, slot);
        if (node__same_process(&lost->process, process) && lost->token > standing.token)
            standing = (struct standing){lost->token, true};
    }
    return standing;
}

static bool somebody_lost_here(const struct node *node, const struct inode *lock)
{
    for (uint32_t slot = lock->claimants.head; slot;) {
        const struct handle *handle = node__handle_at(node, slot);
        if (handle->lost)
            return true;
        slot = handle->in_inode.next;
    }
    return node->lost_overflow || next_lost(node, lock->lock, 0);
}

/* The kin rule of DESIGN A4. 0: a bystander, who may look; 1: `ret_token` is the caller's own;
 * ESTALE, negative. */
static int token_for(const struct node *node, const struct inode *lock,
                     const struct node_request *request, uint64_t *ret_token)
{
    for (size_t i = 0; i < request->read.ancestors_count; i++) {
        struct standing standing = standing_of(node, lock, &request->read.ancestors[i]);
        if (!standing.token)
            continue;
        *ret_token = standing.token;
        return standing.lost ? -ESTALE : 1;
    }
    return somebody_lost_here(node, lock) ? -ESTALE : 0;
}

static bool next_visible_claim(const struct node *node, uint64_t lock, uint64_t after,
                               struct claim_view *ret_view)
{
    while (lock_table_next_claim(node->table, lock, after, ret_view)) {
        if (node__visible_claim(node, ret_view))
            return true;
        after = ret_view->token;
    }
    return false;
}

bool control__visible_waiter(const struct node *node, const struct claim_view *view)
{
    return view->node != node->config.id || node__request_slot(node, view->seq) != NODE_NO_SLOT;
}

static bool next_visible_waiter(const struct node *node, uint64_t lock, uint64_t after,
                                struct claim_view *ret_view)
{
    while (lock_table_next_waiter(node->table, lock, after, ret_view)) {
        if (control__visible_waiter(node, ret_view))
            return true;
        after = ret_view->position;
    }
    return false;
}

void control__add_person(const struct node *node, struct text *line, const struct claim_view *view)
{
    int64_t held_ms = node->wall_ms - view->stamp_ms;
    if (view->token)
        text_number(line, view->token);
    else
        text_string(line, "-");
    text_string(line, " ");
    text_string(line, control__claim_mode(view->claim_mode));
    text_string(line, " ");
    text_number(line, view->node);
    text_string(line, " ");
    text_number(line, view->process.pid);
    text_string(line, " ");
    text_number(line, view->uid);
    text_string(line, " ");
    text_number(line, held_ms > 0 ? (uint64_t)held_ms / 1000 : 0);
    text_string(line, " ");
    text_field(line, (struct span){view->name, view->name_len});
    text_string(line, " ");
    if (view->process.comm[0])
        text_field(line, (struct span){view->process.comm, strlen(view->process.comm)});
    else
        text_string(line, "-");
    text_string(line, "\n");
}

void control__add_delay(const struct node *node, struct text *line, const struct delay_view *delay)
{
    int64_t since_ms = node->wall_ms - delay->stamp_ms;
    text_string(line, "- delay - - - ");
    text_number(line, since_ms > 0 ? (uint64_t)since_ms / 1000 : 0);
    text_string(line, " ");
    if (delay->name_len)
        text_field(line, (struct span){delay->name, delay->name_len});
    else
        text_string(line, "-");
    text_string(line, " -\n");
}

/* `token` for a bystander: a number where one claim is all there can be, else a line per claim. */
static bool add_bystander_token(const struct node *node, const struct lock_view *lock,
                                uint64_t *key, struct text *line)
{
    struct claim_view view;
    uint64_t last = 0;
    if (lock->limit == 1) {
        if (*key)
            return false;
        for (uint64_t after = 0; next_visible_claim(node, lock->id, after, &view);)
            last = after = view.token;
        *key = UINT64_MAX;
        if (!last)
            return false;
        text_number(line, last);
        text_string(line, "\n");
        return true;
    }
    if (!next_visible_claim(node, lock->id, *key, &view))
        return false;
    *key = view.token;
    text_number(line, view.token);
    text_string(line, " ");
    text_field(line, (struct span){view.name, view.name_len});
    text_string(line, "\n");
    return true;
}

static void add_seconds(struct text *line, uint64_t ms)
{
    text_seconds(line, ms);
    text_string(line, "\n");
}

/* The lines of `holders` for delays come behind those for claims. */
#define DELAY_KEY (UINT64_C(1) << 63)

static bool add_delay_line(const struct node *node, const struct lock_view *lock, uint64_t *key,
                           struct text *line)
{
    struct delay_view delay = {.id = *key & DELAY_KEY ? *key & ~DELAY_KEY : 0};
    if (!lock->delays_count)
        return false; /* and those of other locks may be many */
    do {
        if (!lock_table_next_delay(node->table, delay.id, &delay))
            return false;
    } while (delay.lock != lock->id);
    *key = DELAY_KEY | delay.id;
    control__add_delay(node, line, &delay);
    return true;
}

/* Adds the line after `key`, and moves the key on. False at the end. `own`: the number that a
 * holder reads from `token`, 0 for a bystander. */
static bool next_line(const struct node *node, enum control control, const struct lock_view *lock,
                      uint64_t own, uint64_t *key, struct text *line)
{
    struct claim_view view;
    switch (control) {
    case CONTROL_HOLDERS:
        if (!(*key & DELAY_KEY) && next_visible_claim(node, lock->id, *key, &view)) {
            *key = view.token;
            control__add_person(node, line, &view);
            return true;
        }
        return add_delay_line(node, lock, key, line);
    case CONTROL_WAITERS:
        if (!next_visible_waiter(node, lock->id, *key, &view))
            return false;
        *key = view.position;
        control__add_person(node, line, &view);
        return true;
    case CONTROL_TOKEN:
        if (!own)
            return add_bystander_token(node, lock, key, line);
        break;
    default:
        break;
    }

    if (*key)
        return false;
    *key = 1;
    switch (control) {
    case CONTROL_TOKEN:
        text_number(line, own);
        text_string(line, "\n");
        break;
    case CONTROL_LAST:
        text_number(line, lock->last_token);
        text_string(line, "\n");
        break;
    case CONTROL_LIMIT:
        if (lock->limit)
            text_number(line, lock->limit);
        else
            text_string(line, "unlimited");
        text_string(line, "\n");
        break;
    case CONTROL_TTL:
        add_seconds(line, lock->ttl_ms ? lock->ttl_ms : node->config.ttl_ms);
        break;
    case CONTROL_RELEASE:
        text_string(line, lock->release == RELEASE_EXIT ? "exit\n" : "close\n");
        break;
    case CONTROL_DELAY:
        add_seconds(line, lock->delay_ms);
        break;
    default:
        return false;
    }
    return true;
}

/* Renders the next line into the reader. False at the end. */
static bool refill(const struct node *node, struct reader *reader, enum control control,
                   const struct lock_view *lock, uint64_t own)
{
    struct text line = {.data = reader->line, .size = LIMIT_CONTROL_LINE_BYTES};
    bool more = !reader->ended && (control > CONTROL_LOCKFS
                                       ? control__next_line(node, control, reader, &line)
                                       : next_line(node, control, lock, own, &reader->key, &line));
    if (!more) {
        reader->ended = true;
        return false;
    }
    reader->line_len = line.len;
    reader->line_used = 0;
    return true;
}

/* Gives the next piece of text, at most `size` bytes; `buffer` NULL skips it. */
static size_t take(const struct node *node, struct reader *reader, enum control control,
                   const struct lock_view *lock, uint64_t own, char *buffer, uint64_t size)
{
    size_t taken = 0;
    while (taken < size) {
        if (reader->line_used == reader->line_len && !refill(node, reader, control, lock, own))
            break;
        size_t len = reader->line_len - reader->line_used;
        if (len > size - taken)
            len = (size_t)(size - taken);
        if (buffer)
            memcpy(buffer + taken, reader->line + reader->line_used, len);
        reader->line_used += len;
        taken += len;
        if (reader->pauses && reader->line_used == reader->line_len) {
            reader->pauses = false;
            break;
        }
    }
    reader->offset += taken;
    return taken;
}

void control__read(struct node *node, const struct node_request *request, struct handle *handle)
{
    const struct inode *inode = tree_at(&node->tree, handle->inode);
    struct reader *reader = slab_at(&node->readers, handle->reader);
    struct lock_view lock;
    if (!lock_table_get_lock(node->table, inode->lock, &lock)) {
        node__reply_error(node, request->slot, -ESTALE);
        return;
    }
    uint32_t size = request->read.size < NODE_DATA_BYTES ? request->read.size : NODE_DATA_BYTES;
    if (handle->control == CONTROL_EVENTS) {
        size_t got = control__read_events(node, reader, request->read.offset, node->data, size);
        node__reply(node, &(struct node_reply){.slot = request->slot,
                                               .type = NODE_REPLY_DATA,
                                               .data = {node->data, got}});
        return;
    }
    bool afresh =
        !reader->started || !request->read.offset || request->read.offset != reader->offset;
    uint64_t own = 0;
    if (handle->control == CONTROL_TOKEN && (afresh || !reader->ended)) {
        int kin = token_for(node, inode, request, &own);
        if (kin < 0) {
            node__reply_error(node, request->slot, kin);
            return;
        }
    }
    if (afresh)
        *reader = (struct reader){.started = true, .line = reader->line};
    reader->steps = LIMIT_LOCKS_STEPS;
    if (request->read.offset > reader->offset)
        take(node, reader, handle->control, &lock, own, NULL, request->read.offset);
    size_t len = take(node, reader, handle->control, &lock, own, node->data, size);
    if (!len && !request->read.offset && handle->control == CONTROL_TOKEN) {
        node__reply_error(node, request->slot, -ENODATA);
        return;
    }
    node__reply(node, &(struct node_reply){.slot = request->slot,
                                           .type = NODE_REPLY_DATA,
                                           .data = {node->data, len}});
}

static bool is(struct span text, const char *word)
{
    return text.len == strlen(word) && memcmp(text.data, word, text.len) == 0;
}

/* Reads a setting as it was written into its control file. 0 or a negative errno. */
static int parse_setting(const struct node *node, enum control control,
                         const struct lock_view *lock, struct span text, struct command *command)
{
    uint64_t number;
    text = text_trim(text);
    switch (control) {
    case CONTROL_LIMIT:
        command->attributes = ATTRIBUTE_LIMIT;
        if (lock->id == LOCK_TABLE_ROOT)
            return -EPERM; /* as a mutex, the root would stop everybody */
        if (is(text, "unlimited"))
            return 0;
        if (!text_parse_number(text, &number) || !number || number > LIMIT_CLAIMS)
            return -EINVAL;
        command->limit = (uint32_t)number;
        return 0;
    case CONTROL_TTL:
        command->attributes = ATTRIBUTE_TTL;
        if (!text_parse_seconds(text, &number) || number < node->config.ttl_min_ms ||
            number > LIMIT_TTL_MS)
            return -EINVAL;
        command->ttl_ms = (uint32_t)number;
        return 0;
    case CONTROL_DELAY:
        command->attributes = ATTRIBUTE_DELAY;
        if (!text_parse_seconds(text, &number) || number > LIMIT_DELAY_MS)
            return -EINVAL;
        command->delay_ms = (uint32_t)number;
        return 0;
    case CONTROL_RELEASE:
        command->attributes = ATTRIBUTE_RELEASE;
        if (is(text, "unlink") || is(text, "touch"))
            return -EOPNOTSUPP; /* not there yet */
        command->release = is(text, "exit") ? RELEASE_EXIT : RELEASE_CLOSE;
        return is(text, "exit") || is(text, "close") ? 0 : -EINVAL;
    default:
        return -EPERM;
    }
}

static void write_setting(struct node *node, const struct node_request *request,
                          const struct handle *handle)
{
    const struct inode *inode = tree_at(&node->tree, handle->inode);
    struct command command = {.type = COMMAND_SET_LOCK, .lock = inode->lock};
    struct lock_view lock;
    int error = -ESTALE;
    if (lock_table_get_lock(node->table, inode->lock, &lock))
        error = parse_setting(node, handle->control, &lock, request->write.data, &command);
    if (error) {
        node__reply_error(node, request->slot, error);
        return;
    }
    struct request *submitted = node__submit(node, request, &command, 0, false);
    if (submitted)
        submitted->number = request->write.data.len;
}

/* A handle that holds two claims goes by the larger number, also when that claim has ended, and so
 * does a process. */
static bool is_number_of_holder(const struct node *node, const struct inode *lock, uint64_t token)
{
    for (uint32_t slot = lock->claimants.head; slot;) {
        const struct handle *handle = node__handle_at(node, slot);
        if (handle->token == token && !handle->lost && !handle->unlinked)
            return true;
        if (node__number_given_back(node, lock->lock, &handle->opener) == token ||
            node__number_given_back(node, lock->lock, &handle->locker) == token)
            return true;
        slot = handle->in_inode.next;
    }
    return false;
}

/* Writing a number to `token` asks whether it belongs to a claim that is held. */
static int check_token(const struct node *node, const struct handle *handle, struct span text)
{
    const struct inode *inode = tree_at(&node->tree, handle->inode);
    struct claim_view claim;
    uint64_t token;
    if (!text_parse_number(text, &token))
        return -EINVAL;
    if (!token)
        return -ESTALE;
    bool held = lock_table_get_claim(node->table, inode->lock, token, &claim) &&
                node__visible_claim(node, &claim);
    return held || is_number_of_holder(node, inode, token) ? 0 : -ESTALE;
}

void control__write(struct node *node, const struct node_request *request, struct handle *handle)
{
    if (handle->control != CONTROL_TOKEN) {
        write_setting(node, request, handle);
        return;
    }
    int error = check_token(node, handle, request->write.data);
    if (error)
        node__reply_error(node, request->slot, error);
    else
        node__reply(node, &(struct node_reply){.slot = request->slot,
                                               .type = NODE_REPLY_WRITTEN,
                                               .number = request->write.data.len});
}
