#!/usr/bin/python3 -B
"""examples/: each runs on a real mount, and what it says about locks and fencing is so."""

import os
import signal
import sqlite3
import subprocess

import lockfs_test as t

EXAMPLES = t.REPOSITORY + "/examples"
CRON_JOB = EXAMPLES + "/cron-job.sh"
FENCED = EXAMPLES + "/fenced-write/"

WRITTEN, USAGE, STALE = 0, 2, 3


def cron_once(node, methods):
    """Two start at once; the one that runs its job goes on until the other has given up."""
    title = "cron-job.sh, %s beside %s: " % methods
    ran, end = t.base() + "/ran", t.base() + "/end"
    script = 'echo >>"$0"; until [ -e "$1" ]; do sleep 0.05; done; exit 9'
    jobs = [subprocess.Popen([CRON_JOB, method, node.mount, "sh", "-c", script, ran, end],
                             stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for method in methods]
    try:
        first = t.wait_until(lambda: [job for job in jobs if job.poll() is not None])
        t.same([job.returncode for job in first], [75], title + "one of them ends with 75")
        t.ok(first and "held" in first[0].stderr.read(), title + "and says that the lock is held")
        t.ok(t.wait_until(lambda: os.path.exists(ran)), title + "the other runs the job")
    finally:
        open(end, "w").close()
    codes = sorted(job.wait(60) for job in jobs)
    t.same(codes, [9, 75], title + "and ends with the status of the job")
    with open(ran) as file:
        t.same(file.read(), "\n", title + "which ran once")
    for path in (ran, end):
        os.unlink(path)
    for job in jobs:
        job.stderr.close()


def cron_codes(node):
    for method in ("flock", "run"):
        for code in (0, 9):
            result = t.run([CRON_JOB, method, node.mount, "sh", "-c", "exit %d" % code])
            t.same(result.returncode, code, "cron-job.sh %s: the job's %d" % (method, code))
    result = t.run([CRON_JOB, "run", t.base(), "echo", "ran"])
    t.same((result.returncode, result.stdout), (69, ""),
           "cron-job.sh run: 69 in a plain directory, and the job does not run")
    t.same(t.run([CRON_JOB]).returncode, 64, "cron-job.sh: 64 without arguments")

    revoke = 'lockfs release --force "$LOCKFS_LOCK" || exit 1; sleep 1000'
    result = t.run([CRON_JOB, "run", node.mount, "sh", "-c", revoke])
    t.same(result.returncode, 70, "cron-job.sh run: 70 when the lock is lost")
    t.ok("lost" in result.stderr, "and says so")


def cron_without_daemon(node):
    for method in ("flock", "run"):
        result = t.run([CRON_JOB, method, node.mount, "echo", "ran"])
        t.same((result.returncode, result.stdout), (69, ""),
               "cron-job.sh %s: 69 without a daemon, and the job does not run" % method)
        t.ok(result.stderr != "", "and says why")


def rows(db):
    connection = sqlite3.connect(db)
    try:
        return connection.execute("SELECT token, text FROM entry ORDER BY rowid").fetchall()
    finally:
        connection.close()


def fence():
    """The resource alone."""
    db = t.base() + "/fence.db"

    def write(token, text, *more):
        return t.run([FENCED + "write.py", "--db", db, "--token", str(token), *more, text])

    t.same([write(5, "a").returncode, write(5, "b").returncode, write(7, "c").returncode],
           [WRITTEN] * 3, "write.py: the same token, and a larger one, may write")
    result = write(6, "late")
    t.same(result.returncode, STALE, "write.py: a smaller one is refused")
    t.ok("stale" in result.stderr and "7" in result.stderr, "and it says which has been here")
    t.same(write(1, "d", "--resource", "other").returncode, WRITTEN,
           "write.py: another resource has a highest token of its own")
    t.same(write(2**63 - 1, "e").returncode, WRITTEN, "write.py: the largest token")
    t.same(write(8, "late").returncode, STALE, "write.py: and it was stored")
    t.same([write(token, "x").returncode for token in (0, -1, 2**63, "", "x")], [USAGE] * 5,
           "write.py: what is no token is refused")
    t.same(t.run([FENCED + "write.py", "--db", t.base(), "--token", "1", "x"]).returncode, 1,
           "write.py: 1 where the database cannot be had")
    t.same([text for _, text in rows(db)], ["a", "b", "c", "d", "e"],
           "write.py: the database has what was accepted, and nothing else")


def paused_holder(node, title, break_lock):
    lock, db = node.path("paused"), t.base() + "/paused.db"
    os.mkdir(lock)
    holder = subprocess.Popen([FENCED + "holder.sh", lock, "A", db, "late"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=dict(os.environ, PAUSE="1"), text=True)
    try:
        # Reaps nothing: the end of the process stays to be waited for.
        flags = os.WSTOPPED | os.WEXITED | os.WNOWAIT
        stopped = os.waitid(os.P_PID, holder.pid, flags)
        t.same(stopped.si_status, signal.SIGSTOP, title + "A stops before its write")
        first = int(t.cat(lock + "/token"))
        second = [FENCED + "holder.sh", lock, "B", db, "B's line"]
        t.same(t.run(second).returncode, 75, title + "while A has the lock, B is refused")
        t.ok(not os.path.exists(db), title + "and has written nothing")
        t.same(t.run(break_lock + [lock + "/A"]).returncode, 0, title + "A's lock is broken")
        t.same(t.run(second).returncode, WRITTEN, title + "B acquires and writes")
    finally:
        holder.send_signal(signal.SIGCONT)
        out, err = holder.communicate(timeout=60)
    t.same(holder.returncode, STALE, title + "A's late write is refused")
    t.ok("token %d is stale" % first in err, title + "with its own token")
    last = int(t.cat(lock + "/last"))
    t.ok(last > first, title + "B's token is larger")
    t.same(rows(db), [(last, "B's line")], title + "the database has B's line alone")
    os.unlink(db)
    os.rmdir(lock)


def demo(node):
    directory = t.base() + "/tmp"
    os.mkdir(directory)
    result = t.run([FENCED + "demo.sh", node.mount], env=dict(os.environ, TMPDIR=directory))
    t.note(result.stdout + result.stderr)
    t.same(result.returncode, 0, "demo.sh: goes as it should")
    lines = result.stdout.splitlines()
    t.ok(lines and lines[-1].endswith(" B's line"), "demo.sh: B's line is in the database")
    t.ok("is stale" in result.stderr, "demo.sh: A's late write was refused")
    t.same(os.listdir(node.mount), [".lockfs"], "demo.sh: no lock is left")
    t.same(os.listdir(directory), [], "demo.sh: no database is left")
    result = t.run([FENCED + "demo.sh", t.base()])
    t.same((result.returncode, result.stdout), (1, ""), "demo.sh: 1 where no lockfs is")


def body():
    os.environ["PATH"] = t.BUILD + ":" + os.environ["PATH"]
    node = t.Node().start()
    for methods in (("flock", "flock"), ("run", "run"), ("flock", "run")):
        cron_once(node, methods)
    cron_codes(node)
    fence()
    paused_holder(node, "rm: ", ["rm"])
    paused_holder(node, "lockfs release --force: ", ["lockfs", "release", "--force"])
    demo(node)
    t.same(node.stop(), 0, "the daemon stops")
    cron_without_daemon(node)


t.main(body)
