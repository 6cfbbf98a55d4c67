/*
 * Golden transcripts of the consensus core: tests/raft/NAME.txt, each a run of one or several
 * servers that can be read as an explanation of a rule. One test point each.
 *
 * A line at the margin is a comment (#) or a command; the indented lines after a command say what
 * must come of it, in order: actions, an error, or "nothing". I/T is the entry at index I of term
 * T. Without a `cluster` command there is one server, not named, and the script holds its disk:
 *
 *     recover-state TERM VOTE     recover-snapshot INDEX TERM     recover-entry INDEX TERM
 *     start                       restart (with an empty disk)    compacted INDEX
 *     propose COUNT               persisted WRITE                 persist-failed
 *     status, term-at INDEX       show role, term, last and commit index; the term of an entry
 *
 * With it, servers have names, disks that keep what is durable, and messages that wait until they
 * are delivered (beside the commands above: "A start", ...):
 *
 *     cluster A B C joining D     A, B and C found a cluster; D knows of no configuration
 *     A disk term 2 vote B log 1 1 2     what it has before its start: the terms of entries 1 to 3
 *     A timeout, A heartbeat      the clocks go on to its next deadline, and it ticks
 *     time +10, A time +10        the clocks (or its own) go on; A tick: it looks at its clock
 *     A add D, promote, demote, remove, transfer;  A read;  A propose COUNT BYTES
 *     A persisted all             every write is durable
 *     A restart, A restart kept 3 only what is durable is left; write 3 was by luck
 *     A snapshot INDEX BYTES      it makes one, and drops the log up to there
 *     B installed, B refused      the snapshot that has come is durable, or no good
 *     deliver A B, ... all, ... newest, drop A B, duplicate A B       the oldest message from A to
 * B hold A B NAME, deliver NAME it is kept aside, and delivered then, as often as wished cut C,
 * heal C               C's messages are lost settle                      all is delivered and made
 * durable, until nothing is left; shows no messages and no writes manual-turns, A turn-end    turns
 * end by command; without, after each command queue, A members, A log, A lease    looks
 *
 * A run in which a promise of Raft is broken fails, whatever the file says (lib/raft_cluster.h).
 *
 * TESTS_DIR says where tests/ is. REWRITE=1 writes what comes of each command into the files; read
 * the difference before believing it.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "tests/lib/raft_script.h"
#include "tests/lib/tap.h"

static char *read_file(const char *path);

/* Where a script went wrong: the last lines of its transcript. */
static void note_end(const char *text)
{
    enum { LINES = 12 };
    const char *line = text + strlen(text);

    for (int lines = 0; line > text && lines <= LINES; lines += *line == '\n')
        line--;
    for (line += *line == '\n'; *line != '\0'; line += strcspn(line, "\n") + 1)
        tap_note("|%.*s|", (int)strcspn(line, "\n"), line);
}

/* The transcript of a script, NULL where it is not one. Freed by the caller. */
static char *transcribe(const char *script)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    bool ok = script_run(script, out);

    fclose(out);
    if (!ok) {
        note_end(text);
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
    const char *commands[] = {"bogus\n",   "propose\n", "propose 1 2 3\n", "propose x\n",
                              "start 1\n", "starts\n",  "persisted -1\n",  "propose  1\n"};
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
