/* lockfsd: reads the command line, goes into the background, runs the loop. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "guard.h"
#include "loop.h"
#include "report.h"

/* The starting shell waits until the mount serves, or learns why it never will. */
struct starter {
    int pipe; /* -1 in the foreground */
};

static void on_ready(void *context)
{
    struct starter *starter = context;
    if (starter->pipe < 0)
        return;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
    }
    report_open(REPORT_SYSLOG);
    char code = EXIT_STOPPED;
    if (write(starter->pipe, &code, 1) != 1)
        report_warning("whoever started the daemon is gone");
    close(starter->pipe);
    starter->pipe = -1;
}

static enum exit_code run_in_background(const struct config *config)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        report_answer("cannot start: %s", strerror(errno));
        return EXIT_CANNOT_START;
    }
    pid_t child = fork();
    if (child < 0) {
        report_answer("cannot start: %s", strerror(errno));
        return EXIT_CANNOT_START;
    }
    if (child > 0) {
        close(ends[1]);
        char code;
        int status;
        if (read(ends[0], &code, 1) == 1)
            return EXIT_STOPPED;
        if (waitpid(child, &status, 0) == child && WIFEXITED(status))
            return (enum exit_code)WEXITSTATUS(status);
        report_answer("the daemon died while it was starting");
        return EXIT_CANNOT_START;
    }
    close(ends[0]);
    setsid();
    if (chdir("/") < 0)
        report_warning("cannot change to /: %s", strerror(errno));
    report_open(REPORT_BOTH);
    struct starter starter = {ends[1]};
    return loop_run(config, on_ready, &starter);
}

static enum exit_code remove_guard(const struct config *config)
{
    char message[512];
    int error = guard_remove(config->mount_point, message, sizeof message);
    if (message[0])
        report_answer("%s", message);
    return error ? EXIT_FAILED : EXIT_STOPPED;
}

/* A descriptor that the daemon opens must not become its standard input or output. */
static bool open_standard_files(void)
{
    int file;
    do
        file = open("/dev/null", O_RDWR);
    while (file >= 0 && file <= STDERR_FILENO);
    if (file < 0)
        return false;
    close(file);
    return true;
}

static enum exit_code print(const char *text)
{
    if (fputs(text, stdout) == EOF || fflush(stdout) == EOF) {
        report_answer("cannot write to standard output: %s", strerror(errno));
        return EXIT_FAILED;
    }
    return EXIT_STOPPED;
}

int main(int argc, char *argv[])
{
    static struct config config;
    char message[512];
    struct starter foreground = {-1};
    if (!open_standard_files())
        return EXIT_CANNOT_START;
    switch (config_parse(argc, argv, &config, message, sizeof message)) {
    case CONFIG_RUN:
        return config.foreground ? loop_run(&config, on_ready, &foreground)
                                 : run_in_background(&config);
    case CONFIG_REMOVE_GUARD:
        return remove_guard(&config);
    case CONFIG_HELP:
        return print(config_help());
    case CONFIG_VERSION:
        return print(config_version());
    case CONFIG_USAGE_ERROR:
        report_answer("%s", message);
        fputs("try 'lockfsd --help'\n", stderr);
        return EXIT_USAGE;
    }
    return EXIT_USAGE;
}
