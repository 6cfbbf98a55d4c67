#!/usr/bin/python3 -B
"""Many processes lock, wait, give up, unlink and die. In the end nothing is left of them."""

import collections
import os
import random
import signal
import time

import lockfs_test as t

AGENTS, SECONDS, KILLS = 12, 6, 30
LOCKS, NAMES = ("a", "b", "a/c"), ("x", "y")
# What a call may say while others unlink and remove. Anything else is wrong.
EXPECTED = {"EEXIST", "ENOENT", "EAGAIN", "EINTR", "ESTALE", "EPERM", "ENOTEMPTY", "ENODATA"}


def storm(directory, seed, seconds):
    """Random calls; how often each errno came."""
    dice, handles, seen = random.Random(seed), [], collections.Counter()
    end = time.monotonic() + seconds
    signal.signal(signal.SIGALRM, lambda *_: None)

    def path():
        return os.path.join(directory, dice.choice(LOCKS), dice.choice(NAMES))

    def attempt(call, *args):
        got = t.outcome(call, *args)
        seen[got if isinstance(got, str) and got.startswith("E") else "fine"] += 1
        return got

    def wait():
        """A wait that gives up soon, perhaps at the moment of its grant."""
        signal.setitimer(signal.ITIMER_REAL, dice.random() * 0.02 + 0.0001, 0.05)
        attempt(t.flock, dice.choice(handles), dice.choice((t.EXCLUSIVE, t.SHARED)))
        signal.setitimer(signal.ITIMER_REAL, 0)

    while time.monotonic() < end:
        choice = dice.randrange(14)
        if choice < 3 or not handles:
            fd = attempt(t.acquire if choice == 0 else t.plain, path())
            handles += [fd] if isinstance(fd, int) else []
        elif choice < 6:
            wait()
        elif choice < 8:
            attempt(t.flock, dice.choice(handles), t.UNLOCK)
        elif choice < 9:
            attempt(t.flock, dice.choice(handles), t.SHARED | t.NONBLOCK)
        elif choice < 12 or len(handles) > 5:
            os.close(handles.pop(dice.randrange(len(handles))))
        elif choice < 13 and dice.random() < 0.5:
            attempt(os.write, dice.choice(handles), b"x" * dice.randrange(100))
        elif choice < 13:
            attempt(os.unlink, path())
        else:
            lock = os.path.join(directory, dice.choice(LOCKS))
            attempt(t.cat, lock + "/" + dice.choice(("holders", "waiters", "token")))
            attempt(os.rmdir if dice.random() < 0.3 else os.mkdir, lock)
    for fd in handles:
        os.close(fd)
    return seen


def test():
    t.ACTS["storm"] = storm
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    t.note("SEED=%d" % seed)
    dice = random.Random(seed)
    node = t.Node("--drain-timeout", "5").start()
    for lock in LOCKS:
        os.mkdir(node.path(lock))
    end = time.monotonic() + SECONDS

    def begin():
        left = max(0.0, end - time.monotonic())
        return t.Agent().begin("storm", node.mount, dice.randrange(1 << 30), left)

    agents = [begin() for _ in range(AGENTS)]
    for _ in range(KILLS):
        time.sleep(SECONDS / KILLS / 2)  # spreads the kills
        agents.pop(dice.randrange(len(agents))).kill()
        agents.append(begin())
    total = sum((agent.finish(120) for agent in agents), collections.Counter())
    t.note(dict(total))
    t.same(set(total) - EXPECTED - {"fine"}, set(), "no error but those that were to be expected")
    t.ok(total["fine"] > 1000 and total["EINTR"] > 20 and total["EAGAIN"] > 0, "much has happened")
    wanted = {"claims": "0", "waiters": "0", "claims_of_this_node": "0"}
    t.ok(t.wait_until(lambda: wanted.items() <= t.status(node).items()),
         "no claim and no waiter is left")
    t.ok(t.wait_until(lambda: int(t.status(node)["open_handles"]) <= 1), "nor a handle")
    t.note(t.status(node))
    for agent in agents:
        agent.kill()
    result = t.run(["sh", "-c", 'rm -rf "$1"/*', "sh", node.path()])
    t.same((result.returncode, set(os.listdir(node.mount)) - {".lockfs"}), (0, set()),
           "all can be removed")


t.main(test)
