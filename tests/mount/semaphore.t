#!/usr/bin/python3 -B
"""`.limit` N: as many holders at once as it says, by O_EXCL, flock and fcntl, in any file."""

import fcntl
import os
import random
import time

import lockfs_test as t

ROUNDS = 40


class Lock:
    """A lock of a certain limit."""

    def __init__(self, node, name, limit):
        self.path = node.path(name)
        os.mkdir(self.path)
        self.set_limit(limit)

    def set_limit(self, limit):
        t.put(self.path + "/.limit", "%s\n" % limit)

    def file(self, name):
        return "%s/%s" % (self.path, name)

    def holders(self):
        return t.pids(self.path + "/holders")

    def waiters(self):
        return t.pids(self.path + "/waiters")

    def enqueue(self, agent, fd, operation=t.EXCLUSIVE):
        agent.begin("flock", fd, operation)
        if not t.wait_until(lambda: agent.pid in self.waiters()):
            t.ok(False, "an agent gets into the queue")

    def idle(self):
        return t.wait_until(lambda: not self.holders() and not self.waiters())


def close_all(agents):
    for agent in agents:
        agent.kill()


def ready(agents):
    return [agent for agent in agents if agent.ready()]


def by_creating(node):
    lock = Lock(node, "creating", 3)
    agents = [t.Agent() for _ in range(4)]
    fds = [agent.acquire(lock.file(name)) for agent, name in zip(agents, "abc")]
    t.same(lock.holders(), [agent.pid for agent in agents[:3]], "three of three, in three names")
    tokens = [agent.token_of(fd) for agent, fd in zip(agents, fds)]
    t.same(tokens, sorted(set(tokens)), "each has a number of its own, and they increase")
    t.fails("EEXIST", "the fourth, under a name that is free", agents[3].acquire, lock.file("d"))
    t.fails("EEXIST", "under a name that is taken", agents[3].acquire, lock.file("a"))
    t.fails("EEXIST", "by a process that holds one", agents[0].acquire, lock.file("d"))
    t.fails("EAGAIN", "by flock", agents[3].flock_file, lock.file("d"), t.EXCLUSIVE | t.NONBLOCK)
    t.fails("EAGAIN", "by a shared one", agents[3].flock_file, lock.file("d"),
            t.SHARED | t.NONBLOCK)
    agents[1].close(fds[1])
    fd = agents[3].acquire(lock.file("d"))
    t.same(lock.holders(), [agents[i].pid for i in (0, 2, 3)], "one goes, another one comes")
    agents[2].kill()
    fd = t.wait_until(lambda: t.outcome(agents[1].acquire, lock.file("c")) not in ("EEXIST",))
    t.same(bool(fd) and len(lock.holders()), 3, "kill -9 of one makes room for one")
    agents[0].unlink(lock.file("a"))
    t.same(t.outcome(os.close, t.outcome(t.acquire, lock.file("e"))), None, "so does unlink")
    close_all(agents)

    one = t.Agent()
    held = [one.acquire(lock.file(name)) for name in "abc"]
    t.fails("EEXIST", "one process can have all three, and no more", one.acquire, lock.file("d"))
    t.fails("EEXIST", "the same name twice never goes, although there is room",
            _second_of_a_name, one, lock, held)
    one.kill()


def _second_of_a_name(agent, lock, held):
    agent.close(held.pop())
    agent.acquire(lock.file("a"))


