/*
 * lockfs run: runs a command while it holds a lock.
 *
 * This process starts the command, in a process group of its own, passes signals and the terminal
 * on to it, and tells its exit status. The keeper holds the lock, and ends the command when the
 * claim is lost: see keeper.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"
#include "terminal.h"
#include "tool.h"

static const char help[] =
    "Usage: lockfs run [options] LOCK -- COMMAND [ARGUMENT...]\n"
    "Runs COMMAND while it holds LOCK, and ends it when the claim is lost. LOCK is a\n"
    "lock's directory, or a lockfile in the root of the mount, which need not exist.\n"
    "\n"
    "      --try              do not wait\n"
    "      --timeout SECONDS  wait so long at most\n"
    "      --shared           share the lock with others that do\n"
    "      --name NAME        the claim's file in LOCK (default: HOST.PID)\n"
    "  -h, --help             print this, and exit\n"
    "\n"
    "COMMAND finds the fencing number in LOCKFS_TOKEN, and the lock's path in\n"
    "LOCKFS_LOCK. It gets SIGTERM when a third of the lease is left unrenewed, and\n"
    "SIGKILL before the lease ends; when the claim is lost for good, SIGTERM at once\n"
    "and SIGKILL a second later. What it leaves running when it ends has no lock.\n"
    "\n"
    "Exit status: that of COMMAND (128 + N when signal N ended it), or\n"
    "  64 wrong usage               71 the machine is short of something\n"
    "  66 no such lock              75 not acquired (--try, --timeout)\n"
    "  69 no lockfs, daemon gone    77 permission denied\n"
    "  70 the claim was lost        126, 127 COMMAND cannot be executed, not found\n";

/* How long the daemon may take for what does not wait for the lock: longer than its --op-timeout,
 * as a rule. A shorter --timeout shortens it, though not so far that a busy machine looks like a
 * daemon that hangs. */
#define ANSWER_MS     15000
#define ANSWER_MS_MIN 2000
/* How long a process gets to be gone after SIGKILL. */
#define KILLED_MS 5000

enum wait_limit {
    WAIT_FOREVER = -1,
    WAIT_NOT = 0,
};

struct options {
    const char *lock;
    const char *name; /* NULL: made up */
    char **command;
    int64_t wait_ms; /* or enum wait_limit */
    bool shared;
};

struct run {
    struct options options;
    sigset_t caught; /* the signals that we read from `signals` */
    sigset_t mask_before;
    struct sigaction sigchld_before;
    int signals;
    struct keeper keeper;
    struct terminal terminal;
    struct place place;
    uint64_t token;
    int64_t lease_ms;
    pid_t child; /* and its group */
    int status;  /* of the child, as wait(2) has it */
    bool lost;
    bool passed_interrupt; /* a SIGINT that was for us, not of the terminal */
};

static int parse(int argc, char *argv[], struct options *ret_options);
static void catch_signals(struct run *run);
static int acquire(struct run *run);
static int start_child(struct run *run);
static void wait_for_child(struct run *run);
static void wait_for_release(struct run *run);
static int exit_status(struct run *run);

int run_main(int argc, char *argv[])
{
    struct run run = {.child = -1};
    int code = parse(argc, argv, &run.options);

    if (code >= 0)
        return code;
    catch_signals(&run);
    code = acquire(&run);
    if (code != 0)
        return code;
    terminal_open(&run.terminal);
    code = start_child(&run);
    if (code != 0)
        return code; /* the keeper sees our end, and releases */
    wait_for_child(&run);
    wait_for_release(&run);
    return exit_status(&run);
}

