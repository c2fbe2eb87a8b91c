package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"rusd/tools/bench/report"
)

const (
	manyLeases     = 100000
	trialLeases    = 2000
	expiryWatched  = 12 * time.Second
	leaseKeyPrefix = "leased/"
)

// leasing: keep-alives, and very many leases.
func leasing() Scenario {
	return Scenario{ID: "leasing", Members: 1, Setup: warmUp, Workloads: []Workload{
		keepAlive(64, 40000), keepAlive(1000, 50000),
		{ID: "lease-grant", Title: "100,000 leases with a key each", Note: "Granted by 64 clients; the keys are put by transactions of 100. Memory per lease with its key.", Run: grantLeases},
		{ID: "lease-restart", Title: "restart after kill -9 with 100,000 leases, to the first linearizable get", Needs: "lease-grant", Run: restartLeases},
		{ID: "lease-expiry", Title: "100,000 leases expire at once", Needs: "lease-restart", Note: fmt.Sprintf("The first %v of it; leases revoked per second. A probe puts and gets every 5 ms.", expiryWatched), Run: expireLeases},
	}}
}

func keepAlive(clients, n int) Workload {
	return Workload{ID: fmt.Sprintf("keep-alive-%d", clients), Title: "keep-alives of " + clientsOf(clients), Note: "`benchmark lease-keepalive`: a stream for each.",
		Run: func(r *Round) (report.Sample, error) {
			sample, _, err := r.Benchmark("lease-keepalive", fmt.Sprintf("--clients=%d", clients), fmt.Sprintf("--conns=%d", connsFor(clients)), total(r, n, clients))
			return sample, err
		}}
}

func (r *Round) leases() int { return r.N(manyLeases, 100) / 100 * 100 }

func grantLeases(r *Round) (report.Sample, error) {
	n := r.leases()
	trial := make([]clientv3.LeaseID, min(trialLeases, n))
	begin := time.Now()
	if err := r.grant(trial, 3600); err != nil {
		return nil, err
	}
	r.leaseTTL = ttlFor(n, len(trial), time.Since(begin))
	before, err := r.cluster.Usage()
	if err != nil {
		return nil, err
	}
	ids := make([]clientv3.LeaseID, n)
	begin = time.Now()
	sample, err := r.Cost(func() (float64, error) { return float64(n), r.grant(ids, int64(r.leaseTTL.Seconds())) })
	if err != nil {
		return nil, err
	}
	sample["rate"] = float64(n) / time.Since(begin).Seconds()
	if err := r.attach(ids); err != nil {
		return nil, err
	}
	sleep(r.ctx, time.Second)
	after, err := r.cluster.Usage()
	if err != nil {
		return nil, err
	}
	sample["lease_b"] = float64(after.ResidentByte-before.ResidentByte) / float64(n)
	return sample, nil
}

// ttlFor is a TTL that outlives granting n leases, with their keys, at the pace of a trial; no longer, for it is waited for later.
func ttlFor(n, trial int, took time.Duration) time.Duration {
	return (15*time.Second + 2*took*time.Duration(n)/time.Duration(trial)).Round(time.Second)
}

// grant fills ids by many callers.
func (r *Round) grant(ids []clientv3.LeaseID, ttl int64) error {
	const callers, conns = 64, 8
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	var clients [conns]*clientv3.Client
	for i := range clients {
		client, err := r.Client()
		if err != nil {
			return err
		}
		defer client.Close()
		clients[i] = client
	}
	for c := range callers {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := c; i < len(ids) && ctx.Err() == nil; i += callers {
				granted, err := clients[c%conns].Grant(ctx, ttl)
				if err != nil {
					cancel(err)
					return
				}
				ids[i] = granted.ID
			}
		}()
	}
	all.Wait()
	return context.Cause(ctx)
}

func (r *Round) attach(ids []clientv3.LeaseID) error {
	const batch = 100
	client, err := r.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	for first := 0; first < len(ids); first += batch {
		var ops []clientv3.Op
		for i := first; i < min(first+batch, len(ids)); i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%06d", leaseKeyPrefix, i), "x", clientv3.WithLease(ids[i])))
		}
		if _, err := client.Txn(r.ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("keys for leases %d and following: %w", first, err)
		}
	}
	return nil
}

func restartLeases(r *Round) (report.Sample, error) {
	r.cluster.Kill9()
	if err := r.start(); err != nil {
		return nil, err
	}
	client, err := r.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	leases, err := client.Leases(r.ctx)
	if err != nil {
		return nil, err
	}
	if want := r.leases(); len(leases.Leases) < want { // those of keep-alive may still be there, too
		return nil, fmt.Errorf("%d leases after the restart instead of %d", len(leases.Leases), want)
	}
	return r.boot, nil
}

// expireLeases waits until the leases, extended by the restart, run out together, and watches the first seconds.
func expireLeases(r *Round) (report.Sample, error) {
	client, err := r.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(r.ctx, 2*r.leaseTTL+time.Minute)
	defer cancel()
	left := func() (int64, error) {
		count, err := client.Get(ctx, leaseKeyPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return 0, err
		}
		return count.Count, nil
	}
	all, begun := int64(r.leases()), int64(0)
	for begun = all; begun == all; sleep(ctx, 100*time.Millisecond) {
		if begun, err = left(); err != nil {
			return nil, fmt.Errorf("waiting for the first to expire: %w", err)
		}
	}
	begin := time.Now()
	var rest int64
	sample, err := r.meanwhile(func() error {
		for rest = 1; rest > 0 && time.Since(begin) < expiryWatched; sleep(ctx, 100*time.Millisecond) {
			if rest, err = left(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	revoked := float64(begun - rest)
	return report.Sample{
		"rate": revoked / sample["time_s"], "cpu_ms": 1e6 * sample["cpu_s"] / max(revoked, 1), "put_p99_ms": sample["put_p99_ms"],
		"put_max_ms": sample["put_max_ms"], "get_max_ms": sample["get_max_ms"], "errors": sample["errors"], "peak_mib": sample["peak_mib"],
	}, nil
}
