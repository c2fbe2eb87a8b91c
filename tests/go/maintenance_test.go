package gotests

import (
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestMembersTellWhoTheyAre(t *testing.T) {
	t.Parallel()
	ctx, _ := scope(t)
	client := cluster(t)
	urls := endpoints(t)
	list, err := client.MemberList(ctx)
	must(t, err)
	equal(t, "members", len(list.Members), len(urls))
	equal(t, "revision of a cluster header", list.Header.Revision, 0)
	known := map[uint64]bool{}
	for i, member := range list.Members {
		known[member.ID] = true
		equal(t, "no learner", member.IsLearner, false)
		if len(member.ClientURLs) == 0 || len(member.PeerURLs) == 0 || member.Name == "" {
			t.Fatalf("half a member: %v", member)
		}
		if i > 0 && list.Members[i-1].ID >= member.ID {
			t.Fatal("members are not in order")
		}
	}
	for _, url := range urls {
		status, err := client.Status(ctx, url)
		must(t, err)
		equal(t, "version", status.Version, "3.7.1")
		equal(t, "storage version", status.StorageVersion, "3.7.0")
		equal(t, "member and leader are known", words(known[status.Header.MemberId], known[status.Leader]), "true true")
		equal(t, "no errors", len(status.Errors), 0)
		equal(t, "downgrade", fmt.Sprintf("%v %q", status.DowngradeInfo.Enabled, status.DowngradeInfo.TargetVersion), `false ""`)
		if status.DbSize < status.DbSizeInUse || status.DbSizeInUse == 0 || status.RaftIndex < status.RaftAppliedIndex || status.RaftTerm == 0 {
			t.Fatalf("sizes or indexes can't be: %v", status)
		}
		_, err = client.Defragment(ctx, url)
		must(t, err)
	}
	alarms, err := client.AlarmList(ctx)
	must(t, err)
	equal(t, "alarms", len(alarms.Alarms), 0)
}

func TestHashesOfOneHistoryAreEqual(t *testing.T) {
	ctx, prefix := scope(t)
	client := cluster(t)
	var revision int64
	for i := range 10 {
		revision = put(t, ctx, client, prefix+fmt.Sprint(i%3), fmt.Sprint(i))
	}
	hashes := map[string]bool{}
	for _, member := range members(t) {
		_, err := member.Get(ctx, prefix)
		must(t, err)
		hash, err := client.HashKV(ctx, member.Endpoints()[0], revision)
		must(t, err)
		equal(t, "hash revision", hash.HashRevision, revision)
		hashes[fmt.Sprint(hash.Hash, hash.CompactRevision)] = true
	}
	equal(t, "different hashes", len(hashes), 1)
	_, err := client.HashKV(ctx, endpoints(t)[0], 1<<60)
	equal(t, "hash of the future", err, rpctypes.ErrFutureRev)
}

func TestLeadershipMoves(t *testing.T) {
	ctx, _ := scope(t)
	clients := members(t)
	leader := func() (uint64, *clientv3.Client, []uint64) {
		var followers []uint64
		var leads *clientv3.Client
		var id uint64
		for _, member := range clients {
			status, err := member.Status(ctx, member.Endpoints()[0])
			must(t, err)
			if status.Leader == status.Header.MemberId {
				id, leads = status.Leader, member
			} else {
				followers = append(followers, status.Header.MemberId)
			}
		}
		return id, leads, followers
	}
	var before uint64
	var leads *clientv3.Client
	var followers []uint64
	eventually(t, "somebody leads", func() bool { before, leads, followers = leader(); return leads != nil })
	_, err := leads.MoveLeader(ctx, 0x7ee7)
	equal(t, "to nobody", err, rpctypes.ErrBadLeaderTransferee)
	if len(clients) == 1 {
		return
	}
	for _, member := range clients {
		if member != leads {
			_, err = member.MoveLeader(ctx, followers[0])
			equal(t, "asked of a follower", err, rpctypes.ErrNotLeader)
		}
	}
	_, err = leads.MoveLeader(ctx, followers[0])
	must(t, err)
	eventually(t, "the new one leads", func() bool { after, _, _ := leader(); return after == followers[0] && after != before })
}
