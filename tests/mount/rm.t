#!/usr/bin/python3 -B
"""unlink and rm -rf of locks that are free, claimed by creating, or held by flock."""

import os
import select

import lockfs_test as t

LOSS = select.POLLERR | select.POLLHUP


def free(node):
    os.makedirs(node.path("free", "inner", "most"))
    result = t.run(["rm", "-rf", node.path("free")])
    t.same((result.returncode, result.stderr), (0, ""), "rm -rf of a free lock")
    t.ok(not os.path.exists(node.path("free")), "it is gone")


def held(node):
    os.mkdir(node.path("held"))
    a, waiter, poller = t.Agent(), t.Agent(), t.Agent()
    fd = a.open(node.path("held", "x"), os.O_CREAT | os.O_EXCL | os.O_RDWR)
    child = a.child()
    reader = waiter.open(node.path("held", "x"), os.O_RDONLY)
    child.begin("poll_loss", fd, 60000)
    t.wait_until(lambda: _sleeps_in_poll(child.pid))
    t.ok(not child.ready(), "poll waits while the claim is held")
    number = a.token_of(fd)

    before = len(node.log())
    result = t.run(["rm", "-rf", node.path("held")])
    t.same((result.returncode, result.stderr), (0, ""), "rm -rf of a lock held by creating")
    t.ok(not os.path.exists(node.path("held")), "it is gone")
    t.same(child.finish() & LOSS, LOSS, "a waiting poll wakes with POLLERR and POLLHUP")
    t.same(a.poll_loss(fd, 20000) & LOSS, LOSS, "a later poll sees them at once")
    t.fails("ESTALE", "write", a.write, fd, b"x")
    t.fails("ESTALE", "read", a.read, fd, 10)
    t.fails("ESTALE", "ftruncate", a.ftruncate, fd, 0)
    t.fails("ESTALE", "flock", a.flock, fd, t.EXCLUSIVE | t.NONBLOCK)
    t.fails("ESTALE", "its number", a.token_of, fd)
    t.ok(t.wait_until(lambda: "rm" in node.log()[before:]), "the log names the caller")
    t.ok(str(number) in node.log()[before:], "and the number")
    t.note("it says: " + node.log()[before:].strip())
    t.same(t.outcome(waiter.close, reader), None, "a reader's handle closes")
    for agent in (child, a, waiter, poller):
        agent.kill()


def _sleeps_in_poll(pid):
    with open("/proc/%d/syscall" % pid) as file:
        return file.read().split()[0] in ("7", "271", "73")  # poll, ppoll: x86-64, arm64


def claim(node):
    os.mkdir(node.path("claim"))
    path = node.path("claim", "x")
    a, b = t.Agent(), t.Agent()
    fd = a.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    a.write(fd, b"content")
    fb = b.plain(path)
    b.begin("flock", fb, t.EXCLUSIVE)
    t.wait_until(lambda: t.cat(node.path("claim", "waiters")))
    t.same(t.run(["rm", path]).returncode, 0, "rm of a claim")
    b.finish()
    t.same(t.pids(node.path("claim", "holders")), [b.pid], "grants the one that waits")
    t.fails("ESTALE", "the loser cannot read", a.read, fd, 10)
    t.fails("ESTALE", "nor write", a.write, fd, b"x")
    t.same(b.pread(fb, 10, 0), b"", "its content is gone")
    t.fails("ESTALE", "the loser's flock", a.flock, fd, t.SHARED | t.NONBLOCK)
    a.close(fd)
    t.same(t.pids(node.path("claim", "holders")), [b.pid], "its close does no harm to the next")

    t.same(t.run(["rm", path]).returncode, 0, "rm of a file held by flock returns 0")
    t.same(t.pids(node.path("claim", "holders")), [b.pid], "and changes nothing")
    t.same(os.path.exists(path), True, "the file is there")
    result = t.run(["rm", "-rf", node.path("claim")])
    t.ok(result.returncode == 1 and "not empty" in result.stderr,
         "rm -rf of a lock held by flock: Directory not empty")
    t.ok(b.token_of(fb) > 0, "it stands")
    b.close(fb)
    fb = b.plain(path)
    b.lockf(fb, os.F_TLOCK, 0)
    b.write(fb, b"mine")
    token = b.token_of(fb)
    t.same(t.outcome(a.unlink, path), None, "unlink of a file held by fcntl returns 0")
    t.same(t.outcome(b.unlink, path), None, "by its holder, too")
    t.same((t.pids(node.path("claim", "holders")), b.token_of(fb), t.cat(path)),
           ([b.pid], token, "mine"), "and changes nothing")
    b.close(fb)
    os.rmdir(node.path("claim"))
    a.kill()
    b.kill()


def own(node):
    """The owner unlinks its own claim, as pidfile programs do."""
    os.mkdir(node.path("own"))
    path = node.path("own", "x")
    a, b = t.Agent(), t.Agent()
    fd = a.acquire(path)
    a.unlink(path)
    t.fails("ESTALE", "unlink of one's own claim ends it", a.token_of, fd)
    fb = b.acquire(path)
    t.same(t.pids(node.path("own", "holders")), [b.pid], "and another may create")
    a.close(fd)
    t.same(t.pids(node.path("own", "holders")), [b.pid], "the close comes later, and harms nobody")
    t.ok(b.token_of(fb) > 0, "the second claim stands")
    b.close(fb)
    fd = a.acquire(path)
    a.flock(fd, t.EXCLUSIVE)
    b.unlink(path)
    t.same(t.cat(node.path("own", "holders")), "", "unlink of a claim that is flocked ends both")
    t.fails("ESTALE", "and the handle knows", a.flock, fd, t.EXCLUSIVE | t.NONBLOCK)
    a.kill()
    b.kill()


def test():
    node = t.Node().start()
    for part in (free, held, claim, own):
        t.note(part.__name__)
        part(node)


t.main(test)
