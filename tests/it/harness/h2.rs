//! A client of HTTP/2 frames: sends any of them, legal or not, and reads what comes back.
//!
//! Nothing is checked on the way out and nothing is done by itself, but that a PING and SETTINGS
//! are acknowledged while an answer is awaited (see [`H2::next`]).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{SOON, hpack};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const PRIORITY: u8 = 0x2;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PUSH_PROMISE: u8 = 0x5;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

/// Error codes (RFC 9113 7).
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const COMPRESSION_ERROR: u32 = 9;

/// A frame that came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(code.try_into().expect("4 bytes")))
    }
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// An answer, whole.
    Answer(Answer),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code; 0 is no error.
    GoAway(u32),
    /// The end of the connection.
    Closed,
    /// Nothing, in the time given.
    Silence,
}

impl End {
    /// The status of an answer; 0 where there is none.
    pub fn status(&self) -> u16 {
        match self {
            End::Answer(answer) => answer.status(),
            _ => 0,
        }
    }

    /// Refused as malformed: a stream or connection error, or 400.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            End::Reset(PROTOCOL_ERROR) | End::GoAway(PROTOCOL_ERROR)
        ) || self.status() == 400
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|f| f.0 == name);
        found.next().map(|f| f.1.as_str())
    }

    pub fn status(&self) -> u16 {
        self.get(":status")
            .and_then(|s| s.parse().ok())
            .unwrap_or(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

enum Wire {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One connection.
pub struct H2 {
    wire: Wire,
    buffer: Vec<u8>,
    /// The next stream of this client's.
    next: u32,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("24 bits").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of SETTINGS.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let pairs = values.iter();
    pairs
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect()
}

/// The fields of a plain request, then `more`.
pub fn request<'a>(
    method: &'a str,
    path: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a [u8], &'a [u8])> {
    let plain = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "t.test"),
    ];
    let all = plain.iter().chain(more);
    all.map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect()
}

impl H2 {
    /// By prior knowledge; the preface and SETTINGS without a dynamic table are sent.
    pub fn connect(to: SocketAddr) -> H2 {
        H2::greet(Wire::Tcp(tcp(to)), &[])
    }

    /// As [`H2::connect`], with more settings.
    pub fn with_settings(to: SocketAddr, values: &[(u16, u32)]) -> H2 {
        H2::greet(Wire::Tcp(tcp(to)), values)
    }

    /// Nothing is sent, not even the preface.
    pub fn silent(to: SocketAddr) -> H2 {
        H2::over(Wire::Tcp(tcp(to)))
    }

    /// Over TLS: ALPN `h2`, trusting one certificate.
    pub fn tls(to: SocketAddr, name: &str, root: &[u8]) -> H2 {
        H2::greet(H2::tls_silent(to, name, root).wire, &[])
    }

    /// As [`H2::tls`], and nothing is sent.
    pub fn tls_silent(to: SocketAddr, name: &str, root: &[u8]) -> H2 {
        let mut roots = RootCertStore::empty();
        roots.add(root.to_vec().into()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let client = ClientConnection::new(Arc::new(config), name).expect("a config");
        H2::over(Wire::Tls(Box::new(StreamOwned::new(client, tcp(to)))))
    }

    fn over(wire: Wire) -> H2 {
        H2 {
            wire,
            buffer: Vec::new(),
            next: 1,
        }
    }

    fn greet(wire: Wire, values: &[(u16, u32)]) -> H2 {
        let mut client = H2::over(wire);
        let mut all = vec![(1, 0)];
        all.extend_from_slice(values);
        client.send([PREFACE, &frame(SETTINGS, 0, 0, &settings(&all))].concat());
        client
    }

    fn socket(&self) -> &TcpStream {
        match &self.wire {
            Wire::Tcp(stream) => stream,
            Wire::Tls(stream) => stream.get_ref(),
        }
    }

    /// Sends all of it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut H2 {
        self.try_send(bytes).expect("the gateway takes it");
        self
    }

