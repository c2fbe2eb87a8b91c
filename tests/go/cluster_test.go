// Package gotests drives a running cluster with etcd's official Go client. It knows nothing of the server behind the endpoints: what it
// expects is what etcd does, and tests/go_client.rs runs it against the real etcd too.
//
// RUSD_ENDPOINTS holds the client URLs, separated by commas. Every test keeps to keys of its own, so that tests may run at once and again.
package gotests

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// patience bounds what should happen at once, also on a loaded machine.
const patience = 60 * time.Second

// endpoints of the cluster under test.
func endpoints(t *testing.T) []string {
	t.Helper()
	urls := os.Getenv("RUSD_ENDPOINTS")
	if urls == "" {
		t.Fatal("RUSD_ENDPOINTS is not set")
	}
	return strings.Split(urls, ",")
}

// connect makes a client of the given endpoints that is closed with the test.
func connect(t *testing.T, urls ...string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:          urls,
		DialTimeout:        patience,
		MaxCallSendMsgSize: 16 << 20,
		Logger:             zap.NewNop(),
	})
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// cluster makes a client of all members.
func cluster(t *testing.T) *clientv3.Client {
	t.Helper()
	return connect(t, endpoints(t)...)
}

// members makes a client for each member.
func members(t *testing.T) []*clientv3.Client {
	t.Helper()
	var clients []*clientv3.Client
	for _, url := range endpoints(t) {
		clients = append(clients, connect(t, url))
	}
	return clients
}

// scope is a context and a key prefix of this test alone.
func scope(t *testing.T) (context.Context, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return ctx, fmt.Sprintf("%s/%s/", t.Name(), rand.Text()[:8])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

// equal compares by what is printed: texts of revisions, lists and messages alike.
func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

// words prints all parts with a blank between them.
func words(parts ...any) string {
	return strings.TrimSuffix(fmt.Sprintln(parts...), "\n")
}

// put writes and returns the revision.
func put(t *testing.T, ctx context.Context, kv clientv3.KV, key, value string, options ...clientv3.OpOption) int64 {
	t.Helper()
	done, err := kv.Put(ctx, key, value, options...)
	must(t, err)
	return done.Header.Revision
}

// show prints keys without their prefix and values: "a=1 b=2".
func show(prefix string, found *clientv3.GetResponse) string {
	var pairs []string
	for _, kv := range found.Kvs {
		pairs = append(pairs, fmt.Sprintf("%s=%s", strings.TrimPrefix(string(kv.Key), prefix), kv.Value))
	}
	return strings.Join(pairs, " ")
}

// get reads and shows.
func get(t *testing.T, ctx context.Context, kv clientv3.KV, prefix, key string, options ...clientv3.OpOption) string {
	t.Helper()
	found, err := kv.Get(ctx, prefix+key, options...)
	must(t, err)
	return show(prefix, found)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not true: %s", what)
		}
	}
}
