//! The four origins of the demo, and the address of one that is down.
//! They listen on loopback, on free ports, and know nothing of Weir.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::clock;
use crate::message::Body;

/// Bound, not yet serving.
pub(super) struct Origins {
    listeners: [TcpListener; 4],
    pub(super) steady: SocketAddr,
    pub(super) flaky: SocketAddr,
    pub(super) slow: SocketAddr,
    pub(super) moody: SocketAddr,
    /// Nobody listens here.
    pub(super) down: SocketAddr,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Steady,
    Flaky,
    Slow,
    Moody,
}

/// The moody one is well for so long, then fails for as long.
const MOOD: Duration = Duration::from_secs(8);

impl Origins {
    pub(super) fn bind() -> std::io::Result<Self> {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let listeners = [bind()?, bind()?, bind()?, bind()?];
        let [steady, flaky, slow, moody] = [0, 1, 2, 3].map(|at: usize| listeners[at].local_addr());
        let down = bind()?.local_addr()?;
        Ok(Origins {
            steady: steady?,
            flaky: flaky?,
            slow: slow?,
            moody: moody?,
            down,
            listeners,
        })
    }

    /// Serves; never ends.
    pub(super) async fn serve(self) {
        let [steady, flaky, slow, moody] = self.listeners;
        tokio::join!(
            serve(steady, Kind::Steady),
            serve(flaky, Kind::Flaky),
            serve(slow, Kind::Slow),
            serve(moody, Kind::Moody),
        );
    }
}

async fn serve(listener: TcpListener, kind: Kind) {
    let ready = listener.set_nonblocking(true);
    let Ok(listener) = ready.and_then(|()| tokio::net::TcpListener::from_std(listener)) else {
        return;
    };
    let (count, started) = (Arc::new(AtomicU64::new(0)), clock::now());
    while let Ok((stream, _)) = listener.accept().await {
        let count = count.clone();
        let answer = service_fn(move |request| {
            let ill = ((clock::now() - started).as_secs() / MOOD.as_secs()) % 2 == 1;
            answer(kind, count.fetch_add(1, Relaxed), ill, request)
        });
        let server = hyper::server::conn::http1::Builder::new();
        tokio::spawn(async move {
            // A client that breaks off, and a request that was dropped on purpose, are no news.
            drop(server.serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}

fn not_now() -> http::Response<Body> {
    let mut response = http::Response::new(Body::from("not now\n".to_owned()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

async fn answer(
    kind: Kind,
    count: u64,
    ill: bool,
    request: http::Request<Incoming>,
) -> Result<http::Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    match kind {
        Kind::Flaky if count % 7 == 6 => return Err("dropped".into()),
        Kind::Flaky if count % 3 == 2 => return Ok(not_now()),
        Kind::Moody if ill => return Ok(not_now()),
        Kind::Slow => tokio::time::sleep(Duration::from_secs(2)).await,
        Kind::Steady | Kind::Flaky | Kind::Moody => {}
    }
    let fields = request.headers().iter().map(|(name, value)| {
        (
            name.as_str().to_owned(),
            String::from_utf8_lossy(value.as_bytes())
                .into_owned()
                .into(),
        )
    });
    let told: serde_json::Map<String, serde_json::Value> = fields.collect();
    let body = serde_json::json!({
        "origin": format!("{kind:?}").to_lowercase(),
        "request": count + 1,
        "target": request.uri().to_string(),
        "fields": told,
    });
    let mut response = http::Response::new(Body::from(format!("{body:#}\n")));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}
