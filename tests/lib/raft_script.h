/*
 * Scripts of the consensus core: commands to servers and to the network between them, and what
 * comes of each command. tests/unit/test_raft_transcripts.c has the language.
 */
#ifndef TESTS_RAFT_SCRIPT_H
#define TESTS_RAFT_SCRIPT_H

#include <stdbool.h>
#include <stdio.h>

/* Runs `script` (expectations in it are ignored) and writes the transcript to `out`. False, with a
 * test comment, where a line is no command, or a promise of Raft is broken. */
bool script_run(const char *script, FILE *out);

#endif
