/* The keeper of `lockfs run`. See keeper.h. */
#include "keeper.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "fs/lockfs.h"

/* How often the lease is asked for: a tenth of it, within these. */
#define ASK_MS_MIN 50
#define ASK_MS_MAX 1000
/* A claim that is lost for good may be somebody else's at once: time for a clean end, no more. */
#define GRACE_MS 1000
/* The lease's last part, a twentieth of it: so that the killing is done when it ends. */
#define MARGIN_PARTS 20

enum order_type {
    ORDER_LOCK = 1, /* with the descriptor */
    ORDER_WATCH,
    ORDER_RELEASE,
};

struct order {
    enum order_type type;
    pid_t group;
};

static bool order(const struct keeper *keeper, enum order_type type, pid_t group, int fd);
static _Noreturn void keep(int socket, pid_t parent, const char *path, int flock_operation);

int keeper_start(struct keeper *ret_keeper, const char *path, int flock_operation)
{
    int sockets[2];
    pid_t parent = getpid();

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0)
        return -errno;
    pid_t pid = fork();
    if (pid < 0) {
        int error = -errno;
        close(sockets[0]);
        close(sockets[1]);
        return error;
    }
    if (pid == 0)
        keep(sockets[1], parent, path, flock_operation);
    close(sockets[1]);
    *ret_keeper = (struct keeper){.pid = pid, .socket = sockets[0]};
    return 0;
}

int keeper_receive(const struct keeper *keeper, struct keeper_message *ret_message)
{
    ssize_t got = recv(keeper->socket, ret_message, sizeof *ret_message, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return got == (ssize_t)sizeof *ret_message ? 1 : -EPIPE;
}

bool keeper_lock(const struct keeper *keeper, int fd)
{
    return order(keeper, ORDER_LOCK, 0, fd);
}

bool keeper_watch(const struct keeper *keeper, pid_t group)
{
    return order(keeper, ORDER_WATCH, group, -1);
}

void keeper_release(const struct keeper *keeper)
{
    order(keeper, ORDER_RELEASE, 0, -1);
}

static bool order(const struct keeper *keeper, enum order_type type, pid_t group, int fd)
{
    struct order data = {.type = type, .group = group};
    struct iovec part = {.iov_base = &data, .iov_len = sizeof data};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
    }
    return sendmsg(keeper->socket, &message, MSG_NOSIGNAL) == (ssize_t)sizeof data;
}

/* ---- in the keeper */

/* What the mount said about the lease, and when it was asked. */
struct answer {
    int64_t asked_ms;
    int64_t lease_ms;
    int error;
};

enum phase {
    PHASE_HELD,
    PHASE_TERMINATED, /* SIGTERM is sent */
    PHASE_KILLED,
};

struct watch {
    int socket;
    int lock;
    int answers[2]; /* a pipe from the asking thread */
    int timer;
    pid_t group; /* 0: CMD does not run yet */
    enum phase phase;
    int64_t ttl_ms;       /* the longest lease that was told */
    int64_t lease_end_ms; /* CLOCK_BOOTTIME, as all times here */
    int64_t kill_ms;      /* a loss for good has its own end; INT64_MAX: none */
};

static void take_over(int socket, pid_t parent);
static int take_file(int socket);
static void acquire(struct watch *watch, const char *path, int flock_operation);
static void watch_until_release(struct watch *watch);
static void let_go(struct watch *watch);
static void send_news(int socket, const struct keeper_message *message);

static _Noreturn void keep(int socket, pid_t parent, const char *path, int flock_operation)
{
    struct keeper_message message = {.news = KEEPER_FOUND};
    struct watch watch = {.socket = 0, .kill_ms = INT64_MAX};
    char *own_path = strdup(path); /* the arguments are the parent's to reuse */

    take_over(socket, parent);
    if (own_path == NULL)
        _exit(EXIT_SYSTEM);
    if (place_find(own_path, &message.place, &message.failure) != 0)
        message.news = KEEPER_FAILED;
    send_news(watch.socket, &message);
    if (message.news == KEEPER_FAILED || chdir("/") != 0)
        _exit(EXIT_SYSTEM);
    watch.lock = take_file(watch.socket);
    acquire(&watch, own_path, flock_operation);
    watch_until_release(&watch);
    let_go(&watch);
    _exit(0);
}

