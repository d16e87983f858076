package outcome

import (
	"google.golang.org/grpc/codes"
)

// want is what becomes of an event after the app's first answer; the second is
// always a success.
type want struct {
	verdict string // ack, retry, drop, discard (dropped, never dead-lettered) or leave
	reason  string // a part of the dead letter's reason
	kind    string // of the dead letter
}

func acked() want                      { return want{verdict: "ack"} }
func retried(reason, kind string) want { return want{"retry", reason, kind} }
func dropped(reason, kind string) want { return want{"drop", reason, kind} }

// said is an answer, in the words of each way.
type said struct {
	status int        // HTTP
	body   string     // HTTP; ID stands for the id of a bulk entry
	code   codes.Code // gRPC
	word   int32      // gRPC and stream: the number of the status
	none   bool       // bulk over gRPC: the answer has no entry
	hangUp bool       // stream: it ends instead of answering
}

type row struct {
	name string
	said said
	want want
}

// httpRows are the rows of the contract over HTTP.
func httpRows() []row {
	said500 := func(code int) said { return said{status: code} }
	return []row{
		{"empty", said{}, acked()},
		{"201", said{status: 201}, acked()},
		{"204", said{status: 204}, acked()},
		{"not JSON", said{body: "fine"}, acked()},
		{"not an object", said{body: `["RETRY"]`}, acked()},
		{"status missing", said{body: `{"x":1}`}, acked()},
		{"status empty", said{body: `{"status":""}`}, acked()},
		{"SUCCESS", said{body: `{"status":"SUCCESS"}`}, acked()},
		{"RETRY", said{body: `{"status":"RETRY"}`}, retried("said RETRY", "unavailable")},
		{"DROP", said{body: `{"status":"DROP"}`}, dropped("app said DROP", "dropped")},
		{"unknown status", said{body: `{"status":"MAYBE"}`}, retried(`"MAYBE"`, "internal")},
		{"404", said500(404), dropped("404", "not found")},
		{"400", said500(400), retried("400", "invalid")},
		{"401", said500(401), retried("401", "denied")},
		{"403", said500(403), retried("403", "denied")},
		{"408", said500(408), retried("408", "timeout")},
		{"409", said500(409), retried("409", "conflict")},
		{"429", said500(429), retried("429", "exhausted")},
		{"302", said500(302), retried("302", "")},
		{"500", said500(500), retried("500", "internal")},
		{"503", said500(503), retried("503", "unavailable")},
	}
}

// grpcRows are those over gRPC.
func grpcRows() []row {
	return []row{
		{"SUCCESS", said{word: 0}, acked()},
		{"RETRY", said{word: 1}, retried("said RETRY", "unavailable")},
		{"DROP", said{word: 2}, dropped("app said DROP", "dropped")},
		{"unknown status", said{word: 7}, retried("7", "internal")},
		{"Unimplemented", said{code: codes.Unimplemented}, want{verdict: "discard"}},
		{"NotFound", said{code: codes.NotFound}, retried("NotFound", "not found")},
		{"InvalidArgument", said{code: codes.InvalidArgument}, retried("InvalidArgument", "invalid")},
		{"PermissionDenied", said{code: codes.PermissionDenied}, retried("PermissionDenied", "denied")},
		{"ResourceExhausted", said{code: codes.ResourceExhausted}, retried("ResourceExhausted", "exhausted")},
		{"Aborted", said{code: codes.Aborted}, retried("Aborted", "")},
		{"DeadlineExceeded", said{code: codes.DeadlineExceeded}, retried("DeadlineExceeded", "timeout")},
		{"Internal", said{code: codes.Internal}, retried("Internal", "internal")},
		{"Unknown", said{code: codes.Unknown}, retried("Unknown", "")},
	}
}

// streamRows are those over a stream that the app holds open.
func streamRows() []row {
	return []row{
		{"SUCCESS", said{word: 0}, acked()},
		{"RETRY", said{word: 1}, retried("said RETRY", "unavailable")},
		{"DROP", said{word: 2}, dropped("app said DROP", "dropped")},
		{"unknown status", said{word: 7}, retried("7", "internal")},
		{"stream ends", said{hangUp: true}, want{verdict: "leave"}},
	}
}

// bulkHTTPRows are those of one entry of a bulk delivery over HTTP.
func bulkHTTPRows() []row {
	entry := func(status string) said {
		return said{body: `{"statuses":[{"entryId":"ID","status":"` + status + `"}]}`}
	}
	return []row{
		{"SUCCESS", entry("SUCCESS"), acked()},
		{"entry empty", entry(""), acked()},
		{"RETRY", entry("RETRY"), retried("said RETRY", "unavailable")},
		{"DROP", entry("DROP"), dropped("app said DROP", "dropped")},
		{"unknown status", entry("MAYBE"), retried(`"MAYBE"`, "internal")},
		{"entry missing", said{body: `{"statuses":[]}`}, retried("no status for this entry", "internal")},
		{"empty answer", said{}, retried("no status for this entry", "internal")},
		{"not JSON", said{body: "fine"}, retried("no status for this entry", "internal")},
		{"404", said{status: 404}, dropped("404", "not found")},
		{"500", said{status: 500}, retried("500", "internal")},
		{"503", said{status: 503}, retried("503", "unavailable")},
	}
}

// bulkGRPCRows are those of one entry of a bulk delivery over gRPC.
func bulkGRPCRows() []row {
	return []row{
		{"SUCCESS", said{word: 0}, acked()},
		{"RETRY", said{word: 1}, retried("said RETRY", "unavailable")},
		{"DROP", said{word: 2}, dropped("app said DROP", "dropped")},
		{"unknown status", said{word: 7}, retried("7", "internal")},
		{"entry missing", said{none: true}, retried("no status for this entry", "internal")},
		{"Unavailable", said{code: codes.Unavailable}, retried("Unavailable", "unavailable")},
		{"Internal", said{code: codes.Internal}, retried("Internal", "internal")},
	}
}
