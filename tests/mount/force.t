#!/usr/bin/python3 -B
"""LOCKFS_IOC_FORCE: who may revoke a claim, what its holder sees, and who is next."""

import fcntl
import os
import select
import signal
import struct

import lockfs_test as t

NOBODY, DAEMON = 65534, 1
IOC_FORCE = 1 << 30 | 8 << 16 | ord("L") << 8 | 4


def force(path, token=0, flags=os.O_RDONLY):
    """Opens the file, and revokes what holds it."""
    fd = os.open(path, flags, 0o666)
    try:
        fcntl.ioctl(fd, IOC_FORCE, struct.pack("Q", token))
    finally:
        os.close(fd)


class Lock:
    def __init__(self, node, name):
        self.node = node
        self.name = name
        self.path = node.path(name)
        os.mkdir(self.path)
        self.file = self.path + "/x"

    def holders(self):
        return t.pids(self.path + "/holders")

    def waiters(self):
        return t.pids(self.path + "/waiters")

    def enqueue(self, agent, name, *args):
        agent.begin(name, *args)
        if not t.wait_until(lambda: agent.pid in self.waiters()):
            t.ok(False, "an agent gets into the queue")


def lost(agent, fd, name):
    t.same([t.outcome(agent.token_of, fd), t.outcome(agent.lease_of, fd),
            t.outcome(agent.read, fd, 1), t.outcome(agent.flock, fd, t.EXCLUSIVE | t.NONBLOCK),
            t.outcome(agent.lock_range, fd, fcntl.F_SETLK, fcntl.F_RDLCK)], ["ESTALE"] * 5,
           name + ": number, lease, read, flock and fcntl through its handle give ESTALE")
    t.same(agent.poll_loss(fd, 10000) & select.POLLERR, select.POLLERR, name + ": POLLERR")


def of_all_kinds(node):
    lock = Lock(node, "kinds")
    for name, begin in (("created", lambda agent: agent.acquire_rw(lock.file)),
                        ("flock", lambda agent: agent.flock_file(lock.file, t.EXCLUSIVE)),
                        ("shared flock", lambda agent: agent.flock_file(lock.file, t.SHARED)),
                        ("fcntl", lambda agent: agent.fcntl_file(lock.file, fcntl.F_WRLCK)),
                        ("to read", lambda agent: agent.fcntl_file(lock.file, fcntl.F_RDLCK))):
        a, b = t.Agent(), t.Agent()
        fd = begin(a)
        token = a.token_of(fd)
        a.on_loss(fd, signal.SIGUSR1)
        fb = b.plain(lock.path + "/y")
        lock.enqueue(b, "flock", fb, t.EXCLUSIVE)
        force(lock.file)
        b.finish()
        t.same(lock.holders(), [b.pid], name + ": revoked, and who waits is granted")
        t.ok(b.token_of(fb) > token, name + ": with a larger number")
        lost(a, fd, name)
        t.ok(t.wait_until(lambda: signal.SIGUSR1 in a.signals_seen()), name + ": its signal comes")
        t.fails("ESTALE", name + ": `token` for it", a.cat, lock.path + "/token")
        t.same(int(b.cat(lock.path + "/token")), b.token_of(fb), name + ": and for the new holder")
        t.fails("ESTALE", name + ": a bystander reads ESTALE while that handle is open", t.cat,
                lock.path + "/token")
        t.ok(t.wait_until(lambda: "%s/x: process %d (force.t) revoked the claim %d of process %d"
                          % (lock.name, os.getpid(), token, a.pid) in node.log()),
             name + ": the log names who did it, and to whom")
        a.close(fd)
        t.same(lock.holders(), [b.pid], name + ": the close of the lost handle ends nothing")
        t.same(int(t.cat(lock.path + "/token")), b.token_of(fb), name + ": bystanders look again")
        a.kill()
        b.kill()
    t.same(lock.holders(), [], "all are over")