/* Returns the exit code, or -1 to go on. */
static int parse(int argc, char *argv[], struct options *ret_options)
{
    enum { OPTION_TRY = 256, OPTION_TIMEOUT, OPTION_SHARED, OPTION_NAME };
    static const struct option long_options[] = {
        {"try", no_argument, NULL, OPTION_TRY},
        {"timeout", required_argument, NULL, OPTION_TIMEOUT},
        {"shared", no_argument, NULL, OPTION_SHARED},
        {"name", required_argument, NULL, OPTION_NAME},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.wait_ms = WAIT_FOREVER};
    int option;

    while ((option = getopt_long(argc, argv, "+h", long_options, NULL)) != -1) {
        switch (option) {
        case OPTION_TRY:
            options.wait_ms = WAIT_NOT;
            break;
        case OPTION_TIMEOUT:
            if (!parse_seconds(optarg, &options.wait_ms)) {
                tell("--timeout: '%s' is not a number of seconds, such as 10 or 2.5", optarg);
                return usage_error(argv[0]);
            }
            break;
        case OPTION_SHARED:
            options.shared = true;
            break;
        case OPTION_NAME:
            options.name = optarg;
            if (optarg[0] == '\0' || strchr(optarg, '/') != NULL || strlen(optarg) > NAME_MAX) {
                tell("--name: '%s' is no name for a file", optarg);
                return usage_error(argv[0]);
            }
            break;
        case 'h':
            fputs(help, stdout);
            return finish_output();
        default:
            return usage_error(argv[0]);
        }
    }
    if (optind == argc) {
        tell("the lock is missing");
        return usage_error(argv[0]);
    }
    options.lock = argv[optind++];
    if (optind < argc && strcmp(argv[optind], "--") == 0) {
        optind++;
    } else if (optind < argc && argv[optind][0] == '-') {
        tell("options stand before the lock, and '--' before the command: '%s'", argv[optind]);
        return usage_error(argv[0]);
    }
    if (optind == argc) {
        tell("the command is missing");
        return usage_error(argv[0]);
    }
    options.command = argv + optind;
    *ret_options = options;
    return -1;
}

/* What is passed on; the first ones end us while there is no child yet. */
static const int passed_on[] = {SIGTERM, SIGINT,  SIGHUP,   SIGQUIT, SIGUSR1,
                                SIGUSR2, SIGCONT, SIGWINCH, SIGTSTP};
enum { PASSED_ON_COUNT = sizeof passed_on / sizeof *passed_on, ENDING_COUNT = 6 };

static void catch_signals(struct run *run)
{
    struct sigaction action;
    sigset_t blocked;

    sigemptyset(&run->caught);
    for (size_t i = 0; i < PASSED_ON_COUNT; i++) {
        /* What our caller wants us to ignore (nohup) the command ignores, too. */
        sigaction(passed_on[i], NULL, &action);
        if (action.sa_handler != SIG_IGN)
            sigaddset(&run->caught, passed_on[i]);
    }
    sigaddset(&run->caught, SIGCHLD);
    action = (struct sigaction){.sa_handler = SIG_DFL};
    sigaction(SIGCHLD, &action, &run->sigchld_before);
    blocked = run->caught;
    sigaddset(&blocked, SIGTTOU); /* so that we can hand the terminal over from the background */
    sigprocmask(SIG_BLOCK, &blocked, &run->mask_before);
    run->signals = signalfd(-1, &run->caught, SFD_CLOEXEC | SFD_NONBLOCK);
    if (run->signals < 0) {
        tell("signalfd: %s", strerror(errno));
        exit(EXIT_SYSTEM);
    }
}

static int64_t now_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* The time left until `end_ms`, for poll(2). */
static int timeout_until(int64_t end_ms)
{
    int64_t left_ms = end_ms - now_ms();

    if (end_ms == INT64_MAX)
        return -1;
    return left_ms < 0 ? 0 : left_ms < INT_MAX ? (int)left_ms : INT_MAX;
}

