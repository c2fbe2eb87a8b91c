#!/usr/bin/env bash
# The validation plan on real processes: T1 election, T2 replication, T3 linearizable reads on followers,
# T4 kill -9 of the leader, T5 rejoin, T6 partition of the leader (in network namespaces made here; needs
# root and iproute2, else it is skipped loudly), T7 five members, T8 rolling kills. With changes of the
# membership: T9 grow 1 to 5, T10 shrink 5 to 1, T11 replace a dead member, T12 a learner, T13 a lost
# majority, T14 a rolling restart.
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
run() { # run MEMBER STATE MEMBERS FLAGS...: a process of MEMBER, told that the cluster is or has MEMBERS
    local i=$1 state=$2 j c=""; for j in $3; do c+=",rusd$j=$(peer "$j")"; done; shift 3
    ${ns:+ip netns exec "$ns$i"} "$bin" --name "rusd$i" --data-dir "$dir/rusd$i" --listen-client-urls "$(ep "$i")" --advertise-client-urls "$(ep "$i")" \
        --listen-peer-urls "$(peer "$i")" --initial-advertise-peer-urls "$(peer "$i")" \
        --initial-cluster "${c#,}" --initial-cluster-state "$state" --initial-cluster-token multi-node "$@" >>"$dir/rusd$i.log" 2>&1 </dev/null &
    pid[$i]=$!
}
start() { run "$1" new "$(seq "$2")"; } # start MEMBER SIZE
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

id_of() { # id_of MEMBER ASKED
    e "$2" member list | awk -F', ' -v url="$(peer "$1")" '$4 == url { print $1 }'; }
size() { test "$(e "$1" member list | grep -c ', started,')" = "$2"; }
# A change that fails may have been made all the same.
added() { # added MEMBER ASKED FLAGS...: etcdctl's answer is kept in out; one whose answer was lost is removed, to be added again
    local i=$1 at=$2 id; shift 2
    e "$at" member add "rusd$i" --peer-urls="$(peer "$i")" "$@" >"$dir/out" && return
    id=$(id_of "$i" "$at") && [ -n "$id" ] && e "$at" member remove "$id" >/dev/null; return 1; }
removed() { local id; id=$(id_of "$1" "$2") && { [ -z "$id" ] || e "$2" member remove "$id" >/dev/null; }; }
join() { # join MEMBER OTHERS...: an added member's first start
    local i=$1; rm -rf "$dir/rusd$i"; run "$i" existing "$*"; check "rusd$i joins" eventually 30 healthy "$i"; }
leads() { [ "$(leader)" = "$1" ] || e "$(leader)" move-leader "$(id_of "$1" "$1")" >/dev/null; }
ended() { ! kill -0 "${pid[$1]}" 2>/dev/null; }
ended_well() { local code; eventually 15 ended "$1" || return 1; wait "${pid[$1]}"; code=$?; unset "pid[$1]"; return $code; }
stop() { kill -TERM "${pid[$1]}"; ended_well "$1"; }
write() { # write MEMBER...: writes w1, w2, .. with all of them as endpoints, until rest
    rm -f "$dir/stop"; : >"$dir/acked"; : >"$dir/failed"
    (n=0; while [ ! -e "$dir/stop" ]; do n=$((n + 1))
        if "$ctl" --endpoints="$(eps "$@")" put "w$n" "$n" >/dev/null 2>>"$dir/failed"; then echo "w$n" >>"$dir/acked"; fi; done) & writer=$!
    check "writes begin" eventually 20 test -s "$dir/acked"; }
rest() { touch "$dir/stop"; wait "$writer"; writer=""; rm "$dir/stop"; }
has_acked() { e "$1" get "" --prefix --keys-only --consistency=s | sort >"$dir/keys"; [ -z "$(sort "$dir/acked" | comm -23 - "$dir/keys")" ]; }
complete() { local i; for i in "$@"; do check "rusd$i has every acknowledged key" eventually 10 has_acked "$i"; done; }
T9() { local i; cluster 1; write 1 2 3 4 5
    for i in 2 3 4 5; do
        check "rusd$i is added" eventually 20 added "$i" 1
        # shellcheck disable=SC2046
        join "$i" $(seq $((i - 1)))
        check "rusd$i is given its vote, and can lead" eventually 20 leads "$i"; done
    rest; check "all five have started" size 1 5; complete 1 2 3 4 5
    for i in 2 3 4 5; do check "rusd1 and rusd$i are equal" eventually 10 same "$i" 1; done; }
