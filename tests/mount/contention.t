#!/usr/bin/python3 -B
"""200 processes on one lock, and a counter that nothing else protects."""

import os

import lockfs_test as t

PROCESSES, ROUNDS = 200, 10


def count(lock, name):
    counter = t.base() + "/counter"
    with open(counter, "w") as file:
        file.write("0\n")
    result = t.run([t.helper("counter"), lock, counter, str(PROCESSES), str(ROUNDS)], timeout_s=120)
    t.note(result.stdout + result.stderr)
    words = result.stdout.split()
    numbers = dict(zip(words[::2], map(int, words[1::2])))
    t.same((result.returncode, numbers.get("failures")), (0, 0), name + ": all come to their end")
    with open(counter) as file:
        t.same(int(file.read()), PROCESSES * ROUNDS, name + ": no update is lost")
    t.same(numbers.get("overlaps"), 0, name + ": never two inside")
    t.ok(numbers.get("waits", 0) > 0, name + ": some had to wait")


def test():
    node = t.Node().start()
    os.mkdir(node.path("lock"))
    count(node.path("lock", "x"), "in a lock")
    t.same((t.cat(node.path("lock", "holders")), t.cat(node.path("lock", "waiters"))), ("", ""),
           "nobody is left")
    count(node.path("x"), "in the root")
    t.same((t.cat(node.path("holders")), t.cat(node.path("waiters"))), ("", ""), "nobody is left")


t.main(test)
