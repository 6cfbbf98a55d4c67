#!/usr/bin/python3 -B
"""flock(2): queues, sharing, conversion, inheritance, and its relation to claims by creating."""

import os
import random
import signal
import time

import lockfs_test as t

ROUNDS = 100


class Lock:
    """A lock of its own, and its files."""

    def __init__(self, node, name):
        self.path = node.path(name)
        os.mkdir(self.path)
        self.file = self.path + "/x"

    def holders(self):
        return t.pids(self.path + "/holders")

    def waiters(self):
        return t.pids(self.path + "/waiters")

    def enqueue(self, agent, fd, operation):
        """The agent begins to wait, and is in the queue when this returns."""
        agent.begin("flock", fd, operation)
        if not t.wait_until(lambda: agent.pid in self.waiters()):
            t.ok(False, "an agent gets into the queue")


def close_all(*agents):
    for agent in agents:
        agent.kill()


def fifo(node):
    lock = Lock(node, "fifo")
    agents = [t.Agent() for _ in range(6)]
    fds = [agent.plain(lock.file) for agent in agents]
    agents[0].flock(fds[0], t.EXCLUSIVE)
    for agent, fd in zip(agents[1:], fds[1:]):
        lock.enqueue(agent, fd, t.EXCLUSIVE)
    t.same(lock.waiters(), [agent.pid for agent in agents[1:]], "`waiters` has the order")
    t.fails("ENOTEMPTY", "rmdir of a lock with waiters", os.rmdir, lock.path)
    order, tokens = [], [agents[0].token_of(fds[0])]
    for agent, fd, following in zip(agents, fds, agents[1:]):
        agent.flock(fd, t.UNLOCK)
        following.finish()
        order.append(lock.holders())
        tokens.append(following.token_of(fds[agents.index(following)]))
        rest = agents[agents.index(following) + 1:]
        if any(other.ready() for other in rest):
            order.append("somebody else was granted, too")
    t.same(order, [[agent.pid] for agent in agents[1:]], "waiters are granted in their order")
    t.same(tokens, sorted(set(tokens)), "their numbers increase")
    close_all(*agents)
    t.same(t.cat(lock.path + "/holders"), "", "the end of a process releases")


def sharing(node):
    lock = Lock(node, "sharing")
    a, b, c, d, e = agents = [t.Agent() for _ in range(5)]
    fa, fb, fc, fd, fe = [agent.plain(lock.file) for agent in agents]
    a.flock(fa, t.SHARED)
    b.flock(fb, t.SHARED)
    t.same(sorted(lock.holders()), sorted([a.pid, b.pid]), "two shared at once")
    t.fails("EAGAIN", "an exclusive one is refused", c.flock, fc,
            t.EXCLUSIVE | t.NONBLOCK)
    b.flock(fb, t.UNLOCK)
    lock.enqueue(c, fc, t.EXCLUSIVE)
    t.fails("EAGAIN", "a shared request does not overtake a waiting exclusive",
            b.flock, fb, t.SHARED | t.NONBLOCK)
    lock.enqueue(d, fd, t.SHARED)
    lock.enqueue(e, fe, t.SHARED)
    lock.enqueue(b, fb, t.EXCLUSIVE)
    t.ok(not d.ready() and not e.ready(), "and waits behind it")
    a.flock(fa, t.UNLOCK)
    c.finish()
    t.same(lock.holders(), [c.pid], "the exclusive one is granted first, alone")
    t.same(lock.waiters(), [d.pid, e.pid, b.pid], "the others wait on")
    c.flock(fc, t.UNLOCK)
    d.finish()
    e.finish()
    t.same(sorted(lock.holders()), sorted([d.pid, e.pid]), "neighbouring shared ones come together")
    t.same(lock.waiters(), [b.pid], "the exclusive one behind them waits")
    d.flock(fd, t.UNLOCK)
    e.flock(fe, t.UNLOCK)
    b.finish()
    t.same(lock.holders(), [b.pid], "and is granted after them")
    close_all(*agents)

    a, b, c, d = agents = [t.Agent() for _ in range(4)]
    fa, fb, fc, fd = [agent.plain(lock.file) for agent in agents]
    a.flock(fa, t.SHARED)
    lock.enqueue(b, fb, t.EXCLUSIVE)
    lock.enqueue(c, fc, t.SHARED)
    b.kill()
    c.finish()
    t.same(sorted(lock.holders()), sorted([a.pid, c.pid]),
           "a waiting exclusive one that goes lets those behind it in")
    close_all(*agents)


