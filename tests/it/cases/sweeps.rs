//! Rows that are sweeps: each byte at each place, and seeded mutants of everything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::data::{self, Case, Step};
use crate::harness::oracles::Bench;
use crate::harness::parse::{Message, Reader};
use crate::harness::{Gateway, Raw, SOON, eventually};

/// Sends bytes, ends its side, and reads every answer to the end of the connection.
fn exchange(bench: &Bench, bytes: &[u8]) -> Vec<Message> {
    let mut raw = Raw::connect(bench.web);
    // Who refuses early need not read all of it.
    if raw.try_send(bytes).is_ok() {
        drop(raw.stream().shutdown(std::net::Shutdown::Write));
    }
    let mut answers = Vec::new();
    while let Ok(answer) = raw.try_response() {
        answers.push(answer);
    }
    answers
}

#[test]
fn a31_any_byte_beside_a_transfer_encoding_is_refused_or_means_nothing() {
    let mut bench = Bench::start();
    let odd = (0x01..0x20)
        .chain(0x7f..=0xff)
        .filter(|b| ![b'\t', b'\r', b'\n'].contains(b));
    let bytes: Vec<u8> = odd.chain([b'\t', b'\r', b'\n']).collect();
    // CL.TE: by its length the body is whole and poison follows; TE.CL: by its chunks it is.
    let bodies = [
        ("5", "0\r\n\r\n"),
        (
            "4",
            "26\r\nGET /poison HTTP/1.1\r\nHost: t.test\r\n\r\n\r\n0\r\n\r\n",
        ),
    ];
    for byte in bytes {
        for place in 0..4 {
            for (length, body) in bodies {
                let mut at = [&b""[..]; 4];
                let one = [byte];
                at[place] = &one;
                let line = [
                    at[0],
                    b"Transfer-Encoding",
                    at[1],
                    b":",
                    at[2],
                    b" chunked",
                    at[3],
                    b"\r\n",
                ];
                let head =
                    format!("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: {length}\r\n");
                let request = [head.as_bytes(), &line.concat(), b"\r\n", body.as_bytes()].concat();
                let name = format!("A31 {byte:#04x} at {place}, length {length}");
                let answers = exchange(&bench, &request);
                let seen = bench.judge(&name);
                let refused = answers.len() == 1 && matches!(answers[0].status(), 400 | 501);
                assert!(
                    refused && seen.requests.is_empty() && seen.cut == 0,
                    "{name}: {answers:?} {seen:?}"
                );
            }
        }
    }
    bench.finish("A31");
}

/// A small generator of its own, so that a seed means the same mutants for ever.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).expect("small")
    }
}

