package awsfake

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Table makes a table of DynamoDB whose key is the attribute id, a string.
func (s *Server) Table(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables[name] = map[string]map[string]any{}
}

// Item returns an item as DynamoDB writes it; empty when there is none.
func (s *Server) Item(table, id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	item := s.tables[table][id]
	if item == nil {
		return ""
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(item) // it came as JSON
	return string(bytes.TrimSpace(b.Bytes()))
}

// dynamo carries out an operation of DynamoDB.
func (s *Server) dynamo(operation string, in map[string]any) (any, *Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := s.tables[str(in, "TableName")]
	if table == nil {
		return nil, bad("ResourceNotFoundException", "Requested resource not found")
	}
	switch operation {
	case "DescribeTable":
		return map[string]any{"Table": map[string]any{"TableName": str(in, "TableName"), "TableStatus": "ACTIVE"}}, nil
	case "PutItem":
		item, _ := in["Item"].(map[string]any)
		key, _ := item["id"].(map[string]any)
		id, ok := key["S"].(string)
		if !ok || id == "" {
			return nil, bad("ValidationException", "One or more parameter values were invalid: Missing the key id in the item")
		}
		if raw, err := json.Marshal(item); err != nil || len(raw) > 400<<10 {
			return nil, bad("ValidationException", "Item size has exceeded the maximum allowed size")
		}
		table[id] = item
		return nil, nil
	}
	return nil, bad("UnknownOperationException", "%s", operation)
}

// Record is one of a stream of Kinesis.
type Record struct {
	Key  string
	Data []byte
}

// Stream makes a stream of Kinesis.
func (s *Server) Stream(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[name] = []Record{}
}

// Records returns what is in a stream, in the order it came.
func (s *Server) Records(stream string) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Record(nil), s.streams[stream]...)
}

const (
	kinesisBytes   = 1 << 20 // of a record
	kinesisRecords = 500     // in a request
)

// kinesis carries out an operation of Kinesis. A record whose key is "throttled"
// fails alone the first time.
func (s *Server) kinesis(operation string, in map[string]any) (any, *Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := str(in, "StreamName")
	if _, ok := s.streams[name]; !ok {
		return nil, bad("ResourceNotFoundException", "Stream %s under account %s not found.", name, Account)
	}
	switch operation {
	case "DescribeStreamSummary":
		return map[string]any{"StreamDescriptionSummary": map[string]any{"StreamName": name, "StreamStatus": "ACTIVE"}}, nil
	case "PutRecords":
		return s.putRecords(name, list(in, "Records"))
	}
	return nil, bad("UnknownOperationException", "%s", operation)
}

// putRecords puts records into a stream; the caller holds mu.
func (s *Server) putRecords(stream string, records []map[string]any) (any, *Failure) {
	if len(records) == 0 || len(records) > kinesisRecords {
		return nil, bad("ValidationException", "%d records", len(records))
	}
	results, failed := []any{}, 0
	for _, r := range records {
		data, err := base64.StdEncoding.DecodeString(str(r, "Data"))
		key := str(r, "PartitionKey")
		if err != nil || len(data)+len(key) > kinesisBytes || key == "" || len(key) > 256 {
			return nil, bad("ValidationException", "record of %d bytes with key %q", len(data), key)
		}
		if key == "throttled" && s.calls["PutRecords"] == 1 {
			failed++
			results = append(results, map[string]any{"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"})
			continue
		}
		s.streams[stream] = append(s.streams[stream], Record{key, data})
		results = append(results, map[string]any{"SequenceNumber": fmt.Sprint(len(s.streams[stream])), "ShardId": "shardId-000000000000"})
	}
	return map[string]any{"FailedRecordCount": failed, "Records": results}, nil
}
