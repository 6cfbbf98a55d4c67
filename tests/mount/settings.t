#!/usr/bin/python3 -B
"""`.limit`, `.ttl`, `.release`, `.delay`: what they say, who may set them, and to what."""

import os

import lockfs_test as t

NOBODY, DAEMON = 65534, 1
DEFAULTS = {".limit": "1\n", ".ttl": "10\n", ".release": "close\n", ".delay": "0\n"}


def settings(path):
    return {name: t.cat(path + "/" + name) for name in DEFAULTS}


def put(path, name, value):
    """As `echo VALUE > FILE` does it."""
    return t.outcome(t.put, path + "/" + name, value + "\n")


def refused(path, name, errno_name, values):
    """These values are refused, and the setting stays as it was."""
    before = settings(path)
    got = {value: put(path, name, value) for value in values}
    t.same(got, dict.fromkeys(values, errno_name), "%s: %s for what it cannot be"
           % (name, errno_name))
    t.same(settings(path), before, "%s: and nothing has changed" % name)


def values(node):
    path = node.path("values")
    os.mkdir(path)
    t.same(settings(path), DEFAULTS, "a new lock has the defaults")
    for name, texts in ((".limit", ("7", "unlimited", "1", "1000")),
                        (".ttl", ("20", "3600", "5", "7.5")),
                        (".release", ("exit", "close")),
                        (".delay", ("15", "0.25", "86400", "0"))):
        for text in texts:
            written = put(path, name, text)
            shown = text.replace("7.5", "7.500").replace("0.25", "0.250")
            t.same((written, t.cat(path + "/" + name)), (len(text) + 1, shown + "\n"),
                   "%s can be %s" % (name, text))
    t.same(t.shell('echo " 3 " > "$f/.limit" && printf 30 > "$f/.ttl" && echo 4 >> "$f/.delay"',
                   f=path).returncode, 0, "a shell sets them, by echo, printf and >>")
    t.same((t.cat(path + "/.limit"), t.cat(path + "/.ttl"), t.cat(path + "/.delay")),
           ("3\n", "30\n", "4\n"), "and they are as it said")
    t.same(t.shell(': > "$f/.limit"; true < "$f/.ttl"', f=path).returncode, 0,
           "opening with O_TRUNC alone")
    t.same(t.cat(path + "/.limit"), "3\n", "changes nothing")
    fd = os.open(path + "/.limit", os.O_RDWR)
    t.same(os.read(fd, 100), b"3\n", "a handle reads")
    os.pwrite(fd, b"4\n", 0)
    t.same(os.pread(fd, 100, 0), b"4\n", "what was written through it, too")
    os.close(fd)
    os.mkdir(path + "/child")
    t.same(settings(path + "/child"), DEFAULTS, "mkdir does not inherit them")
    os.rmdir(path + "/child")
    os.rmdir(path)
    os.mkdir(path)
    t.same(settings(path), DEFAULTS, "a lock that is made anew has the defaults")


def bad_values(node):
    path = node.path("values")
    refused(path, ".limit", "EINVAL",
            ("0", "-1", "+1", "1x", "x", "", " ", "1 2", "1.5", "0x10", "Unlimited", "unlimited 1",
             "99999999", "18446744073709551617", "340282366920938463463374607431768211457"))
    refused(path, ".ttl", "EINVAL",
            ("0", "4", "4.999", "3601", "3600.001", "-10", "ten", "", "10s", "10.", ".5", "10.1234",
             "10.x", "99999999999999999999"))
    refused(path, ".delay", "EINVAL",
            ("-1", "86401", "86400.001", "", "1m", "1.", "1,5", "99999999999999999999"))
    refused(path, ".release", "EINVAL", ("", "x", "Close", "close exit", "0", "unlimited"))
    refused(path, ".release", "EOPNOTSUPP", ("unlink", "touch"))
    t.same(put(path, ".limit", "9" * 5000), "EINVAL", "a value of 5000 digits")
    t.same(put(path, ".delay", " " * 4090 + "1"), 4092, "one of many blanks is a value")
    t.same(put(path, ".delay", "0"), 2, "and so is 0")
    got = [t.outcome(t.put, path + "/" + name, "1\n")
           for name in ("holders", "waiters", "last")]
    t.ok(all(value in ("EPERM", "EACCES") for value in got),
         "the other control files cannot be written, by root neither")
    t.same(settings(path), DEFAULTS, "nothing of that has changed anything")
    os.rmdir(path)


