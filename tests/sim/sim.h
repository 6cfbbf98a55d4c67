/*
 * The simulator: a whole cluster in one process, on virtual time. One seed is one run; the same
 * seed and options give the same run, step by step.
 *
 * Time is true time in microseconds, which no server sees: each reads a clock of its own, with its
 * own offset and rate. What happens is an event of the schedule. A server is driven like the
 * daemon's loop: what arrives goes to its inbox, a turn takes all of it, and the actions that come
 * out are carried out on the simulated network and disk.
 *
 *     main.c         options, one process for each run, what failed and how to replay it
 *     run.c          one run: a phase with faults, then one in which the cluster must recover
 *     plan.c         what a seed chooses: profiles, sizes, rates of faults
 *     schedule.c     events in order of time
 *     network.c      messages: delayed, lost, repeated, cut off
 *     disk.c         what is durable, and what a crash leaves of the rest
 *     entries.c      a log of entries, as disks and servers hold them
 *     machine.c      the state machine below the log, and its snapshots
 *     server.c       the life of a server: start, turns, pauses, crashes, clock
 *     server_raft.c  a server that is the consensus core and the state machine
 *     callers.c      who proposes and reads
 *     node_kind.h    a server that is the shipping node, and its callers and oracles
 *     faults.c       what goes wrong at random
 *     adversary.c    what goes wrong on purpose
 *     oracles.c      what must hold at every step, and what callers were told
 *     oracles_log.c  the same for entries and messages
 *     mutants.c      the core with a deliberate bug
 *     trace.c        the last events as text
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/raft.h"
#include "random.h"

enum {
    SIM_SERVERS_MAX = 12,    /* that exist at a time */
    SIM_VOTERS_MAX = 7,      /* at the beginning */
    SIM_IDS_MAX = 4096,      /* that servers had in one run */
    SIM_TRACE_LINES = 400,   /* that a failure shows */
    SIM_MESSAGE_CHARS = 512, /* of the words for a failure */
};

/* How a program ends. */
enum sim_exit {
    SIM_OK = 0,
    SIM_USAGE = 2,
    SIM_CRASH = 3,    /* an assertion, a signal */
    SIM_SAFETY = 4,   /* a promise was broken */
    SIM_LIVENESS = 5, /* no progress although nothing was wrong any more */
    SIM_UNSEEN = 6,   /* all is well, but something was never tried */
};

/* What a run did. The second column: check-sim demands that it was seen (2: of nodes). */
#define SIM_COUNTERS(X)                                                                            \
    X(elections, 1)                                                                                \
    X(entries_committed, 1)                                                                        \
    X(proposals_done, 1)                                                                           \
    X(proposals_refused, 1)                                                                        \
    X(proposals_lost, 1)                                                                           \
    X(reads_answered, 1)                                                                           \
    X(reads_answered_at_once, 1)                                                                   \
    X(reads_failed, 1)                                                                             \
    X(messages_sent, 1)                                                                            \
    X(messages_lost, 1)                                                                            \
    X(messages_repeated, 1)                                                                        \
    X(messages_late, 1)                                                                            \
    X(writes, 1)                                                                                   \
    X(writes_joined, 1)                                                                            \
    X(writes_failed, 1)                                                                            \
    X(writes_torn, 1)                                                                              \
    X(writes_rotten, 1)                                                                            \
    X(writes_gone, 1)                                                                              \
    X(writes_left_by_crash, 1)                                                                     \
    X(entries_truncated, 1)                                                                        \
    X(log_resets, 1)                                                                               \
    X(crashes, 1)                                                                                  \
    X(crashes_in_recovery, 1)                                                                      \
    X(power_losses, 1)                                                                             \
    X(restarts, 1)                                                                                 \
    X(pauses, 1)                                                                                   \
    X(stalls, 1)                                                                                   \
    X(partitions, 1)                                                                               \
    X(one_way_cuts, 1)                                                                             \
    X(leaders_isolated, 1)                                                                         \
    X(leaders_woken, 1)                                                                            \
    X(duels, 1)                                                                                    \
    X(strikes, 1)                                                                                  \
    X(slow_disks, 1)                                                                               \
    X(full_disks, 1)                                                                               \
    X(rate_changes, 1)                                                                             \
    X(snapshots_made, 1)                                                                           \
    X(snapshot_chunks, 1)                                                                          \
    X(snapshots_installed, 1)                                                                      \
    X(snapshots_refused, 1)                                                                        \
    X(snapshots_not_there, 0)                                                                      \
    X(learners_added, 1)                                                                           \
    X(learners_promoted, 1)                                                                        \
    X(voters_demoted, 1)                                                                           \
    X(members_removed, 1)                                                                          \
    X(changes_refused, 1)                                                                          \
    X(transfers_asked, 1)                                                                          \
    X(transfers_refused, 1)                                                                        \
    X(transfers_done, 1)                                                                           \
    X(assertions_failed, 0)                                                                        \
    X(invariants_broken, 0)                                                                        \
    X(nodes_failed, 2)                                                                             \
    X(desks_opened, 2)                                                                             \
    X(requests, 2)                                                                                 \
    X(requests_done, 2)                                                                            \
    X(requests_refused, 2)                                                                         \
    X(requests_timed_out, 2)                                                                       \
    X(requests_not_ready, 2)                                                                       \
    X(claims_told, 2)                                                                              \
    X(waits_granted, 2)                                                                            \
    X(claims_found, 2)                                                                             \
    X(interrupts, 2)                                                                               \
    X(closes, 2)                                                                                   \
    X(deaths, 2)                                                                                   \
    X(dirs_removed, 2)                                                                             \
    X(tables_compared, 2)                                                                          \
    X(steps, 1)                                                                                    \
    X(virtual_ms, 1)

