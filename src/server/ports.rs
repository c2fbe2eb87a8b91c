//! The ports, all bound before anything else is done: whoever can't have one of them leaves at once and touches no data. A bound port
//! that isn't served yet lets clients connect and wait.

use crate::config::value::system_text;
use crate::config::{Config, urls};
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use url::Url;

/// Connections the kernel may hold for us while we start.
const BACKLOG: i32 = 4096;

/// A bound port or socket file.
#[derive(Debug)]
pub enum Port {
    /// `http://`.
    Tcp(TcpListener),
    /// `unix://`.
    Unix(UnixListener),
}

impl fmt::Display for Port {
    /// Where it is bound.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => port.local_addr().map_or(Ok(()), |address| write!(f, "{address}")),
            Self::Unix(port) => {
                port.local_addr().map_or(Ok(()), |address| write!(f, "{}", address.as_pathname().unwrap_or(Path::new("")).display()))
            }
        }
    }
}

/// All of them, by flag.
#[derive(Debug)]
pub struct Ports {
    /// `--listen-peer-urls`.
    pub peer: Vec<Port>,
    /// `--listen-client-urls`.
    pub client: Vec<Port>,
    /// `--listen-client-http-urls`.
    pub client_http: Vec<Port>,
    /// `--listen-metrics-urls`.
    pub metrics: Vec<Port>,
}

/// A port we can't have, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("listen {}: bind: {}", target(url), system_text(error))]
pub struct PortError {
    /// Which flag asks for it.
    pub flag: &'static str,
    url: Url,
    error: io::Error,
}

fn target(url: &Url) -> String {
    match urls::is_unix(url) {
        true => format!("unix {}", urls::unix_path(url).display()),
        false => format!("tcp {}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0)),
    }
}

impl Ports {
    /// Binds everything, or nothing stays bound.
    pub fn bind(config: &Config) -> Result<Self, PortError> {
        let each = |flag: &'static str, list: &[Url]| -> Result<Vec<Port>, PortError> {
            list.iter()
                .map(|url| bind(url, config.socket_reuse_port).map_err(|error| PortError { flag, url: url.clone(), error }))
                .collect()
        };
        Ok(Self {
            peer: each("listen-peer-urls", &config.listen_peer_urls)?,
            client: each("listen-client-urls", &config.listen_client_urls)?,
            client_http: each("listen-client-http-urls", &config.listen_client_http_urls)?,
            metrics: each("listen-metrics-urls", &config.listen_metrics_urls)?,
        })
    }
}

fn bind(url: &Url, reuse_port: bool) -> io::Result<Port> {
    if urls::is_unix(url) { bind_unix(url).map(Port::Unix) } else { bind_tcp(url, reuse_port).map(Port::Tcp) }
}

/// What an earlier process left behind is removed, as etcd does; but nothing that isn't a socket, nor one that somebody listens at: a member
/// that is started twice would take it from the one that runs.
fn bind_unix(url: &Url) -> io::Result<UnixListener> {
    let path = urls::unix_path(url);
    if std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        match UnixStream::connect(&path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(&path)?,
            // Bind tells.
            Err(_) | Ok(_) => {}
        }
    }
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind_tcp(url: &Url, reuse_port: bool) -> io::Result<TcpListener> {
    let address = address(url)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process in TIME_WAIT must not keep us from starting.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A URL's address; of a name's, the IPv4 one first, as Go does.
fn address(url: &Url) -> io::Result<SocketAddr> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(0);
    let all: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let chosen = all.iter().find(|address| address.is_ipv4()).or(all.first());
    chosen.copied().ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let taken = taken.local_addr().expect("it is bound");
        let url = format!("http://{taken}");
        let flags = crate::config::Flags::read(
            &[
                format!("--listen-metrics-urls={url}"),
                "--listen-peer-urls=http://127.0.0.1:0".into(),
                "--listen-client-urls=http://127.0.0.1:0".into(),
                "--advertise-client-urls=http://127.0.0.1:1".into(),
            ],
            &[],
        )
        .expect("they parse");
        let error = Ports::bind(&Config::new(&flags).expect("a config")).expect_err("it is taken");
        assert_eq!((error.flag, error.to_string()), ("listen-metrics-urls", format!("listen tcp {taken}: bind: address already in use")));
    }

    #[test]
    fn a_stale_socket_file_is_replaced_but_no_other_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let url = |name: &str| Url::parse(&format!("unix://{}", directory.path().join(name).display())).expect("a URL");
        drop(bind_unix(&url("s")).expect("it binds"));
        let listener = bind_unix(&url("s")).expect("it binds again");
        assert_eq!(bind_unix(&url("s")).expect_err("somebody listens").kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        bind_unix(&url("a b")).expect("it binds");
        assert!(directory.path().join("a b").exists());
        std::fs::write(directory.path().join("f"), b"x").expect("it writes");
        assert!(bind_unix(&url("f")).is_err());
    }
}
