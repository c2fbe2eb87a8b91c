package report

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	resultsFile = "benchmarks.json"
	pageFile    = "benchmarks.md"
	plotFile    = "benchmarks.svg"
	// ReasonsFile is written by people.
	ReasonsFile = "benchmarks-missed.json"
)

// Render merges new workloads into DIR/benchmarks.json and makes the page and the plot anew. It returns the missed budgets for which
// DIR/benchmarks-missed.json has no sentence.
func Render(dir string, now []*Workload) (unexplained []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, resultsFile)
	results, err := Load(path)
	if err != nil {
		return nil, err
	}
	reasons, err := loadReasons(filepath.Join(dir, ReasonsFile))
	if err != nil {
		return nil, err
	}
	results.Merge(now)
	if err := results.Save(path); err != nil {
		return nil, err
	}
	page, unexplained := Markdown(results, reasons)
	if err := os.WriteFile(filepath.Join(dir, pageFile), []byte(page), 0o644); err != nil {
		return nil, err
	}
	return unexplained, os.WriteFile(filepath.Join(dir, plotFile), []byte(Plot(results)), 0o644)
}

// loadReasons reads why budgets are missed: "put-64 cpu_ms" -> a sentence. People write that file.
func loadReasons(path string) (map[string]string, error) {
	reasons := map[string]string{}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return reasons, nil
	}
	if err != nil {
		return nil, err
	}
	return reasons, json.Unmarshal(text, &reasons)
}
