package api

import (
	"crypto/sha256"
	"crypto/subtle"
)

// TokenHeader is the one place where a request's token may stand: an HTTP
// header, or a key of a gRPC call's metadata.
const TokenHeader = "dapr-api-token"

// Tokens are those that let a caller in; without any, everybody is.
type Tokens [][sha256.Size]byte

// NewTokens takes the accepted tokens; empty ones are ignored.
func NewTokens(tokens []string) Tokens {
	var ts Tokens
	for _, t := range tokens {
		if t != "" {
			ts = append(ts, sha256.Sum256([]byte(t)))
		}
	}
	return ts
}

// Check returns an Unauthenticated problem unless given, the values of
// [TokenHeader], is exactly one accepted token. It takes the same time for
// every wrong token of one length.
func (ts Tokens) Check(given []string) error {
	if len(ts) == 0 || len(given) == 1 && ts.has(given[0]) {
		return nil
	}
	return Errorf(Unauthenticated, "check api token: %s is missing or wrong", TokenHeader)
}

func (ts Tokens) has(token string) bool {
	sum := sha256.Sum256([]byte(token))
	ok := 0
	for i := range ts {
		ok |= subtle.ConstantTimeCompare(ts[i][:], sum[:])
	}
	return ok == 1
}
