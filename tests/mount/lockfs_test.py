"""
What the tests of a mounted lockfs share: TAP lines, nodes, and agents.

A node is a lockfsd with a mount point and a data directory of its own. An agent is a process that
opens, locks and looks as it is told, so that one test can act as several programs and users. A
janitor, a process apart, ends and removes everything when the test itself dies or hangs.

Environment: LOCKFSD (the daemon; build/gcc/lockfsd), BUILD (the folder that has the helpers).
"""

import ctypes
import errno
import fcntl
import os
import pickle
import pwd
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LOCKFSD = os.path.abspath(os.environ.get("LOCKFSD", REPOSITORY + "/build/gcc/lockfsd"))
BUILD = os.path.abspath(os.environ.get("BUILD", os.path.dirname(LOCKFSD)))

EXCLUSIVE, SHARED, UNLOCK, NONBLOCK = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN, fcntl.LOCK_NB
CLAIM = os.O_CREAT | os.O_EXCL | os.O_WRONLY
PLAIN = os.O_CREAT | os.O_RDWR

# lockfs.h
IOC_TOKEN = 2 << 30 | 8 << 16 | ord("L") << 8 | 1
IOC_LEASE = 2 << 30 | 8 << 16 | ord("L") << 8 | 2
IOC_ON_LOSS = 1 << 30 | 4 << 16 | ord("L") << 8 | 3

EXIT_USAGE = 2
EXIT_REFUSED = 3


def _sanitized():
    with open(LOCKFSD, "rb") as file:
        return b"__asan_init" in file.read()


# ---- TAP

_count = 0
_failed = 0


def ok(condition, name):
    """One test point. Returns whether it holds."""
    global _count, _failed
    _count += 1
    if not condition:
        _failed += 1
    name = name.replace("#", "").replace("\n", " ")
    print("%sok %d - %s" % ("" if condition else "not ", _count, name), flush=True)
    return bool(condition)


def same(got, wanted, name):
    if not ok(got == wanted, name):
        note("got:    %r" % (got,))
        note("wanted: %r" % (wanted,))
    return got == wanted


def note(text):
    for line in str(text).splitlines():
        print("# " + line, flush=True)


def outcome(call, *args, **named):
    """What a call returned; for one that failed the name of its errno."""
    try:
        return call(*args, **named)
    except OSError as error:
        return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno]


def fails(errnos, name, call, *args, **named):
    """The call fails with this errno (or one of these), given by name."""
    errnos = (errnos,) if isinstance(errnos, str) else errnos
    got = outcome(call, *args, **named)
    if not ok(got in errnos, "%s: %s" % (name, " or ".join(errnos))):
        note("got: %r" % (got,))


def wait_until(condition, timeout_s=30):
    """Waits until condition() is true, and returns what it returned; else its last, false value."""
    end = time.monotonic() + timeout_s * SLOW
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.01)


# ---- programs


def run(argv, timeout_s=60, **named):
    """Runs a program to its end. One that hangs gets killed: its returncode is then None."""
    named.setdefault("stdin", subprocess.DEVNULL)
    named.setdefault("stdout", subprocess.PIPE)
    named.setdefault("stderr", subprocess.PIPE)
    process = subprocess.Popen(argv, text=True, errors="replace", **named)
    try:
        out, err = process.communicate(timeout=timeout_s * SLOW)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        code = None
    return subprocess.CompletedProcess(argv, code, out, err)


def shell(script, program="bash", timeout_s=60, **variables):
    return run([program, "-c", script], timeout_s, env=dict(os.environ, **variables))


def helper(name):
    """The path of a program made from tests/mount/helpers/NAME.c."""
    return "%s/tests/mount/helpers/%s" % (BUILD, name)


