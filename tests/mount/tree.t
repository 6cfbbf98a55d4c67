#!/usr/bin/python3 -B
"""Locks and claims as files and directories: make, list, look, write, and what is refused."""

import fcntl
import os
import stat
import time

import lockfs_test as t

PLAIN_TRUNC = os.O_CREAT | os.O_RDWR | os.O_TRUNC
RESERVED = ("token", "last", "holders", "waiters", ".limit", ".ttl", ".release", ".delay")


def directories(node):
    os.makedirs(node.path("db", "shard-1"))
    t.ok(stat.S_ISDIR(os.stat(node.path("db", "shard-1")).st_mode), "locks nest")
    t.fails("EEXIST", "mkdir of what there is", os.mkdir, node.path("db"))
    t.fails("ENOTEMPTY", "rmdir with a lock in it", os.rmdir, node.path("db"))
    parent = t.acquire(node.path("db", "x"))
    child = t.acquire(node.path("db", "shard-1", "x"))
    t.ok(True, "a lock and its parent are independent")
    os.close(parent)
    t.fails("ENOTEMPTY", "rmdir with a claim", os.rmdir, node.path("db", "shard-1"))
    t.fails("EEXIST", "mkdir on the name of a claim", os.mkdir, node.path("db", "shard-1", "x"))
    t.fails("EEXIST", "a claim on the name of a lock", t.acquire, node.path("db", "shard-1"))
    t.fails(("EISDIR", "ENOTDIR"), "O_CREAT on the name of a lock", t.plain,
            node.path("db", "shard-1"))
    t.fails("ENOTDIR", "rmdir of a claim", os.rmdir, node.path("db", "shard-1", "x"))
    t.fails("EISDIR", "unlink of a lock", os.unlink, node.path("db", "shard-1"))
    os.close(child)
    os.rmdir(node.path("db", "shard-1"))
    t.same(os.path.exists(node.path("db", "shard-1")), False, "rmdir")
    t.fails("ENOENT", "rmdir of what is gone", os.rmdir, node.path("db", "shard-1"))
    os.rmdir(node.path("db"))

    path = node.path()
    for level in range(1, 17):
        path = os.path.join(path, "level%d" % level)
        got = t.outcome(os.mkdir, path)
        if got is not None:
            break
    t.same((level, got), (16, None), "16 levels")
    t.fails("ENAMETOOLONG", "the 17th", os.mkdir, path + "/level17")
    os.close(t.acquire(path + "/x"))
    for level in range(16):
        os.rmdir(path)
        path = os.path.dirname(path)
    t.same(path, node.path().rstrip("/"), "and all of them can be removed")
    os.mkdir(node.path("n" * 255))
    t.fails("ENAMETOOLONG", "mkdir of a name of 256 bytes", os.mkdir, node.path("n" * 256))
    t.fails("ENAMETOOLONG", "create of a name of 256 bytes", t.acquire, node.path("n" * 256))
    os.close(t.acquire(node.path("n" * 255, "m" * 255)))
    os.rmdir(node.path("n" * 255))
    os.mkdir(node.path("a b\nc\u00e9"))
    t.ok("a b\nc\u00e9" in os.listdir(node.mount), "names may be strange")
    os.rmdir(node.path("a b\nc\u00e9"))


