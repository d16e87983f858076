package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strconv"
)

//go:embed dist
var dist embed.FS

// asset is one file of the page.
type asset struct {
	body       []byte
	kind, etag string
}

// readAssets returns the files by their paths. There is nothing else to serve,
// whatever a path looks like.
func readAssets() map[string]asset {
	out := map[string]asset{}
	kinds := map[string]string{
		".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
		".svg": "image/svg+xml",
	}
	_ = fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error { // it is part of the program
		kind, known := kinds[path.Ext(name)]
		if err != nil || d.IsDir() || !known {
			return err
		}
		body, err := dist.ReadFile(name)
		sum := sha256.Sum256(body)
		out[name[len("dist"):]] = asset{body, kind, `"` + hex.EncodeToString(sum[:8]) + `"`}
		return err
	})
	out["/"] = out["/index.html"]
	return out
}

// asset serves a file of the page, and tells whether there is one.
func (c *console) asset(w http.ResponseWriter, r *http.Request, path string) bool {
	a, ok := c.assets[path]
	if !ok {
		return false
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "use GET")
		return true
	}
	header := w.Header()
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", a.etag)
	if r.Header.Get("If-None-Match") == a.etag {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	header.Set("Content-Type", a.kind)
	header.Set("Content-Length", strconv.Itoa(len(a.body)))
	_, _ = w.Write(a.body)
	return true
}
