package load

// walker reads the top level of a protobuf message piece by piece, without ever holding it: a field's number and either its varint or
// its length. What is inside of submessages is skipped. That is all a client has to do that only counts what a server delivers.
type walker struct {
	field   func(number int, value uint64, length int)
	state   walkState
	number  int
	wire    int
	value   uint64
	shift   uint
	skip    int
	nested  int // fields of this number are entered instead of skipped; only for messages that hold nothing else
	entered bool
}

type walkState int

const (
	inTag walkState = iota
	inVarint
	inLength
	inBody
)

// reset begins a new message.
func (w *walker) reset() { w.state, w.value, w.shift, w.skip, w.entered = inTag, 0, 0, 0, false }

// write takes the next piece; false means that this is no protobuf.
func (w *walker) write(p []byte) bool {
	for len(p) > 0 {
		if w.state == inBody {
			n := min(w.skip, len(p))
			p, w.skip = p[n:], w.skip-n
			if w.skip == 0 {
				w.state = inTag
			}
			continue
		}
		b := p[0]
		p = p[1:]
		if w.shift > 63 {
			return false
		}
		w.value |= uint64(b&0x7f) << w.shift
		w.shift += 7
		if b >= 0x80 {
			continue
		}
		value := w.value
		w.value, w.shift = 0, 0
		if !w.varint(value) {
			return false
		}
	}
	return true
}

// varint takes a complete one: a tag, a value or a length.
func (w *walker) varint(value uint64) bool {
	switch w.state {
	case inTag:
		w.number, w.wire = int(value>>3), int(value&7)
		switch w.wire {
		case 0:
			w.state = inVarint
		case 2:
			w.state = inLength
		case 1:
			w.state, w.skip = inBody, 8
		case 5:
			w.state, w.skip = inBody, 4
		default:
			return false
		}
	case inVarint:
		w.state = inTag
		w.field(w.number, value, 0)
	case inLength:
		w.field(w.number, 0, int(value))
		enter := w.number == w.nested && !w.entered
		w.entered = w.entered || enter
		w.state, w.skip = inBody, int(value)
		if w.skip == 0 || enter {
			w.state, w.skip = inTag, 0
		}
	}
	return true
}
