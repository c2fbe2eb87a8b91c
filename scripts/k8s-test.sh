#!/usr/bin/env bash
# A real Kubernetes apiserver and controller-manager on clusters of 1 and 3 members, walked as a person (kubectl) and as
# programs (tools/k8s/walk) would, then with members killed under writes. Ends with "N passed, N failed".
#
# k8s-test.sh [--members 1|3] [--server rusd|etcd] [--keep]
# RUSD_BIN chooses the binary. --server etcd runs the same on the real etcd: what is expected here is what etcd does.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
sizes="1 3" server=rusd keep=0
while [ $# -gt 0 ]; do
    case $1 in
        --members) sizes=${2:?--members needs a number}; shift 2 ;;
        --server) server=${2:?--server needs rusd or etcd}; shift 2 ;;
        --keep) keep=1; shift ;;
        *) echo "usage: $0 [--members 1|3] [--server rusd|etcd] [--keep]" >&2; exit 2 ;;
    esac
done
tools/build.sh kube-apiserver kube-controller-manager kubectl k8swalk etcdctl || exit 1
case $server in
    rusd) bin=${RUSD_BIN:-target/release/rusd}; [ -n "${RUSD_BIN:-}" ] || make build || exit 1 ;;
    etcd) tools/build.sh etcd || exit 1; bin=tools/bin/etcd ;;
    *) echo "$0: no such server: $server" >&2; exit 2 ;;
esac
event_ttl=40 compaction=20
passed=0 failed=0
dir=$(mktemp -d)
declare -A pid=()
clients=() peers=()