def preload(name):
    """The environment that puts tests/mount/preload/NAME.c in front of the C library."""
    library = "%s/tests/mount/preload/%s.so" % (BUILD, name)
    if not os.path.exists(library):
        raise FileNotFoundError(library)
    options = os.environ.get("ASAN_OPTIONS", "")
    return {"LD_PRELOAD": library, "ASAN_OPTIONS": options + ":verify_asan_link_order=0"}


def _unescape(text):
    """mountinfo writes blanks, newlines and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _mount_lines(path):
    """(device number, filesystem type) of what is mounted on `path`, the topmost last."""
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            words = fields.split()
            if _unescape(words[4]) == path:
                found.append((os.makedev(*map(int, words[2].split(":"))), rest.split()[0]))
    return found


def mounts(path):
    """The filesystem types that are mounted on `path`, the topmost last."""
    return [kind for _, kind in _mount_lines(path)]


def cat(path):
    """Reads as cat(1) does, whatever size stat tells."""
    fd = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while True:
            part = os.read(fd, 65536)
            if not part:
                return b"".join(parts).decode(errors="replace")
            parts.append(part)
    finally:
        os.close(fd)


def put(path, text, flags=os.O_WRONLY | os.O_TRUNC):
    fd = os.open(path, flags)
    try:
        return os.write(fd, text.encode())
    finally:
        os.close(fd)


def user_name(uid):
    return pwd.getpwuid(uid).pw_name


class Row:
    """A line of `holders` or `waiters`."""

    def __init__(self, line):
        self.line = line
        (self.token, self.mode, self.node, self.pid, self.user, self.seconds, self.file,
         self.command) = line.split(None, 7)
        self.pid = int(self.pid)


def rows(path):
    return [Row(line) for line in cat(path).splitlines()]


def pids(path):
    return [row.pid for row in rows(path)]


def status(node):
    """`.lockfs/status`, by its names."""
    lines = cat(node.path(".lockfs", "status")).splitlines()
    return dict(line.split(None, 1) for line in lines if " " in line)


# ---- nodes

_nodes = []
_base = None


def base():
    """A directory of this test, on a disk, which every user may enter."""
    return _base


class Node:
    def __init__(self, *options, data=None, mount=None, environment=None):
        name = "node%d" % (len(_nodes) + 1)
        self.mount = mount or "%s/%s.mnt" % (_base, name)
        self.data = data or "%s/%s.data" % (_base, name)
        self.log_path = "%s/%s.log" % (_base, name)
        self.options = list(options)
        self.environment = environment or {}
        self.process = None
        os.makedirs(self.mount, exist_ok=True)
        os.makedirs(self.data, exist_ok=True)
        _nodes.append(self)

    def path(self, *names):
        return os.path.join(self.mount, *names)

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def argv(self, *options):
        return [LOCKFSD, "-f", "--data", self.data, *self.options, *options, self.mount]

    def spawn(self, *options):
        """Starts the daemon, and waits for nothing."""
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(self.argv(*options), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log,
                                            env=dict(os.environ, **self.environment))
        with open(_base + "/.pids", "a") as file:
            file.write("%d\n" % self.process.pid)

    def is_up(self):
        lines = _mount_lines(self.mount)
        if not lines or not lines[-1][1].startswith("fuse"):
            return False
        # A dead mount may be taken away between the two looks.
        return outcome(lambda: os.stat(self.mount).st_dev) == lines[-1][0]

    def start(self, *options):
        self.spawn(*options)
        wait_until(lambda: self.is_up() or self.process.poll() is not None, 60)
        if self.process.poll() is not None:
            raise RuntimeError("lockfsd ended with %r at its start" % self.process.returncode)
        if not self.is_up():
            raise RuntimeError("lockfsd did not mount in time")
        return self

    def wait(self, timeout_s=60):
        """The exit code; None when it does not end."""
        try:
            return self.process.wait(timeout_s * SLOW)
        except subprocess.TimeoutExpired:
            return None

    def stop(self):
        """SIGTERM, and its exit code. What still holds claims is waited for, as the drain says."""
        self.process.terminate()
        return self.wait()

    def begin_drain(self):
        """SIGTERM, and it drains when this returns: new claims are refused."""
        self.process.terminate()
        return wait_until(lambda: outcome(_probe, self.path("drain-probe")) is not None)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.stop()
        return self.start()

    def rss_kib(self):
        return int(self.status("VmRSS").split()[0])

    def status(self, field, task=None):
        where = "/proc/%d" % self.process.pid
        with open(where + ("/task/%s" % task if task else "") + "/status") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == field:
                    return value.strip()
        raise KeyError(field)


def _probe(path):
    os.close(acquire(path))


def attempt(node, *options, timeout_s=20):
    """Runs the daemon where it should refuse; its result, as run() gives it."""
    result = run(node.argv(*options), timeout_s, env=dict(os.environ, **node.environment))
    note("lockfsd said: " + result.stderr.strip())
    return result


def _unmount_all(path):
    for _ in range(20):
        if not mounts(path):
            break
        subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["chattr", "-i", path], stderr=subprocess.DEVNULL, check=False)


def _unmount_below(directory):
    """Takes away every mount in `directory`, the topmost first."""
    with open("/proc/self/mountinfo") as file:
        found = [_unescape(line.split()[4]) for line in file]
    for path in reversed([path for path in found if path.startswith(directory + "/")]):
        subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)
    for name in os.listdir(directory):
        if name.endswith(".mnt"):
            subprocess.run(["chattr", "-i", os.path.join(directory, name)],
                           stderr=subprocess.DEVNULL, check=False)


# ---- agents


class Agent:
    """
    A process apart. agent.open(path, flags), agent.flock(fd, operation) and so on do there what
    os, fcntl and this module do here, and raise what they raise. agent.begin("flock", ...) does
    not wait for the end: see ready() and finish().
    """

    def __init__(self, uid=None, umask=None):
        mine, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            _serve(theirs, uid, umask)
        theirs.close()
        self._become(mine, None)
        self.getpid()

    def _become(self, sock, parent):
        self.socket = sock
        self.parent = parent
        self.busy = False
        _agents.append(self)

    def child(self):
        """A child of this agent: it inherits the descriptors, and their numbers."""
        mine, theirs = socket.socketpair()
        self.begin("fork")
        socket.send_fds(self.socket, [b"x"], [theirs.fileno()])
        theirs.close()
        child = Agent.__new__(Agent)
        child.pid = self.finish()
        child._become(mine, self)
        return child

    def begin(self, name, *args):
        assert not self.busy
        self.busy = True
        data = pickle.dumps((name, args))
        self.socket.sendall(struct.pack("I", len(data)) + data)
        return self

    def ready(self, timeout_s=0):
        return bool(select.select([self.socket], [], [], timeout_s * SLOW)[0])

    def finish(self, timeout_s=60):
        if not self.ready(timeout_s):
            raise TimeoutError("an agent does not answer")
        self.busy = False
        kind, value = pickle.loads(_receive(self.socket))
        if kind == "errno":
            raise OSError(value, os.strerror(value))
        if kind == "error":
            raise RuntimeError("agent: " + value)
        return value

    def __getattr__(self, name):
        return lambda *args: self.begin(name, *args).finish()

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """SIGKILL, and it is gone when this returns."""
        if self not in _agents:
            return
        _agents.remove(self)
        os.kill(self.pid, signal.SIGKILL)
        if self.parent is None:
            os.waitpid(self.pid, 0)
        elif self.parent in _agents and not self.parent.busy:
            self.parent.waitpid(self.pid, 0)
        self.socket.close()


_agents = []


def _receive(sock):
    def exactly(size):
        parts = b""
        while len(parts) < size:
            part = sock.recv(size - len(parts))
            if not part:
                raise EOFError("the other side is gone")
            parts += part
        return parts
    return exactly(struct.unpack("I", exactly(4))[0])


_signals_seen = []
_libc = ctypes.CDLL(None, use_errno=True)


def _serve(sock, uid, umask):
    """The life of an agent."""
    try:
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != sock.fileno():
                try:
                    os.close(int(name))
                except OSError:
                    pass
        if umask is not None:
            os.umask(umask)
        if uid is not None:
            os.setgroups([])
            os.setgid(pwd.getpwuid(uid).pw_gid)
            os.setuid(uid)
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        for number in (signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda number, _: _signals_seen.append(number))
        while True:
            name, args = pickle.loads(_receive(sock))
            if name == "fork":
                _, fds, _, _ = socket.recv_fds(sock, 1, 1)
                pid = os.fork()
                if pid == 0:
                    sock.close()
                    sock = socket.socket(fileno=fds[0])
                    continue
                os.close(fds[0])
                answer = ("value", pid)
            else:
                answer = _act(name, args)
            data = pickle.dumps(answer)
            sock.sendall(struct.pack("I", len(data)) + data)
    except (EOFError, ConnectionError):
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _act(name, args):
    try:
        call = ACTS[name] if name in ACTS else getattr(os, name)
        return ("value", call(*args))
    except OSError as error:
        return ("errno", error.errno)
    except BaseException:
        return ("error", traceback.format_exc())


def _number(fd, code):
    return struct.unpack("q", fcntl.ioctl(fd, code, b"\0" * 8))[0]


def token_of(fd):
    """The number of this handle's claim."""
    return _number(fd, IOC_TOKEN)


