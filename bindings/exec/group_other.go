//go:build !unix

package exec

import osexec "os/exec"

func ownGroup(*osexec.Cmd) {}

func askToEnd(cmd *osexec.Cmd) error { return cmd.Process.Kill() }

func endGroup(*osexec.Cmd) {}
