#!/usr/bin/python3
"""How daemons start: two at once, without standard files, on the wrong directory; and SIGHUP."""
import os
import signal
import subprocess

import lockfs_test as t


def end(pids):
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        os.kill(pid, signal.SIGTERM)
        t.select.select([pidfd], [], [], 60 * t.SLOW)
        os.close(pidfd)


def pid_of(data):
    with open(os.path.join(data, "lock")) as file:
        return int(file.read())


def two_at_once():
    """Whoever comes second goes, and only one mount is ever served."""
    one = t.Node()
    other = t.Node(mount=one.mount)
    for n in range(5):
        both = [subprocess.Popen([a for a in node.argv() if a != "-f"], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for node in (one, other)]
        codes = sorted(process.wait(60 * t.SLOW) for process in both)
        t.same(codes, [0, 3], "two start at once, round %d: one does" % n)
        t.same(t.mounts(one.mount), ["tmpfs", "fuse.lockfs"], "there is one mount above one guard")
        end([pid_of(one.data), pid_of(other.data)])
        t.same(t.mounts(one.mount), ["tmpfs"], "and none when they have ended")


def without_standard_files():
    node = t.Node()
    argv = [a for a in node.argv() if a != "-f"]
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        result = subprocess.run(["sh", "-c", '"$@" ' + closed, "sh"] + argv, check=False,
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, timeout=60 * t.SLOW)
        t.same(result.returncode, 0, "starts with " + closed)
        t.ok(node.is_up(), "and serves")
        os.close(t.acquire(node.path("x")))
        end([pid_of(node.data)])


def hang_up():
    node = t.Node()
    subprocess.run([a for a in node.argv() if a != "-f"], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60 * t.SLOW)
    fd = t.acquire(node.path("x"))
    os.kill(pid_of(node.data), signal.SIGHUP)
    os.close(t.acquire(node.path("y")))
    t.ok(t.token_of(fd) > 0, "in the background SIGHUP does nothing")
    os.close(fd)
    end([pid_of(node.data)])

    front = t.Node().start()
    front.process.send_signal(signal.SIGHUP)
    t.same(front.wait(), 0, "in the foreground SIGHUP stops in order")
    t.same(t.mounts(front.mount), ["tmpfs"], "and leaves no dead mount")


def wrong_directory():
    node = t.Node()
    with open(os.path.join(node.data, "important"), "w"):
        pass
    result = t.attempt(node)
    t.same(result.returncode, 3, "a directory with somebody else's files is refused as data")
    t.ok("important" in result.stderr, "the message names one of them")
    t.same(os.listdir(node.data), ["important"], "and nothing is written there")
    t.same(t.mounts(node.mount), [], "nor mounted")

    absent = t.Node()
    os.rmdir(absent.mount)
    t.same(t.attempt(absent).returncode, 3, "no mount point")
    t.same(os.listdir(absent.data), [], "leaves nothing in the data directory")


def children_ignored():
    """Whoever starts the daemon may ignore SIGCHLD, and that is inherited."""
    node = t.Node("--snapshot-log-bytes", "4096")
    argv = [a for a in node.argv() if a != "-f"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=60 * t.SLOW,
                   preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))

    def has_snapshot():
        os.close(t.acquire(node.path("x")))
        return any(name.startswith("snapshot-") and not name.endswith(".new")
                   for name in os.listdir(node.data))

    t.ok(t.wait_until(has_snapshot), "SIGCHLD ignored by the starter: a snapshot is written")
    os.close(t.acquire(node.path("x")))
    t.ok(node.is_up(), "and the daemon goes on")
    end([pid_of(node.data)])


def test():
    children_ignored()
    two_at_once()
    without_standard_files()
    hang_up()
    wrong_directory()


t.main(test)
