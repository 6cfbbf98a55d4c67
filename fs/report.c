/* What the daemon tells people. See report.h. */
#include "report.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

/* Of one message, before its escapes and with them: a path as long as paths get has room. */
#define MESSAGE_BYTES 6144
#define LINE_BYTES    16384

/* How long an error waits for a stderr that nobody reads. */
#define ERROR_WAIT_MS 1000

/* The one thing that belongs to the whole program: where its messages go. */
static enum report_target targets = REPORT_STDERR;

void report_open(enum report_target target)
{
    if ((target & REPORT_SYSLOG) && !(targets & REPORT_SYSLOG))
        openlog("lockfsd", LOG_PID | LOG_NDELAY, LOG_DAEMON);
    targets = target;
}

__attribute__((format(printf, 2, 0))) static void report_list(enum report_level level,
                                                              const char *format, va_list args);

void report_info(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    report_list(REPORT_INFO, format, args);
    va_end(args);
}

void report_warning(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    report_list(REPORT_WARNING, format, args);
    va_end(args);
}

void report_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    report_list(REPORT_ERROR, format, args);
    va_end(args);
}

static void deliver(enum report_level level, const char *message);

static void report_list(enum report_level level, const char *format, va_list args)
{
    char message[MESSAGE_BYTES];

    vsnprintf(message, sizeof message, format, args);
    deliver(level, message);
}

static size_t put_time(char *buffer, size_t size);
static void write_line(char *line, size_t prefix, const char *message, int wait_ms);

static void deliver(enum report_level level, const char *message)
{
    static const char *const names[] = {
        [REPORT_INFO] = "info", [REPORT_WARNING] = "warning", [REPORT_ERROR] = "error"};
    static const int priorities[] = {
        [REPORT_INFO] = LOG_INFO, [REPORT_WARNING] = LOG_WARNING, [REPORT_ERROR] = LOG_ERR};
    char line[LINE_BYTES];

    assert(level >= REPORT_INFO && level <= REPORT_ERROR);
    if (targets & REPORT_SYSLOG) {
        report_escape(line, sizeof line, message);
        syslog(priorities[level], "%s", line);
    }
    if (!(targets & REPORT_STDERR))
        return;
    size_t prefix = put_time(line, sizeof line);
    prefix += (size_t)snprintf(line + prefix, sizeof line - prefix, " %s: ", names[level]);
    write_line(line, prefix, message, level == REPORT_ERROR ? ERROR_WAIT_MS : 0);
}

/* 2026-01-31T23:59:59.123+01:00 */
static size_t put_time(char *buffer, size_t size)
{
    struct timespec now;
    struct tm local;
    char zone[8];

    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    size_t len = strftime(buffer, size, "%Y-%m-%dT%H:%M:%S", &local);
    strftime(zone, sizeof zone, "%z", &local);
    len += (size_t)snprintf(buffer + len, size - len, ".%03d%.3s:%.2s",
                            (int)(now.tv_nsec / 1000000), zone, zone + 3);
    return len;
}

/* `line` is of LINE_BYTES and begins with `prefix` bytes. In one write, so that lines of several
 * daemons do not mix. */
static void write_line(char *line, size_t prefix, const char *message, int wait_ms)
{
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};

    report_escape(line + prefix, LINE_BYTES - prefix - 1, message);
    size_t len = strlen(line);
    line[len++] = '\n';
    if (poll(&out, 1, wait_ms) != 1)
        return;
    for (size_t done = 0; done < len;) {
        ssize_t got = write(STDERR_FILENO, line + done, len - done);
        if (got < 0 && errno != EINTR)
            return; /* there is nobody left to tell */
        if (got > 0)
            done += (size_t)got;
    }
}

void report_answer(const char *format, ...)
{
    char message[MESSAGE_BYTES];
    char line[LINE_BYTES] = "lockfsd: ";
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    write_line(line, strlen(line), message, ERROR_WAIT_MS);
}

