//! Finding a route among 10, 1,000 and 10,000.
//!
//!     cargo bench --bench router

mod common;

use std::hint::black_box;

use common::{Bench, fields, many_routes};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Method;
use weir::plan::router::Question;

/// Routes that are asked for in turn: few of them would stay in the nearest cache.
const ASKED: usize = 4_096;

fn router(c: &mut Criterion) {
    let headers = fields();
    let mut group = c.benchmark_group("router");
    for count in [10, 1_000, 10_000] {
        let bench = Bench::new(&many_routes(count));
        let asked: Vec<(String, String)> = (0..ASKED)
            .map(|nth| nth * 7919 % count)
            .map(|at| {
                let more = if at % 3 == 0 { "/4711" } else { "" };
                (
                    format!("h{}.example.com", at % 100),
                    format!("/v1/part{}/item{more}", at / 100),
                )
            })
            .collect();
        let mut turn = asked.iter().cycle();
        group.bench_function(BenchmarkId::new("found", count), |b| {
            b.iter(|| {
                let (host, path) = turn.next().expect("it goes on");
                let question = Question {
                    host,
                    path,
                    query: None,
                    method: &Method::GET,
                    headers: &headers,
                };
                black_box(bench.plan.router.find(question))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, router);
criterion_main!(benches);
