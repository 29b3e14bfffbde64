#!/usr/bin/env bash
# The main job, with public commands only: a cluster that survives its leader.
#   make demo          runs it; everything it leaves is in out/demo
set -euo pipefail
cd "$(dirname "$0")/.."
out=out/demo
export SKERRY_DIR=$out/cluster
unset SKERRY_ADDRESS SKERRY_TOKEN
started=$SECONDS

say() { printf '\n\033[1m== %s\033[0m  (%s s)\n' "$*" "$((SECONDS - started))"; }
run() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }
expect() { # expect CODE COMMAND...: the command must end with this exit code
  local want=$1 got=0
  shift
  run "$@" || got=$?
  [ "$got" = "$want" ] || { echo "demo: expected exit code $want, got $got" >&2; exit 1; }
}
cleanup() { skerry dev stop --dir "$SKERRY_DIR" >/dev/null 2>&1 || true; }
trap cleanup EXIT

skerry dev stop --dir "$SKERRY_DIR" >/dev/null 2>&1 || true
rm -rf "$out"
mkdir -p "$out"

say "three replicas, four agents, a chaos proxy in every link"
run skerry dev --replicas 3 --agents 4 --detach
run skerry status

say "a service of three, and what the kernel holds it to"
run skerry run examples/service.toml --wait
run skerry job show ticker --limits

say "a job that exceeds its memory: killed alone, reported oom, restarted once by its policy"
expect 1 skerry run examples/memory-hog.toml --wait
run skerry job show memory-hog

say "a job that no node could ever hold: refused at once, with the nearest miss"
expect 1 skerry run examples/impossible.toml

say "a batch of fifty"
run skerry run examples/batch.toml --wait

say "a job that must wait: accepted, but not placed in time (exit code 3)"
expect 3 skerry run examples/waiting.toml --wait --wait-timeout 3

say "the leader is killed, restarted, and catches up"
run skerry chaos run leader-killed --seed 1

say "the leader of this moment is cut off alone through the proxy's HTTP API, and healed"
run skerry chaos run minority-leader --backend proxy --seed 2

say "where things stand"
run skerry status
run skerry explain crowd

say "the story of this run, from its trace"
run skerry dev stop
run skerry trace explain "$SKERRY_DIR/trace"

say "and the trace checked"
run skerry trace check "$SKERRY_DIR/trace"

say "and drawn as one page"
run skerry trace view "$SKERRY_DIR/trace" --out "$out/demo.html"

say "done; the trace is in $SKERRY_DIR/trace, its page is $out/demo.html"
