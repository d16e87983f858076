//go:build !linux

package instances

import (
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// started asks ps, which every Unix has.
func started(pid int) (when string, known bool) {
	if runtime.GOOS == "windows" {
		return "", false
	}
	out, err := exec.Command("ps", "-o", "stat=,lstart=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return "", false
	}
	state, when, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if strings.HasPrefix(state, "Z") {
		return "ended", true
	}
	return strings.TrimSpace(when), true
}
