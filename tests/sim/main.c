/*
 * The program: one run for a seed, or many, each in a process of its own so that a crash is one
 * more way for a run to end. How it ended, the trace and the command that replays it are printed by
 * the process that started it.
 */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

enum {
    JOBS_MAX = 64,
    RUN_SECONDS_MAX = 120, /* of one run, in real time */
};

struct job {
    pid_t pid; /* 0: free */
    uint64_t seed;
    struct sim_shared *shared;
};

struct program {
    const char *name;
    struct options options;
    uint64_t total_events; /* 0: no limit */
    uint64_t minutes;
    uint64_t runs; /* that many seeds at most */
    unsigned jobs;
    bool keep_going;
    bool want_all;
    uint64_t search; /* 0: this is none */

    struct job job[JOBS_MAX];
    struct sim_stats stats;
    uint64_t runs_begun, runs_done, runs_failed;
    enum sim_exit result;
    uint64_t found_seed; /* of a search; 0: none yet */
    double began;
};

static const char usage[] =
    "sim [OPTION...]: runs clusters of the consensus core on virtual time, with faults\n"
    "\n"
    "  --seed N          the first seed (default: from the clock); alone: this one run\n"
    "  --events N        events given to servers before the faults end (default: the seed's "
    "choice)\n"
    "  --servers N       voters at the beginning, 1 to 7 (default: the seed's choice)\n"
    "  --profile NAME    calm lossy crashy disks clocks members hunted all beyond (default: the "
    "seed's)\n"
    "  --kind KIND       of servers: raft, the consensus core (default), or node, with callers\n"
    "  --trace           print every event\n"
    "  --total-events N  run seed after seed until so many events were simulated\n"
    "  --minutes N       run seed after seed for so long\n"
    "  --runs N          run so many seeds\n"
    "  --jobs N          runs at a time (default 1)\n"
    "  --keep-going      do not end at the first failure\n"
    "  --want-all        fail where the runs have left something untried\n"
    "  --mutant NAME     with this deliberate bug, if it is built with them; --list-mutants\n"
    "  --search N        so many seeds at most until a safety violation is found, which is wanted\n"
    "  --help\n"
    "\n"
    "Exit status: 0 all well, 2 usage, 3 crash, 4 safety violation, 5 liveness violation,\n"
    "6 something was never tried.\n";

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void print_options(const struct options *options)
{
    struct plan plan;

    plan_make(&plan, options);
    printf("seed %" PRIu64 ": --servers %u --profile %s --events %" PRIu64 "\n", options->seed,
           plan.servers, profile_name(plan.profile), plan.events);
}

static void print_replay(const struct program *program, uint64_t seed)
{
    const struct options *options = &program->options;

    printf("replay: %s --seed %" PRIu64, program->name, seed);
    if (options->nodes)
        printf(" --kind node");
    if (options->events != 0)
        printf(" --events %" PRIu64, options->events);
    if (options->servers != 0)
        printf(" --servers %u", options->servers);
    if (options->profile >= 0)
        printf(" --profile %s", profile_name((enum profile)options->profile));
    if (options->mutant != NULL)
        printf(" --mutant %s", options->mutant);
    printf("\n");
}

static void begin_run(struct program *program, struct job *job, uint64_t seed)
{
    struct options options = program->options;

    options.seed = seed;
    job->seed = seed;
    trace_begin(job->shared, options.trace);
    fflush(stdout);
    job->pid = fork();
    if (job->pid == 0) {
        alarm(RUN_SECONDS_MAX);
        sim_run(&options, job->shared);
        fflush(stdout);
        _exit(SIM_OK);
    }
    assert(job->pid > 0);
    program->runs_begun++;
}

static void add_stats(struct sim_stats *sum, const struct sim_stats *stats)
{
#define X(name, wanted) sum->name += stats->name;
    SIM_COUNTERS(X)
#undef X
}

static void report_failure(const struct program *program, const struct job *job, int status,
                           enum sim_exit result)
{
    struct options options = program->options;

    options.seed = job->seed;
    trace_print(job->shared);
    print_options(&options);
    switch (result) {
    case SIM_SAFETY:
        printf("SAFETY: %s\n", sim_shared_message(job->shared));
        break;
    case SIM_LIVENESS:
        printf("LIVENESS: %s\n", sim_shared_message(job->shared));
        break;
    default:
        if (WIFSIGNALED(status))
            printf("CRASH: %s\n", strsignal(WTERMSIG(status)));
        else
            printf("CRASH: exit status %d\n", WEXITSTATUS(status));
        break;
    }
    print_replay(program, job->seed);
    fflush(stdout);
}

