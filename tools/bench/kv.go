package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"rusd/tools/bench/load"
	"rusd/tools/bench/report"
)

const (
	rangeKey  = "range-key"
	keySpace  = 100000
	valueSize = 256
)

// connsFor is how many connections so many clients share.
func connsFor(clients int) int {
	return min(clients, 16+clients/12) // 1: 1, 64: 21, 1000: 99
}

// oneMember: the everyday calls on a member alone.
func oneMember() Scenario {
	s := Scenario{ID: "one-member", Members: 1, Setup: warmUp}
	for clients, total := range ordered(1, 4000, 64, 40000, 1000, 50000) {
		s.Workloads = append(s.Workloads, putWorkload("", clients, total))
	}
	for clients, total := range ordered(1, 8000, 64, 60000, 1000, 60000) {
		s.Workloads = append(s.Workloads, rangeWorkload("", "l", clients, total))
	}
	for clients, total := range ordered(1, 10000, 64, 60000, 1000, 60000) {
		s.Workloads = append(s.Workloads, rangeWorkload("", "s", clients, total))
	}
	s.Workloads = append(s.Workloads,
		Workload{ID: "txn-put", Title: "txn of one put of 256 B, 64 clients", Run: func(r *Round) (report.Sample, error) {
			sample, _, err := r.Benchmark("txn-put", "--clients=64", "--conns=16", total(r, 40000, 64),
				"--val-size=256", "--key-space-size="+strconv.Itoa(keySpace))
			return sample, err
		}},
		Workload{ID: "txn-mixed", Title: "txn with a put or a range of up to 1,000 keys, half and half, 64 clients",
			Note: "Rate and latencies of the puts, then of the ranges; CPU per operation of either kind.", Run: txnMixed},
		Workload{ID: "stm", Title: "STM, 2 of 1,000 keys in a transaction, 1 of them written, 64 clients", Run: func(r *Round) (report.Sample, error) {
			sample, _, err := r.Benchmark("stm", "--clients=64", "--conns=16", total(r, 15000, 64),
				"--keys=1000", "--keys-per-txn=2", "--txn-wr-percent=50", "--val-size=256", "--isolation=r")
			return sample, err
		}},
	)
	return s
}

// threeMembers: clients spread over all endpoints.
func threeMembers() Scenario {
	return Scenario{ID: "three-members", Members: 3, Setup: warmUp, Workloads: []Workload{
		putWorkload("3m-", 1, 2000), putWorkload("3m-", 64, 25000), putWorkload("3m-", 1000, 30000),
		rangeWorkload("3m-", "l", 64, 40000), rangeWorkload("3m-", "l", 1000, 40000), rangeWorkload("3m-", "s", 64, 40000),
	}}
}

func putWorkload(prefix string, clients, n int) Workload {
	return Workload{
		ID: fmt.Sprintf("%sput-%d", prefix, clients), Title: fmt.Sprintf("put 256 B, %s%s", clientsOf(clients), where(prefix)),
		Run: func(r *Round) (report.Sample, error) {
			sample, _, err := r.Benchmark("put", fmt.Sprintf("--clients=%d", clients), fmt.Sprintf("--conns=%d", connsFor(clients)),
				total(r, n, clients), fmt.Sprintf("--val-size=%d", valueSize), fmt.Sprintf("--key-space-size=%d", keySpace))
			return sample, err
		},
	}
}

func rangeWorkload(prefix, consistency string, clients, n int) Workload {
	kind := map[string]string{"l": "linearizable", "s": "serializable"}[consistency]
	return Workload{
		ID:    fmt.Sprintf("%srange-%s-%d", prefix, consistency, clients),
		Title: fmt.Sprintf("%s range of one key, %s%s", kind, clientsOf(clients), where(prefix)),
		Run: func(r *Round) (report.Sample, error) {
			sample, _, err := r.Benchmark("range", rangeKey, "--consistency="+consistency, fmt.Sprintf("--clients=%d", clients),
				fmt.Sprintf("--conns=%d", connsFor(clients)), total(r, n, clients))
			return sample, err
		},
	}
}

func txnMixed(r *Round) (report.Sample, error) {
	sample, all, err := r.Benchmark("txn-mixed", "txn-mixed", "--clients=64", "--conns=16", total(r, 2500, 64),
		"--val-size=256", "--key-space-size="+strconv.Itoa(keySpace))
	if err != nil {
		return nil, err
	}
	if len(all) != 2 {
		return nil, fmt.Errorf("txn-mixed: %d summaries instead of 2", len(all))
	}
	read, write := all[0], all[1]
	sample["rate"], sample["read_rate"] = write.Rate, read.Rate
	sample["p50_ms"], sample["p99_ms"], sample["max_ms"] = 1000*write.P50, 1000*write.P99, 1000*write.Max
	sample["read_p50_ms"], sample["read_p99_ms"], sample["read_max_ms"] = 1000*read.P50, 1000*read.P99, 1000*read.Max
	return sample, nil
}

// warmUp puts the key that is read, and lets both servers have served something.
func warmUp(r *Round) error {
	client, err := r.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(r.ctx, load.CallTimeout)
	defer cancel()
	if _, err := client.Put(ctx, rangeKey, strings.Repeat("v", valueSize)); err != nil {
		return err
	}
	_, _, err = r.Benchmark("put", "--clients=64", "--conns=16", total(r, 4000, 64),
		fmt.Sprintf("--val-size=%d", valueSize), fmt.Sprintf("--key-space-size=%d", keySpace))
	return err
}

func total(r *Round, n, clients int) string { return fmt.Sprintf("--total=%d", r.N(n, clients)) }

func clientsOf(n int) string {
	if n == 1 {
		return "1 client"
	}
	return report.Count(n) + " clients"
}

func where(prefix string) string {
	if prefix == "" {
		return ""
	}
	return ", 3 members, all endpoints"
}

// ordered iterates over pairs in the order given, which a map wouldn't.
func ordered(pairs ...int) func(func(int, int) bool) {
	return func(yield func(int, int) bool) {
		for i := 0; i+1 < len(pairs); i += 2 {
			if !yield(pairs[i], pairs[i+1]) {
				return
			}
		}
	}
}
