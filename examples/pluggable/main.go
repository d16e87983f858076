// Command pluggable is a sample of a component in a program of its own: a
// pub/sub and a binding in memory, served over gRPC on a Unix socket. It needs
// only gRPC and the published protocol dapr.proto.components.v1, so it is a
// start for one of yours in Go, and a reading for one in another language.
//
// Start it, and Penstock beside it, from the top of the repository:
//
//	go run ./examples/pluggable &
//	penstock serve --app-id demo --resources-path examples/pluggable/resources
//
// The socket's name makes the types: sample.sock is pubsub.sample and
// bindings.sample, which resources/components.yaml uses. What is published to
// bus goes to the subscribers of the topic, and what is sent to the output of
// loop comes in again by its input:
//
//	curl -d '{"n": 1}' -H 'Content-Type: application/json' localhost:3500/v1.0/publish/bus/orders
//	curl -d '{"operation": "create", "data": "hello"}' localhost:3500/v1.0/bindings/loop
//
// What matters to whoever writes a component is in deliver (queue.go): a message
// belongs to the component until it was answered without an error; it is
// delivered again, under the same id, when the answer has one and when the
// stream ends before there is one.
//
// Everything is lost with the process, and a queue holds 10,000 messages.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	components "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
)

func main() {
	folder := os.Getenv("DAPR_COMPONENTS_SOCKETS_FOLDER")
	if folder == "" {
		folder = "/tmp/dapr-components-sockets"
	}
	socket := flag.String("socket", filepath.Join(folder, "sample.sock"), "where to listen")
	flag.Parse()
	if err := run(*socket); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until it is told to stop.
func run(socket string) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return err
	}
	if info, err := os.Lstat(socket); err == nil && info.Mode()&os.ModeSocket != 0 {
		os.Remove(socket) // left behind by a process that was killed
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20))
	components.RegisterPubSubServer(server, newBroker())
	loop := newLoop()
	components.RegisterInputBindingServer(server, input{loop: loop})
	components.RegisterOutputBindingServer(server, output{loop: loop})
	reflection.Register(server) // tells Penstock what is served

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		server.Stop() // the streams would never end by themselves
	}()
	fmt.Println("serving pubsub and bindings on", socket)
	return server.Serve(listener)
}
