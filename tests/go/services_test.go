package gotests

import (
	"context"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// told is an error as it comes over the wire.
func told(err error) string {
	return fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())
}

func granted(t *testing.T, ctx context.Context, client *clientv3.Client) int64 {
	t.Helper()
	lease, err := client.Grant(ctx, 600)
	must(t, err)
	return int64(lease.ID)
}

func TestTheLockService(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	locks := lpb.NewLockClient(client.ActiveConnection())
	name := []byte(prefix + "lock")
	first, second := granted(t, ctx, client), granted(t, ctx, client)
	held, err := locks.Lock(ctx, &lpb.LockRequest{Name: name, Lease: first})
	must(t, err)
	equal(t, "key", string(held.Key), fmt.Sprintf("%s/%x", name, first))
	again, err := locks.Lock(ctx, &lpb.LockRequest{Name: name, Lease: first})
	must(t, err)
	equal(t, "the holder's own again", string(again.Key), string(held.Key))

	waiting := make(chan *lpb.LockResponse, 1)
	go func() {
		next, err := locks.Lock(ctx, &lpb.LockRequest{Name: name, Lease: second})
		if err != nil {
			t.Error(err)
		}
		waiting <- next
	}()
	eventually(t, "the second waits", func() bool {
		found, err := client.Get(ctx, string(name)+"/", clientv3.WithPrefix())
		must(t, err)
		return found.Count == 2
	})
	select {
	case <-waiting:
		t.Fatal("two hold the lock")
	default:
	}
	_, err = locks.Unlock(ctx, &lpb.UnlockRequest{Key: held.Key})
	must(t, err)
	next := <-waiting
	equal(t, "the next holder", string(next.Key), fmt.Sprintf("%s/%x", name, second))
	_, err = locks.Unlock(ctx, &lpb.UnlockRequest{Key: []byte(prefix + "none")})
	must(t, err)
	own, err := locks.Lock(ctx, &lpb.LockRequest{Name: []byte(prefix + "own")})
	must(t, err)
	if len(own.Key) <= len(prefix+"own/") {
		t.Fatalf("a lock without a lease gets a session of its own, not the key %q", own.Key)
	}
	_, err = locks.Lock(ctx, &lpb.LockRequest{Name: name, Lease: 0x7ee7})
	equal(t, "unknown lease", told(err), "Unknown: etcdserver: requested lease not found")
}

func TestTheElectionService(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	elections := epb.NewElectionClient(client.ActiveConnection())
	name := []byte(prefix + "e")
	_, err := elections.Leader(ctx, &epb.LeaderRequest{Name: name})
	equal(t, "nobody leads", told(err), "Unknown: election: no leader")
	_, err = elections.Proclaim(ctx, &epb.ProclaimRequest{Value: []byte("x")})
	equal(t, "proclaim", told(err), `Unknown: "leader" field must be provided`)
	_, err = elections.Resign(ctx, &epb.ResignRequest{})
	equal(t, "resign", told(err), `Unknown: "leader" field must be provided`)

	observed, err := elections.Observe(ctx, &epb.LeaderRequest{Name: name})
	must(t, err)
	expect := func(want string) {
		t.Helper()
		answer, err := observed.Recv()
		must(t, err)
		equal(t, "observed", string(answer.Kv.Value), want)
	}
	lease, other := granted(t, ctx, client), granted(t, ctx, client)
	won, err := elections.Campaign(ctx, &epb.CampaignRequest{Name: name, Lease: lease, Value: []byte("one")})
	must(t, err)
	equal(t, "leader key", words(string(won.Leader.Key), won.Leader.Lease), fmt.Sprintf("%s/%x %d", name, lease, lease))
	expect("one")
	_, err = elections.Proclaim(ctx, &epb.ProclaimRequest{Leader: won.Leader, Value: []byte("uno")})
	must(t, err)
	expect("uno")
	second := make(chan *epb.CampaignResponse, 1)
	go func() {
		won, err := elections.Campaign(ctx, &epb.CampaignRequest{Name: name, Lease: other, Value: []byte("two")})
		if err != nil {
			t.Error(err)
		}
		second <- won
	}()
	_, err = elections.Resign(ctx, &epb.ResignRequest{Leader: won.Leader})
	must(t, err)
	<-second
	expect("two")
	leads, err := elections.Leader(ctx, &epb.LeaderRequest{Name: name})
	must(t, err)
	equal(t, "leader", string(leads.Kv.Value), "two")
	_, err = elections.Proclaim(ctx, &epb.ProclaimRequest{Leader: won.Leader, Value: []byte("x")})
	equal(t, "who no longer leads", told(err), "Unknown: election: not leader")
	_, err = elections.Resign(ctx, &epb.ResignRequest{Leader: won.Leader})
	must(t, err)
}

