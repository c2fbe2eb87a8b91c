package load

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Raw is a gRPC client that looks at what it gets as little as possible: frames are read, message borders found and fields counted,
// nothing is decoded or kept. On two cores that a server shares with its load, every microsecond of the client is one less for the server,
// and a client that decodes a million events measures itself.
type Raw struct {
	conn   net.Conn
	framer *http2.Framer
	window int

	mu      sync.Mutex // writes of frames, and the two below
	streams map[uint32]*RawStream
	nextID  uint32

	paused  chan struct{} // closed: the reader reads no more
	unacked int           // bytes read since the connection's last window update
	failed  error         // set before done is closed
	done    chan struct{}
}

// RawStream is one call.
type RawStream struct {
	raw  *Raw
	id   uint32
	walk walker
	end  func() // after each message

	head    [5]byte
	headLen int
	left    int // bytes of the message that are still to come
	unacked int

	status string // grpc-status and its text, when not 0
	Done   chan struct{}
	Bytes  int64 // received; valid once Done
}

// DialRaw connects. The window is what the server may send ahead, per stream and in all.
func DialRaw(endpoint string, window int) (*Raw, error) {
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(endpoint, "http://"), CallTimeout)
	if err != nil {
		return nil, err
	}
	r := &Raw{
		conn: conn, window: window, streams: map[uint32]*RawStream{}, nextID: 1,
		paused: make(chan struct{}), done: make(chan struct{}),
	}
	r.framer = http2.NewFramer(conn, bufio.NewReaderSize(conn, 256<<10))
	r.framer.SetReuseFrames()
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err == nil {
		err = r.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(window)})
	}
	if err == nil && window > 65535 {
		err = r.framer.WriteWindowUpdate(0, uint32(window-65535))
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	go r.read()
	return r, nil
}

// Close ends the connection and waits for its reader.
func (r *Raw) Close() {
	r.conn.Close()
	r.Pause()
	<-r.done
}

// Pause makes the reader stop reading for good, as a client does that hangs.
func (r *Raw) Pause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.paused:
	default:
		close(r.paused)
	}
}

// Open begins a call. field is called for each top-level field of each message and end after each message, both by the reader.
func (r *Raw) Open(path string, field func(number int, value uint64, length int), end func()) (*RawStream, error) {
	s := &RawStream{raw: r, end: end, Done: make(chan struct{})}
	s.walk.field = field
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", r.conn.RemoteAddr().String()},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "rusd-bench"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams == nil {
		return nil, r.failed
	}
	s.id = r.nextID
	r.nextID += 2
	r.streams[s.id] = s
	return s, r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: block.Bytes(), EndHeaders: true})
}

// Nested says that each message is only a wrapper (field 1) of the one whose fields are wanted, as RangeStream's. Before Send.
func (s *RawStream) Nested(yes bool) {
	if yes {
		s.walk.nested = 1
	}
}

// Send writes messages; last says that there will be no more. Our requests are small, so the server's window isn't watched
// but the sum must stay below 64 KiB between its updates: the caller waits for answers.
func (s *RawStream) Send(last bool, messages ...[]byte) error {
	var data []byte
	for _, m := range messages {
		data = append(data, 0)
		data = binary.BigEndian.AppendUint32(data, uint32(len(m)))
		data = append(data, m...)
	}
	s.raw.mu.Lock()
	defer s.raw.mu.Unlock()
	const frameMax = 16384
	for len(data) > frameMax {
		if err := s.raw.framer.WriteData(s.id, false, data[:frameMax]); err != nil {
			return err
		}
		data = data[frameMax:]
	}
	return s.raw.framer.WriteData(s.id, last, data)
}

func (r *Raw) read() {
	err := r.readFrames()
	r.mu.Lock()
	r.failed = err
	open := r.streams
	r.streams = nil
	r.mu.Unlock()
	for _, s := range open {
		s.status = err.Error()
		close(s.Done)
	}
	close(r.done)
}

func (r *Raw) readFrames() error {
	for {
		select {
		case <-r.paused:
			return errors.New("raw: paused")
		default:
		}
		frame, err := r.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			err = r.data(f)
		case *http2.MetaHeadersFrame:
			r.headers(f)
		case *http2.RSTStreamFrame:
			r.finish(f.StreamID, fmt.Sprintf("raw: stream reset: %v", f.ErrCode))
		case *http2.PingFrame:
			if !f.IsAck() {
				err = r.locked(func() error { return r.framer.WritePing(true, f.Data) })
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = r.locked(r.framer.WriteSettingsAck)
			}
		case *http2.GoAwayFrame:
			err = fmt.Errorf("raw: the server goes away: %v %s", f.ErrCode, f.DebugData())
		}
		if err != nil {
			return err
		}
	}
}

func (r *Raw) locked(write func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return write()
}

func (r *Raw) stream(id uint32) *RawStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.streams[id]
}

func (r *Raw) data(f *http2.DataFrame) error {
	n := int(f.Length)
	s := r.stream(f.StreamID)
	if s != nil && !s.take(f.Data()) {
		return errors.New("raw: what the server sent is no protobuf")
	}
	if r.unacked += n; r.unacked >= r.window/4 {
		if err := r.locked(func() error { return r.framer.WriteWindowUpdate(0, uint32(r.unacked)) }); err != nil {
			return err
		}
		r.unacked = 0
	}
	if s == nil {
		return nil
	}
	s.Bytes += int64(n)
	if f.StreamEnded() {
		r.finish(s.id, "")
		return nil
	}
	if s.unacked += n; s.unacked >= r.window/4 {
		if err := r.locked(func() error { return r.framer.WriteWindowUpdate(s.id, uint32(s.unacked)) }); err != nil {
			return err
		}
		s.unacked = 0
	}
	return nil
}

// take goes through the messages in a piece of the stream.
func (s *RawStream) take(p []byte) bool {
	for len(p) > 0 {
		if s.left == 0 {
			n := copy(s.head[s.headLen:], p)
			s.headLen += n
			p = p[n:]
			if s.headLen < len(s.head) {
				return true
			}
			s.headLen = 0
			s.left = int(binary.BigEndian.Uint32(s.head[1:]))
			s.walk.reset()
			if s.left == 0 {
				s.end()
			}
			continue
		}
		n := min(s.left, len(p))
		if !s.walk.write(p[:n]) {
			return false
		}
		p, s.left = p[n:], s.left-n
		if s.left == 0 {
			s.end()
		}
	}
	return true
}

func (r *Raw) headers(f *http2.MetaHeadersFrame) {
	if !f.StreamEnded() {
		return
	}
	var code, text string
	for _, h := range f.Fields {
		switch h.Name {
		case "grpc-status":
			code = h.Value
		case "grpc-message":
			text = h.Value
		}
	}
	if code == "0" {
		r.finish(f.StreamID, "")
	} else {
		r.finish(f.StreamID, fmt.Sprintf("raw: status %s: %s", code, text))
	}
}

func (r *Raw) finish(id uint32, status string) {
	r.mu.Lock()
	s := r.streams[id]
	delete(r.streams, id)
	r.mu.Unlock()
	if s != nil {
		s.status = status
		close(s.Done)
	}
}

// Wait waits for a call's end, at most so long.
func (s *RawStream) Wait(most time.Duration) error {
	select {
	case <-s.Done:
		if s.status != "" {
			return errors.New(s.status)
		}
		return nil
	case <-time.After(most):
		return errors.New("raw: the call doesn't end")
	}
}
