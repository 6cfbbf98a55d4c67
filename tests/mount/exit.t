#!/usr/bin/python3 -B
"""`.release` exit: a claim by creating lives until the process that made it ends."""

import os
import resource
import select
import subprocess
import sys
import time

import lockfs_test as t


class Lock:
    """A lock whose claims end with their process."""

    def __init__(self, node, name, limit="1"):
        self.path = node.path(name)
        os.mkdir(self.path)
        t.put(self.path + "/.release", "exit\n")
        t.put(self.path + "/.limit", limit + "\n")
        self.file = self.path + "/x"

    def holders(self):
        return t.pids(self.path + "/holders")

    def ends(self, name):
        t.ok(t.wait_until(lambda: not self.holders() and "x" not in os.listdir(self.path), 10),
             name)


def make(agent, path, content=b""):
    """As a program does that closes at once."""
    fd = agent.acquire(path)
    if content:
        agent.write(fd, content)
    agent.close(fd)


def outlives_close(node):
    lock = Lock(node, "close")
    a, b = t.Agent(), t.Agent()
    fd = a.acquire(lock.file)
    token = a.token_of(fd)
    a.write(fd, b"%d\n" % a.pid)
    a.close(fd)
    t.same(lock.holders(), [a.pid], "close does not end it: `holders` has it")
    t.ok("x" in os.listdir(lock.path), "readdir has it")
    t.same((os.stat(lock.file).st_size, t.cat(lock.file)), (len(str(a.pid)) + 1, "%d\n" % a.pid),
           "stat and its content")
    row = t.rows(lock.path + "/holders")[0]
    t.same((int(row.token), row.mode, row.file), (token, "exclusive", "x"), "the whole line")
    t.fails("EEXIST", "another process, the same name", b.acquire, lock.file)
    t.fails("EEXIST", "another name", b.acquire, lock.path + "/y")
    t.fails("EEXIST", "its own process: never re-entrant", a.acquire, lock.file)
    fb = b.plain(lock.path + "/y")
    t.fails("EAGAIN", "flock", b.flock, fb, t.SHARED | t.NONBLOCK)
    fa = a.plain(lock.file)
    t.fails("EAGAIN", "flock by its own process, through another handle", a.flock, fa,
            t.EXCLUSIVE | t.NONBLOCK)
    t.fails("ENODATA", "which has no number", a.token_of, fa)
    t.fails("ENOTEMPTY", "rmdir", os.rmdir, lock.path)

    child = a.child()
    grandchild = child.child()
    t.same([int(agent.cat(lock.path + "/token")) for agent in (a, child, grandchild)], [token] * 3,
           "`token` after the close: the creator's, for it and those that it has made")
    t.same(int(b.cat(lock.path + "/token")), token, "a bystander reads the holder's")
    t.same(t.outcome(t.put, lock.path + "/token", "%d\n" % token), len(str(token)) + 1,
           "it belongs to a claim")
    b.begin("flock", fb, t.EXCLUSIVE)
    t.wait_until(lambda: t.pids(lock.path + "/waiters") == [b.pid])
    a.kill()
    b.finish()
    t.same(lock.holders(), [b.pid], "its end grants who waits, although it has children")
    t.fails("ESTALE", "its number is stale then", t.put, lock.path + "/token", "%d\n" % token)
    for agent in (b, child, grandchild):
        agent.kill()
    lock.ends("and all is over")


