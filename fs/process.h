/*
 * Processes as the kernel knows them. A FUSE request names a thread; claims name the process, with
 * its start time, so that a pid that is used again is somebody else.
 *
 * No allocation, no stdio: some of this runs once for each acquire.
 */
#ifndef FS_PROCESS_H
#define FS_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command.h"

/* The process of the thread `tid`. Always writes `ret_process`: pid 0, and nothing else known, for
 * tid 0 (a caller outside the daemon's pid namespace; success) and where there is no such thread
 * any more (-ESRCH, or what /proc gave). */
int process_identify(uint32_t tid, struct process *ret_process);

/* Processes that asked before, one for each number modulo the limit. All zeros at first. */
struct process_cache {
    struct process_known {
        uint32_t pid; /* 0: nobody */
        int file;     /* /proc/PID/comm */
        uint64_t start;
    } known[LIMIT_PROCESSES_KNOWN];
};

/* The same as process_identify(), at a tenth of the cost for the first thread of a process that
 * asked before. */
int process_cache_identify(struct process_cache *cache, uint32_t tid, struct process *ret_process);
void process_cache_close(struct process_cache *cache);

/* The process `pid`, its parent, and so on, as far as the first process of the namespace, or `max`.
 * Returns how many; 0 where there is no such process. */
size_t process_ancestors(uint32_t pid, struct process *ret_processes, size_t max);

/* Whether the process that had `pid` and began at `start` still runs. A zombie does not. Where
 * that cannot be told (no descriptor left), it does. */
bool process_alive(uint32_t pid, uint64_t start);

/* Whether the process is on its way out, or gone. */
bool process_exits(uint32_t pid);

/* Sends a signal to this very process. -ESRCH where it is gone, even if its pid is in use again. */
int process_signal(const struct process *process, int signal_number);

/* Which boot of the machine this is: with it, pid and start time are unique. */
int process_boot_id(uint8_t ret_boot_id[BOOT_ID_BYTES]);

#endif
