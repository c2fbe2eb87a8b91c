#!/usr/bin/env bash
# Runs every ```sh block of docs/operations.md, in order and in one shell; the first command that fails ends it.
#
# operations-test.sh     RUSD_BIN and ETCDCTL choose the binaries.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${RUSD_BIN:-target/release/rusd}
[ -n "${RUSD_BIN:-}" ] || [ -x "$bin" ] || make build || exit 1
ctl=${ETCDCTL:-tools/bin/etcdctl}
[ -x "$ctl" ] || tools/build.sh etcdctl || exit 1
dir=$(mktemp -d)
cleanup() {
    local file
    for file in "$dir"/*.pid; do [ ! -e "$file" ] || kill -9 "$(cat "$file")" 2>/dev/null; done
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
mkdir "$dir/bin"
ln -s "$(realpath "$bin")" "$dir/bin/rusd"
ln -s "$(realpath "$ctl")" "$dir/bin/etcdctl"
awk '/^## / { title = substr($0, 4) }
     /^```sh$/ { inside = 1; printf "echo \"=== line %d: %s\"\n", NR, title; next }
     /^```/ { inside = 0 }
     inside' docs/operations.md >"$dir/blocks"
blocks=$(grep -c '^echo "=== line' "$dir/blocks")
[ "$blocks" -ge 10 ] || { echo "only $blocks blocks were found"; exit 1; }
begin=$SECONDS
if PATH="$dir/bin:$PATH" DATA="$dir" timeout 240 bash -euo pipefail "$dir/blocks" </dev/null; then
    echo "$blocks blocks ran in $((SECONDS - begin)) s"
else
    echo "FAILED after $((SECONDS - begin)) s; the members' last words:"
    tail -n 5 "$dir"/*.log
    exit 1
fi
