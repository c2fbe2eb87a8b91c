package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"rusd/tools/bench/proc"
	"rusd/tools/bench/report"
)

func TestSelection(t *testing.T) {
	for _, c := range []struct {
		only, scenario, workload string
		want                     bool
	}{
		{"", "one-member", "put-64", true},
		{"put", "one-member", "put-64", true},
		{"put", "three-members", "3m-put-64", false},
		{"three-members", "three-members", "3m-put-64", true},
		{"stm,put-1", "one-member", "put-1000", false},
		{"stm,put-1", "one-member", "put-1", true},
		{"range", "one-member", "put-64", false},
	} {
		var only []string
		if c.only != "" {
			only = strings.Split(c.only, ",")
		}
		if got := matches(only, c.scenario, c.workload); got != c.want {
			t.Errorf("%+v", c)
		}
	}
	if err := knowAll([]string{"put", "nothing-like-this"}); err == nil {
		t.Error("a name that selects nothing is a mistake")
	}
	for _, set := range []string{quickWorkloads, smokeWorkloads} {
		if err := knowAll(strings.Split(set, ",")); err != nil {
			t.Error(err)
		}
	}
}

// Names are unique, needs come earlier in the same scenario, and every budget is of a workload that exists.
func TestScenarios(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenarios() {
		mine := map[string]bool{"": true}
		for _, w := range s.Workloads {
			if seen[w.ID] || !mine[w.Needs] || w.Title == "" || w.Run == nil {
				t.Errorf("%+v", w)
			}
			seen[w.ID], mine[w.ID] = true, true
		}
	}
	for _, b := range report.Budgets {
		if !seen[b.Workload] && b.Workload != report.MicroID {
			t.Errorf("a budget for %s", b.Workload)
		}
	}
}

// What is needed by the selected runs, too; a failed need fails its dependant, and the other server goes on.
func TestTurns(t *testing.T) {
	var ran []string
	run := func(id string, err error) func(*Round) (report.Sample, error) {
		return func(r *Round) (report.Sample, error) {
			ran = append(ran, r.server.Name+":"+id)
			return report.Sample{"rate": 1}, err
		}
	}
	failing := errors.New("broken")
	s := Scenario{ID: "s", Workloads: []Workload{
		{ID: "a", Run: run("a", nil)}, {ID: "b", Run: run("b", failing)}, {ID: "c", Needs: "b", Run: run("c", nil)}, {ID: "d", Run: run("d", errNotBuilt)},
	}}
	env := &Env{Servers: []proc.Server{{Name: "etcd"}, {Name: "rusd"}}, Rounds: 1, Only: []string{"c", "d"}, Quiet: true}
	measured := env.Run(t.Context(), []Scenario{s})
	if got := strings.Join(ran, " "); got != "etcd:b etcd:d rusd:b rusd:d etcd:b etcd:d" {
		t.Error(got)
	}
	if len(measured) != 3 || measured[1].ID != "c" || !strings.Contains(measured[1].Failed["rusd"], "b did not succeed") {
		t.Errorf("%+v", measured)
	}
	if err := failures(measured); err == nil || strings.Contains(err.Error(), "d on") {
		t.Errorf("what isn't built is no failure: %v", err)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := Scenario{ID: "s", Workloads: []Workload{{ID: "a", Run: func(*Round) (report.Sample, error) {
		cancel()
		return nil, errors.New("killed midway")
	}}}}
	env := &Env{Servers: []proc.Server{{Name: "etcd"}, {Name: "rusd"}}, Rounds: 3, Quiet: true}
	measured := env.Run(ctx, []Scenario{s})
	if len(measured) != 1 || len(measured[0].Failed)+len(measured[0].Samples) != 0 {
		t.Errorf("an interrupted round is neither a result nor a failure: %+v", measured[0])
	}
}

func TestLongestGap(t *testing.T) {
	start := time.Unix(1000, 0)
	moment := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	acks := []time.Time{moment(-5), moment(1), moment(3), moment(53), moment(54)}
	for _, c := range []struct {
		until int
		want  time.Duration
	}{{55, 50 * time.Millisecond}, {200, 146 * time.Millisecond}} {
		if got := longestGap(acks, start, moment(c.until)); got != c.want {
			t.Errorf("until %d: %v", c.until, got)
		}
	}
	if got := longestGap(nil, start, moment(7)); got != 7*time.Millisecond {
		t.Errorf("no answer at all: %v", got)
	}
}

func TestScale(t *testing.T) {
	r := &Round{env: &Env{Scale: 0.01}}
	if r.N(40000, 64) != 400 || r.N(1000, 64) != 64 || connsFor(1) != 1 || connsFor(64) != 21 || connsFor(1000) != 99 {
		t.Error("scaled")
	}
}

func TestTTLOutlivesGranting(t *testing.T) {
	if got := ttlFor(100000, 2000, 200*time.Millisecond); got != 35*time.Second { // 10 s to grant
		t.Error(got)
	}
	if got := ttlFor(1000, 1000, time.Minute); got != 135*time.Second {
		t.Error(got)
	}
}
