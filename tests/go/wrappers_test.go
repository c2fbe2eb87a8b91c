package gotests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

func TestNamespacesHideEachOther(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	inside := namespace.NewKV(client.KV, prefix)
	watcher := namespace.NewWatcher(client.Watcher, prefix)
	leases := namespace.NewLease(client.Lease, prefix)
	t.Cleanup(func() { watcher.Close() })
	lease, err := client.Grant(ctx, 600)
	must(t, err)
	first := put(t, ctx, inside, "a", "1", clientv3.WithLease(lease.ID))
	put(t, ctx, inside, "b", "2")
	equal(t, "outside", get(t, ctx, client, prefix, "", clientv3.WithPrefix()), "a=1 b=2")
	equal(t, "inside", get(t, ctx, inside, "", "", clientv3.WithPrefix()), "a=1 b=2")
	known, err := leases.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	must(t, err)
	equal(t, "keys of the lease", fmt.Sprintf("%s", known.Keys), "[a]")
	done, err := inside.Txn(ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).Then(clientv3.OpDelete("a", clientv3.WithPrevKV())).Commit()
	must(t, err)
	equal(t, "deleted in a txn", string(done.Responses[0].GetResponseDeleteRange().PrevKvs[0].Key), "a")
	events := watcher.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(first))
	var seen []string
	for len(seen) < 3 {
		answer := <-events
		must(t, answer.Err())
		for _, event := range answer.Events {
			seen = append(seen, fmt.Sprintf("%s %s", event.Type, event.Kv.Key))
		}
	}
	equal(t, "events", strings.Join(seen, ", "), "PUT a, PUT b, DELETE a")
}

func TestAMirrorHasEverything(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	// More than a page of the syncer, which reads 1000 keys at a time.
	var puts []clientv3.Op
	for i := range 1100 {
		puts = append(puts, clientv3.OpPut(fmt.Sprintf("%s%04d", prefix, i), "old"))
		if len(puts) == 100 {
			_, err := client.Txn(ctx).Then(puts...).Commit()
			must(t, err)
			puts = nil
		}
	}
	syncer := mirror.NewSyncer(client, prefix, 0)
	pages, failed := syncer.SyncBase(ctx)
	copied := map[string]string{}
	for page := range pages {
		for _, kv := range page.Kvs {
			copied[string(kv.Key)] = string(kv.Value)
		}
	}
	must(t, <-failed)
	equal(t, "keys of the base", len(copied), 1100)
	put(t, ctx, client, prefix+"0000", "new")
	_, err := client.Delete(ctx, prefix+"0001")
	must(t, err)
	changes := syncer.SyncUpdates(ctx)
	for seen := 0; seen < 2; {
		answer := <-changes
		must(t, answer.Err())
		for _, event := range answer.Events {
			seen++
			if event.Type == clientv3.EventTypeDelete {
				delete(copied, string(event.Kv.Key))
			} else {
				copied[string(event.Kv.Key)] = string(event.Kv.Value)
			}
		}
	}
	equal(t, "after the changes", words(len(copied), copied[prefix+"0000"]), "1099 new")
}

func TestReadsNeverGoBack(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	// As NewOrderViolationSwitchEndpointClosure, which gives up after some answers of who lags, without a pause between them.
	again := func(clientv3.Op, clientv3.OpResponse, int64) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
			return nil
		}
	}
	ordered := ordering.NewKV(client.KV, again)
	for i := range 30 {
		put(t, ctx, ordered, prefix+"k", fmt.Sprint(i))
		// Only reads count for it.
		_, err := ordered.Get(ctx, prefix+"k")
		must(t, err)
		found, err := ordered.Get(ctx, prefix+"k", clientv3.WithSerializable())
		must(t, err)
		equal(t, "a local read after a linearizable one", string(found.Kvs[0].Value), fmt.Sprint(i))
	}
}

func TestALeasedCacheIsCoherent(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	cached, closeCache, err := leasing.NewKV(client, prefix+"leases/")
	must(t, err)
	t.Cleanup(closeCache)
	put(t, ctx, client, prefix+"k", "1")
	equal(t, "first read takes the lease", get(t, ctx, cached, prefix, "k"), "k=1")
	other, closeOther, err := leasing.NewKV(client, prefix+"leases/")
	must(t, err)
	t.Cleanup(closeOther)
	put(t, ctx, other, prefix+"k", "2")
	equal(t, "the owner lost it and sees the change", get(t, ctx, cached, prefix, "k"), "k=2")
	_, err = cached.Delete(ctx, prefix+"k")
	must(t, err)
	equal(t, "deleted", get(t, ctx, other, prefix, "k"), "")
}

func TestTheKubernetesInterface(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	k := kubernetes.Client{Client: cluster(t)}
	created, err := k.OptimisticPut(ctx, prefix+"a", []byte("1"), 0, kubernetes.PutOptions{})
	must(t, err)
	equal(t, "created", created.Succeeded, true)
	conflict, err := k.OptimisticPut(ctx, prefix+"a", []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true})
	must(t, err)
	equal(t, "created twice", words(conflict.Succeeded, string(conflict.KV.Value), conflict.KV.ModRevision), words(false, "1", created.Revision))
	changed, err := k.OptimisticPut(ctx, prefix+"a", []byte("2"), created.Revision, kubernetes.PutOptions{})
	must(t, err)
	for _, key := range []string{"b", "c", "d"} {
		_, err := k.OptimisticPut(ctx, prefix+key, []byte(key), 0, kubernetes.PutOptions{})
		must(t, err)
	}
	found, err := k.Get(ctx, prefix+"a", kubernetes.GetOptions{Revision: created.Revision})
	must(t, err)
	equal(t, "in the past", string(found.KV.Value), "1")
	count, err := k.Count(ctx, prefix, kubernetes.CountOptions{})
	must(t, err)
	equal(t, "count", count, 4)
	page, err := k.List(ctx, prefix, kubernetes.ListOptions{Limit: 3})
	must(t, err)
	equal(t, "first page", words(len(page.Kvs), page.Count), "3 4")
	rest, err := k.List(ctx, prefix, kubernetes.ListOptions{Limit: 3, Revision: page.Revision, Continue: string(page.Kvs[2].Key) + "\x00"})
	must(t, err)
	equal(t, "second page", words(len(rest.Kvs), string(rest.Kvs[0].Value)), "1 d")
	stale, err := k.OptimisticDelete(ctx, prefix+"a", created.Revision, kubernetes.DeleteOptions{GetOnFailure: true})
	must(t, err)
	equal(t, "a stale delete", words(stale.Succeeded, string(stale.KV.Value)), "false 2")
	gone, err := k.OptimisticDelete(ctx, prefix+"a", changed.Revision, kubernetes.DeleteOptions{})
	must(t, err)
	equal(t, "deleted", gone.Succeeded, true)
	if gone.Revision <= changed.Revision {
		t.Fatalf("a delete is a revision of its own: %d after %d", gone.Revision, changed.Revision)
	}
}