def reserved(node):
    os.mkdir(node.path("names"))
    t.same([t.outcome(os.mkdir, node.path("names", name)) for name in RESERVED],
           ["EEXIST"] * len(RESERVED), "mkdir of control files")
    t.same([t.outcome(t.acquire, node.path("names", name)) for name in RESERVED],
           ["EEXIST"] * len(RESERVED), "O_EXCL create of control files")
    names = RESERVED + (".lockfs", "lockfiles")
    t.same([t.outcome(os.mkdir, node.path(name)) for name in names], ["EEXIST"] * len(names),
           "mkdir of reserved names in the root")
    t.same([t.outcome(t.acquire, node.path(name)) for name in names], ["EEXIST"] * len(names),
           "O_EXCL create of reserved names in the root")
    t.same(sorted(os.listdir(node.path("names"))), sorted(RESERVED),
           "control files are listed where the limit is a number")
    t.same(set(os.listdir(node.mount)) & set(RESERVED), set(), "they are not listed in the root")
    modes = {name: stat.S_IMODE(os.stat(node.path("names", name)).st_mode) for name in RESERVED}
    t.same({name: mode & 0o7777 for name, mode in modes.items() if name in (".limit", ".ttl",
            ".release", ".delay")}, dict.fromkeys((".limit", ".ttl", ".release", ".delay"), 0o644),
           "settings have mode 0644")
    t.same([oct(modes[name]) for name in ("last", "holders", "waiters")], ["0o444"] * 3,
           "the others 0444")
    t.same(oct(modes["token"] & 0o222), "0o222", "`token` may be written by whoever may read it")
    t.same([t.outcome(os.unlink, node.path("names", name)) for name in RESERVED],
           [None] * len(RESERVED), "unlink of a control file does nothing")
    t.same(sorted(os.listdir(node.path("names"))), sorted(RESERVED), "they are still there")
    t.fails("EPERM", "an editor's temporary", t.acquire, node.path("names", ".foo.swp"))
    t.fails("EPERM", "without O_EXCL, too", t.plain, node.path("names", ".foo.swp"))
    t.fails("EPERM", "a lock of such a name", os.mkdir, node.path("names", ".git"))
    fd = t.acquire(node.path(".foo.swp"))
    t.ok(".foo.swp" in os.listdir(node.mount), "in the root it is a name like others")
    os.close(fd)
    os.rmdir(node.path("names"))


def handles_without_claim(node):
    os.mkdir(node.path("plain"))
    os.chmod(node.path("plain"), 0o777)
    path = node.path("plain", "x")
    t.fails("ENOENT", "open without O_CREAT of what nobody claims", os.open, path, os.O_RDONLY)
    fd = os.open(path, PLAIN_TRUNC, 0o600)
    t.same(os.read(fd, 10), b"", "it is empty")
    t.same(t.cat(node.path("plain", "holders")), "", "and acquires nothing")
    t.fails("EPERM", "write without a claim", os.write, fd, b"x")
    t.fails("EPERM", "ftruncate without a claim", os.ftruncate, fd, 0)
    t.fails("EPERM", "futimens without a claim", os.utime, fd)
    t.ok("x" not in os.listdir(node.path("plain")), "a file without a claim is not listed")
    t.fails("ENOENT", "stat of it", os.stat, path)
    t.fails("ENOENT", "unlink of it", os.unlink, path)
    t.fails("ENOENT", "truncate of it", os.truncate, path, 0)
    t.fails("ENOENT", "rename of it", os.rename, path, path + "2")
    other = t.Agent()
    fo = other.plain(path)
    t.same(other.fstat(fo).st_ino, os.fstat(fd).st_ino, "O_CREAT joins the open inode")
    t.same(oct(os.fstat(fd).st_mode), "0o100666", "its mode is 0666")
    other.flock(fo, t.EXCLUSIVE)
    t.same(os.stat(path).st_ino, os.fstat(fd).st_ino, "locked, it is the same one")
    t.same(oct(os.stat(path).st_mode), "0o100666", "and shows mode 0666")
    t.fails("EPERM", "write where another handle holds", os.write, fd, b"x")
    t.same(other.write(fo, b"me"), 2, "the holder writes")
    t.same(t.cat(path), "me", "and others read")
    third = t.outcome(t.plain, path)
    t.ok(isinstance(third, int), "open with O_CREAT waits for nobody")
    t.same((t.pids(node.path("plain", "holders")), t.cat(node.path("plain", "waiters"))),
           ([other.pid], ""), "nor does it become a holder or a waiter")
    os.close(third)
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    t.same(t.cat(path), "me", "O_TRUNC is ignored")
    os.close(os.open(path, PLAIN_TRUNC, 0o666))
    t.same(t.cat(path), "me", "with O_CREAT, too")
    t.fails("EPERM", "truncate by path without a claim", t.Agent().truncate, path, 0)
    other.flock(fo, t.UNLOCK)
    t.same(os.read(fd, 10), b"", "the content goes with the claim")
    t.fails("ENOENT", "and so does the name", os.stat, path)
    os.close(fd)
    other.kill()
    os.rmdir(node.path("plain"))