struct sim_stats {
#define X(name, wanted) uint64_t name;
    SIM_COUNTERS(X)
#undef X
};

/* A state, serialized; shared by disks and messages, which count their references. */
struct blob {
    unsigned refs;
    bool own; /* made by the server that keeps it, not by a leader */
    uint64_t index;
    uint64_t term;
    uint32_t size;
    uint8_t bytes[];
};

/* An entry with the caller's data, which is a number of its own for each command. */
struct entry {
    struct raft_entry raft;
    uint64_t command; /* 0: none */
};

/* Entries base + 1 to last. */
struct entries {
    uint64_t base;
    uint64_t base_term;
    uint64_t last;
    struct entry *items; /* items[gone] is entry base + 1 */
    size_t gone;
    size_t capacity;
};

/* What the entries led to. The register holds the command that was applied last. */
struct machine {
    uint64_t applied;
    uint64_t applied_term;
    uint64_t hash; /* over every entry up to `applied` */
    uint64_t commands;
    uint64_t register_command;
    uint64_t register_index;
    uint32_t members_count;
    struct raft_member members[RAFT_MEMBERS_MAX]; /* by the changes, without asking the core */
};

struct message {
    unsigned refs;
    struct raft_message raft;
    struct blob *snapshot;
    const struct raft_entry *entries; /* of an APPEND, and their commands */
    const uint64_t *commands;
    char *bytes; /* of a node, where it sends them */
    size_t bytes_size;
};

/* What a caller wants of the server that it sits on. */
struct call {
    enum call_type {
        CALL_PROPOSE,
        CALL_READ,
        CALL_CHANGE,
        CALL_TRANSFER,
        CALL_SNAPSHOT,
    } type;
    uint64_t began_us;
    uint64_t first; /* command of a proposal, id of a read */
    uint32_t count;
    uint64_t floor; /* of a read: it must see this entry at least */
    struct raft_change change;
    uint64_t to;
};

/* What a server's turn takes from its inbox. */
struct item {
    enum item_type {
        ITEM_NONE,
        ITEM_MESSAGE,
        ITEM_CALL,
        ITEM_PERSISTED,
        ITEM_PERSIST_FAILED,
        ITEM_SNAPSHOT_STORED, /* its own */
        ITEM_SNAPSHOT_RECEIVED,
        ITEM_SNAPSHOT_REFUSED,
        ITEM_APPLY, /* go on applying */
        ITEM_TICK,
        ITEM_TURN_END,
    } type;
    struct message *message;
    struct call call;
    uint64_t write;
    struct blob *blob;
};

