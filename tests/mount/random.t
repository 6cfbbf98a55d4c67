#!/usr/bin/python3 -B
"""Random calls of several processes against a model that knows nothing of how lockfs works."""

import collections
import os
import random

import lockfs_test as t

AGENTS, STEPS, NAMES, LOCKS = 5, 4000, ("x", "y"), ("", "one", "two", "one/sub")


class Handle:
    def __init__(self, agent, fd, lock, name):
        self.agent, self.fd, self.lock, self.name = agent, fd, lock, name
        self.claims = {}  # "create" or "flock" -> "exclusive" or "shared"
        self.stale = False  # unlinked
        self.lost = False  # unlinked by somebody else

    def __repr__(self):
        return "%d:%d %s/%s %s%s" % (self.agent.pid, self.fd, self.lock, self.name, self.claims,
                                     " stale" * self.stale)


class World:
    """The mount, what should be there, and one random step."""

    def __init__(self, node, dice):
        self.node, self.dice = node, dice
        self.agents = [t.Agent() for _ in range(AGENTS)]
        self.handles = []
        self.contents = {}
        self.locks = {""}
        self.highest = 0
        self.wrong = []
        self.seen = collections.Counter()

    def expect(self, what, got, wanted):
        self.seen["%s: %s" % (what, wanted if isinstance(wanted, str) else "fine")] += 1
        if got != wanted:
            self.wrong.append("%s: got %r, wanted %r" % (what, got, wanted))

    # What the model says

    def on_resource(self, lock, name):
        """Handles with a claim on what (lock, name) competes for."""
        return [handle for handle in self.handles if handle.claims and handle.lock == lock
                and (lock != "" or handle.name == name)]

    def on_file(self, lock, name):
        return [handle for handle in self.handles
                if handle.claims and (handle.lock, handle.name) == (lock, name)]

    def refuses(self, lock, name, mode, but=None):
        others = [handle for handle in self.on_resource(lock, name) if handle is not but]
        return any(mode == "exclusive" or "exclusive" in other.claims.values() for other in others)

    def tidy(self, lock, name):
        """Content lives as long as a claim."""
        if not self.on_file(lock, name):
            self.contents.pop((lock, name), None)

    def check_token(self, handle):
        got = t.outcome(handle.agent.token_of, handle.fd)
        if not isinstance(got, int) or got <= self.highest:
            self.wrong.append("token %r after %d" % (got, self.highest))
        else:
            self.highest = got

    # Steps

    def place(self):
        return self.dice.choice(sorted(self.locks)), self.dice.choice(NAMES)

    def path(self, lock, name):
        return self.node.path(lock, name)

    def acquire(self):
        lock, name = self.place()
        agent = self.dice.choice(self.agents)
        wanted = "EEXIST" if self.refuses(lock, name, "exclusive") else 0
        fd = t.outcome(agent.open, self.path(lock, name), t.CLAIM & ~os.O_WRONLY | os.O_RDWR)
        self.expect("acquire", fd if isinstance(fd, str) else 0, wanted)
        if isinstance(fd, int):
            handle = Handle(agent, fd, lock, name)
            handle.claims["create"] = "exclusive"
            self.handles.append(handle)
            self.check_token(handle)

    def open(self):
        lock, name = self.place()
        agent = self.dice.choice(self.agents)
        fd = t.outcome(agent.plain, self.path(lock, name))
        self.expect("open", fd if isinstance(fd, str) else 0, 0)
        if isinstance(fd, int):
            self.handles.append(Handle(agent, fd, lock, name))

    def flock(self):
        if not self.handles:
            return
        handle = self.dice.choice(self.handles)
        mode = self.dice.choice(("exclusive", "shared"))
        wanted = None
        changes = handle.claims.get("flock") != mode
        if handle.stale:
            wanted = "ESTALE"
        elif changes and self.refuses(handle.lock, handle.name, mode, handle):
            wanted = "EAGAIN"
        operation = t.EXCLUSIVE if mode == "exclusive" else t.SHARED
        got = t.outcome(handle.agent.flock, handle.fd, operation | t.NONBLOCK)
        self.expect("flock " + mode, got, wanted)
        if wanted is None and changes:
            # A conversion lets go first, and takes the content along.
            handle.claims.pop("flock", None)
            self.tidy(handle.lock, handle.name)
            handle.claims["flock"] = mode
            self.check_token(handle)
        elif wanted == "EAGAIN":
            handle.claims.pop("flock", None)
            self.tidy(handle.lock, handle.name)

    def unlock(self):
        if not self.handles:
            return
        handle = self.dice.choice(self.handles)
        if handle.stale:
            return
        self.expect("unlock", t.outcome(handle.agent.flock, handle.fd, t.UNLOCK), None)
        handle.claims.pop("flock", None)
        self.tidy(handle.lock, handle.name)

    def close(self):
        if not self.handles:
            return
        handle = self.handles.pop(self.dice.randrange(len(self.handles)))
        self.expect("close", t.outcome(handle.agent.close, handle.fd), None)
        self.tidy(handle.lock, handle.name)

    def unlink(self):
        lock, name = self.place()
        holders = self.on_file(lock, name)
        wanted = None if holders else "ENOENT"
        agent = self.dice.choice(self.agents)
        self.expect("unlink", t.outcome(agent.unlink, self.path(lock, name)), wanted)
        for handle in holders:
            if "create" in handle.claims:
                handle.claims = {}
                handle.stale = True
                handle.lost = handle.agent is not agent
        self.tidy(lock, name)

    def write(self):
        if not self.handles:
            return
        handle = self.dice.choice(self.handles)
        data = b"%d" % self.dice.randrange(100)
        wanted = len(data)
        if handle.stale:
            wanted = "ESTALE"
        elif not handle.claims:
            wanted = "EPERM"
        self.expect("write", t.outcome(handle.agent.pwrite, handle.fd, data, 0), wanted)
        if isinstance(wanted, int):
            old = self.contents.get((handle.lock, handle.name), "")
            self.contents[handle.lock, handle.name] = data.decode() + old[len(data):]

    def cat(self):
        lock, name = self.place()
        wanted = "ENOENT"
        if self.on_file(lock, name):
            wanted = self.contents.get((lock, name), "")
        got = t.outcome(self.dice.choice(self.agents).cat, self.path(lock, name))
        self.expect("cat", got, wanted)

    def holders(self):
        lock = self.dice.choice(sorted(self.locks))
        wanted = sorted((handle.agent.pid, mode, handle.name) for handle in self.handles
                        if handle.lock == lock for mode in handle.claims.values())
        got = sorted((row.pid, row.mode, row.file) for row in t.rows(self.path(lock, "holders")))
        self.expect("holders", got, wanted)

    def token(self):
        lock = self.dice.choice(sorted(self.locks))
        wanted = "a number"
        if not any(handle.claims for handle in self.handles if handle.lock == lock):
            wanted = "ENODATA"
        if any(handle.lost and handle.lock == lock for handle in self.handles):
            wanted = "ESTALE"
        got = t.outcome(t.cat, self.path(lock, "token"))
        # The root has a number for each name.
        self.expect("token", got if got.startswith("E") else "a number", wanted)

    def lock(self):
        lock = self.dice.choice(LOCKS[1:])
        parent = os.path.dirname(lock)
        agent = self.dice.choice(self.agents)
        if self.dice.random() < 0.5:
            wanted = "EEXIST" if lock in self.locks else None if parent in self.locks else "ENOENT"
            self.expect("mkdir", t.outcome(agent.mkdir, self.node.path(lock)), wanted)
            self.locks.update([lock] if wanted is None else [])
            return
        busy = any(other.startswith(lock + "/") for other in self.locks) or any(
            handle.claims for handle in self.handles if handle.lock == lock)
        wanted = "ENOENT" if lock not in self.locks else "ENOTEMPTY" if busy else None
        self.expect("rmdir", t.outcome(agent.rmdir, self.node.path(lock)), wanted)
        if wanted is None:
            self.locks.remove(lock)
            for handle in [handle for handle in self.handles if handle.lock == lock]:
                got = t.outcome(handle.agent.flock, handle.fd, t.SHARED | t.NONBLOCK)
                self.expect("flock in a removed lock", got, "ESTALE")
                self.handles.remove(handle)
                handle.agent.close(handle.fd)

    def die(self):
        """A process ends, and another one takes its place."""
        if self.dice.random() > 0.2:
            return
        victim = self.dice.choice(self.agents)
        self.agents.remove(victim)
        victim.kill()
        for handle in [handle for handle in self.handles if handle.agent is victim]:
            self.handles.remove(handle)
            self.tidy(handle.lock, handle.name)
        self.agents.append(t.Agent())

    def step(self):
        step = self.dice.choice((self.acquire, self.acquire, self.open, self.flock, self.flock,
                                 self.unlock, self.close, self.close, self.unlink, self.write,
                                 self.cat, self.holders, self.token, self.lock, self.die))
        step()
        return step.__name__


