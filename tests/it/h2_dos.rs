//! Clients of HTTP/2 that cost more than they pay (group G).

use std::io::Write;
use std::time::{Duration, Instant};

use super::harness::h2::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, End, GOAWAY, H2, HEADERS,
    PADDED, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, request, settings,
};
use super::harness::origin::{echo, ok};
use super::harness::{Gateway, Origin, Reply, SOON, eventually, gateway, hpack};

/// What may stay behind, in KiB: the allocator takes 4 MiB at a time, for each of two workers.
const ARENAS: u64 = 9 << 10;

/// A gateway in front of `origin` whose listener has these limits.
fn limited(origin: &Origin, limits: &str) -> Gateway {
    let config = gateway::before(origin.address, "pool = { max_connections = 200 }");
    let section = format!("[listeners.web.limits]\n{limits}\n[upstreams.o]");
    Gateway::start(&config.replace("[upstreams.o]", &section))
}

/// Another client is served, nothing is broken, memory is where it was.
fn assert_unharmed(gateway: &mut Gateway, rss: u64, more: u64) {
    let mut victim = H2::connect(gateway.web());
    assert_eq!(victim.get("/victim").status(), 200);
    drop(victim);
    gateway.assert_sound();
    let now = memory(gateway);
    assert!(now < rss + more, "{rss} KiB before, {now} KiB after");
}

/// Memory of its own, in KiB: without the pages of the binary, which come in as they are used.
fn memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).expect("a number")
}

/// Warm, so that memory can be compared.
fn warm(gateway: &Gateway) -> u64 {
    let mut client = H2::connect(gateway.web());
    for _ in 0..20 {
        assert_eq!(client.get("/warm").status(), 200);
    }
    memory(gateway)
}

/// Sends a piece again and again until the gateway has enough of it; how often it was taken.
fn flood(client: &mut H2, most: usize, piece: impl Fn(usize) -> Vec<u8>) -> usize {
    (0..most)
        .take_while(|n| client.try_send(piece(*n)).is_ok())
        .count()
}

fn id(n: usize) -> u32 {
    u32::try_from(2 * n + 1).expect("few")
}

fn get_block(path: &str) -> Vec<u8> {
    hpack::block(&request("GET", path, &[]))
}

#[test]
fn g01_g21_rapid_resets_are_cut_and_reach_the_upstream_a_few_times_only() {
    let origin = Origin::start(|request, _| {
        Reply::After(Duration::from_millis(20), Box::new(echo(request)))
    });
    let mut gateway = limited(&origin, "");
    let rss = warm(&gateway);
    origin.clear();
    let mut client = H2::connect(gateway.web());
    let block = get_block("/reset");
    let sent = flood(&mut client, 100_000, |n| {
        let open = frame(HEADERS, END_HEADERS | END_STREAM, id(n), &block);
        [open, frame(RST_STREAM, 0, id(n), &[0, 0, 0, 8])].concat()
    });
    assert!(sent < 100_000);
    assert!(client.closed_within(SOON));
    assert!(
        origin.requests().len() <= 300,
        "{}",
        origin.requests().len()
    );
    assert_unharmed(&mut gateway, rss, ARENAS);
    let cut = gateway.metric("weir_protocol_violations_total{listener=\"web\",kind=\"h2\"}");
    assert_eq!(cut, 1.0);
}

#[test]
fn g02_slow_resets_are_cut() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "");
    let mut client = H2::connect(gateway.web());
    let block = get_block("/reset");
    let mut sent = 0;
    while !client.closed_within(Duration::from_millis(10)) {
        let open = frame(HEADERS, END_HEADERS | END_STREAM, id(sent), &block);
        drop(client.try_send([open, frame(RST_STREAM, 0, id(sent), &[0, 0, 0, 8])].concat()));
        sent += 1;
        assert!(sent <= 200, "it goes on for ever");
    }
    gateway.assert_sound();
}

