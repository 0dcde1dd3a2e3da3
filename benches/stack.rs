//! A request through a route's whole stack, with 0 to 12 policies that are on and do not act.
//!
//!     cargo bench --bench stack
//!
//! The route answers by itself, so that what is measured is the stack. The difference between two
//! neighbours is what a policy costs where it has nothing to do.

mod common;

use common::Bench;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Each is one more policy; limits come after them, since they stand in one list.
const POLICIES: [&str; 6] = [
    "headers = { response = { set = { x-frame-options = \"deny\" } } }",
    "max_body = \"10MiB\"",
    "priority = \"low\"",
    "concurrency = { max = 100000 }",
    "compress = {}",
    "fallback = [{ on = [\"error\"], respond = { status = 503 } }]",
];
const KEYS: [&str; 6] = [
    "client_ip",
    "route",
    "host",
    "path",
    "header:user-agent",
    "query:id",
];

fn limits(count: usize) -> String {
    let limits = KEYS
        .iter()
        .take(count)
        .map(|key| format!("{{ rate = \"1000000/s\", burst = 1000000, key = \"{key}\" }}"));
    format!("rate_limit = [{}]", limits.collect::<Vec<_>>().join(", "))
}

fn config(policies: usize) -> String {
    let mut text = "[[routes]]\nid = \"all\"\nrespond = { body = \"ok\" }\n".to_owned();
    for policy in POLICIES.iter().take(policies) {
        text = text + policy + "\n";
    }
    text + &limits(policies.saturating_sub(POLICIES.len()))
}

fn stack(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let mut group = c.benchmark_group("stack");
    for policies in 0..=POLICIES.len() + KEYS.len() {
        let bench = Bench::new(&config(policies));
        let view = bench.worker.view();
        let stack = bench.worker.stack(&view, 0);
        group.bench_function(BenchmarkId::new("policies", policies), |b| {
            b.iter_batched(
                || bench.request("/v1/item?id=4711"),
                |request| runtime.block_on(stack.answer(request)),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, stack);
criterion_main!(benches);
