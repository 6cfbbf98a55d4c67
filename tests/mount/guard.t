#!/usr/bin/python3 -B
"""Without the daemon nothing below the mount point can be created; and starts that are refused."""

import os
import signal
import subprocess

import lockfs_test as t


def cannot_create(node, when, errnos):
    t.fails(errnos, when + ": create", t.plain, node.path("x"))
    t.fails(errnos, when + ": create with O_EXCL", t.acquire, node.path("x"))
    t.fails(errnos, when + ": mkdir", os.mkdir, node.path("d"))
    t.fails(errnos, when + ": symlink", os.symlink, "x", node.path("s"))
    for argv in (["touch", node.path("x")], ["flock", node.path("x"), "true"],
                 ["bash", "-c", 'set -C; exec 9> "$1"', "bash", node.path("x")]):
        result = t.run(argv)
        t.ok(result.returncode not in (0, None), "%s: %s fails" % (when, argv[0]))


def guard(node):
    t.same(t.mounts(node.mount), [], "before the first start nothing is mounted")
    node.start()
    t.same(len(t.mounts(node.mount)), 2, "the guard, and the mount above it")
    t.same(t.mounts(node.mount)[0], "tmpfs", "the guard is a tmpfs")
    result = t.run([t.LOCKFSD, "--remove-guard", node.mount])
    t.ok(result.returncode not in (0, None) and result.stderr.strip() != "",
         "--remove-guard is refused while it is mounted")
    t.note("it says: " + result.stderr.strip())
    t.same(len(t.mounts(node.mount)), 2, "and changes nothing")
    os.mkdir(node.path("lock"))

    t.same(node.stop(), 0, "SIGTERM ends the daemon with 0")
    t.same(t.mounts(node.mount), ["tmpfs"], "the guard stays")
    t.ok("--remove-guard" in node.log(), "and the daemon says how to take it away")
    cannot_create(node, "stopped", "EROFS")

    node.start()
    t.ok(os.path.isdir(node.path("lock")), "the next start has everything")
    node.kill()
    cannot_create(node, "killed", "ENOTCONN")
    node.start()
    t.same(len(t.mounts(node.mount)), 2, "a start takes the dead mount away")
    t.ok(os.path.isdir(node.path("lock")), "and has everything")
    for _ in range(5):
        node.kill()
        node.start()
        node.stop()
        node.start()
    t.same(len(t.mounts(node.mount)), 2, "guards do not stack over ten restarts")
    node.process.send_signal(signal.SIGINT)
    t.same(node.wait(), 0, "SIGINT ends it, too")

    subprocess.run(["umount", node.mount], check=True)
    t.same(t.mounts(node.mount), [], "the guard taken away by hand")
    if _immutable_works():
        cannot_create(node, "below the guard", ("EPERM", "EACCES"))
    else:
        t.note("this filesystem has no immutable directories")
    node.start()
    node.stop()
    result = t.run([t.LOCKFSD, "--remove-guard", node.mount])
    t.same((result.returncode, t.mounts(node.mount)), (0, []), "--remove-guard takes it away")
    os.mkdir(node.path("d"))
    os.rmdir(node.path("d"))
    t.ok(True, "and the directory below is an ordinary one again")
    result = t.run([t.LOCKFSD, "--remove-guard", node.mount])
    t.same((result.returncode, t.mounts(node.mount)), (0, []), "and a second time nothing")


def _immutable_works():
    probe = t.base() + "/probe"
    os.mkdir(probe)
    works = t.run(["chattr", "+i", probe]).returncode == 0
    t.run(["chattr", "-i", probe])
    return works


def unguarded():
    node = t.Node("--unguarded")
    node.start()
    t.same(len(t.mounts(node.mount)), 1, "--unguarded lays no guard")
    node.stop()
    t.same(t.mounts(node.mount), [], "and nothing is left")
    os.mkdir(node.path("d"))
    os.rmdir(node.path("d"))


