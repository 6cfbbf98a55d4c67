/* What the files of the naive model share. */
#ifndef TESTS_NAIVE_INTERNAL_H
#define TESTS_NAIVE_INTERNAL_H

#include "tests/lib/naive_model.h"

/* naive_model.c: lists, names, files. */

void *naive__allocate(size_t size);
char *naive__copy_name(const char *data, size_t len);
struct span naive__span(const char *name);
void naive__append(struct naive_list *list, void *item);
void naive__remove(struct naive_list *list, const void *item);
void naive__free_claim(struct naive_claim *claim);
void naive__free_delay(struct naive_delay *delay);

/* Whoever claims it or waits for it, or nobody, where it is delayed. */
struct naive_file *naive__find_file(const struct naive_model *model, uint64_t lock,
                                    struct span name);
void naive__need_file(struct naive_model *model, uint64_t lock, const char *name);
/* The content is gone with the last claim, the file itself when nothing needs its name. */
void naive__forget_files(struct naive_model *model);
/* The name of each lock once, and of each file once. */
uint64_t naive__names_bytes(const struct naive_model *model);
bool naive__same_file(const struct naive_claim *claim, uint64_t lock, const char *name);
bool naive__same_handle(const struct naive_claim *claim, uint64_t node, uint64_t handle);
/* The claim by creating that UNLINK and SET_CLAIM name. */
struct naive_claim *naive__named_creator(const struct naive_model *model,
                                         const struct command *command);

/* naive_claims.c: who gets what, and what ends it. */

struct command_result naive__acquire(struct naive_model *model, const struct command *command);
int naive__incarnation(struct naive_model *model, const struct command *command);
void naive__release(struct naive_model *model, const struct command *command);
void naive__unlock(struct naive_model *model, const struct command *command);
int naive__unlink(struct naive_model *model, const struct command *command);
void naive__cancel_claims(struct naive_model *model, const struct command *command);
void naive__end(struct naive_model *model, const struct command *command);
int naive__force(struct naive_model *model, const struct command *command);
void naive__end_delay(struct naive_model *model, const struct command *command);
/* Lets in who waits for the resource of a file, as far as there is room now. */
void naive__let_in(struct naive_model *model, uint64_t lock, const char *name, int64_t stamp_ms);

#endif
