#!/usr/bin/python3 -B
"""`.lockfs/locks`, `events` and `metrics`, by the programs that read such files."""

import fcntl
import json
import os
import re
import signal
import stat
import struct
import subprocess

import lockfs_test as t

NOBODY = 65534
IOC_FORCE = 1 << 30 | 8 << 16 | ord("L") << 8 | 4
EVENT_RING_BYTES = 1 << 20
FILES = ("events", "locks", "metrics", "status")


def file(node, name):
    return node.path(".lockfs", name)


def plain_text(text):
    """What `\\ooo` in `holders`, `locks` and `events` stands for."""
    parts = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
    return parts.encode("latin-1")


def events(node):
    """All events that are kept; each line must be JSON."""
    return [json.loads(line) for line in t.cat(file(node, "events")).splitlines()]


def some(node, **wanted):
    """The events that have these fields."""
    return [event for event in events(node)
            if all(event.get(key) == value for key, value in wanted.items())]


# ---- who may read what


def modes(node):
    user = t.Agent(uid=NOBODY)
    for name in FILES:
        info = os.stat(file(node, name))
        private = name in ("events", "locks")
        t.same((stat.S_IMODE(info.st_mode), info.st_uid), (0o400 if private else 0o444, 0),
               "mode and owner of " + name)
        if private:
            t.fails("EACCES", "a user does not read " + name, user.cat, file(node, name))
        else:
            t.ok(user.cat(file(node, name)), "a user reads " + name)
        t.fails("EPERM", "root does not write " + name, t.put, file(node, name), "x")
    user.kill()
    before = {name: t.cat(file(node, name)) for name in ("locks", "events")}
    result = t.run(["rm", "-rf", node.path(".lockfs")])
    t.note(result.stderr)
    t.same(sorted(os.listdir(node.path(".lockfs"))), sorted(FILES), "rm -rf takes nothing away")
    t.same({name: t.cat(file(node, name)) for name in before}, before, "and changes nothing")
    t.fails("EPERM", "no file is made there", t.plain, file(node, "new"))


# ---- what events say


def force(path):
    fd = os.open(path, os.O_RDONLY)
    fcntl.ioctl(fd, IOC_FORCE, struct.pack("Q", 0))
    os.close(fd)


def wrong_idiom(agent, path):
    """A claim that is closed at once; on a slow machine it may take too long to be noticed."""
    agent.close(agent.acquire(path))