def tokens(node):
    """What `token` tells, to the holders and to bystanders."""
    lock = Lock(node, "tokens", 3)
    t.fails("ENODATA", "`token` while it is free", t.cat, lock.file("token"))
    a, b, c, bystander = agents = [t.Agent() for _ in range(4)]
    fa, fb = a.acquire(lock.file("a")), b.acquire(lock.file("b c"))
    fc = c.flock_file(lock.file("c"), t.SHARED)
    numbers = [a.token_of(fa), b.token_of(fb), c.token_of(fc)]
    t.same([int(agent.cat(lock.file("token"))) for agent in (a, b, c)], numbers,
           "each holder reads its own number")
    lines = bystander.cat(lock.file("token")).splitlines()
    t.same([int(line.split(" ", 1)[0]) for line in lines], numbers,
           "a bystander reads a line for each")
    t.same((lines[0].split(" ", 1)[1], lines[2].split(" ", 1)[1]), ("a", "c"), "NUMBER NAME")
    t.same([row.file for row in t.rows(lock.file("holders"))],
           [line.split(" ", 1)[1] for line in lines], "with names as `holders` writes them")
    t.same([t.outcome(t.put, lock.file("token"), "%d\n" % number) is not None and
            isinstance(t.outcome(t.put, lock.file("token"), "%d\n" % number), int)
            for number in numbers], [True] * 3, "each of these can be written to it")
    a.close(fa)
    t.fails("ESTALE", "what has ended cannot", t.put, lock.file("token"), "%d\n" % numbers[0])
    t.same([int(line.split()[0]) for line in bystander.cat(lock.file("token")).splitlines()],
           numbers[1:], "and is not read any more")
    t.same(a.cat(lock.file("token")).count("\n"), 2, "who has let go is a bystander")
    t.same(int(t.cat(lock.file("last"))), numbers[2], "`last`")
    close_all(agents)
    t.ok(lock.idle(), "all are gone")


def sharing(node):
    """All shared ones count as one."""
    lock = Lock(node, "sharing", 2)
    agents = [t.Agent() for _ in range(6)]
    fds = [agent.plain(lock.file("f%d" % i)) for i, agent in enumerate(agents)]
    for i in range(3):
        agents[i].flock(fds[i], t.SHARED | t.NONBLOCK)
    agents[3].flock(fds[3], t.EXCLUSIVE | t.NONBLOCK)
    t.same(len(lock.holders()), 4, "limit 2: three shared ones and an exclusive one")
    t.fails("EAGAIN", "a second exclusive one", agents[4].flock, fds[4], t.EXCLUSIVE | t.NONBLOCK)
    t.fails("EEXIST", "a claim by creating", agents[4].acquire, lock.file("x"))
    agents[4].flock(fds[4], t.SHARED | t.NONBLOCK)
    t.same(len(lock.holders()), 5, "but a fourth shared one")
    for i in (0, 1, 2):
        agents[i].flock(fds[i], t.UNLOCK)
    t.fails("EAGAIN", "the place of the shared ones is taken until the last goes", agents[5].flock,
            fds[5], t.EXCLUSIVE | t.NONBLOCK)
    t.fails("EAGAIN", "which cannot convert beside others, either", _convert_full, agents, fds)
    t.same(t.outcome(agents[5].flock, fds[5], t.EXCLUSIVE | t.NONBLOCK), None,
           "after it an exclusive one finds room")
    t.fails("EAGAIN", "and a shared one none", agents[0].flock, fds[0], t.SHARED | t.NONBLOCK)
    agents[3].flock(fds[3], t.SHARED | t.NONBLOCK)
    agents[0].flock(fds[0], t.SHARED | t.NONBLOCK)
    t.same(len(lock.holders()), 3, "one of two exclusive ones converts: others share its place")
    close_all(agents)


def _convert_full(agents, fds):
    """Two exclusive ones and a shared one cannot be: with limit 2 the shared one is refused."""
    agents[0].flock(fds[0], t.SHARED | t.NONBLOCK)
    try:
        agents[4].flock(fds[4], t.EXCLUSIVE | t.NONBLOCK)
    finally:
        agents[0].flock(fds[0], t.UNLOCK)


