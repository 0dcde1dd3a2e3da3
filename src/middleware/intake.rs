//! The request body on its way in: its cap (`max_body`), its idle timeout, its count.
//!
//! A body whose Content-Length is over the cap is refused before anything is sent upstream; one
//! that grows past it fails the upload there, with 413 where no answer has begun. Bodies stream:
//! nothing is held here, except that small pieces which are there at once go on as one, so that a
//! body in one-byte chunks does not cost the upstream a chunk for each byte (CVE-2020-12603 and
//! its kin). A request without a body passes untouched.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::Either;
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::{Layer, Service};

use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::exchange::BodyIdle;
use crate::message::{Body, Exchange, Request, Response, exchange};

/// Watches over request bodies.
#[derive(Debug, Clone, Copy)]
pub struct IntakeLayer {
    /// The largest body; `None`: any.
    pub max_body: Option<u64>,
}

impl<S> Layer<S> for IntakeLayer {
    type Service = Intake<S>;
    fn layer(&self, inner: S) -> Intake<S> {
        Intake {
            inner,
            max_body: self.max_body,
        }
    }
}

/// The service of [`IntakeLayer`].
#[derive(Debug, Clone)]
pub struct Intake<S> {
    inner: S,
    max_body: Option<u64>,
}

impl<S> Service<Request> for Intake<S>
where
    S: Service<Request, Response = Response, Error = GatewayError>,
{
    type Response = Response;
    type Error = GatewayError;
    type Future = Either<S::Future, std::future::Ready<Result<Response, GatewayError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GatewayError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if request.body().is_end_stream() {
            return Either::Left(self.inner.call(request));
        }
        if self
            .max_body
            .is_some_and(|cap| request.body().size_hint().lower() > cap)
        {
            return Either::Right(std::future::ready(Err(Reason::BodyTooLarge.into())));
        }
        let Some(exchange) = exchange::of(&request).cloned() else {
            return Either::Left(self.inner.call(request));
        };
        let idle = request.extensions().get::<BodyIdle>().map(|idle| idle.0);
        exchange.upload_begins();
        let room = self.max_body;
        let inner = std::mem::take(request.body_mut());
        *request.body_mut() = Body::wrap(Watched {
            inner,
            exchange,
            room,
            idle,
            timer: None,
            next: None,
        });
        Either::Left(self.inner.call(request))
    }
}

/// Pieces below this are joined with what follows.
const SMALL: usize = 1024;
/// A joined piece is not made longer than this.
const JOINED: usize = 16 * 1024;

type Piece = Option<Result<Frame<Bytes>, GatewayError>>;

pin_project! {
    struct Watched {
        #[pin]
        inner: Body,
        exchange: Arc<Exchange>,
        room: Option<u64>,
        idle: Option<Duration>,
        #[pin]
        timer: Option<Sleep>,
        // What came behind joined pieces and is none.
        next: Option<Piece>,
    }

    impl PinnedDrop for Watched {
        fn drop(this: Pin<&mut Self>) {
            this.exchange.upload_ends(clock::now());
        }
    }
}

impl Watched {
    /// Counts a piece, against the cap too.
    fn count(
        room: &mut Option<u64>,
        exchange: &Exchange,
        piece: &Bytes,
    ) -> Result<(), GatewayError> {
        let length = piece.len() as u64;
        exchange.upload_grows(length);
        if let Some(left) = room {
            *left = left.checked_sub(length).ok_or(Reason::BodyTooLarge)?;
        }
        Ok(())
    }

