package load

import "testing"

const putReport = `
Summary:
  Total:	1.025321 secs.
  Slowest:	0.04711 secs.
  Fastest:	0.000217 secs.
  Average:	0.0064 secs.
  Stddev:	0.0021 secs.
  Requests/sec:	9753.04

Response time histogram:
  0.000217 [1]	|
  0.047110 [9999]	|∎∎

Latency distribution:
  10% in 0.004 secs.
  50% in 0.0061 secs.
  99% in 0.0133 secs.
  99.9% in 0.0405 secs.

`

func TestReportOfPut(t *testing.T) {
	all, err := ParseBenchmark(putReport)
	if err != nil {
		t.Fatal(err)
	}
	want := Summary{Rate: 9753.04, P50: 0.0061, P99: 0.0133, Max: 0.04711, Total: 1.025321}
	if len(all) != 1 || all[0] != want {
		t.Errorf("%+v, want %+v", all, want)
	}
}

// txn-mixed prints reads and then writes; the errors of one must not be counted for the other.
func TestTwoReportsAndErrors(t *testing.T) {
	out := "Total Read Ops: 5\nDetails:" + putReport +
		"\nError distribution:\n  [3]\tetcdserver: request timed out\n  [4]\tcontext deadline exceeded\n\nTotal Write Ops: 5\nDetails:" + putReport
	all, err := ParseBenchmark(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Errors != 7 || all[1].Errors != 0 || all[1].P99 != 0.0133 {
		t.Errorf("%+v", all)
	}
}

func TestOnlyErrors(t *testing.T) {
	all, err := ParseBenchmark("bench with linearizable range\n\nError distribution:\n  [10]\tnope\n")
	if err != nil || len(all) != 1 || all[0].Errors != 10 || all[0].Rate != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := ParseBenchmark("panic: dial"); err == nil {
		t.Error("no summary is no result")
	}
}
