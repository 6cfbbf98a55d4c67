/* A small TAP producer for the tests in C: plain lines that prove(1) reads. */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static int tap__count;
static int tap__failed;

/* One test point. Returns `ok`, so that a caller can give up. */
__attribute__((format(printf, 2, 3), unused)) static bool tap_ok(bool ok, const char *format, ...)
{
    va_list args;
    tap__count++;
    if (!ok)
        tap__failed++;
    printf("%sok %d - ", ok ? "" : "not ", tap__count);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    return ok;
}

/* A comment line. */
__attribute__((format(printf, 1, 2), unused)) static void tap_note(const char *format, ...)
{
    va_list args;
    printf("# ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
}

/* Equality of two integers, both sides printed where they differ. */
#define tap_equal(actual, expected, ...)                                                           \
    do {                                                                                           \
        long long tap__a = (long long)(actual);                                                    \
        long long tap__e = (long long)(expected);                                                  \
        if (!tap_ok(tap__a == tap__e, __VA_ARGS__))                                                \
            tap_note("%s:%d: got %lld, expected %lld", __FILE__, __LINE__, tap__a, tap__e);        \
    } while (0)

/* The last call of main(): prints the plan, returns the exit status. */
__attribute__((unused)) static int tap_done(void)
{
    printf("1..%d\n", tap__count);
    return tap__failed ? 1 : 0;
}

#endif
