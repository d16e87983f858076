package console

import "strings"

// rule is one kind of request that the console may make of the API. In its path
// {} stands for one name, and a * at the end for one or more.
type rule struct {
	method, path string
	// shared answers are the same for everybody, and may be a moment old; query is
	// what they are asked with, anything else is asked for itself.
	shared bool
	query  string
	// watch is a request that ends when the page goes.
	watch bool
	// write changes what belongs to the app: refused unless the options allow it.
	write bool
}

// rules is the whole list. Nothing on it tells a secret, calls an app or ends
// Penstock.
func rules() []rule {
	const own = "/v1.0-penstock"
	return []rule{
		{method: "GET", path: "/v1.0/metadata", shared: true},
		{method: "GET", path: own + "/routes", shared: true, query: "window=10s"},
		{method: "POST", path: own + "/routes/pause/*"},
		{method: "POST", path: own + "/routes/resume/*"},
		{method: "GET", path: own + "/events"},
		{method: "GET", path: own + "/events/watch", watch: true},
		{method: "GET", path: own + "/deadletters"},
		{method: "GET", path: own + "/deadletters/{}"},
		{method: "POST", path: own + "/deadletters/replay"},
		{method: "POST", path: own + "/deadletters/discard"},
		{method: "GET", path: own + "/triggers", shared: true},
		{method: "POST", path: own + "/triggers/{}/run"},
		{method: "GET", path: own + "/webhooks", shared: true},
		{method: "GET", path: own + "/state/{}"},
		{method: "GET", path: "/v1.0/state/{}/{}"},
		{method: "POST", path: "/v1.0/state/{}", write: true},
		{method: "DELETE", path: "/v1.0/state/{}/{}", write: true},
		{method: "POST", path: "/v1.0/publish/{}/*"},
	}
}

// allowed finds the rule of a request by its path as it was sent. One with a
// part that is empty or a dot, escaped ones too, has none.
func allowed(method, path string) (rule, bool) {
	parts := strings.Split(path, "/")[1:]
	for _, p := range parts {
		switch strings.ReplaceAll(strings.ToLower(p), "%2e", ".") {
		case "", ".", "..":
			return rule{}, false
		}
	}
	for _, r := range rules() {
		if r.method == method && r.matches(parts) {
			return r, true
		}
	}
	return rule{}, false
}

func (r rule) matches(parts []string) bool {
	want := strings.Split(r.path, "/")[1:]
	if rest := want[len(want)-1] == "*"; rest && len(parts) > len(want) {
		parts = parts[:len(want)]
	}
	if len(want) != len(parts) {
		return false
	}
	for i, w := range want {
		if w != "{}" && w != "*" && w != parts[i] {
			return false
		}
	}
	return true
}
