package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// namespace of the walk.
	bulkSpace = "walk-bulk"
	bulkCount = 500
	// workers write at the same time.
	workers = 8
)

// watched is a resource with all that was written to it and the watch that must tell.
type watched struct {
	resource schema.GroupVersionResource
	written  *ledger
	seen     *held
}

// walk is the peaceful one: nobody is killed, so every answer and every event is exactly known.
func (s *session) walk() error {
	if err := s.namespace(bulkSpace); err != nil {
		return err
	}
	if err := s.define(); err != nil {
		return err
	}
	feeds, err := s.followAll()
	if err != nil {
		return err
	}
	all := map[string]*watched{}
	for _, resource := range []schema.GroupVersionResource{configmaps, pods, widgets, leases, events} {
		list, err := s.in(bulkSpace, resource).List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		seen := hold(s.ctx, s.client, resource, bulkSpace, list.GetResourceVersion())
		all[resource.Resource] = &watched{resource, newLedger(), seen}
	}
	if err := s.expiring(all["events"], func() error { return s.busyWalk(all) }); err != nil {
		return err
	}
	s.judgeWatches(all)
	s.judgeFeeds(feeds)
	return nil
}

// busyWalk is all that happens while the events live.
func (s *session) busyWalk(all map[string]*watched) error {
	maps := all["configmaps"]
	s.bulk(maps, bulkCount, func(i int) *unstructured.Unstructured {
		return configmap(fmt.Sprintf("map-%04d", i), map[string]any{"number": fmt.Sprint(i)})
	})
	s.bulk(all["pods"], bulkCount, func(i int) *unstructured.Unstructured { return pod(fmt.Sprintf("pod-%04d", i)) })
	s.bulk(all["widgets"], 100, func(i int) *unstructured.Unstructured { return widget(fmt.Sprintf("widget-%03d", i), int64(i)) })
	old, err := s.firstPage()
	if err != nil {
		return err
	}
	s.lists()
	s.race(all["leases"])
	s.conflicts(maps)
	s.applies(maps)
	s.removals(maps)
	return s.afterCompaction(old)
}

// parallel runs a job for every number, some at a time, and gives the first error.
func parallel(count int, job func(i int) error) error {
	var next atomic.Int64
	var group sync.WaitGroup
	failure := make(chan error, workers)
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				if err := job(i); err != nil {
					failure <- fmt.Errorf("%d: %w", i, err)
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-failure:
		return err
	default:
		return nil
	}
}

// bulk creates many.
func (s *session) bulk(w *watched, count int, build func(i int) *unstructured.Unstructured) {
	begin := time.Now()
	err := parallel(count, func(i int) error {
		made, err := s.in(bulkSpace, w.resource).Create(s.ctx, build(i), metav1.CreateOptions{})
		if err == nil {
			w.written.wrote(watch.Added, made)
		}
		return err
	})
	s.check(err == nil, "%d %s are created %s", count, w.resource.Resource, text(err))
	note("%.0f/s", float64(count)/time.Since(begin).Seconds())
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf("(%v)", err)
}

// race lets many create the same lease, then take over the same one: one must win, each time.
func (s *session) race(w *watched) {
	const rounds, racers = 25, 10
	created, taken := 0, 0
	for round := range rounds {
		name := fmt.Sprintf("race-%02d", round)
		winners := s.racers(racers, func(holder string) (*unstructured.Unstructured, error) {
			return s.in(bulkSpace, leases).Create(s.ctx, lease(name, holder), metav1.CreateOptions{})
		})
		if len(winners) != 1 || winners[0] == nil {
			continue
		}
		created++
		w.written.wrote(watch.Added, winners[0])
		winners = s.racers(racers, func(holder string) (*unstructured.Unstructured, error) {
			next := winners[0].DeepCopy()
			_ = unstructured.SetNestedField(next.Object, "next-"+holder, "spec", "holderIdentity")
			return s.in(bulkSpace, leases).Update(s.ctx, next, metav1.UpdateOptions{})
		})
		if len(winners) == 1 && winners[0] != nil {
			taken++
			w.written.wrote(watch.Modified, winners[0])
		}
	}
	s.check(created == rounds, "%d racers for each of %d leases: one creates it (%d times)", racers, rounds, created)
	s.check(taken == rounds, "and one takes it over (%d times)", taken)
}

