package awsfake

import "net/http"

// things are what services other than SQS and SNS hold.
type things struct{}

func newThings() things { return things{} }

func (s *Server) dynamo(operation string, _ map[string]any) (any, *Failure) {
	return nil, bad("UnknownOperationException", "%s", operation)
}

func (s *Server) kinesis(operation string, _ map[string]any) (any, *Failure) {
	return nil, bad("UnknownOperationException", "%s", operation)
}

func (s *Server) serveS3(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNotImplemented)
}