struct items {
    struct item *list;
    size_t count;
    size_t capacity;
};

struct disk_write {
    enum {
        DISK_STATE,
        DISK_ENTRIES,
        DISK_RESET,
    } type;
    uint64_t number;
    uint64_t index; /* the first entry, or what a reset begins behind */
    uint64_t term;
    uint64_t vote;
    struct entry *entries;
    size_t count;
    bool rotten; /* its bytes are not what was written: recovery ends before it */
};

struct disk_state {
    uint64_t term;
    uint64_t vote;
};

struct disk {
    /* What survives a loss of power. */
    struct disk_state state;
    struct entries log;
    struct blob *snapshot;
    uint64_t drop_wanted; /* entries up to here may go */
    /* Each state that was ever durable here, for the oracles. */
    struct disk_state *states;
    size_t states_count;
    size_t states_capacity;
    /* Written and not yet durable, in order; the first `syncing` of them are under way. */
    struct disk_write *pending;
    size_t pending_count;
    size_t pending_capacity;
    size_t syncing;
    bool fail_next;
    bool full;
    uint64_t slow_until_us;
    uint64_t full_until_us;
};

enum server_state {
    SERVER_UNUSED,
    SERVER_DOWN,
    SERVER_RECOVERING,
    SERVER_UP,
};

struct server {
    struct sim *sim;
    unsigned slot;
    uint64_t id;
    enum server_state state;
    bool starts_cluster; /* it knows the first members */
    bool was_member;     /* of a committed configuration */
    uint64_t boot;       /* counts starts and crashes; events of an earlier one are void */
    struct disk disk;

    /* Its clock: local_us at true time true_us, and how many local ones pass in 10^6 true ones. */
    uint64_t true_us;
    uint64_t local_us;
    uint64_t rate;

    struct items inbox;
    struct items batch; /* of the turn that has begun */
    size_t batch_next;
    struct item item; /* that is being stepped or carried out */
    bool in_turn;
    bool tick_first;
    bool tick_done;
    unsigned turn_ends;
    bool turn_scheduled;
    uint64_t now_ms;       /* the turn's reading of the clock */
    uint64_t timer_us;     /* of the earliest timer under way; UINT64_MAX: none */
    uint64_t paused_until; /* true time; 0: it runs */
    uint64_t stall_us;     /* not 0: it stops for so long in the middle of its next step */
    bool stops;            /* a write failed: it is about to exit */
    bool held_down;        /* the scenario or the last phase keeps it from starting */

    void *kind; /* of its kind */
};

/* A kind of server. */
struct server_kind {
    const char *name;
    void (*create)(struct server *server);
    void (*destroy)(struct server *server);
    /* Starts from what the disk holds, all of which is durable. */
    void (*start)(struct server *server, uint64_t now_ms);
    /* A crash: what is in memory is gone. */
    void (*forget)(struct server *server);
    /* Gives it one item. Actions wait for carry_out(). */
    void (*step)(struct server *server, const struct item *item, uint64_t now_ms);
    /* Carries out what the step said; false where it was stopped on the way. */
    bool (*carry_out)(struct server *server);
    bool (*wants_turn_end)(const struct server *server);
    uint64_t (*get_deadline_ms)(const struct server *server);
    struct raft *(*get_raft)(const struct server *server);
    struct machine *(*get_machine)(const struct server *server);
    /* Whether a caller who came after the faults got what it wanted. NULL: a command was done. */
    bool (*is_served)(struct sim *sim);
    void (*end)(struct sim *sim); /* NULL: nothing is left to free */
    size_t (*get_waiting)(
        const struct server *server); /* callers without an answer; NULL: it does not tell */
};

extern const struct server_kind server_raft;
extern const struct server_kind server_node;

