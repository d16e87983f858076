package vault

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	clienthttp "github.com/penstock-io/penstock/client/http"
	"github.com/penstock-io/penstock/fault"
)

// refusal is the error of an answer, with what the server says of it; nil for
// one of 2xx.
func refusal(a *clienthttp.Answer) error {
	if a.Status/100 == 2 {
		return nil
	}
	kind := fault.FromHTTPStatus(a.Status)
	said := strings.Join(complaints(a), "; ")
	text := "the server answers " + http.StatusText(a.Status)
	switch a.Status {
	case http.StatusNotFound:
		text = "there is none"
	case http.StatusForbidden:
		text = "the server refuses"
	case http.StatusServiceUnavailable:
		text = "the server is sealed or in maintenance"
	case http.StatusPreconditionFailed, 472, 473: // a replica that lags, or only stands by
		kind = fault.Unavailable
		text = "the server is not ready to answer"
	}
	if a.Status/100 == 3 {
		kind = fault.Unavailable
		text = "the server sends on to another one; give vaultAddr the address of the active server"
	}
	if said != "" {
		text += ": " + said
	}
	err := fault.New(kind, "ask Vault: %s (%d)", text, a.Status)
	if after := clienthttp.RetryAfter(a.Header, time.Now()); after > 0 {
		err = fault.WithRetryAfter(err, after)
	}
	return err
}

// complaints are what the server says in an error, one line of 400 bytes each.
func complaints(a *clienthttp.Answer) []string {
	var body struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(a.Body, &body) != nil {
		return nil
	}
	for i, e := range body.Errors {
		e = strings.TrimRight(strings.Join(strings.Fields(e), " "), ".")
		if len(e) > 400 {
			e = strings.ToValidUTF8(e[:400], "") + "..."
		}
		body.Errors[i] = e
	}
	return body.Errors[:min(len(body.Errors), 3)]
}

// readFile returns the text of a file without the space around it. Its content
// is never shown.
func readFile(option, name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fault.Wrap(err, "read %s", option)
	}
	defer f.Close()
	const most = 64 << 10
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return "", fault.Wrap(err, "read %s", option)
	}
	text := strings.TrimSpace(string(data))
	if text == "" || len(data) > most || !header(text) {
		return "", fault.New(fault.Invalid, "read %s: %s holds no token on one line", option, name)
	}
	return text, nil
}
