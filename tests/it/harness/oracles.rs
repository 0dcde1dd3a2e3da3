//! What must hold after every hostile exchange, whatever it was: a gateway and a recorder with
//! one upstream connection between them, and a victim who shares it.
//!
//! * O1 the recorder's own strict parser found exactly the requests that the case allows
//! * O2 no request for `/poison` went upstream
//! * O3 the victim gets the answer to its own question
//! * O4 the process lives, none of its requests panicked, its memory stays where it was
//! * O5 is the case's own: whether the connection stays
//!
//! Must never be lenient: a case that allows more says so in its own words.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::client::Raw;
use super::gateway::Gateway;
use super::origin::{Origin, Reply, echo};
use super::parse::{Message, Stop};
use super::{SOON, eventually};

/// What the origin does with the next request that is not the victim's.
pub type Script = Arc<dyn Fn() -> Reply + Send + Sync>;

/// A gateway with a pool of one connection, and the recorder behind it.
pub struct Bench {
    /// Where clients go.
    pub web: SocketAddr,
    pub origin: Origin,
    gateway: Option<Gateway>,
    script: Arc<Mutex<Option<Script>>>,
    victims: usize,
    rss: u64,
}

/// What the recorder saw of one case, the victim left out.
#[derive(Debug)]
pub struct Seen {
    /// Complete requests, in order.
    pub requests: Vec<Message>,
    /// Requests that were begun and broken off.
    pub cut: usize,
}

/// Resident memory that a whole row may leave behind, in KiB.
const RSS_GROWTH: u64 = 1024;

/// What buffers of its first large heads and bodies may cost, once, in KiB.
const RSS_BUFFERS: u64 = 8 * 1024;

/// One worker, so that the pool's one connection is everybody's.
const CONFIG: &str = r#"
[server]
workers = 1
drain = { delay = "0s", timeout = "1s" }
trusted_proxies = []
[admin]
address = "127.0.0.1:0"
[log]
access = { to = "off" }
[listeners.web]
address = "127.0.0.1:0"
limits = { header_timeout = "1500ms", body_idle_timeout = "1s", write_timeout = "2s" }
[upstreams.o]
endpoints = ["ORIGIN"]
pool = { max_connections = 1, pending_timeout = "5s" }
timeouts = { connect = "1s", first_byte = "1s", idle = "1s" }
eject = false
retry = false
[[routes]]
id = "all"
match = { host = "t.test" }
upstream = "o"
[[routes]]
id = "admin"
match = { host = "t.test", path = "/admin/*" }
respond = { status = 403, body = "no" }
[[routes]]
id = "admin_itself"
match = { host = "t.test", path = "/admin" }
respond = { status = 403, body = "no" }
[[routes]]
id = "away"
match = { host = "t.test", path = "/away/*" }
redirect = { to = "/new/*", status = 308 }
[[routes]]
id = "socket"
match = { host = "t.test", path = "/socket" }
upstream = "o"
upgrade = ["websocket"]
[[routes]]
id = "evil"
match = { host = "evil.test" }
upstream = "o"
"#;

impl Bench {
    /// Starts both, and lets the victim warm the connection between them.
    pub fn start() -> Bench {
        let mut bench = Bench::before(|origin| {
            let config = CONFIG.replace("ORIGIN", &origin.to_string());
            let gateway = Gateway::start_bare(&config);
            (gateway.web(), Some(gateway))
        });
        for _ in 0..20 {
            bench.victim("warming up");
        }
        bench.warm_up_buffers();
        // The end of a row reads the metrics; their buffers are not the row's either.
        bench.gateway().assert_sound();
        bench.origin.clear();
        bench.rss = bench.gateway().rss();
        bench
    }

    /// The recorder, with something of the test's own before it: how the oracles are tested.
    pub fn before(start: impl FnOnce(SocketAddr) -> (SocketAddr, Option<Gateway>)) -> Bench {
        let script: Arc<Mutex<Option<Script>>> = Arc::default();
        let scripted = script.clone();
        let origin = Origin::start(move |request, _| {
            let script = scripted.lock().expect("no panic").clone();
            match script {
                Some(script) if !is_victim(request) => script(),
                _ => echo(request),
            }
        });
        let (web, gateway) = start(origin.address);
        Bench {
            web,
            origin,
            gateway,
            script,
            victims: 0,
            rss: 0,
        }
    }

    fn gateway(&mut self) -> &mut Gateway {
        self.gateway.as_mut().expect("a real gateway")
    }

    /// A megabyte through every buffer, so that an allocator's first steps are not a row's.
    fn warm_up_buffers(&self) {
        let body = "a".repeat(1 << 20);
        let head = "POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 1048576\r\n\r\n";
        for _ in 0..2 {
            let mut raw = Raw::connect(self.web);
            raw.send(head).send(&body);
            assert_eq!(raw.response().status(), 200);
        }
    }