def refused(node, name, *words, code=t.EXIT_REFUSED):
    """A start that must not happen: exit code 3, and a message that has one of these words."""
    before = t.mounts(node.mount)
    result = t.attempt(node)
    t.same(result.returncode, code, name + ": refused")
    t.ok(any(word in result.stderr for word in words), name + ": the message says why")
    t.ok(t.mounts(node.mount) in (before, before + ["tmpfs"]), name + ": nothing is mounted")


def refusals():
    node = t.Node().start()
    fd = t.acquire(node.path("x"))
    refused(t.Node(data=node.data), "a second daemon on the same data", node.data)
    refused(t.Node(mount=node.mount), "a second daemon on the same mount", node.mount)
    t.same(t.token_of(fd) > 0, True, "the first one goes on")
    os.close(fd)
    node.stop()

    full = t.Node()
    with open(full.path("file"), "w"):
        pass
    refused(full, "a mount point that is not empty", "empty")
    os.unlink(full.path("file"))

    below = t.Node()
    below.data = below.path("data")
    refused(below, "data below the mount point", "below", code=t.EXIT_USAGE)
    t.ok(not os.path.exists(below.path("data")), "and it makes nothing there")

    readonly = t.Node()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", readonly.data], check=True)
    refused(readonly, "a data directory that cannot be written", readonly.data)
    subprocess.run(["umount", readonly.data], check=True)

    absent = t.Node()
    os.rmdir(absent.mount)
    refused(absent, "no mount point", absent.mount)
    t.ok(not os.path.exists(absent.mount), "and it makes none")

    file = t.Node()
    os.rmdir(file.data)
    with open(file.data, "w"):
        pass
    refused(file, "data that is a file", file.data)

    fresh = t.Node()
    os.rmdir(fresh.data)
    fresh.start()
    t.ok(os.path.isdir(fresh.data), "a data directory that does not exist is made")
    t.same(os.stat(fresh.data).st_mode & 0o077, 0, "for its owner only")


def command_line():
    result = t.run([t.LOCKFSD, "--help"])
    t.same(result.returncode, 0, "--help")
    t.ok(all(option in result.stdout for option in
             ("--data", "--ttl", "--op-timeout", "--drain-timeout", "--remove-guard", "--unguarded",
              "--version", "-f")), "names the options")
    result = t.run([t.LOCKFSD, "--version"])
    t.ok(result.returncode == 0 and result.stdout.startswith("lockfsd"), "--version")
    for argv in ([], ["--nonsense", "/nowhere"], ["--ttl", "x", "/nowhere"], ["--data"],
                 ["--ttl", "0", "/nowhere"], ["--drain-timeout", "-1", "/nowhere"]):
        result = t.run([t.LOCKFSD] + argv)
        t.ok(result.returncode not in (0, None) and result.stderr.strip() != "",
             "refused with a message: lockfsd " + " ".join(argv))


def background():
    """Without -f the daemon has mounted when the command returns, and goes on by itself."""
    node = t.Node()
    argv = [argument for argument in node.argv() if argument != "-f"]
    with open(node.log_path, "a") as log:
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
                              timeout=60 * t.SLOW).returncode
    t.same(code, 0, "in the background: the command returns 0")
    t.ok(node.is_up(), "and it is mounted")
    os.close(t.acquire(node.path("x")))
    found = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _runs(pid, node.mount)]
    t.same(len(found), 1, "one daemon runs")
    for pid in found:
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        t.ok(t.select.select([pidfd], [], [], 60 * t.SLOW)[0], "SIGTERM ends it")
    t.same(t.mounts(node.mount), ["tmpfs"], "and the mount with it")


def _runs(pid, mount):
    try:
        with open("/proc/%s/cmdline" % pid, "rb") as file:
            words = file.read().split(b"\0")
        return os.path.basename(words[0]) == b"lockfsd" and mount.encode() in words
    except (FileNotFoundError, ProcessLookupError):
        return False


def test():
    command_line()
    guard(t.Node())
    unguarded()
    refusals()
    background()


t.main(test)
