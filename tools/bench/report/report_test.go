package report

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPercentileByNearestRank(t *testing.T) {
	var values []float64
	for i := 1; i <= 200; i++ {
		values = append(values, float64(i))
	}
	for p, want := range map[float64]float64{0: 1, 50: 100, 99: 198, 99.9: 200, 100: 200} {
		if got := Percentile(values, p); got != want {
			t.Errorf("p%v of 1..200 is %v, want %v", p, got, want)
		}
	}
	if Percentile(nil, 50) != 0 || Percentile([]float64{7}, 1) != 7 {
		t.Error("none or one")
	}
}

func TestMedian(t *testing.T) {
	values := []float64{9, 1, 5}
	if Median(values) != 5 || Median([]float64{4, 1, 3, 2}) != 2.5 || Median(nil) != 0 {
		t.Error("median")
	}
	if !slices.Equal(values, []float64{9, 1, 5}) {
		t.Error("its argument is not its to sort")
	}
}

// A ratio is taken within a round: a machine that slows down for both doesn't change it.
func TestRatiosPairRounds(t *testing.T) {
	r, ok := Ratios([]float64{100, 50, 80, 99}, []float64{200, 100, 168})
	if !ok || r.Median != 2 || r.Low != 2 || r.High != 2.1 {
		t.Errorf("%+v", r)
	}
	if _, ok := Ratios(nil, []float64{1}); ok {
		t.Error("a ratio to nothing")
	}
	floor, ok := NoiseFloor([]float64{100, 110, 105})
	if !ok || floor < 0.099 || floor > 0.101 {
		t.Errorf("floor %v", floor)
	}
	if _, ok := NoiseFloor([]float64{1}); ok {
		t.Error("one run has no floor")
	}
}

func TestFormat(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0123: "0.012", 0.5: "0.50", 9.994: "9.99", 9.996: "10.0", 99.96: "100", 123.4: "123", 999.6: "1,000", 1234567: "1,234,567", -5: "-5.00",
	} {
		if got := Format(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

func example() *Workload {
	return &Workload{ID: "put-64", Title: "put 256 B, 64 clients", Members: 1, Machine: Machine{SyncMs: 0.5}, Samples: map[string][]Sample{
		"etcd": {{"rate": 10000, "p99_ms": 10, "cpu_ms": 100}, {"rate": 10500, "p99_ms": 11, "cpu_ms": 100}},
		"rusd": {{"rate": 20000, "p99_ms": 9, "cpu_ms": 40}, {"rate": 19950, "p99_ms": 11, "cpu_ms": 45}},
	}}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	w := example()
	w.Disturbed = 0.4
	PrintTable(&out, w)
	for _, want := range []string{
		"put 256 B, 64 clients", "others used up to 40 %", "10,250", "19,975", "1.95x (1.90-2.00)", "±5 %", ">= 1.80x met", "<= 0.70x missed", "<= 0.50x met",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestJudge(t *testing.T) {
	w := &Workload{Machine: Machine{SyncMs: 2}, Samples: map[string][]Sample{"rusd": {{"put_max_ms": 11.5, "disk_mib": 130, "logical_mib": 100}}}}
	for _, c := range []struct {
		budget Budget
		want   string
	}{
		{Budget{"", "put_max_ms", false, 10, OverSync}, "met"},
		{Budget{"", "put_max_ms", false, 9, OverSync}, "missed"},
		{Budget{"", "put_max_ms", false, 11, Own}, "missed"},
		{Budget{"", "disk_mib", false, 1.2, OverLogical}, "missed"},
		{Budget{"", "disk_mib", false, 1.3, OverLogical}, "met"},
		{Budget{"", "put_max_ms", false, 1, RatioToEtcd}, "not measured"},
	} {
		if got := c.budget.Judge(w).Verdict(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.budget, got, c.want)
		}
	}
	if (Budget{Kind: Own}).Judge(nil).Verdict() != "not measured" {
		t.Error("no workload")
	}
}

// Every budget names a metric that exists; MetricOf panics otherwise.
func TestBudgetsName(t *testing.T) {
	for _, b := range Budgets {
		MetricOf(b.Metric)
		if b.Limit() == "" {
			t.Error(b)
		}
	}
}

// A run of a part replaces only what it measured, and a failed one nothing.
func TestMerge(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/benchmarks.json"
	first := example()
	other := example()
	other.ID = "stm"
	if _, err := Render(dir, []*Workload{first, other}); err != nil {
		t.Fatal(err)
	}
	again := example()
	again.Samples["rusd"] = []Sample{{"rate": 5}}
	failed := &Workload{ID: "stm", Failed: map[string]string{"rusd": "no"}}
	if _, err := Render(dir, []*Workload{again, failed}); err != nil {
		t.Fatal(err)
	}
	r, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Workloads["put-64"].Values("rusd", "rate"); !slices.Equal(got, []float64{5}) {
		t.Errorf("%v", got)
	}
	if got := r.Workloads["stm"].Values("rusd", "rate"); !slices.Equal(got, []float64{20000, 19950}) {
		t.Errorf("%v", got)
	}
}

// The page judges each budget, and takes the reasons for missed ones from the file.
func TestPage(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ReasonsFile), []byte(`{"put-64 p99_ms": "the disk is slow."}`), 0o644); err != nil {
		t.Fatal(err)
	}
	w := example()
	for _, sample := range w.Samples["rusd"] {
		sample["cpu_ms"] = 60
	}
	unexplained, err := Render(dir, []*Workload{w})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(unexplained, []string{"put-64 cpu_ms"}) {
		t.Errorf("unexplained: %v", unexplained)
	}
	page, err := os.ReadFile(filepath.Join(dir, pageFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1 met, 2 missed", "- `put-64`, p99: the disk is slow.", "| `put-64` | throughput, /s | 10,250 | 19,975 | 1.95x (1.90-2.00) | >= 1.80x | met |",
		"### put 256 B, 64 clients", "| `put-1000` | p99, ms | - | - | - | <= 0.70x | not measured |",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
}

// The plot is well-formed XML, has a dot per comparable budget, and grows to the better for times, too.
func TestPlot(t *testing.T) {
	r := &Results{Workloads: map[string]*Workload{"put-64": example()}}
	plot := Plot(r)
	decoder := xml.NewDecoder(strings.NewReader(plot))
	circles := 0
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "circle" {
			circles++
		}
	}
	if circles != 3 {
		t.Errorf("%d dots", circles)
	}
	if !strings.Contains(plot, ">1.95x<") || !strings.Contains(plot, ">2.35x<") {
		t.Error(plot)
	}
	if !(at(0.01) == plotLeft && at(0.5) < at(1) && at(1000) == plotWidth-plotRight) {
		t.Error("the axis")
	}
}

func TestMicro(t *testing.T) {
	dir := t.TempDir()
	for _, m := range micros {
		at := filepath.Join(dir, m.dir, "new")
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		text := `{"mean":{"confidence_interval":{},"point_estimate":160000.0},"median":{"point_estimate":1.0}}`
		if err := os.WriteFile(filepath.Join(at, "estimates.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w, err := Micro(dir, Workload{Date: "today"})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.Samples["rusd"][0]; got["engine_cpu_us"] != 10 || got["get_us"] != 160 || len(Rows(w)) != len(micros) || w.Date != "today" {
		t.Errorf("%+v", got)
	}
	if _, err := Micro(t.TempDir(), Workload{}); err == nil {
		t.Error("nothing was measured")
	}
}
