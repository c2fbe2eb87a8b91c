package main

import "strings"

// scenarios are all there are, in the order of the report.
func scenarios() []Scenario {
	return []Scenario{oneMember(), threeMembers(), emptyStart(), million(), failover(3, 3), failover(5, 2), watching(), leasing(), joining()}
}

const (
	quickWorkloads = "put-64,put-1000,range-l-64,range-s-64,txn-put,3m-put-64,3m-range-l-64,empty-start,fanout-one-key,keep-alive-64"
	smokeWorkloads = "put-64,range-l-64,txn-mixed,restart,list"
)

// matches says whether a workload is asked for: by its scenario's name, by its own, or by a beginning of it that isn't one's whole name
// (`put` means all puts, `put-1` isn't `put-1000`).
func matches(only []string, scenario, workload string) bool {
	if len(only) == 0 {
		return true
	}
	for _, token := range only {
		if token == scenario || token == workload || strings.HasPrefix(workload, token) && !isWorkload(token) {
			return true
		}
	}
	return false
}

func isWorkload(id string) bool {
	for _, s := range scenarios() {
		for _, w := range s.Workloads {
			if w.ID == id {
				return true
			}
		}
	}
	return false
}

func orderOf(all []Scenario, id string) int {
	n := 0
	for _, s := range all {
		for _, w := range s.Workloads {
			if w.ID == id {
				return n
			}
			n++
		}
	}
	return n
}