    /// What the origin does from now on; `None`: it echoes.
    pub fn set_script(&self, script: Option<Script>) {
        *self.script.lock().expect("no panic") = script;
    }

    /// O3: another client asks through the same pool and gets its own answer.
    pub fn victim(&mut self, case: &str) {
        self.victims += 1;
        let nonce = format!("n{}", self.victims);
        let mut raw = Raw::connect(self.web);
        raw.send(format!(
            "GET /victim/{nonce} HTTP/1.1\r\nHost: t.test\r\nX-Nonce: {nonce}\r\n\
             Connection: close\r\n\r\n"
        ));
        let answer = raw.try_response();
        let answer = answer.unwrap_or_else(|stop| panic!("{case}: the victim got {stop:?}"));
        let text = answer.text();
        assert_eq!(answer.status(), 200, "{case}: the victim got {text}");
        assert_eq!(
            answer.get("x-nonce"),
            Some(nonce.as_str()),
            "{case}: the victim got another's answer: {text}"
        );
    }

    /// O1 to O3 for what has just been sent; forgets it afterwards.
    pub fn judge(&mut self, case: &str) -> Seen {
        let seen = self.judge_mutant(case);
        for request in &seen.requests {
            let poison = request.target().contains("poison");
            assert!(!poison, "{case}: O2: smuggled upstream: {request:?}");
        }
        seen
    }

    /// O1 and O3: a mutant may well be a good request for `/poison`.
    pub fn judge_mutant(&mut self, case: &str) -> Seen {
        self.set_script(None);
        self.victim(case);
        // The victim's connection stays in the pool; those that were broken off have ended.
        let origin = &self.origin;
        eventually(&format!("{case}: broken connections end upstream"), || {
            origin.open() <= 1
        });
        let (mut requests, bad) = (self.origin.requests(), self.origin.bad());
        self.origin.clear();
        requests.retain(|request| !is_victim(request));
        for why in &bad {
            assert!(broken_off(why), "{case}: O1: malformed upstream: {why}");
        }
        Seen {
            requests,
            cut: bad.len(),
        }
    }

    /// Whether memory has grown beyond what a row may leave behind; then it counts from here.
    pub fn has_grown(&mut self) -> bool {
        let rss = self.gateway().rss();
        let grown = rss.saturating_sub(self.rss);
        assert!(grown <= RSS_BUFFERS, "O4: {grown} KiB more memory at once");
        if grown > RSS_GROWTH {
            self.rss = rss;
        }
        grown > RSS_GROWTH
    }

    /// O4, at the end of a row.
    pub fn finish(mut self, row: &str) {
        self.gateway().assert_sound();
        let grown = self.gateway().rss().saturating_sub(self.rss);
        assert!(
            grown <= RSS_GROWTH,
            "{row}: O4: {grown} KiB more memory, again"
        );
    }

    /// O5: the connection still answers a question of its own.
    pub fn assert_kept(&self, raw: &mut Raw, case: &str) {
        let sent =
            raw.try_send("GET /victim/after HTTP/1.1\r\nHost: t.test\r\nX-Nonce: after\r\n\r\n");
        assert!(sent.is_ok(), "{case}: O5: the connection has ended");
        let answer = raw.try_response();
        let answer = answer.unwrap_or_else(|stop| panic!("{case}: O5: not kept: {stop:?}"));
        assert_eq!(
            answer.get("x-nonce"),
            Some("after"),
            "{case}: O5: {answer:?}"
        );
    }

    /// O5: the connection has ended, with nothing further said on it.
    pub fn assert_closed(&self, raw: &mut Raw, case: &str) {
        assert!(raw.closed_within(SOON), "{case}: O5: not closed");
    }

    /// O5 where both are right: it ends, or it answers a question of its own.
    pub fn assert_kept_or_closed(&self, raw: &mut Raw, case: &str) {
        let request = "GET /victim/after HTTP/1.1\r\nHost: t.test\r\nX-Nonce: after\r\n\r\n";
        if raw.try_send(request).is_err() {
            return;
        }
        match raw.try_response() {
            Ok(answer) => assert_eq!(answer.get("x-nonce"), Some("after"), "{case}: {answer:?}"),
            Err(Stop::End) => {}
            Err(Stop::Cut(why)) => assert!(broken_off(&why), "{case}: O5: {why}"),
            Err(Stop::Bad(why)) => panic!("{case}: O5: {why}"),
        }
    }
}

/// Whether words of [`Stop::Cut`] say that the other side ended, and not that it was silent.
pub fn broken_off(why: &str) -> bool {
    why.starts_with("the end") || why.contains("reset") || why.contains("Broken pipe")
}

fn is_victim(request: &Message) -> bool {
    request.target().starts_with("/victim/")
}
