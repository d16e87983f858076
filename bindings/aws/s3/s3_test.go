package s3

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/bindings"
	"github.com/penstock-io/penstock/cloudevents"
	"github.com/penstock-io/penstock/component"
	"github.com/penstock-io/penstock/config"
	"github.com/penstock-io/penstock/fault"
	"github.com/penstock-io/penstock/test/awsfake"
	"github.com/penstock-io/penstock/test/conform"
)

// beside is the configuration of clients that stand beside the component.
func beside(url string) aws.Config {
	return aws.Config{
		HTTPClient:   &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, // the suite counts goroutines
		BaseEndpoint: &url, Region: awsfake.Region, Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	}
}

func objects(url string) *s3.Client {
	return s3.NewFromConfig(beside(url), func(o *s3.Options) { o.UsePathStyle = true })
}

// suite runs what every binding promises; fresh makes a bucket that writes its
// notifications to a queue. Notices tells that the server does not hand out
// messages to a receive whose client has gone.
func suite(t *testing.T, url string, notices bool, fresh func(*testing.T) map[string]string) {
	t.Helper()
	named := map[string]string{"key": "a/b c"}
	conform.Binding(t, Component, conform.BindingSetup{
		Options: fresh,
		Wrong: map[string]map[string]string{
			"maxObjectSize":     {"maxObjectSize": "0"},
			"withContent":       {"queueName": ""},
			"visibilityTimeout": {"visibilityTimeout": "1500ms"},
			"waitTime":          {"waitTime": "0s"},
			"accessKey":         {"accessKey": ""},
		},
		KeepsDelay: notices,
		Delay:      3 * time.Second,
		Forgets:    !notices,
		Feed: func(t *testing.T, options map[string]string, bodies ...string) {
			for _, body := range bodies {
				_, err := objects(url).PutObject(t.Context(), &s3.PutObjectInput{
					Bucket: aws.String(options["bucket"]), Key: aws.String(conform.Unique(t)), Body: strings.NewReader(body),
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		},
		Requests: func(map[string]string) []bindings.Request {
			return []bindings.Request{
				{Operation: "create", Data: []byte("x"), Metadata: named},
				{Operation: "get", Metadata: named},
				{Operation: "list", Data: []byte(`{"prefix":"a/"}`)},
				{Operation: "presign", Metadata: map[string]string{"key": "a/b c", "presignTTL": "15m"}},
				{Operation: "delete", Metadata: named},
			}
		},
		RoundTrip: func(t *testing.T, out bindings.Invoker, _ map[string]string, data []byte) ([]byte, error) {
			key := map[string]string{"key": conform.Unique(t)}
			if _, err := out.Invoke(t.Context(), &bindings.Request{Operation: "create", Data: data, Metadata: key}); err != nil {
				return nil, err
			}
			resp, err := out.Invoke(t.Context(), &bindings.Request{Operation: "get", Metadata: key})
			if err != nil {
				return nil, err
			}
			return resp.Data, nil
		},
		Fails: []conform.BindingFailure{
			{Name: "missing object", Request: bindings.Request{Operation: "get", Metadata: named}, Kind: fault.NotFound},
			{Name: "no key", Request: bindings.Request{Operation: "delete"}, Kind: fault.Invalid},
			{Name: "no life", Request: bindings.Request{Operation: "presign", Metadata: named}, Kind: fault.Invalid},
			{Name: "life", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"presignTTL": "soon"}}, Kind: fault.Invalid},
			{Name: "tags", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"tags": "a"}}, Kind: fault.Invalid},
			{Name: "base64", Request: bindings.Request{Operation: "create", Data: []byte("!"), Metadata: map[string]string{"decodeBase64": "true"}}, Kind: fault.Invalid},
			{Name: "file", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"filePath": "/no/such/file"}}, Kind: fault.NotFound},
			{Name: "folder", Request: bindings.Request{Operation: "create", Metadata: map[string]string{"filePath": "/"}}, Kind: fault.Invalid},
			{Name: "list", Request: bindings.Request{Operation: "list", Data: []byte("[]")}, Kind: fault.Invalid},
		},
	})
}

