package proc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Server says which binary is measured.
type Server struct {
	Name string // "etcd" or "rusd"
	Bin  string
}

// Member is a seat in a cluster and, while it runs, its process.
type Member struct {
	Name      string
	Dir       string // its data directory
	ClientURL string
	PeerURL   string
	Proc      *Process

	args []string
}

// Cluster is a set of members with fresh directories and free ports.
type Cluster struct {
	Server  Server
	Members []*Member

	dir   string
	flags []string
}

// NewCluster takes ports and a directory; nothing runs yet. The flags are the same for both servers.
func NewCluster(server Server, parent string, members int, flags []string) (*Cluster, error) {
	dir, err := os.MkdirTemp(parent, server.Name+"-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Server: server, dir: dir, flags: flags}
	for range members {
		if _, err := c.seat(); err != nil {
			return nil, err
		}
	}
	for _, m := range c.Members {
		c.setArgs(m, "new")
	}
	return c, nil
}

// seat adds a member that has no arguments yet.
func (c *Cluster) seat() (*Member, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("m%d", len(c.Members)+1)
	m := &Member{
		Name:      name,
		Dir:       filepath.Join(c.dir, name),
		ClientURL: fmt.Sprintf("http://127.0.0.1:%d", ports[0]),
		PeerURL:   fmt.Sprintf("http://127.0.0.1:%d", ports[1]),
	}
	c.Members = append(c.Members, m)
	return m, nil
}

// AddSeat makes a member that joins the running cluster; it isn't started, and `member add` is the caller's.
func (c *Cluster) AddSeat() (*Member, error) {
	m, err := c.seat()
	if err != nil {
		return nil, err
	}
	c.setArgs(m, "existing")
	return m, nil
}

func (c *Cluster) setArgs(m *Member, state string) {
	var initial []string
	for _, o := range c.Members {
		initial = append(initial, o.Name+"="+o.PeerURL)
	}
	m.args = append([]string{
		"--name", m.Name, "--data-dir", m.Dir,
		"--listen-client-urls", m.ClientURL, "--advertise-client-urls", m.ClientURL,
		"--listen-peer-urls", m.PeerURL, "--initial-advertise-peer-urls", m.PeerURL,
		"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", state,
	}, c.flags...)
}

// Start starts all members and waits until each is ready.
func (c *Cluster) Start(ctx context.Context) error {
	for _, m := range c.Members {
		if err := c.Launch(m); err != nil {
			return err
		}
	}
	for _, m := range c.Members {
		if _, err := m.Proc.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Launch starts one member without waiting.
func (c *Cluster) Launch(m *Member) (err error) {
	m.Proc, err = Start(c.Server.Bin, m.args)
	return err
}

// Kill9 kills all members at once.
func (c *Cluster) Kill9() {
	for _, m := range c.Members {
		if m.Proc != nil {
			_ = m.Proc.cmd.Process.Kill()
		}
	}
	for _, m := range c.Members {
		if m.Proc != nil {
			<-m.Proc.gone
		}
	}
}

// Remove kills what runs and removes the directory.
func (c *Cluster) Remove() {
	c.Kill9()
	_ = os.RemoveAll(c.dir)
}

// Copy makes a cluster with copies of the (stopped) members' directories, on the same ports.
func (c *Cluster) Copy(ctx context.Context, parent string) (*Cluster, error) {
	dir, err := os.MkdirTemp(parent, c.Server.Name+"-")
	if err != nil {
		return nil, err
	}
	copied := &Cluster{Server: c.Server, dir: dir, flags: c.flags}
	for _, m := range c.Members {
		twin := &Member{Name: m.Name, Dir: filepath.Join(dir, m.Name), ClientURL: m.ClientURL, PeerURL: m.PeerURL}
		if out, err := exec.CommandContext(ctx, "cp", "-a", m.Dir, twin.Dir).CombinedOutput(); err != nil {
			return copied, fmt.Errorf("proc: cp: %w: %s", err, out)
		}
		copied.Members = append(copied.Members, twin)
	}
	for _, m := range copied.Members {
		copied.setArgs(m, "new")
	}
	return copied, exec.CommandContext(ctx, "sync", "-f", dir).Run()
}

// Endpoints of all members, for clients.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.ClientURL)
	}
	return all
}

// Usage of all running members, added up.
func (c *Cluster) Usage() (Usage, error) {
	var sum Usage
	for _, m := range c.Members {
		if m.Proc == nil || m.Proc.Gone() {
			continue
		}
		one, err := ReadUsage(m.Proc.Pid())
		if err != nil {
			return sum, err
		}
		sum = sum.Add(one)
	}
	return sum, nil
}

// ResetPeak starts every running member's VmHWM anew.
func (c *Cluster) ResetPeak() error {
	for _, m := range c.Members {
		if m.Proc != nil && !m.Proc.Gone() {
			if err := ResetPeak(m.Proc.Pid()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Check tells of a member that has ended on its own.
func (c *Cluster) Check() error {
	for _, m := range c.Members {
		if m.Proc != nil && m.Proc.Gone() {
			return fmt.Errorf("proc: %s %s has ended; its log ends:\n%s", c.Server.Name, m.Name, m.Proc.LogTail())
		}
	}
	return nil
}

// DiskBytes is what the data directories take on disk (allocated blocks, as `du` counts).
func (c *Cluster) DiskBytes() (int64, error) {
	return diskBytes(c.dir)
}

// WaitDiskSettled waits until the directories have neither grown nor shrunk by more than 1 % for five seconds.
func (c *Cluster) WaitDiskSettled(ctx context.Context, most time.Duration) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	last, err := c.DiskBytes()
	since := time.Now()
	for err == nil && time.Since(since) < 5*time.Second {
		select {
		case <-ctx.Done():
			return last, nil
		case <-time.After(250 * time.Millisecond):
		}
		var now int64
		if now, err = c.DiskBytes(); now < last*99/100 || now > last*101/100 {
			last, since = now, time.Now()
		}
	}
	return last, err
}

// freePorts finds ports below the range from which outgoing connections take theirs, so that they stay free until a server binds them.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 10000 {
		port := 10000 + rand.IntN(20000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer listener.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("proc: no free ports")
}
