//! Unary calls that take longer than `--warning-unary-request-duration` are told of, once each, when they end. Their keys and values are not.

use crate::metrics::{Kind, Method};
use std::time::{Duration, Instant};
use tonic::Code;

/// A call under way whose duration matters.
pub struct Timed {
    begin: Instant,
    limit: Duration,
}

impl Timed {
    /// Nothing for streams, and nothing if the limit is zero, which turns warnings off.
    pub fn new(method: &Method, limit: Duration) -> Option<Self> {
        let matters = method.kind == Kind::Unary && !limit.is_zero();
        matters.then(|| Self { begin: Instant::now(), limit })
    }

    /// The service has answered a call of `method`.
    pub fn ended(self, method: &Method, code: Code) {
        let took = self.begin.elapsed();
        if took > self.limit {
            tracing::warn!(time_spent = ?took, response_type = method.path, ?code, expected = ?self.limit, "request stats");
        }
    }
}
