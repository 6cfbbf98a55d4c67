/*
 * Golden transcripts of the consensus core: tests/raft/NAME.txt, each a run of one server that can
 * be read as an explanation of a rule. One test point each.
 *
 * A line at the margin is a comment (#) or a command; the indented lines after a command say what
 * must come of it, in order: its actions, or its error, or "nothing".
 *
 *     recover-state TERM VOTE     recover-snapshot INDEX TERM
 *     recover-entry INDEX TERM    start
 *     propose COUNT               persisted WRITE              persist-failed
 *     compacted INDEX
 *     restart                     the process ends, and another begins with an empty core
 *     status                      shows role, term, last index and commit index
 *     term-at INDEX               shows the term of an entry
 *
 * TESTS_DIR says where tests/ is. REWRITE=1 writes what comes of each command into the files; read
 * the difference before believing it.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "raft/raft.h"
#include "tests/lib/tap.h"

/* Runs `script` (expectations in it are ignored) and writes the transcript to `out`. False, with a
 * test comment, where a line is no command. */
static bool run_script(const char *script, FILE *out);
static bool run_command(void *memory, struct raft **raft, const char *line, FILE *out);
static void print_outcome(FILE *out, enum raft_error error, const struct raft_actions *actions);
static char *read_file(const char *path);

static const char *role_name(enum raft_role role)
{
    switch (role) {
    case RAFT_FOLLOWER:
        return "follower";
    case RAFT_CANDIDATE:
        return "candidate";
    case RAFT_LEADER:
        return "leader";
    case RAFT_FAILED:
        return "failed";
    }
    return "?";
}

static const char *error_name(enum raft_error error)
{
    switch (error) {
#define X(name, value, text)                                                                       \
    case name:                                                                                     \
        return #name;
        RAFT_ERRORS(X)
#undef X
    }
    return "?";
}

/* The transcript of a script, NULL where it is not one. Freed by the caller. */
static char *transcribe(const char *script)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    bool ok = run_script(script, out);

    fclose(out);
    if (!ok) {
        free(text);
        return NULL;
    }
    return text;
}

/* Names the first line where the two differ. */
static void note_difference(const char *path, const char *expected, const char *got)
{
    int line = 1;

    for (;;) {
        int expected_length = (int)strcspn(expected, "\n");
        int got_length = (int)strcspn(got, "\n");
        if (expected_length != got_length || memcmp(expected, got, (size_t)got_length) != 0 ||
            expected[expected_length] != got[got_length]) {
            tap_note("%s:%d: expected |%.*s|", path, line, expected_length, expected);
            tap_note("%s:%d: got      |%.*s|", path, line, got_length, got);
            return;
        }
        if (expected[expected_length] == '\0')
            return;
        expected += expected_length + 1;
        got += got_length + 1;
        line++;
    }
}

static bool rewrite(const char *path, const char *text)
{
    char temporary[PATH_MAX];
    FILE *file;
    bool ok;

    if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
        return false;
    file = fopen(temporary, "w");
    if (file == NULL)
        return false;
    ok = fputs(text, file) >= 0;
    ok = fclose(file) == 0 && ok;
    return ok && rename(temporary, path) == 0;
}

static void test_file(const char *path, const char *name)
{
    char *expected = read_file(path);
    char *got = expected != NULL ? transcribe(expected) : NULL;

    if (got != NULL && strcmp(expected, got) != 0 && getenv("REWRITE") != NULL) {
        if (rewrite(path, got))
            tap_note("%s: rewritten", path);
        free(expected);
        expected = read_file(path);
    }
    if (!tap_ok(expected != NULL && got != NULL && strcmp(expected, got) == 0, "%s", name)) {
        if (expected == NULL)
            tap_note("%s: %s", path, strerror(errno));
        else if (got != NULL)
            note_difference(path, expected, got);
    }
    free(expected);
    free(got);
}

