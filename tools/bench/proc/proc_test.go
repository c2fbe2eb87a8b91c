package proc

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStatWithAnOddName(t *testing.T) {
	line := "17 (a (b) c) S 1 17 17 0 -1 4194560 9 0 0 0 250 75 3 4 20 0 9 0 100 1 2\n"
	took, err := parseStat([]byte(line))
	if err != nil || took != 3250*time.Millisecond {
		t.Errorf("%v, %v", took, err)
	}
	if _, err := parseStat([]byte("17 (x) S 1")); err == nil {
		t.Error("a short line is an error")
	}
}

func TestFieldOf(t *testing.T) {
	status := []byte("Name:\trusd\nVmHWM:\t  2048 kB\nVmRSS:\t\n")
	if n := fieldOf(status, "VmHWM:"); n != 2048 {
		t.Error(n)
	}
	if n := fieldOf(status, "VmRSS:") + fieldOf(status, "VmSwap:"); n != 0 {
		t.Error(n)
	}
}

// One's own process has CPU, memory and written bytes; VmHWM falls back to what is resident.
func TestUsageOfMyself(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before, err := ReadUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 64<<20)
	for i := range big {
		big[i] = 1
	}
	if _, err := file.Write(big[:1<<20]); err != nil {
		t.Fatal(err)
	}
	after, err := ReadUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after.PeakBytes-before.ResidentByte < 32<<20 || after.ResidentByte == 0 || after.CPU < before.CPU {
		t.Errorf("%+v then %+v", before, after)
	}
	if OnRealDisk(t.TempDir()) && after.WrittenBytes-before.WrittenBytes < 1<<20 {
		t.Errorf("a MiB was written, %d bytes are said to be", after.WrittenBytes-before.WrittenBytes)
	}
}

// A process is ready at its line, and killed with everything below its directory.
func TestProcessIsReadyAndGoes(t *testing.T) {
	script := filepath.Join(t.TempDir(), "server")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho starting >&2\necho '{\"msg\":\""+ReadyLine+"\"}' >&2\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := NewCluster(Server{"etcd", script}, t.TempDir(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	c.Remove()
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("a member that is gone shows its log: %v", err)
	}
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Error("its directory is still there")
	}
}

func TestDeadBeforeReady(t *testing.T) {
	p, err := Start("/bin/sh", []string{"-c", "echo no such luck >&2; exit 1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("%v", err)
	}
}

func TestCPULine(t *testing.T) {
	ticks, err := parseCPU("cpu  10 1 5 80 4 1 1 2 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if err != nil || ticks != (cpuTicks{all: 104, idle: 84}) {
		t.Errorf("%+v, %v", ticks, err)
	}
	if _, err := parseCPU("intr 1 2 3"); err == nil {
		t.Error("no cpu line")
	}
	if busy, err := Busy(t.Context(), 50*time.Millisecond); err != nil || busy < 0 || busy > 1 {
		t.Errorf("%v, %v", busy, err)
	}
}
