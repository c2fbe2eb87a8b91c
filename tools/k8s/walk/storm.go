package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const stormSpace = "walk-storm"

// fate is what is known of one object, which only one worker writes.
type fate struct {
	exists  bool
	counter int
	version uint64
	// A write whose answer never came: the object is left alone, and may be as it was or as the write wanted it.
	open bool
	// What the open write wanted.
	openExists  bool
	openCounter int
}

func (f fate) allows(exists bool, counter int) bool {
	same := func(wantExists bool, wantCounter int) bool {
		return exists == wantExists && (!exists || counter == wantCounter)
	}
	return same(f.exists, f.counter) || f.open && same(f.openExists, f.openCounter)
}

// storm is all that its workers share.
type storm struct {
	*session
	mu     sync.Mutex
	fates  map[schema.GroupVersionResource]map[string]fate
	acks   []time.Time
	unsure int
	// Answers that contradict what was acknowledged before.
	wrong []string
	races map[string][]string
	ended atomic.Bool
}

func (s *session) storm() error {
	if err := s.namespace(stormSpace); err != nil {
		return err
	}
	if err := s.define(); err != nil {
		return err
	}
	feeds, err := s.followAll()
	if err != nil {
		return err
	}
	st := &storm{session: s, fates: map[schema.GroupVersionResource]map[string]fate{}, races: map[string][]string{}}
	watches := map[schema.GroupVersionResource]*held{}
	for _, resource := range []schema.GroupVersionResource{configmaps, pods, widgets} {
		st.fates[resource] = map[string]fate{}
		list, err := s.in(stormSpace, resource).List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		watches[resource] = hold(s.ctx, s.client, resource, stormSpace, list.GetResourceVersion())
	}
	fmt.Println("storm begins")
	st.blow()
	st.judgeGaps()
	s.check(len(st.wrong) == 0, "no answer contradicted an acknowledged write %s", first(st.wrong))
	for _, resource := range []schema.GroupVersionResource{configmaps, pods, widgets} {
		st.judgeFates(resource, watches[resource])
	}
	st.judgeRaces()
	s.judgeFeeds(feeds)
	return nil
}

func first(texts []string) string {
	if len(texts) == 0 {
		return ""
	}
	return fmt.Sprintf("(%d: %s)", len(texts), texts[0])
}

// blow writes until told to stop.
func (st *storm) blow() {
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() { st.worker(configmaps, i, numbered) })
	}
	for i := range 2 {
		group.Go(func() { st.worker(pods, i, func(name string, _ int) *unstructured.Unstructured { return pod(name) }) })
		group.Go(func() {
			st.worker(widgets, i, func(name string, counter int) *unstructured.Unstructured { return widget(name, int64(counter)) })
		})
	}
	for i := range 3 {
		group.Go(func() { st.racer(fmt.Sprintf("racer-%d", i)) })
	}
	group.Go(st.lister)
	for st.ctx.Err() == nil {
		if _, err := os.Stat(st.stop); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	st.ended.Store(true)
	group.Wait()
}

func numbered(name string, counter int) *unstructured.Unstructured {
	return configmap(name, map[string]any{"counter": strconv.Itoa(counter)})
}

// counterOf reads back what numbered and widget wrote; pods have none.
func counterOf(object *unstructured.Unstructured) int {
	if text, found, _ := unstructured.NestedString(object.Object, "data", "counter"); found {
		number, _ := strconv.Atoi(text)
		return number
	}
	number, _, _ := unstructured.NestedInt64(object.Object, "spec", "size")
	return int(number)
}

// worker makes objects of its own, changes them, and deletes some.
func (st *storm) worker(resource schema.GroupVersionResource, number int, build func(name string, counter int) *unstructured.Unstructured) {
	in := st.in(stormSpace, resource)
	var alive []string
	for n := 0; !st.ended.Load() && st.ctx.Err() == nil; n++ {
		name := fmt.Sprintf("storm-%d-%05d", number, n)
		ctx, cancel := context.WithTimeout(st.ctx, 40*time.Second)
		made, err := in.Create(ctx, build(name, 0), metav1.CreateOptions{})
		if st.learn(resource, name, fate{exists: true, version: versionIf(made, err)}, err) && resource != pods {
			now := made
			for counter := 1; counter <= 2; counter++ {
				next := build(name, counter)
				next.SetResourceVersion(now.GetResourceVersion())
				now, err = in.Update(ctx, next, metav1.UpdateOptions{})
				if !st.learn(resource, name, fate{exists: true, counter: counter, version: versionIf(now, err)}, err) {
					break
				}
			}
		}
		if err == nil {
			st.readBack(ctx, resource, name)
			alive = append(alive, name)
		}
		if len(alive) > 3 && rand.IntN(3) == 0 {
			// A list may miss it before we know that it is gone.
			st.doubt(resource, alive[0])
			err := in.Delete(ctx, alive[0], metav1.DeleteOptions{})
			st.learn(resource, alive[0], fate{}, err)
			alive = alive[1:]
		}
		cancel()
	}
}