def never_queued(node):
    """O_EXCL and LOCK_NB ask once: who was refused is forgotten."""
    lock = Lock(node, "never-queued")
    a, b = t.Agent(), t.Agent()
    fa, fb = a.plain(lock.file), b.plain(lock.file)
    for mode in (t.EXCLUSIVE, t.SHARED):
        a.flock(fa, mode)
        refusals = [t.outcome(b.acquire, lock.file), t.outcome(b.acquire, lock.path + "/y"),
                    t.outcome(b.flock, fb, t.EXCLUSIVE | t.NONBLOCK)]
        t.same(refusals, ["EEXIST", "EEXIST", "EAGAIN"], "refused")
        t.same(lock.waiters(), [], "and waits for nothing")
        a.flock(fa, t.UNLOCK)
        t.same((lock.holders(), "y" in os.listdir(lock.path)), ([], False),
               "nor is it granted when the lock is free")
        t.fails("ENODATA", "or has a number", b.token_of, fb)
    close_all(a, b)


def ends(node):
    """Holders and waiters that die or are interrupted."""
    lock = Lock(node, "ends")
    a, b, c, d = agents = [t.Agent() for _ in range(4)]
    fa, fb, fc, fd = [agent.plain(lock.file) for agent in agents]
    a.flock(fa, t.EXCLUSIVE)
    for agent, fd_ in ((b, fb), (c, fc), (d, fd)):
        lock.enqueue(agent, fd_, t.EXCLUSIVE)
    c.kill()
    t.ok(t.wait_until(lambda: lock.waiters() == [b.pid, d.pid]),
         "kill -9 of a waiter takes it out of the queue")
    a.kill()
    b.finish()
    t.same(lock.holders(), [b.pid], "kill -9 of the holder grants the next")
    d.signal(signal.SIGINT)
    t.same(t.outcome(d.finish), "EINTR", "a signal interrupts a wait")
    t.ok(t.wait_until(lambda: lock.waiters() == []), "and takes it out of the queue")
    t.same(lock.holders(), [b.pid], "nothing else has changed")
    b.flock(fb, t.UNLOCK)
    t.same(lock.holders(), [], "nobody gets what only the interrupted one had waited for")
    d.flock(fd, t.EXCLUSIVE | t.NONBLOCK)
    t.same(lock.holders(), [d.pid], "who was interrupted can lock again")
    close_all(*agents)


def interrupted_often(node):
    """A wait that is given up while it is granted never leaves a lock behind."""
    lock = Lock(node, "often")
    a, b = t.Agent(), t.Agent()
    fa, fb = a.plain(lock.file), b.plain(lock.file)
    dice, wrong = random.Random(1), []
    granted = 0
    for _ in range(ROUNDS):
        a.flock(fa, t.EXCLUSIVE)
        lock.enqueue(b, fb, t.EXCLUSIVE)
        a.begin("flock", fa, t.UNLOCK)
        time.sleep(dice.random() * 0.002)  # not to synchronise: every order should come
        b.signal(signal.SIGINT)
        a.finish()
        got = t.outcome(b.finish)
        if got not in (None, "EINTR"):
            wrong.append(got)
        if got is None:
            granted += 1
            wrong += [] if lock.holders() == [b.pid] else ["granted, and not held"]
            b.flock(fb, t.UNLOCK)
        if not t.wait_until(lambda: lock.holders() == [] and lock.waiters() == []):
            wrong.append("%s, and something is left" % got)
            break
    t.same(wrong, [], "%d signals at the moment of the grant" % ROUNDS)
    t.note("%d were granted, the others interrupted" % granted)
    close_all(a, b)


def locks_again(fd):
    """Asks again and again for the lock that it has, until it is killed."""
    while True:
        t.flock(fd, t.EXCLUSIVE)


