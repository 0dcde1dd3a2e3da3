//! gRPC's way with HTTP/2, in cleartext: an origin that does as its paths say, and a client.
//!
//! Messages are bytes; what matters here is frames, trailers and resets. Both sides are the h2
//! crate, on a runtime of their own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, RecvStream, client, server};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::SOON;

/// A runtime with one thread.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// An origin for gRPC.
pub struct Rpc {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

/// What the origin has seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub heads: Vec<http::request::Parts>,
    /// When a stream was reset by the other side, and why.
    pub resets: Vec<(Instant, Reason)>,
}

impl Rpc {
    pub fn start() -> Rpc {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let record = seen.clone();
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(connection(stream, record.clone()));
                }
            });
        });
        Rpc { address, seen }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("no panic").clone()
    }
}

async fn connection(stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    stream.set_nodelay(true).expect("no delay");
    let mut builder = server::Builder::new();
    // Wide: h2 takes many small frames on a narrow connection for an attack.
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20);
    let Ok(mut connection) = builder.handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, answer))) = connection.accept().await {
        let (head, body) = request.into_parts();
        seen.lock().expect("no panic").heads.push(head.clone());
        if head.uri.path() == "/die" {
            let mut answer = answer;
            let mut body = answer.send_response(ok(), false).expect("sent");
            body.send_data(Bytes::from_static(b"half"), false)
                .expect("sent");
            let gone = tokio::time::timeout(Duration::from_millis(50), connection.accept());
            drop(gone.await);
            return;
        }
        tokio::spawn(serve(head, body, answer, seen.clone()));
    }
}

fn ok() -> Response<()> {
    let answer = Response::builder().header("content-type", "application/grpc");
    answer.body(()).expect("a head")
}

/// The trailers of a call that went well.
fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("grpc-message", HeaderValue::from_static("fine"));
    trailers.insert("x-detail-bin", HeaderValue::from_static("AAECAw=="));
    trailers
}

async fn serve(
    head: http::request::Parts,
    mut body: RecvStream,
    mut answer: server::SendResponse<Bytes>,
    seen: Arc<Mutex<Seen>>,
) {
    match head.uri.path() {
        "/trailers-only" => {
            let mut head = ok();
            head.headers_mut()
                .insert("grpc-status", HeaderValue::from_static("5"));
            answer.send_response(head, true).expect("sent");
        }
        "/silent" => {
            let reset = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
            if let Ok(reason) = reset {
                let mut seen = seen.lock().expect("no panic");
                seen.resets.push((Instant::now(), reason));
            }
        }
        "/endless" => {
            let mut send = answer.send_response(ok(), false).expect("sent");
            send.send_data(Bytes::from_static(b"first"), false)
                .expect("sent");
            let reset = std::future::poll_fn(|cx| send.poll_reset(cx)).await;
            if let Ok(reason) = reset {
                let mut seen = seen.lock().expect("no panic");
                seen.resets.push((Instant::now(), reason));
            }
        }
        "/large" => {
            let mut send = answer.send_response(ok(), false).expect("sent");
            drop(send.send_data(vec![0; 8 << 20].into(), true));
            // Held until it is taken or given up.
            drop(std::future::poll_fn(|cx| send.poll_reset(cx)).await);
        }
        "/many" => {
            let mut send = answer.send_response(ok(), false).expect("sent");
            for _ in 0..10_000 {
                send.send_data(Bytes::from_static(b"12345"), false)
                    .expect("sent");
                tokio::task::yield_now().await;
            }
            send.send_trailers(trailers()).expect("sent");
        }
        // An echo: each piece goes back as it comes.
        _ => {
            let mut send = answer.send_response(ok(), false).expect("sent");
            while let Some(Ok(piece)) = body.data().await {
                drop(body.flow_control().release_capacity(piece.len()));
                if send.send_data(piece, false).is_err() {
                    return;
                }
            }
            drop(send.send_trailers(trailers()));
        }
    }
}

/// A connection of a client.
pub async fn connect(to: SocketAddr) -> client::SendRequest<Bytes> {
    let stream = TcpStream::connect(to).await.expect("it listens");
    stream.set_nodelay(true).expect("no delay");
    let (sender, connection) = client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake(stream)
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    sender.ready().await.expect("ready")
}

/// The head of a call.
pub fn call(path: &str) -> http::request::Builder {
    Request::post(format!("http://t.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// All of an answer.
#[derive(Debug)]
pub struct Answer {
    pub head: http::response::Parts,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// The head was the end, too.
    pub head_only: bool,
}

/// Reads an answer to its end.
pub async fn read(answer: client::ResponseFuture) -> Result<Answer, h2::Error> {
    let whole = async {
        let (head, mut stream) = answer.await?.into_parts();
        let head_only = stream.is_end_stream();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            drop(stream.flow_control().release_capacity(piece.len()));
            body.extend_from_slice(&piece);
        }
        let trailers = stream.trailers().await?;
        Ok(Answer {
            head,
            body,
            trailers,
            head_only,
        })
    };
    tokio::time::timeout(SOON, whole).await.expect("in time")
}

/// A call with one message.
pub async fn unary(
    to: SocketAddr,
    head: http::request::Builder,
    message: &'static [u8],
) -> Result<Answer, h2::Error> {
    let mut sender = connect(to).await;
    let (answer, mut send) = sender.send_request(head.body(()).expect("a head"), false)?;
    send.send_data(Bytes::from_static(message), true)?;
    read(answer).await
}
