package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// MicroID is the workload that holds what `cargo bench --bench storage` has measured.
const MicroID = "engine"

// micros: metric, criterion's directory, operations in an iteration.
var micros = []struct {
	metric, dir string
	per         float64
}{
	{"engine_cpu_us", "log_and_apply_cpu/16", 16},
	{"engine_cpu64_us", "log_and_apply_cpu/64", 64},
	{"append_us", "log_append/16", 16},
	{"apply_us", "apply/16", 16},
	{"get_us", "key_index_get", 1},
	{"page_us", "key_index_page_of_500", 1},
	{"count_us", "key_index_count", 1},
	{"encode_us", "range_encode_page_of_500", 1},
}

// Micro reads criterion's estimates below dir into a workload.
func Micro(dir string, stamp Workload) (*Workload, error) {
	sample := Sample{}
	for _, m := range micros {
		path := filepath.Join(dir, m.dir, "new", "estimates.json")
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var estimates struct {
			Mean struct {
				PointEstimate float64 `json:"point_estimate"`
			} `json:"mean"`
		}
		if err := json.Unmarshal(text, &estimates); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		sample[m.metric] = estimates.Mean.PointEstimate / m.per / 1000
	}
	w := stamp
	w.ID, w.Title, w.Order = MicroID, "storage alone", 1000
	w.Note = "`cargo bench --bench storage`: 100,000 keys of 50 B with values of 256 B, one member without consensus or gRPC."
	w.Samples = map[string][]Sample{"rusd": {sample}}
	return &w, nil
}
