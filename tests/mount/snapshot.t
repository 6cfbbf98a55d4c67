#!/usr/bin/python3 -B
"""Snapshots: the log is cut off, and nothing that was in it is forgotten."""

import os
import random
import re
import subprocess
import time

import lockfs_test as t

SEGMENT = 4 << 20
CYCLES, PROCESSES = 6000, 8
KILLS, WORKERS = 25, 8


def files(node, pattern):
    return sorted(name for name in os.listdir(node.data) if re.fullmatch(pattern, name))


def snapshots(node):
    return files(node, r"snapshot-\d+")


def logs(node):
    return files(node, r"log-\d+")


def used(node):
    total = 0
    for name in os.listdir(node.data):
        size = t.outcome(lambda name=name: os.stat(os.path.join(node.data, name)).st_size)
        total += size if isinstance(size, int) else 0
    return total


def last_number(node):
    return int(re.search(r"^token (\d+)$", t.cat(node.path(".lockfs", "status")), re.MULTILINE)[1])


def number_of_one_more(node):
    """Of a claim by a process that has ended when this returns: what a restart of the daemon does to
    its claim is nobody's business."""
    agent = t.Agent()
    number = agent.token_of(agent.acquire(node.path("kept", "x")))
    agent.kill()
    return number


def churn(node):
    result = t.run([t.helper("churn"), node.path("all"), str(PROCESSES), str(CYCLES)], 200)
    if result.returncode != 0:
        t.note(result.stderr)
    return result.returncode == 0


def cut_off_one_more(node, rounds=30):
    """Works until the first file of the log is another one. False where it stays."""
    first = logs(node)[0]
    while rounds and logs(node)[0] == first:
        if not churn(node):
            return False
        rounds -= 1
    return logs(node)[0] != first


def bounded():
    node = t.Node("--snapshot-log-bytes", "65536").start()
    os.mkdir(node.path("all"))
    os.mkdir(node.path("kept"), 0o750)
    os.mkdir(node.path("kept", "inner"))
    os.chown(node.path("kept", "inner"), 1, 2)
    number = number_of_one_more(node)
    seen, most = set(), 0
    for _ in range(6):
        if not t.ok(churn(node), "%d cycles by %d processes" % (CYCLES, PROCESSES)):
            break
        seen.update(snapshots(node))
        most = max(most, used(node))
    t.note("log files %s, %d bytes at most; last number %d" % (
        logs(node), most, last_number(node)))
    t.ok(len(seen) >= 5, "there were many snapshots")
    t.ok(logs(node)[0] != "log-0000000000000001", "the log was cut off at its front")
    t.ok(most < 6 * SEGMENT, "it never takes much of the disk")
    t.ok(t.wait_until(lambda: len(snapshots(node)) == 1), "one snapshot is kept")
    last = last_number(node)
    for how in ("stop", "kill"):
        getattr(node, how)()
        node.start()
        t.same(last_number(node), last, how + ": the last number is known")
        t.same(int(t.cat(node.path("kept", "last"))), number,
               how + ": also that of a lock long unused")
        one, two = os.stat(node.path("kept")), os.stat(node.path("kept", "inner"))
        t.same((one.st_mode & 0o777, two.st_uid, two.st_gid), (0o750, 1, 2),
               how + ": modes and owners are")
        number = number_of_one_more(node)
        t.ok(number > last, how + ": numbers go on")
        last = last_number(node)
    return node


def losers(node):
    """Who lost a claim by a restart is told so, whatever became of the log since."""
    agent = t.Agent()
    agent.acquire(node.path("kept", "x"))
    node.kill()
    node.start()
    t.fails("ESTALE", "a process that lost a claim reads", t.cat, node.path("kept", "token"))
    t.ok(cut_off_one_more(node), "what says so is no longer in the log")
    node.kill()
    node.start()
    t.fails("ESTALE", "it is known after a restart", t.cat, node.path("kept", "token"))
    t.fails("ESTALE", "to itself, too", agent.cat, node.path("kept", "token"))
    agent.kill()
    t.same(t.outcome(t.cat, node.path("kept", "token")), "ENODATA", "until it has ended")


