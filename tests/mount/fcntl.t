#!/usr/bin/python3 -B
"""fcntl locks on whole files: POSIX and OFD, their owners and ends, beside flock and O_EXCL."""

import ctypes
import fcntl
import os
import signal
import struct
import subprocess
import sys
import time

import lockfs_test as t

READ, WRITE, FREE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
TRY, WAIT, GET = fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK
OFD_GET, OFD_TRY, OFD_WAIT = 36, 37, 38

_libc = ctypes.CDLL(None, use_errno=True)


def lock(fd, command, kind, start=0, length=0, whence=os.SEEK_SET):
    """fcntl(2) itself: that of Python goes on waiting after a signal. What F_GETLK wrote."""
    buffer = ctypes.create_string_buffer(struct.pack("hhqqi4x", kind, whence, start, length, 0))
    if _libc.fcntl(fd, command, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    kind, _, start, length, pid = struct.unpack("hhqqi4x", buffer.raw[:32])
    return (kind, pid, start, length)


class Lock:
    """A lock of its own, and a file in it."""

    def __init__(self, node, name):
        self.path = node.path(name)
        os.mkdir(self.path)
        self.file = self.path + "/x"

    def holders(self):
        return t.pids(self.path + "/holders")

    def modes(self):
        return sorted(row.mode for row in t.rows(self.path + "/holders"))

    def waiters(self):
        return t.pids(self.path + "/waiters")

    def enqueue(self, agent, name, *args):
        before = len(self.waiters())
        agent.begin(name, *args)
        if not t.wait_until(lambda: len(self.waiters()) > before and agent.pid in self.waiters()):
            t.ok(False, "an agent gets into the queue")


def close_all(*agents):
    for agent in agents:
        agent.kill()


def exclusion(node):
    lock_ = Lock(node, "exclusion")
    a, b = t.Agent(), t.Agent()
    fa, fb = a.plain(lock_.file), b.plain(lock_.file)
    a.lock(fa, TRY, WRITE)
    t.same((lock_.holders(), lock_.modes()), ([a.pid], ["exclusive"]), "F_SETLK: `holders` has it")
    t.ok("x" in os.listdir(lock_.path), "the file is listed")
    token = a.token_of(fa)
    t.same(int(a.cat(lock_.path + "/token")), token, "the handle and `token` have its number")
    t.same(t.run(["grep", ":%d " % os.stat(lock_.file).st_ino, "/proc/locks"]).returncode, 1,
           "the kernel holds no lock of its own")
    t.fails("EAGAIN", "another process: F_WRLCK", b.lock, fb, TRY, WRITE)
    t.fails("EAGAIN", "another process: F_RDLCK", b.lock, fb, TRY, READ)
    t.fails("EAGAIN", "another process: lockf", b.lockf, fb, os.F_TLOCK, 0)
    t.fails("EAGAIN", "another process: OFD", b.lock, fb, OFD_TRY, WRITE)
    t.fails("EAGAIN", "another process: flock", b.flock, fb, t.EXCLUSIVE | t.NONBLOCK)
    t.fails("EEXIST", "another process: O_EXCL", b.acquire, lock_.path + "/y")
    second = a.plain(lock_.file)
    t.same(t.outcome(a.lock, second, TRY, WRITE), (WRITE, 0, 0, 0),
           "the same process through another descriptor is not blocked")
    t.same((len(lock_.holders()), a.token_of(fa)), (1, token), "it has held it already")
    t.fails("EAGAIN", "but its flock through the other one is", a.flock, second,
            t.EXCLUSIVE | t.NONBLOCK)
    t.fails("EAGAIN", "and an OFD lock, too", a.lock, second, OFD_TRY, READ)
    t.same(t.outcome(a.in_thread, "lock", (fa, TRY, WRITE)), (WRITE, 0, 0, 0),
           "another thread of the process is not blocked")
    t.same(lock_.holders(), [a.pid], "nor does its end release")
    a.lock(fa, TRY, FREE)
    t.same((lock_.holders(), os.listdir(lock_.path).count("x")), ([], 0), "F_UNLCK releases")
    t.same(t.outcome(a.lock, fa, TRY, FREE), (FREE, 0, 0, 0), "and again: no error")
    t.fails("ENODATA", "the handle has no number any more", a.token_of, fa)
    a.close(second)

    a.lock(fa, TRY, READ)
    b.lock(fb, TRY, READ)
    t.same((sorted(lock_.holders()), lock_.modes()), (sorted([a.pid, b.pid]), ["shared"] * 2),
           "two read locks at once")
    third = t.Agent()
    t.fails("EAGAIN", "no write lock beside them", third.lock, third.plain(lock_.file), TRY, WRITE)
    t.same(t.outcome(third.flock_file, lock_.file, t.SHARED | t.NONBLOCK) is not None, True,
           "but a shared flock")
    close_all(a, b, third)
    t.same(lock_.holders(), [], "kill -9 releases all")

    a = t.Agent()
    reader = a.open(lock_.file, os.O_RDONLY | os.O_CREAT)
    t.fails("EBADF", "a write lock needs a descriptor that can write", a.lock, reader, TRY, WRITE)
    writer = a.open(lock_.file, os.O_WRONLY | os.O_CREAT)
    t.fails("EBADF", "a read lock one that can read", a.lock, writer, TRY, READ)
    t.same(t.outcome(a.lockf, writer, os.F_LOCK, 0), None, "lockf")
    t.same(lock_.holders(), [a.pid], "lockf holds")
    t.same(t.outcome(a.lockf, writer, os.F_TEST, 0), None, "F_TEST by the holder")
    b = t.Agent()
    fb = b.plain(lock_.file)
    t.fails(("EAGAIN", "EACCES"), "F_TEST by another one", b.lockf, fb, os.F_TEST, 0)
    a.lockf(writer, os.F_ULOCK, 0)
    t.same(lock_.holders(), [], "F_ULOCK releases")
    close_all(a, b)


def two_files(node):
    """The resource is the lock: one owner may have several files of it, others none."""
    lock_ = Lock(node, "files")
    a, b = t.Agent(), t.Agent()
    fx, fy = a.plain(lock_.file), a.plain(lock_.path + "/y")
    a.lock(fx, TRY, WRITE)
    t.same(t.outcome(a.lock, fy, TRY, WRITE), (WRITE, 0, 0, 0),
           "POSIX locks of one process do not block themselves, on two files of a mutex neither")
    fb = b.plain(lock_.path + "/y")
    a.close(fx)
    t.fails("EAGAIN", "closing one file leaves the other one locked", b.lock, fb, TRY, READ)
    a.close(fy)
    t.same(t.outcome(b.lock, fb, TRY, WRITE), (WRITE, 0, 0, 0), "closing it, too, does not")
    close_all(a, b)

    root = [node.path("range-%s" % name) for name in "xy"]
    a, b = t.Agent(), t.Agent()
    a.lock(a.plain(root[0]), TRY, WRITE)
    t.same(t.outcome(b.lock, b.plain(root[1]), TRY, WRITE), (WRITE, 0, 0, 0),
           "in the root two names are two locks")
    t.fails("EAGAIN", "and one name is one", b.lock, b.plain(root[0]), TRY, WRITE)
    close_all(a, b)


def closing(node):
    """POSIX: the close of any descriptor of the file drops what the process has on it."""
    lock_ = Lock(node, "closing")
    a, b = t.Agent(), t.Agent()
    fb = b.plain(lock_.file)
    for name, other in (("another open file", lambda fd: a.plain(lock_.file)),
                        ("one opened to read", lambda fd: a.open(lock_.file, os.O_RDONLY)),
                        ("a duplicate", a.dup)):
        fd = a.plain(lock_.file)
        a.lock(fd, TRY, WRITE)
        second = other(fd)
        t.fails("EAGAIN", "held", b.lock, fb, TRY, WRITE)
        a.close(second)
        t.same(t.outcome(b.lock, fb, TRY, WRITE), (WRITE, 0, 0, 0),
               "close of %s releases at once" % name)
        t.fails("ENODATA", "and the first descriptor has no number", a.token_of, fd)
        b.lock(fb, TRY, FREE)
        a.close(fd)
    fd = a.plain(lock_.file)
    a.lock(fd, TRY, WRITE)
    a.cat(lock_.file)
    t.same(lock_.holders(), [], "so does reading the file with open, read, close")
    a.lock(fd, TRY, WRITE)
    b.cat(lock_.file)
    t.same(lock_.holders(), [a.pid], "which does nothing when another process does it")
    a.kill()
    b.kill()

    # Closing at once and locking again must never find one's own, or another's, old lock.
    agents = [t.Agent(), t.Agent()]
    wrong = []
    for turn in range(100):
        agent = agents[turn % 2]
        fd = agent.plain(lock_.file)
        got = t.outcome(agent.lock, fd, TRY, WRITE)
        if got != (WRITE, 0, 0, 0):
            wrong.append((turn, got))
        agent.close(fd)
    t.same(wrong, [], "100 times open, lock, close by two in turn: never refused")
    close_all(*agents)


def conversion(node):
    lock_ = Lock(node, "conversion")
    a, b, c, d = agents = [t.Agent() for _ in range(4)]
    fa, fb, fc, fd = [agent.plain(lock_.file) for agent in agents]
    a.lock(fa, TRY, WRITE)
    first = a.token_of(fa)
    a.write(fa, b"4711\n")
    a.lock(fa, TRY, READ)
    t.same((lock_.modes(), t.cat(lock_.file)), (["shared"], "4711\n"),
           "a downgrade keeps what the holder wrote")
    t.ok(a.token_of(fa) > first, "and has a new number")
    b.lock(fb, TRY, READ)
    t.same(len(lock_.holders()), 2, "it lets a reader in")
    second = a.token_of(fa)
    t.fails("EAGAIN", "an upgrade beside another reader", a.lock, fa, TRY, WRITE)
    t.same((lock_.modes(), a.token_of(fa)), (["shared"] * 2, second),
           "which fails keeps the old lock, and its number")
    t.same(t.cat(lock_.file), "4711\n", "and the content")
    lock_.enqueue(c, "lock", fc, WAIT, WRITE)
    lock_.enqueue(a, "lock", fa, WAIT, WRITE)
    t.same(sorted(lock_.holders()), sorted([a.pid, b.pid]),
           "an upgrade that waits keeps the old lock, too")
    t.same(lock_.waiters(), [c.pid, a.pid], "it waits")
    a.signal(signal.SIGINT)
    t.same(t.outcome(a.finish), "EINTR", "a signal interrupts it")
    t.same((sorted(lock_.holders()), a.token_of(fa)), (sorted([a.pid, b.pid]), second),
           "and leaves the old lock")
    lock_.enqueue(a, "lock", fa, WAIT, WRITE)
    b.lock(fb, TRY, FREE)
    a.finish()
    t.same((lock_.holders(), lock_.modes(), lock_.waiters()), ([a.pid], ["exclusive"], [c.pid]),
           "it passes those who wait for its own lock")
    t.same(t.cat(lock_.file), "4711\n", "an upgrade keeps the content")
    lock_.enqueue(d, "lock", fd, WAIT, READ)
    a.lock(fa, TRY, READ)
    t.same((lock_.holders(), lock_.waiters()), ([a.pid], [c.pid, d.pid]),
           "a downgrade lets nobody pass a writer that waits")
    c.kill()
    d.finish()
    t.same(sorted(lock_.holders()), sorted([a.pid, d.pid]), "who goes lets the reader in")
    a.lock(fa, TRY, FREE)
    d.lock(fd, TRY, WRITE)
    t.same((lock_.holders(), t.cat(lock_.file)), ([d.pid], "4711\n"),
           "content lives while anybody holds the file")
    d.lock(fd, TRY, FREE)
    d.lock(fd, TRY, WRITE)
    t.same(t.cat(lock_.file), "", "and no longer")
    d.lock(fd, TRY, READ)
    b.lock(fb, WAIT, READ)
    d.lock(fd, TRY, FREE)
    b.lock(fb, WAIT, WRITE)
    t.same(lock_.modes(), ["exclusive"], "an upgrade of the only reader is granted at once")
    close_all(*agents)


def never_free(node):
    """Up and down again: there is no moment in which another one gets in."""
    lock_ = Lock(node, "atomic")
    a, b = t.Agent(), t.Agent()
    fa, fb = a.plain(lock_.file), b.plain(lock_.file)
    a.lock(fa, TRY, WRITE)
    b.begin("try_often", fb, 300)
    turns = 0
    while not b.ready():
        a.lock(fa, TRY, READ)
        a.lock(fa, TRY, WRITE)
        turns += 1
    t.same(b.finish(), 0, "no write lock gets between %d downgrades and upgrades" % turns)
    close_all(a, b)


def try_often(fd, times):
    return sum(t.outcome(lock, fd, TRY, WRITE) != "EAGAIN" for _ in range(times))


def queue(node):
    lock_ = Lock(node, "queue")
    agents = [t.Agent() for _ in range(5)]
    fds = [agent.plain(lock_.file) for agent in agents]
    a, b, c, d, e = agents
    a.lock(fds[0], TRY, WRITE)
    lock_.enqueue(b, "lock", fds[1], WAIT, WRITE)
    lock_.enqueue(c, "flock", fds[2], t.EXCLUSIVE)
    lock_.enqueue(d, "lockf", fds[3], os.F_LOCK, 0)
    lock_.enqueue(e, "lock", fds[4], OFD_WAIT, WRITE)
    t.same(lock_.waiters(), [agent.pid for agent in agents[1:]],
           "F_SETLKW, flock, lockf and OFD wait in one queue")
    a.close(fds[0])
    b.finish()
    t.same((lock_.holders(), lock_.waiters()), ([b.pid], [c.pid, d.pid, e.pid]),
           "close grants the first")
    t.fails("EAGAIN", "who does not wait does not overtake", a.lock, a.plain(lock_.file), TRY, READ)
    b.lock(fds[1], TRY, FREE)
    c.finish()
    t.same(lock_.holders(), [c.pid], "unlock grants the next, by flock")
    c.kill()
    d.finish()
    t.same(lock_.holders(), [d.pid], "kill -9 the next, by lockf")
    d.kill()
    e.finish()
    t.same(lock_.holders(), [e.pid], "and the last")
    e.close(fds[4])
    t.same(lock_.holders(), [], "all are through")
    close_all(*agents)

    a, b, c = agents = [t.Agent() for _ in range(3)]
    fa, fb, fc = [agent.plain(lock_.file) for agent in agents]
    a.lock(fa, TRY, WRITE)
    lock_.enqueue(b, "lock", fb, WAIT, WRITE)
    lock_.enqueue(c, "lock", fc, OFD_WAIT, WRITE)
    b.signal(signal.SIGINT)
    t.same(t.outcome(b.finish), "EINTR", "a signal interrupts F_SETLKW")
    c.signal(signal.SIGINT)
    t.same(t.outcome(c.finish), "EINTR", "and F_OFD_SETLKW")
    t.ok(t.wait_until(lambda: not lock_.waiters()), "both are out of the queue")
    lock_.enqueue(b, "lock", fb, WAIT, WRITE)
    b.kill()
    t.ok(t.wait_until(lambda: not lock_.waiters()), "kill -9 of a waiter, too")
    a.lock(fa, TRY, FREE)
    t.same(lock_.holders(), [], "none of them gets it later")
    t.same(t.outcome(c.lock, fc, TRY, WRITE), (WRITE, 0, 0, 0), "one can lock again")
    close_all(*agents)


def interrupted_often(node):
    """A wait, of an upgrade too, that is given up while it is granted leaves what was before."""
    lock_ = Lock(node, "often")
    a, b = t.Agent(), t.Agent()
    fa, fb = a.plain(lock_.file), b.plain(lock_.file)
    wrong, counts = [], {}
    for turn in range(60):
        upgrade = turn % 2
        if upgrade:
            b.lock(fb, WAIT, READ)
        a.lock(fa, WAIT, READ if upgrade else WRITE)
        lock_.enqueue(b, "lock", fb, WAIT, WRITE)
        a.begin("lock", fa, TRY, FREE)
        time.sleep(turn % 7 * 0.0003)  # not to synchronise: every order should come
        b.signal(signal.SIGINT)
        a.finish()
        got = t.outcome(b.finish)
        counts[got] = counts.get(got, 0) + 1
        wanted = ["exclusive"] if got != "EINTR" else ["shared"] if upgrade else []
        if not t.wait_until(lambda: (lock_.modes(), lock_.waiters()) == (wanted, []), 5):
            wrong.append((turn, got, lock_.modes(), lock_.waiters()))
        b.lock(fb, TRY, FREE)
    t.same(wrong, [], "60 signals at the moment of the grant")
    t.note(counts)
    close_all(a, b)


def get(node):
    lock_ = Lock(node, "get")
    a, b, c = agents = [t.Agent() for _ in range(3)]
    fa, fb, fc = [agent.plain(lock_.file) for agent in agents]
    t.same(a.lock(fa, GET, WRITE)[0], FREE, "F_GETLK of what is free: F_UNLCK")
    a.lock(fa, TRY, WRITE)
    t.same(b.lock(fb, GET, WRITE), (WRITE, a.pid, 0, 0),
           "of what is held: its type, its holder's pid, the whole file")
    t.same(b.lock(fb, GET, READ), (WRITE, a.pid, 0, 0), "a reader meets it, too")
    t.same(a.lock(fa, GET, WRITE)[0], FREE, "the holder itself meets nothing")
    t.same(a.lock(a.plain(lock_.path + "/other"), GET, WRITE)[0], FREE, "through any descriptor")
    a.lock(fa, TRY, READ)
    t.same(b.lock(fb, GET, READ)[0], FREE, "a read lock is not in a reader's way")
    t.same(b.lock(fb, GET, WRITE), (READ, a.pid, 0, 0), "but in a writer's")
    a.lock(fa, TRY, FREE)
    a.flock(fa, t.EXCLUSIVE)
    t.same(b.lock(fb, GET, WRITE)[:2], (WRITE, a.pid), "a flock holder is named as well")
    t.same(b.lock(fb, OFD_GET, WRITE)[0], WRITE, "F_OFD_GETLK sees it")
    t.same(a.lock(fa, GET, WRITE)[0], FREE, "one's own handle's flock is not in the way")
    a.flock(fa, t.UNLOCK)
    claim = a.acquire(lock_.path + "/y")
    t.same(b.lock(fb, GET, WRITE)[:2], (WRITE, a.pid), "so is one who created another file")
    t.same(a.lock(a.dup(claim), GET, WRITE)[0], FREE, "but not to its own handle")
    a.kill()
    b.lock(fb, OFD_TRY, READ)
    t.same(c.lock(fc, GET, WRITE)[0], READ, "an OFD lock is in the way")
    t.same(b.lock(fb, OFD_GET, WRITE)[0], FREE, "though not of its own open file")
    t.same(b.lock(fb, GET, WRITE)[0], READ, "but of a POSIX lock through that, as fcntl(2) says")
    t.same(t.status(node)["waiters"], "0", "F_GETLK leaves nothing behind")
    close_all(*agents)


def inheritance(node):
    lock_ = Lock(node, "inheritance")
    a, b = t.Agent(), t.Agent()
    fd, fb = a.plain(lock_.file), b.plain(lock_.file)
    a.lock(fd, TRY, WRITE)
    child = a.child()
    t.fails("EAGAIN", "a child does not inherit a POSIX lock", child.lock, fd, TRY, WRITE)
    t.same(child.lock(fd, GET, WRITE)[:2], (WRITE, a.pid), "it meets its parent's")
    child.close(fd)
    t.same(lock_.holders(), [a.pid], "its close of the descriptor releases nothing")
    child.kill()
    t.same(lock_.holders(), [a.pid], "nor does its end")
    child = a.child()
    child.begin("lock", fd, WAIT, WRITE)
    t.ok(t.wait_until(lambda: lock_.waiters() == [child.pid] or child.ready()) and
         not child.ready(), "a child waits for its parent through what it inherited")
    a.lock(fd, TRY, FREE)
    child.finish()
    t.same(lock_.holders(), [child.pid], "and is granted after it")
    t.fails("EAGAIN", "and keeps its parent out", a.lock, fd, TRY, WRITE)
    a.kill()
    t.fails("EAGAIN", "also when that one has gone", b.lock, fb, TRY, WRITE)
    child.kill()
    t.ok(t.wait_until(lambda: lock_.holders() == []), "until it goes itself")

    a = t.Agent()
    fd = a.plain(lock_.file)
    a.lock(fd, TRY, WRITE)
    child = a.child()
    a.kill()
    t.ok(t.wait_until(lambda: lock_.holders() == []),
         "a POSIX lock ends with its process, although a child has the descriptor")
    child.kill()

    a = t.Agent()
    fd = a.plain(lock_.file)
    a.lock(fd, OFD_TRY, WRITE)
    child = a.child()
    t.same(t.outcome(child.lock, fd, OFD_TRY, WRITE), (WRITE, 0, 0, 0), "it inherits an OFD lock")
    a.close(fd)
    t.fails("EAGAIN", "which lives on when the parent closes", b.lock, fb, TRY, WRITE)
    a.kill()
    t.fails("EAGAIN", "and when it ends", b.lock, fb, OFD_TRY, READ)
    child.lock(fd, OFD_TRY, READ)
    t.same(t.outcome(b.lock, fb, OFD_TRY, READ), (READ, 0, 0, 0), "the child can downgrade it")
    b.lock(fb, OFD_TRY, FREE)
    child.kill()
    t.ok(t.wait_until(lambda: lock_.holders() == []), "the end of the last one releases it")
    close_all(b)


def forked_before(node):
    """Children that share one descriptor, opened before the fork, exclude each other by POSIX."""
    lock_ = Lock(node, "forked")
    parent = t.Agent()
    fd = parent.plain(lock_.file)
    children = [parent.child() for _ in range(4)]
    inside = t.base() + "/forked"
    os.mkdir(inside)
    for number, child in enumerate(children):
        child.begin("take_turns", fd, inside, number, 25)
    t.same([child.finish() for child in children], [1] * 4,
           "four children, 25 times each: one at a time")
    close_all(*children, parent)


def take_turns(fd, inside, number, times):
    """The most that were inside at once."""
    most, mine = 0, "%s/%d" % (inside, number)
    for _ in range(times):
        lock(fd, WAIT, WRITE)
        os.close(os.open(mine, os.O_CREAT | os.O_WRONLY))
        most = max(most, len(os.listdir(inside)))
        os.unlink(mine)
        lock(fd, TRY, FREE)
    return most


def across_exec(node):
    lock_ = Lock(node, "exec")
    code = ("import fcntl,os,sys\n"
            "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
            "fcntl.lockf(fd, fcntl.LOCK_EX)\n"
            "os.set_inheritable(fd, sys.argv[2] == 'kept')\n"
            "os.execlp('sh', 'sh', '-c', 'echo on; read line')\n")
    for how, wanted in (("kept", 1), ("closed", 0)):
        process = subprocess.Popen([sys.executable, "-c", code, lock_.file, how],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        t.same(lock_.holders(), [process.pid] * wanted,
               "exec with the descriptor %s: POSIX says so" % how)
        process.communicate(b"\n")
        t.same(lock_.holders(), [], "and all is released at the end")


def ofd(node):
    lock_ = Lock(node, "ofd")
    a, b = t.Agent(), t.Agent()
    fa, fb = a.plain(lock_.file), b.plain(lock_.file)
    a.lock(fa, OFD_TRY, WRITE)
    t.same((lock_.holders(), lock_.modes()), ([a.pid], ["exclusive"]), "F_OFD_SETLK")
    other = a.plain(lock_.file)
    t.fails("EAGAIN", "the same process through another open file", a.lock, other, OFD_TRY, WRITE)
    t.fails("EAGAIN", "its POSIX lock through that", a.lock, other, TRY, READ)
    t.fails("EAGAIN", "another process", b.lock, fb, OFD_TRY, READ)
    a.close(other)
    t.same(lock_.holders(), [a.pid], "the close of another open file does not release it")
    t.fails("EAGAIN", "a POSIX lock through the very same open file, as fcntl(2) says", a.lock, fa,
            TRY, WRITE)
    a.close(a.plain(lock_.file))
    t.fails("EAGAIN", "what drops POSIX locks leaves the OFD one", b.lock, fb, TRY, WRITE)
    duplicate = a.dup(fa)
    a.close(fa)
    t.fails("EAGAIN", "it lives while there is a duplicate", b.lock, fb, TRY, WRITE)
    a.lock(duplicate, OFD_TRY, READ)
    t.same(t.outcome(b.lock, fb, OFD_TRY, READ), (READ, 0, 0, 0), "which can downgrade it")
    b.lock(fb, OFD_TRY, FREE)
    a.close(duplicate)
    t.same(lock_.holders(), [], "the last close releases it")
    t.same(t.outcome(b.lock, fb, OFD_TRY, WRITE), (WRITE, 0, 0, 0), "for others, too")
    close_all(a, b)


def mixed(node):
    """The same handle does not block itself, by whatever call; other handles do."""
    lock_ = Lock(node, "mixed")
    a, b = t.Agent(), t.Agent()
    fb = b.plain(lock_.file)
    for name, begin in (("created", lambda: a.acquire(lock_.file)),
                        ("flocked", lambda: a.flock_file(lock_.file, t.EXCLUSIVE))):
        fd = begin()
        first = a.token_of(fd)
        kind = WRITE if name == "created" else READ
        t.same(t.outcome(a.lock, fd, TRY, kind), (kind, 0, 0, 0),
               "F_SETLK on a handle that has %s it" % name)
        t.ok(a.token_of(fd) > first, "has a number of its own")
        t.fails("EAGAIN", "another process", b.lock, fb, TRY, READ)
        a.lock(fd, TRY, FREE)
        t.fails("EAGAIN", "F_UNLCK leaves what was before", b.lock, fb, TRY, READ)
        t.same(lock_.holders(), [a.pid], "one claim")
        a.close(fd)
        t.same(lock_.holders(), [], "the close ends it")
    fd = a.plain(lock_.file)
    a.lock(fd, TRY, WRITE)
    t.same(t.outcome(a.flock, fd, t.EXCLUSIVE | t.NONBLOCK), None, "flock where fcntl has locked")
    a.lock(fd, TRY, FREE)
    t.fails("EAGAIN", "the flock holds on", b.lock, fb, TRY, READ)
    t.fails("EEXIST", "against O_EXCL, too", b.acquire, lock_.path + "/z")
    a.lock(fd, TRY, WRITE)
    a.flock(fd, t.UNLOCK)
    t.fails("EAGAIN", "and the other way round", b.flock, fb, t.SHARED | t.NONBLOCK)
    a.close(fd)
    fd = b.acquire(lock_.file)
    b.lock(fd, TRY, WRITE)
    b.close(fd)
    t.same(lock_.holders(), [], "a claim by creating, locked as well: one close ends both")
    close_all(a, b)


def only_whole_files(node):
    lock_ = Lock(node, "parts")
    a, b = t.Agent(), t.Agent()
    fa, fb = a.plain(lock_.file), b.plain(lock_.file)
    for name, start, length in (("[0,1), as with-lock-ex", 0, 1), ("sqlite's PENDING", 1 << 30, 1),
                                ("sqlite's RESERVED", (1 << 30) + 1, 1),
                                ("sqlite's SHARED", (1 << 30) + 2, 510), ("from 1 on", 1, 0),
                                ("4096 bytes", 0, 4096)):
        for call, command in (("F_SETLK", TRY), ("F_SETLKW", WAIT), ("F_OFD_SETLK", OFD_TRY),
                              ("F_GETLK", GET)):
            t.fails("EOPNOTSUPP", "%s of %s" % (call, name), a.lock, fa, command,
                    READ if length == 510 else WRITE, start, length)
    t.same(lock_.holders(), [], "nothing is held by them")
    t.ok("byte range" in node.log(), "the log says why")
    a.lock(fa, TRY, WRITE)
    t.fails("EOPNOTSUPP", "unlocking a part of what is held", a.lock, fa, TRY, FREE, 0, 1)
    t.same(lock_.holders(), [a.pid], "leaves it")
    t.fails("EOPNOTSUPP", "another process asks for a part", b.lock, fb, TRY, WRITE, 0, 1)
    t.same(t.outcome(b.lock, fb, TRY, FREE, 0, 1), (FREE, 0, 0, 1),
           "unlocking a part where one holds nothing is no error")
    a.lock(fa, TRY, FREE)
    t.same(t.outcome(a.lock, fa, TRY, WRITE, 0, 0, os.SEEK_END)[0:1], (WRITE,),
           "from the end of an empty file on is the whole file")
    close_all(a, b)
    result = t.run(["sqlite3", node.path("parts", "db"), "create table t(x);"]) \
        if os.path.exists("/usr/bin/sqlite3") else None
    if result:
        t.ok(result.returncode != 0, "sqlite3 fails, and says so")
        t.note("it says: " + result.stderr.strip())
    t.same(lock_.holders(), [], "nothing is left")


def as_programs_do(node):
    """dpkg: O_RDWR|O_CREAT|O_TRUNC and F_SETLK. daemon: O_EXCL, F_SETLK, pid, unlink."""
    lock_ = Lock(node, "programs")
    a, b = t.Agent(), t.Agent()
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    fa = a.open(lock_.path + "/lock-frontend", flags, 0o640)
    a.lock(fa, TRY, WRITE)
    fb = b.open(lock_.path + "/lock-frontend", flags, 0o640)
    t.fails("EAGAIN", "dpkg: a second one", b.lock, fb, TRY, WRITE)
    t.same(b.lock(fb, GET, WRITE)[1], a.pid, "and it can say who has it")
    b.close(fb)
    t.same(lock_.holders(), [a.pid], "the first one has it still")
    a.kill()
    fb = b.open(lock_.path + "/lock-frontend", flags, 0o640)
    t.same(t.outcome(b.lock, fb, TRY, WRITE), (WRITE, 0, 0, 0), "dpkg: when the first was killed")
    b.close(fb)

    a = t.Agent()
    pidfile = lock_.path + "/daemon.pid"
    fd = a.open(pidfile, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    a.lock(fd, TRY, WRITE)
    a.write(fd, b"%d\n" % a.pid)
    a.fsync(fd)
    t.fails("EEXIST", "daemon: a second one", b.open, pidfile,
            os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    t.same(int(b.cat(pidfile)), a.pid, "reads the pid of the first")
    fb = b.open(pidfile, os.O_RDWR)
    t.fails("EAGAIN", "and cannot lock the file", b.lock, fb, TRY, WRITE)
    child = a.child()
    a.kill()
    t.same(t.cat(pidfile), "%d\n" % a.pid, "daemon: its child has inherited the claim by creating")
    child.unlink(pidfile)
    t.same(lock_.holders(), [], "unlink at the end releases")
    t.same(t.outcome(b.close, b.acquire(pidfile)), None, "and the next one can start")
    close_all(child, b)


NOBODY = 65534
GROUP = 1234


def permissions(node):
    """Write permission on a lock is the right to claim, for flock and fcntl, too."""
    path = node.path("permissions")
    os.mkdir(path)
    os.chmod(path, 0o755)
    root, nobody = t.Agent(), t.Agent(uid=NOBODY)
    tries = [lambda agent, fd: agent.flock(fd, t.EXCLUSIVE | t.NONBLOCK),
             lambda agent, fd: agent.flock(fd, t.SHARED | t.NONBLOCK),
             lambda agent, fd: agent.flock(fd, t.SHARED),
             lambda agent, fd: agent.lock(fd, TRY, READ),
             lambda agent, fd: agent.lock(fd, WAIT, READ),
             lambda agent, fd: agent.lock(fd, OFD_TRY, READ)]

    def refused(agent, name):
        """EACCES when it opens the file, or at each attempt to lock it."""
        fd = t.outcome(agent.open, path + "/x", os.O_RDONLY)
        if fd == "EACCES":
            return t.ok(True, name + ": EACCES on open")
        got = [t.outcome(attempt, agent, fd) for attempt in tries]
        agent.close(fd)
        return t.same(got, ["EACCES"] * len(tries), name + ": opens it, EACCES from each lock call")

    for kind, begin in (("a claim by creating", lambda: root.acquire(path + "/x")),
                        ("a flock", lambda: root.flock_file(path + "/x", t.SHARED)),
                        ("an fcntl lock", lambda: _fcntl_file(root, path + "/x"))):
        fd = begin()
        refused(nobody, "0755, %s of root's on it" % kind)
        t.same(t.pids(path + "/holders"), [root.pid], "root holds it alone")
        root.close(fd)
    t.fails("EACCES", "a file that nobody holds", nobody.flock_file, path + "/x", t.SHARED)

    # By the group, supplementary ones included, and by the last three bits.
    os.chown(path, 0, GROUP)
    members = [t.Agent(), t.Agent()]
    for agent, groups, group in zip(members, ([GROUP], [7, 8]), (NOBODY, GROUP)):
        agent.setgroups(groups)
        agent.setgid(group)
        agent.setuid(NOBODY)
    many = t.Agent()
    many.setgroups(list(range(2000, 2100)) + [GROUP])
    many.setgid(NOBODY)
    many.setuid(NOBODY)
    members.append(many)
    names = ("a supplementary member", "a member", "one of 101 groups")
    for mode, wanted in ((0o755, False), (0o775, True), (0o757, False), (0o2775, True)):
        os.chmod(path, mode)
        for agent, name in zip(members, names):
            fd = root.flock_file(path + "/x", t.SHARED)
            if not wanted:
                refused(agent, "%o, %s of the group" % (mode, name))
            else:
                mine = agent.open(path + "/x", os.O_RDONLY | os.O_CREAT)
                t.same([t.outcome(agent.flock, mine, t.SHARED | t.NONBLOCK),
                        t.outcome(agent.in_thread, "lock", (mine, TRY, READ))],
                       [None, (READ, 0, 0, 0)], "%o, %s of the group locks" % (mode, name))
                agent.close(mine)
            root.close(fd)
        fd = root.flock_file(path + "/x", t.SHARED)
        if mode == 0o757:
            mine = nobody.plain(path + "/x")
            t.same(t.outcome(nobody.flock, mine, t.SHARED), None, "757: somebody else locks")
            nobody.close(mine)
        else:
            refused(nobody, "%o: somebody else" % mode)
        root.close(fd)

    # The right goes with the descriptor, as on every filesystem.
    os.chmod(path, 0o777)
    fd = nobody.plain(path + "/x")
    nobody.flock(fd, t.SHARED)
    os.chmod(path, 0o755)
    t.same(t.pids(path + "/holders"), [nobody.pid], "chmod takes away nothing that is held")
    t.same(t.outcome(nobody.flock, fd, t.UNLOCK), None, "it can be unlocked")
    t.same(t.outcome(nobody.flock, fd, t.SHARED), None, "and locked again")
    refused(nobody, "what is opened now")
    t.same(t.outcome(nobody.lock, fd, TRY, FREE), (FREE, 0, 0, 0), "F_UNLCK is no error")
    nobody.close(fd)
    os.chown(path, NOBODY, GROUP)
    fd = nobody.plain(path + "/x")
    t.same(t.outcome(nobody.lock, fd, TRY, WRITE), (WRITE, 0, 0, 0), "the owner locks")
    nobody.close(fd)
    os.chmod(path, 0o575)
    t.fails("EACCES", "unless he has no right to write", nobody.plain, path + "/x")
    fd = root.plain(path + "/x")
    t.same(t.outcome(root.flock, fd, t.EXCLUSIVE), None, "root always does")
    close_all(root, nobody, *members)
    os.rmdir(path)


def _fcntl_file(agent, path):
    fd = agent.plain(path)
    agent.lock(fd, TRY, READ)
    return fd


def limits(node):
    """Many locks by many owners on one file."""
    lock_ = Lock(node, "many")
    agents = [t.Agent() for _ in range(20)]
    fds = [agent.plain(lock_.file) for agent in agents]
    for agent, fd in zip(agents, fds):
        agent.lock(fd, TRY, READ)
    t.same(len(set(lock_.holders())), 20, "20 readers")
    close_all(*agents)
    t.same(lock_.holders(), [], "killed, all of them")
    wanted = {"claims": "0", "waiters": "0", "claims_of_this_node": "0"}
    t.ok(t.wait_until(lambda: wanted.items() <= t.status(node).items(), 10),
         "nothing is left of the whole test")


def test():
    t.ACTS.update(lock=lock, try_often=try_often, take_turns=take_turns)
    node = t.Node("--drain-timeout", "5").start()
    for part in (exclusion, two_files, closing, conversion, never_free, queue, interrupted_often,
                 get, inheritance, forked_before, across_exec, ofd, mixed, only_whole_files,
                 as_programs_do, permissions, limits):
        t.note(part.__name__)
        part(node)


t.main(test)
