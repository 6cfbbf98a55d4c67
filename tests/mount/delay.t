#!/usr/bin/python3 -B
"""`.delay`: after a claim ended unclean, nobody is granted its resource for a while."""

import os
import time

import lockfs_test as t

# Long enough to be met whatever happens, and short enough to be waited for.
LONG, SHORT = "3600", "2"


def make(node, name, delay, limit="1"):
    path = node.path(name)
    os.mkdir(path)
    t.put(path + "/.delay", delay + "\n")
    t.put(path + "/.limit", limit + "\n")
    return path


def delays(path):
    """The fields of the lines of `holders` that stand for delays."""
    lines = [line.split() for line in t.cat(path + "/holders").splitlines()]
    return [line for line in lines if line[1] == "delay"]


def crash(node):
    """kill -9, and a new start. When that was, at the latest."""
    node.kill()
    node.start()
    return time.monotonic()


def clean(node):
    """What ends clean delays nobody."""
    path = make(node, "clean", LONG)
    a = t.Agent()
    a.close(a.acquire(path + "/x"))
    a.close(a.flock_file(path + "/x", t.EXCLUSIVE))
    fd = a.plain(path + "/x")
    a.lockf(fd, os.F_TLOCK, 0)
    a.close(fd)
    fd = a.acquire(path + "/x")
    a.unlink(path + "/x")
    a.close(fd)
    fd = a.acquire(path + "/x")
    a.kill()
    t.same((t.cat(path + "/holders"), delays(path)), ("", []),
           "close, unlock, unlink and kill -9 of the holder leave no delay")
    fd = t.outcome(t.acquire, path + "/x")
    t.ok(isinstance(fd, int), "the next one is granted at once")
    os.close(fd)
    t.put(path + "/.release", "exit\n")
    a = t.Agent()
    a.close(a.acquire(path + "/x"))
    a.kill()
    t.ok(t.wait_until(lambda: t.cat(path + "/holders") == ""), "nor does the end of a process")
    node.restart()
    t.same(delays(path), [], "nor a stop of the daemon while nothing is held")
    crash(node)
    t.same(delays(path), [], "nor kill -9 of it")
    fd = t.outcome(t.acquire, path + "/x")
    t.ok(isinstance(fd, int), "the lock is free")
    os.unlink(path + "/x")
    os.close(fd)
    os.rmdir(path)


def refusals(node):
    """While it lasts."""
    path = make(node, "long", LONG)
    other = make(node, "none", "0")
    a, b, c = t.Agent(), t.Agent(), t.Agent()
    a.acquire(path + "/x")
    b.acquire(other + "/x")
    crash(node)
    found = delays(path)
    t.same([(line[1], line[0], line[2:5], len(line)) for line in found],
           [("delay", "-", ["-"] * 3, 8)], "`holders` has a line for the delay")
    t.ok(0 <= int(found[0][5]) <= 60, "with the seconds since")
    t.fails("EEXIST", "O_EXCL, the same name", c.acquire, path + "/x")
    t.fails("EEXIST", "another name", c.acquire, path + "/y")
    t.fails("EAGAIN", "flock", c.flock_file, path + "/x", t.EXCLUSIVE | t.NONBLOCK)
    t.fails("EAGAIN", "shared flock", c.flock_file, path + "/y", t.SHARED | t.NONBLOCK)
    fd = c.plain(path + "/x")
    t.fails("EAGAIN", "lockf", c.lockf, fd, os.F_TLOCK, 0)
    t.ok("x" not in os.listdir(path), "the claim is gone")
    t.fails("ENOTEMPTY", "rmdir", os.rmdir, path)
    t.fails("EINVAL", "`.limit` to unlimited", t.put, path + "/.limit", "unlimited\n")
    t.same(t.outcome(t.put, path + "/.delay", "0\n"), 2, "`.delay` can be changed")
    t.fails("EEXIST", "and concerns later ends", c.acquire, path + "/x")
    t.same(delays(other), [], "a lock with no delay has none")
    fo = t.outcome(c.acquire, other + "/x")
    t.ok(isinstance(fo, int), "and is granted at once")
    c.close(fo)
    c.begin("flock", fd, t.EXCLUSIVE)
    t.ok(t.wait_until(lambda: t.pids(path + "/waiters") == [c.pid]) and not c.ready(),
         "flock without LOCK_NB waits")
    c.signal(2)
    t.same(t.outcome(c.finish), "EINTR", "and can be interrupted")
    c.close(fd)
    os.rmdir(other)
    for agent in (a, b, c):
        agent.kill()
    # The delay itself stays: the node keeps it over every restart below.
    crash(node)
    t.same(len(delays(path)), 1, "a second restart has the delay still")
    t.same(len(delays(path)), 1, "and one of it")


