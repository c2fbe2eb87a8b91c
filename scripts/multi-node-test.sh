#!/usr/bin/env bash
# The validation plan on real processes: T1 election, T2 replication, T3 linearizable reads on followers,
# T4 kill -9 of the leader, T5 rejoin, T6 partition of the leader (in network namespaces made here; needs
# root and iproute2, else it is skipped loudly), T7 five members, T8 rolling kills.
#
# multi-node-test.sh [--only T4] [--keep]     RUSD_BIN and ETCDCTL choose the binaries.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
only="" keep=0
while [ $# -gt 0 ]; do
    case $1 in
        --only) only=${2:?--only needs a name}; shift 2 ;;
        --keep) keep=1; shift ;;
        *) echo "usage: $0 [--only T4] [--keep]" >&2; exit 2 ;;
    esac
done
bin=${RUSD_BIN:-target/release/rusd}
[ -n "${RUSD_BIN:-}" ] || [ -x "$bin" ] || make build || exit 1
ctl=${ETCDCTL:-tools/bin/etcdctl}
[ -x "$ctl" ] || tools/build.sh etcdctl || exit 1
curl=${GRPCURL:-tools/bin/grpcurl}
[ -x "$curl" ] || tools/build.sh grpcurl || exit 1
dir=$(mktemp -d)
declare -A pid=()
passed=0 failed=0

port() { echo $((2279 + 100 * $1)); }
# With namespaces (T6) member i lives at 10.199.77.i in $ns$i, and all hang on a bridge in ${ns}b.
ns=""
ep() { if [ -n "$ns" ]; then echo "http://10.199.77.$1:2379"; else echo "http://127.0.0.1:$(port "$1")"; fi; }
peer() { if [ -n "$ns" ]; then echo "http://10.199.77.$1:2380"; else echo "http://127.0.0.1:$(($(port "$1") + 1))"; fi; }
inside() { local i=$1; shift; if [ -n "$ns" ]; then ip netns exec "$ns$i" "$@"; else "$@"; fi; }
eps() { local i s=""; for i in "$@"; do s+=",$(ep "$i")"; done; echo "${s#,}"; }
e() { local i=$1; shift; inside "$i" "$ctl" --endpoints="$(ep "$i")" "$@" 2>>"$dir/etcdctl.log"; }
check() { # check TEXT COMMAND...
    local text=$1; shift
    if "$@"; then passed=$((passed + 1)); echo "  ok   $text"; else failed=$((failed + 1)); echo "  FAIL $text"; fi
}
eventually() { # eventually SECONDS COMMAND...
    local end=$((SECONDS + $1)); shift
    until "$@"; do [ "$SECONDS" -lt "$end" ] || return 1; sleep 0.1; done
}
start() { # start MEMBER SIZE
    local i=$1 j c=""
    for j in $(seq "$2"); do c+=",rusd$j=$(peer "$j")"; done
    ${ns:+ip netns exec "$ns$i"} "$bin" --name "rusd$i" --data-dir "$dir/rusd$i" --listen-client-urls "$(ep "$i")" --advertise-client-urls "$(ep "$i")" \
        --listen-peer-urls "$(peer "$i")" --initial-advertise-peer-urls "$(peer "$i")" \
        --initial-cluster "${c#,}" --initial-cluster-state new --initial-cluster-token multi-node >>"$dir/rusd$i.log" 2>&1 </dev/null &
    pid[$i]=$!
}
slay() { [ -z "${pid[$1]:-}" ] || { kill -9 "${pid[$1]}"; wait "${pid[$1]}"; unset "pid[$1]"; } 2>/dev/null; }
healthy() { e "$1" endpoint health >/dev/null; }
cluster() { # cluster SIZE: a fresh one
    local i; for i in 1 2 3 4 5; do slay "$i"; rm -rf "$dir/rusd$i"; done
    for i in $(seq "$1"); do start "$i" "$1"; done
    for i in $(seq "$1"); do check "rusd$i is ready" eventually 20 healthy "$i"; done
}
field() { e "$1" endpoint status -w fields | sed -nE "s/^\"$2\" : \"?([0-9]+)\"?$/\1/p" | head -1; }
leader() { # prints the member that calls itself leader
    local i; for i in "${!pid[@]}"; do [ "$(field "$i" Leader)" = "$(field "$i" MemberID)" ] && { echo "$i"; return; }; done; return 1
}
other() { local i; for i in "${!pid[@]}"; do [ "$i" != "$1" ] && { echo "$i"; return; }; done; }
agree() { local i l t; l=$(field 1 Leader) t=$(field 1 RaftTerm); [ "${l:-0}" != 0 ] && for i in "${!pid[@]}"; do
    [ "$(field "$i" Leader)" = "$l" ] && [ "$(field "$i" RaftTerm)" = "$t" ] || return 1; done; }
