#!/usr/bin/python3 -B
"""The subcommands of `lockfs` but `run`: what they show, change, and refuse."""

import json
import os

import lockfs_test as t

LOCKFS = t.BUILD + "/lockfs"
COMMANDS = ("run", "status", "token", "check", "release", "create", "set")


def lockfs(*args, **named):
    return t.run([LOCKFS, *args], **named)


def code(*args, **named):
    """The exit status. What failed must say why, and what did not must not complain."""
    result = lockfs(*args, **named)
    if (result.returncode in (0, 1)) != (result.stderr == ""):
        t.ok(False, "lockfs %s: %r and %r on stderr" %
             (" ".join(args), result.returncode, result.stderr))
    return result.returncode


def helps(_):
    for args in ((), *((command,) for command in COMMANDS)):
        name = " ".join(("lockfs", *args))
        result = lockfs(*args, "--help")
        lines = result.stdout.splitlines()
        t.same((result.returncode, result.stderr), (0, ""), name + " --help")
        t.ok(6 <= len(lines) <= 24 and max(map(len, lines)) <= 80,
             name + " --help fits on a screen (%d lines)" % len(lines))
        t.ok(lines[0].startswith("Usage: " + name), "and begins with the usage")
        t.same(lockfs(*args, "-h").stdout, result.stdout, name + " -h")
    version = t.run([t.LOCKFSD, "--version"]).stdout
    t.same(lockfs("--version").stdout, version.replace("lockfsd", "lockfs"),
           "--version is that of lockfsd")
    with open("/dev/full", "w") as full:
        t.same(lockfs("--help", stdout=full).returncode, 71, "output that does not get out: 71")


def wrong_usage(node):
    for args in ((), ("unknown",), ("--unknown",), ("status", "--unknown"), ("status", "a", "b"),
                 ("token",), ("token", "x"), ("token", "-1"), ("token", "1", "2"),
                 ("token", "99999999999"), ("token", "77"), ("check",), ("check", node.mount),
                 ("check", node.mount, "x"), ("check", node.mount, "1", "2"), ("release",),
                 ("release", "--force"), ("release", node.path("x")), ("create",),
                 ("create", "a", "b"), ("create", "--mode", "8", node.path("x")),
                 ("set", node.path("x")), ("set", node.path("x"), "limit"),
                 ("set", node.path("x"), "limit="), ("set", node.path("x"), "colour=blue"),
                 ("release", "--force", "--token", "0", node.path("x"))):
        t.same(code(*args), 64, "64: lockfs " + " ".join(args).replace(node.mount, "MOUNT"))
    t.same(os.listdir(node.mount), [".lockfs"], "and nothing was made")


def elsewhere(node):
    """Off a lockfs, on a dead one, and on names that are not there."""
    plain = os.path.join(t.base(), "plain")
    os.mkdir(plain)
    with open(plain + "/file", "w"):
        pass
    with open(plain + "/file") as file:
        t.same(lockfs("token", str(file.fileno()), pass_fds=[file.fileno()]).returncode, 69,
               "token of a plain file: 69")
    t.same(lockfs("token", "0").returncode, 69, "token of /dev/null: 69")
    for path in (plain, plain + "/file", plain + "/new"):
        for args in (("status", path), ("check", path, "1"), ("release", "--force", path),
                     ("create", path), ("set", path, "limit=1")):
            t.same(code(*args), 69, "69: lockfs %s" % " ".join(args).replace(t.base(), ""))
    t.same(os.listdir(plain), ["file"], "and nothing was made")
    gone = node.path("none", "x")
    for args in (("status", gone), ("check", gone, "1"), ("release", "--force", gone),
                 ("create", gone), ("set", gone, "limit=1"), ("create", node.path("n" * 256))):
        t.same(code(*args), 66, "66: lockfs %s" % " ".join(args[:1]))