enum fault {
    FAULT_CRASH,
    FAULT_CRASH_LEADER,
    FAULT_POWER_LOSS, /* of several at once */
    FAULT_PAUSE,
    FAULT_PAUSE_LEADER,
    FAULT_STALL, /* in the middle of a step */
    FAULT_PARTITION,
    FAULT_ONE_WAY_CUT,
    FAULT_ISOLATE_LEADER,
    FAULT_SLOW_TYPE, /* messages of one type are late */
    FAULT_LOSS,
    FAULT_WRITE_ERROR,
    FAULT_WRITE_ERROR_LEADER,
    FAULT_SLOW_DISK,
    FAULT_FULL_DISK,
    FAULT_RATE,
    FAULT_SNAPSHOT,
    FAULT_CHANGE,
    FAULT_TRANSFER,
    FAULT_WAKE_LEADER, /* this and the next: adversary.c */
    FAULT_HUNT,
    FAULT_DUEL,
    FAULT_STRIKE,
    FAULT_DEAFEN,
    FAULTS_COUNT,
};

enum profile {
    PROFILE_CALM,
    PROFILE_LOSSY,
    PROFILE_CRASHY,
    PROFILE_DISKS,
    PROFILE_CLOCKS,
    PROFILE_MEMBERS,
    PROFILE_HUNTED, /* leaders fall as soon as they stand, with much in their logs */
    PROFILE_ALL,
    PROFILE_BEYOND, /* all, and clocks that differ by more than the bound */
    PROFILES_COUNT,
};

const char *profile_name(enum profile profile);

/* What the command line says. */
struct options {
    uint64_t seed;
    uint64_t events;  /* 0: the seed chooses */
    unsigned servers; /* 0: the seed chooses */
    int profile;      /* -1: the seed chooses */
    bool trace;
    const char *mutant; /* NULL: none */
    bool nodes;         /* servers are nodes */
};

/* What a run is like: chosen by the seed where the options leave it open. */
struct plan {
    uint64_t events;
    unsigned servers;
    enum profile profile;

    uint32_t election_ms;
    uint32_t heartbeat_ms;
    uint32_t max_drift_permille;
    uint64_t rate_min, rate_max;
    bool clocks_beyond; /* the bound does not hold: looks are not promised */

    uint64_t delay_min_us, delay_max_us;
    uint64_t loss, repeat, late; /* of a million */
    uint64_t late_max_us;
    bool in_order; /* as a connection delivers, but for what is late */

    uint64_t sync_min_us, sync_max_us;
    uint64_t turn_max_us;
    uint64_t stall_chance; /* of a million steps */
    bool read_clock_often;
    bool applies_late;
    bool join_reports;
    uint64_t replays; /* of so many acknowledgements one is delivered again; 0: none */

    uint64_t call_us; /* between calls, on average */
    uint32_t batch_max;
    uint32_t entry_bytes_max;
    uint32_t reads_percent;

    uint64_t snapshot_entries; /* a server makes one after so many */
    uint32_t snapshot_bytes_min, snapshot_bytes_max;
    uint32_t chunk_bytes;

    uint64_t fault_us;
    uint32_t weights[FAULTS_COUNT];
};

void plan_make(struct plan *plan, const struct options *options);

enum event_type {
    EVENT_DELIVER,
    EVENT_TURN,
    EVENT_TIMER,
    EVENT_RESUME,
    EVENT_SYNCED,
    EVENT_SNAPSHOT_STORED,
    EVENT_SNAPSHOT_RECEIVED,
    EVENT_STOP,
    EVENT_RESTART,
    EVENT_RECOVERED,
    EVENT_CALL,
    EVENT_FAULT,
    EVENT_SCENARIO,
    EVENT_STRIKE,
    EVENT_DUEL,
    EVENT_CHECK,
};

enum strike {
    STRIKE_ISOLATE,
    STRIKE_CRASH,
    STRIKE_COMMIT,
};

struct event {
    uint64_t us;
    uint64_t order; /* of those at the same time */
    enum event_type type;
    unsigned slot;
    uint64_t boot;
    union {
        struct message *message;
        struct blob *blob;
        bool failed; /* of EVENT_SYNCED */
        enum strike strike;
    };
};

struct schedule {
    struct event *heap;
    size_t count;
    size_t capacity;
    uint64_t order;
};

