package webhook

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// identity is what a provider calls a delivery. Empty fields are not known.
type identity struct {
	id      string // the same when the provider sends again
	event   string // what follows the preset's prefix in the event's type
	subject string
}

// prefixes of the types of events, by preset.
func typePrefix(preset string) string {
	switch preset {
	case github, gitlab, stripe, slack, shopify:
		return "com." + preset + "."
	default:
		return "webhook."
	}
}

// identify reads a verified request. It does not fail: what is not there or
// not usable stays empty.
func identify(preset, idHeader string, h http.Header, body []byte) identity {
	var id identity
	switch preset {
	case standard:
		var v struct {
			Type string `json:"type"`
		}
		peek(h, body, &v)
		c, _ := readStandard(h) // it has been verified
		id = identity{id: c.id, event: v.Type}
	case github:
		id = identifyGitHub(h, body)
	case gitlab:
		id = identifyGitLab(h, body)
	case stripe:
		id = identifyStripe(h, body)
	case slack:
		id = identifySlack(h, body)
	case shopify:
		id = identity{
			id:      first(h, "X-Shopify-Webhook-Id", "X-Shopify-Event-Id"),
			event:   strings.ReplaceAll(h.Get("X-Shopify-Topic"), "/", "."),
			subject: h.Get("X-Shopify-Shop-Domain"),
		}
	default:
		id = identity{id: first(h, idHeader)}
	}
	return identity{id: cleanText(id.id), event: cleanText(id.event), subject: cleanText(id.subject)}
}

func identifyGitHub(h http.Header, body []byte) identity {
	var v struct {
		Repository struct {
			Name string `json:"full_name"`
		} `json:"repository"`
		Organization struct {
			Login string `json:"login"`
		} `json:"organization"`
	}
	peek(h, body, &v)
	subject := v.Repository.Name
	if subject == "" {
		subject = v.Organization.Login
	}
	return identity{id: h.Get("X-Github-Delivery"), event: h.Get("X-Github-Event"), subject: subject}
}

func identifyGitLab(h http.Header, body []byte) identity {
	var v struct {
		Project struct {
			Path string `json:"path_with_namespace"`
		} `json:"project"`
	}
	peek(h, body, &v)
	event := strings.TrimSuffix(h.Get("X-Gitlab-Event"), " Hook")
	return identity{
		id:      first(h, "Webhook-Id", "Idempotency-Key", "X-Gitlab-Event-Uuid"),
		event:   strings.ReplaceAll(strings.ToLower(event), " ", "_"),
		subject: v.Project.Path,
	}
}

func identifyStripe(h http.Header, body []byte) identity {
	var v struct {
		ID   string `json:"id"`
		Type string `json:"type"`
		Data struct {
			Object struct {
				ID string `json:"id"`
			} `json:"object"`
		} `json:"data"`
	}
	peek(h, body, &v)
	return identity{id: v.ID, event: v.Type, subject: v.Data.Object.ID}
}

// slackBody is what is read of Slack's Events API.
type slackBody struct {
	Type      string `json:"type"`
	Challenge string `json:"challenge"`
	EventID   string `json:"event_id"`
	Team      string `json:"team_id"`
	Event     struct {
		Type string `json:"type"`
	} `json:"event"`
}

func identifySlack(h http.Header, body []byte) identity {
	if isForm(h) {
		// Commands and interactions come as forms and are never repeated.
		v, err := url.ParseQuery(string(body))
		switch {
		case err != nil:
			return identity{}
		case v.Has("command"):
			return identity{id: v.Get("trigger_id"), event: "command", subject: v.Get("team_id")}
		case v.Has("payload"):
			return identity{id: v.Get("trigger_id"), event: "interaction"}
		}
		return identity{}
	}
	var v slackBody
	peek(h, body, &v)
	id := identity{id: v.EventID, event: v.Event.Type, subject: v.Team}
	if id.event == "" {
		id.event = v.Type
	}
	return id
}

// slackChallenge returns what Slack wants to hear back when an address is set
// up.
func slackChallenge(h http.Header, body []byte) (string, bool) {
	var v slackBody
	peek(h, body, &v)
	return v.Challenge, v.Type == "url_verification"
}

func isForm(h http.Header) bool {
	return mediaType(h.Get("Content-Type")) == "application/x-www-form-urlencoded"
}

// peek reads the JSON body into v, as far as it fits.
func peek(h http.Header, body []byte, v any) {
	if isForm(h) {
		return
	}
	// A body of another shape leaves fields empty, which is all there is to
	// know about it here.
	_ = json.Unmarshal(body, v)
}

// first returns the first header that is there.
func first(h http.Header, names ...string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}