#[test]
fn g03_resets_that_the_gateway_is_made_to_send_are_cut_and_free_the_upstream() {
    let zero = [0; 4];
    let most = 0x7fff_ffffu32.to_be_bytes();
    let block = get_block("/made");
    let itself = |stream: u32| [&stream.to_be_bytes()[..], &[16]].concat();
    type Primitive<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let primitives: [(&str, Primitive); 6] = [
        (
            "update by 0",
            Box::new(|s| frame(WINDOW_UPDATE, 0, s, &zero)),
        ),
        (
            "update over",
            Box::new(|s| frame(WINDOW_UPDATE, 0, s, &most)),
        ),
        ("data after the end", Box::new(|s| frame(DATA, 0, s, b"x"))),
        (
            "headers after the end",
            Box::new(|s| frame(HEADERS, 5, s, &block)),
        ),
        ("short priority", Box::new(|s| frame(PRIORITY, 0, s, &zero))),
        (
            "its own parent",
            Box::new(|s| frame(PRIORITY, 0, s, &itself(s))),
        ),
    ];
    for (name, primitive) in primitives {
        let origin = Origin::start(|request, _| {
            let slow = request.target() == "/made";
            let time = Duration::from_millis(if slow { 500 } else { 0 });
            Reply::After(time, Box::new(echo(request)))
        });
        let mut gateway = limited(&origin, "");
        let rss = warm(&gateway);
        let mut client = H2::connect(gateway.web());
        let sent = flood(&mut client, 2_000, |n| {
            let open = frame(HEADERS, END_HEADERS | END_STREAM, id(n), &block);
            [open, primitive(id(n))].concat()
        });
        assert!(client.closed_within(SOON), "{name}: open after {sent}");
        let upstream = origin.requests().len();
        assert!(upstream <= 20 + 100 + 500, "{name}: {upstream} upstream");
        assert!(origin.connections() <= 201, "{name}");
        assert_unharmed(&mut gateway, rss, ARENAS);
    }
}

#[test]
fn g04_endless_continuations_are_cut() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "");
    let rss = warm(&gateway);
    for size in [0, 1, 16 << 10] {
        let mut client = H2::connect(gateway.web());
        client.frame(
            HEADERS,
            0,
            1,
            &hpack::block(&request("GET", "/poison", &[])),
        );
        // a field whose value goes on and on
        let mut first = vec![0];
        hpack::number(&mut first, 0, 7, 1);
        first.push(b'x');
        hpack::number(&mut first, 0, 7, 100_000_000);
        client.frame(CONTINUATION, 0, 1, &first);
        let sent = flood(&mut client, 10_000, |_| {
            frame(CONTINUATION, 0, 1, &vec![b'a'; size])
        });
        assert!(client.closed_within(SOON), "{sent} of {size} bytes");
    }
    assert!(origin.requests().iter().all(|r| r.target() != "/poison"));
    assert_unharmed(&mut gateway, rss, ARENAS);
}

#[test]
fn g05_a_header_block_that_drips_is_closed_in_time_beside_other_streams() {
    let origin = Origin::start(|request, _| {
        Reply::After(Duration::from_millis(3000), Box::new(echo(request)))
    });
    let gateway = limited(&origin, "header_timeout = \"1s\"");
    for busy in [false, true] {
        let mut client = H2::connect(gateway.web());
        if busy {
            client.open(&request("GET", "/slow", &[]), true);
        }
        // nothing may be acknowledged within the block
        assert!(!client.closed_within(Duration::from_millis(100)));
        let begun = Instant::now();
        let stream = client.stream();
        client.frame(
            HEADERS,
            0,
            stream,
            &hpack::block(&request("GET", "/poison", &[])),
        );
        while !client.closed_within(Duration::from_millis(300)) {
            drop(client.try_send(frame(CONTINUATION, 0, stream, &[0, 1, b'x', 1, b'y'])));
            assert!(begun.elapsed() < Duration::from_millis(2500), "still open");
        }
        assert!(
            begun.elapsed() > Duration::from_millis(900),
            "after {:?}",
            begun.elapsed()
        );
    }
    assert!(origin.requests().iter().all(|r| r.target() != "/poison"));
}

