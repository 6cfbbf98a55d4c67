/* What the subcommands of `lockfs` share: exit codes, failures, and where a lock is. */
#ifndef TOOL_H
#define TOOL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TOOL_VERSION "0.1.0"

/* As in sysexits.h, where that has a word for it. */
enum exit_code {
    EXIT_NOT_HELD = 1,       /* `check`: the claim with that number is not held */
    EXIT_USAGE = 64,         /* wrong command line */
    EXIT_NO_LOCK = 66,       /* there is no such lock, or it cannot be named so */
    EXIT_UNAVAILABLE = 69,   /* no lockfs there, its daemon is gone, or it refuses */
    EXIT_LOST = 70,          /* the claim was lost while it was needed */
    EXIT_SYSTEM = 71,        /* the machine is short of something */
    EXIT_NOT_ACQUIRED = 75,  /* held by somebody else */
    EXIT_NO_PERMISSION = 77, /* the modes forbid it */
    EXIT_CANNOT_EXECUTE = 126,
    EXIT_NO_COMMAND = 127,
    EXIT_SIGNAL_BASE = 128,
};

/* One for each subcommand: `argv[0]` is "lockfs NAME"; returns the exit code. */
int run_main(int argc, char *argv[]);
int status_main(int argc, char *argv[]);
int token_main(int argc, char *argv[]);
int check_main(int argc, char *argv[]);
int release_main(int argc, char *argv[]);
int create_main(int argc, char *argv[]);
int set_main(int argc, char *argv[]);

/* A failure is filled where it happens, and told where it is known what it means. */
struct failure {
    int code;
    char text[700];
};

/* Fills it; returns the code. */
__attribute__((format(printf, 3, 4))) int fail(struct failure *ret_failure, int code,
                                               const char *format, ...);
/* Says it on stderr, after "lockfs: "; returns the code. */
int failure_tell(const struct failure *failure);
__attribute__((format(printf, 1, 2))) void tell(const char *format, ...);

/* The exit code for an errno of a call that concerns a lock, and a text for it. */
int exit_code_of(int error);
const char *explain(int error);

/* Points to --help, after the message; returns EXIT_USAGE. */
int usage_error(const char *command);
/* Flushes stdout; EXIT_SYSTEM, and a message, where what was printed did not get out. */
int finish_output(void);

/* Digits only. */
bool parse_number(const char *text, uint64_t *ret_number);
/* Seconds, such as 10 or 2.5, as milliseconds. */
bool parse_seconds(const char *text, int64_t *ret_ms);

/* Reads a whole small file, such as a control file, at most `size` - 1 bytes, and ends it with a
 * zero byte. Returns the length, or a negative errno (EFBIG). */
ssize_t read_file(const char *path, char *buffer, size_t size);
/* The same into memory of its own, which the caller frees. */
ssize_t read_whole_file(const char *path, char **ret_text);
/* Writes in one call. Returns 0 or a negative errno. */
int write_file(const char *path, const char *text);

/* Where a lock is: a directory with a limit that is a number; or a file in a directory. */
struct place {
    char directory[PATH_MAX]; /* absolute, without symbolic links */
    char file[NAME_MAX + 1];  /* empty: the lock is the directory */
    bool unlimited;           /* each file of `directory` is a lock of its own */
};

/* Finds out, and fails where it is on no lockfs. A file need not exist. Returns 0 or the code. */
int place_find(const char *path, struct place *ret_place, struct failure *ret_failure);
/* Whether its file has a name that no claim can have. */
bool place_is_reserved(const struct place *place);
/* The path of `name` in the place's directory. False: too long. */
bool place_join(const struct place *place, const char *name, char *ret_path, size_t size);

#endif
