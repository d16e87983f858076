//go:build !linux

package services

import (
	"os"
	"os/exec"
	"syscall"
)

func attributes(string) (*syscall.SysProcAttr, error) { return nil, nil }

func signal(p *os.Process, sig syscall.Signal) error { return p.Signal(sig) }

func lock(*os.File) error { return nil }

func (s *Server) give(string) error { return nil }

func (s *Server) run(_, path string, args ...string) error {
	return exec.Command(path, args...).Run()
}