def waiting(node):
    lock = Lock(node, "waiting", 2)
    agents = [t.Agent() for _ in range(7)]
    fds = [agent.plain(lock.file("f%d" % i)) for i, agent in enumerate(agents)]
    for i in (0, 1):
        agents[i].flock(fds[i], t.EXCLUSIVE)
    for i in (2, 3, 4, 5, 6):
        lock.enqueue(agents[i], fds[i])
    t.same(lock.waiters(), [agent.pid for agent in agents[2:]], "five wait, in their order")
    agents[1].flock(fds[1], t.UNLOCK)
    agents[2].finish()
    t.same((lock.holders(), ready(agents[3:])), ([agents[0].pid, agents[2].pid], []),
           "one goes: one is granted, the first")
    lock.set_limit(4)
    agents[3].finish()
    agents[4].finish()
    t.same((lock.holders(), lock.waiters()),
           ([agents[i].pid for i in (0, 2, 3, 4)], [agents[5].pid, agents[6].pid]),
           "the limit is raised by two: the next two are granted")
    t.fails("EINVAL", "it cannot be less than what is held", lock.set_limit, 3)
    agents[0].flock(fds[0], t.UNLOCK)
    agents[5].finish()
    lock.set_limit(9)
    agents[6].finish()
    t.same(lock.waiters(), [], "raised again: all are in")
    for i in (2, 3, 4):
        agents[i].flock(fds[i], t.UNLOCK)
    lock.set_limit(2)
    lock.enqueue(agents[0], fds[0])
    t.same(lock.holders(), [agents[5].pid, agents[6].pid],
           "the limit is lowered to what is held: who comes next waits")
    agents[5].kill()
    agents[0].finish()
    t.same(sorted(lock.holders()), sorted([agents[6].pid, agents[0].pid]),
           "and is granted after the death of one")
    close_all(agents)

    # A mutex becomes a semaphore under those that wait, and its shared waiters come together.
    lock.set_limit(1)
    agents = [t.Agent() for _ in range(5)]
    fds = [agent.plain(lock.file("g%d" % i)) for i, agent in enumerate(agents)]
    agents[0].flock(fds[0], t.EXCLUSIVE)
    for i, mode in ((1, t.SHARED), (2, t.SHARED), (3, t.EXCLUSIVE), (4, t.SHARED)):
        lock.enqueue(agents[i], fds[i], mode)
    lock.set_limit(2)
    agents[1].finish()
    agents[2].finish()
    t.same((lock.holders(), lock.waiters()),
           ([agents[i].pid for i in (0, 1, 2)], [agents[3].pid, agents[4].pid]),
           "1 raised to 2: the shared ones at the head come in, both, and none behind them")
    lock.set_limit(3)
    agents[3].finish()
    agents[4].finish()
    t.same(lock.waiters(), [], "raised to 3: the exclusive one, and the shared one behind it")
    close_all(agents)


def ranges(node):
    """fcntl: whole files only, and the same limit for all kinds."""
    lock = Lock(node, "ranges", 2)
    a, b, c = agents = [t.Agent() for _ in range(3)]
    fa, fb, fc = [agent.plain(lock.file("f")) for agent in agents]
    a.lock_range(fa, fcntl.F_SETLK, fcntl.F_WRLCK)
    b.lock_range(fb, fcntl.F_SETLK, fcntl.F_WRLCK)
    t.same(lock.holders(), [a.pid, b.pid], "two processes lock one file of a semaphore")
    t.fails("EAGAIN", "the third does not", c.lock_range, fc, fcntl.F_SETLK, fcntl.F_WRLCK)
    t.fails("EEXIST", "nor by creating", c.acquire, lock.file("g"))
    t.fails("EINVAL", "one byte", a.lockf, fa, os.F_TLOCK, 1)
    t.fails("EINVAL", "one byte of a file that nobody has locked", _lock_a_byte, lock)
    a.lock_range(fa, fcntl.F_SETLK, fcntl.F_UNLCK)
    t.same(t.outcome(c.lock_range, fc, fcntl.F_SETLK, fcntl.F_WRLCK), None,
           "one goes, another comes")
    close_all(agents)


def _lock_a_byte(lock):
    fd = t.plain(lock.file("other"))
    try:
        os.lockf(fd, os.F_TLOCK, 1)
    finally:
        os.close(fd)


