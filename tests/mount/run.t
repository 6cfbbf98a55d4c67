#!/usr/bin/python3 -B
"""
`lockfs run`: the command's status, signals, terminal and input are its own; without the lock it
does not go on, however the lock is lost; and nothing hangs when the daemon does.
"""

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time

import lockfs_test as t

LOCKFS = t.BUILD + "/lockfs"
TTL_S = 5

# Writes a line for its start, for each beat, and for each signal that it catches: the word and
# CLOCK_BOOTTIME. argv: the file, the signals to catch (and to go on after), a command to start
# in the background.
BEATER = r"""
import os, signal, subprocess, sys, time
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def say(word):
    os.write(out, ("%s %.3f\n" % (word, time.clock_gettime(time.CLOCK_BOOTTIME))).encode())
for name in sys.argv[2].split():
    signal.signal(getattr(signal, "SIG" + name), lambda number, _: say(signal.Signals(number).name[3:]))
if len(sys.argv) > 3:
    subprocess.Popen([sys.executable, "-c", sys.argv[3], sys.argv[1] + ".2", sys.argv[2]])
# What a process with much memory needs to end.
ballast = b"x" * (int(os.environ.get("BALLAST_MIB", "0")) << 20)
say("start")
while True:
    time.sleep(0.02)
    say("beat")
"""


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Beats:
    """What a beater has written."""

    def __init__(self, name):
        self.path = os.path.join(t.base(), name)

    def read(self):
        try:
            with open(self.path) as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        return [(line.split()[0], float(line.split()[1])) for line in lines]

    def words(self):
        return [word for word, _ in self.read()]

    def has(self, word):
        return t.wait_until(lambda: word in self.words())

    def when(self, word):
        return [time_s for got, time_s in self.read() if got == word][0]

    def last(self):
        return self.read()[-1][1]


def lockfs(*args, **named):
    return t.run([LOCKFS, *args], **named)


def beater(lock, beats, catches="", options=(), with_child=False, **named):
    """lockfs run with a beater, which beats when this returns."""
    extra = [BEATER] if with_child else []
    process = subprocess.Popen([LOCKFS, "run", *options, lock, "--", sys.executable, "-c", BEATER,
                                beats.path, catches, *extra],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, **named)
    if not beats.has("beat") or (with_child and not Beats(beats.path + ".2").has("beat")):
        raise RuntimeError("the command did not start: %r" % process.poll())
    return process


def code_of(process, timeout_s=30):
    """The exit code; None when it does not end. What it said goes into the notes."""
    try:
        t.note(process.communicate(timeout=timeout_s * t.SLOW)[1])
        return process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None


def processes():
    """pid -> (name, state, parent, group)"""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % name) as file:
                text = file.read()
        except OSError:
            continue
        comm = text[text.index("(") + 1:text.rindex(")")]
        state, parent, group = text[text.rindex(")") + 1:].split()[:3]
        found[int(name)] = (comm, state, int(parent), int(group))
    return found


def children(pid):
    return {child: entry for child, entry in processes().items() if entry[2] == pid}


def keeper_of(process):
    """Its child that is not the command: it is in a session of its own."""
    for pid in children(process.pid):
        if os.getsid(pid) == pid:
            return pid
    raise RuntimeError("no keeper")


def command_of(process):
    return [pid for pid in children(process.pid) if os.getsid(pid) != pid][0]


def keepers_on(node):
    """Other tests may run beside this one."""
    return [pid for pid, entry in processes().items() if entry[0].startswith("lockfs-keep") and
            node.mount in t.outcome(t.cat, "/proc/%d/cmdline" % pid)]


def lives(pid):
    entry = processes().get(pid)
    return entry is not None and entry[1] not in "ZX"


def free(lock):
    return t.cat(lock + "/holders") == ""


# ---- what the command sees, and what it returns


