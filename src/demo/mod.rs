//! `weir demo`: the gateway before four origins of its own, in one process, with nothing to
//! configure and nothing to install.
//!
//! The config is `demo.toml` beside this file, an ordinary one; only the ports come from here. The
//! origins run on the control thread. Prints what to try, then serves until it is told to stop.

mod origins;

use std::io::{self, Write as _};
use std::path::Path;

use crate::config::load;
use crate::reload::Source;
use crate::run::serve;

const CONFIG: &str = include_str!("demo.toml");

/// Serves on `port` and the next one, until a signal.
pub fn run(port: u16) -> anyhow::Result<()> {
    let admin = port.checked_add(1).filter(|_| port > 0);
    let admin = admin.ok_or_else(|| anyhow::anyhow!("the port must be from 1 to 65534"))?;
    let origins = origins::Origins::bind()?;
    let variables = [
        ("PORT", port.to_string()),
        ("ADMIN_PORT", admin.to_string()),
        ("STEADY", origins.steady.to_string()),
        ("FLAKY", origins.flaky.to_string()),
        ("SLOW", origins.slow.to_string()),
        ("MOODY", origins.moody.to_string()),
        ("DOWN", origins.down.to_string()),
    ];
    let source = Source::Fixed(Box::new(move || {
        let env = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.clone())
        };
        load::load_text("demo.toml", CONFIG, Path::new("."), &env)
    }));
    // Nobody has to read it.
    let hello = move || drop(writeln!(io::stdout(), "{}", what_to_try(port, admin)));
    serve(source, None, async move { origins.serve().await }, hello)
}

fn what_to_try(port: u16, admin: u16) -> String {
    format!(
        "Weir is serving on http://127.0.0.1:{port}. Try:

  curl -i http://127.0.0.1:{port}/hello          a healthy origin; see x-request-id, x-served-by, and
                                             in the body what the origin was told of you
  curl -i http://127.0.0.1:{port}/flaky          an origin that fails a third of its requests, and
                                             drops some: the retries hide it
  curl -i http://127.0.0.1:{port}/slow           an origin that takes 2 s, on a route that allows 0.5:
                                             504 with the reason in Proxy-Status
  curl -i http://127.0.0.1:{port}/cached         the slow one behind a cache: 2 s once, then at once; see
                                             cache-status and age
  for i in 1 2 3 4 5 6; do curl -si http://127.0.0.1:{port}/limited | grep -iE 'degraded|ratelimit:'; done
                                             a limit of 2 a second that degrades: after the third,
                                             200 all the same, and Weir-Degraded says what it is
  while sleep 0.5; do curl -s -o /dev/null -w '%{{http_code}} %header{{weir-degraded}}\\n' \\
    http://127.0.0.1:{port}/moody; done           an origin that fails for 8 s of every 16: another one
                                             answers, then the breaker opens and a fixed answer
                                             does; it probes, and closes again. Ctrl-C ends the loop
  curl -X POST http://127.0.0.1:{admin}/breakers/moody/open     by hand; and /auto to let it go
  curl -i http://127.0.0.1:{port}/pair           two endpoints, one of them down: you do not notice
  curl -i http://127.0.0.1:{port}/shop/cup       rewritten to /store/cup; a tenth goes to the slow one
  curl -i http://127.0.0.1:{port}/old/x          a redirect
  curl -i http://127.0.0.1:{port}/nowhere        no route: 404, as JSON if you ask for it with
                                             -H 'accept: application/json'
  curl --http2-prior-knowledge http://127.0.0.1:{port}/ping

  http://127.0.0.1:{admin}/status             what is going on, as a page
  curl '127.0.0.1:{admin}/explain?request=GET+http://127.0.0.1/limited'   what applies, and what is left
  http://127.0.0.1:{admin}/metrics            the same, for Prometheus

Ctrl-C stops it."
    )
}
