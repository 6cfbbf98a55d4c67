#!/bin/sh
# Shows a cron job that runs on one machine at a time: every machine that mounts the lockfs has the
# same line in its crontab, the first one runs the job, the others see that and leave.
#
#   cron-job.sh flock|run [MOUNT [COMMAND [ARGUMENT...]]]
#
# `flock` needs nothing but flock(1). `run` needs lockfs(1); it also ends the job when its lock is
# lost, and refuses a MOUNT that is a plain directory, from which only lockfsd's guard keeps flock.
# The two exclude each other.
#
# "At a time" is not "once": where the clocks of two machines are further apart than the job takes,
# it runs twice. Let the job look whether its work is done; while it holds the lock, that is safe.
#
# Exit status: the job's own, or
#   64  wrong usage
#   69  no lock to be had: no lockfs there, or its daemon does not run, or refuses
#   70  `run`: the lock was lost, and the job has been ended
#   75  the job runs already; nothing was done
# and what else lockfs(1) lists. Let the job itself use small numbers.
set -u

method=${1-}
mount=${2-/locks}
lock=$mount/cron-job.lock
shift "$(($# < 2 ? $# : 2))"
[ $# -gt 0 ] || set -- sh -c 'echo "the job runs"; sleep 5'

say()
{
    echo "cron-job: $*" >&2
}

case $method in
flock)
    # In one line: flock -n -E 75 /locks/cron-job.lock COMMAND. With a descriptor, flock's 75 cannot
    # be taken for the job's. `command` keeps a failing exec from ending this shell with 2.
    command exec 9>"$lock" || exit 69
    flock -n -E 75 9
    case $? in
    0) ;;
    75)
        say "$lock is held, so the job runs already"
        exit 75
        ;;
    *)
        say "$lock cannot be locked"
        exit 69
        ;;
    esac
    # The job inherits descriptor 9: were this shell killed, the lock would stay until the job ends.
    "$@"
    ;;
run)
    exec lockfs run --try "$lock" -- "$@"
    ;;
*)
    echo "usage: cron-job.sh flock|run [MOUNT [COMMAND [ARGUMENT...]]]" >&2
    exit 64
    ;;
esac
