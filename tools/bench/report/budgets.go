package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Budget is what a metric has to reach. Limits are ratios to etcd in the same run, or rusd's own value.
type Budget struct {
	Workload, Metric string
	AtLeast          bool
	Bound            float64
	Kind             Kind
}

// Kind says what the bound bounds.
type Kind int

const (
	// RatioToEtcd of the same round.
	RatioToEtcd Kind = iota
	// Own value of rusd, in the metric's unit.
	Own
	// OverLogical is the ratio of rusd's disk to its keys and values.
	OverLogical
	// OverSync is rusd's own value beyond one fdatasync.
	OverSync
	// OverIdle is the ratio of rusd's own value to that with nothing else going on.
	OverIdle
)

// Budgets of the project.
var Budgets = budgets()

func budgets() []Budget {
	var all []Budget
	atLeast := func(metric string, bound float64, workloads ...string) {
		for _, w := range workloads {
			all = append(all, Budget{w, metric, true, bound, RatioToEtcd})
		}
	}
	atMost := func(metric string, bound float64, workloads ...string) {
		for _, w := range workloads {
			all = append(all, Budget{w, metric, false, bound, RatioToEtcd})
		}
	}
	own := func(metric string, bound float64, workloads ...string) {
		for _, w := range workloads {
			all = append(all, Budget{w, metric, false, bound, Own})
		}
	}
	atLeast("rate", 1.8, "put-64")
	atLeast("rate", 1.5, "put-1000")
	atLeast("rate", 1.0, "put-1")
	atMost("cpu_ms", 0.5, "put-1", "put-64", "put-1000")
	atMost("p99_ms", 0.7, "put-1", "put-64", "put-1000")
	atLeast("rate", 1.4, "range-l-64", "range-l-1000")
	atLeast("rate", 1.25, "range-s-64", "range-s-1000")
	atMost("cpu_ms", 0.6, "range-l-64", "range-l-1000", "range-s-64", "range-s-1000")
	atMost("p99_ms", 0.8, "range-l-64", "range-l-1000", "range-s-64", "range-s-1000")
	atLeast("rate", 1.5, "3m-put-64", "3m-put-1000", "3m-range-l-64", "3m-range-l-1000")
	atMost("cpu_ms", 0.6, "3m-put-64", "3m-put-1000", "3m-range-l-64", "3m-range-l-1000")
	atLeast("rate", 1.5, "txn-put", "txn-mixed", "stm")
	atLeast("read_rate", 1.5, "txn-mixed")
	atMost("cpu_ms", 0.6, "txn-put", "txn-mixed", "stm")

	atMost("time_s", 0.5, "list-whole", "list-stream")
	atMost("time_s", 0.1, "list-pages")
	own("extra_mib", 64, "list-whole", "list-stream", "list-pages")
	own("put_max_ms", 50, "list-whole", "list-stream", "list-pages")
	all = append(all,
		Budget{"compact", "put_max_ms", false, 10, OverSync},
		Budget{"million", "disk_mib", false, 1.2, OverLogical})
	atMost("rss_mib", 0.6, "fill", "million")
	atMost("time_s", 0.4, "restart")
	own("time_s", 0.3, "empty-start")
	own("engine_cpu_us", 10, MicroID)

	atMost("gap_ms", 0.9, "kill-leader", "5m-kill-leader")
	own("gap_ms", 50, "hand-over", "5m-hand-over")
	atMost("gap_ms", 0.2, "hand-over", "5m-hand-over")
	atMost("time_s", 0.5, "join")
	all = append(all, Budget{"join", "put_p99_ms", false, 2, OverIdle})

	atLeast("events_rate", 1.5, "fanout-one-key", "fanout-own-keys", "fanout-streams")
	atMost("p99_ms", 0.7, "watch-latency", "watch-delivery")
	atLeast("rate", 1.4, "keep-alive-64", "keep-alive-1000")
	atMost("cpu_ms", 0.6, "keep-alive-64", "keep-alive-1000")
	all = append(all, Budget{"watch-idle", "put_kept", true, 0.95, Own})
	atMost("watcher_kib", 0.5, "watch-idle")
	return all
}

// budgetsOf are the budgets in the order of the measured workloads; those without a measurement come last.
func budgetsOf(r *Results) []Budget {
	place := func(b Budget) int {
		if w := r.Workloads[b.Workload]; w != nil {
			return w.Order
		}
		return math.MaxInt
	}
	return slices.SortedStableFunc(slices.Values(Budgets), func(a, b Budget) int { return cmp.Compare(place(a), place(b)) })
}

// Limit in words.
func (b Budget) Limit() string {
	sign := "<="
	if b.AtLeast {
		sign = ">="
	}
	switch b.Kind {
	case RatioToEtcd:
		return fmt.Sprintf("%s %sx", sign, Format(b.Bound))
	case OverLogical:
		return fmt.Sprintf("%s %sx of keys and values", sign, Format(b.Bound))
	case OverIdle:
		return fmt.Sprintf("%s %sx of before", sign, Format(b.Bound))
	case OverSync:
		return fmt.Sprintf("%s %s %s + one fdatasync", sign, Format(b.Bound), MetricOf(b.Metric).Unit)
	default:
		return fmt.Sprintf("%s %s %s", sign, Format(b.Bound), MetricOf(b.Metric).Unit)
	}
}

// Judgement is a budget with what was measured.
type Judgement struct {
	Budget   Budget
	Measured string
	Known    bool
	Met      bool
}

// Judge looks at the median over the rounds.
func (b Budget) Judge(w *Workload) Judgement {
	j := Judgement{Budget: b, Measured: "-"}
	if w == nil {
		return j
	}
	rusd := w.Values("rusd", b.Metric)
	var value float64
	switch b.Kind {
	case RatioToEtcd:
		r, ok := Ratios(w.Values("etcd", b.Metric), rusd)
		if !ok {
			return j
		}
		value, j.Measured = r.Median, r.String()
	case OverLogical:
		r, ok := Ratios(w.Values("rusd", "logical_mib"), rusd)
		if !ok {
			return j
		}
		value, j.Measured = r.Median, r.String()
	case OverIdle:
		r, ok := Ratios(w.Values("rusd", "idle_"+b.Metric), rusd)
		if !ok {
			return j
		}
		value, j.Measured = r.Median, r.String()
	default:
		if len(rusd) == 0 {
			return j
		}
		value = Median(rusd)
		j.Measured = Format(value) + " " + MetricOf(b.Metric).Unit
		if b.Kind == OverSync {
			value -= w.Machine.SyncMs
		}
	}
	j.Known = true
	j.Met = value <= b.Bound
	if b.AtLeast {
		j.Met = value >= b.Bound
	}
	return j
}

// Verdict in a word or two.
func (j Judgement) Verdict() string {
	switch {
	case !j.Known:
		return "not measured"
	case j.Met:
		return "met"
	default:
		return "missed"
	}
}