def test():
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    t.note("SEED=%d" % seed)
    node = t.Node().start()
    world = World(node, random.Random(seed))
    trace = collections.deque(maxlen=12)
    for step in range(STEPS):
        trace.append(world.step())
        if world.wrong:
            t.note("step %d, after %s" % (step, " ".join(trace)))
            t.note("\n".join(map(repr, world.handles)))
            break
    t.same(world.wrong, [], "%d random calls" % STEPS)
    for what, count in sorted(world.seen.items()):
        t.note("%6d %s" % (count, what))
    t.ok(len(world.seen) >= 25, "they saw much")

    for agent in world.agents:
        agent.kill()
    t.same([t.cat(node.path(lock, "holders")) for lock in sorted(world.locks)],
           [""] * len(world.locks), "the end of all processes releases all")
    result = t.run(["sh", "-c", 'rm -rf "$1"/*', "sh", node.path()])
    left = set(os.listdir(node.mount)) - {".lockfs"}
    t.same((result.returncode, left), (0, set()), "and all can be removed")
    wanted = dict.fromkeys(("locks", "claims", "waiters", "claims_of_this_node"), "0")
    # One handle reads the status.
    t.ok(t.wait_until(lambda: wanted.items() <= t.status(node).items()
                      and int(t.status(node)["open_handles"]) <= 1), "the daemon has forgotten all")
    t.note(t.status(node))


t.main(test)
