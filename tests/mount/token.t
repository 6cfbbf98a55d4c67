#!/usr/bin/python3 -B
"""Fencing numbers, `token`, `last`, `holders`, `waiters`, and the ioctls of lockfs.h."""

import os
import select
import signal

import lockfs_test as t

LOSS = select.POLLERR | select.POLLHUP


class Lock:
    def __init__(self, node, name):
        self.path = node.path(name)
        os.mkdir(self.path)
        self.file = self.path + "/x"
        self.token = self.path + "/token"

    def holders(self):
        return t.rows(self.path + "/holders")

    def waiters(self):
        return t.rows(self.path + "/waiters")


def read_token(agent, lock):
    got = t.outcome(agent.cat, lock.token)
    return int(got) if got.strip().isdigit() else got


def who_reads(node):
    lock = Lock(node, "who")
    a, b, stranger = t.Agent(), t.Agent(), t.Agent()
    t.same(read_token(stranger, lock), "ENODATA", "`token` of a free lock")
    result = t.run(["cat", lock.token])
    t.ok(result.returncode != 0 and "No data" in result.stderr, "cat says so")

    for how in ("acquire", "flock_file"):
        fd = a.acquire(lock.file) if how == "acquire" else a.flock_file(lock.file, t.EXCLUSIVE)
        number = a.token_of(fd)
        t.same(t.cat(lock.token), "%d\n" % number, "%s: a number and a newline" % how)
        child = a.child()
        child.close(fd)
        t.same([read_token(agent, lock) for agent in (a, child, stranger)], [number] * 3,
               how + ": the holder, its child, a stranger")
        t.same(int(a.in_thread("cat", [lock.token])), number, how + ": a thread of the holder")
        t.same(int(t.cat(lock.path + "/last")), number, how + ": `last` is the same")
        child.kill()
        a.close(fd)
        t.same([read_token(agent, lock) for agent in (a, stranger)], ["ENODATA"] * 2,
               how + ": free again")
        os.close(t.acquire(node.path("elsewhere")))
        t.same(int(t.cat(lock.path + "/last")), number, how + ": `last` stays, whatever is "
               "granted elsewhere")

    fa = a.flock_file(lock.file, t.SHARED)
    fb = b.flock_file(lock.file, t.SHARED)
    t.same([read_token(agent, lock) for agent in (a, b)], [a.token_of(fa), b.token_of(fb)],
           "of two shared holders each reads its own")
    t.ok(a.token_of(fa) < b.token_of(fb), "and they differ")
    a.close(fa)
    b.close(fb)

    fds = [a.in_thread("acquire", [lock.file])]
    t.same(read_token(a, lock), a.token_of(fds[0]), "what another thread took is the process's")
    t.same(lock.holders()[0].pid, a.pid, "`holders` names the process, not the thread")
    a.close(fds[0])

    script = 'set -C; command exec 9>"$L/x"; IFS= read -r n < "$L/token"; cat "$L/token"; echo $n'
    for program in ("bash", "dash"):
        result = t.shell(script, program, L=lock.path)
        lines = result.stdout.split()
        t.ok(len(lines) == 2 and lines[0] == lines[1] and lines[0].isdigit(),
             program + ": the shell and its child read one number")
    for agent in (a, b, stranger):
        agent.kill()


def bystanders(node):
    """Who is nobody's child any more, and has no handle, looks as any other."""
    lock = Lock(node, "bystanders")
    t.put(lock.path + "/.limit", "2\n")
    a, b, stranger = t.Agent(), t.Agent(), t.Agent()
    fd = a.acquire(lock.file)
    fb = b.acquire(lock.path + "/y")
    lines = "%d x\n%d y\n" % (a.token_of(fd), b.token_of(fb))
    child = a.child()
    orphan = child.child()
    t.same(read_token(orphan, lock), a.token_of(fd), "a grandchild reads the holder's number")
    orphan.close(fd)
    t.same(read_token(orphan, lock), a.token_of(fd), "also without the handle")
    a.kill()
    t.same(lock.holders()[0].pid, a.pid, "the holder dies, its child has the handle")
    child.kill()
    t.ok(t.wait_until(lambda: len(lock.holders()) == 1), "and dies, too")
    lines = lines.splitlines()[1] + "\n"
    t.same((t.outcome(orphan.cat, lock.token), stranger.cat(lock.token)), (lines, lines),
           "who outlives them is a bystander")
    fb2 = b.acquire(lock.file)
    lines = ["%d y" % b.token_of(fb), "%d x" % b.token_of(fb2)]
    t.same(stranger.cat(lock.token).splitlines(), lines, "where there can be several, a line each")
    b.close(fb2)
    a = t.Agent()
    fd = a.plain(lock.file)
    child = a.child()
    child.flock(fd, t.EXCLUSIVE)
    a.kill()
    t.same(read_token(child, lock), child.token_of(fd),
           "who has locked what another one opened reads its number")
    child.kill()
    fd = b.acquire(node.path("in-the-root"))
    t.same(stranger.cat(node.path("token")), "%d in-the-root\n" % b.token_of(fd),
           "in the root, too")
    b.close(fd)
    for agent in (orphan, b, stranger):
        agent.kill()


