//! Whether the referee would notice: the strict parser on bytes that are no request, and the
//! oracles before a pipe that copies what it gets, and before one that mixes up its clients.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;

use crate::harness::Raw;
use crate::harness::oracles::Bench;
use crate::harness::parse::{Reader, Stop};

/// Something that forwards without reading: a connection upstream for each client.
fn pipe(origin: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(origin).expect("the origin listens");
            copy(&client, &server);
            copy(&server, &client);
        }
    });
    address
}

fn copy(from: &TcpStream, to: &TcpStream) {
    let mut from = from.try_clone().expect("a socket");
    let mut to = to.try_clone().expect("a socket");
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        // The other way goes on: what the origin has yet to read and to answer is its own.
        drop(to.shutdown(std::net::Shutdown::Write));
    });
}

fn before_a_pipe(sent: &str) {
    let mut bench = Bench::before(|origin| (pipe(origin), None));
    let mut raw = Raw::connect(bench.web);
    raw.send(sent).finish();
    drop(raw.try_response());
    drop(raw);
    bench.judge("a pipe");
}

#[test]
fn a_good_request_through_a_pipe_passes() {
    before_a_pipe("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
}

#[test]
#[should_panic(expected = "O1: malformed upstream")]
fn o1_two_framings_upstream_are_noticed() {
    let head = "POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 5\r\n";
    before_a_pipe(&format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ));
}

#[test]
#[should_panic(expected = "O2: smuggled upstream")]
fn o2_poison_upstream_is_noticed() {
    before_a_pipe(
        "GET / HTTP/1.1\r\nHost: t.test\r\n\r\nGET /poison HTTP/1.1\r\nHost: t.test\r\n\r\n",
    );
}

#[test]
#[should_panic(expected = "the victim got another's answer")]
fn o3_an_answer_that_is_another_clients_is_noticed() {
    // Every client is given the answer that the one before it asked for.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let late = Mutex::new("first".to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut reader = Reader::new(client);
            let Ok(request) = reader.request() else {
                return;
            };
            let nonce = request.get("x-nonce").expect("a nonce").to_owned();
            let nonce = std::mem::replace(&mut *late.lock().expect("no panic"), nonce);
            let answer =
                format!("HTTP/1.1 200 OK\r\nX-Nonce: {nonce}\r\nContent-Length: 0\r\n\r\n");
            drop(std::io::Write::write_all(
                reader.get_mut(),
                answer.as_bytes(),
            ));
        }
    });
    Bench::before(|_| (address, None)).victim("a queue");
}

#[test]
fn the_strict_parser_takes_nothing_it_need_not() {
    let head = "POST / HTTP/1.1\r\nHost: t.test\r\n";
    let bad = [
        "POST / HTTP/1.1\nHost: t.test\r\n\r\n".to_owned(),
        "POST  / HTTP/1.1\r\n\r\n".to_owned(),
        "POST /\r\n\r\n".to_owned(),
        format!("{head}X : y\r\n\r\n"),
        format!("{head} folded: y\r\n\r\n"),
        format!("{head}X: a\rb\r\n\r\n"),
        format!("{head}Content-Length: 05\r\n\r\nhello"),
        format!("{head}Content-Length: +5\r\n\r\nhello"),
        format!("{head}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
    ];
    for bytes in bad {
        let read = Reader::new(bytes.as_bytes()).request();
        assert!(matches!(read, Err(Stop::Bad(_))), "{bytes:?}: {read:?}");
    }
    let cut = format!("{head}Content-Length: 5\r\n\r\nhell");
    let read = Reader::new(cut.as_bytes()).request();
    assert!(matches!(read, Err(Stop::Cut(_))), "{read:?}");
}
