#!/usr/bin/python3 -B
"""Extended attributes: what a claim tells about itself, and what programs make of it."""

import ctypes
import errno
import os

import lockfs_test as t

NOBODY = 65534
GROUP = 4242
NAMES = ["user.lockfs.token", "user.lockfs.node", "user.lockfs.mode"]
LIBC = ctypes.CDLL(None, use_errno=True)


def described(path, agent=os):
    """What `path` (or a descriptor) says: token, node, mode."""
    return tuple(t.outcome(lambda name=name: agent.getxattr(path, name).decode())
                 for name in NAMES)


def listed(path, agent=os):
    return t.outcome(agent.listxattr, path)


def nothing(path, what):
    t.same((described(path), listed(path)), (("ENODATA",) * 3, []), what + ": nothing")


def claims(node):
    os.mkdir(node.path("l"))
    path = node.path("l", "x")
    for what in (node.path(), node.path("l"), node.path(".lockfs"), node.path(".lockfs", "status"),
                 *(node.path("l", name) for name in ("token", "holders", ".limit"))):
        nothing(what, os.path.relpath(what, node.mount))

    a, b, plain = t.Agent(), t.Agent(), t.plain(path)
    nothing(plain, "an open file that nobody claims")
    for how in ("acquire", "flock_file"):
        fd = a.acquire(path) if how == "acquire" else a.flock_file(path, t.EXCLUSIVE)
        row = t.rows(node.path("l", "holders"))[0]
        t.same(described(path), (str(a.token_of(fd)), row.node, "exclusive"), how)
        t.same(described(path), (row.token, row.node, row.mode), "as `holders` says")
        t.same(described(plain), described(path), "the descriptor of another says the same")
        t.same(sorted(listed(path)), sorted(NAMES), "they are listed")
        nothing(node.path("l"), "its lock")
        a.close(fd)
        nothing(plain, "released")
    t.fails("ENOENT", "by its name", os.getxattr, path, NAMES[0])

    fa, fb = a.flock_file(path, t.SHARED), b.flock_file(path, t.SHARED)
    t.same(described(path)[0], str(b.token_of(fb)), "of several the newest")
    t.same(described(path)[2], "shared", "which is shared")
    t.same(described(path, a), described(path), "its holders see no other")
    b.close(fb)
    t.same(described(path)[0], str(a.token_of(fa)), "then the older one")
    a.close(fa)

    os.close(plain)
    fd = a.open(path, t.PLAIN, 0o666)
    a.lock_range(fd, 6, 1)  # F_SETLK, F_WRLCK
    t.same(described(path), (str(a.token_of(fd)), row.node, "exclusive"), "by fcntl")
    a.close(fd)

    fd = a.acquire(path)
    os.unlink(path)
    t.same(t.outcome(a.getxattr, fd, NAMES[0]), "ENODATA", "a claim that was lost tells nothing")
    fb = b.acquire(path)
    t.same(described(path)[0], str(b.token_of(fb)), "the next one's does")
    a.kill()
    b.kill()
    os.rmdir(node.path("l"))


def sizes(node):
    """As the C library sees it: what it costs to ask with too little room."""
    path = node.path("sized").encode()
    fd = t.acquire(node.path("sized"))
    token = b"%d" % t.token_of(fd)
    names = b"".join(name.encode() + b"\0" for name in NAMES)

    def call(function, *args):
        ctypes.set_errno(0)
        result = function(*args)
        return result if result >= 0 else errno.errorcode[ctypes.get_errno()]

    def get(size):
        return call(LIBC.getxattr, path, NAMES[0].encode(), buffer, ctypes.c_size_t(size))

    buffer = ctypes.create_string_buffer(256)
    t.same(get(0), len(token), "a size of 0 asks for the length")
    t.same(get(len(token)), len(token), "which suffices")
    t.same(buffer.raw[:len(token)], token, "for the value alone")
    t.same(call(LIBC.getxattr, path, NAMES[2].encode(), buffer, ctypes.c_size_t(8)), "ERANGE",
           "a byte less does not")
    t.same(call(LIBC.listxattr, path, buffer, ctypes.c_size_t(0)), len(names), "the list's length")
    t.same(call(LIBC.listxattr, path, buffer, ctypes.c_size_t(len(names))), len(names), "the list")
    t.same(buffer.raw[:len(names)], names, "its bytes")
    t.same(call(LIBC.listxattr, path, buffer, ctypes.c_size_t(len(names) - 1)), "ERANGE",
           "a byte less")
    t.same(call(LIBC.listxattr, node.path().encode(), buffer, ctypes.c_size_t(0)), 0,
           "an empty list's length")
    os.close(fd)


