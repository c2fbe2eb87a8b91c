// Command bench measures etcd and rusd side by side: same flags, same machine, same minute, one after the other in turns.
//
// It starts real processes with fresh data directories on a real disk, drives them with etcd's own `benchmark` where that has a command
// for the workload and with small clients of its own where it has none, and reads from /proc what the servers spent. What it prints is
// one table per workload; what it keeps is a JSON file into which the run of a part merges, and a Markdown page and a plot made from it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"rusd/tools/bench/load"
	"rusd/tools/bench/proc"
	"rusd/tools/bench/report"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == load.ProbeCommand {
		os.Exit(load.ProbeMain(os.Args[2:]))
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	etcd, rusd, benchmark, dir, out, only, command, micro string
	rounds                                                int
	scale                                                 float64
	list, render, quick, smoke                            bool
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.etcd, "etcd", "tools/bin/etcd", "the etcd to compare with")
	f.StringVar(&o.rusd, "rusd", "target/release/rusd", "the rusd to measure")
	f.StringVar(&o.benchmark, "benchmark", "tools/bin/benchmark", "etcd's load generator")
	f.StringVar(&o.dir, "dir", "target/bench", "data directories go below it; must be on a real disk")
	f.StringVar(&o.out, "out", "", "directory of benchmarks.{json,md,svg}; none: print only")
	f.StringVar(&o.only, "only", "", "scenarios or workloads, or beginnings of their names, by commas; empty: all")
	f.StringVar(&o.command, "command", "", "what the report names as the command of this run")
	f.IntVar(&o.rounds, "rounds", 3, "turns of each server")
	f.Float64Var(&o.scale, "scale", 1, "factor for the numbers of operations and keys")
	f.BoolVar(&o.list, "list", false, "list scenarios and workloads and end")
	f.BoolVar(&o.render, "render", false, "make the page and the plot anew from the JSON, measure nothing")
	f.StringVar(&o.micro, "micro", "", "take what criterion has left in this directory into the report; measure nothing")
	f.BoolVar(&o.quick, "quick", false, "one round of the main workloads, with fewer operations: less than three minutes")
	f.BoolVar(&o.smoke, "smoke", false, "a few operations of each kind, in seconds: does the tool work?")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		o.rounds, o.scale, o.only = 1, 0.4, quickWorkloads
	}
	if o.smoke {
		o.rounds, o.scale, o.only = 1, 0.005, smokeWorkloads
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected %q", f.Arg(0))
	}
	if o.rounds < 1 || o.scale <= 0 {
		return o, fmt.Errorf("-rounds and -scale must be positive")
	}
	return o, nil
}

