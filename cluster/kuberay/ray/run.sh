#!/bin/sh
# Run `vadv ARGUMENTS` as the entry point of a RayJob.
#
# 75 means "interrupted, go on": the command runs again and resumes. 2 is the user's mistake: KubeRay would start
# `backoffLimit` new clusters for it, because it retries every job that ends as FAILED. The job therefore stops itself and
# ends as STOPPED, which KubeRay does not retry. Every other failure is the machine's, and is retried.
while true; do
    vadv "$@"
    code=$?
    [ "$code" -eq 75 ] || break
    echo "run.sh: vadv was interrupted and goes on in 10 seconds" >&2
    sleep 10
done
if [ "$code" -eq 2 ]; then
    echo "run.sh: this job ends as STOPPED: see the message above, correct it, and create the job again" >&2
    job=$(python -c 'import json, os
print(json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"])') || exit "$code"
    ray job stop --no-wait --address "${VADV_JOB_SERVER:-http://127.0.0.1:8265}" "$job" >&2 && sleep 60
fi
exit "$code"
