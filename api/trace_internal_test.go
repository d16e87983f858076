package api

import "testing"

// Trace headers of any kind are kept whole, left out or refused, and what is
// kept is bounded.
func FuzzTrace(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=1,b=2", "k=v;p, l=w")
	f.Add("123", "", "")
	f.Add("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", ",,,,", "=")
	f.Fuzz(func(t *testing.T, parent, state, baggage string) {
		tr, err := TraceHeaders{Parent: []string{parent}, State: []string{state}, Baggage: []string{baggage}}.Trace()
		if err != nil {
			return
		}
		if tr.Parent != "" && tr.Parent != parent || tr.State != "" && tr.State != state || tr.Parent == "" && tr.State != "" {
			t.Fatalf("%+v", tr)
		}
		if len(tr.Parent) > maxTraceState || len(tr.State) > maxTraceState {
			t.Fatalf("%d and %d bytes", len(tr.Parent), len(tr.State))
		}
	})
}
