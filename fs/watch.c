/* Processes that are waited for. */
#include "watch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process.h"

enum { LOOK_EVERY_MS = 1000 };

struct watch {
    struct watches *owner;
    struct watch *next;
    struct process process;
    int file; /* a pidfd; -1: the process is looked at by the timer */
    uv_poll_t poll;
};

struct watches {
    uv_timer_t timer;
    watch_handler *handler;
    void *context;
    struct watch *list;
};

int watches_open(uv_loop_t *loop, watch_handler *handler, void *context,
                 struct watches **ret_watches)
{
    struct watches *watches = calloc(1, sizeof *watches);
    if (watches == NULL)
        return -ENOMEM;
    watches->handler = handler;
    watches->context = context;
    uv_timer_init(loop, &watches->timer);
    watches->timer.data = watches;
    *ret_watches = watches;
    return 0;
}

static void free_watch(uv_handle_t *handle)
{
    struct watch *watch = handle->data;
    close(watch->file);
    free(watch);
}

static void drop(struct watch *watch)
{
    if (watch->file >= 0)
        uv_close((uv_handle_t *)&watch->poll, free_watch);
    else
        free(watch);
}

static void unlink_watch(struct watch *watch)
{
    struct watch **place = &watch->owner->list;
    while (*place != watch)
        place = &(*place)->next;
    *place = watch->next;
}

static void ended(struct watch *watch)
{
    struct watches *watches = watch->owner;
    struct process process = watch->process;
    unlink_watch(watch);
    drop(watch);
    watches->handler(watches->context, &process);
}

static void on_pidfd(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    ended(poll->data);
}

static void on_timer(uv_timer_t *timer)
{
    struct watches *watches = timer->data;
    bool more = false;
    for (struct watch *watch = watches->list; watch != NULL;) {
        struct watch *next = watch->next;
        if (watch->file < 0 && !process_alive(watch->process.pid, watch->process.start))
            ended(watch);
        else if (watch->file < 0)
            more = true;
        watch = next;
    }
    if (!more)
        uv_timer_stop(timer);
}

static bool is_watched(const struct watches *watches, const struct process *process)
{
    for (const struct watch *watch = watches->list; watch != NULL; watch = watch->next)
        if (watch->process.pid == process->pid && watch->process.start == process->start)
            return true;
    return false;
}

int watches_add(struct watches *watches, const struct process *process)
{
    if (is_watched(watches, process))
        return 0;
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return -ENOMEM;
    watch->owner = watches;
    watch->process = *process;
    watch->file = (int)syscall(SYS_pidfd_open, (pid_t)process->pid, 0);
    /* The descriptor may be that of another process, if ours has ended. */
    if (watch->file >= 0 && !process_alive(process->pid, process->start)) {
        close(watch->file);
        watch->file = -1;
    }
    watch->next = watches->list;
    watches->list = watch;
    if (watch->file < 0) {
        /* At once, if it has ended; then now and again. */
        uv_timer_start(&watches->timer, on_timer, 0, LOOK_EVERY_MS);
        return 0;
    }
    uv_poll_init(watches->timer.loop, &watch->poll, watch->file);
    watch->poll.data = watch;
    int error = uv_poll_start(&watch->poll, UV_READABLE, on_pidfd);
    assert(error == 0);
    return 0;
}

static void free_watches(uv_handle_t *handle)
{
    free(handle->data);
}

void watches_close(struct watches *watches)
{
    if (watches == NULL)
        return;
    while (watches->list != NULL) {
        struct watch *watch = watches->list;
        watches->list = watch->next;
        drop(watch);
    }
    uv_close((uv_handle_t *)&watches->timer, free_watches);
}