// fresh makes a bucket and a queue on the fake.
func fresh(t testing.TB, s *awsfake.Server) map[string]string {
	t.Helper()
	o, name := maps.Clone(s.Options()), conform.Unique(t)
	if _, err := sqs.NewFromConfig(beside(s.URL)).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name}); err != nil {
		t.Fatal(err)
	}
	s.Bucket(name, name)
	o["bucket"], o["queueName"], o["forcePathStyle"], o["withContent"], o["waitTime"], o["visibilityTimeout"] = name, name, "true", "true", "1s", "5s"
	return o
}

func TestConform(t *testing.T) { // not parallel: the suite counts goroutines
	s := awsfake.Start(t)
	suite(t, s.URL, true, func(t *testing.T) map[string]string { return fresh(t, s) })
}

// opened opens the binding with options put over those given.
func opened(t testing.TB, options map[string]string, more ...string) component.Driver {
	t.Helper()
	all := maps.Clone(options)
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	var items []config.Item
	for _, name := range slices.Sorted(maps.Keys(all)) {
		items = append(items, config.Item{Name: name, Value: all[name]})
	}
	d, err := Component.Open(t.Context(), component.Env{Name: "uploads", Shared: &component.Shared{}}, items)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	return d
}

func invoke(t testing.TB, d component.Driver, operation, data string, metadata map[string]string) []byte {
	t.Helper()
	resp, err := d.(bindings.Invoker).Invoke(t.Context(), &bindings.Request{Operation: operation, Data: []byte(data), Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	if resp == nil {
		return nil
	}
	return resp.Data
}

func TestOutputOnlyWithoutQueue(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	if _, ok := opened(t, fresh(t, s), "queueName", "", "withContent", "false").(bindings.Reader); ok {
		t.Error("it can be read from")
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	o := fresh(t, s)
	d := opened(t, o, "storageClass", "STANDARD_IA")
	var got created
	if err := json.Unmarshal(invoke(t, d, "create", "text", map[string]string{
		"key": "a b/ä.txt", "tags": "project=mill, year=2026", "contentType": "text/x-mill", "presignTTL": "15m",
	}), &got); err != nil {
		t.Fatal(err)
	}
	obj := s.Object(o["bucket"], "a b/ä.txt")
	if obj == nil || string(obj.Body) != "text" || obj.ContentType != "text/x-mill" || obj.StorageClass != "STANDARD_IA" || obj.Tags != "project=mill&year=2026" {
		t.Errorf("object %+v", obj)
	}
	if want := s.URL + "/" + o["bucket"] + "/a%20b/%C3%A4.txt"; got.Location != want {
		t.Errorf("location %s, want %s", got.Location, want)
	}
	wantSigned(t, got.PresignURL, "900", "text")
	// Without a key one is made up, and no address is given away.
	if err := json.Unmarshal(invoke(t, d, "create", "eA==", map[string]string{"decodeBase64": "true", "storageClass": "GLACIER"}), &got); err != nil {
		t.Fatal(err)
	}
	key := got.Location[strings.LastIndexByte(got.Location, '/')+1:]
	if obj = s.Object(o["bucket"], key); len(key) != 36 || obj == nil || string(obj.Body) != "x" || obj.StorageClass != "GLACIER" {
		t.Errorf("key %s has %+v", key, obj)
	}
}

// wantSigned fetches a presigned address.
func wantSigned(t *testing.T, address, expires, want string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || u.Query().Get("X-Amz-Expires") != expires || u.Query().Get("X-Amz-Signature") == "" {
		t.Fatalf("address %s (%v)", address, err)
	}
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
		t.Errorf("%q behind the address (%v)", body, err)
	}
}

func TestFileAndBase64(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	o := fresh(t, s)
	d := opened(t, o, "encodeBase64", "true", "maxObjectSize", "10")
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("\x00file"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := map[string]string{"key": "k", "filePath": path}
	invoke(t, d, "create", "ignored", key)
	if got := invoke(t, d, "get", "", key); string(got) != base64.StdEncoding.EncodeToString([]byte("\x00file")) {
		t.Errorf("got %q", got)
	}
	if got := invoke(t, d, "get", "", map[string]string{"key": "k", "encodeBase64": "false"}); string(got) != "\x00file" {
		t.Errorf("got %q", got)
	}
	invoke(t, d, "create", "12345678901", map[string]string{"key": "large"})
	_, err := d.(bindings.Invoker).Invoke(t.Context(), &bindings.Request{Operation: "get", Metadata: map[string]string{"key": "large"}})
	if err == nil || fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "maxObjectSize") {
		t.Errorf("a large object: %v", err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	o := fresh(t, s)
	d := opened(t, o)
	for _, key := range []string{"a", "b", "c", "d/1", "d/2"} {
		invoke(t, d, "create", key, map[string]string{"key": key})
	}
	list := func(data string) (l listing) {
		t.Helper()
		if err := json.Unmarshal(invoke(t, d, "list", data, nil), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	keys := func(l listing) (keys []string) {
		for _, e := range l.Contents {
			keys = append(keys, e.Key)
		}
		return keys
	}
	first := list(`{"maxResults":2}`)
	second := list(`{"maxResults":9,"marker":"` + first.NextMarker + `","delimiter":"/"}`)
	all := list("")
	if diff := cmp.Diff([][]string{{"a", "b"}, {"c"}, {"a", "b", "c", "d/1", "d/2"}}, [][]string{keys(first), keys(second), keys(all)}); diff != "" {
		t.Errorf("keys (-want +got)\n%s", diff)
	}
	if !first.IsTruncated || first.NextMarker != "b" || all.IsTruncated || all.MaxKeys != 1000 || all.Name != o["bucket"] {
		t.Errorf("first %+v, all %+v", first, all)
	}
	if diff := cmp.Diff([]folder{{"d/"}}, second.CommonPrefixes); diff != "" {
		t.Errorf("folders (-want +got)\n%s", diff)
	}
	if e := all.Contents[0]; e.Size != 1 || e.LastModified.IsZero() || !strings.HasPrefix(e.ETag, `"`) {
		t.Errorf("entry %+v", e)
	}
}

func TestPresign(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	d := opened(t, fresh(t, s))
	key := map[string]string{"key": "k", "presignTTL": "1h"}
	invoke(t, d, "create", "text", key)
	var got struct{ PresignURL string }
	if err := json.Unmarshal(invoke(t, d, "presign", "", key), &got); err != nil {
		t.Fatal(err)
	}
	wantSigned(t, got.PresignURL, "3600", "text")
}

// read takes n deliveries, acknowledging those that settle is nil for.
func read(t testing.TB, d component.Driver, n int, settle func(*cloudevents.Delivery)) (got []*cloudevents.Delivery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	deliveries := make(chan *cloudevents.Delivery)
	done := make(chan error, 1)
	go func() {
		done <- d.(bindings.Reader).Read(ctx, func(ctx context.Context, d *cloudevents.Delivery) error {
			select {
			case deliveries <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	for len(got) < n {
		select {
		case d := <-deliveries:
			got = append(got, d)
			settle(d)
		case err := <-done:
			t.Fatalf("%d events came (%v)", len(got), err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return got
}

func ack(d *cloudevents.Delivery) { d.Settle(cloudevents.Acked()) }

func TestNotifications(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	o := fresh(t, s)
	d := opened(t, o, "withContent", "false")
	invoke(t, d, "create", "text", map[string]string{"key": "a b/ä"})
	got := read(t, d, 1, ack)[0]
	e := got.Event
	if e.Type() != "com.amazonaws.s3.ObjectCreated:Put" || e.Source() != "aws:s3.us-east-1."+o["bucket"] || e.DataContentType() != "application/json" {
		t.Errorf("event %s", e.JSON())
	}
	if got.Key != "a b/ä" || got.Metadata["key"] != "a b/ä" || got.Metadata["size"] != "4" || got.Metadata["bucket"] != o["bucket"] {
		t.Errorf("key %s, metadata %v", got.Key, got.Metadata)
	}
	invoke(t, d, "delete", "", map[string]string{"key": "a b/ä"})
	if got := read(t, d, 1, ack)[0]; got.Event.Type() != "com.amazonaws.s3.ObjectRemoved:Delete" {
		t.Errorf("event %s", got.Event.JSON())
	}
}

func TestContent(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	d := opened(t, fresh(t, s), "maxObjectSize", "10")
	for name, row := range map[string]struct{ body, contentType, content string }{
		"with":      {"text", "text/x-mill", ""},
		"too large": {"12345678901", "application/json", "none"},
	} {
		invoke(t, d, "create", row.body, map[string]string{"key": name, "contentType": "text/x-mill"})
		got := read(t, d, 1, ack)[0]
		if got.Event.DataContentType() != row.contentType || got.Metadata["content"] != row.content || row.content == "" && string(got.Body) != row.body {
			t.Errorf("%s: event %s, metadata %v", name, got.Event.JSON(), got.Metadata)
		}
	}
	invoke(t, d, "delete", "", map[string]string{"key": "with"}) // nothing left to fetch
	if got := read(t, d, 1, ack)[0]; got.Metadata["content"] != "none" {
		t.Errorf("event %s", got.Event.JSON())
	}
}

// Notifications come with several records, through topics, as a test, and with
// strangers among them.
func TestForms(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	o := fresh(t, s)
	d := opened(t, o, "withContent", "false")
	api := sqs.NewFromConfig(beside(s.URL))
	send := func(body string) {
		t.Helper()
		if _, err := api.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String(d.(*both).queue.URL()), MessageBody: &body}); err != nil {
			t.Fatal(err)
		}
	}
	one := `{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k1"}}}`
	two := strings.Replace(one, "k1", "k2", 1)
	send(`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}`)
	send(`{"Records":[` + one + `,` + two + `]}`)
	first := map[string]int{}
	got := read(t, d, 2, func(d *cloudevents.Delivery) { // one fails: both come again
		if first[d.Key]++; d.Key == "k1" {
			d.Settle(cloudevents.Retried(nil, 0))
			return
		}
		ack(d)
	})
	if got[0].Key+got[1].Key != "k1k2" || got[0].Event.ID() == got[1].Event.ID() {
		t.Errorf("%s and %s", got[0].Event.JSON(), got[1].Event.JSON())
	}
	again := read(t, d, 2, ack)
	if again[0].Attempt != 2 || again[0].Event.ID() != got[0].Event.ID() || again[1].Event.ID() != got[1].Event.ID() {
		t.Errorf("attempt %d of %s", again[0].Attempt, again[0].Event.JSON())
	}
	wrapped, err := json.Marshal(map[string]string{"Type": "Notification", "TopicArn": "arn", "Message": `{"Records":[` + one + `]}`})
	if err != nil {
		t.Fatal(err)
	}
	send(string(wrapped))
	if got := read(t, d, 1, ack)[0]; got.Key != "k1" {
		t.Errorf("through a topic: %s", got.Event.JSON())
	}
	send("hello")
	if got := read(t, d, 1, ack)[0]; got.Event.Type() != "io.penstock.sqs.message" || string(got.Body) != "hello" {
		t.Errorf("a stranger: %s", got.Event.JSON())
	}
	for late := time.After(30 * time.Second); len(s.Bodies(o["queueName"])) > 0; { // deletes may be under way
		select {
		case <-late:
			t.Fatalf("left in the queue: %q", s.Bodies(o["queueName"]))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	s := awsfake.Start(t)
	for name, more := range map[string]string{"bucket": "bucket", "queue": "queueName"} {
		o := fresh(t, s)
		o[more] = "none"
		var items []config.Item
		for name, value := range o {
			items = append(items, config.Item{Name: name, Value: value})
		}
		if _, err := Component.Open(t.Context(), component.Env{Name: "uploads", Shared: &component.Shared{}}, items); err == nil || fault.KindOf(err) != fault.NotFound {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	acked, dropped, left := cloudevents.Acked(), cloudevents.Dropped("x", nil), cloudevents.Left("x")
	soon, late := cloudevents.Retried(nil, time.Second), cloudevents.Retried(nil, time.Minute)
	for name, row := range map[string]struct {
		outcomes []cloudevents.Outcome
		want     cloudevents.Outcome
	}{
		"all well":   {[]cloudevents.Outcome{acked, acked}, acked},
		"one drop":   {[]cloudevents.Outcome{dropped, acked}, dropped},
		"left":       {[]cloudevents.Outcome{acked, left, dropped}, left},
		"first left": {[]cloudevents.Outcome{left, acked}, left},
		"retry":      {[]cloudevents.Outcome{soon, acked, left}, soon},
		"latest":     {[]cloudevents.Outcome{soon, late, soon}, late},
	} {
		var got []cloudevents.Outcome
		s := &shares{left: len(row.outcomes), settle: func(o cloudevents.Outcome) { got = append(got, o) }}
		for _, o := range row.outcomes {
			settle := s.one()
			settle(o)
			settle(left) // only the first counts
		}
		if len(got) != 1 || got[0].Verdict != row.want.Verdict || got[0].After != row.want.After {
			t.Errorf("%s: %v", name, got)
		}
	}
}