/* The next signal that came, 0 for none. */
static int take_signal(const struct run *run)
{
    struct signalfd_siginfo info;

    return read(run->signals, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

static void stop_keeper(struct run *run);
static void stop_ourselves(void);
static _Noreturn void end_by_signal(int number);

/* Signals that come while there is no child yet. */
static void obey_signals(struct run *run)
{
    int number;

    while ((number = take_signal(run)) != 0) {
        if (number == SIGTSTP)
            stop_ourselves();
        for (size_t i = 0; i < ENDING_COUNT; i++) {
            if (number == passed_on[i]) {
                stop_keeper(run);
                end_by_signal(number);
            }
        }
    }
}

/* The keeper's next message. False when it does not come in time, or the keeper has ended. */
static bool next_message(struct run *run, int64_t end_ms, struct keeper_message *ret_message)
{
    struct pollfd waits[] = {
        {.fd = run->keeper.socket, .events = POLLIN},
        {.fd = run->signals, .events = POLLIN},
    };

    for (;;) {
        obey_signals(run);
        int got = keeper_receive(&run->keeper, ret_message);
        if (got != 0)
            return got > 0;
        if (now_ms() >= end_ms)
            return false;
        poll(waits, 2, timeout_until(end_ms));
    }
}

static int open_claim(struct run *run, int *ret_fd, struct failure *ret_failure);
static int give_up(struct run *run, const struct failure *failure);

static int acquire(struct run *run)
{
    const struct options *options = &run->options;
    int how = options->shared ? LOCK_SH : LOCK_EX;
    int64_t start_ms = now_ms();
    struct keeper_message message;
    struct failure failure = {.code = 0};
    int fd = -1;

    int error =
        keeper_start(&run->keeper, options->lock, options->wait_ms == 0 ? how | LOCK_NB : how);
    if (error != 0) {
        tell("cannot make a process: %s", strerror(-error));
        return EXIT_SYSTEM;
    }
    int64_t answer_end_ms = start_ms + ANSWER_MS;
    if (options->wait_ms > 0 && options->wait_ms < ANSWER_MS)
        answer_end_ms =
            start_ms + (options->wait_ms > ANSWER_MS_MIN ? options->wait_ms : ANSWER_MS_MIN);
    int64_t end_ms = options->wait_ms < 0    ? INT64_MAX
                     : options->wait_ms == 0 ? answer_end_ms
                                             : start_ms + options->wait_ms;
    fail(&failure, EXIT_UNAVAILABLE, "%s: lockfsd does not answer", options->lock);

    if (!next_message(run, answer_end_ms, &message))
        return give_up(run, &failure);
    if (message.news != KEEPER_FOUND)
        return give_up(run, &message.failure);
    run->place = message.place;
    /* That this process opens the file makes COMMAND a relative of the claim, whose reads of
     * `token` tell its own number. The mount has just answered the keeper. */
    if (open_claim(run, &fd, &failure) != 0)
        return give_up(run, &failure);
    bool sent = keeper_lock(&run->keeper, fd);
    close(fd);
    if (!sent || !next_message(run, answer_end_ms, &message))
        return give_up(run, &failure);
    if (message.news == KEEPER_WAITS) {
        if (options->wait_ms > 0)
            fail(&failure, EXIT_NOT_ACQUIRED, "%s: not acquired in time", options->lock);
        if (!next_message(run, end_ms, &message))
            return give_up(run, &failure);
    }
    if (message.news != KEEPER_GRANTED)
        return give_up(run, &message.failure);
    run->token = message.token;
    run->lease_ms = message.lease_ms;
    return 0;
}

static int open_claim(struct run *run, int *ret_fd, struct failure *ret_failure)
{
    struct place *place = &run->place;
    char path[PATH_MAX];
    char host[HOST_NAME_MAX + 1] = "host";

    if (place->file[0] == '\0' && place->unlimited)
        return fail(ret_failure, EXIT_NO_LOCK,
                    "%s: each file in it is a lock of its own; name one, which need not exist",
                    run->options.lock);
    if (place->file[0] != '\0' && run->options.name != NULL)
        return fail(ret_failure, EXIT_USAGE, "--name is for a lock that is a directory, not for %s",
                    run->options.lock);
    if (place->file[0] != '\0') {
        strcpy(host, "");
    } else if (run->options.name != NULL) {
        strcpy(place->file, run->options.name);
    } else {
        gethostname(host, sizeof host - 1);
        for (char *c = host; *c != '\0'; c++)
            *c = *c == '/' ? '_' : *c;
        snprintf(place->file, sizeof place->file, "%s.%d", host[0] == '.' ? "host" : host,
                 (int)getpid());
    }
    if (place_is_reserved(place))
        return fail(ret_failure, run->options.name != NULL ? EXIT_USAGE : EXIT_NO_LOCK,
                    "%s: the name '%s' is reserved, see lockfs(5)", run->options.lock, place->file);
    if (!place_join(place, place->file, path, sizeof path))
        return fail(ret_failure, EXIT_NO_LOCK, "%s: %s", run->options.lock, explain(ENAMETOOLONG));
    int flags = O_CREAT | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW;
    int fd = open(path, flags | O_RDWR, 0666);
    if (fd < 0 && errno == EACCES)
        fd = open(path, flags | O_RDONLY, 0666); /* another user holds it: one may wait */
    if (fd < 0)
        return fail(ret_failure, exit_code_of(errno), "%s: %s", path, explain(errno));
    *ret_fd = fd;
    return 0;
}

/* Ends the keeper, whatever it waits for: what it has asked for, or got, ends with it. */
static int give_up(struct run *run, const struct failure *failure)
{
    struct failure own = *failure;

    stop_keeper(run);
    return failure_tell(&own);
}

static bool keeper_ended(struct run *run, int64_t end_ms);

static void stop_keeper(struct run *run)
{
    kill(run->keeper.pid, SIGKILL);
    keeper_ended(run, now_ms() + 1000); /* it may hang in the mount */
}

/* Waits until the keeper has ended, and so let go of the lock. */
static bool keeper_ended(struct run *run, int64_t end_ms)
{
    struct timespec pause = {.tv_nsec = 1000000};

    while (waitpid(run->keeper.pid, NULL, WNOHANG) == 0) {
        if (now_ms() >= end_ms)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

static _Noreturn void end_by_signal(int number)
{
    const struct rlimit none = {0, 0};
    sigset_t set;

    setrlimit(RLIMIT_CORE, &none);
    signal(number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, number);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    exit(EXIT_SIGNAL_BASE + number); /* the first process of a container */
}

/* As the terminal would have stopped us. Returns when somebody has continued us; at once, where no
 * shell is there that could. */
static void stop_ourselves(void)
{
    sigset_t stop;

    sigemptyset(&stop);
    sigaddset(&stop, SIGTSTP);
    kill(0, SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &stop, NULL);
    sigprocmask(SIG_BLOCK, &stop, NULL);
}

static _Noreturn void execute(const struct run *run, pid_t parent, int go);

static int start_child(struct run *run)
{
    char token[24];
    char lock[PATH_MAX];
    const char *file = run->place.unlimited ? run->place.file : "";
    pid_t parent = getpid();
    int go[2];

    snprintf(token, sizeof token, "%llu", (unsigned long long)run->token);
    if (file[0] == '\0')
        strcpy(lock, run->place.directory);
    else if (!place_join(&run->place, file, lock, sizeof lock))
        return EXIT_SYSTEM; /* cannot be: it was opened under that path */
    if (setenv("LOCKFS_TOKEN", token, 1) != 0 || setenv("LOCKFS_LOCK", lock, 1) != 0 ||
        pipe2(go, O_CLOEXEC) != 0 || (run->child = fork()) < 0) {
        tell("cannot make a process: %s", strerror(errno));
        return EXIT_SYSTEM;
    }
    if (run->child == 0) {
        close(go[1]);
        execute(run, parent, go[0]);
    }
    setpgid(run->child, run->child); /* the child does it, too: whoever comes first */
    close(go[0]);
    terminal_lend(&run->terminal, run->child);
    if (keeper_watch(&run->keeper, run->child)) {
        while (write(go[1], "", 1) < 0 && errno == EINTR)
            continue;
    }
    close(go[1]); /* without a keeper this ends the child */
    return 0;
}

/* In the child. It begins when the keeper watches. */
static _Noreturn void execute(const struct run *run, pid_t parent, int go)
{
    char **command = run->options.command;
    char word;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || read(go, &word, 1) != 1)
        _exit(EXIT_LOST);
    sigaction(SIGCHLD, &run->sigchld_before, NULL);
    sigprocmask(SIG_SETMASK, &run->mask_before, NULL);
    execvp(command[0], command);
    int error = errno;
    tell("%s: %s", command[0], strerror(error));
    _exit(error == ENOENT ? EXIT_NO_COMMAND : EXIT_CANNOT_EXECUTE);
}

static void pass_signals_on(struct run *run);
static void take_news(struct run *run, int64_t *end_ms);
static bool child_has_ended(struct run *run);
static void follow_stop(struct run *run);

/* The child is not reaped when this returns: its number, and its group's, are still its own. */
static void wait_for_child(struct run *run)
{
    int64_t end_ms = INT64_MAX;

    while (!child_has_ended(run)) {
        struct pollfd waits[] = {
            {.fd = run->signals, .events = POLLIN},
            {.fd = run->keeper.socket, .events = POLLIN},
        };
        poll(waits, end_ms == INT64_MAX ? 2 : 1, timeout_until(end_ms));
        if (end_ms != INT64_MAX && now_ms() >= end_ms) {
            tell("process %d was killed, and has not ended yet", (int)run->child);
            run->status = SIGKILL;
            break;
        }
        pass_signals_on(run);
        follow_stop(run);
        if (end_ms == INT64_MAX)
            take_news(run, &end_ms);
    }
    terminal_take_back(&run->terminal);
}

static void pass_signals_on(struct run *run)
{
    int number;

    while ((number = take_signal(run)) != 0) {
        if (number == SIGCHLD)
            continue;
        if (number == SIGCONT)
            terminal_lend(&run->terminal, run->child); /* a shell's `fg` */
        run->passed_interrupt = run->passed_interrupt || number == SIGINT;
        kill(-run->child, number);
    }
}

static void take_news(struct run *run, int64_t *end_ms)
{
    struct keeper_message message;
    int got;

    while ((got = keeper_receive(&run->keeper, &message)) > 0) {
        if (message.news == KEEPER_LOST) {
            failure_tell(&message.failure);
            run->lost = true;
        } else if (message.news == KEEPER_KILLED) {
            *end_ms = now_ms() + KILLED_MS;
        }
    }
    if (got < 0) {
        /* With the keeper the claim has ended, and may be somebody else's. */
        kill(-run->child, SIGKILL);
        tell("the process that kept the lock has been ended; the command is killed");
        run->lost = true;
        *end_ms = now_ms() + KILLED_MS;
    }
}

static bool child_has_ended(struct run *run)
{
    siginfo_t info = {.si_pid = 0};

    if (waitid(P_PID, (id_t)run->child, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        info.si_pid == 0)
        return false;
    run->status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
    return true;
}

/* Where the terminal's user stops the command, the shell must see us stopped. The keeper goes on
 * watching. */
static void follow_stop(struct run *run)
{
    siginfo_t info = {.si_pid = 0};

    sigset_t pending;

    if (waitid(P_PID, (id_t)run->child, &info, WSTOPPED | WNOHANG) != 0 || info.si_pid == 0 ||
        run->terminal.fd < 0)
        return;
    terminal_take_back(&run->terminal);
    stop_ourselves();
    /* Usually a shell has continued us, and the SIGCONT will be passed on. Without a shell Ctrl-Z
     * stops nothing. */
    sigpending(&pending);
    if (sigismember(&pending, SIGCONT) == 0) {
        terminal_lend(&run->terminal, run->child);
        if (info.si_status == SIGTSTP)
            kill(-run->child, SIGCONT);
    }
}

/* The next one on this machine shall find the lock free; where the daemon hangs, the lease's end is
 * the end of waiting, too. */
static void wait_for_release(struct run *run)
{
    struct keeper_message message;
    int64_t end_ms = now_ms() + (run->lost ? 200 : run->lease_ms);

    keeper_release(&run->keeper);
    bool ended = keeper_ended(run, end_ms);
    if (!run->lost && !ended)
        tell("lockfsd does not answer: the lock may be held for a while");
    while (keeper_receive(&run->keeper, &message) > 0) {
        if (message.news == KEEPER_LOST && !run->lost) {
            failure_tell(&message.failure);
            run->lost = true;
        }
    }
    waitpid(run->child, NULL, WNOHANG);
}

static int exit_status(struct run *run)
{
    bool interrupted = run->terminal.fd >= 0 && run->status == SIGINT && !run->passed_interrupt;

    if (run->lost)
        return EXIT_LOST;
    /* Ctrl-C went to the command's group alone; a script or a loop around us must end, too. */
    if (interrupted && tcgetpgrp(run->terminal.fd) == run->terminal.home) {
        kill(0, SIGINT);
        end_by_signal(SIGINT);
    }
    terminal_close(&run->terminal);
    return WIFSIGNALED(run->status) ? EXIT_SIGNAL_BASE + WTERMSIG(run->status)
                                    : WEXITSTATUS(run->status);
}
