package report

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// Machine is where the numbers come from.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	MemGiB float64 `json:"mem_gib"`
	Kernel string  `json:"kernel"`
	Disk   string  `json:"disk"`         // file system
	SyncMs float64 `json:"fdatasync_ms"` // median of a 4 KiB append and fdatasync
}

// ThisMachine reads /proc.
func ThisMachine() Machine {
	m := Machine{CPU: lineOf("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU()}
	var kib float64
	_, _ = fmt.Sscanf(lineOf("/proc/meminfo", "MemTotal"), "%f", &kib)
	m.MemGiB = kib / (1 << 20)
	var uts syscall.Utsname
	if syscall.Uname(&uts) == nil {
		for _, c := range uts.Release {
			if c == 0 {
				break
			}
			m.Kernel += string(rune(c))
		}
	}
	return m
}

// Place in one line, without what differs from run to run.
func (m Machine) Place() string {
	return fmt.Sprintf("%d x %s, %.0f GiB, Linux %s, data on %s", m.Cores, m.CPU, m.MemGiB, m.Kernel, m.Disk)
}

func lineOf(path, name string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
