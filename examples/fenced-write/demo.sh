#!/bin/sh
# Shows why a lock needs fencing numbers: holder A is paused right before it writes, loses the lock,
# and wakes up when B has written; its late write is refused.
#
#   demo.sh [MOUNT]     MOUNT: of a lockfs, by default /locks
#
# Exit status: 0 when all went as it should.
set -u
mount=${1-/locks}
here=$(dirname "$0")
lock=
dir=
a=

cleanup()
{
    status=$?
    trap - EXIT
    if [ -n "$a" ]; then
        kill -KILL "$a"
        wait "$a"
    fi 2>/dev/null
    # Takes the lock away also from a holder that is still there.
    [ -z "$lock" ] || rm -rf "$lock" || status=1
    [ -z "$dir" ] || rm -rf "$dir"
    exit "$status"
}

fail()
{
    echo "demo.sh: $*" >&2
    exit 1
}

# Waits until A has stopped. The state of a process follows its name in proc(5).
await_stop_of_a()
{
    for _ in $(seq 600); do
        case $(cat "/proc/$a/stat" 2>/dev/null) in
        *") T "*) return 0 ;;
        *") Z "* | "") return 1 ;;
        esac
        sleep 0.1
    done
    return 1
}

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

[ -e "$mount/.lockfs/status" ] || fail "there is no lockfs on $mount"
dir=$(mktemp -d) || exit 1
lock=$(mktemp -d "$mount/fenced-write.XXXXXX") || exit 1
db=$dir/db

PAUSE=1 "$here/holder.sh" "$lock" A "$db" "A's line" &
a=$!
await_stop_of_a || fail "A did not come to its write"
echo "A: paused right before its write"

# As an operator would who takes A for dead; `lockfs release --force $lock` does the same.
rm "$lock/A" || exit 1
echo "A's lock is broken: rm $lock/A"

"$here/holder.sh" "$lock" B "$db" "B's line" || fail "B could not write"

echo "A: wakes up, and writes"
kill -CONT "$a"
wait "$a"
status=$?
a=
[ "$status" = 3 ] || fail "A ended with $status; its write should have been refused with 3"

echo "The database has, by token:"
rows=$(/usr/bin/python3 -c '
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute("SELECT token, text FROM entry"):
    print("%d %s" % row)' "$db")
echo "$rows"
[ "${rows#* }" = "B's line" ] || fail "that should be B's line alone"
