//! Ten thousand clients ask for one missing object at once (CASES I20, I25).
//!
//! The origin holds its answer back until all of them wait. Where fewer descriptors are granted there
//! are fewer clients.

use std::io::Write as _;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::harness::{Gateway, Origin, Raw, Reply, gateway};

/// Fewer than this are no stampede.
const FEW: u64 = 100;

/// Crowds come one after the other: all tests of one process share its descriptors.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As many clients as there are descriptors for on either side, with room for other tests; at most
/// ten thousand.
fn many() -> u64 {
    let granted = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (granted / 2).saturating_sub(500).clamp(FEW, 10_000)
}

/// 200 with these fields: the first half, a moment in which all come, and the rest or the end.
struct Slow {
    fields: &'static str,
    body: String,
    dies: bool,
}

impl Slow {
    fn new(fields: &'static str) -> Self {
        let body = "a line of the object\n".repeat(2000);
        Slow {
            fields,
            body,
            dies: false,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let (fields, length) = (self.fields, self.body.len());
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n");
        format!("{head}{}", self.body).into_bytes()
    }
}

/// An origin whose first answer waits for `gate`; later ones are whole and at once.
fn origin(slow: Slow, gate: &Arc<Barrier>) -> Origin {
    let (slow, gate) = (Arc::new(slow), Arc::clone(gate));
    Origin::start(move |_, n| {
        let bytes = slow.bytes();
        if n > 0 {
            return Reply::Bytes(bytes);
        }
        let (gate, dies) = (gate.clone(), slow.dies);
        Reply::Act(Box::new(move |stream| {
            gate.wait();
            let end = if dies { bytes.len() / 2 } else { bytes.len() };
            stream.write_all(&bytes[..end]).is_ok() && !dies
        }))
    })
}

/// A gateway that sheds nothing: a machine that does other work is not to decide the test.
fn before(origin: &Origin) -> Gateway {
    let config = gateway::before(
        origin.address,
        "retry = false\neject = false\n\
         timeouts = { first_byte = \"60s\" }",
    );
    let server = "[server]\nworkers = 2\nshed = false\ndrain = { delay = \"0s\", timeout = \"10s\" }\n\
                  [admin]\naddress = \"127.0.0.1:0\"\n";
    Gateway::start_bare(&format!(
        "{server}{config}timeout = \"60s\"\ncache = {{ lock_timeout = \"60s\" }}\n"
    ))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "not in a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// So many clients that have asked and not been answered.
fn waiting(gateway: &mut Gateway, origin: &Origin, count: u64) -> Vec<Raw> {
    let ask = |gateway: &Gateway| {
        let mut client = Raw::connect(gateway.web());
        client.send("GET /slow HTTP/1.1\r\nHost: t.test\r\n\r\n");
        client
    };
    let mut clients = vec![ask(gateway)];
    until("the first is the leader", || origin.requests().len() == 1);
    clients.extend((1..count).map(|_| ask(gateway)));
    until("all wait", || {
        gateway.metric("weir_requests_in_flight{route=\"all\"}") >= count as f64
    });
    clients
}

#[test]
fn i25_ten_thousand_who_miss_are_one_request_and_little_memory() {
    let _alone = alone();
    let gate = Arc::new(Barrier::new(2));
    let slow = Slow::new("Cache-Control: max-age=60\r\n");
    let body = slow.body.clone();
    let origin = origin(slow, &gate);
    let mut gateway = before(&origin);
    let idle = gateway.rss();
    let count = many();
    let mut clients = waiting(&mut gateway, &origin, count);
    gate.wait();
    for client in &mut clients {
        let answer = client.response();
        assert!(answer.text() == body, "another body");
    }
    let each = gateway.rss().saturating_sub(idle) / count;
    assert!(each < 48, "{each} KiB for each client");
    assert_eq!(origin.requests().len(), 1);
    gateway.assert_sound();
}

#[test]
fn i20_a_leader_that_leaves_a_crowd_does_not_end_its_fetch() {
    let _alone = alone();
    let gate = Arc::new(Barrier::new(2));
    let slow = Slow::new("Cache-Control: max-age=60\r\n");
    let body = slow.body.clone();
    let origin = origin(slow, &gate);
    let mut gateway = before(&origin);
    let count = many();
    let mut clients = waiting(&mut gateway, &origin, count);
    let leader = clients.remove(0);
    let reset = socket2::SockRef::from(leader.stream()).set_linger(Some(Duration::ZERO));
    reset.expect("it is open");
    drop(leader);
    gate.wait();
    for client in &mut clients {
        let answer = client.response();
        assert!(answer.text() == body, "another body");
    }
    assert_eq!(origin.requests().len(), 1);
    gateway.assert_sound();
}

#[test]
fn i19_an_origin_that_dies_in_mid_body_gives_a_crowd_nothing_whole() {
    let _alone = alone();
    let gate = Arc::new(Barrier::new(2));
    let slow = Slow {
        dies: true,
        ..Slow::new("Cache-Control: max-age=60\r\n")
    };
    let body = slow.body.clone();
    let origin = origin(slow, &gate);
    let mut gateway = before(&origin);
    let mut clients = waiting(&mut gateway, &origin, many());
    gate.wait();
    for client in &mut clients {
        let answer = client.try_response();
        assert!(answer.is_err(), "half a body was taken for whole");
    }
    assert_eq!(origin.requests().len(), 1);
    drop(clients);
    let mut next = Raw::connect(gateway.web());
    next.send("GET /slow HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert!(next.response().text() == body);
    assert_eq!(origin.requests().len(), 2, "half a body was stored");
    gateway.assert_sound();
}

#[test]
fn i25_an_answer_that_says_no_store_lets_a_crowd_go() {
    let _alone = alone();
    let gate = Arc::new(Barrier::new(2));
    let origin = origin(Slow::new("Cache-Control: no-store\r\n"), &gate);
    let mut gateway = before(&origin);
    // Each of them has a connection and a thread of the origin's, which takes so many at once.
    let count = 100;
    let mut clients = waiting(&mut gateway, &origin, count);
    gate.wait();
    for client in &mut clients {
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(
        origin.requests().len() as u64,
        count,
        "an answer was given twice"
    );
    gateway.assert_sound();
}
