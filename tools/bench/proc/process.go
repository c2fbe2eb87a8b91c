package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ReadyLine is what etcd logs (and rusd) once it is published and serves clients.
const ReadyLine = "ready to serve client requests"

// Process is one running server. Its log is read through a pipe, so that the ready line is seen the moment it is written.
type Process struct {
	cmd     *exec.Cmd
	Started time.Time
	ready   chan struct{} // closed at the ready line
	readyAt time.Time     // valid once ready is closed
	gone    chan struct{} // closed when the process has been reaped

	mu   sync.Mutex
	tail []string // the last lines of its log
}

const tailMax = 40

// The kernel kills a child with its parent (PDEATHSIG) when the *thread* that started it ends, so all are started by one thread that stays.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// StartBound starts cmd so that it dies with this process, whatever kills it, and gets no Ctrl-C of its own.
func StartBound(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	spawner() <- func() { done <- cmd.Start() }
	return <-done
}

// Start runs a server.
func Start(bin string, args []string) (*Process, error) {
	p := &Process{cmd: exec.Command(bin, args...), ready: make(chan struct{}), gone: make(chan struct{})}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	p.Started = time.Now()
	if err := StartBound(p.cmd); err != nil {
		return nil, fmt.Errorf("proc: %s: %w", bin, err)
	}
	go func() {
		p.readLog(stderr)
		_ = p.cmd.Wait() // how it ended shows in its log
		close(p.gone)
	}()
	return p, nil
}

func (p *Process) readLog(log io.Reader) {
	lines := bufio.NewReaderSize(log, 64<<10)
	seen := false
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if !seen && strings.Contains(line, ReadyLine) {
				seen = true
				p.readyAt = time.Now()
				close(p.ready)
			}
			p.mu.Lock()
			p.tail = append(p.tail, line)
			if len(p.tail) > tailMax {
				p.tail = p.tail[1:]
			}
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// Pid of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// LogTail is what it said last, for error messages.
func (p *Process) LogTail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "")
}

// WaitReady waits for the ready line and returns how long after the start it came.
func (p *Process) WaitReady(ctx context.Context) (time.Duration, error) {
	select {
	case <-p.ready:
		return p.readyAt.Sub(p.Started), nil
	case <-p.gone:
		return 0, fmt.Errorf("proc: %s ended before it was ready; its log ends:\n%s", p.cmd.Path, p.LogTail())
	case <-ctx.Done():
		return 0, fmt.Errorf("proc: %s isn't ready (%w); its log ends:\n%s", p.cmd.Path, ctx.Err(), p.LogTail())
	}
}

// Signal sends one, and is content with a process that has ended.
func (p *Process) Signal(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, syscall.ESRCH) && !p.Gone() {
		return err
	}
	return nil
}

// Gone says whether it has ended.
func (p *Process) Gone() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// WaitGone waits until it has ended.
func (p *Process) WaitGone(ctx context.Context) error {
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("proc: %s doesn't end: %w; its log ends:\n%s", p.cmd.Path, ctx.Err(), p.LogTail())
	}
}

// Kill9 kills it and waits until it is gone.
func (p *Process) Kill9() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}
