package gotests

import (
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The Go client knows an error by its code and exact text, so each must be the very value that rpctypes names.
func TestErrorsAreTheClientsOwn(t *testing.T) {
	t.Parallel()
	ctx, prefix := scope(t)
	client := cluster(t)
	kv := pb.NewKVClient(client.ActiveConnection())
	key := []byte(prefix + "k")
	put(t, ctx, client, prefix+"k", "v")
	range_ := func(request *pb.RangeRequest) error { _, err := kv.Range(ctx, request); return err }
	put_ := func(request *pb.PutRequest) error { _, err := kv.Put(ctx, request); return err }
	txn := func(ops ...clientv3.Op) error { _, err := client.Txn(ctx).Then(ops...).Commit(); return err }
	var many []clientv3.Op
	for range 129 {
		many = append(many, clientv3.OpGet(prefix))
	}
	_, noDelete := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{})
	_, emptyOperation := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{}}})
	_, compacted := client.Compact(ctx, -1)
	_, future := client.Compact(ctx, 1<<60)
	_, tooLarge := client.Grant(ctx, 9_000_000_001)
	_, noLease := client.Revoke(ctx, 0x7ee7)
	_, authOff := client.Authenticate(ctx, "root", "root")
	_, noKey := client.Put(ctx, prefix+"none", "", clientv3.WithIgnoreValue())
	for name, row := range map[string]struct{ got, want error }{
		"range without a key":   {range_(&pb.RangeRequest{}), rpctypes.ErrEmptyKey},
		"put without a key":     {put_(&pb.PutRequest{}), rpctypes.ErrEmptyKey},
		"delete without a key":  {noDelete, rpctypes.ErrEmptyKey},
		"unknown sort":          {range_(&pb.RangeRequest{Key: key, SortOrder: 9}), rpctypes.ErrInvalidSortOption},
		"unknown sort target":   {range_(&pb.RangeRequest{Key: key, SortTarget: 9}), rpctypes.ErrInvalidSortOption},
		"a future revision":     {range_(&pb.RangeRequest{Key: key, Revision: 1 << 60}), rpctypes.ErrFutureRev},
		"value to ignore":       {put_(&pb.PutRequest{Key: key, Value: key, IgnoreValue: true}), rpctypes.ErrValueProvided},
		"lease to ignore":       {put_(&pb.PutRequest{Key: key, Lease: 1, IgnoreLease: true}), rpctypes.ErrLeaseProvided},
		"unknown lease":         {put_(&pb.PutRequest{Key: key, Lease: 0x7ee7}), rpctypes.ErrLeaseNotFound},
		"nothing to keep":       {noKey, rpctypes.ErrKeyNotFound},
		"too large":             {put_(&pb.PutRequest{Key: key, Value: []byte(strings.Repeat("v", 1600<<10))}), rpctypes.ErrRequestTooLarge},
		"too many operations":   {txn(many...), rpctypes.ErrTooManyOps},
		"an empty operation":    {emptyOperation, rpctypes.ErrKeyNotFound},
		"a key put twice":       {txn(clientv3.OpPut(prefix, ""), clientv3.OpPut(prefix, "")), rpctypes.ErrDuplicateKey},
		"compacted":             {compacted, rpctypes.ErrCompacted},
		"compact in the future": {future, rpctypes.ErrFutureRev},
		"a lease for ever":      {tooLarge, rpctypes.ErrLeaseTTLTooLarge},
		"a lease that is not":   {noLease, rpctypes.ErrLeaseNotFound},
		"a user without auth":   {authOff, rpctypes.ErrAuthNotEnabled},
	} {
		if rpctypes.Error(row.got) != rpctypes.Error(row.want) {
			t.Errorf("%s: got %v, want %v", name, row.got, row.want)
		}
	}
	over := put_(&pb.PutRequest{Key: key, Value: []byte(strings.Repeat("v", 3<<20))})
	if want := "ResourceExhausted: grpc: received message larger than max (3145"; !strings.HasPrefix(told(over), want) {
		t.Errorf("a giant message: got %q, want %q...", told(over), want)
	}
}