def others(node):
    """Attributes that are not ours: none, none to be set, and no entry in the log for asking."""
    path = node.path("others")
    fd = t.acquire(path)
    before = t.status(node)["last_index"]
    for name in ("security.capability", "security.selinux", "user.lockfs", "user.lockfs.x",
                 "user.other", "trusted.x"):
        t.fails("ENODATA", name, os.getxattr, path, name)
    t.fails(("ENODATA", "EOPNOTSUPP"), "an ACL", os.getxattr, path, "system.posix_acl_access")
    for _ in range(100):
        described(path)
        listed(path)
    for name in NAMES + ["user.lockfs.x"]:
        t.fails("EPERM", "setting " + name, os.setxattr, path, name, b"1")
        t.fails("EPERM", "removing " + name, os.removexattr, path, name)
    for name in ("user.x", "trusted.x", "security.x"):
        t.fails("EOPNOTSUPP", "setting " + name, os.setxattr, path, name, b"1")
        t.fails("EOPNOTSUPP", "removing " + name, os.removexattr, path, name)
    t.fails("EOPNOTSUPP", "setting it on a lock", os.setxattr, node.mount, "user.x", b"1")
    t.same(t.status(node)["last_index"], before, "none of it went into the log")
    t.same(described(path)[0], str(t.token_of(fd)), "and ours is still there")
    os.close(fd)


def users(node):
    path = node.path("l")
    os.mkdir(path)
    os.chown(path, 0, GROUP)
    nobody, member = t.Agent(uid=NOBODY), t.Agent()
    member.setgroups([GROUP])
    member.setgid(NOBODY)
    member.setuid(NOBODY)
    fd = t.acquire(path + "/x")
    number = str(t.token_of(fd))

    def sees(mode):
        os.chmod(path, mode)
        return [described(path + "/x", agent)[0] for agent in (nobody, member)]

    t.same(sees(0o755), [number, number], "0755: everybody may look")
    t.same(sees(0o711), ["EACCES", "EACCES"], "0711: others may not, as with `holders`")
    t.fails("EACCES", "`holders`", nobody.cat, path + "/holders")
    t.same(listed(path + "/x", nobody), [], "and nothing is listed for them")
    result = t.run(["runuser", "-u", "nobody", "--", "ls", "-l", path + "/x"])
    t.same((result.returncode, result.stderr), (0, ""), "so that ls -l does not mind")
    t.same(sees(0o751), ["EACCES", number], "0751: the group may")
    t.same(sees(0o715), [number, "EACCES"], "0715: others may, and the group may not")
    os.chmod(path, 0o755)
    os.chmod(path + "/x", 0o600)
    t.same(described(path + "/x", nobody)[0], "EACCES", "a claim of mode 0600 tells its owner only")
    os.chmod(path + "/x", 0o666)
    t.fails("EPERM", "another user cannot set them", nobody.setxattr, path + "/x", NAMES[0], b"1")
    os.close(fd)
    nobody.kill()
    member.kill()
    os.rmdir(path)


def programs(node):
    os.mkdir(node.path("l"))
    path = node.path("l", "x")
    fd = t.acquire(path)
    os.write(fd, b"me\n")
    number = t.token_of(fd)
    result = t.run(["getfattr", "-d", "--absolute-names", path])
    t.same(sorted(result.stdout.split("\n")[1:4]),
           sorted('%s="%s"' % pair for pair in zip(NAMES, described(path))), "getfattr -d")
    result = t.run(["getfattr", "--only-values", "-n", "user.lockfs.token", path])
    t.same(result.stdout, str(number), "getfattr --only-values")
    t.same(t.run(["getfattr", "-d", node.path("l")]).stdout, "", "getfattr -d of a lock")
    result = t.run(["setfattr", "-n", "user.lockfs.token", "-v", "1", path])
    t.ok(result.returncode == 1 and "not permitted" in result.stderr, "setfattr is refused")

    copy = t.base() + "/copy"
    outside = t.base() + "/outside"
    with open(outside, "w") as file:
        file.write("me, too\n")
    t.outcome(os.setxattr, outside, "user.x", b"1")
    for argv in (["ls", "-l", path], ["ls", "-la", node.path("l")], ["cp", "-a", path, copy],
                 ["cp", path, copy], ["cp", "--preserve=xattr", path, copy + "2"],
                 ["cp", "-a", outside, node.path("copied")],
                 ["cp", "-a", path, node.path("copied")],
                 ["find", node.path("l"), "-ls"], ["stat", path]):
        result = t.run(argv)
        t.same((result.returncode, result.stderr), (0, ""), " ".join(argv[:2]))
    t.same(t.cat(copy), "me\n", "the copy has the content")
    t.ok(not os.path.exists(node.path("copied")), "a copy into the tree is a claim, and over")
    os.close(fd)
    os.rmdir(node.path("l"))


def test():
    node = t.Node().start()
    for part in (claims, sizes, others, users, programs):
        t.note(part.__name__)
        part(node)


t.main(test)
