package services

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
)

// attributes make a child that dies with its parent and that Ctrl-C in the
// terminal does not reach. It runs as name, when name is given and the parent
// is root.
func attributes(name string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if name == "" || os.Getuid() != 0 {
		return attr, nil
	}
	uid, gid, err := ids(name)
	if err != nil {
		return nil, err
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, nil
}

// ids looks a user of the system up.
func ids(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("run a server as %s: %w", name, err)
	}
	uid, uerr := strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(uerr, gerr)
}

// signal sends a signal to the child; SIGKILL, SIGSTOP and SIGCONT to all of
// its group, which are the children that it has.
func signal(p *os.Process, sig syscall.Signal) error {
	pid := p.Pid
	if sig == syscall.SIGKILL || sig == syscall.SIGSTOP || sig == syscall.SIGCONT {
		pid = -pid
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// lock waits for the only lock of a file; closing the file gives it back.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }

// give makes a folder of the server's its user's own, for a server that runs as
// somebody else.
func (s *Server) give(name string) error {
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid, err := ids(name)
	if err != nil {
		return err
	}
	return os.Chown(s.dir, uid, gid)
}

// run runs a program that prepares a server, as the user or as the same.
func (s *Server) run(name, path string, args ...string) error {
	attr, err := attributes(name)
	if err != nil {
		return err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, attr
	runtime.LockOSThread() // the child must not outlive its parent's thread
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", path, err, out)
	}
	return nil
}