def plainly(node):
    lock = node.path("plain")
    os.mkdir(lock)
    script = ('echo "$LOCKFS_TOKEN" "$LOCKFS_LOCK"; cat "$LOCKFS_LOCK/token";'
              'cat "$LOCKFS_LOCK/holders"')
    result = lockfs("run", lock, "--", "sh", "-c", script)
    lines = result.stdout.splitlines()
    t.same(result.returncode, 0, "it returns 0")
    t.same(lines[0].split()[1], os.path.realpath(lock), "LOCKFS_LOCK")
    t.ok(lines[0].split()[0] == lines[1] == t.cat(lock + "/last").strip(),
         "LOCKFS_TOKEN is the number, which `token` tells the command, too")
    name = socket.gethostname()
    t.ok(t.Row(lines[2]).file.startswith(name + "."), "the claim has the host's name and a pid")
    t.ok(free(lock), "free when it has returned")
    result = lockfs("run", "--name", "mine", lock, "cat", lock + "/holders")
    t.same(t.Row(result.stdout.strip()).file, "mine", "--name; and -- may be missing")

    path = node.path("nightly.lock")
    result = lockfs("run", path, "--", "sh", "-c", 'echo "$LOCKFS_LOCK"; cat "$0/holders"',
                    node.mount)
    lines = result.stdout.splitlines()
    t.same((lines[0], t.Row(lines[1]).file), (os.path.realpath(path), "nightly.lock"),
           "a lockfile in the root")
    result = lockfs("run", "nightly.lock", "--", "sh", "-c", 'echo "$LOCKFS_LOCK"; pwd',
                    cwd=node.mount)
    t.same(result.stdout.split(), [os.path.realpath(path), os.path.realpath(node.mount)],
           "a relative path; the command starts where we are")
    t.same(lockfs("run", lock + "/file", "--", "cat", lock + "/holders").stdout.split()[6], "file",
           "a path of a claim in a lock")
    order = [lockfs("run", "--try", lock, "--", "true").returncode for _ in range(50)]
    t.same(order, [0] * 50, "50 times one after the other, with --try")


def statuses(node):
    lock = node.path("status.lock")
    for code in (0, 1, 42, 255):
        t.same(lockfs("run", lock, "--", "sh", "-c", "exit %d" % code).returncode, code,
               "the command's status %d" % code)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        t.same(lockfs("run", lock, "--", "sh", "-c", "kill -%d $$" % number).returncode,
               128 + number, "128 + %d for a signal" % number)
    t.same(lockfs("run", lock, "--", "/nonexistent").returncode, 127, "127: no such command")
    t.same(lockfs("run", lock, "--", "/dev").returncode, 126, "126: cannot be executed")
    for argv in ((), (lock,), (lock, "--"), ("--timeout", "x", lock, "true"), ("--bad", lock),
                 (lock, "--shared", "true"), ("--name", "a/b", lock, "true"), ("", "true"),
                 ("--name", "x", lock, "true")):
        result = lockfs("run", *argv)
        t.ok(result.returncode == 64 and result.stderr.startswith("lockfs"),
             "64: run %s" % " ".join(argv))
    t.same(t.rows(node.path("holders")), [], "nothing is held")


def refusals(node):
    """Where a lock would be local, or is none."""
    plain = os.path.join(t.base(), "plain-directory")
    os.mkdir(plain)
    for path in (plain, plain + "/x.lock", "/dev/shm/lockfs-test.lock", "/proc/self/status"):
        result = lockfs("run", path, "--", "echo", "ran")
        t.same((result.returncode, result.stdout), (69, ""), "not on a lockfs: %s" % path)
    t.same(os.listdir(plain), [], "and no file was made")
    t.same(lockfs("run", node.mount, "--", "true").returncode, 66, "the root itself is no lock")
    t.same(lockfs("run", node.path("none", "x"), "--", "true").returncode, 66, "no such lock: 66")
    link = os.path.join(t.base(), "link")
    os.symlink(node.path("linked.lock"), link)
    t.same(lockfs("run", link, "--", "true").returncode, 66, "a symbolic link to a lockfile: 66")
    os.mkdir(node.path("private"), 0o700)
    nobody = t.Agent(uid=65534)
    result = nobody.shell("'%s' run '%s' -- true" % (LOCKFS, node.path("private")))
    t.same(result.returncode, 77, "no permission: 77")
    result = nobody.shell("'%s' run '%s' -- echo yes" % (LOCKFS, node.path("public.lock")))
    t.same((result.returncode, result.stdout), (0, "yes\n"), "another user, in the root")
    nobody.kill()


