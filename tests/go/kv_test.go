package gotests

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestAKeyLivesDiesAndLivesAgain(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	key := prefix + "k"
	line := func() string {
		found, err := client.Get(ctx, key)
		must(t, err)
		if len(found.Kvs) == 0 {
			return "none"
		}
		kv := found.Kvs[0]
		return fmt.Sprintf("%s create=%d mod=%d version=%d lease=%d", kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
	}
	equal(t, "before", line(), "none")
	first := put(t, ctx, client, key, "1")
	equal(t, "created", line(), fmt.Sprintf("1 create=%d mod=%d version=1 lease=0", first, first))
	second, err := client.Put(ctx, key, "2", clientv3.WithPrevKV())
	must(t, err)
	equal(t, "what was before", string(second.PrevKv.Value), "1")
	equal(t, "changed", line(), fmt.Sprintf("2 create=%d mod=%d version=2 lease=0", first, second.Header.Revision))
	same := put(t, ctx, client, key, "2")
	if same <= second.Header.Revision {
		t.Fatalf("the same value again is a change too: revision %d after %d", same, second.Header.Revision)
	}
	gone, err := client.Delete(ctx, key, clientv3.WithPrevKV())
	must(t, err)
	equal(t, "deleted", gone.Deleted, 1)
	equal(t, "what was deleted", string(gone.PrevKvs[0].Value), "2")
	again, err := client.Delete(ctx, key)
	must(t, err)
	equal(t, "deleted again", again.Deleted, 0)
	reborn := put(t, ctx, client, key, "3")
	equal(t, "created again", line(), fmt.Sprintf("3 create=%d mod=%d version=1 lease=0", reborn, reborn))
	old, err := client.Get(ctx, key, clientv3.WithRev(first))
	must(t, err)
	equal(t, "in the past", string(old.Kvs[0].Value), "1")
}

func TestBytesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	for _, value := range []string{"", "\x00", "\x00\xff\x00", strings.Repeat("\xfe", 1<<20)} {
		key := prefix + "\x00\xff" + fmt.Sprint(len(value))
		put(t, ctx, client, key, value)
		found, err := client.Get(ctx, key)
		must(t, err)
		if !bytes.Equal(found.Kvs[0].Value, []byte(value)) {
			t.Fatalf("%d bytes came back as %d others", len(value), len(found.Kvs[0].Value))
		}
	}
}

func TestPutCanKeepValueOrLease(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	lease, err := client.Grant(ctx, 600)
	must(t, err)
	put(t, ctx, client, prefix+"k", "v", clientv3.WithLease(lease.ID))
	put(t, ctx, client, prefix+"k", "w", clientv3.WithIgnoreLease())
	found, err := client.Get(ctx, prefix+"k")
	must(t, err)
	equal(t, "new value, old lease", words(string(found.Kvs[0].Value), found.Kvs[0].Lease), words("w", int64(lease.ID)))
	put(t, ctx, client, prefix+"k", "", clientv3.WithIgnoreValue())
	found, err = client.Get(ctx, prefix+"k")
	must(t, err)
	equal(t, "old value, no lease", words(string(found.Kvs[0].Value), found.Kvs[0].Lease), "w 0")
}

