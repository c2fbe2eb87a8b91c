package gotests

import (
	"context"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ownID is a lease id that nobody else takes.
func ownID() clientv3.LeaseID { return clientv3.LeaseID(rand.Int64N(1<<62) + 1) }

// grantOwn grants a chosen id, which the client has no call for.
func grantOwn(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID, ttl int64) (clientv3.LeaseID, int64, error) {
	done, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(id), TTL: ttl})
	if err != nil {
		return 0, 0, rpctypes.Error(err)
	}
	return clientv3.LeaseID(done.ID), done.TTL, nil
}

func TestLeasesAreGrantedAndKnown(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	clients := members(t)
	client := clients[0]
	own := ownID()
	id, ttl, err := grantOwn(ctx, client, own, 600)
	must(t, err)
	equal(t, "a chosen id", words(id, ttl), words(own, 600))
	_, _, err = grantOwn(ctx, client, own, 600)
	equal(t, "twice", err, rpctypes.ErrLeaseExist)
	short, err := client.Grant(ctx, 0)
	must(t, err)
	if short.ID <= 0 || short.TTL < 1 {
		t.Fatalf("the server chooses an id, and no TTL below its minimum: %+v", short)
	}
	_, err = client.Grant(ctx, 9_000_000_001)
	equal(t, "too long", err, rpctypes.ErrLeaseTTLTooLarge)

	put(t, ctx, client, prefix+"b", "", clientv3.WithLease(own))
	put(t, ctx, client, prefix+"a", "", clientv3.WithLease(own))
	put(t, ctx, client, prefix+"c", "", clientv3.WithLease(own))
	put(t, ctx, client, prefix+"c", "")
	for _, member := range clients {
		known, err := member.TimeToLive(ctx, own, clientv3.WithAttachedKeys())
		must(t, err)
		keys := map[string]bool{}
		for _, key := range known.Keys {
			keys[string(key)] = true
		}
		equal(t, "attached keys", keys, map[string]bool{prefix + "a": true, prefix + "b": true})
		equal(t, "granted", known.GrantedTTL, 600)
		if known.TTL > 600 || known.TTL < 500 {
			t.Fatalf("time to live is %d of 600", known.TTL)
		}
		eventually(t, "the lease is listed", func() bool {
			list, err := member.Leases(ctx)
			must(t, err)
			for _, lease := range list.Leases {
				if lease.ID == own {
					return true
				}
			}
			return false
		})
	}
	unknown, err := client.TimeToLive(ctx, ownID())
	must(t, err)
	equal(t, "an unknown lease", words(unknown.TTL, unknown.GrantedTTL), "-1 0")
}

func TestARevokedLeaseTakesItsKeysAlong(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	lease, err := client.Grant(ctx, 600)
	must(t, err)
	all := watch(t, ctx, client, prefix, "", clientv3.WithPrefix())
	for _, key := range []string{"b", "a"} {
		put(t, ctx, client, prefix+key, "1", clientv3.WithLease(lease.ID))
	}
	put(t, ctx, client, prefix+"free", "1")
	all.expect("PUT b=1", "PUT a=1", "PUT free=1")
	_, err = client.Revoke(ctx, lease.ID)
	must(t, err)
	all.expect("DELETE a, DELETE b")
	equal(t, "what is left", get(t, ctx, client, prefix, "", clientv3.WithPrefix()), "free=1")
	_, err = client.Revoke(ctx, lease.ID)
	equal(t, "again", err, rpctypes.ErrLeaseNotFound)
	_, err = client.KeepAliveOnce(ctx, lease.ID)
	equal(t, "keep-alive", err, rpctypes.ErrLeaseNotFound)
	_, err = client.Put(ctx, prefix+"a", "", clientv3.WithLease(lease.ID))
	equal(t, "put", err, rpctypes.ErrLeaseNotFound)
}

func TestAnExpiredLeaseTakesItsKeysAlong(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	kept, err := client.Grant(ctx, 10)
	must(t, err)
	alive, err := client.KeepAlive(ctx, kept.ID)
	must(t, err)
	all := watch(t, ctx, client, prefix, "", clientv3.WithPrefix())
	put(t, ctx, client, prefix+"kept", "1", clientv3.WithLease(kept.ID))
	eventually(t, "a key of a short lease", func() bool {
		lease, err := client.Grant(ctx, 1)
		must(t, err)
		_, err = client.Put(ctx, prefix+"lost", "1", clientv3.WithLease(lease.ID))
		if err == rpctypes.ErrLeaseNotFound {
			// It was over before the put.
			return false
		}
		must(t, err)
		return true
	})
	all.expect("PUT kept=1", "PUT lost=1", "DELETE lost")
	answer := <-alive
	equal(t, "keep-alive", answer.ID, kept.ID)
	least := kept.TTL
	eventually(t, "it is kept alive: its time goes up again", func() bool {
		known, err := client.TimeToLive(ctx, kept.ID)
		must(t, err)
		up := known.TTL > least
		least = min(least, known.TTL)
		return up
	})
	equal(t, "what is left", get(t, ctx, client, prefix, "", clientv3.WithPrefix()), "kept=1")
}

func TestKeepAlivesOnEveryMember(t *testing.T) {
	t.Parallel()
	ctx, _ := scope(t)
	clients := members(t)
	lease, err := clients[0].Grant(ctx, 300)
	must(t, err)
	for _, member := range clients {
		answer, err := member.KeepAliveOnce(ctx, lease.ID)
		must(t, err)
		equal(t, "TTL", answer.TTL, 300)
	}
}
