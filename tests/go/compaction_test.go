package gotests

import (
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Not at once with other tests: it takes the past away from all of them.
func TestCompactionTakesThePastAway(t *testing.T) {
	ctx, prefix := scope(t)
	client := cluster(t)
	first := put(t, ctx, client, prefix+"k", "1")
	second := put(t, ctx, client, prefix+"k", "2")
	third := put(t, ctx, client, prefix+"k", "3")
	put(t, ctx, client, prefix+"k", "4")
	for _, member := range members(t) {
		// Whichever serves the watch has all four.
		equal(t, "the present", get(t, ctx, member, prefix, "k"), "k=4")
	}
	held := watch(t, ctx, client, prefix, "k", clientv3.WithRev(second), clientv3.WithPrevKV())
	held.expect("PUT k=2 (was 1), PUT k=3 (was 2), PUT k=4 (was 3)")
	_, err := client.Compact(ctx, third, clientv3.WithCompactPhysical())
	must(t, err)
	_, err = client.Compact(ctx, third)
	equal(t, "twice", err, rpctypes.ErrCompacted)
	for _, member := range members(t) {
		_, err := member.Get(ctx, prefix+"k")
		must(t, err)
		_, err = member.Get(ctx, prefix+"k", clientv3.WithRev(first))
		equal(t, "the past", err, rpctypes.ErrCompacted)
		_, err = member.Get(ctx, prefix+"k", clientv3.WithRev(second))
		equal(t, "the past", err, rpctypes.ErrCompacted)
		equal(t, "the border", get(t, ctx, member, prefix, "k", clientv3.WithRev(third)), "k=3")
		equal(t, "the present", get(t, ctx, member, prefix, "k"), "k=4")
	}
	_, err = client.Txn(ctx).Then(clientv3.OpPut(prefix+"k", "5"), clientv3.OpGet(prefix+"k", clientv3.WithRev(first))).Commit()
	equal(t, "the past in a txn", err, rpctypes.ErrCompacted)
	pieces, err := client.GetStream(ctx, prefix+"k", clientv3.WithRev(first))
	if err == nil {
		_, err = clientv3.GetStreamToGetResponse(pieces)
	}
	equal(t, "a stream of the past", rpctypes.Error(err), rpctypes.ErrCompacted)

	answer := <-client.Watch(ctx, prefix+"k", clientv3.WithRev(first))
	equal(t, "a watch of the past", words(answer.Canceled, answer.CompactRevision, answer.Err()), words(true, third, rpctypes.ErrCompacted))
	border := watch(t, ctx, client, prefix, "k", clientv3.WithRev(third), clientv3.WithPrevKV())
	border.expect("PUT k=3, PUT k=4 (was 3)")
	put(t, ctx, client, prefix+"k", "5")
	held.expect("PUT k=5 (was 4)")
	border.expect("PUT k=5 (was 4)")
}
