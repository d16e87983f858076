package expr_test

import (
	"context"
	"fmt"

	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/cloudevents/expr"
)

func Example() {
	event, err := cloudevents.Scan([]byte(`{"specversion":"1.0","id":"7","source":"/shop",` +
		`"type":"order.placed","data":{"total":120,"items":["tea","jam"]}}`))
	if err != nil {
		panic(err)
	}
	c := expr.New()

	filter, _ := c.CompileFilter(`event.type == "order.placed" && event.data.total > 100`)
	fmt.Println(filter.Match(event))

	name, _ := c.CompileTemplate(`{{ event.type }}/{{ event.id }}.json`)
	fmt.Println(name.Render(event))

	program, _ := c.CompileJQ(`{count: (.data.items | length)}`)
	changed, _ := program.Apply(context.Background(), event)
	fmt.Println(string(changed.Data()))

	_, err = c.CompileFilter(`evnt.type == "x"`)
	fmt.Println(err)
	// Output:
	// true <nil>
	// order.placed/7.json <nil>
	// {"count":2}
	// line 1, column 1: unknown name "evnt": the only variable is event, as in event.type or event.data.id
}
