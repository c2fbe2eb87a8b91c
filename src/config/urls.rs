//! URLs as etcd takes and prints them, and the map of `--initial-cluster`.
//!
//! Member ids are hashes of URL *texts*, so a URL keeps the text that Go would print: the parsed form (which drops a scheme's default
//! port, for one) is only for finding an address.

use super::value::quote;
use std::collections::BTreeSet;
use url::Url;

/// A URL and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As etcd prints it.
    pub text: String,
    /// To take apart. Has the port 0 where there can't be one of that number.
    pub url: Url,
    /// A port above 65535: Go takes the URL apart all the same, and finds nothing to listen on.
    pub impossible_port: Option<String>,
}

/// Names with their sorted peer URLs, in the order in which the names came up.
pub type Cluster = Vec<(String, Vec<String>)>;

/// What is wrong with a URL; the texts are etcd's (and Go's).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum UrlError {
    #[error("parse {}: first path segment in URL cannot contain colon", quote(.0))]
    ColonInPath(String),
    #[error("parse {}: missing protocol scheme", quote(.0))]
    NoScheme(String),
    #[error("parse {}: {}", quote(.0), .1)]
    Unreadable(String, String),
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    #[error("URL address does not have the form \"host:port\": {0}")]
    NoPort(String),
    #[error("URL must not contain a path: {0}")]
    Path(String),
}

/// One URL, blanks around it dropped.
pub fn parse(text: &str) -> Result<Address, UrlError> {
    let text = text.trim();
    let scheme = scheme(text)?.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https" | "unix" | "unixs") {
        return Err(UrlError::Scheme(text.into()));
    }
    let rest = &text[scheme.len() + 1..];
    if scheme.starts_with("http") {
        let authority = rest.strip_prefix("//").unwrap_or("");
        let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
        if !has_port(authority[..end].rsplit('@').next().unwrap_or("")) {
            return Err(UrlError::NoPort(text.into()));
        }
        if authority[end..].starts_with('/') {
            return Err(UrlError::Path(text.into()));
        }
    }
    let text = format!("{scheme}:{rest}");
    let unreadable = |error: url::ParseError| UrlError::Unreadable(text.clone(), error.to_string());
    let (url, impossible_port) = match (Url::parse(&text), text.rsplit_once(':')) {
        (Err(url::ParseError::InvalidPort), Some((origin, port))) if port.bytes().all(|c| c.is_ascii_digit()) => {
            (Url::parse(&format!("{origin}:0")).map_err(unreadable)?, Some(port.to_owned()))
        }
        (parsed, _) => (parsed.map_err(unreadable)?, None),
    };
    Ok(Address { text, url, impossible_port })
}

/// Go's way to find a scheme; empty where there is none.
fn scheme(text: &str) -> Result<&str, UrlError> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err(UrlError::NoScheme(text.into())),
            ':' => return Ok(&text[..at]),
            _ => break,
        }
    }
    if text.split('/').next().is_some_and(|segment| segment.contains(':')) {
        return Err(UrlError::ColonInPath(text.into()));
    }
    Ok("")
}

/// `host:port`, `[v6]:port`, also with an empty port: Go's `SplitHostPort`.
fn has_port(authority: &str) -> bool {
    match authority.rsplit_once(':') {
        Some((host, _)) if host.starts_with('[') => host.ends_with(']'),
        Some((host, _)) => !host.contains(':'),
        None => false,
    }
}

/// URLs separated by commas, sorted, each once. An empty text is an empty list.
pub fn parse_list(text: &str) -> Result<Vec<Address>, UrlError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = text.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| a.text.cmp(&b.text));
    all.dedup();
    Ok(all)
}

/// Their texts.
pub fn texts(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(|address| address.text.clone()).collect()
}

/// A listening URL needs an IP, for a name might resolve to anything.
pub fn check_bind(addresses: &[Address]) -> Result<(), String> {
    match addresses.iter().find(|address| !is_unix(&address.url) && !can_bind(&address.url)) {
        Some(address) => Err(format!("expected IP in URL for binding ({})", address.text)),
        None => Ok(()),
    }
}