def killed_often(node):
    """kill -9 in the middle of a call leaves nothing behind, in the count of claims neither."""
    lock = Lock(node, "killed")
    dice = random.Random(2)
    for _ in range(40):
        a = t.Agent()
        fd = a.flock_file(lock.file, t.EXCLUSIVE)
        a.begin("locks_again", fd)
        time.sleep(dice.random() * 0.01)  # not to synchronise: any moment will do
        a.kill()
    wanted = {"claims": "0", "waiters": "0", "claims_of_this_node": "0"}
    if not t.ok(t.wait_until(lambda: wanted.items() <= t.status(node).items(), 10),
                "40 times kill -9 of one that asks again for what it has: nothing is left"):
        t.note(t.status(node))
    a = t.Agent()
    fd = a.flock_file(lock.file, t.EXCLUSIVE)
    t.same((os.path.exists(lock.file), lock.holders()), (True, [a.pid]), "the next one is seen")
    a.close(fd)
    fd = a.acquire(lock.file)
    t.same((os.path.exists(lock.file), lock.holders()), (True, [a.pid]), "one by creating, too")
    a.kill()


def conversion(node):
    lock = Lock(node, "conversion")
    a, b, c = agents = [t.Agent() for _ in range(3)]
    fa, fb, fc = [agent.plain(lock.file) for agent in agents]
    a.flock(fa, t.EXCLUSIVE)
    first = a.token_of(fa)
    a.flock(fa, t.EXCLUSIVE)
    t.same(a.token_of(fa), first, "locking again in the same mode changes nothing")
    a.flock(fa, t.SHARED)
    t.ok(a.token_of(fa) > first, "a conversion has a new number")
    b.flock(fb, t.SHARED | t.NONBLOCK)
    t.same(sorted(lock.holders()), sorted([a.pid, b.pid]), "exclusive to shared lets another in")
    t.fails("EAGAIN", "shared to exclusive without waiting is refused", a.flock, fa,
            t.EXCLUSIVE | t.NONBLOCK)
    t.same(lock.holders(), [b.pid], "and the lock is lost by it, as flock(2) says")
    t.fails("ENODATA", "so the handle has no number", a.token_of, fa)
    lock.enqueue(c, fc, t.EXCLUSIVE)
    lock.enqueue(a, fa, t.SHARED)
    b.begin("flock", fb, t.EXCLUSIVE)
    c.finish()
    t.same(lock.holders(), [c.pid], "a conversion that waits lets go, and the queue moves on")
    t.ok(t.wait_until(lambda: lock.waiters() == [a.pid, b.pid]), "it waits at the tail")
    c.flock(fc, t.UNLOCK)
    a.finish()
    a.flock(fa, t.UNLOCK)
    b.finish()
    t.same(lock.holders(), [b.pid], "and is granted in its turn")
    close_all(*agents)


def inheritance(node):
    lock = Lock(node, "inheritance")
    a, other = t.Agent(), t.Agent()
    fd = a.plain(lock.file)
    a.flock(fd, t.EXCLUSIVE)
    child = a.child()
    a.close(fd)
    fo = other.plain(lock.file)
    t.fails("EAGAIN", "a child keeps what its parent closed", other.flock, fo,
            t.EXCLUSIVE | t.NONBLOCK)
    child.flock(fd, t.UNLOCK)
    t.same(t.outcome(other.flock, fo, t.EXCLUSIVE | t.NONBLOCK), None, "and can unlock it")
    other.flock(fo, t.UNLOCK)
    child.flock(fd, t.EXCLUSIVE)
    a.kill()
    t.same(len(lock.holders()), 1, "the death of the parent does not release a child's")
    child.kill()
    t.ok(t.wait_until(lambda: lock.holders() == []), "that of the last one does")

    a = t.Agent()
    fd = a.acquire(lock.file)
    duplicate = a.dup(fd)
    a.close(fd)
    t.same(lock.holders(), [a.pid], "a duplicate keeps a claim by creating")
    a.close(duplicate)
    t.same(lock.holders(), [], "until it is closed, too")
    close_all(a, other)


