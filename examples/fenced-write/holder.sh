#!/bin/sh
# Shows a holder as a script should be: it acquires, reads its fencing number at once, works, and
# hands the number to the resource with every write.
#
#   holder.sh LOCK NAME DB TEXT     holds the lock LOCK by the file NAME, and writes TEXT to DB
#
# With PAUSE=1 it stops itself right before it writes: the worst moment. To ask the lock once more
# before the write would not help: a real pause (swap, a suspended machine) may come after the
# answer.
#
# Exit status: 69 no number to be had, 75 not acquired, else that of write.py.
set -u
lock=$1 name=$2 db=$3 text=$4
here=$(dirname "$0")

set -C # noclobber: the next line opens with O_EXCL, and so acquires
command exec 9>"$lock/$name" || exit 75
token=$(cat "$lock/token") || exit 69
echo "$name: acquired, token $token"

[ "${PAUSE-}" != 1 ] || kill -STOP $$

"$here/write.py" --db "$db" --token "$token" "$text"
status=$?
[ "$status" != 0 ] || echo "$name: written"
exit "$status" # and the end of the process releases
