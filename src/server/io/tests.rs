//! A client that stalls, drips, or sends on after a refusal.

use std::sync::atomic::AtomicU32;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::config::LimitsConfig;
use crate::plan::listener::Limits;
use crate::server::slot::{Counts, Seat};
use crate::server::socket::Socket;
use crate::telemetry::handles::Metrics;

const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

fn limits() -> Limits {
    let config = LimitsConfig::default();
    Limits {
        headers: 100,
        header_bytes: config.header_bytes.value.bytes(),
        header_timeout: config.header_timeout.value.0,
        idle_timeout: config.idle_timeout.value.0,
        body_idle_timeout: config.body_idle_timeout.value.0,
        write_timeout: WRITE_TIMEOUT,
        streams: 100,
    }
}

fn pair() -> (ClientIo<Socket<DuplexStream>>, DuplexStream) {
    let (near, far) = tokio::io::duplex(4096);
    (over(near), far)
}

fn over(near: DuplexStream) -> ClientIo<Socket<DuplexStream>> {
    let near = Socket::new(near);
    let metrics = Arc::new(Metrics::new(1));
    let cells = metrics.listener("web");
    let seat = Seat::take(0, Arc::new(Counts::new(1)), Arc::new(AtomicU32::new(0)));
    let slot = Slot::new(seat, metrics, cells);
    let pulse = Arc::new(Pulse::new(&limits(), false));
    let inspect = Inspect::Heads(Guard::new(1 << 16));
    ClientIo::new(near, Bytes::new(), inspect, pulse, WRITE_TIMEOUT, slot)
}

#[tokio::test(start_paused = true)]
async fn h06_a_client_that_takes_nothing_or_next_to_nothing_is_cut() {
    let begun = clock::now();
    let (mut io, _far) = pair();
    let cut = io.write_all(&[0; 8192]).await.expect_err("nobody reads");
    assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    assert_eq!(clock::now() - begun, WRITE_TIMEOUT);
    assert_eq!(io.pulse.blamed(), Some(Violation::Stall));
    let (mut io, mut far) = pair();
    let drip = async {
        while far.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let write = async { io.write_all(&[0; 8192]).await.expect_err("too slow").kind() };
    tokio::select! {
        kind = write => assert_eq!(kind, io::ErrorKind::TimedOut),
        () = drip => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_that_makes_progress_is_served_to_the_end() {
    let (mut io, mut far) = pair();
    let slow = async {
        let mut space = [0; 2048];
        for _ in 0..8 {
            tokio::time::sleep(WRITE_TIMEOUT - Duration::from_secs(1)).await;
            far.read_exact(&mut space).await.expect("it goes on");
        }
    };
    let (written, ()) = tokio::join!(io.write_all(&[0; 16384]), slow);
    written.expect("it is slow, not stalled");
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_may_send_for_a_second_and_an_idle_one_is_closed_at_once() {
    let (mut io, mut far) = pair();
    let begun = clock::now();
    far.write_all(b"POST / HTTP/1.1\r\nContent-Length: 9999\r\n\r\n")
        .await
        .expect("room");
    let mut space = [0; 100];
    let read = io.read(&mut space).await.expect("a head");
    assert!(read > 0);
    io.shutdown().await.expect("it closes");
    assert_eq!(clock::now() - begun, LINGER);
    let (mut io, _far) = pair();
    io.shutdown().await.expect("it closes");
    assert_eq!(clock::now() - begun, LINGER);
}

#[tokio::test(start_paused = true)]
async fn all_that_a_refused_client_sends_within_the_second_is_read() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut io = over(near);
    far.write_all(b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n")
        .await
        .expect("room");
    let read = io.read(&mut [0; 100]).await.expect("a head");
    assert!(read > 0);
    let begun = clock::now();
    let sent = async {
        far.write_all(&[0; 5 << 20]).await.expect("it is read");
        let taken = clock::now() - begun;
        drop(far);
        taken
    };
    let (closed, taken) = tokio::join!(io.shutdown(), sent);
    closed.expect("it closes");
    assert_eq!(taken, Duration::ZERO, "nothing waits for the timer");
}
