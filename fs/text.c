/* Text for control files. */
#include "text.h"

#include <string.h>

void text_add(struct text *text, struct span span)
{
    size_t room = text->size - text->len;
    size_t len = span.len < room ? span.len : room;
    if (len)
        memcpy(text->data + text->len, span.data, len);
    text->len += len;
}

void text_string(struct text *text, const char *string)
{
    text_add(text, (struct span){string, strlen(string)});
}

void text_number(struct text *text, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    text_add(text, (struct span){digits + at, sizeof digits - at});
}

void text_seconds(struct text *text, uint64_t ms)
{
    text_number(text, ms / 1000);
    if (ms % 1000) {
        char digits[4] = {'.', (char)('0' + ms % 1000 / 100), (char)('0' + ms % 100 / 10),
                          (char)('0' + ms % 10)};
        text_add(text, (struct span){digits, sizeof digits});
    }
}

void text_field(struct text *text, struct span span)
{
    for (size_t i = 0; i < span.len; i++) {
        unsigned char byte = (unsigned char)span.data[i];
        if (byte > ' ' && byte < 0x7f && byte != '\\') {
            text_add(text, (struct span){span.data + i, 1});
        } else {
            char octal[4] = {'\\', (char)('0' + (byte >> 6)), (char)('0' + (byte >> 3 & 7)),
                             (char)('0' + (byte & 7))};
            text_add(text, (struct span){octal, sizeof octal});
        }
    }
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

struct span text_trim(struct span span)
{
    while (span.len && is_space(span.data[span.len - 1]))
        span.len--;
    while (span.len && is_space(*span.data)) {
        span.data++;
        span.len--;
    }
    return span;
}

bool text_parse_number(struct span span, uint64_t *ret_number)
{
    span = text_trim(span);
    if (!span.len)
        return false;
    uint64_t number = 0;
    for (size_t i = 0; i < span.len; i++) {
        unsigned digit = (unsigned)(span.data[i] - '0');
        if (digit > 9 || number > (UINT64_MAX - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *ret_number = number;
    return true;
}

bool text_parse_seconds(struct span span, uint64_t *ret_ms)
{
    const uint64_t seconds_max = UINT64_C(100) * 366 * 24 * 3600;
    span = text_trim(span);
    const char *point = memchr(span.data, '.', span.len);
    struct span whole = {span.data, point ? (size_t)(point - span.data) : span.len};
    uint64_t seconds;
    if (!text_parse_number(whole, &seconds) || seconds > seconds_max)
        return false;
    uint64_t ms = 0;
    if (point) {
        size_t digits = span.len - whole.len - 1;
        if (!digits || digits > 3 || !text_parse_number((struct span){point + 1, digits}, &ms))
            return false;
        for (; digits < 3; digits++)
            ms *= 10;
    }
    *ret_ms = seconds * 1000 + ms;
    return true;
}