def granted_when_over(node):
    path = make(node, "short", SHORT)
    a, b, c = t.Agent(), t.Agent(), t.Agent()
    a.flock_file(path + "/x", t.EXCLUSIVE)
    down = time.monotonic()
    up = crash(node)
    fb = b.plain(path + "/x")
    b.begin("flock", fb, t.EXCLUSIVE)
    fc = c.plain(path + "/y")
    t.wait_until(lambda: t.pids(path + "/waiters") == [b.pid])
    c.begin("lockf", fc, os.F_LOCK, 0)
    t.wait_until(lambda: t.pids(path + "/waiters") == [b.pid, c.pid])
    t.same(len(delays(path)), 1, "two wait for the end of a delay")
    b.finish()
    took = time.monotonic()
    t.ok(took - down >= 2, "who waits is not granted before it is over")
    t.ok(took - up < 2 + 1 * t.SLOW + 1, "but soon after (%.2f s)" % (took - up))
    t.same((t.pids(path + "/holders"), t.pids(path + "/waiters")), ([b.pid], [c.pid]),
           "the first, and that one alone")
    t.same(delays(path), [], "the line is gone")
    b.flock(fb, t.UNLOCK)
    c.finish()
    t.same(t.pids(path + "/holders"), [c.pid], "the second without another delay")
    for agent in (a, b, c):
        agent.kill()
    fd = t.outcome(t.acquire, path + "/x")
    t.ok(isinstance(fd, int), "nor has the next one any")
    os.unlink(path + "/x")
    os.close(fd)
    t.same(t.outcome(os.rmdir, path), None, "rmdir")


def counted_anew(node):
    """A restart in the middle: the new daemon cannot know how much of it is over."""
    path = make(node, "anew", SHORT)
    a, b = t.Agent(), t.Agent()
    a.acquire(path + "/x")
    crash(node)
    time.sleep(1.2)  # more than half of it passes
    again = time.monotonic()
    crash(node)
    t.same(len(delays(path)), 1, "a restart in the middle of a delay: it goes on")
    fb = b.plain(path + "/x")
    b.begin("flock", fb, t.EXCLUSIVE)
    b.finish()
    t.ok(time.monotonic() - again >= 2, "and counts in full again")
    a.kill()
    b.kill()

    # By creating, since that does not wait: asked again and again.
    a, b = t.Agent(), t.Agent()
    a.acquire(path + "/x")
    down = time.monotonic()
    crash(node)
    fd = t.wait_until(lambda: _granted(b, path + "/x"), 20)
    t.ok(fd is not None and time.monotonic() - down >= 2, "O_EXCL is granted when it is over")
    a.kill()
    b.kill()
    t.same(t.outcome(os.rmdir, path), None, "rmdir")


def _granted(agent, path):
    got = t.outcome(agent.acquire, path)
    return got if isinstance(got, int) else None


def by_name(node):
    """Where the limit is unlimited, the name is the resource."""
    path = make(node, "names", LONG, "unlimited")
    a, b = t.Agent(), t.Agent()
    a.acquire(path + "/x")
    a.flock_file(path + "/y", t.SHARED)
    crash(node)
    t.same(sorted(line[6] for line in delays(path)), ["x", "y"], "each name has its delay")
    t.fails("EEXIST", "x is delayed", b.acquire, path + "/x")
    t.fails("EAGAIN", "y, too", b.flock_file, path + "/y", t.SHARED | t.NONBLOCK)
    t.same(os.listdir(path), [], "neither is listed")
    fd = t.outcome(b.acquire, path + "/z")
    t.ok(isinstance(fd, int), "z is free")
    t.fails("EINVAL", "`.limit` to a number", t.put, path + "/.limit", "3\n")
    b.unlink(path + "/z")
    t.fails("ENOTEMPTY", "rmdir", os.rmdir, path)
    crash(node)
    t.same(sorted(line[6] for line in delays(path)), ["x", "y"], "a restart keeps both, no more")
    a.kill()
    b.kill()


def semaphore(node):
    """One of three ended unclean: the whole semaphore waits."""
    path = make(node, "semaphore", SHORT, "3")
    a, b = t.Agent(), t.Agent()
    a.acquire(path + "/x")
    crash(node)
    t.same(len(delays(path)), 1, "a semaphore has one delay")
    t.fails("EEXIST", "and no place is given while it lasts", b.acquire, path + "/y")
    t.same(t.outcome(t.put, path + "/.limit", "5\n"), 2, "the limit can be raised")
    t.fails("EEXIST", "which lets nobody in", b.acquire, path + "/y")
    fd = t.wait_until(lambda: _granted(b, path + "/y"), 20)
    t.ok(fd is not None, "then it is")
    a.kill()
    b.kill()


def drained(node):
    """A drain whose time is up ends what is held as unclean."""
    path = make(node, "drained", LONG)
    a = t.Agent()
    a.acquire(path + "/x")
    node.process.terminate()
    t.same(node.wait(), 0, "the drain's time is up")
    node.start()
    t.same(len(delays(path)), 1, "what it waited for in vain leaves a delay")
    a.kill()


def test():
    node = t.Node("--drain-timeout", "1").start()
    for part in (clean, refusals, granted_when_over, counted_anew, by_name, semaphore, drained):
        t.note(part.__name__)
        part(node)


t.main(test)