def who(node):
    path = node.path("who")
    root, owner, other = t.Agent(), t.Agent(uid=NOBODY), t.Agent(uid=DAEMON)
    owner.mkdir(path)
    owner.chmod(path, 0o777)
    t.same([t.outcome(owner.put, path + "/.limit", "2"), t.cat(path + "/.limit")], [1, "2\n"],
           "the owner of a lock sets")
    t.same([t.outcome(root.put, path + "/.limit", "3"), t.cat(path + "/.limit")], [1, "3\n"],
           "root does")
    for name, value in ((".limit", "4"), (".ttl", "20"), (".release", "exit"), (".delay", "1")):
        t.fails(("EACCES", "EPERM"), "another user does not, in a lock of mode 0777: " + name,
                other.put, path + "/" + name, value)
        t.same(other.cat(path + "/" + name), t.cat(path + "/" + name), "but reads it: " + name)
    owner.chmod(path, 0o700)
    t.fails("EACCES", "of a lock of mode 0700 he reads nothing", other.cat, path + "/.limit")
    root.chown(path, DAEMON, DAEMON)
    root.chmod(path, 0o755)
    t.fails(("EACCES", "EPERM"), "who was the owner is so no more", owner.put, path + "/.limit",
            "5")
    t.same(t.outcome(other.put, path + "/.limit", "6"), 1, "and who is now sets")
    t.same(t.cat(path + "/.limit"), "6\n", "with effect")
    group = t.Agent()
    root.chmod(path, 0o775)
    group.setgroups([1])
    group.setgid(NOBODY)
    group.setuid(NOBODY)
    t.fails(("EACCES", "EPERM"), "a member of the group with g+w does not", group.put,
            path + "/.limit", "7")
    t.same(t.cat(path + "/.limit"), "6\n", "nothing has changed by that")
    os.rmdir(path)
    for agent in (root, owner, other, group):
        agent.kill()


def of_the_root(node):
    t.same(settings(node.mount), dict(DEFAULTS, **{".limit": "unlimited\n"}),
           "the root has settings, too; its limit is unlimited")
    refused(node.mount, ".limit", "EPERM", ("1", "5", "unlimited", "x"))
    nobody = t.Agent(uid=NOBODY)
    for name in DEFAULTS:
        t.fails(("EACCES", "EPERM"), "a user does not set the root's " + name, nobody.put,
                node.path(name), "5")
    t.same([put(node.mount, ".ttl", "30"), put(node.mount, ".delay", "2"),
            put(node.mount, ".release", "exit")], [3, 2, 5], "root sets the others")
    t.same(settings(node.mount), {".limit": "unlimited\n", ".ttl": "30\n", ".release": "exit\n",
                                  ".delay": "2\n"}, "and they are so")
    for name in (".ttl", ".delay", ".release"):
        put(node.mount, name, DEFAULTS[name].strip())
    nobody.kill()


def while_held(node):
    """What is held and waited for bounds what the limit can be."""
    path = node.path("held")
    os.mkdir(path)
    put(path, ".limit", "3")
    agents = [t.Agent() for _ in range(3)]
    fds = [agent.acquire("%s/x%d" % (path, i)) for i, agent in enumerate(agents)]
    refused(path, ".limit", "EINVAL", ("2", "1", "unlimited"))
    t.same([put(path, ".limit", value) for value in ("3", "9", "4")], [2] * 3,
           "what is held fits into any of these")
    agents[0].close(fds[0])
    t.ok(t.wait_until(lambda: put(path, ".limit", "2") == 2), "after a release it can be less")
    refused(path, ".limit", "EINVAL", ("1", "unlimited"))
    agents[1].close(fds[1])
    agents[2].close(fds[2])
    t.ok(t.wait_until(lambda: put(path, ".limit", "unlimited") == 10),
         "when all are gone, anything")
    fd = agents[0].acquire(path + "/x")
    agents[1].acquire(path + "/y")
    refused(path, ".limit", "EINVAL", ("1", "2", "10"))
    t.same(put(path, ".limit", "unlimited"), 10, "`unlimited` to `unlimited` is no change")
    for agent in agents:
        agent.kill()
    t.ok(t.wait_until(lambda: put(path, ".limit", "1") == 2), "nothing held: a mutex again")

    # A queue is not empty while nobody holds only for a moment: so it is made behind a holder.
    a, b, c = agents = [t.Agent() for _ in range(3)]
    fa = a.flock_file(path + "/x", t.SHARED)
    fb = b.flock_file(path + "/y", t.SHARED)
    fc = c.plain(path + "/z")
    c.begin("flock", fc, t.EXCLUSIVE)
    t.wait_until(lambda: t.pids(path + "/waiters") == [c.pid])
    refused(path, ".limit", "EINVAL", ("0", "unlimited"))
    t.same(t.pids(path + "/waiters"), [c.pid], "the waiter waits on")
    t.same([put(path, ".ttl", "60"), put(path, ".delay", "0"), put(path, ".release", "exit"),
            put(path, ".release", "close")], [3, 2, 5, 6], "the others can change meanwhile")
    a.flock(fa, t.UNLOCK)
    b.flock(fb, t.UNLOCK)
    c.finish()
    t.same(t.pids(path + "/holders"), [c.pid], "and is granted after all")
    for agent in agents:
        agent.kill()
    os.rmdir(path)


