/* lockfs token: the fencing number of a descriptor that this process has inherited. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "fs/lockfs.h"
#include "tool.h"

static const char help[] =
    "Usage: lockfs token FD\n"
    "Prints the fencing number of the claim that the open descriptor FD has:\n"
    "\n"
    "    command exec 9> /locks/backup/web1 && number=$(lockfs token 9)\n"
    "\n"
    "  -h, --help  print this, and exit\n"
    "\n"
    "Exit status: 0 printed, 64 wrong usage, 66 FD holds nothing, 69 FD is on no\n"
    "lockfs or its daemon is gone, 70 the claim was lost.\n";

int token_main(int argc, char *argv[])
{
    static const struct option long_options[] = {{"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    int option = getopt_long(argc, argv, "h", long_options, NULL);
    uint64_t fd;
    uint64_t token;

    if (option == 'h') {
        fputs(help, stdout);
        return finish_output();
    }
    if (option != -1)
        return usage_error(argv[0]);
    if (optind + 1 != argc) {
        tell(optind == argc ? "the descriptor is missing" : "one descriptor at a time");
        return usage_error(argv[0]);
    }
    if (!parse_number(argv[optind], &fd) || fd > INT_MAX) {
        tell("'%s' is not the number of a descriptor", argv[optind]);
        return usage_error(argv[0]);
    }
    if (ioctl((int)fd, LOCKFS_IOC_TOKEN, &token) != 0) {
        int error = errno;
        if (error == EBADF) {
            tell("descriptor %s is not open", argv[optind]);
            return EXIT_USAGE;
        }
        if (error == EINVAL || error == ENOSYS)
            error = ENOTTY; /* what other filesystems and devices say */
        tell("descriptor %s: %s", argv[optind], explain(error));
        return exit_code_of(error);
    }
    printf("%llu\n", (unsigned long long)token);
    return finish_output();
}
