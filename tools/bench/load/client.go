package load

import (
	"context"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// CallTimeout is for single calls that should take milliseconds.
const CallTimeout = 30 * time.Second

// Client is the official one, without its log: what fails is returned.
func Client(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: CallTimeout, Logger: zap.NewNop()})
}

// EagerConn is a connection that tries again every few milliseconds instead of backing off.
func EagerConn(endpoint string) (*grpc.ClientConn, error) {
	eager := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 2 * time.Millisecond, Multiplier: 1, MaxDelay: 5 * time.Millisecond},
		MinConnectTimeout: time.Minute,
	}
	return grpc.NewClient(strings.TrimPrefix(endpoint, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(eager))
}

// FirstGet returns when the server has answered a linearizable get. Until it listens, it is asked again every few milliseconds.
func FirstGet(ctx context.Context, endpoint string) error {
	conn, err := EagerConn(endpoint)
	if err != nil {
		return err
	}
	defer conn.Close()
	kv := etcdserverpb.NewKVClient(conn)
	for {
		_, err := kv.Range(ctx, &etcdserverpb.RangeRequest{Key: []byte("first")}, grpc.WaitForReady(true))
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}