def waiting(node):
    lock = node.path("waiting")
    os.mkdir(lock)
    a = t.Agent()
    fd = a.flock_file(lock + "/x", t.EXCLUSIVE)
    for options in (("--try",), ("--timeout", "0")):
        result = lockfs("run", *options, lock, "--", "echo", "ran")
        t.same((result.returncode, result.stdout), (75, ""), "75: " + " ".join(options))
    started = time.monotonic()
    result = lockfs("run", "--timeout", "0.7", lock, "--", "echo", "ran")
    spent_s = time.monotonic() - started
    t.same((result.returncode, result.stdout), (75, ""), "75: --timeout")
    t.ok(0.7 <= spent_s < 0.7 + 3 * t.SLOW, "in time: %.2f s" % spent_s)
    t.ok(t.wait_until(lambda: t.cat(lock + "/waiters") == ""), "and it waits no longer")

    second, third = (subprocess.Popen([LOCKFS, "run", "--timeout", "60", lock, "--", "true"])
                     for _ in range(2))
    t.ok(t.wait_until(lambda: len(t.rows(lock + "/waiters")) == 2), "two wait")
    second.terminate()
    t.same(second.wait(), -signal.SIGTERM, "SIGTERM ends one that waits")
    t.ok(t.wait_until(lambda: len(t.rows(lock + "/waiters")) == 1), "which leaves the queue")
    os.kill(third.pid, signal.SIGKILL)
    third.wait()
    t.ok(t.wait_until(lambda: t.cat(lock + "/waiters") == ""), "SIGKILL, too")

    beats = Beats("waiting")
    process = subprocess.Popen([LOCKFS, "run", lock, "--", sys.executable, "-c", BEATER,
                                beats.path, ""], stderr=subprocess.DEVNULL)
    t.wait_until(lambda: t.cat(lock + "/waiters"))
    t.same(beats.read(), [], "one that waits has not started its command")
    a.close(fd)
    t.ok(beats.has("start"), "and starts it when it gets the lock")
    process.terminate()
    t.same(process.wait(), 128 + signal.SIGTERM, "SIGTERM then goes to the command")

    first = beater(lock, Beats("shared-1"), options=("--shared",))
    other = beater(lock, Beats("shared-2"), options=("--shared",))
    t.same(sorted(row.mode for row in t.rows(lock + "/holders")), ["shared"] * 2, "--shared")
    for process in (first, other):
        process.terminate()
        t.same(code_of(process), 128 + signal.SIGTERM, "and ended")
    fd = a.flock_file(lock + "/x", t.SHARED)
    t.same(lockfs("run", "--try", "--shared", lock, "--", "true").returncode, 0, "--try --shared")
    t.same(lockfs("run", "--try", lock, "--", "true").returncode, 75, "--try beside a shared one")
    a.kill()

    # Nothing is lost between the end of waiting and the grant.
    counts = {0: 0, 75: 0}
    for i in range(40):
        fd = a_hold = os.open(lock + "/x", t.PLAIN)
        t.flock(fd, t.EXCLUSIVE)
        process = subprocess.Popen([LOCKFS, "run", "--timeout", "0.0%02d" % (10 + i), lock, "--",
                                    "true"], stderr=subprocess.DEVNULL)
        time.sleep((10 + i) / 1000)
        os.close(a_hold)
        counts[process.wait()] += 1
        if not t.wait_until(lambda: free(lock)):
            break
    t.note("acquired: %d, in time: not %d" % (counts[0], counts[75]))
    t.ok(free(lock) and sum(counts.values()) == 40, "timeouts against grants: never left held")