def content(node):
    os.mkdir(node.path("content"))
    path = node.path("content", "x")
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
    t.same(oct(os.stat(path).st_mode), "0o100640", "a claim shows its creator's mode")
    t.same(os.fstat(fd).st_ino, os.stat(path).st_ino, "fstat and stat agree")
    os.write(fd, b"hello\n")
    t.same((t.cat(path), os.stat(path).st_size), ("hello\n", 6), "content and size")
    os.pwrite(fd, b"J", 0)
    t.same(t.cat(path), "Jello\n", "overwriting")
    os.pwrite(fd, b"z", 9)
    t.same(t.cat(path), "Jello\n\0\0\0z", "a hole is zeros")
    os.ftruncate(fd, 3)
    t.same((t.cat(path), os.fstat(fd).st_size), ("Jel", 3), "ftruncate")
    os.ftruncate(fd, 5)
    t.same(t.cat(path), "Jel\0\0", "and back")
    os.ftruncate(fd, 0)
    t.same(os.pwrite(fd, b"a" * 4096, 0), 4096, "4096 bytes")
    t.same(len(t.cat(path)), 4096, "can be read")
    other = os.open(path, os.O_RDWR)
    t.fails("EPERM", "write to a claim through another handle", os.write, other, b"x")
    t.fails("EPERM", "ftruncate of it", os.ftruncate, other, 0)
    os.close(other)
    t.fails("EFBIG", "the 4097th", os.pwrite, fd, b"a", 4096)
    t.fails("EFBIG", "ftruncate to 4097", os.ftruncate, fd, 4097)
    t.fails("EFBIG", "a write far away", os.pwrite, fd, b"a", 1 << 40)
    t.same(len(t.cat(path)), 4096, "nothing has changed by that")
    os.ftruncate(fd, 0)
    os.close(fd)
    t.fails("ENOENT", "gone after the release", t.cat, path)

    fd = os.open(path, t.CLAIM | os.O_APPEND, 0o644)
    os.write(fd, b"one\n")
    os.write(fd, b"two\n")
    t.same(t.cat(path), "one\ntwo\n", "O_APPEND")
    t.same(t.outcome(os.utime, fd), None, "futimens with a claim")
    t.same(t.outcome(os.utime, path, (0, 0)), None, "utimes by path with a claim on this node")
    first = os.stat(path).st_mtime
    t.ok(abs(time.time() - first) < 60, "the mtime of a claim is fresh")
    t.ok(t.wait_until(lambda: os.stat(path).st_mtime > first + 1),
         "and stays so although nobody touches it")
    t.same(t.outcome(os.fsync, fd), None, "fsync")
    os.chmod(path, 0o600)
    t.same(oct(os.stat(path).st_mode), "0o100600", "chmod of a claim")
    os.close(fd)
    fd = t.acquire(path)
    t.same(t.cat(path), "", "a new claim begins empty")
    os.close(fd)
    os.rmdir(node.path("content"))