say() { echo "=== $*"; }
check() { # check TEXT COMMAND...
    local text=$1; shift
    if "$@" >>"$dir/check.log" 2>&1; then passed=$((passed + 1)); echo "  ok   $text"; else failed=$((failed + 1)); echo "  FAIL $text"; fi
}
eventually() { # eventually SECONDS COMMAND...
    local end=$((SECONDS + $1)); shift
    until "$@"; do [ "$SECONDS" -lt "$end" ] || return 1; sleep 0.2; done
}
slay() { [ -z "${pid[$1]:-}" ] || { kill -9 "${pid[$1]}"; wait "${pid[$1]}"; unset "pid[$1]"; } 2>/dev/null; }
cleanup() {
    local name; for name in "${!pid[@]}"; do slay "$name"; done
    if [ $keep = 1 ]; then echo "kept: $dir"; else rm -rf "$dir"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

url() { echo "http://127.0.0.1:${clients[$1 - 1]}"; }
urls() { local i s=""; for i in $(seq "$size"); do s+=",$(url "$i")"; done; echo "${s#,}"; }
start() { # start MEMBER
    local i=$1 j c=""
    for j in $(seq "$size"); do c+=",m$j=http://127.0.0.1:${peers[$j - 1]}"; done
    # What kubeadm's manifest gives, as far as it isn't TLS.
    "$bin" --name "m$i" --data-dir "$run/m$i" --listen-client-urls "$(url "$i")" --advertise-client-urls "$(url "$i")" \
        --listen-peer-urls "http://127.0.0.1:${peers[$i - 1]}" --initial-advertise-peer-urls "http://127.0.0.1:${peers[$i - 1]}" \
        --initial-cluster "${c#,}" --initial-cluster-state new --initial-cluster-token "k8s-$$" --snapshot-count=10000 \
        --feature-gates=InitialCorruptCheck=true --watch-progress-notify-interval=5s >>"$run/m$i.log" 2>&1 </dev/null &
    pid[m$i]=$!
}
health() { # health URL PATH: what it answers
    curl -s -o /dev/null -w '%{http_code}' --max-time 2 "$1$2" 2>/dev/null
}
healthy() { [ "$(health "$(url "$1")" /readyz)" = 200 ]; }
k() { tools/bin/kubectl --kubeconfig "$run/kubeconfig" --cache-dir "$run/cache" "$@"; }
ready() { [ "$(k get --raw /readyz 2>/dev/null)" = ok ]; }
refused() { # refused PATTERN COMMAND...: it fails, and says why
    local pattern=$1 out; shift
    out=$("$@" 2>&1) && return 1
    echo "$out" | grep -qi -- "$pattern" || { echo "$out"; return 1; }
}
is() { # is TEXT COMMAND...: it prints that
    local text=$1; shift
    [ "$("$@" 2>/dev/null)" = "$text" ]
}
walker() { # walker COMMAND FLAGS...: its judgements are counted with ours
    local command=$1; shift
    tools/bin/k8swalk "$command" -kubeconfig "$run/kubeconfig" -members "$(urls)" -event-ttl "${event_ttl}s" -compaction "${compaction}s" "$@" 2>&1 | tee "$run/$command.out"
    count_walker "$run/$command.out" "${PIPESTATUS[0]}" "$command"
}
count_walker() { # count_walker OUTPUT STATUS NAME
    passed=$((passed + $(grep -c '^  ok  ' "$1")))
    failed=$((failed + $(grep -c '^  FAIL' "$1")))
    if [ "$2" != 0 ] && ! grep -q '^  FAIL' "$1"; then check "$3 came to its end" false; fi
}

boot() { # boot SIZE: members, apiserver, controller-manager
    local i ports
    size=$1 run=$dir/$1
    mkdir -p "$run/certs"
    mapfile -t ports < <(tools/bin/k8swalk ports $((2 * size + 2)))
    clients=("${ports[@]:0:size}") peers=("${ports[@]:size:size}")
    for i in $(seq "$size"); do start "$i"; done
    for i in $(seq "$size"); do check "member $i is ready" eventually 60 healthy "$i"; done
    local port=${ports[2 * size]}
    tools/bin/k8swalk prepare "$run" "$port" || exit 1
    # The address that it advertises is in a net for documentation: nobody is meant to reach it there.
    tools/bin/kube-apiserver --etcd-servers="$(urls)" --bind-address=127.0.0.1 --secure-port="$port" --advertise-address=192.0.2.1 \
        --cert-dir="$run/certs" --token-auth-file="$run/tokens.csv" --authorization-mode=RBAC \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$run/sa.key" \
        --service-account-signing-key-file="$run/sa.key" --service-cluster-ip-range=10.96.0.0/16 --event-ttl="${event_ttl}s" \
        --etcd-compaction-interval="${compaction}s" --vmodule=store=4,watcher=4 >"$run/apiserver.log" 2>&1 </dev/null &
    pid[apiserver]=$!
    check "the apiserver is ready" eventually 120 ready
    if ! ready; then tail -5 "$run/apiserver.log"; echo "$passed passed, $((failed + 1)) failed"; exit 1; fi
    tools/bin/kube-controller-manager --kubeconfig="$run/kubeconfig" --service-account-private-key-file="$run/sa.key" \
        --root-ca-file="$run/certs/apiserver.crt" --bind-address=127.0.0.1 --secure-port="${ports[2 * size + 1]}" --cert-dir="$run/certs" \
        --leader-elect=true --use-service-account-credentials=true >"$run/controller-manager.log" 2>&1 </dev/null &
    pid[controller-manager]=$!
    check "the controller-manager leads" eventually 120 manager_leads
}
manager_leads() { [ -n "$(k -n kube-system get lease kube-controller-manager -o 'jsonpath={.spec.holderIdentity}' 2>/dev/null)" ]; }

deployment() { # deployment IMAGE
    printf '%s\n' "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 3, selector: {matchLabels: {app: web}}, \
template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: $1}]}}}}"
}
count() { k -n person get "$@" -o name 2>/dev/null | wc -l; }
person() { # what a person does with kubectl
    check "a namespace is created" k create namespace person
    check "and gets its service account and root certificate" eventually 60 k -n person get serviceaccount/default configmap/kube-root-ca.crt
    deployment registry.invalid/one >"$run/web.yaml"
    check "a deployment is applied" k -n person apply -f "$run/web.yaml"
    check "its 3 pods are made" eventually 60 is 3 count pods
    check "it is scaled" k -n person scale deployment/web --replicas=5
    check "to 5 pods" eventually 60 is 5 count pods
    deployment registry.invalid/two >"$run/web.yaml"
    check "its image is changed" k -n person apply -f "$run/web.yaml"
    check "which makes a second replica set" eventually 60 is 2 count replicasets
    check "a watch sees the pods" eventually 60 eval 'k -n person get pods --watch --request-timeout=2s 2>/dev/null | grep -q ^web-'
    check "it is rolled back" k -n person rollout undo deployment/web
    check "to its first image" eventually 60 is registry.invalid/one k -n person get deployment web -o 'jsonpath={.spec.template.spec.containers[0].image}'

    check "a custom resource is defined" k apply -f - <<<'{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: gadgets.person.rusd},
spec: {group: person.rusd, scope: Namespaced, names: {plural: gadgets, singular: gadget, kind: Gadget}, versions: [{name: v1, served: true, storage: true,
subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer, maximum: 9}}},
status: {type: object, properties: {phase: {type: string}}}}}}}]}}'
    check "and established" k wait --for=condition=Established --timeout=60s crd/gadgets.person.rusd
    local gadget='{apiVersion: person.rusd/v1, kind: Gadget, metadata: {name: one}, spec: {size: 3}}'
    check "a gadget is created" eventually 30 k -n person apply -f - <<<"$gadget"
    check "one too large is refused" refused "less than or equal to 9" k -n person apply -f - <<<"${gadget/3/30}"
    check "its status is patched" k -n person patch gadget one --subresource=status --type=merge -p '{"status":{"phase":"Done"}}'
    check "and read back" is "3 Done" k -n person get gadget one -o 'jsonpath={.spec.size} {.status.phase}'

    local map='{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {color: red}}'
    check "server-side apply by one manager" k -n person apply --server-side --field-manager=one -f - <<<"$map"
    check "conflicts with another's" refused "conflict" k -n person apply --server-side --field-manager=two -f - <<<"${map/color: red/color: blue}"
    check "unless forced" k -n person apply --server-side --field-manager=two --force-conflicts -f - <<<"${map/color: red/color: blue}"
    check "a strategic merge patch" k -n person patch configmap shared --type=strategic -p '{"data":{"size":"big"}}'
    check "a JSON patch" k -n person patch configmap shared --type=json -p '[{"op":"replace","path":"/data/size","value":"small"}]'
    check "all of it is there" is "blue small" k -n person get configmap shared -o 'jsonpath={.data.color} {.data.size}'
    check "a stale replace is refused" refused "the object has been modified" k -n person replace -f - <<<"${map/name: shared/name: shared, resourceVersion: '"1"'}"
    check "lists in chunks and at once agree" test "$(k get clusterroles --chunk-size=7 -o name | sort)" = "$(k get clusterroles --chunk-size=0 -o name | sort)"

    check "the namespace is deleted" k delete namespace person --timeout=120s
    check "and nothing of it is left in the store" is 0 eval "tools/bin/etcdctl --endpoints=$(urls) get /registry/ --prefix --keys-only | grep -c /person/"
}

