//go:build services

package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// snssqsBroker has one queue for all topics of a group. The server is slow, and
// keeps everything in memory.
func snssqsBroker(name string, fifo bool) *broker {
	suffix, forgets := "", "moto keeps everything in memory, and nobody restarts Amazon's"
	if fifo {
		suffix = ".fifo"
	}
	b := &broker{
		name: name,
		resource: func(x *run) string {
			return componentYAML("pubsub.aws.snssqs", "endpoint", "http://"+x.addr, "region", "us-east-1",
				"accessKey", "key", "secretKey", "secret", "fifo", fmt.Sprint(fifo))
		},
		order: noOrder,
		most:  3,
		rate:  20,
		every: 200 * time.Millisecond,
		not:   map[string]string{"broker restarted 5 s": forgets, "broker restarted 60 s": forgets, "broker killed": forgets},
	}
	if fifo {
		b.order = always
	}
	queue := func(x *run) string { return x.group() + suffix }
	b.watch = func(x *run) (lookFunc, func()) { return watchSQS(b.addr(), queue(x), x.name+suffix) }
	b.remove = func(ctx context.Context, x *run) error {
		c := sqs.New(sqs.Options{
			Region: "us-east-1", BaseEndpoint: sdk.String("http://" + b.addr()), Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
		})
		out, err := c.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: sdk.String(queue(x))})
		if err == nil {
			_, err = c.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: out.QueueUrl})
		}
		return err
	}
	b.there = func(ctx context.Context, x *run) (bool, error) {
		bodies, err := heldBySQS(ctx, b.addr(), queue(x))
		return bodies != nil, err
	}
	return b.opens("aws", hostOf)
}

// heldBySQS returns the bodies of all messages of a queue; nil when there is no
// queue.
func heldBySQS(ctx context.Context, addr, queue string) (bodies []string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/held/"+queue, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, nil
	}
	return bodies, json.NewDecoder(resp.Body).Decode(&bodies)
}

// watchSQS reads which events of a topic are in the queue of a group.
func watchSQS(addr, queue, topic string) (lookFunc, func()) {
	return func(ctx context.Context) (s seen, err error) {
		bodies, err := heldBySQS(ctx, addr, queue)
		if err == nil && bodies == nil {
			err = fmt.Errorf("there is no queue %s", queue)
		}
		s.held = map[string]bool{}
		for _, body := range bodies {
			var e struct{ TopicArn, Message string }
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				return s, err
			}
			if id, ok := idIn([]byte(e.Message)); ok && strings.HasSuffix(e.TopicArn, ":"+topic) {
				s.held[id] = true
			}
		}
		return s, err
	}, func() {}
}