def story(node):
    """One lock with a hostile name, and all that can happen to it."""
    name = b'a "b"\\\n\t\xff\xc3\xa4\x01/in'
    path = os.path.join(os.fsencode(node.mount), name)
    shown = "/" + "".join(chr(byte) if 0x20 < byte < 0x7f and byte != 0x5c else "\\%03o" % byte
                          for byte in name)
    os.makedirs(path)
    a, b = t.Agent(), t.Agent()
    held = a.open(path + b"/\xfe x", t.CLAIM)
    number = a.token_of(held)
    a.close(held)
    granted = some(node, lock=shown, event="granted")
    t.same(len(granted), 1, "the lock is shown as %s" % shown)
    t.same(plain_text(granted[0]["lock"]), b"/" + name, "which gives its name back")
    t.same(plain_text(granted[0]["file"]), b"\xfe x", "and that of the file")
    t.same({key: granted[0][key] for key in ("token", "kind", "mode", "node", "pid", "uid")},
           {"token": number, "kind": "create", "mode": "exclusive", "node": 1, "pid": a.pid,
            "uid": 0}, "a grant names the claim and the process")
    t.ok(t.wait_until(lambda: some(node, lock=shown, event="released", token=number)), "a release")
    t.ok(abs(granted[0]["time"] - os.stat(file(node, "events")).st_mtime) < 60,
         "the time is that of the clock")
    t.same([event["pid"] for event in some(node, lock=shown, event="mkdir")], [os.getpid()],
           "mkdir, and who made it")

    fa = a.open(path + b"/f", t.PLAIN)
    fb = b.open(path + b"/f", t.PLAIN)
    a.flock(fa, t.SHARED)
    b.begin("flock", fb, t.EXCLUSIVE)
    t.ok(t.wait_until(lambda: some(node, lock=shown, event="queued", pid=b.pid)), "a wait")
    b.signal(signal.SIGKILL)
    t.ok(t.wait_until(lambda: some(node, lock=shown, event="unqueued", pid=b.pid,
                                   cause="cancelled")), "its end")
    b.kill()
    t.same([(event["kind"], event["mode"]) for event in some(node, lock=shown, event="granted",
                                                             file="f")],
           [("flock", "shared")], "the kind and the mode of a claim")
    a.flock(fa, t.UNLOCK)
    a.lockf(fa, os.F_TLOCK, 0)
    t.ok(some(node, lock=shown, event="granted", kind="fcntl"), "fcntl")
    force(path + b"/f")
    lost = some(node, lock=shown, event="lost", cause="forced")
    t.same([(event["pid"], event["by_pid"], event["by_uid"]) for event in lost],
           [(a.pid, os.getpid(), 0)], "force, and who it was")
    a.close(fa)

    held = a.open(path + b"/g", t.CLAIM)
    os.unlink(path + b"/g")
    lost = some(node, lock=shown, event="lost", cause="unlinked")
    t.same([(event["pid"], event["by_pid"]) for event in lost], [(a.pid, os.getpid())],
           "unlink by somebody else")
    a.close(held)
    held = a.open(path + b"/g", t.CLAIM)
    a.unlink(path + b"/g")
    a.close(held)
    t.same([event["cause"] for event in some(node, lock=shown, file="g", event="released")],
           ["unlinked"], "unlink by its own process is a release")

    for setting, value in ((".limit", "3"), (".ttl", "7.500"), (".release", "exit"),
                           (".delay", "1")):
        t.put(os.fsdecode(path) + "/" + setting, value)
    os.chmod(path, 0o750)
    os.chown(path, 1, 2)
    t.same([(event["setting"], event["value"]) for event in some(node, lock=shown,
                                                                 event="setting")],
           [(".limit", "3"), (".ttl", "7.500"), (".release", "exit"), (".delay", "1"),
            ("mode", "0750"), ("uid", "1"), ("gid", "2")], "settings, with their values")
    c = t.Agent()
    c.close(c.open(path + b"/h", t.CLAIM))
    c.kill()
    t.ok(t.wait_until(lambda: some(node, lock=shown, event="released", cause="exited")),
         "the end of a process")

    os.mkdir(node.path("short"))
    t.ok(t.wait_until(lambda: wrong_idiom(a, node.path("short", "x")) or
                      some(node, event="short_claim", lock="/short", file="x", pid=a.pid)),
         "the wrong idiom")

    a.open(path + b"/kept", t.CLAIM)
    last = events(node)[-1]["index"]
    node.kill()
    node.start()
    t.same([(event["lock"], event["file"], event["pid"], event["cause"])
            for event in some(node, event="lost")], [(shown, "kept", a.pid, "restart")],
           "a restart tells what it ended")
    t.same([event["lock"] for event in some(node, event="delay_begun", value="1")], [shown],
           "the delay that begins")
    t.same(len(some(node, event="restart")), 1, "and the restart")
    t.ok(min(event["index"] for event in events(node)) > last, "what was told before is not")
    t.ok(t.wait_until(lambda: some(node, event="delay_ended", lock=shown)), "the delay ends")
    a.kill()
    t.ok(t.wait_until(lambda: t.outcome(os.rmdir, path) is None), "rmdir")
    t.same(len(some(node, event="rmdir", lock=shown)), 1, "is told")
    os.rmdir(os.path.dirname(path))
    os.rmdir(node.path("short"))
    steps = [event["index"] for event in events(node)]
    t.same(steps, sorted(steps), "indexes do not decrease")


# ---- reading events


def churn(node, cycles, processes=2):
    result = t.run([t.helper("churn"), node.path("churn"), str(processes), str(cycles)], 120)
    if result.returncode != 0:
        t.note(result.stderr)