fn bytes_of(case: &Case) -> Vec<u8> {
    let pieces = case.send.iter().filter_map(|step| match step {
        Step::Bytes(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    pieces.collect::<Vec<_>>().concat()
}

/// One to four edits: a byte deleted, inserted or replaced, a piece doubled, two requests spliced.
fn mutate(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    const TELLING: &[u8] = b"\r\n\t :;,0159afx\0\x0b\x80\"-+";
    let mut bytes = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len().max(1)).min(bytes.len());
        let byte = match dice.below(3) {
            0 => u8::try_from(dice.below(256)).expect("a byte"),
            _ => TELLING[dice.below(TELLING.len())],
        };
        match dice.below(5) {
            0 if at < bytes.len() => drop(bytes.remove(at)),
            1 if at < bytes.len() => bytes[at] = byte,
            2 => {
                let end = (at + 1 + dice.below(12)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => {
                bytes.truncate(at);
                let other = &seeds[dice.below(seeds.len())];
                bytes.extend_from_slice(&other[dice.below(other.len())..]);
            }
            _ => bytes.insert(at, byte),
        }
    }
    bytes
}

/// Two parsers that share nothing read the same bytes: what the gateway forwards is what the
/// strict reading of the client's bytes begins with, and each answer belongs to its request.
#[test]
fn a62_mutants_are_read_alike_by_the_gateway_and_by_a_strict_parser() {
    let cases = data::read(include_str!("../../cases/a.toml"));
    let seeds = cases.iter().map(bytes_of);
    let fit = |b: &Vec<u8>| !b.is_empty() && b.len() < 4096 && !b.starts_with(b"HEAD");
    let seeds: Vec<Vec<u8>> = seeds.filter(fit).collect();
    let mut bench = Bench::start();
    let mut dice = Dice(0x5eed_0062);
    for number in 0..2_000 {
        let sent = mutate(&mut dice, &seeds);
        let name = format!("A62 mutant {number} {:?}", String::from_utf8_lossy(&sent));
        let started = std::time::Instant::now();
        let answers = exchange(&bench, &sent);
        assert!(started.elapsed() < SOON, "{name}: it hangs");
        let seen = bench.judge_mutant(&name);
        let requests = &seen.requests;
        let forwarded = answers.iter().filter(|a| a.status() == 200);
        let answered: Vec<String> = forwarded.map(Message::text).collect();
        // What was sent after HEAD or lost with the connection need not be among the answers.
        for text in answered.iter().filter(|text| !text.is_empty()) {
            let told =
                |r: &Message| *text == format!("{} {} {}", r.method(), r.target(), r.body.len());
            assert!(
                requests.iter().any(told),
                "{name}: {text} was asked by nobody: {requests:?}"
            );
        }
        let mut reader = Reader::new(sent.as_slice());
        // A request that is answered without the origin stands between no two others.
        let plain = answers.iter().take_while(|a| a.status() == 200).count();
        for request in requests.iter().take(plain) {
            let Ok(strict) = reader.request() else { break };
            let same = strict.method() == request.method() && strict.body == request.body;
            assert!(same, "{name}: read differently: {strict:?} {request:?}");
        }
    }
    bench.finish("A62");
}

/// An origin that answers as soon as it has a head, reads the body as no request, and keeps the
/// connection open. Counts the heads it has answered: one for each connection.
fn hasty(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let heads = Arc::new(AtomicUsize::new(0));
    let count = heads.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = count.clone();
            std::thread::spawn(move || {
                let (mut head, mut piece) = (Vec::new(), [0; 4096]);
                while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(n @ 1..) => head.extend_from_slice(&piece[..n]),
                        _ => return,
                    }
                }
                count.fetch_add(1, SeqCst);
                drop(stream.write_all(answer.as_bytes()));
                while matches!(stream.read(&mut piece), Ok(1..)) {}
            });
        }
    });
    (address, heads)
}

/// The rest of an upload that was answered early is never anybody's request.
fn answered_early(head: &str, status: u16, answer: &'static str) {
    let (origin, heads) = hasty(answer);
    let mut gateway = Gateway::before(origin, "pool = { max_connections = 2 }\nretry = false");
    for round in 1..=3 {
        let mut raw = Raw::connect(gateway.web());
        raw.send(head);
        let early = raw.response();
        assert_eq!((early.status(), early.text().as_str()), (status, "no"));
        // What comes now is the body, or nobody's.
        drop(raw.try_send("GET /poison HTTP/1.1\r\nHost: t.test\r\n\r\n"));
        let rest = raw.try_response();
        assert!(rest.is_err(), "the late body was answered: {rest:?}");
        // A connection that still waits for a body serves nobody: each round has a new one.
        eventually("a connection of its own", || heads.load(SeqCst) == round);
    }
    gateway.assert_sound();
}

#[test]
fn d02_a_refusal_instead_of_100_continue_ends_both_connections() {
    let head =
        "POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 38\r\nExpect: 100-continue\r\n\r\n";
    answered_early(head, 401, "HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno");
    answered_early(head, 417, "HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno");
}

#[test]
fn a57_e19_an_answer_before_the_body_is_complete_ends_both_connections() {
    let head = "POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 5000\r\n\r\nhello";
    answered_early(head, 200, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    answered_early(head, 413, "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
}
