package proc

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Busy is the share of the machine's CPUs that somebody used during d. Before a round nobody should: what others take then,
// they take from the measurement, too.
func Busy(ctx context.Context, d time.Duration) (float64, error) {
	before, err := readCPU()
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	after, err := readCPU()
	if err != nil {
		return 0, err
	}
	all := after.all - before.all
	if all <= 0 {
		return 0, nil
	}
	return 1 - float64(after.idle-before.idle)/float64(all), nil
}

type cpuTicks struct{ all, idle int64 }

func readCPU() (cpuTicks, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTicks{}, err
	}
	return parseCPU(string(stat))
}

// parseCPU reads "cpu user nice system idle iowait irq softirq steal guest guest_nice"; guests are in user already.
func parseCPU(stat string) (cpuTicks, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return cpuTicks{}, fmt.Errorf("proc: %q in /proc/stat", line)
	}
	var t cpuTicks
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return t, fmt.Errorf("proc: /proc/stat: %w", err)
		}
		t.all += n
		if i == 3 || i == 4 {
			t.idle += n
		}
	}
	return t, nil
}