def programs(node):
    path = file(node, "events")
    os.mkdir(node.path("churn"))
    churn(node, 200)
    whole = t.cat(path)
    lines = whole.splitlines(keepends=True)
    t.same(os.stat(path).st_size, len(whole), "the size is that of the text")
    t.same(t.run(["cat", path]).stdout, whole, "cat")
    t.same(t.run(["tail", "-n", "5", path]).stdout, "".join(lines[-5:]), "tail -n 5")
    t.same(t.run(["tail", "-c", "1000", path]).stdout, whole[-1000:], "tail -c 1000")
    t.same(t.run(["tail", "-n", "300", path]).stdout, "".join(lines[-300:]),
           "tail -n 300, which reads several blocks backwards")
    t.same(t.run(["head", "-n", "3", path]).stdout, "".join(lines[:3]), "head -n 3")
    t.same(t.run(["wc", "-l", path]).stdout.split()[0], str(len(lines)), "wc -l")
    t.same(t.run(["dd", "if=" + path, "bs=7", "status=none"]).stdout, whole, "dd bs=7")
    copy = t.base() + "/copy"
    t.run(["cp", path, copy])
    t.same(t.cat(copy), whole, "cp")
    t.same(t.shell("n=0; while read -r line; do n=$((n + 1)); done <%s; echo $n" % path).stdout,
           "%d\n" % len(lines), "a loop of the shell")
    result = t.run(["grep", "-r", "-c", "granted", *[file(node, name) for name in FILES]])
    t.same(result.stdout.splitlines()[0].rsplit(":", 1)[1], str(whole.count('"granted"')),
           "grep -r of the files ends")
    found = t.run(["find", node.path(".lockfs"), "-type", "f", "-exec", "grep", "-l", "granted",
                   "{}", "+"]).stdout.splitlines()
    t.ok(path in found, "find and grep")
    os.truncate(path, 0)
    t.same(t.cat(path), whole, "truncate changes nothing")


class Follower:
    """tail -f, with its output in a file."""

    def __init__(self, node, *options):
        self.out = open(t.base() + "/follow", "w+b")
        self.process = subprocess.Popen(["tail", *options, file(node, "events")],
                                        stdout=self.out, stderr=subprocess.DEVNULL)

    def text(self):
        with open(self.out.name, "rb") as got:
            return got.read().decode()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.out.close()


def follow(node):
    follower = Follower(node, "-n", "1", "-f", "-s", "0.05")
    t.ok(t.wait_until(lambda: follower.text().count("\n") == 1), "tail -f begins with the last")
    for name in ("one", "two", "three"):
        os.close(t.acquire(node.path(name)))
        t.ok(t.wait_until(lambda: '"file":"%s"' % name in follower.text()), "and tells " + name)

    # So many that the ring wraps while it is read.
    size = os.stat(file(node, "events")).st_size
    churn(node, 6000)
    os.close(t.acquire(node.path("final")))
    t.ok(t.wait_until(lambda: '"file":"final"' in follower.text()), "after a storm, too")
    follower.stop()
    lines = follower.text().splitlines()
    indexes = [json.loads(line)["index"] for line in lines]
    t.ok(all(a <= b for a, b in zip(indexes, indexes[1:])), "%d lines, each whole" % len(lines))
    grown = os.stat(file(node, "events")).st_size
    kept = t.cat(file(node, "events"))
    t.ok(grown > size + EVENT_RING_BYTES, "the size goes on growing")
    t.ok(EVENT_RING_BYTES * 0.9 < len(kept) <= EVENT_RING_BYTES, "what is kept is bounded")
    t.ok(all(json.loads(line) for line in kept.splitlines()), "and whole lines")
    t.same(t.run(["tail", "-n", "5", file(node, "events")]).stdout,
           "".join(kept.splitlines(keepends=True)[-5:]), "tail -n 5 of it")
    os.rmdir(node.path("churn"))


# ---- locks


