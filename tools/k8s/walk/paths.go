package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

var sample = regexp.MustCompile(`^([a-zA-Z_:]+)(\{[^}]*\})? ([0-9.e+]+)$`)

// total sums the samples of a metric whose labels contain all given texts.
func total(metrics, name string, labels ...string) float64 {
	sum := 0.0
	lines := bufio.NewScanner(strings.NewReader(metrics))
	lines.Buffer(nil, 1<<22)
next:
	for lines.Scan() {
		match := sample.FindStringSubmatch(lines.Text())
		if match == nil || match[1] != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(match[2], label) {
				continue next
			}
		}
		value, _ := strconv.ParseFloat(match[3], 64)
		sum += value
	}
	return sum
}

// judgePaths asks the apiserver and the members by which calls they talked: those of a modern etcd, without a way round.
func (s *session) judgePaths() error {
	client, err := rest.HTTPClientFor(s.rest)
	if err != nil {
		return err
	}
	// Events have no cache, so this is a list from the store, whatever was asked of a member before its last start.
	events := schema.GroupVersionResource{Version: "v1", Resource: "events"}
	if _, err := s.client.Resource(events).List(s.ctx, metav1.ListOptions{}); err != nil {
		return err
	}
	apiserver, err := fetch(client, s.rest.Host+"/metrics")
	if err != nil {
		return err
	}
	consistent := total(apiserver, "apiserver_watch_cache_consistent_read_total", `success="true"`, `fallback="false"`)
	fallback := total(apiserver, "apiserver_watch_cache_consistent_read_total", `fallback="true"`)
	s.check(consistent > 0, "consistent lists came from the apiserver's cache (%.0f)", consistent)
	s.check(fallback == 0, "and never fell back to the store (%.0f)", fallback)
	streamed := total(apiserver, "apiserver_storage_list_duration_seconds_count", `streamed="true"`)
	s.check(streamed > 0, "lists from the store were streamed (%.0f, others %.0f)", streamed,
		total(apiserver, "apiserver_storage_list_duration_seconds_count", `streamed="false"`))
	bookmarks := total(apiserver, "etcd_bookmark_total")
	s.check(bookmarks > 0, "progress was told (%.0f)", bookmarks)
	broken := total(apiserver, "apiserver_storage_consistency_checks_total", `status="failure"`)
	s.check(broken == 0, "the apiserver found its cache equal to the store (%.0f checks)", total(apiserver, "apiserver_storage_consistency_checks_total"))
	s.check(total(apiserver, "apiserver_storage_decode_errors_total") == 0, "everything it read could be decoded")
	var calls [3]float64
	for _, url := range s.members {
		member, err := fetch(http.DefaultClient, url+"/metrics")
		if err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
		for i, method := range []string{"RangeStream", "Txn", "Range"} {
			calls[i] += total(member, "grpc_server_started_total", `grpc_method="`+method+`"`)
		}
	}
	s.check(calls[0] > 0, "the members were asked for streams of ranges (%.0f RangeStream, %.0f Txn, %.0f Range since their last start)", calls[0], calls[1], calls[2])
	return nil
}

func fetch(client *http.Client, url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return string(body), err
}
