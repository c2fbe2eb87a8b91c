//! The process as Linux sees it, beside what the client library tells. What the system doesn't tell is left out.

use super::page::Page;

pub(super) fn read(page: &mut Page) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("os_fd_used", "The number of used file descriptors.", open.count() as f64);
    }
    if let Some(limit) = limit(&limits, "Max open files") {
        page.gauge("os_fd_limit", "The file descriptor limit.", limit);
    }
    if let Some(limit) = limit(&limits, "Max address space") {
        page.gauge("process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes.", limit);
    }
    let traffic = std::fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    if let (Some(received), Some(sent)) = (octets(&traffic, "InOctets"), octets(&traffic, "OutOctets")) {
        page.count("process_network_receive_bytes_total", "Number of bytes received by the process over the network.", received);
        page.count("process_network_transmit_bytes_total", "Number of bytes sent by the process over the network.", sent);
    }
}

/// The soft limit; without one the largest number there is.
fn limit(limits: &str, name: &str) -> Option<f64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX as f64) } else { soft.parse().ok() }
}

/// Of the whole network namespace, as in the client library for Go: a line of names, and a line of numbers below it.
fn octets(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let at = lines.next()?.split(' ').position(|known| known == name)?;
    lines.next()?.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes() {
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\nMax address space  unlimited  unlimited  bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), Some(u64::MAX as f64));
        assert_eq!(limit(limits, "Max nothing"), None);
        let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 70 80\n";
        assert_eq!((octets(netstat, "InOctets"), octets(netstat, "OutOctets"), octets(netstat, "X")), (Some(70), Some(80), None));
    }
}
