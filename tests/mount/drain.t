#!/usr/bin/python3 -B
"""SIGTERM drains: nobody new gets in, and the daemon waits for those that are."""

import os
import time

import lockfs_test as t


def begin(node):
    """A holder, a waiter, and a SIGTERM that has arrived."""
    os.makedirs(node.path("lock"), exist_ok=True)
    a, b, c = t.Agent(), t.Agent(), t.Agent()
    fd = a.acquire(node.path("lock", "x"))
    fb = b.plain(node.path("lock", "y"))
    b.begin("flock", fb, t.EXCLUSIVE)
    t.wait_until(lambda: t.cat(node.path("lock", "waiters")))
    node.process.terminate()
    return a, b, c, fd


def patient(node):
    node.start()
    a, b, c, fd = begin(node)
    t.same(t.outcome(b.finish), "ENOLCK", "who waits gets ENOLCK")
    t.fails("ENOLCK", "a new claim", c.acquire, node.path("other"))
    t.fails("ENOLCK", "a new flock", c.flock_file, node.path("other"), t.SHARED)
    t.ok(a.token_of(fd) > 0, "the claim stands")
    t.same(a.write(fd, b"still"), 5, "and can be written")
    t.same(c.cat(node.path("lock", "x")), "still", "others can look")
    t.same(node.process.poll(), None, "the daemon waits for it")
    a.close(fd)
    t.same(node.wait(), 0, "its release ends the daemon with 0")
    t.same(t.mounts(node.mount), ["tmpfs"], "nothing but the guard is left")
    for agent in (a, b, c):
        agent.kill()


def impatient(node):
    node.start("--drain-timeout", "1")
    started = time.monotonic()
    a, b, c, fd = begin(node)
    t.same(node.wait(), 0, "--drain-timeout 1: the daemon ends although a claim is held")
    t.ok(0.9 <= time.monotonic() - started, "not before its time")
    t.fails(("ENOTCONN", "ESTALE"), "the claim is lost", a.token_of, fd)
    for agent in (a, b, c):
        agent.kill()


def twice(node):
    node.start("--drain-timeout", "3600")
    a, b, c, fd = begin(node)
    t.same(t.outcome(b.finish), "ENOLCK", "it drains")
    node.process.terminate()
    t.same(node.wait(30), 0, "a second SIGTERM ends it at once")
    t.fails(("ENOTCONN", "ESTALE"), "the claim is lost", a.token_of, fd)
    node.start()
    t.same(t.cat(node.path("lock", "holders")), "", "and not there after the next start")
    for agent in (a, b, c):
        agent.kill()
    started = time.monotonic()
    t.same(node.stop(), 0, "without claims SIGTERM ends it")
    t.ok(time.monotonic() - started < 10 * t.SLOW, "at once")


def open_handles(node):
    """Handles that hold nothing do not keep the daemon."""
    node.start()
    a = t.Agent()
    a.plain(node.path("lock", "x"))
    a.open(node.path("lock"), os.O_RDONLY | os.O_DIRECTORY)
    a.chdir(node.path("lock"))
    t.same(node.stop(), 0, "open files and working directories do not keep the daemon")
    t.same(t.mounts(node.mount), ["tmpfs"], "nor the mount")
    a.kill()


def test():
    node = t.Node()
    for part in (patient, impatient, twice, open_handles):
        t.note(part.__name__)
        part(node)


t.main(test)
