//! Addresses as written: where we listen (`ip:port`) and where endpoints are (`host:port`).
//!
//! Pure functions of the text: nothing is resolved and nothing bound here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::problem::{Located, Problem, Problems};

/// Reads `ip:port`; a problem if it is none.
pub(super) fn socket(text: &Located<String>, problems: &mut Problems) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let message = format!("\"{}\" is not ip:port", text.value);
    let guess = match text.rsplit_once(':') {
        Some(("localhost", port)) => Some(format!("127.0.0.1:{port}")),
        Some(("" | "*", port)) => Some(format!("0.0.0.0:{port}")),
        _ => Some(format!("0.0.0.0:{}", text.value)),
    };
    let guess = guess.filter(|guess| guess.parse::<SocketAddr>().is_ok());
    let problem = Problem::at(&text.span, message);
    problems.push(match guess {
        Some(guess) => problem.help(format!("did you mean \"{guess}\"?")),
        None => problem.help("write \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\""),
    });
    None
}

/// Whether two sockets cannot both be bound. Port 0 is a fresh one each time.
pub(super) fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let all = |ip: IpAddr| ip.is_unspecified();
    let same_family = a.is_ipv4() == b.is_ipv4();
    let same_ip = a.ip() == b.ip() || (same_family && (all(a.ip()) || all(b.ip())));
    a.port() != 0 && a.port() == b.port() && same_ip
}

/// Checks the `host:port` of an endpoint.
pub(super) fn endpoint(text: &Located<String>, problems: &mut Problems) {
    if let Err((message, help)) = host_and_port(text) {
        let message = format!("\"{}\" {message}", text.value);
        problems.push(Problem::at(&text.span, message).help(help));
    }
}

type Fault = (&'static str, &'static str);

fn host_and_port(text: &str) -> Result<(), Fault> {
    const FORMS: &str = "write \"host:port\", \"192.0.2.7:port\" or \"[2001:db8::7]:port\"";
    if text.contains("://") {
        return Err((
            "has a scheme",
            "write \"host:port\" alone; TLS is asked for with a `tls` table",
        ));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(("is an address without a port", FORMS));
    }
    let (host, port) = text.rsplit_once(':').ok_or(("has no port", FORMS))?;
    match port.parse::<u16>() {
        Ok(1..) => {}
        _ => return Err(("has no valid port", "a port is a number from 1 to 65535")),
    }
    match host.strip_prefix('[') {
        Some(v6) => {
            let v6 = v6
                .strip_suffix(']')
                .and_then(|v6| v6.parse::<Ipv6Addr>().ok());
            v6.map(drop).ok_or(("is no IPv6 address", FORMS))
        }
        None if is_host(host) => Ok(()),
        None => Err(("names no valid host", FORMS)),
    }
}

/// An IPv4 address, or a name of letters, digits, `-` and `_` in labels of up to 63.
fn is_host(host: &str) -> bool {
    let number = |c: char| c.is_ascii_digit() || c == '.';
    if host.chars().all(number) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = |l: &str| (1..=63).contains(&l.len()) && l.chars().all(letter);
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for good in [
            "127.0.0.1:80",
            "[::1]:443",
            "app:1",
            "a.b-c.internal:65535",
            "my_app.svc.:80",
        ] {
            assert!(host_and_port(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ":80",
            "app",
            "app:",
            "app:0",
            "app:65536",
            "app:-1",
            "::1",
            "::1:80",
            "[::1]",
            "[::1:80",
            "[app]:80",
            "a b:80",
            "a..b:80",
            "300.1.1.1:80",
            "1.2.3:80",
            "http://app:80",
            "app:80/x",
            "user@app:80",
            ".:80",
        ] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sockets_clash_only_where_both_cannot_be_bound() {
        let clashes = |a: &str, b: &str| {
            let parse = |s: &str| s.parse().expect("a socket address");
            clash(parse(a), parse(b))
        };
        assert!(clashes("0.0.0.0:80", "127.0.0.1:80"));
        assert!(clashes("[::]:80", "[::1]:80"));
        assert!(clashes("127.0.0.1:80", "127.0.0.1:80"));
        assert!(!clashes("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clashes("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!clashes("0.0.0.0:80", "0.0.0.0:81"));
    }
}