// racers start together; those who won are given back. Losing means AlreadyExists or Conflict, anything else counts as a second winner.
func (s *session) racers(count int, try func(holder string) (*unstructured.Unstructured, error)) []*unstructured.Unstructured {
	var mu sync.Mutex
	var group sync.WaitGroup
	var winners []*unstructured.Unstructured
	start := make(chan struct{})
	for i := range count {
		group.Go(func() {
			<-start
			won, err := try(fmt.Sprintf("racer-%d", i))
			if err == nil || !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
				mu.Lock()
				winners = append(winners, won)
				mu.Unlock()
			}
		})
	}
	close(start)
	group.Wait()
	return winners
}

// conflicts lets all workers count in one object: each update must be of the version it was made from.
func (s *session) conflicts(w *watched) {
	const each = 25
	in := s.in(bulkSpace, configmaps)
	made, err := in.Create(s.ctx, configmap("counter", map[string]any{"count": "0"}), metav1.CreateOptions{})
	if !s.check(err == nil, "a counter is created %s", text(err)) {
		return
	}
	w.written.wrote(watch.Added, made)
	var mu sync.Mutex
	var updates []*unstructured.Unstructured
	var lost atomic.Int64
	err = parallel(workers*each, func(int) error {
		for {
			now, err := in.Get(s.ctx, "counter", metav1.GetOptions{})
			if err != nil {
				return err
			}
			count, _, _ := unstructured.NestedString(now.Object, "data", "count")
			_ = unstructured.SetNestedField(now.Object, increment(count), "data", "count")
			made, err := in.Update(s.ctx, now, metav1.UpdateOptions{})
			if apierrors.IsConflict(err) {
				lost.Add(1)
				continue
			}
			if err == nil {
				mu.Lock()
				updates = append(updates, made)
				mu.Unlock()
			}
			return err
		}
	})
	inOrder(updates)
	for _, made := range updates {
		w.written.wrote(watch.Modified, made)
	}
	last, getErr := in.Get(s.ctx, "counter", metav1.GetOptions{})
	count := ""
	if getErr == nil {
		count, _, _ = unstructured.NestedString(last.Object, "data", "count")
	}
	s.check(err == nil && count == fmt.Sprint(workers*each), "%d workers counted to %s with %d conflicts %s", workers, count, lost.Load(), text(err))
	s.check(lost.Load() > 0, "stale updates were refused")
}

// applies lets every worker own a field of one object by server-side apply, which the apiserver merges and retries.
func (s *session) applies(w *watched) {
	in := s.in(bulkSpace, configmaps)
	var mu sync.Mutex
	var writes []*unstructured.Unstructured
	err := parallel(workers*5, func(i int) error {
		own := configmap("applied", map[string]any{fmt.Sprintf("field-%02d", i): "yes"})
		made, err := in.Apply(s.ctx, "applied", own, metav1.ApplyOptions{FieldManager: fmt.Sprintf("manager-%02d", i)})
		if err == nil {
			mu.Lock()
			writes = append(writes, made)
			mu.Unlock()
		}
		return err
	})
	inOrder(writes)
	for i, made := range writes {
		kind := watch.Modified
		if i == 0 {
			kind = watch.Added
		}
		w.written.wrote(kind, made)
	}
	last, getErr := in.Get(s.ctx, "applied", metav1.GetOptions{})
	fields := map[string]string{}
	if getErr == nil {
		fields, _, _ = unstructured.NestedStringMap(last.Object, "data")
	}
	s.check(err == nil && len(fields) == workers*5, "%d managers applied their fields to one object, %d are there %s", workers*5, len(fields), text(err))
	_, err = in.Apply(s.ctx, "applied", configmap("applied", map[string]any{"field-00": "no"}), metav1.ApplyOptions{FieldManager: "other"})
	s.check(apierrors.IsConflict(err), "a foreign field is refused")
	merged, err := in.Patch(s.ctx, "applied", types.MergePatchType, []byte(`{"data":{"field-01":null}}`), metav1.PatchOptions{})
	if s.check(err == nil, "a merge patch removes a field %s", text(err)) {
		w.written.wrote(watch.Modified, merged)
	}
	_, err = in.Patch(s.ctx, "applied", types.JSONPatchType, []byte(`[{"op":"test","path":"/data/field-02","value":"no"}]`), metav1.PatchOptions{})
	s.check(err != nil, "a JSON patch whose test fails is refused")
}

