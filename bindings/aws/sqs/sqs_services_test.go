//go:build services

package sqs

import (
	"testing"

	"github.com/penstock-io/penstock/test/services"
)

func TestConformOnServer(t *testing.T) {
	for name, suffix := range map[string]string{"standard": "", "fifo": ".fifo"} {
		t.Run(name, func(t *testing.T) { suite(t, services.Need(t, "aws"), suffix, false) })
	}
}
