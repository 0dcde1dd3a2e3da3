//! Upstream processes die for real: SIGKILL, again and again, under load (M01, M02).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::harness::{Gateway, Origin, Raw, Reply, eventually, origin};

/// Where the child listens, and where it writes down the targets of POSTs, a space between.
const CHILD: &str = "WEIR_TEST_ORIGIN";

/// Not a test but the origin: this very binary is started again, with [`CHILD`] set, to run this
/// one, so that there is a process to kill and nothing else to install. Without it there is
/// nothing to do.
#[test]
fn an_origin_in_a_process_of_its_own() {
    let Ok(told) = std::env::var(CHILD) else {
        return;
    };
    let (address, log) = told.split_once(' ').expect("an address and a path");
    let log = OpenOptions::new().create(true).append(true).open(log);
    let log = log.expect("a log");
    let listener = TcpListener::bind(address).expect("the port is free again");
    let _origin = Origin::at(listener, move |request, _| {
        if request.method() == "POST" {
            // In one write, before the answer.
            let line = format!("{}\n", request.target());
            (&log).write_all(line.as_bytes()).expect("it is written");
        }
        Reply::After(Duration::from_millis(2), Box::new(origin::ok("ok")))
    });
    loop {
        std::thread::park();
    }
}

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(dir: &Path, address: SocketAddr) -> Process {
        let told = format!("{address} {}", dir.join("posts").display());
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args([
                "--exact",
                "kill::an_origin_in_a_process_of_its_own",
                "--nocapture",
            ])
            .env(CHILD, told)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this binary runs again");
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
