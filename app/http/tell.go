package http

import (
	"context"
	"net/http"
	"time"
)

// Tell posts body to path; any success means that the app has taken it.
func (c *Channel) Tell(ctx context.Context, path string, body []byte, limit time.Duration) error {
	answer, err := c.Call(ctx, &Request{
		Method: http.MethodPost, Path: path, ContentType: "application/json", Body: body, Timeout: limit,
	})
	if err == nil && answer.Status/100 != 2 {
		err = statusError(path, answer, time.Now())
	}
	return err
}
