//! What one decision of a limit costs, from ten keys to a million: `cargo bench --bench limiter`.
//!
//! `decision` is all that a request pays: its key is hashed and charged, in a table that a million
//! keys have filled, and all are admitted. `floor` is what the machine takes for the least that must
//! be done for that: the same hash, one read of as much memory at a place that the read before it
//! has a say in, and one atomic step there. What is left between the two is the limiter's own.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::Duration;

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use http::HeaderValue;
use weir::clock;
use weir::message::sketch::Sketch;
use weir::message::{Body, Conn, Exchange, Request};
use weir::middleware::rate_limit::{Judge, Limit, LimitConfig};
use weir::problem::Problems;
use weir::telemetry::handles::Metrics;

/// As the gateway has it.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: [u32; 4] = [10, 1_000, 100_000, 1_000_000];
const MOST: u32 = 1_000_000;

/// A limit whose burst nobody uses up.
fn limit() -> Arc<Limit> {
    let text = format!("rate = \"1/s\"\nburst = 4000000000\nkeys = {MOST}");
    let config: LimitConfig = toml::from_str(&text).expect("a section");
    let numbers = Metrics::new(1).limiter("bench");
    let limit = Limit::compile("bench", &config, None, numbers, &mut Problems::new());
    limit.expect("a limit")
}

/// A request, and numbers that client addresses are made of.
struct Traffic {
    request: Request,
    exchange: Exchange,
    state: u32,
}

impl Traffic {
    fn new() -> Self {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let exchange = Exchange::new(
            Arc::new(Conn::new("web".into(), peer, peer, false, None)),
            clock::now(),
            peer.ip(),
            HeaderValue::from_static("id"),
            Sketch::default(),
            Duration::MAX,
        );
        Traffic {
            request: Box::new(http::Request::new(Body::empty())),
            exchange,
            state: 1,
        }
    }

    /// The next client is this one.
    fn from(&mut self, client: u32) {
        self.exchange.client = IpAddr::V4(Ipv4Addr::from_bits(client));
    }

    /// The next client is any of so many.
    fn any_of(&mut self, clients: u32) {
        self.state = self
            .state
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        self.from(((u64::from(self.state) * u64::from(clients)) >> 32) as u32);
    }

    fn hash(&self, limit: &Limit) -> u64 {
        limit.hash(&self.request, &self.exchange)
    }
}

/// A million clients have come before.
fn filled() -> Arc<Limit> {
    let (limit, mut traffic, now) = (limit(), Traffic::new(), clock::now());
    let judge = Judge::new(&limit, 0);
    for client in 0..MOST {
        traffic.from(client);
        assert!(judge.charge(traffic.hash(&limit), now).admits);
    }
    limit
}

/// The two take turns, so that what else the machine does is in both.
fn limiter(c: &mut Criterion) {
    weir::run::small_pages();
    let (limit, now) = (filled(), clock::now());
    let (_, cells) = limit.keys(now);
    let memory: Box<[AtomicU64]> = (0..cells * 2).map(|_| AtomicU64::new(0)).collect();
    for keys in KEYS {
        c.bench_function(&format!("decision/{keys}"), |b| decision(b, &limit, keys));
        c.bench_function(&format!("floor/{keys}"), |b| {
            floor(b, &limit, &memory, keys);
        });
    }
}

fn decision(b: &mut Bencher<'_>, limit: &Arc<Limit>, keys: u32) {
    let (judge, mut traffic, now) = (Judge::new(limit, 0), Traffic::new(), clock::now());
    b.iter(|| {
        traffic.any_of(keys);
        judge.charge(traffic.hash(limit), black_box(now))
    });
}

fn floor(b: &mut Bencher<'_>, limit: &Limit, memory: &[AtomicU64], keys: u32) {
    let mut traffic = Traffic::new();
    b.iter(|| {
        traffic.any_of(keys);
        let hash = u128::from(traffic.hash(limit));
        let word = &memory[((hash * memory.len() as u128) >> 64) as usize];
        let was = word.load(Acquire);
        traffic.state ^= was as u32;
        word.compare_exchange(was, was, AcqRel, Acquire)
    });
}

criterion_group!(benches, limiter);
criterion_main!(benches);