def largest(node):
    """The largest number since one last held nothing here, so that it never goes back."""
    lock = Lock(node, "largest")
    a, b = t.Agent(), t.Agent()
    fx = a.plain(lock.file)
    fy = a.plain(lock.path + "/y")
    a.lockf(fx, os.F_TLOCK, 0)
    first = read_token(a, lock)
    a.lockf(fy, os.F_TLOCK, 0)
    second = read_token(a, lock)
    t.ok(second > first, "a process locks a second file of a lock: a larger number")
    t.same((a.token_of(fx), a.token_of(fy)), (first, second), "each handle has its own")
    a.close(fy)
    t.same((read_token(a, lock), a.token_of(fx)), (second, first),
           "it closes that one: the process's number stays, since it holds the first")
    a.close(fx)
    t.same(read_token(a, lock), "ENODATA", "until it holds nothing")
    fx = a.plain(lock.file)
    a.lockf(fx, os.F_TLOCK, 0)
    t.same(read_token(a, lock), a.token_of(fx), "then it begins anew")
    a.close(fx)

    t.put(lock.path + "/.limit", "2\n")
    fx, fy = a.acquire(lock.file), a.acquire(lock.path + "/y")
    numbers = [a.token_of(fx), a.token_of(fy)]
    child = a.child()
    child.close(fx)
    child.close(fy)
    a.close(fy)
    t.same([read_token(agent, lock) for agent in (a, child)], [numbers[1]] * 2,
           "of a semaphore, too, and for its child")
    t.same(t.cat(lock.token), "%d x\n" % numbers[0], "a bystander reads what is held")
    t.same([isinstance(t.outcome(t.put, lock.token, str(number)), int) for number in numbers],
           [True] * 2, "both can be written to `token`")
    fb = b.acquire(lock.path + "/y")
    t.same(read_token(b, lock), b.token_of(fb), "who comes next reads its own")
    a.unlink(lock.file)
    t.same(read_token(a, lock), "ESTALE", "it unlinks the rest: ESTALE")
    a.close(fx)
    for agent in (child, a, b):
        agent.kill()


def after_loss(node, how):
    lock = Lock(node, "loss-" + how)
    a, b, stranger = t.Agent(), t.Agent(), t.Agent()
    fd = a.acquire(lock.file)
    number = a.token_of(fd)
    heir, child = a.child(), a.child()
    child.close(fd)
    os.unlink(lock.file)
    t.same([read_token(agent, lock) for agent in (a, heir, child)], ["ESTALE"] * 3,
           "the loser, who inherited from it, its child: ESTALE")
    t.same(read_token(stranger, lock), "ESTALE", "a bystander, too, while the lost handle is open")
    t.fails("ESTALE", "the handle itself", a.token_of, fd)

    fb = b.acquire(lock.file) if how == "acquire" else b.flock_file(lock.file, t.EXCLUSIVE)
    second = b.token_of(fb)
    t.ok(second > number, "the next one has a larger number")
    t.same(read_token(b, lock), second, "and reads it")
    t.same([read_token(agent, lock) for agent in (a, heir, child)], ["ESTALE"] * 3,
           "the losers go on reading ESTALE")
    t.same(read_token(stranger, lock), "ESTALE", "so does the bystander")
    a.close(fd)
    t.same(read_token(stranger, lock), "ESTALE", "while one descriptor of it is left")
    t.same(read_token(heir, lock), "ESTALE", "whose owner reads ESTALE")
    heir.close(fd)
    t.same(read_token(stranger, lock), second, "then a bystander reads the present holder's")
    b.close(fb)
    t.same(read_token(stranger, lock), "ENODATA", "and nothing when it is free")
    for agent in (heir, child, a, b, stranger):
        agent.kill()


