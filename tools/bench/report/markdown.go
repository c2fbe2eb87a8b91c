package report

import (
	"fmt"
	"slices"
	"strings"
)

const pageHead = `# Benchmarks

rusd beside etcd: the same flags, the same machine, in turns (etcd, rusd, etcd, rusd, ...), each with fresh directories on a real disk.
Made by ` + "`make bench`" + ` ([tools/bench](../tools/bench)) from [benchmarks.json](benchmarks.json); don't edit this page.

![how much better than etcd](benchmarks.svg)

## How to read this

- Load and servers share the machine's cores, so a cheaper server also leaves more for its clients.
- Numbers are medians over the rounds. A ratio is rusd's value by etcd's of the same round: the median, and the lowest and highest of the rounds.
- "etcd to itself" is the noise floor: by how much its best round differs from its worst.
- CPU is user and system time of the server processes, bytes written are what they caused to be sent to the disk; both summed over the members.
  Peak RSS is VmHWM, which is reset before each workload.
- Load comes from etcd's own ` + "`benchmark`" + ` where it has a command for the workload, else from clients that decode as little as possible.
  Probes that put and get while something else goes on are processes of their own, and count from the moment a call was due.

`

// Markdown makes the page, and lists missed budgets without a reason.
func Markdown(r *Results, reasons map[string]string) (page string, unexplained []string) {
	var b strings.Builder
	b.WriteString(pageHead)
	writeRuns(&b, r)
	unexplained = writeBudgets(&b, r, reasons)
	b.WriteString("\n## Workloads\n")
	for _, w := range r.ordered() {
		writeWorkload(&b, w)
	}
	return b.String(), unexplained
}

func (r *Results) ordered() []*Workload {
	var all []*Workload
	for _, w := range r.Workloads {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *Workload) int {
		if a.Order != b.Order {
			return a.Order - b.Order
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// writeRuns says when, where and how, once for all workloads that share it.
func writeRuns(b *strings.Builder, r *Results) {
	b.WriteString("## Runs\n\n| date | command | rusd | etcd | workloads |\n|---|---|---|---|---|\n")
	type run struct{ date, command, rusd, etcd string }
	ids := map[run][]string{}
	var runs []run
	machines := map[string]bool{}
	var places []string
	for _, w := range r.ordered() {
		key := run{w.Date, w.Command, w.Rusd, w.Etcd}
		if ids[key] == nil {
			runs = append(runs, key)
		}
		ids[key] = append(ids[key], w.ID)
		if place := w.Machine.Place(); !machines[place] {
			machines[place] = true
			places = append(places, place)
		}
	}
	slices.SortStableFunc(runs, func(a, b run) int { return strings.Compare(a.date, b.date) })
	for _, k := range runs {
		fmt.Fprintf(b, "| %s | `%s` | %s | %s | %s |\n", k.date, k.command, k.rusd, k.etcd, strings.Join(ids[k], ", "))
	}
	for _, place := range places {
		fmt.Fprintf(b, "\nMachine: %s.\n", place)
	}
}

func writeBudgets(b *strings.Builder, r *Results, reasons map[string]string) (unexplained []string) {
	met, missed, unknown := 0, 0, 0
	var rows, why strings.Builder
	for _, budget := range budgetsOf(r) {
		w := r.Workloads[budget.Workload]
		metric := MetricOf(budget.Metric)
		etcd, rusd := "-", "-"
		if w != nil {
			etcd, rusd = median(w.Values("etcd", metric.ID)), median(w.Values("rusd", metric.ID))
		}
		j := budget.Judge(w)
		verdict := j.Verdict()
		switch {
		case !j.Known:
			unknown++
		case j.Met:
			met++
		default:
			missed++
			verdict = "**missed**"
			key := budget.Workload + " " + budget.Metric
			reason := reasons[key]
			if reason == "" {
				reason = "no reason is known yet."
				unexplained = append(unexplained, key)
			}
			line := fmt.Sprintf("- `%s`, %s: %s\n", budget.Workload, metric.Title, reason)
			if !strings.Contains(why.String(), line) {
				why.WriteString(line)
			}
		}
		fmt.Fprintf(&rows, "| `%s` | %s | %s | %s | %s | %s | %s |\n", budget.Workload, Row{Metric: metric}.title(), etcd, rusd, j.Measured, budget.Limit(), verdict)
	}
	fmt.Fprintf(b, "\n## Budgets\n\n%d met, %d missed, %d not measured.\n\n", met, missed, unknown)
	b.WriteString("| workload | what | etcd | rusd | measured | budget | |\n|---|---|---:|---:|---:|---:|---|\n" + rows.String())
	if why.Len() > 0 {
		b.WriteString("\nWhy those are missed:\n\n" + why.String())
	}
	return unexplained
}

func writeWorkload(b *strings.Builder, w *Workload) {
	rounds := max(len(w.Samples["rusd"]), len(w.Samples["etcd"]))
	fmt.Fprintf(b, "\n### %s\n\n`%s`, %s.", w.Title, w.ID, plural(rounds, "round"))
	if w.Note != "" {
		b.WriteString(" " + w.Note)
	}
	if w.Disturbed > DisturbedMax {
		fmt.Fprintf(b, " **Others used up to %.0f %% of the CPUs before its rounds.**", 100*w.Disturbed)
	}
	b.WriteString("\n")
	for _, server := range []string{"etcd", "rusd"} {
		if why := w.Failed[server]; why != "" {
			fmt.Fprintf(b, "\n%s: %s.\n", server, strings.TrimSuffix(firstLine(why), "."))
		}
	}
	b.WriteString("\n| | etcd | rusd | ratio (spread) | etcd to itself |\n|---|---:|---:|---:|---:|\n")
	for _, row := range Rows(w) {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", row.title(), row.Etcd, row.Rusd, row.Ratio, row.Floor)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
