#!/bin/sh
# Print the recording and alerting rules as objects of the Prometheus Operator:
#
#   sh infra/prometheus/kubernetes_rules.sh | kubectl apply -n vadv -f -
cd "$(dirname "$0")" || exit 1
for part in recording alerts; do
    printf -- '---\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: vadv-%s}\nspec:\n' "$part"
    sed 's/^/  /' "$part.yml"
done
