package attack

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// signIn opens a session of the console, as its page does.
func signIn(t *testing.T, host string) (cookie, key string) {
	t.Helper()
	resp, err := http.Post("http://"+host+"/session", "application/json", strings.NewReader(`{"token": "`+pageToken+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	var told struct{ Key string }
	if err := json.NewDecoder(resp.Body).Decode(&told); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("sign in: %s %v", resp.Status, err)
	}
	c := resp.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" {
		t.Errorf("a session's cookie is %s", c)
	}
	return c.Name + "=" + c.Value, told.Key
}
