//! A gateway with a pool of one connection before a recording origin, and what must hold of each
//! hostile request that is put to it.
//!
//! After every case a second client asks through the same upstream connection: it must get its
//! own answer, and the origin must have seen what the case allows and nothing more. The pool of
//! one also orders things: what the gateway sent before the second client's request has arrived.

use std::time::Duration;

use super::parse::{Message, Stop};
use super::{Gateway, Origin, Raw, gateway};

/// How long the end of a connection may take that is to end at once.
const AT_ONCE: Duration = Duration::from_secs(5);
/// What memory may grow by over a whole table of cases, in KiB: allocators do not count by request.
const GROWTH: u64 = 8 << 10;

/// One worker, since each has connections of its own.
const ONE_WORKER: &str = "[server]\nworkers = 1\ndrain = { delay = \"0s\", timeout = \"10s\" }\n\
                          [admin]\naddress = \"127.0.0.1:0\"\n";

/// The statuses of a refusal.
pub const BAD: &[u16] = &[400];
/// Of a transfer coding that is none or not ours.
pub const CODING: &[u16] = &[400, 501];

/// What the gateway and the origin are.
pub struct Bench {
    pub gateway: Gateway,
    pub origin: Origin,
    victims: usize,
    warm: u64,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with("")
    }

    /// With keys of the listener.
    pub fn with(listener: &str) -> Bench {
        Bench::before(Origin::echo(), listener)
    }

    /// Before an origin of the test's own, which must echo what is under `/victim`.
    pub fn before(origin: Origin, listener: &str) -> Bench {
        let config = gateway::before(origin.address, "pool = { max_connections = 1 }");
        let config = config.replace("[upstreams.o]", &format!("{listener}\n[upstreams.o]"));
        let gateway = Gateway::start_bare(&format!("{ONE_WORKER}{config}"));
        let mut bench = Bench {
            gateway,
            origin,
            victims: 0,
            warm: 0,
        };
        for _ in 0..16 {
            bench.victim("warm-up");
        }
        bench.warm = bench.gateway.rss();
        bench.origin.clear();
        bench
    }

    /// A connection to it.
    pub fn connect(&self) -> Raw {
        Raw::connect(self.gateway.web())
    }

    /// Refused before a byte of it goes upstream; the connection ends.
    pub fn refused(&mut self, case: impl AsRef<[u8]>, statuses: &[u16]) -> Message {
        let name = name(case.as_ref());
        let mut raw = self.connect();
        raw.send(case);
        let answer = self.expect_refusal(&mut raw, &name, statuses);
        let seen = self.seen(&name);
        assert!(seen.is_empty(), "{name}: {seen:?} went upstream");
        let bad = self.origin.bad();
        assert!(bad.is_empty(), "{name}: {bad:?} went upstream");
        answer
    }

    /// Its head may go upstream and its body breaks off there; refused, and the connection ends.
    pub fn broken(&mut self, case: impl AsRef<[u8]>, statuses: &[u16]) {
        let name = name(case.as_ref());
        let mut raw = self.connect();
        raw.send(case);
        self.expect_refusal(&mut raw, &name, statuses);
        self.nothing_whole(&name);
    }

    /// One answer of these, and then the end.
    pub fn expect_refusal(&self, raw: &mut Raw, name: &str, statuses: &[u16]) -> Message {
        let answer = raw.try_response();
        let answer = answer.unwrap_or_else(|stop| panic!("{name}: no answer: {stop:?}"));
        let status = answer.status();
        assert!(statuses.contains(&status), "{name}: {}", answer.start);
        assert_eq!(answer.get("connection"), Some("close"), "{name}");
        // hyper's own refusals have no words; ours always do
        let says = answer.get("proxy-status").is_some() || answer.body.is_empty();
        assert!(says, "{name}: {answer:?}");
        assert!(raw.closed_within(AT_ONCE), "{name}: it stays open");
        answer
    }

    /// 400 or no answer, and then the end: the client itself has ended.
    pub fn refused_or_ended(&self, raw: &mut Raw, name: &str) {
        match raw.try_response() {
            Ok(answer) => assert_eq!(answer.status(), 400, "{name}"),
            outcome => assert!(ended(&outcome), "{name}: {outcome:?}"),
        }
        assert!(raw.closed_within(AT_ONCE), "{name}: it stays open");
    }

    /// Answered so, with these requests upstream.
    pub fn passes(&mut self, case: impl AsRef<[u8]>, keeps: bool) -> Message {
        let name = name(case.as_ref());
        let mut raw = self.connect();
        raw.send(case);
        let answer = raw.try_response();
        let answer = answer.unwrap_or_else(|stop| panic!("{name}: no answer: {stop:?}"));
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
        if keeps {
            raw.send("GET /victim HTTP/1.1\r\nHost: t.test\r\nX-Nonce: same\r\n\r\n");
            assert_eq!(raw.response().get("x-nonce"), Some("same"), "{name}");
        } else {
            assert!(raw.closed_within(AT_ONCE), "{name}: it stays open");
        }
        let mut seen = self.seen(&name);
        let bad = self.origin.bad();
        assert!(bad.is_empty(), "{name}: {bad:?} went upstream");
        assert_eq!(seen.len(), 1, "{name}: {seen:?}");
        seen.remove(0)
    }

    /// No complete request has gone upstream since the last look; one may have been broken off.
    pub fn nothing_whole(&mut self, name: &str) {
        let seen = self.seen(name);
        assert!(seen.is_empty(), "{name}: {seen:?} went upstream");
        let bad = self.origin.bad();
        let cut = |why: &String| why.starts_with("the end") || why.contains("reset");
        assert!(bad.iter().all(cut), "{name}: {bad:?} went upstream");
        self.origin.clear();
    }

    /// What has gone upstream since the last look, beside what the second client asked.
    pub fn seen(&mut self, name: &str) -> Vec<Message> {
        self.victim(name);
        let mut requests = self.origin.requests();
        self.origin.clear();
        let poison = requests.iter().find(|r| r.target().contains("poison"));
        assert!(poison.is_none(), "{name}: {poison:?}");
        requests.retain(|request| request.target() != "/victim");
        requests
    }

    /// A second client gets its own answer.
    pub fn victim(&mut self, name: &str) {
        self.victims += 1;
        let nonce = format!("n{}", self.victims);
        let mut raw = self.connect();
        raw.send(format!(
            "GET /victim HTTP/1.1\r\nHost: t.test\r\nX-Nonce: {nonce}\r\nConnection: close\r\n\r\n"
        ));
        let answer = raw.try_response();
        let answer = answer.unwrap_or_else(|stop| panic!("{name}, second client: {stop:?}"));
        let got = (answer.status(), answer.get("x-nonce"));
        assert_eq!(got, (200, Some(&*nonce)), "{name}: {}", answer.text());
    }

    /// Sound, and no larger than it was.
    pub fn end(mut self) {
        self.gateway.assert_sound();
        let grown = self.gateway.rss().saturating_sub(self.warm);
        assert!(grown < GROWTH, "{grown} KiB more than before");
    }
}

/// As much of a case as tells which it is.
pub fn name(case: &[u8]) -> String {
    let shown = &case[..case.len().min(240)];
    format!("\"{}\"", shown.escape_ascii())
}

/// Whether a connection ended without an answer, as far as that is allowed.
pub fn ended(outcome: &Result<Message, Stop>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(Stop::End) => true,
        Err(Stop::Cut(why)) => why.contains("reset"),
        Err(Stop::Bad(_)) => false,
    }
}