def dead(node):
    node.kill()
    for args in (("status", node.mount), ("status", node.path("x")), ("check", node.mount, "1"),
                 ("release", "--force", node.path("x")), ("create", node.path("x")),
                 ("set", node.path("x"), "limit=1")):
        result = lockfs(*args)
        t.same((result.returncode, "is not running" in result.stderr), (69, True),
               "a dead daemon, 69: lockfs " + args[0])
    node.start()


def pairs(text):
    return dict(line.split(None, 1) for line in text.splitlines())


def status(node):
    result = lockfs("status", node.mount)
    t.same((result.returncode, pairs(result.stdout)["mount"], pairs(result.stdout)["state"]),
           (0, node.mount, "serving"), "status of a node")
    shown = json.loads(lockfs("status", "--json", node.mount).stdout)
    t.same((shown["mount"], shown["state"], type(shown["term"])), (node.mount, "serving", int),
           "and as JSON")
    t.same(sorted(shown), sorted(pairs(result.stdout)), "with the same keys")

    lock = node.path("shown")
    os.mkdir(lock)
    shown = json.loads(lockfs("status", "--json", lock).stdout)
    t.same(shown, {"lock": lock, "limit": 1, "ttl": 10, "release": "close", "delay": 0, "last": 0,
                   "token": None, "holders": [], "waiters": []}, "a free lock")
    name = 'odd "na\\me\n\t\x01é' + "\udcff"
    a, b = t.Agent(), t.Agent()
    fd = a.acquire(os.path.join(lock, name))
    fb = b.plain(lock + "/y")
    b.begin("flock", fb, t.SHARED)
    t.wait_until(lambda: t.cat(lock + "/waiters"))
    shown = json.loads(lockfs("status", "--json", lock).stdout)
    holder, waiter = shown["holders"][0], shown["waiters"][0]
    t.same((shown["token"], holder["token"], holder["mode"], holder["pid"], holder["uid"]),
           (a.token_of(fd), a.token_of(fd), "exclusive", a.pid, 0), "a holder")
    t.same((waiter["token"], waiter["mode"], waiter["pid"], waiter["file"]),
           (None, "shared", b.pid, "y"), "a waiter")
    decoded = holder["file"].encode().decode("unicode_escape").encode("latin-1")
    t.same(os.fsdecode(bytes(decoded)), name, "a name of odd characters, which can be decoded")
    text = lockfs("status", lock).stdout
    t.note(text)
    t.ok(str(a.pid) in text and str(b.pid) in text and "exclusive" in text, "as a table")
    t.ok(text.isprintable() or set(c for c in text if not c.isprintable()) == {"\n"},
         "without control characters")
    a.close(fd)
    b.finish()
    b.close(fb)

    odd = os.fsdecode(b'lo"ck\n\xff\xc3\xa9')
    os.mkdir(node.path(odd))
    result = t.run([LOCKFS, "status", "--json", node.path(odd)], encoding="utf-8")
    t.same(os.path.basename(json.loads(result.stdout)["lock"]), 'lo"ck\n\ufffdé',
           "JSON is UTF-8, whatever the path")

    fd, other = a.flock_file(node.path("one"), t.SHARED), a.flock_file(node.path("two"), t.SHARED)
    shown = json.loads(lockfs("status", "--json", node.path("one")).stdout)
    t.same(([row["file"] for row in shown["holders"]], shown["token"]), (["one"], a.token_of(fd)),
           "of a lockfile in the root: itself only")
    a.close(other)
    a.kill()
    b.kill()
    t.same(json.loads(lockfs("status", "--json", node.path("never")).stdout)["holders"], [],
           "of a lockfile that nobody holds")
    mounted = [mount for mount in t.run(["findmnt", "-nlo", "TARGET", "-t", "fuse.lockfs"])
               .stdout.split()]
    result = lockfs("status")
    t.ok(result.returncode == 0 and pairs(result.stdout)["mount"] == node.mount
         if len(mounted) == 1 else result.returncode in (0, 64, 69), "without a path")