struct network {
    uint64_t cut_until[SIM_SERVERS_MAX][SIM_SERVERS_MAX]; /* [from][to] */
    uint64_t last_us[SIM_SERVERS_MAX][SIM_SERVERS_MAX];
    uint64_t lossy_until;
    uint64_t slow_until;
    enum raft_message_type slow_type;
};

struct callers {
    uint64_t commands; /* the last number given to one */
    uint64_t reads;
    uint64_t quiet_until; /* they only read */
    bool stopped;
};

/* Of FAULT_WAKE_LEADER. */
struct scenario {
    enum {
        SCENARIO_NONE,
        SCENARIO_CUT,
        SCENARIO_STOPPED,
    } step;
    unsigned slot;
    uint64_t boot;
    uint64_t next_us;
    uint64_t give_up_us;
    uint64_t term;
    uint64_t done_before;
};

enum {
    ADVERSARY_OLD_MESSAGES = 128,
};

struct adversary {
    uint64_t hunt_until;
    uint64_t hand_over_until;
    uint64_t strike_until;
    uint64_t deaf_until;
    uint64_t commit_term; /* in which something was committed last */
    struct message *old[ADVERSARY_OLD_MESSAGES];
    unsigned old_next;
    enum {
        DUEL_NONE,
        DUEL_ARMED,
        DUEL_HELD,     /* a candidate is stopped, and its requests are kept back */
        DUEL_RELEASED, /* they are on their way */
    } duel;
    bool duel_won; /* by another candidate */
    bool duel_crashes;
    bool duel_transfers;
    unsigned duelist;
    uint64_t duel_term;
    uint64_t duel_until;
    struct message *held[SIM_SERVERS_MAX];
    unsigned held_count;
};

struct known_entry {
    uint64_t term;
    uint64_t prev_term;
    uint64_t command;
    enum raft_entry_type type;
    struct raft_change change;
    struct known_entry *next; /* of the same index and another term */
};

struct committed_entry {
    uint64_t term;
    uint64_t command;
    uint64_t in_term; /* the term in which it was first known as committed */
};

struct applied_entry {
    uint64_t hash;
    uint64_t command;
};

struct known_leader {
    uint64_t id;
    uint64_t boot;
};

struct known_command {
    uint64_t applied_index; /* 0: not applied anywhere */
    uint64_t done_index;    /* 0: its caller has no answer */
};

struct server_marks {
    uint64_t boot;
    uint64_t term;
    uint64_t commit;
    uint64_t now_ms;
    struct disk_state vote; /* the last that it wanted persisted */
};

/* All that the run has shown, in true time. */
struct oracles {
    struct known_entry **known; /* by index */
    size_t known_capacity;
    struct committed_entry *committed;
    uint64_t committed_count;
    size_t committed_capacity;
    struct applied_entry *applied;
    uint64_t applied_count;
    size_t applied_capacity;
    struct known_leader *leaders; /* by term */
    size_t leaders_capacity;
    struct known_command *commands;
    size_t commands_capacity;
    uint64_t floor; /* the last entry that a caller was told of */
    uint64_t done_count;
    uint64_t last_term_led;
    uint64_t last_term_given; /* campaigned for in a transfer */
    struct machine newest;    /* as of the last change of the members */
    struct server_marks marks[SIM_SERVERS_MAX];
};

/* Lives in memory that the parent process shares, so that it can tell how a run ended. */
struct trace_record;
struct sim_shared;

struct sim {
    struct options options;
    struct plan plan;
    struct rng rng;
    uint64_t now_us;
    bool recovering; /* the second phase */
    uint64_t phase_done;
    struct schedule schedule;
    const struct server_kind *kind;
    struct server servers[SIM_SERVERS_MAX];
    unsigned servers_count;
    uint64_t ids;
    unsigned slot_of_id[SIM_IDS_MAX]; /* SIM_SERVERS_MAX: gone */
    struct raft_member first_members[SIM_VOTERS_MAX];
    struct network network;
    struct callers callers;
    struct scenario scenario;
    struct adversary adversary;
    struct oracles oracles;
    struct world *world; /* of nodes */
    struct sim_stats *stats;
    struct sim_shared *shared;
};