func run(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.list {
		for _, s := range scenarios() {
			fmt.Println(s.ID)
			for _, w := range s.Workloads {
				fmt.Printf("    %-20s %s\n", w.ID, w.Title)
			}
		}
		return nil
	}
	if o.render {
		return render(o.out, nil)
	}
	var only []string
	if o.only != "" {
		only = strings.Split(o.only, ",")
	}
	if err := knowAll(only); err != nil {
		return err
	}
	env, err := newEnv(o, only)
	if err != nil {
		return err
	}
	if o.micro != "" {
		defer os.RemoveAll(env.Dir)
		micro, err := report.Micro(o.micro, env.Stamp)
		if err != nil {
			return err
		}
		return render(o.out, []*report.Workload{micro})
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	defer os.RemoveAll(env.Dir)
	context.AfterFunc(ctx, stop) // a second Ctrl-C doesn't wait for anything
	begin := time.Now()
	measured := env.Run(ctx, scenarios())
	env.say("took %.0f s", time.Since(begin).Seconds())
	if ctx.Err() != nil {
		return fmt.Errorf("stopped; nothing is kept")
	}
	if o.out != "" {
		if err := render(o.out, measured); err != nil {
			return err
		}
	}
	return failures(measured)
}

// render writes the report, and asks for a sentence where a budget is missed and nobody has said why.
func render(dir string, measured []*report.Workload) error {
	unexplained, err := report.Render(dir, measured)
	for _, budget := range unexplained {
		workload, _, _ := strings.Cut(budget, " ")
		if !slices.ContainsFunc(measured, func(w *report.Workload) bool { return w.ID == workload }) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: missed and unexplained in %s: %q\n", filepath.Join(dir, report.ReasonsFile), budget)
	}
	return err
}

func newEnv(o options, only []string) (*Env, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, bin := range []string{o.etcd, o.rusd, o.benchmark} {
		if _, err := os.Stat(bin); err != nil {
			return nil, fmt.Errorf("%w (make bench builds it)", err)
		}
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, err
	}
	if !proc.OnRealDisk(o.dir) {
		fmt.Fprintf(os.Stderr, "bench: %s is in memory, not on a disk: what this measures says nothing about durable writes\n", o.dir)
	}
	sweep(o.dir)
	dir, err := os.MkdirTemp(o.dir, fmt.Sprintf("run-%d-", os.Getpid()))
	if err != nil {
		return nil, err
	}
	sync, err := proc.ProbeSync(dir)
	if err != nil {
		return nil, err
	}
	servers := []proc.Server{{Name: "etcd", Bin: o.etcd}, {Name: "rusd", Bin: o.rusd}}
	stamp := report.Workload{
		Date: time.Now().UTC().Format("2006-01-02 15:04 MST"), Command: o.command, Machine: report.ThisMachine(),
		Etcd: versionOf(servers[0]), Rusd: strings.TrimSpace(versionOf(servers[1]) + " " + commit()),
	}
	stamp.Machine.SyncMs, stamp.Machine.Disk = ms(sync), proc.Disk(dir)
	if stamp.Command == "" {
		stamp.Command = "bench " + strings.Join(os.Args[1:], " ")
	}
	return &Env{
		Servers:   servers,
		Benchmark: o.benchmark, Self: self, Dir: dir, Rounds: o.rounds, Scale: o.scale, Only: only, Stamp: stamp,
	}, nil
}

// sweep removes what runs have left that were killed and couldn't.
func sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "run-*"))
	for _, path := range left {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(path), "run-%d-", &pid); err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = os.RemoveAll(path)
		}
	}
}

// versionOf is what "etcd Version: 3.7.1" or "rusd Version: 0.1.0" says in --version.
func versionOf(server proc.Server) string {
	out, err := exec.Command(server.Bin, "--version").Output()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(strings.ToLower(line))
		if len(fields) > 1 && fields[0] == server.Name {
			return fields[len(fields)-1]
		}
	}
	return ""
}

// commit of the working tree, with a plus when there is more in it than that.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return ""
	}
	id := strings.TrimSpace(string(out))
	if dirty, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no", "--", "src", "storage", "network", "proto", "Cargo.lock").Output(); err == nil && len(dirty) > 0 {
		id += "+"
	}
	return "(" + id + ")"
}

// failures makes the exit code tell what the tables show.
func failures(measured []*report.Workload) error {
	var failed []string
	for _, w := range measured {
		for server, why := range w.Failed {
			if why != errNotBuilt.Error() {
				failed = append(failed, fmt.Sprintf("%s on %s", w.ID, server))
			}
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d failed: %s", len(failed), strings.Join(failed, ", "))
	}
	if len(measured) == 0 {
		return fmt.Errorf("nothing was measured")
	}
	return nil
}

func knowAll(only []string) error {
	for _, token := range only {
		known := false
		for _, s := range scenarios() {
			for _, w := range s.Workloads {
				known = known || matches([]string{token}, s.ID, w.ID)
			}
		}
		if !known {
			return fmt.Errorf("no scenario or workload begins with %q; -list shows them (%s)", token, filepath.Base(os.Args[0]))
		}
	}
	return nil
}