def reserved(node):
    """Names that are no claim's."""
    lock = node.path("reserved")
    os.mkdir(lock)
    for args, wanted in ((("--name", "token", lock), 64), (("--name", ".x", lock), 64),
                         ((lock + "/holders",), 66), ((lock + "/.x",), 66),
                         ((node.path("token"),), 66)):
        result = lockfs("run", "--try", *args, "--", "true")
        t.same((result.returncode, "reserved" in result.stderr), (wanted, True),
               "run %s: %s" % (" ".join(args).replace(node.mount, ""), result.stderr.strip()))
    t.same(code("run", "--try", node.path(".x"), "--", "true"), 0, "a dot is no harm in the root")
    os.rmdir(lock)


def token_and_check(node):
    lock = node.path("numbers")
    os.mkdir(lock)
    fd = t.acquire(lock + "/x")
    number = str(t.token_of(fd))
    result = lockfs("token", str(fd), pass_fds=[fd])
    t.same((result.returncode, result.stdout), (0, number + "\n"), "token FD")
    script = 'set -C; command exec 9>"$F" && "$LOCKFS" token 9'
    t.ok(t.shell(script, F=node.path("scripted"), LOCKFS=LOCKFS).stdout.strip().isdigit(),
         "in a script")
    t.same(lockfs("check", lock, number).returncode, 0, "check: held")
    t.same(code("check", lock, "999999"), 1, "check: another number")
    t.same(code("check", lock + "/x", number), 0, "check by the claim's path")
    other = t.plain(lock + "/x")
    t.same(code("token", str(other), pass_fds=[other]), 66, "token of a descriptor without claim")
    os.close(other)
    os.unlink(lock + "/x")
    t.same(code("token", str(fd), pass_fds=[fd]), 70, "token of a lost claim: 70")
    t.same(code("check", lock, number), 1, "check: lost")
    os.close(fd)
    t.same(code("check", lock, number), 1, "check: released")
    fd = t.flock_file(node.path("file.lock"), t.EXCLUSIVE)
    t.same(code("check", node.path("file.lock"), str(t.token_of(fd))), 0, "check of a lockfile")
    os.close(fd)


def create(node):
    lock = node.path("made")
    t.same(code("create", lock), 0, "create")
    t.same(t.cat(lock + "/.limit"), "1\n", "a mutex")
    t.same(code("create", lock), 75, "75: it exists")
    t.same(code("create", "--mode", "1777", node.path("mode") + "/"), 0, "--mode")
    t.same(os.stat(node.path("mode")).st_mode & 0o7777, 0o1777, "whatever the umask")
    t.same(code("create", "--lockfiles", node.path("old")), 69, "--lockfiles is not there yet")
    t.ok(not os.path.exists(node.path("old")), "and makes nothing")
    result = lockfs("create", "--limit", "3", "--ttl", "7", "--release", "exit", "--delay", "2",
                    node.path("all"))
    t.same((result.returncode, result.stderr), (0, ""), "all settings")
    shown = json.loads(lockfs("status", "--json", node.path("all")).stdout)
    t.same([shown[key] for key in ("limit", "ttl", "release", "delay")], [3, 7, "exit", 2],
           "are as told")
    for setting, says in (("--ttl=4", "5 to 3600"), ("--delay=86401", "0 to 86400"),
                          ("--limit=1048577", "1 to 1048576"), ("--release=never", "exit")):
        result = lockfs("create", setting, node.path("refused"))
        t.ok(says in result.stderr and "waited" not in result.stderr,
             "%s: told what can be: %s" % (setting, result.stderr.strip()))
    for setting in (("--limit", "x"), ("--limit", "0"), ("--ttl", "0"), ("--release", "never"),
                    ("--delay", "-1"), ("--delay", "1" * 70)):
        t.same(code("create", *setting, node.path("refused")), 64, "64: " + " ".join(setting))
        t.ok(not os.path.exists(node.path("refused")), "and the lock is removed again")
    nobody = t.Agent(uid=65534)
    os.mkdir(node.path("private"), 0o755)
    result = nobody.shell("'%s' create '%s'" % (LOCKFS, node.path("private", "x")))
    t.same(result.returncode, 77, "77: no permission")
    nobody.kill()


