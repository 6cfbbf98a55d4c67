#!/usr/bin/python3 -B
"""What programs are told at the limits, and that it goes on when there is room again."""

import errno
import os
import resource

import lockfs_test as t

HANDLES = 65534
CONTROL_READERS = 1024
CONTENT = 4096
CONTENTS = 64 << 20
ANCESTORS = 64


def open_many(path, count):
    """Opens without claiming; the descriptors, and why there are no more of them."""
    fds = []
    try:
        for _ in range(count):
            fds.append(os.open(path, os.O_RDONLY | os.O_CREAT, 0o666))
    except OSError as error:
        return fds, error.errno
    return fds, 0


def fill_many(prefix, count):
    """Claims files, each with a whole content; the descriptors, and why there are no more."""
    fds = []
    try:
        for i in range(count):
            fds.append(t.acquire("%s%d" % (prefix, i)))
            os.write(fds[-1], b"x" * CONTENT)
    except OSError as error:
        return fds, error.errno
    return fds, 0


def rewrite(fd):
    return os.pwrite(fd, b"y" * CONTENT, 0)


def free_blocks(node):
    return os.statvfs(node.mount).f_bavail


def contents(node):
    """64 MiB in contents of 4 KiB, by four programs at once."""
    agents = [t.Agent() for _ in range(4)]
    files = CONTENTS // CONTENT // len(agents)
    for i, agent in enumerate(agents):
        # A directory for each: the kernel makes files in one directory one after another.
        os.mkdir(node.path("many%d" % i))
        t.put(node.path("many%d" % i, ".limit"), "unlimited\n")
        agent.begin("fill_many", node.path("many%d" % i, ""), files)
    results = [agent.finish(200) for agent in agents]
    t.same([(len(fds), error) for fds, error in results], [(files, 0)] * len(agents),
           "%d contents of %d bytes" % (CONTENTS // CONTENT, CONTENT))
    t.same(free_blocks(node), 0, "statvfs says that nothing is free")
    fd = t.acquire(node.path("more"))
    t.fails("ENOSPC", "one byte more", os.write, fd, b"x")
    t.fails("ENOSPC", "by ftruncate", os.ftruncate, fd, 1)
    result = t.shell('set -C; exec 9>"$L" && echo $$ >&9', L=node.path("shell"))
    t.ok(result.returncode != 0 and "No space" in result.stderr, "a shell says so")
    t.same(os.fstat(fd).st_size, 0, "nothing was written")
    first = results[0][0]
    t.same(agents[0].rewrite(first[0]), CONTENT, "a content can be replaced")
    t.same(len(t.cat(node.path("many3", "1"))), CONTENT, "and others read")
    agents[0].ftruncate(first[1], CONTENT - 10)
    t.same(t.outcome(os.write, fd, b"x" * 10), 10, "ten bytes less are room for ten")
    t.fails("ENOSPC", "not for eleven", os.write, fd, b"x")
    agents[1].close(results[1][0][0])
    t.same(os.pwrite(fd, b"z" * CONTENT, 0), CONTENT, "a release makes room")
    t.same(t.outcome(os.unlink, node.path("many2", "0")), None, "an unlink")
    t.ok(t.wait_until(lambda: free_blocks(node) > 0), "too")
    other = t.flock_file(node.path("empty"), t.EXCLUSIVE | t.NONBLOCK)
    os.close(other)
    os.close(fd)
    for agent in agents:
        agent.kill()
    t.ok(t.wait_until(lambda: t.status(node)["contents_bytes"] == "0"), "killed: all is free")
    t.same(t.status(node)["claims"], "0", "no claim is left")


def handles(node):
    """As many open files as a node can have, by four programs."""
    path = node.path("file")
    agents = [t.Agent() for _ in range(4)]
    share = HANDLES // len(agents)
    for agent in agents[1:]:
        agent.begin("open_many", path, share)
    results = [agent.finish(200) for agent in agents[1:]]
    t.same([error for _, error in results], [0] * 3, "three programs with %d open files" % share)
    fds, error = agents[0].open_many(path, HANDLES)
    t.same(t.errno.errorcode[error], "ENOLCK", "the fourth one's last: ENOLCK")
    t.same(len(fds) + 3 * share, HANDLES, "there are %d" % HANDLES)
    t.fails("ENOLCK", "a claim", t.acquire, node.path("claim"))
    t.fails("ENOLCK", "a control file", t.cat, node.path("holders"))
    t.fails("ENOLCK", "ls", os.listdir, node.mount)
    t.same(os.path.isdir(node.mount), True, "stat goes on")
    agents[0].flock(fds[0], t.EXCLUSIVE)
    t.ok(agents[0].token_of(fds[0]) > 0, "who has a file open can lock it")
    t.fails("EAGAIN", "and the others wait", agents[1].flock, results[0][0][0],
            t.EXCLUSIVE | t.NONBLOCK)
    agents[1].begin("flock", results[0][0][0], t.EXCLUSIVE)
    t.ok(not agents[1].ready(0.1), "in the queue")
    agents[0].flock(fds[0], t.UNLOCK)
    t.same(agents[1].finish(), None, "an unlock lets the next one in")
    agents[0].close(fds[1])
    fd = t.wait_until(lambda: t.outcome(t.acquire, node.path("claim")))
    t.ok(isinstance(fd, int), "when one is closed, a claim is possible")
    os.close(fd)
    for agent in agents:
        agent.kill()
    t.ok(t.wait_until(lambda: t.outcome(lambda: t.status(node)["open_handles"]) == "1"),
         "killed: none is open but the one that asks")


def control_files(node):
    path = node.path("holders")
    fds, error = open_many(path, CONTROL_READERS + 1)
    t.same((len(fds), t.errno.errorcode.get(error)), (CONTROL_READERS, "ENOLCK"),
           "%d open control files, then ENOLCK" % CONTROL_READERS)
    fd = t.acquire(node.path("claim"))
    t.ok(t.token_of(fd) > 0, "claims go on")
    os.close(fd)
    os.close(fds.pop())
    fd = t.wait_until(lambda: t.outcome(os.open, path, os.O_RDONLY))
    t.ok(isinstance(fd, int), "when one is closed, another can be opened")
    for fd in [fd] + fds:
        os.close(fd)


def one_content(node):
    fd = t.acquire(node.path("claim"))
    os.write(fd, b"before")
    for size in (CONTENT + 1, 1 << 17, (1 << 17) + 1, 1 << 20):
        t.fails("EFBIG", "a write of %d bytes" % size, os.pwrite, fd, b"x" * size, 0)
    t.same(t.cat(node.path("claim")), "before", "of which nothing is written")
    t.same(os.write(fd, b"x" * (CONTENT - 6)), CONTENT - 6, "up to %d" % CONTENT)
    t.fails("EFBIG", "no further", os.write, fd, b"x")
    os.close(fd)


def names(node):
    for size, wanted in ((255, None), (256, "ENAMETOOLONG"), (1025, "ENAMETOOLONG")):
        path = node.path("n" * size)
        t.same(t.outcome(os.mkdir, path), wanted, "mkdir: %d bytes" % size)
        if wanted is None:
            os.rmdir(path)
        else:
            t.fails(wanted, "create", t.acquire, path)
            t.fails(wanted, "open", t.plain, path)
            t.fails(wanted, "stat", os.stat, path)
            t.fails(wanted, "unlink", os.unlink, path)
            t.fails(wanted, "symlink", os.symlink, "x", path)
    umlauts = node.path("\u00e4" * 127)
    os.mkdir(umlauts)
    os.rmdir(umlauts)
    t.fails("ENAMETOOLONG", "it is bytes that count", os.mkdir, node.path("\u00e4" * 128))


def settings(node):
    lock = node.path("set")
    os.mkdir(lock)
    for name, most, beyond in ((".limit", "1048576", "1048577"), (".ttl", "3600", "3600.001"),
                               (".delay", "86400", "86400.001")):
        t.fails("EINVAL", "%s of %s" % (name, beyond), t.put, os.path.join(lock, name), beyond)
        t.put(os.path.join(lock, name), most)
        t.same(t.cat(os.path.join(lock, name)).strip(), most, "%s may be %s" % (name, most))
    os.rmdir(lock)


def ancestors(node):
    """`token` looks at so many processes; the descendants of a holder below them are bystanders."""
    lock = node.path("lock")
    os.mkdir(lock)
    holder, newest = t.Agent(), t.Agent()
    mine = holder.token_of(holder.flock_file(lock + "/x", t.SHARED))
    theirs = newest.token_of(newest.flock_file(lock + "/x", t.SHARED))
    # The reader is the first one looked at, and the holder the last.
    line = [holder]
    for _ in range(ANCESTORS):
        line.append(line[-1].child())
    seen = [int(agent.cat(lock + "/token")) for agent in line[-2:]]
    t.same(seen, [mine, theirs], "the holder is the %dth process, or one further" % ANCESTORS)
    newest.kill()
    for agent in reversed(line):
        agent.kill()
    os.rmdir(lock)


def file_size():
    """Where a file of the daemon may not grow further, the disk counts as full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, hard))
    node = t.Node().start()
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    user = t.Agent()
    fds, error = user.fill_many(node.path("size"), 4000)
    t.same(error, errno.ENOSPC, "the room for a snapshot cannot grow: ENOSPC")
    t.ok(len(fds) > 1000, "after some thousand claims")
    user.kill()
    t.ok(t.wait_until(lambda: t.status(node)["claims"] == "0", 10), "which end")
    os.close(t.acquire(node.path("size")))
    t.same(node.stop(), 0, "and it goes on")


def test():
    t.ACTS.update(open_many=open_many, fill_many=fill_many, rewrite=rewrite)
    file_size()
    node = t.Node("--drain-timeout", "5").start()
    for part in (one_content, names, settings, control_files, ancestors, handles, contents):
        t.note(part.__name__)
        part(node)


t.main(test, limit_s=500)
