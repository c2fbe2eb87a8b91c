package proc

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// diskBytes adds up the allocated blocks of all files below dir. Files may vanish meanwhile.
func diskBytes(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			var stat syscall.Stat_t
			if err = syscall.Lstat(path, &stat); err == nil {
				sum += stat.Blocks * 512
			}
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	return sum, err
}

// Disk tells the file system below dir, from the mount table.
func Disk(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return ""
	}
	best, found := "", ""
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || (f[1] != "/" && dir != f[1] && !strings.HasPrefix(dir, f[1]+"/")) {
			continue
		}
		if len(f[1]) >= len(best) {
			best, found = f[1], f[2]+" ("+f[0]+")"
		}
	}
	return found
}

// OnRealDisk says whether dir is on something else than memory.
func OnRealDisk(dir string) bool {
	disk := Disk(dir)
	return !strings.HasPrefix(disk, "tmpfs") && !strings.HasPrefix(disk, "ramfs")
}

// ProbeSync is the median time of appending 4 KiB to a file and fdatasync: what every durable write costs on this disk.
func ProbeSync(dir string) (time.Duration, error) {
	file, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	block := make([]byte, 4096)
	var times []time.Duration
	for range 100 {
		begin := time.Now()
		if _, err := file.Write(block); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(file.Fd())); err != nil {
			return 0, err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
