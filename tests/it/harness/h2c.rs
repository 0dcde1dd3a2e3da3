//! HTTP/2 by prior knowledge, from a client that keeps the rules: streams at once, GOAWAY honoured.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;

use super::SOON;

/// Runs a conversation on a thread and runtime of its own, on one connection.
pub fn converse<T, F>(to: SocketAddr, talk: impl FnOnce(SendRequest<Bytes>) -> F) -> T
where
    F: Future<Output = T>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(to)
            .await
            .expect("it listens");
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 20);
        let (send, connection) = builder.handshake(stream).await.expect("HTTP/2 is spoken");
        tokio::spawn(async move { drop(connection.await) });
        talk(send).await
    })
}

/// Sends a request and takes the whole answer; its status and how many bytes came.
pub async fn ask(
    send: &mut SendRequest<Bytes>,
    request: http::Request<()>,
) -> Result<(u16, u64), h2::Error> {
    let (response, _) = send.send_request(request, true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut count = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        count += data.len() as u64;
        body.flow_control().release_capacity(data.len())?;
    }
    Ok((status, count))
}

pub fn get(path: &str) -> http::Request<()> {
    let request = http::Request::get(format!("http://t.test{path}"));
    request.body(()).expect("a request")
}

/// The bytes of one GET.
pub fn download(to: SocketAddr, path: &str) -> u64 {
    converse(to, async |mut send| {
        let (status, count) = ask(&mut send, get(path)).await.expect("an answer");
        assert_eq!(status, 200);
        count
    })
}

/// `streams` at once, one request after the other on each, until the gateway takes no more; how
/// many were answered, or what failed of those it had taken.
pub fn until_goaway(to: SocketAddr, streams: usize) -> JoinHandle<Result<u64, String>> {
    std::thread::spawn(move || {
        converse(to, async |send| {
            let all = (0..streams).map(|_| tokio::spawn(one_after_the_other(send.clone())));
            let mut served = 0;
            for one in all.collect::<Vec<_>>() {
                let counted = tokio::time::timeout(SOON, one).await;
                served += counted
                    .map_err(|e| e.to_string())?
                    .map_err(|e| e.to_string())??;
            }
            Ok(served)
        })
    })
}

async fn one_after_the_other(mut send: SendRequest<Bytes>) -> Result<u64, String> {
    let mut served = 0;
    loop {
        send = match send.ready().await {
            Ok(send) => send,
            Err(_) => return Ok(served),
        };
        match ask(&mut send, get("/n")).await {
            Ok((200, _)) => served += 1,
            // not taken, as the GOAWAY says: the client may send it elsewhere
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                return Ok(served);
            }
            Ok((status, _)) => return Err(format!("status {status} after {served}")),
            Err(error) => return Err(format!("{error:?} after {served}")),
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
