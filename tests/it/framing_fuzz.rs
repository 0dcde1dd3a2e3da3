//! A62: thousands of broken variants of group A's requests, through the gateway and through the
//! recorder's strict parser. What arrives upstream must be what the strict parser reads in the
//! client's bytes, request by request, and never one more.

use super::harness::bench::{Bench, name};
use super::harness::parse::{Message, Reader, Stop};

const MUTANTS: usize = 3000;

const SEEDS: [&str; 8] = [
    "POST /a HTTP/1.1\r\nHost: t.test\r\nContent-Length: 46\r\n\r\nGET /p HTTP/1.1\r\nHost: t.test\r\nX: 1234567\r\n\r\n",
    "POST /b HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n26\r\nGET /p HTTP/1.1\r\nHost: t.test\r\nX: 1\r\n\r\n0\r\n\r\n",
    "GET /c HTTP/1.1\r\nHost: t.test\r\nX: y\r\n\r\n",
    "POST /d HTTP/1.1\r\nHost: t.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5c\r\nGPOST /p HTTP/1.1\r\n\r\n0\r\n\r\n",
    "POST /e HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: t.test\r\n\r\n2;a=b\r\nXX\r\n0\r\nT: v\r\n\r\n",
    "POST /f HTTP/1.0\r\nHost: t.test\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
    "DELETE /g HTTP/1.1\r\nHost: t.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /h HTTP/1.1\r\nHost: t.test\r\ncontent-length: 0\r\n\r\n",
];

/// Pieces that matter to framing.
const PIECES: [&[u8]; 18] = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0",
    b"\0",
    b"\x0b",
    b"\x80",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"+",
    b"chunked",
];

/// Xorshift: the same mutants every time.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit.max(1)
    }
}

fn mutant(random: &mut Seeded) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(3) {
        bytes.extend_from_slice(SEEDS[random.below(SEEDS.len())].as_bytes());
    }
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => drop(bytes.remove(at)),
            1 => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
            2 => bytes.truncate(at.max(1)),
            3 => {
                let end = (at + random.below(24)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                drop(bytes.splice(at..at, piece.iter().copied()));
            }
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

/// The requests in these bytes, and why there are no more. Empty lines before one are no fault.
fn strictly(bytes: &[u8]) -> (Vec<Message>, Stop) {
    let mut reader = Reader::new(std::io::empty());
    reader.buffer = bytes.to_vec();
    let mut requests = Vec::new();
    loop {
        let blank = |b: &&u8| matches!(b, b'\r' | b'\n');
        let blank = reader.buffer.iter().take_while(blank).count();
        reader.buffer.drain(..blank);
        match reader.request() {
            Ok(request) => requests.push(request),
            Err(stop) => return (requests, stop),
        }
    }
}

/// What the strict parser refuses and RFC 9112 lets a recipient take: zeros before a length, an
/// extension or a blank after a chunk's size, the case of `chunked`. The gateway frames these
/// anew.
fn may_go_on(stop: &Stop) -> bool {
    let words = ["no length", "no chunk size", "transfer codings"];
    matches!(stop, Stop::Bad(why) if words.iter().any(|word| why.starts_with(word)))
}

#[test]
fn a62_what_arrives_upstream_is_what_a_strict_parser_reads_in_the_clients_bytes() {
    let mut bench = Bench::new();
    let mut random = Seeded(0x5eed_0a62_0a62_5eed);
    let (mut passed, mut refused) = (0, 0);
    for number in 0..MUTANTS {
        let bytes = mutant(&mut random);
        let case = format!("mutant {number}, {}", name(&bytes));
        let mut raw = bench.connect();
        raw.send(&bytes).finish();
        let said = raw.rest(super::harness::SOON);
        let whole = said.is_empty() || said.starts_with(b"HTTP/1.");
        assert!(whole, "{case}: {}", String::from_utf8_lossy(&said));
        let seen = bench.origin.requests();
        let (expected, stop) = strictly(&bytes);
        for (got, wanted) in seen.iter().zip(&expected) {
            assert_eq!(
                (got.method(), &got.body),
                (wanted.method(), &wanted.body),
                "{case}"
            );
        }
        let one_more = seen.len() > expected.len() && !may_go_on(&stop);
        assert!(!one_more, "{case}: {stop:?}, {:?}", &seen[expected.len()..]);
        if seen.is_empty() {
            refused += 1;
        } else {
            passed += seen.len();
        }
        let bad = bench.origin.bad();
        let cut = |why: &String| why.starts_with("the end") || why.contains("reset");
        assert!(bad.iter().all(cut), "{case}: {bad:?}");
        bench.origin.clear();
        if number % 50 == 0 {
            bench.victim(&case);
            bench.origin.clear();
        }
    }
    assert!(
        passed > 500 && refused > 500,
        "{passed} passed, {refused} refused"
    );
    bench.end();
}
