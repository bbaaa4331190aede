#!/bin/sh
# preStop of a pod: tell Ray that this node goes in SECONDS, and stay until its work has left.
#
#   drain.sh [SECONDS]
#
# A training checkpoints and goes on elsewhere; on the head, it ends with 75. The pod's terminationGracePeriodSeconds must be
# longer than SECONDS.
seconds=${1:-90}
end=$(($(date +%s) + seconds))
ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the pod is being deleted" \
    --deadline-remaining-seconds "$seconds" || exit 1
works() { # a worker of Ray that is not idle; the agents always run
    grep -ahs '^ray::' /proc/[0-9]*/cmdline | grep -aqvE '^ray::(IDLE|DashboardAgent|RuntimeEnvAgent)'
}
while works && [ "$(date +%s)" -lt "$end" ]; do
    sleep 1
done
