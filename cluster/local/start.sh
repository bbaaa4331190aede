#!/bin/sh
# Start a Ray head on this machine that accepts jobs at http://127.0.0.1:8265 with its own token.
#
#   cluster/local/start.sh
#   export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
#   vadv submit train --config jobs/configs/demo.yaml
#   .venv/bin/ray stop
set -eu
bin=${VADV_BIN:-.venv/bin}
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [ ! -s "$token" ]; then
    (umask 077 && mkdir -p "$(dirname "$token")" && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$token")
    echo "created the token $token"
fi
RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0 RAY_TRAIN_V2_ENABLED=1 \
    RAY_JOB_STOP_WAIT_TIME_S=40 \
    "$bin/ray" start --head --node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1 --dashboard-port=8265 --disable-usage-stats
echo "jobs: http://127.0.0.1:8265 (export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265)"
