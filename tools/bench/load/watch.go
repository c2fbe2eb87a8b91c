package load

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

const (
	// WideWindow never makes the server wait.
	WideWindow = 4 << 20
	// DefaultWindow is HTTP/2's.
	DefaultWindow = 65535
)

// Watchers are many watches that only count what they get.
type Watchers struct {
	raws    []*Raw
	streams []*watchStream
	events  atomic.Int64
	created atomic.Int64
	refused atomic.Int64
	news    chan struct{} // at most one token: something has arrived
	keep    atomic.Int64  // arrival times to keep per watch
}

// watchStream is one Watch call; all but the counters belongs to its connection's reader.
type watchStream struct {
	owner *Watchers
	call  *RawStream

	watch    int64
	arrived  int
	created  bool
	canceled bool
	times    map[int64][]time.Time
}

// Fields of WatchResponse.
const (
	fieldWatchID  = 2
	fieldCreated  = 3
	fieldCanceled = 4
	fieldEvents   = 11
)

// Watch opens conns connections with so many streams each and so many watches on each of these, the i-th on name(i); a name that
// ends with * is a prefix. It returns when all have been created.
func Watch(endpoint string, conns, streams, each, window int, revision int64, name func(int) string) (*Watchers, error) {
	w := &Watchers{news: make(chan struct{}, 1)}
	n := 0
	for range conns {
		raw, err := DialRaw(endpoint, window)
		if err != nil {
			w.Close()
			return nil, err
		}
		w.raws = append(w.raws, raw)
		for range streams {
			if err := w.open(raw, each, revision, func(i int) string { return name(n + i) }); err != nil {
				w.Close()
				return nil, err
			}
			n += each
		}
	}
	return w, nil
}

func (w *Watchers) open(raw *Raw, each int, revision int64, name func(int) string) (err error) {
	s := &watchStream{owner: w, times: map[int64][]time.Time{}}
	if s.call, err = raw.Open("/etcdserverpb.Watch/Watch", s.field, s.end); err != nil {
		return err
	}
	w.streams = append(w.streams, s)
	var requests [][]byte
	for i := range each {
		create := &etcdserverpb.WatchCreateRequest{StartRevision: revision}
		if prefix, ok := strings.CutSuffix(name(i), "*"); ok {
			create.Key, create.RangeEnd = []byte(prefix), []byte(prefix[:len(prefix)-1]+string(prefix[len(prefix)-1]+1))
		} else {
			create.Key = []byte(name(i))
		}
		request, err := proto.Marshal(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{CreateRequest: create}})
		if err != nil {
			return err
		}
		requests = append(requests, request)
	}
	want := w.created.Load() + int64(each)
	if err := s.call.Send(false, requests...); err != nil {
		return err
	}
	return w.await(context.Background(), &w.created, want, CallTimeout)
}

func (s *watchStream) field(number int, value uint64, _ int) {
	switch number {
	case fieldWatchID:
		s.watch = int64(value)
	case fieldCreated:
		s.created = value != 0
	case fieldCanceled:
		s.canceled = value != 0
	case fieldEvents:
		s.arrived++
	}
}

// end of a message: what it said goes into the counters.
func (s *watchStream) end() {
	w := s.owner
	if s.created {
		w.created.Add(1)
	}
	if s.canceled {
		w.refused.Add(1)
	}
	if s.arrived > 0 {
		if keep := int(w.keep.Load()); keep > 0 {
			now := time.Now()
			for range s.arrived {
				if len(s.times[s.watch]) < keep {
					s.times[s.watch] = append(s.times[s.watch], now)
				}
			}
		}
		w.events.Add(int64(s.arrived))
	}
	s.watch, s.arrived, s.created, s.canceled = 0, 0, false, false
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// Events that all have got together.
func (w *Watchers) Events() int64 { return w.events.Load() }

// Await waits until that many events have come; more are an error.
func (w *Watchers) Await(ctx context.Context, want int64, most time.Duration) error {
	if err := w.await(ctx, &w.events, want, most); err != nil {
		return err
	}
	if got := w.events.Load(); got != want {
		return fmt.Errorf("watch: %d events instead of %d", got, want)
	}
	return nil
}

func (w *Watchers) await(ctx context.Context, counter *atomic.Int64, want int64, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for counter.Load() < want {
		if n := w.refused.Load(); n > 0 {
			return fmt.Errorf("watch: %d were cancelled by the server", n)
		}
		for _, s := range w.streams {
			select {
			case <-s.call.Done:
				return fmt.Errorf("watch: a stream ended: %s", s.call.status)
			default:
			}
		}
		select {
		case <-w.news:
		case <-time.After(time.Second): // a stream that ends makes no news
		case <-ctx.Done():
			return fmt.Errorf("watch: %d instead of %d: %w", counter.Load(), want, ctx.Err())
		}
	}
	return nil
}

// KeepTimes notes when the next n events of each watch arrive. Every watch of a stream must see them in the same order.
func (w *Watchers) KeepTimes(n int) { w.keep.Store(int64(n)) }

// Times of arrival, by watch. Only after Await.
func (w *Watchers) Times() [][]time.Time {
	var all [][]time.Time
	for _, s := range w.streams {
		for _, times := range s.times {
			all = append(all, times)
		}
	}
	return all
}

// Pause makes all stop reading.
func (w *Watchers) Pause() {
	for _, raw := range w.raws {
		raw.Pause()
	}
}

// Close ends all connections; again does nothing.
func (w *Watchers) Close() {
	for _, raw := range w.raws {
		raw.Close()
	}
	w.raws = nil
}
