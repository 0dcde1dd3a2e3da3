//! The one body type: streaming by default, never collected.
//!
//! A body is nothing, one piece, what hyper receives, or a boxed stream that a layer has wrapped
//! around another body. Its error is [`GatewayError`], so that a broken stream says in one word
//! why. Backpressure is the reader's: nothing is polled ahead.

use std::error::Error as _;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::hop;
use crate::error::{GatewayError, Reason, Side};

/// The largest piece of a body that is whole in memory. Who writes takes one at a time, so that a
/// body ends when about its last bytes leave, and not when a client has yet to take them all.
const PIECE: usize = 64 << 10;

/// A streaming body.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Incoming(Incoming, Side),
    Boxed(Boxed),
}

type Boxed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = GatewayError> + Send>>;

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Body::default()
    }

    /// What a client sends.
    pub fn from_client(incoming: Incoming) -> Self {
        Body::incoming(incoming, Side::Client)
    }

    /// What an upstream answers.
    pub fn from_upstream(incoming: Incoming) -> Self {
        Body::incoming(incoming, Side::Upstream)
    }

    fn incoming(incoming: Incoming, side: Side) -> Self {
        use http_body::Body as _;
        if incoming.is_end_stream() {
            Body::empty()
        } else {
            Body(Kind::Incoming(incoming, side))
        }
    }

    /// A layer's wrapping of another body.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = GatewayError> + Send + 'static,
    {
        Body(Kind::Boxed(Box::pin(body)))
    }

    /// The bytes, if the body is whole in memory (or there is none): it can be sent again.
    pub fn replay(&self) -> Option<Body> {
        match &self.0 {
            Kind::Empty => Some(Body::empty()),
            Kind::Full(bytes) => Some(Body::from(bytes.clone())),
            Kind::Incoming(..) | Kind::Boxed(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Body::empty()
        } else {
            Body(Kind::Full(bytes))
        }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let piece = bytes.split_to(bytes.len().min(PIECE));
                if bytes.is_empty() {
                    self.0 = Kind::Empty;
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Kind::Incoming(incoming, side) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|f| f.map(scrub).map_err(|e| broken(e, *side))))
            }
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Incoming(incoming, _) => incoming.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(incoming, _) => incoming.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Empty => "Body(empty)",
            Kind::Full(_) => "Body(full)",
            Kind::Incoming(..) => "Body(incoming)",
            Kind::Boxed(_) => "Body(boxed)",
        })
    }
}

/// Takes out of a trailer section what must not come there.
fn scrub(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        hop::scrub_trailers(trailers);
    }
    frame
}

/// What a receive error of hyper means: the client sent a body that cannot be read, or left; the
/// upstream broke its answer off.
fn broken(error: hyper::Error, side: Side) -> GatewayError {
    let reason = match side {
        Side::Upstream => Reason::HttpResponseIncomplete,
        Side::Client | Side::Gateway if is_malformed(&error) => Reason::BadRequest,
        Side::Client | Side::Gateway => Reason::ClientGone,
    };
    GatewayError::caused(reason, error)
}

/// A body that breaks the grammar, as opposed to one that stops early. hyper reports a bad chunk
/// as an I/O error of kind `InvalidInput` or `InvalidData`, and h2 a broken content-length as a
/// protocol error of its own making.
fn is_malformed(error: &hyper::Error) -> bool {
    if error.is_parse() {
        return true;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{InvalidData, InvalidInput};
            if matches!(io.kind(), InvalidData | InvalidInput) {
                return true;
            }
        }
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.is_library();
        }
        source = cause.source();
    }
    false
}
