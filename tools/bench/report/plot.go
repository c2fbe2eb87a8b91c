package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The plot has one line per budget that compares with etcd: a dot where the ratio is, a whisker for its spread over the rounds, a tick
// for the budget. The axis is logarithmic and always grows to the better, so "2x" is twice the throughput or half of the time.

const (
	plotWidth  = 900
	plotLeft   = 330
	plotRight  = 70
	plotTop    = 56
	plotLine   = 19
	plotLowest = 0.25 // everything beyond is drawn at the edge
	plotTopMax = 64.0
)

type dot struct {
	label, unit            string
	value, low, high, goal float64
	met                    bool
}

// Plot draws the ratios as SVG, for light and dark pages.
func Plot(r *Results) string {
	var dots []dot
	for _, b := range budgetsOf(r) {
		w := r.Workloads[b.Workload]
		if b.Kind != RatioToEtcd || w == nil {
			continue
		}
		ratio, ok := Ratios(w.Values("etcd", b.Metric), w.Values("rusd", b.Metric))
		if !ok || ratio.Low <= 0 {
			continue
		}
		d := dot{b.Workload, MetricOf(b.Metric).Title, ratio.Median, ratio.Low, ratio.High, b.Bound, b.Judge(w).Met}
		if !b.AtLeast {
			d.value, d.low, d.high, d.goal = 1/d.value, 1/d.high, 1/d.low, 1/d.goal
		}
		dots = append(dots, d)
	}
	return draw(dots)
}

func draw(dots []dot) string {
	height := plotTop + len(dots)*plotLine + 30
	bottom := plotTop + len(dots)*plotLine
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui,sans-serif" font-size="12">`+"\n", plotWidth, height, plotWidth, height)
	b.WriteString(`<style>
.page{fill:#fff} .text{fill:#1f2328} .soft{fill:#59636e} .grid{stroke:#d1d9e0} .one{stroke:#59636e} .goal{stroke:#1f2328} .met{fill:#1a7f37;stroke:#1a7f37} .missed{fill:#d1242f;stroke:#d1242f}
@media (prefers-color-scheme:dark){.page{fill:#0d1117} .text{fill:#f0f6fc} .soft{fill:#9198a1} .grid{stroke:#3d444d} .one{stroke:#9198a1} .goal{stroke:#f0f6fc} .met{fill:#3fb950;stroke:#3fb950} .missed{fill:#f85149;stroke:#f85149}}
</style>
`)
	fmt.Fprintf(&b, `<rect class="page" width="%d" height="%d"/>`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<text class="text" x="12" y="22" font-size="15" font-weight="600">How many times better than etcd</text>`+"\n")
	fmt.Fprintf(&b, `<text class="soft" x="%d" y="22">dot: median, line: spread over the rounds, tick: budget; right is better</text>`+"\n", plotLeft)
	for x := plotLowest; x <= plotTopMax; x *= 2 {
		class := "grid"
		if x == 1 {
			class = "one"
		}
		fmt.Fprintf(&b, `<line class="%s" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text class="soft" x="%.1f" y="%d" text-anchor="middle">%sx</text>`+"\n",
			class, at(x), plotTop-8, at(x), bottom, at(x), plotTop-14, strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf("%.2f", x), "00"), "."))
	}
	for i, d := range dots {
		y := plotTop + i*plotLine + plotLine/2
		class := "missed"
		if d.met {
			class = "met"
		}
		fmt.Fprintf(&b, `<text class="text" x="12" y="%d">%s</text><text class="soft" x="%d" y="%d" text-anchor="end">%s</text>`,
			y+4, html.EscapeString(d.label), plotLeft-10, y+4, html.EscapeString(shorten(d.unit)))
		fmt.Fprintf(&b, `<line class="goal" x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke-width="1.5"/>`, at(d.goal), y-6, at(d.goal), y+6)
		fmt.Fprintf(&b, `<line class="%s" x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke-width="2"/>`, class, at(d.low), y, at(d.high), y)
		fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%d" r="4"/>`, class, at(d.value), y)
		fmt.Fprintf(&b, `<text class="soft" x="%d" y="%d" text-anchor="end">%sx</text>`+"\n", plotWidth-12, y+4, Format(d.value))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// at is the place of a factor on the axis.
func at(factor float64) float64 {
	factor = min(max(factor, plotLowest), plotTopMax)
	width := float64(plotWidth - plotLeft - plotRight)
	return plotLeft + width*math.Log(factor/plotLowest)/math.Log(plotTopMax/plotLowest)
}

func shorten(title string) string {
	switch title {
	case "server CPU per 1,000 operations":
		return "CPU"
	case "longest gap between acknowledged puts":
		return "gap"
	case "events delivered":
		return "events"
	case "memory per watcher":
		return "memory"
	}
	return title
}
