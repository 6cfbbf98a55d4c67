/* Text for control files, without stdio. Pure. */
#ifndef FS_TEXT_H
#define FS_TEXT_H

#include "command.h"

/* A piece of text that grows; what does not fit is cut off. */
struct text {
    char *data;
    size_t size;
    size_t len;
};

void text_add(struct text *text, struct span span);
void text_string(struct text *text, const char *string);
void text_number(struct text *text, uint64_t number);

/* Milliseconds as seconds, with three digits behind a point where they are not whole. */
void text_seconds(struct text *text, uint64_t ms);

/* Adds a name as one field of a line: what is not printable ASCII, and space and backslash, as
 * backslash and three octal digits (as /proc/self/mountinfo does). */
void text_field(struct text *text, struct span span);

/* Without white space at its ends. */
struct span text_trim(struct span span);

/* Seconds as a decimal number with up to three digits behind a point. False where it is none, or
 * above a hundred years. */
bool text_parse_seconds(struct span span, uint64_t *ret_ms);

/* A decimal number, alone, with white space around it allowed. False where it is none. */
bool text_parse_number(struct span span, uint64_t *ret_number);

#endif
