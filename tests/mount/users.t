#!/usr/bin/python3 -B
"""Several users: modes, the sticky bit, umask, and fs.protected_regular."""

import os
import stat

import lockfs_test as t

NOBODY, DAEMON = 65534, 1
DENIED = ("EACCES", "EPERM")


def mode_of(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


def modes(node, root, nobody, other):
    path = node.path("owned")
    root.mkdir(path, 0o755)
    t.fails("EACCES", "0755 of root: another user cannot claim", nobody.acquire, path + "/x")
    t.fails("EACCES", "nor flock", nobody.flock_file, path + "/x", t.EXCLUSIVE)
    t.fails("EACCES", "nor mkdir", nobody.mkdir, path + "/d")
    result = t.run(["runuser", "-u", "nobody", "--", "flock", path + "/x", "true"])
    t.ok(result.returncode not in (0, None) and "denied" in result.stderr, "flock(1) says so")
    fd = root.acquire(path + "/x")
    t.same(int(nobody.cat(path + "/token")), root.token_of(fd), "he may look")
    t.same(nobody.cat(path + "/holders").count("\n"), 1, "at the holders, too")
    t.fails("EACCES", "he cannot unlink", nobody.unlink, path + "/x")
    root.close(fd)
    t.fails("EPERM", "he cannot chmod", nobody.chmod, path, 0o777)
    t.fails("EPERM", "he cannot chown", nobody.chown, path, NOBODY, NOBODY)

    root.chmod(path, 0o777)
    fd = nobody.acquire(path + "/x")
    t.same(os.stat(path + "/x").st_uid, NOBODY, "0777: he claims, and the claim is his")
    t.same(t.rows(path + "/holders")[0].user in ("nobody", str(NOBODY)), True, "`holders` says so")
    nobody.write(fd, b"pid\n")
    t.same(other.cat(path + "/x"), "pid\n", "a third may read 0644")
    t.fails("EACCES", "and not write", other.open, path + "/x", os.O_WRONLY)
    nobody.close(fd)

    root.chmod(path, 0o700)
    t.fails("EACCES", "0700: others cannot look", nobody.cat, path + "/token")
    t.fails("EACCES", "nor list", nobody.listdir, path)
    root.chown(path, NOBODY, NOBODY)
    t.same(os.stat(path).st_uid, NOBODY, "chown by root")
    fd = nobody.acquire(path + "/x")
    t.same(os.stat(path + "/token").st_uid, NOBODY, "control files show the directory's owner")
    nobody.close(fd)
    nobody.chmod(path, 0o755)
    t.same(mode_of(path), "0o755", "chmod by the owner")
    t.fails("EACCES", "and a third is out", other.acquire, path + "/x")

    nobody.chmod(path, 0o733)
    fd = other.acquire(path + "/x")
    t.ok(other.token_of(fd) > 0, "0733: others may claim,")
    t.same([t.outcome(other.cat, path + "/" + name) for name in
            ("token", "last", "holders", "waiters", ".limit")] + [t.outcome(other.listdir, path)],
           ["EACCES"] * 6, "and not look")
    t.fails("EACCES", "nor ask by writing", other.put, path + "/token", "1")
    other.close(fd)
    nobody.chmod(path, 0o755)
    os.rmdir(path)


def shown(node, root, nobody, other):
    """Whose a file is: that of a claim by creating its maker's, any other one its directory's."""
    path = node.path("shown")
    root.mkdir(path)
    root.chmod(path, 0o777)
    root.chown(path, DAEMON, DAEMON)

    def look(agent, fd):
        numbers = [agent.fstat(fd)] + ([os.stat(path + "/x")] if os.path.exists(path + "/x") else [])
        return {(status.st_uid, status.st_gid, oct(status.st_mode)) for status in numbers}

    directory = {(DAEMON, DAEMON, "0o100666")}
    fd = nobody.open(path + "/x", os.O_CREAT | os.O_RDWR, 0o600)
    t.same(look(nobody, fd), directory, "a file that nobody claims: the directory's owner, 0666")
    nobody.flock(fd, t.EXCLUSIVE)
    t.same(look(nobody, fd), directory, "held by flock: the same")
    nobody.flock(fd, t.UNLOCK)
    nobody.lockf(fd, os.F_TLOCK, 0)
    t.same(look(nobody, fd), directory, "held by fcntl: the same")
    nobody.close(fd)
    fd = nobody.open(path + "/x", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    group = nobody.getgid()
    t.same(look(nobody, fd), {(NOBODY, group, "0o100600")}, "claimed: its creator and mode")
    nobody.close(fd)

    root.chmod(path, 0o755)
    fd = root.acquire(path + "/x")
    number = root.token_of(fd)
    t.same([t.outcome(nobody.put, path + "/token", str(n)) for n in (number, number + 1)],
           [len(str(number)), "ESTALE"], "`token` may be written by whoever may read it")
    t.same([t.outcome(root.put, path + "/" + name, "1") in ("EACCES", "EPERM")
            for name in ("last", "holders", "waiters")], [True] * 3, "the rest is read-only")
    root.close(fd)
    os.rmdir(path)


def root_directory(node, nobody, other):
    t.same(mode_of(node.mount), "0o1777", "the root of the mount")
    nobody.mkdir(node.path("his"), 0o777)
    t.same((os.stat(node.path("his")).st_uid, mode_of(node.path("his"))), (NOBODY, "0o755"),
           "everybody may make locks there; the umask counts")
    t.fails(DENIED, "and only the owner removes them", other.rmdir, node.path("his"))
    nobody.rmdir(node.path("his"))
    private = t.Agent(uid=NOBODY, umask=0o077)
    private.mkdir(node.path("private"), 0o777)
    fd = private.acquire(node.path("private", "x"))
    t.same((mode_of(node.path("private")), mode_of(node.path("private", "x"))), ("0o700", "0o600"),
           "another umask")
    private.close(fd)
    private.rmdir(node.path("private"))


def sticky(node, root, nobody, other):
    path = node.path("sticky")
    root.mkdir(path, 0o777)
    root.chmod(path, 0o1777)
    for name, where in (("a sticky lock", path), ("the root", node.mount)):
        fd = nobody.acquire(where + "/x")
        t.fails(DENIED, name + ": another user cannot unlink a claim", other.unlink, where + "/x")
        t.ok(nobody.token_of(fd) > 0, name + ": it stands")
        t.same(t.outcome(nobody.unlink, where + "/x"), None, name + ": its owner can")
        nobody.close(fd)
        fd = nobody.acquire(where + "/x")
        t.same(t.outcome(root.unlink, where + "/x"), None, name + ": root can")
        nobody.close(fd)
    root.chmod(path, 0o777)
    fd = nobody.acquire(path + "/x")
    t.same(t.outcome(other.unlink, path + "/x"), None, "without the sticky bit everybody can")
    t.fails("ESTALE", "and the claim is lost", nobody.write, fd, b"x")
    nobody.close(fd)
    os.rmdir(path)


def protected(node, root, nobody, other):
    """The kernel refuses O_CREAT on another user's file in a sticky directory."""
    for value in (0, 1, 2):
        with t.setting("fs.protected_regular", value):
            fd = nobody.flock_file(node.path("shared.lock"), t.EXCLUSIVE | t.NONBLOCK)
            t.fails("EAGAIN", "protected_regular %d: a second user gets as far as the lock" % value,
                    other.flock_file, node.path("shared.lock"), t.EXCLUSIVE | t.NONBLOCK)
            t.fails("EAGAIN", "protected_regular %d: root, too" % value, root.flock_file,
                    node.path("shared.lock"), t.EXCLUSIVE | t.NONBLOCK)
            plain = other.plain(node.path("shared.lock"))
            nobody.close(fd)
            t.same(t.outcome(other.flock, plain, t.EXCLUSIVE | t.NONBLOCK), None,
                   "protected_regular %d: then the second has it" % value)
            fd = t.outcome(nobody.flock_file, node.path("shared.lock"), t.SHARED | t.NONBLOCK)
            t.same(fd, "EAGAIN", "protected_regular %d: and the first is refused" % value)
            other.close(plain)
            for user in ("nobody", "daemon", "root"):
                result = t.run(["runuser", "-u", user, "--", "flock", "-n",
                                node.path("program.lock"), "true"])
                t.same(result.returncode, 0, "protected_regular %d: flock(1) by %s" % (value, user))
            for agent in (nobody, other, root):
                got = t.outcome(agent.acquire, node.path("created.lock"))
                t.ok(isinstance(got, int), "protected_regular %d: create by uid %d"
                     % (value, agent.getuid()))
                agent.close(got)


def test():
    node = t.Node().start()
    root, nobody, other = t.Agent(), t.Agent(uid=NOBODY), t.Agent(uid=DAEMON)
    modes(node, root, nobody, other)
    shown(node, root, nobody, other)
    root_directory(node, nobody, other)
    sticky(node, root, nobody, other)
    protected(node, root, nobody, other)


t.main(test)
