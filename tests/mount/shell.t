#!/usr/bin/python3 -B
"""Unmodified shell scripts take locks: bash, dash, and flock(1) of util-linux."""

import os
import signal
import subprocess
import time

import lockfs_test as t

NOCLOBBER = 'set -C; command exec 9> "$LOCK" || exit 75\n'


def noclobber(node, program):
    """`set -C; command exec 9>` acquires by creating."""
    os.mkdir(node.path(program))
    lock = node.path(program, "web1")

    def run(script):
        return t.shell(script, program, LOCK=lock, OTHER=node.path(program, "other"),
                       HOLDERS=node.path(program, "holders"))

    t.same(run(NOCLOBBER + "exit 0").returncode, 0, program + ": acquires")
    t.same(os.listdir(node.path(program)).count("web1"), 0, program + ": exit released it")

    result = run(NOCLOBBER + program + " -c 'set -C; command exec 8> \"$LOCK\" || exit 75'")
    t.same(result.returncode, 75, program + ": refused to a second one")
    t.ok("exist" in result.stderr or "overwrite" in result.stderr,
         program + ": and it says that the file exists")
    result = run(NOCLOBBER + program + " -c 'set -C; command exec 8> \"$OTHER\" || exit 75'")
    t.same(result.returncode, 75, program + ": refused under another name, the limit being 1")

    result = run(NOCLOBBER + 'exec 9>&-; [ -e "$LOCK" ] && exit 1; ' + NOCLOBBER)
    t.same(result.returncode, 0, program + ": `exec 9>&-` releases, and it can be had again")
    result = run(NOCLOBBER + 'echo "pid $$" >&9; read -r line < "$LOCK"; [ "$line" = "pid $$" ]')
    t.same(result.returncode, 0, program + ": what it writes can be read")
    result = run("""
        i=0
        while [ $i -lt 40 ]; do
            %s
            exec 9>&-
            if [ -n "$(cat "$HOLDERS")" ]; then exit 9; fi
            i=$((i + 1))
        done""" % NOCLOBBER)
    t.same(result.returncode, 0, program + ": `exec 9>&-; cat holders` never names the closed one")


def inheritance(node):
    """A background child keeps the lock that it inherited, unless it closes the descriptor."""
    os.mkdir(node.path("inherit"))
    lock = node.path("inherit", "x")

    result = t.shell(NOCLOBBER + "sleep 1000 9>&- >&- 2>&- & echo $!", LOCK=lock)
    child = int(result.stdout)
    t.same(t.cat(node.path("inherit", "holders")), "", "a child with `9>&-` does not keep the lock")
    os.kill(child, signal.SIGKILL)

    script = "sleep 1000 >&- 2>&- & echo $!"
    result = t.shell(NOCLOBBER + script, LOCK=lock)
    child = int(result.stdout)
    t.same(t.shell(NOCLOBBER, LOCK=lock).returncode, 75, "a background child keeps the lock")
    os.kill(child, signal.SIGKILL)
    t.ok(t.wait_until(lambda: t.cat(node.path("inherit", "holders")) == ""),
         "and its end releases it")


def flock_program(node):
    lock = node.path("job.lock")

    def shell(script, program="bash"):
        return t.shell(script, program, F=lock)

    for program in ("bash", "dash"):
        t.same(shell('( flock -n 9 || exit 1 ) 9>"$F"', program).returncode, 0,
               program + ": ( flock -n 9 ) 9>file")
        result = shell('( flock -n 9 || exit 1; ( flock -n 8 || exit 5 ) 8>"$F" ) 9>"$F"', program)
        t.same(result.returncode, 5, program + ": refused to a second one")
    t.ok("job.lock" not in os.listdir(node.mount), "the file is gone with the last lock")
    t.same(shell('flock "$F" true').returncode, 0, "flock FILE true")
    t.same(shell('flock "$F" sh -c "exit 9"').returncode, 9, "the exit code passes through")

    result = shell('flock "$F" flock -n "$F" true')
    t.same(result.returncode, 1, "flock -n is refused while another one holds")
    started = time.monotonic()
    result = shell('flock "$F" flock -w 1 "$F" true')
    t.same(result.returncode, 1, "flock -w 1 gives up")
    t.ok(time.monotonic() - started >= 0.9, "not before its time")
    t.same(shell('flock -s "$F" flock -s -n "$F" true').returncode, 0, "flock -s: two at once")
    t.same(shell('flock -s "$F" flock -n "$F" true').returncode, 1, "flock -s keeps exclusive out")
    t.same(shell('flock "$F" flock -s -n "$F" true').returncode, 1, "and is kept out")
    result = shell('exec 9>"$F"; flock 9; flock -u 9; flock -n "$F" true')
    t.same(result.returncode, 0, "flock -u")
    result = shell('exec 9>"$F"; flock -n 9 && flock -n 9')
    t.same(result.returncode, 0, "locking again what one holds is fine")

    result = shell('flock "$F" sh -c "sleep 1000 >&- 2>&- & echo \\$!"')
    child = int(result.stdout)
    t.same(shell('flock -n "$F" true').returncode, 1, "flock: a child that goes on keeps the lock")
    os.kill(child, signal.SIGKILL)
    t.ok(t.wait_until(lambda: shell('flock -n "$F" true').returncode == 0), "its end releases it")
    result = shell('flock -o "$F" sh -c "sleep 1000 >&- 2>&- & echo \\$!"')
    t.same(shell('flock -n "$F" true').returncode, 0, "flock -o: the child does not keep it")
    os.kill(int(result.stdout), signal.SIGKILL)