/* run.c */
void sim_run(const struct options *options, struct sim_shared *shared);
/* An int from which the largest of a growing list is allocated; ends the program without memory. */
void *sim_grow(void *list, size_t *capacity, size_t wanted, size_t item_size);
void *sim_alloc(size_t size);

/* trace.c */
struct sim_shared *sim_shared_make(void);
struct sim_stats *sim_shared_stats(struct sim_shared *shared);
const char *sim_shared_message(const struct sim_shared *shared);
uint64_t sim_shared_digest(const struct sim_shared *shared);
void trace_begin(struct sim_shared *shared, bool print);
void trace_print(const struct sim_shared *shared);
void trace_step(struct server *server, const struct raft_event *event, enum raft_error error);
void trace_action(struct server *server, const struct raft_action *action);
void trace_drop(struct sim *sim, const struct raft_message *message);
/* A static text, and up to three numbers for its %'s. */
void trace_say(struct sim *sim, const struct server *server, const char *format, uint64_t a,
               uint64_t b, uint64_t c);
/* Ends the run: what a caller was told is wrong, or no progress. */
__attribute__((format(printf, 3, 4), noreturn)) void sim_fail(struct sim *sim, enum sim_exit exit,
                                                              const char *format, ...);
/* A step breaks a rule. Ends the run, but for mutants, where what callers see must show it. */
__attribute__((format(printf, 3, 4))) void sim_broken(struct sim *sim, const struct server *server,
                                                      const char *format, ...);

/* mutants.c */
const char *mutants_name(unsigned at); /* NULL: there are no more */
const char *mutants_text(unsigned at);
/* Counts failed assertions of the core there, and goes on. */
void mutants_choose(const char *name, uint64_t *failed);

/* schedule.c */
void schedule_add(struct sim *sim, uint64_t us, struct event event);
bool schedule_next(struct sim *sim, struct event *ret_event);
void schedule_destroy(struct sim *sim);

/* entries.c */
void entries_reset(struct entries *entries, uint64_t base, uint64_t base_term);
struct entry *entries_at(const struct entries *entries, uint64_t index); /* NULL: not there */
uint64_t entries_term_at(const struct entries *entries, uint64_t index); /* 0: not known */
/* Replaces all from `first` on; there must be no gap. */
void entries_write(struct entries *entries, uint64_t first, const struct entry *list, size_t count);
void entries_drop(struct entries *entries, uint64_t base);
void entries_destroy(struct entries *entries);

/* machine.c */
void machine_init(struct machine *machine, const struct raft_member *members, size_t count);
void machine_apply(struct machine *machine, uint64_t index, const struct entry *entry);
/* `members` are the core's at that index. `salt` makes the bytes differ between servers. */
struct blob *machine_save(const struct machine *machine, const struct raft_member *members,
                          size_t members_count, uint32_t padding, uint64_t salt);
/* With these bytes behind it, instead of the padding. */
struct blob *machine_save_with(const struct machine *machine, const struct raft_member *members,
                               size_t members_count, const void *bytes, size_t size);
const void *machine_saved_bytes(const struct blob *blob, size_t *ret_size);
/* False where the bytes are damaged. `ret_members` are the core's. */
bool machine_load(struct machine *machine, const struct blob *blob, struct raft_member *ret_members,
                  size_t *ret_members_count);
struct blob *blob_make(uint32_t size);
struct blob *blob_ref(struct blob *blob);
void blob_unref(struct blob *blob); /* NULL is fine */

/* disk.c */
void disk_write(struct server *server, struct disk_write write); /* takes the entries */
void disk_synced(struct server *server, bool failed);
/* Starts a sync where there is something to sync. */
void disk_go_on(struct server *server);
void disk_store_snapshot(struct server *server, struct blob *blob, bool own);
void disk_snapshot_stored(struct server *server, struct blob *blob, bool own);
void disk_drop_log(struct server *server, uint64_t base);
/* What was not durable is lost from some write on. */
void disk_crash(struct server *server);
/* All that can be read is durable now. */
void disk_recover(struct server *server);
void disk_wipe(struct server *server);
bool disk_voted(const struct disk *disk, uint64_t term, uint64_t vote);
/* Whether the entry is durable, by itself or below a snapshot. */
bool disk_has(const struct disk *disk, uint64_t index, uint64_t term);

