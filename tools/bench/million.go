package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"rusd/tools/bench/load"
	"rusd/tools/bench/report"
)

const (
	millionKeys  = 1000000
	millionKey   = 50
	millionValue = 512
	pagedKeys    = 200000
	pageLimit    = 500
	listWindow   = 16 << 20 // what Go's gRPC clients grow theirs to
	probePace    = 5 * time.Millisecond
)

// million: a store as a big Kubernetes has it. It is filled once per server; each round starts with a copy, as a kill -9 left it.
func million() Scenario {
	probes := "Meanwhile another process puts and gets every 5 ms."
	return Scenario{
		ID: "million", Members: 1, Flags: []string{"--quota-backend-bytes=8589934592"}, Prepare: fillMillion,
		Workloads: []Workload{
			{ID: "fill", Title: "1M keys of 50 + 512 B: memory and disk once they are in",
				Note: "Put by transactions of 10, the last 20,000 one by one. Once per server.", Run: fillCost},
			{ID: "restart", Title: "restart after kill -9 with 1M keys, to the first linearizable get", Run: func(r *Round) (report.Sample, error) {
				return r.boot, nil
			}},
			{ID: "list-whole", Title: "LIST of 1M keys in one answer", Note: probes + " The client counts and discards.", Run: func(r *Round) (report.Sample, error) {
				return r.list("/etcdserverpb.KV/Range", false)
			}},
			{ID: "list-stream", Title: "RangeStream of 1M keys", Note: probes + " The client counts and discards.", Run: func(r *Round) (report.Sample, error) {
				return r.list("/etcdserverpb.KV/RangeStream", true)
			}},
			{ID: "list-pages", Title: "LIST of 200k of 1M keys in pages of 500", Note: probes + " All pages at the revision of the first.", Run: listPages},
			{ID: "compact", Title: "physical compaction after half of 1M keys was overwritten",
				Note: probes + " \"Before\" is the same process with nothing else going on.", Run: compactHalf},
			{ID: "million", Title: "1M keys of 50 + 512 B: memory and disk after restart, LISTs and compaction",
				Needs: "compact", Note: "After `compact`, once the directory has stopped changing.", Run: settled},
		},
	}
}

func millionName(i int) string { return fmt.Sprintf("/registry/pods/%035d", i) }

// values are cut from one random buffer, at a place of each key's own.
var randomBytes = func() string {
	source := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(source.Uint32())
	}
	return string(b)
}()

func valueAt(i, size int) string {
	at := (i * 7919) % (len(randomBytes) - size)
	return randomBytes[at : at+size]
}

func (r *Round) million() int { return r.N(millionKeys, 1) / 20 * 20 }

func fillMillion(r *Round) error {
	begin := time.Now()
	n := r.million()
	alone := min(20000, n)
	if err := r.putMany(n-alone, 10, fillers, func(i int) int { return i }, millionName, millionValue); err != nil {
		return err
	}
	if err := r.putMany(alone, 1, fillers, func(i int) int { return n - alone + i }, millionName, millionValue); err != nil {
		return err
	}
	took := time.Since(begin)
	sleep(r.ctx, 2*time.Second)
	usage, err := r.cluster.Usage()
	if err != nil {
		return err
	}
	disk, err := r.cluster.DiskBytes()
	if err != nil {
		return err
	}
	r.filled = report.Sample{
		"time_s": took.Seconds(), "cpu_s": usage.CPU.Seconds(), "rss_mib": mib(usage.ResidentByte), "peak_mib": mib(usage.PeakBytes),
		"disk_mib": mib(disk), "logical_mib": logicalMib(n),
	}
	return nil
}

func logicalMib(keys int) float64 { return mib(int64(keys) * (millionKey + millionValue)) }

// fillCost hands out once what filling has measured.
func fillCost(r *Round) (report.Sample, error) {
	if r.turn > 0 {
		return nil, nil
	}
	return r.filled, nil
}

// fillers are the callers that fill a store.
const fillers = 128

// putMany puts n keys in transactions of `batch`, by so many callers at once.
func (r *Round) putMany(n, batch, callers int, index func(int) int, name func(int) string, size int) error {
	const conns = 8
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	work := make(chan int, callers)
	go func() {
		defer close(work)
		for i := 0; i < n; i += batch {
			select {
			case work <- i:
			case <-ctx.Done():
				return
			}
		}
	}()
	var clients [conns]*clientv3.Client
	for i := range clients {
		client, err := r.Client()
		if err != nil {
			return err
		}
		defer client.Close()
		clients[i] = client
	}
	var all sync.WaitGroup
	for i := range callers {
		all.Add(1)
		go func(client *clientv3.Client) {
			defer all.Done()
			for first := range work {
				var ops []clientv3.Op
				for j := first; j < min(first+batch, n); j++ {
					ops = append(ops, clientv3.OpPut(name(index(j)), valueAt(index(j), size)))
				}
				if err := commit1(ctx, client, ops); err != nil {
					cancel(err)
					return
				}
			}
		}(clients[i%conns])
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("filling: %w", err)
	}
	return nil
}