def refusals(node):
    """What a `close` directory does not do."""
    os.mkdir(node.path("no"))
    os.mkdir(node.path("no", "sub"))
    path = node.path("no", "x")
    fd = t.acquire(path)
    for where in ("no", "."):
        if where == ".":
            os.close(fd)
            path = node.path("x")
            fd = t.acquire(path)
        t.fails("EPERM", "hard link of a claim (%s)" % where, os.link, path, node.path(where, "y"))
        t.fails("EPERM", "symlink (%s)" % where, os.symlink, "target", node.path(where, "y"))
        t.fails("EPERM", "mkfifo (%s)" % where, os.mkfifo, node.path(where, "y"))
        t.fails("EPERM", "mknod (%s)" % where, os.mknod, node.path(where, "y"))
        t.fails("EBUSY", "rename of a claim (%s)" % where, os.rename, path, node.path(where, "y"))
    t.fails("EBUSY", "rename of a claim into another lock", os.rename, path, node.path("no", "y"))
    outside = t.base() + "/outside"
    with open(outside, "w"):
        pass
    t.fails("EXDEV", "rename from another filesystem, which never reaches us", os.rename, outside,
            node.path("y"))
    t.fails("EPERM", "rename of a lock", os.rename, node.path("no", "sub"),
            node.path("no", "other"))
    t.fails("EPERM", "rename of a lock, higher up", os.rename, node.path("no", "sub"),
            node.path("moved"))
    os.close(fd)
    os.rmdir(node.path("no", "sub"))
    os.rmdir(node.path("no"))


def removed(node):
    """Handles that are left in a lock that was removed."""
    os.mkdir(node.path("old"))
    fd = t.plain(node.path("old", "x"))
    os.rmdir(node.path("old"))
    a = t.Agent()
    t.fails("ESTALE", "flock on an idle handle in a removed lock", t.flock, fd,
            t.EXCLUSIVE | t.NONBLOCK)
    os.mkdir(node.path("old"))
    fa = a.flock_file(node.path("old", "x"), t.EXCLUSIVE | t.NONBLOCK)
    t.fails("ESTALE", "also when it was made anew", t.flock, fd, t.EXCLUSIVE | t.NONBLOCK)
    t.same([t.outcome(call) for call in
            (lambda: os.read(fd, 1), lambda: os.write(fd, b"x"), lambda: os.ftruncate(fd, 0),
             lambda: t.flock(fd, t.SHARED), lambda: t.flock(fd, t.UNLOCK),
             lambda: t.lock_range(fd, fcntl.F_SETLK, fcntl.F_WRLCK),
             lambda: t.lock_range(fd, fcntl.F_GETLK, fcntl.F_WRLCK), lambda: t.token_of(fd),
             lambda: os.fstat(fd))], ["ESTALE"] * 9, "and so says whatever is done with it")
    os.close(fd)
    t.same(t.pids(node.path("old", "holders")), [a.pid], "which is a lock of its own")
    a.close(fa)
    a.chdir(node.path("old"))
    os.rmdir(node.path("old"))
    t.fails(("ENOENT", "ESTALE"), "create in a removed working directory", a.acquire, "x")
    a.kill()


def programs(node):
    """ls, find, du, tar, grep, df come to their end."""
    os.makedirs(node.path("top", "inner"))
    os.mkdir(node.path("other"))
    fd = t.acquire(node.path("top", "claim"))
    os.write(fd, b"needle in a claim\n")
    root = t.acquire(node.path("root-claim"))

    result = t.run(["ls", "-la", node.path("top")])
    t.same(result.returncode, 0, "ls -la")
    t.ok(all(name in result.stdout for name in ("claim", "inner", "token", ".limit")),
         "shows what there is")
    t.same(t.run(["ls", node.path()]).stdout.split(), ["other", "root-claim", "top"],
           "ls of the root")
    t.same(t.run(["ls", "-laR", node.path()]).returncode, 0, "ls -laR")
    result = t.run(["find", node.path(), "-type", "d", "-not", "-name", ".lockfs"])
    t.same(sorted(result.stdout.split()),
           sorted([node.path(), node.path("top"), node.path("top", "inner"), node.path("other")]),
           "find -type d")
    t.same(result.returncode, 0, "find ends well")
    result = t.run(["find", node.path(), "-name", "claim", "-printf", "%y %s %m\n"])
    t.same(result.stdout, "f 18 644\n", "find of a claim")
    result = t.run(["du", "-a", node.path()])
    t.same(result.returncode, 0, "du")
    # They open directories without O_DIRECTORY, as flock(1) does, which is refused: they must end.
    for argv in (["tar", "cf", t.base() + "/tar", node.path()], ["grep", "-r", "x", node.path()]):
        result = t.run(argv)
        t.ok(result.returncode is not None, argv[0] + " ends")
        t.note("it says: " + result.stderr.strip())
    result = t.run(["find", node.path("top"), "-type", "f", "-exec", "grep", "-H", "needle", "{}",
                    "+"])
    t.same(result.stdout, node.path("top", "claim") + ":needle in a claim\n", "find and grep find")
    result = t.run(["df", node.path()])
    t.ok(result.returncode == 0 and node.mount in result.stdout, "df")
    numbers = os.statvfs(node.mount)
    t.ok(numbers.f_bavail > 0 and numbers.f_ffree > 0 and numbers.f_namemax == 255, "statvfs")
    numbers = os.stat(node.path("top"))
    t.ok(numbers.st_nlink >= 2 and abs(time.time() - numbers.st_mtime) < 3600, "stat of a lock")
    t.same(t.run(["test", "-e", node.path("nothing")]).returncode, 1, "test -e of nothing")
    os.close(fd)
    os.close(root)
    for name in ("top/inner", "top", "other"):
        os.rmdir(node.path(name))