func versionIf(object *unstructured.Unstructured, err error) uint64 {
	if err != nil {
		return 0
	}
	return versionOf(object)
}

// learn notes the outcome of a write; true if it was acknowledged.
func (st *storm) learn(resource schema.GroupVersionResource, name string, want fate, err error) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	before := st.fates[resource][name]
	if err != nil {
		st.unsure++
		before.open, before.openExists, before.openCounter = true, want.exists, want.counter
		st.fates[resource][name] = before
		return false
	}
	st.acks = append(st.acks, time.Now())
	if want.exists && want.version <= before.version {
		st.wrong = append(st.wrong, fmt.Sprintf("%s %s: version %d after %d", resource.Resource, name, want.version, before.version))
	}
	st.fates[resource][name] = want
	return true
}

// doubt notes that a deletion is on its way.
func (st *storm) doubt(resource schema.GroupVersionResource, name string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	known := st.fates[resource][name]
	known.open, known.openExists = true, false
	st.fates[resource][name] = known
}

// readBack reads what was just acknowledged: no older answer is right.
func (st *storm) readBack(ctx context.Context, resource schema.GroupVersionResource, name string) {
	object, err := st.in(stormSpace, resource).Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if known := st.fates[resource][name]; err != nil {
		st.wrong = append(st.wrong, fmt.Sprintf("%s %s: not found, but acknowledged at %d", resource.Resource, name, known.version))
	} else if versionOf(object) < known.version {
		st.wrong = append(st.wrong, fmt.Sprintf("%s %s: read at %d, but acknowledged at %d", resource.Resource, name, versionOf(object), known.version))
	}
}

// lister lists all the time: every list has what was acknowledged before it began, and versions never go back.
func (st *storm) lister() {
	var newest uint64
	for !st.ended.Load() && st.ctx.Err() == nil {
		before := st.certain(configmaps)
		ctx, cancel := context.WithTimeout(st.ctx, 40*time.Second)
		list, err := st.in(stormSpace, configmaps).List(ctx, metav1.ListOptions{})
		cancel()
		if err != nil {
			continue
		}
		there := map[string]uint64{}
		for i := range list.Items {
			there[list.Items[i].GetName()] = versionOf(&list.Items[i])
		}
		after := st.certain(configmaps)
		st.mu.Lock()
		if version := versionOf(list); version < newest {
			st.wrong = append(st.wrong, fmt.Sprintf("a list of version %d after one of %d", version, newest))
		} else {
			newest = version
		}
		for name, version := range before {
			// What is still certain now was neither deleted meanwhile nor in doubt.
			if _, still := after[name]; still && there[name] < version {
				st.wrong = append(st.wrong, fmt.Sprintf("a list has %s at %d, but acknowledged at %d", name, there[name], version))
			}
		}
		st.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	}
}

// certain gives the objects that exist for sure, with their versions.
func (st *storm) certain(resource schema.GroupVersionResource) map[string]uint64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	sure := map[string]uint64{}
	for name, fate := range st.fates[resource] {
		if fate.exists && !fate.open {
			sure[name] = fate.version
		}
	}
	return sure
}

// racer tries to be the first for a new lease again and again.
func (st *storm) racer(me string) {
	for round := 0; !st.ended.Load() && st.ctx.Err() == nil; round++ {
		name := fmt.Sprintf("race-%05d", round)
		ctx, cancel := context.WithTimeout(st.ctx, 40*time.Second)
		_, err := st.in(stormSpace, leases).Create(ctx, lease(name, me), metav1.CreateOptions{})
		cancel()
		st.mu.Lock()
		if err == nil {
			st.races[name] = append(st.races[name], me)
			st.acks = append(st.acks, time.Now())
		}
		st.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	}
}

func (st *storm) judgeRaces() {
	list, err := st.in(stormSpace, leases).List(st.ctx, metav1.ListOptions{})
	if !st.check(err == nil, "the leases can be listed %s", text(err)) {
		return
	}
	holders := map[string]string{}
	for i := range list.Items {
		holders[list.Items[i].GetName()], _, _ = unstructured.NestedString(list.Items[i].Object, "spec", "holderIdentity")
	}
	var wrong []string
	for name, winners := range st.races {
		if len(winners) != 1 || holders[name] != winners[0] {
			wrong = append(wrong, fmt.Sprintf("%s: won by %v, held by %q", name, winners, holders[name]))
		}
	}
	st.check(len(wrong) == 0, "%d leases were won by one each, who still holds it %s", len(st.races), first(wrong))
}

