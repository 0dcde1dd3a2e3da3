//! Codecs against other decoders than ours, and the layer over a mock service.

use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tokio::sync::mpsc;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::decoder::{Bad, Decoder};
use super::encoder::{Encoder, Make, Then};
use super::*;
use crate::error::{GatewayError, Reason};
use crate::message::{Body, Request, Response};

/// As some other program decodes it.
fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let read = match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
        Coding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain),
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes)
            .and_then(|mut decoder| decoder.read_to_end(&mut plain)),
    };
    read.expect("what was encoded can be decoded");
    plain
}

fn usual(coding: Coding) -> Make {
    Make {
        coding,
        level: Levels::USUAL.of(coding),
        aside: false,
    }
}

fn encoded(coding: Coding, plain: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(usual(coding)).expect("memory");
    let mut out = Vec::new();
    encoder
        .step(plain, Then::Finish, &mut out)
        .expect("encodes");
    out
}

/// As our own decoder decodes it, taking pieces of this size.
fn ours(coding: Coding, bytes: &[u8], piece: usize) -> Result<Vec<u8>, Bad> {
    let mut decoder = Decoder::new(coding).expect("memory");
    let (mut plain, mut room) = (Vec::new(), [0; 512]);
    for mut piece in bytes.chunks(piece.max(1)) {
        loop {
            let (taken, given) = decoder.step(piece, &mut room)?;
            plain.extend_from_slice(&room[..given]);
            piece = &piece[taken..];
            if piece.is_empty() && given == 0 {
                break;
            }
            if taken == 0 && given == 0 {
                return Err(Bad::Garbage);
            }
        }
    }
    decoder.end()?;
    Ok(plain)
}

/// Text of about this length.
fn text(length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        let n = text.len();
        text += &format!(
            "{{\"id\":{n},\"name\":\"item {}\",\"ok\":true}},\n",
            n * 7919 % 1000
        );
    }
    text
}

fn coding() -> impl Strategy<Value = Coding> {
    prop_oneof![Just(Coding::Gzip), Just(Coding::Br), Just(Coding::Zstd)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_encoded_in_whatever_pieces_is_decoded_to_the_same(
        coding in coding(),
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), any::<bool>(), 1..40usize), 0..6),
        again in any::<bool>(),
        piece in 1..4000usize,
    ) {
        let mut encoder = Encoder::new(usual(coding)).expect("memory");
        if again && encoder.step(b"left over", Then::GoOn, &mut Vec::new()).is_ok() && !encoder.renew() {
            encoder = Encoder::new(usual(coding)).expect("memory");
        }
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        for (bytes, flush, times) in pieces {
            let bytes = bytes.repeat(times);
            let then = if flush { Then::Flush } else { Then::GoOn };
            encoder.step(&bytes, then, &mut out).expect("encodes");
            plain.extend_from_slice(&bytes);
        }
        encoder.step(&[], Then::Finish, &mut out).expect("encodes");
        prop_assert!(decoded(coding, &out) == plain);
        // Runs of one byte unfold to more than we decode.
        let unfolds = plain.len() > out.len() * 100 + (1 << 20);
        prop_assert!(unfolds || ours(coding, &out, piece) == Ok(plain));
    }

    /// CASES J11.
    #[test]
    fn garbage_is_an_error_and_never_a_panic(
        coding in coding(),
        noise in prop::collection::vec(any::<u8>(), 1..300),
        at in any::<prop::sample::Index>(),
    ) {
        drop(ours(coding, &noise, 7));
        let mut bytes = encoded(coding, text(5000).as_bytes());
        let at = at.index(bytes.len());
        bytes[at] ^= noise[0];
        drop(ours(coding, &bytes, 100));
        drop(ours(coding, &[&bytes, &noise[..]].concat(), 100));
    }
}

/// CASES J11.
#[test]
fn a_coded_body_that_is_cut_anywhere_is_not_whole() {
    for coding in Coding::ALL {
        let bytes = encoded(coding, text(2000).as_bytes());
        for end in 0..bytes.len() {
            assert_eq!(
                ours(coding, &bytes[..end], 64),
                Err(Bad::Cut),
                "{coding:?} {end}"
            );
        }
    }
}

