/* Processes as the kernel knows them. See process.h. */
#include "process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

/* What is wanted of /proc/PID/stat. */
struct process_status {
    struct process process;
    uint32_t parent;
    char state;
    uint64_t flags;
    uint64_t threads;
};

static bool is_first_thread(uint32_t tid);
static int read_thread_group(uint32_t tid, uint32_t *ret_pid);
static int read_status(uint32_t pid, struct process_status *ret_status);

int process_identify(uint32_t tid, struct process *ret_process)
{
    struct process_status status;
    uint32_t pid = tid;
    int error = 0;

    memset(ret_process, 0, sizeof *ret_process);
    if (tid == 0)
        return 0;
    if (!is_first_thread(tid))
        error = read_thread_group(tid, &pid);
    if (error == 0)
        error = read_status(pid, &status);
    if (error != 0)
        return error;
    *ret_process = status.process;
    return 0;
}

/* Ten times cheaper than a look into /proc. The kernel checks permissions only after it has found
 * that the thread is the first one of that process, so EPERM is a yes. */
static bool is_first_thread(uint32_t tid)
{
    return tgkill((pid_t)tid, (pid_t)tid, 0) == 0 || errno != ESRCH;
}

enum { PROC_PATH_BYTES = 32 };

static int read_proc(uint32_t pid, const char *name, char *buffer, size_t size, size_t *ret_len);
static void proc_path(uint32_t pid, const char *name, char *ret_path);
static uint64_t number_next(const char **cursor);

static int read_thread_group(uint32_t tid, uint32_t *ret_pid)
{
    static const char key[] = "\nTgid:\t";
    char text[1024];
    size_t len;

    int error = read_proc(tid, "status", text, sizeof text, &len);
    if (error != 0)
        return error;
    /* The name stands in the first line, where a newline in it is escaped: it cannot pose as a
     * line of its own. */
    const char *found = strstr(text, key);
    if (found == NULL)
        return -EPROTO;
    found += sizeof key - 1;
    uint32_t pid = (uint32_t)number_next(&found);
    if (pid == 0)
        return -ESRCH;
    *ret_pid = pid;
    return 0;
}

/* The fields of /proc/PID/stat, counted from 1 as proc(5) does. */
enum {
    FIELD_STATE = 3,
    FIELD_PARENT = 4,
    FIELD_FLAGS = 9,
    FIELD_THREADS = 20,
    FIELD_START = 22,
};

static int read_status(uint32_t pid, struct process_status *ret_status)
{
    struct process_status status = {.process.pid = pid};
    char text[1024];
    size_t len;

    int error = read_proc(pid, "stat", text, sizeof text, &len);
    if (error != 0)
        return error;
    /* The name can hold anything, parentheses and newlines too; nothing behind it can. */
    const char *open = memchr(text, '(', len);
    const char *close = memrchr(text, ')', len);
    if (open == NULL || close == NULL || close < open)
        return -EPROTO;
    size_t comm_len = (size_t)(close - open) - 1;
    if (comm_len > LIMIT_COMM_BYTES)
        comm_len = LIMIT_COMM_BYTES;
    memcpy(status.process.comm, open + 1, comm_len);

    const char *cursor = close + 1;
    for (int field = FIELD_STATE; field <= FIELD_START; field++) {
        if (*cursor != ' ')
            return -EPROTO;
        cursor++;
        if (field == FIELD_STATE)
            status.state = *cursor;
        else if (field == FIELD_PARENT)
            status.parent = (uint32_t)number_next(&cursor);
        else if (field == FIELD_FLAGS)
            status.flags = number_next(&cursor);
        else if (field == FIELD_THREADS)
            status.threads = number_next(&cursor);
        else if (field == FIELD_START)
            status.process.start = number_next(&cursor);
        while (*cursor != ' ' && *cursor != '\n' && *cursor != '\0')
            cursor++;
    }
    *ret_status = status;
    return 0;
}

static uint64_t number_next(const char **cursor)
{
    uint64_t number = 0;

    for (; **cursor >= '0' && **cursor <= '9'; (*cursor)++)
        number = 10 * number + (uint64_t)(**cursor - '0');
    return number;
}

static int read_file(const char *path, char *buffer, size_t size, size_t *ret_len);

/* The start of /proc/PID/`name`, terminated. */
static int read_proc(uint32_t pid, const char *name, char *buffer, size_t size, size_t *ret_len)
{
    char path[PROC_PATH_BYTES];

    proc_path(pid, name, path);
    int error = read_file(path, buffer, size, ret_len);
    return error == -ENOENT ? -ESRCH : error;
}

static void proc_path(uint32_t pid, const char *name, char *ret_path)
{
    char digits[10];
    size_t count = 0;

    do {
        digits[count++] = (char)('0' + pid % 10);
        pid /= 10;
    } while (pid > 0);
    char *end = stpcpy(ret_path, "/proc/");
    while (count > 0)
        *end++ = digits[--count];
    *end++ = '/';
    assert((size_t)(end - ret_path) + strlen(name) < PROC_PATH_BYTES);
    strcpy(end, name);
}