def signals(node):
    lock = node.path("signals.lock")
    names = ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT"]
    beats = Beats("signals")
    process = beater(lock, beats, " ".join(names))
    for name in names:
        process.send_signal(getattr(signal, "SIG" + name))
        t.ok(beats.has(name), "SIG%s is passed on" % name)
    t.same(process.poll(), None, "and it goes on as long as the command does")
    child = command_of(process)
    process.send_signal(signal.SIGTSTP)
    t.ok(t.wait_until(lambda: processes()[child][1] == "T"), "SIGTSTP stops the command")
    process.send_signal(signal.SIGCONT)
    t.ok(t.wait_until(lambda: processes()[child][1] != "T"), "SIGCONT continues it")
    t.same(os.getpgid(child), child, "the command has a process group of its own")
    os.kill(child, signal.SIGKILL)
    t.same(code_of(process), 128 + 9, "its end is ours")

    result = t.shell("nohup '%s' run '%s' -- sh -c 'kill -HUP $PPID; kill -HUP $$; sleep 0.2;"
                     "echo on'" % (LOCKFS, lock))
    t.same((result.returncode, result.stdout), (0, "on\n"), "what the caller ignores stays so")
    script = "import signal; print([s.name for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])])"
    t.same(lockfs("run", lock, "--", sys.executable, "-c", script).stdout, "[]\n",
           "no signal is blocked in the command")


def streams(node):
    lock = node.path("streams.lock")
    t.same(t.shell("printf 'a\\nb\\n' | '%s' run '%s' -- cat" % (LOCKFS, lock)).stdout, "a\nb\n",
           "the input is the command's")
    result = t.shell("printf 'a\\nb\\n' | { '%s' run '%s' -- true; cat; }" % (LOCKFS, lock))
    t.same(result.stdout, "a\nb\n", "and nothing of it is taken away")
    listing = "import os; print([n for n in os.listdir('/proc/self/fd')])"
    t.same(lockfs("run", lock, "--", sys.executable, "-c", listing).stdout,
           t.run([sys.executable, "-c", listing]).stdout, "no descriptor is inherited")
    read, write = os.pipe()
    result = subprocess.run([LOCKFS, "run", lock, "--", sys.executable, "-c", "import os;"
                             "os.write(%d, b'through')" % write], pass_fds=[write], check=False)
    t.same(os.read(read, 10), b"through", "but the caller's are")
    os.close(read)
    os.close(write)


def no_zombies(node):
    lock = node.path("zombies.lock")
    process = beater(lock, Beats("zombies"))
    mine = set(children(process.pid)) | {process.pid}
    t.same([entry[1] for entry in children(process.pid).values() if entry[1] == "Z"], [],
           "no zombie while it runs")
    process.terminate()
    code_of(process)
    t.same([pid for pid in mine if pid in processes()], [], "no process is left")
    # As the first process of a pid namespace.
    result = t.run(["unshare", "--pid", "--fork", "--mount-proc", LOCKFS, "run", lock, "--", "sh",
                    "-c", "echo $$; exit 5"])
    t.same((result.returncode, result.stdout != ""), (5, True), "as process 1")


# ---- loss


def check_end(process, beats, limit_s, name):
    """It ends with 70, and its command has not beaten after `limit_s`."""
    t.same(code_of(process), 70, name + ": 70")
    for each in (beats, Beats(beats.path + ".2")):
        if each.read():
            t.ok(each.last() <= limit_s, "%s: the command ends in time (%.2f s to spare)" %
                 (name, limit_s - each.last()))


def killed_daemon(node):
    lock = node.path("killed.lock")
    polite, stubborn = Beats("killed-polite"), Beats("killed-stubborn")
    first = beater(lock, polite)
    second = beater(node.path("killed-2.lock"), stubborn, "TERM", with_child=True)
    killed_s = now()
    node.kill()
    check_end(first, polite, killed_s + 1 * t.SLOW, "kill -9 of the daemon")
    check_end(second, stubborn, killed_s + 1 + 0.5 * t.SLOW,
              "kill -9 of the daemon, SIGTERM ignored")
    t.ok("TERM" in stubborn.words(), "SIGTERM comes first")
    started = time.monotonic()
    result = lockfs("run", lock, "--", "echo", "ran")
    t.same((result.returncode, result.stdout), (69, ""), "with a dead daemon: 69")
    t.ok(time.monotonic() - started < 5 * t.SLOW, "at once")
    node.start()
    t.same(lockfs("run", "--try", lock, "--", "true").returncode, 0, "with the next one it goes")