/* network.c */
struct message *message_make(const struct raft_message *raft, size_t entries_count);
void message_unref(struct message *message);
/* Takes the reference. */
void network_send(struct server *server, struct message *message);
/* Whatever is cut; takes the reference. */
void network_deliver_soon(struct sim *sim, struct message *message);
void network_deliver(struct sim *sim, unsigned slot, struct message *message);
void network_cut(struct sim *sim, unsigned from, unsigned to, uint64_t until_us);
void network_heal(struct sim *sim);

/* server.c */
void server_create(struct sim *sim, unsigned slot, bool starts_cluster);
void server_destroy(struct server *server);
void server_post(struct server *server, struct item item);
void server_event(struct server *server, const struct event *event);
void server_crash(struct server *server, uint64_t restart_us);
void server_restart(struct server *server);
void server_pause(struct server *server, uint64_t until_us);
void server_resume(struct server *server);
/* In the middle of a step: the process stops here. */
bool server_stalls(struct server *server);
void server_set_rate(struct server *server, uint64_t rate);
uint64_t server_clock_ms(const struct server *server);
bool server_leads(const struct server *server);
struct server *server_by_id(struct sim *sim, uint64_t id); /* NULL: gone */
/* The one with the highest term; NULL: none. */
struct server *sim_leader(struct sim *sim);
void item_release(struct item *item);

/* callers.c */
void callers_event(struct sim *sim);
void callers_propose(struct server *server, uint32_t count);
void callers_read(struct server *server);
void callers_transfer(struct server *server);
uint32_t callers_command_bytes(const struct sim *sim, uint64_t command);

/* faults.c */
void faults_event(struct sim *sim);
void faults_end(struct sim *sim);
/* Begins a change of the members at the leader, whatever comes of it. */
void faults_tidy_members(struct sim *sim);

/* adversary.c */
void adversary_isolate(struct server *server, uint64_t until_us);
void adversary_begin_wake(struct sim *sim);
void adversary_wake_event(struct sim *sim);
void adversary_deafen(struct sim *sim);
void adversary_begin_duel(struct sim *sim);
void adversary_duel_event(struct sim *sim);
void adversary_strike(struct sim *sim, const struct event *event);
/* What it sees: true where it keeps the message. */
bool adversary_sends(struct server *server, struct message *message);
void adversary_elected(struct server *server, uint64_t term);
void adversary_committed(struct server *server);
void adversary_end(struct sim *sim);
void adversary_destroy(struct sim *sim);

/* oracles.c */
void oracles_destroy(struct sim *sim);
void oracle_after_step(struct server *server);
void oracle_led(struct server *server, uint64_t term);
void oracle_persist_state(struct server *server, uint64_t term, uint64_t vote);
void oracle_started(struct server *server);
void oracle_applied(struct server *server, uint64_t index, const struct entry *entry);
void oracle_restored(struct server *server, const struct raft_member *members, size_t count);
void oracle_done(struct server *server, uint64_t command, uint64_t index);
uint64_t oracle_floor(const struct sim *sim);
void oracle_read(struct server *server, const struct call *call);
/* Whether all members that run have applied the entries up to `index`. */
bool oracle_caught_up(struct sim *sim, uint64_t index, char *ret_why, size_t why_size);
bool oracle_converged(struct sim *sim, char *ret_why, size_t why_size);
/* The leader of a term, or one that is all 0. */
struct known_leader *oracle_leader(struct sim *sim, uint64_t term);

/* oracles_log.c */
void oracle_logged(struct server *server, uint64_t index, const struct entry *entry,
                   uint64_t prev_term);
void oracle_commit(struct server *server, const struct entries *log, uint64_t from, uint64_t to);
void oracle_leader_complete(struct server *server, const struct entries *log, uint64_t term);
void oracle_send(struct server *server, const struct message *message, const struct entries *log);

#endif
