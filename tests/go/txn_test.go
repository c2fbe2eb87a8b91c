package gotests

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestEachCompare(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	lease, err := client.Grant(ctx, 600)
	must(t, err)
	created := put(t, ctx, client, prefix+"k", "b", clientv3.WithLease(lease.ID))
	changed := put(t, ctx, client, prefix+"k", "m", clientv3.WithLease(lease.ID))
	put(t, ctx, client, prefix+"range1", "b")
	put(t, ctx, client, prefix+"range2", "c")
	k, none := prefix+"k", prefix+"none"
	each := func(key string) clientv3.Cmp {
		return clientv3.Compare(clientv3.Value(prefix+key).WithPrefix(), ">", "a")
	}
	table := []struct {
		name    string
		compare clientv3.Cmp
		want    bool
	}{
		{"value =", clientv3.Compare(clientv3.Value(k), "=", "m"), true},
		{"value !=", clientv3.Compare(clientv3.Value(k), "!=", "m"), false},
		{"value <", clientv3.Compare(clientv3.Value(k), "<", "n"), true},
		{"value >", clientv3.Compare(clientv3.Value(k), ">", "m"), false},
		{"version", clientv3.Compare(clientv3.Version(k), "=", 2), true},
		{"version >", clientv3.Compare(clientv3.Version(k), ">", 2), false},
		{"creation", clientv3.Compare(clientv3.CreateRevision(k), "=", created), true},
		{"creation <", clientv3.Compare(clientv3.CreateRevision(k), "<", created), false},
		{"change", clientv3.Compare(clientv3.ModRevision(k), "=", changed), true},
		{"change !=", clientv3.Compare(clientv3.ModRevision(k), "!=", created), true},
		{"lease", clientv3.Compare(clientv3.LeaseValue(k), "=", lease.ID), true},
		{"no lease", clientv3.Compare(clientv3.LeaseValue(k), "=", 0), false},
		{"missing is version 0", clientv3.Compare(clientv3.Version(none), "=", 0), true},
		{"missing was never created", clientv3.Compare(clientv3.CreateRevision(none), "<", 1), true},
		{"missing has no value", clientv3.Compare(clientv3.Value(none), "=", ""), false},
		{"not even another one", clientv3.Compare(clientv3.Value(none), "!=", "x"), false},
		{"all of a range", each("range"), true},
		{"not all of a range", clientv3.Compare(clientv3.Value(prefix+"range").WithPrefix(), ">", "b"), false},
		{"an empty range has no value", each("nothing"), false},
		{"an empty range is version 0", clientv3.Compare(clientv3.Version(prefix+"nothing").WithPrefix(), "=", 0), true},
	}
	for _, row := range table {
		done, err := client.Txn(ctx).If(row.compare).Then(clientv3.OpGet(k)).Commit()
		must(t, err)
		equal(t, row.name, done.Succeeded, row.want)
		done, err = client.Txn(ctx).If(row.compare).Then(clientv3.OpPut(prefix+"then", "")).Else(clientv3.OpPut(prefix+"else", "")).Commit()
		must(t, err)
		equal(t, row.name+", with writes", done.Succeeded, row.want)
	}
}

func TestATxnIsOneRevision(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	put(t, ctx, client, prefix+"old", "1")
	done, err := client.Txn(ctx).Then(
		clientv3.OpGet(prefix+"new"),
		clientv3.OpPut(prefix+"new", "2"),
		clientv3.OpGet(prefix+"new"),
		clientv3.OpDelete(prefix+"old", clientv3.WithPrevKV()),
		clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()),
	).Commit()
	must(t, err)
	revision := done.Header.Revision
	equal(t, "not yet written", done.Responses[0].GetResponseRange().Count, 0)
	equal(t, "header before the write", done.Responses[0].GetResponseRange().Header.Revision, revision-1)
	equal(t, "put", done.Responses[1].GetResponsePut().Header.Revision, revision)
	seen := done.Responses[2].GetResponseRange()
	equal(t, "a txn sees its own writes", words(string(seen.Kvs[0].Value), seen.Kvs[0].ModRevision), words("2", revision))
	equal(t, "deleted", string(done.Responses[3].GetResponseDeleteRange().PrevKvs[0].Value), "1")
	equal(t, "and its own deletes", done.Responses[4].GetResponseRange().Count, 1)
	nothing, err := client.Txn(ctx).Then(clientv3.OpDelete(prefix + "none")).Commit()
	must(t, err)
	found, err := client.Get(ctx, prefix+"new")
	must(t, err)
	equal(t, "the key's revision", found.Kvs[0].ModRevision, revision)
	equal(t, "a delete of nothing", nothing.Responses[0].GetResponseDeleteRange().Deleted, 0)
}

func TestNestedTxnsDecideBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	exists := func(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(prefix+key), ">", 0) }
	inner := clientv3.OpTxn(
		[]clientv3.Cmp{exists("a")},
		[]clientv3.Op{clientv3.OpPut(prefix+"seen", "yes")},
		[]clientv3.Op{clientv3.OpPut(prefix+"seen", "no"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet(prefix + "seen")}, nil)},
	)
	done, err := client.Txn(ctx).Then(clientv3.OpPut(prefix+"a", "1"), inner).Commit()
	must(t, err)
	nested := done.Responses[1].GetResponseTxn()
	equal(t, "the inner compare", nested.Succeeded, false)
	innermost := nested.Responses[1].GetResponseTxn().Responses[0].GetResponseRange()
	equal(t, "the innermost read", string(innermost.Kvs[0].Value), "no")
	equal(t, "all of it", get(t, ctx, client, prefix, "", clientv3.WithPrefix()), "a=1 seen=no")
}

func TestARefusedTxnWritesNothing(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	first := clientv3.OpPut(prefix+"a", "1")
	for name, second := range map[string]clientv3.Op{
		"unknown lease": clientv3.OpPut(prefix+"b", "1", clientv3.WithLease(0x7ee7)),
		"nothing kept":  clientv3.OpPut(prefix+"b", "", clientv3.WithIgnoreValue()),
		"the future":    clientv3.OpGet(prefix+"b", clientv3.WithRev(1<<60)),
		"nested":        clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet(prefix+"b", clientv3.WithRev(1<<60))}, nil),
	} {
		if _, err := client.Txn(ctx).Then(first, second).Commit(); err == nil {
			t.Fatalf("%s: accepted", name)
		}
		equal(t, name, get(t, ctx, client, prefix, "", clientv3.WithPrefix()), "")
	}
	_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Version(prefix), "=", 1)).Then(
		clientv3.OpPut(prefix+"b", "1", clientv3.WithLease(0x7ee7))).Else(first).Commit()
	must(t, err)
	equal(t, "the branch not taken doesn't count", get(t, ctx, client, prefix, "", clientv3.WithPrefix()), "a=1")
}
