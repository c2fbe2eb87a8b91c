package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"rusd/tools/bench/load"
	"rusd/tools/bench/proc"
	"rusd/tools/bench/report"
)

const (
	writersPerMember = 3
	writerTimeout    = 100 * time.Millisecond // of one put: then the writer tries anew, as a client with a deadline does
	writerPause      = 3 * time.Millisecond
)

// failover: how long a cluster takes no writes when its leader goes.
func failover(members, times int) Scenario {
	prefix := ""
	if members != 3 {
		prefix = fmt.Sprintf("%dm-", members)
	}
	how := fmt.Sprintf("%d writers on each member's own endpoint, a put at a time with a deadline of %d ms and a pause of %d ms. "+
		"The gap is between two acknowledgements of anybody; median of %d times, the worst is the max.",
		writersPerMember, writerTimeout.Milliseconds(), writerPause.Milliseconds(), times)
	return Scenario{ID: fmt.Sprintf("failover-%d", members), Members: members, Workloads: []Workload{
		{ID: prefix + "kill-leader", Title: fmt.Sprintf("kill -9 of the leader of %d members", members), Note: how,
			Run: func(r *Round) (report.Sample, error) { return r.gaps(syscall.SIGKILL, times) }},
		{ID: prefix + "hand-over", Title: fmt.Sprintf("SIGTERM of the leader of %d members", members), Note: how,
			Run: func(r *Round) (report.Sample, error) { return r.gaps(syscall.SIGTERM, times) }},
	}}
}

func (r *Round) gaps(signal syscall.Signal, times int) (report.Sample, error) {
	var gaps []float64
	for range r.N(times*10, 1) / 10 {
		gap, err := r.gap(signal)
		if err != nil {
			return nil, err
		}
		gaps = append(gaps, ms(gap))
	}
	return report.Sample{"gap_ms": report.Median(gaps), "max_ms": slices.Max(gaps)}, nil
}

// gap sends the leader a signal under writes, and starts it again in the end.
func (r *Round) gap(signal syscall.Signal) (time.Duration, error) {
	leader, err := r.leader()
	if err != nil {
		return 0, err
	}
	writers, err := startWriters(r.ctx, r.cluster)
	if err != nil {
		return 0, err
	}
	defer writers.stop()
	if err := writers.flow(r.ctx, time.Now()); err != nil {
		return 0, fmt.Errorf("before the leader goes: %w", err)
	}
	hit := time.Now()
	if err := leader.Proc.Signal(signal); err != nil {
		return 0, err
	}
	if err := writers.flow(r.ctx, hit); err != nil {
		return 0, fmt.Errorf("after the leader went: %w", err)
	}
	gap := writers.longest(hit)
	writers.stop()
	ctx, cancel := context.WithTimeout(r.ctx, startTimeout)
	defer cancel()
	if err := leader.Proc.WaitGone(ctx); err != nil {
		return 0, err
	}
	if err := r.cluster.Launch(leader); err != nil {
		return 0, err
	}
	_, err = leader.Proc.WaitReady(ctx)
	return gap, err
}

// leader waits until all members name the same one, and returns it.
func (r *Round) leader() (*proc.Member, error) {
	ctx, cancel := context.WithTimeout(r.ctx, startTimeout)
	defer cancel()
	for ctx.Err() == nil {
		if leader := r.agreedLeader(ctx); leader != nil {
			return leader, nil
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return nil, fmt.Errorf("no leader that all members agree on: %w", ctx.Err())
}

func (r *Round) agreedLeader(ctx context.Context) *proc.Member {
	client, err := r.Client()
	if err != nil {
		return nil
	}
	defer client.Close()
	ids := map[uint64]*proc.Member{}
	leaders := map[uint64]bool{}
	for _, m := range r.cluster.Members {
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		status, err := client.Status(one, m.ClientURL)
		cancel()
		if err != nil {
			return nil
		}
		ids[status.Header.MemberId] = m
		leaders[status.Leader] = true
		if len(leaders) != 1 {
			return nil
		}
	}
	for id := range leaders {
		return ids[id]
	}
	return nil
}

// writers put all the time and note when they are answered.
type writers struct {
	cancel context.CancelFunc
	all    sync.WaitGroup
	mu     sync.Mutex
	acks   []time.Time
}

func startWriters(ctx context.Context, cluster *proc.Cluster) (*writers, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &writers{cancel: cancel}
	for i, m := range cluster.Members {
		conn, err := load.EagerConn(m.ClientURL)
		if err != nil {
			cancel()
			return nil, err
		}
		var mine sync.WaitGroup
		for j := range writersPerMember {
			mine.Add(1)
			w.all.Add(1)
			go func() {
				defer w.all.Done()
				defer mine.Done()
				w.write(ctx, etcdserverpb.NewKVClient(conn), fmt.Sprintf("writer/%d/%d", i, j))
			}()
		}
		go func() { mine.Wait(); conn.Close() }()
	}
	return w, nil
}

func (w *writers) write(ctx context.Context, kv etcdserverpb.KVClient, key string) {
	request := &etcdserverpb.PutRequest{Key: []byte(key), Value: make([]byte, valueSize)}
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, writerTimeout)
		_, err := kv.Put(one, request)
		cancel()
		if err == nil {
			w.mu.Lock()
			w.acks = append(w.acks, time.Now())
			w.mu.Unlock()
		}
		sleep(ctx, writerPause)
	}
}

func (w *writers) stop() {
	w.cancel()
	w.all.Wait()
}

// flow waits until writes have been acknowledged for a second after `since` without a pause worth the name.
func (w *writers) flow(ctx context.Context, since time.Time) error {
	const calm, pause, most = time.Second, 100 * time.Millisecond, 40 * time.Second
	for time.Since(since) < most && ctx.Err() == nil {
		sleep(ctx, 20*time.Millisecond)
		from := time.Now().Add(-calm)
		if from.Before(since) {
			continue
		}
		if w.longestFrom(from) < pause {
			return nil
		}
	}
	return fmt.Errorf("writes don't flow: %w", context.Cause(ctx))
}

// longest gap from just before `hit`.
func (w *writers) longest(hit time.Time) time.Duration {
	return w.longestFrom(hit.Add(-50 * time.Millisecond))
}

func (w *writers) longestFrom(from time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return longestGap(w.acks, from, time.Now())
}

// longestGap between moments after `from`; the first counts from there and the last to `until`.
func longestGap(moments []time.Time, from, until time.Time) time.Duration {
	var longest time.Duration
	last := from
	for _, at := range moments {
		if at.After(from) {
			longest = max(longest, at.Sub(last))
			last = at
		}
	}
	return max(longest, until.Sub(last))
}