def stopped_daemon(node):
    """A daemon that hangs: the lease is counted without it."""
    lock = node.path("stopped.lock")
    free_lock = node.path("free.lock")
    polite, stubborn = Beats("stopped-polite"), Beats("stopped-stubborn")

    patient = beater(lock, Beats("stopped-shortly"), "TERM")
    node.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    node.process.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    t.same((patient.poll(), "TERM" in Beats("stopped-shortly").words()), (None, False),
           "a short stop does not harm")
    os.kill(command_of(patient), signal.SIGKILL)
    t.same(code_of(patient), 137, "the status is the command's")

    first = beater(lock, polite)
    second = beater(node.path("stopped-2.lock"), stubborn, "TERM", with_child=True)
    dying = beater(node.path("stopped-3.lock"), Beats("stopped-dying"))
    node.process.send_signal(signal.SIGSTOP)
    stopped_s = now()
    try:
        os.kill(command_of(dying), signal.SIGUSR1)
        started = time.monotonic()
        t.same(code_of(dying), 128 + signal.SIGUSR1, "a command that ends meanwhile")
        t.ok(time.monotonic() - started < TTL_S + 2 * t.SLOW, "its status comes, at the latest "
             "with the lease's end")
        started = time.monotonic()
        result = lockfs("run", "--timeout", "1", free_lock, "--", "true")
        t.ok(result.returncode in (69, 75), "--timeout with a daemon that hangs: %r" %
             result.returncode)
        t.ok(time.monotonic() - started < 2 + 3 * t.SLOW, "in time")
        waits = subprocess.Popen([LOCKFS, "run", free_lock, "--", "true"],
                                 stderr=subprocess.DEVNULL)
        time.sleep(0.2)
        waits.terminate()
        t.same(waits.wait(10 * t.SLOW), -signal.SIGTERM, "SIGTERM ends one that waits")
        check_end(first, polite, stopped_s + TTL_S, "a daemon that hangs")
        check_end(second, stubborn, stopped_s + TTL_S, "a daemon that hangs, SIGTERM ignored")
        t.ok(TTL_S * 2 / 3 - 1.5 <= stubborn.when("TERM") - stopped_s <= TTL_S * 2 / 3 + 0.5,
             "SIGTERM comes with a third of the lease left (after %.2f s)" %
             (stubborn.when("TERM") - stopped_s))
        t.same(node.process.poll(), None, "and the daemon still hangs")
    finally:
        node.process.send_signal(signal.SIGCONT)
    t.ok(t.wait_until(lambda: t.rows(node.path("holders")) == []), "when it goes on, all is free")
    t.same(lockfs("run", "--try", lock, "--", "true").returncode, 0, "and works")
    t.ok(t.wait_until(lambda: not keepers_on(node)), "no keeper is left")


def killed_runner(node):
    """kill -9 of `lockfs run`: the lock outlives the command, not the other way round."""
    lock = node.path("runner")
    os.mkdir(lock)
    early = 0
    for i in range(5):
        beats = Beats("runner-%d" % i)
        process = beater(lock, beats, "TERM HUP", with_child=True,
                         env=dict(os.environ, BALLAST_MIB="100"))
        child = command_of(process)
        grandchild = [pid for pid in children(child)][0]
        waiter = t.Agent()
        fd = waiter.plain(lock + "/next")
        waiter.begin("flock", fd, t.EXCLUSIVE)
        t.wait_until(lambda: t.cat(lock + "/waiters"))
        process.kill()
        waiter.finish()
        early += lives(child) or lives(grandchild)
        process.communicate()
        waiter.kill()
    t.same(early, 0, "kill -9: the lock is free when nothing of the command lives")

    beats = Beats("keeper")
    process = beater(lock, beats, "TERM")
    os.kill(keeper_of(process), signal.SIGKILL)
    killed_s = now()
    check_end(process, beats, killed_s + 1 * t.SLOW, "kill -9 of the keeper")
    process = beater(lock, Beats("terminated"))
    os.kill(keeper_of(process), signal.SIGTERM)
    process.terminate()
    t.same(code_of(process), 128 + signal.SIGTERM, "SIGTERM for all: the keeper stays until the end")