/// CASES J10.
#[test]
fn a_body_that_unfolds_without_end_is_given_up() {
    for coding in Coding::ALL {
        let bytes = encoded(coding, &vec![0; 4 << 20]);
        assert!(bytes.len() < 100_000, "{coding:?} {}", bytes.len());
        assert_eq!(ours(coding, &bytes, 4096), Err(Bad::Bomb), "{coding:?}");
        let page = vec![0; 1 << 20];
        let bytes = encoded(coding, &page);
        assert_eq!(ours(coding, &bytes, 4096), Ok(page), "{coding:?}");
    }
}

#[test]
fn members_of_gzip_follow_each_other_and_nothing_else_does() {
    let one = encoded(Coding::Gzip, b"one");
    let both = [&one[..], &encoded(Coding::Gzip, b"two")].concat();
    assert_eq!(ours(Coding::Gzip, &both, 5), Ok(b"onetwo".to_vec()));
    for coding in Coding::ALL {
        let more = [&encoded(coding, b"one")[..], b"more"].concat();
        assert!(ours(coding, &more, 100).is_err(), "{coding:?}");
    }
}

fn section(toml: &str) -> Compression {
    let config: CompressConfig = toml::from_str(toml).expect("a section");
    let mut problems = Problems::new();
    let compiled = config.compile(&mut problems);
    assert!(problems.is_empty());
    compiled
}

/// A worker with its encoders and numbers.
struct World {
    compression: Compression,
    encoders: Arc<Encoders>,
    metrics: Arc<Metrics>,
}

/// Encoders of a worker that runs.
fn encoders(aside: Option<Arc<dyn Aside>>) -> Arc<Encoders> {
    let encoders = Arc::new(Encoders::new(aside));
    let these = Arc::clone(&encoders);
    tokio::spawn(async move { these.hand_out_turns().await });
    encoders
}

impl World {
    fn new(toml: &str) -> Self {
        World {
            compression: section(toml),
            encoders: encoders(None),
            metrics: Arc::new(Metrics::new(1)),
        }
    }

    /// What a client gets, and what the upstream was asked.
    async fn ask(&self, request: Request, answer: Response) -> (Response, HeaderMap) {
        let (tell, mut told) = mpsc::unbounded_channel();
        let answer = Arc::new(parking_lot::Mutex::new(Some(answer)));
        let inner = service_fn(move |request: Request| {
            drop(tell.send(request.headers().clone()));
            let answer = answer.lock().take().expect("asked once");
            async move { Ok::<_, GatewayError>(answer) }
        });
        let layer = self.compression.layer(&self.encoders, &self.metrics, 0);
        let response = layer
            .layer(inner)
            .oneshot(request)
            .await
            .expect("an answer");
        (response, told.recv().await.expect("was asked"))
    }

    fn skipped(&self, reason: Skip) -> u64 {
        self.metrics.compression.of(0).skipped[reason as usize].get()
    }
}

fn headers(text: &str) -> HeaderMap {
    let fields = text.split("; ").filter(|field| !field.is_empty());
    let fields = fields.map(|field| field.split_once(": ").expect("a field"));
    let field = |(name, value): (&str, &str)| {
        let name: http::HeaderName = name.parse().expect("a name");
        (name, HeaderValue::from_str(value).expect("a value"))
    };
    fields.map(field).collect()
}

fn request(fields: &str) -> Request {
    let mut request = Box::new(http::Request::new(Body::empty()));
    *request.headers_mut() = headers(fields);
    request
}