value_put() { e "$1" put "$2" x >/dev/null; }
T10() { local n victim asked; cluster 5; write 1 2 3 4 5
    for n in 4 3 2 1; do
        eventually 10 leader >/dev/null; victim=$(leader); [ $((n % 2)) = 0 ] || victim=$(other "$victim"); asked=$(other "$victim")
        check "rusd$victim is removed, $n stay$([ "$victim" = "$(leader)" ] && echo ' (it leads)')" eventually 20 removed "$victim" "$asked"
        check "it ends by itself" ended_well "$victim"
        check "the others write" eventually 10 value_put "$asked" "left$n"; done
    rest; check "one member is left" size "$asked" 1; complete "$asked"; }
T11() { local dead; cluster 3; write 1 2 3; eventually 10 leader >/dev/null; dead=$(leader); asked=$(other "$dead"); slay "$dead"
    check "the dead one is removed" eventually 20 removed "$dead" "$asked"
    check "and added again" eventually 20 added "$dead" "$asked"
    check "etcdctl says how to start it" grep -q 'ETCD_INITIAL_CLUSTER_STATE="existing"' "$dir/out"
    join "$dead" $(echo 1 2 3 | tr -d "$dead")
    check "it is given its vote, and can lead" eventually 20 leads "$dead"
    rest; check "three have started" size "$dead" 3; complete 1 2 3
    check "rusd$dead and rusd$asked are equal" eventually 10 same "$dead" "$asked"; }
votes() { e "$2" member list | grep -q ", $(peer "$1"), .*, false$"; }
promoted() { e "$2" member promote "$(id_of "$1" "$2")" >"$dir/out" 2>&1 || votes "$1" "$2"; }
T12() { local early; cluster 3; e 1 put before learner >/dev/null
    check "a learner is added" eventually 20 added 4 1 --learner
    early=$("$ctl" --endpoints="$(ep 1)" member promote "$(id_of 4 1)" 2>&1)
    check "promoted before it has started: refused" grep -q 'can only promote a learner member which is in sync with leader' <<<"$early"
    rm -rf "$dir/rusd4"; run 4 existing "1 2 3 4"
    check "it learns" eventually 20 test_read 4 before learner s
    early=$("$ctl" --endpoints="$(ep 4)" get before 2>&1)
    check "a linearizable read of a learner is refused" grep -q 'rpc not supported for learner' <<<"$early"
    check "it can't be handed leadership" eval '! e "$(leader)" move-leader "$(id_of 4 1)" >/dev/null'
    check "promoted once it is in sync" eventually 20 promoted 4 1
    check "it serves linearizable reads" eventually 10 value 4 before learner
    check "and can lead" eventually 20 leads 4; }
test_read() { [ "$(e "$1" get "$2" --print-value-only --consistency="$4")" = "$3" ]; }
more() { [ "$(wc -l <"$dir/acked")" -gt "$1" ]; }
T13() { local i lead kept lost; cluster 3; write 1 2 3; eventually 10 leader >/dev/null; lead=$(leader); kept=$(other "$lead"); lost=$((6 - lead - kept))
    # What is acknowledged after the first loss is at both that are left; the last of it may not be known to be committed.
    slay "$lost"; i=$(wc -l <"$dir/acked"); check "two of three write" eventually 10 more "$i"; slay "$lead"; rest
    check "without a majority nothing is written" eval "! e $kept --command-timeout=2s put lost majority >/dev/null"
    stop "$kept"; run "$kept" new "1 2 3" --force-new-cluster
    check "forced, the survivor is healthy alone" eventually 20 healthy "$kept"
    check "it is the only member" test "$(e "$kept" member list | wc -l)" = 1
    complete "$kept"; check "it writes" eval "e $kept put forced x >/dev/null"
    stop "$kept"; run "$kept" new "1 2 3"; check "without the flag, too" eventually 20 healthy "$kept"
    check "rusd$lost is added" eventually 20 added "$lost" "$kept"; join "$lost" "$kept"; check "and can lead" eventually 20 leads "$lost"
    check "rusd$lead is added" eventually 20 added "$lead" "$kept"; join "$lead" "$lost" "$kept"; check "and can lead" eventually 20 leads "$lead"
    complete 1 2 3; for i in "$lost" "$lead"; do check "rusd$i and rusd$kept are equal" eventually 10 same "$i" "$kept"; done; }
T14() { local i; cluster 3; write 1 2 3
    for i in 1 2 3; do check "rusd$i ends in order" stop "$i"; start "$i" 3; check "and is back" eventually 20 healthy "$i"
        check "and follows" eventually 10 agree; done
    rest; check "no write has failed" test ! -s "$dir/failed"; complete 1 2 3; }

for t in T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13 T14; do
    [ -z "$only" ] || [ "$only" = $t ] || continue
    echo "$t"; $t
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