def set_settings(node):
    lock = node.path("changed")
    os.mkdir(lock)
    t.same(code("set", lock, "limit=2", "delay=1"), 0, "set")
    t.same((t.cat(lock + "/.limit"), t.cat(lock + "/.delay")), ("2\n", "1\n"), "is done")
    t.same(code("set", lock, "limit=-2"), 64, "64: a bad value")
    t.same(code("set", node.path("file"), "limit=2"), 66, "66: of a lockfile")
    t.same(code("set", lock, "delay=0", "colour=blue"), 64, "64: a setting that is none")
    t.same(t.cat(lock + "/.delay"), "1\n", "and the others are left alone")
    nobody = t.Agent(uid=65534)
    result = nobody.shell("'%s' set '%s' limit=5" % (LOCKFS, lock))
    t.same(result.returncode, 77, "77: not the owner")
    nobody.kill()

    # Two holders, each of whom reads its own number.
    scripts = [t.subprocess.Popen([LOCKFS, "run", "--try", lock, "--", "sh", "-c",
                                   'echo $LOCKFS_TOKEN; cat "$LOCKFS_LOCK/token"; read line'],
                                  stdin=t.subprocess.PIPE, stdout=t.subprocess.PIPE, text=True)
               for _ in range(2)]
    told = [(script.stdout.readline(), script.stdout.readline()) for script in scripts]
    t.ok(all(a == b for a, b in told) and told[0] != told[1],
         "run in a semaphore: `token` is the command's own")
    t.same(code("run", "--try", lock, "--", "true"), 75, "a third one does not get in")
    for script in scripts:
        script.communicate("\n")
    t.same([script.returncode for script in scripts], [0, 0], "and they end")


def release(node):
    lock = node.path("broken")
    os.mkdir(lock)
    a, b = t.Agent(), t.Agent()
    t.same(code("release", "--force", lock), 66, "66: nothing is held")
    t.same(code("release", "--force", lock + "/x"), 66, "66: no such claim")
    t.same(code("release", "--force", node.mount), 66, "66: the root is many locks")
    for path in (lock, lock + "/na me"):
        fd = a.acquire(lock + "/na me")
        t.same(code("release", "--force", path), 0, "release --force by " +
               ("directory" if path == lock else "file"))
        t.fails("ESTALE", "the holder has lost it", a.token_of, fd)
        t.same(t.cat(lock + "/holders"), "", "it is free")
        a.close(fd)
    fd, fb = a.flock_file(lock + "/x", t.SHARED), b.flock_file(lock + "/x", t.SHARED)
    for path in (lock, lock + "/x"):
        result = lockfs("release", "--force", "--token", "999999", path)
        t.same((result.returncode, "999999" in result.stderr, "nothing" in result.stderr),
               (66, True, False), "66: another number, and it does not say that nothing is held")
    t.same(code("release", "--force", "--token", str(a.token_of(fd)), lock), 0, "--token")
    t.fails("ESTALE", "ends that one", a.token_of, fd)
    t.ok(b.token_of(fb) > 0, "and no other")
    b.close(fb)
    a.close(fd)
    fd = a.acquire(node.path("root-file"))
    nobody = t.Agent(uid=65534)
    result = nobody.shell("'%s' release --force '%s'" % (LOCKFS, node.path("root-file")))
    t.same(result.returncode, 77, "77: not the owner")
    t.same(code("release", "--force", node.path("root-file")), 0, "a file in the root")
    t.fails("ESTALE", "is lost", a.token_of, fd)

    process = t.subprocess.Popen([LOCKFS, "run", lock, "--", "sh", "-c", "trap 'exit 0' TERM;"
                                  "echo begun; while :; do sleep 0.05; done"],
                                 stdout=t.subprocess.PIPE, stderr=t.subprocess.PIPE, text=True)
    process.stdout.readline()
    t.same(code("release", "--force", lock), 0, "from `lockfs run`")
    started = t.time.monotonic()
    t.same(process.wait(30), 70, "which ends with 70, whatever its command returned")
    t.ok(t.time.monotonic() - started < 2 * t.SLOW, "at once")
    process.communicate()
    for agent in (a, b, nobody):
        agent.kill()