static int read_file(const char *path, char *buffer, size_t size, size_t *ret_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t len = read(fd, buffer, size - 1);
    int error = len < 0 ? -errno : 0;
    close(fd);
    if (error != 0)
        return error;
    buffer[len] = '\0';
    *ret_len = (size_t)len;
    return 0;
}

/* A descriptor of a file in /proc/PID belongs to that very process: reading from it fails when the
 * process was reaped. Until then its number is nobody else's. The start time never changes; the
 * name may, and is read each time. */

static bool read_comm(int file, char *ret_comm);

int process_cache_identify(struct process_cache *cache, uint32_t tid, struct process *ret_process)
{
    struct process_known *known = &cache->known[tid % LIMIT_PROCESSES_KNOWN];
    char comm[LIMIT_COMM_BYTES + 1] = "";
    char path[PROC_PATH_BYTES];

    if (tid != 0 && known->pid == tid && read_comm(known->file, comm)) {
        *ret_process = (struct process){.pid = tid, .start = known->start};
        memcpy(ret_process->comm, comm, sizeof comm);
        return 0;
    }
    if (tid == 0 || !is_first_thread(tid))
        return process_identify(tid, ret_process);

    proc_path(tid, "comm", path);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    int error = process_identify(tid, ret_process);
    if (file < 0)
        return error;
    /* Where it can be read afterwards, the start time is that of the same process. */
    if (error != 0 || ret_process->pid != tid || !read_comm(file, comm)) {
        close(file);
        return error;
    }
    if (known->pid != 0)
        close(known->file);
    *known = (struct process_known){.pid = tid, .start = ret_process->start, .file = file};
    return 0;
}

/* The name, without the newline behind it, into LIMIT_COMM_BYTES + 1 zero bytes. */
static bool read_comm(int file, char *ret_comm)
{
    char text[LIMIT_COMM_BYTES + 2];
    ssize_t len = pread(file, text, sizeof text, 0);

    if (len <= 0)
        return false;
    size_t comm_len = (size_t)len - (text[len - 1] == '\n');
    memcpy(ret_comm, text, comm_len < LIMIT_COMM_BYTES ? comm_len : LIMIT_COMM_BYTES);
    return true;
}

void process_cache_close(struct process_cache *cache)
{
    for (size_t i = 0; i < LIMIT_PROCESSES_KNOWN; i++)
        if (cache->known[i].pid != 0)
            close(cache->known[i].file);
    memset(cache, 0, sizeof *cache);
}

size_t process_ancestors(uint32_t pid, struct process *ret_processes, size_t max)
{
    struct process_status status;
    size_t count = 0;

    while (pid != 0 && count < max && read_status(pid, &status) == 0) {
        /* A parent is older than its child: this one has the pid of a parent that has just died. */
        if (count > 0 && status.process.start > ret_processes[count - 1].start)
            break;
        ret_processes[count++] = status.process;
        if (pid == 1)
            break;
        pid = status.parent;
    }
    return count;
}

static bool status_alive(const struct process_status *status, uint64_t start);

bool process_alive(uint32_t pid, uint64_t start)
{
    struct process_status status;

    if (pid == 0)
        return false;
    int error = read_status(pid, &status);
    if (error != 0)
        return error != -ESRCH;
    return status_alive(&status, start);
}

static bool status_alive(const struct process_status *status, uint64_t start)
{
    bool ended = status->state == 'Z' || status->state == 'X' || status->state == 'x';

    /* A process whose first thread has ended looks like a zombie while its other threads work. */
    return status->process.start == start && (!ended || status->threads > 1);
}

bool process_exits(uint32_t pid)
{
    const uint64_t pf_exiting = 4; /* linux/sched.h; proc(5) shows the flags */
    struct process_status status;

    return read_status(pid, &status) != 0 || (status.flags & pf_exiting) != 0;
}

int process_signal(const struct process *process, int signal_number)
{
    if (process->pid == 0)
        return -ESRCH;
    int fd = pidfd_open((pid_t)process->pid, 0);
    if (fd < 0)
        return -errno;
    /* Checked after the descriptor is bound to whatever process has the pid now. */
    struct process_status status;
    int error = read_status(process->pid, &status);
    if (error == 0 && !status_alive(&status, process->start))
        error = -ESRCH;
    if (error == 0 && pidfd_send_signal(fd, signal_number, NULL, 0) != 0)
        error = -errno;
    close(fd);
    return error;
}

static int hex_value(char c);

int process_boot_id(uint8_t ret_boot_id[BOOT_ID_BYTES])
{
    uint8_t boot_id[BOOT_ID_BYTES] = {0};
    char text[64];
    size_t len;
    size_t digits = 0;

    int error = read_file("/proc/sys/kernel/random/boot_id", text, sizeof text, &len);
    if (error != 0)
        return error;
    for (size_t i = 0; i < len && text[i] != '\n'; i++) {
        if (text[i] == '-')
            continue;
        int value = hex_value(text[i]);
        if (value < 0 || digits == 2 * BOOT_ID_BYTES)
            return -EPROTO;
        boot_id[digits / 2] = (uint8_t)(boot_id[digits / 2] << 4 | value);
        digits++;
    }
    if (digits != 2 * BOOT_ID_BYTES)
        return -EPROTO;
    memcpy(ret_boot_id, boot_id, sizeof boot_id);
    return 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}
