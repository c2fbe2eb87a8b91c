//! /health, /livez and /readyz (contract c.1): what load balancers, kubelets and operators ask.

use crate::grpc::alarm_name;
use crate::metrics::Metrics;
use crate::server::{Error, Server};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rusd_storage::command::Range;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A member as the checks see it.
pub trait Member: Send + Sync + 'static {
    /// Kinds of the alarms that are on.
    fn alarms(&self) -> Vec<i32>;
    /// Whether a leader is known.
    fn has_leader(&self) -> bool;
    /// Whether it is a learner.
    fn is_learner(&self) -> bool;
    /// Reads a key, freshly or locally.
    fn read(&self, linearizable: bool) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Member for Server {
    fn alarms(&self) -> Vec<i32> {
        self.state.alarms().into_iter().map(|alarm| alarm.r#type).collect()
    }
    fn has_leader(&self) -> bool {
        self.consensus.status().leader != 0
    }
    fn is_learner(&self) -> bool {
        self.consensus.status().is_learner
    }
    async fn read(&self, linearizable: bool) -> Result<(), Error> {
        if linearizable {
            self.read.linearizable().await?;
        }
        let range = Range { key: "a".into(), keys_only: true, limit: 1, ..Default::default() };
        self.state.store().range(&range)?;
        Ok(())
    }
}

/// A member, how long it may take, and where outcomes are counted.
pub struct Checks<M> {
    /// Who is asked.
    pub member: Arc<M>,
    /// For all that a request asks.
    pub timeout: Duration,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl<M> Clone for Checks<M> {
    fn clone(&self) -> Self {
        Self { member: self.member.clone(), timeout: self.timeout, metrics: self.metrics.clone() }
    }
}

type Params = Query<Vec<(String, String)>>;

/// The three, and the single checks below two of them. Only GET.
pub fn router<M: Member>(checks: Checks<M>) -> Router {
    Router::new()
        .route("/health", get(health::<M>))
        .route("/livez", get(|State(checks): State<Checks<M>>, params: Params| async move { checks.run(&LIVE, params).await }))
        .route("/readyz", get(|State(checks): State<Checks<M>>, params: Params| async move { checks.run(&READY, params).await }))
        .route(
            "/livez/{name}",
            get(|State(checks): State<Checks<M>>, Path(name): Path<String>, params: Params| async move {
                checks.run_one(&LIVE, &name, params).await
            }),
        )
        .route(
            "/readyz/{name}",
            get(|State(checks): State<Checks<M>>, Path(name): Path<String>, params: Params| async move {
                checks.run_one(&READY, &name, params).await
            }),
        )
        .with_state(checks)
        .layer(axum::middleware::from_fn(super::only_get))
}

async fn health<M: Member>(State(checks): State<Checks<M>>, Query(params): Params) -> Response {
    let value = |name: &str| params.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    let serializable = value("serializable").first().is_some_and(|value| value == "true");
    let reason = checks.why_unhealthy(serializable, &value("exclude")).await;
    let (status, health) = match &reason {
        None => (StatusCode::OK, "true"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    let counter = if reason.is_none() { &checks.metrics.health_successes } else { &checks.metrics.health_failures };
    counter.inc();
    // As text, which is what Go makes of an answer that doesn't say what it is; its errors end with a newline.
    let end = if reason.is_some() { "\n" } else { "" };
    let reason = serde_json::Value::from(reason.unwrap_or_default());
    (status, format!(r#"{{"health":"{health}","reason":{reason}}}{end}"#)).into_response()
}

/// One check of /livez and /readyz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVE: [Check; 1] = [Check::SerializableRead];
const READY: [Check; 4] = [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

impl<M: Member> Checks<M> {
    /// Alarms first, then the leader, then a read.
    async fn why_unhealthy(&self, serializable: bool, excluded: &[String]) -> Option<String> {
        let alarms = self.member.alarms();
        if let Some(alarm) = alarms.into_iter().map(alarm_name).find(|name| !excluded.iter().any(|excluded| excluded == name)) {
            return Some(format!("ALARM {alarm}"));
        }
        if !serializable && !self.member.has_leader() {
            return Some("RAFT NO LEADER".into());
        }
        self.read(!serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
    }

    /// The error's text is the client's, as etcd prints it.
    async fn read(&self, linearizable: bool) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, self.member.read(linearizable)).await {
            Ok(answer) => answer.map_err(|error| tonic::Status::from(error).message().to_string()),
            Err(_) => Err("context deadline exceeded".into()),
        }
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption if self.member.alarms().into_iter().any(|alarm| alarm_name(alarm) == "CORRUPT") => {
                Err("alarm activated: CORRUPT".into())
            }
            Check::NonLearner if self.member.is_learner() => Err("not supported for learner".into()),
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::SerializableRead => self.read(false).await,
            Check::LinearizableRead => self.read(true).await,
        }
    }

    async fn run_one(&self, of: &[Check], name: &str, params: Params) -> Response {
        match of.iter().find(|check| check.name() == name) {
            Some(check) => self.run(std::slice::from_ref(check), params).await,
            None => super::not_found().await,
        }
    }

    async fn run(&self, checks: &[Check], Query(params): Params) -> Response {
        let has =
            |name: &str, value: Option<&str>| params.iter().any(|(key, given)| key == name && value.is_none_or(|value| value == given));
        let mut report = String::new();
        let mut failed = false;
        for check in checks.iter().filter(|check| !has("exclude", Some(check.name()))) {
            match self.check(*check).await {
                Ok(()) => report.push_str(&format!("[+]{} ok\n", check.name())),
                Err(error) => {
                    failed = true;
                    report.push_str(&format!("[-]{} failed: {error}\n", check.name()));
                }
            }
        }
        if failed {
            report.push('\n');
            return (StatusCode::SERVICE_UNAVAILABLE, report).into_response();
        }
        if !has("verbose", None) {
            report.clear();
        }
        report.push_str("ok\n");
        (StatusCode::OK, report).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    #[derive(Default)]
    struct Fake {
        alarms: Vec<i32>,
        leaderless: bool,
        learner: bool,
    }

    impl Member for Fake {
        fn alarms(&self) -> Vec<i32> {
            self.alarms.clone()
        }
        fn has_leader(&self) -> bool {
            !self.leaderless
        }
        fn is_learner(&self) -> bool {
            self.learner
        }
        async fn read(&self, linearizable: bool) -> Result<(), Error> {
            if linearizable && self.leaderless { Err(Error::LeaderChanged) } else { Ok(()) }
        }
    }

    async fn ask(fake: Fake, uri: &str) -> (u16, String) {
        let checks = Checks { member: Arc::new(fake), timeout: Duration::from_secs(7), metrics: Arc::new(Metrics::new()) };
        let request = axum::http::Request::get(uri).body(axum::body::Body::empty()).expect("a request");
        let response = router(checks).oneshot(request).await.expect("a router always answers");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a short body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    fn answer(status: u16, text: &str) -> (u16, String) {
        (status, text.to_string())
    }

    #[tokio::test]
    async fn health_looks_at_alarms_then_leader() {
        let nospace = || Fake { alarms: vec![1], ..Fake::default() };
        let leaderless = || Fake { leaderless: true, ..Fake::default() };
        let well = answer(200, r#"{"health":"true","reason":""}"#);
        assert_eq!(ask(Fake::default(), "/health").await, well);
        assert_eq!(ask(nospace(), "/health").await, answer(503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"));
        assert_eq!(ask(nospace(), "/health?exclude=NOSPACE").await, well);
        assert_eq!(ask(leaderless(), "/health").await, answer(503, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n"));
        assert_eq!(ask(leaderless(), "/health?serializable=true").await, well);
    }

    #[tokio::test]
    async fn livez_and_readyz_tell_what_failed() {
        let leaderless = || Fake { leaderless: true, ..Fake::default() };
        assert_eq!(ask(leaderless(), "/livez").await, answer(200, "ok\n"));
        assert_eq!(ask(leaderless(), "/livez?verbose").await, answer(200, "[+]serializable_read ok\nok\n"));
        let (status, text) = ask(leaderless(), "/readyz").await;
        assert_eq!(status, 503);
        assert!(text.contains("[-]linearizable_read failed: etcdserver: leader changed\n"), "{text}");
        assert_eq!(ask(leaderless(), "/readyz?exclude=linearizable_read").await, answer(200, "ok\n"));
        assert_eq!(ask(leaderless(), "/readyz/data_corruption").await, answer(200, "ok\n"));
        assert_eq!(ask(leaderless(), "/readyz/nonsense").await.0, 404);
        let corrupt = Fake { alarms: vec![2], learner: true, ..Fake::default() };
        let (_, text) = ask(corrupt, "/readyz").await;
        assert!(text.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{text}");
        assert!(text.contains("[-]non_learner failed: not supported for learner\n"), "{text}");
        assert_eq!(ask(Fake { alarms: vec![1], ..Fake::default() }, "/readyz").await.0, 200, "NOSPACE doesn't matter");
    }
}