// judgeFates compares the resource with what is known of it, and its watch with what there is.
func (st *storm) judgeFates(resource schema.GroupVersionResource, seen *held) {
	var list *unstructured.UnstructuredList
	listed := eventually(st.ctx, time.Minute, func() bool {
		var err error
		list, err = st.in(stormSpace, resource).List(st.ctx, metav1.ListOptions{})
		return err == nil
	})
	if !st.check(listed, "%s can be listed at the end", resource.Resource) {
		return
	}
	there := map[string]*unstructured.Unstructured{}
	for i := range list.Items {
		there[list.Items[i].GetName()] = &list.Items[i]
	}
	var wrong []string
	acknowledged, open := 0, 0
	for name, fate := range st.fates[resource] {
		object, exists := there[name]
		counter := 0
		if exists {
			counter = counterOf(object)
		}
		if !fate.allows(exists, counter) {
			wrong = append(wrong, fmt.Sprintf("%s: there %v with %d, known %+v", name, exists, counter, fate))
		}
		if fate.open {
			open++
		} else {
			acknowledged++
		}
	}
	st.check(len(wrong) == 0, "%s: %d objects are as acknowledged, %d in doubt are one or the other %s", resource.Resource, acknowledged, open, first(wrong))
	st.judgeStormWatch(resource, seen, there, versionOf(list))
}

// judgeStormWatch: what came over the watch ends where the list is, and has every acknowledged version.
func (st *storm) judgeStormWatch(resource schema.GroupVersionResource, seen *held, there map[string]*unstructured.Unstructured, version uint64) {
	defer seen.cancel()
	if !st.check(seen.reached(st.ctx, lastOf(there)) && seen.expired == 0, "%s: the watch went on through everything (%d interruptions)", resource.Resource, seen.restarts) {
		return
	}
	eventually(st.ctx, 10*time.Second, func() bool { return len(st.missed(seen, there, resource)) == 0 })
	missed := st.missed(seen, there, resource)
	st.check(len(missed) == 0, "%s: %d watch events, none missed, none twice, at version %d %s", resource.Resource, seen.count(), version, first(missed))
}

func lastOf(objects map[string]*unstructured.Unstructured) (last uint64) {
	for _, object := range objects {
		last = max(last, versionOf(object))
	}
	return last
}

func (st *storm) missed(seen *held, there map[string]*unstructured.Unstructured, resource schema.GroupVersionResource) (missed []string) {
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for name, fate := range st.fates[resource] {
		events := seen.events[name]
		for i := 1; i < len(events); i++ {
			if events[i].version <= events[i-1].version {
				missed = append(missed, fmt.Sprintf("%s: %v is not in order", name, events))
			}
		}
		object, exists := there[name]
		ended := len(events) == 0 || events[len(events)-1].kind == "DELETED"
		if exists == ended || exists && events[len(events)-1].version != versionOf(object) {
			missed = append(missed, fmt.Sprintf("%s: there %v, but seen %v", name, exists, events))
		}
		known := func(change change) bool { return change.version == fate.version }
		if fate.exists && !slices.ContainsFunc(events, known) {
			missed = append(missed, fmt.Sprintf("%s: acknowledged at %d, but seen %v", name, fate.version, events))
		}
		if fate.exists && !fate.open && resource != pods && len(events) != fate.counter+1 {
			missed = append(missed, fmt.Sprintf("%s: written %d times, but seen %v", name, fate.counter+1, events))
		}
	}
	return missed
}

// judgeGaps tells how long nothing was acknowledged after each mark.
func (st *storm) judgeGaps() {
	slices.SortFunc(st.acks, time.Time.Compare)
	st.check(len(st.acks) > 100, "%d writes were acknowledged, %d are in doubt", len(st.acks), st.unsure)
	raw, _ := os.ReadFile(st.marks)
	for line := range strings.Lines(string(raw)) {
		seconds, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		at, err := strconv.ParseFloat(seconds, 64)
		if err != nil {
			continue
		}
		begin := time.Unix(0, int64(at*1e9))
		var longest time.Duration
		for i := 1; i < len(st.acks); i++ {
			if st.acks[i].After(begin) && st.acks[i-1].Before(begin.Add(15*time.Second)) {
				longest = max(longest, st.acks[i].Sub(st.acks[i-1]))
			}
		}
		note("%s: longest gap between acknowledged writes %.2f s", what, longest.Seconds())
	}
}
