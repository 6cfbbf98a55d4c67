#!/usr/bin/python3 -B
"""The benchmark runs, and refuses a disk that is none. Its figures are not looked at."""

import os

import lockfs_test as t

BENCH = t.REPOSITORY + "/tests/bench/bench"


def bench(*args, **environment):
    return t.run([BENCH, *args], 120, env=dict(os.environ, BUILD=t.BUILD, LOCKFSD=t.LOCKFSD,
                                               **environment))


def test():
    result = bench("--smoke", BENCH_DIR=t.base())
    if not t.same(result.returncode, 0, "every measurement succeeds"):
        t.note(result.stderr)
    for title in ("Acquire and release", "Hand-offs", "Per cycle", "The lock table", "A snapshot",
                  "Turns of the loop", "Targets"):
        t.ok(title in result.stdout, "a table: " + title)
    t.same(os.listdir(t.base()), [".pids"] if os.path.exists(t.base() + "/.pids") else [],
           "nothing is left behind")

    for name in ("/dev/shm", "/run"):
        with open("/proc/self/mountinfo") as file:
            is_tmpfs = any(line.split()[4] == name and " - tmpfs " in line for line in file)
        if is_tmpfs:
            result = bench(BENCH_DIR=name)
            t.ok(result.returncode == 1 and "tmpfs" in result.stderr, "no figures of a tmpfs")
            break


t.main(test)