fn can_bind(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(_) => true,
        None => false,
    }
}

/// Whether it names a socket file.
pub fn is_unix(url: &Url) -> bool {
    matches!(url.scheme(), "unix" | "unixs")
}

/// The file of a `unix` URL: host and path, so that `unix://localhost:2379` is a file of that name in the working directory.
pub fn unix_path(url: &Url) -> std::path::PathBuf {
    let rest = url.as_str().split_once(':').map_or("", |(_, rest)| rest);
    rusd_network::socket_file(rest.strip_prefix("//").unwrap_or(rest))
}

/// `--initial-cluster`: `name=url` pairs separated by commas; a name may come up several times.
pub fn parse_cluster(text: &str) -> Result<Cluster, UrlError> {
    let mut cluster: Cluster = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        let url = parse(url)?.text;
        match cluster.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url),
            None => cluster.push((name.to_owned(), vec![url])),
        }
    }
    cluster.iter_mut().for_each(|(_, urls)| urls.sort());
    Ok(cluster)
}

/// The map as etcd prints it: all pairs, sorted.
pub fn cluster_text(cluster: &[(String, Vec<String>)]) -> String {
    let pairs: BTreeSet<String> = cluster.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}"))).collect();
    pairs.into_iter().collect::<Vec<_>>().join(",")
}

/// Whether two members, or one twice, claim the same URL.
pub fn has_duplicate_url(cluster: &[(String, Vec<String>)]) -> bool {
    let mut seen = BTreeSet::new();
    cluster.iter().flat_map(|(_, urls)| urls).any(|url| !seen.insert(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_refused_in_etcds_words() {
        for (text, error) in [
            ("127.0.0.1:1", "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon"),
            ("localhost:2380", "URL scheme must be http, https, unix, or unixs: localhost:2380"),
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("http://localhost", "URL address does not have the form \"host:port\": http://localhost"),
            ("http://[::1]", "URL address does not have the form \"host:port\": http://[::1]"),
            ("http://localhost:1/", "URL must not contain a path: http://localhost:1/"),
            (":1", "parse \":1\": missing protocol scheme"),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), error);
        }
        assert!(parse("http://localhost:x").is_err());
        let impossible = parse("http://[::1]:99999").expect("Go takes it apart");
        assert_eq!((impossible.text.as_str(), impossible.impossible_port.as_deref()), ("http://[::1]:99999", Some("99999")));
    }

    #[test]
    fn a_url_keeps_its_text() {
        assert_eq!(parse(" HTTP://a:80 ").expect("a URL").text, "http://a:80");
        let list = parse_list("http://b:1,http://a:1,http://b:1").expect("a list");
        assert_eq!(texts(&list), ["http://a:1", "http://b:1"]);
        assert_eq!(unix_path(&parse("unix://localhost:20000").expect("a URL").url).as_os_str(), "localhost:20000");
        assert_eq!(unix_path(&parse("unix:///tmp/x").expect("a URL").url).as_os_str(), "/tmp/x");
    }

    #[test]
    fn a_cluster_gathers_the_urls_of_a_name() {
        let cluster = parse_cluster("b=http://b:2,a=http://a:1,b=http://b:1").expect("a map");
        assert_eq!(cluster_text(&cluster), "a=http://a:1,b=http://b:1,b=http://b:2");
        assert!(!has_duplicate_url(&cluster));
        assert!(has_duplicate_url(&parse_cluster("a=http://a:1,b=http://a:1").expect("a map")));
        assert!(parse_cluster("a").is_err());
        assert_eq!(parse_cluster(""), Ok(vec![]));
    }

    #[test]
    fn listening_needs_an_address() {
        let check = |text: &str| check_bind(&parse_list(text).expect("a list"));
        assert_eq!(check("http://localhost:1,http://[::]:2,http://0.0.0.0:3,unix://x"), Ok(()));
        assert_eq!(check("http://foo:1"), Err("expected IP in URL for binding (http://foo:1)".into()));
    }
}
