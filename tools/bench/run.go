package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"rusd/tools/bench/proc"
	"rusd/tools/bench/report"
)

// Env is what a run was told.
type Env struct {
	Servers   []proc.Server // etcd first: ratios are to it
	Benchmark string        // the load generator
	Self      string        // this binary, for helper processes
	Dir       string        // data directories go below it
	Rounds    int
	Scale     float64
	Only      []string        // empty: all
	Quiet     bool            // prints nothing
	Stamp     report.Workload // date, command, machine, versions: the same in every workload
}

// Run measures the selected scenarios and returns their workloads. What fails is recorded in its workload and doesn't end the run.
func (env *Env) Run(ctx context.Context, scenarios []Scenario) []*report.Workload {
	var all []*report.Workload
	for _, s := range scenarios {
		selected := env.selected(s)
		if len(selected) == 0 || ctx.Err() != nil {
			continue
		}
		workloads := map[string]*report.Workload{}
		for _, w := range selected {
			record := env.Stamp
			record.ID, record.Title, record.Note, record.Members = w.ID, w.Title, w.Note, s.Members
			record.Order = orderOf(scenarios, w.ID)
			record.Samples, record.Failed = map[string][]report.Sample{}, map[string]string{}
			workloads[w.ID] = &record
		}
		s.Workloads = selected
		env.runScenario(ctx, s, workloads)
		for _, w := range selected {
			all = append(all, workloads[w.ID])
			if !env.Quiet {
				report.PrintTable(os.Stdout, workloads[w.ID])
			}
		}
	}
	return all
}

// selected are the workloads that are asked for, and those that these need. A need comes earlier in the list.
func (env *Env) selected(s Scenario) []Workload {
	var some []Workload
	needed := map[string]bool{}
	for _, w := range slices.Backward(s.Workloads) {
		if needed[w.ID] || matches(env.Only, s.ID, w.ID) {
			needed[w.Needs] = true
			some = append(some, w)
		}
	}
	slices.Reverse(some)
	return some
}

// turns is who runs when: interleaved, so that a slow drift of the machine meets both; with a single round etcd runs again at its end
// to show the noise floor.
func (env *Env) turns() []proc.Server {
	var turns []proc.Server
	for range env.Rounds {
		turns = append(turns, env.Servers...)
	}
	if env.Rounds == 1 && len(env.Servers) > 1 {
		turns = append(turns, env.Servers[0])
	}
	return turns
}

func (env *Env) runScenario(ctx context.Context, s Scenario, workloads map[string]*report.Workload) {
	failAll := func(server string, err error) {
		for _, w := range workloads {
			w.Failed[server] = err.Error()
		}
	}
	seeds := map[string]*seed{}
	defer func() {
		for _, seed := range seeds {
			seed.cluster.Remove()
		}
	}()
	for _, server := range env.Servers {
		if s.Prepare == nil || ctx.Err() != nil {
			continue
		}
		env.say("%s: filling %s", s.ID, server.Name)
		seed, err := env.prepare(ctx, s, server)
		if seed != nil {
			seeds[server.Name] = seed
		}
		if err != nil {
			env.say("%s: filling %s failed: %v", s.ID, server.Name, err)
			failAll(server.Name, err)
		}
	}
	for i, server := range env.turns() {
		if ctx.Err() != nil {
			return
		}
		if s.Prepare != nil && seeds[server.Name] == nil {
			continue // filling failed
		}
		env.listen(ctx, workloads)
		env.say("%s: round %d of %d, %s", s.ID, min(i/len(env.Servers)+1, env.Rounds), env.Rounds, server.Name)
		round := &Round{ctx: ctx, env: env, server: server, turn: i / len(env.Servers)}
		if err := env.turn(round, s, seeds[server.Name], workloads); err != nil && ctx.Err() == nil {
			env.say("%s: %s: %v", s.ID, server.Name, err)
			failAll(server.Name, err)
		}
	}
}

// listen notes how busy the machine is before a round, when nothing of ours runs.
func (env *Env) listen(ctx context.Context, workloads map[string]*report.Workload) {
	busy, err := proc.Busy(ctx, 300*time.Millisecond)
	if err != nil {
		return // only a remark is lost
	}
	if busy > report.DisturbedMax {
		env.say("the machine isn't quiet: others use %.0f %% of its CPUs", 100*busy)
	}
	for _, w := range workloads {
		w.Disturbed = max(w.Disturbed, busy)
	}
}

// seed is a filled cluster that doesn't run.
type seed struct {
	cluster *proc.Cluster
	filled  report.Sample
}

// prepare fills a cluster once and leaves it as a kill -9 does.
func (env *Env) prepare(ctx context.Context, s Scenario, server proc.Server) (*seed, error) {
	cluster, err := proc.NewCluster(server, env.Dir, s.Members, s.Flags)
	if err != nil {
		return nil, err
	}
	round := &Round{ctx: ctx, env: env, server: server, cluster: cluster}
	if err = round.start(); err == nil {
		err = s.Prepare(round)
	}
	cluster.Kill9()
	if err != nil {
		cluster.Remove()
		return nil, err
	}
	return &seed{cluster, round.filled}, nil
}

func (env *Env) turn(round *Round, s Scenario, from *seed, workloads map[string]*report.Workload) (err error) {
	ctx, server := round.ctx, round.server
	if s.Members > 0 {
		if from != nil {
			round.filled = from.filled
			round.cluster, err = from.cluster.Copy(ctx, env.Dir)
		} else {
			round.cluster, err = proc.NewCluster(server, env.Dir, s.Members, s.Flags)
		}
		if round.cluster != nil {
			defer round.cluster.Remove()
		}
		if err != nil {
			return err
		}
		if err := round.start(); err != nil {
			return err
		}
	}
	if s.Setup != nil {
		if err := s.Setup(round); err != nil {
			return err
		}
	}
	done := map[string]bool{"": true}
	for _, w := range s.Workloads {
		if ctx.Err() != nil {
			return nil
		}
		begin := time.Now()
		var sample report.Sample
		err := fmt.Errorf("not run: %s did not succeed", w.Needs)
		if done[w.Needs] {
			sample, err = w.Run(round)
		}
		done[w.ID] = err == nil
		switch {
		case ctx.Err() != nil: // stopped midway: worth nothing
		case err == nil && sample == nil: // nothing to tell in this round
		case errors.Is(err, errNotBuilt):
			workloads[w.ID].Failed[server.Name] = errNotBuilt.Error()
		case err != nil:
			env.say("%s: %s: FAILED: %v", w.ID, server.Name, err)
			workloads[w.ID].Failed[server.Name] = err.Error()
		default:
			workloads[w.ID].Samples[server.Name] = append(workloads[w.ID].Samples[server.Name], sample)
			env.say("  %-16s %-5s %5.1f s  %s", w.ID, server.Name, time.Since(begin).Seconds(), sample.Brief())
		}
	}
	return nil
}

// errNotBuilt marks what a server answers with Unimplemented: shown in the table, no failure of the run.
var errNotBuilt = errors.New("not built")

func (env *Env) say(format string, args ...any) {
	if env.Quiet {
		return
	}
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