mark() { echo "$(date +%s.%N) $*" >>"$run/marks"; }
storm() { # writers and watchers go on while members are killed
    local i old=0 status
    : >"$run/marks"
    tools/bin/k8swalk storm -kubeconfig "$run/kubeconfig" -members "$(urls)" -stop "$run/stop" -marks "$run/marks" >"$run/storm.out" 2>&1 &
    pid[storm]=$!
    check "the storm begins" eventually 120 grep -q "storm begins" "$run/storm.out"
    sleep 5
    for i in 1 2; do
        # First the leader, later another one; of a single member there is only that one.
        old=$(tools/bin/k8swalk leader "$(urls)") || old=1
        [ "$i" = 1 ] || old=$((old % size + 1))
        mark "kill -9 of $([ "$i" = 1 ] && echo "the leader" || echo "another member") (member $old of $size)"
        slay "m$old"
        [ "$size" = 1 ] || sleep 4
        start "$old"
        check "member $old is back after kill -9" eventually 60 healthy "$old"
        sleep 6
    done
    touch "$run/stop"
    wait "${pid[storm]}"; status=$?
    unset "pid[storm]"
    cat "$run/storm.out"
    count_walker "$run/storm.out" "$status" "the storm"
    check "the apiserver lives" kill -0 "${pid[apiserver]}"
    check "the controller-manager kept its lease" kill -0 "${pid[controller-manager]}"
}
silent() { # silent PATTERN: the apiserver never said that
    ! grep -E -- "$1" "$run/apiserver.log" | head -3 | grep .
}

for wanted in $sizes; do
    say "$server, $wanted member(s): start"
    boot "$wanted"
    say "$server, $wanted member(s): a person"
    person
    say "$server, $wanted member(s): programs"
    walker walk
    say "$server, $wanted member(s): members are killed"
    storm
    say "$server, $wanted member(s): the paths it took"
    walker judge
    check "the apiserver never fell back to pages" silent "falling back"
    check "nor found a feature missing" silent "feature is not supported|not support"
    check "nor an event without what was before" silent "PrevKv=nil"
    for name in "${!pid[@]}"; do slay "$name"; done
done
[ $failed = 0 ] || { echo "--- why"; tail -40 "$dir/check.log"; }
echo "$passed passed, $failed failed"
[ $failed = 0 ]
