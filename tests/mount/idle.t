#!/usr/bin/python3 -B
"""A daemon that has nothing to do is small and sleeps."""

import os
import time

import lockfs_test as t

RESIDENT_KIB = 10 << 10
# ASan's shadow and its own bookkeeping.
RESIDENT_SANITIZED_KIB = 200 << 10
SECONDS = 3
WAKEUPS = 5


def wakeups(node):
    return sum(int(node.status(field, task))
               for task in os.listdir("/proc/%d/task" % node.process.pid)
               for field in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"))


def measure(node, name):
    t.wait_until(lambda: _settled(node), 30)
    before = wakeups(node)
    time.sleep(SECONDS)  # this is what is measured
    count = wakeups(node) - before
    t.note("%s: %d wake-ups in %d s, %d KiB resident" % (name, count, SECONDS, node.rss_kib()))
    t.ok(count <= WAKEUPS, name + ": no wake-ups beyond its timers")


def _settled(node):
    before = wakeups(node)
    time.sleep(0.2)
    return wakeups(node) == before


def test():
    node = t.Node().start()
    measure(node, "after the start")
    limit = RESIDENT_SANITIZED_KIB if t.SLOW > 1 else RESIDENT_KIB
    if t.SLOW > 1:
        t.note("built with ASan: %d KiB are allowed" % limit)
    t.ok(node.rss_kib() < limit, "resident memory is below %d KiB" % limit)
    a, b = t.Agent(), t.Agent()
    os.mkdir(node.path("lock"))
    fd = a.flock_file(node.path("lock", "x"), t.EXCLUSIVE)
    b.begin("flock_file", node.path("lock", "x"), t.EXCLUSIVE)
    t.wait_until(lambda: t.cat(node.path("lock", "waiters")))
    measure(node, "with a holder and a waiter")
    t.ok(node.rss_kib() < limit, "resident memory is below %d KiB" % limit)
    a.close(fd)
    b.finish()
    b.kill()


t.main(test)
