/* Writes JSON to stdout. See json.h. */
#include "json.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void begin_value(struct json *json, const char *key);
static void print_string(const char *text);

void json_open(struct json *json, const char *key, char bracket)
{
    begin_value(json, key);
    assert(json->depth < JSON_DEPTH_MAX);
    json->has_members[++json->depth] = false;
    putchar(bracket);
}

void json_close(struct json *json, char bracket)
{
    assert(json->depth > 0);
    bool has_members = json->has_members[json->depth--];
    if (has_members)
        printf("\n%*s", 2 * json->depth, "");
    putchar(bracket);
    if (json->depth == 0)
        putchar('\n');
}

void json_null(struct json *json, const char *key)
{
    begin_value(json, key);
    fputs("null", stdout);
}

void json_string(struct json *json, const char *key, const char *value)
{
    begin_value(json, key);
    print_string(value);
}

void json_number_or_string(struct json *json, const char *key, const char *value)
{
    size_t digits = strspn(value, "0123456789");
    bool leading_zero = value[0] == '0' && digits > 1;

    begin_value(json, key);
    if (digits > 0 && value[digits] == '\0' && !leading_zero)
        fputs(value, stdout);
    else
        print_string(value);
}

static void begin_value(struct json *json, const char *key)
{
    if (json->depth > 0) {
        printf(json->has_members[json->depth] ? ",\n%*s" : "\n%*s", 2 * json->depth, "");
        json->has_members[json->depth] = true;
    }
    if (key != NULL) {
        print_string(key);
        fputs(": ", stdout);
    }
}

/* How many bytes the UTF-8 character at `text` has; 0 where it is none. */
static size_t utf8_length(const char *text)
{
    const unsigned char *byte = (const unsigned char *)text;
    size_t length = byte[0] < 0x80 ? 1 : byte[0] < 0xc2 ? 0 : byte[0] < 0xe0 ? 2 : 3;

    if (byte[0] >= 0xf0)
        length = byte[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < length; i++) {
        if ((byte[i] & 0xc0) != 0x80)
            return 0;
    }
    /* Written longer than needed, a surrogate, beyond the last character. */
    if ((byte[0] == 0xe0 && byte[1] < 0xa0) || (byte[0] == 0xed && byte[1] > 0x9f) ||
        (byte[0] == 0xf0 && byte[1] < 0x90) || (byte[0] == 0xf4 && byte[1] > 0x8f))
        return 0;
    return length;
}

static void print_string(const char *text)
{
    putchar('"');
    while (*text != '\0') {
        size_t length = utf8_length(text);
        unsigned char first = (unsigned char)*text;
        if (length == 0) {
            fputs("\xef\xbf\xbd", stdout); /* U+FFFD */
            length = 1;
        } else if (first == '"' || first == '\\') {
            printf("\\%c", first);
        } else if (first < 0x20 || first == 0x7f) {
            printf("\\u%04x", first);
        } else {
            fwrite(text, 1, length, stdout);
        }
        text += length;
    }
    putchar('"');
}