def lease_of(fd):
    return _number(fd, IOC_LEASE)


def on_loss(fd, number):
    fcntl.ioctl(fd, IOC_ON_LOSS, struct.pack("i", number))


def unknown_ioctl(fd):
    return _number(fd, 2 << 30 | 8 << 16 | ord("L") << 8 | 99)


def flock(fd, operation):
    """flock(2) itself: that of Python goes on waiting after a signal."""
    if _libc.flock(fd, operation) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def lock_range(fd, command, kind):
    """fcntl(2): the whole file."""
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))


def poll_loss(fd, timeout_ms):
    """What poll(2) says when it is asked for nothing but loss, as a number."""
    poll = select.poll()
    poll.register(fd, 0)
    events = poll.poll(timeout_ms)
    return events[0][1] if events else 0


def in_thread(name, args):
    """Does it in a second thread of this process."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(_act(name, args)))
    thread.start()
    thread.join()
    if answers[0][0] == "errno":
        raise OSError(answers[0][1], os.strerror(answers[0][1]))
    return answers[0][1]


def acquire(path):
    return os.open(path, CLAIM, 0o666)


def plain(path):
    return os.open(path, PLAIN, 0o666)


def flock_file(path, operation):
    """Opens and locks; the descriptor."""
    fd = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        flock(fd, operation)
    except OSError:
        os.close(fd)
        raise
    return fd


# What an agent can do beside what `os` can. A test may add to it before it makes its agents.
ACTS = {
    "acquire": acquire, "cat": cat, "flock": flock, "flock_file": flock_file,
    "in_thread": in_thread, "lease_of": lease_of, "lock_range": lock_range, "on_loss": on_loss,
    "plain": plain, "poll_loss": poll_loss, "put": put, "shell": shell,
    "signals_seen": lambda: list(_signals_seen), "token_of": token_of,
    "unknown_ioctl": unknown_ioctl,
}


# ---- settings of the machine


class setting:
    """
    A value under /proc/sys for the time of a `with`. Tests that run beside this one and want to
    change a setting wait.
    """

    def __init__(self, name, value):
        self.path = "/proc/sys/" + name.replace(".", "/")
        self.value = value

    def __enter__(self):
        self.lock = open(self.path)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.before = self.lock.read()
        with open(_base + "/.setting", "w") as file:
            file.write(self.path + "\n" + self.before)
        self._write(str(self.value))

    def _write(self, value):
        with open(self.path, "w") as file:
            file.write(value)

    def __exit__(self, *_):
        self._write(self.before)
        os.unlink(_base + "/.setting")
        self.lock.close()


# ---- the course of a test


def _end_daemons():
    try:
        with open(_base + "/.pids") as file:
            listed = [int(line) for line in file]
    except FileNotFoundError:
        return
    for pid in listed:
        try:
            # A number may have been given to somebody else since.
            if os.readlink("/proc/%d/exe" % pid).split(" (")[0] == os.path.realpath(LOCKFSD):
                os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def _remove_all():
    try:
        with open(_base + "/.setting") as file:
            path, value = file.read().split("\n", 1)
        with open(path, "w") as file:
            file.write(value)
    except FileNotFoundError:
        pass
    _unmount_below(_base)
    try:
        with open(_base + "/.loops") as file:
            for device in file.read().split():
                subprocess.run(["losetup", "-d", device], stderr=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        pass
    shutil.rmtree(_base, ignore_errors=True)


def _janitor(test_pid, limit_s):
    """Waits for the end of the test, and ends it when it takes too long."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pidfd = os.pidfd_open(test_pid)
    if not select.select([pidfd], [], [], limit_s)[0]:
        note("the test has not ended within %d seconds; its daemons are killed" % limit_s)
        _end_daemons()
        if not select.select([pidfd], [], [], 60)[0]:
            os.kill(test_pid, signal.SIGKILL)
            select.select([pidfd], [], [], 10)
    if os.path.exists(_base):
        _end_daemons()
        _remove_all()
    os._exit(0)