def installs(_):
    """make install, with the manual and the completion."""
    root = os.path.join(t.base(), "root")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    result = t.run(["make", "-s", "-C", t.REPOSITORY, "BUILD=" + t.BUILD, "-o",
                    t.BUILD + "/lockfsd", "-o", t.BUILD + "/lockfs", "install", "DESTDIR=" + root,
                    "PREFIX=/usr"], env=clean)
    t.same((result.returncode, result.stderr), (0, ""), "make install")
    installed = sorted(os.path.relpath(os.path.join(where, name), root + "/usr")
                       for where, _, names in os.walk(root) for name in names)
    t.same(installed, sorted(["bin/lockfs", "sbin/lockfsd", "include/lockfs.h",
                              "share/man/man1/lockfs.1", "share/man/man5/lockfs.5",
                              "share/man/man8/lockfsd.8",
                              "share/bash-completion/completions/lockfs"]), "what is installed")
    completion = root + "/usr/share/bash-completion/completions/lockfs"
    for words, wanted in ((("lockfs", "st"), {"status"}), (("lockfs", "run", "--t"),
                                                           {"--try", "--timeout"}),
                          (("lockfs", "create", "--rel"), {"--release"})):
        script = ('. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lockfs lockfs "${@: -1}";'
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        result = t.run(["bash", "-c", script, completion, *words])
        t.same((set(result.stdout.split()), result.stderr), (wanted, ""),
               "completion of " + " ".join(words))
    for line, words, wanted in (("lockfs set L rel", ("set", "L", "rel"), {"release="}),
                                ("lockfs set L release=", ("set", "L", "release", "="),
                                 {"close", "exit"}),
                                ("lockfs set L release=c", ("set", "L", "release", "=", "c"),
                                 {"close"}),
                                ("lockfs set L limit=u", ("set", "L", "limit", "=", "u"),
                                 {"unlimited"}),
                                ("lockfs set L ttl=", ("set", "L", "ttl", "="), set())):
        script = ('. "$0"; COMP_WORDS=(lockfs "$@"); COMP_CWORD=$#; _lockfs lockfs;'
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        result = t.run(["bash", "-c", script, completion, *words])
        t.same((set(result.stdout.split()), result.stderr), (wanted, ""), "completion of " + line)
    for name in ("man1/lockfs.1", "man5/lockfs.5", "man8/lockfsd.8"):
        path = root + "/usr/share/man/" + name
        result = t.run(["groff", "-mandoc", "-Tutf8", "-ww", path])
        t.same((result.returncode, result.stderr), (0, ""), "groff has nothing to say about " + name)
    text = t.run(["groff", "-mandoc", "-Tascii", "-P-cbou",
                  root + "/usr/share/man/man1/lockfs.1"]).stdout
    missing = []
    for command in COMMANDS:
        for word in lockfs(command, "--help").stdout.split():
            if word.startswith("--") and word.strip(",.'") not in text and word != "--":
                missing.append(word)
    t.same(missing, [], "lockfs(1) has every option of --help")
    text = t.run(["groff", "-mandoc", "-Tascii", "-P-cbou",
                  root + "/usr/share/man/man8/lockfsd.8"]).stdout
    options = [word.strip(",") for word in t.run([t.LOCKFSD, "--help"]).stdout.split()
               if word.startswith("--")]
    t.same([word for word in options if word not in text], [], "lockfsd(8) that of lockfsd")


def test():
    node = t.Node().start()
    for part in (helps, wrong_usage, elsewhere, dead, status, reserved, token_and_check, create,
                 set_settings, release, installs):
        t.note(part.__name__)
        part(node)


t.main(test)