void report_limited(struct report_limit *limit, enum report_level level, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    char note[64] = "";
    struct timespec now;
    uint64_t left_out;
    va_list args;

    clock_gettime(CLOCK_BOOTTIME, &now);
    uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    if (!report_limit_take(limit, now_ms, &left_out))
        return;
    if (left_out > 0)
        snprintf(note, sizeof note, " (%llu more like this were left out)",
                 (unsigned long long)left_out);
    size_t room = sizeof message - strlen(note);
    va_start(args, format);
    vsnprintf(message, room, format, args);
    va_end(args);
    strcat(message, note);
    deliver(level, message);
}

bool report_limit_take(struct report_limit *limit, uint64_t now_ms, uint64_t *ret_left_out)
{
    uint64_t refill = (now_ms - limit->refilled_ms) / REPORT_LIMIT_REFILL_MS;

    if (refill >= limit->spent) {
        limit->spent = 0;
        limit->refilled_ms = now_ms;
    } else {
        limit->spent -= (uint32_t)refill;
        limit->refilled_ms += refill * REPORT_LIMIT_REFILL_MS;
    }
    if (limit->spent == REPORT_LIMIT_BURST) {
        limit->left_out++;
        return false;
    }
    limit->spent++;
    *ret_left_out = limit->left_out;
    limit->left_out = 0;
    return true;
}

static size_t utf8_length(const unsigned char *bytes, uint32_t *ret_character);
static bool printable(uint32_t character);

void report_escape(char *buffer, size_t size, const char *text)
{
    static const char cut[] = "...";
    const unsigned char *from = (const unsigned char *)text;
    size_t len = 0;
    size_t fits = 0; /* as much as leaves room for `cut` */

    assert(size >= sizeof cut);
    while (*from != '\0') {
        uint32_t character = 0;
        char shown[20] = "";
        size_t taken = utf8_length(from, &character);
        size_t shown_len = 0;
        if (character == '\\') {
            strcpy(shown, "\\\\");
            shown_len = 2;
        } else if (taken > 0 && printable(character)) {
            memcpy(shown, from, taken);
            shown_len = taken;
        } else {
            taken = taken > 0 ? taken : 1;
            for (size_t i = 0; i < taken; i++)
                shown_len += (size_t)sprintf(shown + shown_len, "\\x%02x", (unsigned)from[i]);
        }
        if (len + shown_len >= size) {
            memcpy(buffer + fits, cut, sizeof cut);
            return;
        }
        memcpy(buffer + len, shown, shown_len);
        len += shown_len;
        if (len + sizeof cut <= size)
            fits = len;
        from += taken;
    }
    buffer[len] = '\0';
}

/* Bytes of the character, 0 where it is no UTF-8: too long a form, a surrogate, beyond the last. */
static size_t utf8_length(const unsigned char *bytes, uint32_t *ret_character)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = bytes[0] < 0x80             ? 1
                 : (bytes[0] & 0xe0) == 0xc0 ? 2
                 : (bytes[0] & 0xf0) == 0xe0 ? 3
                 : (bytes[0] & 0xf8) == 0xf0 ? 4
                                             : 0;
    if (len == 0)
        return 0;
    uint32_t character = len == 1 ? bytes[0] : bytes[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        character = character << 6 | (bytes[i] & 0x3fu);
    }
    if (character < least[len] || character > 0x10ffff ||
        (character >= 0xd800 && character <= 0xdfff))
        return 0;
    *ret_character = character;
    return len;
}

/* No control character, and none that breaks a line or turns its direction. */
static bool printable(uint32_t character)
{
    if (character < 0x20 || (character >= 0x7f && character < 0xa0))
        return false;
    return character != 0x061c && character != 0xfeff &&
           !(character >= 0x200e && character <= 0x200f) &&
           !(character >= 0x2028 && character <= 0x202e) &&
           !(character >= 0x2066 && character <= 0x2069);
}
