#!/usr/bin/env bash
# A newcomer's first minutes with one member and the real etcdctl: start without flags, put, get, del, txn,
# kill -9, start again, and everything is there. On the default ports, so nothing else may use them.
#
# single-node-test.sh [--keep]     RUSD_BIN and ETCDCTL choose the binaries.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
keep=0
case ${1:-} in
    "") ;;
    --keep) keep=1 ;;
    *) echo "usage: $0 [--keep]" >&2; exit 2 ;;
esac
bin=${RUSD_BIN:-target/release/rusd}
[ -n "${RUSD_BIN:-}" ] || [ -x "$bin" ] || make build || exit 1
ctl=${ETCDCTL:-tools/bin/etcdctl}
[ -x "$ctl" ] || tools/build.sh etcdctl || exit 1
bin=$(realpath "$bin") ctl=$(realpath "$ctl") dir=$(mktemp -d)
passed=0 failed=0 pid=""
unset "${!ETCD_@}" "${!ETCDCTL_@}"

cleanup() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
    if [ $keep = 1 ]; then echo "kept: $dir"; else rm -rf "$dir"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM
check() { # check TEXT COMMAND...
    local text=$1; shift
    if "$@"; then passed=$((passed + 1)); echo "  ok   $text"; else failed=$((failed + 1)); echo "  FAIL $text"; fi
}
eventually() { # eventually SECONDS COMMAND...
    local end=$((SECONDS + $1)); shift
    until "$@"; do [ "$SECONDS" -lt "$end" ] || return 1; sleep 0.1; done
}
e() { "$ctl" "$@" 2>>"$dir/etcdctl.log"; }
start() { (cd "$dir" && exec "$bin" >>"$dir/rusd.log" 2>&1 </dev/null) & pid=$!; }
healthy() { e endpoint health >/dev/null; }
prints() { # prints TEXT COMMAND...: the command's standard output is exactly TEXT
    local want=$1 got; shift; got=$("$@"); [ "$got" = "$want" ] || { echo "       wanted: $want"; echo "       got:    $got"; return 1; }
}
txn() { printf 'value("greeting") = "%s"\n\nput greeting servus\n\nget greeting\n\n' "$1" | e txn; }
answers() { [ "$(curl -s -o "$dir/body" -w '%{http_code}' "http://127.0.0.1:2379$1")" = 200 ] && grep -q "$2" "$dir/body"; }
refused() { ! e "$@" >/dev/null; }

start
check "a member without flags is healthy" eventually 20 healthy
check "its data is in ./default.etcd" test -d "$dir/default.etcd"
check "put" prints OK e put greeting hello
check "get" prints $'greeting\nhello' e get greeting
check "txn whose compare holds" prints $'SUCCESS\n\nOK' txn hello
check "txn whose compare doesn't" prints $'FAILURE\n\ngreeting\nservus' txn hello
check "del" prints 1 e del greeting
check "del of nothing" prints 0 e del greeting
check "get of nothing" prints "" e get greeting
for n in $(seq 20); do e put "k$n" "v$n" >/dev/null || break; done
check "20 puts" test "$n" = 20
check "an old revision" prints $'greeting\nhello' e get greeting --rev 2
check "a future revision is refused" refused get greeting --rev 1000
check "an empty key is refused" refused put "" x
check "a put with an unknown lease is refused" refused put k v --lease 1234
check "compact" prints "compacted revision 5" e compaction 5
check "a compacted revision is refused" refused get greeting --rev 2
check "member list" eval '[ "$(e member list | wc -l)" = 1 ]'
check "status" eval 'e endpoint status -w json | grep -q "\"version\":\"3.7.1\""'
check "alarm list is empty" prints "" e alarm list
check "/health" answers /health '"health":"true"'
check "/readyz" answers /readyz ok
check "/version" answers /version '"etcdserver":"3.7.1"'
check "/metrics" answers /metrics '^etcd_server_has_leader 1'
revision=$(e get k1 -w fields | sed -n 's/^"Revision" : //p')

kill -9 "$pid"; wait "$pid" 2>/dev/null
start
check "killed and started again, it is healthy" eventually 20 healthy
for n in $(seq 20); do prints "v$n" e get "k$n" --print-value-only || break; done
check "all 20 values are there" test "$n" = 20
check "at the same revision" eval '[ "$(e get k1 -w fields | sed -n "s/^\"Revision\" : //p")" = "$revision" ]'
check "what was compacted stays so" refused get greeting --rev 2
check "a second member on the same ports and directory is refused" eval '! (cd "$dir" && timeout 20 "$bin" >"$dir/second.log" 2>&1)'
check "and says why" grep -qi "address already in use" "$dir/second.log"
check "the first goes on" prints OK e put k1 v1

kill -TERM "$pid"; wait "$pid"; code=$?
check "SIGTERM ends it in order" test $code = 0 -o $code = 143
check "its log has no errors" eval '! grep -E "\"level\":\"(error|fatal|panic)\"" "$dir/rusd.log"'
pid=""
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
