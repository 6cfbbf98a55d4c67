#!/usr/bin/python3 -B
"""Memory stays the same over 100,000 operations."""

import os

import lockfs_test as t

CYCLES, PROCESSES = 20000, 8
# Tables that are large and thinly used get their pages one by one, by chance.
WARM_UP, MEASURED = 2, 5
GROWTH_KIB = 4096
PROCESSES_KNOWN = 128  # fs/limits.h


def churn(node):
    result = t.run([t.helper("churn"), node.path("all"), str(PROCESSES), str(CYCLES)], 120)
    if result.returncode != 0:
        t.note(result.stderr)
    return result.returncode == 0


def test():
    # What ASan keeps back after free() would look like a leak.
    options = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
    node = t.Node(environment={"ASAN_OPTIONS": options}).start()
    os.mkdir(node.path("all"))
    sizes = [node.rss_kib()]
    for _ in range(WARM_UP + MEASURED):
        t.ok(churn(node), "%d cycles" % CYCLES)
        sizes.append(node.rss_kib())
    t.note("resident: %s KiB" % sizes)
    t.ok(sizes[-1] - sizes[WARM_UP] < GROWTH_KIB, "the last %d cycles take less than %d KiB"
         % (MEASURED * CYCLES, GROWTH_KIB))
    descriptors = len(os.listdir("/proc/%d/fd" % node.process.pid))
    t.ok(descriptors < 64 + PROCESSES_KNOWN, "and has few descriptors: %d" % descriptors)
    t.same(t.cat(node.path("all", "holders")), "", "nobody holds anything")
    t.same([name for name in os.listdir(node.path("all")) if name.startswith("churn")], [],
           "nothing is left")


t.main(test)
