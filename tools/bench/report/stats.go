// Package report turns measured rounds into numbers that can be compared, and these into tables, JSON, Markdown and a plot.
package report

import (
	"math"
	"slices"
)

// Percentile by nearest rank of sorted values: the smallest one that at least p % of all don't exceed. Zero without values.
func Percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median of any values: the middle one, or the mean of the two in the middle.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Ratio is rusd's value by etcd's, over the rounds.
type Ratio struct {
	Median, Low, High float64
}

// Ratios compares each round of ours with etcd's of the same round, which ran just before it.
// An etcd run at the end, beyond the number of rounds, is there for the noise floor only.
func Ratios(etcd, rusd []float64) (Ratio, bool) {
	var all []float64
	for i := range min(len(etcd), len(rusd)) {
		if etcd[i] > 0 {
			all = append(all, rusd[i]/etcd[i])
		}
	}
	if len(all) == 0 {
		return Ratio{}, false
	}
	return Ratio{Median(all), slices.Min(all), slices.Max(all)}, true
}

// NoiseFloor is how far one run of etcd lies from another, at most, as a fraction: 0.05 means that 5 % up or down mean nothing.
func NoiseFloor(etcd []float64) (float64, bool) {
	if len(etcd) < 2 {
		return 0, false
	}
	low, high := slices.Min(etcd), slices.Max(etcd)
	if low <= 0 {
		return 0, false
	}
	return high/low - 1, true
}
