/* The events to come: a binary heap by time, and by order of arrival at the same time. */
#include <stdlib.h>

#include "sim.h"

static bool is_before(const struct event *a, const struct event *b)
{
    return a->us != b->us ? a->us < b->us : a->order < b->order;
}

void schedule_add(struct sim *sim, uint64_t us, struct event event)
{
    struct schedule *schedule = &sim->schedule;
    size_t at = schedule->count++;

    schedule->heap =
        sim_grow(schedule->heap, &schedule->capacity, schedule->count, sizeof(*schedule->heap));
    event.us = us < sim->now_us ? sim->now_us : us;
    event.order = schedule->order++;
    while (at > 0 && is_before(&event, &schedule->heap[(at - 1) / 2])) {
        schedule->heap[at] = schedule->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    schedule->heap[at] = event;
}

bool schedule_next(struct sim *sim, struct event *ret_event)
{
    struct schedule *schedule = &sim->schedule;
    struct event last;
    size_t at = 0;

    if (schedule->count == 0)
        return false;
    *ret_event = schedule->heap[0];
    last = schedule->heap[--schedule->count];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= schedule->count)
            break;
        if (child + 1 < schedule->count &&
            is_before(&schedule->heap[child + 1], &schedule->heap[child]))
            child++;
        if (!is_before(&schedule->heap[child], &last))
            break;
        schedule->heap[at] = schedule->heap[child];
        at = child;
    }
    schedule->heap[at] = last;
    return true;
}

void schedule_destroy(struct sim *sim)
{
    struct event event;

    while (schedule_next(sim, &event)) {
        if (event.type == EVENT_DELIVER)
            message_unref(event.message);
        else if (event.type == EVENT_SNAPSHOT_STORED || event.type == EVENT_SNAPSHOT_RECEIVED)
            blob_unref(event.blob);
    }
    free(sim->schedule.heap);
}