def waiting(node):
    """flock(1) waits, and stops waiting."""
    os.mkdir(node.path("wait"))
    lock, waiters = node.path("wait", "x"), node.path("wait", "waiters")
    holder = t.Agent()
    fd = holder.flock_file(lock, t.EXCLUSIVE)

    def wait_for_it():
        process = subprocess.Popen(["flock", lock, "true"], process_group=0)
        if not t.wait_until(lambda: process.pid in t.pids(waiters)):
            t.note("no such waiter: " + t.cat(waiters))
        return process

    process = wait_for_it()
    t.ok(process.poll() is None, "flock waits, and `waiters` names it")
    os.killpg(process.pid, signal.SIGINT)
    t.same(process.wait(30), -signal.SIGINT, "ctrl-C ends a waiting flock")
    t.ok(t.wait_until(lambda: t.cat(waiters) == ""), "which is out of the queue")

    process = wait_for_it()
    process.kill()
    t.same(process.wait(30), -signal.SIGKILL, "kill -9 ends a waiting flock")
    t.ok(t.wait_until(lambda: t.cat(waiters) == ""), "which is out of the queue")

    process = wait_for_it()
    holder.close(fd)
    t.same(process.wait(30), 0, "a waiting flock is granted after the release")

    fd = holder.flock_file(lock, t.EXCLUSIVE)
    process = wait_for_it()
    holder.kill()
    t.same(process.wait(30), 0, "a waiting flock is granted after kill -9 of the holder")


def refusals(node):
    """What is no lock fails loudly."""
    os.mkdir(node.path("dir"))
    for where in ("dir", "."):
        result = t.run(["flock", "-n", node.path(where), "true"])
        t.ok(result.returncode not in (0, None), "`flock DIRECTORY` is refused (%s)" % where)
        t.ok("supported" in result.stderr, "with EOPNOTSUPP")
    t.ok(t.wait_until(lambda: "'dir/' as if to flock it" in node.log()),
         "the log names the directory")
    t.ok("lock a file in it, such as 'dir/lock'" in node.log(), "and the file to lock instead")
    result = t.run(["flock", "-n", node.path("dir", "lock"), "true"])
    t.same(result.returncode, 0, "which can be locked")
    t.note("it says: " + " / ".join(line for line in node.log().splitlines() if "dir" in line))
    t.same(t.outcome(os.open, node.path("dir"), os.O_RDONLY), "EOPNOTSUPP",
           "a directory opens with O_DIRECTORY only")

    for program in ("bash", "dash"):
        result = t.shell('echo 42 > "$F"', program, F=node.path("dir", "pidfile"))
        t.ok(result.returncode not in (0, None), program + ": `echo >file` without a claim fails")
        # dash does not say which error it was.
        t.ok("permitted" in result.stderr or program == "dash" and "error" in result.stderr,
             program + ": and says so")
    t.ok("pidfile" not in os.listdir(node.path("dir")), "and leaves no file")


def loops(node):
    """What was closed can be had at once, by this process and by others of the node."""
    os.mkdir(node.path("loop"))
    path = node.path("loop", "x")
    refused = 0
    for _ in range(100):
        fd = t.outcome(t.acquire, path)
        if isinstance(fd, int):
            os.close(fd)
        else:
            refused += 1
    t.same(refused, 0, "100 times acquire and close in one process")

    first, second = t.Agent(), t.Agent()
    refused = 0
    for _ in range(100):
        for agent in (first, second):
            fd = t.outcome(agent.acquire, path)
            if isinstance(fd, int):
                agent.close(fd)
            else:
                refused += 1
    t.same(refused, 0, "100 times in turn by two processes")
    refused = 0
    for _ in range(50):
        for agent in (first, second):
            fd = t.outcome(agent.flock_file, path, t.EXCLUSIVE | t.NONBLOCK)
            if isinstance(fd, int):
                agent.close(fd)
            else:
                refused += 1
            fd = t.outcome(agent.acquire, path)
            if isinstance(fd, int):
                agent.close(fd)
            else:
                refused += 1
    t.same(refused, 0, "flock and create in turn by two processes")
    script = """
        set -C
        i=0
        while [ $i -lt 100 ]; do
            exec 9>"$F" || exit 1
            exec 9>&-
            i=$((i + 1))
        done"""
    for program in ("bash", "dash"):
        result = t.shell(script, program, F=path)
        t.same(result.returncode, 0, "100 times in one " + program)


def test():
    node = t.Node().start()
    noclobber(node, "bash")
    noclobber(node, "dash")
    inheritance(node)
    flock_program(node)
    waiting(node)
    refusals(node)
    loops(node)


t.main(test)