def loop_device(path, size_mib):
    """A loop device on a new file of that size."""
    with open(path, "wb") as file:
        file.truncate(size_mib << 20)
    device = run(["losetup", "--find", "--show", path]).stdout.strip()
    with open(_base + "/.loops", "a") as file:
        file.write(device + "\n")
    return device


def _finish(node):
    """Ends a node of a test that is over. Its daemon ends well, and its guard goes."""
    if node.process is not None and node.process.poll() is None:
        code = node.stop()
        if not ok(code == 0, "the daemon on %s ends with 0" % os.path.basename(node.mount)):
            note("it ended with %r" % code)
            node.kill()
    if mounts(node.mount):
        result = run([LOCKFSD, "--remove-guard", node.mount])
        if result.returncode != 0 or mounts(node.mount):
            note("--remove-guard: %r %s" % (result.returncode, result.stderr))
    _unmount_all(node.mount)


def main(body, limit_s=240):
    """Runs the test `body`, which calls ok() and its like. The last call of a script."""
    global SLOW, _base
    if not os.path.exists(LOCKFSD):
        print("Bail out! there is no %s" % LOCKFSD)
        sys.exit(1)
    SLOW = 4 if _sanitized() else 1
    _base = os.path.realpath(tempfile.mkdtemp(prefix="lockfs-test.", 
                                              dir=os.environ.get("TMPDIR", "/var/tmp")))
    os.chmod(_base, 0o755)
    os.umask(0o022)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    test_pid = os.getpid()
    if os.fork() == 0:
        _janitor(test_pid, min(limit_s * SLOW, 540))
    try:
        try:
            body()
        except Exception:
            ok(False, "the test runs to its end")
            note(traceback.format_exc())
        for agent in reversed(list(_agents)):
            agent.kill()
        for node in _nodes:
            _finish(node)
        if _failed:
            for node in _nodes:
                lines = node.log().splitlines()
                note("the log of %s, %d lines:" % (os.path.basename(node.mount), len(lines)))
                for line in lines[-60:]:
                    note("    " + line)
        print("1..%d" % _count, flush=True)
    finally:
        if os.getpid() == test_pid:
            _end_daemons()
            _remove_all()
    sys.exit(1 if _failed else 0)


SLOW = 1
