package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"rusd/tools/bench/load"
	"rusd/tools/bench/proc"
	"rusd/tools/bench/report"
)

// Scenario is the life of one cluster in each round: it starts (empty, or with a copy of what Prepare has filled once per server),
// runs its selected workloads in their order, and goes.
type Scenario struct {
	ID        string
	Members   int
	Flags     []string // beyond names, ports and directories
	Prepare   func(*Round) error
	Setup     func(*Round) error
	Workloads []Workload
}

// Workload is one table of the report. Run may be called once per cluster only.
type Workload struct {
	ID, Title string
	Note      string // what exactly is measured, where the title can't say it
	Needs     string // a workload that must have succeeded before, in the same round
	Run       func(*Round) (report.Sample, error)
}

// Round is one server's turn in one scenario.
type Round struct {
	ctx      context.Context
	env      *Env
	server   proc.Server
	cluster  *proc.Cluster // none while a scenario without members runs
	boot     report.Sample // how the cluster started
	filled   report.Sample // what filling the seed has cost
	leaseTTL time.Duration // of the leases that a workload before has granted
	turn     int           // how many rounds this server has had before
}

// N scales a number of operations for quick runs and smoke tests; it never goes below the number of clients.
func (r *Round) N(full, clients int) int {
	return max(int(float64(full)*r.env.Scale), clients, 10)
}

// Client connects to the given endpoints, or to all.
func (r *Round) Client(endpoints ...string) (*clientv3.Client, error) {
	if len(endpoints) == 0 {
		endpoints = r.cluster.Endpoints()
	}
	return load.Client(endpoints...)
}

// Benchmark runs the load generator on all endpoints and adds what the servers spent on it meanwhile.
// The first summary gives the latencies; operations of all summaries count.
func (r *Round) Benchmark(args ...string) (report.Sample, []load.Summary, error) {
	var summaries []load.Summary
	cost, err := r.Cost(func() (float64, error) {
		var err error
		summaries, err = load.Benchmark(r.ctx, r.env.Benchmark, r.cluster.Endpoints(), args...)
		var ops float64
		for _, s := range summaries {
			ops += s.Rate * s.Total
		}
		return ops, err
	})
	if err != nil {
		return nil, nil, err
	}
	main := summaries[0]
	cost["rate"], cost["p50_ms"], cost["p99_ms"], cost["max_ms"] = main.Rate, 1000*main.P50, 1000*main.P99, 1000*main.Max
	for _, s := range summaries {
		cost["errors"] += float64(s.Errors)
	}
	if main.P99 == 0 {
		delete(cost, "p99_ms") // fewer than 100 operations
	}
	return cost, summaries, nil
}

// Cost runs f, which tells how many operations it did, and returns what one of them cost the servers.
func (r *Round) Cost(f func() (ops float64, err error)) (report.Sample, error) {
	if err := r.cluster.ResetPeak(); err != nil {
		return nil, err
	}
	before, err := r.cluster.Usage()
	if err != nil {
		return nil, err
	}
	ops, err := f()
	if err != nil {
		return nil, err
	}
	after, err := r.cluster.Usage()
	if err != nil {
		return nil, err
	}
	if err := r.cluster.Check(); err != nil {
		return nil, err
	}
	if ops <= 0 {
		return nil, fmt.Errorf("no operation succeeded")
	}
	return report.Sample{
		"cpu_ms":    float64(after.CPU-before.CPU) / float64(time.Millisecond) / ops * 1000,
		"peak_mib":  mib(after.PeakBytes),
		"written_b": float64(after.WrittenBytes-before.WrittenBytes) / ops,
	}, nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// sleep waits for load to calm down, or ends early with the run.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
