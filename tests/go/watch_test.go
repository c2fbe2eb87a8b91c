package gotests

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watching collects events of one watch as text: "PUT a=1", "DELETE a".
type watching struct {
	t      *testing.T
	ctx    context.Context
	prefix string
	events clientv3.WatchChan
}

func watch(t *testing.T, ctx context.Context, client *clientv3.Client, prefix, key string, options ...clientv3.OpOption) watching {
	t.Helper()
	created := append([]clientv3.OpOption{clientv3.WithCreatedNotify()}, options...)
	watching := watching{t, ctx, prefix, client.Watch(ctx, prefix+key, created...)}
	if answer := watching.answer(); !answer.Created {
		t.Fatalf("the first answer is not the creation: %+v", answer)
	}
	return watching
}

func (w watching) answer() clientv3.WatchResponse {
	w.t.Helper()
	select {
	case answer, open := <-w.events:
		if !open {
			w.t.Fatal("the watch has ended")
		}
		return answer
	case <-w.ctx.Done():
		w.t.Fatal("the watch is silent")
	}
	panic("unreachable")
}

// next is the next answer's events.
func (w watching) next() string {
	w.t.Helper()
	answer := w.answer()
	must(w.t, answer.Err())
	var lines []string
	for _, event := range answer.Events {
		line := fmt.Sprintf("%s %s", event.Type, strings.TrimPrefix(string(event.Kv.Key), w.prefix))
		if event.Type == clientv3.EventTypePut {
			line += "=" + string(event.Kv.Value)
		}
		if event.PrevKv != nil {
			line += fmt.Sprintf(" (was %s)", event.PrevKv.Value)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ", ")
}

func (w watching) expect(answers ...string) {
	w.t.Helper()
	for _, want := range answers {
		equal(w.t, "events", w.next(), want)
	}
}

func TestAWatchTellsWhatHappens(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	all := watch(t, ctx, client, prefix, "", clientv3.WithPrefix(), clientv3.WithPrevKV())
	one := watch(t, ctx, client, prefix, "b")
	put(t, ctx, client, prefix+"a", "1")
	put(t, ctx, client, prefix+"b", "1")
	put(t, ctx, client, prefix+"b", "2")
	_, err := client.Delete(ctx, prefix+"b")
	must(t, err)
	done, err := client.Txn(ctx).Then(clientv3.OpPut(prefix+"c", "1"), clientv3.OpDelete(prefix+"a"), clientv3.OpPut(prefix+"b", "3")).Commit()
	must(t, err)
	all.expect("PUT a=1", "PUT b=1", "PUT b=2 (was 1)", "DELETE b (was 2)")
	whole := all.answer()
	equal(t, "one txn, one answer", len(whole.Events), 3)
	equal(t, "its revision", whole.Header.Revision, done.Header.Revision)
	for _, event := range whole.Events {
		equal(t, "each event's revision", event.Kv.ModRevision, done.Header.Revision)
	}
	gone := whole.Events[1].Kv
	equal(t, "a delete holds nothing else", words(gone.CreateRevision, gone.Version, gone.Lease, len(gone.Value)), "0 0 0 0")
	one.expect("PUT b=1", "PUT b=2", "DELETE b", "PUT b=3")
}

func TestAWatchBeginsInThePastOrTheFuture(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	first := put(t, ctx, client, prefix+"k", "1")
	second := put(t, ctx, client, prefix+"k", "2")
	put(t, ctx, client, prefix+"other", "")
	for _, member := range members(t) {
		// Whichever serves the watch has both.
		equal(t, "the present", get(t, ctx, member, prefix, "k"), "k=2")
	}
	past := watch(t, ctx, client, prefix, "k", clientv3.WithRev(first), clientv3.WithPrevKV())
	answer := past.answer()
	equal(t, "all of the past at once", len(answer.Events), 2)
	equal(t, "with what was before", string(answer.Events[1].PrevKv.Value), "1")
	later := watch(t, ctx, client, prefix, "k", clientv3.WithRev(second))
	later.expect("PUT k=2")
	future := watch(t, ctx, client, prefix, "k", clientv3.WithRev(1<<60))
	put(t, ctx, client, prefix+"k", "3")
	past.expect("PUT k=3 (was 2)")
	later.expect("PUT k=3")
	select {
	case answer := <-future.events:
		t.Fatalf("an event before its time: %+v", answer)
	default:
	}
}

func TestFiltersLeaveOut(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	puts := watch(t, ctx, client, prefix, "", clientv3.WithPrefix(), clientv3.WithFilterDelete())
	deletes := watch(t, ctx, client, prefix, "", clientv3.WithPrefix(), clientv3.WithFilterPut())
	for _, key := range []string{"a", "b"} {
		put(t, ctx, client, prefix+key, "1")
		_, err := client.Delete(ctx, prefix+key)
		must(t, err)
	}
	puts.expect("PUT a=1", "PUT b=1")
	deletes.expect("DELETE a", "DELETE b")
}

func TestProgressNeverOvertakesEvents(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	var watches []watching
	for i := range 10 {
		watches = append(watches, watch(t, ctx, client, prefix, fmt.Sprint(i%3)))
	}
	// Asked again and again: a server that is behind, or whose queue is full, doesn't answer.
	asking, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for asking.Err() == nil {
			client.RequestProgress(asking)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for round := range 50 {
		revision := put(t, ctx, client, prefix+fmt.Sprint(round%3), "v")
		for i, watching := range watches {
			told := int64(0)
			for progress := int64(0); progress < revision; {
				answer := watching.answer()
				must(t, answer.Err())
				if answer.IsProgressNotify() {
					progress = answer.Header.Revision
				}
				for _, event := range answer.Events {
					told = event.Kv.ModRevision
				}
			}
			if i%3 == round%3 && told != revision {
				t.Fatalf("progress came before the event of revision %d (told: %d)", revision, told)
			}
		}
	}
}

func TestBigAnswersComeInFragments(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	value := strings.Repeat("v", 200<<10)
	first := put(t, ctx, client, prefix+"00", value)
	for i := 1; i < 20; i++ {
		put(t, ctx, client, fmt.Sprintf("%s%02d", prefix, i), value)
	}
	// The client joins what the server splits.
	all := watch(t, ctx, client, prefix, "", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithFragment())
	for seen := 0; seen < 20; {
		answer := all.answer()
		must(t, answer.Err())
		for _, event := range answer.Events {
			equal(t, "in order", string(event.Kv.Key), fmt.Sprintf("%s%02d", prefix, seen))
			seen++
		}
	}
}

func TestManyWatchersMissNothing(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	clients := members(t)
	var watches []watching
	for i := range 60 {
		watches = append(watches, watch(t, ctx, clients[i%len(clients)], prefix, "", clientv3.WithPrefix()))
	}
	for i := range 50 {
		put(t, ctx, clients[i%len(clients)], prefix+"k", fmt.Sprint(i))
	}
	for _, watching := range watches {
		for next := 0; next < 50; {
			answer := watching.answer()
			must(t, answer.Err())
			for _, event := range answer.Events {
				equal(t, "value", string(event.Kv.Value), next)
				next++
			}
		}
	}
}

func TestAWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	short, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	ended := watch(t, short, client, prefix, "k")
	kept := watch(t, clientv3.WithRequireLeader(ctx), client, prefix, "k")
	cancel()
	for range ended.events {
	}
	put(t, ctx, client, prefix+"k", "1")
	kept.expect("PUT k=1")
}
