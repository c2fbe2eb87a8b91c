// Package load makes the load: etcd's own `benchmark` where it has a command, and small clients of ours where it has none.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"rusd/tools/bench/proc"
)

// Summary is one report of `benchmark`: txn-mixed, watch and watch-latency print two. Latencies in seconds.
type Summary struct {
	Rate          float64 // requests per second
	P50, P99, Max float64
	Errors        int
	Total         float64 // seconds
}

// Benchmark runs etcd's load generator and returns its summaries in the order in which they were printed.
func Benchmark(ctx context.Context, bin string, endpoints []string, args ...string) ([]Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	all := append([]string{"--precise", "--endpoints=" + strings.Join(trimScheme(endpoints), ",")}, args...)
	cmd := exec.CommandContext(ctx, bin, all...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := proc.StartBound(cmd); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("benchmark %s: %w\n%s", strings.Join(args, " "), err, tail(log.String()))
	}
	summaries, err := ParseBenchmark(out.String())
	if err != nil {
		return nil, fmt.Errorf("benchmark %s: %w", strings.Join(args, " "), err)
	}
	return summaries, nil
}

// ParseBenchmark reads what `benchmark --precise` prints.
func ParseBenchmark(out string) ([]Summary, error) {
	var all []Summary
	inErrors := false
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line == "Summary:" {
			all = append(all, Summary{})
			inErrors = false
			continue
		}
		if line == "Error distribution:" {
			inErrors = true
			if len(all) == 0 { // nothing succeeded
				all = append(all, Summary{})
			}
			continue
		}
		if len(all) == 0 {
			continue
		}
		s := &all[len(all)-1]
		if inErrors {
			var n int
			if _, err := fmt.Sscanf(line, "[%d]", &n); err == nil {
				s.Errors += n
			}
			continue
		}
		for prefix, field := range map[string]*float64{
			"Total:": &s.Total, "Slowest:": &s.Max, "Requests/sec:": &s.Rate, "50% in ": &s.P50, "99% in ": &s.P99,
		} {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				n, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				if err != nil {
					return nil, fmt.Errorf("%q: %w", line, err)
				}
				*field = n
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no summary in its output")
	}
	return all, nil
}

func trimScheme(endpoints []string) []string {
	var all []string
	for _, endpoint := range endpoints {
		all = append(all, strings.TrimPrefix(endpoint, "http://"))
	}
	return all
}

// tail keeps the end of a log: the progress bar writes there, too.
func tail(log string) string {
	if len(log) > 2000 {
		log = log[len(log)-2000:]
	}
	return log
}