def nothing_there(node):
    lock = Lock(node, "nothing")
    t.fails("ENOENT", "a file that nobody claims has no name", force, lock.file)
    t.fails("ENODATA", "opened with O_CREAT: ENODATA", force, lock.file, 0, t.PLAIN)
    a, b = t.Agent(), t.Agent()
    fd = a.acquire(lock.file)
    token = a.token_of(fd)
    t.fails("ENODATA", "another file of the lock", force, lock.path + "/y", 0, t.PLAIN)
    t.fails("ENODATA", "another number", force, lock.file, token + 1)
    t.fails("ENODATA", "an older number", force, lock.file, token - 1)
    t.fails("ENODATA", "a huge number", force, lock.file, (1 << 64) - 1)
    t.same((lock.holders(), a.token_of(fd)), ([a.pid], token), "it stands")
    t.fails("ENOTTY", "a directory cannot be forced", _force_directory, lock.path)
    t.fails(("EOPNOTSUPP", "ENOTTY", "EINVAL"), "a control file, neither", force,
            lock.path + "/holders")
    t.same(t.outcome(force, lock.file, token), None, "its own number revokes it")
    t.fails("ENOENT", "and once only", force, lock.file, token)
    fb = b.plain(lock.file)
    t.fails("ENODATA", "with another handle to it open, ENODATA", force, lock.file, token, t.PLAIN)
    b.close(fb)
    a.kill()
    b.kill()


def _force_directory(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, IOC_FORCE, struct.pack("Q", 0))
    finally:
        os.close(fd)


def who(node):
    lock = Lock(node, "who")
    os.chmod(lock.path, 0o777)
    os.chown(lock.path, NOBODY, NOBODY)
    root, owner, other, holder = (t.Agent(), t.Agent(uid=NOBODY), t.Agent(uid=DAEMON),
                                  t.Agent(uid=DAEMON))
    fd = holder.acquire(lock.file)
    t.fails("EPERM", "another user", t.Agent(uid=2).force, lock.file)
    t.fails("EPERM", "the holder's own user", other.force, lock.file)
    t.fails("EPERM", "the holder itself, through its handle", holder.ioctl_force, fd)
    t.fails("EPERM", "who asks for a number that is not there", other.force, lock.file, 1)
    t.same((lock.holders(), holder.token_of(fd) > 0), ([holder.pid], True), "it stands")
    t.same(t.outcome(owner.force, lock.file), None, "the owner of the lock may")
    t.fails("ESTALE", "it is lost", holder.token_of, fd)
    t.ok(t.wait_until(lambda: "process %d (force.t) revoked" % owner.pid in node.log()),
         "the log names the owner's process")
    holder.close(fd)
    fd = holder.acquire(lock.file)
    t.same(t.outcome(root.force, lock.file), None, "root may")
    t.fails("ESTALE", "it is lost", holder.token_of, fd)
    holder.close(fd)
    fd = holder.flock_file(lock.file, t.EXCLUSIVE)
    t.fails("EPERM", "a flock: not by another user", other.force, lock.file)
    t.same(t.outcome(owner.force, lock.file), None, "but by the owner")
    holder.close(fd)
    child = t.Agent(uid=NOBODY)
    own = child.acquire(lock.file)
    t.same(t.outcome(child.ioctl_force, own), None, "one's own claim, as the owner of the lock")
    t.fails("ESTALE", "is then lost as any other", child.token_of, own)
    for agent in (root, owner, other, holder, child):
        agent.kill()


def several(node):
    """One number of several, or all of a file; other files of a semaphore stay."""
    lock = Lock(node, "several")
    agents = [t.Agent() for _ in range(3)]
    fds = [agent.flock_file(lock.file, t.SHARED) for agent in agents]
    tokens = [agent.token_of(fd) for agent, fd in zip(agents, fds)]
    force(lock.file, tokens[1])
    t.same(lock.holders(), [agents[0].pid, agents[2].pid], "the one of three with that number")
    t.same([t.outcome(agent.token_of, fd) for agent, fd in zip(agents, fds)],
           [tokens[0], "ESTALE", tokens[2]], "the others have theirs")
    t.same(t.outcome(agents[0].poll_loss, fds[0], 0), 0, "and see no loss")
    waiting = t.Agent()
    fw = waiting.plain(lock.path + "/y")
    lock.enqueue(waiting, "flock", fw, t.EXCLUSIVE)
    force(lock.file, tokens[0])
    t.same(waiting.ready(), False, "who waits for all waits on")
    force(lock.file)
    waiting.finish()
    t.same(lock.holders(), [waiting.pid], "0 revokes all the rest")
    for agent in agents + [waiting]:
        agent.kill()

    t.put(lock.path + "/.limit", "3\n")
    agents = [t.Agent() for _ in range(3)]
    fds = [agent.acquire("%s/%s" % (lock.path, name)) for agent, name in zip(agents, "abc")]
    force(lock.path + "/b")
    t.same(lock.holders(), [agents[0].pid, agents[2].pid], "of a semaphore, what is on that file")
    fd = agents[0].plain(lock.path + "/d")
    t.same(t.outcome(agents[0].flock, fd, t.EXCLUSIVE | t.NONBLOCK), None, "its place is free")
    for agent in agents:
        agent.kill()

    # Both claims of one handle, and the POSIX locks of two processes.
    a, b = t.Agent(), t.Agent()
    fd = a.acquire_rw(lock.file)
    a.lock_range(fd, fcntl.F_SETLK, fcntl.F_WRLCK)
    force(lock.file)
    t.same(lock.holders(), [], "created and locked: one force ends both")
    lost(a, fd, "created and locked")
    a.close(fd)
    fa, fb = (agent.fcntl_file(lock.file, fcntl.F_RDLCK) for agent in (a, b))
    force(lock.file, a.token_of(fa))
    t.same((lock.holders(), b.token_of(fb) > 0), ([b.pid], True), "one of two POSIX readers")
    a.kill()
    b.kill()