def refused_for_nothing(node):
    """Who is refused costs the cluster nothing: no entry of the log."""
    full = Lock(node, "full", 2)
    mutex = Lock(node, "mutex", 1)
    a, b = t.Agent(), t.Agent()
    a.acquire(full.file("a"))
    a.flock_file(full.file("b"), t.SHARED)
    a.flock_file(mutex.file("a"), t.EXCLUSIVE)
    a.acquire(node.path("of-the-root"))
    fm, ff = b.plain(mutex.file("b")), b.plain(full.file("c"))
    for name, errno_name, call in (
            ("O_EXCL, another name", "EEXIST", lambda: b.acquire(mutex.file("y"))),
            ("O_EXCL, the same name", "EEXIST", lambda: b.acquire(mutex.file("a"))),
            ("O_EXCL, a full semaphore", "EEXIST", lambda: b.acquire(full.file("y"))),
            ("O_EXCL in the root", "EEXIST", lambda: b.acquire(node.path("of-the-root"))),
            ("flock LOCK_NB", "EAGAIN", lambda: b.flock(fm, t.EXCLUSIVE | t.NONBLOCK)),
            ("shared", "EAGAIN", lambda: b.flock(fm, t.SHARED | t.NONBLOCK)),
            ("flock, a full semaphore", "EAGAIN", lambda: b.flock(ff, t.EXCLUSIVE | t.NONBLOCK)),
            ("mkdir of what there is", "EEXIST", lambda: b.mkdir(mutex.path))):
        before = t.status(node)["last_index"]
        got = {t.outcome(call) for _ in range(20)}
        t.same((got, int(t.status(node)["last_index"]) - int(before)), ({errno_name}, 0),
               "20 times refused, no entry: " + name)
    close_all((a, b))


def never_more(node):
    """Many at once, by every road: never more than the limit, as they see it themselves."""
    lock = Lock(node, "storm", 3)
    agents = [t.Agent() for _ in range(8)]
    dice = random.Random(3)
    for number, agent in enumerate(agents):
        agent.begin("hold_often", lock.path, t.base() + "/inside", number, dice.random(), ROUNDS)
    most, holders = 0, 0
    while not all(agent.ready() for agent in agents):
        rows = t.rows(lock.file("holders"))
        holders = max(holders, len(rows))
        time.sleep(0.001)  # not to synchronise: to look now and again
    results = [agent.finish() for agent in agents]
    most = max(seen for seen, _ in results)
    t.ok(most <= 3, "never more than three inside, as the holders count")
    t.ok(holders <= 3, "never more than three lines in `holders`")
    t.ok(most > 1, "and more than one at times (%d)" % most)
    t.ok(all(count > 0 for _, count in results), "each got in: %r" % [n for _, n in results])
    t.ok(lock.idle(), "nothing is left")
    close_all(agents)


def hold_often(path, inside, number, seed, rounds):
    """Takes the semaphore again and again; who is inside has a file in `inside`, a plain folder."""
    dice = random.Random(seed)
    os.makedirs(inside, exist_ok=True)
    most = got = 0
    mine = "%s/%d" % (inside, number)
    for turn in range(rounds):
        try:
            name = "%s/n%d" % (path, number)
            if dice.random() < 0.4:
                fd = t.acquire(name)
            else:
                fd = t.flock_file(name, t.EXCLUSIVE | (t.NONBLOCK if dice.random() < 0.3 else 0))
        except OSError:
            continue
        got += 1
        os.close(os.open(mine, os.O_CREAT | os.O_WRONLY))
        most = max(most, len(os.listdir(inside)))
        time.sleep(dice.random() * 0.003)  # not to synchronise: so that several are inside
        os.unlink(mine)
        os.close(fd)
    return most, got


def test():
    t.ACTS["hold_often"] = hold_often
    node = t.Node("--drain-timeout", "5").start()
    for part in (by_creating, tokens, sharing, waiting, ranges, refused_for_nothing,
                 never_more):
        t.note(part.__name__)
        part(node)


t.main(test)
