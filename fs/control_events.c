/* The ring of events, and how an event is written as a line of JSON. */
#include "control_events.h"

#include <assert.h>
#include <string.h>

void events_layout(struct events *events, struct arena *arena)
{
    events->ring = arena_take(arena, LIMIT_EVENTS_BYTES);
    events->line = arena_take(arena, LIMIT_CONTROL_LINE_BYTES);
}

/* The event as JSON. Every grant and release comes by here, and a line always has room: so the
 * bytes are written where they belong, without a look at the end. */

#define PUT(at, literal) ((char *)memcpy(at, literal, sizeof(literal) - 1) + sizeof(literal) - 1)

static char *put_word(char *at, const char *word)
{
    while (*word)
        *at++ = *word++;
    return at;
}

static char *put_number(char *at, uint64_t number)
{
    char digits[20];
    size_t first = sizeof digits;
    do {
        digits[--first] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (first < sizeof digits)
        *at++ = digits[first++];
    return at;
}

/* Seconds, with three digits behind the point. */
static char *put_time(char *at, int64_t time_ms)
{
    uint64_t ms = time_ms > 0 ? (uint64_t)time_ms : 0;
    at = put_number(at, ms / 1000);
    *at++ = '.';
    *at++ = (char)('0' + ms % 1000 / 100);
    *at++ = (char)('0' + ms % 100 / 10);
    *at++ = (char)('0' + ms % 10);
    return at;
}

/* In the form that it has in `holders`, see text_field(), so that all bytes survive whatever they
 * are; of that form, only backslashes and quotes are not themselves in JSON. */
static char *put_string(char *at, struct span span)
{
    *at++ = '"';
    for (size_t i = 0; i < span.len; i++) {
        unsigned char byte = (unsigned char)span.data[i];
        if (byte > ' ' && byte < 0x7f && byte != '\\' && byte != '"') {
            *at++ = (char)byte;
        } else if (byte == '"') {
            at = PUT(at, "\\\"");
        } else {
            at = PUT(at, "\\\\");
            *at++ = (char)('0' + (byte >> 6));
            *at++ = (char)('0' + (byte >> 3 & 7));
            *at++ = (char)('0' + (byte & 7));
        }
    }
    *at++ = '"';
    return at;
}

/* Of some requests only the number of the process is known. */
static char *put_comm(char *at, const char *key, const struct process *process)
{
    if (!process->comm[0])
        return at;
    at = put_word(at, key);
    return put_string(at, (struct span){process->comm, strlen(process->comm)});
}

static char *put_actor(char *at, const struct event_actor *actor)
{
    at = PUT(at, ",\"pid\":");
    at = put_number(at, actor->process->pid);
    at = PUT(at, ",\"uid\":");
    at = put_number(at, actor->uid);
    return put_comm(at, ",\"comm\":", actor->process);
}

static char *put_by(char *at, const struct event_actor *actor)
{
    at = PUT(at, ",\"by_pid\":");
    at = put_number(at, actor->process->pid);
    at = PUT(at, ",\"by_uid\":");
    at = put_number(at, actor->uid);
    return put_comm(at, ",\"by_comm\":", actor->process);
}

static char *put_claim(char *at, const struct event *event)
{
    switch (event->kind) {
    case CLAIM_CREATE:
        at = PUT(at, ",\"kind\":\"create\"");
        break;
    case CLAIM_FLOCK:
        at = PUT(at, ",\"kind\":\"flock\"");
        break;
    case CLAIM_FCNTL:
        at = PUT(at, ",\"kind\":\"fcntl\"");
        break;
    }
    return event->claim_mode == CLAIM_SHARED ? PUT(at, ",\"mode\":\"shared\"")
                                             : PUT(at, ",\"mode\":\"exclusive\"");
}

/* Writes the line to `from`, and returns where it ends. */
static char *put_event(char *from, const struct event *event)
{
    char *at = PUT(from, "{\"time\":");
    at = put_time(at, event->time_ms);
    at = PUT(at, ",\"index\":");
    at = put_number(at, event->index);
    at = PUT(at, ",\"event\":\"");
    at = put_word(at, event->what);
    *at++ = '"';
    if (event->lock.len) {
        at = PUT(at, ",\"lock\":");
        at = put_string(at, event->lock);
    }
    if (event->file.len) {
        at = PUT(at, ",\"file\":");
        at = put_string(at, event->file);
    }
    if (event->token) {
        at = PUT(at, ",\"token\":");
        at = put_number(at, event->token);
    }
    if (event->kind)
        at = put_claim(at, event);
    if (event->cause) {
        at = PUT(at, ",\"cause\":\"");
        at = put_word(at, event->cause);
        *at++ = '"';
    }
    if (event->setting) {
        at = PUT(at, ",\"setting\":\"");
        at = put_word(at, event->setting);
        *at++ = '"';
    }
    if (event->value.len) {
        at = PUT(at, ",\"value\":");
        at = put_string(at, event->value);
    }
    if (event->node) {
        at = PUT(at, ",\"node\":");
        at = put_number(at, event->node);
    }
    if (event->actor.process)
        at = put_actor(at, &event->actor);
    if (event->by.process)
        at = put_by(at, &event->by);
    return PUT(at, "}\n");
}

/* The ring */

static size_t at(uint64_t position)
{
    return (size_t)(position % LIMIT_EVENTS_BYTES);
}

/* Where the line ends that `position` is in. */
static uint64_t end_of_line(const struct events *events, uint64_t position)
{
    while (position < events->end) {
        uint64_t left = events->end - position;
        size_t run = LIMIT_EVENTS_BYTES - at(position);
        const char *from = events->ring + at(position);
        const char *newline = memchr(from, '\n', left < run ? (size_t)left : run);
        if (newline)
            return position + (uint64_t)(newline - from) + 1;
        position += left < run ? left : run;
    }
    return events->end;
}

void events_add(struct events *events, const struct event *event)
{
    assert(event->lock.len + event->file.len <= (LIMIT_DEPTH + 1) * (LIMIT_NAME_BYTES + 1) &&
           event->value.len <= EVENT_VALUE_BYTES);
    size_t len = (size_t)(put_event(events->line, event) - events->line);
    assert(len <= LIMIT_CONTROL_LINE_BYTES);
    while (events->end + len - events->begin > LIMIT_EVENTS_BYTES)
        events->begin = end_of_line(events, events->begin);

    size_t from = at(events->end);
    size_t run = LIMIT_EVENTS_BYTES - from < len ? LIMIT_EVENTS_BYTES - from : len;
    memcpy(events->ring + from, events->line, run);
    memcpy(events->ring, events->line + run, len - run);
    events->end += len;
    events->count++;
    events->last_ms = event->time_ms;
}

static size_t copy(const struct events *events, uint64_t *position, uint64_t end, char *buffer)
{
    size_t copied = 0;
    while (*position < end) {
        uint64_t left = end - *position;
        size_t run = LIMIT_EVENTS_BYTES - at(*position);
        if (run > left)
            run = (size_t)left;
        memcpy(buffer + copied, events->ring + at(*position), run);
        copied += run;
        *position += run;
    }
    return copied;
}

size_t events_read(const struct events *events, uint64_t *position, char *buffer, size_t size)
{
    if (*position < events->begin)
        *position = events->begin;
    if (*position >= events->end)
        return 0;
    uint64_t left = events->end - *position;
    return copy(events, position, *position + (left < size ? left : size), buffer);
}

size_t events_read_rest(const struct events *events, uint64_t *position, char *buffer)
{
    bool inside = *position > events->begin && *position < events->end &&
                  events->ring[at(*position - 1)] != '\n';
    return inside ? copy(events, position, end_of_line(events, *position), buffer) : 0;
}