def check_by_write(node):
    lock = Lock(node, "check")
    a, b = t.Agent(), t.Agent()

    def check(number):
        return t.outcome(t.put, lock.token, "%s\n" % number)

    fd = a.flock_file(lock.file, t.SHARED)
    fb = b.flock_file(lock.file, t.SHARED)
    first, second = a.token_of(fd), b.token_of(fb)
    t.ok(isinstance(check(first), int) and isinstance(check(second), int),
         "writing the number of any claim succeeds")
    a.close(fd)
    t.same(check(first), "ESTALE", "writing that of an ended one")
    t.same([check(second + 1000), check(0)], ["ESTALE"] * 2, "writing one that never was")
    for nonsense in ("", "x", "-1", "12x", "1 2", "99999999999999999999999"):
        t.same(check(nonsense), "EINVAL", "writing %r" % nonsense)
    t.ok(isinstance(t.outcome(t.put, lock.token, str(second)), int), "a newline is not needed")
    for program in ("bash", "dash"):
        result = t.shell('set -C; echo %d >| "$F"' % second, program, F=lock.token)
        t.same(result.returncode, 0, program + ": echo N >| token")
        result = t.shell('set -C; echo %d >| "$F"' % first, program, F=lock.token)
        t.ok(result.returncode not in (0, None) and result.stderr.strip() != "",
             program + ": and a stale one fails")
    b.close(fb)
    t.same(check(second), "ESTALE", "writing it after the release")
    t.fails(("EACCES", "EPERM"), "`holders` cannot be written",
            t.Agent(uid=65534).put, lock.path + "/holders", "x\n")
    a.kill()
    b.kill()


def columns(node):
    lock = Lock(node, "columns")
    t.same((t.cat(lock.path + "/holders"), t.cat(lock.path + "/waiters")), ("", ""),
           "free: `holders` and `waiters` are empty")
    a, b = t.Agent(), t.Agent(uid=65534)
    os.chmod(lock.path, 0o777)
    fd = a.acquire(lock.file)
    fb = b.plain(lock.path + "/y")
    b.begin("flock", fb, t.SHARED)
    t.wait_until(lambda: t.cat(lock.path + "/waiters"))
    with open("/proc/%d/comm" % a.pid) as file:
        command = file.read().strip()
    t.note(t.cat(lock.path + "/holders") + t.cat(lock.path + "/waiters"))
    holder, waiter = lock.holders()[0], lock.waiters()[0]
    t.same((holder.token, holder.pid, holder.user in ("root", "0"), holder.file, holder.command),
           (str(a.token_of(fd)), a.pid, True, "x", command), "a line of `holders`")
    t.ok(float(holder.seconds.rstrip("s")) < 60, "with the seconds that it is held")
    t.same((waiter.pid, waiter.user in ("nobody", "65534"), waiter.file, waiter.command),
           (b.pid, True, "y", command), "a line of `waiters`")
    t.ok(holder.mode != waiter.mode, "exclusive and shared differ")
    t.same((holder.node, waiter.node), (t.status(node)["node"],) * 2, "the node, in both")
    t.ok(t.wait_until(lambda: int(lock.holders()[0].seconds) >= 1), "the seconds grow")
    named = t.Agent()
    named.put("/proc/self/comm", "its own name")
    fn = named.flock_file(node.path("named"), t.EXCLUSIVE)
    command = next(row.command for row in t.rows(node.path("holders")) if row.pid == named.pid)
    t.ok(command.startswith("its") and command.endswith("name"), "the command is that of "
         "/proc/PID/comm, as it is now: %s" % command)
    named.close(fn)
    named.kill()
    with open(t.LOCKFSD, "rb") as file:
        t.same(file.read().count(b"cmdline"), 0, "a command line is never read: it might be mapped "
               "from a file of this very mount")
    a.close(fd)
    b.finish()
    holder = lock.holders()[0]
    t.same((holder.pid, holder.mode, holder.file), (b.pid, waiter.mode, "y"),
           "the waiter moves from `waiters` to `holders`")
    t.same(t.cat(lock.path + "/waiters"), "", "nobody waits")
    a.kill()
    b.kill()
    for name, value in ((".limit", "1\n"), (".release", "close\n"), (".delay", "0\n")):
        t.same(t.outcome(t.cat, lock.path + "/" + name), value, "`%s`" % name)
    t.ok(t.outcome(t.cat, lock.path + "/.ttl").strip().isdigit(), "`.ttl` is a number")
    t.same(t.outcome(t.cat, node.path(".limit")), "unlimited\n", "`.limit` of the root")
    t.ok(t.outcome(t.cat, node.path(".lockfs", "status")).strip() != "", "`.lockfs/status`")
    t.note(t.outcome(t.cat, node.path(".lockfs", "status")))


