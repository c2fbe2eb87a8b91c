package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"rusd/tools/bench/load"
	"rusd/tools/bench/report"
)

const (
	joinKeys  = 1000000
	joinValue = 1000
)

// joining: an empty member comes to a cluster that holds 1 GB.
func joining() Scenario {
	return Scenario{
		ID: "joining", Members: 3, Flags: []string{"--quota-backend-bytes=8589934592"},
		Prepare: func(r *Round) error {
			// Small transactions: enough entries that the joiner needs a snapshot, as it does in a cluster that has run for a while.
			return r.putMany(r.joinKeys(), 20, fillers, func(i int) int { return i }, joinName, joinValue)
		},
		Workloads: []Workload{{
			ID: "join", Title: "an empty member joins 3 members with 1 GB: add as learner, start, promote, first linearizable get",
			Note: "Time from the start of its process. A probe puts every 5 ms, before and meanwhile.", Run: join,
		}},
	}
}

func (r *Round) joinKeys() int { return r.N(joinKeys, 1) / 20 * 20 }

func joinName(i int) string { return fmt.Sprintf("join/%08d", i) }

func join(r *Round) (report.Sample, error) {
	client, err := r.Client(r.cluster.Members[0].ClientURL)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(r.ctx, 3*time.Minute)
	defer cancel()
	idle, err := r.meanwhile(func() error { sleep(ctx, 3*time.Second); return nil })
	if err != nil {
		return nil, err
	}
	seat, err := r.cluster.AddSeat()
	if err != nil {
		return nil, err
	}
	id, err := addLearner(ctx, client, seat.PeerURL)
	if err != nil {
		return nil, err
	}
	sample, err := r.meanwhile(func() error {
		if err := r.cluster.Launch(seat); err != nil {
			return err
		}
		if err := promote(ctx, client, id); err != nil {
			return err
		}
		return load.FirstGet(ctx, seat.ClientURL)
	})
	if err != nil {
		return nil, err
	}
	if err := joined(ctx, seat.ClientURL, r.joinKeys()); err != nil {
		return nil, err
	}
	sample["idle_put_p99_ms"], sample["idle_put_max_ms"] = idle["put_p99_ms"], idle["put_max_ms"]
	delete(sample, "extra_mib")
	return sample, nil
}

// addLearner asks again while the cluster doesn't call itself healthy: members must have been connected for five seconds.
func addLearner(ctx context.Context, client *clientv3.Client, peerURL string) (uint64, error) {
	for {
		added, err := client.MemberAddAsLearner(ctx, []string{peerURL})
		switch {
		case err == nil:
			return added.Member.ID, nil
		case status.Code(err) == codes.Unimplemented || strings.Contains(err.Error(), "Unimplemented"):
			return 0, fmt.Errorf("%w: member add", errNotBuilt)
		case !errors.Is(err, rpctypes.ErrUnhealthy) || ctx.Err() != nil:
			return 0, fmt.Errorf("member add: %w", err)
		}
		sleep(ctx, 200*time.Millisecond)
	}
}

// promote asks again until the learner has caught up.
func promote(ctx context.Context, client *clientv3.Client, id uint64) error {
	for {
		one, cancel := context.WithTimeout(ctx, load.CallTimeout)
		_, err := client.MemberPromote(one, id)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("promote: %w", errors.Join(err, ctx.Err()))
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

// joined makes sure that the new member has it all, itself.
func joined(ctx context.Context, endpoint string, want int) error {
	client, err := load.Client(endpoint)
	if err != nil {
		return err
	}
	defer client.Close()
	count, err := client.Get(ctx, "join/", clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithSerializable())
	if err != nil {
		return err
	}
	if count.Count != int64(want) {
		return fmt.Errorf("the new member has %d keys instead of %d", count.Count, want)
	}
	return nil
}