/*
 * Becomes independent of the job: no terminal, no signal that is meant for it, and none of its
 * descriptors, so that who reads its output sees the end although the keeper may hang.
 */
static void take_over(int socket, pid_t parent)
{
    static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2};
    sigset_t none;

    setsid();
    /* While it waits for the lock, its end is the parent's end. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_SYSTEM);
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    /* The socket becomes descriptor 0; 1 and 2 lead nowhere. */
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nowhere < 0 || dup2(socket, 0) < 0 || dup2(nowhere, 1) < 0 || dup2(nowhere, 2) < 0 ||
        close_range(3, ~0U, 0) != 0)
        _exit(EXIT_SYSTEM);
}

static int take_file(int socket)
{
    struct order data = {.group = 0};
    struct iovec part = {.iov_base = &data, .iov_len = sizeof data};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    int fd;

    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (got != (ssize_t)sizeof data || data.type != ORDER_LOCK || header == NULL ||
        header->cmsg_type != SCM_RIGHTS)
        _exit(0); /* `run` has given up */
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

static void send_news(int socket, const struct keeper_message *message)
{
    /* A parent that is gone is noticed when its orders are read. */
    send(socket, message, sizeof *message, MSG_NOSIGNAL);
}

static _Noreturn void fail_to_acquire(const struct watch *watch, const char *path, int error)
{
    struct keeper_message message = {.news = KEEPER_FAILED};

    if (error == EWOULDBLOCK)
        fail(&message.failure, EXIT_NOT_ACQUIRED, "%s: held by somebody else", path);
    else
        fail(&message.failure, exit_code_of(error), "%s: %s", path, explain(error));
    send_news(watch->socket, &message);
    _exit(EXIT_SYSTEM);
}

static int64_t now_ms(void);
static struct answer ask(int lock);
static void *keep_asking(void *context);
static void on_loss(int number);

static void acquire(struct watch *watch, const char *path, int flock_operation)
{
    struct keeper_message message = {.news = KEEPER_WAITS};
    pthread_attr_t attributes;
    pthread_t thread;
    int32_t signal_number = SIGUSR1;
    pid_t parent = getppid();

    /* A file of a lockfs on which nothing was done yet. Elsewhere flock would be local. */
    if (ioctl(watch->lock, LOCKFS_IOC_TOKEN, &message.token) == 0 || errno != ENODATA)
        fail_to_acquire(watch, path, errno == ENOSYS || errno == EINVAL ? ENOTTY : errno);
    send_news(watch->socket, &message);
    while (flock(watch->lock, flock_operation) != 0) {
        if (errno != EINTR)
            fail_to_acquire(watch, path, errno);
    }
    if (ioctl(watch->lock, LOCKFS_IOC_TOKEN, &message.token) != 0)
        fail_to_acquire(watch, path, errno);
    struct answer answer = ask(watch->lock);
    if (answer.error != 0)
        fail_to_acquire(watch, path, answer.error);
    watch->ttl_ms = answer.lease_ms;
    watch->lease_end_ms = answer.asked_ms + answer.lease_ms;
    watch->timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (watch->timer < 0 || pipe2(watch->answers, O_CLOEXEC | O_NONBLOCK) != 0)
        fail_to_acquire(watch, path, errno);

    /* The signal interrupts the asking thread's sleep, and it asks at once. The main thread keeps
     * it blocked. */
    struct sigaction action = {.sa_handler = on_loss};
    sigset_t loss;
    sigaction(SIGUSR1, &action, NULL);
    ioctl(watch->lock, LOCKFS_IOC_ON_LOSS, &signal_number); /* poll(2) tells, too */
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int error = pthread_create(&thread, &attributes, keep_asking, watch);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        fail_to_acquire(watch, path, ENOMEM);
    sigemptyset(&loss);
    sigaddset(&loss, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &loss, NULL);

    /* From here on the parent's end is seen on the socket, and CMD's group is ended first. */
    prctl(PR_SET_PDEATHSIG, 0);
    if (getppid() != parent)
        _exit(0);
    prctl(PR_SET_NAME, "lockfs-keeper"); /* so that killall lockfs spares it */
    message.news = KEEPER_GRANTED;
    message.lease_ms = answer.lease_ms;
    send_news(watch->socket, &message);
}

static void on_loss(int number)
{
    (void)number;
}

static int64_t now_ms(void)
{
    struct timespec time;

    /* Counts while the machine sleeps, as the lease does. */
    clock_gettime(CLOCK_BOOTTIME, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static struct answer ask(int lock)
{
    struct answer answer = {.asked_ms = now_ms()};

    if (ioctl(lock, LOCKFS_IOC_LEASE, &answer.lease_ms) != 0)
        answer.error = errno;
    return answer;
}

/* Whether after this answer the claim can never be held again. A dead daemon is no better than a
 * loss: its successor ends the claims of this machine at once, whatever their leases. */
static bool is_loss(int error)
{
    return error == ESTALE || error == ENODATA || error == ENOTCONN || error == ECONNABORTED ||
           error == EBADF || error == ENODEV;
}

/* The asking thread: any of its calls may hang, for ever. */
static void *keep_asking(void *context)
{
    const struct watch *watch = context;
    int lock = watch->lock;
    int answers = watch->answers[1];
    int64_t interval_ms = watch->ttl_ms / 10;

    if (interval_ms < ASK_MS_MIN)
        interval_ms = ASK_MS_MIN;
    if (interval_ms > ASK_MS_MAX)
        interval_ms = ASK_MS_MAX;
    for (bool told = false;; told = true) {
        struct pollfd poll_lock = {.fd = lock, .events = 0};
        struct timespec pause = {.tv_nsec = 1000000 * (interval_ms % 1000),
                                 .tv_sec = interval_ms / 1000};
        int ready = poll(&poll_lock, 1, told ? (int)interval_ms : 0);
        struct answer answer = ask(lock);
        if (answer.error == EINTR)
            continue;
        if (write(answers, &answer, sizeof answer) != (ssize_t)sizeof answer && errno != EAGAIN)
            return NULL;
        if (is_loss(answer.error))
            return NULL;
        /* Where poll tells of a loss that the answer does not know, it would spin. */
        if (ready > 0)
            nanosleep(&pause, NULL);
    }
}

static void set_timer(const struct watch *watch);
static bool take_order(struct watch *watch);
static void take_answers(struct watch *watch);
static void act_on_time(struct watch *watch);
static void end_without_parent(const struct watch *watch);

/* Returns when the claim is to be let go, with nothing of CMD's group left that it protects. */
static void watch_until_release(struct watch *watch)
{
    for (;;) {
        struct pollfd waits[] = {
            {.fd = watch->socket, .events = POLLIN},
            {.fd = watch->answers[0], .events = POLLIN},
            {.fd = watch->timer, .events = POLLIN},
        };
        set_timer(watch);
        if (poll(waits, 3, -1) < 0 && errno != EINTR)
            abort(); /* `run` kills CMD */
        if (waits[0].revents != 0 && !take_order(watch))
            return;
        if (waits[1].revents != 0)
            take_answers(watch);
        act_on_time(watch);
    }
}

/* False: release now. */
static bool take_order(struct watch *watch)
{
    struct order data;
    ssize_t got = recv(watch->socket, &data, sizeof data, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (got != (ssize_t)sizeof data) {
        end_without_parent(watch);
        return false;
    }
    if (data.type == ORDER_RELEASE)
        return false;
    assert(data.type == ORDER_WATCH && data.group > 1);
    watch->group = data.group;
    if (watch->phase != PHASE_HELD)
        watch->kill_ms = 0; /* lost before CMD began */
    return true;
}

static void end_group(struct watch *watch, const char *why);

static void take_answers(struct watch *watch)
{
    struct answer answer;

    while (read(watch->answers[0], &answer, sizeof answer) == (ssize_t)sizeof answer) {
        if (answer.error == 0) {
            watch->lease_end_ms = answer.asked_ms + answer.lease_ms;
            if (answer.lease_ms > watch->ttl_ms)
                watch->ttl_ms = answer.lease_ms;
        } else if (is_loss(answer.error)) {
            int64_t end_ms = now_ms() + GRACE_MS;
            watch->kill_ms = end_ms;
            end_group(watch, answer.error == ENOTCONN || answer.error == ECONNABORTED
                                 ? "lockfsd has ended, and the claim with it"
                                 : "the claim was lost");
        }
    }
}

static int64_t term_time_ms(const struct watch *watch)
{
    return watch->lease_end_ms - watch->ttl_ms / 3;
}

static int64_t kill_time_ms(const struct watch *watch)
{
    int64_t end_ms = watch->lease_end_ms - watch->ttl_ms / MARGIN_PARTS;

    return end_ms < watch->kill_ms ? end_ms : watch->kill_ms;
}

static void set_timer(const struct watch *watch)
{
    struct itimerspec when = {.it_value = {0}};
    int64_t ms = watch->phase == PHASE_HELD ? term_time_ms(watch) : kill_time_ms(watch);

    if (watch->phase != PHASE_KILLED) {
        if (ms < 1)
            ms = 1;
        when.it_value.tv_sec = ms / 1000;
        when.it_value.tv_nsec = ms % 1000 * 1000000;
    }
    timerfd_settime(watch->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void act_on_time(struct watch *watch)
{
    struct keeper_message message = {.news = KEEPER_KILLED};

    if (watch->phase == PHASE_HELD && now_ms() >= term_time_ms(watch))
        end_group(watch, "lockfsd has not renewed the lease in time");
    if (watch->phase != PHASE_TERMINATED || watch->group == 0 || now_ms() < kill_time_ms(watch))
        return;
    watch->phase = PHASE_KILLED;
    kill(-watch->group, SIGKILL);
    send_news(watch->socket, &message);
}

static void end_group(struct watch *watch, const char *why)
{
    struct keeper_message message = {.news = KEEPER_LOST};

    if (watch->phase != PHASE_HELD)
        return;
    watch->phase = PHASE_TERMINATED;
    if (watch->group != 0) {
        kill(-watch->group, SIGTERM);
        kill(-watch->group, SIGCONT); /* one that is stopped takes the SIGTERM first */
    }
    fail(&message.failure, EXIT_LOST, "%s; the command is ended", why);
    send_news(watch->socket, &message);
}

static bool group_lives(pid_t group);

/* The claim stands until nothing is left that could go on without it. */
static void end_without_parent(const struct watch *watch)
{
    struct timespec pause = {.tv_nsec = 5 * 1000000};

    if (watch->group == 0)
        return; /* CMD waits for a word from its parent, and ends without */
    kill(-watch->group, SIGKILL);
    while (group_lives(watch->group))
        nanosleep(&pause, NULL);
}

/* `text` is "PID (NAME) STATE PARENT GROUP ...", and the name may have any character. */
static bool is_alive_in(const char *text, pid_t group)
{
    const char *rest = strrchr(text, ')');

    if (rest == NULL || strlen(rest) < sizeof ") S 1" - 1 || rest[2] == 'Z' || rest[2] == 'X')
        return false;
    char *parent_end;
    strtol(rest + 3, &parent_end, 10);
    return strtol(parent_end, NULL, 10) == group;
}

/* Whether the group has a process that is no zombie: nobody may be there to wait for those. */
static bool group_lives(pid_t group)
{
    const struct dirent *entry;
    DIR *proc;
    bool lives = false;

    if (kill(-group, 0) != 0 && errno == ESRCH)
        return false;
    proc = opendir("/proc");
    if (proc == NULL)
        return true;
    while (!lives && (entry = readdir(proc)) != NULL) {
        char path[sizeof "/proc//stat" + NAME_MAX];
        char text[2048];
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        if (read_file(path, text, sizeof text) < 0)
            continue;
        lives = is_alive_in(text, group);
    }
    closedir(proc);
    return lives;
}

static void let_go(struct watch *watch)
{
    struct keeper_message message = {.news = KEEPER_LOST};

    /* This must be the handle's last reference, and the asking thread has one in its calls: so an
     * unlock, which also returns when everybody sees the lock free. */
    if (flock(watch->lock, LOCK_UN) == 0 || watch->phase != PHASE_HELD || !is_loss(errno))
        return;
    fail(&message.failure, EXIT_LOST, "the claim was lost before the command ended");
    send_news(watch->socket, &message);
}