static void end_run(struct program *program, struct job *job, int status)
{
    enum sim_exit result = SIM_CRASH;

    job->pid = 0;
    program->runs_done++;
    add_stats(&program->stats, sim_shared_stats(job->shared));
    if (WIFEXITED(status) && (WEXITSTATUS(status) == SIM_OK || WEXITSTATUS(status) == SIM_SAFETY ||
                              WEXITSTATUS(status) == SIM_LIVENESS))
        result = (enum sim_exit)WEXITSTATUS(status);
    if (result == SIM_OK)
        return;
    if (program->search != 0) {
        program->runs_failed++;
        if (result == SIM_SAFETY && (program->found_seed == 0 || job->seed < program->found_seed))
            program->found_seed = job->seed;
        return;
    }
    report_failure(program, job, status, result);
    program->runs_failed++;
    if (program->result == SIM_OK)
        program->result = result;
}

static void wait_for_one(struct program *program)
{
    int status;
    pid_t pid = wait(&status);

    assert(pid > 0);
    for (unsigned i = 0; i < program->jobs; i++)
        if (program->job[i].pid == pid)
            end_run(program, &program->job[i], status);
}

static bool is_enough(const struct program *program)
{
    if (program->search != 0)
        return program->found_seed != 0 || program->runs_begun >= program->search;
    if (program->result != SIM_OK && !program->keep_going)
        return true;
    if (program->runs != 0 && program->runs_begun >= program->runs)
        return true;
    if (program->total_events != 0 && program->stats.steps >= program->total_events)
        return true;
    return program->minutes != 0 &&
           seconds_now() - program->began >= 60.0 * (double)program->minutes;
}

static unsigned count_running(const struct program *program)
{
    unsigned running = 0;

    for (unsigned i = 0; i < program->jobs; i++)
        running += program->job[i].pid != 0;
    return running;
}

static void print_stats(const struct program *program)
{
    const double seconds = seconds_now() - program->began;
    unsigned column = 0;

#define X(name, wanted)                                                                            \
    printf("%-24s%14" PRIu64 "%s", #name, program->stats.name, ++column % 2 == 0 ? "\n" : "    ");
    SIM_COUNTERS(X)
#undef X
    if (column % 2 != 0)
        printf("\n");
    printf("%" PRIu64 " runs, %" PRIu64 " failed, %" PRIu64
           " events in %.1f s: %.0f events/s with %u at a time\n",
           program->runs_done, program->runs_failed, program->stats.steps, seconds,
           (double)program->stats.steps / seconds, program->jobs);
}

static void check_seen(struct program *program)
{
#define X(name, wanted)                                                                            \
    if ((wanted) == (program->options.nodes ? 2 : 1) && program->stats.name == 0) {                \
        printf("never seen: %s\n", #name);                                                         \
        if (program->result == SIM_OK)                                                             \
            program->result = SIM_UNSEEN;                                                          \
    }
    SIM_COUNTERS(X)
#undef X
}

static void run_all(struct program *program)
{
    uint64_t seed = program->options.seed;

    while (!is_enough(program) || count_running(program) > 0) {
        for (unsigned i = 0; i < program->jobs && !is_enough(program); i++)
            if (program->job[i].pid == 0)
                begin_run(program, &program->job[i], seed++);
        wait_for_one(program);
    }
}

static uint64_t number(const char *text, uint64_t max)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || text[0] == '-' || value > max) {
        fprintf(stderr, "sim: not a number up to %" PRIu64 ": %s\n", max, text);
        exit(SIM_USAGE);
    }
    return value;
}

static int profile_by_name(const char *name)
{
    for (int profile = 0; profile < PROFILES_COUNT; profile++)
        if (strcmp(profile_name((enum profile)profile), name) == 0)
            return profile;
    fprintf(stderr, "sim: no such profile: %s\n", name);
    exit(SIM_USAGE);
}

static const char *mutant_by_name(const char *name)
{
    for (unsigned at = 0; mutants_name(at) != NULL; at++)
        if (strcmp(mutants_name(at), name) == 0)
            return mutants_name(at);
    fprintf(stderr, "sim: no such mutant in this program: %s\n", name);
    exit(SIM_USAGE);
}