fn response(status: u16, fields: &str, body: Body) -> Response {
    let mut response = Box::new(http::Response::new(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    *response.headers_mut() = headers(fields);
    response
}

async fn bytes(body: Body) -> Result<Bytes, GatewayError> {
    #[allow(clippy::disallowed_methods, reason = "a body of our own making")]
    let collected = body.collect().await?;
    Ok(collected.to_bytes())
}

const CHROME: &str = "accept-encoding: gzip, deflate, br, zstd";

/// CASES J01, J02, J04, J05, J07, J12: what is left alone, and why.
#[tokio::test]
async fn what_is_left_alone_is_sent_as_it_came() {
    let long = text(4000);
    let html = "content-type: text/html";
    for (asked, status, fields, body, reason, varies) in [
        ("", 200, html, &*long, Some(Skip::NotAccepted), true),
        (
            "accept-encoding: gzip;q=0",
            200,
            html,
            &long,
            Some(Skip::NotAccepted),
            true,
        ),
        (
            "accept-encoding: *;q=0",
            200,
            html,
            &long,
            Some(Skip::NotAccepted),
            true,
        ),
        (
            "accept-encoding: deflate",
            200,
            html,
            &long,
            Some(Skip::NotAccepted),
            true,
        ),
        (CHROME, 200, html, "short", Some(Skip::Small), true),
        (
            CHROME,
            200,
            "content-type: image/png",
            &long,
            Some(Skip::Type),
            false,
        ),
        (CHROME, 200, "", &long, Some(Skip::Type), false),
        (
            CHROME,
            200,
            "content-type: text/event-stream",
            &long,
            Some(Skip::Type),
            false,
        ),
        (
            CHROME,
            200,
            "content-type: application/grpc",
            &long,
            Some(Skip::Type),
            false,
        ),
        (
            CHROME,
            200,
            "content-type: text/html; cache-control: public, No-Transform",
            &long,
            Some(Skip::NoTransform),
            false,
        ),
        (
            CHROME,
            200,
            "content-type: text/html; content-encoding: gzip",
            &long,
            Some(Skip::Coded),
            true,
        ),
        (
            CHROME,
            200,
            "content-type: text/html; content-encoding: identity",
            &long,
            Some(Skip::Coded),
            false,
        ),
        (
            CHROME,
            200,
            "content-type: text/html; content-encoding: gzip, br",
            &long,
            Some(Skip::Coded),
            false,
        ),
        (
            CHROME,
            206,
            "content-type: text/html; content-range: bytes 0-3999/9000",
            &long,
            Some(Skip::Range),
            true,
        ),
        (
            "accept-encoding: br; range: bytes=0-",
            200,
            html,
            &long,
            Some(Skip::Range),
            true,
        ),
        (
            "accept-encoding: br; cookie: a=b; sec-fetch-site: cross-site",
            200,
            html,
            &long,
            Some(Skip::CrossSite),
            true,
        ),
        (CHROME, 204, "content-type: text/html", "", None, false),
        (CHROME, 205, "content-type: text/html", "", None, false),
        (CHROME, 304, "content-type: text/html", "", None, false),
    ] {
        let world = World::new("");
        let case = format!("{asked} {status} {fields}");
        let answer = response(status, fields, Body::from(body.to_owned()));
        let (answer, _) = world.ask(request(asked), answer).await;
        let mut expected = headers(fields);
        if varies {
            expected.insert("vary", HeaderValue::from_static("accept-encoding"));
        }
        assert_eq!(answer.headers(), &expected, "{case}");
        assert_eq!(
            bytes(answer.into_body()).await.expect("whole"),
            body,
            "{case}"
        );
        for (why, _) in Skip::ALL {
            assert_eq!(
                world.skipped(*why),
                u64::from(Some(*why) == reason),
                "{case} {why:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_coding_is_the_best_that_both_have() {
    for (section, asked, expected) in [
        ("", CHROME, Coding::Br),
        ("", "accept-encoding: gzip, zstd", Coding::Zstd),
        ("", "accept-encoding: gzip;q=1, br;q=0.9", Coding::Gzip),
        ("", "accept-encoding: *", Coding::Br),
        ("codings = ['gzip', 'br']", CHROME, Coding::Gzip),
        (
            "guard = 'off'",
            "accept-encoding: br; cookie: a=b; sec-fetch-site: cross-site",
            Coding::Br,
        ),
        (
            "",
            "accept-encoding: br; cookie: a=b; sec-fetch-site: same-origin",
            Coding::Br,
        ),
        (
            "",
            "accept-encoding: br; cookie: a=b; sec-fetch-site: cross-site; sec-fetch-user: ?1",
            Coding::Br,
        ),
        (
            "",
            "accept-encoding: br; sec-fetch-site: cross-site",
            Coding::Br,
        ),
    ] {
        let world = World::new(section);
        let plain = text(30_000);
        let fields = "content-type: text/html; etag: \"x\"; content-length: 9; vary: origin";
        let answer = response(200, fields, Body::from(plain.clone()));
        let (answer, _) = world.ask(request(asked), answer).await;
        let coding = expected.token();
        let wanted = format!(
            "content-type: text/html; etag: W/\"x\"; vary: origin; vary: accept-encoding; content-encoding: {coding}"
        );
        assert_eq!(answer.headers(), &headers(&wanted), "{asked}");
        assert_eq!(answer.body().size_hint().exact(), None);
        let sent = bytes(answer.into_body()).await.expect("whole");
        assert_eq!(decoded(expected, &sent), plain.as_bytes(), "{asked}");
        let cells = &world.metrics.compression.of(0).codings[expected.index()];
        assert_eq!(cells.responses.get(), 1);
        assert_eq!(cells.bytes_in.get(), plain.len() as u64);
        assert_eq!(cells.bytes_out.get(), sent.len() as u64);
        assert_eq!(world.encoders.lent(), 0);
    }
}

#[tokio::test]
async fn credentials_are_guarded_everywhere_if_the_config_says_so() {
    let world = World::new("guard = 'credentials'");
    for asked in [
        "accept-encoding: br; cookie: a=b",
        "accept-encoding: br; authorization: x",
    ] {
        let answer = response(200, "content-type: text/html", Body::from(text(4000)));
        let (answer, _) = world.ask(request(asked), answer).await;
        assert!(
            !answer.headers().contains_key("content-encoding"),
            "{asked}"
        );
    }
    assert_eq!(world.skipped(Skip::CrossSite), 2);
}

/// CASES J05: a client that refuses plain bodies gets even a short one encoded.
#[tokio::test]
async fn who_refuses_plain_bodies_gets_short_ones_encoded() {
    let world = World::new("");
    let asked = request("accept-encoding: gzip, identity;q=0");
    let answer = response(
        200,
        "content-type: text/html",
        Body::from("short".to_owned()),
    );
    let (answer, _) = world.ask(asked, answer).await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let sent = bytes(answer.into_body()).await.expect("whole");
    assert_eq!(decoded(Coding::Gzip, &sent), b"short");
}

/// CASES J07: RFC 9110 9.3.2.
#[tokio::test]
async fn a_head_has_the_fields_of_its_get() {
    let world = World::new("");
    for (length, encoded) in [("4000", true), ("10", false)] {
        let mut asked = request(CHROME);
        *asked.method_mut() = Method::HEAD;
        let fields = format!("content-type: text/html; content-length: {length}; etag: \"x\"");
        let (answer, _) = world
            .ask(asked, response(200, &fields, Body::empty()))
            .await;
        assert_eq!(answer.headers().contains_key("content-encoding"), encoded);
        assert_eq!(answer.headers().contains_key("content-length"), !encoded);
        assert_eq!(answer.headers()["vary"], "accept-encoding");
        assert!(answer.body().is_end_stream());
    }
    assert_eq!(world.encoders.lent(), 0);
}

/// CASES J03.
#[tokio::test]
async fn a_client_asks_by_the_weak_tag_and_is_answered_by_it() {
    let world = World::new("");
    let asked = request("accept-encoding: br; if-none-match: W/\"x\"");
    let answer = response(304, "etag: \"x\"", Body::empty());
    let (answer, seen) = world.ask(asked, answer).await;
    assert_eq!(seen["if-none-match"], "W/\"x\", \"x\"");
    assert_eq!(answer.headers()["etag"], "W/\"x\"");
    let asked = request("accept-encoding: br; if-none-match: \"x\"");
    let answer = response(304, "etag: \"x\"", Body::empty());
    let (answer, seen) = world.ask(asked, answer).await;
    assert_eq!(seen["if-none-match"], "\"x\"");
    assert_eq!(answer.headers()["etag"], "\"x\"");
}

#[tokio::test]
async fn the_upstream_sees_what_the_client_takes_and_no_more() {
    let world = World::new("");
    for (asked, seen_as) in [
        (CHROME, Some("br, zstd, gzip")),
        ("accept-encoding: deflate, x-own", Some("identity")),
        ("accept-encoding: GZIP;q=0.3", Some("gzip")),
        ("", None),
    ] {
        let answer = response(200, "", Body::empty());
        let (_, seen) = world.ask(request(asked), answer).await;
        let seen = seen
            .get("accept-encoding")
            .map(|v| v.to_str().expect("text"));
        assert_eq!(seen, seen_as, "{asked}");
    }
}

/// CASES J10, J11.
#[tokio::test]
async fn what_the_client_does_not_take_is_decoded_or_broken_off() {
    let plain = text(50_000);
    for coding in Coding::ALL {
        let world = World::new("");
        let coded = encoded(coding, plain.as_bytes());
        let fields = format!(
            "content-type: image/png; content-encoding: {}; etag: \"x\"; content-length: 99",
            coding.token()
        );
        let asked = || request("accept-encoding: identity");
        let answer = response(200, &fields, Body::from(Bytes::from(coded.clone())));
        let (answer, _) = world.ask(asked(), answer).await;
        let expected = "content-type: image/png; etag: W/\"x\"; vary: accept-encoding";
        assert_eq!(answer.headers(), &headers(expected));
        assert_eq!(bytes(answer.into_body()).await.expect("whole"), plain);
        assert_eq!(
            world.metrics.compression.of(0).decoded[coding.index()].get(),
            1
        );
        for (bad, reason) in [
            (
                coded[..coded.len() / 2].to_vec(),
                Reason::HttpResponseIncomplete,
            ),
            (
                b"this is no coding at all, whatever it says".to_vec(),
                Reason::HttpProtocolError,
            ),
            (
                encoded(coding, &vec![0; 4 << 20]),
                Reason::HttpProtocolError,
            ),
        ] {
            let answer = response(200, &fields, Body::from(Bytes::from(bad)));
            let (answer, _) = world.ask(asked(), answer).await;
            let error = bytes(answer.into_body()).await.expect_err("broken off");
            assert_eq!(error.reason(), reason, "{coding:?}");
        }
    }
}

/// A body whose frames a test sends one by one.
struct Piecewise(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl HttpBody for Piecewise {
    type Data = Bytes;
    type Error = GatewayError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// What can be read now.
fn ready(body: &mut Body) -> Vec<Frame<Bytes>> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut frames = Vec::new();
    while let Poll::Ready(Some(frame)) = Pin::new(&mut *body).poll_frame(&mut cx) {
        frames.push(frame.expect("whole"));
    }
    frames
}

/// CASES J06; trailers are held to the end.
#[tokio::test(start_paused = true)]
async fn an_event_arrives_at_once_and_trailers_last() {
    for coding in Coding::ALL {
        let world = World::new("");
        let (send, frames) = mpsc::unbounded_channel();
        let asked = request(&format!("accept-encoding: {}", coding.token()));
        let answer = response(
            200,
            "content-type: text/plain",
            Body::wrap(Piecewise(frames)),
        );
        let (mut answer, _) = world.ask(asked, answer).await;
        assert_eq!(answer.headers()["content-encoding"], coding.token());
        let (body, mut sent) = (answer.body_mut(), Vec::new());
        let mut decoder = Decoder::new(coding).expect("memory");
        for event in ["event one\n", "event two\n", "event three\n"] {
            assert!(ready(body).is_empty());
            tokio::time::advance(std::time::Duration::from_millis(20)).await;
            send.send(Frame::data(event.into())).expect("it is read");
            let mut plain = Vec::new();
            for frame in ready(body) {
                let data = frame.into_data().expect("no trailers yet");
                sent.extend_from_slice(&data);
                let (mut at, mut room) = (0, [0; 256]);
                loop {
                    let (taken, given) = decoder.step(&data[at..], &mut room).expect("good");
                    plain.extend_from_slice(&room[..given]);
                    at += taken;
                    if at == data.len() && given == 0 {
                        break;
                    }
                }
            }
            assert_eq!(plain, event.as_bytes(), "{coding:?}");
        }
        send.send(Frame::trailers(headers("x-sum: 1")))
            .expect("it is read");
        drop(send);
        let mut rest = ready(body);
        let trailers = rest.pop().and_then(|last| last.into_trailers().ok());
        assert_eq!(trailers, Some(headers("x-sum: 1")));
        let rest = rest.into_iter().filter_map(|frame| frame.into_data().ok());
        rest.for_each(|data| sent.extend_from_slice(&data));
        assert_eq!(
            decoded(coding, &sent),
            b"event one\nevent two\nevent three\n"
        );
        assert!(body.is_end_stream());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_small_pieces_is_not_flushed_for_each() {
    let world = World::new("");
    let (send, frames) = mpsc::unbounded_channel();
    let asked = request("accept-encoding: br");
    let answer = response(
        200,
        "content-type: text/plain",
        Body::wrap(Piecewise(frames)),
    );
    let (mut answer, _) = world.ask(asked, answer).await;
    let body = answer.body_mut();
    let mut one = |text: &'static str| {
        send.send(Frame::data(text.into())).expect("it is read");
        ready(body).len()
    };
    assert_eq!((one("at once"), one("after"), one("a while")), (1, 0, 0));
    #[allow(clippy::disallowed_methods, reason = "a body of our own making")]
    let frame = answer.body_mut().frame().await.expect("in 10 ms");
    assert!(frame.expect("whole").is_data());
}

/// CASES J13: other tasks have their turn.
#[tokio::test]
async fn a_long_body_gives_the_task_up_now_and_then() {
    let world = World::new("");
    let answer = response(200, "content-type: text/plain", Body::from(text(1 << 20)));
    let (mut answer, _) = world.ask(request("accept-encoding: gzip"), answer).await;
    let taken = || world.metrics.compression.of(0).codings[0].bytes_in.get();
    let encoded = tokio::spawn(async move {
        let body = answer.body_mut();
        std::future::poll_fn(|cx| while_ready(body, cx)).await;
    });
    let mut turns = 0;
    while !encoded.is_finished() {
        let before = taken();
        tokio::task::yield_now().await;
        assert!(taken() <= before + (32 << 10), "{before}");
        turns += 1;
    }
    assert!(turns >= 32 && taken() >= 1 << 20, "{turns}");
}

/// CASES J13: a crowd of small bodies is as much work as a long one.
#[tokio::test]
async fn answers_that_come_at_once_are_encoded_a_few_at_a_time() {
    let world = Arc::new(World::new(""));
    let crowd: Vec<_> = (0..50)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let body = Body::from(text(10 << 10));
                let answer = response(200, "content-type: text/plain", body);
                let (answer, _) = world.ask(request("accept-encoding: gzip"), answer).await;
                decoded(
                    Coding::Gzip,
                    &bytes(answer.into_body()).await.expect("whole"),
                )
            })
        })
        .collect();
    let taken = || world.metrics.compression.of(0).codings[0].bytes_in.get();
    while !crowd.iter().all(|one| one.is_finished()) {
        let before = taken();
        tokio::task::yield_now().await;
        assert!(taken() <= before + (32 << 10), "{before}");
    }
    for one in crowd {
        assert_eq!(one.await.expect("it ends"), text(10 << 10).as_bytes());
    }
}

/// Reads a body to its end.
fn while_ready(body: &mut Body, cx: &mut Context<'_>) -> Poll<()> {
    while let Some(frame) = std::task::ready!(Pin::new(&mut *body).poll_frame(cx)) {
        frame.expect("whole");
    }
    Poll::Ready(())
}

/// CASES J14.
#[tokio::test]
async fn an_encoder_is_free_when_its_client_goes_and_above_the_cap_bodies_are_plain() {
    let world = World::new("");
    let ask = || async {
        let (send, frames) = mpsc::unbounded_channel();
        let answer = response(
            200,
            "content-type: text/plain",
            Body::wrap(Piecewise(frames)),
        );
        let (answer, _) = world.ask(request("accept-encoding: gzip"), answer).await;
        (answer, send)
    };
    let one = usual(Coding::Gzip).weight();
    let mut open = Vec::new();
    for _ in 0..128 {
        let (answer, send) = ask().await;
        assert!(answer.headers().contains_key("content-encoding"));
        open.push((answer, send));
    }
    let (plain, _send) = ask().await;
    assert!(!plain.headers().contains_key("content-encoding"));
    assert_eq!(plain.headers()["vary"], "accept-encoding");
    assert_eq!(
        (world.skipped(Skip::Cap), world.encoders.lent()),
        (1, 128 * one)
    );
    let (mut answer, send) = open.pop().expect("one of them");
    send.send(Frame::data("half an answer".into()))
        .expect("it is read");
    assert!(!ready(answer.body_mut()).is_empty());
    drop(answer);
    assert_eq!(world.encoders.lent(), 127 * one);
    let (answer, _send) = ask().await;
    assert!(answer.headers().contains_key("content-encoding"));
}

/// CASES J13: br takes five times as much as the others.
#[tokio::test]
async fn without_memory_for_br_the_next_coding_is_taken() {
    let world = World::new("");
    let ask = |fields: &'static str| {
        let (send, frames) = mpsc::unbounded_channel();
        let body = Body::wrap(Piecewise(frames));
        let answer = response(200, "content-type: text/plain", body);
        let world = &world;
        async move { (world.ask(request(fields), answer).await.0, send) }
    };
    let coding = |answer: &Response| answer.headers().get("content-encoding").cloned();
    let mut open = Vec::new();
    while world.encoders.lent() + usual(Coding::Br).weight() <= 32 << 20 {
        let (answer, send) = ask("accept-encoding: br, gzip").await;
        assert_eq!(coding(&answer), Some(HeaderValue::from_static("br")));
        open.push((answer, send));
    }
    assert_eq!(open.len(), 25);
    let (next, _send) = ask("accept-encoding: br, gzip").await;
    assert_eq!(coding(&next), Some(HeaderValue::from_static("gzip")));
    let (plain, _send) = ask("accept-encoding: br").await;
    assert_eq!((coding(&plain), world.skipped(Skip::Cap)), (None, 1));
}

/// A thread of its own for each job, and one seat.
#[derive(Default)]
struct Threads(parking_lot::Mutex<(bool, usize)>);

impl Aside for Threads {
    fn sit(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().0, true)
    }
    fn leave(&self) {
        self.0.lock().0 = false;
    }
    fn work(&self, job: Job) {
        self.0.lock().1 += 1;
        drop(std::thread::Builder::new().spawn(job));
    }
}

#[tokio::test]
async fn long_work_is_done_aside_while_there_is_a_seat() {
    let threads = Arc::new(Threads::default());
    let mut world = World::new("levels = { br = 11 }");
    world.encoders = encoders(Some(threads.clone()));
    let plain = text(200_000);
    let answer = || response(200, "content-type: text/plain", Body::from(plain.clone()));
    let (first, _) = world.ask(request("accept-encoding: br"), answer()).await;
    let (second, _) = world.ask(request("accept-encoding: br"), answer()).await;
    let second = bytes(second.into_body()).await.expect("whole");
    assert_eq!(threads.0.lock().1, 0, "without a seat it is done here");
    let first = bytes(first.into_body()).await.expect("whole");
    assert!(threads.0.lock().1 > 10);
    assert!(!threads.0.lock().0, "the seat is free again");
    assert!(first.len() < second.len(), "at a higher level");
    for sent in [first, second] {
        assert_eq!(decoded(Coding::Br, &sent), plain.as_bytes());
    }
}

#[test]
fn a_section_says_what_is_wrong_with_it() {
    for (toml, expected) in [
        ("codings = []", "no coding to encode in"),
        ("codings = ['br', 'br']", "\"br\" stands here twice"),
        ("types = ['text']", "\"text\" is no media type"),
        ("levels = { gzip = 0 }", "a level of gzip is from 1 to 9"),
        ("levels = { br = 12 }", "a level of br is from 2 to 11"),
        ("levels = { zstd = 20 }", "a level of zstd is from 1 to 19"),
    ] {
        let config: CompressConfig = toml::from_str(toml).expect("a section");
        let mut problems = Problems::new();
        config.compile(&mut problems);
        let messages: Vec<String> = problems.into_iter().map(|p| p.message).collect();
        assert_eq!(messages, [expected]);
    }
}
