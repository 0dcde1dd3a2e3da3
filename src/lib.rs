//! Weir, a reverse-proxy gateway: THE MAP.
//!
//! Made to degrade before it refuses, to change its config under traffic without losing anything,
//! and to be fast and safe with its limits on. This page is for whoever works on it; the README is
//! for whoever runs it. What moves in the code moves here in the same commit.
//!
//! # Words
//!
//! | word | means |
//! |---|---|
//! | *downstream*, *upstream* | towards the client, towards the servers behind us |
//! | **listener** | an address where clients connect, with or without TLS |
//! | **worker** | one thread with a runtime, sockets, pools and stacks of its own |
//! | **control thread** | the first thread, for all that is not a request: signals, reload, the admin address, health checks, names |
//! | **route** | what matches, and what applies |
//! | **upstream** | a named set of **endpoints**; one attempt to send to an endpoint is a **try** |
//! | **plan** | the compiled, immutable form of one config; its **generation** rises by one each time |
//! | **stack** | a route's layers, bound to one worker |
//! | **exchange** | one request and its answer, with the notes that layers leave for each other |
//! | **reason** | the one word for a failure: metric label, log field, word in the answer |
//!
//! # Floors
//!
//! Imports go down only, and never from room to room. `tests/it/floor_plan.rs` holds the walls.
//!
//! | floor | modules | may use |
//! |---|---|---|
//! | 5 door | `main`, [`run()`], [`cli`], [`mod@run`] (the life of a process), [`demo`] | all |
//! | 4 machinery | [`server`] (threads and sockets), [`mod@reload`], [`watch`], [`admin`] (the operator's address), [`control`] (what it shows) | each other, and below |
//! | 3 plan | [`plan`]: the file as run | below |
//! | 2 paper | [`config`]: the file as written | the sections of floor 1, and below |
//! | 1 rooms | each of [`middleware`]; [`upstream`]: how a request leaves | floor 0, and nothing beside |
//! | 0 ground | [`error`], [`problem`], [`units`], [`switch`], [`files`], [`filled`], [`clock`], [`chance`], [`gather`], [`gate`] (caps and their queues), [`pressure`] (what the process is short of), [`message`], [`telemetry`] | each other |
//!
//! A section's type stands with the module that uses it where that is below [`config`] (a room,
//! [`upstream`]), and in [`config`] itself where it is above. So a room never looks up: what it
//! needs from another, [`plan::stack`] hands in as an inner service or a small trait.
//!
//! # The path of a request
//!
//! ```text
//! the kernel picks a worker's socket (SO_REUSEPORT)
//!   server/listener     accept, cap; a fresh socket goes to the worker with clearly fewer
//!   server/connection   PROXY header, TLS, h1 or h2, each under header_timeout; then hyper
//!   server/multiplex    an HTTP/2 connection and its streams are one task
//!   server/guard        strict HTTP/1 heads and chunks, in the bytes; frames: HTTP/2 budgets
//!   server/dispatch     plan = the worker's view; admit the head; find the route, else `_none`
//!   plan/stack          the route's layers, outermost first:
//!     request_id        everything below can name the request
//!     observe           sees every answer to its last byte: metrics and the access log
//!     headers           the route's edits, on answers of our own too
//!     rescue            below here failure is an error; above, it is a response
//!     intake            the body's cap and the time between its pieces
//!     fallback          the ladder: a lesser answer when anything below refused or failed
//!     load_shed         low priority is refused while the process is short of something
//!     rate_limit        refuse fairly, before work
//!     concurrency       a cap on what is in flight, and a bounded queue
//!     cache             a hit skips all below; one fetch for each missing answer
//!     compress          what is worth it leaves encoded
//!     rate_limit        what counts misses alone
//!     respond | redirect | refuse    an answer without an upstream; or the way out:
//!     upgrade           who may leave HTTP
//!     rewrite           what only the upstream sees
//!     split             which upstream
//!     concurrency       the upstream's own cap: one place however often it is tried
//!     upstream/retry    further tries, within a budget
//!     forward           hop-by-hop fields off; Via, Forwarded, X-Forwarded-* on
//!     upstream/send     ask the breakers, choose an endpoint, take a connection, send within the route's timeout, record
//! ```
//!
//! The answer climbs the same stairs. [`plan::stack::build`] is where the order is written, with a
//! reason for each line; config cannot change it. Every layer has one signature: a
//! [`tower::Service`] from [`message::Request`] to [`message::Response`] or
//! [`error::GatewayError`], `Clone + Send + Sync`. The whole is boxed once, at the top.
//!
//! # The path of a reload
//!
//! On the control thread, top to bottom in [`mod@reload`]; all or nothing, and a failure says why.
//!
//! ```text
//! a change of the files (watch), SIGHUP, or POST /reload
//!   config/load     every file, the environment, certificates; all problems at once
//!   config/check    rules that span sections
//!   config/diff     what changed; a key that needs a restart refuses the whole
//!   plan/compile    a new plan, which takes over what has not changed
//!   server/prepare  new sockets are bound
//!   plan/swap       one pointer
//!   server/commit   sockets handed over and closed, workers look
//!   retire          the old plan is dropped here once no request holds it
//! ```
//!
//! `weir check` is the same code up to the sockets. What is kept, by name and content: routes with
//! their stacks ([`plan::route`]), what is stored ([`middleware::cache`]), endpoints with their health, breakers and budgets ([`upstream`]),
//! connections, TLS sessions ([`plan::tls`]), and all numbers ([`telemetry::handles`]).
//!
//! # What is shared
//!
//! | shared, immutable | shared, atomics inside | one per worker |
//! |---|---|---|
//! | [`plan::Plan`]: router, routes, certificates | what clients have used of their limits, gates, pressure, what is stored and being fetched, endpoints, breakers, retry budgets, connection caps; metric cells, a block for each worker | runtime, sockets, [`upstream::WorkerPools`], stacks, [`plan::PlanCache`] |
//!
//! What the config says of a whole upstream is counted over all workers; what can be local is local,
//! so that a request never leaves its thread. Types stay `Send`: one worker runs the same code as
//! many.
//!
//! # Invariants
//!
//! Most are absences. Those marked * are held by `tests/it/floor_plan.rs`, or by a lint.
//!
//! 1. Nothing below floor 3 knows that the config can change. *
//! 2. One `ArcSwap`, in [`plan`]; no global that changes. *
//! 3. A request sees one plan, from its first header to its last byte.
//! 4. On the request path no lock is held across an await *, no shared `Arc` is cloned, no label is
//!    formatted, and nothing is looked up by a name that the config already knew.
//! 5. Only [`middleware::rescue`] and [`middleware::fallback`] turn an error into a response.
//! 6. Only [`server`] spawns threads; tasks are spawned there, in [`upstream`], for the fills of
//!    [`middleware::cache`] and by the control thread. *
//! 7. [`plan::compile`] does no I/O: [`config::load`] has read all it needs.
//! 8. Bodies stream. What is kept for a replay, or to be stored, has a cap.
//! 9. [`middleware::cache::policy`], its keys and stamps, the time and the table of
//!    [`middleware::rate_limit`], [`gate::gradient`], [`mod@pressure`],
//!    [`upstream::balance`], [`upstream::breaker`], [`upstream::budget`], [`upstream::eject`],
//!    [`plan::router`], [`plan::pattern`] and [`message::coding`] never ask for the time or for
//!    chance: both are arguments. *
//! 10. An unknown key in a config is an error, and every key there is stands in `config/weir.toml`. *
//! 11. One clock, in [`clock`]. *
//! 12. Every metric stands in [`telemetry::names`]; labels are names of the config, worker numbers or
//!     words of closed lists. *
//! 13. No `unsafe`. *
//!
//! # A new middleware
//!
//! One file, one section, three doors; the README has the five steps, and the test of the floors
//! says which door is missing.

pub mod admin;
pub mod chance;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod error;
pub mod files;
pub mod filled;
pub mod gate;
pub mod gather;
pub mod message;
pub mod middleware;
pub mod plan;
pub mod pressure;
pub mod problem;
pub mod reload;
pub mod run;
pub mod server;
pub mod switch;
pub mod telemetry;
pub mod units;
pub mod upstream;
pub mod watch;

use telemetry::Build;

/// What this is.
pub const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    revision: env!("WEIR_REVISION"),
    rustc: env!("WEIR_RUSTC"),
};

/// Reads the command line and does what it says.
pub fn run() -> std::process::ExitCode {
    cli::main()
}
