/* The controlling terminal of `lockfs run`, which its command uses meanwhile. */
#ifndef TERMINAL_H
#define TERMINAL_H

#include <stdbool.h>
#include <sys/types.h>

struct terminal {
    int fd; /* -1: there is none */
    pid_t home;
    bool lent;
};

void terminal_open(struct terminal *ret_terminal);
/* Makes `group` the foreground group, where we are it. SIGTTOU is blocked. */
void terminal_lend(struct terminal *terminal, pid_t group);
/* Becomes the foreground group again, where we lent it. */
void terminal_take_back(struct terminal *terminal);
void terminal_close(struct terminal *terminal);

#endif
