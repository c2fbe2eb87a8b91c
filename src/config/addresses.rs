//! All URL flags, and what they must be together.

use super::urls::{self, Address};
use super::{ConfigError, DEFAULT_CLIENT_URL, DEFAULT_PEER_URL, Flags};
use url::Url;

/// All URL flags, checked.
pub(super) struct Addresses {
    pub(super) listen_peer: Vec<Address>,
    pub(super) listen_client: Vec<Address>,
    pub(super) listen_http: Vec<Address>,
    pub(super) listen_metrics: Vec<Address>,
    pub(super) advertise_peer: Vec<Address>,
    pub(super) advertise_client: Vec<Address>,
}

impl Addresses {
    pub(super) fn new(flags: &Flags) -> Result<Self, ConfigError> {
        let mut all = Self {
            listen_peer: listen(flags, "listen-peer-urls")?,
            listen_client: listen(flags, "listen-client-urls")?,
            listen_http: listen(flags, "listen-client-http-urls")?,
            listen_metrics: listen(flags, "listen-metrics-urls")?,
            advertise_peer: flags.urls("initial-advertise-peer-urls"),
            advertise_client: flags.urls("advertise-client-urls"),
        };
        // A file may leave it out, as with etcd.
        if flags.is_set("listen-client-urls") && !flags.is_set("advertise-client-urls") && !flags.from_file {
            return Err(ConfigError::AdvertiseClientUnset);
        }
        all.check_advertised()?;
        all.replace_default_hosts();
        Ok(all)
    }

    fn check_advertised(&self) -> Result<(), ConfigError> {
        let bound = [&self.listen_peer, &self.listen_client, &self.listen_http, &self.listen_metrics, &self.advertise_peer];
        if let Some(port) = bound.into_iter().flatten().find_map(|address| address.impossible_port.clone()) {
            return Err(ConfigError::ImpossiblePort(port));
        }
        if let Some(twice) = self.listen_http.iter().find(|address| self.listen_client.contains(address)) {
            return Err(ConfigError::SameForHttp(twice.text.clone()));
        }
        for address in &self.advertise_peer {
            if needs_tls(&address.url) {
                return Err(ConfigError::UrlNotBuilt { flag: "initial-advertise-peer-urls", url: address.text.clone(), what: "TLS" });
            }
            // A socket file has no host; etcd wants its path to look as if it had.
            if !urls::is_unix(&address.url) && address.url.host_str().is_none_or(str::is_empty) {
                return Err(ConfigError::EmptyPeerHost(urls::texts(&self.advertise_peer).join(","), address.text.clone()));
            }
        }
        Ok(())
    }

    /// Who listens on 0.0.0.0 and advertises nothing of its own can't mean localhost: it gets this machine's address, as with etcd.
    fn replace_default_hosts(&mut self) {
        let Some(host) = default_host() else { return };
        replace_default_host(&self.listen_peer, &mut self.advertise_peer, DEFAULT_PEER_URL, &host);
        replace_default_host(&self.listen_client, &mut self.advertise_client, DEFAULT_CLIENT_URL, &host);
    }
}

fn replace_default_host(listen: &[Address], advertise: &mut [Address], default: &str, host: &str) {
    let (Some(listen), [advertise]) = (listen.first(), advertise) else { return };
    if advertise.text == default && listen.url.host_str() == Some("0.0.0.0") {
        let port = listen.url.port_or_known_default().unwrap_or(0);
        if let Ok(address) = urls::parse(&format!("http://{host}:{port}")) {
            tracing::info!(host, "detected default host for advertise");
            *advertise = address;
        }
    }
}

/// The address this machine would use towards the default route; nothing is sent.
fn default_host() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then(|| ip.to_string())
}

fn listen(flags: &Flags, flag: &'static str) -> Result<Vec<Address>, ConfigError> {
    let list = flags.urls(flag);
    urls::check_bind(&list).map_err(ConfigError::Bind)?;
    match list.iter().find(|address| needs_tls(&address.url)) {
        Some(address) => Err(ConfigError::UrlNotBuilt { flag, url: address.text.clone(), what: "TLS" }),
        None => Ok(list),
    }
}

fn needs_tls(url: &Url) -> bool {
    matches!(url.scheme(), "https" | "unixs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_everywhere_advertises_an_address() {
        let mut advertise = urls::parse_list(DEFAULT_PEER_URL).expect("a list");
        let listen = urls::parse_list("http://0.0.0.0:1234").expect("a list");
        replace_default_host(&listen, &mut advertise, DEFAULT_PEER_URL, "10.1.2.3");
        assert_eq!(urls::texts(&advertise), ["http://10.1.2.3:1234"]);
    }
}
