package load

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"rusd/tools/bench/proc"
	"rusd/tools/bench/report"
)

// ProbeCommand is the first argument that makes this binary a probe.
const ProbeCommand = "probe"

// Probe is a helper process that puts or gets at a steady pace while something else goes on. It is a process of its own so that the
// garbage of a load generator isn't taken for a slow server. Times count from when a call was due, so a stall delays all that were due in it.
type Probe struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   io.Reader
}

// Probed is what it saw, in milliseconds.
type Probed struct {
	N, Errors     int
	P50, P99, Max float64
}

// StartProbe begins; op is "put" or "get" (linearizable).
func StartProbe(self, endpoint, op string, pace time.Duration) (*Probe, error) {
	cmd := exec.Command(self, ProbeCommand, "-endpoint", endpoint, "-op", op, "-pace", pace.String())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := proc.StartBound(cmd); err != nil {
		return nil, err
	}
	var ready [1]byte // written after the first call has been answered
	if _, err := io.ReadFull(out, ready[:]); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("probe: %w", err)
	}
	return &Probe{cmd, stdin, out}, nil
}

// Stop ends it and returns what it saw.
func (p *Probe) Stop() (Probed, error) {
	var seen Probed
	_ = p.stdin.Close()
	err := json.NewDecoder(p.out).Decode(&seen)
	if wait := p.cmd.Wait(); err == nil {
		err = wait
	}
	return seen, err
}

// ProbeMain is the helper process.
func ProbeMain(args []string) int {
	f := flag.NewFlagSet(ProbeCommand, flag.ContinueOnError)
	endpoint := f.String("endpoint", "", "")
	op := f.String("op", "put", "")
	pace := f.Duration("pace", 5*time.Millisecond, "")
	if err := f.Parse(args); err != nil {
		return 2
	}
	client, err := Client(*endpoint)
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 1
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent closes it, or dies
		cancel()
	}()
	call := caller(client, *op)
	if err := call(ctx, 0); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 1
	}
	fmt.Print(".")
	seen := pacedCalls(ctx, *pace, call)
	if err := json.NewEncoder(os.Stdout).Encode(seen); err != nil {
		return 1
	}
	return 0
}

func caller(client *clientv3.Client, op string) func(context.Context, int) error {
	value := string(make([]byte, 256))
	return func(ctx context.Context, i int) (err error) {
		key := fmt.Sprintf("probe/%03d", i%100)
		if op == "put" {
			_, err = client.Put(ctx, key, value)
		} else {
			_, err = client.Get(ctx, key)
		}
		return err
	}
}

// probesAtOnce bounds the calls in flight: a server that stands still is not flooded when it goes on.
const probesAtOnce = 64

// pacedCalls makes one call per pace until ctx ends. A slow call doesn't hold up those that are due after it.
func pacedCalls(ctx context.Context, pace time.Duration, call func(context.Context, int) error) Probed {
	var mu sync.Mutex
	var seen Probed
	var times []float64
	var calls sync.WaitGroup
	slots := make(chan struct{}, probesAtOnce)
	due := time.Now()
	for i := 1; ctx.Err() == nil; i++ {
		due = due.Add(pace)
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(due)):
		}
		slots <- struct{}{}
		calls.Add(1)
		go func(due time.Time) {
			defer calls.Done()
			callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CallTimeout)
			defer cancel()
			err := call(callCtx, i)
			took := ms(time.Since(due))
			<-slots
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				seen.Errors++
				return
			}
			times = append(times, took)
		}(due)
	}
	calls.Wait()
	seen.N = len(times)
	slices.Sort(times)
	seen.P50, seen.P99, seen.Max = report.Percentile(times, 50), report.Percentile(times, 99), report.Percentile(times, 100)
	return seen
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
