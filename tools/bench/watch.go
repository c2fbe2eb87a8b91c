package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"rusd/tools/bench/load"
	"rusd/tools/bench/report"
)

const watchTimeout = 2 * time.Minute

// watching: events to many, and what watchers cost those who write.
func watching() Scenario {
	const discards = "The client counts events and discards them."
	return Scenario{ID: "watching", Members: 1, Setup: warmUp, Workloads: []Workload{
		{ID: "watch-idle", Title: "10,000 watchers on keys that nobody writes, puts of 64 clients beside them",
			Note: "100 streams of 100. Throughput kept: with them by the mean of before and after.", Run: idleWatchers},
		{ID: "fanout-one-key", Title: "fan-out: 1,000 watchers on one key", Note: "10 streams of 100. " + discards, Run: func(r *Round) (report.Sample, error) {
			return r.fanOut(fan{conns: 10, streams: 1, each: 100, keys: 1, puts: r.N(3000, 1), callers: 16})
		}},
		{ID: "fanout-own-keys", Title: "fan-out: 10,000 watchers on a key of their own", Note: "100 streams of 100. " + discards, Run: func(r *Round) (report.Sample, error) {
			return r.fanOut(fan{conns: 10, streams: 10, each: r.N(100, 10), keys: 100 * r.N(100, 10), puts: r.N(40000, 1), callers: 64})
		}},
		{ID: "fanout-streams", Title: "fan-out: 100 streams of 100 watchers, all on one key", Note: discards, Run: func(r *Round) (report.Sample, error) {
			return r.fanOut(fan{conns: 10, streams: 10, each: 100, keys: 1, puts: r.N(300, 1), callers: 4})
		}},
		benchmarkWatch("watch-one-key", "1,000 watchers on one key", 10, 1, 300),
		benchmarkWatch("watch-own-keys", "10,000 watchers on a key of their own", 100, 10000, 20000),
		benchmarkWatch("watch-streams", "100 streams of 100 watchers, all on one key", 100, 1, 40),
		{ID: "watch-latency", Title: "watch latency, `benchmark watch-latency`: 100 watchers, 200 puts/s", Note: "From the acknowledgement of the put to the event; 0 if the event was first.",
			Run: watchLatency},
		{ID: "watch-delivery", Title: "watch latency from the call of the put: 100 watchers, 500 puts/s", Note: "10 streams of 10; one put at a time.", Run: watchDelivery},
		{ID: "watch-catch-up", Title: "catch-up: 1,000 watchers from 2,000 revisions ago", Note: "10 streams of 100, 2M events in all. " + discards, Run: catchUp},
		{ID: "watch-get", Title: "`benchmark watch-get`: serializable gets while 10,000 watchers catch up", Run: func(r *Round) (report.Sample, error) {
			sample, _, err := r.Benchmark("watch-get", "--watchers="+strconv.Itoa(r.N(10000, 10)), "--streams=10", "--events=8", "--conns=10", "--clients=10")
			return sample, err
		}},
		{ID: "watch-stalled", Title: "puts of 64 clients while 10,000 watchers listen, 1,000 of which have stopped reading",
			Note: "100 streams of 100, ten watchers on each key; the stalled ones have ten connections of their own. Kept: by puts without watchers just before.", Run: stalledWatchers},
	}}
}

func benchmarkWatch(id, title string, streams, keys, puts int) Workload {
	return Workload{ID: id, Title: "`benchmark watch`: " + title, Note: "The client decodes.", Run: func(r *Round) (report.Sample, error) {
		sample, all, err := r.Benchmark("watch", fmt.Sprintf("--streams=%d", streams), "--watch-per-stream=100", fmt.Sprintf("--watched-key-total=%d", keys),
			fmt.Sprintf("--key-space-size=%d", keys), "--sequential-keys", fmt.Sprintf("--put-total=%d", r.N(puts, 1)), "--conns=10", "--clients=10")
		if err != nil {
			return nil, err
		}
		if len(all) != 2 {
			return nil, fmt.Errorf("watch: %d summaries instead of 2", len(all))
		}
		return report.Sample{"events_rate": all[1].Rate, "cpu_ms": sample["cpu_ms"], "peak_mib": sample["peak_mib"]}, nil
	}}
}

