/*
 * A server that is the shipping node of fs/, and callers that sit on it.
 *
 *     server_node.c    the node on the simulated network and disk; also server_node_actions.c
 *     node_bytes.c     what it writes and sends, as bytes
 *     callers_node.c   callers at the desk of a node, and what they were told
 *     oracles_table.c  what must hold of what they were told, and of the lock tables
 */
#ifndef TESTS_SIM_NODE_KIND_H
#define TESTS_SIM_NODE_KIND_H

#include "fs/codec_peer.h"
#include "fs/node.h"
#include "sim.h"

enum {
    DESK_FILES = 24,
    DESK_SLOTS = 64, /* the first is for what is answered at once */
    WORLD_DIRS = 6,  /* that callers use at a time; the first is the root */
};

/* A file, in the root or in a lock below it. Neither number is ever used for another one. */
struct place {
    uint64_t dir; /* 0: the root */
    uint64_t name;
};

/* A lock that callers use. */
struct world_dir {
    uint64_t number; /* 0: none; the root's is 0, too */
    bool usable;     /* made, and its limit is known */
    bool setting;    /* a change of its limit is under way, or nobody knows what came of it */
};

struct known_table {
    bool known;
    uint64_t digest;
};

/* What all desks share, and the oracles of tables. */
struct world {
    struct world_dir dirs[WORLD_DIRS];
    uint64_t dirs_made;
    uint32_t *limits; /* by number: that it may have at most; 0: unlimited */
    size_t limits_capacity;
    uint64_t names_from;
    uint64_t asked;   /* requests of all desks, counted */
    uint64_t token;   /* the largest that a caller was told */
    bool served;      /* a wait that began in recovery has ended with a grant */
    uint64_t *tokens; /* by token: whom it was told, 0: nobody */
    size_t tokens_capacity;
    struct known_table *tables; /* by index */
    size_t tables_capacity;
    /* The bytes of entries, each once: an entry's command is its number here. */
    struct stored {
        char *data;
        uint32_t len;
    } * stored;
    size_t stored_count, stored_capacity;
    uint32_t *stored_by_hash; /* open addressing; 0: free */
    size_t hash_size;
};

/* A descriptor of a caller. */
struct desk_file {
    bool used;
    uint64_t handle;
    uint64_t inode;
    struct place place;
    enum claim_kind kind;
    uint64_t owner; /* of fcntl */
    uint32_t pid;
    uint32_t slot;        /* of its request under way; 0: none */
    enum node_flock mode; /* that its caller relies on; 0: none */
    uint64_t token;
    uint64_t index; /* the claim is in every table that has applied so much */
    bool ended;     /* unlinked or forced: it is of no more use */
    bool given_up;  /* a request of it was */
};

/* A request under way. */
struct desk_ask {
    bool used;
    enum node_op op;
    int file; /* -1: none */
    struct place place;
    enum node_flock how;
    bool acquires;
    bool waits;
    bool contended;  /* somebody held it */
    bool recovering; /* asked when all faults were over */
    uint64_t order;  /* of requests */
    uint64_t token;  /* the largest one told before */
    uint64_t inode;  /* of a control file */
    uint64_t handle;
    unsigned dir; /* of MKDIR and settings */
    uint32_t limit;
};

struct desk {
    bool ready;
    bool unlinking;
    uint64_t token;               /* the last that was told here */
    uint64_t dirs[WORLD_DIRS];    /* inodes; 0: not looked up */
    uint64_t numbers[WORLD_DIRS]; /* of these */
    uint64_t owners;
    struct desk_file files[DESK_FILES];
    struct desk_ask asks[DESK_SLOTS];
};

/* server_node.c */
struct node *node_of(const struct server *server); /* NULL: it does not run */
struct desk *desk_of(const struct server *server);
/* One step of the node; its actions wait to be carried out. */
void node_kind_step(struct server *server, struct node_event *event);
/* A request that is answered at once. */
struct node_reply node_kind_ask(struct server *server, struct node_request *request);

/* callers_node.c */
void desk_ready(struct server *server);
/* A caller does something. */
void desk_act(struct server *server);
void desk_reply(struct server *server, const struct node_reply *reply);
void desk_lost(struct server *server, uint64_t handle);

/* oracles_table.c */
struct world *world_of(struct sim *sim);
void world_end(struct sim *sim);
uint64_t world_store(struct sim *sim, struct span data); /* 0: no bytes */
struct span world_stored(const struct sim *sim, uint64_t number);
bool place_is_same_resource(const struct sim *sim, const struct place *a, const struct place *b);
/* Whether anybody relies on a claim that would be in the way of an exclusive one. */
bool oracle_is_held(struct sim *sim, const struct place *place);
void oracle_told(struct server *server, struct desk_file *file, const struct desk_ask *ask,
                 uint64_t token);
void oracle_removed(struct server *server, uint64_t dir);
/* The digest of the table at its index. */
void oracle_table(struct server *server);
/* Each claim that a caller relies on is in this table. */
void oracle_claims(struct server *server);

#endif