#[test]
fn g06_g07_g08_g16_a_block_that_swells_is_refused_and_costs_no_memory() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "");
    let rss = warm(&gateway);
    let block_of = |name: &[u8], value: &[u8], times: usize| {
        let mut block = get_block("/poison");
        hpack::indexed_literal(&mut block, name, value);
        block.extend(std::iter::repeat_n(0x80 | 62, times));
        block
    };
    let mut crumbs = get_block("/poison");
    for _ in 0..5_000 {
        hpack::literal(&mut crumbs, b"cookie", b"a");
    }
    let mut empty = get_block("/poison");
    for _ in 0..5_000 {
        hpack::literal(&mut empty, b"x", b"");
    }
    let bombs = [
        ("large field", block_of(b"x-big", &[b'a'; 3900], 16_000)),
        ("small field", block_of(b"a", b"", 16_000)),
        ("crumbs", crumbs),
        ("indexed crumbs", block_of(b"cookie", b"a", 10_000)),
        ("empty values", empty),
    ];
    for (name, block) in bombs {
        let mut client = H2::connect(gateway.web());
        let mut ends = Vec::new();
        for _ in 0..50 {
            let stream = client.stream();
            let mut pieces = block.chunks(16 << 10).peekable();
            let (mut kind, mut flags) = (HEADERS, END_STREAM);
            while let Some(piece) = pieces.next() {
                flags |= if pieces.peek().is_none() {
                    END_HEADERS
                } else {
                    0
                };
                drop(client.try_send(frame(kind, flags, stream, piece)));
                (kind, flags) = (CONTINUATION, 0);
            }
            let end = client.end_of(stream);
            let refused = matches!(end, End::Reset(_) | End::GoAway(_) | End::Closed);
            assert!(refused || end.status() == 431, "{name}: {end:?}");
            ends.push(end.clone());
            if !matches!(end, End::Reset(_) | End::Answer(_)) {
                break;
            }
        }
    }
    assert!(origin.requests().iter().all(|r| r.target() != "/poison"));
    assert_unharmed(&mut gateway, rss, ARENAS);
}

#[test]
fn g09_a_stream_whose_window_stays_shut_is_reset_and_its_upstream_freed() {
    let origin = Origin::start(|request, _| match request.target() {
        "/big" => Reply::Act(Box::new(|stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n";
            let sent = stream.write_all(head.as_bytes());
            sent.and_then(|()| stream.write_all(&vec![0; 10_000_000]))
                .is_ok()
        })),
        _ => echo(request),
    });
    let mut gateway = limited(&origin, "write_timeout = \"1s\"");
    let rss = warm(&gateway);
    let mut client = H2::with_settings(gateway.web(), &[(4, 0)]);
    let streams: Vec<u32> = (0..50)
        .map(|_| client.open(&request("GET", "/big", &[]), true))
        .collect();
    eventually("the upstream is asked", || origin.requests().len() >= 70);
    assert!(memory(&gateway) < rss + (16 << 10));
    let begun = Instant::now();
    let mut left = streams.clone();
    while !left.is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(6),
            "{} are left",
            left.len()
        );
        for stream in &left {
            drop(client.try_send(frame(WINDOW_UPDATE, 0, *stream, &[0, 0, 0, 1])));
        }
        let until = Instant::now() + Duration::from_millis(250);
        while let Ok(frame) = client.next(until.saturating_duration_since(Instant::now())) {
            if frame.kind == RST_STREAM {
                left.retain(|stream| *stream != frame.stream);
            }
        }
    }
    eventually("the upstream is free", || origin.open() <= 1);
    // the connection itself is as good as before
    client.frame(SETTINGS, 0, 0, &settings(&[(4, 65_535)]));
    assert_eq!(client.get("/after").text(), "GET /after 0");
    let stalls = gateway.metric("weir_protocol_violations_total{listener=\"web\",kind=\"stall\"}");
    assert_eq!(stalls, 50.0);
    assert_unharmed(&mut gateway, rss, 16 << 10);
}