/* What the runner must notice, or its other results say nothing. */
static void test_runner(void)
{
    const char *good = "# why\nstart\n    persist-state write 1: term 1, vote 1\n"
                       "    role candidate, term 1\n\npersisted 1\n    role leader, term 1\n"
                       "    persist-entries write 2: 1 to 1, term 1, no-op\n";
    const char *commands[] = {"bogus\n",   "propose\n", "propose 1 2\n",  "propose x\n",
                              "start 1\n", "starts\n",  "persisted -1\n", "propose  1\n"};
    char *text = transcribe(good);
    bool refused = true;

    tap_ok(text != NULL && strcmp(text, good) == 0, "a transcript stays as it is");
    free(text);
    text = transcribe("start\n    role leader, term 1\n");
    tap_ok(text != NULL && strcmp(text, "start\n    role leader, term 1\n") != 0,
           "a false expectation is seen");
    free(text);
    text = transcribe("# why\nstart\n\npersisted 1\n");
    tap_ok(text != NULL && strcmp(text, good) == 0, "missing expectations are filled in");
    free(text);

    tap_note("the next lines are meant to be refused");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        text = transcribe(commands[i]);
        refused = text == NULL && refused;
        free(text);
    }
    tap_ok(refused, "what is no command is refused");
}

static int is_transcript(const struct dirent *entry)
{
    const char *end = strrchr(entry->d_name, '.');

    return end != NULL && strcmp(end, ".txt") == 0;
}

