package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// prefix is where the apiserver keeps everything.
const prefix = "/registry/"

// entry is a key as one member has it.
type entry struct {
	modified, created, version int64
	value                      uint64
}

// contents are all keys of the apiserver.
type contents map[string]entry

func entryOf(kv *mvccpb.KeyValue) entry {
	sum := fnv.New64a()
	sum.Write(kv.Value)
	return entry{kv.ModRevision, kv.CreateRevision, kv.Version, sum.Sum64()}
}

// read gives a member's own contents at a revision (0: now, asked of the leader), in pages.
func read(ctx context.Context, client *clientv3.Client, revision int64) (contents, int64, error) {
	found, from := contents{}, prefix
	for {
		options := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(500), clientv3.WithRev(revision)}
		if revision > 0 {
			options = append(options, clientv3.WithSerializable())
		}
		answer, err := client.Get(ctx, from, options...)
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = answer.Header.Revision
		}
		for _, kv := range answer.Kvs {
			found[string(kv.Key)] = entryOf(kv)
		}
		if !answer.More {
			return found, revision, nil
		}
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// feed is a watch of everything on one member, which outlives the member's restarts.
type feed struct {
	url    string
	client *clientv3.Client
	start  contents
	mu     sync.Mutex
	now    contents
	log    []seen
	// What broke a promise of watches; "" as long as none was.
	broken   string
	last     int64
	cancel   context.CancelFunc
	finished chan struct{}
}

// seen is an event as it came.
type seen struct {
	revision int64
	key      string
	// None for a deletion.
	entry *entry
}

// follow starts a feed on what the member has.
func follow(ctx context.Context, url string) (*feed, error) {
	client, err := dial(url)
	if err != nil {
		return nil, err
	}
	asked, done := context.WithTimeout(ctx, 20*time.Second)
	defer done()
	start, revision, err := read(asked, client, 0)
	if err != nil {
		client.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{url: url, client: client, start: start, now: maps.Clone(start), last: revision, cancel: cancel, finished: make(chan struct{})}
	go func() {
		defer close(f.finished)
		for answer := range client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1), clientv3.WithProgressNotify()) {
			f.take(ctx, answer)
		}
	}()
	return f, nil
}

func (f *feed) take(ctx context.Context, answer clientv3.WatchResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := answer.Err(); err != nil && ctx.Err() == nil {
		f.fault("ended: %v (compacted at %d)", err, answer.CompactRevision)
		return
	}
	for _, event := range answer.Events {
		f.apply(event)
	}
	// With events that are caught up on, the header tells where the store is, not where the watch is; without any it is a promise.
	if len(answer.Events) == 0 {
		f.last = max(f.last, answer.Header.Revision)
	}
}

// apply checks an event against what the key was: versions have no gaps, revisions never repeat or go back.
func (f *feed) apply(event *clientv3.Event) {
	key, before := string(event.Kv.Key), f.now[string(event.Kv.Key)]
	if event.Kv.ModRevision < f.last || event.Kv.ModRevision <= before.modified {
		f.fault("%s: revision %d after %d (key at %d)", key, event.Kv.ModRevision, f.last, before.modified)
	}
	f.last = event.Kv.ModRevision
	if event.Type == clientv3.EventTypeDelete {
		if before.version == 0 {
			f.fault("%s: deleted at %d, but was not there", key, event.Kv.ModRevision)
		}
		delete(f.now, key)
		f.log = append(f.log, seen{event.Kv.ModRevision, key, nil})
		return
	}
	if event.Kv.Version != before.version+1 {
		f.fault("%s: version %d after %d at revision %d", key, event.Kv.Version, before.version, event.Kv.ModRevision)
	}
	after := entryOf(event.Kv)
	f.now[key] = after
	f.log = append(f.log, seen{event.Kv.ModRevision, key, &after})
}

// sum is what the events up to a revision make of the start.
func (f *feed) sum(revision int64) contents {
	sum := maps.Clone(f.start)
	for _, change := range f.log {
		if change.revision > revision {
			break
		}
		if change.entry == nil {
			delete(sum, change.key)
		} else {
			sum[change.key] = *change.entry
		}
	}
	return sum
}

func (f *feed) fault(format string, arguments ...any) {
	if f.broken == "" {
		f.broken = fmt.Sprintf(format, arguments...)
	}
}

func (f *feed) reached(ctx context.Context, revision int64) bool {
	return eventually(ctx, time.Minute, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.last >= revision || f.broken != ""
	})
}

func (f *feed) stop() {
	f.cancel()
	<-f.finished
	f.client.Close()
}

// followAll starts a feed per member.
func (s *session) followAll() ([]*feed, error) {
	var feeds []*feed
	for _, url := range s.members {
		f, err := follow(s.ctx, url)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", url, err)
		}
		feeds = append(feeds, f)
	}
	return feeds, nil
}

// judgeFeeds lets every feed come to the same revision, and compares: what was watched on each member, what each member has,
// and what the leader says, must be the same.
func (s *session) judgeFeeds(feeds []*feed) {
	var want contents
	var revision int64
	read0 := func() bool {
		ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
		defer cancel()
		var err error
		want, revision, err = read(ctx, feeds[0].client, 0)
		return err == nil
	}
	if !s.check(eventually(s.ctx, time.Minute, read0), "everything can be read at the end") {
		return
	}
	for i, f := range feeds {
		// Only events move an idle feed. This one asks for the revision.
		eventually(s.ctx, time.Minute, func() bool {
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			defer cancel()
			return f.client.RequestProgress(ctx) == nil
		})
		s.check(f.reached(s.ctx, revision), "member %d: the watch of everything comes to revision %d", i+1, revision)
		f.stop()
		s.check(f.broken == "", "member %d: %d events without gap or repetition %s", i+1, len(f.log), f.broken)
		s.judgeContents(i+1, f.url, want, revision)
		sum := f.sum(revision)
		s.check(maps.Equal(sum, want), "member %d: what was watched adds up to what is there%s", i+1, differ(sum, want))
	}
}

func (s *session) judgeContents(number int, url string, want contents, revision int64) {
	var have contents
	ok := eventually(s.ctx, time.Minute, func() bool {
		client, err := dial(url)
		if err != nil {
			return false
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
		defer cancel()
		have, _, err = read(ctx, client, revision)
		return err == nil || !errors.Is(err, rpctypes.ErrFutureRev) && !temporary(err)
	})
	s.check(ok && maps.Equal(have, want), "member %d has the same %d keys at revision %d%s", number, len(want), revision, differ(have, want))
}

func temporary(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpctypes.ErrNoLeader) || clientv3.IsConnCanceled(err)
}

// differ names one difference, for a reader of a failure.
func differ(have, want contents) string {
	for key, entry := range want {
		if have[key] != entry {
			return fmt.Sprintf(" (%s: %+v, not %+v)", key, have[key], entry)
		}
	}
	for key, entry := range have {
		if _, known := want[key]; !known {
			return fmt.Sprintf(" (%s: %+v, not there)", key, entry)
		}
	}
	return ""
}
