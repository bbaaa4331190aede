#!/bin/sh
# preStop of a worker: tell Ray that this node goes in SECONDS, and stay until its work has left.
#
#   drain.sh [SECONDS]
#
# Ray Train learns the deadline, checkpoints and goes on elsewhere. Once nothing runs here, Ray ends the node by itself, and
# with it the container and this script. The pod's terminationGracePeriodSeconds must be longer than SECONDS.
seconds=${1:-90}
end=$(($(date +%s) + seconds))
ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the pod is being deleted" \
    --deadline-remaining-seconds "$seconds" || exit 1
while [ "$(date +%s)" -lt "$end" ]; do
    sleep 1
done
