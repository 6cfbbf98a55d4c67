/* Writes JSON to stdout. The caller says where objects and arrays begin and end. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stdint.h>

/* How many objects and arrays lie in one another, at most. */
#define JSON_DEPTH_MAX 8

struct json {
    int depth;
    bool has_members[JSON_DEPTH_MAX + 1];
};

/* `key` is NULL in an array, and for the outermost value. `bracket` is '{' or '['. */
void json_open(struct json *json, const char *key, char bracket);
void json_close(struct json *json, char bracket);
void json_null(struct json *json, const char *key);
void json_string(struct json *json, const char *key, const char *value);
/* Digits, as many as they are, become a number; anything else a string. */
void json_number_or_string(struct json *json, const char *key, const char *value);

#endif
