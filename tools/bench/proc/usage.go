// Package proc runs servers as real processes and reads from /proc what they cost.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process (or several, added up) has used since its start.
type Usage struct {
	CPU          time.Duration // utime + stime of all its threads, also of those that have ended
	WrittenBytes int64         // write_bytes: what it caused to be sent to the disk
	PeakBytes    int64         // VmHWM since the start or the last ResetPeak
	ResidentByte int64         // VmRSS now
}

// Add sums up the members of a cluster.
func (u Usage) Add(o Usage) Usage {
	return Usage{u.CPU + o.CPU, u.WrittenBytes + o.WrittenBytes, u.PeakBytes + o.PeakBytes, u.ResidentByte + o.ResidentByte}
}

// clockTick is USER_HZ, which is 100 on every Linux that Go supports.
const clockTick = 10 * time.Millisecond

// ReadUsage reads /proc/PID/{stat,status,io}.
func ReadUsage(pid int) (Usage, error) {
	var u Usage
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return u, err
	}
	if u.CPU, err = parseStat(stat); err != nil {
		return u, err
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return u, err
	}
	u.PeakBytes = 1024 * fieldOf(status, "VmHWM:")
	u.ResidentByte = 1024 * fieldOf(status, "VmRSS:")
	io, err := os.ReadFile(dir + "io")
	if err != nil {
		return u, err
	}
	u.WrittenBytes = fieldOf(io, "write_bytes:")
	return u, nil
}

// ResetPeak makes VmHWM start anew from what is resident now.
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// parseStat adds fields 14 and 15 of /proc/PID/stat. The name in field 2 may itself hold blanks and parentheses.
func parseStat(stat []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("proc: no ')' in stat")
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("proc: %d fields in stat", len(fields))
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("proc: stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// fieldOf finds "NAME  123 kB" and returns 123, or 0.
func fieldOf(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			fields := strings.Fields(rest)
			if len(fields) == 0 {
				return 0
			}
			n, _ := strconv.ParseInt(fields[0], 10, 64)
			return n
		}
	}
	return 0
}
