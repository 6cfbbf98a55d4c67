/*
 * What the daemon tells people: in the foreground a line on stderr, with the time and a level; in
 * the background syslog(3).
 *
 * Names in a message come from anybody who can make a file. Control characters, bytes that are no
 * UTF-8 and characters that change the direction or break of a line are shown as \xNN and a
 * backslash as \\, so that nobody can forge a line.
 */
#ifndef FS_REPORT_H
#define FS_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum report_level {
    REPORT_INFO = 1,
    REPORT_WARNING,
    REPORT_ERROR,
};

/* Where messages go from then on: to stderr at first; while a daemon for the background starts, to
 * both; then to syslog. */
enum report_target {
    REPORT_STDERR = 1,
    REPORT_SYSLOG = 2,
    REPORT_BOTH = REPORT_STDERR | REPORT_SYSLOG,
};

void report_open(enum report_target target);

/* One line each, without a newline at the end. A reader of stderr that does not read delays nobody:
 * what finds no room is left out, an error after a second. */
__attribute__((format(printf, 1, 2))) void report_info(const char *format, ...);
__attribute__((format(printf, 1, 2))) void report_warning(const char *format, ...);
__attribute__((format(printf, 1, 2))) void report_error(const char *format, ...);

/* To whoever typed the command, before the daemon runs: `lockfsd: ...` on stderr. */
__attribute__((format(printf, 1, 2))) void report_answer(const char *format, ...);

/* Of a kind of message that others can cause at will, REPORT_LIMIT_BURST at once and then one each
 * REPORT_LIMIT_REFILL_MS. All zeros is a full one. */
struct report_limit {
    uint32_t spent;
    uint64_t refilled_ms;
    uint64_t left_out;
};

enum { REPORT_LIMIT_BURST = 10, REPORT_LIMIT_REFILL_MS = 6000 };

/* As report_info() and so on. Says how many were left out since the last one, where there are. */
__attribute__((format(printf, 3, 4))) void
report_limited(struct report_limit *limit, enum report_level level, const char *format, ...);

/* Whether one more may pass at `now_ms`; then `ret_left_out` could not since the last that did. */
bool report_limit_take(struct report_limit *limit, uint64_t now_ms, uint64_t *ret_left_out);

/* The text as it is shown, cut with "..." where it does not fit. */
void report_escape(char *buffer, size_t size, const char *text);

#endif
