/* The controlling terminal of `lockfs run`. See terminal.h. */
#include "terminal.h"

#include <fcntl.h>
#include <unistd.h>

void terminal_open(struct terminal *ret_terminal)
{
    *ret_terminal = (struct terminal){
        .fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK),
        .home = getpgrp(),
    };
}

void terminal_lend(struct terminal *terminal, pid_t group)
{
    if (terminal->fd >= 0 && tcgetpgrp(terminal->fd) == terminal->home)
        terminal->lent = tcsetpgrp(terminal->fd, group) == 0;
}

void terminal_take_back(struct terminal *terminal)
{
    if (terminal->lent)
        tcsetpgrp(terminal->fd, terminal->home);
    terminal->lent = false;
}

void terminal_close(struct terminal *terminal)
{
    if (terminal->fd >= 0)
        close(terminal->fd);
    terminal->fd = -1;
}
