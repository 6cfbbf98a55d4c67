#!/usr/bin/python3 -B
"""kill -9 of the daemon while 16 programs work, 50 times: numbers go up, nobody is inside twice."""

import os
import random
import subprocess
import time

import lockfs_test as t

KILLS, WORKERS, GRANTS_PER_ROUND = 50, 16, 20


class Grant:
    def __init__(self, line):
        self.token, self.before, self.after, self.end, self.how = map(int, line.split())


def read_journals(paths):
    grants, summaries = [], []
    for path in paths:
        with open(path) as file:
            for line in file:
                if line.startswith("#"):
                    words = line.split()[1:]
                    summaries.append(dict(zip(words[::2], map(int, words[1::2]))))
                else:
                    grants.append(Grant(line))
    return grants, summaries


def out_of_order(grants):
    """Grants whose number is not above that of one answered before they were asked for."""
    wrong, latest = [], 0
    answered = sorted(grants, key=lambda grant: grant.after)
    position = 0
    for grant in sorted(grants, key=lambda grant: grant.before):
        while answered[position].after < grant.before:
            latest = max(latest, answered[position].token)
            position += 1
        if grant.token <= latest:
            wrong.append(grant.token)
    return wrong


def overlapping(grants, kills):
    """Pairs that were inside at once, although no daemon was killed between their grants."""
    wrong, open_ones = [], []
    for grant in sorted(grants, key=lambda grant: grant.after):
        open_ones = [other for other in open_ones if other.end > grant.after]
        for other in open_ones:
            if not any(other.before <= kill <= grant.after for kill in kills):
                wrong.append((other.token, grant.token))
        open_ones.append(grant)
    return wrong


def test():
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    t.note("SEED=%d" % seed)
    dice = random.Random(seed)
    node = t.Node().start()
    os.mkdir(node.path("lock"))
    journals = ["%s/journal-%d" % (t.base(), i) for i in range(WORKERS)]
    workers = [subprocess.Popen([t.helper("worker"), node.path("lock"), journal, str(seed + i)])
               for i, journal in enumerate(journals)]
    kills, idle_rounds, started = [], 0, time.monotonic()
    try:
        for _ in range(KILLS):
            first = int(t.cat(node.path("lock", "last")))
            if not t.wait_until(lambda: int(t.cat(node.path("lock", "last"))) >=
                                first + GRANTS_PER_ROUND, 30):
                idle_rounds += 1
            time.sleep(dice.random() * 0.1)  # not to synchronise: any moment is a good one
            kills.append(time.monotonic_ns())
            node.kill()
            node.start()
        first = int(t.cat(node.path("lock", "last")))
        t.wait_until(lambda: int(t.cat(node.path("lock", "last"))) >= first + GRANTS_PER_ROUND)
    finally:
        for worker in workers:
            worker.terminate()
        codes = [worker.wait(60 * t.SLOW) for worker in workers]
    t.same(codes, [0] * WORKERS, "the workers come to their end")
    t.same(idle_rounds, 0, "%d times the daemon starts again, and locks are granted" % KILLS)
    grants, summaries = read_journals(journals)
    t.note("%d grants, %d refusals, %d failed calls, %.1f s" % (
        len(grants), sum(one["refusals"] for one in summaries),
        sum(one["failures"] for one in summaries), time.monotonic() - started))
    t.ok(len(grants) >= KILLS * GRANTS_PER_ROUND / 2, "much was granted")
    t.same({how: any(grant.how == how for grant in grants) for how in (0, 1, 2)},
           {0: True, 1: True, 2: True}, "in each way")
    t.same({one["unexpected"] for one in summaries}, {0}, "no error but those of a dead daemon")
    t.same(len({grant.token for grant in grants}), len(grants), "no number was given twice")
    t.same(out_of_order(grants)[:5], [], "numbers only go up")
    t.same(overlapping(grants, kills)[:5], [], "never two inside under one daemon")
    t.same((t.cat(node.path("lock", "holders")), t.cat(node.path("lock", "waiters"))), ("", ""),
           "nobody is left")


t.main(test)