func TestHealthIsTold(t *testing.T) {
	t.Parallel()
	ctx, _ := scope(t)
	for _, member := range members(t) {
		service := health.NewHealthClient(member.ActiveConnection())
		answer, err := service.Check(ctx, &health.HealthCheckRequest{})
		must(t, err)
		equal(t, "health", answer.Status, health.HealthCheckResponse_SERVING)
		_, err = service.Check(ctx, &health.HealthCheckRequest{Service: "nonsense"})
		equal(t, "unknown", status.Code(err), codes.NotFound)
		updates, err := service.Watch(ctx, &health.HealthCheckRequest{})
		must(t, err)
		first, err := updates.Recv()
		must(t, err)
		equal(t, "watched", first.Status, health.HealthCheckResponse_SERVING)
	}
}

func TestWatchIDsOfOneStream(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	stream, err := pb.NewWatchClient(client.ActiveConnection()).Watch(ctx)
	must(t, err)
	ask := func(create *pb.WatchCreateRequest) string {
		t.Helper()
		must(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}))
		answer, err := stream.Recv()
		must(t, err)
		if answer.Header.Revision == 0 {
			t.Fatal("no revision in the header")
		}
		return fmt.Sprintf("id %d created %v canceled %v %s", answer.WatchId, answer.Created, answer.Canceled, answer.CancelReason)
	}
	key := []byte(prefix + "k")
	equal(t, "the first", ask(&pb.WatchCreateRequest{Key: key}), "id 0 created true canceled false ")
	equal(t, "the next", ask(&pb.WatchCreateRequest{Key: key}), "id 1 created true canceled false ")
	equal(t, "a chosen one", ask(&pb.WatchCreateRequest{Key: key, WatchId: 2}), "id 2 created true canceled false ")
	equal(t, "past the chosen one", ask(&pb.WatchCreateRequest{Key: key}), "id 3 created true canceled false ")
	equal(t, "a negative one", ask(&pb.WatchCreateRequest{Key: key, WatchId: -7}), "id -7 created true canceled false ")
	equal(t, "twice", ask(&pb.WatchCreateRequest{Key: key, WatchId: 2}),
		"id -1 created true canceled true mvcc: duplicate watch ID provided on the WatchStream")
	equal(t, "an empty range", ask(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")}),
		"id -1 created true canceled true mvcc: watcher range is empty")
	must(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 99}}}))
	must(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 1}}}))
	answer, err := stream.Recv()
	must(t, err)
	equal(t, "only the known one is canceled", words(answer.WatchId, answer.Canceled, answer.CancelReason), "1 true ")
	must(t, stream.CloseSend())
	revision := put(t, ctx, client, string(key), "v")
	seen := map[int64]bool{}
	for range 4 {
		answer, err := stream.Recv()
		must(t, err)
		equal(t, "event", answer.Events[0].Kv.ModRevision, revision)
		seen[answer.WatchId] = true
	}
	equal(t, "a half-closed stream goes on", seen, map[int64]bool{0: true, 2: true, 3: true, -7: true})
}