dump() { e "$1" get "" --prefix --consistency="$2"; }
same() { [ -n "$(dump "$1" s)" ] && [ "$(dump "$1" s)" = "$(dump "$2" l)" ]; }
value() { [ "$(e "$1" get "$2" --print-value-only)" = "$3" ]; }
new_leader() { local l; l=$(leader) && [ "$l" != "$1" ]; }
follows() { local l; l=$(leader) && [ "$l" != "$1" ] && [ "$(field "$1" Leader)" = "$(field "$l" Leader)" ]; }
cleanup() { local i; [ -z "${writer:-}" ] || kill "$writer" 2>/dev/null; for i in "${!pid[@]}"; do slay "$i"; done; unlink_hosts; if [ $keep = 1 ]; then echo "kept: $dir"; else rm -rf "$dir"; fi; }
trap cleanup EXIT
trap 'exit 130' INT TERM

T1() { cluster 3; check "one leader, same leader id and term on all" eventually 10 agree; }
T2() { local l i n ok; cluster 3; l=$(leader)
    for n in $(seq 100); do e "$l" put "k$n" "v$n" >/dev/null || break; done
    check "100 keys written to the leader" test "$n" = 100
    for i in 1 2 3; do [ "$i" = "$l" ] && continue; ok=0
        for n in $(seq 100); do value "$i" "k$n" "v$n" && ok=$((ok + 1)); done
        check "rusd$i returns all 100 values" test $ok = 100; done; }
T3() { local l f n ok=0; cluster 3; l=$(leader); f=$(other "$l")
    for n in $(seq 50); do e "$l" put lin "$n" >/dev/null && value "$f" lin "$n" && ok=$((ok + 1)); done
    check "50 linearizable reads on a follower saw the write before them" test $ok = 50; }
T4() { cluster 3; old=$(leader); e "$old" put before kill >/dev/null; slay "$old"
    check "a new leader within 10 s" eventually 10 new_leader "$old"
    local l; l=$(leader); check "the new leader has the old key" value "$l" before kill
    check "the new leader writes" e "$l" put after kill; }
T5() { T4; start "$old" 3
    check "the killed member is healthy again" eventually 20 healthy "$old"
    check "it is a follower" eventually 10 follows "$old"
    check "it has everything" eventually 10 same "$old" "$(other "$old")"; }
