/*
 * The state machine below the log: exactly what the oracles need. A chain of hashes over all
 * entries, a register that holds the last command, and the members, told from the changes alone so
 * that the core's own account of them can be compared.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* A snapshot's bytes: this, then padding. */
struct saved {
    uint64_t checksum; /* of all behind it */
    uint64_t core_members_count;
    struct raft_member core_members[RAFT_MEMBERS_MAX];
    struct machine machine;
};

void machine_init(struct machine *machine, const struct raft_member *members, size_t count)
{
    memset(machine, 0, sizeof(*machine));
    machine->members_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        machine->members[i].id = members[i].id;
        machine->members[i].voter = members[i].voter;
    }
}

static struct raft_member *find_member(struct machine *machine, uint64_t id)
{
    for (uint32_t i = 0; i < machine->members_count; i++)
        if (machine->members[i].id == id)
            return &machine->members[i];
    return NULL;
}

static void apply_change(struct machine *machine, const struct raft_change *change)
{
    struct raft_member *member = find_member(machine, change->id);

    switch (change->type) {
    case RAFT_CHANGE_ADD_LEARNER:
        if (member == NULL && machine->members_count < RAFT_MEMBERS_MAX) {
            member = &machine->members[machine->members_count++];
            memset(member, 0, sizeof(*member));
            member->id = change->id;
        }
        break;
    case RAFT_CHANGE_PROMOTE:
        if (member != NULL)
            member->voter = true;
        break;
    case RAFT_CHANGE_DEMOTE:
        if (member != NULL)
            member->voter = false;
        break;
    case RAFT_CHANGE_REMOVE:
        if (member != NULL) {
            struct raft_member *last = &machine->members[--machine->members_count];
            *member = *last;
            memset(last, 0, sizeof(*last));
        }
        break;
    }
}

void machine_apply(struct machine *machine, uint64_t index, const struct entry *entry)
{
    machine->applied = index;
    machine->applied_term = entry->raft.term;
    machine->hash = rng_mix(machine->hash ^ rng_mix(index ^ rng_mix(entry->raft.term)));
    machine->hash = rng_mix(machine->hash ^ rng_mix(entry->command + (uint64_t)entry->raft.type));
    if (entry->raft.type == RAFT_ENTRY_COMMAND) {
        machine->commands++;
        machine->register_command = entry->command;
        machine->register_index = index;
    } else if (entry->raft.type == RAFT_ENTRY_CHANGE) {
        machine->hash = rng_mix(machine->hash ^ rng_mix((uint64_t)entry->raft.change.type) ^
                                entry->raft.change.id);
        apply_change(machine, &entry->raft.change);
    }
}

static uint64_t checksum(const uint8_t *bytes, size_t size)
{
    uint64_t sum = size;

    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, size - i < sizeof(word) ? size - i : sizeof(word));
        sum = rng_mix(sum ^ word) + 1;
    }
    return sum;
}

struct blob *machine_save(const struct machine *machine, const struct raft_member *members,
                          size_t members_count, uint32_t padding, uint64_t salt)
{
    struct blob *blob = blob_make((uint32_t)sizeof(struct saved) + padding);
    struct saved saved;

    memset(&saved, 0, sizeof(saved));
    assert(members_count <= RAFT_MEMBERS_MAX);
    saved.core_members_count = members_count;
    for (size_t i = 0; i < members_count; i++) {
        saved.core_members[i].id = members[i].id;
        saved.core_members[i].voter = members[i].voter;
    }
    saved.machine = *machine;
    memset(blob->bytes + sizeof(saved), (int)(salt & 0xff), padding);
    memcpy(blob->bytes, &saved, sizeof(saved));
    saved.checksum =
        checksum(blob->bytes + sizeof(saved.checksum), blob->size - sizeof(saved.checksum));
    memcpy(blob->bytes, &saved.checksum, sizeof(saved.checksum));
    blob->index = machine->applied;
    blob->term = machine->applied_term;
    return blob;
}

struct blob *machine_save_with(const struct machine *machine, const struct raft_member *members,
                               size_t members_count, const void *bytes, size_t size)
{
    struct blob *blob = machine_save(machine, members, members_count, (uint32_t)size, 0);
    uint64_t sum;

    if (size > 0)
        memcpy(blob->bytes + sizeof(struct saved), bytes, size);
    sum = checksum(blob->bytes + sizeof(sum), blob->size - sizeof(sum));
    memcpy(blob->bytes, &sum, sizeof(sum));
    return blob;
}

const void *machine_saved_bytes(const struct blob *blob, size_t *ret_size)
{
    *ret_size = blob->size - sizeof(struct saved);
    return blob->bytes + sizeof(struct saved);
}

bool machine_load(struct machine *machine, const struct blob *blob, struct raft_member *ret_members,
                  size_t *ret_members_count)
{
    struct saved saved;

    if (blob->size < sizeof(saved))
        return false;
    memcpy(&saved, blob->bytes, sizeof(saved));
    if (saved.checksum !=
        checksum(blob->bytes + sizeof(saved.checksum), blob->size - sizeof(saved.checksum)))
        return false;
    *machine = saved.machine;
    memcpy(ret_members, saved.core_members, saved.core_members_count * sizeof(*ret_members));
    *ret_members_count = saved.core_members_count;
    return true;
}

struct blob *blob_make(uint32_t size)
{
    struct blob *blob = sim_alloc(sizeof(*blob) + size);

    blob->refs = 1;
    blob->size = size;
    return blob;
}

struct blob *blob_ref(struct blob *blob)
{
    blob->refs++;
    return blob;
}

void blob_unref(struct blob *blob)
{
    if (blob != NULL && --blob->refs == 0)
        free(blob);
}