// removals deletes some one by one and some at once; what isn't there can't be deleted.
func (s *session) removals(w *watched) {
	in := s.in(bulkSpace, configmaps)
	err := parallel(100, func(i int) error {
		name := fmt.Sprintf("map-%04d", i)
		err := in.Delete(s.ctx, name, metav1.DeleteOptions{})
		if err == nil {
			w.written.deleted(name)
		}
		return err
	})
	s.check(err == nil, "100 configmaps are deleted %s", text(err))
	s.check(apierrors.IsNotFound(in.Delete(s.ctx, "map-0000", metav1.DeleteOptions{})), "but not twice")
	stale := "1"
	err = in.Delete(s.ctx, "map-0100", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &stale}})
	s.check(apierrors.IsConflict(err), "nor in a stale version")
	for i := 100; i < 150; i++ {
		_, err := in.Patch(s.ctx, fmt.Sprintf("map-%04d", i), types.MergePatchType, []byte(`{"metadata":{"labels":{"group":"doomed"}}}`), metav1.PatchOptions{})
		if err != nil {
			s.check(false, "label map-%04d %s", i, text(err))
			return
		}
	}
	doomed, err := in.List(s.ctx, metav1.ListOptions{LabelSelector: "group=doomed"})
	if !s.check(err == nil && len(doomed.Items) == 50, "50 are found by their label %s", text(err)) {
		return
	}
	for i := range doomed.Items {
		w.written.wrote(watch.Modified, &doomed.Items[i])
	}
	err = in.DeleteCollection(s.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "group=doomed"})
	if s.check(err == nil, "and deleted at once %s", text(err)) {
		for i := range doomed.Items {
			w.written.deleted(doomed.Items[i].GetName())
		}
	}
}

// judgeWatches ends the watches and compares each with what was written.
func (s *session) judgeWatches(all map[string]*watched) {
	for name, w := range all {
		w.seen.reached(s.ctx, w.written.highest)
		eventually(s.ctx, time.Minute, func() bool { return w.seen.count() >= w.written.count() })
		difference := w.seen.exactly(w.written)
		s.check(difference == "", "watch of %s: %d events, each once and in order %s", name, w.written.count(), difference)
		s.check(w.seen.expired == 0 && w.seen.restarts == 0, "and it was never interrupted (%d times)", w.seen.restarts)
		w.seen.cancel()
	}
}

// expiring creates events, does something else meanwhile, and sees them go when their time is over, not before.
func (s *session) expiring(w *watched, meanwhile func() error) error {
	const count = 50
	in := s.in(bulkSpace, events)
	begin := time.Now()
	err := parallel(count, func(i int) error {
		name := fmt.Sprintf("event-%02d", i)
		made, err := in.Create(s.ctx, object("v1", "Event", name, map[string]any{
			"reason": "Walk", "message": "by", "type": "Normal",
			"involvedObject": map[string]any{"kind": "Namespace", "name": bulkSpace, "namespace": bulkSpace},
		}), metav1.CreateOptions{})
		if err == nil {
			w.written.wrote(watch.Added, made)
			w.written.deleted(name)
		}
		return err
	})
	made := time.Now()
	s.check(err == nil, "%d events are created %s", count, text(err))
	left := func() int {
		ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		defer cancel()
		list, err := in.List(ctx, metav1.ListOptions{LabelSelector: ours})
		if err != nil {
			return -1
		}
		return len(list.Items)
	}
	early := make(chan int, 1)
	go func() {
		time.Sleep(time.Until(begin.Add(s.eventTTL - time.Second)))
		early <- left()
	}()
	if err := meanwhile(); err != nil {
		return err
	}
	there := <-early
	s.check(there == count, "a second before their time is over all events are there (%d)", there)
	// The apiserver adds up to 5 % to share leases; 10 s are for a slow machine.
	limit := time.Until(made.Add(s.eventTTL + s.eventTTL/20 + 11*time.Second))
	gone := eventually(s.ctx, max(limit, 5*time.Second), func() bool { return left() == 0 })
	s.check(gone, "and soon after it they have expired")
	return nil
}