def with_create(node):
    """O_EXCL and flock on one resource."""
    lock = Lock(node, "create")
    a, b = t.Agent(), t.Agent()
    fd = a.acquire(lock.file)
    first = a.token_of(fd)
    t.same(t.outcome(a.flock, fd, t.EXCLUSIVE | t.NONBLOCK), None,
           "flock on the handle that claims by creating")
    second = a.token_of(fd)
    t.ok(second > first, "has a number of its own")
    a.flock(fd, t.UNLOCK)
    t.same(lock.holders(), [a.pid], "`flock -u` leaves the claim by creating")
    t.same(a.token_of(fd), second, "the handle's number is the largest that it got meanwhile")
    t.same(os.path.exists(lock.file), True, "and the file is there")
    for name in ("x", "y"):
        fb = b.plain(lock.path + "/" + name)
        t.fails("EAGAIN", "a claim by creating excludes flock (x, %s)" % name, b.flock, fb,
                t.EXCLUSIVE | t.NONBLOCK)
        t.fails("EAGAIN", "shared flock, too (x, %s)" % name, b.flock, fb, t.SHARED | t.NONBLOCK)
        b.close(fb)
    fa = a.plain(lock.file)
    t.fails("EAGAIN", "another handle of the same process is another one", a.flock, fa,
            t.EXCLUSIVE | t.NONBLOCK)
    t.fails("EEXIST", "creating is never re-entrant", a.acquire, lock.path + "/z")
    a.close(fa)
    fb = b.plain(lock.path + "/y")
    lock.enqueue(b, fb, t.SHARED)
    a.close(fd)
    b.finish()
    t.same(lock.holders(), [b.pid], "close of the claim grants the waiting flock")
    for name in ("x", "y"):
        t.fails("EEXIST", "flock excludes creating (y, %s)" % name, a.acquire,
                lock.path + "/" + name)
    b.flock(fb, t.UNLOCK)
    fd = a.acquire(lock.path + "/y")
    t.same(t.cat(lock.path + "/holders").count("\n"), 1, "creating a file that others have open")
    a.close(fd)
    close_all(a, b)


def unlimited(node):
    """In the root each name is a lock of its own."""
    a, b = t.Agent(), t.Agent()
    fx = a.acquire(node.path("x"))
    t.fails("EEXIST", "one name in the root excludes", b.acquire, node.path("x"))
    fy = b.acquire(node.path("y"))
    fz = b.flock_file(node.path("z"), t.EXCLUSIVE | t.NONBLOCK)
    t.same(sorted(set("xyz") & set(os.listdir(node.mount))), ["x", "y", "z"],
           "different names do not interfere")
    t.fails("EEXIST", "flock and creating exclude each other there, too", a.acquire, node.path("z"))
    other = a.plain(node.path("y"))
    t.fails("EAGAIN", "both ways", a.flock, other, t.EXCLUSIVE | t.NONBLOCK)
    b.close(fy)
    a.flock(other, t.EXCLUSIVE | t.NONBLOCK)
    a.close(other)
    a.close(fx)
    b.close(fz)
    t.same(set("xyz") & set(os.listdir(node.mount)), set(), "all are gone after release")
    close_all(a, b)


def range_locks(node):
    """fcntl locks on parts of a file are not there yet: they are refused, and never granted."""
    lock = Lock(node, "ranges")
    a = t.Agent()
    fd = a.plain(lock.file)
    for limit, wanted in (("1", "EOPNOTSUPP"), ("2", "EINVAL"), ("unlimited", "EOPNOTSUPP")):
        t.put(lock.path + "/.limit", limit + "\n")
        for name, call in (("F_LOCK", os.F_LOCK), ("F_TLOCK", os.F_TLOCK), ("F_TEST", os.F_TEST)):
            t.fails(wanted, "limit %s: %s of one byte" % (limit, name), a.lockf, fd, call, 1)
        t.same(lock.holders(), [], "nothing is held by them")
        a.flock(fd, t.EXCLUSIVE)
        t.fails(wanted, "limit %s: also for who has flocked it" % limit, a.lockf, fd, os.F_LOCK, 1)
        a.flock(fd, t.UNLOCK)
    close_all(a)


def test():
    t.ACTS["locks_again"] = locks_again
    node = t.Node("--drain-timeout", "5").start()
    for part in (fifo, sharing, never_queued, ends, interrupted_often, killed_often, conversion, inheritance,
                 with_create, unlimited, range_locks):
        t.note(part.__name__)
        part(node)


t.main(test)
