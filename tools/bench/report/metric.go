package report

import "fmt"

// Metric is one measured property. A table has its rows in the order of Metrics.
type Metric struct {
	ID, Title, Unit string
	Higher          bool // more is better
}

// Metrics are all that a workload may report.
var Metrics = []Metric{
	{"rate", "throughput", "/s", true},
	{"read_rate", "reads", "/s", true},
	{"events_rate", "events delivered", "/s", true},
	{"time_s", "time", "s", false},
	{"gap_ms", "longest gap between acknowledged puts", "ms", false},
	{"p50_ms", "p50", "ms", false},
	{"p99_ms", "p99", "ms", false},
	{"max_ms", "max", "ms", false},
	{"read_p50_ms", "p50 of the reads", "ms", false},
	{"read_p99_ms", "p99 of the reads", "ms", false},
	{"read_max_ms", "max of the reads", "ms", false},
	{"idle_put_p99_ms", "p99 of a put before", "ms", false},
	{"idle_put_max_ms", "worst put before", "ms", false},
	{"put_p99_ms", "p99 of a put meanwhile", "ms", false},
	{"put_max_ms", "worst put meanwhile", "ms", false},
	{"get_max_ms", "worst get meanwhile", "ms", false},
	{"put_kept", "put throughput kept", "x", true},
	{"cpu_ms", "server CPU per 1,000 operations", "ms", false},
	{"cpu_s", "server CPU", "s", false},
	{"rss_mib", "resident", "MiB", false},
	{"peak_mib", "peak RSS", "MiB", false},
	{"extra_mib", "peak RSS beyond what it was before", "MiB", false},
	{"watcher_kib", "memory per watcher", "KiB", false},
	{"lease_b", "memory per lease", "B", false},
	{"disk_mib", "on disk", "MiB", false},
	{"logical_mib", "keys and values", "MiB", false},
	{"written_b", "written per operation", "B", false},
	{"engine_cpu_us", "CPU per put logged and applied, batches of 16", "us", false},
	{"engine_cpu64_us", "CPU per put logged and applied, batches of 64", "us", false},
	{"append_us", "log append until durable, per entry of a batch of 16", "us", false},
	{"apply_us", "apply, per put of a batch of 16", "us", false},
	{"get_us", "range of one key", "us", false},
	{"page_us", "range of 500 of 50,000 keys", "us", false},
	{"count_us", "count of 50,000 keys", "us", false},
	{"encode_us", "encoding 500 keys", "us", false},
	{"errors", "failed operations", "", false},
}

// MetricOf finds one; an unknown id is a mistake of ours.
func MetricOf(id string) Metric {
	for _, m := range Metrics {
		if m.ID == id {
			return m
		}
	}
	panic("report: no metric " + id)
}

// Sample is what one run of a workload on one server measured, by metric id.
type Sample map[string]float64

// Format shows a value with three or four significant digits, thousands separated.
func Format(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0:
		return "-" + Format(-v)
	case v >= 999.5:
		return thousands(int64(v + 0.5))
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.0995:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// Count shows a number of things.
func Count(n int) string { return thousands(int64(n)) }

func thousands(n int64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
