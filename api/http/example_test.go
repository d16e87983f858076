package http_test

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/penstock-io/penstock/api"
	apihttp "github.com/penstock-io/penstock/api/http"
)

// A server runs until its context ends, then drains.
func ExampleServer() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := apihttp.New(api.New("shop", &instance{}), apihttp.Options{Tokens: []string{"token"}})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { done <- apihttp.NewServer(handler, apihttp.ServerOptions{}).Run(ctx, l) }()

	for _, path := range []string{"/v1.0/healthz", "/v1.0/metadata"} {
		resp, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		_ = resp.Body.Close()
		fmt.Println(path, resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	fmt.Println(<-done)
	// Output:
	// /v1.0/healthz 204
	// /v1.0/metadata 401
	// <nil>
}