def many(node):
    """Long listings neither lose nor repeat an entry."""
    os.mkdir(node.path("many"))
    locks = {"lock-%03d-%s" % (i, "x" * 120) for i in range(300)}
    claims = {"claim-%03d-%s" % (i, "x" * 120) for i in range(200)}
    for name in locks:
        os.mkdir(node.path("many", name))
    listed = os.listdir(node.path("many"))
    t.same(sorted(listed), sorted(locks | set(RESERVED)), "300 locks in one lock")
    a = t.Agent()
    for name in sorted(locks)[:100]:
        os.mkdir(node.path(name))
    for name in claims:
        a.acquire(node.path(name))
    listed = [name for name in os.listdir(node.mount) if name not in (".lockfs", "lockfiles")]
    t.same(sorted(listed), sorted(list(claims) + sorted(locks)[:100] + ["many"]),
           "100 locks and 200 claims in the root")
    seen = []
    with os.scandir(node.path("many")) as entries:
        for entry in entries:
            seen.append(entry.name)
            if entry.name in locks:
                os.rmdir(entry.path)
    t.same(sorted(seen), sorted(locks | set(RESERVED)), "listing and removing at once sees all")
    t.same(sorted(os.listdir(node.path("many"))), sorted(RESERVED), "and removes all")
    with os.scandir(node.mount) as entries:
        first = next(entries).name
        a.kill()
        rest = [entry.name for entry in entries]
    t.same(len(rest + [first]), len(set(rest + [first])), "claims end meanwhile: no repetition")
    t.ok(set(sorted(locks)[:100]) <= set(rest + [first]), "and what stays is not lost")
    t.same(set(os.listdir(node.mount)) & claims, set(), "the claims are gone")
    for name in sorted(locks)[:100]:
        os.rmdir(node.path(name))


def durable(node):
    """Locks, their owners and modes are there after a restart; claims are not."""
    os.makedirs(node.path("keep", "sub"))
    os.chmod(node.path("keep", "sub"), 0o1770)
    os.chown(node.path("keep", "sub"), 65534, 65534)
    inode = os.stat(node.path("keep", "sub")).st_ino
    a = t.Agent()
    a.acquire(node.path("keep", "x"))
    node.kill()
    node.start()
    status = os.stat(node.path("keep", "sub"))
    t.same((oct(status.st_mode), status.st_uid, status.st_gid), ("0o41770", 65534, 65534),
           "owner and mode survive kill -9")
    t.same(status.st_ino, inode, "so does the inode number")
    t.ok("x" not in os.listdir(node.path("keep")), "claims have ended")
    t.ok("many" in os.listdir(node.mount), "every lock is there")
    a.kill()


def test():
    node = t.Node().start()
    for part in (directories, reserved, content, handles_without_claim, refusals, removed, programs,
                 many, durable):
        t.note(part.__name__)
        part(node)


t.main(test)
