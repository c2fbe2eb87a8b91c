package load

import (
	"encoding/binary"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

func listAnswer(t *testing.T, keys int) []byte {
	t.Helper()
	answer := &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{Revision: 7}, More: true, Count: 12345}
	for i := range keys {
		answer.Kvs = append(answer.Kvs, &mvccpb.KeyValue{Key: fmt.Appendf(nil, "key-%d", i), Value: make([]byte, i%300), ModRevision: 1 << 40})
	}
	message, err := proto.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// However the bytes are cut into pieces, the same fields come out.
func TestWalkerCountsFieldsAcrossCuts(t *testing.T) {
	message := listAnswer(t, 700)
	for _, piece := range []int{1, 2, 3, 7, 100, len(message)} {
		keys, count := 0, uint64(0)
		w := walker{field: func(number int, value uint64, _ int) {
			switch number {
			case 2:
				keys++
			case 4:
				count = value
			}
		}}
		for rest := message; len(rest) > 0; {
			n := min(piece, len(rest))
			if !w.write(rest[:n]) {
				t.Fatalf("pieces of %d: not understood", piece)
			}
			rest = rest[n:]
		}
		if keys != 700 || count != 12345 || w.state != inTag {
			t.Errorf("pieces of %d: %d keys, count %d", piece, keys, count)
		}
	}
}

func TestWalkerEntersAWrapper(t *testing.T) {
	wrapped, err := proto.Marshal(&etcdserverpb.RangeStreamResponse{RangeResponse: &etcdserverpb.RangeResponse{
		Kvs: []*mvccpb.KeyValue{{Key: []byte("a")}, {Key: []byte("b")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	w := walker{nested: 1, field: func(number int, _ uint64, _ int) {
		if number == 2 {
			keys++
		}
	}}
	if !w.write(wrapped) || keys != 2 {
		t.Errorf("%d keys", keys)
	}
}

func TestWalkerRefusesGarbage(t *testing.T) {
	w := walker{field: func(int, uint64, int) {}}
	if w.write([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}) {
		t.Error("a varint without end")
	}
	w.reset()
	if w.write([]byte{0x0b}) {
		t.Error("a group")
	}
}

// Several messages in one DATA frame, and one message in several frames.
func TestStreamFindsMessages(t *testing.T) {
	var stream []byte
	for _, keys := range []int{0, 3, 50} {
		message := listAnswer(t, keys)
		stream = append(stream, 0)
		stream = binary.BigEndian.AppendUint32(stream, uint32(len(message)))
		stream = append(stream, message...)
	}
	for _, piece := range []int{1, 4, 6, 1000, len(stream)} {
		messages, keys := 0, 0
		s := &RawStream{end: func() { messages++ }}
		s.walk.field = func(number int, _ uint64, _ int) {
			if number == 2 {
				keys++
			}
		}
		for rest := stream; len(rest) > 0; {
			n := min(piece, len(rest))
			if !s.take(rest[:n]) {
				t.Fatal("not understood")
			}
			rest = rest[n:]
		}
		if messages != 3 || keys != 53 {
			t.Errorf("pieces of %d: %d messages, %d keys", piece, messages, keys)
		}
	}
}
