/* fs/process: whose thread it is, who its ancestors are, whether it lives, signals to it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/process.h"
#include "tests/lib/tap.h"

#define NOBODY 65534

/* A child that has said something through a pipe. */
struct child {
    pid_t pid;
    int pipe;
};

/* Runs `body` in a child, and returns when it has called child_ready(). The child then waits to be
 * killed. */
static struct child child_start(void (*body)(int pipe))
{
    int ends[2];

    if (pipe(ends) != 0)
        abort();
    struct child child = {fork(), ends[0]};
    if (child.pid < 0)
        abort();
    if (child.pid == 0) {
        close(ends[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        body(ends[1]);
        for (;;)
            pause();
    }
    close(ends[1]);
    return child;
}

static void child_tell(int pipe, const void *data, size_t size)
{
    if (write(pipe, data, size) != (ssize_t)size)
        abort();
}

static bool child_hear(const struct child *child, void *data, size_t size)
{
    return read(child->pipe, data, size) == (ssize_t)size;
}

static void child_stop(struct child *child)
{
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    close(child->pipe);
}

static struct process identify(uint32_t tid, int expected)
{
    struct process process;

    memset(&process, 0xff, sizeof process);
    tap_equal(process_identify(tid, &process), expected, "identify thread %u", tid);
    return process;
}

static void body_wait(int pipe)
{
    (void)pipe;
}

/* Any number that no thread has, below the largest pid there can be. */
static uint32_t unused_tid(void)
{
    struct child child = child_start(body_wait);
    uint32_t tid = (uint32_t)child.pid;

    child_stop(&child);
    return tid;
}

static void test_unknown(void)
{
    struct process process = identify(0, 0);
    tap_ok(process.pid == 0 && process.start == 0 && process.comm[0] == '\0',
           "a caller outside the pid namespace is unknown, and no error");
    process = identify(unused_tid(), -ESRCH);
    tap_ok(process.pid == 0 && process.comm[0] == '\0', "a thread that is gone is unknown");
    tap_ok(!process_alive(0, 0), "nobody is not alive");
    tap_equal(process_signal(&process, 0), -ESRCH, "nobody gets no signal");
}

static void *thread_identify(void *result)
{
    uint32_t tid = (uint32_t)syscall(SYS_gettid);

    prctl(PR_SET_NAME, "a thread");
    *(struct process *)result = identify(tid, 0);
    tap_ok(tid != (uint32_t)getpid(), "this is not the first thread");
    return NULL;
}

static void test_thread(void)
{
    struct process of_thread = {0};
    pthread_t thread;

    struct process own = identify((uint32_t)getpid(), 0);
    tap_equal(own.pid, getpid(), "the first thread is its process");
    char comm[16] = "";
    prctl(PR_GET_NAME, comm);
    tap_ok(strcmp(own.comm, comm) == 0, "it has its name: '%s'", own.comm);

    if (pthread_create(&thread, NULL, thread_identify, &of_thread) != 0)
        abort();
    pthread_join(thread, NULL);
    tap_equal(of_thread.pid, own.pid, "another thread is the same process");
    tap_equal(of_thread.start, own.start, "with the start time of the process");
    tap_ok(strcmp(of_thread.comm, own.comm) == 0, "and its name: '%s'", of_thread.comm);
}

/* Field 22 of /proc/PID/stat, by another road than process.c: the kernel's clock ticks since boot
 * cannot be far from now. */
static void test_start_time(void)
{
    struct timespec before;
    struct timespec after;
    double ticks = (double)sysconf(_SC_CLK_TCK);

    clock_gettime(CLOCK_BOOTTIME, &before);
    struct child child = child_start(body_wait);
    clock_gettime(CLOCK_BOOTTIME, &after);
    struct process process = identify((uint32_t)child.pid, 0);
    double start = (double)process.start / ticks;
    tap_ok(start >= (double)before.tv_sec - 1 && start <= (double)after.tv_sec + 1,
           "start time %.2f s lies in %ld..%ld s", start, (long)before.tv_sec, (long)after.tv_sec);
    child_stop(&child);
}

static const char odd_names[][16] = {
    "a) Z 1 (b", "\nTgid:\t1\n", "((()))", ")", " ", "", "name\n) R 2 3 4", "fifteen bytes..",
};
static const char *odd_name;

static void body_odd_name(int pipe)
{
    prctl(PR_SET_NAME, odd_name);
    child_tell(pipe, "", 1);
}

static void *thread_tell_and_wait(void *pipe)
{
    uint32_t tid = (uint32_t)syscall(SYS_gettid);

    child_tell(*(int *)pipe, &tid, sizeof tid);
    for (;;)
        pause();
    return NULL;
}

static void body_odd_name_thread(int pipe)
{
    static int kept;
    pthread_t thread;

    kept = pipe;
    prctl(PR_SET_NAME, odd_name);
    if (pthread_create(&thread, NULL, thread_tell_and_wait, &kept) != 0)
        abort();
}

static void test_odd_names(void)
{
    for (size_t i = 0; i < sizeof odd_names / sizeof odd_names[0]; i++) {
        char byte;
        odd_name = odd_names[i];
        struct child child = child_start(body_odd_name);
        tap_ok(child_hear(&child, &byte, 1), "name %zu is set", i);
        struct process process = identify((uint32_t)child.pid, 0);
        tap_ok(strcmp(process.comm, odd_name) == 0, "name %zu is read as it was set", i);
        tap_ok(process_alive(process.pid, process.start), "and does not hide that it lives");
        struct process ancestors[2];
        size_t count = process_ancestors(process.pid, ancestors, 2);
        tap_ok(count == 2 && ancestors[1].pid == (uint32_t)getpid(), "nor who its parent is");
        child_stop(&child);

        uint32_t tid;
        child = child_start(body_odd_name_thread);
        tap_ok(child_hear(&child, &tid, sizeof tid), "a thread of such a process runs");
        process = identify(tid, 0);
        tap_equal(process.pid, child.pid, "and is found to be of that process");
        child_stop(&child);
    }
}

/* A child of a child of this process, which tells the pids of both. */
static void body_grandchild(int pipe)
{
    pid_t pids[2] = {getpid(), 0};

    pids[1] = fork();
    if (pids[1] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    child_tell(pipe, pids, sizeof pids);
}

static void test_ancestors(void)
{
    struct process ancestors[LIMIT_ANCESTORS];
    struct process few[2];
    pid_t pids[2] = {0, 0};

    struct child child = child_start(body_grandchild);
    tap_ok(child_hear(&child, pids, sizeof pids), "a grandchild runs");
    size_t count = process_ancestors((uint32_t)pids[1], ancestors, LIMIT_ANCESTORS);
    if (tap_ok(count >= 3, "%zu ancestors", count)) {
        tap_equal(ancestors[0].pid, pids[1], "the first is the process itself");
        tap_equal(ancestors[1].pid, pids[0], "then its parent");
        tap_equal(ancestors[2].pid, getpid(), "then its parent's parent");
        bool older = true;
        for (size_t i = 1; i < count; i++)
            older = older && ancestors[i].start <= ancestors[i - 1].start;
        tap_ok(older, "each is older than the one before");
        tap_note("the last one is %u", ancestors[count - 1].pid);
        struct process same = identify((uint32_t)pids[0], 0);
        tap_ok(same.start == ancestors[1].start && strcmp(same.comm, ancestors[1].comm) == 0,
               "each as identify gives it");
    }
    tap_equal(process_ancestors((uint32_t)pids[1], few, 2), 2, "as many as there is room for");
    tap_equal(process_ancestors((uint32_t)pids[1], few, 0), 0, "none where there is none");
    tap_equal(process_ancestors(1, few, 2), 1, "the first process has no parent");
    tap_equal(process_ancestors(0, few, 2), 0, "nobody has none");
    kill(pids[1], SIGKILL);
    child_stop(&child);
    tap_equal(process_ancestors(unused_tid(), few, 2), 0, "a process that is gone has none");
}

static void body_ready(int pipe)
{
    child_tell(pipe, "", 1);
}

static void wait_zombie(pid_t pid)
{
    siginfo_t info;

    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        abort();
}

static void test_alive(void)
{
    char byte;
    struct child child = child_start(body_ready);
    child_hear(&child, &byte, 1);
    struct process process = identify((uint32_t)child.pid, 0);
    tap_ok(process_alive(process.pid, process.start), "a process that waits lives");
    tap_ok(!process_alive(process.pid, process.start + 1), "but not one with another start time");
    kill(child.pid, SIGSTOP);
    tap_ok(process_alive(process.pid, process.start), "a stopped one lives");
    kill(child.pid, SIGKILL);
    wait_zombie(child.pid);
    tap_ok(!process_alive(process.pid, process.start), "a zombie does not");
    tap_equal(process_signal(&process, 0), -ESRCH, "and gets no signal");
    child_stop(&child);
    tap_ok(!process_alive(process.pid, process.start), "nor does one that was reaped");
    tap_equal(process_signal(&process, SIGTERM), -ESRCH, "which gets no signal either");
}

/* The first thread ends, another goes on. */
static void body_leader_ends(int pipe)
{
    static int kept;
    pthread_t thread;

    kept = pipe;
    if (pthread_create(&thread, NULL, thread_tell_and_wait, &kept) != 0)
        abort();
    pthread_exit(NULL);
}

static char state_of(pid_t pid)
{
    char path[64];
    char text[512];
    char state = '?';

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file != NULL && fgets(text, sizeof text, file) != NULL)
        state = strrchr(text, ')')[2];
    if (file != NULL)
        fclose(file);
    return state;
}

static void test_leader_ended(void)
{
    const struct timespec pause_10ms = {.tv_nsec = 10 * 1000 * 1000};
    uint32_t tid;

    struct child child = child_start(body_leader_ends);
    tap_ok(child_hear(&child, &tid, sizeof tid), "a second thread runs");
    for (int i = 0; i < 3000 && state_of(child.pid) != 'Z'; i++)
        nanosleep(&pause_10ms, NULL);
    tap_ok(state_of(child.pid) == 'Z', "the first thread has ended");
    struct process process = identify(tid, 0);
    tap_equal(process.pid, child.pid, "the second is known by its process");
    tap_ok(process_alive(process.pid, process.start), "which lives");
    kill(child.pid, SIGKILL);
    wait_zombie(child.pid);
    tap_ok(!process_alive(process.pid, process.start), "until it is killed");
    child_stop(&child);
}

static void test_signal(void)
{
    char byte;
    int status = 0;
    struct child child = child_start(body_ready);
    child_hear(&child, &byte, 1);
    struct process process = identify((uint32_t)child.pid, 0);
    struct process other = process;
    other.start++;
    tap_equal(process_signal(&other, SIGKILL), -ESRCH, "no signal to whoever has the pid now");
    tap_equal(process_signal(&process, 0), 0, "it has not ended by that");
    tap_equal(process_signal(&process, 1000), -EINVAL, "there is no signal 1000");
    tap_equal(process_signal(&process, SIGTERM), 0, "a signal to the process itself");
    waitpid(child.pid, &status, 0);
    tap_ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "which arrives");
    close(child.pipe);
}

/* Where the daemon is not root, the processes of others must be found all the same. */
static void test_other_user(void)
{
    pid_t parent = getpid();
    pid_t child = fork();

    if (child == 0) {
        struct process process;
        if (setuid(NOBODY) != 0)
            _exit(2);
        _exit(process_identify((uint32_t)parent, &process) == 0 &&
                      process.pid == (uint32_t)parent && process.start != 0
                  ? 0
                  : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (geteuid() == 0)
        tap_equal(status, 0, "another user's process is identified");
    else
        tap_ok(false, "this test must run as root");
}

static void test_boot_id(void)
{
    uint8_t boot_id[BOOT_ID_BYTES];
    char shown[64];
    char expected[64] = "";
    char *end = shown;

    tap_equal(process_boot_id(boot_id), 0, "there is a boot id");
    for (size_t i = 0; i < sizeof boot_id; i++)
        end += sprintf(end, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", boot_id[i]);
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    tap_ok(file != NULL && fgets(expected, sizeof expected, file) != NULL, "the kernel's");
    if (file != NULL)
        fclose(file);
    expected[strcspn(expected, "\n")] = '\0';
    tap_ok(strcmp(shown, expected) == 0, "is the one that is read: %s", shown);
}

/* The cache */

static bool is_same(const struct process *a, const struct process *b)
{
    return a->pid == b->pid && a->start == b->start && strcmp(a->comm, b->comm) == 0;
}

/* Twice from the cache, and from /proc: returns whether all of it is the same. */
static bool agrees(struct process_cache *cache, uint32_t tid)
{
    struct process expected, first, second;
    int error = process_identify(tid, &expected);

    memset(&first, 0xff, sizeof first);
    memset(&second, 0xff, sizeof second);
    return process_cache_identify(cache, tid, &first) == error && is_same(&first, &expected) &&
           process_cache_identify(cache, tid, &second) == error && is_same(&second, &expected);
}

static bool is_known(const struct process_cache *cache, uint32_t pid)
{
    return cache->known[pid % LIMIT_PROCESSES_KNOWN].pid == pid;
}

/* Changes its name by prctl, and then by exec, each when it is told to. */
static void body_renames(int pipe)
{
    int signal_number;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    child_tell(pipe, "", 1);
    sigwait(&set, &signal_number);
    prctl(PR_SET_NAME, "renamed");
    child_tell(pipe, "", 1);
    sigwait(&set, &signal_number);
    fcntl(pipe, F_SETFD, 0);
    if (dup2(pipe, STDOUT_FILENO) >= 0)
        execlp("sh", "sh", "-c", "echo; kill -STOP $$", (char *)NULL);
}

static void test_cache_rename(struct process_cache *cache)
{
    char byte;
    struct process process;
    struct child child = child_start(body_renames);

    child_hear(&child, &byte, 1);
    tap_ok(agrees(cache, (uint32_t)child.pid), "a process is known again");
    kill(child.pid, SIGUSR1);
    child_hear(&child, &byte, 1);
    process_cache_identify(cache, (uint32_t)child.pid, &process);
    tap_ok(strcmp(process.comm, "renamed") == 0, "under its new name: %s", process.comm);
    kill(child.pid, SIGUSR1);
    child_hear(&child, &byte, 1);
    process_cache_identify(cache, (uint32_t)child.pid, &process);
    tap_ok(strcmp(process.comm, "sh") == 0, "also after exec: %s", process.comm);
    tap_ok(agrees(cache, (uint32_t)child.pid) && is_known(cache, (uint32_t)child.pid),
           "with the same start time");
    child_stop(&child);
    tap_ok(agrees(cache, (uint32_t)child.pid), "it is gone when it was reaped");
}

static void test_cache_odd_names(struct process_cache *cache)
{
    bool all = true;

    for (size_t i = 0; i < sizeof odd_names / sizeof odd_names[0]; i++) {
        char byte;
        odd_name = odd_names[i];
        struct child child = child_start(body_odd_name);
        child_hear(&child, &byte, 1);
        all = all && agrees(cache, (uint32_t)child.pid) && is_known(cache, (uint32_t)child.pid);
        child_stop(&child);
    }
    tap_ok(all, "odd names are the same from the cache");
}

/* The first process of a new pid namespace makes a process, has it die, and makes another one with
 * the same number: the kernel can be told which comes next. */
static bool reuses_number(struct process_cache *cache)
{
    struct process first, second;

    if (mount("proc", "/proc", "proc", 0, NULL) != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen("/proc/sys/kernel/ns_last_pid", "we");
        if (file == NULL || fputs("299", file) < 0 || fclose(file) != 0)
            return false;
        struct child child = child_start(body_wait);
        struct process *process = i == 0 ? &first : &second;
        bool ok = child.pid == 300 && agrees(cache, 300) && is_known(cache, 300);
        process_cache_identify(cache, 300, process);
        nanosleep(&(struct timespec){.tv_nsec = 30 * 1000 * 1000}, NULL); /* ticks of start times */
        child_stop(&child);
        if (!ok)
            return false;
    }
    return first.pid == second.pid && first.start != second.start;
}

static void test_cache_reuse(void)
{
    int status = 0;
    pid_t outer = fork();

    if (outer == 0) {
        static struct process_cache cache;
        if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
            _exit(2);
        pid_t inner = fork();
        if (inner == 0)
            _exit(reuses_number(&cache) ? 0 : 1);
        waitpid(inner, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 3);
    }
    waitpid(outer, &status, 0);
    tap_equal(status, 0, "another process with the number of a known one is another one");
}

static void *thread_agrees(void *cache)
{
    uint32_t tid = (uint32_t)syscall(SYS_gettid);

    tap_ok(agrees(cache, tid) && !is_known(cache, tid), "another thread is looked up each time");
    return NULL;
}

static int open_files(void)
{
    int count = 0;

    for (int file = 0; file < 4096; file++)
        count += fcntl(file, F_GETFD) != -1;
    return count;
}

static void test_cache(void)
{
    static struct process_cache cache;
    struct child children[2 * LIMIT_PROCESSES_KNOWN];
    pthread_t thread;
    bool all = true;
    char byte;

    int before = open_files();
    tap_ok(agrees(&cache, 0), "nobody is nobody from the cache");
    tap_ok(agrees(&cache, unused_tid()), "so is who is gone");
    if (pthread_create(&thread, NULL, thread_agrees, &cache) != 0)
        abort();
    pthread_join(thread, NULL);
    test_cache_rename(&cache);
    test_cache_odd_names(&cache);

    struct child zombie = child_start(body_ready);
    child_hear(&zombie, &byte, 1);
    tap_ok(agrees(&cache, (uint32_t)zombie.pid), "before it is a zombie,");
    kill(zombie.pid, SIGKILL);
    wait_zombie(zombie.pid);
    tap_ok(agrees(&cache, (uint32_t)zombie.pid), "and after");
    child_stop(&zombie);

    for (size_t i = 0; i < sizeof children / sizeof children[0]; i++) {
        children[i] = child_start(body_wait);
        all = all && agrees(&cache, (uint32_t)children[i].pid);
    }
    for (size_t i = 0; i < sizeof children / sizeof children[0]; i++)
        all = all && agrees(&cache, (uint32_t)children[i].pid);
    tap_ok(all, "twice as many processes as it can know");
    int files = 0;
    for (size_t i = 0; i < LIMIT_PROCESSES_KNOWN; i++)
        files += cache.known[i].pid && fcntl(cache.known[i].file, F_GETFD) == FD_CLOEXEC;
    tap_equal(files, LIMIT_PROCESSES_KNOWN, "it is full, and its descriptors close on exec");
    for (size_t i = 0; i < sizeof children / sizeof children[0]; i++)
        child_stop(&children[i]);
    process_cache_close(&cache);
    tap_equal(open_files(), before, "no descriptor is left");
    test_cache_reuse();
}

static void *thread_cost(void *unused)
{
    struct timespec before;
    struct timespec after;
    struct process process;
    static struct process_cache cache;
    const int count = 2000;

    (void)unused;
    static const char *const names[] = {"first thread", "other thread", "first thread, known"};
    for (int i = 0; i < 3; i++) {
        uint32_t tid = i == 1 ? (uint32_t)syscall(SYS_gettid) : (uint32_t)getpid();
        clock_gettime(CLOCK_MONOTONIC, &before);
        for (int n = 0; n < count; n++)
            i == 2 ? process_cache_identify(&cache, tid, &process)
                   : process_identify(tid, &process);
        clock_gettime(CLOCK_MONOTONIC, &after);
        tap_note("%s: %.1f us", names[i],
                 ((double)(after.tv_sec - before.tv_sec) * 1e6 +
                  (double)(after.tv_nsec - before.tv_nsec) / 1e3) /
                     count);
    }
    return NULL;
}

int main(void)
{
    pthread_t thread;

    test_unknown();
    test_thread();
    test_start_time();
    test_odd_names();
    test_ancestors();
    test_alive();
    test_leader_ended();
    test_signal();
    test_other_user();
    test_boot_id();
    test_cache();
    if (pthread_create(&thread, NULL, thread_cost, NULL) == 0)
        pthread_join(thread, NULL);
    return tap_done();
}