int main(void)
{
    const char *tests_dir = getenv("TESTS_DIR") != NULL ? getenv("TESTS_DIR") : "tests";
    char path[PATH_MAX];
    struct dirent **entries = NULL;
    int count;

    test_runner();

    snprintf(path, sizeof(path), "%s/raft", tests_dir);
    count = scandir(path, &entries, is_transcript, alphasort);
    tap_ok(count > 0, "there are transcripts in %s", path);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s/raft/%s", tests_dir, entries[i]->d_name);
        test_file(path, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return tap_done();
}

static bool new_core(void *memory, struct raft **ret_raft)
{
    const uint64_t voters[] = {1};
    const struct raft_config config = {.id = 1, .voters = voters, .voters_count = 1};

    return raft_init(memory, &config, ret_raft) == RAFT_OK;
}

static bool run_script(const char *script, FILE *out)
{
    void *memory = aligned_alloc(16, raft_size());
    struct raft *raft = NULL;
    bool ok = memory != NULL && new_core(memory, &raft);

    while (ok && *script != '\0') {
        const size_t length = strcspn(script, "\n");
        char *line = strndup(script, length);
        if (line[0] == '\0' || line[0] == '#') {
            fprintf(out, "%s\n", line);
        } else if (line[0] != ' ') {
            fprintf(out, "%s\n", line);
            ok = run_command(memory, &raft, line, out);
            if (!ok)
                tap_note("not a command: |%s|", line);
        }
        free(line);
        script += length + (script[length] == '\n');
    }
    free(memory);
    return ok;
}

/* Reads the words of a command: a name, and exactly `count` numbers after it. */
static bool parse(const char *line, const char *name, size_t count, uint64_t *numbers)
{
    size_t length = strlen(name);

    if (strncmp(line, name, length) != 0)
        return false;
    line += length;
    for (size_t i = 0; i < count; i++) {
        char *end;
        if (line[0] != ' ' || line[1] < '0' || line[1] > '9')
            return false;
        errno = 0;
        numbers[i] = strtoull(line + 1, &end, 10);
        if (errno != 0)
            return false;
        line = end;
    }
    return *line == '\0';
}

static bool run_command(void *memory, struct raft **raft, const char *line, FILE *out)
{
    struct raft_event event;
    struct raft_actions actions;
    uint64_t numbers[2];

    memset(&event, 0, sizeof(event));
    if (parse(line, "restart", 0, NULL)) {
        return new_core(memory, raft);
    } else if (parse(line, "status", 0, NULL)) {
        fprintf(out, "    %s, term %" PRIu64 ", last %" PRIu64 ", commit %" PRIu64 "\n",
                role_name(raft_get_role(*raft)), raft_get_term(*raft), raft_get_last_index(*raft),
                raft_get_commit(*raft));
        return true;
    } else if (parse(line, "term-at", 1, numbers)) {
        fprintf(out, "    %" PRIu64 "\n", raft_get_term_at(*raft, numbers[0]));
        return true;
    } else if (parse(line, "recover-state", 2, numbers)) {
        event.type = RAFT_EVENT_RECOVERED_STATE;
        event.recovered_state.term = numbers[0];
        event.recovered_state.vote = numbers[1];
    } else if (parse(line, "recover-snapshot", 2, numbers)) {
        event.type = RAFT_EVENT_RECOVERED_SNAPSHOT;
        event.recovered_snapshot.index = numbers[0];
        event.recovered_snapshot.term = numbers[1];
    } else if (parse(line, "recover-entry", 2, numbers)) {
        event.type = RAFT_EVENT_RECOVERED_ENTRY;
        event.recovered_entry.index = numbers[0];
        event.recovered_entry.term = numbers[1];
    } else if (parse(line, "start", 0, NULL)) {
        event.type = RAFT_EVENT_START;
    } else if (parse(line, "propose", 1, numbers) && numbers[0] <= UINT32_MAX) {
        event.type = RAFT_EVENT_PROPOSE;
        event.propose.count = (uint32_t)numbers[0];
    } else if (parse(line, "persisted", 1, numbers)) {
        event.type = RAFT_EVENT_PERSISTED;
        event.persisted.write = numbers[0];
    } else if (parse(line, "persist-failed", 0, NULL)) {
        event.type = RAFT_EVENT_PERSIST_FAILED;
    } else if (parse(line, "compacted", 1, numbers)) {
        event.type = RAFT_EVENT_COMPACTED;
        event.compacted.index = numbers[0];
    } else {
        return false;
    }
    print_outcome(out, raft_step(*raft, &event, &actions), &actions);
    return true;
}

static void print_outcome(FILE *out, enum raft_error error, const struct raft_actions *actions)
{
    if (error != RAFT_OK)
        fprintf(out, "    error %s\n", error_name(error));
    else if (actions->count == 0)
        fprintf(out, "    nothing\n");

    for (size_t i = 0; i < actions->count; i++) {
        const struct raft_action *action = &actions->items[i];
        switch (action->type) {
        case RAFT_ACTION_PERSIST_STATE:
            fprintf(out, "    persist-state write %" PRIu64 ": term %" PRIu64 ", vote %" PRIu64,
                    action->persist_state.write, action->persist_state.term,
                    action->persist_state.vote);
            break;
        case RAFT_ACTION_PERSIST_ENTRIES:
            fprintf(out,
                    "    persist-entries write %" PRIu64 ": %" PRIu64 " to %" PRIu64
                    ", term %" PRIu64 ", %s",
                    action->persist_entries.write, action->persist_entries.first,
                    action->persist_entries.last, action->persist_entries.term,
                    action->persist_entries.entry_type == RAFT_ENTRY_NOOP ? "no-op" : "commands");
            break;
        case RAFT_ACTION_COMMIT:
            fprintf(out, "    commit %" PRIu64, action->commit.index);
            break;
        case RAFT_ACTION_ROLE:
            fprintf(out, "    role %s, term %" PRIu64, role_name(action->role.role),
                    action->role.term);
            break;
        }
        fprintf(out, "\n");
    }
}

/* The bytes of a file as a string, NULL with errno. */
static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t size = 0;

    if (file == NULL)
        return NULL;
    /* A text has no zero byte, so this reads all of it. */
    if (getdelim(&text, &size, '\0', file) < 0 && text != NULL)
        text[0] = '\0';
    fclose(file);
    return text;
}