func commit1(ctx context.Context, client *clientv3.Client, ops []clientv3.Op) error {
	if len(ops) == 1 {
		_, err := client.Do(ctx, ops[0])
		return err
	}
	_, err := client.Txn(ctx).Then(ops...).Commit()
	return err
}

// meanwhile runs f while probes put and get, and adds what the puts and gets and the memory saw of it.
func (r *Round) meanwhile(f func() error) (report.Sample, error) {
	before, err := r.cluster.Usage()
	if err != nil {
		return nil, err
	}
	endpoint := r.cluster.Members[0].ClientURL
	puts, err := load.StartProbe(r.env.Self, endpoint, "put", probePace)
	if err != nil {
		return nil, err
	}
	gets, err := load.StartProbe(r.env.Self, endpoint, "get", probePace)
	if err != nil {
		_, _ = puts.Stop()
		return nil, err
	}
	var took time.Duration
	cost, err := r.Cost(func() (float64, error) {
		begin := time.Now()
		err := f()
		took = time.Since(begin)
		return 1, err
	})
	put, putErr := puts.Stop()
	get, getErr := gets.Stop()
	for _, e := range []error{err, putErr, getErr} {
		if e != nil {
			return nil, e
		}
	}
	return report.Sample{
		"time_s": took.Seconds(), "cpu_s": cost["cpu_ms"] / 1e6, "peak_mib": cost["peak_mib"],
		"extra_mib": cost["peak_mib"] - mib(before.ResidentByte), "put_p99_ms": put.P99, "put_max_ms": put.Max, "get_max_ms": get.Max,
		"errors": float64(put.Errors + get.Errors),
	}, nil
}

// list asks for all keys by one call and counts what comes.
func (r *Round) list(path string, nested bool) (report.Sample, error) {
	request, err := proto.Marshal(&etcdserverpb.RangeRequest{Key: []byte("/registry/pods/"), RangeEnd: []byte("/registry/pods0")})
	if err != nil {
		return nil, err
	}
	raw, err := load.DialRaw(r.cluster.Members[0].ClientURL, listWindow)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	seen := 0
	return r.meanwhile(func() error {
		call, err := raw.Open(path, func(number int, _ uint64, _ int) {
			if number == 2 {
				seen++
			}
		}, func() {})
		if err != nil {
			return err
		}
		call.Nested(nested)
		if err := call.Send(true, request); err != nil {
			return err
		}
		if err := call.Wait(2 * time.Minute); err != nil {
			return err
		}
		if want := r.million(); seen != want {
			return fmt.Errorf("%s: %d keys instead of %d", path, seen, want)
		}
		return nil
	})
}

func listPages(r *Round) (report.Sample, error) {
	client, err := r.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	want := min(pagedKeys, r.million())
	end := millionName(want)
	return r.meanwhile(func() error {
		ctx, cancel := context.WithTimeout(r.ctx, 3*time.Minute)
		defer cancel()
		seen, from, revision := 0, millionName(0), int64(0)
		for more := true; more; {
			page, err := client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageLimit), clientv3.WithRev(revision))
			if err != nil {
				return err
			}
			if page.Count != int64(want-seen) {
				return fmt.Errorf("a page counts %d keys from %q instead of %d", page.Count, from, want-seen)
			}
			if revision == 0 {
				revision = page.Header.Revision
			}
			seen, more = seen+len(page.Kvs), page.More
			from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		}
		if seen != want {
			return fmt.Errorf("%d keys in pages instead of %d", seen, want)
		}
		return nil
	})
}

func compactHalf(r *Round) (report.Sample, error) {
	if err := r.putMany(r.million()/2, 10, fillers, func(i int) int { return 2 * i }, millionName, millionValue); err != nil {
		return nil, err
	}
	sleep(r.ctx, 2*time.Second)
	idle, err := r.meanwhile(func() error { sleep(r.ctx, 3*time.Second); return nil })
	if err != nil {
		return nil, err
	}
	client, err := r.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	sample, err := r.meanwhile(func() error {
		ctx, cancel := context.WithTimeout(r.ctx, 3*time.Minute)
		defer cancel()
		now, err := client.Get(ctx, "none")
		if err != nil {
			return err
		}
		_, err = client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
		return err
	})
	if err != nil {
		return nil, err
	}
	sample["idle_put_p99_ms"], sample["idle_put_max_ms"] = idle["put_p99_ms"], idle["put_max_ms"]
	return sample, nil
}

func settled(r *Round) (report.Sample, error) {
	disk, err := r.cluster.WaitDiskSettled(r.ctx, time.Minute)
	if err != nil {
		return nil, err
	}
	usage, err := r.cluster.Usage()
	if err != nil {
		return nil, err
	}
	return report.Sample{"rss_mib": mib(usage.ResidentByte), "disk_mib": mib(disk), "logical_mib": logicalMib(r.million())}, nil
}