def locks(node):
    path = file(node, "locks")
    os.makedirs(node.path("outer", "in ner"))
    agents = a, b, c = [t.Agent() for _ in range(3)]
    held = a.acquire(node.path("outer", "in ner", "x"))
    root = b.flock_file(node.path("of the root"), t.SHARED)
    waits = c.plain(node.path("outer", "in ner", "y"))
    c.begin("flock", waits, t.EXCLUSIVE)
    t.wait_until(lambda: "waiter" in t.cat(path))
    head, *lines = t.cat(path).splitlines()
    t.ok(re.fullmatch(r"index \d+ age_ms 0", head), "the head: " + head)
    t.same(int(head.split()[1]), int(t.status(node)["applied_index"]), "has the index")
    found = {}
    for line in lines:
        what, where, row = line.split(" ", 2)
        found[what, where] = t.Row(row)
    inner = node.path("outer", "in ner")
    t.same(sorted(found), [("holder", "/"), ("holder", "/outer/in\\040ner"),
                           ("waiter", "/outer/in\\040ner")], "holders and waiters, and where")
    t.same(found["holder", "/outer/in\\040ner"].line, t.rows(inner + "/holders")[0].line,
           "a holder as `holders` has it")
    t.same(found["waiter", "/outer/in\\040ner"].line, t.rows(inner + "/waiters")[0].line,
           "a waiter as `waiters` has it")
    t.same((found["holder", "/"].pid, found["holder", "/"].file), (b.pid, "of\\040the\\040root"),
           "a claim in the root")
    t.same(t.run(["dd", "if=" + path, "bs=1", "status=none"]).stdout.splitlines()[0], head,
           "a byte at a time")
    result = t.shell("while read -r what where row; do echo $what; done <%s" % path)
    t.same(sorted(result.stdout.split()), ["holder", "holder", "index", "waiter"],
           "a loop of the shell")
    t.same(t.run(["tail", "-n", "1", path]).stdout.splitlines(), lines[-1:], "tail")
    fd = os.open(path, os.O_RDONLY)
    t.fails("ESPIPE", "there is no seek in it", os.lseek, fd, 10, os.SEEK_SET)
    os.close(fd)
    a.close(held)
    b.close(root)
    c.finish()
    t.ok(t.wait_until(lambda: len(t.cat(path).splitlines()) == 2), "only who was waiting holds")
    for agent in agents:
        agent.kill()
    os.rmdir(inner)
    os.rmdir(node.path("outer"))


# ---- metrics


def parse_metrics(text):
    """
    A strict reader of Prometheus' text format: {(name, labels): value}, {name: type}. Raises
    ValueError at what is not as it should be.
    """
    samples, types, helps = {}, {}, set()
    family = None
    if not text.endswith("\n"):
        raise ValueError("the last line does not end")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            if name in helps or len(line.split(" ", 3)) < 4:
                raise ValueError("HELP: " + line)
            helps.add(name)
            continue
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            if family in types or family not in helps or kind not in ("counter", "gauge"):
                raise ValueError("TYPE: " + line)
            types[family] = kind
            continue
        match = re.fullmatch(r'([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="[^"\\]*",?)+)\})? (\d+)', line)
        if not match or match[1] != family or (match[1], match[2]) in samples:
            raise ValueError("sample: " + line)
        if (types[family] == "counter") != family.endswith("_total"):
            raise ValueError("a counter is called so: " + line)
        samples[match[1], match[2]] = int(match[3])
    if set(types) != helps or {name for name, _ in samples} != helps:
        raise ValueError("a family without samples")
    return samples, types