// putLoad is the same put workload each time, on keys that fit the watchers.
func (r *Round) putLoad(keys int) (report.Sample, error) {
	sample, _, err := r.Benchmark("put", "--clients=64", "--conns=16", total(r, 30000, 64), "--val-size=256", "--sequential-keys", fmt.Sprintf("--key-space-size=%d", keys))
	return sample, err
}

func idleWatchers(r *Round) (report.Sample, error) {
	const conns, streams = 10, 10
	each := r.N(100, 10)
	before, err := r.putLoad(keySpace)
	if err != nil {
		return nil, err
	}
	sleep(r.ctx, time.Second)
	empty, err := r.cluster.Usage()
	if err != nil {
		return nil, err
	}
	watchers, err := load.Watch(r.cluster.Members[0].ClientURL, conns, streams, each, load.WideWindow, 0, func(i int) string { return fmt.Sprintf("idle/%06d", i) })
	if err != nil {
		return nil, err
	}
	defer watchers.Close()
	sleep(r.ctx, time.Second)
	full, err := r.cluster.Usage()
	if err != nil {
		return nil, err
	}
	sample, err := r.putLoad(keySpace)
	if err != nil {
		return nil, err
	}
	watchers.Close()
	sleep(r.ctx, time.Second)
	after, err := r.putLoad(keySpace)
	if err != nil {
		return nil, err
	}
	if watchers.Events() != 0 {
		return nil, errors.New("idle watchers got events")
	}
	sample["put_kept"] = 2 * sample["rate"] / (before["rate"] + after["rate"])
	sample["watcher_kib"] = float64(full.ResidentByte-empty.ResidentByte) / 1024 / float64(conns*streams*each)
	return sample, nil
}

// fan is a fan-out: watchers share `keys` keys evenly.
type fan struct{ conns, streams, each, keys, puts, callers int }

func (r *Round) fanOut(f fan) (report.Sample, error) {
	prefix := fmt.Sprintf("fan/%d/%d/", f.keys, time.Now().UnixNano())
	name := func(i int) string { return fmt.Sprintf("%s%06d", prefix, i%f.keys) }
	watchers, err := load.Watch(r.cluster.Members[0].ClientURL, f.conns, f.streams, f.each, load.WideWindow, 0, name)
	if err != nil {
		return nil, err
	}
	defer watchers.Close()
	want := int64(f.puts) * int64(f.conns*f.streams*f.each/f.keys)
	var took time.Duration
	sample, err := r.Cost(func() (float64, error) {
		begin := time.Now()
		if err := r.putMany(f.puts, 1, f.callers, func(i int) int { return i }, name, valueSize); err != nil {
			return 0, err
		}
		err := watchers.Await(r.ctx, want, watchTimeout)
		took = time.Since(begin)
		return float64(want), err
	})
	if err != nil {
		return nil, err
	}
	sample["events_rate"], sample["time_s"] = float64(want)/took.Seconds(), took.Seconds()
	delete(sample, "written_b")
	return sample, nil
}

func watchLatency(r *Round) (report.Sample, error) {
	sample, all, err := r.Benchmark("watch-latency", "--streams=10", "--watchers-per-stream=10", "--put-rate=200", fmt.Sprintf("--put-total=%d", r.N(1200, 10)), "--conns=10", "--clients=10")
	if err != nil {
		return nil, err
	}
	if len(all) != 2 {
		return nil, fmt.Errorf("watch-latency: %d summaries instead of 2", len(all))
	}
	events := all[1]
	return report.Sample{"p50_ms": 1000 * events.P50, "p99_ms": 1000 * events.P99, "max_ms": 1000 * events.Max, "cpu_ms": sample["cpu_ms"]}, nil
}

