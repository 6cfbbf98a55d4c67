#!/usr/bin/python3 -B
"""A full disk: what lives within the room that is reserved goes on, what does not gets a clear error,
releases go on, and nothing is damaged."""

import os
import re
import subprocess

import lockfs_test as t

CONTENT = b"c" * 4096
CLAIMS_EACH = 400  # open files of one process
SAYS_FULL = re.compile("space|full|room", re.IGNORECASE)


class Disk:
    """A small ext4 of its own."""

    def __init__(self, size_mib):
        self.device = t.loop_device(t.base() + "/disk.image", size_mib)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self.device], check=True)
        self.path = t.base() + "/disk"
        os.mkdir(self.path)
        subprocess.run(["mount", self.device, self.path], check=True)

    def fill(self):
        fd = os.open(self.path + "/filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for size in (1 << 20, 4096, 1):
            while t.outcome(os.write, fd, b"f" * size) != "ENOSPC":
                pass
        os.fsync(fd)
        os.close(fd)

    def free(self):
        os.unlink(self.path + "/filler")
        os.sync()


def use_up(node):
    """Claims, writes and keeps until a claim is refused. Who holds, and the error."""
    agents, claims, got = [], 0, None
    while claims < 20 * CLAIMS_EACH:
        if claims % CLAIMS_EACH == 0:
            agents.append(t.Agent())
        got = t.outcome(agents[-1].acquire, node.path("use-%d" % claims))
        if not isinstance(got, int):
            break
        t.outcome(agents[-1].write, got, CONTENT)
        claims += 1
    t.note("%d claims, then %s" % (claims, got))
    return agents, got


def files(node, pattern):
    return sorted(name for name in os.listdir(node.data) if re.fullmatch(pattern, name))


def churn(node):
    result = t.run([t.helper("churn"), node.path("busy"), "8", "3000"], 200)
    if result.returncode != 0:
        t.note(result.stderr)
    return result.returncode == 0


def cycles(disk):
    """The log is cut off on a full disk, by snapshots that have their room, as often as need be."""
    node = t.Node(data=disk.path + "/data").start()
    os.mkdir(node.path("busy"))
    kept = t.Agent()
    number = kept.token_of(kept.acquire(node.path("kept")))
    disk.fill()
    firsts, rounds = set(), 0
    while rounds < 60 and len(firsts) < 3 and churn(node):
        firsts.add(files(node, r"log-\d+")[0])
        rounds += 1
    t.note("%d rounds; log files %s" % (rounds, files(node, r"log-\d+")))
    t.same(len(firsts), 3, "on a full disk, the work goes on, and the log is cut off")
    t.same(len(files(node, r"snapshot-\d+")), 1, "behind a snapshot")
    t.ok(os.stat(node.data + "/reserve").st_blocks * 512 >= 1 << 20, "there is room for another")
    last = number_of_last(node)
    kept.kill()
    node.kill()
    node.start()
    t.ok(number_of_last(node) >= last > number, "what it led to is known to the next daemon")
    t.same(t.cat(node.path("holders")), "", "no claim is left")
    t.ok(churn(node), "and goes on")
    t.same([line for line in node.log().splitlines() if "error" in line], [], "without an error")
    node.stop()
    disk.free()


def number_of_last(node):
    return int(re.search(r"^token (\d+)$", t.cat(node.path(".lockfs", "status")), re.MULTILINE)[1])


def full(node, disk):
    os.mkdir(node.path("kept"))
    holders = [t.Agent() for _ in range(8)]
    creates = [agent.acquire(node.path("held-%d" % i)) for i, agent in enumerate(holders)]
    flocks = [agent.flock_file(node.path("locked-%d" % i), t.EXCLUSIVE)
              for i, agent in enumerate(holders)]
    waiter = t.Agent()
    fw = waiter.plain(node.path("locked-0"))
    waiter.begin("flock", fw, t.EXCLUSIVE)
    t.wait_until(lambda: t.cat(node.path("waiters")))
    disk.fill()
    users, error = use_up(node)
    t.same(error, "ENOSPC", "a claim on the full disk")
    t.ok(t.wait_until(lambda: SAYS_FULL.search(node.log())), "the log says why")
    t.note("it says: " + node.log().strip().splitlines()[-1])
    t.fails("ENOSPC", "flock", t.flock_file, node.path("other"), t.EXCLUSIVE | t.NONBLOCK)
    t.fails("ENOSPC", "mkdir", os.mkdir, node.path("new"))
    names = [row.file for row in t.rows(node.path("holders"))]
    t.same(sum(not name.startswith("use-") for name in names), 16,
           "what is held is held, and can be looked at")
    t.ok(holders[0].token_of(creates[0]) > 0, "its number can be read")
    for agent in users:
        agent.kill()
    for agent, fd in zip(holders, creates):
        agent.close(fd)
    for agent, fd in zip(holders[1:], flocks[1:]):
        agent.flock(fd, t.UNLOCK)
    holders[0].kill()
    waiter.finish()
    t.same(t.pids(node.path("holders")), [waiter.pid], "releases work, and grant who waits")
    waiter.close(fw)
    t.same(t.cat(node.path("holders")), "", "nothing is held any more")
    t.same(node.process.poll(), None, "the daemon lives")
    disk.free()
    t.ok(t.wait_until(lambda: t.outcome(os.mkdir, node.path("new")) is None),
         "with room again, it goes on")
    for agent in holders + [waiter]:
        agent.kill()


def restarts(node, disk):
    """Starts on a full disk."""
    numbers = []
    for how in ("kill", "stop", "kill"):
        if node.process.poll() is None:
            agent = t.Agent()
            fd = agent.acquire(node.path("kept", "x"))
            numbers.append(agent.token_of(fd))
            disk.fill()
            users, error = use_up(node)
            t.same(error, "ENOSPC", "full again")
            for user in users:
                user.kill()
            if how == "kill":
                node.kill()
            else:
                agent.kill()
                node.stop()
            agent.kill()
        node.spawn()
        t.wait_until(lambda: node.is_up() or node.process.poll() is not None, 60)
        if node.process.poll() is None:
            t.ok(node.is_up(), how + ": it starts on the full disk")
        else:
            t.ok(SAYS_FULL.search(node.log().strip().splitlines()[-1]),
                 how + ": it is refused with a clear message")
            t.note("it says: " + node.log().strip().splitlines()[-1])
            disk.free()
            node.start()
        t.same(t.cat(node.path("kept", "holders")), "", how + ": no claim is wrongly there")
        t.ok(os.path.isdir(node.path("busy")), how + ": every lock is there")
        if os.path.exists(disk.path + "/filler"):
            disk.free()
        t.ok(t.wait_until(lambda: isinstance(t.outcome(_once, node, numbers), int)),
             how + ": with room again, it goes on")
    t.same(numbers, sorted(set(numbers)), "numbers increase")


def _once(node, numbers):
    fd = t.acquire(node.path("kept", "y"))
    numbers.append(t.token_of(fd))
    os.close(fd)
    return fd


def test():
    disk = Disk(64)
    cycles(disk)
    node = t.Node(data=disk.path + "/data").start()
    full(node, disk)
    restarts(node, disk)


t.main(test)
