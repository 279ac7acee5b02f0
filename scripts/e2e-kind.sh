#!/bin/sh
# The e2e tests on kind (https://kind.sigs.k8s.io), for people with Docker: builds the image, makes a cluster, runs the tests, and
# removes the cluster again. Needs docker, kind, kubectl and helm. E2E_KEEP=1 keeps the cluster to look at.
set -eu
cd "$(dirname "$0")/.."
cluster=imageproxy-e2e
image=localhost/imageproxy:e2e

say() { printf 'e2e-kind: %s\n' "$*" >&2; }

missing=
for program in docker kind kubectl helm; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -z "$missing" ] || { say "it needs$missing; without Docker, run \`make e2e\` as root"; exit 69; }

say 'building the container image'
docker build --quiet --tag "$image" . >/dev/null

work=$(mktemp -d)
cleanup() {
  if [ -n "${E2E_KEEP:-}" ]; then
    say "kept: kind delete cluster --name $cluster; KUBECONFIG=$work/kubeconfig"
  else
    kind delete cluster --quiet --name "$cluster" || true
    rm -rf "$work"
  fi
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
kind delete cluster --quiet --name "$cluster" || true
kind create cluster --quiet --name "$cluster" --kubeconfig "$work/kubeconfig" --wait 120s
kind load docker-image --quiet --name "$cluster" "$image"

# Pods reach this machine at the gateway of kind's network: its IPv4 address, of which there is one.
gateway=$(docker network inspect kind --format '{{range .IPAM.Config}}{{println .Gateway}}{{end}}' | grep -v -e : -e '^$' | head -n 1)
[ -n "$gateway" ] || { say 'the Docker network of kind has no IPv4 gateway'; exit 1; }

HELM=$(command -v helm) \
  E2E_KUBECONFIG="$work/kubeconfig" \
  E2E_IMAGE="$image" \
  E2E_ADDRESS="$gateway" \
  E2E_KILLER="docker exec $cluster-control-plane ctr --namespace k8s.io task kill --signal SIGKILL" \
  node --disable-warning=ExperimentalWarning scripts/e2e.ts "$@"
