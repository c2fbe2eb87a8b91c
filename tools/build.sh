#!/usr/bin/env bash
# Builds the real etcd tools that the tests, the bench and CI drive, into tools/bin.
#
# Versions are pinned by tools/go.mod, tools/benchmark/go.mod (the load generator needs older
# dependencies, hence a module of its own) and tools/k8s/go.mod. A binary is rebuilt only when its go.mod or
# go.sum changed, or its sources if it is ours: `bench` (tools/bench), `k8swalk` (tools/k8s).
# With names as arguments only those are built: tools/build.sh etcdctl. Ours and Kubernetes' (a build of
# minutes: kube-apiserver kube-controller-manager kubectl) are built only when asked for.
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
        kube-apiserver | kube-controller-manager | kubectl) echo "$here/k8s k8s.io/kubernetes/cmd/$1" ;;
        k8swalk) echo "$here/k8s rusd/tools/k8s/walk" ;;
        *) echo "tools: no such tool: $1" >&2; return 1 ;;
    esac
}

# The versions that Kubernetes' own build stamps into its programs; without them they call themselves v0.0.0.
k8s="$(sed -n 's/.*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$here/k8s/go.mod")"
minor="${k8s#v1.}"
stamps="-X k8s.io/component-base/version.gitVersion=$k8s -X k8s.io/component-base/version.gitMajor=1"
stamps+=" -X k8s.io/component-base/version.gitMinor=${minor%%.*}"

names=("$@")
[ ${#names[@]} -gt 0 ] || names=(etcdctl etcd etcdutl grpcurl actionlint benchmark)
for name in "${names[@]}"; do
    read -r dir pkg <<<"$(package "$name")"
    [ -n "$dir" ] || exit 1
    stamp="$out/.$name.stamp"
    flags="" files=("$dir/go.mod" "$dir/go.sum")
    case "$pkg" in
        k8s.io/*) flags="$stamps" ;;
        rusd/*) mapfile -t -O 2 files < <(find "$dir" -name '*.go' | LC_ALL=C sort) ;;
    esac
    sum="$(cat "${files[@]}" | sha256sum)"
    if [ -x "$out/$name" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then continue; fi
    echo "tools: building $name"
    (cd "$dir" && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$out/$name" "$pkg")
    echo "$sum" >"$stamp"
done