def ioctls(node):
    lock = Lock(node, "ioctls")
    a, b = t.Agent(), t.Agent()
    fd = a.plain(lock.file)
    t.fails("ENODATA", "TOKEN without a claim", a.token_of, fd)
    t.fails("ENODATA", "LEASE without a claim", a.lease_of, fd)
    a.flock(fd, t.EXCLUSIVE)
    t.ok(0 < a.lease_of(fd) <= 10000, "LEASE is more than 0, and at most the TTL")
    a.flock(fd, t.UNLOCK)
    t.fails("ENODATA", "TOKEN after the release", a.token_of, fd)
    a.close(fd)
    fd = a.acquire(lock.file)
    t.ok(a.token_of(fd) > 0, "TOKEN of a claim by creating")
    fb = b.open(lock.file, os.O_RDONLY)
    t.fails("ENODATA", "TOKEN on another's handle of the same file", b.token_of, fb)
    t.fails("ENOTTY", "an ioctl that does not exist", a.unknown_ioctl, fd)
    t.fails("EINVAL", "ON_LOSS with no signal of that number", a.on_loss, fd, 1000)
    a.on_loss(fd, signal.SIGUSR1)
    t.same(a.poll_loss(fd, 0), 0, "poll sees no loss")
    b.unlink(lock.file)
    t.ok(t.wait_until(lambda: a.signals_seen() == [signal.SIGUSR1]), "ON_LOSS: the signal comes")
    t.fails("ESTALE", "TOKEN after the loss", a.token_of, fd)
    t.fails("ESTALE", "LEASE after the loss", a.lease_of, fd)
    t.same(a.poll_loss(fd, 20000) & LOSS, LOSS, "poll sees POLLERR and POLLHUP")
    a.close(fd)
    fd = a.acquire(lock.file)
    a.on_loss(fd, signal.SIGUSR1)
    a.on_loss(fd, 0)
    b.unlink(lock.file)
    t.same(a.poll_loss(fd, 20000) & LOSS, LOSS, "the next loss")
    t.same(a.signals_seen(), [signal.SIGUSR1], "no signal where it was cancelled")
    a.close(fd)
    fd = a.acquire(lock.file)
    a.on_loss(fd, signal.SIGUSR1)
    a.close(fd)
    t.same(t.cat(lock.path + "/holders"), "", "released")
    t.same(a.signals_seen(), [signal.SIGUSR1], "no signal for one's own release")
    a.kill()
    b.kill()


def increase(node):
    """Numbers go up, whatever is removed and restarted."""
    numbers = []

    def take(path):
        fd = t.acquire(path)
        numbers.append(t.token_of(fd))
        os.close(fd)

    for _ in range(3):
        os.mkdir(node.path("again"))
        take(node.path("again", "x"))
        take(node.path("root-name"))
        os.rmdir(node.path("again"))
        node.restart()
        take(node.path("after-stop"))
        node.kill()
        node.start()
        take(node.path("after-kill"))
    t.same(numbers, sorted(set(numbers)), "numbers increase over rmdir, mkdir and restarts")


def outlive(node):
    """A holder that outlives its daemon."""
    lock = Lock(node, "outlive")
    for end in ("kill -9", "SIGTERM"):
        a, b, stranger = t.Agent(), t.Agent(), t.Agent()
        fd = a.acquire(lock.file)
        number = a.token_of(fd)
        child = a.child()
        if end == "kill -9":
            node.kill()
        else:
            node.begin_drain()
            node.process.terminate()
            node.wait()
        node.start()
        t.fails("ENOTCONN", end + ": the handle is dead", a.write, fd, b"x")
        t.same(t.cat(lock.path + "/holders"), "", end + ": the claim has ended")
        t.same(read_token(a, lock), "ESTALE", end + ": who held reads ESTALE")
        t.same(read_token(child, lock), "ESTALE", end + ": its child, too")
        t.same(read_token(stranger, lock), "ESTALE", end + ": a bystander, too, while it lives")
        fb = b.acquire(lock.file)
        second = b.token_of(fb)
        t.ok(second > number, end + ": the next one gets a larger number")
        t.same([read_token(agent, lock) for agent in (b, a, stranger)],
               [second, "ESTALE", "ESTALE"], end + ": and reads it, the others go on with ESTALE")
        child.kill()
        a.kill()
        t.same(read_token(stranger, lock), second, end + ": until the loser has died")
        b.close(fb)
        t.same(read_token(stranger, lock), "ENODATA", end + ": and then it is free")
        b.kill()
        stranger.kill()


def test():
    node = t.Node().start()
    who_reads(node)
    bystanders(node)
    largest(node)
    after_loss(node, "acquire")
    after_loss(node, "flock")
    check_by_write(node)
    columns(node)
    ioctls(node)
    increase(node)
    outlive(node)


t.main(test)
