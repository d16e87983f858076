package inmemory

// fifo is a queue that gives its memory back.
type fifo struct {
	items []*entry
	head  int
}

func (f *fifo) len() int { return len(f.items) - f.head }

func (f *fifo) push(e *entry) { f.items = append(f.items, e) }

// pop returns the first, or nil.
func (f *fifo) pop() *entry {
	if f.len() == 0 {
		return nil
	}
	e := f.items[f.head]
	f.items[f.head] = nil
	f.head++
	switch {
	case f.head == len(f.items) && cap(f.items) > 1024:
		*f = fifo{}
	case f.head == len(f.items):
		f.items, f.head = f.items[:0], 0
	case f.head >= 1024 && f.head*2 >= len(f.items):
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	return e
}

// filter removes those for which gone is true.
func (f *fifo) filter(gone func(*entry) bool) {
	kept := f.items[:0]
	for _, e := range f.items[f.head:] {
		if !gone(e) {
			kept = append(kept, e)
		}
	}
	clear(f.items[len(kept):])
	f.items, f.head = kept, 0
}

// bySeq is a heap by place in the queue.
type bySeq []*entry

// Len implements heap.Interface.
func (h bySeq) Len() int { return len(h) }

// Less implements heap.Interface.
func (h bySeq) Less(i, j int) bool { return h[i].seq < h[j].seq }

// Swap implements heap.Interface.
func (h bySeq) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *bySeq) Push(x any) { *h = append(*h, x.(*entry)) }

// Pop implements heap.Interface.
func (h *bySeq) Pop() any { return takeLast((*[]*entry)(h)) }

// byDue is a heap by time.
type byDue []*entry

// Len implements heap.Interface.
func (h byDue) Len() int { return len(h) }

// Less implements heap.Interface. Of two at one time the older goes first.
func (h byDue) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}

// Swap implements heap.Interface.
func (h byDue) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byDue) Push(x any) { *h = append(*h, x.(*entry)) }

// Pop implements heap.Interface.
func (h *byDue) Pop() any { return takeLast((*[]*entry)(h)) }

func takeLast(s *[]*entry) *entry {
	n := len(*s) - 1
	e := (*s)[n]
	(*s)[n] = nil
	*s = (*s)[:n]
	return e
}
