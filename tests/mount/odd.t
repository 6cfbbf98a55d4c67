#!/usr/bin/python3 -B
"""Calls that hardly anybody makes, and ways to read: nothing hangs, and the daemon lives."""

import fcntl
import mmap
import os
import subprocess

import lockfs_test as t


def reading(node):
    """Control files in pieces, and by programs that trust the size."""
    os.mkdir(node.path("read"))
    a = t.Agent()
    for i in range(300):
        a.acquire(node.path("claim-%03d" % i))
    path, copy = node.path("holders"), t.base() + "/copy"
    text = t.cat(path)
    files = [row.file for row in t.rows(path)]
    t.same(files, ["claim-%03d" % i for i in range(300)], "300 holders, in the order of grants")
    for argv in (["dd", "if=" + path, "of=" + copy, "bs=7", "status=none"], ["cp", path, copy]):
        result = t.run(argv)
        with open(copy) as file:
            copied = [line.split()[6] for line in file]
        t.same((result.returncode, copied == files), (0, True), argv[0] + " gets all of it")
    t.same(t.run(["wc", "-l", path]).stdout.split()[0], "300", "wc")
    t.same(t.run(["grep", "-c", "claim-", path]).stdout, "300\n", "grep -c")
    t.same(t.run(["head", "-n", "1", path]).stdout.split()[6], "claim-000", "head")
    t.same(t.run(["tail", "-n", "1", path]).stdout.split()[6], "claim-299", "tail")
    fd = os.open(path, os.O_RDONLY)
    t.same(os.pread(fd, 10, 5), text.encode()[5:15], "pread in the middle")
    t.same(os.pread(fd, 10, 1 << 40), b"", "and far behind the end")
    os.close(fd)
    a.kill()
    t.same(t.cat(path), "", "all gone")
    a = t.Agent()
    fd = a.open(node.path("read", "x"), os.O_CREAT | os.O_EXCL | os.O_RDWR)
    a.write(fd, b"0123456789" * 100)
    result = t.run(["tail", "-c", "3", node.path("read", "x")])
    t.same(result.stdout, "789", "tail -c of a claim")
    t.same(t.run(["cp", node.path("read", "x"), copy]).returncode, 0, "cp of a claim")
    with open(copy) as file:
        t.same(file.read(), "0123456789" * 100, "gets its content")
    a.pwrite(fd, b"abc", 0)
    t.same(t.cat(node.path("read", "x"))[:4], "abc3", "no reader sees an old page")
    a.kill()