def metrics(node):
    path = file(node, "metrics")
    os.mkdir(node.path("m"))
    before, types = parse_metrics(t.cat(path))
    t.ok(len(types) > 25, "%d families, %d samples" % (len(types), len(before)))
    a, b = t.Agent(), t.Agent()
    held = a.acquire(node.path("m", "x"))
    for _ in range(3):
        t.fails("EEXIST", "held", b.acquire, node.path("m", "y"))
    fd = b.plain(node.path("m", "z"))
    t.fails("EAGAIN", "held", b.flock, fd, t.EXCLUSIVE | t.NONBLOCK)
    t.fails("EPERM", "a name that nobody may have", b.acquire, node.path("m", ".hidden"))
    b.begin("flock", fd, t.EXCLUSIVE)
    t.wait_until(lambda: t.pids(node.path("m", "waiters")))
    during, _ = parse_metrics(t.cat(path))
    a.close(held)
    b.finish()
    fd2 = b.plain(node.path("m", "z"))
    b.close(fd)
    b.close(fd2)
    # `holders` no longer shows what is closed; it is counted when the log has it.
    t.wait_until(lambda: parse_metrics(t.cat(path))[0]["lockfs_used", 'what="claims"'] == 0)
    after, again = parse_metrics(t.cat(path))
    t.same(again, types, "the same families")
    t.ok(all(before[key] <= during[key] <= after[key] for key in before
             if types[key[0]] == "counter"), "counters do not decrease")

    def grown(name, labels=None, by=after):
        return by["lockfs_" + name, labels] - before["lockfs_" + name, labels]

    t.same((grown("grants_total", 'kind="create"'), grown("grants_total", 'kind="flock"'),
            grown("releases_total"), grown("waits_total"), grown("waits_granted_total"),
            grown("waits_interrupted_total")), (1, 1, 2, 1, 1, 0), "grants, releases, waits")
    t.same((grown("refusals_total", 'reason="EEXIST"'),
            grown("refusals_total", 'reason="EWOULDBLOCK"'),
            grown("refusals_total", 'reason="other"')), (3, 1, 1), "refusals by their reason")
    t.same((during["lockfs_used", 'what="claims"'], during["lockfs_used", 'what="waiters"'],
            after["lockfs_used", 'what="claims"'], after["lockfs_used", 'what="waiters"']),
           (1, 1, 0, 0), "what is in use")
    t.ok(grown("commands_applied_total") >= 4 and grown("log_entries_total") >= 4 and
         grown("log_bytes_total") > 100 and grown("log_syncs_total") >= 4, "the log")
    t.same((after["lockfs_leader", None], after["lockfs_stalled", None],
            after["lockfs_applied_index", None]),
           (1, 0, int(t.status(node)["applied_index"])), "the node")
    t.ok(0 <= os.stat(path).st_mtime - after["lockfs_start_time_seconds", None] < 600,
         "when it started")
    t.ok(after["lockfs_log_disk_bytes", None] >= after["lockfs_log_bytes_total", None], "the disk")
    t.same(sum(name == "lockfs_limit" for name, _ in after),
           sum(name == "lockfs_used" for name, _ in after), "each use has its limit")
    key = "lockfs_short_claims_total", None
    t.ok(t.wait_until(lambda: wrong_idiom(a, node.path("m", "w")) or
                      parse_metrics(t.cat(path))[0][key] > after[key]), "the wrong idiom")
    t.wait_until(lambda: t.cat(node.path("m", "holders")) == "")
    a.kill()
    b.kill()
    os.rmdir(node.path("m"))


def delays(node):
    """What nobody is granted is listed as `holders` has it."""
    agent = t.Agent()
    for name, limit in (("one", "1"), ("ma ny", "unlimited")):
        os.mkdir(node.path(name))
        t.put(node.path(name, ".limit"), limit)
        t.put(node.path(name, ".delay"), "3600")
        agent.acquire(node.path(name, "fi le"))
    node.kill()
    node.start()
    t.ok(re.search(r"warning: one/fi.*le: the claim \d+ of process %d " % agent.pid, node.log()),
         "the log names the claims that a restart has ended")
    agent.kill()
    wanted = [("one", "-"), ("ma\\040ny", "fi\\040le")]
    shown = [line.split(" ") for line in t.cat(file(node, "locks")).splitlines()[1:]]
    for fields in shown:
        t.ok(fields.pop(7).isdigit(), "the seconds of a delay")
    t.same(sorted(shown), sorted(["holder", "/" + lock, "-", "delay", "-", "-", "-", name, "-"]
                                 for lock, name in wanted), "delays in locks")
    t.ok("lockfs_delays 2\n" in t.cat(file(node, "metrics")), "as many as metrics counts")
    for lock in ("one", "ma ny"):
        line = t.cat(node.path(lock, "holders")).split(" ")
        t.same(line[:2] + line[6:], ["-", "delay", {"one": "-", "ma ny": "fi\\040le"}[lock], "-\n"],
               "and in holders of %s" % lock)


def test():
    node = t.Node().start()
    for part in (modes, story, programs, follow, locks, metrics, delays):
        t.note(part.__name__)
        part(node)


t.main(test)
