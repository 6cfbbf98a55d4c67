/*
 * One server of the core as the only voter, over a disk that keeps a prefix of what was written to
 * it at a loss of power. What a server alone may at most promise is checked at every event.
 */
#ifndef TESTS_RAFT_RIG_H
#define TESTS_RAFT_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/internal.h"
#include "raft/raft.h"
#include "tap.h"

enum {
    RECORDS_MAX = 4096,
    RIG_ELECTION_MS = 1000,
    RIG_HEARTBEAT_MS = 100,
};

/* Violations found by check(), which is for what is checked too often to be a test point each. */
extern long violations;

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition) && violations++ < 20)                                                     \
            tap_note("%s:%d: violated: %s", __FILE__, __LINE__, #condition);                       \
    } while (0)

/* One record of a disk: a state (index 0) or an entry, named by a number that no other entry has.
 */
struct record {
    uint64_t write; /* 0: recovered */
    uint64_t term;
    uint64_t vote;
    uint64_t index;
    uint64_t name;
};

/* A core, its disk, and what its actions have said since it was started. */
struct server {
    void *memory;
    struct raft *raft;
    struct raft_actions actions;
    enum raft_role role;
    uint64_t term;
    uint64_t commit;
    uint64_t issued;
    uint64_t reported;

    struct record records[RECORDS_MAX];
    size_t records_count;
    size_t entry_at[RECORDS_MAX]; /* the position of each entry's record, by index */
    uint64_t last;

    /* Over all lives. */
    uint64_t names;
    uint64_t leader_term_max;
    uint64_t entry_term_max;
    uint64_t committed[RECORDS_MAX]; /* names, by index */
    uint64_t committed_max;
};

extern const struct raft_event start_event;
extern const struct raft_event failed_event;
struct raft_event propose_event(uint32_t count);
struct raft_event persisted_event(uint64_t write);
struct raft_event state_event(uint64_t term, uint64_t vote);
struct raft_event entry_event(uint64_t index, uint64_t term);
struct raft_event snapshot_event(uint64_t index, uint64_t term);
/* Of a snapshot, and of all entries that it covers. */
struct raft_event compacted_event(uint64_t index);

/* A configuration whose only voter is server 1. */
struct raft_config only_voter(void);

struct server *server_new(void);
/* A leader whose first entry is committed. */
struct server *new_leader(void);
void server_free(struct server *server);
void add_record(struct server *server, struct record record);
/* One event, its actions carried out, and what holds after every event. */
enum raft_error step(struct server *server, struct raft_event event);
/* Power is lost and comes back: the first `kept` records are what the disk still has. */
void restart(struct server *server, size_t kept);
/* What has been reported durable survives; the number of such records. */
size_t records_reported(const struct server *server);

/* Whether an event is refused so, and changes not a bit of the core. */
bool is_refused(struct server *server, struct raft_event event, enum raft_error error);
/* Whether a caller that breaks its duties is stopped by an assertion. */
bool is_stopped(struct server *server, struct raft_event event);
/* An action of the last step. */
const struct raft_action *action_at(const struct server *server, size_t at);

/* Test points, which belong to the file that includes this. */
__attribute__((unused)) static void refuses(struct server *server, struct raft_event event,
                                            enum raft_error error, const char *what)
{
    tap_ok(is_refused(server, event, error), "%s: refused (%s), state as it was", what,
           raft_error_text(error));
}

__attribute__((unused)) static void aborts(struct server *server, struct raft_event event,
                                           const char *what)
{
    tap_ok(is_stopped(server, event), "%s: stopped by an assertion", what);
}

__attribute__((unused)) static void no_violations(const char *what)
{
    tap_equal(violations, 0, "%s: no violation", what);
    violations = 0;
}

#endif
