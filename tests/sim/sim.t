#!/usr/bin/python3 -B
"""Simulated clusters: 10^6 events without a violation, some of whole nodes with callers, and each
deliberate bug of the core found.

SEED=n is the first seed; without it, one from the clock. Each is printed."""

import os
import re
import subprocess
import time

BUILD = os.environ["BUILD"]
TESTS = os.environ["TESTS_DIR"]
SIM = BUILD + "/sim"
MUTANTS = BUILD + "/sim-mutants"
EVENTS = 1000000
NODE_EVENTS = 400000

count = 0
failed = 0


def ok(good, name, output=""):
    global count, failed
    count += 1
    if not good:
        failed += 1
        for line in output.splitlines()[-80:]:
            print("# " + line)
    print("%sok %d - %s" % ("" if good else "not ", count, name), flush=True)


def run(*args):
    return subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)


def digest(output):
    return re.search("^digest (.*)$", output, re.M).group(1)


def known_seeds():
    with open(TESTS + "/sim/known_seeds", encoding="utf-8") as file:
        lines = [line.split() for line in file if not line.startswith("#")]
    return {line[0]: ["--seed"] + line[1:] for line in lines}


def test_usage():
    for args in (["--servers", "8"], ["--profile", "none"], ["--seed", "x"], ["--mutant", "X"],
                 ["--kind", "x"], ["more"]):
        ok(run(SIM, *args).returncode == 2, "no such options: " + " ".join(args))
    result = run(SIM, "--help")
    ok(result.returncode == 0 and "--seed" in result.stdout, "--help")


def test_runs():
    first = str(int(os.environ.get("SEED") or time.time() * 1000))
    result = run(SIM, "--seed", first, "--total-events", str(EVENTS), "--jobs", "2")
    print("# seeds from " + first)
    print("# " + result.stdout.splitlines()[-1])
    ok(result.returncode == 0, "%d events without a violation" % EVENTS, result.stdout)

    one = run(SIM, "--seed", first, "--events", "20000")
    two = run(SIM, "--seed", first, "--events", "20000")
    ok(digest(one.stdout) == digest(two.stdout), "a seed is one run")
    other = run(SIM, "--seed", first + "1", "--events", "20000")
    ok(digest(one.stdout) != digest(other.stdout), "another seed is another one")

    # Always the same seeds, of which it is known that they try all that there is.
    result = run(SIM, "--seed", "1", "--total-events", str(EVENTS), "--jobs", "2", "--want-all")
    ok(result.returncode == 0, "nothing is left untried", result.stdout)
    for kind, seed in regressions():
        result = run(SIM, "--kind", kind, "--seed", seed)
        ok(result.returncode == 0, "%s seed %s, which failed once" % (kind, seed), result.stdout)


def regressions():
    with open(TESTS + "/sim/regressions", encoding="utf-8") as file:
        return [line.split()[:2] for line in file if not line.startswith("#")]


def test_nodes():
    first = str(int(os.environ.get("SEED") or time.time() * 1000))
    result = run(SIM, "--kind", "node", "--seed", first, "--total-events", str(NODE_EVENTS),
                 "--jobs", "2")
    print("# nodes, seeds from " + first)
    print("# " + result.stdout.splitlines()[-1])
    ok(result.returncode == 0, "%d events of nodes without a violation" % NODE_EVENTS,
       result.stdout)
    one = run(SIM, "--kind", "node", "--seed", first, "--events", "10000")
    two = run(SIM, "--kind", "node", "--seed", first, "--events", "10000")
    ok(digest(one.stdout) == digest(two.stdout), "a seed is one run of nodes")
    result = run(SIM, "--kind", "node", "--seed", "1", "--total-events", str(NODE_EVENTS), "--jobs",
                 "2", "--want-all")
    ok(result.returncode == 0, "nothing is left untried by callers of nodes", result.stdout)


def test_mutants():
    known = known_seeds()
    names = [line.split()[0] for line in run(MUTANTS, "--list-mutants").stdout.splitlines()]
    ok(len(names) > 0 and run(SIM, "--list-mutants").stdout == "",
       "the shipping core has no mutants")
    for name in names:
        if name not in known:
            ok(False, "a known seed for " + name)
            continue
        result = run(MUTANTS, "--mutant", name, *known[name])
        ok(result.returncode == 4 and "SAFETY: " in result.stdout,
           "%s finds %s" % (" ".join(known[name]), name), result.stdout)
        result = run(SIM, *known[name])
        ok(result.returncode == 0, "and passes without it", result.stdout)


test_usage()
test_runs()
test_nodes()
test_mutants()
print("1..%d" % count)
raise SystemExit(1 if failed else 0)
