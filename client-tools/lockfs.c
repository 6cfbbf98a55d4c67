/* lockfs: the tool. It works through the mount alone; each subcommand has a file of its own. */
#include <stdio.h>
#include <string.h>

#include "tool.h"

static const struct command {
    const char *name;
    int (*main)(int argc, char *argv[]);
    const char *summary;
} commands[] = {
    {"run", run_main, "run a command while holding a lock"},
    {"status", status_main, "show a node, or a lock with its holders and waiters"},
    {"token", token_main, "print the fencing number of an open descriptor"},
    {"check", check_main, "ask whether the claim with that number is held"},
    {"release", release_main, "take a claim away from its holder"},
    {"create", create_main, "make a lock, with settings"},
    {"set", set_main, "change the settings of a lock"},
};

static int print_help(void)
{
    printf("Usage: lockfs COMMAND [ARGUMENT...]\n"
           "Works with the locks below a mounted lockfs.\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    printf("\n"
           "  -h, --help     print this, and exit; 'lockfs COMMAND --help' tells more\n"
           "      --version  print the version, and exit\n"
           "\n"
           "Exit status: 0 done, 64 wrong usage, 66 no such lock, 69 no lockfs or daemon\n"
           "gone, 70 the claim was lost, 71 the machine is short of something, 75 held by\n"
           "somebody else, 77 permission denied; run and check have more.\n");
    return finish_output();
}

int main(int argc, char *argv[])
{
    char name[32];

    if (argc < 2) {
        tell("a command is missing");
        return usage_error("lockfs");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return print_help();
    if (strcmp(argv[1], "--version") == 0) {
        puts("lockfs " TOOL_VERSION);
        return finish_output();
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            snprintf(name, sizeof name, "lockfs %s", commands[i].name);
            argv[1] = name; /* so begin the messages of getopt_long() */
            return commands[i].main(argc - 1, argv + 1);
        }
    }
    tell("unknown %s '%s'", argv[1][0] == '-' ? "option" : "command", argv[1]);
    return usage_error("lockfs");
}
