package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// DisturbedMax is what others may use of the CPUs before it is said.
const DisturbedMax = 0.1

// Row is one metric of a workload, as tables show it.
type Row struct {
	Metric     Metric
	Etcd, Rusd string // medians of the rounds, or "-"
	Ratio      string // "1.52x (1.49-1.60)"
	Floor      string // "±3 %": how much etcd differs from itself
	Budget     string // ">= 1.5x"
	Verdict    string // "met", "missed", "not measured", or "" where there is no budget
}

// Rows of a workload: the metrics that some server reported.
func Rows(w *Workload) []Row {
	var rows []Row
	for _, m := range Metrics {
		etcd, rusd := w.Values("etcd", m.ID), w.Values("rusd", m.ID)
		if len(etcd) == 0 && len(rusd) == 0 {
			continue
		}
		if Median(etcd) == 0 && Median(rusd) == 0 && (m.ID == "errors" || m.ID == "written_b") {
			continue // nothing to tell
		}
		row := Row{Metric: m, Etcd: median(etcd), Rusd: median(rusd), Ratio: "-", Floor: "-"}
		if ratio, ok := Ratios(etcd, rusd); ok {
			row.Ratio = ratio.String()
		}
		if floor, ok := NoiseFloor(etcd); ok {
			row.Floor = fmt.Sprintf("±%.0f %%", 100*floor)
		}
		for _, b := range Budgets {
			if b.Workload == w.ID && b.Metric == m.ID {
				row.Budget, row.Verdict = b.Limit(), b.Judge(w).Verdict()
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func median(values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	return Format(Median(values))
}

// String shows the median and, with several rounds, the spread.
func (r Ratio) String() string {
	if r.Low == r.High {
		return ratio(r.Median)
	}
	return fmt.Sprintf("%s (%s-%s)", ratio(r.Median), Format(r.Low), Format(r.High))
}

func ratio(v float64) string { return Format(v) + "x" }

// PrintTable writes a workload for a terminal.
func PrintTable(out io.Writer, w *Workload) {
	fmt.Fprintf(out, "\n%s  [%s]\n", w.Title, w.ID)
	if w.Disturbed > DisturbedMax {
		fmt.Fprintf(out, "  others used up to %.0f %% of the CPUs before its rounds\n", 100*w.Disturbed)
	}
	for server, why := range w.Failed {
		fmt.Fprintf(out, "  %s: %s\n", server, firstLine(why))
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tetcd\trusd\tratio (spread)\tetcd to itself\tbudget\t")
	for _, row := range Rows(w) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t\n", row.title(), row.Etcd, row.Rusd, row.Ratio, row.Floor, strings.TrimSpace(row.Budget+" "+row.Verdict))
	}
	t.Flush()
}

func (r Row) title() string {
	if r.Metric.Unit == "" {
		return r.Metric.Title
	}
	return r.Metric.Title + ", " + r.Metric.Unit
}

// Brief shows the main numbers of a sample in one line of progress.
func (s Sample) Brief() string {
	var parts []string
	for _, m := range Metrics {
		if v, ok := s[m.ID]; ok && len(parts) < 6 {
			parts = append(parts, fmt.Sprintf("%s %s", strings.TrimSuffix(m.ID, "_"+strings.TrimPrefix(m.Unit, "/")), Format(v)))
		}
	}
	return strings.Join(parts, "  ")
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