    /// A small piece with those that are there already.
    fn join(
        mut inner: Pin<&mut Body>,
        next: &mut Option<Piece>,
        first: Bytes,
        cx: &mut Context<'_>,
    ) -> Bytes {
        let mut joined = BytesMut::from(first);
        while joined.len() < JOINED && !inner.is_end_stream() {
            match inner.as_mut().poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                    joined.extend(frame.into_data().ok());
                }
                Poll::Ready(other) => {
                    *next = Some(other);
                    break;
                }
            }
        }
        joined.freeze()
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let mut this = self.project();
        let polled = match this.next.take() {
            Some(piece) => Poll::Ready(piece),
            None => this.inner.as_mut().poll_frame(cx),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.timer.set(None);
                let frame = match frame.into_data() {
                    Err(trailers) => trailers,
                    Ok(mut data) => {
                        if data.len() < SMALL {
                            data = Watched::join(this.inner.as_mut(), this.next, data, cx);
                        }
                        Watched::count(this.room, this.exchange, &data)?;
                        Frame::data(data)
                    }
                };
                if this.next.is_none() && this.inner.is_end_stream() {
                    this.exchange.upload_ends(clock::now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(last) => {
                this.exchange.upload_ends(clock::now());
                Poll::Ready(last)
            }
            Poll::Pending => {
                let Some(idle) = *this.idle else {
                    return Poll::Pending;
                };
                if this.timer.is_none() {
                    this.timer.set(Some(tokio::time::sleep(idle)));
                }
                let timer = this.timer.as_pin_mut();
                if timer.is_some_and(|timer| timer.poll(cx).is_ready()) {
                    return Poll::Ready(Some(Err(Reason::RequestTimeout.into())));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::HeaderValue;
    use http::header::HeaderMap;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt;

    use super::*;
    use crate::message::Conn;
    use crate::message::sketch::Sketch;

    /// Gives these pieces at once, then trailers.
    struct Pieces(VecDeque<Frame<Bytes>>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = GatewayError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Piece> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn request(pieces: impl IntoIterator<Item = &'static [u8]>) -> Request {
        let data = pieces
            .into_iter()
            .map(|p| Frame::data(Bytes::from_static(p)));
        let last = Frame::trailers(HeaderMap::new());
        let body = Body::wrap(Pieces(data.chain([last]).collect()));
        let mut request = Box::new(http::Request::new(body));
        let anyone = "127.0.0.1:1".parse().expect("an address");
        let conn = Arc::new(Conn::new("web".into(), anyone, anyone, false, None));
        let id = HeaderValue::from_static("id");
        let (now, long) = (clock::now(), Duration::from_secs(9));
        let exchange = Exchange::new(conn, now, anyone.ip(), id, Sketch::default(), long);
        request.extensions_mut().insert(Arc::new(exchange));
        request
    }

    /// The lengths of the pieces that come out; `None`: trailers.
    async fn taken(max_body: Option<u64>, request: Request) -> Result<Vec<Option<usize>>, Reason> {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let end = tower::service_fn(move |request: Request| {
            let tell = tell.clone();
            async move {
                let mut body = request.into_body();
                while let Some(frame) = body.frame().await {
                    tell.send(frame?.data_ref().map(Bytes::len))
                        .expect("it is read");
                }
                Ok(Response::default())
            }
        });
        let outcome = IntakeLayer { max_body }.layer(end).oneshot(request).await;
        outcome.map_err(|error| error.reason())?;
        let mut all = Vec::new();
        while let Ok(length) = told.try_recv() {
            all.push(length);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a45_small_pieces_go_on_as_one_and_large_ones_as_they_are() {
        let small = std::iter::repeat_n(&b"x"[..], 5_000);
        assert_eq!(
            taken(None, request(small)).await,
            Ok(vec![Some(5_000), None])
        );
        let large = [&[0; 2_000][..], &[0; 3_000]];
        let expected = Ok(vec![Some(2_000), Some(3_000), None]);
        assert_eq!(taken(None, request(large)).await, expected);
    }

    #[tokio::test]
    async fn a_body_that_grows_past_the_cap_is_refused() {
        let pieces = || [&[0; 2_000][..], &[0; 2_000]];
        assert!(taken(Some(4_000), request(pieces())).await.is_ok());
        assert_eq!(
            taken(Some(3_999), request(pieces())).await,
            Err(Reason::BodyTooLarge)
        );
    }
}
