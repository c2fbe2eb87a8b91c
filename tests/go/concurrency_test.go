package gotests

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func session(t *testing.T, client *clientv3.Client) *concurrency.Session {
	t.Helper()
	session, err := concurrency.NewSession(client, concurrency.WithTTL(60))
	must(t, err)
	t.Cleanup(func() { session.Close() })
	return session
}

func TestAMutexLetsOneIn(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	clients := members(t)
	var group sync.WaitGroup
	count := 0
	for worker := range 6 {
		own := session(t, clients[worker%len(clients)])
		group.Go(func() {
			mutex := concurrency.NewMutex(own, prefix+"lock")
			for range 5 {
				if err := mutex.Lock(ctx); err != nil {
					t.Error(err)
					return
				}
				// Unguarded but for the lock: the race detector and the sum would tell.
				before := count
				_, err := clients[0].Get(ctx, prefix)
				count = before + 1
				if err = errors.Join(err, mutex.Unlock(ctx)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	equal(t, "increments", count, 30)
}

func TestATriedLockIsRefused(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	first, second := session(t, client), session(t, client)
	mutex := concurrency.NewMutex(first, prefix+"lock")
	must(t, mutex.TryLock(ctx))
	other := concurrency.NewMutex(second, prefix+"lock")
	equal(t, "held", other.TryLock(ctx), concurrency.ErrLocked)
	// A session that ends, ends its locks.
	must(t, first.Close())
	must(t, other.Lock(ctx))
	equal(t, "the new owner's key is there", len(get(t, ctx, client, other.Key(), "")) > 0, true)
	// With an operation, for a txn without any is answered by a member that may lag.
	owner, err := client.Txn(ctx).If(other.IsOwner()).Then(clientv3.OpGet(other.Key())).Commit()
	must(t, err)
	equal(t, "owner", owner.Succeeded, true)
}

func TestAnElection(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	first := concurrency.NewElection(session(t, client), prefix+"e")
	second := concurrency.NewElection(session(t, client), prefix+"e")
	_, err := first.Leader(ctx)
	equal(t, "nobody yet", err, concurrency.ErrElectionNoLeader)
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := second.Observe(watched)
	observed := func(want string) {
		t.Helper()
		answer := <-seen
		equal(t, "observed", string(answer.Kvs[0].Value), want)
	}
	must(t, first.Campaign(ctx, "one"))
	observed("one")
	won := make(chan error, 1)
	go func() { won <- second.Campaign(ctx, "two") }()
	must(t, first.Proclaim(ctx, "uno"))
	observed("uno")
	eventually(t, "both campaign", func() bool {
		found, err := client.Get(ctx, prefix+"e/", clientv3.WithPrefix())
		must(t, err)
		return found.Count == 2
	})
	must(t, first.Resign(ctx))
	must(t, <-won)
	observed("two")
	leader, err := second.Leader(ctx)
	must(t, err)
	equal(t, "leader", string(leader.Kvs[0].Value), "two")
	equal(t, "the former leader", first.Proclaim(ctx, "x"), concurrency.ErrElectionNotLeader)
	must(t, second.Resign(ctx))
}

func TestTransfersConserveMoney(t *testing.T) {
	t.Parallel()
	for _, isolation := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads} {
		ctx, prefix := scope(t)
		clients := members(t)
		account := func(i int) string { return fmt.Sprintf("%saccount%d", prefix, i) }
		for i := range 5 {
			put(t, ctx, clients[0], account(i), "100")
		}
		var group sync.WaitGroup
		for worker := range 4 {
			group.Go(func() {
				for range 10 {
					if err := transfer(ctx, clients[worker%len(clients)], isolation, account(rand.IntN(5)), account(rand.IntN(5))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		sum := 0
		for i := range 5 {
			found, err := clients[0].Get(ctx, account(i))
			must(t, err)
			sum += number(string(found.Kvs[0].Value))
		}
		equal(t, fmt.Sprintf("sum with isolation %d", isolation), sum, 500)
	}
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

func transfer(ctx context.Context, client *clientv3.Client, isolation concurrency.Isolation, from, to string) error {
	_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
		if from == to {
			return nil
		}
		source, target := number(stm.Get(from)), number(stm.Get(to))
		amount := source / 2
		stm.Put(from, fmt.Sprint(source-amount))
		stm.Put(to, fmt.Sprint(target+amount))
		return nil
	}, concurrency.WithIsolation(isolation), concurrency.WithAbortContext(ctx))
	return err
}