hosts() { # three hosts on a bridge, each in a namespace of its own
    local i; ns="rusd$$-"
    ip netns add "${ns}b" && ip -n "${ns}b" link add br0 type bridge && ip -n "${ns}b" link set br0 up || return 1
    for i in 1 2 3; do
        ip netns add "$ns$i" && ip -n "${ns}b" link add "p$i" type veth peer name eth0 netns "$ns$i" &&
            ip -n "${ns}b" link set "p$i" master br0 up && ip -n "$ns$i" addr add "10.199.77.$i/24" dev eth0 &&
            ip -n "$ns$i" link set eth0 up && ip -n "$ns$i" link set lo up || return 1
    done
}
unlink_hosts() { local i; [ -z "$ns" ] || for i in 1 2 3 b; do ip netns del "$ns$i" 2>/dev/null; done; ns=""; }
elected() { local i; for i in 1 2 3; do [ "$i" != "$1" ] && [ "$(field "$i" Leader)" = "$(field "$i" MemberID)" ] && return; done; return 1; }
leaderless() { [ "$(field "$1" Leader)" = 0 ]; }
T6() { local l o
    if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null; then echo "  SKIPPED: needs root and ip (iproute2)"; return; fi
    local i; for i in 1 2 3 4 5; do slay "$i"; rm -rf "$dir/rusd$i"; done
    hosts || { check "network namespaces can be made" false; unlink_hosts; return; }
    cluster 3; eventually 10 agree; l=$(leader); o=$(other "$l"); e "$o" put before cut >/dev/null
    ip -n "${ns}b" link set "p$l" down
    check "the majority elects a leader" eventually 10 elected "$l"
    check "and writes" eventually 10 e "$o" put after cut
    check "the cut-off leader no longer calls itself leader" eventually 10 leaderless "$l"
    check "nor answers linearizable reads" eval "! e $l --command-timeout=8s get before >/dev/null"
    check "but serializable ones" test "$(e "$l" get before --consistency=s --print-value-only)" = cut
    ip -n "${ns}b" link set "p$l" up
    check "healed, it follows" eventually 20 follows "$l"
    check "and has what it missed" eventually 10 value "$l" after cut
    for i in 1 2 3; do slay "$i"; done; unlink_hosts; }
T7() { local l i begin; cluster 5; slay 1; slay 2; eventually 10 leader >/dev/null; l=$(leader)
    check "two of five killed: still writing" eventually 10 e "$l" put five two
    # One call without a deadline of its own: etcdctl would try again, and end by its own clock.
    slay 3; begin=$SECONDS
    "$curl" -plaintext -import-path proto/etcd -proto etcdserverpb/rpc.proto -d '{"key":"Zml2ZQ==","value":"dGhyZWU="}' \
        "127.0.0.1:$(port 4)" etcdserverpb.KV/Put >"$dir/out" 2>&1; i=$?
    check "three of five killed: the write is refused" test $i != 0
    # Not the bare deadline: the leader took the write, its fate is unknown, and after a bare deadline the Go client writes again.
    check "with etcd's error" grep -qE "Message: etcdserver: (request timed out|no leader)" "$dir/out"
    check "and within the request timeout" test $((SECONDS - begin)) -le 10; }
T8() { local i w n=0 k missing=0; cluster 3; : >"$dir/acked"
    (while [ ! -e "$dir/stop" ]; do n=$((n + 1))
        "$ctl" --endpoints="$(eps 1 2 3)" put "c$n" "$n" >/dev/null 2>&1 && echo "c$n" >>"$dir/acked"; done) & w=$! writer=$!
    for i in 1 2 3; do slay $i; eventually 10 leader >/dev/null; start $i 3
        check "rusd$i killed and restarted under writes" eventually 20 healthy $i; done
    touch "$dir/stop"; wait $w; rm "$dir/stop"
    check "writes were acknowledged" test -s "$dir/acked"
    for i in 1 2 3; do e $i get "" --prefix --keys-only | sort >"$dir/keys$i"; missing=0
        for k in $(cat "$dir/acked"); do grep -qx "$k" "$dir/keys$i" || missing=$((missing + 1)); done
        check "rusd$i has every acknowledged key" test $missing = 0; done
    check "rusd1 and rusd2 are equal" eventually 10 same 2 1
    check "rusd1 and rusd3 are equal" eventually 10 same 3 1; }

for t in T1 T2 T3 T4 T5 T6 T7 T8; do
    [ -z "$only" ] || [ "$only" = $t ] || continue
    echo "$t"; $t
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
