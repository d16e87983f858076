package redis

import (
	"context"
	"maps"
	"testing"

	"github.com/redis/rueidis"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/conform"
)

// suites run what every binding promises on a server, for each of the inputs.
func suites(t *testing.T, addr string) {
	t.Helper()
	add := map[string]func(rueidis.Client, string, string) rueidis.Completed{
		"stream": func(c rueidis.Client, key, body string) rueidis.Completed {
			return c.B().Xadd().Key(key).Id("*").FieldValue().FieldValue("data", body).Build()
		},
		"list": func(c rueidis.Client, key, body string) rueidis.Completed {
			return c.B().Rpush().Key(key).Element(body).Build()
		},
	}
	for kind, add := range add {
		t.Run(kind, func(t *testing.T) {
			conform.Binding(t, Component, conform.BindingSetup{
				Options: func(t *testing.T) map[string]string {
					return map[string]string{"redisHost": addr, kind: conform.Unique(t)}
				},
				Wrong: map[string]map[string]string{
					"redisHost":         {"redisHost": "a:1", "redisPort": "2"},
					"queueDepth":        {"queueDepth": "0"},
					"processingTimeout": {"processingTimeout": "-1s"},
					"list":              {"stream": "a", "list": "b"},
					"listEnd":           {"listEnd": "top"},
					"failover":          {"failover": "true"},
				},
				KeepsDelay: true,
				Feed: func(t *testing.T, options map[string]string, bodies ...string) {
					c := server(t, addr)
					for _, body := range bodies {
						if err := c.Do(t.Context(), add(c, options[kind], body)).Error(); err != nil {
							t.Fatal(err)
						}
					}
				},
				Requests: requests,
				RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
					meta := map[string]string{"key": conform.Unique(t), "ttlInSeconds": "60"}
					if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: meta}); err != nil {
						return nil, err
					}
					get := maps.Clone(meta)
					get["delete"] = "true"
					resp, err := out.Invoke(t.Context(), &bindings.Request{Operation: "get", Metadata: get})
					if err != nil {
						return nil, err
					}
					return resp.Data, nil
				},
				Fails: []conform.BindingFailure{
					{Name: "no key", Kind: fault.Invalid, Request: bindings.Request{Operation: "get"}},
					{Name: "time to live", Kind: fault.Invalid, Request: bindings.Request{
						Operation: "create", Metadata: map[string]string{"key": "k", "ttlInSeconds": "soon"},
					}},
				},
			})
		})
	}
}

func requests(options map[string]string) []bindings.Request {
	key := options["stream"] + options["list"] + "-key"
	return []bindings.Request{
		{Operation: "create", Data: []byte("41"), Metadata: map[string]string{"key": key, "ttlInSeconds": "60"}},
		{Operation: "increment", Metadata: map[string]string{"key": key}},
		{Operation: "get", Metadata: map[string]string{"key": key}},
		{Operation: "delete", Metadata: map[string]string{"key": key}},
	}
}

// server is a client of the test.
func server(t testing.TB, addr string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// say carries out a command that must succeed and returns its answer.
func say(t testing.TB, c rueidis.Client, words ...string) rueidis.RedisResult {
	t.Helper()
	r := c.Do(context.WithoutCancel(t.Context()), c.B().Arbitrary(words...).Build())
	if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
		t.Fatal(words, err)
	}
	return r
}
