package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// ours selects the objects that nobody but us writes.
const ours = "walk=ours"

// change is one event of an object, or one write of which it must come.
type change struct {
	kind watch.EventType
	// Resource version; of a deletion that we wrote we don't know it (0).
	version uint64
}

func (c change) String() string { return fmt.Sprintf("%s@%d", c.kind, c.version) }

// ledger holds the acknowledged writes of one resource, by object.
type ledger struct {
	mu      sync.Mutex
	writes  map[string][]change
	highest uint64
}

func newLedger() *ledger { return &ledger{writes: map[string][]change{}} }

// wrote notes an acknowledged write. A write that changed nothing has the version of the one before, and no event.
func (l *ledger) wrote(kind watch.EventType, object *unstructured.Unstructured) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key, version := object.GetName(), versionOf(object)
	before := l.writes[key]
	if n := len(before); n > 0 && kind == watch.Modified && before[n-1].version == version {
		return
	}
	l.writes[key] = append(before, change{kind, version})
	l.highest = max(l.highest, version)
}

// deleted notes a deletion.
func (l *ledger) deleted(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes[name] = append(l.writes[name], change{watch.Deleted, 0})
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := 0
	for _, writes := range l.writes {
		sum += len(writes)
	}
	return sum
}

func versionOf(object interface{ GetResourceVersion() string }) uint64 {
	version, _ := strconv.ParseUint(object.GetResourceVersion(), 10, 64)
	return version
}

// held is a watch that is held for the whole walk: it goes on from its last version when it ends.
type held struct {
	resource string
	mu       sync.Mutex
	events   map[string][]change
	last     *unstructured.Unstructured
	// The version up to which all has come.
	version   uint64
	bookmarks int
	restarts  int
	// The server no longer had what we needed: events are missing.
	expired int
	cancel  context.CancelFunc
	done    chan struct{}
}

// hold starts a watch of what is labelled ours, from a version on.
func hold(ctx context.Context, client dynamic.Interface, resource schema.GroupVersionResource, namespace, from string) *held {
	ctx, cancel := context.WithCancel(ctx)
	h := &held{resource: resource.Resource, events: map[string][]change{}, cancel: cancel, done: make(chan struct{})}
	h.version, _ = strconv.ParseUint(from, 10, 64)
	go func() {
		defer close(h.done)
		for ctx.Err() == nil && h.expired == 0 {
			options := metav1.ListOptions{LabelSelector: ours, ResourceVersion: strconv.FormatUint(h.version, 10), AllowWatchBookmarks: true}
			stream, err := client.Resource(resource).Namespace(namespace).Watch(ctx, options)
			if err != nil {
				h.ended(err)
				select {
				case <-ctx.Done():
				case <-time.After(200 * time.Millisecond):
				}
				continue
			}
			h.drain(stream)
			stream.Stop()
		}
	}()
	return h
}

func (h *held) ended(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		h.expired++
	}
	h.restarts++
}

func (h *held) drain(stream watch.Interface) {
	for event := range stream.ResultChan() {
		if event.Type == watch.Error {
			h.ended(apierrors.FromObject(event.Object))
			return
		}
		object, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		h.mu.Lock()
		h.version = versionOf(object)
		if event.Type == watch.Bookmark {
			h.bookmarks++
		} else {
			h.events[object.GetName()] = append(h.events[object.GetName()], change{event.Type, h.version})
		}
		h.mu.Unlock()
	}
	h.ended(fmt.Errorf("closed"))
}

// reached waits until the watch has passed a version.
func (h *held) reached(ctx context.Context, version uint64) bool {
	return eventually(ctx, time.Minute, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.version >= version || h.expired > 0
	})
}

func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := 0
	for _, events := range h.events {
		sum += len(events)
	}
	return sum
}

// exactly compares a watch with the ledger, event by event; "" if they agree.
func (h *held) exactly(l *ledger) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, writes := range l.writes {
		events := h.events[name]
		if len(events) != len(writes) {
			return fmt.Sprintf("%s %s: written %v, seen %v", h.resource, name, writes, events)
		}
		for i, write := range writes {
			if events[i].kind != write.kind || (write.version != 0 && events[i].version != write.version) {
				return fmt.Sprintf("%s %s: written %v, seen %v", h.resource, name, writes, events)
			}
		}
	}
	for name, events := range h.events {
		if _, known := l.writes[name]; !known {
			return fmt.Sprintf("%s %s: never written, seen %v", h.resource, name, events)
		}
	}
	return ""
}