func TestRangesAndTheirOptions(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	revisions := map[string]int64{}
	for _, pair := range []string{"a=5", "b=4", "c=3", "d=2", "e=1", "b=6"} {
		key, value, _ := strings.Cut(pair, "=")
		revisions[pair] = put(t, ctx, client, prefix+key, value)
	}
	table := []struct {
		name    string
		key     string
		options []clientv3.OpOption
		want    string
	}{
		{"one key", "b", nil, "b=6 count=1 more=false"},
		{"no key", "x", nil, " count=0 more=false"},
		{"prefix", "", []clientv3.OpOption{clientv3.WithPrefix()}, "a=5 b=6 c=3 d=2 e=1 count=5 more=false"},
		{"half open", "b", []clientv3.OpOption{clientv3.WithRange(prefix + "d")}, "b=6 c=3 count=2 more=false"},
		{"end before begin", "d", []clientv3.OpOption{clientv3.WithRange(prefix + "b")}, " count=0 more=false"},
		{"limit", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(2)}, "a=5 b=6 count=5 more=true"},
		{"limit of all", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(5)}, "a=5 b=6 c=3 d=2 e=1 count=5 more=false"},
		{"by value", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)},
			"e=1 d=2 c=3 a=5 b=6 count=5 more=false"},
		{"by version, falling, one", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(1),
			clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend)}, "b=6 count=5 more=true"},
		{"by creation, falling", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision,
			clientv3.SortDescend)}, "e=1 d=2 c=3 b=6 a=5 count=5 more=false"},
		{"last changed", "", clientv3.WithLastRev(), "b=6 count=5 more=true"},
		{"first created", "", clientv3.WithFirstCreate(), "a=5 count=5 more=true"},
		{"keys only", "a", []clientv3.OpOption{clientv3.WithKeysOnly()}, "a= count=1 more=false"},
		{"count only", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCountOnly()}, " count=5 more=false"},
		{"changed since", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMinModRev(revisions["d=2"])}, "b=6 d=2 e=1 count=5 more=false"},
		{"created until", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMaxCreateRev(revisions["b=4"])}, "a=5 b=6 count=5 more=false"},
		{"as it was", "", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(revisions["c=3"])}, "a=5 b=4 c=3 count=3 more=false"},
		{"serializable", "a", []clientv3.OpOption{clientv3.WithSerializable()}, "a=5 count=1 more=false"},
	}
	for _, row := range table {
		found, err := client.Get(ctx, prefix+row.key, row.options...)
		must(t, err)
		equal(t, row.name, fmt.Sprintf("%s count=%d more=%v", show(prefix, found), found.Count, found.More), row.want)
	}
	deleted, err := client.Delete(ctx, prefix+"b", clientv3.WithRange(prefix+"d"), clientv3.WithPrevKV())
	must(t, err)
	equal(t, "deleted a range", deleted.Deleted, 2)
	equal(t, "prev_kvs of the range", len(deleted.PrevKvs), 2)
	equal(t, "what is left", get(t, ctx, client, prefix, "", clientv3.WithPrefix()), "a=5 d=2 e=1")
}

func TestEveryMemberKnowsEveryAnswer(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	clients := members(t)
	for round := range 20 {
		writer := clients[round%len(clients)]
		revision := put(t, ctx, writer, prefix+"k", fmt.Sprint(round))
		own, err := writer.Get(ctx, prefix+"k", clientv3.WithSerializable())
		must(t, err)
		if own.Header.Revision < revision {
			t.Fatalf("a member forgot what it answered: revision %d after %d", own.Header.Revision, revision)
		}
		for _, reader := range clients {
			equal(t, "linearizable", get(t, ctx, reader, prefix, "k"), fmt.Sprintf("k=%d", round))
		}
	}
}

func TestGetStreamIsGetInPieces(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	for i := range 300 {
		put(t, ctx, client, fmt.Sprintf("%s%04d", prefix, i), strings.Repeat("v", 100*(i%7)))
	}
	for _, options := range [][]clientv3.OpOption{
		{clientv3.WithPrefix()},
		{clientv3.WithPrefix(), clientv3.WithKeysOnly()},
		{clientv3.WithPrefix(), clientv3.WithCountOnly()},
		{clientv3.WithPrefix(), clientv3.WithSerializable()},
		{clientv3.WithPrefix(), clientv3.WithLimit(3)},
		{clientv3.WithPrefix(), clientv3.WithLimit(77)},
		{clientv3.WithPrefix(), clientv3.WithLimit(300)},
		{clientv3.WithPrefix(), clientv3.WithLimit(2), clientv3.WithCountOnly()},
		{},
	} {
		whole, err := client.Get(ctx, prefix, options...)
		must(t, err)
		streamed := stream(t, ctx, client, prefix, options...)
		equal(t, "pieces", show(prefix, streamed), show(prefix, whole))
		equal(t, "count and more", words(streamed.Count, streamed.More), words(whole.Count, whole.More))
		if streamed.Header.Revision < whole.Header.Revision {
			t.Fatalf("a stream from before: revision %d after %d", streamed.Header.Revision, whole.Header.Revision)
		}
	}
}

func stream(t *testing.T, ctx context.Context, client *clientv3.Client, key string, options ...clientv3.OpOption) *clientv3.GetResponse {
	t.Helper()
	pieces, err := client.GetStream(ctx, key, options...)
	must(t, err)
	whole, err := clientv3.GetStreamToGetResponse(pieces)
	must(t, err)
	return whole
}
