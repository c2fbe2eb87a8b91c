package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

func increment(count string) string {
	number, _ := strconv.Atoi(count)
	return strconv.Itoa(number + 1)
}

// inOrder sorts answers as they were written.
func inOrder(objects []*unstructured.Unstructured) {
	slices.SortFunc(objects, func(a, b *unstructured.Unstructured) int { return int(versionOf(a)) - int(versionOf(b)) })
}

// pages lists the pods page by page, and gives names, resource versions and remaining counts.
func (s *session) pages(options metav1.ListOptions) (names []string, versions map[string]bool, remaining []int64, err error) {
	versions = map[string]bool{}
	for {
		list, err := s.in(bulkSpace, pods).List(s.ctx, options)
		if err != nil {
			return nil, nil, nil, err
		}
		for i := range list.Items {
			names = append(names, list.Items[i].GetName())
		}
		versions[list.GetResourceVersion()] = true
		if left := list.GetRemainingItemCount(); left != nil {
			remaining = append(remaining, *left)
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return names, versions, remaining, nil
		}
		options.ResourceVersion, options.ResourceVersionMatch = "", ""
	}
}

// lists asks for the same pods in every way there is.
func (s *session) lists() {
	var want []string
	for i := range bulkCount {
		want = append(want, fmt.Sprintf("pod-%04d", i))
	}
	begin := time.Now()
	names, _, _, err := s.pages(metav1.ListOptions{})
	s.check(err == nil && slices.Equal(names, want), "a full list has all %d pods in order %s", len(names), text(err))
	names, versions, remaining, err := s.pages(metav1.ListOptions{Limit: 37})
	s.check(err == nil && slices.Equal(names, want), "so has one in pages of 37 %s", text(err))
	s.check(len(versions) == 1, "whose pages are of one revision (%d)", len(versions))
	counted := len(remaining) == (bulkCount-1)/37
	for i, left := range remaining {
		counted = counted && left == int64(bulkCount-37*(i+1))
	}
	s.check(counted, "and tell how many remain")
	names, _, _, err = s.pages(metav1.ListOptions{ResourceVersion: "0"})
	s.check(err == nil && slices.Equal(names, want), "a list of any version has them %s", text(err))
	var version string
	for version = range versions {
	}
	names, _, _, err = s.pages(metav1.ListOptions{Limit: 100, ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	s.check(err == nil && slices.Equal(names, want), "a list of exactly that version has them %s", text(err))
	names, _, _, err = s.pages(metav1.ListOptions{ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	s.check(err == nil && slices.Equal(names, want), "a list not older than it has them %s", text(err))
	s.fromTheFuture()
	s.watchList(want)
	note("lists took %v", time.Since(begin).Round(time.Millisecond))
}

// fromTheFuture asks for a version that does not exist yet. By hand: client-go would ask again for a long time.
func (s *session) fromTheFuture() {
	client, err := rest.HTTPClientFor(s.rest)
	if err == nil {
		_, err = fetch(client, s.rest.Host+"/api/v1/namespaces/"+bulkSpace+"/pods?resourceVersion=9000000000&resourceVersionMatch=Exact&limit=1")
	}
	s.check(err != nil && strings.Contains(err.Error(), "504"), "a list of a version to come is refused %s", text(err))
}

// watchList asks for a list as the beginning of a watch, which informers do.
func (s *session) watchList(want []string) {
	yes := true
	options := metav1.ListOptions{SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}
	stream, err := s.in(bulkSpace, pods).Watch(s.ctx, options)
	if !s.check(err == nil, "a watch with initial events begins %s", text(err)) {
		return
	}
	defer stream.Stop()
	var names []string
	limit := time.After(time.Minute)
	for {
		select {
		case event := <-stream.ResultChan():
			object, ok := event.Object.(*unstructured.Unstructured)
			if ok && event.Type == watch.Added {
				names = append(names, object.GetName())
			}
			if ok && event.Type == watch.Bookmark && object.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
				slices.Sort(names)
				s.check(slices.Equal(names, want), "and tells all %d pods before its bookmark", len(names))
				return
			}
		case <-limit:
			s.check(false, "its bookmark comes (%d pods came)", len(names))
			return
		}
	}
}

// page is the first page of a list that goes on much later.
type page struct {
	token    string
	revision int64
}

func (s *session) firstPage() (page, error) {
	list, err := s.in(bulkSpace, pods).List(s.ctx, metav1.ListOptions{Limit: 200})
	if err != nil {
		return page{}, err
	}
	return page{list.GetContinue(), int64(versionOf(list))}, nil
}

// afterCompaction goes on with an old list when the apiserver has compacted what it was of: it is told that its list has
// expired, and given a token with which it may go on with newer pods.
func (s *session) afterCompaction(old page) error {
	client, err := dial(s.members[0])
	if err != nil {
		return err
	}
	defer client.Close()
	compacted := func() bool {
		_, err := client.Get(s.ctx, prefix, clientv3.WithRev(old.revision), clientv3.WithLimit(1))
		return err != nil
	}
	if !s.check(eventually(s.ctx, 4*s.compaction+20*time.Second, compacted), "the apiserver compacts what is older than its interval") {
		return nil
	}
	// The apiserver's cache may still have the old version for a moment; it gives up what the store has compacted.
	var expired error
	refused := func() bool {
		_, expired = s.in(bulkSpace, pods).List(s.ctx, metav1.ListOptions{Limit: 200, Continue: old.token})
		return expired != nil
	}
	eventually(s.ctx, 2*s.compaction, refused)
	if !s.check(apierrors.IsResourceExpired(expired), "the next page of a compacted list has expired") {
		return nil
	}
	token := ""
	if status, ok := expired.(apierrors.APIStatus); ok {
		token = status.Status().Continue
	}
	names, _, _, err := s.pages(metav1.ListOptions{Limit: 200, Continue: token})
	s.check(token != "" && err == nil && len(names) == bulkCount-200 && names[0] == "pod-0200", "but it can go on with newer ones (%d) %s", len(names), text(err))
	return nil
}
