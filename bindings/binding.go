package bindings

import (
	"context"

	"github.com/penstock-io/penstock/cloudevents"
)

// Binding is one configured binding: the type everybody but implementations
// uses.
type Binding struct{}

// Name returns the component's name.
func (b *Binding) Name() string { panic("being written") }

// Invoke calls the output binding. Kinds: NotFound when it has no output,
// Invalid for an operation it does not take, Unavailable while it is opening.
func (b *Binding) Invoke(ctx context.Context, r *Request) (*Response, error) {
	panic("being written")
}

// Operations returns what Invoke takes, nil for an input only.
func (b *Binding) Operations() []string { panic("being written") }

// Run implements router.Source with the binding's events.
func (b *Binding) Run(ctx context.Context, emit cloudevents.EmitFunc) error { panic("being written") }
