package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"rusd/tools/bench/load"
	"rusd/tools/bench/proc"
	"rusd/tools/bench/report"
)

const startTimeout = 2 * time.Minute

// start starts the cluster and notes how long it took until it answered a linearizable get, and what it then held in memory.
func (r *Round) start() error {
	ctx, cancel := context.WithTimeout(r.ctx, startTimeout)
	defer cancel()
	begin := time.Now()
	for _, m := range r.cluster.Members {
		if err := r.cluster.Launch(m); err != nil {
			return err
		}
	}
	answered := make(chan error, 1)
	first := r.cluster.Members[0]
	var took time.Duration
	go func() {
		err := load.FirstGet(ctx, first.ClientURL)
		took = time.Since(begin)
		answered <- err
	}()
	for _, m := range r.cluster.Members {
		if _, err := m.Proc.WaitReady(ctx); err != nil {
			cancel()
			<-answered
			return err
		}
	}
	if err := <-answered; err != nil {
		return fmt.Errorf("no linearizable get: %w", err)
	}
	usage, err := r.cluster.Usage()
	if err != nil {
		return err
	}
	r.boot = report.Sample{
		"time_s": took.Seconds(), "cpu_s": usage.CPU.Seconds(), "rss_mib": mib(usage.ResidentByte), "peak_mib": mib(usage.PeakBytes),
	}
	return nil
}

// emptyStart: a member without data, from its start to its ready line. Test suites start hundreds of them.
func emptyStart() Scenario {
	return Scenario{ID: "start", Workloads: []Workload{{
		ID: "empty-start", Title: "start of an empty member to `ready to serve client requests`",
		Note: "Median of 5 starts; the worst is the max.",
		Run: func(r *Round) (report.Sample, error) {
			var times []float64
			var usage proc.Usage
			for range 5 {
				cluster, err := proc.NewCluster(r.server, r.env.Dir, 1, nil)
				if err != nil {
					return nil, err
				}
				defer cluster.Remove()
				ctx, cancel := context.WithTimeout(r.ctx, startTimeout)
				defer cancel()
				if err := cluster.Start(ctx); err != nil {
					return nil, err
				}
				took, err := cluster.Members[0].Proc.WaitReady(ctx)
				if err != nil {
					return nil, err
				}
				if usage, err = cluster.Usage(); err != nil {
					return nil, err
				}
				times = append(times, took.Seconds())
				cluster.Remove()
			}
			return report.Sample{
				"time_s": report.Median(times), "max_ms": 1000 * slices.Max(times),
				"cpu_s": usage.CPU.Seconds(), "rss_mib": mib(usage.ResidentByte),
			}, nil
		},
	}}}
}
