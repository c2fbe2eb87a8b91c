//! grpc-go's words for what goes wrong before a service sees a request: tonic has words of its own, and clients (and their tests)
//! know the others.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tonic::{Code, Status};

/// How the request was to be read, which its refusal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The only message of a call.
    Request,
    /// One of a stream.
    Stream,
}

/// tonic compresses for whoever could read it, grpc-go for who compresses its own messages. Many clients could, a kube-apiserver too, and
/// don't want it: compressing takes many times as long as sending. So the offer of who doesn't compress is dropped.
pub fn compress_for_who_compresses(headers: &mut HeaderMap) {
    if headers.get("grpc-encoding").is_none_or(|encoding| encoding == "identity") {
        headers.remove("grpc-accept-encoding");
    }
}

/// The status of a request that couldn't be read, in grpc-go's words; `None` if that isn't what this status says.
pub fn unreadable(status: &Status, reading: Reading) -> Option<Status> {
    if !matches!(status.code(), Code::Internal | Code::OutOfRange | Code::ResourceExhausted | Code::Unimplemented) {
        return None;
    }
    let message = status.message();
    too_large(message)
        .map(Status::resource_exhausted)
        .or_else(|| too_large_unpacked(message).map(Status::resource_exhausted))
        .or_else(|| malformed(message, reading).map(Status::internal))
        .or_else(|| unknown_encoding(message).map(Status::unimplemented))
        .or_else(|| (message == "Unexpected EOF decoding stream.").then(|| Status::unknown("unexpected EOF")))
}

/// Understands tonic's words for a message that is too large.
fn too_large(message: &str) -> Option<String> {
    let numbers = message.strip_prefix("Error, decoded message length too large: found ")?.strip_suffix(" bytes")?;
    let (found, limit) = numbers.split_once(" bytes, the limit is: ")?;
    Some(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

/// The same of a message that was compressed.
fn too_large_unpacked(message: &str) -> Option<String> {
    let limit =
        message.strip_prefix("Error decompressing: size limit, of ")?.strip_suffix(" bytes, exceeded while decompressing message")?;
    Some(format!("grpc: received message after decompression larger than max {limit}"))
}

fn malformed(message: &str, reading: Reading) -> Option<String> {
    let message = message.strip_suffix(", while sending request").unwrap_or(message);
    if let Some(detail) = message.strip_prefix("failed to decode Protobuf message: ") {
        let doing = match reading {
            Reading::Request => "error unmarshalling request",
            Reading::Stream => "failed to unmarshal the received message",
        };
        let what = if detail.contains("not UTF-8") {
            "string field contains invalid UTF-8"
        } else {
            "proto: cannot parse invalid wire-format data"
        };
        return Some(format!("grpc: {doing}: {what}"));
    }
    if message.ends_with("with compressed-flag but no grpc-encoding was specified") {
        return Some("grpc: compressed flag set with identity or empty encoding".into());
    }
    if let Some((_, flag)) = message.split_once("invalid compression flag: ") {
        let flag = flag.split(' ').next().unwrap_or_default();
        return Some(format!("grpc: received unexpected payload format {flag}"));
    }
    message.strip_prefix("Error decompressing: ").map(|detail| format!("grpc: failed to decompress the message: {detail}"))
}

fn unknown_encoding(message: &str) -> Option<String> {
    let encoding = message.strip_prefix("Content is compressed with `")?.strip_suffix("` which isn't supported")?;
    Some(format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}"))
}

/// Nobody answers at this path. `knows` says whether there is such a service.
pub fn unknown_path(path: &str, knows: impl FnOnce(&str) -> bool) -> Status {
    let bare = path.strip_prefix('/').unwrap_or(path);
    Status::unimplemented(match bare.rsplit_once('/') {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if knows(service) => format!("unknown method {method} for service {service}"),
        Some((service, _)) => format!("unknown service {service}"),
    })
}

/// What a content type means to whoever speaks gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// gRPC's, whatever its message format: only one is understood.
    Grpc,
    /// Looks like it, and is refused.
    Unfit,
    /// Something else.
    Other,
}

/// Judges a request's content type.
pub fn content_type(headers: &HeaderMap) -> ContentType {
    let rest = headers.get(header::CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    match rest {
        Some([] | [b'+' | b';', ..]) => ContentType::Grpc,
        Some(_) => ContentType::Unfit,
        None => ContentType::Other,
    }
}

/// grpc-go's refusal of a content type.
pub fn unsupported_type(headers: &HeaderMap) -> Response<tonic::body::Body> {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let status = Status::invalid_argument(format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(kind)));
    let mut response = status.into_http();
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: Status, reading: Reading) -> (Code, String) {
        let status = unreadable(&status, reading).expect("it is understood");
        (status.code(), status.message().to_string())
    }

    #[test]
    fn a_message_over_the_limit_is_told_in_go_words() {
        let tonic = Status::out_of_range("Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes");
        assert_eq!(
            told(tonic, Reading::Request),
            (Code::ResourceExhausted, "grpc: received message larger than max (3000000 vs. 2097152)".into())
        );
        let tonic = Status::resource_exhausted("Error decompressing: size limit, of 2097152 bytes, exceeded while decompressing message");
        assert_eq!(
            told(tonic, Reading::Request),
            (Code::ResourceExhausted, "grpc: received message after decompression larger than max 2097152".into())
        );
    }

    #[test]
    fn malformed_messages_are_told_in_go_words() {
        let decode = || Status::internal("failed to decode Protobuf message: RangeRequest.key: buffer underflow");
        let text = "proto: cannot parse invalid wire-format data";
        assert_eq!(told(decode(), Reading::Request), (Code::Internal, format!("grpc: error unmarshalling request: {text}")));
        assert_eq!(told(decode(), Reading::Stream), (Code::Internal, format!("grpc: failed to unmarshal the received message: {text}")));
        for innocent in [Status::cancelled("x"), Status::internal("x"), Status::unimplemented("auth is not implemented yet")] {
            assert!(unreadable(&innocent, Reading::Request).is_none());
        }
    }

    #[test]
    fn paths_are_told_apart() {
        let text = |path: &str| unknown_path(path, |service| service == "etcdserverpb.KV").message().to_string();
        assert_eq!(text("/etcdserverpb.KV/Nope"), "unknown method Nope for service etcdserverpb.KV");
        assert_eq!(text("/a/b/c"), "unknown service a/b");
        assert_eq!(text("/Range"), "malformed method name: \"/Range\"");
    }

    #[test]
    fn content_types_are_told_apart() {
        for (text, kind) in [
            ("application/grpc", ContentType::Grpc),
            ("application/grpc+proto", ContentType::Grpc),
            ("application/grpc;x=y", ContentType::Grpc),
            ("application/grpc-web", ContentType::Unfit),
            ("application/json", ContentType::Other),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))]);
            assert_eq!(content_type(&headers), kind, "{text}");
        }
        assert_eq!(content_type(&HeaderMap::new()), ContentType::Other);
    }
}