#[test]
fn g09_a_slow_stream_that_makes_progress_is_served_to_its_end() {
    let origin = Origin::start(|_, _| ok(&"x".repeat(600_000)));
    let gateway = limited(&origin, "write_timeout = \"1s\"");
    let mut client = H2::with_settings(gateway.web(), &[(4, 0)]);
    let stream = client.open(&request("GET", "/big", &[]), true);
    let mut got = 0;
    let begun = Instant::now();
    'all: loop {
        client.frame(WINDOW_UPDATE, 0, 0, &200_000u32.to_be_bytes());
        client.frame(WINDOW_UPDATE, 0, stream, &200_000u32.to_be_bytes());
        let until = Instant::now() + Duration::from_millis(600);
        while let Ok(frame) = client.next(until.saturating_duration_since(Instant::now())) {
            assert_ne!(frame.kind, RST_STREAM, "after {:?}", begun.elapsed());
            if frame.kind == DATA {
                got += frame.payload.len();
                if frame.flags & END_STREAM != 0 {
                    break 'all;
                }
            }
        }
    }
    assert_eq!(got, 600_000);
    assert!(begun.elapsed() > Duration::from_secs(1));
}

#[test]
fn g10_g11_g12_g14_g15_floods_of_frames_without_use_are_cut() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "");
    let rss = warm(&gateway);
    let many = settings(&[(0x99, 1); 100]);
    let one = 1u32.to_be_bytes();
    let floods: [(&str, Vec<u8>); 9] = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("SETTINGS of 100", frame(SETTINGS, 0, 0, &many)),
        ("empty DATA", frame(DATA, 0, 1, &[])),
        ("padded empty DATA", frame(DATA, PADDED, 1, &[0])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])),
        ("window of the connection", frame(WINDOW_UPDATE, 0, 0, &one)),
        ("window of a stream", frame(WINDOW_UPDATE, 0, 1, &one)),
        ("unknown", frame(0xf0, 0, 0, &[0; 64])),
    ];
    for (name, piece) in floods {
        let mut client = H2::connect(gateway.web());
        let stream = client.open(&request("POST", "/flood", &[]), false);
        assert_eq!(stream, 1);
        // what comes back is not read while it lasts
        let batch: Vec<u8> = piece.repeat(100);
        let sent = flood(&mut client, 1_000, |_| batch.clone());
        assert!(
            client.closed_within(SOON),
            "{name}: open after {sent} hundreds"
        );
    }
    gateway.wait_idle();
    assert_unharmed(&mut gateway, rss, ARENAS);
}

#[test]
fn g13_small_messages_pass_and_bytes_of_padding_do_no_harm() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "");
    let mut client = H2::connect(gateway.web());
    let stream = client.open(&request("POST", "/grpc", &[]), false);
    for _ in 0..1_500 {
        client.frame(DATA, 0, stream, b"ten bytes.");
    }
    client.frame(DATA, END_STREAM, stream, &[]);
    let end = client.end_of(stream);
    assert_eq!(end.status(), 200, "{end:?}");
    drop(client);
    let rss = warm(&gateway);
    let mut client = H2::connect(gateway.web());
    let stream = client.open(&request("POST", "/padded", &[]), false);
    let padded = frame(
        DATA,
        PADDED,
        stream,
        &[&[255, b'x'][..], &[0; 255]].concat(),
    );
    flood(&mut client, 40_000, |_| padded.clone());
    drop(client.try_send(frame(DATA, END_STREAM, stream, &[])));
    drop(client);
    gateway.wait_idle();
    assert_unharmed(&mut gateway, rss, ARENAS);
}

#[test]
fn g18_streams_that_say_nothing_end_by_the_body_timeout() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "body_idle_timeout = \"1s\"\nidle_timeout = \"1s\"");
    let mut client = H2::connect(gateway.web());
    let streams: Vec<u32> = (0..100)
        .map(|_| client.open(&request("POST", "/never", &[]), false))
        .collect();
    let last = *streams.last().expect("a hundred");
    let end = client.end_of(last);
    assert!(
        end.status() == 408 || matches!(end, End::Reset(_)),
        "{end:?}"
    );
    assert!(client.closed_within(SOON), "and then it is idle");
    eventually("the upstream is free", || origin.open() == 0);
    assert!(origin.requests().is_empty());
    gateway.assert_sound();
}