def left_behind(node):
    lock = node.path("behind")
    os.mkdir(lock)
    result = lockfs("run", lock, "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!")
    pid = int(result.stdout)
    t.ok(result.returncode == 0 and free(lock), "what the command leaves running has no lock")
    t.ok(lives(pid), "and lives")
    os.kill(pid, signal.SIGKILL)


def stopped_service(node):
    """The daemon ends, with the claim held."""
    lock = node.path("service.lock")
    beats = Beats("service")
    process = beater(lock, beats, "TERM")
    node.begin_drain()
    t.same(lockfs("run", node.path("other.lock"), "--", "true").returncode, 69,
           "while it is being stopped: 69")
    time.sleep(0.2)
    t.ok(process.poll() is None and "TERM" not in beats.words(), "who holds goes on")
    node.process.terminate()
    ended_s = now()
    t.same(node.wait(), 0, "the daemon ends")
    check_end(process, beats, ended_s + 1 + 1 * t.SLOW, "a second SIGTERM to the daemon")
    result = lockfs("run", lock, "--", "echo", "ran")
    t.same((result.returncode, result.stdout), (69, ""), "on the guard: 69")
    node.start()


# ---- a terminal


class Terminal:
    """An interactive bash on a terminal of its own."""

    def __init__(self):
        self.output = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = "ready> "
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
        self.expect("ready> ")

    def type(self, text):
        os.write(self.fd, text.encode())

    def expect(self, text):
        """Reads up to `text`: whether it came."""
        end = time.monotonic() + 20 * t.SLOW
        while text not in self.output and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    break
        before, found, after = self.output.partition(text)
        if not found:
            t.note("the terminal shows: %r" % before)
        self.output = after
        return bool(found)

    def close(self):
        os.kill(self.pid, signal.SIGHUP)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def terminal(node):
    lock = node.path("terminal.lock")
    screen = Terminal()
    screen.type("'%s' run '%s' -- sh -c 'echo be''gun; exec cat'\n" % (LOCKFS, lock))
    t.ok(screen.expect("begun"), "a command on a terminal")
    screen.type("first\n")
    t.ok(screen.expect("first") and screen.expect("first"), "reads from it")
    screen.type("\x1a")
    t.ok(screen.expect("Stopped"), "Ctrl-Z stops it, and the shell comes back")
    t.ok(t.rows(node.path("holders")) != [], "it keeps the lock")
    screen.type("echo $((40 + 2))\n")
    t.ok(screen.expect("42"), "which has the terminal again")
    screen.type("fg\n")
    t.ok(screen.expect("run"), "fg")
    screen.type("second\n")
    t.ok(screen.expect("second") and screen.expect("second"), "goes on reading")
    screen.type("\x03")
    t.ok(screen.expect("ready> "), "Ctrl-C ends it")
    screen.type("echo status $?.\n")
    t.ok(screen.expect("status 130."), "with status 130")
    t.same(t.rows(node.path("holders")), [], "and releases")
    screen.type("for i in 1 2 3; do '%s' run '%s' -- sh -c 'echo be''gun; exec sleep 1000'; "
                "done\n" % (LOCKFS, lock))
    screen.expect("begun")
    screen.type("\x03")
    t.ok(screen.expect("ready> "), "Ctrl-C ends a loop around it")
    screen.type("'%s' run '%s' -- stty -a | grep -c speed\n" % (LOCKFS, lock))
    t.ok(screen.expect("1\r\n"), "in a pipe it has the terminal, too")
    screen.type("'%s' run '%s' -- sh -c 'kill -9 $$'; echo status $?.\n" % (LOCKFS, lock))
    t.ok(screen.expect("status 137."), "a killed command gives the terminal back")
    screen.type("echo still here.\n")
    t.ok(screen.expect("still here.\r\n"), "to the shell")
    screen.close()


def test():
    node = t.Node("--ttl", str(TTL_S)).start()
    for part in (plainly, statuses, refusals, waiting, signals, streams, no_zombies, terminal,
                 left_behind, killed_runner, killed_daemon, stopped_daemon, stopped_service):
        t.note(part.__name__)
        part(node)


t.main(test)