def waits_of_the_lost(node):
    """A process that waits through a handle which loses its claim gets ESTALE."""
    lock = Lock(node, "lostwait")
    a, b = t.Agent(), t.Agent()
    fa, fb = (agent.fcntl_file(lock.file, fcntl.F_RDLCK) for agent in (a, b))
    lock.enqueue(a, "lock_range", fa, fcntl.F_SETLKW, fcntl.F_WRLCK)
    force(lock.file, int(t.rows(lock.path + "/holders")[0].token))
    t.same(t.outcome(a.finish), "ESTALE", "an upgrade that waits, when its lock is revoked")
    t.same((lock.holders(), lock.waiters()), ([b.pid], []), "and it waits no more")
    t.ok(b.token_of(fb) > 0, "the other one holds")
    a.kill()
    b.kill()


def of_exit(node):
    """A claim whose process has closed it already."""
    lock = Lock(node, "exit")
    t.put(lock.path + "/.release", "exit\n")
    a, b = t.Agent(), t.Agent()
    a.close(a.acquire(lock.file))
    token = int(a.cat(lock.path + "/token"))
    fb = b.plain(lock.path + "/y")
    lock.enqueue(b, "flock", fb, t.EXCLUSIVE)
    force(lock.file, token)
    b.finish()
    t.same(lock.holders(), [b.pid], "revoked, and who waits is granted")
    t.fails("ESTALE", "its process reads ESTALE from `token`", a.cat, lock.path + "/token")
    t.fails("ESTALE", "as do bystanders, while it lives", t.cat, lock.path + "/token")
    t.same(int(b.cat(lock.path + "/token")), b.token_of(fb), "the holder reads its own")
    t.ok(t.wait_until(lambda: "revoked the claim %d of process %d" % (token, a.pid) in node.log()),
         "the log names it")
    a.kill()
    t.same(lock.holders(), [b.pid], "its end ends nothing any more")
    t.same(int(t.cat(lock.path + "/token")), b.token_of(fb), "and bystanders look again")
    b.kill()

    t.put(lock.path + "/.limit", "2\n")
    a = t.Agent()
    a.close(a.acquire(lock.file))
    a.close(a.acquire(lock.path + "/y"))
    tokens = [int(row.token) for row in t.rows(lock.path + "/holders")]
    t.same(int(a.cat(lock.path + "/token")), tokens[1], "of two the process reads the larger number")
    force(lock.path + "/y")
    t.same(lock.holders(), [a.pid], "that one is revoked")
    t.fails("ESTALE", "and `token` says so", a.cat, lock.path + "/token")
    a.kill()
    wanted = {"claims": "0", "claims_of_this_node": "0", "waiters": "0"}
    t.ok(t.wait_until(lambda: wanted.items() <= t.status(node).items()), "nothing is left")


def acquire_rw(path):
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)


def fcntl_file(path, kind):
    fd = t.plain(path)
    t.lock_range(fd, fcntl.F_SETLK, kind)
    return fd


def ioctl_force(fd):
    fcntl.ioctl(fd, IOC_FORCE, struct.pack("Q", 0))


def test():
    t.ACTS.update(force=force, acquire_rw=acquire_rw, fcntl_file=fcntl_file,
                  ioctl_force=ioctl_force)
    node = t.Node("--drain-timeout", "5").start()
    for part in (of_all_kinds, of_exit, who, nothing_there, several, waits_of_the_lost):
        t.note(part.__name__)
        part(node)


t.main(test)