def ends(node):
    """The ways of a process to end."""
    lock = Lock(node, "ends")
    code = ("import os,sys,threading,time\n"
            "def make():\n"
            "    os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY))\n"
            "    print('made', flush=True)\n"
            "how = sys.argv[2]\n"
            "if 'thread' in how:\n"
            "    threading.Thread(target=make).start()\n"
            "else:\n"
            "    make()\n"
            "sys.stdin.readline()\n"
            "if 'exec' in how:\n"
            "    os.execlp('sh', 'sh', '-c', 'echo on; read line')\n")
    for how in ("exit", "thread, exit", "kill", "thread, kill", "exec"):
        process = subprocess.Popen([sys.executable, "-c", code, lock.file, how],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        if "thread" in how:
            t.wait_until(lambda: len(os.listdir("/proc/%d/task" % process.pid)) == 1)
        t.same(lock.holders(), [process.pid], "%s: held, by the process" % how)
        if how == "exec":
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            t.same(lock.holders(), [process.pid], "exec goes on with it: the process is the same")
        if "kill" in how:
            process.kill()
        process.communicate(b"\n")
        lock.ends("%s: over with the process" % how)

    # A process that has ended and that nobody has waited for is an ended one.
    pid = os.fork()
    if pid == 0:
        os.close(t.acquire(lock.file))
        os._exit(0)
    lock.ends("a zombie holds nothing")
    os.waitpid(pid, 0)

    wrong = []
    for turn in range(30):
        a = t.Agent()
        make(a, lock.file)
        a.kill()
        if not t.wait_until(lambda: not lock.holders(), 5):
            wrong.append(turn)
    t.same(wrong, [], "30 processes one after another")
    result = t.shell('set -C; : > "$f" && cat "$d/token" && [ "$(cat "$d/token")" = '
                     '"$(cat "$d/last")" ] && ! ( : > "$f" ) 2>/dev/null', f=lock.file, d=lock.path)
    t.same(result.returncode, 0, "a shell that creates, closes, and reads its number by cat")
    t.note(result.stderr)
    lock.ends("over with the shell")


def children(node):
    lock = Lock(node, "children")
    a, b = t.Agent(), t.Agent()
    fd = a.acquire(lock.file)
    child = a.child()
    a.close(fd)
    t.same(lock.holders(), [a.pid], "held, and a child has inherited the descriptor")
    t.ok(child.token_of(fd) > 0, "which knows the number")
    t.same(t.outcome(child.write, fd, b"child"), 5, "and can write")
    child.begin("poll_loss", fd, 20000)
    a.kill()
    t.ok(t.wait_until(lambda: not lock.holders(), 10), "the child does not prolong it")
    t.same(child.finish() & select.POLLERR, select.POLLERR, "its descriptor shows POLLERR")
    t.fails(("ESTALE", "ENODATA"), "and has no number any more", child.token_of, fd)
    t.fails(("ESTALE", "EPERM"), "nor writes", child.write, fd, b"x")
    fb = b.acquire(lock.file)
    t.same(lock.holders(), [b.pid], "another one can have the lock")
    t.fails(("ESTALE", "EPERM"), "under which the child does not write, either", child.write, fd,
            b"x")
    b.write(fb, b"new")
    child.close(fd)
    t.same((lock.holders(), t.cat(lock.file)), ([b.pid], "new"), "and whose close ends nothing")
    b.close(fb)
    b.kill()
    child.kill()
    lock.ends("over")

    a = t.Agent()
    child = a.child()
    make(child, lock.file)
    t.same(lock.holders(), [child.pid], "what a child makes is its own")
    a.kill()
    t.same(lock.holders(), [child.pid], "and not its parent's")
    child.kill()
    lock.ends("until it ends itself")


def reopened(node):
    """While it is held, every process of the node can write it, as the modes allow."""
    lock = Lock(node, "reopened")
    a, b, stranger = t.Agent(), t.Agent(), t.Agent(uid=65534)
    make(a, lock.file, b"first\n")
    fd = a.open(lock.file, os.O_RDWR)
    t.same(a.pwrite(fd, b"FIRST", 0), 5, "the creator opens it again, and writes")
    fb = b.open(lock.file, os.O_RDWR)
    t.same(b.pwrite(fb, b"second\n", 0), 7, "another process does")
    t.same(t.cat(lock.file), "second\n", "everybody reads it")
    b.ftruncate(fb, 3)
    t.same((t.cat(lock.file), b.fstat(fb).st_size), ("sec", 3), "and truncates")
    t.same(t.outcome(b.utime, fb), None, "and touches")
    b.close(b.open(lock.file, os.O_WRONLY | os.O_APPEND))
    appending = b.open(lock.file, os.O_WRONLY | os.O_APPEND)
    b.write(appending, b"tion")
    t.same(t.cat(lock.file), "section", "and appends")
    t.same(b.shell('printf X 1<>"$f" && printf Y >> "$f"'.replace("$f", lock.file)).returncode, 0,
           "a shell, too")
    t.same(t.cat(lock.file), "XectionY", "with effect")
    t.fails("EFBIG", "but not beyond 4096 bytes", b.pwrite, fb, b"x", 4096)
    t.fails("EACCES", "another user, whom the mode does not allow, does not", stranger.open,
            lock.file, os.O_WRONLY)
    other = b.open(lock.path + "/y", os.O_RDWR | os.O_CREAT)
    t.fails("EPERM", "a file of that lock that nobody claims", b.write, other, b"x")
    t.fails("ENODATA", "a reopened handle is not the claim", b.token_of, fb)
    b.close(fb)
    a.close(fd)
    t.same(lock.holders(), [a.pid], "its close ends nothing")
    fb = b.open(lock.file, os.O_RDWR)
    a.kill()
    lock.ends("the end of the creator does")
    t.fails("EPERM", "then it cannot be written any more", b.pwrite, fb, b"x", 0)
    t.fails("EPERM", "nor truncated", b.ftruncate, fb, 0)
    make(b, lock.file)
    t.same(t.cat(lock.file), "", "the next one begins empty")
    t.same(b.pwrite(fb, b"again", 0), 5, "and the old handle writes to it")
    b.kill()
    stranger.kill()
    lock.ends("over")


def unlinked(node):
    lock = Lock(node, "unlink")
    a, b, stranger = t.Agent(), t.Agent(), t.Agent(uid=65534)
    make(a, lock.file)
    t.fails(("EACCES", "EPERM"), "another user cannot unlink", stranger.unlink, lock.file)
    a.unlink(lock.file)
    t.same((lock.holders(), os.path.exists(lock.file)), ([], False),
           "unlink by the creator ends it")
    t.fails("ENODATA", "`token`: free", b.cat, lock.path + "/token")
    t.fails("ENOENT", "a second unlink", a.unlink, lock.file)
    make(b, lock.file)
    t.same(lock.holders(), [b.pid], "the next one comes, while the first still lives")
    a.kill()
    t.same(lock.holders(), [b.pid], "whose end does not concern it")
    make_again = []
    b.unlink(lock.file)
    for _ in range(50):
        make_again.append(t.outcome(make, b, lock.file))
        make_again.append(t.outcome(b.unlink, lock.file))
    t.same(set(make_again), {None}, "create, close, unlink, 50 times over")
    b.kill()
    t.same(lock.holders(), [], "and nothing is left")

    a, b = t.Agent(), t.Agent()
    make(a, lock.file)
    token = int(a.cat(lock.path + "/token"))
    t.same(t.run(["rm", lock.file]).returncode, 0, "rm by another process of the node")
    t.same(lock.holders(), [], "ends it, too")
    t.ok(t.wait_until(lambda: "(rm) unlinked the claim %d of process %d" % (token, a.pid)
                      in node.log()), "and the log names it")
    t.fails("ESTALE", "the creator reads ESTALE from `token`", a.cat, lock.path + "/token")
    t.fails("ESTALE", "so does a bystander while that one lives", b.cat, lock.path + "/token")
    make(b, lock.file)
    t.ok(int(b.cat(lock.path + "/token")) > token, "the next holder reads its number")
    t.fails("ESTALE", "the creator ESTALE still", a.cat, lock.path + "/token")
    a.kill()
    b.kill()
    lock.ends("over")
    t.fails("ENODATA", "with the creator goes the ESTALE", t.cat, lock.path + "/token")

    a = t.Agent()
    fd = a.acquire(lock.file)
    t.run(["rm", lock.file])
    t.fails("ESTALE", "a creator that has it open gets ESTALE", a.write, fd, b"x")
    t.same(a.poll_loss(fd, 0) & select.POLLERR, select.POLLERR, "and POLLERR")
    a.kill()


def sequence(node):
    lock = Lock(node, "sequence", "2")
    a, b, c = t.Agent(), t.Agent(), t.Agent()
    make(a, lock.path + "/a")
    make(b, lock.path + "/b")
    t.same(lock.holders(), [a.pid, b.pid], "a semaphore of such claims")
    t.fails("EEXIST", "is full with two", c.acquire, lock.path + "/c")
    a.kill()
    t.ok(t.wait_until(lambda: t.outcome(make, c, lock.path + "/c") is None), "one ends, one comes")
    t.same(lock.holders(), [b.pid, c.pid], "these two")
    one = t.Agent()
    b.kill()
    c.kill()
    t.wait_until(lambda: not lock.holders())
    make(one, lock.path + "/a")
    make(one, lock.path + "/b")
    t.same(lock.holders(), [one.pid] * 2, "one process can have both")
    one.kill()
    t.ok(t.wait_until(lambda: not lock.holders()), "and its end ends both")


def mixed(node):
    """Changing `.release` concerns later claims; flock and fcntl end as ever."""
    lock = Lock(node, "mixed")
    a, b = t.Agent(), t.Agent()
    fd = a.flock_file(lock.file, t.EXCLUSIVE)
    a.close(fd)
    t.same(lock.holders(), [], "flock ends by close")
    fd = a.plain(lock.file)
    a.lockf(fd, os.F_TLOCK, 0)
    a.close(fd)
    t.same(lock.holders(), [], "lockf does")
    fd = a.acquire(lock.file)
    a.flock(fd, t.EXCLUSIVE)
    a.close(fd)
    t.same(lock.holders(), [a.pid], "with flock on the same handle, the claim by creating stays")
    t.same([row.mode for row in t.rows(lock.path + "/holders")], ["exclusive"], "that one alone")
    t.put(lock.path + "/.release", "close\n")
    t.same(lock.holders(), [a.pid], "`close` written while it is held changes nothing for it")
    a.kill()
    lock.ends("it ends with its process")
    a = t.Agent()
    fd = a.acquire(lock.file)
    t.put(lock.path + "/.release", "exit\n")
    a.close(fd)
    t.same(lock.holders(), [], "a claim from before `exit` ends by close")
    fd = a.acquire(lock.file)
    a.lockf(fd, os.F_TLOCK, 0)
    a.close(a.dup(fd))
    t.same(len(lock.holders()), 1, "F_SETLK on the handle: the close of a duplicate drops it, and "
           "leaves the claim")
    a.close(fd)
    t.same(lock.holders(), [a.pid], "which lives on")
    a.kill()
    b.kill()
    lock.ends("over")


def leaves_nothing(node):
    a = t.Agent()
    lock = Lock(node, "nothing", "unlimited")
    before = int(t.status(node)["open_handles"])
    for number in range(100):
        make(a, "%s/n%d" % (lock.path, number))
    t.same(len(os.listdir(lock.path)), 100, "100 of them in an unlimited lock")
    descriptors = len(os.listdir("/proc/%d/fd" % node.process.pid))
    a.kill()
    t.ok(t.wait_until(lambda: not os.listdir(lock.path), 10), "all end with their process")
    wanted = {"claims": "0", "claims_of_this_node": "0"}
    t.ok(t.wait_until(lambda: wanted.items() <= t.status(node).items()), "none is left")
    t.ok(t.wait_until(lambda: int(t.status(node)["open_handles"]) <= before), "no handle, either")
    t.ok(descriptors - len(os.listdir("/proc/%d/fd" % node.process.pid)) <= 2,
         "one process costs the daemon one descriptor")


def wrong_idiom(node):
    """In a lock whose claims end by close, a claim that is closed at once gets a warning."""
    os.mkdir(node.path("idiom"))

    def warned(name):
        return any("warning" in line and "idiom/%s:" % name in line
                   for line in node.log().splitlines())

    # A warning that must not come would have come before one that was caused later.
    def none(name, what):
        a = t.Agent()
        make(a, node.path("idiom", "after-" + name))
        t.ok(t.wait_until(lambda: warned("after-" + name)), "(what comes after it warns)")
        t.ok(not warned(name), what + ": no warning")
        a.kill()

    a = t.Agent()
    make(a, node.path("idiom", "x"))
    t.ok(t.wait_until(lambda: warned("x")), "create and close: a warning in the log")
    t.ok(any("idiom/x:" in line and "process %d (exit.t)" % a.pid in line
             for line in node.log().splitlines()), "which names the program")
    result = t.shell('set -C; : > "$f"; read line < /dev/null; sleep 0.2',
                     f=node.path("idiom", "s"))
    t.ok(result.returncode == 0 and t.wait_until(lambda: warned("s")), "`: > file` of a shell: too")

    a.kill()
    a = t.Agent()
    a.acquire(node.path("idiom", "killed"))
    a.kill()
    none("killed", "a process that is killed at once")
    t.run([sys.executable, "-c", "import os,sys; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL)",
           node.path("idiom", "ended")])
    none("ended", "one that ends at once, with the descriptor open")
    a = t.Agent()
    fd, late = a.acquire(node.path("idiom", "long")), a.acquire(node.path("late"))
    time.sleep(1.1)  # the second within which a claim is a short one
    a.close(fd)
    none("long", "a claim of more than a second")
    a.flock(late, t.EXCLUSIVE)
    a.close(late)
    t.ok(t.wait_until(lambda: not os.path.exists(node.path("late"))), "a long claim, with a flock "
         "on its handle at last, is over")
    fd = a.acquire(node.path("idiom", "unlinked"))
    a.unlink(node.path("idiom", "unlinked"))
    a.close(fd)
    none("unlinked", "one that was unlinked")
    a.close(a.flock_file(node.path("idiom", "flocked"), t.EXCLUSIVE))
    none("flocked", "a flock that ends at once")
    t.ok(not any("warning: late:" in line for line in node.log().splitlines()),
         "a long claim with a flock on its handle at last: no warning")
    a.kill()


def drain(node):
    lock = Lock(node, "drain")
    a, b = t.Agent(), t.Agent()
    make(a, lock.file, b"on")
    node.begin_drain()
    t.same((lock.holders(), node.process.poll()), ([a.pid], None), "a drain waits for it")
    fd = b.open(lock.file, os.O_RDWR)
    t.same(t.outcome(b.pwrite, fd, b"still", 0), 5, "it can be written meanwhile")
    b.close(fd)
    a.kill()
    t.same(node.wait(), 0, "the end of its process ends the daemon")
    node.start()
    a = t.Agent()
    make(a, lock.file)
    node.begin_drain()
    a.unlink(lock.file)
    t.same(node.wait(), 0, "unlink does, too")
    node.start()
    t.same((lock.holders(), t.cat(lock.path + "/.release")), ([], "exit\n"), "then it is free")
    a.kill()
    b.kill()


def many_processes():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    node = t.Node().start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    lock = Lock(node, "many", "unlimited")
    agents = [t.Agent() for _ in range(60)]
    results = [t.outcome(make, agent, "%s/%d" % (lock.path, agent.pid)) for agent in agents]
    t.same([result for result in results if result], [],
           "more processes than descriptors that a program usually may have")
    t.same(sorted(lock.holders()), sorted(agent.pid for agent in agents), "all hold")
    for agent in agents:
        agent.kill()
    t.ok(t.wait_until(lambda: not lock.holders(), 10), "and all end")
    t.same(node.stop(), 0, "as the daemon does")


def test():
    many_processes()
    node = t.Node("--drain-timeout", "60").start()
    for part in (outlives_close, ends, children, reopened, unlinked, sequence, mixed,
                 leaves_nothing, wrong_idiom, drain):
        t.note(part.__name__)
        part(node)


t.main(test)
