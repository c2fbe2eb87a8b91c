#!/usr/bin/env bash
# Builds the real etcd tools that the tests, the bench and CI drive, into tools/bin.
#
# Versions are pinned by tools/go.mod and tools/benchmark/go.mod (the load generator needs older
# dependencies, hence a module of its own). A binary is rebuilt only when its go.mod or go.sum changed.
# With names as arguments only those are built: tools/build.sh etcdctl
# `bench` is ours (tools/bench) and rebuilt when its sources changed; it is built only when asked for.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
out="$here/bin"
mkdir -p "$out"

if ! command -v go >/dev/null; then
    echo "tools: Go is needed to build etcd, etcdctl and their friends (https://go.dev/dl), and it is not in PATH" >&2
    exit 1
fi

# package NAME: prints "module-directory package".
package() {
    case "$1" in
        etcd) echo "$here go.etcd.io/etcd/server/v3" ;;
        etcdctl) echo "$here go.etcd.io/etcd/etcdctl/v3" ;;
        etcdutl) echo "$here go.etcd.io/etcd/etcdutl/v3" ;;
        grpcurl) echo "$here github.com/fullstorydev/grpcurl/cmd/grpcurl" ;;
        actionlint) echo "$here github.com/rhysd/actionlint/cmd/actionlint" ;;
        benchmark) echo "$here/benchmark go.etcd.io/etcd/v3/tools/benchmark" ;;
        bench) echo "$here/bench rusd/tools/bench" ;;
        *) echo "tools: no such tool: $1" >&2; return 1 ;;
    esac
}

names=("$@")
[ ${#names[@]} -gt 0 ] || names=(etcdctl etcd etcdutl grpcurl actionlint benchmark)
for name in "${names[@]}"; do
    read -r dir pkg <<<"$(package "$name")"
    [ -n "$dir" ] || exit 1
    stamp="$out/.$name.stamp"
    sum="$(cat "$dir/go.mod" "$dir/go.sum" | sha256sum)"
    [ "$name" != bench ] || sum="$(find "$dir" -name '*.go' -o -name 'go.*' | LC_ALL=C sort | xargs cat | sha256sum)"
    if [ -x "$out/$name" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then continue; fi
    echo "tools: building $name"
    (cd "$dir" && CGO_ENABLED=0 go build -trimpath -o "$out/$name" "$pkg")
    echo "$sum" >"$stamp"
done