func watchDelivery(r *Round) (report.Sample, error) {
	const pace = 2 * time.Millisecond
	puts := r.N(2500, 10)
	client, err := r.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	key := fmt.Sprintf("delivery/%d", time.Now().UnixNano())
	watchers, err := load.Watch(r.cluster.Members[0].ClientURL, 10, 1, 10, load.WideWindow, 0, func(int) string { return key })
	if err != nil {
		return nil, err
	}
	defer watchers.Close()
	watchers.KeepTimes(puts)
	begun := make([]time.Time, puts)
	sample, err := r.Cost(func() (float64, error) {
		ctx, cancel := context.WithTimeout(r.ctx, watchTimeout)
		defer cancel()
		due := time.Now()
		for i := range puts {
			due = due.Add(pace)
			sleep(ctx, time.Until(due))
			begun[i] = time.Now()
			if _, err := client.Put(ctx, key, valueAt(i, valueSize)); err != nil {
				return 0, err
			}
		}
		return float64(100 * puts), watchers.Await(ctx, int64(100*puts), watchTimeout)
	})
	if err != nil {
		return nil, err
	}
	var times []float64
	for _, arrivals := range watchers.Times() {
		for i, at := range arrivals {
			times = append(times, ms(at.Sub(begun[i])))
		}
	}
	slices.Sort(times)
	return report.Sample{
		"p50_ms": report.Percentile(times, 50), "p99_ms": report.Percentile(times, 99), "max_ms": report.Percentile(times, 100), "cpu_ms": sample["cpu_ms"],
	}, nil
}

func catchUp(r *Round) (report.Sample, error) {
	client, err := r.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	prefix := fmt.Sprintf("catch-up/%d/", time.Now().UnixNano())
	name := func(i int) string { return fmt.Sprintf("%s%04d", prefix, i%100) }
	first, err := client.Put(r.ctx, name(0), "first")
	if err != nil {
		return nil, err
	}
	events := r.N(2000, 10)
	if err := r.putMany(events-1, 1, fillers, func(i int) int { return i }, name, valueSize); err != nil {
		return nil, err
	}
	want := int64(1000 * events)
	sample, err := r.meanwhile(func() error {
		watchers, err := load.Watch(r.cluster.Members[0].ClientURL, 10, 1, 100, load.WideWindow, first.Header.Revision, func(int) string { return prefix + "*" })
		if err != nil {
			return err
		}
		defer watchers.Close()
		return watchers.Await(r.ctx, want, watchTimeout)
	})
	if err != nil {
		return nil, err
	}
	sample["events_rate"] = float64(want) / sample["time_s"]
	return sample, nil
}

// versions sums how often the named keys were put: `benchmark put` overwrites its key in place, so that some of its keys have bytes of
// others at their end and are watched by nobody.
func versions(ctx context.Context, endpoint string, keys int, name func(int) string) (int64, error) {
	client, err := load.Client(endpoint)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	got, err := client.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil {
		return 0, err
	}
	watched := map[string]bool{}
	for i := range keys {
		watched[name(i)] = true
	}
	sum := int64(0)
	for _, kv := range got.Kvs {
		if watched[string(kv.Key)] {
			sum += kv.Version
		}
	}
	return sum, nil
}

// stalledWatchers watches the keys that `benchmark put` writes: varints of 8 bytes.
func stalledWatchers(r *Round) (report.Sample, error) {
	const keys = 1000
	name := func(i int) string {
		var key [8]byte
		binary.PutVarint(key[:], int64(i%keys))
		return string(key[:])
	}
	endpoint := r.cluster.Members[0].ClientURL
	without, err := r.putLoad(keys)
	if err != nil {
		return nil, err
	}
	reading, err := load.Watch(endpoint, 9, 10, 100, load.WideWindow, 0, name)
	if err != nil {
		return nil, err
	}
	defer reading.Close()
	stalled, err := load.Watch(endpoint, 10, 1, 100, load.DefaultWindow, 0, name)
	if err != nil {
		return nil, err
	}
	defer stalled.Close()
	stalled.Pause()
	before, err := r.cluster.Usage()
	if err != nil {
		return nil, err
	}
	written, err := versions(r.ctx, endpoint, keys, name)
	if err != nil {
		return nil, err
	}
	sample, err := r.putLoad(keys)
	if err != nil {
		return nil, err
	}
	now, err := versions(r.ctx, endpoint, keys, name)
	if err != nil {
		return nil, err
	}
	if err := reading.Await(r.ctx, 9*(now-written), watchTimeout); err != nil {
		return nil, fmt.Errorf("the watchers that read: %w", err)
	}
	sample["put_kept"] = sample["rate"] / without["rate"]
	sample["extra_mib"] = sample["peak_mib"] - mib(before.ResidentByte)
	return sample, nil
}