def refusals(node):
    """A snapshot that is damaged or gone: no start without what was in it."""
    last = last_number(node)
    node.stop()
    name = os.path.join(node.data, snapshots(node)[0])
    with open(name, "rb") as file:
        good = file.read()
    at = len(good) // 2
    with open(name, "r+b") as file:
        file.seek(at)
        file.write(bytes([good[at] ^ 4]))
    result = t.attempt(node)
    t.same(result.returncode, t.EXIT_REFUSED, "a damaged snapshot: refused")
    t.ok(name in result.stderr and "byte " in result.stderr, "with file and place")
    os.rename(name, name + "-away")
    result = t.attempt(node)
    t.same(result.returncode, t.EXIT_REFUSED, "a missing snapshot: refused")
    t.ok(node.data + "/log-" in result.stderr, "with the part of the log that is not there")
    with open(name, "wb") as file:
        file.write(good)
    os.unlink(name + "-away")
    unfinished = name[:-2] + "99.new"
    with open(unfinished, "wb") as file:
        file.write(good[:100])
    node.start()
    # The daemon may be writing one of its own.
    t.ok(not os.path.exists(unfinished), "an unfinished one is removed")
    t.ok(last_number(node) >= last, "and it starts with the right one")
    node.stop()


def killed():
    """kill -9 while one snapshot follows the other."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    t.note("SEED=%d" % seed)
    dice = random.Random(seed)
    node = t.Node("--snapshot-log-bytes", "1024").start()
    os.mkdir(node.path("lock"))
    journals = ["%s/snapshot-journal-%d" % (t.base(), i) for i in range(WORKERS)]
    workers = [subprocess.Popen([t.helper("worker"), node.path("lock"), journal, str(seed + i)])
               for i, journal in enumerate(journals)]
    unfinished, starts = 0, set()
    try:
        for _ in range(KILLS):
            first = int(t.cat(node.path("lock", "last")))
            t.wait_until(lambda: int(t.cat(node.path("lock", "last"))) >= first + 20)
            time.sleep(dice.random() * 0.05)  # not to synchronise: any moment is a good one
            node.kill()
            unfinished += len(files(node, r"snapshot-\d+\.new"))
            starts.update(snapshots(node))
            node.start()
    finally:
        for worker in workers:
            worker.terminate()
        codes = [worker.wait(60 * t.SLOW) for worker in workers]
    t.same(codes, [0] * WORKERS, "the workers come to their end")
    numbers = []
    for path in journals:
        with open(path) as file:
            numbers += [int(line.split()[0]) for line in file if not line.startswith("#")]
    t.note("%d grants; %d kills, %d of them during a snapshot, %d snapshots to start from" % (
        len(numbers), KILLS, unfinished, len(starts)))
    t.ok(len(starts) > KILLS / 2, "the daemon starts from snapshots")
    t.same(len(set(numbers)), len(numbers), "no number was given twice")
    t.ok(max(numbers) <= int(t.cat(node.path("lock", "last"))), "and none is forgotten")
    t.same((t.cat(node.path("lock", "holders")), t.cat(node.path("lock", "waiters"))), ("", ""),
           "nobody is left")
    node.stop()


def small_disk():
    """A log that would not fit is cut off in time, whatever the threshold."""
    device = t.loop_device(t.base() + "/small.image", 28)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", device], check=True)
    path = t.base() + "/small"
    os.mkdir(path)
    subprocess.run(["mount", device, path], check=True)
    node = t.Node(data=path + "/data").start()
    os.mkdir(node.path("all"))
    rounds = 0
    while rounds < 30 and not snapshots(node) and t.ok(churn(node), "work on a small disk"):
        rounds += 1
    t.ok(snapshots(node), "there is a snapshot before the disk is full")
    t.ok(cut_off_one_more(node) and churn(node), "and the work goes on")
    t.same([line for line in node.log().splitlines() if "error" in line], [], "without an error")
    node.stop()


def test():
    node = bounded()
    losers(node)
    refusals(node)
    killed()
    small_disk()


t.main(test, 500)
