#!/usr/bin/python3 -B
"""A failed fdatasync is final: nothing that waited for it is granted, and the daemon ends."""

import os

import lockfs_test as t


def test():
    flag = t.base() + "/flag"
    node = t.Node(environment=dict(t.preload("fail_fdatasync"), LOCKFS_TEST_FLAG=flag)).start()
    os.mkdir(node.path("lock"))
    a, b, c, d = t.Agent(), t.Agent(), t.Agent(), t.Agent()
    held = a.acquire(node.path("held"))
    fd = t.acquire(node.path("lock", "x"))
    first = t.token_of(fd)
    os.close(fd)
    t.same(t.cat(node.path("lock", "holders")), "", "acquired and released while all is well")

    with open(flag, "w"):
        pass
    b.begin("acquire", node.path("lock", "x"))
    c.begin("flock_file", node.path("flocked"), t.EXCLUSIVE)
    d.begin("mkdir", node.path("new"))
    for name, agent in (("O_EXCL", b), ("flock", c), ("mkdir", d)):
        got = t.outcome(agent.finish)
        t.note("%s: %s" % (name, got))
        t.ok(isinstance(got, str), name + " does not succeed")
    t.same(node.wait(), 1, "the daemon ends with 1")
    t.ok("Input/output error" in node.log(), "the message has the error")
    t.ok(node.data in node.log(), "and names the file")
    t.note("it says: " + [line for line in node.log().splitlines() if "Input/output" in line][-1])
    t.fails(("EROFS", "ENOTCONN"), "nothing can be created without it", t.plain, node.path("x"))
    t.fails("ENOTCONN", "what was held is lost", a.token_of, held)

    os.unlink(flag)
    node.start()
    t.ok(os.path.isdir(node.path("lock")), "after a restart what was durable is there")
    t.same([t.cat(node.path("lock", "holders")), t.cat(node.path("holders"))], ["", ""],
           "and nobody holds anything")
    fd = t.acquire(node.path("lock", "x"))
    t.ok(t.token_of(fd) > first, "numbers go on increasing")
    os.close(fd)

    with open(flag, "w"):
        pass
    node.stop()
    result = t.attempt(node)
    t.ok(result.returncode not in (0, None), "a start that cannot sync is refused")
    t.ok("Input/output error" in result.stderr and node.data in result.stderr,
         "with the error and the file")


t.main(test)
