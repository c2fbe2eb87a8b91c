package report

import (
	"os"
	"path/filepath"
)

// Render merges new workloads into DIR/benchmarks.json and makes the page and the plot anew.
func Render(dir string, now []*Workload) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, "benchmarks.json")
	results, err := Load(path)
	if err != nil {
		return err
	}
	results.Merge(now)
	return results.Save(path)
}