    /// Sends what the other side still takes.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        match &mut self.wire {
            Wire::Tcp(stream) => stream.write_all(bytes.as_ref()),
            Wire::Tls(stream) => stream
                .write_all(bytes.as_ref())
                .and_then(|()| stream.flush()),
        }
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut H2 {
        self.send(frame(kind, flags, stream, payload))
    }

    /// A number for a stream of one's own.
    pub fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// HEADERS on a new stream, whole; `end`: and nothing more.
    pub fn open(&mut self, fields: &[(&[u8], &[u8])], end: bool) -> u32 {
        let stream = self.stream();
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &hpack::block(fields));
        stream
    }

    /// A request without a body and how it ends.
    pub fn ask(&mut self, fields: &[(&[u8], &[u8])]) -> End {
        let stream = self.open(fields, true);
        self.end_of(stream)
    }

    /// `GET path`, answered.
    pub fn get(&mut self, path: &str) -> Answer {
        match self.ask(&request("GET", path, &[])) {
            End::Answer(answer) => answer,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// The next frame, within `time`; SETTINGS and PING are acknowledged.
    ///
    /// `Err(true)`: the connection ended; `Err(false)`: nothing came.
    pub fn next(&mut self, time: Duration) -> Result<Frame, bool> {
        let frame = self.read(time)?;
        if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
            let echo = if frame.kind == PING {
                &frame.payload[..]
            } else {
                &[]
            };
            let bytes = self::frame(frame.kind, ACK, 0, echo);
            drop(self.try_send(bytes));
        }
        Ok(frame)
    }

    /// The next frame, nothing acknowledged.
    pub fn read(&mut self, time: Duration) -> Result<Frame, bool> {
        let until = Instant::now() + time;
        loop {
            if let Some(frame) = self.whole() {
                return Ok(frame);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(false);
            }
            self.socket()
                .set_read_timeout(Some(left))
                .expect("a timeout");
            let mut piece = [0; 64 << 10];
            let read = match &mut self.wire {
                Wire::Tcp(stream) => stream.read(&mut piece),
                Wire::Tls(stream) => stream.read(&mut piece),
            };
            match read {
                Ok(0) => return Err(true),
                Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Err(true),
            }
        }
    }

    fn whole(&mut self) -> Option<Frame> {
        let head = self.buffer.get(..9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if self.buffer.len() < 9 + length {
            return None;
        }
        let bytes: Vec<u8> = self.buffer.drain(..9 + length).collect();
        let stream = bytes[5..9].try_into().expect("4 bytes");
        Some(Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes(stream),
            payload: bytes[9..].to_vec(),
        })
    }

    /// How a stream ends, within [`SOON`]. Windows are not refilled.
    pub fn end_of(&mut self, stream: u32) -> End {
        self.end_within(stream, SOON)
    }

    pub fn end_within(&mut self, stream: u32, time: Duration) -> End {
        let until = Instant::now() + time;
        let mut answer = Answer::default();
        loop {
            let frame = match self.next(until.saturating_duration_since(Instant::now())) {
                Ok(frame) => frame,
                Err(true) => return End::Closed,
                Err(false) => return End::Silence,
            };
            match frame.kind {
                GOAWAY => return End::GoAway(frame.code().expect("a code")),
                _ if frame.stream != stream => continue,
                RST_STREAM => return End::Reset(frame.code().expect("a code")),
                HEADERS => {
                    assert!(frame.flags & END_HEADERS != 0, "small answers only");
                    let fields = hpack::decode(&frame.payload);
                    let interim = fields[0].1.starts_with('1');
                    if answer.fields.is_empty() && !interim {
                        answer.fields = fields;
                    } else if !interim {
                        answer.trailers = fields;
                    }
                }
                DATA => answer.body.extend_from_slice(&frame.payload),
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                return End::Answer(answer);
            }
        }
    }

    /// GOAWAY's code, or that the connection ended without one, within `time`.
    pub fn end_of_connection(&mut self, time: Duration) -> End {
        self.end_within(u32::MAX, time)
    }

    /// Whether the connection ends within `time`, whatever comes before.
    pub fn closed_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            match self.next(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(closed) => return closed,
            }
        }
    }
}

fn tcp(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, SOON).expect("the gateway listens");
    stream.set_write_timeout(Some(SOON)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}
