#!/usr/bin/python3 -B
"""A kernel that would keep locks to itself is refused."""

import os

import lockfs_test as t

# FUSE_POSIX_LOCKS and FUSE_FLOCK_LOCKS of linux/fuse.h
MASKS = {"fcntl": 1 << 1, "flock": 1 << 10, "both": 1 << 1 | 1 << 10}


def test():
    node = t.Node(environment=dict(t.preload("strip_init"), LOCKFS_TEST_STRIP="0"))
    node.start()
    os.close(t.acquire(node.path("x")))
    t.same(node.stop(), 0, "with all capabilities it works")
    for name, mask in MASKS.items():
        node.environment["LOCKFS_TEST_STRIP"] = str(mask)
        result = t.attempt(node)
        t.same(result.returncode, t.EXIT_REFUSED, name + " missing: the start is refused")
        t.ok("lock" in result.stderr.replace("lockfs", ""), name + " missing: the message says so")
        t.same(t.mounts(node.mount), ["tmpfs"], name + " missing: nothing but the guard is left")
        t.fails("EROFS", name + " missing: create", t.plain, node.path("x"))


t.main(test)