/// A request that crosses the first GOAWAY, whose PING is answered after `wait`; the second GOAWAY
/// takes it. Its answer.
fn crosses_the_goaway(client: &mut H2, wait: Duration) -> End {
    let ping = loop {
        let frame = client.read(SOON).expect("a GOAWAY and a PING");
        if frame.kind == PING && frame.flags & ACK == 0 {
            break frame;
        }
    };
    std::thread::sleep(wait);
    let stream = client.open(&request("GET", "/slow", &[]), true);
    client.frame(PING, ACK, 0, &ping.payload);
    let last = loop {
        let frame = client.read(SOON).expect("a second GOAWAY");
        if frame.kind == GOAWAY {
            break frame.payload[..4].to_vec();
        }
    };
    assert_eq!(last, stream.to_be_bytes(), "it is taken");
    client.end_of(stream)
}

#[test]
fn a_stream_that_is_taken_after_a_goaway_is_answered_however_long_that_takes() {
    let origin = Origin::start(|request, _| match request.target() {
        "/slow" => Reply::After(Duration::from_millis(2_500), Box::new(echo(request))),
        _ => echo(request),
    });
    let mut gateway = limited(&origin, "idle_timeout = \"1s\"");
    let mut idle = H2::connect(gateway.web());
    assert_eq!(idle.get("/").status(), 200);
    let end = crosses_the_goaway(&mut idle, Duration::ZERO);
    assert_eq!(end.status(), 200, "when idle: {end:?}");
    assert!(
        idle.closed_within(Duration::from_secs(1)),
        "nothing is left"
    );
    let mut draining = H2::connect(gateway.web());
    assert_eq!(draining.get("/").status(), 200);
    gateway.signal(rustix::process::Signal::TERM);
    let end = crosses_the_goaway(&mut draining, Duration::from_millis(1_500));
    assert_eq!(end.status(), 200, "in a drain: {end:?}");
    assert_eq!(gateway.exit(SOON).code(), Some(0), "{}", gateway.stderr());
}

#[test]
fn g19_a_preface_and_silence_is_closed_when_idle() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "idle_timeout = \"1s\"");
    let mut clients: Vec<H2> = (0..50).map(|_| H2::connect(gateway.web())).collect();
    assert!(
        clients
            .iter_mut()
            .all(|client| client.closed_within(Duration::from_secs(5)))
    );
    gateway.assert_sound();
}

#[test]
fn g22_table_sizes_do_not_grow_what_the_gateway_keeps() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "");
    let rss = warm(&gateway);
    let mut client = H2::with_settings(gateway.web(), &[(1, u32::MAX)]);
    for size in [0, u32::MAX].into_iter().cycle().take(100) {
        client.frame(SETTINGS, 0, 0, &settings(&[(1, size)]));
        let stream = client.open(&request("GET", "/", &[]), true);
        while client
            .next(SOON)
            .is_ok_and(|f| f.stream != stream || f.flags & END_STREAM == 0)
        {}
    }
    let mut client = H2::connect(gateway.web());
    let mut block = vec![0x20; 10_000];
    block.extend(get_block("/resized"));
    client.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    let end = client.end_of(1);
    let refused = matches!(end, End::GoAway(COMPRESSION_ERROR) | End::Closed);
    assert!(refused || end.status() == 200, "{end:?}");
    assert_unharmed(&mut gateway, rss, ARENAS);
}

#[test]
fn g24_a_client_that_says_goodbye_and_stays_is_closed() {
    let origin = Origin::echo();
    let mut gateway = limited(&origin, "");
    let mut client = H2::connect(gateway.web());
    assert_eq!(client.get("/").status(), 200);
    client.frame(GOAWAY, 0, 0, &[0; 8]);
    let begun = Instant::now();
    while !client.closed_within(Duration::from_millis(50)) {
        client.stream();
        drop(client.try_send(frame(PING, 0, 0, &[0; 8])));
        let stream = client.stream();
        let block = get_block("/more");
        drop(client.try_send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)));
        assert!(begun.elapsed() < Duration::from_secs(5), "still open");
    }
    gateway.assert_sound();
}
