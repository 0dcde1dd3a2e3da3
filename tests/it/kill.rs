//! Upstream processes die for real: SIGKILL, again and again, under load (M01, M02).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::harness::{Gateway, Raw, eventually};

/// A small origin in a process of its own: writes the target of each POST down before it answers.
const SCRIPT: &str = r#"
import os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        if self.command == "POST":
            os.write(log, (self.path + "\n").encode())
        time.sleep(0.002)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    do_GET = do_PUT = do_DELETE = do_POST = answer
    def log_message(self, *args):
        pass
class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(dir: &Path, address: SocketAddr) -> Process {
        let child = Command::new("python3")
            .arg(dir.join("origin.py"))
            .arg(address.port().to_string())
            .arg(dir.join("posts"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 runs");
        eventually("it listens", || TcpStream::connect(address).is_ok());
        Process { child, address }
    }

    /// Ends at once, as by a crash, and comes back.
    fn restart(&mut self, dir: &Path) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        std::thread::sleep(Duration::from_millis(50));
        *self = Process::start(dir, self.address);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What one client saw.
#[derive(Default)]
struct Tally {
    answered: usize,
    posted: usize,
    failed_posts: usize,
}

fn keep_asking(web: SocketAddr, who: usize, stop: &AtomicBool) -> Tally {
    let mut raw = Raw::connect(web);
    let mut tally = Tally::default();
    for i in 0.. {
        if stop.load(SeqCst) {
            break;
        }
        let method = ["GET", "PUT", "POST", "DELETE"][i % 4];
        raw.send(format!(
            "{method} /{who}/{i} HTTP/1.1\r\nHost: t.test\r\nContent-Length: 4\r\n\r\nbody"
        ));
        let answer = raw.response();
        match (method, answer.status()) {
            ("POST", 200) => tally.posted += 1,
            ("POST", 502) => tally.failed_posts += 1,
            (_, 200) => {}
            (_, status) => panic!("{method}: {status} {}", answer.text()),
        }
        tally.answered += 1;
    }
    tally
}

#[test]
fn m01_m02_an_origin_killed_again_and_again_costs_no_idempotent_request_and_doubles_no_post() {
    const KILLS: usize = 12;
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("origin.py"), SCRIPT).expect("a script");
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [a, b] = ports.map(|port| port.local_addr().expect("bound"));
    let steady = Process::start(dir.path(), a);
    let mut mortal = Process::start(dir.path(), b);
    let gateway = Gateway::start(&format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n\
         [upstreams.o]\nendpoints = [\"{}\", \"{}\"]\neject = {{ consecutive = 5, base = \"100ms\" }}\n\
         [[routes]]\nid = \"all\"\nupstream = \"o\"\n",
        steady.address, mortal.address
    ));
    let web = gateway.web();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|who| {
            let stop = stop.clone();
            std::thread::spawn(move || keep_asking(web, who, &stop))
        })
        .collect();
    let started = Instant::now();
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(150));
        mortal.restart(dir.path());
    }
    assert!(started.elapsed() < Duration::from_secs(60));
    stop.store(true, SeqCst);
    let tallies: Vec<Tally> = clients
        .into_iter()
        .map(|c| c.join().expect("no error reached a client"))
        .collect();
    let sum = |what: fn(&Tally) -> usize| tallies.iter().map(what).sum::<usize>();
    let log = std::fs::read_to_string(dir.path().join("posts")).expect("the log");
    let mut posts: Vec<&str> = log.lines().collect();
    let all = posts.len();
    posts.sort_unstable();
    posts.dedup();
    assert_eq!(all, posts.len(), "a POST was delivered twice");
    assert!(
        all >= sum(|t| t.posted),
        "an answered POST was not delivered"
    );
    assert!(all <= sum(|t| t.posted + t.failed_posts));
    assert!(sum(|t| t.answered) > 500, "{}", sum(|t| t.answered));
}