def calls(node):
    """Each is an answer, be it an error, and never a grant."""
    os.mkdir(node.path("odd"))
    path = node.path("odd", "x")
    a = t.Agent()
    fd = a.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    a.write(fd, b"content")
    reader = os.open(path, os.O_RDONLY)
    directory = os.open(node.path("odd"), os.O_RDONLY | os.O_DIRECTORY)
    empty = t.base() + "/empty"
    with open(empty, "w"):
        pass
    source = os.open(empty, os.O_RDONLY)
    tries = {
        "getxattr": lambda: os.getxattr(path, "user.nothing"),
        "getxattr of a lock": lambda: os.getxattr(node.path("odd"), "security.selinux"),
        "setxattr": lambda: os.setxattr(path, "user.nothing", b"x"),
        "listxattr": lambda: os.listxattr(path),
        "fallocate": lambda: os.posix_fallocate(reader, 0, 10),
        "lseek SEEK_DATA": lambda: os.lseek(reader, 0, os.SEEK_DATA),
        "sendfile": lambda: os.sendfile(1, reader, 0, 0),
        "copy_file_range": lambda: os.copy_file_range(source, reader, 10),
        "mmap": lambda: mmap.mmap(reader, 7, prot=mmap.PROT_READ).close(),
        "O_DIRECT": lambda: os.close(os.open(path, os.O_RDONLY | os.O_DIRECT)),
        "O_PATH": lambda: os.close(os.open(path, os.O_PATH)),
        "O_TMPFILE": lambda: os.close(os.open(node.path("odd"), os.O_TMPFILE | os.O_RDWR)),
        "fsync of a lock": lambda: os.fsync(directory),
        "readlink": lambda: os.readlink(path),
        "access": lambda: os.access(path, os.W_OK),
        "utimes of a lock": lambda: os.utime(node.path("odd")),
        "truncate of a control file": lambda: os.truncate(node.path("odd", "token"), 0),
        "truncate of `holders`": lambda: os.truncate(node.path("odd", "holders"), 5),
        "chmod of a control file": lambda: os.chmod(node.path("odd", "token"), 0o777),
        "chown of a control file": lambda: os.chown(node.path("odd", "token"), 1, 1),
        "rename of a control file": lambda: os.rename(node.path("odd", "token"),
                                                      node.path("odd", "y")),
        "rename over a control file": lambda: os.rename(path, node.path("odd", "token")),
        "link of a control file": lambda: os.link(node.path("odd", "token"), node.path("odd", "y")),
        "flock of a control file": lambda: os.close(
            t.flock_file(node.path("odd", "token"), t.EXCLUSIVE | t.NONBLOCK)),
        "write of a setting": lambda: t.put(node.path("odd", ".limit"), "nonsense\n"),
        "rmdir of .lockfs": lambda: os.rmdir(node.path(".lockfs")),
        "create in .lockfs": lambda: os.close(t.acquire(node.path(".lockfs", "x"))),
        "mkdir in .lockfs": lambda: os.mkdir(node.path(".lockfs", "x")),
        "unlink in .lockfs": lambda: os.unlink(node.path(".lockfs", "status")),
        "lease": lambda: fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_RDLCK),
        "dnotify": lambda: fcntl.fcntl(directory, fcntl.F_NOTIFY, 0),
        "chroot to it": lambda: subprocess.run(["chroot", node.path("odd"), "/x"],
                                               stderr=subprocess.DEVNULL, check=False),
        "run a claim": lambda: os.execv(path, [path]),
        "mount on a lock": lambda: subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "none", node.path("odd")], check=True),
    }
    answers = {name: t.outcome(call) for name, call in tries.items()}
    for name, answer in answers.items():
        t.note("%s: %s" % (name, answer))
    refused = ("setxattr", "O_TMPFILE", "rename of a control file", "rename over a control file",
               "link of a control file", "rmdir of .lockfs", "flock of a control file",
               "create in .lockfs", "mkdir in .lockfs", "write of a setting", "readlink",
               "run a claim")
    t.same([name for name in refused if not isinstance(answers[name], str)], [],
           "what makes no sense is refused")
    t.same(t.cat(path), "content", "nothing of it did harm")
    t.same(t.pids(node.path("odd", "holders")), [a.pid], "the claim stands")
    a.close(fd)
    for other in (reader, directory, source):
        os.close(other)
    t.same(t.cat(node.path("odd", "holders")), "", "and can be released")
    os.rmdir(node.path("odd"))
    t.ok(node.is_up(), "the daemon lives")
    a.kill()


def strange_paths():
    """Mount points with strange names, and relative ones."""
    for name in ("with blank", "new\nline", "\u00fcml\u00e4ut", 'quote"and\\backslash'):
        node = t.Node(mount="%s/%s.mnt" % (t.base(), name)).start()
        os.close(t.acquire(node.path("x")))
        node.kill()
        node.start()
        node.stop()
        node.start()
        t.same(len(t.mounts(node.mount)), 2, "mount point %r" % name)
    node = t.Node()
    os.symlink(node.mount, t.base() + "/link")
    real, node.argv = node.argv, lambda *options: [
        t.LOCKFSD, "-f", "--data", "relative.data", "link"]
    os.chdir(t.base())
    node.start()
    t.ok(node.is_up(), "a relative path, through a symbolic link")
    t.ok(os.path.isdir(t.base() + "/relative.data"), "and relative data")
    node.argv = real


def test():
    node = t.Node().start()
    reading(node)
    calls(node)
    strange_paths()


t.main(test)
