/* lockfs set: changes settings of a lock. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "settings.h"
#include "tool.h"

static const char help[] =
    "Usage: lockfs set LOCK NAME=VALUE...\n"
    "Changes settings of LOCK, one after the other; the first failure ends it.\n"
    "\n"
    "  limit=N            so many claims may be held at once (1: a mutex), or\n"
    "  limit=unlimited    each file name is a lock of its own\n"
    "  ttl=SECONDS        claims end this long after a crash; for later claims\n"
    "  release=close      a claim made by creating ends with its last descriptor, or\n"
    "  release=exit       with the process that made it; for later claims\n"
    "  delay=SECONDS      so long nobody gets the lock after an unclean end\n"
    "\n"
    "  -h, --help  print this, and exit\n"
    "\n"
    "Exit status: 0 done, 64 wrong usage or value, 66 no such lock, 69 no lockfs or\n"
    "daemon gone, 77 permission denied (a lock's owner and root may).\n";

static bool is_setting(const char *name)
{
    for (size_t i = 0; i < SETTINGS_COUNT; i++) {
        if (strcmp(name, settings_names[i]) == 0)
            return true;
    }
    return false;
}

int set_main(int argc, char *argv[])
{
    static const struct option long_options[] = {{"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    int option = getopt_long(argc, argv, "h", long_options, NULL);
    struct failure failure = {.code = 0};
    struct place place;

    if (option == 'h') {
        fputs(help, stdout);
        return finish_output();
    }
    if (option != -1)
        return usage_error(argv[0]);
    if (optind + 2 > argc) {
        tell("the lock or a setting is missing");
        return usage_error(argv[0]);
    }
    const char *lock = argv[optind++];
    /* All are looked at before the first is set. */
    for (int i = optind; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL || equals[1] == '\0') {
            tell("'%s' is not of the form NAME=VALUE", argv[i]);
            return usage_error(argv[0]);
        }
        *equals = '\0';
        if (!is_setting(argv[i])) {
            tell("there is no setting '%s'", argv[i]);
            return usage_error(argv[0]);
        }
    }
    if (place_find(lock, &place, &failure) != 0)
        return failure_tell(&failure);
    if (place.file[0] != '\0') {
        tell("%s: settings belong to a lock that is a directory", lock);
        return EXIT_NO_LOCK;
    }
    for (int i = optind; i < argc; i++) {
        if (setting_write(&place, argv[i], argv[i] + strlen(argv[i]) + 1, false, &failure) != 0)
            return failure_tell(&failure);
    }
    return 0;
}
