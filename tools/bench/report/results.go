package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Workload holds the rounds of one workload and how they came about. Runs of a part replace only their own.
type Workload struct {
	ID      string `json:"id"`
	Title   string `json:"title"`
	Note    string `json:"note,omitempty"`
	Members int    `json:"members"`
	Order   int    `json:"order"` // where it stands in the document

	Date    string  `json:"date"`
	Command string  `json:"command"`
	Machine Machine `json:"machine"`
	Rusd    string  `json:"rusd"` // version and commit
	Etcd    string  `json:"etcd"`

	// Disturbed is the greatest share of the CPUs that others used just before a round began.
	Disturbed float64 `json:"disturbed"`

	Samples map[string][]Sample `json:"samples"`          // by server
	Failed  map[string]string   `json:"failed,omitempty"` // by server: why there is no sample of a round
}

// Values of one metric over the rounds of one server.
func (w *Workload) Values(server, metric string) []float64 {
	var all []float64
	for _, sample := range w.Samples[server] {
		if v, ok := sample[metric]; ok {
			all = append(all, v)
		}
	}
	return all
}

// Results are all workloads ever measured, each as of its last run.
type Results struct {
	Workloads map[string]*Workload `json:"workloads"`
}

// Load reads docs/benchmarks.json; a missing file is an empty one.
func Load(path string) (*Results, error) {
	r := &Results{Workloads: map[string]*Workload{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Merge takes over what was measured now. A workload that failed on every server leaves the old numbers alone.
func (r *Results) Merge(now []*Workload) {
	for _, w := range now {
		if len(w.Samples) > 0 {
			r.Workloads[w.ID] = w
		}
	}
}

// Save writes the file so that a diff shows one line per sample.
func (r *Results) Save(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