def restarts(node):
    path = node.path("kept")
    os.mkdir(path)
    wanted = {".limit": "5\n", ".ttl": "77.500\n", ".release": "exit\n", ".delay": "3\n"}
    for name, value in wanted.items():
        put(path, name, value.strip())
    os.mkdir(node.path("free"))
    put(node.path("free"), ".limit", "unlimited")
    node.kill()
    node.start()
    t.same(settings(path), wanted, "settings survive kill -9 of the daemon")
    t.same(t.cat(node.path("free", ".limit")), "unlimited\n", "`unlimited` does, too")
    node.restart()
    t.same(settings(path), wanted, "and a stop")
    put(path, ".limit", "6")
    node.restart()
    t.same(t.cat(path + "/.limit"), "6\n", "a later one holds")
    agents = [t.Agent() for _ in range(6)]
    got = [t.outcome(agent.acquire, path + "/x%d" % i) for i, agent in enumerate(agents)]
    t.ok(all(isinstance(fd, int) for fd in got), "six claims")
    t.fails("EEXIST", "and no seventh", t.acquire, path + "/y")
    for agent in agents:
        agent.kill()
    t.ok(t.wait_until(lambda: t.outcome(os.rmdir, path) is None), "rmdir")
    os.rmdir(node.path("free"))


def lease(node):
    """LOCKFS_IOC_LEASE goes by the `.ttl` of the time of the grant."""
    path = node.path("lease")
    os.mkdir(path)

    def seconds(fd):
        """As a single node has it: always all but a moment of it."""
        left = t.lease_of(fd) / 1000
        return next((ttl for ttl in (5, 7.5, 10, 20, 3600) if ttl * 0.9 <= left <= ttl), left)

    first = t.acquire(path + "/x")
    t.same(seconds(first), 10, "the lease of a new lock is that of --ttl")
    put(path, ".ttl", "3600")
    t.same(seconds(first), 10, "`.ttl` concerns later grants")
    os.close(first)
    for ttl in (3600, 20, 5, 7.5):
        put(path, ".ttl", str(ttl))
        fd = t.acquire(path + "/x")
        t.same(seconds(fd), ttl, "%s seconds, by creating" % ttl)
        put(path, ".ttl", "20")
        t.flock(fd, t.EXCLUSIVE | t.NONBLOCK)
        t.ok(seconds(fd) in (ttl, 20), "flock on that handle: one of both (%r)" % seconds(fd))
        os.close(fd)
    put(path, ".ttl", "60")
    fd = t.flock_file(path + "/x", t.EXCLUSIVE)
    t.ok(50 < t.lease_of(fd) / 1000 <= 60, "by flock")
    os.close(fd)
    fd = t.plain(path + "/x")
    os.lockf(fd, os.F_TLOCK, 0)
    t.ok(50 < t.lease_of(fd) / 1000 <= 60, "by fcntl")
    put(path, ".ttl", "3600")
    a = t.Agent()
    fa = a.plain(path + "/y")
    a.begin("flock", fa, t.EXCLUSIVE)
    t.wait_until(lambda: t.cat(path + "/waiters"))
    put(path, ".ttl", "20")
    os.close(fd)
    a.finish()
    t.ok(18 < a.lease_of(fa) / 1000 <= 20, "a waiter's is that of its grant, not of its wait")
    a.kill()
    os.rmdir(path)


def names(node):
    """What .limit changes about names: dot files, and the listing of control files."""
    path = node.path("names")
    os.mkdir(path)
    put(path, ".limit", "unlimited")
    t.same(os.listdir(path), [], "where the limit is unlimited, control files are not listed")
    fd = t.acquire(path + "/.foo.swp")
    t.same(os.listdir(path), [".foo.swp"], "and a name may begin with a dot")
    t.fails("EEXIST", "but not be that of a control file", t.acquire, path + "/.limit")
    t.fails("EEXIST", "each name is a lock of its own: this one is held", t.acquire,
            path + "/.foo.swp")
    other = t.outcome(t.acquire, path + "/other")
    t.ok(isinstance(other, int), "and another one is free")
    os.close(other)
    t.same(t.cat(path + "/.limit"), "unlimited\n", "control files open nevertheless")
    os.close(fd)
    put(path, ".limit", "2")
    t.fails("EPERM", "with a number again it may not", t.acquire, path + "/.foo.swp")
    t.ok(".limit" in os.listdir(path), "and they are listed")
    os.rmdir(path)


def test():
    node = t.Node("--drain-timeout", "5").start()
    for part in (values, bad_values, who, of_the_root, while_held, restarts, lease, names):
        t.note(part.__name__)
        part(node)


t.main(test)