static void read_options(struct program *program, int argc, char **argv)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'},
        {"events", required_argument, NULL, 'e'},
        {"servers", required_argument, NULL, 'n'},
        {"profile", required_argument, NULL, 'p'},
        {"trace", no_argument, NULL, 't'},
        {"total-events", required_argument, NULL, 'E'},
        {"minutes", required_argument, NULL, 'm'},
        {"runs", required_argument, NULL, 'r'},
        {"jobs", required_argument, NULL, 'j'},
        {"keep-going", no_argument, NULL, 'k'},
        {"want-all", no_argument, NULL, 'w'},
        {"mutant", required_argument, NULL, 'M'},
        {"search", required_argument, NULL, 'S'},
        {"list-mutants", no_argument, NULL, 'L'},
        {"kind", required_argument, NULL, 'K'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (option) {
        case 's':
            program->options.seed = number(optarg, UINT64_MAX);
            break;
        case 'e':
            program->options.events = number(optarg, UINT64_MAX);
            break;
        case 'n':
            program->options.servers = (unsigned)number(optarg, SIM_VOTERS_MAX);
            break;
        case 'p':
            program->options.profile = profile_by_name(optarg);
            break;
        case 't':
            program->options.trace = true;
            break;
        case 'E':
            program->total_events = number(optarg, UINT64_MAX);
            break;
        case 'm':
            program->minutes = number(optarg, 1000000);
            break;
        case 'r':
            program->runs = number(optarg, UINT64_MAX);
            break;
        case 'j':
            program->jobs = (unsigned)number(optarg, JOBS_MAX);
            break;
        case 'k':
            program->keep_going = true;
            break;
        case 'w':
            program->want_all = true;
            break;
        case 'M':
            program->options.mutant = mutant_by_name(optarg);
            break;
        case 'S':
            program->search = number(optarg, UINT64_MAX);
            break;
        case 'K':
            program->options.nodes = strcmp(optarg, "node") == 0;
            if (!program->options.nodes && strcmp(optarg, "raft") != 0) {
                fprintf(stderr, "sim: no such kind: %s\n", optarg);
                exit(SIM_USAGE);
            }
            break;
        case 'L':
            for (unsigned at = 0; mutants_name(at) != NULL; at++)
                printf("%-32s %s\n", mutants_name(at), mutants_text(at));
            exit(SIM_OK);
        case 'h':
            fputs(usage, stdout);
            exit(SIM_OK);
        default:
            fputs(usage, stderr);
            exit(SIM_USAGE);
        }
    }
    if (optind != argc || program->jobs == 0) {
        fputs(usage, stderr);
        exit(SIM_USAGE);
    }
}

/* A search for a mutant: the seed that finds it must pass without it. */
static int search(struct program *program)
{
    const char *mutant = program->options.mutant;
    const uint64_t first = program->options.seed;
    uint64_t found;

    run_all(program);
    found = program->found_seed;
    if (found == 0) {
        printf("%-32s not found in %" PRIu64 " seeds, %" PRIu64 " events\n", mutant,
               program->runs_done, program->stats.steps);
        return SIM_UNSEEN;
    }
    printf("%-32s found after %" PRIu64 " seeds, %" PRIu64 " events, %.0f s: seed %" PRIu64 "\n",
           mutant, found - first + 1, program->stats.steps, seconds_now() - program->began, found);
    program->search = 0;
    program->options.mutant = NULL;
    program->options.seed = found;
    program->runs_begun = 0;
    program->runs = 1;
    program->stats = (struct sim_stats){0};
    run_all(program);
    if (program->stats.assertions_failed != 0 && program->result == SIM_OK)
        program->result = SIM_CRASH;
    return (int)program->result;
}

int main(int argc, char **argv)
{
    static struct program program;
    bool one;

    program.name = argv[0];
    program.jobs = 1;
    program.options.profile = -1;
    program.options.seed = (uint64_t)time(NULL) * 1000000;
    read_options(&program, argc, argv);
    one = program.total_events == 0 && program.minutes == 0 && program.runs == 0 &&
          program.search == 0;
    if (one)
        program.runs = 1;
    for (unsigned i = 0; i < program.jobs; i++)
        program.job[i].shared = sim_shared_make();

    program.began = seconds_now();
    if (program.search != 0 && program.options.mutant != NULL)
        return search(&program);
    if (one)
        print_options(&program.options);
    else
        printf("seeds from %" PRIu64 "\n", program.options.seed);
    run_all(&program);
    print_stats(&program);
    if (one)
        printf("digest %016" PRIx64 "\n", sim_shared_digest(program.job[0].shared));
    if (program.want_all && program.result == SIM_OK)
        check_seen(&program);
    return (int)program.result;
}
