/* lockfs check: is the claim with this number held? */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "tool.h"

static const char help[] =
    "Usage: lockfs check LOCK TOKEN\n"
    "Asks whether the claim of LOCK with the fencing number TOKEN is held. The\n"
    "answer is of the moment when it was asked: advice, not a fence.\n"
    "\n"
    "  -h, --help  print this, and exit\n"
    "\n"
    "Exit status: 0 held, 1 not held, 64 wrong usage, 66 no such lock, 69 no lockfs\n"
    "or daemon gone, 77 permission denied.\n";

int check_main(int argc, char *argv[])
{
    static const struct option long_options[] = {{"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    int option = getopt_long(argc, argv, "h", long_options, NULL);
    struct failure failure = {.code = 0};
    struct place place;
    char path[PATH_MAX];
    uint64_t token;

    if (option == 'h') {
        fputs(help, stdout);
        return finish_output();
    }
    if (option != -1)
        return usage_error(argv[0]);
    if (optind + 2 != argc) {
        tell(optind + 2 > argc ? "the lock or the number is missing" : "too many arguments");
        return usage_error(argv[0]);
    }
    const char *number = argv[optind + 1];
    if (!parse_number(number, &token)) {
        tell("'%s' is not a fencing number", number);
        return usage_error(argv[0]);
    }
    if (place_find(argv[optind], &place, &failure) != 0)
        return failure_tell(&failure);
    if (!place_join(&place, "token", path, sizeof path)) {
        tell("%s: %s", argv[optind], explain(ENAMETOOLONG));
        return EXIT_NO_LOCK;
    }
    int error = write_file(path, number);
    if (error == -ESTALE)
        return EXIT_NOT_HELD;
    if (error != 0) {
        tell("%s: %s", path, explain(-error));
        return exit_code_of(-error);
    }
    return 0;
}
